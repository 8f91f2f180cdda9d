/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Records of the threads that use views. */
#include "memory/view-pin.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

static struct {
    pthread_mutex_t lock;
    pthread_key_t key; /* gives a record back when its thread ends */
    pthread_once_t once;
    ViewReader *readers; /* atomic; records are never freed, but used again */
    GPtrArray *retired;  /* FlatView: replaced while pinned; NULL: none yet */
} pins = {.lock = PTHREAD_MUTEX_INITIALIZER, .once = PTHREAD_ONCE_INIT};

/* A size that is also an alignment. */
G_STATIC_ASSERT(sizeof(ViewReader) == 64);

int view_retired_pending;
__thread ViewReader *view_reader_own;

static void give_back(void *opaque)
{
    ViewReader *reader = opaque;

    g_assert(!reader->pinned && !reader->depth);
    /* Destructors that run after this one may still read memory: with another record. */
    view_reader_own = NULL;
    pthread_mutex_lock(&pins.lock);
    reader->used = false;
    pthread_mutex_unlock(&pins.lock);
}

static void make_key(void)
{
    if (pthread_key_create(&pins.key, give_back) != 0) {
        g_error("no thread-specific key is left");
    }
}

ViewReader *view_reader_make(void)
{
    ViewReader *reader;

    pthread_once(&pins.once, make_key);
    pthread_mutex_lock(&pins.lock);
    for (reader = pins.readers; reader && reader->used; reader = reader->next) {
    }
    if (!reader) {
        reader = aligned_alloc(sizeof(*reader), sizeof(*reader));
        g_assert(reader);
        *reader = (ViewReader){0};
        reader->next = pins.readers;
        __atomic_store_n(&pins.readers, reader, __ATOMIC_RELEASE);
    }
    reader->used = true;
    pthread_mutex_unlock(&pins.lock);
    pthread_setspecific(pins.key, reader);
    view_reader_own = reader;
    return reader;
}

/* --- views --- */

static bool is_pinned(const FlatView *view)
{
    for (ViewReader *r = __atomic_load_n(&pins.readers, __ATOMIC_ACQUIRE); r; r = r->next) {
        if (__atomic_load_n(&r->pinned, __ATOMIC_ACQUIRE) == view) {
            return true;
        }
    }
    return false;
}

/* Moves what is not pinned from the retired views to `out`. Under the lock. */
static void collect_unpinned(GPtrArray *out)
{
    for (guint i = pins.retired->len; i-- > 0;) {
        FlatView *view = g_ptr_array_index(pins.retired, i);

        if (!is_pinned(view)) {
            g_ptr_array_remove_index_fast(pins.retired, i);
            g_ptr_array_add(out, view);
        }
    }
}

static void retire(FlatView **views, unsigned n)
{
    g_autoptr(GPtrArray) out = g_ptr_array_new_with_free_func((GDestroyNotify)flatview_unref);

    pthread_mutex_lock(&pins.lock);
    if (!pins.retired) {
        pins.retired = g_ptr_array_new();
    }
    for (unsigned i = 0; i < n; i++) {
        g_ptr_array_add(pins.retired, views[i]);
    }
    barrier_heavy();
    collect_unpinned(out);
    if (pins.retired->len) {
        /* A thread that unpins from now on sees this, or the second look sees that it did. */
        __atomic_store_n(&view_retired_pending, 1, __ATOMIC_RELAXED);
        barrier_heavy();
        collect_unpinned(out);
    }
    if (!pins.retired->len) {
        __atomic_store_n(&view_retired_pending, 0, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&pins.lock);
    /* Here the references go, outside of the lock: memory may be unmapped. */
}

void view_retire(FlatView **views, unsigned n)
{
    if (n) {
        retire(views, n);
    }
}

void view_retire_rest(void)
{
    retire(NULL, 0);
}

/* --- lockless regions --- */

bool view_enter_region(ViewReader *reader, MemoryRegion *mr, FlatView **current, bool *full)
{
    const FlatView *view = reader->pinned;

    *full = reader->depth == VIEW_REGIONS_MAX;
    if (*full) {
        return false;
    }
    __atomic_store_n(&reader->regions[reader->depth++], mr, __ATOMIC_RELAXED);
    barrier_light();
    if (__atomic_load_n(current, __ATOMIC_ACQUIRE) == view) {
        return true;
    }
    view_leave_region(reader);
    return false;
}

void view_leave_region(ViewReader *reader)
{
    __atomic_store_n(&reader->regions[--reader->depth], NULL, __ATOMIC_RELEASE);
}

static bool region_is_used(const MemoryRegion *mr)
{
    for (ViewReader *r = __atomic_load_n(&pins.readers, __ATOMIC_ACQUIRE); r; r = r->next) {
        for (unsigned i = 0; i < VIEW_REGIONS_MAX; i++) {
            if (__atomic_load_n(&r->regions[i], __ATOMIC_ACQUIRE) == mr) {
                return true;
            }
        }
    }
    return false;
}

void view_wait_region(const MemoryRegion *mr)
{
    barrier_heavy();
    while (region_is_used(mr)) {
        sched_yield();
    }
}
