/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Drained sections: a fence that yields until a node and everything above it is quiet.
 *
 * Quiescence travels upwards along edges: each parent is told once, stops sending, and says through
 * drained_poll when what it had sent has ended. A parent or node that becomes idle calls
 * bdrv_drain_kick(); every drain in progress then looks again. Nothing polls.
 */
#include "block/graph/graph.h"

#include <stdio.h>
#include "trace/trace-block.h"
#include "util/error.h"

/* One drain in progress; lives on its coroutine's stack. */
typedef struct DrainWaiter {
    Coroutine *co;
    bool woken;
    bool expired; /* its deadline has passed; its own context */
    TAILQ_ENTRY(DrainWaiter) next;
} DrainWaiter;

static pthread_mutex_t waiters_lock = PTHREAD_MUTEX_INITIALIZER;
static TAILQ_HEAD(, DrainWaiter) waiters = TAILQ_HEAD_INITIALIZER(waiters);
static int nr_waiters; /* atomic copy of the list's length: the request path only looks at this */

/* With the lock held. */
static void wake_waiter(DrainWaiter *w)
{
    if (!w->woken) {
        w->woken = true;
        aio_co_wake(w->co);
    }
}

void bdrv_drain_kick(void)
{
    DrainWaiter *w;

    if (__atomic_load_n(&nr_waiters, __ATOMIC_SEQ_CST) == 0) {
        return;
    }
    pthread_mutex_lock(&waiters_lock);
    TAILQ_FOREACH(w, &waiters, next) {
        wake_waiter(w);
    }
    pthread_mutex_unlock(&waiters_lock);
}

/*
 * Edges are linked by the main thread and walked by drains in the graph's thread. Recursive: a
 * drain walks edges of several levels, and a parent that is told of one may be moved by another.
 */
static pthread_mutex_t edges_lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

void bdrv_edges_lock(void)
{
    pthread_mutex_lock(&edges_lock);
}

void bdrv_edges_unlock(void)
{
    pthread_mutex_unlock(&edges_lock);
}

void bdrv_inc_in_flight(BlockDriverState *bs)
{
    __atomic_fetch_add(&bs->in_flight, 1, __ATOMIC_SEQ_CST);
}

void bdrv_dec_in_flight(BlockDriverState *bs)
{
    /* Two threads at once may lose a count: what matters is that it changes. */
    __atomic_store_n(&bs->finished, __atomic_load_n(&bs->finished, __ATOMIC_RELAXED) + 1,
                     __ATOMIC_RELAXED);
    if (__atomic_sub_fetch(&bs->in_flight, 1, __ATOMIC_SEQ_CST) == 0) {
        bdrv_drain_kick();
    }
}

static int in_flight(const BlockDriverState *bs)
{
    return __atomic_load_n(&bs->in_flight, __ATOMIC_SEQ_CST);
}

void bdrv_quiesce_begin(BlockDriverState *bs)
{
    BdrvChild *child;

    bdrv_edges_lock();
    if (__atomic_fetch_add(&bs->quiesce_counter, 1, __ATOMIC_SEQ_CST) > 0) {
        bdrv_edges_unlock();
        return;
    }
    LIST_FOREACH(child, &bs->parents, next_parent) {
        if (!child->quiesced_parent) {
            child->quiesced_parent = true;
            if (child->klass->drained_begin) {
                child->klass->drained_begin(child);
            }
        }
    }
    if (bs->drv && bs->drv->bdrv_drain_begin) {
        bs->drv->bdrv_drain_begin(bs);
    }
    bdrv_edges_unlock();
}

void bdrv_quiesce_end(BlockDriverState *bs)
{
    BdrvChild *child;

    bdrv_edges_lock();
    g_assert(bdrv_is_quiesced(bs));
    if (__atomic_sub_fetch(&bs->quiesce_counter, 1, __ATOMIC_SEQ_CST) > 0) {
        bdrv_edges_unlock();
        return;
    }
    if (bs->drv && bs->drv->bdrv_drain_end) {
        bs->drv->bdrv_drain_end(bs);
    }
    LIST_FOREACH(child, &bs->parents, next_parent) {
        if (child->quiesced_parent) {
            child->quiesced_parent = false;
            if (child->klass->drained_end) {
                child->klass->drained_end(child);
            }
        }
    }
    bdrv_edges_unlock();
    bdrv_context_drained_end(bs);
}

