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

/* Between two attempts to hold guests up and finish, and how long one looks away at most. */
#define SETTLE_RETRY_NS (200 * SCALE_MS)
#define SETTLE_LOOK_NS  SCALE_MS

/*
 * What the target has to do before it can take the place, and whether the time for it is over. A
 * flush that hangs holds a reference.
 */
typedef struct Settle {
    MirrorBlockJob *s;
    bool flushed, expired;
    int ret, refs;
} Settle;

static void settle_unref(Settle *settle)
{
    if (--settle->refs == 0) {
        g_free(settle);
    }
}

static void settle_expired(void *opaque)
{
    Settle *settle = opaque;

    settle->expired = true;
    qemu_co_queue_restart_all(&settle->s->copy.op_ended);
}

static void coroutine_fn flush_co_entry(void *opaque)
{
    Settle *settle = opaque;

    settle->ret = copy_co_flush_target(&settle->s->copy);
    settle->flushed = true;
    qemu_co_queue_restart_all(&settle->s->copy.op_ended);
    settle_unref(settle);
}

/* Copies what writes left over that could not be forwarded, and waits for all that is under way. */
static void coroutine_fn co_copy_rest(Settle *settle)
{
    MirrorBlockJob *s = settle->s;

    while (!settle->expired) {
        bool more =
            s->copy.ret == 0 && !job_is_cancelled(&s->common.job) && !copy_is_clean(&s->copy);
        int64_t wait = more ? copy_pump(&s->copy, true) : 0;

        if (s->copy.in_flight + s->copy.left_behind) {
            qemu_co_queue_wait(&s->copy.op_ended, NULL);
        } else if (!more) {
            break;
        } else if (wait) {
            qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, MIN(wait, SETTLE_LOOK_NS));
        }
    }
}

/*
 * Makes the copy complete and durable; *ret: 0 or -errno. limit_ns 0: as long as it takes. False: the
 * time is over, and something is still on its way to the target.
 */
static bool coroutine_fn settle_co_target(MirrorBlockJob *s, int64_t limit_ns, int *ret)
{
    Settle *settle = g_new(Settle, 1);
    QEMUTimer *timer = NULL;
    bool done;

    *settle = (Settle){.s = s, .refs = 1};
    if (limit_ns) {
        timer =
            aio_timer_new(s->common.job.aio_context, QEMU_CLOCK_REALTIME, settle_expired, settle);
        timer_mod_ns(timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + limit_ns);
    }
    co_copy_rest(settle);
    if (!settle->expired && s->copy.ret == 0) {
        settle->refs++;
        qemu_coroutine_enter(qemu_coroutine_create(flush_co_entry, settle));
        while (!settle->flushed && !settle->expired) {
            qemu_co_queue_wait(&s->copy.op_ended, NULL);
        }
    }
    timer_free(timer);
    done = settle->flushed || (s->copy.ret < 0 && !settle->expired);
    *ret = s->copy.ret < 0 ? s->copy.ret : settle->ret;
    if (job_is_cancelled(&s->common.job)) {
        *ret = -ECANCELED;
    }
    settle_unref(settle);
    return done;
}

/*
 * The backing file that the target gets at the pivot, a reference; *backing NULL: none. A node of
 * the source's chain where it is the one that the image names.
 */
static bool coroutine_fn co_find_backing(MirrorBlockJob *s, BlockDriverState **backing,
                                         GError **errp)
{
    BlockDriverState *bs = bdrv_skip_filters(s->copy.target_bs);
    g_autofree char *path = NULL;

    *backing = NULL;
    if (s->sync == MIRROR_SYNC_MODE_TOP) {
        *backing = bdrv_cow_bs(s->copy.source);
    } else if (s->sync == MIRROR_SYNC_MODE_NONE) {
        *backing = s->copy.source;
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
                   bdrv_co_set_aio_context(*backing, bdrv_get_aio_context(s->copy.target_bs), errp);
        }
    }
    if (*backing) {
        bdrv_ref(*backing);
    }
    return true;
}

static bool attach_backing(MirrorBlockJob *s, BlockDriverState *backing, GError **errp)
{
    return s->backing_mode == MIRROR_LEAVE_BACKING || bdrv_cow_bs(s->copy.target_bs) == backing ||
           bdrv_set_backing_hd(bdrv_skip_filters(s->copy.target_bs), backing, errp);
}

