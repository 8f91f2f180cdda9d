/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mirror's copy engine.
 *
 * An operation is a coroutine that owns a range of the target until it ends. The range's dirty bits
 * are cleared before its first read; if it fails they are set again and the error policy decides
 * what follows. Zeroes are cheapest first: nothing where the target reads as zeroes already, a
 * write-zeroes request (which may deallocate), data. Data goes through bdrv_co_copy_range() where
 * both ends can do it, else through a bounded pool of buffers (mirror-buffer.c).
 */
#include "block/mirror/mirror-int.h"

#include <errno.h>
#include "block/graph/graph.h"
#include "trace/trace-block.h"

/* Zeroes inside data that was read are found in steps of this size, bytes. */
#define ZERO_STEP (64 << 10)
/* After an ignored error: time before the next try. */
#define IGNORED_ERROR_DELAY_NS (100 * SCALE_MS)
/* bdrv_co_copy_range() that goes on being refused is tried for one of this power of two pieces. */
#define COPY_RANGE_MAX_BACKOFF 10

typedef struct MirrorCopy {
    MirrorBlockJob *s;
    MirrorExtent extent;
    MirrorOp op;
    bool read_failed; /* which side an error came from */
} MirrorCopy;

/* --- ranges --- */

MirrorOp *mirror_find_overlap(MirrorBlockJob *s, int64_t offset, int64_t bytes)
{
    MirrorOp *op;

    LIST_FOREACH(op, &s->ops, next) {
        if (offset < op->offset + op->bytes && op->offset < offset + bytes) {
            return op;
        }
    }
    return NULL;
}

void mirror_op_begin(MirrorBlockJob *s, MirrorOp *op, int64_t offset, int64_t bytes)
{
    g_assert(!mirror_find_overlap(s, offset, bytes));
    op->offset = offset;
    op->bytes = bytes;
    qemu_co_queue_init(&op->waiters);
    LIST_INSERT_HEAD(&s->ops, op, next);
}

void mirror_op_end(MirrorBlockJob *s, MirrorOp *op)
{
    LIST_REMOVE(op, next);
    qemu_co_queue_restart_all(&op->waiters);
    mirror_note_idle(s);
}

/* --- one operation --- */

/* Makes the range read as zeroes where the map says that it may not. */
static int coroutine_fn zero_co_run(MirrorBlockJob *s, int64_t offset, int64_t bytes,
                                    MirrorTargetState state)
{
    BdrvBlockStatus st;
    int ret;

    /* Zeroes that a backing file could show through must be there in so many words. */
    int zero = BDRV_BLOCK_ZERO | (s->target_plain ? 0 : BDRV_BLOCK_ALLOCATED);

    while (bytes > 0) {
        int64_t n = bytes;

        if (job_is_cancelled(&s->common.job)) {
            return -ECANCELED; /* the target was given up already, and may hang again */
        }
        if (state == MIRROR_TARGET_UNKNOWN) {
            ret = bdrv_co_block_status_above(s->target_bs, NULL, offset, bytes, &st);
            if (ret == 0 && st.pnum > 0) {
                n = MIN(bytes, st.pnum);
                if ((st.flags & zero) == zero) {
                    mirror_map_set_zero(&s->map, offset, n);
                    offset += n;
                    bytes -= n;
                    continue;
                }
            }
        }
        n = MIN(n, BDRV_REQUEST_MAX_BYTES & ~((int64_t)s->granularity - 1));
        ret = blk_co_pwrite_zeroes(s->target, offset, n,
                                   s->unmap && s->target_plain ? BDRV_REQ_MAY_UNMAP : 0);
        if (ret < 0) {
            return ret;
        }
        mirror_map_set_zero(&s->map, offset, n);
        offset += n;
        bytes -= n;
    }
    return 0;
}

static int coroutine_fn mirror_co_zero(MirrorBlockJob *s, int64_t offset, int64_t bytes)
{
    while (bytes > 0) {
        int64_t run;
        MirrorTargetState state = mirror_map_get(&s->map, offset, bytes, &run);
        int ret = state == MIRROR_TARGET_ZERO ? 0 : zero_co_run(s, offset, run, state);

        if (ret < 0) {
            return ret;
        }
        offset += run;
        bytes -= run;
    }
    return 0;
}