/*
 * One look at a node and all above it, which drained_poll makes recursive. Nodes that were found
 * idle carry its number, and are not looked at again when another way leads to them. Edges lock.
 */
static unsigned look_number, look_nesting;

bool bdrv_drain_busy(BlockDriverState *bs)
{
    BdrvChild *child;
    bool busy = false;

    if (in_flight(bs) > 0) {
        return true;
    }
    bdrv_edges_lock();
    look_number += look_nesting++ == 0;
    if (bs->drain_look != look_number) {
        LIST_FOREACH(child, &bs->parents, next_parent) {
            busy = child->klass->drained_poll && child->klass->drained_poll(child);
            if (busy) {
                break;
            }
        }
        if (!busy) {
            bs->drain_look = look_number;
        }
    }
    look_nesting--;
    bdrv_edges_unlock();
    return busy;
}

static const char *request_type_name(BdrvTrackedRequestType type)
{
    static const char *const names[] = {
        [BDRV_TRACKED_READ] = "read",       [BDRV_TRACKED_WRITE] = "write",
        [BDRV_TRACKED_DISCARD] = "discard", [BDRV_TRACKED_TRUNCATE] = "truncate",
        [BDRV_TRACKED_FLUSH] = "flush",
    };

    return names[type];
}

static void describe_node(GString *s, BlockDriverState *bs, GHashTable *seen)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    BdrvTrackedRequest *req;
    BdrvChild *child;
    int listed = 0, counted = __atomic_load_n(&bs->in_flight, __ATOMIC_RELAXED);
    bool locked;

    if (!g_hash_table_add(seen, bs)) {
        return;
    }
    locked = bdrv_lock(bs);
    LIST_FOREACH(req, &bs->tracked_requests, list) {
        g_string_append_printf(
            s, "%snode '%s': %s of %" PRId64 " bytes at %" PRId64 " for %" PRId64 " ms",
            s->len ? "; " : "", bs->node_name, request_type_name(req->type), req->bytes,
            req->offset, (int64_t)((now - req->start_ns) / SCALE_MS));
        listed++;
    }
    bdrv_unlock(bs, locked);
    if (counted > listed) {
        g_string_append_printf(s, "%snode '%s': %d internal operations", s->len ? "; " : "",
                               bs->node_name, counted - listed);
    }
    LIST_FOREACH(child, &bs->parents, next_parent) {
        if (child->klass->parent_is_bds) {
            describe_node(s, child->opaque, seen);
        } else if (child->klass->drained_poll && child->klass->drained_poll(child)) {
            g_autofree char *desc =
                child->klass->get_parent_desc ? child->klass->get_parent_desc(child) : NULL;

            g_string_append_printf(s, "%s%s is busy", s->len ? "; " : "", desc ? desc : "a user");
        }
    }
}

char *bdrv_describe_in_flight(BlockDriverState *bs)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    GString *s = g_string_new(NULL);

    bdrv_edges_lock(); /* parents are walked in the graph's thread */
    describe_node(s, bs, seen);
    bdrv_edges_unlock();
    return g_string_free(s, false);
}

static void drain_warn(void *opaque)
{
    BlockDriverState *bs = opaque;
    g_autofree char *what = bdrv_describe_in_flight(bs);

    warn_report("draining node '%s' takes long; still waiting for: %s", bs->node_name,
                what[0] ? what : "nothing known");
}

static void drain_expired(void *opaque)
{
    DrainWaiter *w = opaque;

    pthread_mutex_lock(&waiters_lock);
    w->expired = true;
    wake_waiter(w);
    pthread_mutex_unlock(&waiters_lock);
}

/* limit_ns 0: as long as it takes, with a warning. False: the time is over. */
static bool coroutine_fn drain_wait(BlockDriverState *bs, int64_t limit_ns)
{
    DrainWaiter w = {.co = qemu_coroutine_self()};
    QEMUTimer *timer;
    bool busy;

    pthread_mutex_lock(&waiters_lock);
    TAILQ_INSERT_TAIL(&waiters, &w, next);
    pthread_mutex_unlock(&waiters_lock);
    __atomic_fetch_add(&nr_waiters, 1, __ATOMIC_SEQ_CST);

    timer = NULL;
    while ((busy = bdrv_drain_busy(bs)) && !w.expired) {
        if (!timer) {
            timer =
                aio_timer_new(qemu_get_current_aio_context(), QEMU_CLOCK_REALTIME,
                              limit_ns ? drain_expired : drain_warn, limit_ns ? (void *)&w : bs);
            timer_mod_ns(timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) +
                                    (limit_ns ? limit_ns : BDRV_DRAIN_WARN_NS));
        }
        qemu_coroutine_yield(); /* a kick since the look has sent a wake-up: it ends this wait */
        pthread_mutex_lock(&waiters_lock);
        w.woken = false;
        pthread_mutex_unlock(&waiters_lock);
    }

    timer_free(timer);
    __atomic_fetch_sub(&nr_waiters, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&waiters_lock);
    TAILQ_REMOVE(&waiters, &w, next);
    pthread_mutex_unlock(&waiters_lock);
    if (w.woken) {
        qemu_coroutine_yield(); /* a wake-up that was already sent must not hit a later yield */
    }
    return !busy;
}