/* Parents that stay with the source although the target takes its place. */
static bool stays_with_source(BdrvChild *child, void *opaque)
{
    MirrorBlockJob *s = opaque;

    return child->klass->parent_is_bds &&
           (child->opaque == s->filter || bdrv_graph_contains(s->copy.target_bs, child->opaque));
}

/* Within drained sections of all three. All parents move, or none. */
static bool pivot(MirrorBlockJob *s, BlockDriverState *to_replace, BlockDriverState *backing,
                  GError **errp)
{
    /* Users above the filter, and those that joined below it while the job ran. */
    BlockDriverState *from[] = {s->filter, s->copy.source};
    BdrvReplace how = {.stays = stays_with_source, .opaque = s};
    BlockDriverState *old_backing = bdrv_cow_bs(s->copy.target_bs);
    bool ok;

    if (!blk_set_perm(s->copy.target, 0, BLK_PERM_ALL, errp)) {
        return false;
    }
    if (old_backing) {
        bdrv_ref(old_backing);
    }
    ok = attach_backing(s, backing, errp);
    if (ok) {
        ok = to_replace == s->copy.source
                 ? bdrv_replace_nodes(from, 2, s->copy.target_bs, &how, errp)
                 : bdrv_replace_node(to_replace, s->copy.target_bs, errp);
        if (!ok && bdrv_cow_bs(s->copy.target_bs) != old_backing) {
            /* The target is the user's again, as it was; it may not be openable in that way now. */
            (void)bdrv_set_backing_hd(bdrv_skip_filters(s->copy.target_bs), old_backing, NULL);
        }
    }
    if (old_backing) {
        bdrv_unref_later(old_backing);
    }
    return ok;
}

/* All three, or none, within the time that guests may be held up. */
static bool coroutine_fn co_drain_all_three(MirrorBlockJob *s, BlockDriverState *to_replace)
{
    BlockDriverState *nodes[] = {s->copy.source, s->copy.target_bs, to_replace};
    unsigned n = 0;

    while (n < G_N_ELEMENTS(nodes) &&
           bdrv_co_drained_begin_within(nodes[n], MIRROR_MEET_WAIT_NS, NULL)) {
        n++;
    }
    if (n == G_N_ELEMENTS(nodes)) {
        return true;
    }
    while (n > 0) {
        bdrv_co_drained_end(nodes[--n]);
    }
    return false;
}

static void coroutine_fn co_undrain_all_three(MirrorBlockJob *s, BlockDriverState *to_replace)
{
    bdrv_co_drained_end(to_replace);
    bdrv_co_drained_end(s->copy.target_bs);
    bdrv_co_drained_end(s->copy.source);
}

/*
 * Returns with all three drained and the target complete and durable: 0; or -errno, and nothing is
 * drained. A target that does not answer is waited for while guests go on. The job's context.
 */
static int coroutine_fn co_stand_still(MirrorBlockJob *s, BlockDriverState *to_replace)
{
    int ret;

    for (;;) {
        (void)settle_co_target(s, 0, &ret);
        if (ret < 0) {
            return ret;
        }
        if (co_drain_all_three(s, to_replace)) {
            if (settle_co_target(s, MIRROR_MEET_WAIT_NS, &ret)) {
                break;
            }
            co_undrain_all_three(s, to_replace);
        }
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SETTLE_RETRY_NS);
    }
    if (ret < 0) {
        co_undrain_all_three(s, to_replace);
    }
    return ret;
}

/* Guests are held up from the drained sections to the last line. */
static int coroutine_fn switch_over(MirrorBlockJob *s, BlockDriverState *to_replace,
                                    BlockDriverState *backing, GError **errp)
{
    AioContext *ctx = s->common.job.aio_context;
    bool hop = ctx != qemu_get_aio_context();
    int ret;

    if (hop) {
        aio_co_reschedule_self(ctx);
    }
    ret = co_stand_still(s, to_replace);
    if (hop) {
        aio_co_reschedule_self(qemu_get_aio_context());
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not make the copy on node '%s' complete",
                         bdrv_get_node_name(s->copy.target_bs));
        return ret;
    }
    if (job_is_cancelled(&s->common.job)) {
        ret = -ECANCELED;
    } else if (!pivot(s, to_replace, backing, errp)) {
        ret = -EPERM;
    }
    mirror_event(s, ret < 0 ? MIRROR_EVENT_ENDED : MIRROR_EVENT_SWITCHED);
    co_undrain_all_three(s, to_replace);
    return ret;
}

int coroutine_fn mirror_co_pivot(MirrorBlockJob *s, GError **errp)
{
    BlockDriverState *to_replace = s->copy.source, *backing = NULL;
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
