/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The block driver "nbd": a node whose bytes an NBD server holds. */
#include "block/nbd/client-int.h"
#include <inttypes.h>
#include "util/error.h"

/* A request that took its connection down this often will not be sent again. */
#define NBD_MAX_TRIES   5
#define NBD_CLOSE_TURNS 16
/* Between attempts to open within open-timeout. */
#define NBD_OPEN_RETRY_NS (200 * SCALE_MS)

/* --- requests --- */

int coroutine_fn nbd_client_co_request(NbdClient *client, NbdPending *p)
{
    int cancels = g_atomic_int_get(&client->cancels);

    /* a cancelled request is not sent again, also where a connection is up (again) */
    for (unsigned tries = 0; tries < NBD_MAX_TRIES && !client->refusing &&
                             cancels == g_atomic_int_get(&client->cancels);
         tries++) {
        NbdLink *link = nbd_client_co_get_link(client);
        int ret;

        if (!link) {
            break;
        }
        ret = nbd_link_co_request(link, p);
        if (!p->lost) {
            return ret;
        }
    }
    return p->ret < 0 ? p->ret : -EIO;
}

/* The same for requests that change the disk. */
static int coroutine_fn nbd_client_co_change(NbdClient *client, NbdPending *p)
{
    int ret;

    nbd_status_forget(client);
    ret = nbd_client_co_request(client, p);
    nbd_status_forget(client);
    return ret;
}

static int coroutine_fn nbd_node_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           QEMUIOVector *qiov, size_t qiov_offset,
                                           BdrvRequestFlags flags)
{
    NbdClient *client = bs->opaque;
    NbdPending p = {.wire = {.command = NBD_CMD_READ, .offset = offset, .length = bytes},
                    .qiov = qiov,
                    .qiov_offset = qiov_offset};

    if (offset >= (int64_t)client->info.size) {
        qemu_iovec_memset(qiov, qiov_offset, 0, bytes);
        return 0;
    }
    if (offset + bytes > (int64_t)client->info.size) {
        /* an export that ends inside a block: what lies behind reads as zeroes */
        p.wire.length = client->info.size - offset;
        qemu_iovec_memset(qiov, qiov_offset + p.wire.length, 0, bytes - p.wire.length);
    }
    return nbd_client_co_request(client, &p);
}

static uint16_t nbd_node_fua(const NbdClient *client, BdrvRequestFlags flags)
{
    return (flags & BDRV_REQ_FUA) && (client->info.flags & NBD_FLAG_SEND_FUA) ? NBD_CMD_FLAG_FUA
                                                                              : 0;
}

static int coroutine_fn nbd_node_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            QEMUIOVector *qiov, size_t qiov_offset,
                                            BdrvRequestFlags flags)
{
    NbdClient *client = bs->opaque;
    NbdPending p = {
        .wire = {.command = NBD_CMD_WRITE,
                 .flags = nbd_node_fua(client, flags),
                 .offset = offset,
                 .length = bytes},
        .qiov = qiov,
        .qiov_offset = qiov_offset,
    };

    return nbd_client_co_change(client, &p);
}

/*
 * Data of a host file goes from its page cache into the socket. A failure says nothing about which
 * side it came from; the caller then reads and writes by itself.
 */
static int coroutine_fn nbd_node_co_copy_range_to(BlockDriverState *bs, BdrvChild *src,
                                                  int64_t src_offset, int64_t offset, int64_t bytes,
                                                  BdrvRequestFlags flags)
{
    NbdClient *client = bs->opaque;
    int fd = BDRV_OP(src->bs->drv, protocol, bdrv_get_read_fd)
                 ? src->bs->drv->protocol->bdrv_get_read_fd(src->bs)
                 : -1;

    if (fd < 0 || client->target->tls_creds || bytes > client->info.max_block) {
        return -ENOTSUP;
    }
    NbdPending p = {
        .wire = {.command = NBD_CMD_WRITE,
                 .flags = nbd_node_fua(client, flags),
                 .offset = offset,
                 .length = bytes},
        .from_file = true,
        .file_fd = fd,
        .file_offset = src_offset,
    };

    return nbd_client_co_change(client, &p);
}

