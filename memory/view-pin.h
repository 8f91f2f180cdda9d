/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How threads use views and lockless regions without a lock.
 *
 * Each thread has a record that other threads can read. A thread writes into its record what it is
 * about to use, then looks whether that is still current. The main thread first replaces a view,
 * then looks at the records. util/barrier.h orders the two: the other thread sees the new view, or
 * the main thread sees its record. The main thread never waits for a pinned view, because a thread
 * may stand in a page fault that a migration resolves. It puts the view on a list, and the last
 * thread that unpins the view frees it.
 */
#ifndef FERRY_MEMORY_VIEW_PIN_H
#define FERRY_MEMORY_VIEW_PIN_H

#include "memory/flatview.h"
#include "util/barrier.h"

/* Operations of lockless regions that may be under way in one thread, one inside the other. */
#define VIEW_REGIONS_MAX 4

/* A thread's record. Written by its thread, read by all; atomic. */
typedef struct ViewReader {
    FlatView *pinned;
    MemoryRegion *regions[VIEW_REGIONS_MAX];
    unsigned depth; /* this and the next are its thread's alone */
    unsigned hint;  /* index of the range that it found last, in whatever view */
    bool used;      /* by a thread; under the lock in view-pin.c */
    struct ViewReader *next;
} __attribute__((aligned(64))) ViewReader; /* threads do not write to a cache line of another */

/*
 * The calling thread's. A coroutine may go on in another thread after a yield: it asks again.
 */
static inline ViewReader *view_reader(void);

/*
 * Pins the view that *current (atomic) points to; NULL if that is NULL. Until view_unpin() the
 * thread uses the view and the RAM in it, calls no device, takes no lock, and pins nothing else.
 */
static inline FlatView *view_pin(ViewReader *reader, FlatView **current);
static inline void view_unpin(ViewReader *reader);
/* flatview_find(), which looks first where the thread found something last. */
static inline const FlatRange *view_find(ViewReader *reader, const FlatView *view, hwaddr addr);
/* Frees the replaced views once they are not pinned; takes over a reference to each. */
void view_retire(FlatView **views, unsigned n);

/*
 * Says that the thread runs operations of `mr`, which was found in the pinned view. False: the view
 * is not the current one any more, or too many such operations are under way (*full).
 */
bool view_enter_region(ViewReader *reader, MemoryRegion *mr, FlatView **current, bool *full);
void view_leave_region(ViewReader *reader);
/* Waits until no thread runs operations of a region that no view shows. Main thread. */
void view_wait_region(const MemoryRegion *mr);

/* --- inline: some nanoseconds are what this is for --- */

extern __thread ViewReader *view_reader_own;
ViewReader *view_reader_make(void);
extern int view_retired_pending; /* atomic: view_retire() left some to the threads that unpin */
void view_retire_rest(void);

static inline ViewReader *view_reader(void)
{
    ViewReader *own = view_reader_own;

    return G_LIKELY(own) ? own : view_reader_make();
}

static inline FlatView *view_pin(ViewReader *reader, FlatView **current)
{
    FlatView *view = __atomic_load_n(current, __ATOMIC_ACQUIRE), *again;

    for (;; view = again) {
        __atomic_store_n(&reader->pinned, view, __ATOMIC_RELAXED);
        barrier_light();
        again = __atomic_load_n(current, __ATOMIC_ACQUIRE);
        if (G_LIKELY(again == view)) {
            return view;
        }
    }
}

static inline const FlatRange *view_find(ViewReader *reader, const FlatView *view, hwaddr addr)
{
    unsigned hint = reader->hint;
    const FlatRange *range;

    if (G_LIKELY(hint < view->n && addr >= view->ranges[hint].first &&
                 addr <= view->ranges[hint].last)) {
        return &view->ranges[hint];
    }
    range = flatview_find(view, addr);
    if (range) {
        reader->hint = (unsigned)(range - view->ranges);
    }
    return range;
}

static inline void view_unpin(ViewReader *reader)
{
    __atomic_store_n(&reader->pinned, NULL, __ATOMIC_RELEASE);
    barrier_light();
    if (G_UNLIKELY(__atomic_load_n(&view_retired_pending, __ATOMIC_RELAXED))) {
        view_retire_rest();
    }
}

#endif
