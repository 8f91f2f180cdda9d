/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of jobs: what job.c (life cycle), job-txn.c (transactions) and block-job.c share. Main
 * thread.
 */
#ifndef FERRY_BLOCK_JOB_INT_H
#define FERRY_BLOCK_JOB_INT_H

#include "block/job/job.h"

/* What happens to a job; the columns of the life cycle's table. */
typedef enum JobEvent {
    JOB_EVENT_CREATE,
    JOB_EVENT_START,
    JOB_EVENT_PAUSE,
    JOB_EVENT_RESUME,
    JOB_EVENT_READY,
    JOB_EVENT_RUN_ENDED, /* run() succeeded */
    JOB_EVENT_ALL_RAN,   /* every job of the transaction has */
    JOB_EVENT_FAIL,      /* it, or another job of its transaction, failed or was cancelled */
    JOB_EVENT_CONCLUDE,
    JOB_EVENT_DISMISS,
    JOB_EVENT_MAX,
} JobEvent;

/* The table: JOB_STATUS_UNDEFINED where the event cannot happen. */
JobStatus job_next_status(JobStatus status, JobEvent event);
/* Which verbs a status takes. */
bool job_status_takes_verb(JobStatus status, JobVerb verb);

/* Changes the status as the table says and tells users. */
void job_event(Job *job, JobEvent event);
/*
 * Records how it ended: ret, err (taken over; may be NULL). Force-cancelled jobs end with
 * -ECANCELED.
 */
void job_set_result(Job *job, int ret, GError *err);
/* Started, and run() has not come back to the main thread. */
bool job_has_coroutine(const Job *job);
/* Cancelled by force, without a coroutine that would have to hear of it. */
void job_mark_cancelled(Job *job);
/* Tells the driver and wakes the coroutine. Not for jobs whose run() has ended. */
void job_request_cancel(Job *job, bool force);
/*
 * Ended: the driver let go of everything, users were told. Dismisses the job where no user
 * will.
 */
void job_conclude(Job *job);

struct JobTxn {
    int refcnt;
    bool aborting;
    bool finalizing; /* prepare, commit or abort run: no verb gets in between */
    TAILQ_HEAD(, Job) jobs;
};

void job_txn_add(JobTxn *txn, Job *job);
void job_txn_remove(Job *job);
/* run() of the job has ended; ret says how. Concludes the transaction when it was the last. */
void coroutine_fn job_txn_co_run_ended(Job *job);
/*
 * Fails the transaction because of `job`, which has ended already. Concludes in a coroutine of its
 * own.
 */
void job_txn_fail(Job *job);
/* The pending jobs are prepared and committed, or all aborted. */
void coroutine_fn job_txn_co_finalize(JobTxn *txn);

#endif
