/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mirror job: main loop, READY, finish and verbs. block/mirror/mirror-int.h maps its parts and states
 * what keeps the copy right.
 *
 *   start     under a drained section: filter above the source, dirty bitmap on it; then the job runs
 *   phase 1   the scan feeds the copy engine; what guests write behind it gets dirty
 *   READY     nothing left to copy, nothing in flight, and the target flushed
 *   phase 2   dirty extents are copied as they appear
 *   finish    under a drained section nothing is left to copy: complete forwards every write from there on until the pivot, cancel
 *             forwards none
 *   pivot     (prepare, complete only) drained, last writes copied, target flushed, parents moved to the target
 *   clean     drained, filter removed, everything released
 */
#include "block/mirror/mirror-int.h"

#include <errno.h>
#include "block/graph/graph.h"
#include "trace/trace-block.h"
#include "util/error.h"

/* Once ready, small changes wait this long for company. */
#define READY_BATCH_NS    (20 * SCALE_MS)
#define READY_BATCH_BYTES (1 << 20)
/*
 * Guests are held up while the rest is copied when that is expected to take no longer than this, by
 * the rate seen so far. If it takes longer, guests wait MIRROR_MEET_WAIT_NS at most.
 */
#define FINAL_EXPECTED_NS (50 * SCALE_MS)
#define FINAL_MAX_BYTES   (64 << 20)
/* After a final attempt that took too long. */
#define FINAL_RETRY_NS (1000 * SCALE_MS)
/* Guests are not held up for a target that has requests and has finished none for so long. */
#define ANSWERS_WITHIN_NS (100 * SCALE_MS)

static MirrorBlockJob *mirror_of(Job *job)
{
    return (MirrorBlockJob *)job;
}

static bool is_ready(const MirrorBlockJob *s)
{
    return mirror_phase(s) == MIRROR_READY;
}

static MirrorFinish finish_asked(const MirrorBlockJob *s)
{
    return __atomic_load_n(&s->finish, __ATOMIC_SEQ_CST);
}

void mirror_update_progress(MirrorBlockJob *s)
{
    job_progress_set_remaining(&s->common.job, copy_bytes_left(&s->copy));
    __atomic_store_n(&s->in_step, copy_is_clean(&s->copy), __ATOMIC_RELAXED);
}

/* --- what the engine asks --- */

static CopyWish mirror_wish(void *owner)
{
    Job *job = owner;

    return job_is_cancelled(job) ? COPY_CANCEL : job_should_pause(job) ? COPY_PAUSE : COPY_GO_ON;
}

static int64_t mirror_delay_ns(void *owner, int64_t bytes)
{
    return block_job_ratelimit_ns(owner, bytes);
}

static BlockErrorAction coroutine_fn mirror_co_copy_failed(void *owner, bool is_read, int error)
{
    MirrorBlockJob *s = owner;
    BlockErrorAction action = block_job_co_error_action(
        &s->common, is_read ? s->on_source_error : s->on_target_error, is_read, error);

    s->stopped |= action == BLOCK_ERROR_ACTION_STOP;
    s->read_failed |= is_read && action == BLOCK_ERROR_ACTION_REPORT && s->copy.ret == 0;
    return action;
}

static void mirror_moved(void *owner, int64_t bytes)
{
    MirrorBlockJob *s = owner;

    job_progress_update(&s->common.job, bytes);
    mirror_update_progress(s);
    job_enter(&s->common.job);
}

const CopyOwner mirror_copy_owner = {
    .wish = mirror_wish,
    .delay_ns = mirror_delay_ns,
    .co_failed = mirror_co_copy_failed,
    .moved = mirror_moved,
};

/* --- main loop --- */

/* Applies the policy to a target that could not be made ready. False: the job is to end. */
static bool coroutine_fn target_co_failed(MirrorBlockJob *s, int ret)
{
    if (job_is_cancelled(&s->common.job)) {
        return false;
    }
    switch (block_job_co_error_action(&s->common, s->on_target_error, false, -ret)) {
    case BLOCK_ERROR_ACTION_STOP:
        return true;
    case BLOCK_ERROR_ACTION_IGNORE:
        job_co_sleep_ns(&s->common.job, FINAL_RETRY_NS);
        return true;
    default:
        s->copy.ret = ret;
        return false;
    }
}

/*
 * Holds the guests up and copies what is left, if that is quick. True: source and target are equal,
 * and guests still held.
 */
