/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs: life cycle, verbs, and the waits of a running job.
 *
 *            create     start      ready
 * undefined -----> created ---> running <---> paused
 *                     |            |  \
 *                     |            |   ready <---> standby
 *                     |  run ended |     |
 *                     |            v     v
 *                     |           waiting       all jobs of the transaction ran
 *                     |            |
 *                     |           pending       auto-finalize, or job-finalize
 *              failed |            |
 *        (any) -----> aborting -> concluded ---> null
 *
 * The table below is the whole truth: job_event() is the only place that changes a status, and
 * job_status_takes_verb() says which verb a user may use where. Everything that happens to a status
 * happens in the main thread; the job's coroutine hops there for it.
 */
#include "block/job/job-int.h"

#include <errno.h>
#include <string.h>
#include "block/graph/graph.h"
#include "qapi/qapi-events.h"
#include "util/co-lock.h"
#include "util/error.h"
#include "util/id.h"

#define U JOB_STATUS_UNDEFINED

static const JobStatus next_status[JOB_STATUS__MAX][JOB_EVENT_MAX] = {
    [JOB_STATUS_UNDEFINED] = {[JOB_EVENT_CREATE] = JOB_STATUS_CREATED},
    [JOB_STATUS_CREATED] = {[JOB_EVENT_START] = JOB_STATUS_RUNNING,
                            [JOB_EVENT_FAIL] = JOB_STATUS_ABORTING,
                            [JOB_EVENT_DISMISS] = JOB_STATUS_NULL}, /* never started */
    [JOB_STATUS_RUNNING] = {[JOB_EVENT_PAUSE] = JOB_STATUS_PAUSED,
                            [JOB_EVENT_READY] = JOB_STATUS_READY,
                            [JOB_EVENT_RUN_ENDED] = JOB_STATUS_WAITING,
                            [JOB_EVENT_FAIL] = JOB_STATUS_ABORTING},
    [JOB_STATUS_PAUSED] = {[JOB_EVENT_RESUME] = JOB_STATUS_RUNNING},
    [JOB_STATUS_READY] = {[JOB_EVENT_PAUSE] = JOB_STATUS_STANDBY,
                          [JOB_EVENT_RUN_ENDED] = JOB_STATUS_WAITING,
                          [JOB_EVENT_FAIL] = JOB_STATUS_ABORTING},
    [JOB_STATUS_STANDBY] = {[JOB_EVENT_RESUME] = JOB_STATUS_READY},
    [JOB_STATUS_WAITING] =
        {[JOB_EVENT_ALL_RAN] = JOB_STATUS_PENDING, [JOB_EVENT_FAIL] = JOB_STATUS_ABORTING},
    [JOB_STATUS_PENDING] =
        {[JOB_EVENT_CONCLUDE] = JOB_STATUS_CONCLUDED, [JOB_EVENT_FAIL] = JOB_STATUS_ABORTING},
    [JOB_STATUS_ABORTING] = {[JOB_EVENT_CONCLUDE] = JOB_STATUS_CONCLUDED},
    [JOB_STATUS_CONCLUDED] = {[JOB_EVENT_DISMISS] = JOB_STATUS_NULL},
};

#define S(status) (1u << JOB_STATUS_##status)

static const unsigned verb_statuses[JOB_VERB__MAX] = {
    [JOB_VERB_CANCEL] =
        S(CREATED) | S(RUNNING) | S(PAUSED) | S(READY) | S(STANDBY) | S(WAITING) | S(PENDING),
    [JOB_VERB_PAUSE] = S(CREATED) | S(RUNNING) | S(PAUSED) | S(READY) | S(STANDBY),
    [JOB_VERB_RESUME] = S(CREATED) | S(RUNNING) | S(PAUSED) | S(READY) | S(STANDBY),
    [JOB_VERB_SET_SPEED] = S(CREATED) | S(RUNNING) | S(PAUSED) | S(READY) | S(STANDBY),
    [JOB_VERB_COMPLETE] = S(READY) | S(STANDBY),
    [JOB_VERB_FINALIZE] = S(PENDING),
    [JOB_VERB_DISMISS] = S(CONCLUDED),
    [JOB_VERB_CHANGE] = S(CREATED) | S(RUNNING) | S(PAUSED) | S(READY) | S(STANDBY),
};

#undef S
#undef U

