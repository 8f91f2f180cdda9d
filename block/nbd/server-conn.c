/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The transmission phase of one connection: a reader that takes requests off the socket with few
 * system calls, and starts each in a coroutine of its own.
 */
#include "block/nbd/server-int.h"
#include "trace/trace-block-nbd.h"

/*
 * While a large payload arrives, only so much of what follows is taken along: it will have to be
 * copied.
 */
#define NBD_READ_AHEAD_BYTES (4u << 10)
#define NBD_LARGE_PAYLOAD    (64u << 10)

/* --- parking in drained sections --- */

void nbd_conn_settle(NbdConn *conn, NbdParked *who)
{
    if (who->expected) {
        who->expected = false;
        blk_dec_in_flight(conn->exp->common.blk);
    }
}

void coroutine_fn nbd_conn_co_park(NbdConn *conn, NbdParked *who)
{
    while (conn->exp->quiesced) {
        who->co = qemu_coroutine_self();
        nbd_conn_settle(conn, who);
        qemu_coroutine_yield();
    }
}

int coroutine_fn nbd_conn_co_wait(NbdConn *conn, QIOChannelDirection dir)
{
    NbdParked *who = dir == QIO_CHANNEL_READ ? &conn->reader : &conn->sender;
    int ret;

    do {
        nbd_conn_co_park(conn, who);
        ret = qio_channel_co_wait(conn->ioc, dir);
    } while (ret == -ECANCELED);
    return ret;
}

/*
 * Makes the section wait until `who` has parked or ended, which it does without waiting for the
 * client.
 */
static void nbd_conn_expect_parked(NbdConn *conn, NbdParked *who)
{
    if (!who->co && !who->expected) {
        who->expected = true;
        blk_inc_in_flight(conn->exp->common.blk);
    }
}

void nbd_conn_drained_begin(NbdConn *conn)
{
    nbd_conn_expect_parked(conn, &conn->reader);
    if (conn->sending) {
        nbd_conn_expect_parked(conn, &conn->sender);
    }
    nbd_conn_wake_reader(conn);
    qio_channel_interrupt(conn->ioc);
    qio_channel_detach_aio_context(conn->ioc);
    qemu_bh_cancel(conn->flush_bh);
    nbd_conn_flush(conn);
}

static void nbd_parked_resume(NbdConn *conn, NbdParked *who)
{
    Coroutine *co = who->co;

    if (co) {
        who->co = NULL;
        aio_co_schedule(conn->ctx, co);
    }
}

void nbd_conn_drained_end(NbdConn *conn)
{
    if (conn->ctx != conn->exp->common.ctx) {
        conn->ctx = conn->exp->common.ctx;
        qemu_bh_delete(conn->flush_bh);
        conn->flush_bh = aio_bh_new(conn->ctx, nbd_conn_flush, conn);
    }
    nbd_parked_resume(conn, &conn->reader);
    nbd_parked_resume(conn, &conn->sender);
}

/* --- receiving --- */

/* Moves bytes from the socket to iov. Bytes, 0 at the end of the stream, -errno. */
static ssize_t coroutine_fn nbd_conn_co_recv(NbdConn *conn, const struct iovec *iov, unsigned niov)
{
    ssize_t len;

    while ((len = qio_channel_readv(conn->ioc, iov, niov, NULL)) == -EAGAIN) {
        int ret = nbd_conn_co_wait(conn, QIO_CHANNEL_READ);

        if (ret < 0) {
            return ret;
        }
    }
    return len;
}

/* Makes the receive buffer hold `bytes` in one piece. False: the stream has ended or failed. */
static bool coroutine_fn nbd_conn_co_fill(NbdConn *conn, size_t bytes)
{
    if (conn->rpos == conn->rlen) {
        conn->rpos = conn->rlen = 0;
    } else if (conn->rpos + bytes > NBD_CONN_READ_BYTES) {
        memmove(conn->rbuf, conn->rbuf + conn->rpos, conn->rlen - conn->rpos);
        conn->rlen -= conn->rpos;
        conn->rpos = 0;
    }
    while (conn->rlen - conn->rpos < bytes) {
        struct iovec iov = {conn->rbuf + conn->rlen, NBD_CONN_READ_BYTES - conn->rlen};
        ssize_t len = nbd_conn_co_recv(conn, &iov, 1);

        if (len <= 0) {
            return false;
        }
        conn->rlen += len;
    }
    return true;
}

