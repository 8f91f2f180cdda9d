/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of memory/ share: how a committed change of regions reaches the address spaces. */
#ifndef FERRY_MEMORY_MEMORY_INT_H
#define FERRY_MEMORY_MEMORY_INT_H

#include "memory/address-space.h"

/*
 * Makes new views where the transaction of that number has changed something, and tells the
 * listeners. Main thread.
 */
void address_spaces_update(uint64_t transaction);
/* An open transaction has changed regions: views still show the old layout. Main thread. */
bool memory_transaction_is_pending(void);
/* The next address space in order of creation; NULL starts and ends. Main thread. */
AddressSpace *address_space_next(AddressSpace *as);

/* A view gets in the place of the old one; only inside memory_listeners_change(). */
typedef void AddressSpacePublish(AddressSpace *as, FlatView *view);
/*
 * A view of `as` changes from `old` (NULL: nothing) to `view`: calls the listeners around
 * publish().
 */
void memory_listeners_change(AddressSpace *as, FlatView *old, FlatView *view,
                             AddressSpacePublish *publish);

/* Collected writes reach their devices; see MemoryAccelOps. Big lock held. */
void memory_flush_coalesced(void);

/* events.c's part of a region: changes are over (a transaction); the region dies. Main thread. */
void memory_region_events_changed(MemoryRegion *mr);
void memory_region_drop_events(MemoryRegion *mr);

/* One access through the operations; `t` has been looked at by nothing yet. */
MemTxResult memory_region_dispatch(MemoryRegion *mr, MemoryTransaction *t);
/* The widest access at addr that the guest may make; 1..8, at most len. */
unsigned memory_region_step(const MemoryRegion *mr, hwaddr addr, uint64_t len);

#endif
