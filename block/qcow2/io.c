/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading and writing guest data. */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/l2.h"
#include "block/qcow2/alloc.h"
#include "block/qcow2/free.h"
#include "block/qcow2/overlap.h"
#include "block/qcow2/data.h"
#include "block/qcow2/image.h"

#include <errno.h>
#include "util/bufferiszero.h"

/* Vectors longer than this leave no room for two more elements in one request. */
#define MAX_MERGE_IOV 1000

/* Reads what the backing file shows at offset; zeroes beyond its end. */
static int coroutine_fn co_read_backing(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                        QEMUIOVector *qiov, size_t qiov_offset)
{
    int64_t len = bs->backing ? bdrv_getlength(bs->backing->bs) : 0;
    uint64_t inside;

    if (len < 0) {
        return len;
    }
    inside = offset < (uint64_t)len ? MIN(bytes, len - offset) : 0;
    if (inside < bytes) {
        qemu_iovec_memset(qiov, qiov_offset + inside, 0, bytes - inside);
    }
    if (inside == 0) {
        return 0;
    }
    BLKDBG_CO_EVENT(bs->file, BLKDBG_READ_BACKING_AIO);
    return bdrv_co_preadv_part(bs->backing, offset, inside, qiov, qiov_offset, 0);
}

static int coroutine_fn co_read_extent(BlockDriverState *bs, const Qcow2Extent *x, uint64_t offset,
                                       QEMUIOVector *qiov, size_t qiov_offset)
{
    BDRVQcow2State *s = bs->opaque;

    switch (x->kind) {
    case QCOW2_UNALLOCATED:
        return co_read_backing(bs, offset, x->bytes, qiov, qiov_offset);
    case QCOW2_ZERO:
        qemu_iovec_memset(qiov, qiov_offset, 0, x->bytes);
        return 0;
    case QCOW2_NORMAL:
        BLKDBG_CO_EVENT(bs->file, BLKDBG_READ_AIO);
        return bdrv_co_preadv_part(s->data_file, x->host_offset, x->bytes, qiov, qiov_offset, 0);
    case QCOW2_COMPRESSED:
        return qcow2_co_read_compressed(bs, x->entry, qcow2_in_cluster(s, offset), x->bytes, qiov,
                                        qiov_offset);
    default:
        return -EIO;
    }
}

/* --- parts of one request, side by side --- */

#define FAN_PARTS_MAX 16

/* On the stack of the request, which waits for all parts before it ends. One thread. */
typedef struct Fan {
    Coroutine *waiter; /* the request, while it waits for a part to end */
    unsigned parts;    /* under way */
    int ret;           /* the first error of a part */
} Fan;

typedef int coroutine_fn FanFunc(void *part);

typedef struct FanPart {
    Fan *fan;
    FanFunc *func;
    void *part;
} FanPart;

static void coroutine_fn fan_co_entry(void *opaque)
{
    g_autofree FanPart *p = opaque;
    Fan *fan = p->fan;
    int ret = p->func(p->part);

    if (ret < 0 && fan->ret == 0) {
        fan->ret = ret;
    }
    fan->parts--;
    if (fan->waiter) {
        aio_co_wake(g_steal_pointer(&fan->waiter));
    }
}

