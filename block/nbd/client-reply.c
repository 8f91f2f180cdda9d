/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The reader of a connection: takes replies off the socket and hands each to the request it
 * answers. Data goes from the socket straight into the request's vector.
 *
 * Nothing the server says is believed before it was checked against the request with that cookie.
 * What breaks the protocol breaks the connection (nbd_link_break()); an error the server reports is
 * the request's result.
 */
#include "block/nbd/client-int.h"
#include "trace/trace-block-nbd.h"
#include <inttypes.h>

/* While data arrives, at most so much of what follows is taken along: it may have to be copied. */
#define NBD_READ_AHEAD_BYTES (4u << 10)
/*
 * Pieces of a read that may lie apart, so that no server makes the client look through ever longer
 * lists.
 */
#define NBD_MAX_ISLANDS 1024
/* Elements of a request's vector handed to the kernel at once. */
#define NBD_RECV_IOV 64

/* Part of a read that has come before what lies in front of it. */
typedef struct ReadIsland {
    uint32_t start, end;
} ReadIsland;

/* --- receiving --- */

/* Bytes, or 0 when the connection is over. */
static size_t coroutine_fn link_co_recv(NbdLink *link, const struct iovec *iov, unsigned niov)
{
    ssize_t len = qio_channel_co_readv(link->ioc, iov, niov, NULL);

    if (len <= 0) {
        nbd_link_break(link, "server closed the connection");
        return 0;
    }
    return len;
}

/* Makes the receive buffer hold `bytes` in one piece. */
static bool coroutine_fn link_co_fill(NbdLink *link, size_t bytes)
{
    if (link->rpos == link->rlen) {
        link->rpos = link->rlen = 0;
    } else if (link->rpos + bytes > NBD_LINK_READ_BYTES) {
        memmove(link->rbuf, link->rbuf + link->rpos, link->rlen - link->rpos);
        link->rlen -= link->rpos;
        link->rpos = 0;
    }
    while (link->rlen - link->rpos < bytes) {
        struct iovec iov = {link->rbuf + link->rlen, NBD_LINK_READ_BYTES - link->rlen};
        size_t len = link_co_recv(link, &iov, 1);

        if (!len) {
            return false;
        }
        link->rlen += len;
    }
    return link->state == NBD_LINK_UP;
}

/* A view of [offset, offset + bytes) of qiov in iov; returns its elements, *covered its bytes. */
static unsigned qiov_view(const QEMUIOVector *qiov, size_t offset, size_t bytes, struct iovec *iov,
                          unsigned max, size_t *covered)
{
    unsigned n = 0;

    *covered = 0;
    for (int i = 0; i < qiov->niov && n < max && bytes; i++) {
        size_t len = qiov->iov[i].iov_len;

        if (offset >= len) {
            offset -= len;
            continue;
        }
        len = MIN(len - offset, bytes);
        iov[n++] = (struct iovec){(char *)qiov->iov[i].iov_base + offset, len};
        offset = 0;
        bytes -= len;
        *covered += len;
    }
    return n;
}

/* Receives bytes into the request's vector at pos. */
static bool coroutine_fn link_co_recv_data(NbdLink *link, NbdPending *p, size_t pos, size_t bytes)
{
    size_t done = MIN(bytes, link->rlen - link->rpos);

    qemu_iovec_from_buf(p->qiov, p->qiov_offset + pos, link->rbuf + link->rpos, done);
    link->rpos += done;
    while (done < bytes) {
        /* the receive buffer is empty here */
        struct iovec iov[NBD_RECV_IOV + 1];
        size_t want, len;
        unsigned n =
            qiov_view(p->qiov, p->qiov_offset + pos + done, bytes - done, iov, NBD_RECV_IOV, &want);

        if (want == bytes - done) {
            iov[n++] = (struct iovec){link->rbuf, NBD_READ_AHEAD_BYTES};
        }
        len = link_co_recv(link, iov, n);
        if (!len) {
            return false;
        }
        link->rpos = 0;
        link->rlen = len > want ? len - want : 0;
        done += MIN(len, want);
    }
    return link->state == NBD_LINK_UP;
}

/* --- which request --- */

static NbdPending *link_find(NbdLink *link, uint64_t cookie)
{
    NbdPending *p = link->slots[cookie % NBD_LINK_MAX_REQUESTS];

    if (!p || p->wire.cookie != cookie) {
        nbd_link_break(link, "server answered a request that was not made");
        return NULL;
    }
    return p;
}

