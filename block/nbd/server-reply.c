/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replies: put together in the request that they answer, sent straight from its buffer, several in
 * one system call when several are ready.
 */
#include "block/nbd/server-int.h"
#include <limits.h>

/* Vector elements in one sendmsg(). */
#define NBD_SEND_IOV 64

/* --- buffers --- */

/* The pool's class for a size; bytes <= NBD_MAX_TRANSFER. */
static unsigned nbd_pool_class(size_t bytes)
{
    unsigned shift = bytes > 1 ? 64 - __builtin_clzll(bytes - 1) : 0;

    return MAX(shift, NBD_POOL_MIN_SHIFT) - NBD_POOL_MIN_SHIFT;
}

bool nbd_req_alloc_buf(NbdReq *req, size_t bytes)
{
    NbdConn *conn = req->conn;
    unsigned class = nbd_pool_class(bytes);
    size_t size = (size_t)1 << (class + NBD_POOL_MIN_SHIFT);
    GPtrArray *list = conn->pool.free[class];

    g_assert(!req->buf && class < NBD_POOL_CLASSES);
    if (list && list->len) {
        req->buf = g_ptr_array_steal_index_fast(list, list->len - 1);
        conn->pool.kept -= size;
    } else {
        BlockDriverState *bs = blk_bs(conn->exp->common.blk);

        req->buf = bs ? qemu_try_blockalign(bs, size) : NULL;
        if (!req->buf) {
            return false;
        }
    }
    req->buf_size = size;
    conn->held_bytes += size;
    return true;
}

static void nbd_pool_put(NbdConn *conn, void *buf, size_t size)
{
    unsigned class = nbd_pool_class(size);

    if (conn->pool.kept + size > NBD_POOL_KEEP_BYTES) {
        qemu_vfree(buf);
        return;
    }
    if (!conn->pool.free[class]) {
        conn->pool.free[class] = g_ptr_array_new_with_free_func(qemu_vfree);
    }
    g_ptr_array_add(conn->pool.free[class], buf);
    conn->pool.kept += size;
}

NbdReq *nbd_req_new(NbdConn *conn)
{
    NbdReq *req = conn->spare;

    if (req) {
        conn->spare = req->spare_next;
    } else {
        req = g_new(NbdReq, 1);
    }
    req->conn = conn;
    req->buf = NULL;
    req->buf_size = 0;
    req->head_used = 0;
    req->niov = 0;
    req->reply_bytes = 0;
    conn->held++;
    return req;
}

void nbd_req_free(NbdReq *req)
{
    NbdConn *conn = req->conn;

    if (req->buf) {
        conn->held_bytes -= req->buf_size;
        nbd_pool_put(conn, req->buf, req->buf_size);
    }
    req->spare_next = conn->spare;
    conn->spare = req;
    conn->held--;
    nbd_conn_wake_reader(conn);
}

void nbd_conn_free_buffers(NbdConn *conn)
{
    for (unsigned i = 0; i < NBD_POOL_CLASSES; i++) {
        g_clear_pointer(&conn->pool.free[i], g_ptr_array_unref);
    }
    while (conn->spare) {
        NbdReq *req = conn->spare;

        conn->spare = req->spare_next;
        g_free(req);
    }
}

/* --- putting a reply together --- */

void nbd_req_add_bytes(NbdReq *req, const void *data, size_t bytes)
{
    struct iovec *last = req->niov ? &req->iov[req->niov - 1] : NULL;

    if (last && (const char *)last->iov_base + last->iov_len == data) {
        last->iov_len += bytes;
    } else {
        g_assert(req->niov < G_N_ELEMENTS(req->iov));
        req->iov[req->niov++] = (struct iovec){(void *)data, bytes};
    }
    req->reply_bytes += bytes;
}

/* Room for a header, which becomes the next part of the reply. */
static uint8_t *nbd_req_add_head(NbdReq *req, size_t bytes)
{
    uint8_t *p = req->head + req->head_used;

    g_assert(req->head_used + bytes <= sizeof(req->head));
    req->head_used += bytes;
    nbd_req_add_bytes(req, p, bytes);
    return p;
}

void nbd_req_add_data(NbdReq *req, uint32_t pos, uint32_t bytes, bool last)
{
    if (!req->conn->structured) {
        nbd_simple_reply_encode(nbd_req_add_head(req, NBD_SIMPLE_REPLY_BYTES), req->wire.cookie, 0);
    } else {
        uint8_t *p = nbd_req_add_head(req, NBD_CHUNK_BYTES + NBD_CHUNK_DATA_BYTES);

        nbd_chunk_encode(p, last ? NBD_REPLY_FLAG_DONE : 0, NBD_REPLY_OFFSET_DATA, req->wire.cookie,
                         NBD_CHUNK_DATA_BYTES + bytes);
        stq_be_p(p + NBD_CHUNK_BYTES, req->wire.offset + pos);
    }
    nbd_req_add_bytes(req, req->buf + pos, bytes);
}

void nbd_req_add_hole(NbdReq *req, uint32_t pos, uint32_t bytes, bool last)
{
    uint8_t *p = nbd_req_add_head(req, NBD_CHUNK_BYTES + NBD_CHUNK_HOLE_BYTES);

    nbd_chunk_encode(p, last ? NBD_REPLY_FLAG_DONE : 0, NBD_REPLY_OFFSET_HOLE, req->wire.cookie,
                     NBD_CHUNK_HOLE_BYTES);
    stq_be_p(p + NBD_CHUNK_BYTES, req->wire.offset + pos);
    stl_be_p(p + NBD_CHUNK_BYTES + 8, bytes);
}

