/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Transactions of jobs: all succeed, or all are cancelled.
 *
 * Jobs that succeeded wait for the others. When the last has run, all are prepared (which may still
 * fail), then all are committed. As soon as one fails the others are cancelled by force, and when
 * the last has stopped all are aborted. A job on its own is a transaction of one.
 *
 * A coroutine that concludes jobs holds a reference to the transaction and to each job: users' code
 * runs in between.
 */
#include "block/job/job-int.h"

#include <errno.h>

JobTxn *job_txn_new(void)
{
    JobTxn *txn = g_new0(JobTxn, 1);

    txn->refcnt = 1;
    TAILQ_INIT(&txn->jobs);
    return txn;
}

void job_txn_unref(JobTxn *txn)
{
    if (txn && --txn->refcnt == 0) {
        g_assert(TAILQ_EMPTY(&txn->jobs));
        g_free(txn);
    }
}

void job_txn_add(JobTxn *txn, Job *job)
{
    g_assert(!job->txn);
    txn->refcnt++;
    job->txn = txn;
    TAILQ_INSERT_TAIL(&txn->jobs, job, txn_jobs);
}

void job_txn_remove(Job *job)
{
    JobTxn *txn = job->txn;

    if (txn) {
        job->txn = NULL;
        TAILQ_REMOVE(&txn->jobs, job, txn_jobs);
        job_txn_unref(txn);
    }
}

static bool txn_any_has_coroutine(JobTxn *txn)
{
    Job *job;

    TAILQ_FOREACH(job, &txn->jobs, txn_jobs) {
        if (job_has_coroutine(job)) {
            return true;
        }
    }
    return false;
}

/* Commits or aborts one job and lets go of it. */
static void coroutine_fn job_co_end(Job *job)
{
    const JobDriver *drv = job->driver;

    if (job->ret == 0) {
        if (drv->commit) {
            drv->commit(job);
        }
    } else if (drv->abort) {
        drv->abort(job);
    }
    if (drv->clean) {
        drv->clean(job);
    }
    if (job->listener && job->listener->released) {
        job->listener->released(job);
    }
    if (job->listener && job->listener->ended) {
        job->listener->ended(job);
    }
    job_conclude(job);
}

static void coroutine_fn txn_co_end_all(JobTxn *txn)
{
    Job *job;

    while ((job = TAILQ_FIRST(&txn->jobs))) {
        job_ref(job);
        job_co_end(job);
        job_unref(job);
    }
}

/* Every job that has ended fails with the transaction; the others are told to stop. */
static void txn_fail_members(JobTxn *txn)
{
    Job *job;

    txn->aborting = true;
    TAILQ_FOREACH(job, &txn->jobs, txn_jobs) {
        if (job_has_coroutine(job)) {
            if (!job_is_cancelled(job)) {
                job_request_cancel(job, true);
            }
        } else if (job->status != JOB_STATUS_ABORTING) {
            if (job->ret == 0) {
                job_mark_cancelled(job);
                job_set_result(job, -ECANCELED, NULL);
            }
            job_event(job, JOB_EVENT_FAIL);
        }
    }
}

/* Aborts all if none of them runs any more. */
static void coroutine_fn txn_co_try_abort(JobTxn *txn)
{
    if (!txn->finalizing && !txn_any_has_coroutine(txn)) {
        txn->finalizing = true;
        txn_co_end_all(txn);
    }
}

static void coroutine_fn txn_co_fail_entry(void *opaque)
{
    JobTxn *txn = opaque;

    txn_co_try_abort(txn);
    job_txn_unref(txn);
}

void job_txn_fail(Job *job)
{
    JobTxn *txn = job->txn;

    txn->refcnt++;
    txn_fail_members(txn);
    qemu_coroutine_enter(qemu_coroutine_create(txn_co_fail_entry, txn));
}

void coroutine_fn job_txn_co_finalize(JobTxn *txn)
{
    Job *job;
    int ret = 0;

    txn->refcnt++;
    txn->finalizing = true;
    TAILQ_FOREACH(job, &txn->jobs, txn_jobs) {
        GError *err = NULL;

        if (job->driver->prepare) {
            ret = job->driver->prepare(job, &err);
        }
        if (ret < 0) {
            job_set_result(job, ret, err);
            break;
        }
    }
    if (ret < 0) {
        txn_fail_members(txn);
    }
    txn_co_end_all(txn);
    job_txn_unref(txn);
}

void coroutine_fn job_txn_co_run_ended(Job *job)
{
    JobTxn *txn = job->txn;
    bool manual = false;

    if (job->ret < 0 || txn->aborting) {
        if (job->ret == 0) {
            job_mark_cancelled(job);
            job_set_result(job, -ECANCELED, NULL);
        }
        txn->refcnt++;
        job_event(job, JOB_EVENT_FAIL);
        txn_fail_members(txn);
        txn_co_try_abort(txn);
        job_txn_unref(txn);
        return;
    }
    job_event(job, JOB_EVENT_RUN_ENDED);
    TAILQ_FOREACH(job, &txn->jobs, txn_jobs) {
        if (job->status != JOB_STATUS_WAITING) {
            return;
        }
    }
    TAILQ_FOREACH(job, &txn->jobs, txn_jobs) {
        job_event(job, JOB_EVENT_ALL_RAN);
        if (!job->auto_finalize) {
            manual = true;
            if (job->listener && job->listener->pending) {
                job->listener->pending(job);
            }
        }
    }
    if (!manual) {
        job_txn_co_finalize(txn);
    }
}