/* Every job, in order of creation. Main thread. */
static struct {
    TAILQ_HEAD(JobList, Job) jobs;
    CoQueue concluded; /* woken when a job concludes */
    bool initialised;
} registry;

static struct JobList *all_jobs(void)
{
    if (!registry.initialised) {
        TAILQ_INIT(&registry.jobs);
        qemu_co_queue_init(&registry.concluded);
        registry.initialised = true;
    }
    return &registry.jobs;
}

static void assert_main_thread(void)
{
    g_assert(aio_context_in_own_thread(qemu_get_aio_context()));
}

JobStatus job_next_status(JobStatus status, JobEvent event)
{
    return next_status[status][event];
}

bool job_status_takes_verb(JobStatus status, JobVerb verb)
{
    return verb_statuses[verb] & (1u << status);
}

void job_event(Job *job, JobEvent event)
{
    JobStatus next = job_next_status(job->status, event);

    assert_main_thread();
    g_assert(next != JOB_STATUS_UNDEFINED);
    job->status = next;
    if (job->id) {
        qapi_event_send_job_status_change(job->id, next);
    }
}

bool job_apply_verb(Job *job, JobVerb verb, GError **errp)
{
    if (!job_status_takes_verb(job->status, verb)) {
        error_setg(errp, "Job '%s' in state '%s' cannot accept command verb '%s'", job->id,
                   JobStatus_str(job->status), JobVerb_str(verb));
        return false;
    }
    if (job->txn && job->txn->finalizing && verb != JOB_VERB_CANCEL) {
        error_setg(errp, "Job '%s' is being finalized and cannot accept command verb '%s' any more",
                   job->id, JobVerb_str(verb));
        return false;
    }
    return true;
}

/* --- life --- */

static bool job_id_usable(const char *id, GError **errp)
{
    if (!id_wellformed(id)) {
        error_setg(errp, "Invalid job ID '%s'", id);
        return false;
    }
    if (job_get(id)) {
        error_setg(errp, "Job ID '%s' already in use", id);
        return false;
    }
    return true;
}

bool block_job_check_id(const char *job_id, BlockDriverState *bs, GError **errp)
{
    if (!job_id) {
        job_id = bdrv_get_device_name(bs);
        if (!job_id[0]) {
            error_setg(errp,
                       "Invalid job ID '': node '%s' belongs to no device, so job-id must be given",
                       bdrv_get_node_name(bs));
            return false;
        }
    }
    return job_id_usable(job_id, errp);
}

/* Into the transaction, or into one of its own. */
static void job_join(Job *job, JobTxn *txn)
{
    JobTxn *own = txn ? NULL : job_txn_new();

    job_txn_add(own ? own : txn, job);
    job_txn_unref(own);
}

void *job_create(const char *id, const JobDriver *driver, JobTxn *txn, AioContext *ctx, int flags,
                 GError **errp)
{
    Job *job = NULL;

    assert_main_thread();
    g_assert((id == NULL) == ((flags & JOB_INTERNAL) != 0));
    if (!id || job_id_usable(id, errp)) {
        job = g_malloc0(driver->instance_size);
        *job = (Job){
            .driver = driver,
            .id = g_strdup(id),
            .aio_context = ctx,
            .auto_dismiss = (flags & JOB_MANUAL_DISMISS) == 0,
            .auto_finalize = (flags & JOB_MANUAL_FINALIZE) == 0,
            .refcnt = 1,
        };
        job_join(job, txn);
        TAILQ_INSERT_TAIL(all_jobs(), job, all_jobs);
        job_event(job, JOB_EVENT_CREATE);
    }
    return job;
}

void job_ref(Job *job)
{
    __atomic_fetch_add(&job->refcnt, 1, __ATOMIC_SEQ_CST);
}

static void job_free(void *opaque)
{
    Job *job = opaque;

    g_assert(!job->txn && job->status == JOB_STATUS_NULL);
    if (job->driver->free) {
        job->driver->free(job);
    }
    g_clear_error(&job->err);
    g_free(job->id);
    g_free(job);
}

void job_unref(Job *job)
{
    if (__atomic_sub_fetch(&job->refcnt, 1, __ATOMIC_SEQ_CST) == 0) {
        if (aio_context_in_own_thread(qemu_get_aio_context())) {
            job_free(job);
        } else {
            aio_bh_schedule_oneshot(qemu_get_aio_context(), job_free, job);
        }
    }
}