static int coroutine_fn nbd_node_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, BdrvRequestFlags flags)
{
    NbdClient *client = bs->opaque;
    NbdPending p = {.wire = {.command = NBD_CMD_WRITE_ZEROES, .offset = offset, .length = bytes}};

    if (!(client->info.flags & NBD_FLAG_SEND_WRITE_ZEROES)) {
        return -ENOTSUP;
    }
    p.wire.flags =
        nbd_node_fua(client, flags) | (flags & BDRV_REQ_MAY_UNMAP ? 0 : NBD_CMD_FLAG_NO_HOLE);
    if (flags & BDRV_REQ_NO_FALLBACK) {
        if (!(client->info.flags & NBD_FLAG_SEND_FAST_ZERO)) {
            return -ENOTSUP;
        }
        p.wire.flags |= NBD_CMD_FLAG_FAST_ZERO;
    }
    return nbd_client_co_change(client, &p);
}

static int coroutine_fn nbd_node_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    NbdClient *client = bs->opaque;
    NbdPending p = {.wire = {.command = NBD_CMD_TRIM, .offset = offset, .length = bytes}};

    if (!(client->info.flags & NBD_FLAG_SEND_TRIM) || !bytes) {
        return 0;
    }
    return nbd_client_co_change(client, &p);
}

static int coroutine_fn nbd_node_co_flush(BlockDriverState *bs)
{
    NbdClient *client = bs->opaque;
    NbdPending p = {.wire = {.command = NBD_CMD_FLUSH}};

    if (!(client->info.flags & NBD_FLAG_SEND_FLUSH)) {
        return 0;
    }
    /*
     * one connection's flush covers what was acknowledged on any: the server said so when it
     * allowed several
     */
    return nbd_client_co_request(client, &p);
}

/* --- size and limits --- */

static int64_t coroutine_fn nbd_node_co_getlength(BlockDriverState *bs)
{
    NbdClient *client = bs->opaque;

    return client->info.size;
}

static bool coroutine_fn nbd_node_co_truncate(BlockDriverState *bs, int64_t size, bool exact,
                                              PreallocMode prealloc, BdrvRequestFlags flags,
                                              GError **errp)
{
    NbdClient *client = bs->opaque;

    if (size > (int64_t)client->info.size) {
        error_setg(errp, "Cannot grow NBD nodes");
        return false;
    }
    if (exact && size != (int64_t)client->info.size) {
        error_setg(errp, "Cannot resize NBD nodes");
        return false;
    }
    return true;
}

static void nbd_node_refresh_limits(BlockDriverState *bs)
{
    const NbdExportInfo *info = &((NbdClient *)bs->opaque)->info;
    int64_t largest =
        (int64_t)INT32_MAX / info->min_block * info->min_block; /* lengths have 32 bits */

    bs->bl.request_alignment = info->min_block;
    bs->bl.max_transfer = info->max_block;
    bs->bl.max_pdiscard = largest;
    bs->bl.max_pwrite_zeroes = largest;
    if (info->pref_block > info->min_block) {
        bs->bl.opt_transfer = MIN(info->pref_block, info->max_block);
    }
}

/* --- open and close --- */

static NbdTarget *nbd_target_new(const BlockdevOptionsNbd *opts, GError **errp)
{
    NbdTarget *target;

    if (opts->export && strlen(opts->export) > NBD_MAX_STRING) {
        error_setg(errp, "export name too long to send to server");
        return NULL;
    }
    if (opts->x_dirty_bitmap && strlen(opts->x_dirty_bitmap) > NBD_MAX_STRING) {
        error_setg(errp, "x-dirty-bitmap query too long to send to server");
        return NULL;
    }
    target = g_new0(NbdTarget, 1);
    target->refcount = 1;
    target->addr = QAPI_CLONE(SocketAddress, opts->server);
    target->export = g_strdup(opts->export ? opts->export : "");
    target->context =
        g_strdup(opts->x_dirty_bitmap ? opts->x_dirty_bitmap : NBD_CONTEXT_ALLOCATION);
    target->context_required = opts->x_dirty_bitmap != NULL;
    return target;
}