static bool coroutine_fn mirror_co_meet(MirrorBlockJob *s)
{
    Job *job = &s->common.job;
    int64_t deadline = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + MIRROR_MEET_WAIT_NS;

    if (!bdrv_co_drained_begin_within(s->copy.source, MIRROR_MEET_WAIT_NS, NULL)) {
        return false;
    }
    while (!copy_is_clean(&s->copy)) {
        int64_t left = deadline - qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        int64_t wait;

        if (s->copy.ret < 0 || left <= 0 || job_is_cancelled(job) || s->stopped) {
            bdrv_co_drained_end(s->copy.source);
            return false;
        }
        wait = copy_pump(&s->copy, true);
        mirror_update_progress(s);
        job_co_sleep_ns(job, wait ? MIN(wait, left) : left);
    }
    return true;
}

/* Nothing is on its way to the target, or it has finished something of late. */
static bool target_answers(const MirrorBlockJob *s)
{
    return s->copy.in_flight + s->copy.left_behind == 0 ||
           (!mirror_is_lagging(s) &&
            qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - s->copy.last_end_ns < ANSWERS_WITHIN_NS);
}

/* Little enough is left that guests may be held up to copy it. */
static bool little_left(const MirrorBlockJob *s)
{
    int64_t bytes = s->copy.rate / (NANOSECONDS_PER_SECOND / FINAL_EXPECTED_NS);

    if (mirror_is_converging(s)) {
        bytes /= 16; /* it comes to its end without that */
    }

    return copy_scan_done(&s->copy) && target_answers(s) &&
           copy_bytes_left(&s->copy) <= MIN(bytes, FINAL_MAX_BYTES);
}

/* A target of whole sectors ends in zeroes where the source ends within its last sector. */
static int coroutine_fn zero_co_tail(MirrorBlockJob *s)
{
    BdrvBlockStatus st;
    int ret = bdrv_co_block_status_above(s->copy.target_bs, NULL, s->copy.size, s->tail_bytes, &st);

    /* What is not allocated stays so: a write would fill the rest of its cluster. */
    if (ret == 0 && (st.flags & BDRV_BLOCK_ZERO) && st.pnum >= s->tail_bytes) {
        return 0;
    }
    return blk_co_pwrite_zeroes(s->copy.target, s->copy.size, s->tail_bytes, 0);
}

static int coroutine_fn mirror_co_zero_tail(MirrorBlockJob *s)
{
    int ret;

    if (!s->tail_bytes || job_is_cancelled(&s->common.job)) {
        return 0;
    }
    s->copy.in_flight++;
    ret = zero_co_tail(s);
    s->copy.in_flight--;
    if (ret == 0) {
        s->tail_bytes = 0;
    }
    copy_note_idle(&s->copy);
    qemu_co_queue_restart_all(&s->copy.op_ended);
    bdrv_drain_kick();
    return ret;
}

/* Source and target have met for the first time. */
static void coroutine_fn mirror_co_become_ready(MirrorBlockJob *s)
{
    int ret;

    /* as they met: what guests write during the flush counts from READY on */
    mirror_update_progress(s);
    ret = mirror_co_zero_tail(s);
    if (ret == 0) {
        ret = copy_co_flush_target(&s->copy);
    }
    if (ret < 0) {
        (void)target_co_failed(s, ret);
        return;
    }
    if (job_is_cancelled(&s->common.job)) {
        return;
    }
    mirror_event(s, MIRROR_EVENT_MET);
    job_co_transition_to_ready(&s->common.job);
    mirror_update_progress(s);
}

/* The user wants it to end, and little is left. True: the copy is final. */
static bool coroutine_fn mirror_co_try_finish(MirrorBlockJob *s)
{
    int ret = copy_co_flush_target(&s->copy); /* most of it while guests go on */
    bool keep;

    if (ret == 0 && !mirror_co_meet(s)) {
        s->not_before_final_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + FINAL_RETRY_NS;
        return false;
    }
    if (ret < 0) {
        return !target_co_failed(s, ret);
    }
    keep = finish_asked(s) == MIRROR_FINISH_KEEP;
    mirror_event(s, keep ? MIRROR_EVENT_MET_TO_KEEP : MIRROR_EVENT_MET_TO_PIVOT);
    bdrv_co_drained_end(s->copy.source);
    if (keep) {
        s->copy.ret = copy_co_flush_target(&s->copy);
    }
    return true;
}

