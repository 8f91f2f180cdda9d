/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory listeners.
 *
 * One lock keeps changes of views and listeners (main thread) apart from the log functions (any
 * thread).
 */
#include "memory/listener.h"

#include <pthread.h>
#include "memory/memory-int.h"
#include "trace/trace-memory.h"

static struct {
    pthread_mutex_t lock;
    unsigned users[DIRTY_MEMORY_NUM];
    unsigned clients; /* atomic: those with users */
} global_log = {.lock = PTHREAD_MUTEX_INITIALIZER};

static MemoryRegionSection section_of(AddressSpace *as, const FlatRange *range)
{
    return (MemoryRegionSection){
        .address_space = as,
        .mr = range->mr,
        .block = range->block,
        .offset_within_region = range->offset,
        .offset_within_address_space = range->first,
        .size = range->last - range->first + 1,
        .readonly = range->readonly,
    };
}

/* Every client that logs the range. */
static unsigned range_log_mask(const FlatRange *range)
{
    return range->block ? range->log_mask | global_log.clients : 0;
}

/* --- a view changes --- */

static void call_del(AddressSpace *as, const FlatRange *range)
{
    MemoryRegionSection section = section_of(as, range);
    MemoryListener *l;

    TAILQ_FOREACH_REVERSE(l, &as->listeners, MemoryListenerList, link)
    {
        unsigned mask = range_log_mask(range);

        if (mask && l->log_stop) {
            l->log_stop(l, &section, mask, 0);
        }
        if (l->region_del) {
            l->region_del(l, &section);
        }
    }
}

/* Tells one listener that the set of clients of a section goes from `old` to `mask`. */
static void call_log(MemoryListener *l, const MemoryRegionSection *section, unsigned old,
                     unsigned mask)
{
    if ((mask & ~old) && l->log_start) {
        l->log_start(l, section, old, mask);
    }
    if ((old & ~mask) && l->log_stop) {
        l->log_stop(l, section, old, mask);
    }
}

static void call_add(AddressSpace *as, const FlatRange *range)
{
    MemoryRegionSection section = section_of(as, range);
    MemoryListener *l;

    TAILQ_FOREACH(l, &as->listeners, link) {
        if (l->region_add) {
            l->region_add(l, &section);
        }
        call_log(l, &section, 0, range_log_mask(range));
    }
}

static void call_nop(AddressSpace *as, const FlatRange *old, const FlatRange *range)
{
    MemoryRegionSection section = section_of(as, range);
    MemoryListener *l;

    TAILQ_FOREACH(l, &as->listeners, link) {
        if (l->region_nop) {
            l->region_nop(l, &section);
        }
        call_log(l, &section, range_log_mask(old), range_log_mask(range));
    }
}

/*
 * Walks both views in step: `del` for ranges only the old one has, `add` and `nop` for the new
 * one's.
 */
static void compare(AddressSpace *as, const FlatView *old, const FlatView *view, bool adding)
{
    unsigned i = 0, k = 0, n_old = old ? old->n : 0, n_new = view ? view->n : 0;

    while (i < n_old || k < n_new) {
        const FlatRange *a = i < n_old ? &old->ranges[i] : NULL;
        const FlatRange *b = k < n_new ? &view->ranges[k] : NULL;

        if (a && b && flatrange_same(a, b)) {
            if (adding) {
                call_nop(as, a, b);
            }
            i++;
            k++;
        } else if (a && (!b || a->first <= b->first)) {
            if (!adding) {
                call_del(as, a);
            }
            i++;
        } else {
            if (adding) {
                call_add(as, b);
            }
            k++;
        }
    }
}

static bool views_equal(const FlatView *a, const FlatView *b)
{
    bool equal = a && b && a->n == b->n;

    for (unsigned i = 0; equal && i < a->n; i++) {
        equal = flatrange_same(&a->ranges[i], &b->ranges[i]) &&
                a->ranges[i].log_mask == b->ranges[i].log_mask;
    }
    return equal;
}

void memory_listeners_change(AddressSpace *as, FlatView *old, FlatView *view,
                             AddressSpacePublish *publish)
{
    MemoryListener *l;

    if (views_equal(old, view)) {
        return;
    }
    trace_memory_view_change(as->name, view ? view->n : 0);
    pthread_mutex_lock(&global_log.lock);
    TAILQ_FOREACH(l, &as->listeners, link) {
        if (l->begin) {
            l->begin(l);
        }
    }
    compare(as, old, view, false);
    publish(as, view);
    compare(as, old, view, true);
    TAILQ_FOREACH(l, &as->listeners, link) {
        if (l->commit) {
            l->commit(l);
        }
    }
    pthread_mutex_unlock(&global_log.lock);
}

