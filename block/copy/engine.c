/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copy engine: choosing, copying, and what follows from errors.
 *
 * An operation is a coroutine that owns a range of the target until it ends. The range's dirty bits
 * are cleared before its first read; if it fails they are set again and the error policy decides
 * what follows. Data goes through bdrv_co_copy_range() where both ends can do it, else through a
 * bounded pool of buffers (buffer.c); how it is written is in write.c.
 */
#include "block/copy/copy.h"

#include <errno.h>
#include "block/graph/graph.h"
#include "trace/trace-block.h"

/* A request that is shorter goes through a buffer: handing it to a worker costs more. */
#define OFFLOAD_MIN_BYTES (128 << 10)
/* A dirty range that is shorter is read without asking what it holds: what it reads as says so. */
#define DIRTY_ASK_BYTES OFFLOAD_MIN_BYTES
/* After an ignored error: time before the next try. */
#define IGNORED_ERROR_DELAY_NS (100 * SCALE_MS)
/*
 * Small requests to a file in memory are over when they have been started. The thread's other users
 * have their turn after so long.
 */
#define TURN_NS (500 * SCALE_US)
/* bdrv_co_copy_range() that goes on being refused is tried for one of this power of two pieces. */
#define COPY_RANGE_MAX_BACKOFF 10

typedef struct CopyTask {
    CopyEngine *s;
    CopyExtent extent;
    CopyOp op;
    bool read_failed; /* which side an error came from */
} CopyTask;

/* --- ranges --- */

CopyOp *copy_find_overlap(CopyEngine *s, int64_t offset, int64_t bytes)
{
    CopyOp *op;

    LIST_FOREACH(op, &s->ops, next) {
        if (offset < op->offset + op->bytes && op->offset < offset + bytes) {
            return op;
        }
    }
    return NULL;
}

void copy_op_begin(CopyEngine *s, CopyOp *op, int64_t offset, int64_t bytes)
{
    g_assert(!copy_find_overlap(s, offset, bytes));
    op->offset = offset;
    op->bytes = bytes;
    qemu_co_queue_init(&op->waiters);
    LIST_INSERT_HEAD(&s->ops, op, next);
}

void copy_op_end(CopyEngine *s, CopyOp *op)
{
    LIST_REMOVE(op, next);
    s->last_end_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    qemu_co_queue_restart_all(&op->waiters);
    copy_note_idle(s);
}

/* --- one operation --- */

/* Reads and writes as much of *bytes as there are buffers for, and says how much that was. */
static int coroutine_fn bounce_co_piece(CopyTask *c, int64_t offset, int64_t *bytes)
{
    CopyEngine *s = c->s;
    QEMUIOVector qiov;
    int ret;

    *bytes = copy_co_get_buffer(s, *bytes, &qiov);
    if (!*bytes) {
        return -ENOMEM;
    }
    ret = copy_co_read(s, offset, &qiov);
    if (ret < 0) {
        c->read_failed = true;
    } else {
        ret = copy_co_write_read(s, offset, &qiov);
    }
    copy_put_buffer(s, &qiov);
    return ret;
}

/*
 * -ENOTSUP may be about one place only (compressed clusters), or about all. So it is tried again,
 * more and more rarely as long as it goes on being refused.
 */
static bool may_copy_range(CopyEngine *s)
{
    if (s->copy_range_skip > 0) {
        s->copy_range_skip--;
        return false;
    }
    return true;
}

static void note_copy_range(CopyEngine *s, int ret)
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
static int coroutine_fn offload_co_piece(CopyEngine *s, int64_t offset, int64_t bytes,
                                         BdrvRequestFlags flags)
{
    int64_t memory = BDRV_COPY_RANGE_BUFFER;
    int ret;

    if (!flags && s->host_target && s->buf_size >= 2 * (memory + BDRV_COPY_RANGE_MAP)) {
        memory += BDRV_COPY_RANGE_MAP;
        flags = BDRV_REQ_MAY_MAP;
    }
    copy_co_charge_memory(s, memory);
    if (copy_wish(s) == COPY_CANCEL) {
        ret = -ECANCELED;
    } else {
        copy_map_set_data(&s->map, offset, bytes);
        ret = bdrv_co_copy_range(s->source_edge, offset, blk_root(s->target), offset, bytes, flags);
        note_copy_range(s, ret);
        trace_copy_offload(offset, bytes, ret);
    }
    copy_uncharge_memory(s, memory);
    return ret;
}

static bool coroutine_fn may_offload_data(CopyEngine *s, int64_t bytes)
{
    return (bytes >= OFFLOAD_MIN_BYTES || !s->host_target) && may_copy_range(s);
}