void nbd_pending_clear(NbdPending *p)
{
    if (p->islands) {
        g_array_unref(p->islands);
        p->islands = NULL;
    }
}

void nbd_pending_finish(NbdLink *link, NbdPending *p)
{
    Coroutine *co = p->co;

    link->slots[p->wire.cookie % NBD_LINK_MAX_REQUESTS] = NULL;
    trace_nbd_client_reply(p->wire.cookie, p->ret);
    link->in_flight--;
    p->done = true;
    nbd_pending_clear(p);
    if (co) {
        p->co = NULL;
        qemu_coroutine_enter(co);
    }
    nbd_client_slot_freed(link->client);
}

/*
 * Notes an error that the server reports (a number of the wire). False: the server is shutting down
 * and wants to be left. The request is then lost like the others in flight: another connection may
 * lead to a server that serves it.
 */
static bool pending_fail(NbdLink *link, NbdPending *p, uint32_t error)
{
    if (!p->ret) {
        p->ret = -nbd_errno_from_wire(error);
    }
    if (error != NBD_ESHUTDOWN) {
        return true;
    }
    if (!link->senders) {
        nbd_client_say_goodbye(link->ioc);
    }
    nbd_link_break(link, "server is shutting down");
    return false;
}

/* --- reads --- */

/* Moves the frontier over islands it has reached. */
static void read_swallow_islands(NbdPending *p)
{
    for (bool moved = true; moved && p->islands;) {
        moved = false;
        for (unsigned i = 0; i < p->islands->len; i++) {
            ReadIsland *r = &g_array_index(p->islands, ReadIsland, i);

            if (r->start == p->covered) {
                p->covered = r->end;
                g_array_remove_index_fast(p->islands, i);
                moved = true;
                break;
            }
        }
    }
}

/*
 * Notes that [pos, pos + bytes) arrives; false when part of it came before or too much is missing
 * in front of it: the server makes things up.
 */
static bool read_cover(NbdPending *p, uint32_t pos, uint32_t bytes)
{
    ReadIsland island = {pos, pos + bytes};

    if (pos < p->covered) {
        return false;
    }
    for (unsigned i = 0; p->islands && i < p->islands->len; i++) {
        ReadIsland *r = &g_array_index(p->islands, ReadIsland, i);

        if (pos < r->end && r->start < pos + bytes) {
            return false;
        }
    }
    if (pos == p->covered) {
        p->covered += bytes;
        read_swallow_islands(p);
        return true;
    }
    if (!p->islands) {
        p->islands = g_array_new(FALSE, FALSE, sizeof(ReadIsland));
    } else if (p->islands->len >= NBD_MAX_ISLANDS) {
        return false;
    }
    g_array_append_val(p->islands, island);
    return true;
}

/* Checks that a chunk at `offset` of `bytes` belongs to the read; *pos is where in it. */
static bool read_locate(NbdLink *link, NbdPending *p, uint64_t offset, uint64_t bytes,
                        uint32_t *pos)
{
    if (p->wire.command != NBD_CMD_READ || !bytes || offset < p->wire.offset ||
        offset - p->wire.offset > p->wire.length ||
        bytes > p->wire.length - (offset - p->wire.offset)) {
        nbd_link_break(link, "server sent data outside of the read request");
        return false;
    }
    *pos = offset - p->wire.offset;
    if (!read_cover(p, *pos, bytes)) {
        nbd_link_break(link, "server sent part of a read twice, or a read in too many pieces");
        return false;
    }
    return true;
}

static bool coroutine_fn chunk_co_data(NbdLink *link, NbdPending *p, uint32_t length)
{
    uint64_t offset;
    uint32_t pos;

    if (length <= NBD_CHUNK_DATA_BYTES || length - NBD_CHUNK_DATA_BYTES > p->wire.length) {
        nbd_link_break(link, "server sent a data chunk of a wrong length");
        return false;
    }
    if (!link_co_fill(link, NBD_CHUNK_DATA_BYTES)) {
        return false;
    }
    offset = ldq_be_p(link->rbuf + link->rpos);
    link->rpos += NBD_CHUNK_DATA_BYTES;
    length -= NBD_CHUNK_DATA_BYTES;
    return read_locate(link, p, offset, length, &pos) && link_co_recv_data(link, p, pos, length);
}

