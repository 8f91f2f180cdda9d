/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One connection of the client: dialling, sending, breaking. The states are described in
 * client-int.h.
 */
#include "block/nbd/client-int.h"
#include "trace/trace-block-nbd.h"
#include <stdarg.h>
#include "io/channel-sendfile.h"
#include "util/error.h"

/* Back-off after failed dials: doubles from the first value to the last. */
#define NBD_BACKOFF_FIRST_NS (100 * SCALE_MS)
#define NBD_BACKOFF_LAST_NS  (16 * NANOSECONDS_PER_SECOND)
/* A server that does not greet another connection within this time does not want it. */
#define NBD_EXTRA_DIAL_NS (10 * NANOSECONDS_PER_SECOND)
/* Elements of a request's vector that are copied beside its header for one system call. */
#define NBD_SEND_IOV 128

/* --- dialling --- */

/* An attempt to connect. Abandoned (link NULL), it ends by itself. */
struct NbdDial {
    NbdLink *link;
    NbdTarget *target;
    QIOChannelSocket *sioc;
    QemuCoSleep sleep;
    int64_t delay_ns;
    QEMUTimer *deadline;
};

static void dial_free(NbdDial *dial)
{
    timer_free(dial->deadline);
    qio_channel_unref(QIO_CHANNEL(dial->sioc));
    nbd_target_unref(dial->target);
    g_free(dial);
}

static void dial_give_up(NbdDial *dial)
{
    qio_channel_socket_cancel_connect(dial->sioc);
    qemu_co_sleep_wake(&dial->sleep);
}

static void dial_deadline(void *opaque)
{
    dial_give_up(opaque);
}

void nbd_link_abandon_dial(NbdLink *link)
{
    if (link->dial) {
        NbdDial *dial = link->dial;

        dial->link = NULL;
        link->dial = NULL;
        link->state = NBD_LINK_DOWN;
        dial_give_up(dial);
    }
}

/* A later connection must lead to the export that users of the node have seen. */
static bool info_compatible(NbdClient *client, const NbdExportInfo *now, GError **errp)
{
    const NbdExportInfo *was = &client->info;

    if (now->size != was->size) {
        error_setg(errp, "NBD server changed the size of the export from %" PRIu64 " to %" PRIu64,
                   was->size, now->size);
        return false;
    }
    if ((was->flags & ~now->flags & ~NBD_FLAG_READ_ONLY) ||
        (now->flags & ~was->flags & NBD_FLAG_READ_ONLY) || now->structured != was->structured ||
        now->has_context != was->has_context || now->min_block > was->min_block ||
        now->max_block < was->max_block) {
        error_setg(errp, "NBD server changed the features of the export");
        return false;
    }
    return true;
}

static void nbd_link_dialled(NbdLink *link, int ret, QIOChannel *ioc, const NbdExportInfo *info,
                             GError *err)
{
    NbdClient *client = link->client;
    g_autoptr(GError) mismatch = NULL;

    link->dial = NULL;
    if (ret == 0 && !info_compatible(client, info, &mismatch)) {
        nbd_client_say_goodbye(ioc);
        ret = -EINVAL;
        err = mismatch;
    }
    trace_nbd_client_dialled(link->index, ret, err ? err->message : "");
    if (ret == 0) {
        nbd_link_set_up(link, qio_channel_ref(ioc), info);
        return;
    }
    g_free(client->last_error);
    client->last_error = g_strdup(err ? err->message : g_strerror(-ret));
    link->state = NBD_LINK_DOWN;
    link->failures++;
    if (link->index > 0) {
        link->wanted = false;
        link->useless = true;
    } else {
        nbd_link_dial(link);
    }
}

static void coroutine_fn dial_co_run(void *opaque)
{
    NbdDial *dial = opaque;
    QIOChannel *ioc = NULL;
    NbdExportInfo info;
    g_autoptr(GError) err = NULL;
    int ret = 0;

    if (dial->link && dial->delay_ns) {
        qemu_co_sleep_ns_wakeable(&dial->sleep, QEMU_CLOCK_REALTIME, dial->delay_ns);
    }
    if (dial->link) {
        ret = qio_channel_socket_co_connect(dial->sioc, dial->target->addr, &err);
        if (ret == 0) {
            ioc = qio_channel_ref(QIO_CHANNEL(dial->sioc));
            ret = nbd_client_co_handshake(&ioc, dial->target, &info, &err);
            qio_channel_detach_aio_context(ioc);
        }
    }
    if (dial->link) {
        nbd_link_dialled(dial->link, ret, ioc, &info, err);
    }
    qio_channel_unref(ioc);
    dial_free(dial);
}

