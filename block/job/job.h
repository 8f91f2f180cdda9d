/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs: long operations with a life cycle that users steer by QMP (job-*, block-job-*).
 *
 * The life cycle is one table (block/job/job.c): status x event -> status. A job is one coroutine,
 * `run`, in the AioContext of its nodes; the phases after it (prepare, commit/abort, clean) run as
 * a coroutine in the main context. Verbs are called in the main thread; what the coroutine reads of
 * them (pause, cancel, speed) is atomic. A job never polls: it waits in job_co_*(), and every verb
 * wakes it there.
 */
#ifndef FERRY_BLOCK_JOB_H
#define FERRY_BLOCK_JOB_H

#include <glib.h>
#include "block/block.h"
#include "block/block-backend.h"
#include "util/queue.h"
#include "util/ratelimit.h"

typedef struct Job Job;
typedef struct JobTxn JobTxn;

/* What a kind of job implements. */
typedef struct JobDriver {
    size_t instance_size; /* Job is its first member */
    JobType job_type;

    /*
     * The work, in the job's context. 0, or -errno with errp set where there is more to say. Calls
     * job_co_pause_point() often.
     */
    int coroutine_fn (*run)(Job *job, GError **errp);
    /* Succeeded so far; may still fail. Main context. */
    int coroutine_fn (*prepare)(Job *job, GError **errp);
    void coroutine_fn (*commit)(Job *job);
    void coroutine_fn (*abort)(Job *job);
    /* After commit or abort: releases what the job holds. Main context. */
    void coroutine_fn (*clean)(Job *job);

    /* Job context, at a pause point: lets what is in flight end before the job counts as paused. */
    void coroutine_fn (*pause)(Job *job);
    void coroutine_fn (*resume)(Job *job);
    /* User verbs; main thread. complete may be absent. */
    bool (*complete)(Job *job, GError **errp);
    /*
     * Cancel was asked for. False: the job takes it as "finish without switching over" and will end
     * as completed. NULL: true.
     */
    bool (*cancel)(Job *job, bool force);
    bool (*change)(Job *job, const BlockJobChangeOptions *opts, GError **errp);
    /* Fills the driver's branch of query-block-jobs. */
    void (*query)(Job *job, BlockJobInfo *info);
    /*
     * A drained section on bs, one of its nodes: true while requests that touch bs are in flight or
     * may follow from those that are. The driver then starts none while job_should_pause(). NULL:
     * busy until it is paused. Job context.
     */
    bool (*drained_poll)(Job *job, BlockDriverState *bs);
    void (*free)(Job *job); /* last reference; main thread */
} JobDriver;

/*
 * What a family of jobs (block jobs) tells its users besides JOB_STATUS_CHANGE. Main thread; all
 * optional.
 */
typedef struct JobListener {
    void (*ready)(Job *job);
    void (*pending)(Job *job); /* waits for job-finalize */
    void (*user_resumed)(Job *job);
    void (*released)(Job *job); /* after clean, before ended: gives up the nodes */
    void (*ended)(Job *job);    /* ret and err are final */
} JobListener;

enum {
    JOB_DEFAULT = 0x00,
    JOB_INTERNAL = 0x01, /* no id, invisible to users */
    JOB_MANUAL_FINALIZE = 0x02,
    JOB_MANUAL_DISMISS = 0x04,
};

struct Job {
    const JobDriver *driver;
    char *id;   /* NULL: internal */
    int refcnt; /* atomic */
    AioContext *aio_context;

    /* Main thread. */
    const JobListener *listener;
    JobStatus status;
    bool auto_finalize, auto_dismiss;
    bool user_paused;
    JobTxn *txn;
    int64_t start_ns; /* QEMU_CLOCK_REALTIME of job_start(); 0: not started */
    GError *err;      /* why it failed, once ret < 0 */
    int ret;
    TAILQ_ENTRY(Job) all_jobs;
    TAILQ_ENTRY(Job) txn_jobs;

    /* Shared with the job's thread: atomics. */
    int pause_count; /* > 0: pause at the next pause point */
    bool paused;     /* at a pause point, quiet */
    bool busy;       /* works or waits for I/O; false: idle until something happens */
    bool cancelled;  /* softly or by force */
    bool force_cancelled;
    bool run_ended;                               /* run() has returned, or will never be called */
    int64_t progress_current, progress_remaining; /* bytes */

    /* Job's context. */
    Coroutine *co;
    bool waiting; /* yielded in job_co_*(): job_enter() schedules it */
    bool kicked;  /* job_enter() came while it did not wait: the next wait returns at once */
};

/* A job over block nodes: speed, error policy, its nodes. */
typedef struct BlockJob {
    Job job;
    int64_t speed;                /* bytes/s, 0 unlimited; atomic */
    RateLimit limit;              /* job's context */
    BlockDeviceIoStatus iostatus; /* main thread */
    GSList *
        /* BdrvChild *: edges that drain and block the nodes for the job's life; main thread */
        nodes;
    char *blocker; /* op blocker reason */
} BlockJob;

