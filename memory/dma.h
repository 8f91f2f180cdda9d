/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Access of a device to guest memory, for as long as a request takes.
 *
 * dma_map() gives the host's address of RAM. Other addresses (a device's registers, ROM to be
 * written, no region at all) are reached through a bounce buffer. address_space_rw() fills it when
 * it is mapped, and writes it back when it is unmapped. A guest decides how many bounce buffers it
 * needs, so each address space has a bound for them. When it is reached, the device waits for a
 * call.
 */
#ifndef FERRY_MEMORY_DMA_H
#define FERRY_MEMORY_DMA_H

#include "memory/address-space.h"

/* Bytes of bounce buffers in an address space, and of one of them. */
#define DMA_BOUNCE_BYTES_MAX 65536u
#define DMA_BOUNCE_PIECE_MAX 4096u

typedef enum DMADirection {
    DMA_DIRECTION_TO_DEVICE,   /* the device reads memory */
    DMA_DIRECTION_FROM_DEVICE, /* the device writes memory */
} DMADirection;

typedef struct DMAMapping {
    void *host;
    uint64_t len;       /* bytes at host: at least 1, at most those asked for */
    MemTxResult result; /* of reading into a bounce buffer; MEMTX_OK for RAM */

    /* dma.c's. */
    AddressSpace *as;
    hwaddr addr;
    MemTxAttrs attrs;
    DMADirection direction;
    RAMBlock *block; /* referenced; NULL: host is a bounce buffer */
    uint64_t offset; /* in the block */
} DMAMapping;

/*
 * Maps memory at `addr`, as much of `len` (above 0) bytes as is contiguous. False: no bounce buffer
 * is left, nothing was mapped; dma_retry_later() tells when to try again. RAM stays mapped until
 * dma_unmap(), whatever the guest does to its address space. Any thread; takes the big lock if it
 * meets a device's registers and the caller does not hold it.
 */
bool dma_map(DMAMapping *map, AddressSpace *as, hwaddr addr, uint64_t len, DMADirection direction,
             MemTxAttrs attrs) G_GNUC_WARN_UNUSED_RESULT;
/*
 * The same for RAM alone, without a bounce buffer and without a lock. False: `addr` is not RAM, or RAM that the
 * device cannot access in that direction; nothing was mapped. Any thread.
 */
bool dma_map_ram(DMAMapping *map, AddressSpace *as, hwaddr addr, uint64_t len,
                 DMADirection direction, MemTxAttrs attrs) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Ends it. The device has written the first `accessed` bytes (FROM_DEVICE): they are marked dirty,
 * or written from the bounce buffer; the result is that of the write. Any thread, as dma_map().
 */
MemTxResult dma_unmap(DMAMapping *map, uint64_t accessed);

/* The owner's; dma.c holds it from dma_retry_later() to the call, or to dma_retry_cancel(). */
typedef struct DMARetry {
    void (*fn)(void *opaque);
    void *opaque;
} DMARetry;

/*
 * Calls retry->fn once, when a bounce buffer has become free or at once if one is. The call comes
 * from whatever thread unmaps, under a lock: fn schedules work and calls nothing of this header.
 */
void dma_retry_later(AddressSpace *as, DMARetry *retry);
/* Does nothing if it was called. When this returns, fn does not run and will not. Any thread. */
void dma_retry_cancel(AddressSpace *as, DMARetry *retry);

#endif
