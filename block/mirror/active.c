/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Write-blocking mode: a guest write goes to source and target at the same time and is acknowledged
 * when both have it.
 *
 * The write owns its range meanwhile, so neither the copy engine nor another such write touches
 * those bytes of the target. Granules that it covers wholly need no copying any more: their bits
 * are cleared first, and come back if either side fails. The data is copied to a buffer, as the
 * guest may change its own while the two writes run.
 *
 * A guest's write waits for the target MIRROR_FORWARD_WAIT_NS at most. Then it completes with the
 * source alone, and so do all that follow until the target answers again (`lagging`). A coroutine
 * of its own waits for what the target still has to finish (`left_behind`). It keeps its range, so
 * nothing else is sent there, and the copy is not in step as long as it is under way.
 */
#include "block/mirror/mirror-int.h"

#include <errno.h>
#include "block/graph/graph.h"
#include "trace/trace-block.h"

/*
 * A long write is forwarded in slices of this size, all at once. What is in flight shares a bound,
 * and beyond it what the copy engine has not taken of its own.
 */
#define ACTIVE_SLICE_BYTES (1 << 20)
#define ACTIVE_MAX_BYTES   (3 << 20)

bool mirror_forwards_now(const MirrorBlockJob *s, int64_t offset, int64_t bytes)
{
    int64_t end = offset + bytes;
    bool by_mode = mirror_forward(s) == MIRROR_FORWARD_BY_MODE;

    if (mirror_is_lagging(s) || mirror_forward(s) == MIRROR_FORWARD_NEVER || s->copy.ret < 0 ||
        job_is_cancelled(&s->common.job) || blk_in_drain(s->copy.target)) {
        return false;
    }
    if (by_mode &&
        ((mirror_copy_mode(s) != MIRROR_COPY_MODE_WRITE_BLOCKING && !mirror_is_converging(s)) ||
         job_should_pause(&s->common.job))) {
        return false;
    }
    /* Ahead of the copying the data is not there yet and will be read later. */
    return end <= s->copy.scan.issued &&
           (end + s->copy.granularity <= s->copy.scan.issued || copy_scan_done(&s->copy));
}

/* --- guests that wait --- */

bool mirror_is_lagging(const MirrorBlockJob *s)
{
    return s->lagging_since_ns &&
           (s->copy.left_behind > 0 || s->copy.last_end_ns <= s->lagging_since_ns);
}

typedef struct MirrorGuestWait {
    int64_t since_ns;
    Coroutine *for_target; /* waits for its target's half; NULL: for something else, or not now */
    TAILQ_ENTRY(MirrorGuestWait) next;
} GuestWait;

static void release_guests(MirrorBlockJob *s)
{
    GuestWait *wait;
    CopyOp *op;

    s->lagging_since_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    TAILQ_FOREACH(wait, &s->guest_waits, next) {
        if (wait->for_target) {
            aio_co_wake(wait->for_target);
            wait->for_target = NULL;
        }
    }
    LIST_FOREACH(op, &s->copy.ops, next) {
        qemu_co_queue_restart_all(&op->waiters);
    }
    qemu_co_queue_restart_all(&s->active_ended);
    mirror_update_progress(s);
}

/* The guest that has waited longest is looked at when its time may be over. */
static void guest_timer_fired(void *opaque)
{
    MirrorBlockJob *s = opaque;
    GuestWait *oldest = TAILQ_FIRST(&s->guest_waits);
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    s->guest_timer_armed = false;
    if (!oldest) {
        return;
    }
    if (oldest->since_ns + MIRROR_FORWARD_WAIT_NS <= now) {
        release_guests(s);
    } else {
        s->guest_timer_armed = true;
        timer_mod_ns(s->guest_timer, oldest->since_ns + MIRROR_FORWARD_WAIT_NS);
    }
}

/* A guest that goes on waiting after the timer has fired arms it again. */
static void guest_timer_arm(MirrorBlockJob *s, const GuestWait *wait)
{
    if (!s->guest_timer) {
        s->guest_timer =
            aio_timer_new(s->common.job.aio_context, QEMU_CLOCK_REALTIME, guest_timer_fired, s);
    }
    if (!s->guest_timer_armed) {
        s->guest_timer_armed = true;
        timer_mod_ns(s->guest_timer, wait->since_ns + MIRROR_FORWARD_WAIT_NS);
    }
}

static void guest_wait_begin(MirrorBlockJob *s, GuestWait *wait)
{
    *wait = (GuestWait){.since_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME)};
    TAILQ_INSERT_TAIL(&s->guest_waits, wait, next);
    guest_timer_arm(s, wait);
}

static void guest_wait_end(MirrorBlockJob *s, GuestWait *wait)
{
    TAILQ_REMOVE(&s->guest_waits, wait, next);
    copy_note_idle(&s->copy);
}

/* --- the target's half of a write --- */

