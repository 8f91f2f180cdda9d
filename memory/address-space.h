/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Address spaces, and reading and writing them.
 *
 * Any thread reads and writes RAM at any time. An access that meets MMIO runs the device's
 * operations under the big lock (util/bql.h), which it takes if the caller does not hold it. A
 * lockless region needs no lock; a write that signals an eventfd takes none either. No address or
 * length is ever an error of the caller's: an address without a region reads as zero bytes, ignores
 * writes, and gives MEMTX_DECODE_ERROR.
 */
#ifndef FERRY_MEMORY_ADDRESS_SPACE_H
#define FERRY_MEMORY_ADDRESS_SPACE_H

#include "memory/flatview.h"
#include "memory/memory.h"

typedef struct MemoryListener MemoryListener;
TAILQ_HEAD(MemoryListenerList, MemoryListener);

typedef struct AddressSpace {
    char *name;
    MemoryRegion *root;
    FlatView *current;   /* atomic; NULL: not made. Other threads pin it (view-pin.h) */
    uint64_t generation; /* atomic: grows after each change of the view */
    struct MemoryListenerList listeners; /* ascending priority */
    TAILQ_ENTRY(AddressSpace) link;
    uint64_t bounce_bytes; /* of bounce buffers in use; with the next under dma.c's lock */
    GQueue bounce_waiting; /* DMARetry, all zero when it is empty */
} AddressSpace;

/*
 * `root` outlives it. Spaces whose roots show the same regions share one view, so that one more
 * space costs a commit little. Main thread.
 */
void address_space_init(AddressSpace *as, MemoryRegion *root, const char *name);
/* Its listeners have gone. Main thread. */
void address_space_destroy(AddressSpace *as);

/* The machine's memory and I/O ports; made by the first call, which is the main thread's. */
AddressSpace *get_address_space_memory(void);
AddressSpace *get_address_space_io(void);
MemoryRegion *get_system_memory(void);
MemoryRegion *get_system_io(void);

/* The view that holds now; the caller ends with flatview_unref(). Any thread. */
FlatView *address_space_get_flatview(AddressSpace *as) G_GNUC_WARN_UNUSED_RESULT;

/* Writes mark pages dirty. Accesses to read-only RAM are ignored without an error. */
MemTxResult address_space_read(AddressSpace *as, hwaddr addr, MemTxAttrs attrs, void *buf,
                               uint64_t len);
MemTxResult address_space_write(AddressSpace *as, hwaddr addr, MemTxAttrs attrs, const void *buf,
                                uint64_t len);
MemTxResult address_space_rw(AddressSpace *as, hwaddr addr, MemTxAttrs attrs, void *buf,
                             uint64_t len, bool is_write);
/* len bytes of the same value. */
MemTxResult address_space_set(AddressSpace *as, hwaddr addr, uint8_t value, uint64_t len,
                              MemTxAttrs attrs);
/* Loads firmware: as write, and into ROM as well; MMIO is skipped. */
MemTxResult address_space_write_rom(AddressSpace *as, hwaddr addr, MemTxAttrs attrs,
                                    const void *buf, uint64_t len);

/* Whether all of it is RAM that may be accessed that way. */
bool address_space_access_valid(AddressSpace *as, hwaddr addr, uint64_t len, bool is_write);

/*
 * Direct access to RAM (dma.h has what devices use): the host's address of `addr`, good for *len
 * bytes; *len shrinks to the bytes that are contiguous there. NULL: MMIO, no region, or ROM to be
 * written; the caller then uses address_space_rw(). The memory stays until address_space_unmap().
 * Any thread.
 */
void *address_space_map(AddressSpace *as, hwaddr addr, uint64_t *len, bool is_write,
                        MemTxAttrs attrs);
/* `accessed` is how many bytes were written (is_write): they are marked dirty. */
void address_space_unmap(AddressSpace *as, void *host, uint64_t len, bool is_write,
                         uint64_t accessed);

/*
 * Single values, in the byte order that the name says; *result (may be NULL) receives how it ended.
 * What can't be read is 0. An aligned value in RAM is read or written in one piece: other threads
 * and vCPUs see all of a store or nothing of it. There is no order with other accesses but that.
 */
#define ADDRESS_SPACE_VALUE(bits, suffix)                                                    \
    uint##bits##_t address_space_ld##suffix(AddressSpace *as, hwaddr addr, MemTxAttrs attrs, \
                                            MemTxResult *result);                            \
    void address_space_st##suffix(AddressSpace *as, hwaddr addr, uint##bits##_t value,       \
                                  MemTxAttrs attrs, MemTxResult *result);
ADDRESS_SPACE_VALUE(8, b)
ADDRESS_SPACE_VALUE(16, w_le)
ADDRESS_SPACE_VALUE(32, l_le)
ADDRESS_SPACE_VALUE(64, q_le)
ADDRESS_SPACE_VALUE(16, w_be)
ADDRESS_SPACE_VALUE(32, l_be)
ADDRESS_SPACE_VALUE(64, q_be)
#undef ADDRESS_SPACE_VALUE

#endif
