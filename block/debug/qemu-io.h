/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command language of qemu-io: requests on a disk, written by people and tests, on a monitor's
 * `qemu-io NODE "COMMAND"`.
 *
 *   read, readv, write, writev, discard, flush    one request; verified, dumped and timed
 *   aio_read, aio_write, aio_flush                requests in the background, and waiting for them
 *   truncate, length, map, alloc, info            about the image
 *   break, wait_break, resume, remove_break       breakpoints of the blkdebug node below
 *   sleep, help
 *
 * Words are separated by blanks. Offsets and lengths are bytes with an optional suffix (k, M, G, T,
 * P, E) or hexadecimal (0x..).
 */
#ifndef FERRY_BLOCK_QEMU_IO_H
#define FERRY_BLOCK_QEMU_IO_H

#include <glib.h>
#include "block/block-backend.h"

/*
 * Runs one line on blk, which has a medium; appends what it prints, mistakes and failed requests
 * included, to `out`. False with errp when blk may not do what the command does (a read-only node).
 * Main thread; requests run in the thread of the graph. A background request keeps blk until it
 * ends, and prints to standard output then.
 */
bool coroutine_fn qemuio_co_command(BlockBackend *blk, const char *line, GString *out,
                                    GError **errp);

#endif