static bool coroutine_fn may_offload_mixed(CopyEngine *s, int64_t offset, int64_t bytes)
{
    return s->fine_target && bytes >= OFFLOAD_MIN_BYTES && may_copy_range(s) &&
           copy_co_target_is_zero(s, offset, bytes);
}

/* mixed: data and holes in small pieces; what the target need not hold is not written. */
static int coroutine_fn task_co_copy_pieces(CopyTask *c, int64_t offset, int64_t bytes, bool mixed)
{
    CopyEngine *s = c->s;
    const int64_t piece = mixed ? COPY_MIXED_MAX : COPY_MAX_REQUEST;

    while (bytes > 0) {
        int64_t n = MIN(piece, bytes);
        int ret = -ENOTSUP;

        if (copy_wish(s) == COPY_CANCEL) {
            return -ECANCELED;
        }
        if (mixed ? may_offload_mixed(s, offset, n) : may_offload_data(s, n)) {
            ret = offload_co_piece(s, offset, n, mixed ? BDRV_REQ_SKIP_ZEROES : 0);
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

static int coroutine_fn task_co_copy_data(CopyTask *c, int64_t offset, int64_t bytes)
{
    return task_co_copy_pieces(c, offset, bytes, false);
}

static int coroutine_fn task_co_copy_mixed(CopyTask *c, int64_t offset, int64_t bytes)
{
    return task_co_copy_pieces(c, offset, bytes, true);
}

/*
 * Asks what a long range holds that was written since it was copied: holes need no reading. A small
 * write into a hole does not make the whole granule data.
 */
static int coroutine_fn task_co_copy_dirty(CopyTask *c, int64_t offset, int64_t bytes)
{
    CopyEngine *s = c->s;
    BdrvBlockStatus st;

    while (bytes > 0) {
        int64_t n = bytes;
        int ret;

        if (bytes < DIRTY_ASK_BYTES) {
            return task_co_copy_mixed(c, offset, bytes);
        }
        ret = copy_co_source_status(s, NULL, offset, bytes, &st);
        if (ret < 0 || st.pnum <= 0) {
            ret = task_co_copy_data(c, offset, n);
        } else if (st.pnum < COPY_MIXED_UNIT) {
            n = MIN(bytes, COPY_MIXED_MAX);
            ret = task_co_copy_mixed(c, offset, n);
        } else {
            n = MIN(bytes, st.pnum);
            ret = st.flags & BDRV_BLOCK_ZERO ? copy_co_zero(s, offset, n)
                                             : task_co_copy_data(c, offset, n);
        }
        if (ret < 0) {
            return ret;
        }
        offset += n;
        bytes -= n;
    }
    return 0;
}

static void coroutine_fn task_co_failed(CopyTask *c, int ret)
{
    CopyEngine *s = c->s;

    bdrv_set_dirty_bitmap(s->dirty, c->extent.offset, c->extent.bytes);
    switch (s->callbacks->co_failed(s->owner, c->read_failed, -ret)) {
    case BLOCK_ERROR_ACTION_REPORT:
        if (s->ret == 0) {
            s->ret = ret;
        }
        break;
    case BLOCK_ERROR_ACTION_IGNORE:
        s->not_before_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + IGNORED_ERROR_DELAY_NS;
        break;
    default: /* the owner is paused until the user resumes it */
        break;
    }
}

static void coroutine_fn task_co_entry(void *opaque)
{
    CopyTask *c = opaque;
    CopyEngine *s = c->s;
    int64_t offset = c->extent.offset, bytes = c->extent.bytes;
    int64_t start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME), copied = 0;
    int ret;

    switch (c->extent.kind) {
    case COPY_EXTENT_ZERO:
        ret = copy_co_zero(s, offset, bytes);
        break;
    case COPY_EXTENT_DATA:
        ret = task_co_copy_data(c, offset, bytes);
        break;
    case COPY_EXTENT_MIXED:
        ret = task_co_copy_mixed(c, offset, bytes);
        break;
    default:
        ret = task_co_copy_dirty(c, offset, bytes);
        break;
    }
    if (ret < 0) {
        task_co_failed(c, ret);
    } else {
        copied = bytes;
        copy_pace_ended(s, c->extent.kind == COPY_EXTENT_ZERO ? 0 : bytes,
                        qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start_ns);
    }
    copy_op_end(s, &c->op);
    s->bytes_in_flight -= bytes;
    s->in_flight--;
    copy_note_idle(s);
    qemu_co_queue_restart_all(&s->op_ended);
    copy_moved(s, copied);
    bdrv_drain_kick();
    g_free(c);
}

static void start_task(CopyEngine *s, const CopyExtent *extent)
{
    CopyTask *c = g_new0(CopyTask, 1);

    c->s = s;
    c->extent = *extent;
    copy_pace_started(s, extent->kind == COPY_EXTENT_ZERO ? 0 : extent->bytes);
    s->in_flight++;
    s->bytes_in_flight += extent->bytes;
    copy_op_begin(s, &c->op, extent->offset, extent->bytes);
    qemu_coroutine_enter(qemu_coroutine_create(task_co_entry, c));
}

/* --- choosing the next operation --- */

/* The next dirty extent behind the scan that nothing in flight touches. */
static bool next_dirty(CopyEngine *s, int64_t max_bytes, CopyExtent *extent)
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
        CopyOp *op;

        if (!hbitmap_next_dirty_area(hb, s->dirty_cursor, limit, max_bytes, &start, &bytes)) {
            if (wrapped || !s->dirty_cursor) {
                return false;
            }
            wrapped = true;
            s->dirty_cursor = 0;
            continue;
        }
        op = copy_find_overlap(s, start, bytes);
        if (!op) {
            *extent = (CopyExtent){.offset = start, .bytes = bytes, .kind = COPY_EXTENT_DIRTY};
            s->dirty_cursor = start + bytes;
            return true;
        }
        /* What lies before the operation can go; else look behind it. */
        if (op->offset - (int64_t)start >= s->granularity) {
            bytes = (op->offset - start) & ~((uint64_t)s->granularity - 1);
            if (!copy_find_overlap(s, start, bytes)) {
                *extent = (CopyExtent){.offset = start, .bytes = bytes, .kind = COPY_EXTENT_DIRTY};
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
static int64_t start_delay_ns(CopyEngine *s)
{
    int64_t wait = s->callbacks->delay_ns(s->owner, 0);

    if (s->not_before_ns) {
        wait = MAX(wait, s->not_before_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
        if (wait <= 0) {
            s->not_before_ns = 0;
        }
    }
    return MAX(wait, 0);
}

int64_t copy_pump(CopyEngine *s, bool even_if_paused)
{
    int64_t end_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + TURN_NS;
    CopyExtent extent;
    int64_t wait;

    s->turn_over = false;
    while (s->ret == 0 && (even_if_paused || copy_wish(s) != COPY_PAUSE)) {
        copy_scan_kick(s);
        if (!copy_has_room(s)) {
            break;
        }
        wait = start_delay_ns(s);
        if (wait) {
            return wait;
        }
        if (!copy_scan_done(s)) {
            if (!copy_scan_take(s, copy_request_bytes(s), &extent)) {
                break;
            }
        } else if (!next_dirty(s, copy_request_bytes(s), &extent)) {
            break;
        } else {
            bdrv_reset_dirty_bitmap(s->dirty, extent.offset, extent.bytes);
        }
        if (extent.kind == COPY_EXTENT_SKIP) {
            continue;
        }
        if (extent.kind != COPY_EXTENT_ZERO) {
            (void)s->callbacks->delay_ns(s->owner, extent.bytes);
        }
        start_task(s, &extent);
        if (qemu_clock_get_ns(QEMU_CLOCK_REALTIME) > end_ns) {
            s->turn_over = true;
            break;
        }
    }
    return 0;
}

int64_t copy_bytes_left(const CopyEngine *s)
{
    return s->size - s->scan.issued + bdrv_get_dirty_count(s->dirty) + s->bytes_in_flight;
}

bool copy_target_busy(const CopyEngine *s)
{
    return s->in_flight > 0 || !LIST_EMPTY(&s->ops);
}

void copy_note_idle(CopyEngine *s)
{
    if (!copy_target_busy(s)) {
        qemu_co_queue_restart_all(&s->idle);
    }
}

bool copy_is_clean(const CopyEngine *s)
{
    return s->in_flight + s->left_behind == 0 && copy_scan_done(s) &&
           bdrv_get_dirty_count(s->dirty) == 0;
}

void coroutine_fn copy_co_wait_idle(CopyEngine *s)
{
    while (s->in_flight + s->left_behind > 0) {
        qemu_co_queue_wait(&s->op_ended, NULL);
    }
}

int coroutine_fn copy_co_flush_target(CopyEngine *s)
{
    int ret;

    if (copy_wish(s) == COPY_CANCEL) {
        return -ECANCELED;
    }
    s->in_flight++;
    ret = blk_co_flush(s->target);
    s->in_flight--;
    copy_note_idle(s);
    qemu_co_queue_restart_all(&s->op_ended);
    bdrv_drain_kick();
    return ret;
}
