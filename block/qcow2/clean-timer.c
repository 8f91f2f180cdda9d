/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Cleaning the caches by age: a timer in the graph's thread gives back the memory of metadata that
 * no request has used since it fired last.
 *
 * The main thread starts and stops it while the node is drained, and a timer belongs to the thread
 * of its loop. So bottom halves make and end the timer there, in an object of its own. Its lock
 * decides between a callback that has begun and a node that is being closed. A drained node is left
 * alone: the main thread may be using its caches.
 */
#include "block/qcow2/options.h"
#include "block/qcow2/cache.h"

struct Qcow2CleanTimer {
    AioContext *ctx;
    int64_t interval_ns;
    QEMUTimer *timer; /* ctx's thread */
    pthread_mutex_t lock;
    BlockDriverState *bs; /* under the lock; NULL once stopped */
};

static void arm(Qcow2CleanTimer *t)
{
    timer_mod_ns(t->timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + t->interval_ns);
}

static void clean_cb(void *opaque)
{
    Qcow2CleanTimer *t = opaque;

    pthread_mutex_lock(&t->lock);
    if (t->bs && __atomic_load_n(&t->bs->quiesce_counter, __ATOMIC_SEQ_CST) == 0) {
        BDRVQcow2State *s = t->bs->opaque;

        qcow2_cache_age(s->l2_cache);
        qcow2_cache_age(s->refblock_cache);
    }
    pthread_mutex_unlock(&t->lock);
    arm(t);
}

static void start_bh(void *opaque)
{
    Qcow2CleanTimer *t = opaque;

    t->timer = aio_timer_new(t->ctx, QEMU_CLOCK_REALTIME, clean_cb, t);
    arm(t);
}

static void stop_bh(void *opaque)
{
    Qcow2CleanTimer *t = opaque;

    timer_free(t->timer);
    pthread_mutex_destroy(&t->lock);
    g_free(t);
}

/* At once in the loop's own thread. Bottom halves run in the order in which they were scheduled. */
static void run_in(AioContext *ctx, QEMUBHFunc *fn, void *opaque)
{
    if (aio_context_in_own_thread(ctx)) {
        fn(opaque);
    } else {
        aio_bh_schedule_oneshot(ctx, fn, opaque);
    }
}

void qcow2_clean_timer_start(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2CleanTimer *t;

    g_assert(!s->clean_timer);
    if (!s->cache_clean_interval) {
        return;
    }
    t = s->clean_timer = g_new0(Qcow2CleanTimer, 1);
    t->ctx = bdrv_get_aio_context(bs);
    t->interval_ns = (int64_t)s->cache_clean_interval * NANOSECONDS_PER_SECOND;
    t->bs = bs;
    pthread_mutex_init(&t->lock, NULL);
    run_in(t->ctx, start_bh, t);
}

void qcow2_clean_timer_stop(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2CleanTimer *t = g_steal_pointer(&s->clean_timer);

    if (t) {
        pthread_mutex_lock(&t->lock);
        t->bs = NULL;
        pthread_mutex_unlock(&t->lock);
        run_in(t->ctx, stop_bh, t);
    }
}
