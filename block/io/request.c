/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests in flight on a node: tracking, and exclusion where two may not overlap.
 *
 * An exclusive request (the read-modify-write of an unaligned write, copy-on-read, the growth of a
 * node) lets nothing else touch its range, which may be wider than the request. Two requests
 * conflict when their ranges overlap and one of them is exclusive. Which request waits:
 *
 *   a new request        for each conflicting one that began before it, and for each that is at work
 *   one that was admitted and becomes exclusive    for each conflicting one that is at work
 *
 * "At work" is admitted and not waiting itself. So new requests do not starve one that waits. Waits
 * form no cycle. A new request waits for lower tickets or for requests at work, an admitted one for
 * requests at work. A request at work ends, or begins to wait for another at work, never for one
 * that waits.
 */
#include "block/io/request.h"

#include <errno.h>
#include <string.h>
#include "block/dirty-bitmap.h"
#include "block/graph/graph.h"
#include "qapi/qapi-events.h"
#include "util/int-math.h"

int bdrv_check_request(int64_t offset, int64_t bytes)
{
    if (offset < 0 || bytes < 0 || bytes > BDRV_MAX_LENGTH || offset > BDRV_MAX_LENGTH - bytes) {
        return -EIO;
    }
    return 0;
}

void bdrv_promise_as_below(BlockDriverState *bs, const BlockDriverState *below)
{
    const BdrvRequestFlags writing = BDRV_REQ_FUA;
    const BdrvRequestFlags zeroing = writing | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;

    bs->supported_write_flags = below->supported_write_flags & writing;
    bs->supported_zero_flags = below->supported_zero_flags & zeroing;
    /* The edge to below says whether contents change: the flag only has to get there. */
    bs->supported_write_flags |= BDRV_REQ_WRITE_UNCHANGED;
    bs->supported_zero_flags |= BDRV_REQ_WRITE_UNCHANGED;
}

/* --- tracking --- */

void bdrv_request_begin(BdrvTrackedRequest *req, BlockDriverState *bs, int64_t offset,
                        int64_t bytes, BdrvTrackedRequestType type)
{
    bool locked;

    assert_graph_thread(bs);
    memset(req, 0, sizeof(*req));
    req->bs = bs;
    req->type = type;
    req->offset = req->lock_start = offset;
    req->bytes = bytes;
    req->lock_end = offset + bytes;
    req->co = qemu_coroutine_self();
    req->start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    qemu_co_queue_init(&req->behind);
    bdrv_inc_in_flight(bs);
    locked = bdrv_lock(bs);
    req->ticket = bs->next_ticket++;
    /* While no range is exclusive, there is nothing that it could have to wait for. */
    req->admitted = !bs->exclusive_requests;
    LIST_INSERT_HEAD(&bs->tracked_requests, req, list);
    bdrv_unlock(bs, locked);
}

void coroutine_fn bdrv_request_end(BdrvTrackedRequest *req)
{
    BlockDriverState *bs = req->bs;
    bool locked = bdrv_lock(bs);

    LIST_REMOVE(req, list);
    bs->exclusive_requests -= req->exclusive;
    qemu_co_queue_restart_all(&req->behind);
    bdrv_unlock(bs, locked);
    bdrv_dec_in_flight(bs);
}

/* --- exclusion; with the lock of a node that has several threads --- */

static bool in_conflict(const BdrvTrackedRequest *a, const BdrvTrackedRequest *b)
{
    return (a->exclusive || b->exclusive) &&
           MAX(a->lock_start, b->lock_start) < MIN(a->lock_end, b->lock_end);
}

static bool waits_behind(const BdrvTrackedRequest *req, const BdrvTrackedRequest *other)
{
    bool at_work = other->admitted && !other->blocked;

    return at_work || (!req->admitted && other->ticket < req->ticket);
}

/* A request that req must let end first; NULL when it may go on. */
static BdrvTrackedRequest *first_obstacle(const BdrvTrackedRequest *req)
{
    BdrvTrackedRequest *other;

    if (!req->bs->exclusive_requests) {
        return NULL;
    }
    LIST_FOREACH(other, &req->bs->tracked_requests, list) {
        if (other != req && in_conflict(req, other) && waits_behind(req, other)) {
            break;
        }
    }
    return other;
}