static int64_t link_backoff(const NbdLink *link)
{
    int64_t ns = NBD_BACKOFF_FIRST_NS;

    if (!link->failures) {
        return 0;
    }
    for (unsigned i = 1; i < link->failures && ns < NBD_BACKOFF_LAST_NS; i++) {
        ns *= 2;
    }
    return MIN(ns, NBD_BACKOFF_LAST_NS);
}

void nbd_link_dial(NbdLink *link)
{
    NbdDial *dial;

    g_assert(link->state == NBD_LINK_DOWN && !link->dial);
    if (link->client->drained && !link->client->n_waiting) {
        return; /* nbd_client_drain_end() starts it */
    }
    if (link->client->target->addr->type == SOCKET_ADDRESS_TYPE_FD) {
        nbd_client_stop_waiting(link->client);
        return; /* an inherited connection cannot be made again */
    }
    dial = g_new0(NbdDial, 1);
    dial->link = link;
    dial->target = nbd_target_ref(link->client->target);
    dial->sioc = qio_channel_socket_new();
    dial->delay_ns = link_backoff(link);
    dial->deadline = aio_timer_new(link->client->ctx, QEMU_CLOCK_REALTIME, dial_deadline, dial);
    timer_mod_ns(dial->deadline, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + dial->delay_ns +
                                     (link->index > 0 ? NBD_EXTRA_DIAL_NS : NBD_HANDSHAKE_NS));
    trace_nbd_client_dial(link->index, link->failures, dial->delay_ns);
    link->dial = dial;
    link->state = NBD_LINK_DIALLING;
    aio_co_schedule(link->client->ctx, qemu_coroutine_create(dial_co_run, dial));
}

/* --- life --- */

NbdLink *nbd_link_new(NbdClient *client, unsigned index)
{
    NbdLink *link = g_new0(NbdLink, 1);

    link->client = client;
    link->index = index;
    link->wanted = index == 0;
    qemu_co_mutex_init(&link->send_lock);
    return link;
}

static void link_set_ioc(NbdLink *link, QIOChannel *ioc)
{
    QIOChannel *old = link->ioc;

    g_mutex_lock(&link->client->ioc_lock); /* nbd_client_cancel() looks from other threads */
    link->ioc = ioc;
    g_mutex_unlock(&link->client->ioc_lock);
    qio_channel_unref(old);
}

void nbd_link_free(NbdLink *link)
{
    g_assert(!link->in_flight && !link->reading && !link->senders && !link->dial);
    link_set_ioc(link, NULL);
    qemu_co_mutex_destroy(&link->send_lock);
    g_free(link->rbuf);
    g_free(link);
}

void nbd_link_set_up(NbdLink *link, QIOChannel *ioc, const NbdExportInfo *info)
{
    NbdClient *client = link->client;

    link->info = *info;
    link->failures = 0;
    link->wanted = true;
    link->rpos = link->rlen = 0;
    if (!link->rbuf) {
        link->rbuf = g_malloc(NBD_LINK_READ_BYTES);
    }
    qio_channel_set_delay(ioc, false);
    link_set_ioc(link, ioc);
    link->state = NBD_LINK_UP;
    nbd_link_watch(link);
    for (unsigned i = 0; link->index == 0 && i < client->n_links; i++) {
        client->links[i]->useless = false; /* this may be another server */
    }
    nbd_client_link_up(client);
}

void nbd_client_say_goodbye(QIOChannel *ioc)
{
    NbdRequest wire = {.command = NBD_CMD_DISC};
    uint8_t head[NBD_REQUEST_BYTES];
    struct iovec iov = {head, sizeof(head)};

    nbd_request_encode(head, &wire);
    (void)qio_channel_writev(ioc, &iov, 1, NULL);
}

void nbd_link_break(NbdLink *link, const char *fmt, ...)
{
    va_list ap;

    if (link->state != NBD_LINK_UP) {
        return;
    }
    va_start(ap, fmt);
    g_free(link->client->last_error);
    link->client->last_error = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    trace_nbd_client_broken(link->index, link->in_flight, link->client->last_error);
    link->state = NBD_LINK_BROKEN;
    qio_channel_set_watch(link->ioc, NULL, QIO_CHANNEL_READ, NULL, NULL);
    qio_channel_shutdown(link->ioc,
                         QIO_CHANNEL_SHUTDOWN_BOTH); /* wakes the reader, which does the rest */
    nbd_client_link_lost(link->client);
}