Job *job_get(const char *id)
{
    Job *job;

    TAILQ_FOREACH(job, all_jobs(), all_jobs) {
        if (job->id && strcmp(job->id, id) == 0) {
            return job;
        }
    }
    return NULL;
}

Job *job_next(Job *job)
{
    do {
        job = job ? TAILQ_NEXT(job, all_jobs) : TAILQ_FIRST(all_jobs());
    } while (job && !job->id);
    return job;
}

/* Out of the registry; drops its reference. */
static void job_forget(Job *job)
{
    job_txn_remove(job);
    job_event(job, JOB_EVENT_DISMISS);
    TAILQ_REMOVE(all_jobs(), job, all_jobs);
    job_unref(job);
}

void job_early_fail(Job *job)
{
    g_assert(job->status == JOB_STATUS_CREATED);
    job_forget(job);
}

void job_conclude(Job *job)
{
    job_event(job, JOB_EVENT_CONCLUDE);
    job_txn_remove(job);
    if (job->auto_dismiss || !job->id) {
        job_forget(job);
    }
    qemu_co_queue_restart_all(&registry.concluded);
}

void job_set_result(Job *job, int ret, GError *err)
{
    if (job_is_cancelled(job)) {
        ret = -ECANCELED;
    }
    g_clear_error(&job->err);
    job->ret = ret;
    if (ret == -ECANCELED || (ret < 0 && !err)) {
        g_clear_error(&err);
        error_setg(&job->err, "%s", ret == -ECANCELED ? "Operation canceled" : g_strerror(-ret));
    } else if (ret < 0) {
        job->err = err;
    } else {
        g_clear_error(&err);
    }
}

static void coroutine_fn job_co_main(void *opaque)
{
    Job *job = opaque;
    GError *err = NULL;
    int ret = -ECANCELED;

    job->co = qemu_coroutine_self();
    job_co_pause_point(job);
    if (!job_is_cancelled(job)) {
        ret = job->driver->run(job, &err);
    }
    job->co = NULL;
    __atomic_store_n(&job->busy, false, __ATOMIC_SEQ_CST);
    __atomic_store_n(&job->run_ended, true, __ATOMIC_SEQ_CST);
    bdrv_drain_kick();

    if (qemu_get_current_aio_context() != qemu_get_aio_context()) {
        aio_co_reschedule_self(qemu_get_aio_context());
    }
    job_set_result(job, ret, err);
    job_txn_co_run_ended(job);
    job_unref(job);
}

void job_start(Job *job)
{
    job_ref(job);
    job->start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    __atomic_store_n(&job->busy, true, __ATOMIC_SEQ_CST);
    job_event(job, JOB_EVENT_START);
    aio_co_schedule(job->aio_context, qemu_coroutine_create(job_co_main, job));
}

/* --- waits of the running job --- */

static void job_kick(void *opaque)
{
    Job *job = opaque;

    if (job->waiting) {
        job->waiting = false;
        aio_co_schedule(job->aio_context, job->co);
    } else {
        job->kicked = true;
    }
}

static void job_kick_bh(void *opaque)
{
    job_kick(opaque);
    job_unref(opaque);
}

void job_enter(Job *job)
{
    if (aio_context_in_own_thread(job->aio_context)) {
        job_kick(job);
    } else {
        job_ref(job);
        aio_bh_schedule_oneshot(job->aio_context, job_kick_bh, job);
    }
}

void coroutine_fn job_co_yield(Job *job, bool idle)
{
    g_assert(job->co == qemu_coroutine_self());
    if (job->kicked) {
        job->kicked = false;
        return;
    }
    job->waiting = true;
    if (idle) {
        __atomic_store_n(&job->busy, false, __ATOMIC_SEQ_CST);
        bdrv_drain_kick();
    }
    qemu_coroutine_yield();
    __atomic_store_n(&job->busy, true, __ATOMIC_SEQ_CST);
}

void coroutine_fn job_co_sleep_ns(Job *job, int64_t ns)
{
    QEMUTimer *timer;

    if (ns <= 0 || job->kicked) {
        job->kicked = false;
        return;
    }
    timer = aio_timer_new(job->aio_context, QEMU_CLOCK_REALTIME, job_kick, job);
    timer_mod_ns(timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + ns);
    job_co_yield(job, true);
    timer_free(timer);
}

bool job_should_pause(const Job *job)
{
    return __atomic_load_n(&job->pause_count, __ATOMIC_SEQ_CST) > 0;
}

