/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The pivot of a mirror job: the target takes the place of the source, or of the node that
 * 'replaces' names, and gets its backing file.
 */
#include "block/mirror/mirror-int.h"

#include <errno.h>
#include <string.h>
#include "block/graph/graph.h"
#include "util/error.h"

/*
 * Drained: copies what was left over by writes that could not be forwarded, and makes all of it
 * durable.
 */
static int coroutine_fn settle_co_target(MirrorBlockJob *s)
{
    Job *job = &s->common.job;
    int ret;

    while (s->ret == 0 && !job_is_cancelled(job) && !mirror_is_clean(s)) {
        int64_t wait = mirror_pump(s, true);

        if (s->in_flight) {
            qemu_co_queue_wait(&s->op_ended, NULL);
        } else if (wait) {
            qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, wait);
        }
    }
    mirror_co_wait_idle(s);
    ret = s->ret < 0 ? s->ret : mirror_co_flush_target(s);
    return job_is_cancelled(job) ? -ECANCELED : ret;
}

/*
 * The backing file that the target gets at the pivot, a reference; *backing NULL: none. A node of
 * the source's chain where it is the one that the image names.
 */
static bool coroutine_fn co_find_backing(MirrorBlockJob *s, BlockDriverState **backing,
                                         GError **errp)
{
    BlockDriverState *bs = bdrv_skip_filters(s->target_bs);
    g_autofree char *path = NULL;

    *backing = NULL;
    if (s->sync == MIRROR_SYNC_MODE_TOP) {
        *backing = bdrv_cow_bs(s->source);
    } else if (s->sync == MIRROR_SYNC_MODE_NONE) {
        *backing = s->source;
    }
    if (s->backing_mode == MIRROR_OPEN_BACKING) {
        if (!bs->backing_file || !bs->backing_file[0]) {
            *backing = NULL;
            return true;
        }
        path = bdrv_backing_path(bs, errp);
        if (!path) {
            return false;
        }
        if (!*backing || strcmp(bdrv_get_filename(bdrv_skip_filters(*backing)), path) != 0) {
            const char *format =
                bs->backing_format && bs->backing_format[0] ? bs->backing_format : NULL;

            *backing = bdrv_co_open_filename(path, format, NULL, 0, errp);
            return *backing &&
                   bdrv_co_set_aio_context(*backing, bdrv_get_aio_context(s->target_bs), errp);
        }
    }
    if (*backing) {
        bdrv_ref(*backing);
    }
    return true;
}

static bool attach_backing(MirrorBlockJob *s, BlockDriverState *backing, GError **errp)
{
    return s->backing_mode == MIRROR_LEAVE_BACKING || bdrv_cow_bs(s->target_bs) == backing ||
           bdrv_set_backing_hd(bdrv_skip_filters(s->target_bs), backing, errp);
}

/* Parents that stay with the source although the target takes its place. */
static bool stays_with_source(BdrvChild *child, void *opaque)
{
    MirrorBlockJob *s = opaque;

    return child->klass->parent_is_bds &&
           (child->opaque == s->filter || bdrv_graph_contains(s->target_bs, child->opaque));
}

/* Within drained sections of all three. */
static bool pivot(MirrorBlockJob *s, BlockDriverState *to_replace, BlockDriverState *backing,
                  GError **errp)
{
    if (!blk_set_perm(s->target, 0, BLK_PERM_ALL, errp) || !attach_backing(s, backing, errp)) {
        return false;
    }
    if (to_replace != s->source) {
        return bdrv_replace_node(to_replace, s->target_bs, errp);
    }
    /* Users above the filter, and those that joined below it while the job ran. */
    if (!bdrv_replace_node(s->filter, s->target_bs, errp)) {
        return false;
    }
    if (!bdrv_replace_node_if(s->source, s->target_bs, stays_with_source, s, errp)) {
        return false;
    }
    return true;
}

/* Guests are held up from the first drained section to the last line. */
static int coroutine_fn switch_over(MirrorBlockJob *s, BlockDriverState *to_replace,
                                    BlockDriverState *backing, GError **errp)
{
    AioContext *ctx = s->common.job.aio_context;
    bool hop = ctx != qemu_get_aio_context();
    int ret;

    if (hop) {
        aio_co_reschedule_self(ctx);
    }
    bdrv_co_drained_begin(s->source);
    ret = settle_co_target(s);
    bdrv_co_drained_begin(s->target_bs);
    bdrv_co_drained_begin(to_replace);
    if (hop) {
        aio_co_reschedule_self(qemu_get_aio_context());
    }
    s->forward = MIRROR_FORWARD_NEVER;
    if (job_is_cancelled(&s->common.job)) {
        ret = -ECANCELED;
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not make the copy on node '%s' complete",
                         bdrv_get_node_name(s->target_bs));
    } else if (!pivot(s, to_replace, backing, errp)) {
        ret = -EPERM;
    } else {
        __atomic_store_n(&s->switched, true, __ATOMIC_SEQ_CST);
    }
    bdrv_co_drained_end(to_replace);
    bdrv_co_drained_end(s->target_bs);
    bdrv_co_drained_end(s->source);
    return ret;
}

int coroutine_fn mirror_co_pivot(MirrorBlockJob *s, GError **errp)
{
    BlockDriverState *to_replace = s->source, *backing = NULL;
    int ret = -ENOENT;

    if (s->replaces) {
        to_replace = bdrv_find_node(s->replaces);
    }
    if (!to_replace) {
        error_setg(errp, "Node '%s', which the copy was to replace, has disappeared", s->replaces);
        return ret;
    }
    bdrv_ref(to_replace);
    if (s->backing_mode == MIRROR_LEAVE_BACKING || co_find_backing(s, &backing, errp)) {
        ret = switch_over(s, to_replace, backing, errp);
    }
    if (backing) {
        bdrv_co_unref(backing);
    }
    bdrv_co_unref(to_replace);
    return ret;
}