static bool coroutine_fn chunk_co_hole(NbdLink *link, NbdPending *p, uint32_t length)
{
    uint64_t offset;
    uint32_t bytes, pos;

    if (length != NBD_CHUNK_HOLE_BYTES) {
        nbd_link_break(link, "server sent a hole chunk of a wrong length");
        return false;
    }
    if (!link_co_fill(link, NBD_CHUNK_HOLE_BYTES)) {
        return false;
    }
    offset = ldq_be_p(link->rbuf + link->rpos);
    bytes = ldul_be_p(link->rbuf + link->rpos + 8);
    link->rpos += NBD_CHUNK_HOLE_BYTES;
    if (!read_locate(link, p, offset, bytes, &pos)) {
        return false;
    }
    qemu_iovec_memset(p->qiov, p->qiov_offset + pos, 0, bytes);
    return true;
}

/* --- other chunks --- */

static bool coroutine_fn chunk_co_status(NbdLink *link, NbdPending *p, uint32_t length)
{
    const uint8_t *at;

    if (p->wire.command != NBD_CMD_BLOCK_STATUS || length < 12 || (length - 4) % 8 ||
        length > NBD_MAX_STATUS_PAYLOAD) {
        nbd_link_break(link, "server sent an invalid block status");
        return false;
    }
    if (!link_co_fill(link, 12)) {
        return false;
    }
    at = link->rbuf + link->rpos;
    if (ldul_be_p(at) == link->info.context_id && !p->have_extent) {
        p->extent.bytes = ldul_be_p(at + 4);
        p->extent.flags = ldul_be_p(at + 8);
        p->have_extent = true;
    } else {
        nbd_link_break(link, "server sent block status that was not asked for");
        return false;
    }
    if (!p->extent.bytes) {
        nbd_link_break(link, "server sent an extent of no length");
        return false;
    }
    link->rpos += 12;
    for (length -= 12; length; length -= 8) {
        NbdExtent more;

        if (!link_co_fill(link, 8)) {
            return false;
        }
        more.bytes = ldul_be_p(link->rbuf + link->rpos);
        more.flags = ldul_be_p(link->rbuf + link->rpos + 4);
        link->rpos += 8;
        if (!more.bytes) {
            nbd_link_break(link, "server sent an extent of no length");
            return false;
        }
        /* extents without a walk that takes them are dropped */
        if (p->more && p->more->len < NBD_MAX_STATUS_AHEAD) {
            g_array_append_val(p->more, more);
        }
    }
    return true;
}

static bool coroutine_fn chunk_co_error(NbdLink *link, NbdPending *p, uint16_t type,
                                        uint32_t length)
{
    uint32_t fixed =
        NBD_CHUNK_ERROR_BYTES + (type == NBD_REPLY_ERROR_OFFSET ? NBD_ERROR_OFFSET_BYTES : 0);
    uint32_t error;
    uint16_t text;

    if (length < fixed || length > NBD_LINK_READ_BYTES) {
        nbd_link_break(link, "server sent an error of a wrong length");
        return false;
    }
    if (!link_co_fill(link, length)) {
        return false;
    }
    error = ldul_be_p(link->rbuf + link->rpos);
    text = lduw_be_p(link->rbuf + link->rpos + 4);
    if (!error || text > length - fixed) {
        nbd_link_break(link, "server sent an inconsistent error");
        return false;
    }
    link->rpos += length;
    return pending_fail(link, p, error);
}

static bool coroutine_fn chunk_co_take(NbdLink *link, NbdPending *p, uint16_t flags, uint16_t type,
                                       uint32_t length)
{
    if (type & NBD_REPLY_ERROR_BIT) {
        return chunk_co_error(link, p, type, length);
    }
    switch (type) {
    case NBD_REPLY_NONE:
        if (length || !(flags & NBD_REPLY_FLAG_DONE)) {
            nbd_link_break(link, "server sent an invalid final chunk");
            return false;
        }
        return true;
    case NBD_REPLY_OFFSET_DATA:
        return chunk_co_data(link, p, length);
    case NBD_REPLY_OFFSET_HOLE:
        return chunk_co_hole(link, p, length);
    case NBD_REPLY_BLOCK_STATUS:
        return chunk_co_status(link, p, length);
    default:
        nbd_link_break(link, "server sent a chunk of unknown type");
        return false;
    }
}