void nbd_req_reply_done(NbdReq *req)
{
    if (req->conn->structured) {
        nbd_chunk_encode(nbd_req_add_head(req, NBD_CHUNK_BYTES), NBD_REPLY_FLAG_DONE,
                         NBD_REPLY_NONE, req->wire.cookie, 0);
    } else {
        nbd_simple_reply_encode(nbd_req_add_head(req, NBD_SIMPLE_REPLY_BYTES), req->wire.cookie, 0);
    }
    nbd_req_queue(req);
}

void nbd_req_reply_error(NbdReq *req, int err, const char *message)
{
    uint32_t wire_err = nbd_errno_to_wire(err);

    /* whatever was put together before is not true any more */
    req->head_used = 0;
    req->niov = 0;
    req->reply_bytes = 0;
    if (!req->conn->structured) {
        nbd_simple_reply_encode(nbd_req_add_head(req, NBD_SIMPLE_REPLY_BYTES), req->wire.cookie,
                                wire_err);
    } else {
        size_t len =
            MIN(strlen(message), sizeof(req->head) - NBD_CHUNK_BYTES - NBD_CHUNK_ERROR_BYTES);
        uint8_t *p = nbd_req_add_head(req, NBD_CHUNK_BYTES + NBD_CHUNK_ERROR_BYTES + len);

        nbd_chunk_encode(p, NBD_REPLY_FLAG_DONE, NBD_REPLY_ERROR, req->wire.cookie,
                         NBD_CHUNK_ERROR_BYTES + len);
        stl_be_p(p + NBD_CHUNK_BYTES, wire_err);
        stw_be_p(p + NBD_CHUNK_BYTES + 4, len);
        memcpy(p + NBD_CHUNK_BYTES + NBD_CHUNK_ERROR_BYTES, message, len);
    }
    nbd_req_queue(req);
}

/* --- sending --- */

/* Gathers what is ready into iov; the first reply may have left in part. */
static unsigned nbd_conn_gather(NbdConn *conn, struct iovec *iov)
{
    size_t skip = conn->sent;
    unsigned n = 0;
    NbdReq *req;

    TAILQ_FOREACH(req, &conn->replies, next) {
        for (unsigned i = 0; i < req->niov; i++) {
            size_t len = req->iov[i].iov_len;

            if (skip >= len) {
                skip -= len;
                continue;
            }
            if (n == NBD_SEND_IOV) {
                return n;
            }
            iov[n].iov_base = (char *)req->iov[i].iov_base + skip;
            iov[n].iov_len = len - skip;
            skip = 0;
            n++;
        }
    }
    return n;
}

static void nbd_conn_sent(NbdConn *conn, size_t bytes)
{
    NbdReq *req;

    conn->sent += bytes;
    while ((req = TAILQ_FIRST(&conn->replies)) && conn->sent >= req->reply_bytes) {
        conn->sent -= req->reply_bytes;
        TAILQ_REMOVE(&conn->replies, req, next);
        nbd_req_free(req);
    }
}

void nbd_conn_drop_replies(NbdConn *conn)
{
    NbdReq *req;

    conn->sent = 0;
    while ((req = TAILQ_FIRST(&conn->replies))) {
        TAILQ_REMOVE(&conn->replies, req, next);
        nbd_req_free(req);
    }
}

/*
 * Sends what the socket takes now. 0: all has left, or the connection is dead; -EAGAIN: the rest
 * must wait.
 */
static int nbd_conn_try_send(NbdConn *conn)
{
    struct iovec iov[NBD_SEND_IOV];

    while (!conn->dead && !TAILQ_EMPTY(&conn->replies)) {
        ssize_t len = qio_channel_writev(conn->ioc, iov, nbd_conn_gather(conn, iov), NULL);

        if (len == -EAGAIN) {
            return -EAGAIN;
        }
        if (len < 0) {
            conn->dead = true;
            qio_channel_shutdown(conn->ioc, QIO_CHANNEL_SHUTDOWN_BOTH);
            break;
        }
        nbd_conn_sent(conn, len);
    }
    if (conn->dead) {
        nbd_conn_drop_replies(conn);
    }
    return 0;
}

static void coroutine_fn nbd_conn_co_send(void *opaque)
{
    NbdConn *conn = opaque;
    int ret = 0;

    do {
        ret = nbd_conn_co_wait(conn, QIO_CHANNEL_WRITE);
        if (ret < 0) {
            conn->dead = true;
        }
        ret = nbd_conn_try_send(conn);
    } while (ret == -EAGAIN);
    conn->sending = false;
    nbd_conn_settle(conn, &conn->sender);
    nbd_conn_wake_reader(conn);
}

void nbd_conn_flush(void *opaque)
{
    NbdConn *conn = opaque;

    if (!conn->sending && nbd_conn_try_send(conn) == -EAGAIN) {
        conn->sending = true;
        qemu_coroutine_enter(qemu_coroutine_create(nbd_conn_co_send, conn));
    }
}

void nbd_req_queue(NbdReq *req)
{
    NbdConn *conn = req->conn;

    TAILQ_INSERT_TAIL(&conn->replies, req, next);
    if (conn->sending) {
        return;
    }
    if (conn->held == 1 || conn->exp->quiesced) {
        nbd_conn_flush(conn); /* nothing else can become ready: do not make it wait */
    } else {
        qemu_bh_schedule(conn->flush_bh);
    }
}
