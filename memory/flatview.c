/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Flattening a tree of regions.
 *
 * The tree is walked from what is seen first to what is seen last; each region that is something
 * itself fills only the addresses that are still free. Coordinates are 128 bits wide and signed: an
 * alias may place its region's start below address 0, and an end may be 2^64.
 */
#include "memory/flatview.h"

typedef __int128 Coord;

/* [start, end) */
typedef struct Span {
    Coord start, end;
} Span;

static Span span_cut(Span a, Span b)
{
    return (Span){MAX(a.start, b.start), MIN(a.end, b.end)};
}

/* --- looking --- */

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
           a->block == b->block && a->readonly == b->readonly && a->romd == b->romd;
}

static bool same_events(const FlatView *a, const FlatView *b)
{
    bool same = a->n_eventfds == b->n_eventfds && a->n_coalesced == b->n_coalesced;

    for (unsigned i = 0; same && i < a->n_eventfds; i++) {
        same = a->eventfds[i].addr == b->eventfds[i].addr &&
               a->eventfds[i].event == b->eventfds[i].event;
    }
    for (unsigned i = 0; same && i < a->n_coalesced; i++) {
        same = a->coalesced[i].first == b->coalesced[i].first &&
               a->coalesced[i].last == b->coalesced[i].last;
    }
    return same;
}

bool flatview_same(const FlatView *a, const FlatView *b)
{
    bool same = a && b && a->n == b->n && same_events(a, b);

    for (unsigned i = 0; same && i < a->n; i++) {
        same = flatrange_same(&a->ranges[i], &b->ranges[i]) &&
               a->ranges[i].log_mask == b->ranges[i].log_mask;
    }
    return same;
}

unsigned flatview_eventfds_from(const FlatView *view, hwaddr addr)
{
    unsigned low = 0, high = view->n_eventfds;

    while (low < high) {
        unsigned middle = low + (high - low) / 2;

        if (view->eventfds[middle].addr < addr) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const MemoryEventFd *flatview_find_eventfd(const FlatView *view, hwaddr addr, uint64_t data,
                                           uint64_t size)
{
    for (unsigned i = flatview_eventfds_from(view, addr);
         i < view->n_eventfds && view->eventfds[i].addr == addr; i++) {
        if (memory_eventfd_matches(view->eventfds[i].event, data, size)) {
            return view->eventfds[i].event;
        }
    }
    return NULL;
}

hwaddr flatview_block_address(const FlatView *view, const RAMBlock *block)
{
    for (unsigned i = 0; i < view->n; i++) {
        if (view->ranges[i].block == block && view->ranges[i].offset == 0) {
            return view->ranges[i].first;
        }
    }
    return 0;
}

/* --- rendering --- */

/* Ranges that are there so far, ascending; without references. */
typedef struct Canvas {
    GArray *ranges; /* FlatRange */
} Canvas;

static FlatRange range_of(MemoryRegion *mr, Coord base, Span where, bool readonly)
{
    bool romd = mr->ops && mr->romd;

    return (FlatRange){
        .first = (hwaddr)where.start,
        .last = (hwaddr)(where.end - 1),
        .mr = mr,
        .offset = (hwaddr)(where.start - base),
        .block = mr->ops && !romd ? NULL : mr->ram_block,
        .readonly = readonly || romd,
        .romd = romd,
        .lockless = mr->lockless,
        .log_mask = mr->log_mask,
    };
}

/* Index of the first range that ends at or behind `at`. */
static guint first_behind(const Canvas *canvas, Coord at)
{
    FlatView drawn = {.n = canvas->ranges->len, .ranges = (FlatRange *)canvas->ranges->data};

    return lower_bound(&drawn, (hwaddr)at);
}

/* Fills what is free of `visible` with mr, whose own start is at `base`. */
static void fill(Canvas *canvas, MemoryRegion *mr, Coord base, Span visible, bool readonly)
{
    guint index = first_behind(canvas, visible.start);

    while (visible.start < visible.end) {
        Span gap = visible;
        Coord next = visible.end;

        if (index < canvas->ranges->len) {
            const FlatRange *taken = &g_array_index(canvas->ranges, FlatRange, index);

            gap.end = MIN(gap.end, (Coord)taken->first);
            next = (Coord)taken->last + 1;
        }
        if (gap.start < gap.end) {
            FlatRange range = range_of(mr, base, gap, readonly);

            g_array_insert_val(canvas->ranges, index, range);
            index++;
        }
        index++;
        visible.start = next;
    }
}

/* `base`: where mr's container (or the window of an alias) has its start. */
static void draw(Canvas *canvas, MemoryRegion *mr, Coord base, Span clip, bool readonly)
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
        draw(canvas, mr->alias, base - mr->alias_offset - mr->alias->addr, clip, readonly);
        return;
    }
    TAILQ_FOREACH(sub, &mr->subregions, link) {
        draw(canvas, sub, base, clip, readonly);
    }
    if (mr->ram_block || mr->ops) {
        fill(canvas, mr, base, clip, readonly);
    }
}