/* Writes what was read, its runs of zeroes as zeroes. */
static int coroutine_fn write_co_buffer(MirrorBlockJob *s, int64_t offset, QEMUIOVector *qiov)
{
    int64_t done = 0, bytes = (int64_t)qiov->size;

    while (done < bytes) {
        int64_t n = MIN(ZERO_STEP - ((offset + done) & (ZERO_STEP - 1)), bytes - done);
        bool zero = qemu_iovec_is_zero(qiov, done, n);
        QEMUIOVector part;
        int ret;

        if (job_is_cancelled(&s->common.job)) {
            return -ECANCELED; /* the target was given up already, and may hang again */
        }
        while (done + n < bytes) {
            int64_t step = MIN(ZERO_STEP, bytes - done - n);

            if (qemu_iovec_is_zero(qiov, done + n, step) != zero) {
                break;
            }
            n += step;
        }
        if (zero) {
            ret = mirror_co_zero(s, offset + done, n);
        } else {
            mirror_map_set_data(&s->map, offset + done, n);
            qemu_iovec_init_slice(&part, qiov, done, n);
            ret = blk_co_pwritev(s->target, offset + done, n, &part, 0);
            qemu_iovec_destroy(&part);
        }
        if (ret < 0) {
            return ret;
        }
        done += n;
    }
    return 0;
}

/* Reads and writes as much of *bytes as there are buffers for, and says how much that was. */
static int coroutine_fn bounce_co_piece(MirrorCopy *c, int64_t offset, int64_t *bytes)
{
    MirrorBlockJob *s = c->s;
    QEMUIOVector qiov;
    int ret;

    *bytes = mirror_co_get_buffer(s, *bytes, &qiov);
    if (!*bytes) {
        return -ENOMEM;
    }
    ret = bdrv_co_preadv(s->filter->file, offset, *bytes, &qiov, 0);
    if (ret < 0) {
        c->read_failed = true;
    } else {
        ret = write_co_buffer(s, offset, &qiov);
    }
    mirror_put_buffer(s, &qiov);
    return ret;
}

/*
 * -ENOTSUP may be about one place only (compressed clusters), or about all. So it is tried again,
 * more and more rarely as long as it goes on being refused.
 */
static bool may_copy_range(MirrorBlockJob *s)
{
    if (s->copy_range_skip > 0) {
        s->copy_range_skip--;
        return false;
    }
    return true;
}

static void note_copy_range(MirrorBlockJob *s, int ret)
{
    if (ret == -ENOTSUP) {
        s->copy_range_refusals = MIN(s->copy_range_refusals + 1, COPY_RANGE_MAX_BACKOFF);
        s->copy_range_skip = (1 << s->copy_range_refusals) - 2;
    } else {
        s->copy_range_refusals = 0;
        s->copy_range_skip = 0;
    }
}

/* Lets the nodes copy by themselves; -ENOTSUP: they cannot. */
static int coroutine_fn offload_co_piece(MirrorBlockJob *s, int64_t offset, int64_t bytes)
{
    int64_t memory = BDRV_COPY_RANGE_BUFFER;
    BdrvRequestFlags flags = 0;
    int ret;

    if (s->host_target && s->buf_size >= 2 * (memory + BDRV_COPY_RANGE_MAP)) {
        memory += BDRV_COPY_RANGE_MAP;
        flags = BDRV_REQ_MAY_MAP;
    }
    mirror_co_charge_memory(s, memory);
    if (job_is_cancelled(&s->common.job)) {
        ret = -ECANCELED;
    } else {
        mirror_map_set_data(&s->map, offset, bytes);
        ret =
            bdrv_co_copy_range(s->filter->file, offset, blk_root(s->target), offset, bytes, flags);
        note_copy_range(s, ret);
        trace_mirror_offload(offset, bytes, ret);
    }
    mirror_uncharge_memory(s, memory);
    return ret;
}