/* Receives a payload into buf, and takes along what follows it. */
static bool coroutine_fn nbd_conn_co_recv_payload(NbdConn *conn, uint8_t *buf, size_t bytes)
{
    size_t ahead = bytes >= NBD_LARGE_PAYLOAD ? NBD_READ_AHEAD_BYTES : NBD_CONN_READ_BYTES;
    size_t done = MIN(bytes, conn->rlen - conn->rpos);

    memcpy(buf, conn->rbuf + conn->rpos, done);
    conn->rpos += done;
    while (done < bytes) {
        /* the receive buffer is empty here */
        struct iovec iov[2] = {{buf + done, bytes - done}, {conn->rbuf, ahead}};
        ssize_t len = nbd_conn_co_recv(conn, iov, 2);

        if (len <= 0) {
            return false;
        }
        conn->rpos = 0;
        conn->rlen = (size_t)len > bytes - done ? len - (bytes - done) : 0;
        done += MIN((size_t)len, bytes - done);
    }
    return true;
}

/* Receives and drops a payload. */
static bool coroutine_fn nbd_conn_co_skip(NbdConn *conn, size_t bytes)
{
    while (bytes) {
        size_t n;

        if (!nbd_conn_co_fill(conn, 1)) {
            return false;
        }
        n = MIN(bytes, conn->rlen - conn->rpos);
        conn->rpos += n;
        bytes -= n;
    }
    return true;
}

/* --- dispatch --- */

/* Which flags go with which command. */
static uint16_t nbd_command_flags(uint16_t command)
{
    switch (command) {
    case NBD_CMD_READ:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_DF;
    case NBD_CMD_WRITE_ZEROES:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
    case NBD_CMD_BLOCK_STATUS:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
    default:
        return NBD_CMD_FLAG_FUA;
    }
}

static bool nbd_command_writes(uint16_t command)
{
    return command == NBD_CMD_WRITE || command == NBD_CMD_WRITE_ZEROES || command == NBD_CMD_TRIM;
}

/*
 * What is wrong with a request by itself: a positive errno and the words for it; 0 when nothing is.
 */
static int nbd_request_check(const NbdConn *conn, const NbdRequest *wire, const char **why)
{
    int64_t size = nbd_export_size(conn->exp);

    if (wire->command > NBD_CMD_BLOCK_STATUS) {
        *why = "unknown command";
        return EINVAL;
    }
    if (wire->flags & ~nbd_command_flags(wire->command)) {
        *why = "flags that do not go with this command";
        return EINVAL;
    }
    if ((wire->flags & NBD_CMD_FLAG_DF) && !conn->structured) {
        *why = "DF without structured replies";
        return EINVAL;
    }
    if (nbd_command_writes(wire->command) && !conn->exp->writable) {
        *why = "export is read-only";
        return EROFS;
    }
    if (wire->command == NBD_CMD_FLUSH) {
        return 0; /* offset and length are reserved; clients that set them exist */
    }
    if (wire->command == NBD_CMD_READ && wire->length > NBD_MAX_TRANSFER) {
        *why = "read is larger than 32 MiB";
        return EINVAL;
    }
    if (wire->command == NBD_CMD_BLOCK_STATUS && (!wire->length || !conn->contexts.n)) {
        *why = wire->length ? "no metadata context was selected" : "block status of nothing";
        return EINVAL;
    }
    if (size < 0 || wire->offset > (uint64_t)size || wire->length > (uint64_t)size - wire->offset) {
        *why = "request reaches past the end of the export";
        return wire->command == NBD_CMD_WRITE || wire->command == NBD_CMD_WRITE_ZEROES ? ENOSPC
                                                                                       : EINVAL;
    }
    return 0;
}

/* Bytes of buffer that a request will hold. */
static size_t nbd_request_buffer(const NbdRequest *wire)
{
    return wire->command == NBD_CMD_READ || wire->command == NBD_CMD_WRITE ? wire->length : 0;
}

/* Waits until something about the requests in flight changes. */
static void coroutine_fn nbd_conn_co_wait_in_room(NbdConn *conn)
{
    if (conn->exp->quiesced) {
        nbd_conn_co_park(conn, &conn->reader);
        return;
    }
    conn->waiting_room = qemu_coroutine_self();
    qemu_coroutine_yield();
}

void nbd_conn_wake_reader(NbdConn *conn)
{
    Coroutine *co = conn->waiting_room;

    if (co) {
        conn->waiting_room = NULL;
        aio_co_wake(co);
    }
}

/* Waits until a request with so much buffer is allowed in. */
static void coroutine_fn nbd_conn_co_wait_for_room(NbdConn *conn, size_t bytes)
{
    while (conn->held >= NBD_CONN_MAX_REQUESTS ||
           (conn->held_bytes && conn->held_bytes + bytes > NBD_CONN_MAX_BYTES)) {
        nbd_conn_co_wait_in_room(conn);
    }
}

