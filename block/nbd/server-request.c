/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What each NBD request does to the export. Runs in the export's thread, one coroutine a request.
 */
#include "block/graph/activate.h"
#include "block/nbd/server-int.h"

#include <errno.h>

/*
 * Requests without a payload may be as large as 4 GiB; the block layer gets them in pieces of this
 * size.
 */
#define NBD_REQUEST_STEP (INT64_C(1) << 30)
/* Reads below this size are not worth a look at what is allocated. */
#define NBD_READ_STATUS_MIN (16u << 10)

static int coroutine_fn nbd_req_co_pread(NbdReq *req, uint32_t pos, uint32_t bytes)
{
    return blk_co_pread(req->conn->exp->common.blk, req->wire.offset + pos, bytes, req->buf + pos,
                        0);
}

/* A run of a read that is all data or reads as zeroes. */
typedef struct ReadRun {
    uint32_t pos, bytes;
    bool zero;
} ReadRun;

/*
 * Splits a read into runs; what does not fit the reply's pieces counts as data. Returns their
 * number.
 */
static unsigned coroutine_fn nbd_req_co_find_runs(NbdReq *req, ReadRun *runs)
{
    BlockDriverState *bs = blk_bs(req->conn->exp->common.blk);
    uint32_t pos = 0;
    unsigned n = 0;

    while (pos < req->wire.length) {
        BdrvBlockStatus st;
        uint32_t left = req->wire.length - pos;
        bool zero = false;

        if (n < NBD_READ_MAX_CHUNKS - 1 && bs &&
            bdrv_co_block_status_above(bs, NULL, req->wire.offset + pos, left, &st) == 0 &&
            st.pnum > 0) {
            zero = st.flags & BDRV_BLOCK_ZERO;
            left = MIN(left, st.pnum);
        }
        if (n && runs[n - 1].zero == zero) {
            runs[n - 1].bytes += left;
        } else {
            runs[n++] = (ReadRun){pos, left, zero};
        }
        pos += left;
    }
    return n;
}

static void coroutine_fn nbd_req_co_read(NbdReq *req)
{
    ReadRun runs[NBD_READ_MAX_CHUNKS] = {{0, req->wire.length, false}};
    unsigned n = 1;

    if (!req->wire.length) {
        nbd_req_reply_done(req);
        return;
    }
    if (req->conn->structured && !(req->wire.flags & NBD_CMD_FLAG_DF) &&
        req->wire.length >= NBD_READ_STATUS_MIN) {
        n = nbd_req_co_find_runs(req, runs);
    }
    for (unsigned i = 0; i < n; i++) {
        int ret = runs[i].zero ? 0 : nbd_req_co_pread(req, runs[i].pos, runs[i].bytes);

        if (ret < 0) {
            nbd_req_reply_error(req, -ret, "reading from file failed");
            return;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        if (runs[i].zero) {
            nbd_req_add_hole(req, runs[i].pos, runs[i].bytes, i == n - 1);
        } else {
            nbd_req_add_data(req, runs[i].pos, runs[i].bytes, i == n - 1);
        }
    }
    nbd_req_queue(req);
}

static void nbd_req_finish(NbdReq *req, int ret, const char *message)
{
    if (ret < 0) {
        nbd_req_reply_error(req, -ret, message);
    } else {
        nbd_req_reply_done(req);
    }
}

static int coroutine_fn nbd_req_co_write(NbdReq *req)
{
    if (!req->wire.length) {
        return 0;
    }
    return blk_co_pwrite(req->conn->exp->common.blk, req->wire.offset, req->wire.length, req->buf,
                         req->wire.flags & NBD_CMD_FLAG_FUA ? BDRV_REQ_FUA : 0);
}

static int coroutine_fn nbd_req_co_write_zeroes(NbdReq *req)
{
    BdrvRequestFlags flags = 0;

    if (req->wire.flags & NBD_CMD_FLAG_FUA) {
        flags |= BDRV_REQ_FUA;
    }
    if (!(req->wire.flags & NBD_CMD_FLAG_NO_HOLE)) {
        flags |= BDRV_REQ_MAY_UNMAP;
    }
    if (req->wire.flags & NBD_CMD_FLAG_FAST_ZERO) {
        flags |= BDRV_REQ_NO_FALLBACK;
    }
    for (int64_t done = 0; done < req->wire.length; done += NBD_REQUEST_STEP) {
        int64_t n = MIN(NBD_REQUEST_STEP, req->wire.length - done);
        int ret =
            blk_co_pwrite_zeroes(req->conn->exp->common.blk, req->wire.offset + done, n, flags);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int coroutine_fn nbd_req_co_trim(NbdReq *req)
{
    BlockBackend *blk = req->conn->exp->common.blk;

    for (int64_t done = 0; done < req->wire.length; done += NBD_REQUEST_STEP) {
        int ret = blk_co_pdiscard(blk, req->wire.offset + done,
                                  MIN(NBD_REQUEST_STEP, req->wire.length - done));

        if (ret < 0) {
            return ret;
        }
    }
    return req->wire.flags & NBD_CMD_FLAG_FUA ? blk_co_flush(blk) : 0;
}

static int coroutine_fn nbd_req_co_cache(NbdReq *req)
{
    for (int64_t done = 0; done < req->wire.length; done += NBD_MAX_TRANSFER) {
        int ret = blk_co_preadv(req->conn->exp->common.blk, req->wire.offset + done,
                                MIN((int64_t)NBD_MAX_TRANSFER, req->wire.length - done), NULL,
                                BDRV_REQ_COPY_ON_READ | BDRV_REQ_PREFETCH);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

void coroutine_fn nbd_req_co_entry(void *opaque)
{
    NbdReq *req = opaque;
    NbdConn *conn = req->conn;
    BlockBackend *blk = conn->exp->common.blk;

    if (blk_bs(blk) && bdrv_is_inactive(blk_bs(blk))) {
        nbd_req_reply_error(req, EPERM, "the exported node is inactive");
        goto done;
    }
    switch (req->wire.command) {
    case NBD_CMD_READ:
        nbd_req_co_read(req);
        break;
    case NBD_CMD_WRITE:
        nbd_req_finish(req, nbd_req_co_write(req), "writing to file failed");
        break;
    case NBD_CMD_FLUSH:
        nbd_req_finish(req, blk_co_flush(blk), "flush failed");
        break;
    case NBD_CMD_TRIM:
        nbd_req_finish(req, nbd_req_co_trim(req), "discard failed");
        break;
    case NBD_CMD_CACHE:
        nbd_req_finish(req, nbd_req_co_cache(req), "caching data failed");
        break;
    case NBD_CMD_WRITE_ZEROES:
        nbd_req_finish(req, nbd_req_co_write_zeroes(req), "writing zeroes failed");
        break;
    case NBD_CMD_BLOCK_STATUS:
        nbd_req_co_block_status(req);
        break;
    default:
        g_assert_not_reached(); /* nbd_request_check() */
    }
done:
    conn->busy--;
    nbd_conn_wake_reader(conn);
    blk_dec_in_flight(blk);
}
