/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mirror's copy engine.
 *
 * An operation is a coroutine that owns a range of the target until it ends. The range's dirty bits
 * are cleared before its first read; if it fails they are set again and the error policy decides
 * what follows. Zeroes are cheapest first: nothing where the target reads as zeroes already, a
 * write-zeroes request (which may deallocate), data. Data goes through bdrv_co_copy_range() where
 * both ends can do it, else through a bounded pool of buffers.
 */
#include "block/mirror-int.h"

#include <errno.h>
#include "block/graph.h"
#include "util/bufferiszero.h"

/* Zeroes inside data that was read are found in steps of this size, bytes. */
#define ZERO_STEP (64 << 10)
/* After an ignored error: time before the next try. */
#define IGNORED_ERROR_DELAY_NS (100 * SCALE_MS)
/*
 * Operations in flight: at least, at most, and how large one is that tells something about latency.
 */
#define MIN_DEPTH       2
#define MAX_DEPTH       32
#define ADAPT_MIN_BYTES (256 << 10)
/* Memory that copying from file to file may take, bytes. */
#define COPY_RANGE_BUFFER (256 << 10)
/* bdrv_co_copy_range() that goes on being refused is tried for one of this power of two pieces. */
#define COPY_RANGE_MAX_BACKOFF 10
/* How long the rate is measured before it counts. */
#define RATE_WINDOW_NS (20 * SCALE_MS)
/* A job with a speed limit is served in requests of this time's worth. */
#define SPEED_REQUEST_NS (50 * SCALE_MS)

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

/* --- buffers --- */

static void *coroutine_fn mirror_co_get_buffer(MirrorBlockJob *s)
{
    void *buf;

    for (;;) {
        if (s->free_buffers) {
            buf = s->free_buffers->data;
            s->free_buffers = g_slist_delete_link(s->free_buffers, s->free_buffers);
            return buf;
        }
        if (s->nr_buffers == 0 ||
            (int64_t)(s->nr_buffers + 1) * (int64_t)s->piece_bytes + mirror_active_borrowed(s) <=
                s->buf_size) {
            buf = qemu_try_blockalign(s->source, s->piece_bytes);
            if (buf) {
                s->nr_buffers++;
                return buf;
            }
            if (s->nr_buffers == 0) {
                return NULL;
            }
        }
        qemu_co_queue_wait(&s->buffer_freed, NULL);
    }
}

static void mirror_put_buffer(MirrorBlockJob *s, void *buf)
{
    s->free_buffers = g_slist_prepend(s->free_buffers, buf);
    qemu_co_queue_next(&s->buffer_freed);
}