/* Freed by its coroutine when it is left behind, else by the guest's write. */
typedef struct TargetWrite {
    MirrorBlockJob *s;
    CopyOp op; /* the range */
    void *buf; /* NULL: zeroes */
    BdrvRequestFlags flags;
    int ret;
    bool done, left_behind;
    GuestWait *guest;
} TargetWrite;

/* What goes beyond the guests' own bound is taken from the engine's. */
static void use_memory(MirrorBlockJob *s, int64_t bytes)
{
    s->active_bytes += bytes;
    s->copy.lent_bytes = MAX(s->active_bytes - ACTIVE_MAX_BYTES, 0);
}

static void target_write_free(TargetWrite *t)
{
    MirrorBlockJob *s = t->s;

    if (t->buf) {
        use_memory(s, -t->op.bytes);
        qemu_co_queue_restart_all(&s->active_ended);
        qemu_co_queue_restart_all(&s->copy.memory_freed);
        qemu_vfree(t->buf);
    }
    g_free(t);
}

/*
 * The job hears of a target that failed; the guest's write has succeeded on the source and is not
 * held up.
 */
static void coroutine_fn active_co_target_failed(MirrorBlockJob *s, int error)
{
    BlockErrorAction action =
        block_job_co_error_action(&s->common, s->on_target_error, false, error);

    if (action == BLOCK_ERROR_ACTION_REPORT && s->copy.ret == 0) {
        s->copy.ret = -error;
    }
    job_enter(&s->common.job);
}

/* The guest did not wait for this end. */
static void coroutine_fn left_behind_co_ended(TargetWrite *t)
{
    MirrorBlockJob *s = t->s;
    int ret = t->ret;

    if (ret < 0) {
        bdrv_set_dirty_bitmap(s->copy.dirty, t->op.offset, t->op.bytes);
    }
    copy_op_end(&s->copy, &t->op);
    if (ret < 0) {
        active_co_target_failed(s, -ret);
    }
    target_write_free(t);
    s->copy.left_behind--;
    copy_note_idle(&s->copy);
    mirror_update_progress(s);
    qemu_co_queue_restart_all(&s->copy.op_ended);
    job_enter(&s->common.job);
    bdrv_drain_kick();
}

static void coroutine_fn target_co_entry(void *opaque)
{
    TargetWrite *t = opaque;
    MirrorBlockJob *s = t->s;

    if (t->buf) {
        t->ret = blk_co_pwrite(s->copy.target, t->op.offset, t->op.bytes, t->buf,
                               t->flags & BDRV_REQ_FUA);
    } else {
        t->ret = blk_co_pwrite_zeroes(
            s->copy.target, t->op.offset, t->op.bytes,
            t->flags &
                (BDRV_REQ_FUA | (s->copy.unmap && s->copy.target_plain ? BDRV_REQ_MAY_UNMAP : 0)));
        if (t->ret == 0) {
            copy_map_set_zero(&s->copy.map, t->op.offset, t->op.bytes);
        }
    }
    t->done = true;
    if (t->left_behind) {
        left_behind_co_ended(t);
    } else if (t->guest->for_target) {
        aio_co_wake(t->guest->for_target);
        t->guest->for_target = NULL;
    }
}

/* --- one write --- */

/* Clears the bits of the granules that lie wholly in the range. */
static void clear_whole_granules(MirrorBlockJob *s, int64_t offset, int64_t bytes)
{
    int64_t mask = (int64_t)s->copy.granularity - 1;
    int64_t start = (offset + mask) & ~mask;
    int64_t end = offset + bytes == s->copy.size ? s->copy.size : (offset + bytes) & ~mask;

    if (start < end && bdrv_get_dirty_count(s->copy.dirty) > 0) {
        bdrv_reset_dirty_bitmap(s->copy.dirty, start, end - start);
    }
}

static int coroutine_fn source_co_write(MirrorBlockJob *s, const TargetWrite *t)
{
    if (t->buf) {
        return bdrv_co_pwrite(s->filter->file, t->op.offset, t->op.bytes, t->buf, t->flags);
    }
    return bdrv_co_pwrite_zeroes(s->filter->file, t->op.offset, t->op.bytes, t->flags);
}

/*
 * The range is owned. Writes both sides; returns the source's result, and what goes wrong on the
 * target is left dirty.
 */
static int coroutine_fn active_co_both(MirrorBlockJob *s, TargetWrite *t)
{
    int ret;

    clear_whole_granules(s, t->op.offset, t->op.bytes);
    copy_map_set_data(&s->copy.map, t->op.offset, t->op.bytes);
    bdrv_dirty_bitmap_expect(s->copy.dirty, t->op.offset, t->op.bytes);

    qemu_coroutine_enter(qemu_coroutine_create(target_co_entry, t));
    ret = source_co_write(s, t);
    (void)bdrv_dirty_bitmap_unexpect(s->copy.dirty, t->op.offset, t->op.bytes);
    if (!t->done && !mirror_is_lagging(s)) {
        t->guest->for_target = qemu_coroutine_self();
        guest_timer_arm(s, t->guest);
        qemu_coroutine_yield();
    }
    if (ret < 0 || (t->done && t->ret < 0)) {
        bdrv_set_dirty_bitmap(s->copy.dirty, t->op.offset, t->op.bytes);
        job_enter(&s->common.job);
    }
    return ret;
}

