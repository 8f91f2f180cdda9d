/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Write-blocking mode: a guest write goes to source and target at the same time and is acknowledged
 * when both have it.
 *
 * The write owns its range meanwhile, so neither the copy engine nor another such write touches
 * those bytes of the target. Granules that it covers wholly need no copying any more: their bits
 * are cleared first, and come back if either side fails. The data is copied to a buffer, as the
 * guest may change its own while the two writes run.
 */
#include "block/mirror/mirror-int.h"

#include <errno.h>

/*
 * A long write is forwarded in slices of this size, all at once. What is in flight shares a bound,
 * and beyond it what the copy engine has not taken of its own.
 */
#define ACTIVE_SLICE_BYTES (1 << 20)
#define ACTIVE_MAX_BYTES   (3 << 20)

bool mirror_forwards_now(const MirrorBlockJob *s, int64_t offset, int64_t bytes)
{
    int64_t end = offset + bytes;

    if (s->forward == MIRROR_FORWARD_NEVER || s->ret < 0 || job_is_cancelled(&s->common.job) ||
        blk_in_drain(s->target)) {
        return false;
    }
    if (s->forward == MIRROR_FORWARD_BY_MODE &&
        (__atomic_load_n(&s->copy_mode, __ATOMIC_SEQ_CST) != MIRROR_COPY_MODE_WRITE_BLOCKING ||
         job_should_pause(&s->common.job))) {
        return false;
    }
    /* Ahead of the copying the data is not there yet and will be read later. */
    return end <= s->scan.issued && (end + s->granularity <= s->scan.issued || mirror_scan_done(s));
}

/* The target's half of a write. */
typedef struct TargetWrite {
    MirrorBlockJob *s;
    int64_t offset, bytes;
    void *buf; /* NULL: zeroes */
    BdrvRequestFlags flags;
    int ret;
    bool done;
    Coroutine *waiter;
} TargetWrite;

static void coroutine_fn target_co_entry(void *opaque)
{
    TargetWrite *t = opaque;
    MirrorBlockJob *s = t->s;

    if (t->buf) {
        t->ret = blk_co_pwrite(s->target, t->offset, t->bytes, t->buf, t->flags & BDRV_REQ_FUA);
    } else {
        t->ret = blk_co_pwrite_zeroes(
            s->target, t->offset, t->bytes,
            t->flags & (BDRV_REQ_FUA | (s->unmap && s->target_plain ? BDRV_REQ_MAY_UNMAP : 0)));
        if (t->ret == 0) {
            mirror_map_set_zero(&s->map, t->offset, t->bytes);
        }
    }
    t->done = true;
    if (t->waiter) {
        aio_co_wake(t->waiter);
    }
}

/* Clears the bits of the granules that lie wholly in the range. */
static void clear_whole_granules(MirrorBlockJob *s, int64_t offset, int64_t bytes)
{
    int64_t mask = (int64_t)s->granularity - 1;
    int64_t start = (offset + mask) & ~mask;
    int64_t end = offset + bytes == s->size ? s->size : (offset + bytes) & ~mask;

    if (start < end && bdrv_get_dirty_count(s->dirty) > 0) {
        bdrv_reset_dirty_bitmap(s->dirty, start, end - start);
    }
}

static int coroutine_fn source_co_write(MirrorBlockJob *s, const TargetWrite *t)
{
    if (t->buf) {
        return bdrv_co_pwrite(s->filter->file, t->offset, t->bytes, t->buf, t->flags);
    }
    return bdrv_co_pwrite_zeroes(s->filter->file, t->offset, t->bytes, t->flags);
}

/*
 * The range is owned. Writes both sides; returns the source's result, and what goes wrong on the
 * target is left dirty.
 */
static int coroutine_fn active_co_both(MirrorBlockJob *s, TargetWrite *t)
{
    int ret;

    clear_whole_granules(s, t->offset, t->bytes);
    mirror_map_set_data(&s->map, t->offset, t->bytes);
    bdrv_dirty_bitmap_expect(s->dirty, t->offset, t->bytes);

    qemu_coroutine_enter(qemu_coroutine_create(target_co_entry, t));
    ret = source_co_write(s, t);
    (void)bdrv_dirty_bitmap_unexpect(s->dirty, t->offset, t->bytes);
    if (!t->done) {
        t->waiter = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    if (ret < 0 || t->ret < 0) {
        bdrv_set_dirty_bitmap(s->dirty, t->offset, t->bytes);
        job_enter(&s->common.job);
    }
    return ret;
}

/*
 * The job hears of a target that failed; the guest's write has succeeded on the source and is not
 * held up.
 */
static void coroutine_fn active_co_target_failed(MirrorBlockJob *s, int error)
{
    BlockErrorAction action =
        block_job_co_error_action(&s->common, s->on_target_error, false, error);

    if (action == BLOCK_ERROR_ACTION_REPORT && s->ret == 0) {
        s->ret = -error;
    }
    job_enter(&s->common.job);
}

/* Memory that guest writes may take now, bytes. */
static int64_t active_limit(const MirrorBlockJob *s)
{
    int64_t engine = MAX(mirror_memory_held(s), s->in_flight * (int64_t)s->piece_bytes);

    return ACTIVE_MAX_BYTES + MAX(s->buf_size - engine, 0);
}

int64_t mirror_active_borrowed(const MirrorBlockJob *s)
{
    return MAX(s->active_bytes - ACTIVE_MAX_BYTES, 0);
}

static int coroutine_fn active_co_slice(MirrorBlockJob *s, const MirrorGuestWrite *w, int64_t done,
                                        int64_t bytes)
{
    TargetWrite t = {.s = s, .offset = w->offset + done, .bytes = bytes, .flags = w->flags};
    MirrorOp op, *other;
    int ret;

    while ((other = mirror_find_overlap(s, t.offset, bytes))) {
        qemu_co_queue_wait(&other->waiters, NULL);
    }
    if (w->qiov) {
        while (s->active_bytes && s->active_bytes + bytes > active_limit(s)) {
            qemu_co_queue_wait(&s->active_ended, NULL);
        }
        t.buf = qemu_try_blockalign(s->source, bytes);
    }
    /* All of this waited, or memory is short: then the write is left to the copy engine. */
    if (!mirror_forwards_now(s, t.offset, bytes) || mirror_find_overlap(s, t.offset, bytes) ||
        (w->qiov && !t.buf)) {
        qemu_vfree(t.buf);
        return w->qiov ? bdrv_co_pwritev_part(s->filter->file, t.offset, bytes, w->qiov,
                                              w->qiov_offset + done, w->flags)
                       : bdrv_co_pwrite_zeroes(s->filter->file, t.offset, bytes, w->flags);
    }
    if (w->qiov) {
        qemu_iovec_to_buf(w->qiov, w->qiov_offset + done, t.buf, bytes);
        s->active_bytes += bytes;
    }
    mirror_op_begin(s, &op, t.offset, bytes);
    ret = active_co_both(s, &t);
    mirror_op_end(s, &op);
    if (w->qiov) {
        s->active_bytes -= bytes;
        qemu_co_queue_restart_all(&s->active_ended);
        qemu_co_queue_restart_all(&s->memory_freed);
        qemu_vfree(t.buf);
    }
    if (t.ret < 0) {
        active_co_target_failed(s, -t.ret);
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