/* How long small changes wait for more, ns. */
static int64_t batch_delay_ns(const MirrorBlockJob *s)
{
    if (!is_ready(s) || finish_asked(s) != MIRROR_FINISH_NONE || s->copy.in_flight ||
        bdrv_get_dirty_count(s->copy.dirty) >= READY_BATCH_BYTES) {
        return 0;
    }
    return READY_BATCH_NS;
}

/* Nothing to copy: waits until there is. */
static void coroutine_fn mirror_co_idle(MirrorBlockJob *s)
{
    Job *job = &s->common.job;
    int64_t wait;

    if (s->guest_flushed) {
        /* Guests do not wait for it; what the target keeps until a flush comes back. */
        s->guest_flushed = false;
        wait = copy_co_flush_target(&s->copy);
        if (wait < 0) {
            (void)target_co_failed(s, (int)wait);
        }
        return;
    }

    if (finish_asked(s) != MIRROR_FINISH_NONE) {
        job_co_sleep_ns(job, s->not_before_final_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
        return;
    }
    job_co_yield(job, true);
    wait = batch_delay_ns(s);
    if (wait && !copy_is_clean(&s->copy)) {
        job_co_sleep_ns(job, wait);
    }
}

/* Makes source and target meet although guests go on writing. True: the copy is final. */
static bool coroutine_fn mirror_co_force_meeting(MirrorBlockJob *s)
{
    if (is_ready(s)) {
        return mirror_co_try_finish(s);
    }
    if (mirror_co_meet(s)) {
        bdrv_co_drained_end(s->copy.source);
        mirror_co_become_ready(s);
    } else {
        s->not_before_final_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + FINAL_RETRY_NS;
    }
    return false;
}

/* One look at what there is to do. True: the work is done. */
static bool coroutine_fn mirror_co_step(MirrorBlockJob *s)
{
    Job *job = &s->common.job;
    bool wants_meeting =
        is_ready(s) ? finish_asked(s) != MIRROR_FINISH_NONE : !copy_is_clean(&s->copy);
    int64_t wait;

    mirror_co_watch_progress(s, !is_ready(s) || wants_meeting);
    if (wants_meeting && (little_left(s) || copy_is_clean(&s->copy)) &&
        qemu_clock_get_ns(QEMU_CLOCK_REALTIME) >= s->not_before_final_ns) {
        return mirror_co_force_meeting(s);
    }
    if (copy_is_clean(&s->copy)) {
        if (is_ready(s)) {
            mirror_co_idle(s);
        } else {
            mirror_co_become_ready(s);
        }
        return false;
    }
    wait = copy_pump(&s->copy, false);
    mirror_update_progress(s);
    if (s->copy.turn_over) {
        qemu_co_yield_to_loop();
        return false;
    }
    if (s->copy.ret == 0 && !job_should_pause(job) && !copy_is_clean(&s->copy)) {
        if (wait) {
            job_co_sleep_ns(job, wait);
        } else {
            job_co_yield(job, false);
        }
    }
    return false;
}

static void dirty_notify(void *opaque)
{
    MirrorBlockJob *s = opaque;

    __atomic_store_n(&s->in_step, false, __ATOMIC_RELAXED);
    job_enter(&s->common.job);
}

static int coroutine_fn mirror_co_work(Job *job, GError **errp)
{
    MirrorBlockJob *s = mirror_of(job);

    bdrv_dirty_bitmap_set_notify(s->copy.dirty, dirty_notify, s);
    mirror_update_progress(s);
    while (s->copy.ret == 0 && !job_is_cancelled(job)) {
        job_co_pause_point(job);
        if (job_is_cancelled(job) || mirror_co_step(s)) {
            break;
        }
    }
    mirror_co_watch_progress(s, false);
    copy_co_wait_idle(&s->copy);
    bdrv_dirty_bitmap_set_notify(s->copy.dirty, NULL, NULL);
    if (job_is_cancelled(job)) {
        return -ECANCELED;
    }
    if (s->copy.ret < 0) {
        error_setg_errno(errp, -s->copy.ret, "%s node '%s' failed",
                         s->read_failed ? "Reading the source" : "Writing to the target",
                         bdrv_get_node_name(s->read_failed ? s->copy.source : s->copy.target_bs));
    }
    return s->copy.ret;
}

static void coroutine_fn mirror_co_rest(Job *job)
{
    copy_co_wait_idle(&mirror_of(job)->copy);
}

static void coroutine_fn mirror_co_go_on(Job *job)
{
    mirror_of(job)->stopped = false;
}

static bool mirror_is_busy_at(Job *job, BlockDriverState *bs)
{
    MirrorBlockJob *s = mirror_of(job);

    /* A drain may ask before the job is set up. A write that was left behind concerns the target alone. */
    return s->copy.in_flight > 0 ||
           (s->copy.left_behind > 0 && bs == __atomic_load_n(&s->copy.target_bs, __ATOMIC_RELAXED));
}

/* --- end --- */

static int coroutine_fn mirror_co_switch(Job *job, GError **errp)
{
    MirrorBlockJob *s = mirror_of(job);

    return finish_asked(s) == MIRROR_FINISH_PIVOT ? mirror_co_pivot(s, errp) : 0;
}

/*
 * Drains the source at a moment when nothing is on its way to the target: guests are not held up for
 * what was left behind there.
 */
static void coroutine_fn co_drain_at_rest(MirrorBlockJob *s)
{
    AioContext *ctx = s->common.job.aio_context, *main_ctx = qemu_get_aio_context();

    if (ctx != main_ctx) {
        aio_co_reschedule_self(ctx);
    }
    copy_co_wait_idle(&s->copy);
    bdrv_co_drained_begin(s->copy.source);
    while (s->copy.left_behind) {
        bdrv_co_drained_end(s->copy.source);
        copy_co_wait_idle(&s->copy);
        bdrv_co_drained_begin(s->copy.source);
    }
    if (ctx != main_ctx) {
        aio_co_reschedule_self(main_ctx);
    }
}

/* The guests' writes that know the job have ended, and so has all that goes to the target. */
static void coroutine_fn co_wait_for_guests(MirrorBlockJob *s)
{
    while (s->copy.in_flight + s->copy.left_behind > 0 || copy_target_busy(&s->copy) ||
           !TAILQ_EMPTY(&s->guest_waits)) {
        qemu_co_queue_wait(&s->copy.idle, NULL);
    }
}

/* A filter that only passes requests through, and its source; a reference to each. */
typedef struct OldFilter {
    BlockDriverState *filter, *source;
} OldFilter;

static bool coroutine_fn co_take_out(const OldFilter *old, int64_t limit_ns)
{
    AioContext *ctx = bdrv_get_aio_context(old->source), *self = qemu_get_current_aio_context();
    bool quiet = true;

    /* The source is fenced and not waited for: what hangs there stays on its own edge. */
    aio_co_reschedule_self(ctx);
    bdrv_quiesce_begin(old->source);
    if (limit_ns) {
        quiet = bdrv_co_drained_begin_within(old->filter, limit_ns, NULL);
    } else {
        bdrv_co_drained_begin(old->filter);
    }
    aio_co_reschedule_self(self);
    if (quiet) {
        g_autoptr(GError) err = NULL;

        if (!LIST_EMPTY(&old->filter->parents) &&
            !bdrv_replace_node(old->filter, old->source, &err)) {
            warn_report("filter '%s' of a mirror job stays in place: %s",
                        bdrv_get_node_name(old->filter), err->message);
        }
        bdrv_co_drained_end(old->filter);
    }
    bdrv_co_drained_end(old->source);
    return quiet;
}

static void coroutine_fn take_out_later_co_entry(void *opaque)
{
    g_autofree OldFilter *old = opaque;

    (void)co_take_out(old, 0);
    bdrv_co_unref(old->filter);
    bdrv_co_unref(old->source);
}

/*
 * The source has not answered some of the job's reads, which are left to themselves. Guests may wait
 * for it as well: then the job is over before its filter can leave.
 */
static void coroutine_fn leave_hung_source(MirrorBlockJob *s)
{
    AioContext *ctx = s->common.job.aio_context, *main_ctx = qemu_get_aio_context();
    OldFilter old = {.filter = s->filter, .source = s->copy.source};

    aio_co_reschedule_self(ctx);
    co_wait_for_guests(s);
    mirror_event(s, MIRROR_EVENT_ENDED);
    mirror_filter_set_job(s->filter, NULL);
    g_clear_pointer(&s->guest_timer, timer_free);
    bdrv_release_dirty_bitmap(s->copy.dirty);
    s->copy.dirty = NULL;
    aio_co_reschedule_self(main_ctx);
    if (!co_take_out(&old, MIRROR_MEET_WAIT_NS)) {
        bdrv_ref(old.filter);
        bdrv_ref(old.source);
        qemu_coroutine_enter(
            qemu_coroutine_create(take_out_later_co_entry, g_memdup2(&old, sizeof(old))));
    }
}

/* Takes the filter out of the graph, where the pivot has not done so. */
static void coroutine_fn remove_filter(MirrorBlockJob *s)
{
    g_autoptr(GError) err = NULL;

    if (s->copy.left_questions) {
        leave_hung_source(s);
        return;
    }
    co_drain_at_rest(s);
    mirror_event(s, MIRROR_EVENT_ENDED);
    timer_free(s->guest_timer);
    s->guest_timer = NULL;
    mirror_filter_set_job(s->filter, NULL);
    bdrv_co_drained_begin(s->filter);
    if (!LIST_EMPTY(&s->filter->parents) && !bdrv_replace_node(s->filter, s->copy.source, &err)) {
        /* It only passes requests through now: users of the disk notice nothing. */
        warn_report("mirror job '%s' leaves its filter '%s' in place: %s", s->common.job.id,
                    bdrv_get_node_name(s->filter), err->message);
    }
    bdrv_release_dirty_bitmap(s->copy.dirty);
    s->copy.dirty = NULL;
    bdrv_co_drained_end(s->filter);
    bdrv_co_drained_end(s->copy.source);
}

static void coroutine_fn mirror_co_let_go(Job *job)
{
    MirrorBlockJob *s = mirror_of(job);

    remove_filter(s);
    copy_detach_reader(&s->copy);
    block_job_remove_all_bdrv(&s->common);
    blk_unref(s->copy.target);
    s->copy.target = NULL;
    bdrv_co_unref(s->filter);
    bdrv_co_unref(s->copy.target_bs);
    bdrv_co_unref(s->copy.source);
    copy_destroy(&s->copy);
}

static void mirror_forget(Job *job)
{
    MirrorBlockJob *s = mirror_of(job);

    g_free(s->replaces);
    g_free(s->common.blocker);
}

/* --- verbs; main thread --- */

static bool mirror_ask_pivot(Job *job, GError **errp)
{
    MirrorBlockJob *s = mirror_of(job);

    if (s->replaces) {
        BlockDriverState *bs = bdrv_find_node(s->replaces);

        if (!bs) {
            error_setg(errp, "Node '%s', which the copy is to replace, does not exist any more",
                       s->replaces);
            return false;
        }
        if (bdrv_getlength(bs) != s->copy.size) {
            error_setg(errp, "Node '%s' has another size than the copy that is to replace it",
                       s->replaces);
            return false;
        }
    }
    __atomic_store_n(&s->finish, MIRROR_FINISH_PIVOT, __ATOMIC_SEQ_CST);
    job_enter(job);
    return true;
}

/* What the target's bytes pass through takes no requests meanwhile. */
static void refuse_requests(BlockDriverState *bs, bool refuse)
{
    BdrvChild *child;

    if (BDRV_OP(bs->drv, protocol, bdrv_refuse_requests)) {
        bs->drv->protocol->bdrv_refuse_requests(bs, refuse);
    }
    LIST_FOREACH(child, &bs->children, next) {
        if (child->role != BDRV_CHILD_COW) {
            refuse_requests(child->bs, refuse);
        }
    }
}

/* Gives up connections of the target, so that requests that hang there end. */
static void cancel_in_flight(BlockDriverState *bs)
{
    BdrvChild *child;

    if (BDRV_OP(bs->drv, protocol, bdrv_cancel_in_flight)) {
        bs->drv->protocol->bdrv_cancel_in_flight(bs);
    }
    LIST_FOREACH(child, &bs->children, next) {
        if (child->role != BDRV_CHILD_COW) {
            cancel_in_flight(child->bs);
        }
    }
}

/* Collects the nodes below (and with) bs that limit requests, a reference to each. */
static void find_limits(BlockDriverState *bs, GPtrArray *nodes)
{
    BdrvChild *child;

    if (bs->drv->bdrv_lift_limits) {
        bdrv_ref(bs);
        g_ptr_array_add(nodes, bs);
    }
    LIST_FOREACH(child, &bs->children, next) {
        find_limits(child->bs, nodes);
    }
}

/* The job's own requests wait for no limit any more. Undone by restore_limits(). */
static GPtrArray *lift_limits(MirrorBlockJob *s, BlockDriverState *target)
{
    GPtrArray *nodes = g_ptr_array_new();

    find_limits(s->copy.source, nodes);
    find_limits(target, nodes);
    for (guint i = 0; i < nodes->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(nodes, i);

        bs->drv->bdrv_lift_limits(bs, true);
    }
    return nodes;
}

static void restore_limits(GPtrArray *nodes)
{
    for (guint i = 0; i < nodes->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(nodes, i);

        bs->drv->bdrv_lift_limits(bs, false);
        bdrv_unref_later(bs);
    }
    g_ptr_array_free(nodes, true);
}

/* One forced cancel; holds a reference to the job and to the target. */
typedef struct GiveUp {
    MirrorBlockJob *s;
    BlockDriverState *target;
} GiveUp;

/*
 * An operation that was still reading the source, or that needs several requests, may reach the
 * target after it was given up. Its requests are refused until the last operation has ended.
 */
static void coroutine_fn give_up_co_entry(void *opaque)
{
    g_autofree GiveUp *g = opaque;
    MirrorBlockJob *s = g->s;
    GPtrArray *limits;

    copy_leave_questions(&s->copy);
    /* After the switch-over it is the guest's disk. */
    if (copy_target_busy(&s->copy) && mirror_phase(s) < MIRROR_PIVOTED) {
        trace_mirror_give_up(bdrv_get_node_name(g->target));
        refuse_requests(g->target, true);
        cancel_in_flight(g->target);
        limits = lift_limits(s, g->target);
        while (copy_target_busy(&s->copy)) {
            qemu_co_queue_wait(&s->copy.idle, NULL);
        }
        restore_limits(limits);
        refuse_requests(g->target, false);
    }
    bdrv_unref_later(g->target);
    job_unref(&s->common.job);
}

static void cancel_bh(void *opaque)
{
    qemu_coroutine_enter(qemu_coroutine_create(give_up_co_entry, opaque));
}

static bool mirror_ask_end(Job *job, bool force)
{
    MirrorBlockJob *s = mirror_of(job);
    GiveUp *g;

    if (!force && job_is_ready(job)) {
        __atomic_store_n(&s->finish, MIRROR_FINISH_KEEP, __ATOMIC_SEQ_CST);
        return false;
    }
    g = g_new(GiveUp, 1);
    *g = (GiveUp){.s = s, .target = s->copy.target_bs};
    job_ref(job);
    bdrv_ref(g->target);
    aio_bh_schedule_oneshot(job->aio_context, cancel_bh, g);
    return true;
}

static bool mirror_take_options(Job *job, const BlockJobChangeOptions *opts, GError **errp)
{
    MirrorBlockJob *s = mirror_of(job);

    if (opts->type != JOB_TYPE_MIRROR) {
        error_setg(errp, "Job '%s' is a mirror job: its type cannot be changed to '%s'", job->id,
                   JobType_str(opts->type));
        return false;
    }
    __atomic_store_n(&s->copy_mode, opts->u.mirror.copy_mode, __ATOMIC_SEQ_CST);
    job_enter(job);
    return true;
}

static void mirror_describe(Job *job, BlockJobInfo *info)
{
    MirrorBlockJob *s = mirror_of(job);

    info->u.mirror.x_converging = mirror_is_converging(s);
    info->u.mirror.actively_synced = job_is_ready(job) &&
                                     mirror_copy_mode(s) == MIRROR_COPY_MODE_WRITE_BLOCKING &&
                                     __atomic_load_n(&s->in_step, __ATOMIC_RELAXED);
}

const JobDriver mirror_job_driver = {
    .instance_size = sizeof(MirrorBlockJob),
    .job_type = JOB_TYPE_MIRROR,
    .run = mirror_co_work,
    .prepare = mirror_co_switch,
    .clean = mirror_co_let_go,
    .pause = mirror_co_rest,
    .resume = mirror_co_go_on,
    .complete = mirror_ask_pivot,
    .cancel = mirror_ask_end,
    .change = mirror_take_options,
    .query = mirror_describe,
    .drained_poll = mirror_is_busy_at,
    .free = mirror_forget,
};
