/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Block jobs: the nodes a job works on, its speed limit, its error policy, and the BLOCK_JOB_*
 * events.
 */
#include "block/job/job-int.h"

#include <errno.h>
#include "block/graph/activate.h"
#include "block/block_int.h"
#include "qapi/qapi-events.h"
#include "util/error.h"

/* How long a burst at the speed limit lasts. */
#define BLOCK_JOB_SLICE_NS (100 * SCALE_MS)

/* --- the edges to its nodes --- */

static char *edge_describe(BdrvChild *child)
{
    Job *job = child->opaque;

    return g_strdup_printf("%s job '%s'", JobType_str(job->driver->job_type),
                           job->id ? job->id : "");
}

static void edge_quiet_begin(BdrvChild *child)
{
    job_pause(child->opaque);
}

static bool edge_is_busy(BdrvChild *child)
{
    Job *job = child->opaque;

    if (job_is_completed(job)) {
        return false;
    }
    if (job->driver->drained_poll) {
        return job->driver->drained_poll(job, child->bs);
    }
    return __atomic_load_n(&job->busy, __ATOMIC_SEQ_CST) &&
           !__atomic_load_n(&job->paused, __ATOMIC_SEQ_CST);
}

static void edge_quiet_end(BdrvChild *child)
{
    job_resume(child->opaque);
}

/* A job ties graphs together that are moved one by one, so it holds them where they are. */
static bool edge_may_move(BdrvChild *child, AioContext *ctx, GError **errp)
{
    g_autofree char *desc = edge_describe(child);

    error_setg(errp, "Node '%s' cannot move to another thread while %s runs",
               bdrv_get_node_name(child->bs), desc);
    return false;
}

static AioContext *edge_context(BdrvChild *child)
{
    Job *job = child->opaque;

    return job->aio_context;
}

static const BdrvChildClass job_edge_class = {
    .stay_at_node = true,
    .get_parent_desc = edge_describe,
    .drained_begin = edge_quiet_begin,
    .drained_poll = edge_is_busy,
    .drained_end = edge_quiet_end,
    .can_set_aio_context = edge_may_move,
    .get_parent_aio_context = edge_context,
};

static void drop_edge(gpointer edge, gpointer bjob)
{
    BdrvChild *child = edge;

    bdrv_op_unblock_all(child->bs, ((BlockJob *)bjob)->blocker);
    bdrv_root_unref_child(child);
}

bool block_job_add_bdrv(BlockJob *bjob, const char *name, BlockDriverState *bs, uint64_t perm,
                        uint64_t shared, GError **errp)
{
    BdrvChild *edge = NULL;

    if (bdrv_check_active(bs, errp)) {
        bdrv_ref(bs); /* the edge's; given back by the call if it fails */
        edge = bdrv_root_attach_child(bs, name, &job_edge_class, 0, perm, shared, bjob, errp);
    }
    if (edge) {
        bdrv_op_block_all(bs, bjob->blocker);
        bjob->nodes = g_slist_prepend(bjob->nodes, edge);
    }
    return edge != NULL;
}

void block_job_remove_all_bdrv(BlockJob *bjob)
{
    GSList *edges = g_steal_pointer(&bjob->nodes);

    g_slist_foreach(edges, drop_edge, bjob);
    g_slist_free(edges);
}

/* --- events --- */

static void block_job_ready(Job *job)
{
    BlockJob *bjob = block_job_of(job);
    int64_t done = __atomic_load_n(&job->progress_current, __ATOMIC_RELAXED);
    int64_t left = __atomic_load_n(&job->progress_remaining, __ATOMIC_RELAXED);

    if (job->id) {
        qapi_event_send_block_job_ready(job->driver->job_type, job->id, done + left, done,
                                        bjob->speed);
    }
}

static void block_job_pending(Job *job)
{
    if (job->id) {
        qapi_event_send_block_job_pending(job->driver->job_type, job->id);
    }
}

static void block_job_released(Job *job)
{
    block_job_remove_all_bdrv(block_job_of(job));
}

static void block_job_ended(Job *job)
{
    BlockJob *bjob = block_job_of(job);
    int64_t done = __atomic_load_n(&job->progress_current, __ATOMIC_RELAXED);
    int64_t left = __atomic_load_n(&job->progress_remaining, __ATOMIC_RELAXED);

    if (!job->id) {
        return;
    }
    if (job->ret == -ECANCELED) {
        qapi_event_send_block_job_cancelled(job->driver->job_type, job->id, done + left, done,
                                            bjob->speed);
    } else {
        qapi_event_send_block_job_completed(job->driver->job_type, job->id, done + left, done,
                                            bjob->speed, job->err ? job->err->message : NULL);
    }
}

static void block_job_user_resumed(Job *job)
{
    block_job_of(job)->iostatus = BLOCK_DEVICE_IO_STATUS_OK;
}

static const JobListener block_job_listener = {
    .user_resumed = block_job_user_resumed,
    .ready = block_job_ready,
    .pending = block_job_pending,
    .released = block_job_released,
    .ended = block_job_ended,
};

/* --- life --- */

BlockJob *block_job_of(Job *job)
{
    return job->listener == &block_job_listener ? (BlockJob *)job : NULL;
}