/* Memory that guest writes may take now, bytes. */
static int64_t active_limit(const MirrorBlockJob *s)
{
    int64_t engine =
        MAX(copy_memory_held(&s->copy), s->copy.in_flight * (int64_t)s->copy.piece_bytes);

    return ACTIVE_MAX_BYTES + MAX(s->copy.buf_size - engine, 0);
}

/* The target's half, with its range and memory; NULL: the write is left to the copy engine. */
static TargetWrite *coroutine_fn active_co_claim(MirrorBlockJob *s, const MirrorGuestWrite *w,
                                                 const GuestWait *wait, int64_t done, int64_t bytes)
{
    int64_t offset = w->offset + done;
    TargetWrite *t;
    CopyOp *other;
    void *buf = NULL;

    while (!mirror_is_lagging(s) && (other = copy_find_overlap(&s->copy, offset, bytes))) {
        guest_timer_arm(s, wait);
        qemu_co_queue_wait(&other->waiters, NULL);
    }
    if (w->qiov) {
        while (!mirror_is_lagging(s) && s->active_bytes &&
               s->active_bytes + bytes > active_limit(s)) {
            guest_timer_arm(s, wait);
            qemu_co_queue_wait(&s->active_ended, NULL);
        }
        buf = qemu_try_blockalign(s->copy.source, bytes);
    }
    /* All of this waited, or memory is short. */
    if (!mirror_forwards_now(s, offset, bytes) || copy_find_overlap(&s->copy, offset, bytes) ||
        (w->qiov && !buf)) {
        qemu_vfree(buf);
        return NULL;
    }
    t = g_new(TargetWrite, 1);
    *t = (TargetWrite){.s = s, .buf = buf, .flags = w->flags};
    if (buf) {
        qemu_iovec_to_buf(w->qiov, w->qiov_offset + done, buf, bytes);
        use_memory(s, bytes);
    }
    copy_op_begin(&s->copy, &t->op, offset, bytes);
    return t;
}

static int coroutine_fn active_co_slice(MirrorBlockJob *s, const MirrorGuestWrite *w, int64_t done,
                                        int64_t bytes)
{
    GuestWait wait;
    TargetWrite *t;
    int ret, target_ret;

    guest_wait_begin(s, &wait);
    t = active_co_claim(s, w, &wait, done, bytes);
    if (!t) {
        guest_wait_end(s, &wait);
        return w->qiov ? bdrv_co_pwritev_part(s->filter->file, w->offset + done, bytes, w->qiov,
                                              w->qiov_offset + done, w->flags)
                       : bdrv_co_pwrite_zeroes(s->filter->file, w->offset + done, bytes, w->flags);
    }
    t->guest = &wait;
    ret = active_co_both(s, t);
    guest_wait_end(s, &wait);
    if (!t->done) {
        t->left_behind = true;
        t->guest = NULL;
        s->copy.left_behind++;
        trace_mirror_left_behind(t->op.offset, t->op.bytes);
        return ret;
    }
    target_ret = t->ret;
    copy_op_end(&s->copy, &t->op);
    target_write_free(t);
    if (target_ret < 0) {
        active_co_target_failed(s, -target_ret);
    }
    return ret;
}

/* A long write under way; lives on its coroutine's stack. */
typedef struct SlicedWrite {
    MirrorBlockJob *s;
    const MirrorGuestWrite *w;
    int64_t next; /* where the next slice begins, from the start of the write */
    int running;
    int ret;
    Coroutine *waiter;
} SlicedWrite;

static void coroutine_fn slice_co_entry(void *opaque)
{
    SlicedWrite *all = opaque;
    int64_t done = all->next;
    int64_t bytes = MIN(ACTIVE_SLICE_BYTES, all->w->bytes - done);
    int ret;

    all->next += bytes;
    ret = active_co_slice(all->s, all->w, done, bytes);
    if (ret < 0 && all->ret == 0) {
        all->ret = ret;
    }
    if (--all->running == 0 && all->waiter) {
        aio_co_wake(all->waiter);
    }
}

int coroutine_fn mirror_co_active_write(MirrorBlockJob *s, const MirrorGuestWrite *w)
{
    SlicedWrite all = {.s = s, .w = w};

    if (!w->qiov || w->bytes <= ACTIVE_SLICE_BYTES) {
        return active_co_slice(s, w, 0, w->bytes);
    }
    while (all.next < w->bytes) {
        all.running++;
        qemu_coroutine_enter(qemu_coroutine_create(slice_co_entry, &all));
    }
    if (all.running) {
        all.waiter = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    return all.ret;
}