/* Takes in one request and starts it. False: the connection is over. */
static bool coroutine_fn nbd_conn_co_next(NbdConn *conn)
{
    const char *why = NULL;
    NbdRequest wire;
    NbdReq *req;
    int err;

    if (!nbd_conn_co_fill(conn, NBD_REQUEST_BYTES) ||
        !nbd_request_decode(&wire, conn->rbuf + conn->rpos)) {
        return false;
    }
    conn->rpos += NBD_REQUEST_BYTES;
    trace_nbd_server_request(wire.cookie, wire.command, wire.flags, wire.offset, wire.length);
    if (wire.command == NBD_CMD_DISC ||
        (wire.command == NBD_CMD_WRITE && wire.length > NBD_MAX_TRANSFER)) {
        return false; /* a good-bye; or a payload too large to be taken in */
    }
    err = nbd_request_check(conn, &wire, &why);
    nbd_conn_co_wait_for_room(conn, err ? 0 : nbd_request_buffer(&wire));
    req = nbd_req_new(conn);
    req->wire = wire;
    if (!err && nbd_request_buffer(&wire) && !nbd_req_alloc_buf(req, nbd_request_buffer(&wire))) {
        err = ENOMEM;
        why = "out of memory";
    }
    if (wire.command == NBD_CMD_WRITE && wire.length) {
        bool ok = err ? nbd_conn_co_skip(conn, wire.length)
                      : nbd_conn_co_recv_payload(conn, req->buf, wire.length);

        if (!ok) {
            nbd_req_free(req);
            return false;
        }
    }
    if (err) {
        trace_nbd_server_refused(wire.cookie, err, why);
        nbd_req_reply_error(req, err, why);
        return true;
    }
    nbd_conn_co_park(conn, &conn->reader);
    conn->busy++;
    blk_inc_in_flight(conn->exp->common.blk);
    qemu_coroutine_enter(qemu_coroutine_create(nbd_req_co_entry, req));
    return true;
}

/* How long a newcomer stays away from an export in a drained section before it looks again. */
#define NBD_ATTACH_RETRY_NS (1 * SCALE_MS)

/* Joins the export in its thread, outside of drained sections. */
static void coroutine_fn nbd_conn_co_attach(NbdConn *conn)
{
    NbdExport *exp = conn->exp;

    for (;;) {
        AioContext *ctx = exp->common.ctx;

        if (ctx != qemu_get_current_aio_context()) {
            aio_co_reschedule_self(ctx);
        }
        if (!exp->quiesced && exp->common.ctx == ctx) {
            break;
        }
        if (ctx != qemu_get_aio_context()) {
            aio_co_reschedule_self(qemu_get_aio_context());
        }
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, NBD_ATTACH_RETRY_NS);
    }
    conn->ctx = exp->common.ctx;
    conn->flush_bh = aio_bh_new(conn->ctx, nbd_conn_flush, conn);
    conn->rbuf = g_malloc(NBD_CONN_READ_BYTES);
    g_mutex_lock(&exp->lock);
    TAILQ_INSERT_TAIL(&exp->conns, conn, next_in_export);
    if (__atomic_load_n(&exp->common.shutting_down, __ATOMIC_ACQUIRE)) {
        qio_channel_shutdown(conn->ioc, QIO_CHANNEL_SHUTDOWN_BOTH);
    }
    g_mutex_unlock(&exp->lock);
}

/* Leaves the export: everything that was started has ended. */
static void coroutine_fn nbd_conn_co_detach(NbdConn *conn)
{
    qio_channel_shutdown(conn->ioc, QIO_CHANNEL_SHUTDOWN_BOTH);
    for (;;) {
        if (!conn->busy) {
            conn->dead = true;
            nbd_conn_flush(conn);
        }
        if (!conn->busy && !conn->held && !conn->sending) {
            break;
        }
        nbd_conn_co_wait_in_room(conn);
    }
    nbd_conn_settle(conn, &conn->reader);
    g_mutex_lock(&conn->exp->lock);
    TAILQ_REMOVE(&conn->exp->conns, conn, next_in_export);
    g_mutex_unlock(&conn->exp->lock);
    qio_channel_detach_aio_context(conn->ioc);
    qemu_bh_delete(conn->flush_bh);
    nbd_conn_free_buffers(conn);
    g_free(conn->rbuf);
}

void coroutine_fn nbd_conn_co_serve(NbdConn *conn)
{
    nbd_conn_co_attach(conn);
    while (!conn->dead && nbd_conn_co_next(conn)) {
    }
    nbd_conn_co_detach(conn);
    if (qemu_get_current_aio_context() != qemu_get_aio_context()) {
        aio_co_reschedule_self(qemu_get_aio_context());
    }
}
