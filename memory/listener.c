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
    /* Under the big lock. */
    const MemoryAccelOps *accel;
    bool flushing;
} global_log = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Every client that logs the range. Under the lock. */
static unsigned range_log_mask(const FlatRange *range)
{
    return range->block ? range->log_mask | global_log.clients : 0;
}

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
        .romd = range->romd,
        .log_mask = range_log_mask(range),
    };
}

void memory_set_accel_ops(const MemoryAccelOps *ops)
{
    global_log.accel = ops;
}

void memory_flush_coalesced(void)
{
    const MemoryAccelOps *accel = global_log.accel;

    if (accel && accel->flush_coalesced && !global_log.flushing) {
        global_log.flushing = true;
        accel->flush_coalesced(accel->opaque);
        global_log.flushing = false;
    }
}

/* --- a view changes --- */

/* Main thread, under the lock. */
typedef struct Change {
    AddressSpace *as;
    FlatView *old, *view;
    bool logged_goes; /* a section that goes has a log */
    bool ram_goes_on; /* there is RAM where RAM went */
} Change;

static void call_del(Change *change, const FlatRange *range)
{
    AddressSpace *as = change->as;
    MemoryRegionSection section = section_of(as, range);
    MemoryListener *l;

    TAILQ_FOREACH_REVERSE(l, &as->listeners, MemoryListenerList, link)
    {
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

static void call_add(Change *change, const FlatRange *range)
{
    AddressSpace *as = change->as;
    MemoryRegionSection section = section_of(as, range);
    MemoryListener *l;

    TAILQ_FOREACH(l, &as->listeners, link) {
        if (l->region_add) {
            l->region_add(l, &section);
        }
    }
}

static void call_nop(Change *change, const FlatRange *old, const FlatRange *range)
{
    AddressSpace *as = change->as;
    MemoryRegionSection section = section_of(as, range);
    MemoryListener *l;

    TAILQ_FOREACH(l, &as->listeners, link) {
        if (l->region_nop) {
            l->region_nop(l, &section);
        }
        call_log(l, &section, range_log_mask(old), range_log_mask(range));
    }
}

/* What is done with ranges; a member that is NULL: nothing. */
typedef struct EachRange {
    void (*gone)(Change *change, const FlatRange *range);
    void (*stayed)(Change *change, const FlatRange *old, const FlatRange *range);
    void (*came)(Change *change, const FlatRange *range);
} EachRange;

/* Walks both views in step. A range that is the same in both has stayed. */
static void compare(Change *change, const EachRange *each)
{
    const FlatView *old = change->old, *view = change->view;
    unsigned i = 0, k = 0, n_old = old ? old->n : 0, n_new = view ? view->n : 0;

    while (i < n_old || k < n_new) {
        const FlatRange *a = i < n_old ? &old->ranges[i] : NULL;
        const FlatRange *b = k < n_new ? &view->ranges[k] : NULL;

        if (a && b && flatrange_same(a, b)) {
            if (each->stayed) {
                each->stayed(change, a, b);
            }
            i++;
            k++;
        } else if (a && (!b || a->first <= b->first)) {
            if (each->gone) {
                each->gone(change, a);
            }
            i++;
        } else {
            if (each->came) {
                each->came(change, b);
            }
            k++;
        }
    }
}

/* --- what vCPUs must not see, and what logs know --- */

static void look_at_gone(Change *change, const FlatRange *range)
{
    const FlatRange *next;

    if (!range->block) {
        return;
    }
    change->logged_goes |= range_log_mask(range) != 0;
    next = change->view ? flatview_find_from(change->view, range->first) : NULL;
    for (; next && next < change->view->ranges + change->view->n && next->first <= range->last;
         next++) {
        change->ram_goes_on |= next->block != NULL;
    }
}

/* Whether vCPUs could lose a write, or meet a hole, while the change is half done. */
static bool needs_gate(const Change *change)
{
    bool runs = false;
    MemoryListener *l;

    TAILQ_FOREACH(l, &change->as->listeners, link) {
        runs |= l->runs_vcpus;
    }
    return runs && (change->logged_goes || change->ram_goes_on);
}

/* A section that is logged goes from one listener. */
static void sync_gone_from(MemoryListener *l, const MemoryRegionSection *section)
{
    if (section->log_mask && l->log_sync && !l->log_sync_global) {
        l->log_sync(l, section);
    }
}

static void sync_gone(Change *change, const FlatRange *range)
{
    MemoryRegionSection section = section_of(change->as, range);
    MemoryListener *l;

    TAILQ_FOREACH(l, &change->as->listeners, link) {
        sync_gone_from(l, &section);
    }
}

/* What the logs know about sections that go gets into the bitmaps. */
static void sync_before_they_go(Change *change)
{
    static const EachRange each = {.gone = sync_gone};
    MemoryListener *l;

    TAILQ_FOREACH(l, &change->as->listeners, link) {
        if (l->log_sync_global && change->logged_goes) {
            l->log_sync_global(l, false);
        }
    }
    compare(change, &each);
}

/* --- eventfds and collected writes --- */

typedef void EventFdFn(MemoryListener *l, hwaddr addr, const MemoryEventFd *event);

static bool has_eventfd(const FlatView *view, const FlatEventFd *one)
{
    unsigned i = view ? flatview_eventfds_from(view, one->addr) : 0;

    for (; view && i < view->n_eventfds && view->eventfds[i].addr == one->addr; i++) {
        if (view->eventfds[i].event == one->event) {
            return true;
        }
    }
    return false;
}

static bool has_coalesced(const FlatView *view, const MemoryCoalesced *one)
{
    for (unsigned i = 0; view && i < view->n_coalesced; i++) {
        if (view->coalesced[i].first == one->first && view->coalesced[i].last == one->last) {
            return true;
        }
    }
    return false;
}

/* Tells one listener what `view` has and `other` has not: that it comes, or that it has gone. */
static void tell_events(MemoryListener *l, const FlatView *view, const FlatView *other, bool come)
{
    EventFdFn *eventfd = come ? l->eventfd_add : l->eventfd_del;
    void (*coalesced)(MemoryListener *, hwaddr, uint64_t) =
        come ? l->coalesced_add : l->coalesced_del;

    for (unsigned i = 0; eventfd && view && i < view->n_eventfds; i++) {
        if (!has_eventfd(other, &view->eventfds[i])) {
            eventfd(l, view->eventfds[i].addr, view->eventfds[i].event);
        }
    }
    for (unsigned i = 0; coalesced && view && i < view->n_coalesced; i++) {
        const MemoryCoalesced *part = &view->coalesced[i];

        if (!has_coalesced(other, part)) {
            coalesced(l, part->first, part->last - part->first + 1);
        }
    }
}

static void tell_all_events(AddressSpace *as, const FlatView *view, const FlatView *other,
                            bool come)
{
    MemoryListener *l;

    TAILQ_FOREACH(l, &as->listeners, link) {
        tell_events(l, view, other, come);
    }
}

/* --- the change --- */

static void call_begin(AddressSpace *as)
{
    MemoryListener *l;

    TAILQ_FOREACH(l, &as->listeners, link) {
        if (l->begin) {
            l->begin(l);
        }
    }
}

static void call_commit(AddressSpace *as)
{
    MemoryListener *l;

    TAILQ_FOREACH(l, &as->listeners, link) {
        if (l->commit) {
            l->commit(l);
        }
    }
}

static void change_view(Change *change, AddressSpacePublish *publish)
{
    static const EachRange going = {.gone = call_del};
    static const EachRange coming = {.stayed = call_nop, .came = call_add};

    call_begin(change->as);
    sync_before_they_go(change);
    tell_all_events(change->as, change->old, change->view, false);
    compare(change, &going);
    publish(change->as, change->view);
    compare(change, &coming);
    tell_all_events(change->as, change->view, change->old, true);
    call_commit(change->as);
}

void memory_listeners_change(AddressSpace *as, FlatView *old, FlatView *view,
                             AddressSpacePublish *publish)
{
    static const EachRange looking = {.gone = look_at_gone};
    const MemoryAccelOps *accel = global_log.accel;
    Change change = {.as = as, .old = old, .view = view};

    pthread_mutex_lock(&global_log.lock);
    if (flatview_same(old, view) || TAILQ_EMPTY(&as->listeners)) {
        publish(as, view);
    } else {
        bool held;

        trace_memory_view_change(as->name, view ? view->n : 0);
        compare(&change, &looking);
        held = accel && needs_gate(&change);
        if (held) {
            accel->shut(accel->opaque);
        }
        change_view(&change, publish);
        if (held) {
            accel->open(accel->opaque);
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
    }
    tell_events(listener, view, NULL, true);
    if (listener->commit) {
        listener->commit(listener);
    }
    pthread_mutex_unlock(&global_log.lock);
}

/* The listener goes, and its log with it. */
static void sync_all_from(MemoryListener *listener, const FlatView *view)
{
    bool logged = false;

    for (unsigned i = 0; i < view->n; i++) {
        MemoryRegionSection section = section_of(listener->address_space, &view->ranges[i]);

        logged |= section.log_mask != 0;
        sync_gone_from(listener, &section);
    }
    if (logged && listener->log_sync_global) {
        listener->log_sync_global(listener, false);
    }
}

void memory_listener_unregister(MemoryListener *listener)
{
    AddressSpace *as = listener->address_space;
    g_autoptr(FlatView) view = address_space_get_flatview(as);

    pthread_mutex_lock(&global_log.lock);
    if (listener->begin) {
        listener->begin(listener);
    }
    sync_all_from(listener, view);
    tell_events(listener, view, NULL, false);
    for (unsigned i = view->n; i-- > 0;) {
        MemoryRegionSection section = section_of(as, &view->ranges[i]);

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
    if (offset >= block->max_length || bytes > block->max_length - offset) {
        return;
    }
    while (bytes) {
        /* Pieces end at multiples of their size: words of a log are not divided. */
        uint64_t n = MIN(bytes, MEMORY_CLEAR_BYTES - offset % MEMORY_CLEAR_BYTES);
        ClearLog clear = {.block = block, .first = offset, .last = offset + n - 1};

        pthread_mutex_lock(&global_log.lock);
        for_each_listener(clear_one, &clear);
        pthread_mutex_unlock(&global_log.lock);
        offset += n;
        bytes -= n;
    }
}
