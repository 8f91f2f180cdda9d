/* SPDX-License-Identifier: GPL-2.0-or-later */
/* BLOCK_STATUS: what the selected metadata contexts say about a range. */
#include "block/nbd/server-int.h"

/* Extents of one context, being written into the reply. */
typedef struct ExtentList {
    uint8_t *at; /* where the next one goes */
    unsigned n, max;
    uint32_t flags; /* of the last one */
    uint64_t total; /* bytes covered */
} ExtentList;

/* Appends, merging with the last one where the flags are the same. False: full. */
static bool extent_list_add(ExtentList *list, uint64_t bytes, uint32_t flags)
{
    if (list->n && list->flags == flags) {
        stl_be_p(list->at - 8, ldul_be_p(list->at - 8) + bytes);
    } else {
        if (list->n == list->max) {
            return false;
        }
        stl_be_p(list->at, bytes);
        stl_be_p(list->at + 4, flags);
        list->at += 8;
        list->n++;
        list->flags = flags;
    }
    list->total += bytes;
    return true;
}

static int coroutine_fn status_co_allocation(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             uint32_t *flags, int64_t *pnum)
{
    BdrvBlockStatus st;
    int ret = bdrv_co_block_status_above(bs, NULL, offset, bytes, &st);

    if (ret < 0) {
        return ret;
    }
    *flags = (st.flags & BDRV_BLOCK_DATA ? 0 : NBD_STATE_HOLE) |
             (st.flags & BDRV_BLOCK_ZERO ? NBD_STATE_ZERO : 0);
    *pnum = st.pnum;
    return 0;
}

/* 0: allocated nowhere; 1: in the active layer; 2: in its backing file; ... */
static int coroutine_fn status_co_depth(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        uint32_t *flags, int64_t *pnum)
{
    uint32_t depth = 0;

    *flags = 0;
    *pnum = bytes;
    for (BlockDriverState *p = bs; p; p = bdrv_cow_bs(p)) {
        int64_t n;
        int ret = bdrv_co_is_allocated(p, offset, *pnum, &n);

        if (ret < 0) {
            return ret;
        }
        depth++;
        if (n > 0) {
            *pnum = MIN(*pnum, n);
        }
        if (ret) {
            *flags = depth;
            return 0;
        }
        if (n == 0) {
            return 0; /* past the end of a shorter layer: nothing below can show through */
        }
    }
    return 0;
}

static int coroutine_fn nbd_req_co_extent(NbdReq *req, const NbdContext *ctx, int64_t offset,
                                          int64_t bytes, uint32_t *flags, int64_t *pnum)
{
    NbdExport *exp = req->conn->exp;
    BlockDriverState *bs = blk_bs(exp->common.blk);

    if (ctx->kind == NBD_CTX_BITMAP) {
        HBitmap *hb = bdrv_dirty_bitmap_hbitmap(exp->bitmaps[ctx->bitmap].bitmap);
        uint64_t n = 0;

        *flags = hbitmap_status(hb, offset, bytes, &n) ? NBD_STATE_DIRTY : 0;
        *pnum = n;
        return 0;
    }
    if (!bs) {
        return -ENOMEDIUM;
    }
    return ctx->kind == NBD_CTX_ALLOCATION ? status_co_allocation(bs, offset, bytes, flags, pnum)
                                           : status_co_depth(bs, offset, bytes, flags, pnum);
}

/* Fills list; an error after the first extent just ends it. */
static int coroutine_fn nbd_req_co_extents(NbdReq *req, const NbdContext *ctx, ExtentList *list)
{
    while (list->total < req->wire.length) {
        uint32_t flags = 0;
        int64_t n = 0, left = req->wire.length - list->total;
        int ret = nbd_req_co_extent(req, ctx, req->wire.offset + list->total, left, &flags, &n);

        if (ret < 0 && !list->n) {
            return ret;
        }
        if (ret < 0 || n <= 0) {
            break;
        }
        if (!extent_list_add(list, MIN(n, left), flags)) {
            break;
        }
    }
    return list->n ? 0 : -EIO;
}

void coroutine_fn nbd_req_co_block_status(NbdReq *req)
{
    NbdConn *conn = req->conn;
    unsigned max = req->wire.flags & NBD_CMD_FLAG_REQ_ONE ? 1 : NBD_MAX_EXTENTS;
    size_t chunk_max = NBD_CHUNK_BYTES + 4 + (size_t)max * 8;
    uint8_t *p;

    if (!nbd_req_alloc_buf(req, conn->contexts.n * chunk_max)) {
        nbd_req_reply_error(req, ENOMEM, "out of memory");
        return;
    }
    p = req->buf;
    for (unsigned i = 0; i < conn->contexts.n; i++) {
        ExtentList list = {.at = p + NBD_CHUNK_BYTES + 4, .max = max};
        int ret = nbd_req_co_extents(req, &conn->contexts.list[i], &list);

        if (ret < 0) {
            nbd_req_reply_error(req, -ret, "can't get block status");
            return;
        }
        nbd_chunk_encode(p, i == conn->contexts.n - 1 ? NBD_REPLY_FLAG_DONE : 0,
                         NBD_REPLY_BLOCK_STATUS, req->wire.cookie, 4 + list.n * 8);
        stl_be_p(p + NBD_CHUNK_BYTES, i);
        p = list.at;
    }
    nbd_req_add_bytes(req, req->buf, p - req->buf);
    nbd_req_queue(req);
}