/* Until at most `parts` are under way; the first error, or 0. */
static int coroutine_fn fan_co_wait(Fan *fan, unsigned parts)
{
    while (fan->parts > parts) {
        fan->waiter = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    return fan->ret;
}

/* Runs func(part) in a coroutine of its own. */
static void coroutine_fn fan_co_start(Fan *fan, FanFunc *func, void *part)
{
    FanPart *p = g_new(FanPart, 1);

    *p = (FanPart){.fan = fan, .func = func, .part = part};
    fan->parts++;
    qemu_coroutine_enter(qemu_coroutine_create(fan_co_entry, p));
}

typedef struct ReadPart {
    BlockDriverState *bs;
    Qcow2Extent extent;
    uint64_t offset;
    QEMUIOVector *qiov;
    size_t qiov_offset;
} ReadPart;

static int coroutine_fn read_part_co(void *opaque)
{
    g_autofree ReadPart *p = opaque;

    return co_read_extent(p->bs, &p->extent, p->offset, p->qiov, p->qiov_offset);
}

/* All extents side by side; the last one in this coroutine. */
static int coroutine_fn co_read(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                QEMUIOVector *qiov, size_t qiov_offset)
{
    Fan fan = {.parts = 0};
    int ret = 0, parts_ret;

    while (ret == 0 && bytes > 0) {
        Qcow2Extent x;

        ret = qcow2_co_lookup(bs, offset, bytes, &x);
        if (ret < 0) {
            break;
        }
        if (x.bytes == bytes || x.kind == QCOW2_ZERO) {
            ret = co_read_extent(bs, &x, offset, qiov, qiov_offset);
        } else {
            ReadPart *part = g_new(ReadPart, 1);

            *part = (ReadPart){bs, x, offset, qiov, qiov_offset};
            fan_co_start(&fan, read_part_co, part);
            ret = fan_co_wait(&fan, FAN_PARTS_MAX - 1);
        }
        ret = MIN(ret, 0);
        offset += x.bytes;
        qiov_offset += x.bytes;
        bytes -= x.bytes;
    }
    parts_ret = fan_co_wait(&fan, 0);
    return MIN(ret < 0 ? ret : parts_ret, 0);
}

int coroutine_fn qcow2_co_read(BlockDriverState *bs, int64_t offset, int64_t bytes,
                               QEMUIOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t host;
    unsigned epoch;
    int ret;

    if (s->fatal) {
        return -EIO;
    }
    epoch = qcow2_request_begin(s);
    if (qcow2_lookup_fast(bs, offset, bytes, false, &host)) {
        BLKDBG_CO_EVENT(bs->file, BLKDBG_READ_AIO);
        ret = bdrv_co_preadv_part(s->data_file, host, bytes, qiov, qiov_offset, 0);
    } else {
        ret = co_read(bs, offset, bytes, qiov, qiov_offset);
    }
    qcow2_request_end(s, epoch);
    return MIN(ret, 0);
}

int coroutine_fn qcow2_co_reads_zero(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    int64_t backing_len = bs->backing ? bdrv_getlength(bs->backing->bs) : 0;

    while (bytes > 0) {
        Qcow2Extent x;
        int ret = qcow2_co_lookup(bs, offset, bytes, &x);
        if (ret < 0) {
            return ret;
        }
        if (x.kind != QCOW2_ZERO &&
            !(x.kind == QCOW2_UNALLOCATED && backing_len >= 0 && offset >= (uint64_t)backing_len)) {
            return 0;
        }
        offset += x.bytes;
        bytes -= x.bytes;
    }
    return 1;
}

/*
 * What surrounds the guest data in clusters that are being allocated: read into buf. *skip: it need
 * not be written, the host has zeroes there.
 */
static int coroutine_fn co_read_surrounding(BlockDriverState *bs, const Qcow2Alloc *alloc,
                                            uint64_t offset, uint64_t bytes, uint8_t *buf,
                                            bool *skip)
{
    QEMUIOVector qiov;
    int ret;

    *skip = false;
    if (bytes == 0) {
        return 0;
    }
    ret = qcow2_co_reads_zero(bs, offset, bytes);
    if (ret != 0) {
        *skip = ret > 0 && alloc->fresh;
        memset(buf, 0, bytes);
        return MIN(ret, 0);
    }
    BLKDBG_CO_EVENT(bs->file, BLKDBG_COW_READ);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    ret = co_read(bs, offset, bytes, &qiov, 0);
    *skip = ret == 0 && alloc->fresh && buffer_is_zero(buf, bytes);
    return ret;
}

typedef struct Surrounding {
    BlockDriverState *bs;
    const Qcow2Alloc *alloc;
    uint64_t offset, bytes;
    uint8_t *buf;
    bool skip;
} Surrounding;

static int coroutine_fn surrounding_co(void *opaque)
{
    Surrounding *p = opaque;

    return co_read_surrounding(p->bs, p->alloc, p->offset, p->bytes, p->buf, &p->skip);
}

/* Reads both side by side. */
static int coroutine_fn co_read_head_and_tail(Surrounding *head, Surrounding *tail)
{
    Fan fan = {.parts = 0};
    int ret, head_ret;

    if (head->bytes && tail->bytes) {
        fan_co_start(&fan, surrounding_co, head);
    } else {
        fan.ret = surrounding_co(head);
    }
    ret = surrounding_co(tail);
    head_ret = fan_co_wait(&fan, 0);
    return head_ret < 0 ? head_ret : ret;
}

/*
 * Writes head, guest data and tail; as one request unless the guest's vector is too long for that.
 */
static int coroutine_fn co_write_merged(BlockDriverState *bs, uint64_t host, QEMUIOVector *head,
                                        QEMUIOVector *tail, uint64_t bytes, QEMUIOVector *qiov,
                                        size_t qiov_offset)
{
    BDRVQcow2State *s = bs->opaque;
    QEMUIOVector all;
    int ret = 0;

    BLKDBG_CO_EVENT(bs->file, BLKDBG_COW_WRITE);
    if (qiov->niov > MAX_MERGE_IOV) {
        if (head->size) {
            ret = bdrv_co_pwritev(s->data_file, host - head->size, head->size, head, 0);
        }
        if (ret >= 0 && tail->size) {
            ret = bdrv_co_pwritev(s->data_file, host + bytes, tail->size, tail, 0);
        }
        return ret < 0 ? ret
                       : bdrv_co_pwritev_part(s->data_file, host, bytes, qiov, qiov_offset, 0);
    }
    qemu_iovec_init(&all, qiov->niov + 2);
    if (head->size) {
        qemu_iovec_concat(&all, head, 0, head->size);
    }
    qemu_iovec_concat(&all, qiov, qiov_offset, bytes);
    if (tail->size) {
        qemu_iovec_concat(&all, tail, 0, tail->size);
    }
    ret = bdrv_co_pwritev(s->data_file, host - head->size, all.size, &all, 0);
    qemu_iovec_destroy(&all);
    return ret;
}

/*
 * Writes [offset, offset + bytes) into newly allocated clusters and completes what must be NORMAL
 * around it.
 */
static int coroutine_fn co_write_alloc(BlockDriverState *bs, const Qcow2WritePlan *plan,
                                       uint64_t offset, QEMUIOVector *qiov, size_t qiov_offset)
{
    BDRVQcow2State *s = bs->opaque;
    const Qcow2Alloc *alloc = &plan->alloc;
    uint64_t head_bytes = offset - alloc->fill_start, tail_start = offset + plan->bytes;
    uint64_t tail_bytes = alloc->fill_end - tail_start;
    Surrounding before = {bs, alloc, alloc->fill_start, head_bytes};
    Surrounding after = {bs, alloc, tail_start, tail_bytes};
    QEMUIOVector head, tail;
    uint8_t *buf;
    int ret;

    if (head_bytes + tail_bytes == 0) {
        BLKDBG_CO_EVENT(bs->file, BLKDBG_WRITE_AIO);
        return bdrv_co_pwritev_part(s->data_file, plan->host_offset, plan->bytes, qiov, qiov_offset,
                                    0);
    }
    buf = qemu_try_blockalign(s->data_file->bs, head_bytes + tail_bytes);
    if (!buf) {
        return -ENOMEM;
    }
    before.buf = buf;
    after.buf = buf + head_bytes;
    ret = co_read_head_and_tail(&before, &after);
    if (ret == 0) {
        qemu_iovec_init_buf(&head, before.buf, before.skip ? 0 : head_bytes);
        qemu_iovec_init_buf(&tail, after.buf, after.skip ? 0 : tail_bytes);
        BLKDBG_CO_EVENT(bs->file, BLKDBG_WRITE_AIO);
        if (head.size + tail.size == 0) {
            ret = bdrv_co_pwritev_part(s->data_file, plan->host_offset, plan->bytes, qiov,
                                       qiov_offset, 0);
        } else {
            ret = co_write_merged(bs, plan->host_offset, &head, &tail, plan->bytes, qiov,
                                  qiov_offset);
        }
    }
    qemu_vfree(buf);
    return ret;
}

int coroutine_fn qcow2_co_finish_write(BlockDriverState *bs, Qcow2WritePlan *plan, int ret)
{
    BDRVQcow2State *s = bs->opaque;

    if (!plan->allocating) {
        return MIN(ret, 0);
    }
    qemu_co_mutex_lock(&s->lock);
    if (ret >= 0) {
        ret = s->fatal ? -EIO : qcow2_co_alloc_link(bs, &plan->alloc);
    }
    if (ret < 0) {
        qcow2_co_alloc_abort(bs, &plan->alloc);
    }
    qemu_co_mutex_unlock(&s->lock);
    qcow2_alloc_finish(s, &plan->alloc);
    return MIN(ret, 0);
}

int coroutine_fn qcow2_co_start_write(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                      Qcow2WritePlan *plan)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    if (qcow2_lookup_fast(bs, offset, bytes, true, &plan->host_offset)) {
        plan->bytes = bytes;
        plan->allocating = false;
    } else {
        qemu_co_mutex_lock(&s->lock);
        ret = qcow2_co_plan_write(bs, offset, bytes, plan);
        qemu_co_mutex_unlock(&s->lock);
    }
    if (ret < 0 || s->data_file != bs->file) {
        return ret;
    }
    if (plan->allocating) {
        ret = qcow2_co_check_overlap(bs, 0, plan->alloc.host_offset,
                                     (uint64_t)plan->alloc.nb_clusters << s->cluster_bits);
    } else {
        ret = qcow2_co_check_overlap(bs, 0, plan->host_offset, plan->bytes);
    }
    if (ret < 0 && plan->allocating) {
        qcow2_alloc_finish(s,
                           &plan->alloc); /* the clusters stay counted: another owner uses them */
    }
    return ret;
}

