/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a mirror job comes to be: its state, its place in the graph. */
#include "block/mirror/mirror-int.h"

#include "block/graph/graph.h"
#include "util/error.h"

static void coroutine_fn co_init_state(MirrorBlockJob *s, const MirrorOptions *opts,
                                       uint32_t granularity)
{
    BlockDriverState *target = bdrv_skip_filters(opts->target);
    bool full = opts->sync == MIRROR_SYNC_MODE_FULL;
    CopyOptions copy = {
        .source = opts->source,
        .base = opts->sync == MIRROR_SYNC_MODE_TOP ? bdrv_cow_bs(opts->source) : NULL,
        .target = opts->target,
        .granularity = granularity,
        .buf_size = opts->buf_size ? opts->buf_size : MIRROR_DEFAULT_BUF_SIZE,
        .unmap = opts->unmap,
        .target_plain = full && (!target->backing_file || !target->backing_file[0]),
        .target_is_zero = opts->target_is_zero && full,
        .callbacks = &mirror_copy_owner,
        .owner = s,
        .speed = &s->common.speed,
    };

    copy_co_init(&s->copy, &copy);
    s->replaces = g_strdup(opts->replaces);
    s->sync = opts->sync;
    s->copy_mode = opts->copy_mode;
    s->on_source_error = opts->on_source_error;
    s->on_target_error = opts->on_target_error;
    s->converge = opts->converge;
    s->backing_mode = opts->backing_mode;
    s->tail_bytes = bdrv_getlength(opts->target) - s->copy.size;
    TAILQ_INIT(&s->guest_waits);
    qemu_co_queue_init(&s->active_ended);
    if (opts->sync == MIRROR_SYNC_MODE_NONE) {
        s->copy.scan.pos = s->copy.scan.issued = s->copy.size;
    }
}

/*
 * With sync=top and none the target is completed by a backing file that may be attached later. A
 * write must not have the rest of a cluster of the target filled with zeroes, so whole clusters are
 * copied.
 */
static uint32_t coroutine_fn effective_granularity(const MirrorOptions *opts)
{
    uint32_t granularity = opts->granularity ? opts->granularity : MIRROR_DEFAULT_GRANULARITY;
    BlockDriverState *bs = bdrv_skip_filters(opts->target);
    int64_t cluster = 0;
    bool is_dirty;

    if (opts->sync != MIRROR_SYNC_MODE_FULL && bs->drv->bdrv_co_get_info &&
        bs->drv->bdrv_co_get_info(bs, &cluster, &is_dirty)) {
        while (granularity < cluster && granularity < MIRROR_MAX_GRANULARITY) {
            granularity *= 2;
        }
    }
    return granularity;
}

/* The target's own edge: it writes, and no other user may. */
static bool attach_target(MirrorBlockJob *s, GError **errp)
{
    s->copy.target = blk_new(BLK_PERM_WRITE, BLK_PERM_WRITE_UNCHANGED);
    blk_set_stay_at_node(s->copy.target, true);
    blk_set_disable_request_queuing(s->copy.target, true);
    return blk_insert_bs(s->copy.target, s->copy.target_bs, errp) &&
           block_job_add_bdrv(&s->common, "target", s->copy.target_bs, 0, BLK_PERM_ALL, errp);
}

/* Within drained sections of both ends. On failure the caller removes what was made. */
static bool wire_up(MirrorBlockJob *s, GError **errp)
{
    if (!attach_target(s, errp) || !copy_attach_reader(&s->copy, errp)) {
        return false;
    }
    s->copy.dirty = bdrv_create_dirty_bitmap(s->copy.source, s->copy.granularity, NULL, errp);
    if (!s->copy.dirty) {
        return false;
    }
    mirror_filter_set_job(s->filter, s);
    if (!bdrv_append_filter(s->filter, s->copy.source, errp)) {
        bdrv_release_dirty_bitmap(s->copy.dirty);
        s->copy.dirty = NULL;
        return false;
    }
    s->copy.source_edge = s->filter->file;
    return true;
}

/* The target first: no guest waits while it is waited for. */
static bool coroutine_fn co_drain_both(const MirrorOptions *opts, GError **errp)
{
    if (!bdrv_co_drained_begin_within(opts->target, BDRV_DRAIN_COMMAND_NS, errp)) {
        return false;
    }
    if (!bdrv_co_drained_begin_within(opts->source, BDRV_DRAIN_COMMAND_NS, errp)) {
        bdrv_co_drained_end(opts->target);
        return false;
    }
    return true;
}

static void undo_start(MirrorBlockJob *s)
{
    block_job_remove_all_bdrv(&s->common);
    blk_unref(s->copy.target);
    copy_destroy(&s->copy);
    bdrv_unref_later(s->copy.target_bs);
    bdrv_unref_later(s->copy.source);
    job_early_fail(&s->common.job);
}

bool coroutine_fn mirror_co_start(const MirrorOptions *opts, GError **errp)
{
    BlockJobOptions job_opts = {.job_id = opts->job_id,
                                .bs = opts->source,
                                .shared_perm = BLK_PERM_ALL,
                                .speed = opts->speed,
                                .flags = opts->flags};
    uint32_t granularity = effective_granularity(opts);
    BlockDriverState *filter = mirror_filter_co_new(opts, errp);
    MirrorBlockJob *s = NULL;
    bool ok;

    if (!filter) {
        return false;
    }
    if (!co_drain_both(opts, errp)) {
        bdrv_co_unref(filter);
        return false;
    }
    if (!opts->check || opts->check(opts, errp)) {
        s = block_job_create(&job_opts, &mirror_job_driver, errp);
    }
    ok = s != NULL;
    if (ok) {
        co_init_state(s, opts, granularity);
        s->filter = filter;
        bdrv_ref(opts->source);
        bdrv_ref(opts->target);
        ok = wire_up(s, errp);
    }
    /* Before the next wait: a cancel would end a job that is half made. */
    if (!ok && s) {
        undo_start(s);
    } else if (ok) {
        job_ref(&s->common.job);
    }
    bdrv_co_drained_end(opts->source);
    bdrv_co_drained_end(opts->target);
    if (ok) {
        if (s->common.job.status == JOB_STATUS_CREATED) { /* not cancelled meanwhile */
            job_start(&s->common.job);
        }
        job_unref(&s->common.job);
        return true;
    }
    bdrv_co_unref(filter);
    return false;
}
