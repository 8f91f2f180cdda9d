/* SPDX-License-Identifier: GPL-2.0-or-later */
/* blockdev-create: makes an image, as a job that stays until it is dismissed. */
#include "block/block_int.h"

#include <errno.h>
#include "block/job/job.h"
#include "qapi/qapi-commands-block-node.h"
#include "util/error.h"

typedef struct BlockdevCreateJob {
    Job job;
    const BlockDriver *drv;
    BlockdevCreateOptions *options;
} BlockdevCreateJob;

static int coroutine_fn create_run(Job *job, GError **errp)
{
    BlockdevCreateJob *s = (BlockdevCreateJob *)job;

    job_progress_set_remaining(job, 1);
    if (!s->drv->bdrv_co_create(s->options, errp)) {
        return -EIO; /* the message says what happened */
    }
    job_progress_update(job, 1);
    job_progress_set_remaining(job, 0);
    return 0;
}

static void create_free(Job *job)
{
    qapi_free_BlockdevCreateOptions(((BlockdevCreateJob *)job)->options);
}

static const JobDriver create_job_driver = {
    .instance_size = sizeof(BlockdevCreateJob),
    .job_type = JOB_TYPE_CREATE,
    .run = create_run,
    .free = create_free,
};

bool coroutine_fn qmp_blockdev_create(const BlockdevCreateArg *arg, GError **errp)
{
    const BlockDriver *drv = bdrv_driver_of(arg->options->driver);
    BlockdevCreateJob *s;

    if (!drv || !drv->bdrv_co_create) {
        error_setg(errp, "Driver '%s' does not support blockdev-create",
                   BlockdevDriver_str(arg->options->driver));
        return false;
    }
    s = job_create(arg->job_id, &create_job_driver, NULL, qemu_get_aio_context(),
                   JOB_MANUAL_DISMISS, errp);
    if (!s) {
        return false;
    }
    s->drv = drv;
    s->options = QAPI_CLONE(BlockdevCreateOptions, arg->options);
    job_start(&s->job);
    return true;
}