/*
 * Runs begin or end of a quiet time in the graph's thread, where the coroutine stays. The graph does not
 * move to another thread on the way: a node with a count is not moved.
 */
static void coroutine_fn co_change_quiesce(BlockDriverState *bs, void (*change)(BlockDriverState *))
{
    bdrv_inc_in_flight(bs);
    aio_co_reschedule_self(bs->aio_context);
    change(bs);
    bdrv_dec_in_flight(bs);
}

void coroutine_fn bdrv_co_drained_begin(BlockDriverState *bs)
{
    AioContext *self = qemu_get_current_aio_context();

    co_change_quiesce(bs, bdrv_quiesce_begin);
    trace_bdrv_drained_begin(bs->node_name, in_flight(bs));
    (void)drain_wait(bs, 0);
    trace_bdrv_drained(bs->node_name);
    aio_co_reschedule_self(self);
}

bool coroutine_fn bdrv_co_drained_begin_within(BlockDriverState *bs, int64_t limit_ns,
                                               GError **errp)
{
    AioContext *self = qemu_get_current_aio_context();
    bool quiet;

    co_change_quiesce(bs, bdrv_quiesce_begin);
    trace_bdrv_drained_begin(bs->node_name, in_flight(bs));
    quiet = drain_wait(bs, limit_ns);
    if (quiet) {
        trace_bdrv_drained(bs->node_name);
    } else {
        g_autofree char *what = bdrv_describe_in_flight(bs);

        error_setg(errp, "Node '%s' did not become idle in time; still waiting for: %s",
                   bs->node_name, what[0] ? what : "nothing known");
        trace_bdrv_drained_end(bs->node_name);
    }
    aio_co_reschedule_self(self);
    if (!quiet) {
        co_change_quiesce(bs, bdrv_quiesce_end); /* it may have moved during the wait */
        aio_co_reschedule_self(self);
    }
    return quiet;
}

bool coroutine_fn bdrv_co_await_visits(BlockDriverState *bs, int64_t limit_ns, GError **errp)
{
    bool quiet = drain_wait(bs, limit_ns);

    if (!quiet) {
        error_setg(errp, "Node '%s' did not become idle in time", bs->node_name);
    }
    return quiet;
}

void coroutine_fn bdrv_co_drained_end(BlockDriverState *bs)
{
    AioContext *self = qemu_get_current_aio_context();

    trace_bdrv_drained_end(bs->node_name);
    /* In the graph's thread, and over on return: the caller may change edges right after. */
    co_change_quiesce(bs, bdrv_quiesce_end);
    aio_co_reschedule_self(self);
}

/* --- all nodes --- */

/* Flushes under way; the caller and each of them hold a reference. Main context. */
typedef struct FlushAll {
    Coroutine *waiter; /* NULL while it does not wait */
    GPtrArray *busy;   /* nodes whose flush has not ended; each flush holds its node */
    guint refs;
    int ret; /* of the first that failed: the node of the name `failed` */
    char *failed;
} FlushAll;

typedef struct FlushOne {
    BlockDriverState *bs; /* referenced */
    FlushAll *all;
} FlushOne;

static void flush_all_unref(FlushAll *all)
{
    if (--all->refs == 0) {
        g_ptr_array_unref(all->busy);
        g_free(all->failed);
        g_free(all);
    }
}

static void flush_all_wake(void *opaque)
{
    FlushAll *all = opaque;
    Coroutine *waiter = g_steal_pointer(&all->waiter);

    if (waiter) {
        aio_co_wake(waiter);
    }
}

