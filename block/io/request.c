/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests in flight on a node: tracking, and waiting where two may not overlap.
 *
 * A serialising request (read-modify-write of an unaligned write, copy on read) excludes every
 * overlapping request of its node. Waits cannot form a cycle: a request waits only for requests
 * that do not, directly or through others, wait for it.
 */
#include "block/io/request.h"

#include <errno.h>
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

void tracked_request_begin(BdrvTrackedRequest *req, BlockDriverState *bs, int64_t offset,
                           int64_t bytes, BdrvTrackedRequestType type)
{
    *req = (BdrvTrackedRequest){
        .bs = bs,
        .offset = offset,
        .bytes = bytes,
        .type = type,
        .start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME),
        .overlap_offset = offset,
        .overlap_bytes = bytes,
        .co = qemu_coroutine_self(),
    };
    qemu_co_queue_init(&req->wait_queue);
    LIST_INSERT_HEAD(&bs->tracked_requests, req, list);
    bdrv_inc_in_flight(bs);
}

void coroutine_fn tracked_request_end(BdrvTrackedRequest *req)
{
    BlockDriverState *bs = req->bs;

    if (req->serialising) {
        bs->serialising_in_flight--;
    }
    LIST_REMOVE(req, list);
    if (!qemu_co_queue_empty(&req->wait_queue)) {
        BdrvTrackedRequest *other;

        /* They run only later, and until then others ask whom they wait for. */
        LIST_FOREACH(other, &bs->tracked_requests, list) {
            if (other->waiting_for == req) {
                other->waiting_for = NULL;
            }
        }
        qemu_co_queue_restart_all(&req->wait_queue);
    }
    bdrv_dec_in_flight(bs);
}

static bool requests_overlap(const BdrvTrackedRequest *a, const BdrvTrackedRequest *b)
{
    return a->overlap_offset < b->overlap_offset + b->overlap_bytes &&
           b->overlap_offset < a->overlap_offset + a->overlap_bytes;
}

static bool waits_for(const BdrvTrackedRequest *waiter, const BdrvTrackedRequest *req)
{
    for (; waiter; waiter = waiter->waiting_for) {
        if (waiter == req) {
            return true;
        }
    }
    return false;
}

static BdrvTrackedRequest *find_conflict(BdrvTrackedRequest *self)
{
    BdrvTrackedRequest *req;

    LIST_FOREACH(req, &self->bs->tracked_requests, list) {
        if (req == self || (!req->serialising && !self->serialising) ||
            !requests_overlap(req, self)) {
            continue;
        }
        if (!waits_for(req->waiting_for, self)) {
            return req;
        }
    }
    return NULL;
}

static int coroutine_fn wait_conflicts(BdrvTrackedRequest *self, bool no_wait)
{
    BdrvTrackedRequest *req;

    while ((req = find_conflict(self))) {
        if (no_wait) {
            return -EBUSY;
        }
        self->waiting_for = req;
        qemu_co_queue_wait(&req->wait_queue, NULL);
        self->waiting_for = NULL;
    }
    return 0;
}

int coroutine_fn bdrv_wait_serialising(BdrvTrackedRequest *req, bool no_wait)
{
    if (!req->bs->serialising_in_flight) {
        return 0;
    }
    return wait_conflicts(req, no_wait);
}

static void set_serialising(BdrvTrackedRequest *req, uint64_t align)
{
    int64_t start = req->offset & ~(int64_t)(align - 1);
    int64_t end = ROUND_UP(req->offset + req->bytes, (int64_t)align);

    if (!req->serialising) {
        req->serialising = true;
        req->bs->serialising_in_flight++;
    }
    req->overlap_offset = MIN(req->overlap_offset, start);
    req->overlap_bytes = MAX(req->overlap_bytes, end - req->overlap_offset);
}

void coroutine_fn bdrv_make_request_serialising(BdrvTrackedRequest *req, uint64_t align)
{
    set_serialising(req, align);
    (void)wait_conflicts(req, false);
}

int coroutine_fn bdrv_write_req_prepare(BdrvChild *child, BdrvTrackedRequest *req, int64_t offset,
                                        int64_t bytes, BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    int ret;

    if (bdrv_is_read_only(bs)) {
        return -EPERM;
    }
    g_assert(child->perm &
             ((flags & BDRV_REQ_WRITE_UNCHANGED) ? (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)
                                                 : BLK_PERM_WRITE));
    if (flags & BDRV_REQ_SERIALISING) {
        set_serialising(req, bs->bl.request_alignment);
        ret = wait_conflicts(req, flags & BDRV_REQ_NO_WAIT);
    } else {
        ret = bdrv_wait_serialising(req, false);
    }
    if (ret < 0) {
        return ret;
    }
    if (bs->write_threshold_offset && offset + bytes > (int64_t)bs->write_threshold_offset &&
        req->type == BDRV_TRACKED_WRITE) {
        uint64_t threshold = bs->write_threshold_offset;

        /* One-shot: whoever asked sets a new threshold. */
        bs->write_threshold_offset = 0;
        qapi_event_send_block_write_threshold(bs->node_name, offset + bytes - threshold, threshold);
    }
    return 0;
}

void coroutine_fn bdrv_write_req_finish(BdrvTrackedRequest *req, int64_t offset, int64_t bytes,
                                        int ret)
{
    BlockDriverState *bs = req->bs;

    bs->write_gen++;
    if (ret == 0 && req->type != BDRV_TRACKED_DISCARD) {
        if ((uint64_t)(offset + bytes) > bs->wr_highest_offset) {
            bs->wr_highest_offset = offset + bytes;
        }
        if (offset + bytes > bs->total_bytes) {
            bdrv_set_total_bytes(bs, offset + bytes);
        }
    }
    if (bytes) {
        /* Also after a failure: nobody knows what the range holds now. */
        bdrv_set_dirty(bs, offset, bytes);
    }
}

void bdrv_set_total_bytes(BlockDriverState *bs, int64_t bytes)
{
    BdrvChild *child;

    if (bs->total_bytes == bytes) {
        return;
    }
    bs->total_bytes = bytes;
    bdrv_dirty_bitmap_truncate(bs, bytes);
    LIST_FOREACH(child, &bs->parents, next_parent) {
        if (child->klass->resize) {
            child->klass->resize(child);
        }
    }
}