/* `b` goes on where `a` ends, in the space and in the region. */
static bool continues(const FlatRange *a, const FlatRange *b)
{
    return a->last + 1 == b->first && a->mr == b->mr && a->readonly == b->readonly &&
           a->offset + (b->first - a->first) == b->offset;
}

/* Joins neighbours that show successive parts of one region. */
static void join_neighbours(GArray *ranges)
{
    guint kept = 0;

    for (guint i = 0; i < ranges->len; i++) {
        FlatRange *range = &g_array_index(ranges, FlatRange, i);
        FlatRange *before = kept ? &g_array_index(ranges, FlatRange, kept - 1) : NULL;

        if (before && continues(before, range)) {
            before->last = range->last;
        } else {
            g_array_index(ranges, FlatRange, kept++) = *range;
        }
    }
    g_array_set_size(ranges, kept);
}

/* The events of a range's region that lie in it. */
static void take_events(const FlatRange *range, GArray *eventfds, GArray *coalesced)
{
    const MemoryRegion *mr = range->mr;
    hwaddr last = range->offset + (range->last - range->first);

    for (guint i = 0; mr->eventfds && i < mr->eventfds->len; i++) {
        MemoryEventFd *event = g_ptr_array_index(mr->eventfds, i);
        FlatEventFd at = {range->first + (event->addr - range->offset), event};

        if (event->addr >= range->offset && event->addr <= last &&
            MAX(event->size, 1) - 1 <= last - event->addr) {
            memory_eventfd_ref(event);
            g_array_append_val(eventfds, at);
        }
    }
    for (guint i = 0; mr->coalesced && i < mr->coalesced->len; i++) {
        MemoryCoalesced part = g_array_index(mr->coalesced, MemoryCoalesced, i);

        part.first = MAX(part.first, range->offset);
        part.last = MIN(part.last, last);
        if (part.first <= part.last) {
            part.first = range->first + (part.first - range->offset);
            part.last = range->first + (part.last - range->offset);
            g_array_append_val(coalesced, part);
        }
    }
}

static void keep_ranges(FlatView *view, GArray *ranges)
{
    GArray *eventfds = g_array_new(FALSE, FALSE, sizeof(FlatEventFd));
    GArray *coalesced = g_array_new(FALSE, FALSE, sizeof(MemoryCoalesced));

    view->n = ranges->len;
    view->ranges = (FlatRange *)g_array_free(ranges, FALSE);
    for (unsigned i = 0; i < view->n; i++) {
        if (view->ranges[i].block) {
            ram_block_ref(view->ranges[i].block);
        }
        take_events(&view->ranges[i], eventfds, coalesced);
    }
    view->n_eventfds = eventfds->len;
    view->eventfds = (FlatEventFd *)g_array_free(eventfds, FALSE);
    view->n_coalesced = coalesced->len;
    view->coalesced = (MemoryCoalesced *)g_array_free(coalesced, FALSE);
}

FlatView *flatview_render(MemoryRegion *root)
{
    FlatView *view = g_new0(FlatView, 1);
    Canvas canvas = {g_array_new(FALSE, FALSE, sizeof(FlatRange))};
    Span everything = {0, (Coord)1 << 64};

    view->refs = 1;
    view->root = root;
    if (root) {
        draw(&canvas, root, 0, everything, false);
    }
    join_neighbours(canvas.ranges);
    keep_ranges(view, canvas.ranges);
    return view;
}

/* The one enabled part of a container; NULL: none, or several (*several). */
static MemoryRegion *only_part(const MemoryRegion *mr, bool *several)
{
    MemoryRegion *only = NULL, *sub;

    *several = false;
    TAILQ_FOREACH(sub, &mr->subregions, link) {
        *several |= sub->enabled && only;
        only = sub->enabled ? sub : only;
    }
    return *several ? NULL : only;
}

MemoryRegion *flatview_shared_root(MemoryRegion *root)
{
    while (root && root->enabled && !root->ops && !root->ram_block && !root->readonly &&
           !root->addr) {
        MemoryRegion *next = root->alias;
        bool several = false;

        if (!next) {
            next = only_part(root, &several);
        } else if (root->alias_offset) {
            return root;
        }
        if (several || (next && (next->addr || next->size > root->size))) {
            return root;
        }
        root = next;
    }
    return root && root->enabled ? root : NULL;
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
    for (unsigned i = 0; i < view->n_eventfds; i++) {
        memory_eventfd_unref(view->eventfds[i].event);
    }
    g_free(view->ranges);
    g_free(view->eventfds);
    g_free(view->coalesced);
    g_free(view);
}
