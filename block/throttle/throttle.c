/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The throttle driver: a filter whose requests wait for the limits of a throttle group. */
#include "block/throttle/throttle.h"

#include "block/throttle/throttle-group.h"
#include "util/error.h"

typedef struct BDRVThrottleState {
    ThrottleGroupMember member;
} BDRVThrottleState;

static bool coroutine_fn paced_co_open(BlockDriverState *bs, const BlockdevOptions *opts, int flags,
                                       GError **errp)
{
    const BlockdevOptionsThrottle *o = &opts->u.throttle;
    BDRVThrottleState *s = bs->opaque;
    ThrottleGroup *group = throttle_group_find(o->throttle_group);

    if (!group) {
        error_setg(errp, "Throttle group '%s' does not exist", o->throttle_group);
        return false;
    }
    /* First of all: a child inside a drained section tells us so while it is attached. */
    throttle_member_init(&s->member, group);
    if (!bdrv_co_open_child(bs, o->file, "file", BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, errp)) {
        throttle_member_destroy(&s->member);
        return false;
    }
    bdrv_promise_as_below(bs, bs->file->bs);
    return true;
}

static void coroutine_fn paced_co_close(BlockDriverState *bs)
{
    BDRVThrottleState *s = bs->opaque;

    throttle_member_destroy(&s->member);
}

static int coroutine_fn paced_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        QEMUIOVector *qiov, size_t qiov_offset,
                                        BdrvRequestFlags flags)
{
    BDRVThrottleState *s = bs->opaque;

    throttle_member_co_wait(&s->member, bytes, false);
    return bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn paced_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         QEMUIOVector *qiov, size_t qiov_offset,
                                         BdrvRequestFlags flags)
{
    BDRVThrottleState *s = bs->opaque;

    throttle_member_co_wait(&s->member, bytes, true);
    return bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn paced_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                               BdrvRequestFlags flags)
{
    BDRVThrottleState *s = bs->opaque;

    throttle_member_co_wait(&s->member, bytes, true);
    return bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
}

static int coroutine_fn paced_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVThrottleState *s = bs->opaque;

    throttle_member_co_wait(&s->member, bytes, true);
    return bdrv_co_pdiscard(bs->file, offset, bytes);
}

/* A drain must end soon: what waits for the limits goes on without them. */
static void paced_drain_begin(BlockDriverState *bs)
{
    BDRVThrottleState *s = bs->opaque;

    throttle_member_bypass_begin(&s->member);
}

static void paced_drain_end(BlockDriverState *bs)
{
    BDRVThrottleState *s = bs->opaque;

    throttle_member_bypass_end(&s->member);
}

static void paced_lift_limits(BlockDriverState *bs, bool lift)
{
    if (lift) {
        paced_drain_begin(bs);
    } else {
        paced_drain_end(bs);
    }
}

/* Moves the node to another group. The node is drained, so nothing waits in the old one. */
static bool coroutine_fn paced_co_reopen_prepare(BDRVReopenState *state, GError **errp)
{
    const char *name = state->options->u.throttle.throttle_group;
    ThrottleGroup *group = throttle_group_find(name);

    if (!group) {
        error_setg(errp, "Throttle group '%s' does not exist", name);
        return false;
    }
    state->opaque = group;
    return true;
}

static void coroutine_fn paced_co_reopen_commit(BDRVReopenState *state)
{
    BDRVThrottleState *s = state->bs->opaque;
    unsigned bypass = s->member.bypass;

    throttle_member_destroy(&s->member);
    throttle_member_init(&s->member, state->opaque);
    s->member.bypass = bypass;
}

static void coroutine_fn paced_co_reopen_abort(BDRVReopenState *state)
{
    throttle_group_unref(state->opaque);
}

const BlockDriver bdrv_throttle = {
    .format_name = "throttle",
    .driver = BLOCKDEV_DRIVER_THROTTLE,
    .instance_size = sizeof(BDRVThrottleState),
    .is_filter = true,
    .bdrv_co_open = paced_co_open,
    .bdrv_co_close = paced_co_close,
    .bdrv_co_preadv = paced_co_preadv,
    .bdrv_co_pwritev = paced_co_pwritev,
    .bdrv_co_pwrite_zeroes = paced_co_pwrite_zeroes,
    .bdrv_co_pdiscard = paced_co_pdiscard,
    .bdrv_drain_begin = paced_drain_begin,
    .bdrv_drain_end = paced_drain_end,
    .bdrv_lift_limits = paced_lift_limits,
    .bdrv_co_reopen_prepare = paced_co_reopen_prepare,
    .bdrv_co_reopen_commit = paced_co_reopen_commit,
    .bdrv_co_reopen_abort = paced_co_reopen_abort,
};