static void nbd_node_cancel_opening(void *opaque)
{
    qio_channel_socket_cancel_connect(opaque);
}

/* The attempt that yank cuts; NULL: none. */
static void nbd_client_set_opening(NbdClient *client, QIOChannelSocket *sioc)
{
    QEMUBH *bh = sioc ? aio_bh_new(client->ctx, nbd_node_cancel_opening, sioc) : NULL, *old;

    g_mutex_lock(&client->ioc_lock);
    old = client->opening_bh;
    client->opening_bh = bh;
    g_mutex_unlock(&client->ioc_lock);
    if (old) {
        qemu_bh_delete(old);
    }
}

typedef struct NbdOpenDeadline {
    QIOChannelSocket *sioc;
    bool passed;
} NbdOpenDeadline;

static void nbd_node_open_deadline(void *opaque)
{
    NbdOpenDeadline *d = opaque;

    d->passed = true;
    qio_channel_socket_cancel_connect(d->sioc);
}

/* One attempt, given up at `until`. */
static QIOChannel *coroutine_fn nbd_client_co_connect_once(NbdClient *client, int64_t until_ns,
                                                           GError **errp)
{
    QIOChannelSocket *sioc = qio_channel_socket_new();
    QIOChannel *ioc = QIO_CHANNEL(sioc);
    NbdOpenDeadline deadline = {.sioc = sioc};
    QEMUTimer *timer = aio_timer_new(qemu_get_current_aio_context(), QEMU_CLOCK_REALTIME,
                                     nbd_node_open_deadline, &deadline);
    g_autoptr(GError) err = NULL;
    int ret;

    timer_mod_ns(timer, until_ns);
    nbd_client_set_opening(client, sioc);
    ret = qio_channel_socket_co_connect(sioc, client->target->addr, &err);
    if (ret == 0) {
        ret = nbd_client_co_handshake(&ioc, client->target, &client->info, &err);
        qio_channel_detach_aio_context(ioc);
    }
    nbd_client_set_opening(client, NULL);
    timer_free(timer);
    if (ret == 0 && !deadline.passed) {
        return ioc;
    }
    qio_channel_unref(ioc);
    if (deadline.passed) {
        error_setg(errp, "The NBD server did not answer in time: no connection with a complete "
                         "handshake was made");
    } else {
        g_propagate_error(errp, g_steal_pointer(&err));
    }
    return NULL;
}

/*
 * Connects, again and again until open-timeout (seconds; 0: once, within the time that a handshake
 * has).
 */
static QIOChannel *coroutine_fn nbd_client_co_connect(NbdClient *client, uint32_t timeout,
                                                      GError **errp)
{
    int64_t until = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) +
                    (timeout ? timeout * NANOSECONDS_PER_SECOND : NBD_HANDSHAKE_NS);

    for (;;) {
        int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        g_autoptr(GError) err = NULL;
        QIOChannel *ioc =
            nbd_client_co_connect_once(client, MIN(until, now + NBD_HANDSHAKE_NS), &err);

        if (ioc) {
            return ioc;
        }
        /* A try that has no time left would hide why those before it failed. */
        if (!timeout || client->refusing ||
            qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + NBD_OPEN_RETRY_NS >= until) {
            g_propagate_error(errp, g_steal_pointer(&err));
            return NULL;
        }
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, NBD_OPEN_RETRY_NS);
    }
}

static bool nbd_node_check_writable(BlockDriverState *bs, const NbdExportInfo *info, GError **errp)
{
    if ((info->flags & NBD_FLAG_READ_ONLY) && (bs->open_flags & BDRV_O_RDWR)) {
        return bdrv_apply_auto_read_only(bs, "request on write denied without write permission",
                                         errp);
    }
    return true;
}

/* What requests may ask of the node, by what the export says that it can do. */
static const struct {
    uint16_t export_flags; /* all of them */
    BdrvRequestFlags writes, zeroes;
} export_promises[] = {
    {NBD_FLAG_SEND_FUA, BDRV_REQ_FUA, BDRV_REQ_FUA},
    {NBD_FLAG_SEND_WRITE_ZEROES, 0, BDRV_REQ_MAY_UNMAP},
    {NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO, 0, BDRV_REQ_NO_FALLBACK},
};

