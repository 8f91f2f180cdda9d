/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mirror-top node: stands above the source while a mirror job runs. It shows the source's data
 * unchanged; in write-blocking mode it sends guest writes to the target as well. Writes are noted
 * by the dirty bitmap on the source itself, which sees those that do not come through here, too.
 */
#include "block/mirror/mirror-int.h"

#include <errno.h>

typedef struct MirrorTop {
    MirrorBlockJob *job; /* NULL: pass through */
} MirrorTop;

void mirror_filter_set_job(BlockDriverState *filter, MirrorBlockJob *s)
{
    MirrorTop *top = filter->opaque;

    top->job = s;
}

static MirrorBlockJob *active_job(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    MirrorTop *top = bs->opaque;

    return top->job && mirror_forwards_now(top->job, offset, bytes) ? top->job : NULL;
}

static int coroutine_fn mirror_filter_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                QEMUIOVector *qiov, size_t qiov_offset,
                                                BdrvRequestFlags flags)
{
    return bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn mirror_filter_co_pwritev(BlockDriverState *bs, int64_t offset,
                                                 int64_t bytes, QEMUIOVector *qiov,
                                                 size_t qiov_offset, BdrvRequestFlags flags)
{
    MirrorBlockJob *s = active_job(bs, offset, bytes);

    if (s) {
        MirrorGuestWrite w = {.offset = offset,
                              .bytes = bytes,
                              .qiov = qiov,
                              .qiov_offset = qiov_offset,
                              .flags = flags};

        return mirror_co_active_write(s, &w);
    }
    return bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn mirror_filter_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                       int64_t bytes, BdrvRequestFlags flags)
{
    MirrorBlockJob *s = active_job(bs, offset, bytes);

    if (s) {
        MirrorGuestWrite w = {.offset = offset, .bytes = bytes, .flags = flags};

        return mirror_co_active_write(s, &w);
    }
    return bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
}

/* What a discarded range reads as is the source's to decide: the job reads it and copies that. */
static int coroutine_fn mirror_filter_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes)
{
    return bdrv_co_pdiscard(bs->file, offset, bytes);
}

/* The source's part is done by the caller; the job flushes a target that is in step by itself. */
static int coroutine_fn mirror_filter_co_flush_to_disk(BlockDriverState *bs)
{
    MirrorTop *top = bs->opaque;

    if (top->job && mirror_phase(top->job) == MIRROR_READY) {
        top->job->guest_flushed = true;
        job_enter(&top->job->common.job);
    }
    return 0;
}

static void mirror_filter_child_perm(BlockDriverState *bs, BdrvChild *child, int role,
                                     uint64_t perm, uint64_t shared, uint64_t *nperm,
                                     uint64_t *nshared)
{
    MirrorTop *top = bs->opaque;

    bdrv_default_perms(bs, child, role, perm, shared, nperm, nshared);
    if (top->job) {
        *nperm |= BLK_PERM_CONSISTENT_READ; /* the job's reads */
    }
}

static void mirror_filter_refresh_filename(BlockDriverState *bs)
{
    if (bs->file) {
        g_free(bs->filename);
        bs->filename = g_strdup(bs->file->bs->filename);
        g_free(bs->exact_filename);
        bs->exact_filename = g_strdup(bs->file->bs->exact_filename);
    }
}

const BlockDriver bdrv_mirror_top = {
    .format_name = "mirror_top",
    .driver = BLOCKDEV_DRIVER__MAX,
    .instance_size = sizeof(MirrorTop),
    .is_filter = true,
    .bdrv_child_perm = mirror_filter_child_perm,
    .bdrv_co_preadv = mirror_filter_co_preadv,
    .bdrv_co_pwritev = mirror_filter_co_pwritev,
    .bdrv_co_pwrite_zeroes = mirror_filter_co_pwrite_zeroes,
    .bdrv_co_pdiscard = mirror_filter_co_pdiscard,
    .bdrv_co_flush_to_disk = mirror_filter_co_flush_to_disk,
    .bdrv_refresh_filename = mirror_filter_refresh_filename,
};

BlockDriverState *coroutine_fn mirror_filter_co_new(const MirrorOptions *opts, GError **errp)
{
    /* Whether space is given back is the source's to decide. */
    int flags = BDRV_O_UNMAP | (bdrv_is_read_only(opts->source) ? 0 : BDRV_O_RDWR);
    BlockDriverState *filter =
        bdrv_new_filter(&bdrv_mirror_top, opts->filter_node_name, flags, errp);

    if (filter) {
        filter->implicit = !opts->filter_node_name;
        bdrv_promise_as_below(filter, opts->source);
    }
    /* Nothing is attached to it yet that could object. */
    if (filter && !bdrv_co_set_aio_context(filter, bdrv_get_aio_context(opts->source), errp)) {
        bdrv_co_unref(filter);
        return NULL;
    }
    return filter;
}