static int coroutine_fn mirror_co_copy_data(MirrorCopy *c, int64_t offset, int64_t bytes)
{
    MirrorBlockJob *s = c->s;

    while (bytes > 0) {
        int64_t n = MIN(MIRROR_MAX_REQUEST, bytes);
        int ret = -ENOTSUP;

        if (job_is_cancelled(&s->common.job)) {
            return -ECANCELED;
        }
        if (may_copy_range(s)) {
            ret = offload_co_piece(s, offset, n);
        }
        if (ret < 0) {
            /* Not possible, or failed without saying which side: reading and writing does. */
            ret = bounce_co_piece(c, offset, &n);
        }
        if (ret < 0) {
            return ret;
        }
        offset += n;
        bytes -= n;
    }
    return 0;
}

/*
 * Asks what a dirtied range holds now, and copies that: a small write into a hole does not make the
 * whole granule data.
 */
static int coroutine_fn mirror_co_copy_dirty(MirrorCopy *c, int64_t offset, int64_t bytes)
{
    MirrorBlockJob *s = c->s;
    BdrvBlockStatus st;

    while (bytes > 0) {
        int64_t n = bytes;
        int ret = bdrv_co_block_status_above(s->source, NULL, offset, bytes, &st);
        bool zero = false;

        if (ret == 0 && st.pnum > 0) {
            n = MIN(bytes, st.pnum);
            zero = st.flags & BDRV_BLOCK_ZERO;
        }
        ret = zero ? mirror_co_zero(s, offset, n) : mirror_co_copy_data(c, offset, n);
        if (ret < 0) {
            return ret;
        }
        offset += n;
        bytes -= n;
    }
    return 0;
}

static void coroutine_fn copy_co_failed(MirrorCopy *c, int ret)
{
    MirrorBlockJob *s = c->s;
    BlockdevOnError policy = c->read_failed ? s->on_source_error : s->on_target_error;

    bdrv_set_dirty_bitmap(s->dirty, c->extent.offset, c->extent.bytes);
    switch (block_job_co_error_action(&s->common, policy, c->read_failed, -ret)) {
    case BLOCK_ERROR_ACTION_REPORT:
        if (s->ret == 0) {
            s->ret = ret;
        }
        break;
    case BLOCK_ERROR_ACTION_IGNORE:
        s->not_before_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + IGNORED_ERROR_DELAY_NS;
        break;
    default: /* paused until the user resumes it */
        s->stopped = true;
        break;
    }
}

static void coroutine_fn copy_co_entry(void *opaque)
{
    MirrorCopy *c = opaque;
    MirrorBlockJob *s = c->s;
    int64_t offset = c->extent.offset, bytes = c->extent.bytes;
    int64_t start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int ret;

    switch (c->extent.kind) {
    case MIRROR_EXTENT_ZERO:
        ret = mirror_co_zero(s, offset, bytes);
        break;
    case MIRROR_EXTENT_DATA:
        ret = mirror_co_copy_data(c, offset, bytes);
        break;
    default:
        ret = mirror_co_copy_dirty(c, offset, bytes);
        break;
    }
    if (ret < 0) {
        copy_co_failed(c, ret);
    } else {
        job_progress_update(&s->common.job, bytes);
        mirror_pace_ended(s, c->extent.kind == MIRROR_EXTENT_ZERO ? 0 : bytes,
                          qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start_ns);
    }
    mirror_op_end(s, &c->op);
    s->bytes_in_flight -= bytes;
    s->in_flight--;
    mirror_note_idle(s);
    mirror_update_progress(s);
    qemu_co_queue_restart_all(&s->op_ended);
    job_enter(&s->common.job);
    bdrv_drain_kick();
    g_free(c);
}

static void start_copy(MirrorBlockJob *s, const MirrorExtent *extent)
{
    MirrorCopy *c = g_new0(MirrorCopy, 1);

    c->s = s;
    c->extent = *extent;
    mirror_pace_started(s, extent->kind == MIRROR_EXTENT_ZERO ? 0 : extent->bytes);
    s->in_flight++;
    s->bytes_in_flight += extent->bytes;
    mirror_op_begin(s, &c->op, extent->offset, extent->bytes);
    qemu_coroutine_enter(qemu_coroutine_create(copy_co_entry, c));
}

/* --- choosing what comes next --- */

