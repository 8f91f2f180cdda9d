/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: job-*, block-job-*, query-jobs, query-block-jobs. */
#include "block/job/job.h"

#include "qapi/qapi-commands-block-job.h"
#include "qapi/qapi-commands-job.h"
#include "util/error.h"

static Job *job_named(const char *id, GError **errp)
{
    Job *job = job_get(id);

    if (!job) {
        error_setg(errp, "Job not found");
    }
    return job;
}

bool coroutine_fn qmp_job_pause(const JobPauseArg *arg, GError **errp)
{
    Job *job = job_named(arg->id, errp);

    return job && job_user_pause(job, errp);
}

bool coroutine_fn qmp_job_resume(const JobResumeArg *arg, GError **errp)
{
    Job *job = job_named(arg->id, errp);

    return job && job_user_resume(job, errp);
}

bool coroutine_fn qmp_job_cancel(const JobCancelArg *arg, GError **errp)
{
    Job *job = job_named(arg->id, errp);

    return job && job_user_cancel(job, true, errp);
}

bool coroutine_fn qmp_job_complete(const JobCompleteArg *arg, GError **errp)
{
    Job *job = job_named(arg->id, errp);

    return job && job_complete(job, errp);
}

bool coroutine_fn qmp_job_finalize(const JobFinalizeArg *arg, GError **errp)
{
    Job *job = job_named(arg->id, errp);

    return job && job_finalize(job, errp);
}

bool coroutine_fn qmp_job_dismiss(const JobDismissArg *arg, GError **errp)
{
    Job *job = job_named(arg->id, errp);

    return job && job_dismiss(job, errp);
}

bool coroutine_fn qmp_query_jobs(JobInfoList **ret, GError **errp)
{
    JobInfoList **tail = ret;

    *ret = NULL;
    for (Job *job = job_next(NULL); job; job = job_next(job)) {
        *tail = g_new0(JobInfoList, 1);
        (*tail)->value = job_query(job);
        tail = &(*tail)->next;
    }
    return true;
}

bool coroutine_fn qmp_block_job_set_speed(const BlockJobSetSpeedArg *arg, GError **errp)
{
    BlockJob *bjob = block_job_find(arg->device, errp);

    return bjob && block_job_set_speed(bjob, arg->speed, errp);
}

bool coroutine_fn qmp_block_job_cancel(const BlockJobCancelArg *arg, GError **errp)
{
    BlockJob *bjob = block_job_find(arg->device, errp);

    return bjob && job_user_cancel(&bjob->job, arg->has_force && arg->force, errp);
}

bool coroutine_fn qmp_block_job_pause(const BlockJobPauseArg *arg, GError **errp)
{
    BlockJob *bjob = block_job_find(arg->device, errp);

    return bjob && job_user_pause(&bjob->job, errp);
}

bool coroutine_fn qmp_block_job_resume(const BlockJobResumeArg *arg, GError **errp)
{
    BlockJob *bjob = block_job_find(arg->device, errp);

    return bjob && job_user_resume(&bjob->job, errp);
}

bool coroutine_fn qmp_block_job_complete(const BlockJobCompleteArg *arg, GError **errp)
{
    BlockJob *bjob = block_job_find(arg->device, errp);

    return bjob && job_complete(&bjob->job, errp);
}

bool coroutine_fn qmp_block_job_finalize(const BlockJobFinalizeArg *arg, GError **errp)
{
    BlockJob *bjob = block_job_find(arg->id, errp);

    return bjob && job_finalize(&bjob->job, errp);
}

bool coroutine_fn qmp_block_job_dismiss(const BlockJobDismissArg *arg, GError **errp)
{
    BlockJob *bjob = block_job_find(arg->id, errp);

    return bjob && job_dismiss(&bjob->job, errp);
}

bool coroutine_fn qmp_block_job_change(const BlockJobChangeOptions *arg, GError **errp)
{
    BlockJob *bjob = block_job_find(arg->id, errp);

    return bjob && job_change(&bjob->job, arg, errp);
}

bool coroutine_fn qmp_query_block_jobs(BlockJobInfoList **ret, GError **errp)
{
    BlockJobInfoList **tail = ret;

    *ret = NULL;
    for (Job *job = job_next(NULL); job; job = job_next(job)) {
        BlockJob *bjob = block_job_of(job);

        if (bjob) {
            *tail = g_new0(BlockJobInfoList, 1);
            (*tail)->value = block_job_query(bjob);
            tail = &(*tail)->next;
        }
    }
    return true;
}
