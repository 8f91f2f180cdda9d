/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mapped-ram: every page has its place in the file, and a bitmap tells which places hold bytes; the
 * others are zero.
 *
 * In the list of blocks, behind a block's length:
 *
 *   be32 version 1 | be64 page size | be64 offset of the bitmap | be64 offset of page 0
 *   bitmap: a bit a page, little-endian 64-bit words      the stream goes on at
 *   padding to a multiple of 1 MiB                        page 0 + length of the block
 *   pages
 *
 * Offsets are bytes from the start of the file. Page records are not used.
 *
 * With multifd threads write and read the pages, with direct-io past the page cache (ram-mapped-io.h):
 * their places are aligned to 4 KiB in the file and in memory. The stream itself, headers and bitmaps
 * go through the page cache. The file is the same, so either side may do as it likes.
 */
#ifndef FERRY_MIGRATION_RAM_MAPPED_H
#define FERRY_MIGRATION_RAM_MAPPED_H

#include "migration/ram-load.h"
#include "migration/ram.h"

/* --- the source's thread; 0 or -errno, which is the file's error as well --- */

/* Before the first header: gets ready to write pages, as rs->mapped. False with an error. */
bool ram_mapped_save_begin(RAMSaveState *rs, QEMUFile *f, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Writes the header and chooses the places. */
int ram_mapped_save_header(QEMUFile *f, RAMSaveBlock *sb);
/*
 * Writes the run's pages to their places, but for those that are zero, or has it done by threads, which
 * read them when they come to it.
 */
int ram_mapped_save_run(RAMSaveState *rs, QEMUFile *f, const RAMRun *run);
/* Waits for the threads: what follows may be pages that they have already. */
int ram_mapped_save_barrier(RAMSaveState *rs, QEMUFile *f);
/* No pages follow: waits for the threads, and writes the bitmaps. */
int ram_mapped_save_bitmaps(RAMSaveState *rs, QEMUFile *f);

/* --- the incoming thread --- */

/* Reads the header, the bitmap, and the block's pages, `length` bytes of them. 0 or -errno. */
int ram_mapped_load_block(RAMLoadState *rl, QEMUFile *f, RAMRecvBlock *rb, uint64_t length,
                          GError **errp);

#endif
