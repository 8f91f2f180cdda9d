/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RAM in a migration: the entry "ram" (version 4) of the stream, and what its rooms share.
 *
 *   ram-bitmap.c   which pages are left: a bitmap a block, filled from the dirty log, a pass at a time
 *   ram-save.c     chooses pages and writes records; setup and completion
 *   ram-load.c     reads records into guest memory;  ram-receive.c  which of its pages have arrived
 *   xbzrle.c       deltas;  multifd*.c  extra channels
 *   ram-mapped.c   pages at fixed offsets of a file;  ram-mapped-io.c  the threads that move them
 *
 * Record: a be64 whose low 12 bits are flags and whose upper bits are the offset in the block (bytes).
 */
#ifndef FERRY_MIGRATION_RAM_H
#define FERRY_MIGRATION_RAM_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "memory/ram-block.h"
#include "migration/auto-converge.h"
#include "migration/migration.h"
#include "migration/ram-mapped-io.h"
#include "migration/xbzrle.h"
#include "vmstate/qemu-file.h"

#define RAM_SAVE_VERSION 4

enum {
    RAM_SAVE_FLAG_ZERO = 0x002,
    RAM_SAVE_FLAG_MEM_SIZE = 0x004,
    RAM_SAVE_FLAG_PAGE = 0x008,
    RAM_SAVE_FLAG_EOS = 0x010,
    RAM_SAVE_FLAG_CONTINUE = 0x020,
    RAM_SAVE_FLAG_XBZRLE = 0x040,
    RAM_SAVE_FLAG_HOOK = 0x080,
    RAM_SAVE_FLAG_MULTIFD_FLUSH = 0x200,
};

/* Registers the entry; once, by migration_init(). */
void ram_mig_init(void);

/* Not sent because the destination has the same file (x-ignore-shared). */
bool ram_block_is_ignored(const RAMBlock *block, const MigrationSettings *settings);

/* --- pages that are left to send: ram-bitmap.c --- */

typedef struct RAMBitmap RAMBitmap;

/* One block of this migration. The source's thread's; constant but for the bitmaps. */
typedef struct RAMSaveBlock {
    RAMBlock *block; /* referenced */
    uint64_t pages;  /* of its used length when the migration began */
    uint64_t *dirty; /* bit i: page i is to be sent; the source's thread's */
    /*
     * The first pass. Bit i of `looked`: unit i was looked at; of `untouched`: page i of such a unit
     * reads as zero unless the log says other. NULL: not known, or not the first pass.
     */
    uint64_t *untouched, *looked;
    uint64_t *uncleared; /* bit i: the log still has what it told about chunk i */
    bool ignored;
    /* mapped-ram */
    uint64_t *file_bitmap;                /* bit i: page i has its bytes in the file; atomic */
    uint64_t bitmap_offset, pages_offset; /* bytes in the file */
} RAMSaveBlock;

/* All blocks that migrate, in the order of the list in START. */
typedef struct RAMSaveState {
    GArray *blocks;       /* RAMSaveBlock */
    uint64_t dirty_pages; /* set bits in all bitmaps */
    unsigned cur_block;   /* where the walk is */
    uint64_t cur_page;
    RAMBlock *last_sent;  /* of the main channel's records; NULL: none */
    bool first_pass;      /* pages that were never touched need not be looked at */
    int64_t last_sync_ns; /* QEMU_CLOCK_REALTIME: since when fresh_pages counts */
    MigrationState *s;
    XBZRLECache *xbzrle; /* NULL: off */
    MappedIO *mapped;    /* NULL: not mapped-ram */

    /* ram-bitmap.c's */
    bool logging;         /* the dirty log is on */
    bool last_synced;     /* the last pass over the log is done: the guest is stopped */
    unsigned clear_shift; /* a chunk in which the log is cleared has 2^this pages */
    unsigned look_shift;  /* a unit in which untouched pages are found has 2^this pages */
    uint64_t fresh_pages; /* written since last_sync_ns */
    AutoConverge converge;
    /* ram-save.c's */
    bool multifd_unsynced; /* pages went to channels since the last barrier */
} RAMSaveState;

/*
 * Takes the list of blocks, starts the dirty log and marks every page as to be sent. Takes the
 * big lock for the log. NULL with an error.
 */
RAMSaveState *ram_save_state_new(MigrationState *s, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Stops the log and frees. */
void ram_save_state_free(RAMSaveState *rs);

/* Blocks keep their sizes while they are sent. False with an error: one was resized. */
bool ram_save_check_blocks(RAMSaveState *rs, GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/*
 * A pass: fetches the dirty log into the bitmaps, counts, and tells clients (MIGRATION_PASS). Called
 * with the big lock held iff bql_locked().
 */
void ram_sync_dirty_log(RAMSaveState *rs, bool last);

/* A run of pages to be sent: consecutive, in one block, all dirty before and clean now. */
typedef struct RAMRun {
    RAMSaveBlock *sb;
    uint64_t first; /* page number */
    uint32_t n;     /* pages, 1..max */
    bool
        untouched; /* all of them read as zero in the first pass, without a look; else none of them */
} RAMRun;

/*
 * The next run from where the walk is, of at most max pages; its bits are cleared, and the log's for
 * the same pages, before the caller reads them. False: nothing is left between here and the end of
 * the list; the walk starts over there.
 */
bool ram_find_run(RAMSaveState *rs, uint32_t max, RAMRun *run);

#endif
