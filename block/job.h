/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs: long operations with a life cycle that users steer by QMP (job-*, block-job-*).
 *
 * The life cycle is one table (block/job.c): status x event -> status. A job is one coroutine, `run`, in the AioContext of its nodes; the
 * phases after it (prepare, commit/abort, clean) run as a coroutine in the main context. Verbs are called in the main thread; what the
 * coroutine reads of them (pause, cancel, speed) is under the fields it owns or atomic. A job never polls: it sleeps or yields at
 * pause points.
 */
#ifndef FERRY_BLOCK_JOB_H
#define FERRY_BLOCK_JOB_H

#include <glib.h>
#include "block/block.h"
#include "block/block-backend.h"
#include "util/ratelimit.h"

typedef struct Job Job;
typedef struct JobTxn JobTxn;

/* What a kind of job implements. ctx: thread each is called in. */
typedef struct JobDriver {
    size_t instance_size; /* Job is its first member */
    JobType job_type;

    /* The work, in the job's context. 0, or -errno with errp set where there is more to say. Calls job_co_pause_point() often. */
    int coroutine_fn (*run)(Job *job, GError **errp);
    /* Succeeded so far; may still fail. Main context. */
    int coroutine_fn (*prepare)(Job *job, GError **errp);
    void coroutine_fn (*commit)(Job *job);
    void coroutine_fn (*abort)(Job *job);
    /* After commit or abort: releases what the job holds. Main context. */
    void coroutine_fn (*clean)(Job *job);

    /* Job context, at a pause point that pauses, and when it goes on. */
    void coroutine_fn (*pause)(Job *job);
    void coroutine_fn (*resume)(Job *job);
    /* User verbs; main thread. complete may be absent. */
    bool (*complete)(Job *job, GError **errp);
    void (*user_resume)(Job *job);
    /* Cancel was asked for. False: the job takes it as "finish without switching over" and will end as completed. NULL: true. */
    bool (*cancel)(Job *job, bool force);
    bool (*change)(Job *job, const BlockJobChangeOptions *opts, GError **errp);
    /* Fills the driver's branch of query-block-jobs / query-jobs. */
    void (*query)(Job *job, BlockJobInfo *info);
    /* Drained section on one of its nodes: true while requests are in flight. Job context. */
    bool (*drained_poll)(Job *job);
    void (*free)(Job *job);
} JobDriver;

enum {
    JOB_DEFAULT = 0x00,
    JOB_INTERNAL = 0x01, /* no id, invisible to users */
    JOB_MANUAL_FINALIZE = 0x02,
    JOB_MANUAL_DISMISS = 0x04,
};

struct Job {
    const JobDriver *driver;
    char *id; /* NULL: internal */
    int refcnt;
    AioContext *aio_context;
    Coroutine *co;

    /* Main thread. */
    JobStatus status;
    bool auto_finalize, auto_dismiss;
    bool user_paused;
    JobTxn *txn;
    GError *err;
    int ret;
    TAILQ_ENTRY(Job) all_jobs;
    TAILQ_ENTRY(Job) txn_jobs;

    /* Shared with the job's thread: atomics. */
    int pause_count;      /* > 0: pause at the next pause point */
    bool paused;          /* at a pause point, quiet */
    bool busy;            /* the coroutine runs or will be woken by what it waits for; false: may be kicked */
    bool cancelled;
    bool force_cancel;
    bool deferred_to_main_loop; /* run() has returned */
    int64_t progress_current, progress_remaining; /* bytes */

    /* Job's context. */
    QemuCoSleep sleep;
};

/* A job over block nodes: speed, error policy, its nodes. */
typedef struct BlockJob {
    Job job;
    int64_t speed; /* bytes/s, 0 unlimited; any thread reads atomically */
    RateLimit limit;
    BlockDeviceIoStatus iostatus;
    GSList *nodes; /* BdrvChild *: edges that drain and block the nodes for the job's life */
    char *blocker; /* op blocker reason */
} BlockJob;

