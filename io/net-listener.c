/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QIONetListener: bind, listen, accept. */
#include "io/net-listener.h"
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "io/socket-address.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/sockets.h"
#include "util/timer.h"

/*
 * How long to stop accepting when the process is out of descriptors: the backlog keeps the fd
 * readable meanwhile.
 */
#define ACCEPT_PAUSE_NS (200 * SCALE_MS)
/* Connections accepted in one turn of the loop. */
#define ACCEPT_BATCH 16

typedef struct ListenSocket {
    QIONetListener *listener;
    int fd;
    FerrySockAddr *cleanup; /* a unix socket whose file we made, or NULL */
} ListenSocket;

struct QIONetListener {
    AioContext *ctx;
    GPtrArray *sockets; /* ListenSocket */
    QIONetListenerClientFunc *func;
    void *opaque;
    QEMUTimer *resume_timer; /* armed while accepting is paused */
};

static void listener_watch(QIONetListener *listener, bool on);

static void listen_socket_free(void *opaque)
{
    ListenSocket *ls = opaque;

    aio_set_fd_handler(ls->listener->ctx, ls->fd, NULL, NULL, NULL);
    close(ls->fd);
    if (ls->cleanup) {
        socket_listen_cleanup(ls->cleanup);
        ferry_sockaddr_free(ls->cleanup);
    }
    g_free(ls);
}

static void listener_resume(void *opaque)
{
    listener_watch(opaque, true);
}

QIONetListener *qio_net_listener_new(void)
{
    return qio_net_listener_new_in(qemu_get_aio_context());
}

QIONetListener *qio_net_listener_new_in(AioContext *ctx)
{
    QIONetListener *listener = g_new0(QIONetListener, 1);

    listener->ctx = aio_context_ref(ctx);
    listener->sockets = g_ptr_array_new_with_free_func(listen_socket_free);
    listener->resume_timer = aio_timer_new(ctx, QEMU_CLOCK_REALTIME, listener_resume, listener);
    return listener;
}

void qio_net_listener_close(QIONetListener *listener)
{
    qio_net_listener_set_client_func(listener, NULL, NULL);
    g_ptr_array_set_size(listener->sockets, 0);
}

void qio_net_listener_free(QIONetListener *listener)
{
    if (!listener) {
        return;
    }
    timer_free(listener->resume_timer);
    g_ptr_array_unref(listener->sockets);
    aio_context_unref(listener->ctx);
    g_free(listener);
}

static void listener_add_fd(QIONetListener *listener, int fd, FerrySockAddr *cleanup)
{
    ListenSocket *ls = g_new0(ListenSocket, 1);

    ls->listener = listener;
    ls->fd = fd;
    ls->cleanup = cleanup;
    g_ptr_array_add(listener->sockets, ls);
    if (listener->func && !timer_pending(listener->resume_timer)) {
        listener_watch(listener, true);
    }
}

/*
 * Every address that the host name stands for, one socket each; those that fail do not matter while
 * one succeeds.
 */
static bool coroutine_fn listener_co_open_inet(QIONetListener *listener, const FerrySockAddr *addr,
                                               GArray *list, int backlog, GError **errp)
{
    g_autoptr(GError) first_err = NULL;
    g_autofree char *port = g_strdup(addr->inet.port);
    unsigned opened = 0;

    for (guint i = 0; i < list->len; i++) {
        const SocketCandidate *c = &g_array_index(list, SocketCandidate, i);
        g_autoptr(FerrySockAddr) one = ferry_sockaddr_from_native(&c->sa, c->len, NULL);
        g_autoptr(FerrySockAddr) bound = NULL;
        int fd;

        if (!one) {
            continue;
        }
        g_free(one->inet.port);
        one->inet.port = g_strdup(port);
        one->inet.has_to = addr->inet.has_to && !opened;
        one->inet.to = addr->inet.to;
        fd = socket_listen(one, backlog, first_err ? NULL : &first_err);
        if (fd < 0) {
            continue;
        }
        opened++;
        listener_add_fd(listener, fd, NULL);
        bound = socket_local_address(fd, NULL);
        if (bound) { /* the port that was chosen holds for the others too */
            g_free(port);
            port = g_strdup(bound->inet.port);
        }
    }
    if (!opened) {
        g_propagate_error(errp, g_steal_pointer(&first_err));
        return false;
    }
    return true;
}

bool coroutine_fn qio_net_listener_co_open(QIONetListener *listener, const SocketAddress *addr,
                                           int backlog, GError **errp)
{
    g_autoptr(FerrySockAddr) native = socket_address_convert(addr, errp);
    int fd;

    if (!native) {
        return false;
    }
    if (native->type == FERRY_SOCK_INET && *native->inet.host) {
        g_autoptr(GArray) list = socket_resolve_co(&native->inet, true, errp);

        return list && listener_co_open_inet(listener, native, list, backlog, errp);
    }
    fd = socket_listen_co(native, backlog, errp);
    if (fd < 0) {
        return false;
    }
    listener_add_fd(listener, fd,
                    native->type == FERRY_SOCK_UNIX ? g_steal_pointer(&native) : NULL);
    return true;
}

static void listener_accept(void *opaque)
{
    ListenSocket *ls = opaque;
    QIONetListener *listener = ls->listener;

    for (unsigned i = 0; i < ACCEPT_BATCH && listener->func; i++) {
        int fd = accept4(ls->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        QIOChannelSocket *sioc;

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                listener_watch(listener, false);
                timer_mod_ns(listener->resume_timer,
                             qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + ACCEPT_PAUSE_NS);
            }
            return;
        }
        sioc = qio_channel_socket_new_fd(fd, NULL);
        if (!sioc) {
            close(fd);
            continue;
        }
        listener->func(listener, sioc, listener->opaque);
    }
}

static void listener_watch(QIONetListener *listener, bool on)
{
    for (unsigned i = 0; i < listener->sockets->len; i++) {
        ListenSocket *ls = g_ptr_array_index(listener->sockets, i);

        aio_set_fd_handler(listener->ctx, ls->fd, on ? listener_accept : NULL, NULL, ls);
    }
}

void qio_net_listener_set_client_func(QIONetListener *listener, QIONetListenerClientFunc *func,
                                      void *opaque)
{
    listener->func = func;
    listener->opaque = opaque;
    timer_del(listener->resume_timer);
    listener_watch(listener, func != NULL);
}

unsigned qio_net_listener_count(const QIONetListener *listener)
{
    return listener->sockets->len;
}

bool qio_net_listener_pending(const QIONetListener *listener)
{
    for (unsigned i = 0; i < listener->sockets->len; i++) {
        const ListenSocket *ls = g_ptr_array_index(listener->sockets, i);
        struct pollfd pfd = {.fd = ls->fd, .events = POLLIN};

        if (poll(&pfd, 1, 0) > 0) {
            return true;
        }
    }
    return false;
}

SocketAddressList *qio_net_listener_addresses(const QIONetListener *listener)
{
    SocketAddressList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < listener->sockets->len; i++) {
        ListenSocket *ls = g_ptr_array_index(listener->sockets, i);
        g_autoptr(FerrySockAddr) addr = socket_local_address(ls->fd, NULL);

        if (addr) {
            *tail = g_new0(SocketAddressList, 1);
            (*tail)->value = socket_address_from_native(addr);
            tail = &(*tail)->next;
        }
    }
    return list;
}