/* --- registering --- */

void memory_listener_register(MemoryListener *listener, AddressSpace *as)
{
    g_autoptr(FlatView) view = address_space_get_flatview(as);
    MemoryListener *other;

    pthread_mutex_lock(&global_log.lock);
    listener->address_space = as;
    TAILQ_FOREACH(other, &as->listeners, link) {
        if (listener->priority < other->priority) {
            break;
        }
    }
    if (other) {
        TAILQ_INSERT_BEFORE(other, listener, link);
    } else {
        TAILQ_INSERT_TAIL(&as->listeners, listener, link);
    }
    if (listener->begin) {
        listener->begin(listener);
    }
    if (global_log.clients && listener->log_global_start) {
        g_autoptr(GError) err = NULL;

        if (!listener->log_global_start(listener, &err)) {
            g_critical("%s: %s", listener->name, err->message);
        }
    }
    for (unsigned i = 0; i < view->n; i++) {
        MemoryRegionSection section = section_of(as, &view->ranges[i]);

        if (listener->region_add) {
            listener->region_add(listener, &section);
        }
        call_log(listener, &section, 0, range_log_mask(&view->ranges[i]));
    }
    if (listener->commit) {
        listener->commit(listener);
    }
    pthread_mutex_unlock(&global_log.lock);
}

void memory_listener_unregister(MemoryListener *listener)
{
    AddressSpace *as = listener->address_space;
    g_autoptr(FlatView) view = address_space_get_flatview(as);

    pthread_mutex_lock(&global_log.lock);
    if (listener->begin) {
        listener->begin(listener);
    }
    for (unsigned i = view->n; i-- > 0;) {
        MemoryRegionSection section = section_of(as, &view->ranges[i]);

        call_log(listener, &section, range_log_mask(&view->ranges[i]), 0);
        if (listener->region_del) {
            listener->region_del(listener, &section);
        }
    }
    if (listener->commit) {
        listener->commit(listener);
    }
    TAILQ_REMOVE(&as->listeners, listener, link);
    listener->address_space = NULL;
    pthread_mutex_unlock(&global_log.lock);
}

/* --- logging --- */

typedef void EachListener(MemoryListener *listener, void *opaque);

static void for_each_listener(EachListener *fn, void *opaque)
{
    for (AddressSpace *as = address_space_next(NULL); as; as = address_space_next(as)) {
        MemoryListener *l, *next;

        TAILQ_FOREACH_SAFE(l, &as->listeners, link, next) {
            fn(l, opaque);
        }
    }
}

/* Calls the listener for each RAM range of its view, or those of one block. */
static void for_each_ram(MemoryListener *l, const RAMBlock *only, hwaddr first, hwaddr last,
                         void (*fn)(MemoryListener *l, const MemoryRegionSection *section))
{
    g_autoptr(FlatView) view = address_space_get_flatview(l->address_space);

    for (unsigned i = 0; i < view->n; i++) {
        FlatRange range = view->ranges[i];
        hwaddr end = range.offset + (range.last - range.first);

        if (!range.block || (only && range.block != only) || end < first || range.offset > last) {
            continue;
        }
        if (range.offset < first) {
            range.first += first - range.offset;
            range.offset = first;
        }
        if (end > last) {
            range.last -= end - last;
        }
        MemoryRegionSection section = section_of(l->address_space, &range);

        fn(l, &section);
    }
}

typedef struct GlobalLog {
    unsigned old, clients;
    GError **errp;
    MemoryListener *failed; /* it refused; those before it have started */
    bool undone;
} GlobalLog;

static void section_log_changed(MemoryListener *l, const GlobalLog *log)
{
    g_autoptr(FlatView) view = address_space_get_flatview(l->address_space);

    for (unsigned i = 0; i < view->n; i++) {
        const FlatRange *range = &view->ranges[i];
        MemoryRegionSection section = section_of(l->address_space, range);

        if (range->block) {
            call_log(l, &section, range->log_mask | log->old, range->log_mask | log->clients);
        }
    }
}

static void start_one(MemoryListener *l, void *opaque)
{
    GlobalLog *log = opaque;

    if (log->failed) {
        return;
    }
    if (!log->old && l->log_global_start && !l->log_global_start(l, log->errp)) {
        log->failed = l;
        return;
    }
    section_log_changed(l, log);
}