static void node_promise_as_export(BlockDriverState *bs, uint16_t export_flags)
{
    for (size_t i = 0; i < G_N_ELEMENTS(export_promises); i++) {
        if (!(export_promises[i].export_flags & ~export_flags)) {
            bs->supported_write_flags |= export_promises[i].writes;
            bs->supported_zero_flags |= export_promises[i].zeroes;
        }
    }
}

static void nbd_client_free(NbdClient *client)
{
    if (client->yank) {
        yank_unregister_function(client->yank, nbd_client_yank, client);
        yank_unregister_instance(client->yank);
    }
    nbd_client_close(client);
    nbd_client_leave_context(client);
    nbd_target_unref(client->target);
    qcrypto_tls_creds_release(client->tls_creds);
    g_clear_pointer(&client->last_error, g_free);
    g_clear_pointer(&client->ahead.extents, g_array_unref);
    g_mutex_clear(&client->ioc_lock);
}

static bool coroutine_fn nbd_node_co_open(BlockDriverState *bs, const BlockdevOptions *options,
                                          int flags, GError **errp)
{
    const BlockdevOptionsNbd *opts = &options->u.nbd;
    NbdClient *client = bs->opaque;
    QIOChannel *ioc;

    client->bs = bs;
    client->ahead.offset = -1;
    client->target = nbd_target_new(opts, errp);
    if (!client->target) {
        return false;
    }
    client->reconnect_delay = opts->has_reconnect_delay ? opts->reconnect_delay : 0;
    g_mutex_init(&client->ioc_lock);
    qemu_co_queue_init(&client->waiting);
    nbd_client_enter_context(client, bdrv_get_aio_context(bs));
    client->yank = yank_register_instance(YANK_BLOCK_NODE, bs->node_name, errp);
    if (!client->yank) {
        nbd_client_free(client);
        return false;
    }
    yank_register_function(client->yank, nbd_client_yank, client);
    if (!nbd_client_set_tls(client, opts, errp)) {
        nbd_client_free(client);
        return false;
    }

    ioc = nbd_client_co_connect(client, opts->has_open_timeout ? opts->open_timeout : 0, errp);
    if (!ioc) {
        nbd_client_free(client);
        return false;
    }
    if (!nbd_node_check_writable(bs, &client->info, errp)) {
        nbd_client_say_goodbye(ioc);
        qio_channel_unref(ioc);
        nbd_client_free(client);
        return false;
    }
    client->max_links = 1;
    if ((client->info.flags & NBD_FLAG_CAN_MULTI_CONN) &&
        opts->server->type != SOCKET_ADDRESS_TYPE_FD) {
        client->max_links =
            opts->has_connections ? CLAMP(opts->connections, 1, NBD_MAX_LINKS) : NBD_DEFAULT_LINKS;
    }
    client->links[0] = nbd_link_new(client, 0);
    client->n_links = 1;
    client->drained = __atomic_load_n(&bs->quiesce_counter, __ATOMIC_SEQ_CST) > 0;
    nbd_link_set_up(client->links[0], ioc, &client->info);
    bs->total_bytes = client->info.size;
    node_promise_as_export(bs, client->info.flags);
    return true;
}

static void coroutine_fn nbd_node_co_close(BlockDriverState *bs)
{
    NbdClient *client = bs->opaque;

    for (unsigned i = 0; i < client->n_links; i++) {
        /*
         * the caller's last request may have been answered inside the reader, which has to end
         * first
         */
        while (client->links[i]->reading || client->links[i]->senders) {
            qemu_co_yield_to_loop();
        }
        nbd_link_abandon_dial(client->links[i]);
    }
    /*
     * abandoned dials end within a few turns, unless a name server keeps them: that is not waited
     * for
     */
    for (unsigned i = 0; i < NBD_CLOSE_TURNS && g_atomic_int_get(&client->target->refcount) > 1;
         i++) {
        qemu_co_yield_to_loop();
    }
    nbd_client_free(client);
}