/* A status change on behalf of the job's coroutine. */
static void coroutine_fn job_co_event(Job *job, JobEvent event)
{
    AioContext *main_ctx = qemu_get_aio_context();
    bool hop = qemu_get_current_aio_context() != main_ctx;

    if (hop) {
        aio_co_reschedule_self(main_ctx);
    }
    job_event(job, event);
    if (event == JOB_EVENT_READY && job->listener && job->listener->ready) {
        job->listener->ready(job);
    }
    if (hop) {
        aio_co_reschedule_self(job->aio_context);
    }
}

void coroutine_fn job_co_pause_point(Job *job)
{
    while (job_should_pause(job) && !job_is_cancelled(job)) {
        if (job->driver->pause) {
            job->driver->pause(job);
        }
        __atomic_store_n(&job->paused, true, __ATOMIC_SEQ_CST);
        bdrv_drain_kick();
        job_co_event(job, JOB_EVENT_PAUSE);
        while (job_should_pause(job)) {
            job_co_yield(job, true);
        }
        /* Busy from here on: a drain that begins during the hop below waits for the next round. */
        __atomic_store_n(&job->paused, false, __ATOMIC_SEQ_CST);
        job_co_event(job, JOB_EVENT_RESUME);
        if (job->driver->resume) {
            job->driver->resume(job);
        }
    }
}

void coroutine_fn job_co_transition_to_ready(Job *job)
{
    job_co_event(job, JOB_EVENT_READY);
}

void job_progress_update(Job *job, int64_t done_bytes)
{
    __atomic_fetch_add(&job->progress_current, done_bytes, __ATOMIC_RELAXED);
}

void job_progress_set_remaining(Job *job, int64_t bytes)
{
    __atomic_store_n(&job->progress_remaining, bytes, __ATOMIC_RELAXED);
}

/* --- state as others see it --- */

bool job_is_cancelled(const Job *job)
{
    return __atomic_load_n(&job->force_cancelled, __ATOMIC_SEQ_CST);
}

bool job_cancel_requested(const Job *job)
{
    return __atomic_load_n(&job->cancelled, __ATOMIC_SEQ_CST);
}

bool job_is_ready(const Job *job)
{
    return job->status == JOB_STATUS_READY || job->status == JOB_STATUS_STANDBY;
}

bool job_is_completed(const Job *job)
{
    return __atomic_load_n(&job->run_ended, __ATOMIC_SEQ_CST);
}

JobInfo *job_query(Job *job)
{
    JobInfo *info = g_new0(JobInfo, 1);

    info->id = g_strdup(job->id);
    info->type = job->driver->job_type;
    info->status = job->status;
    info->current_progress = __atomic_load_n(&job->progress_current, __ATOMIC_RELAXED);
    info->total_progress =
        info->current_progress + __atomic_load_n(&job->progress_remaining, __ATOMIC_RELAXED);
    if (job->err) {
        info->error = g_strdup(job->err->message);
    }
    return info;
}

/* --- verbs --- */

void job_pause(Job *job)
{
    __atomic_fetch_add(&job->pause_count, 1, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&job->paused, __ATOMIC_SEQ_CST)) {
        job_enter(job);
    }
}

void job_resume(Job *job)
{
    int left = __atomic_sub_fetch(&job->pause_count, 1, __ATOMIC_SEQ_CST);

    g_assert(left >= 0);
    if (left == 0) {
        job_enter(job);
    }
}

bool job_user_pause(Job *job, GError **errp)
{
    if (!job_apply_verb(job, JOB_VERB_PAUSE, errp)) {
        return false;
    }
    if (job->user_paused) {
        error_setg(errp, "Job is already paused");
        return false;
    }
    if (job_is_cancelled(job)) { /* a drain may hold it; once that is over it ends */
        error_setg(errp, "Job '%s' is being cancelled", job->id);
        return false;
    }
    job->user_paused = true;
    job_pause(job);
    return true;
}

static void job_end_user_pause(Job *job)
{
    if (job->listener && job->listener->user_resumed) {
        job->listener->user_resumed(job);
    }
    job->user_paused = false;
    job_resume(job);
}

bool job_user_resume(Job *job, GError **errp)
{
    if (!job->user_paused) {
        error_setg(errp, "Can't resume a job that was not paused");
        return false;
    }
    if (!job_apply_verb(job, JOB_VERB_RESUME, errp)) {
        return false;
    }
    job_end_user_pause(job);
    return true;
}

