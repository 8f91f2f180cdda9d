/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests that wait for the guest to run again. A request is held before the stop is asked for, so
 * the `cont` that ends that stop always finds it.
 */
#include "accel/held-requests.h"

#include <glib.h>
#include "accel/runstate.h"
#include "util/aio.h"

TAILQ_HEAD(HeldList, HeldRequest);

struct HeldRequests {
    /* Constant. */
    BlockBackend *blk;
    char *qom_path;
    const HeldRequestOps *ops;
    void *opaque;
    VMChangeStateEntry *handler;

    GMutex lock;
    /* lock; oldest first */
    struct HeldList list;
    struct HeldList due; /* those that the last start lets begin again */
};

HeldRequest *held_requests_take(HeldRequests *held)
{
    struct HeldList *list = &held->due;
    HeldRequest *req;

    g_mutex_lock(&held->lock);
    req = TAILQ_FIRST(list);
    if (!req) {
        list = &held->list;
        req = TAILQ_FIRST(list);
    }
    if (req) {
        TAILQ_REMOVE(list, req, link);
    }
    g_mutex_unlock(&held->lock);
    return req;
}

/*
 * In one of the contexts. The backend may have moved since this was scheduled: what belongs elsewhere
 * now is started there. A request that fails again is held again, and waits for another run.
 */
static void restart_here(void *opaque)
{
    HeldRequests *held = opaque;
    struct HeldList list = TAILQ_HEAD_INITIALIZER(list);
    HeldRequest *req, *next;
    AioContext *elsewhere = NULL;

    g_mutex_lock(&held->lock);
    TAILQ_FOREACH_SAFE(req, &held->due, link, next) {
        AioContext *ctx = blk_context_for(held->blk, req->ctx);

        if (aio_context_in_own_thread(ctx)) {
            TAILQ_REMOVE(&held->due, req, link);
            TAILQ_INSERT_TAIL(&list, req, link);
        } else {
            elsewhere = ctx;
        }
    }
    g_mutex_unlock(&held->lock);
    while ((req = TAILQ_FIRST(&list))) {
        TAILQ_REMOVE(&list, req, link);
        held->ops->restart(held->opaque, req);
    }
    if (elsewhere) {
        aio_bh_schedule_oneshot(elsewhere, restart_here, held);
    } else {
        blk_dec_in_flight(held->blk);
    }
}

static void run_state_changed(void *opaque, bool running, RunState state)
{
    HeldRequests *held = opaque;
    g_autoptr(GPtrArray) contexts = g_ptr_array_new();
    HeldRequest *req;

    if (!running) {
        return;
    }
    g_mutex_lock(&held->lock);
    TAILQ_CONCAT(&held->due, &held->list, link);
    TAILQ_FOREACH(req, &held->due, link) {
        AioContext *ctx = blk_context_for(held->blk, req->ctx);

        if (!g_ptr_array_find(contexts, ctx, NULL)) {
            g_ptr_array_add(contexts, ctx);
        }
    }
    g_mutex_unlock(&held->lock);
    for (guint i = 0; i < contexts->len; i++) {
        /* Busy until they are started: the backend goes on living. It may move once more. */
        blk_inc_in_flight(held->blk);
        aio_bh_schedule_oneshot(contexts->pdata[i], restart_here, held);
    }
}

HeldRequests *held_requests_new(BlockBackend *blk, const char *qom_path, const HeldRequestOps *ops,
                                void *opaque)
{
    HeldRequests *held = g_new0(HeldRequests, 1);

    held->blk = blk;
    held->qom_path = g_strdup(qom_path);
    held->ops = ops;
    held->opaque = opaque;
    g_mutex_init(&held->lock);
    TAILQ_INIT(&held->list);
    TAILQ_INIT(&held->due);
    held->handler = qemu_add_vm_change_state_handler(run_state_changed, held);
    return held;
}

void held_requests_free(HeldRequests *held)
{
    HeldRequest *req;

    if (!held) {
        return;
    }
    qemu_del_vm_change_state_handler(held->handler);
    while ((req = held_requests_take(held))) {
        held->ops->drop(held->opaque, req);
    }
    g_mutex_clear(&held->lock);
    g_free(held->qom_path);
    g_free(held);
}

static void hold(HeldRequests *held, HeldRequest *req, AioContext *ctx)
{
    req->ctx = ctx;
    g_mutex_lock(&held->lock);
    TAILQ_INSERT_TAIL(&held->list, req, link);
    g_mutex_unlock(&held->lock);
}

void held_requests_add(HeldRequests *held, HeldRequest *req)
{
    hold(held, req, NULL);
}

BlockErrorAction held_requests_error(HeldRequests *held, HeldRequest *req, bool is_read, int error)
{
    BlockErrorAction action = blk_get_error_action(held->blk, is_read, error);

    if (action == BLOCK_ERROR_ACTION_STOP) {
        hold(held, req, qemu_get_current_aio_context());
    }
    blk_error_action(held->blk, action, is_read, error, held->qom_path);
    return action;
}

HeldRequest *held_requests_next(HeldRequests *held, HeldRequest *req)
{
    HeldRequest *next;

    g_mutex_lock(&held->lock);
    next = req ? TAILQ_NEXT(req, link) : TAILQ_FIRST(&held->list);
    g_mutex_unlock(&held->lock);
    return next;
}
