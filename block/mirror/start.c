/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a mirror job comes to be: its state, its place in the graph. */
#include "block/mirror/mirror-int.h"

#include "block/graph/graph.h"
#include "util/error.h"

/* One buffer. */
#define PIECE_BYTES     (1 << 20)
#define MIN_PIECE_BYTES (64 << 10)
/* File systems allocate blocks of this size. */
#define ZERO_UNIT_BYTES 4096
/* A write request costs about as much as so many bytes of it. */
#define ZERO_RUN_BYTES (16 << 10)

/* The driver that the chain of primary children ends in. */
static const BlockDriver *lowest_driver(BlockDriverState *bs)
{
    while (bs->file) {
        bs = bs->file->bs;
    }
    return bs->drv;
}

static void init_state(MirrorBlockJob *s, const MirrorOptions *opts, uint32_t granularity)
{
    BlockDriverState *target;

    s->source = opts->source;
    s->target_bs = opts->target;
    s->base = opts->sync == MIRROR_SYNC_MODE_TOP ? bdrv_cow_bs(opts->source) : NULL;
    s->replaces = g_strdup(opts->replaces);
    s->sync = opts->sync;
    s->copy_mode = opts->copy_mode;
    s->on_source_error = opts->on_source_error;
    s->on_target_error = opts->on_target_error;
    s->unmap = opts->unmap;
    s->converge = opts->converge;
    s->backing_mode = opts->backing_mode;
    s->size = bdrv_getlength(opts->source);
    s->tail_bytes = bdrv_getlength(opts->target) - s->size;
    s->granularity = granularity;
    s->buf_size = opts->buf_size ? opts->buf_size : MIRROR_DEFAULT_BUF_SIZE;
    s->piece_bytes = PIECE_BYTES;
    while (s->piece_bytes > MIN_PIECE_BYTES && (int64_t)s->piece_bytes * 2 > s->buf_size) {
        s->piece_bytes /= 2;
    }
    mirror_pace_init(s);
    s->host_target = lowest_driver(s->target_bs)->bdrv_get_read_fd;
    s->server_target = lowest_driver(s->target_bs)->bdrv_cancel_in_flight;
    LIST_INIT(&s->ops);
    TAILQ_INIT(&s->guest_waits);
    qemu_co_queue_init(&s->op_ended);
    qemu_co_queue_init(&s->idle);
    qemu_co_queue_init(&s->memory_freed);
    qemu_co_queue_init(&s->active_ended);
    target = bdrv_skip_filters(opts->target);
    s->target_plain =
        opts->sync == MIRROR_SYNC_MODE_FULL && (!target->backing_file || !target->backing_file[0]);
    mirror_map_init(&s->map, s->size, granularity,
                    opts->target_is_zero && opts->sync == MIRROR_SYNC_MODE_FULL);
    if (opts->sync == MIRROR_SYNC_MODE_NONE) {
        s->scan.pos = s->scan.issued = s->size;
    }
}

/*
 * With sync=top and none the target is completed by a backing file that may come later: a write
 * must not leave the rest of one of its clusters to be filled with zeroes, so whole clusters are
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

/*
 * How finely zeroes are kept out of the target: by what it allocates, as long as a request for each
 * piece costs no more than it spares.
 */
static void coroutine_fn choose_zero_unit(MirrorBlockJob *s)
{
    BlockDriverState *bs = bdrv_skip_filters(s->target_bs);
    int64_t cluster = 0;
    bool is_dirty;

    s->zero_unit = ZERO_UNIT_BYTES;
    s->zero_run = ZERO_RUN_BYTES;
    if (bs->drv->bdrv_co_get_info && bs->drv->bdrv_co_get_info(bs, &cluster, &is_dirty) &&
        cluster > s->zero_unit) {
        s->zero_unit = MIN(cluster, MIRROR_MIXED_UNIT);
    } else if (s->host_target && !(bs->open_flags & BDRV_O_NOCACHE)) {
        s->zero_run = s->zero_unit;
        s->fine_target = true;
    }
    s->zero_unit = MAX(s->zero_unit, (int64_t)s->target_bs->bl.request_alignment);
}

/* The target's own edge: it writes, and nobody else may. */
static bool attach_target(MirrorBlockJob *s, GError **errp)
{
    s->target = blk_new(BLK_PERM_WRITE, BLK_PERM_WRITE_UNCHANGED);
    blk_set_stay_at_node(s->target, true);
    blk_set_disable_request_queuing(s->target, true);
    return blk_insert_bs(s->target, s->target_bs, errp) &&
           block_job_add_bdrv(&s->common, "target", s->target_bs, 0, BLK_PERM_ALL, errp);
}

/* Within drained sections of both ends. On failure the caller removes what was made. */
static bool wire_up(MirrorBlockJob *s, GError **errp)
{
    if (!attach_target(s, errp)) {
        return false;
    }
    s->dirty = bdrv_create_dirty_bitmap(s->source, s->granularity, NULL, errp);
    if (!s->dirty) {
        return false;
    }
    mirror_filter_set_job(s->filter, s);
    if (!bdrv_append_filter(s->filter, s->source, errp)) {
        bdrv_release_dirty_bitmap(s->dirty);
        s->dirty = NULL;
        return false;
    }
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

bool coroutine_fn mirror_co_start(const MirrorOptions *opts, GError **errp)
{
    BlockJobOptions job_opts = {.job_id = opts->job_id,
                                .bs = opts->source,
                                .shared_perm = BLK_PERM_ALL,
                                .speed = opts->speed,
                                .flags = opts->flags};
    uint32_t granularity = effective_granularity(opts);
    BlockDriverState *filter = mirror_filter_co_new(opts, errp);
    MirrorBlockJob *s;
    bool ok;

    if (!filter) {
        return false;
    }
    if (!co_drain_both(opts, errp)) {
        bdrv_co_unref(filter);
        return false;
    }
    s = block_job_create(&job_opts, &mirror_job_driver, errp);
    ok = s != NULL;
    if (ok) {
        init_state(s, opts, granularity);
        choose_zero_unit(s);
        s->filter = filter;
        bdrv_ref(opts->source);
        bdrv_ref(opts->target);
        ok = wire_up(s, errp);
    }
    bdrv_co_drained_end(opts->source);
    bdrv_co_drained_end(opts->target);
    if (ok) {
        job_start(&s->common.job);
        return true;
    }
    if (s) {
        block_job_remove_all_bdrv(&s->common);
        blk_unref(s->target);
        mirror_map_destroy(&s->map);
        bdrv_unref_later(s->target_bs);
        bdrv_unref_later(s->source);
        job_early_fail(&s->common.job);
    }
    bdrv_co_unref(filter);
    return false;
}