/* One extent of a write: its data, then the entries that refer to them. */
typedef struct WritePart {
    BlockDriverState *bs;
    bool is_ours; /* the coroutine that writes it frees it */
    Qcow2WritePlan plan;
    uint64_t offset;
    QEMUIOVector *qiov;
    size_t qiov_offset;
} WritePart;

static int coroutine_fn co_write_part(WritePart *p)
{
    BDRVQcow2State *s = p->bs->opaque;
    int ret;

    if (p->plan.allocating) {
        ret = co_write_alloc(p->bs, &p->plan, p->offset, p->qiov, p->qiov_offset);
    } else {
        BLKDBG_CO_EVENT(p->bs->file, BLKDBG_WRITE_AIO);
        ret = bdrv_co_pwritev_part(s->data_file, p->plan.host_offset, p->plan.bytes, p->qiov,
                                   p->qiov_offset, 0);
    }
    return qcow2_co_finish_write(p->bs, &p->plan, ret);
}

static int coroutine_fn write_part_co(void *opaque)
{
    WritePart *p = opaque;
    int ret = co_write_part(p);

    if (p->is_ours) {
        g_free(p);
    }
    return ret;
}

/*
 * Plans one extent after the other, and writes them side by side; the last one in this coroutine.
 * Extents of one request have no cluster in common, so none waits for another one of them. `first`
 * stays until all have ended.
 */