typedef struct BlockJobOptions {
    const char *job_id;   /* NULL: the device name */
    JobTxn *txn;          /* NULL: its own */
    BlockDriverState *bs; /* main node: names the job when job_id is NULL */
    uint64_t perm, shared_perm; /* on bs */
    int64_t speed;        /* bytes/s */
    int flags;            /* JOB_* */
} BlockJobOptions;

/* --- life --- */

JobTxn *job_txn_new(void);
void job_txn_unref(JobTxn *txn);
/* Created, not started, one reference (the registry's). NULL on duplicate or ill-formed ids. */
void *job_create(const char *id, const JobDriver *driver, JobTxn *txn, AioContext *ctx, int flags, GError **errp);
void *block_job_create(const BlockJobOptions *opts, const JobDriver *driver, GError **errp);
/* Adds an edge to a node the job works on: drains pause the job, users' operations on it are blocked. */
bool block_job_add_bdrv(BlockJob *job, const char *name, BlockDriverState *bs, uint64_t perm, uint64_t shared,
                        GError **errp);
void block_job_remove_all_bdrv(BlockJob *job);
/* Starts run() in its context. */
void job_start(Job *job);
/* Undoes job_create() for a job that never started: as if it had failed. */
void job_early_fail(Job *job);
void job_ref(Job *job);
void job_unref(Job *job);
Job *job_get(const char *id);
/* Visible ones first to last; NULL starts and ends. */
Job *job_next(Job *job);

/* --- for the running job; its context --- */

/* Pauses here if asked to; returns at once when not. */
void coroutine_fn job_co_pause_point(Job *job);
/* Sleeps; a pause, cancel or complete request cuts it short. */
void coroutine_fn job_co_sleep_ns(Job *job, int64_t ns);
/* Yields until job_enter() or a verb kicks it. */
void coroutine_fn job_co_yield(Job *job);
/* Wakes the job's coroutine where it sleeps or yields in job_co_*(); no effect elsewhere. Any thread. */
void job_enter(Job *job);
bool job_is_cancelled(const Job *job);     /* force-cancelled: stop at once */
bool job_cancel_requested(const Job *job); /* cancelled, softly or by force */
void job_progress_update(Job *job, int64_t done_bytes);
void job_progress_set_remaining(Job *job, int64_t bytes);
void job_progress_increase_remaining(Job *job, int64_t bytes);
/* READY: status, BLOCK_JOB_READY event. Any thread. */
void coroutine_fn job_co_transition_to_ready(Job *job);
bool job_is_ready(const Job *job);
bool job_is_completed(const Job *job);
/* Waits as the job's speed asks for after `bytes` were handled. */
void coroutine_fn block_job_co_ratelimit(BlockJob *job, int64_t bytes);
/* Applies the policy to an I/O error (positive errno): event, io-status, pause. What the caller is to do. */
BlockErrorAction block_job_error_action(BlockJob *job, BlockdevOnError on_err, bool is_read, int error);

/* --- verbs; main thread. An error says in which state the verb makes sense. --- */

bool job_apply_verb(Job *job, JobVerb verb, GError **errp);
bool job_user_pause(Job *job, GError **errp);
bool job_user_resume(Job *job, GError **errp);
bool job_user_cancel(Job *job, bool force, GError **errp);
bool job_complete(Job *job, GError **errp);
bool job_finalize(Job *job, GError **errp);
bool job_dismiss(Job **job, GError **errp);
bool job_change(Job *job, const BlockJobChangeOptions *opts, GError **errp);
bool block_job_set_speed(BlockJob *job, int64_t speed, GError **errp);
/* Cancels by force all jobs and waits for their end: shutdown. */
void coroutine_fn job_co_cancel_sync_all(void);

/* Counted pauses from inside (drained sections). */
void job_pause(Job *job);
void job_resume(Job *job);

#endif