/* The last chunk of p has come: a success must be complete. */
static bool reply_complete(NbdLink *link, NbdPending *p)
{
    if (p->ret == 0 && p->wire.command == NBD_CMD_READ && p->covered != p->wire.length) {
        nbd_link_break(link, "server left out part of a read");
        return false;
    }
    if (p->ret == 0 && p->wire.command == NBD_CMD_BLOCK_STATUS && !p->have_extent) {
        nbd_link_break(link, "server left out the block status");
        return false;
    }
    return true;
}

/* --- replies --- */

static bool coroutine_fn reply_co_chunk(NbdLink *link)
{
    uint16_t flags, type;
    uint32_t length;
    NbdPending *p;

    if (!link->info.structured) {
        nbd_link_break(link, "server sent a structured reply that was not negotiated");
        return false;
    }
    if (!link_co_fill(link, NBD_CHUNK_BYTES)) {
        return false;
    }
    flags = lduw_be_p(link->rbuf + link->rpos + 4);
    type = lduw_be_p(link->rbuf + link->rpos + 6);
    length = ldul_be_p(link->rbuf + link->rpos + 16);
    p = link_find(link, ldq_be_p(link->rbuf + link->rpos + 8));
    link->rpos += NBD_CHUNK_BYTES;
    if (!p || !chunk_co_take(link, p, flags, type, length)) {
        return false;
    }
    if (flags & NBD_REPLY_FLAG_DONE) {
        if (!reply_complete(link, p)) {
            return false;
        }
        nbd_pending_finish(link, p);
    }
    return true;
}

static bool coroutine_fn reply_co_simple(NbdLink *link)
{
    uint32_t error;
    NbdPending *p;

    if (!link_co_fill(link, NBD_SIMPLE_REPLY_BYTES)) {
        return false;
    }
    error = ldul_be_p(link->rbuf + link->rpos + 4);
    p = link_find(link, ldq_be_p(link->rbuf + link->rpos + 8));
    link->rpos += NBD_SIMPLE_REPLY_BYTES;
    if (!p) {
        return false;
    }
    if (link->info.structured &&
        (p->wire.command == NBD_CMD_READ || p->wire.command == NBD_CMD_BLOCK_STATUS) &&
        (p->wire.command == NBD_CMD_READ || !error)) {
        nbd_link_break(link, "server sent a simple reply where a structured one was agreed");
        return false;
    }
    if (error && !pending_fail(link, p, error)) {
        return false;
    }
    if (p->wire.command == NBD_CMD_READ && !error &&
        !link_co_recv_data(link, p, 0, p->wire.length)) {
        return false;
    }
    nbd_pending_finish(link, p);
    return true;
}

/* Takes in one reply or chunk. False: the connection is broken. */
static bool coroutine_fn link_co_next(NbdLink *link)
{
    if (!link_co_fill(link, 4)) {
        return false;
    }
    switch (ldul_be_p(link->rbuf + link->rpos)) {
    case NBD_SIMPLE_REPLY_MAGIC:
        return reply_co_simple(link);
    case NBD_CHUNK_MAGIC:
        return reply_co_chunk(link);
    default:
        nbd_link_break(link, "server sent an invalid reply magic");
        return false;
    }
}

/* The connection is gone: every request on it learns so. */
static void link_lose_all(NbdLink *link)
{
    for (unsigned i = 0; i < NBD_LINK_MAX_REQUESTS; i++) {
        NbdPending *p = link->slots[i];

        if (p) {
            p->lost = true;
            p->ret = p->ret == -ESHUTDOWN ? p->ret : -EIO;
            nbd_pending_finish(link, p);
        }
    }
}

void coroutine_fn nbd_link_co_read(void *opaque)
{
    NbdLink *link = opaque;
    BlockDriverState *bs = link->client->bs;

    /*
     * A request that was answered goes on inside nbd_pending_finish(), and might close the node:
     * drained sections wait until the reader has ended too.
     */
    bdrv_inc_in_flight(bs);
    while (link->state == NBD_LINK_UP && link->in_flight && link_co_next(link)) {
    }
    if (link->state != NBD_LINK_UP) {
        link_lose_all(link);
    }
    link->reading = false;
    nbd_link_rest(link);
    bdrv_dec_in_flight(bs);
}