void *block_job_create(const BlockJobOptions *opts, const JobDriver *driver, GError **errp)
{
    const char *id = opts->job_id;
    BlockJob *bjob;

    if (!id && !(opts->flags & JOB_INTERNAL)) {
        if (!block_job_check_id(NULL, opts->bs, errp)) {
            return NULL;
        }
        id = bdrv_get_device_name(opts->bs);
    }
    bjob = job_create(id, driver, opts->txn, bdrv_get_aio_context(opts->bs), opts->flags, errp);
    if (!bjob) {
        return NULL;
    }
    bjob->job.listener = &block_job_listener;
    bjob->blocker =
        g_strdup_printf("block device is in use by block job: %s", JobType_str(driver->job_type));
    if (!block_job_add_bdrv(bjob, "main node", opts->bs, opts->perm, opts->shared_perm, errp) ||
        (opts->speed && !block_job_set_speed(bjob, opts->speed, errp))) {
        block_job_remove_all_bdrv(bjob);
        job_early_fail(&bjob->job);
        return NULL;
    }
    return bjob;
}

BlockJob *block_job_find(const char *id, GError **errp)
{
    Job *job = job_get(id);

    if (!job || !block_job_of(job)) {
        error_set_class(errp, FERRY_ERROR_DEVICE_NOT_ACTIVE, "Block job '%s' not found", id);
        return NULL;
    }
    return block_job_of(job);
}

BlockJobInfo *block_job_query(BlockJob *bjob)
{
    Job *job = &bjob->job;
    BlockJobInfo *info = g_new0(BlockJobInfo, 1);

    info->type = job->driver->job_type;
    info->device = g_strdup(job->id);
    info->offset = __atomic_load_n(&job->progress_current, __ATOMIC_RELAXED);
    info->len = info->offset + __atomic_load_n(&job->progress_remaining, __ATOMIC_RELAXED);
    info->busy = __atomic_load_n(&job->busy, __ATOMIC_SEQ_CST);
    info->paused = job_should_pause(job);
    info->speed = bjob->speed;
    info->io_status = bjob->iostatus;
    info->ready = job_is_ready(job);
    info->status = job->status;
    info->auto_finalize = job->auto_finalize;
    info->auto_dismiss = job->auto_dismiss;
    if (job->err) {
        info->error = g_strdup(job->err->message);
    }
    if (job->driver->query) {
        job->driver->query(job, info);
    }
    return info;
}

/* --- speed --- */

bool block_job_set_speed(BlockJob *bjob, int64_t speed, GError **errp)
{
    if (!job_apply_verb(&bjob->job, JOB_VERB_SET_SPEED, errp)) {
        return false;
    }
    if (speed < 0) {
        error_setg(errp, "Parameter 'speed' expects a non-negative value");
        return false;
    }
    __atomic_store_n(&bjob->speed, speed, __ATOMIC_SEQ_CST);
    job_enter(&bjob->job);
    return true;
}

int64_t block_job_ratelimit_ns(BlockJob *bjob, int64_t bytes)
{
    uint64_t speed = __atomic_load_n(&bjob->speed, __ATOMIC_SEQ_CST);

    if (speed != bjob->limit.speed) {
        ratelimit_set_speed(&bjob->limit, speed, BLOCK_JOB_SLICE_NS);
    }
    return ratelimit_calculate_delay(&bjob->limit, bytes);
}

/* --- errors --- */

static BlockErrorAction error_policy(BlockdevOnError on_err, int error)
{
    switch (on_err) {
    case BLOCKDEV_ON_ERROR_IGNORE:
        return BLOCK_ERROR_ACTION_IGNORE;
    case BLOCKDEV_ON_ERROR_STOP:
        return BLOCK_ERROR_ACTION_STOP;
    case BLOCKDEV_ON_ERROR_ENOSPC:
    case BLOCKDEV_ON_ERROR_AUTO:
        return error == ENOSPC ? BLOCK_ERROR_ACTION_STOP : BLOCK_ERROR_ACTION_REPORT;
    default:
        return BLOCK_ERROR_ACTION_REPORT;
    }
}

/* The user is told, and, for STOP, finds the job paused until block-job-resume. */
static void block_job_note_error(BlockJob *bjob, BlockErrorAction action, bool is_read, int error)
{
    Job *job = &bjob->job;

    if (job->id) {
        qapi_event_send_block_job_error(
            job->id, is_read ? IO_OPERATION_TYPE_READ : IO_OPERATION_TYPE_WRITE, action);
    }
    if (action != BLOCK_ERROR_ACTION_STOP) {
        return;
    }
    if (!job->user_paused && job_has_coroutine(job)) {
        job->user_paused = true;
        job_pause(job);
    }
    if (bjob->iostatus == BLOCK_DEVICE_IO_STATUS_OK) {
        bjob->iostatus =
            error == ENOSPC ? BLOCK_DEVICE_IO_STATUS_NOSPACE : BLOCK_DEVICE_IO_STATUS_FAILED;
    }
}

BlockErrorAction coroutine_fn block_job_co_error_action(BlockJob *bjob, BlockdevOnError on_err,
                                                        bool is_read, int error)
{
    BlockErrorAction action = error_policy(on_err, error), reported = action;
    AioContext *ctx = qemu_get_current_aio_context();
    AioContext *main_ctx = qemu_get_aio_context();

    if (job_is_cancelled(&bjob->job)) {
        return BLOCK_ERROR_ACTION_REPORT; /* errors of requests that the cancel ended */
    }
    if (action == BLOCK_ERROR_ACTION_STOP) {
        /* Nothing new starts while this hop is under way. */
        __atomic_fetch_add(&bjob->job.pause_count, 1, __ATOMIC_SEQ_CST);
    }
    if (ctx != main_ctx) {
        aio_co_reschedule_self(main_ctx);
    }
    if (job_is_cancelled(&bjob->job)) { /* during the hop */
        reported = BLOCK_ERROR_ACTION_REPORT;
    } else {
        block_job_note_error(bjob, action, is_read, error);
    }
    if (action == BLOCK_ERROR_ACTION_STOP) {
        job_resume(&bjob->job);
    }
    if (ctx != main_ctx) {
        aio_co_reschedule_self(ctx);
    }
    return reported;
}
