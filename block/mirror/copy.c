/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mirror's copy engine.
 *
 * An operation is a coroutine that owns a range of the target until it ends. The range's dirty bits
 * are cleared before its first read; if it fails they are set again and the error policy decides
 * what follows. Data goes through bdrv_co_copy_range() where both ends can do it, else through a
 * bounded pool of buffers (buffer.c); how it is written is in write.c.
 */
#include "block/mirror/mirror-int.h"

#include <errno.h>
#include "block/graph/graph.h"
#include "trace/trace-block.h"

/* A dirty range that is shorter is read without asking what it holds: what it reads as says so. */
#define DIRTY_ASK_BYTES (1 << 20)
/* A request that is shorter goes through a buffer: handing it to a worker costs more. */
#define OFFLOAD_MIN_BYTES (128 << 10)
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
    s->last_end_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    s->lagging = s->lagging && s->left_behind > 0; /* the target answers */
    qemu_co_queue_restart_all(&op->waiters);
    mirror_note_idle(s);
}

/* --- one operation --- */

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
        ret = mirror_co_write_read(s, offset, &qiov);
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

/* Lets the nodes copy by themselves, with these flags; -ENOTSUP: they cannot. */
static int coroutine_fn offload_co_piece(MirrorBlockJob *s, int64_t offset, int64_t bytes,
                                         BdrvRequestFlags flags)
{
    int64_t memory = BDRV_COPY_RANGE_BUFFER;
    int ret;

    if (!flags && s->host_target && s->buf_size >= 2 * (memory + BDRV_COPY_RANGE_MAP)) {
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
        if ((n >= OFFLOAD_MIN_BYTES || !s->host_target) && may_copy_range(s)) {
            ret = offload_co_piece(s, offset, n, 0);
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

/* Data and holes in small pieces: what the target need not hold is not written. */
static int coroutine_fn mirror_co_copy_mixed(MirrorCopy *c, int64_t offset, int64_t bytes)
{
    MirrorBlockJob *s = c->s;

    while (bytes > 0) {
        int64_t n = MIN(MIRROR_MIXED_MAX, bytes);
        int ret = -ENOTSUP;

        if (job_is_cancelled(&s->common.job)) {
            return -ECANCELED;
        }
        if (s->fine_target && n >= OFFLOAD_MIN_BYTES && may_copy_range(s) &&
            mirror_co_target_is_zero(s, offset, n)) {
            ret = offload_co_piece(s, offset, n, BDRV_REQ_SKIP_ZEROES);
        }
        if (ret < 0) {
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
 * Asks what a long range holds that was written since it was copied: holes need no reading. A small
 * write into a hole does not make the whole granule data.
 */
static int coroutine_fn mirror_co_copy_dirty(MirrorCopy *c, int64_t offset, int64_t bytes)
{
    MirrorBlockJob *s = c->s;
    BdrvBlockStatus st;

    while (bytes > 0) {
        int64_t n = bytes;
        int ret;

        if (bytes < DIRTY_ASK_BYTES) {
            return mirror_co_copy_mixed(c, offset, bytes);
        }
        ret = bdrv_co_block_status_above(s->source, NULL, offset, bytes, &st);
        if (ret < 0 || st.pnum <= 0) {
            ret = mirror_co_copy_data(c, offset, n);
        } else if (st.pnum < MIRROR_MIXED_UNIT) {
            n = MIN(bytes, MIRROR_MIXED_MAX);
            ret = mirror_co_copy_mixed(c, offset, n);
        } else {
            n = MIN(bytes, st.pnum);
            ret = st.flags & BDRV_BLOCK_ZERO ? mirror_co_zero(s, offset, n)
                                             : mirror_co_copy_data(c, offset, n);
        }
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
    case MIRROR_EXTENT_MIXED:
        ret = mirror_co_copy_mixed(c, offset, bytes);
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
    return s->in_flight + s->left_behind == 0 && mirror_scan_done(s) &&
           bdrv_get_dirty_count(s->dirty) == 0;
}

void coroutine_fn mirror_co_wait_idle(MirrorBlockJob *s)
{
    while (s->in_flight + s->left_behind > 0) {
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