void mirror_free_buffers(MirrorBlockJob *s)
{
    g_slist_free_full(s->free_buffers, qemu_vfree);
    s->free_buffers = NULL;
    s->nr_buffers = 0;
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

/* Writes a buffer, its runs of zeroes as zeroes. */
static int coroutine_fn write_co_buffer(MirrorBlockJob *s, int64_t offset, int64_t bytes,
                                        uint8_t *buf)
{
    int64_t done = 0;

    while (done < bytes) {
        int64_t n = MIN(ZERO_STEP - ((offset + done) & (ZERO_STEP - 1)), bytes - done);
        bool zero = buffer_is_zero(buf + done, n);
        QEMUIOVector qiov;
        int ret;

        if (job_is_cancelled(&s->common.job)) {
            return -ECANCELED; /* the target was given up already, and may hang again */
        }
        while (done + n < bytes) {
            int64_t step = MIN(ZERO_STEP, bytes - done - n);

            if (buffer_is_zero(buf + done + n, step) != zero) {
                break;
            }
            n += step;
        }
        if (zero) {
            ret = mirror_co_zero(s, offset + done, n);
        } else {
            mirror_map_set_data(&s->map, offset + done, n);
            qemu_iovec_init_buf(&qiov, buf + done, n);
            ret = blk_co_pwritev(s->target, offset + done, n, &qiov, 0);
        }
        if (ret < 0) {
            return ret;
        }
        done += n;
    }
    return 0;
}

static int coroutine_fn bounce_co_piece(MirrorCopy *c, int64_t offset, int64_t bytes)
{
    MirrorBlockJob *s = c->s;
    void *buf = mirror_co_get_buffer(s);
    QEMUIOVector qiov;
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    qemu_iovec_init_buf(&qiov, buf, bytes);
    ret = bdrv_co_preadv(s->filter->file, offset, bytes, &qiov, 0);
    if (ret < 0) {
        c->read_failed = true;
    } else {
        ret = write_co_buffer(s, offset, bytes, buf);
    }
    mirror_put_buffer(s, buf);
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

static int coroutine_fn mirror_co_copy_data(MirrorCopy *c, int64_t offset, int64_t bytes)
{
    MirrorBlockJob *s = c->s;

    while (bytes > 0) {
        int64_t n = MIN((int64_t)s->piece_bytes, bytes);
        int ret = -ENOTSUP;

        if (job_is_cancelled(&s->common.job)) {
            return -ECANCELED;
        }
        if (may_copy_range(s)) {
            mirror_map_set_data(&s->map, offset, n);
            ret = bdrv_co_copy_range(s->filter->file, offset, blk_root(s->target), offset, n, 0);
            note_copy_range(s, ret);
        }
        if (ret < 0) {
            /* Not possible, or failed without saying which side: reading and writing does. */
            ret = bounce_co_piece(c, offset, n);
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

/* Times the copying in windows that begin when it begins. */
static void measure_rate(MirrorBlockJob *s, int64_t bytes)
{
    int64_t elapsed = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - s->rate_start_ns;

    s->rate_bytes += bytes;
    if (elapsed >= RATE_WINDOW_NS || !s->rate) {
        int64_t rate = (int64_t)((double)s->rate_bytes * NANOSECONDS_PER_SECOND / MAX(elapsed, 1));

        s->rate = s->rate ? (s->rate + rate) / 2 : rate;
        s->rate_bytes = 0;
        s->rate_start_ns += elapsed;
    }
}

/*
 * One operation of data has ended: after as many as are in flight, looks whether that was a good
 * number.
 */
static void adapt_depth(MirrorBlockJob *s, int64_t bytes, int64_t elapsed_ns)
{
    int64_t per_mib = (int64_t)((double)elapsed_ns * (1 << 20) / (double)bytes);
    int64_t mean;

    s->latency_sum += per_mib;
    if (++s->latency_ops < s->depth) {
        return;
    }
    mean = s->latency_sum / s->latency_ops;
    s->latency_sum = s->latency_ops = 0;
    s->best_latency = s->best_latency ? MIN(s->best_latency + s->best_latency / 64, mean) : mean;
    if (mean > 3 * s->best_latency) {
        s->depth = MAX(s->depth - 1, MIN_DEPTH);
    } else if (mean < 2 * s->best_latency) {
        s->depth = MIN(s->depth + 1, MAX_DEPTH);
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
        measure_rate(s, c->extent.kind == MIRROR_EXTENT_ZERO ? 0 : bytes);
        if (c->extent.kind != MIRROR_EXTENT_ZERO &&
            bytes >= MIN(ADAPT_MIN_BYTES, (int64_t)s->piece_bytes)) {
            adapt_depth(s, bytes, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start_ns);
        }
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
    if (s->bytes_in_flight == 0) {
        s->rate_start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        s->rate_bytes = 0;
    }
    s->in_flight++;
    s->bytes_in_flight += extent->bytes;
    mirror_op_begin(s, &c->op, extent->offset, extent->bytes);
    qemu_coroutine_enter(qemu_coroutine_create(copy_co_entry, c));
}

/* --- choosing what comes next --- */

/* Bytes that the next request should have at most: a power of two. */
static int64_t request_bytes(const MirrorBlockJob *s)
{
    int64_t speed = __atomic_load_n(&s->common.speed, __ATOMIC_SEQ_CST);
    int64_t bytes = s->piece_bytes;

    if (speed) {
        int64_t worth =
            MAX(speed / (NANOSECONDS_PER_SECOND / SPEED_REQUEST_NS), (int64_t)s->granularity);

        while (bytes > worth) {
            bytes /= 2;
        }
    }
    return bytes;
}

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

/*
 * How many operations may be in flight: more as long as each takes hardly longer than the quickest
 * have, fewer when they only wait for each other. A local file settles at what its cores can copy,
 * a distant server at what fills the line or the buffers.
 */
static bool has_room(const MirrorBlockJob *s)
{
    int64_t one = s->copy_range_refusals ? (int64_t)s->piece_bytes : COPY_RANGE_BUFFER;
    int64_t limit = MIN(s->buf_size / one, MAX_DEPTH);
    int depth;

    if (s->host_target && !s->copy_range_refusals) {
        /* Workers that write to one file take turns at its lock: more of them than cores only spin. */
        limit = MIN(limit, (int64_t)g_get_num_processors());
    }
    depth = (int)CLAMP(s->depth, MIN_DEPTH, MAX(limit, MIN_DEPTH));

    return s->in_flight < MIN(depth, MIRROR_MAX_IN_FLIGHT) + (s->scan.running ? 1 : 0);
}

int64_t mirror_pump(MirrorBlockJob *s, bool even_if_paused)
{
    MirrorExtent extent;
    int64_t wait;

    while (s->ret == 0 && (even_if_paused || !job_should_pause(&s->common.job))) {
        mirror_scan_kick(s);
        if (!has_room(s)) {
            break;
        }
        wait = start_delay_ns(s);
        if (wait) {
            return wait;
        }
        if (!mirror_scan_done(s)) {
            if (!mirror_scan_take(s, request_bytes(s), &extent)) {
                break;
            }
        } else if (!next_dirty(s, request_bytes(s), &extent)) {
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