/* No coroutine uses the broken connection any more. */
static void nbd_link_end_broken(NbdLink *link)
{
    qio_channel_detach_aio_context(link->ioc);
    link_set_ioc(link, NULL);
    link->state = NBD_LINK_DOWN;
    if (link->wanted) {
        nbd_link_dial(link);
    }
}

static void link_on_idle_event(void *opaque)
{
    NbdLink *link = opaque;

    /* nothing was asked, so there is nothing to be said */
    nbd_link_break(link, "server closed the connection");
    nbd_link_rest(link);
}

void nbd_link_watch(NbdLink *link)
{
    if (link->state == NBD_LINK_UP && !link->in_flight && !link->client->drained) {
        qio_channel_set_watch(link->ioc, link->client->ctx, QIO_CHANNEL_READ, link_on_idle_event,
                              link);
    }
}

void nbd_link_rest(NbdLink *link)
{
    if (link->in_flight || link->reading || link->senders) {
        return;
    }
    if (link->state == NBD_LINK_BROKEN) {
        nbd_link_end_broken(link);
    } else if (link->state == NBD_LINK_UP && link->rpos != link->rlen) {
        nbd_link_break(link, "server sent something that was not asked for");
        nbd_link_end_broken(link);
    } else if (link->state == NBD_LINK_UP && link->client->drained) {
        qio_channel_set_watch(link->ioc, NULL, QIO_CHANNEL_READ, NULL, NULL);
        qio_channel_detach_aio_context(link->ioc);
    } else {
        nbd_link_watch(link);
    }
}

/* --- requests --- */

/*
 * Sends header and payload in as few calls as the socket allows, straight from the caller's memory.
 */
static int coroutine_fn link_co_send(NbdLink *link, NbdPending *p)
{
    uint8_t head[NBD_REQUEST_BYTES];
    struct iovec iov[NBD_SEND_IOV + 1] = {{head, sizeof(head)}};
    unsigned n = 1;
    size_t skip = p->qiov_offset, left = p->wire.command == NBD_CMD_WRITE ? p->wire.length : 0;
    int ret;

    nbd_request_encode(head, &p->wire);
    if (p->from_file) {
        ret = qio_channel_co_writev_all(link->ioc, iov, 1, NULL);
        return ret < 0 ? ret
                       : qio_channel_co_sendfile(link->ioc, p->file_fd, p->file_offset, left, NULL);
    }
    for (int i = 0; left && i < p->qiov->niov; i++) {
        size_t len = p->qiov->iov[i].iov_len;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        if (n == G_N_ELEMENTS(iov)) {
            ret = qio_channel_co_writev_all(link->ioc, iov, n, NULL);
            if (ret < 0) {
                return ret;
            }
            n = 0;
        }
        len = MIN(len - skip, left);
        iov[n++] = (struct iovec){(char *)p->qiov->iov[i].iov_base + skip, len};
        skip = 0;
        left -= len;
    }
    return qio_channel_co_writev_all(link->ioc, iov, n, NULL);
}

static unsigned link_free_slot(const NbdLink *link)
{
    unsigned i = 0;

    while (link->slots[i]) {
        i++;
    }
    return i;
}

int coroutine_fn nbd_link_co_request(NbdLink *link, NbdPending *p)
{
    unsigned slot = link_free_slot(link);

    g_assert(link->state == NBD_LINK_UP && link->in_flight < NBD_LINK_MAX_REQUESTS);
    /* the upper part makes an answer to an earlier user of the slot recognisable */
    p->wire.cookie = ++link->next_seq * NBD_LINK_MAX_REQUESTS + slot;
    p->co = NULL;
    p->done = p->lost = p->have_extent = false;
    p->ret = 0;
    p->covered = 0;
    if (p->more) {
        g_array_set_size(p->more, 0);
    }
    p->islands = NULL;
    trace_nbd_client_request(link->index, p->wire.cookie, p->wire.command, p->wire.flags,
                             p->wire.offset, p->wire.length);
    link->slots[slot] = p;
    link->in_flight++;
    link->senders++;
    if (!link->reading) {
        link->reading = true;
        qio_channel_set_watch(link->ioc, NULL, QIO_CHANNEL_READ, NULL, NULL);
        qemu_coroutine_enter(qemu_coroutine_create(nbd_link_co_read, link));
    }
    if (!p->done) {
        qemu_co_mutex_lock(&link->send_lock);
        if (link->state == NBD_LINK_UP && link_co_send(link, p) < 0) {
            nbd_link_break(link, "sending to the server failed");
        }
        qemu_co_mutex_unlock(&link->send_lock);
    }
    if (--link->senders == 0) {
        nbd_link_rest(link); /* the connection may have broken meanwhile */
    }
    if (!p->done) {
        p->co = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    return p->ret;
}
