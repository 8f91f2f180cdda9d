/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which pages of guest memory were ever touched, found out without touching them.
 *
 * Anonymous memory: the process's page map (PAGEMAP_SCAN where the kernel has it, else
 * /proc/self/pagemap); pages in swap count as touched. Shared mappings of files and memfds: the
 * file's data extents (SEEK_DATA).
 *
 * What the answer means while others write: a page that is reported untouched read as zero bytes at
 * some moment between the call and the return. A page written before the call is never reported
 * untouched; one that was only read, or is zero, may be reported touched. A page first written
 * during the call may go either way, so dirty logging must be on before: then that write is in the
 * log.
 */
#ifndef FERRY_MEMORY_POPULATED_H
#define FERRY_MEMORY_POPULATED_H

#include <stdbool.h>
#include <stdint.h>
#include "memory/ram-block.h"

/*
 * Fills `map` (host-order 64-bit words, bit 0 is page 0) for the range [offset, offset + bytes),
 * which is 4 KiB aligned. A bit is set if its page may hold a byte that is not zero, else cleared.
 * Bits behind the last page in its word are cleared. False: the kernel or the kind of block does
 * not tell, all bits are set. Any thread; takes milliseconds a GiB, no memory but the map.
 */
bool ram_block_populated(const RAMBlock *block, uint64_t offset, uint64_t bytes, uint64_t *map);

/* Tests: pretend the kernel has no PAGEMAP_SCAN. */
void ram_block_populated_disable_scan(bool disable);

#endif
