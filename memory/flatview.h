/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FlatView: an address space as a sorted array of ranges that do not overlap. Immutable and
 * counted: a thread that took a view may use the RAM in it however the address space changes
 * meanwhile, since the view holds its RAM blocks. Ranges of MMIO are for the main thread, and only
 * while the view is the current one.
 */
#ifndef FERRY_MEMORY_FLATVIEW_H
#define FERRY_MEMORY_FLATVIEW_H

#include "memory/memory.h"

typedef struct FlatRange {
    hwaddr first, last; /* both inside: [0, UINT64_MAX] can be said */
    MemoryRegion *mr;   /* main thread; others compare it at most */
    hwaddr offset;      /* of `first` in mr, and in the block if it is RAM */
    RAMBlock *block;    /* RAM: referenced; else NULL */
    bool readonly;
    unsigned log_mask; /* 1 << client: what the region's owner logs */
} FlatRange;

typedef struct FlatView {
    int refs;
    unsigned n, allocated;
    FlatRange *ranges;
} FlatView;

/*
 * What the tree at `root` (NULL: nothing) looks like now; one reference for the caller. Main
 * thread.
 */
FlatView *flatview_new(MemoryRegion *root) G_GNUC_WARN_UNUSED_RESULT;
void flatview_ref(FlatView *view);
void flatview_unref(FlatView *view);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FlatView, flatview_unref)

/* The range that holds addr, or NULL. */
const FlatRange *flatview_find(const FlatView *view, hwaddr addr);
/* The first range that ends at or behind addr, or NULL. */
const FlatRange *flatview_find_from(const FlatView *view, hwaddr addr);

/* The same thing is at the same place (how writes are logged may differ). */
bool flatrange_same(const FlatRange *a, const FlatRange *b);

#endif
