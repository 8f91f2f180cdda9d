/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FlatView: an address space as a sorted array of ranges that do not overlap. Immutable and
 * counted: a thread that took a view may use the RAM in it however the address space changes
 * meanwhile, since the view holds its RAM blocks. Ranges of MMIO are for the main thread, and only
 * while the view is the current one.
 */
#ifndef FERRY_MEMORY_FLATVIEW_H
#define FERRY_MEMORY_FLATVIEW_H

#include "memory/events.h"
#include "memory/memory.h"

typedef struct FlatRange {
    hwaddr first, last; /* both inside: [0, UINT64_MAX] can be said */
    MemoryRegion *mr;   /* main thread; others compare it at most */
    hwaddr offset;      /* of `first` in mr, and in the block if it is RAM */
    RAMBlock *block;    /* RAM, and a ROM device in ROM mode: referenced; else NULL */
    bool readonly;
    bool romd;         /* reads are those of `block`, writes go to the operations */
    bool lockless;     /* the operations run without the big lock */
    unsigned log_mask; /* 1 << client: what the region's owner logs */
} FlatRange;

typedef struct FlatView {
    int refs;
    const MemoryRegion *root; /* what it shows; NULL: nothing. Main thread, to compare */
    unsigned n, n_eventfds, n_coalesced;
    FlatRange *ranges;
    FlatEventFd *eventfds; /* ascending addresses */
    MemoryCoalesced *coalesced;
} FlatView;

/*
 * The region whose view is the same as that of `root`: a root that shows one region and nothing
 * else has no view of its own. NULL: nothing is seen. Main thread.
 */
MemoryRegion *flatview_shared_root(MemoryRegion *root);
/*
 * What the tree at `root` (NULL: nothing) looks like now; one reference for the caller. Main
 * thread.
 */
FlatView *flatview_render(MemoryRegion *root) G_GNUC_WARN_UNUSED_RESULT;
void flatview_ref(FlatView *view);
void flatview_unref(FlatView *view);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FlatView, flatview_unref)

/* The range that holds addr, or NULL. */
const FlatRange *flatview_find(const FlatView *view, hwaddr addr);
/* The first range that ends at or behind addr, or NULL. */
const FlatRange *flatview_find_from(const FlatView *view, hwaddr addr);

/* Both show the same memory at the same place (how writes are logged may differ). */
bool flatrange_same(const FlatRange *a, const FlatRange *b);
/* Both show the same in every respect. Either may be NULL, which is like nothing else. */
bool flatview_same(const FlatView *a, const FlatView *b);
/* Index of the first eventfd at or behind addr. */
unsigned flatview_eventfds_from(const FlatView *view, hwaddr addr);
/* The eventfd that a write signals; NULL: none. */
const MemoryEventFd *flatview_find_eventfd(const FlatView *view, hwaddr addr, uint64_t data,
                                           uint64_t size);
/* Where the start of the block is seen first; 0 also for a block that is not seen. */
hwaddr flatview_block_address(const FlatView *view, const RAMBlock *block);

#endif