static void coroutine_fn flush_one_co_entry(void *opaque)
{
    FlushOne one = *(FlushOne *)opaque;
    AioContext *from;
    int ret;

    g_free(opaque);
    from = bdrv_co_enter_graph(one.bs);
    ret = bdrv_co_flush(one.bs);
    bdrv_co_leave_graph(one.bs, from);
    if (ret < 0 && one.all->ret == 0) {
        one.all->ret = ret;
        one.all->failed = g_strdup(bdrv_get_node_name(one.bs));
    }
    g_ptr_array_remove_fast(one.all->busy, one.bs);
    if (one.all->busy->len == 0) {
        flush_all_wake(one.all);
    }
    flush_all_unref(one.all);
    bdrv_co_unref(one.bs);
}

/* -ETIMEDOUT: some go on after limit_ns; 0 is no limit. */
static int coroutine_fn flush_all_wait(FlushAll *all, int64_t limit_ns)
{
    QEMUTimer *timer = NULL;

    if (!all->busy->len) {
        return all->ret;
    }
    if (limit_ns) {
        timer = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME, flush_all_wake, all);
        timer_mod_ns(timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + limit_ns);
    }
    all->waiter = qemu_coroutine_self();
    qemu_coroutine_yield();
    timer_free(timer);
    return all->busy->len ? -ETIMEDOUT : all->ret;
}

/* Side by side, each in its graph's thread: one that hangs holds up no other. */
static int coroutine_fn co_flush_nodes(GPtrArray *nodes, int64_t limit_ns, GError **errp)
{
    FlushAll *all = g_new0(FlushAll, 1);
    int ret;

    all->busy = g_ptr_array_copy(nodes, NULL, NULL);
    all->refs = nodes->len + 1;
    for (guint i = 0; i < nodes->len; i++) {
        FlushOne *one = g_new(FlushOne, 1);

        *one = (FlushOne){g_ptr_array_index(nodes, i), all};
        bdrv_ref(one->bs);
        qemu_coroutine_enter(qemu_coroutine_create(flush_one_co_entry, one));
    }
    ret = flush_all_wait(all, limit_ns);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write back the caches of node '%s'",
                         all->busy->len ? bdrv_get_node_name(g_ptr_array_index(all->busy, 0))
                                        : all->failed);
    }
    flush_all_unref(all);
    return ret;
}

/*
 * A reference to each node but those that are being opened, whose drivers cannot be asked for
 * anything yet, and those on their way out, which nothing may stop.
 */
static GPtrArray *all_nodes_ref(void)
{
    GPtrArray *all = g_ptr_array_new();
    BlockDriverState *bs;

    TAILQ_FOREACH(bs, &block_graph()->nodes, all_nodes) {
        if (bs->is_open && !bs->closing) {
            bdrv_ref(bs);
            g_ptr_array_add(all, bs);
        }
    }
    return all;
}

static int64_t left_ns(int64_t end_ns)
{
    return MAX(1, end_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
}

int coroutine_fn bdrv_co_quiesce_all(int64_t limit_ns, GError **errp)
{
    int64_t end_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + limit_ns;
    g_autoptr(GPtrArray) all = all_nodes_ref();
    guint drained = 0;
    bool quiet = true;
    int ret = -ETIMEDOUT;

    for (; quiet && drained < all->len; drained += quiet) {
        BlockDriverState *bs = g_ptr_array_index(all, drained);

        if (limit_ns) {
            quiet = bdrv_co_drained_begin_within(bs, left_ns(end_ns), errp);
        } else {
            bdrv_co_drained_begin(bs);
        }
    }
    if (quiet) {
        ret = co_flush_nodes(all, limit_ns ? left_ns(end_ns) : 0, errp);
    }
    for (guint i = 0; i < all->len; i++) {
        if (i < drained) {
            bdrv_co_drained_end(g_ptr_array_index(all, i));
        }
        bdrv_co_unref(g_ptr_array_index(all, i));
    }
    return ret;
}

void coroutine_fn bdrv_co_drain_all(void)
{
    /* Drivers report what they could not write; a caller that wants to know calls bdrv_co_flush_all(). */
    (void)bdrv_co_quiesce_all(0, NULL);
}

int coroutine_fn bdrv_co_flush_all(GError **errp)
{
    g_autoptr(GPtrArray) all = all_nodes_ref();
    int ret = co_flush_nodes(all, 0, errp);

    for (guint i = 0; i < all->len; i++) {
        bdrv_co_unref(g_ptr_array_index(all, i));
    }
    return ret;
}