/* The next dirty extent behind the scan that nothing in flight touches. */
static bool next_dirty(MirrorBlockJob *s, int64_t max_bytes, MirrorExtent *extent)
{
    HBitmap *hb = bdrv_dirty_bitmap_hbitmap(s->dirty);
    int64_t limit = s->scan.issued;
    bool wrapped = false;

    if (limit < s->size) {
        limit &= ~((int64_t)s->granularity - 1);
    }
    max_bytes = MAX(max_bytes, (int64_t)s->granularity);
    for (;;) {
        uint64_t start, bytes;
        MirrorOp *op;

        if (!hbitmap_next_dirty_area(hb, s->dirty_cursor, limit, max_bytes, &start, &bytes)) {
            if (wrapped || !s->dirty_cursor) {
                return false;
            }
            wrapped = true;
            s->dirty_cursor = 0;
            continue;
        }
        op = mirror_find_overlap(s, start, bytes);
        if (!op) {
            *extent = (MirrorExtent){.offset = start, .bytes = bytes, .kind = MIRROR_EXTENT_DIRTY};
            s->dirty_cursor = start + bytes;
            return true;
        }
        /* What lies before the operation can go; else look behind it. */
        if (op->offset - (int64_t)start >= s->granularity) {
            bytes = (op->offset - start) & ~((uint64_t)s->granularity - 1);
            if (!mirror_find_overlap(s, start, bytes)) {
                *extent =
                    (MirrorExtent){.offset = start, .bytes = bytes, .kind = MIRROR_EXTENT_DIRTY};
                s->dirty_cursor = start + bytes;
                return true;
            }
        }
        s->dirty_cursor =
            (op->offset + op->bytes + s->granularity - 1) & ~((int64_t)s->granularity - 1);
        if (s->dirty_cursor >= limit) {
            if (wrapped) {
                s->dirty_cursor = 0;
                return false;
            }
            wrapped = true;
            s->dirty_cursor = 0;
        }
    }
}

/* How long to wait before the next operation starts, ns; 0: now. */
static int64_t start_delay_ns(MirrorBlockJob *s)
{
    int64_t wait = block_job_ratelimit_ns(&s->common, 0);

    if (s->not_before_ns) {
        wait = MAX(wait, s->not_before_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
        if (wait <= 0) {
            s->not_before_ns = 0;
        }
    }
    return MAX(wait, 0);
}

int64_t mirror_pump(MirrorBlockJob *s, bool even_if_paused)
{
    MirrorExtent extent;
    int64_t wait;

    while (s->ret == 0 && (even_if_paused || !job_should_pause(&s->common.job))) {
        mirror_scan_kick(s);
        if (!mirror_has_room(s)) {
            break;
        }
        wait = start_delay_ns(s);
        if (wait) {
            return wait;
        }
        if (!mirror_scan_done(s)) {
            if (!mirror_scan_take(s, mirror_request_bytes(s), &extent)) {
                break;
            }
        } else if (!next_dirty(s, mirror_request_bytes(s), &extent)) {
            break;
        } else {
            bdrv_reset_dirty_bitmap(s->dirty, extent.offset, extent.bytes);
        }
        if (extent.kind == MIRROR_EXTENT_SKIP) {
            continue;
        }
        if (extent.kind != MIRROR_EXTENT_ZERO) {
            (void)block_job_ratelimit_ns(&s->common, extent.bytes);
        }
        start_copy(s, &extent);
    }
    mirror_update_progress(s);
    return 0;
}

bool mirror_is_clean(const MirrorBlockJob *s)
{
    return s->in_flight == 0 && mirror_scan_done(s) && bdrv_get_dirty_count(s->dirty) == 0;
}

void coroutine_fn mirror_co_wait_idle(MirrorBlockJob *s)
{
    while (s->in_flight > 0) {
        qemu_co_queue_wait(&s->op_ended, NULL);
    }
}

int coroutine_fn mirror_co_flush_target(MirrorBlockJob *s)
{
    int ret;

    if (job_is_cancelled(&s->common.job)) {
        return -ECANCELED;
    }
    s->in_flight++;
    ret = blk_co_flush(s->target);
    s->in_flight--;
    mirror_note_idle(s);
    qemu_co_queue_restart_all(&s->op_ended);
    bdrv_drain_kick();
    return ret;
}