void job_request_cancel(Job *job, bool force)
{
    bool soft = !force && job->driver->cancel && !job->driver->cancel(job, false);

    if (!soft) {
        __atomic_store_n(&job->force_cancelled, true, __ATOMIC_SEQ_CST);
        if (force && job->driver->cancel) {
            job->driver->cancel(job, true);
        }
    }
    __atomic_store_n(&job->cancelled, true, __ATOMIC_SEQ_CST);
    if (job->user_paused) {
        job_end_user_pause(job);
    }
    job_enter(job);
}

void job_mark_cancelled(Job *job)
{
    __atomic_store_n(&job->force_cancelled, true, __ATOMIC_SEQ_CST);
    __atomic_store_n(&job->cancelled, true, __ATOMIC_SEQ_CST);
    __atomic_store_n(&job->run_ended, true, __ATOMIC_SEQ_CST);
}

bool job_has_coroutine(const Job *job)
{
    return job->status == JOB_STATUS_RUNNING || job->status == JOB_STATUS_PAUSED ||
           job->status == JOB_STATUS_READY || job->status == JOB_STATUS_STANDBY;
}

bool job_user_cancel(Job *job, bool force, GError **errp)
{
    if (!job_apply_verb(job, JOB_VERB_CANCEL, errp)) {
        return false;
    }
    if (job->user_paused && !force) {
        error_setg(errp,
                   "The block job for device '%s' is currently paused: resume it first, or cancel "
                   "with force",
                   job->id);
        return false;
    }
    if (job->txn->finalizing) {
        /* Its last requests may hang: they are given up, and what still can fail does. */
        job_mark_cancelled(job);
        if (job->driver->cancel) {
            job->driver->cancel(job, true);
        }
        return true;
    }
    if (!job_has_coroutine(job)) {
        job_mark_cancelled(job);
        job_set_result(job, -ECANCELED, NULL);
        job_txn_fail(job);
        return true;
    }
    job_request_cancel(job, force);
    return true;
}

bool job_complete(Job *job, GError **errp)
{
    if (!job_apply_verb(job, JOB_VERB_COMPLETE, errp)) {
        return false;
    }
    if (job_cancel_requested(job) || !job->driver->complete) {
        error_setg(errp, "The active block job '%s' cannot be completed", job->id);
        return false;
    }
    return job->driver->complete(job, errp);
}

static void coroutine_fn finalize_entry(void *opaque)
{
    JobTxn *txn = opaque;

    job_txn_co_finalize(txn);
    job_txn_unref(txn);
}

bool job_finalize(Job *job, GError **errp)
{
    if (!job_apply_verb(job, JOB_VERB_FINALIZE, errp)) {
        return false;
    }
    job->txn->refcnt++;
    qemu_coroutine_enter(qemu_coroutine_create(finalize_entry, job->txn));
    return true;
}

bool job_dismiss(Job *job, GError **errp)
{
    if (!job_apply_verb(job, JOB_VERB_DISMISS, errp)) {
        return false;
    }
    job_forget(job);
    return true;
}

bool job_change(Job *job, const BlockJobChangeOptions *opts, GError **errp)
{
    if (!job_apply_verb(job, JOB_VERB_CHANGE, errp)) {
        return false;
    }
    if (!job->driver->change) {
        error_setg(errp, "Job type '%s' has nothing that block-job-change could change",
                   JobType_str(job->driver->job_type));
        return false;
    }
    return job->driver->change(job, opts, errp);
}

/* The first job that shutdown has still to cancel. */
static Job *next_to_cancel(void)
{
    Job *job;

    TAILQ_FOREACH(job, all_jobs(), all_jobs) {
        if (job_status_takes_verb(job->status, JOB_VERB_CANCEL) && !job_is_cancelled(job)) {
            return job;
        }
    }
    return NULL;
}

void coroutine_fn job_co_cancel_sync_all(void)
{
    Job *job;

    while ((job = next_to_cancel())) {
        if (!job_user_cancel(job, true, NULL)) {
            g_assert_not_reached(); /* next_to_cancel() looked at what the verb looks at */
        }
    }
    for (;;) {
        bool left = false;

        TAILQ_FOREACH(job, all_jobs(), all_jobs) {
            left |= job->status != JOB_STATUS_CONCLUDED;
        }
        if (!left) {
            return;
        }
        qemu_co_queue_wait(&registry.concluded, NULL);
    }
}