typedef struct BlockJobOptions {
    const char *job_id;         /* NULL: the device name */
    JobTxn *txn;                /* NULL: its own */
    BlockDriverState *bs;       /* main node: names the job when job_id is NULL */
    uint64_t perm, shared_perm; /* on bs */
    int64_t speed;              /* bytes/s */
    int flags;                  /* JOB_* */
} BlockJobOptions;

/* --- life; main thread --- */

JobTxn *job_txn_new(void);
void job_txn_unref(JobTxn *txn);
/* Created, not started, one reference (the registry's). NULL on duplicate or ill-formed ids. */
void *job_create(const char *id, const JobDriver *driver, JobTxn *txn, AioContext *ctx, int flags,
                 GError **errp);
void *block_job_create(const BlockJobOptions *opts, const JobDriver *driver, GError **errp);
/*
 * What block_job_create() would say about the id; for checks that must come before other changes.
 */
bool block_job_check_id(const char *job_id, BlockDriverState *bs, GError **errp);
/*
 * Adds an edge to a node the job works on: drains pause the job, users' operations on it are
 * blocked.
 */
bool block_job_add_bdrv(BlockJob *job, const char *name, BlockDriverState *bs, uint64_t perm,
                        uint64_t shared, GError **errp);
void block_job_remove_all_bdrv(BlockJob *job);
/* Starts run() in its context. */
void job_start(Job *job);
/* Undoes job_create() for a job that never started: it vanishes. */
void job_early_fail(Job *job);
void job_ref(Job *job);   /* any thread */
void job_unref(Job *job); /* any thread */
/* NULL when there is none. */
Job *job_get(const char *id);
/* Visible ones first to last; NULL starts and ends. */
Job *job_next(Job *job);
/* The block job of that id, else DeviceNotActive in errp. */
BlockJob *block_job_find(const char *id, GError **errp);
/* NULL when it is none (blockdev-create, snapshots). */
BlockJob *block_job_of(Job *job);
/* What query-block-jobs says of one. The caller frees. */
BlockJobInfo *block_job_query(BlockJob *bjob);
JobInfo *job_query(Job *job);

/* --- for the running job; its context --- */

/*
 * Pauses here if asked to; returns at once when not. Inside a drained section of its own a job must
 * not call it.
 */
void coroutine_fn job_co_pause_point(Job *job);
/* True when the next pause point would pause. Any thread. */
bool job_should_pause(const Job *job);
/* Sleeps; job_enter() and every verb cut it short. */
void coroutine_fn job_co_sleep_ns(Job *job, int64_t ns);
/*
 * Waits for job_enter() or a verb; returns at once when one came since the last wait. idle: not
 * waiting for I/O of its own.
 */
void coroutine_fn job_co_yield(Job *job, bool idle);
/*
 * Wakes the job's coroutine where it waits in job_co_*(), or makes its next wait there return at
 * once. Any thread.
 */
void job_enter(Job *job);
bool job_is_cancelled(const Job *job);     /* by force: stop at once. Any thread */
bool job_cancel_requested(const Job *job); /* softly or by force. Any thread */
void job_progress_update(Job *job, int64_t done_bytes);
void job_progress_set_remaining(Job *job, int64_t bytes);
/* READY: status, BLOCK_JOB_READY event. */
void coroutine_fn job_co_transition_to_ready(Job *job);
bool job_is_ready(const Job *job);     /* main thread */
bool job_is_completed(const Job *job); /* main thread: run() ended */
/*
 * Charges `bytes` to the job's speed and returns how many ns to wait before more is handled; bytes
 * 0 only asks.
 */
int64_t block_job_ratelimit_ns(BlockJob *job, int64_t bytes);
/*
 * Applies the policy to an I/O error (positive errno): event, io-status, pause. What the caller is
 * to do. Visits the main context.
 */
BlockErrorAction coroutine_fn block_job_co_error_action(BlockJob *job, BlockdevOnError on_err,
                                                        bool is_read, int error);

/* --- verbs; main thread. An error says in which state the verb makes sense. --- */

bool job_apply_verb(Job *job, JobVerb verb, GError **errp);
bool job_user_pause(Job *job, GError **errp);
bool job_user_resume(Job *job, GError **errp);
bool job_user_cancel(Job *job, bool force, GError **errp);
bool job_complete(Job *job, GError **errp);
/* Begins to conclude the transaction; a job that hangs in it can still be cancelled. */
bool job_finalize(Job *job, GError **errp);
/* The job is gone on success (the caller's reference, if it has one, apart). */
bool job_dismiss(Job *job, GError **errp);
bool job_change(Job *job, const BlockJobChangeOptions *opts, GError **errp);
bool block_job_set_speed(BlockJob *job, int64_t speed, GError **errp);
/* Cancels by force all jobs and waits for their end: shutdown. */
void coroutine_fn job_co_cancel_sync_all(void);

/* Counted pauses from inside (drained sections). Any thread. */
void job_pause(Job *job);
void job_resume(Job *job);

#endif
