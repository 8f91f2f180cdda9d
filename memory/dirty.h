/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dirty bitmaps: which pages of a RAM block were written since a client last asked.
 *
 * Each client has its own bitmap a block, one bit for 4 KiB, in 64-bit words that are only touched
 * atomically. A thread that writes guest memory marks it AFTER the write. A client clears a bit
 * BEFORE it reads the page. Then the client sees the new bytes, or the bit is set again. While no
 * client logs a block, marking costs one load.
 *
 * Bits are set by any thread. A client's bits are cleared by one thread at a time.
 */
#ifndef FERRY_MEMORY_DIRTY_H
#define FERRY_MEMORY_DIRTY_H

#include <stdbool.h>
#include <stdint.h>

typedef struct RAMBlock RAMBlock;

/* The clients, which keep track of writes. */
enum {
    DIRTY_MEMORY_VGA,  /* a display looks for what to repaint */
    DIRTY_MEMORY_CODE, /* reserved: no code is translated */
    DIRTY_MEMORY_MIGRATION,
    DIRTY_MEMORY_RATE, /* a measurement of how fast pages get dirty */
    DIRTY_MEMORY_NUM,
};

/*
 * Starts and stops logging of one block for a client; counted. When the first start returns, every
 * write that any thread begins from then on will be marked, and what was written before is visible
 * to the caller. It starts with an empty bitmap: the client sees only the writes after the start.
 * Any thread.
 */
void ram_block_log_start(RAMBlock *block, unsigned client);
void ram_block_log_stop(RAMBlock *block, unsigned client);
/* The same for all blocks there are and will be; a mask of 1 << client. listener.h has more. */
void ram_dirty_log_start_all(unsigned clients);
void ram_dirty_log_stop_all(unsigned clients);
/* ram-block.c's calls: a block that is about to enter the list; one that dies. */
void ram_block_dirty_init(RAMBlock *block);
void ram_block_dirty_free(RAMBlock *block);

/* Whether that client logs the block. Any thread. */
bool ram_block_is_logged(const RAMBlock *block, unsigned client);

/*
 * Marks the pages that [offset, offset + bytes) touches, for every client that logs the block. What
 * lies beyond max_length is ignored. Any thread; after the write.
 */
void ram_block_set_dirty(RAMBlock *block, uint64_t offset, uint64_t bytes);
/* The same for one client only, whether it logs or not (nothing happens before its first start). */
void ram_block_set_dirty_client(RAMBlock *block, unsigned client, uint64_t offset, uint64_t bytes);
/*
 * Marks the pages of a foreign bitmap (KVM's log) of host-order 64-bit words. Bit i of `map` stands
 * for the page at offset + i * 4 KiB. offset is a multiple of 4 KiB. Any thread.
 */
void ram_block_set_dirty_bitmap(RAMBlock *block, uint64_t offset, const uint64_t *map,
                                uint64_t pages);

/*
 * Moves a client's dirty bits of [start, start + pages) (page numbers) into dest, whose bit 0 is
 * page 0 of the block: dest |= dirty, dirty = 0. Returns how many bits of dest became set that were
 * clear. dest is the caller's: no other thread changes it meanwhile. The pages' content may be read
 * afterwards.
 */
uint64_t ram_block_dirty_sync_and_clear(RAMBlock *block, unsigned client, uint64_t *dest,
                                        uint64_t start, uint64_t pages);
/* Clears them; true if any was set. */
bool ram_block_test_and_clear_dirty(RAMBlock *block, unsigned client, uint64_t offset,
                                    uint64_t bytes);
/* True if any page that [offset, offset + bytes) touches is dirty for the client. */
bool ram_block_get_dirty(const RAMBlock *block, unsigned client, uint64_t offset, uint64_t bytes);

#endif