static int coroutine_fn co_write_extents(Fan *fan, WritePart *first, uint64_t bytes,
                                         uint64_t *written)
{
    WritePart *part = first;
    int ret;

    while ((ret = qcow2_co_start_write(part->bs, part->offset, bytes, &part->plan)) == 0) {
        uint64_t planned = part->plan.bytes;
        WritePart *next;

        if (planned == bytes) {
            ret = co_write_part(part);
            *written += ret == 0 ? planned : 0;
            break;
        }
        next = g_new(WritePart, 1);
        *next = (WritePart){.bs = part->bs,
                            .is_ours = true,
                            .offset = part->offset + planned,
                            .qiov = part->qiov,
                            .qiov_offset = part->qiov_offset + planned};
        fan_co_start(fan, write_part_co, part);
        part = next;
        *written += planned;
        bytes -= planned;
        ret = fan_co_wait(fan, FAN_PARTS_MAX - 1);
        if (ret < 0) {
            break;
        }
    }
    if (part->is_ours) {
        g_free(part);
    }
    return ret;
}

/*
 * All of it. After an error, *written is what is sure to be done from the start on: nothing if one
 * of several extents failed.
 */
static int coroutine_fn co_write_range(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                       QEMUIOVector *qiov, size_t qiov_offset, uint64_t *written)
{
    BDRVQcow2State *s = bs->opaque;
    WritePart part = {.bs = bs, .offset = offset, .qiov = qiov, .qiov_offset = qiov_offset};
    unsigned epoch = qcow2_request_begin(s);
    Fan fan = {.parts = 0};
    int ret, parts_ret;

    *written = 0;
    ret = co_write_extents(&fan, &part, bytes, written);
    parts_ret = fan_co_wait(&fan, 0);
    qcow2_request_end(s, epoch);
    if (parts_ret < 0) {
        *written = 0;
        return parts_ret;
    }
    return ret;
}

int coroutine_fn qcow2_co_write(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                QEMUIOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    uint64_t done = 0, more = 0;
    int ret = qcow2_co_prepare_write(bs);

    if (ret < 0) {
        return ret;
    }
    ret = co_write_range(bs, offset, bytes, qiov, qiov_offset, &done);
    if (ret == -ENOSPC && qcow2_co_reclaim(bs)) {
        ret = co_write_range(bs, offset + done, bytes - done, qiov, qiov_offset + done, &more);
    }
    return ret < 0 ? ret : qcow2_co_throttle_frees(bs);
}