static void stop_one(MemoryListener *l, void *opaque)
{
    GlobalLog *log = opaque;

    if (log->undone || l == log->failed) {
        log->undone = true;
        return;
    }
    section_log_changed(l, log);
    if (!log->clients && l->log_global_stop) {
        l->log_global_stop(l);
    }
}

/* The mask after `by` more users of each of `clients`. Under the lock. */
static unsigned count_users(unsigned clients, int by)
{
    unsigned mask = 0;

    for (unsigned client = 0; client < DIRTY_MEMORY_NUM; client++) {
        if (clients & (1u << client)) {
            g_assert(by > 0 || global_log.users[client]);
            global_log.users[client] += (unsigned)by;
        }
        mask |= global_log.users[client] ? 1u << client : 0;
    }
    return mask;
}

bool memory_global_dirty_log_start(unsigned clients, GError **errp)
{
    GlobalLog log = {.errp = errp};

    pthread_mutex_lock(&global_log.lock);
    log.old = global_log.clients;
    log.clients = count_users(clients, 1);
    for_each_listener(start_one, &log);
    if (log.failed) {
        GlobalLog undo = {.old = log.clients, .clients = log.old, .failed = log.failed};

        for_each_listener(stop_one, &undo);
        (void)count_users(clients, -1);
    } else {
        __atomic_store_n(&global_log.clients, log.clients, __ATOMIC_RELEASE);
        ram_dirty_log_start_all(clients);
    }
    pthread_mutex_unlock(&global_log.lock);
    trace_memory_global_dirty_log_start(clients, !log.failed);
    return !log.failed;
}

void memory_global_dirty_log_stop(unsigned clients)
{
    GlobalLog log = {0};

    trace_memory_global_dirty_log_stop(clients);
    pthread_mutex_lock(&global_log.lock);
    log.old = global_log.clients;
    log.clients = count_users(clients, -1);
    __atomic_store_n(&global_log.clients, log.clients, __ATOMIC_RELEASE);
    ram_dirty_log_stop_all(clients);
    for_each_listener(stop_one, &log);
    pthread_mutex_unlock(&global_log.lock);
}

unsigned memory_global_dirty_log_clients(void)
{
    return __atomic_load_n(&global_log.clients, __ATOMIC_ACQUIRE);
}

static void call_log_sync(MemoryListener *l, const MemoryRegionSection *section)
{
    l->log_sync(l, section);
}

static void sync_one(MemoryListener *l, void *opaque)
{
    bool last_stage = *(bool *)opaque;

    if (l->log_sync_global) {
        l->log_sync_global(l, last_stage);
    } else if (l->log_sync) {
        for_each_ram(l, NULL, 0, UINT64_MAX, call_log_sync);
    }
}

static void after_sync_one(MemoryListener *l, void *opaque)
{
    if (l->log_global_after_sync) {
        l->log_global_after_sync(l);
    }
}

void memory_global_dirty_log_sync(bool last_stage)
{
    trace_memory_global_dirty_log_sync(last_stage);
    pthread_mutex_lock(&global_log.lock);
    for_each_listener(sync_one, &last_stage);
    for_each_listener(after_sync_one, NULL);
    pthread_mutex_unlock(&global_log.lock);
}

static void sync_region_one(MemoryListener *l, void *opaque)
{
    const MemoryRegion *mr = opaque;

    if (l->log_sync) {
        for_each_ram(l, mr->ram_block, 0, UINT64_MAX, call_log_sync);
    } else if (l->log_sync_global) {
        l->log_sync_global(l, false);
    }
}

void memory_region_sync_dirty(MemoryRegion *mr)
{
    g_assert(mr->ram_block);
    pthread_mutex_lock(&global_log.lock);
    for_each_listener(sync_region_one, mr);
    pthread_mutex_unlock(&global_log.lock);
}

typedef struct ClearLog {
    RAMBlock *block;
    uint64_t first, last;
} ClearLog;

static void call_log_clear(MemoryListener *l, const MemoryRegionSection *section)
{
    l->log_clear(l, section);
}

static void clear_one(MemoryListener *l, void *opaque)
{
    const ClearLog *clear = opaque;

    if (l->log_clear) {
        for_each_ram(l, clear->block, clear->first, clear->last, call_log_clear);
    }
}

void ram_block_clear_log(RAMBlock *block, uint64_t offset, uint64_t bytes)
{
    ClearLog clear = {.block = block, .first = offset, .last = offset + bytes - 1};

    if (!bytes || offset >= block->max_length || bytes > block->max_length - offset) {
        return;
    }
    pthread_mutex_lock(&global_log.lock);
    for_each_listener(clear_one, &clear);
    pthread_mutex_unlock(&global_log.lock);
}