/* --- threads and drained sections --- */

static void nbd_node_drain_begin(BlockDriverState *bs)
{
    nbd_client_drain_begin(bs->opaque);
}

static void nbd_node_drain_end(BlockDriverState *bs)
{
    nbd_client_drain_end(bs->opaque);
}

static void nbd_node_detach_aio_context(BlockDriverState *bs)
{
    nbd_client_leave_context(bs->opaque);
}

static void nbd_node_attach_aio_context(BlockDriverState *bs, AioContext *ctx)
{
    nbd_client_enter_context(bs->opaque, ctx);
}

static void nbd_node_cancel_in_flight(BlockDriverState *bs)
{
    nbd_client_cancel(bs->opaque);
}

static void nbd_node_refuse_requests(BlockDriverState *bs, bool refuse)
{
    NbdClient *client = bs->opaque;

    client->refusing += refuse ? 1 : -1;
}

/* --- reopen, names --- */

/* Only what the block layer itself changes may differ. */
static bool coroutine_fn nbd_node_co_reopen_prepare(BDRVReopenState *state, GError **errp)
{
    NbdClient *client = state->bs->opaque;

    if ((state->flags & BDRV_O_RDWR) && (client->info.flags & NBD_FLAG_READ_ONLY)) {
        if (state->flags & BDRV_O_AUTO_RDONLY) {
            state->flags &= ~BDRV_O_RDWR;
            return true;
        }
        error_setg(errp, "Can't reopen read-only NBD mount as read/write");
        return false;
    }
    return true;
}

static void nbd_node_refresh_filename(BlockDriverState *bs)
{
    char *name = bs->options ? nbd_make_filename(&bs->options->u.nbd) : NULL;

    if (name) {
        g_free(bs->exact_filename);
        bs->exact_filename = name;
        g_free(bs->filename);
        bs->filename = g_strdup(name);
    }
}

static bool nbd_node_parse_options(const char *filename, BlockdevOptions *o, GError **errp)
{
    o->driver = BLOCKDEV_DRIVER_NBD;
    return nbd_parse_filename(filename, &o->u.nbd, errp);
}

static const char *const nbd_prefixes[] = {"nbd:", "nbd+tcp:", "nbd+unix:", NULL};

static const BlockProtocolOps nbd_protocol = {
    .filename_prefixes = nbd_prefixes,
    .bdrv_parse_filename = nbd_node_parse_options,
    .bdrv_cancel_in_flight = nbd_node_cancel_in_flight,
    .bdrv_refuse_requests = nbd_node_refuse_requests,
};

const BlockDriver bdrv_nbd = {
    .format_name = "nbd",
    .driver = BLOCKDEV_DRIVER_NBD,
    .instance_size = sizeof(NbdClient),
    .protocol = &nbd_protocol,
    .bdrv_co_open = nbd_node_co_open,
    .bdrv_co_close = nbd_node_co_close,
    .bdrv_co_reopen_prepare = nbd_node_co_reopen_prepare,
    .bdrv_co_preadv = nbd_node_co_preadv,
    .bdrv_co_pwritev = nbd_node_co_pwritev,
    .bdrv_co_copy_range_to = nbd_node_co_copy_range_to,
    .bdrv_co_pwrite_zeroes = nbd_node_co_pwrite_zeroes,
    .bdrv_co_pdiscard = nbd_node_co_pdiscard,
    .bdrv_co_flush_to_disk = nbd_node_co_flush,
    .bdrv_co_block_status = nbd_co_block_status,
    .bdrv_co_getlength = nbd_node_co_getlength,
    .bdrv_co_truncate = nbd_node_co_truncate,
    .bdrv_refresh_limits = nbd_node_refresh_limits,
    .bdrv_detach_aio_context = nbd_node_detach_aio_context,
    .bdrv_attach_aio_context = nbd_node_attach_aio_context,
    .bdrv_drain_begin = nbd_node_drain_begin,
    .bdrv_drain_end = nbd_node_drain_end,
    .bdrv_refresh_filename = nbd_node_refresh_filename,
};