int coroutine_fn bdrv_request_admit(BdrvTrackedRequest *req, bool no_wait)
{
    BlockDriverState *bs = req->bs;
    BdrvTrackedRequest *obstacle;
    bool locked;

    if (req->admitted && !req->exclusive) {
        return 0;
    }
    locked = bdrv_lock(bs);
    while ((obstacle = first_obstacle(req)) && !no_wait) {
        req->blocked = true;
        qemu_co_queue_wait_guarded(&obstacle->behind, locked ? &bs->lock : NULL);
        req->blocked = false;
    }
    req->admitted |= !obstacle;
    bdrv_unlock(bs, locked);
    return obstacle ? -EBUSY : 0;
}

static void claim_range(BdrvTrackedRequest *req, uint64_t align)
{
    int64_t unit = align;
    bool locked = bdrv_lock(req->bs);

    req->lock_start = MIN(req->lock_start, ROUND_DOWN(req->offset, unit));
    req->lock_end = MAX(req->lock_end, ROUND_UP(req->offset + req->bytes, unit));
    req->bs->exclusive_requests += !req->exclusive;
    req->exclusive = true;
    bdrv_unlock(req->bs, locked);
}

void coroutine_fn bdrv_request_make_exclusive(BdrvTrackedRequest *req, uint64_t align)
{
    claim_range(req, align);
    (void)bdrv_request_admit(req, false); /* it waits, so it cannot fail */
}

/* --- changes of contents --- */

/* The threshold fires once; a client that wants more events sets it anew. */
static void look_at_threshold(BlockDriverState *bs, uint64_t end)
{
    uint64_t threshold = __atomic_load_n(&bs->write_threshold_offset, __ATOMIC_RELAXED);

    if (threshold && end > threshold &&
        __atomic_compare_exchange_n(&bs->write_threshold_offset, &threshold, 0, false,
                                    __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        qapi_event_send_block_write_threshold(bs->node_name, end - threshold, threshold);
    }
}

int coroutine_fn bdrv_request_prepare_write(BdrvChild *child, BdrvTrackedRequest *req,
                                            int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    int ret;

    if (bdrv_is_read_only(bs)) {
        return -EPERM;
    }
    if (flags & BDRV_REQ_WRITE_UNCHANGED) {
        g_assert(bdrv_child_perm(child) & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED));
    } else {
        g_assert(bdrv_child_perm(child) & BLK_PERM_WRITE);
    }
    if (flags & BDRV_REQ_SERIALISING) {
        claim_range(req, bs->bl.request_alignment);
    }
    ret = bdrv_request_admit(req, (flags & BDRV_REQ_SERIALISING) && (flags & BDRV_REQ_NO_WAIT));
    if (ret < 0) {
        return ret;
    }
    if (req->type == BDRV_TRACKED_WRITE) {
        look_at_threshold(bs, offset + bytes);
    }
    return 0;
}

/* The size is the graph's thread's business; that a write of another thread meets it is rare. */
static void coroutine_fn co_grow(BlockDriverState *bs, int64_t end)
{
    AioContext *from = qemu_get_current_aio_context();

    aio_co_reschedule_self(bs->aio_context);
    if (end > bs->total_bytes) {
        bdrv_set_total_bytes(bs, end);
    }
    aio_co_reschedule_self(from);
}

void coroutine_fn bdrv_request_finish_write(BdrvTrackedRequest *req, int64_t offset, int64_t bytes,
                                            int ret)
{
    BlockDriverState *bs = req->bs;
    bool locked = bdrv_lock(bs);
    uint64_t end = offset + bytes;

    bs->changes++;
    if (ret == 0 && req->type != BDRV_TRACKED_DISCARD && end > bs->wr_highest_offset) {
        __atomic_store_n(&bs->wr_highest_offset, end, __ATOMIC_RELAXED);
    }
    bdrv_unlock(bs, locked);
    if (ret == 0 && req->type != BDRV_TRACKED_DISCARD && (int64_t)end > bdrv_size(bs)) {
        co_grow(bs, end);
    }
    if (bytes) {
        /* Also after a failure, when the contents of the range are unknown. */
        bdrv_set_dirty(bs, offset, bytes);
    }
}

void bdrv_set_total_bytes(BlockDriverState *bs, int64_t bytes)
{
    BdrvChild *child;

    assert_home_thread(bs);
    if (bs->total_bytes == bytes) {
        return;
    }
    __atomic_store_n(&bs->total_bytes, bytes, __ATOMIC_RELAXED);
    bdrv_dirty_bitmap_truncate(bs, bytes);
    bdrv_edges_lock(); /* the main thread links and unlinks parents */
    LIST_FOREACH(child, &bs->parents, next_parent) {
        if (child->klass->resize) {
            child->klass->resize(child);
        }
    }
    bdrv_edges_unlock();
}
