/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Flattening a tree of regions.
 *
 * The tree is walked from what is seen first to what is seen last; each region that is something
 * itself fills only the addresses that are still free. Coordinates are 128 bits wide and signed: an
 * alias may place its region's start below address 0, and an end may be 2^64.
 */
#include "memory/flatview.h"

#include <string.h>

typedef __int128 Coord;

/* [start, end) */
typedef struct Span {
    Coord start, end;
} Span;

static Span span_cut(Span a, Span b)
{
    return (Span){MAX(a.start, b.start), MIN(a.end, b.end)};
}

/* --- the array --- */

static void insert_at(FlatView *view, unsigned index, const FlatRange *range)
{
    if (view->n == view->allocated) {
        view->allocated = MAX(16, 2 * view->allocated);
        view->ranges = g_renew(FlatRange, view->ranges, view->allocated);
    }
    memmove(view->ranges + index + 1, view->ranges + index,
            (view->n - index) * sizeof(view->ranges[0]));
    view->ranges[index] = *range;
    view->n++;
}

/* Index of the first range that ends at or behind addr. */
static unsigned lower_bound(const FlatView *view, hwaddr addr)
{
    unsigned low = 0, high = view->n;

    while (low < high) {
        unsigned middle = low + (high - low) / 2;

        if (view->ranges[middle].last < addr) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const FlatRange *flatview_find_from(const FlatView *view, hwaddr addr)
{
    unsigned index = lower_bound(view, addr);

    return index < view->n ? &view->ranges[index] : NULL;
}

const FlatRange *flatview_find(const FlatView *view, hwaddr addr)
{
    const FlatRange *range = flatview_find_from(view, addr);

    return range && range->first <= addr ? range : NULL;
}

bool flatrange_same(const FlatRange *a, const FlatRange *b)
{
    return a->first == b->first && a->last == b->last && a->mr == b->mr && a->offset == b->offset &&
           a->block == b->block && a->readonly == b->readonly;
}

/* --- rendering --- */

/* Fills what is free of `visible` with mr, whose own start is at `base`. */
static void fill(FlatView *view, MemoryRegion *mr, Coord base, Span visible, bool readonly)
{
    unsigned index = lower_bound(view, (hwaddr)visible.start);
    Coord at = visible.start;

    while (at < visible.end) {
        bool taken = index < view->n;
        Coord next = taken ? MIN((Coord)view->ranges[index].first, visible.end) : visible.end;

        if (at < next) {
            FlatRange range = {
                .first = (hwaddr)at,
                .last = (hwaddr)(next - 1),
                .mr = mr,
                .offset = (hwaddr)(at - base),
                .block = mr->ram_block,
                .readonly = readonly,
                .log_mask = mr->log_mask,
            };

            insert_at(view, index++, &range);
            at = next;
        }
        if (index < view->n && view->ranges[index].first < visible.end) {
            at = MAX(at, (Coord)view->ranges[index].last + 1);
            index++;
        }
    }
}

/* `base`: where mr's container (or the window of an alias) has its start. */
static void render(FlatView *view, MemoryRegion *mr, Coord base, Span clip, bool readonly)
{
    MemoryRegion *sub;

    if (!mr->enabled) {
        return;
    }
    base += mr->addr;
    clip = span_cut(clip, (Span){base, base + (Coord)mr->size});
    if (clip.start >= clip.end) {
        return;
    }
    readonly |= mr->readonly;
    if (mr->alias) {
        render(view, mr->alias, base - mr->alias_offset - mr->alias->addr, clip, readonly);
        return;
    }
    TAILQ_FOREACH(sub, &mr->subregions, link) {
        render(view, sub, base, clip, readonly);
    }
    if (mr->ram_block || mr->ops) {
        fill(view, mr, base, clip, readonly);
    }
}

/* Joins neighbours that show successive parts of one region. */
static void merge(FlatView *view)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < view->n; i++) {
        FlatRange *range = &view->ranges[i], *before = kept ? &view->ranges[kept - 1] : NULL;

        if (before && before->last + 1 == range->first && before->mr == range->mr &&
            before->readonly == range->readonly && before->log_mask == range->log_mask &&
            before->offset + (range->first - before->first) == range->offset) {
            before->last = range->last;
        } else {
            view->ranges[kept++] = *range;
        }
    }
    view->n = kept;
}

FlatView *flatview_new(MemoryRegion *root)
{
    FlatView *view = g_new0(FlatView, 1);
    Span everything = {0, (Coord)1 << 64};

    view->refs = 1;
    if (root) {
        render(view, root, 0, everything, false);
    }
    merge(view);
    for (unsigned i = 0; i < view->n; i++) {
        if (view->ranges[i].block) {
            ram_block_ref(view->ranges[i].block);
        }
    }
    return view;
}

void flatview_ref(FlatView *view)
{
    __atomic_fetch_add(&view->refs, 1, __ATOMIC_RELAXED);
}

void flatview_unref(FlatView *view)
{
    if (!view || __atomic_sub_fetch(&view->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    for (unsigned i = 0; i < view->n; i++) {
        ram_block_unref(view->ranges[i].block);
    }
    g_free(view->ranges);
    g_free(view);
}
