/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QIONetListener: listening sockets, all that an address stands for, and what to do with a peer
 * that connects. Made, opened and freed in the main thread.
 */
#ifndef FERRY_IO_NET_LISTENER_H
#define FERRY_IO_NET_LISTENER_H

#include "io/channel-socket.h"

typedef struct QIONetListener QIONetListener;

/* Takes over the reference to sioc. Called once for each connection, in the listener's context. */
typedef void QIONetListenerClientFunc(QIONetListener *listener, QIOChannelSocket *sioc,
                                      void *opaque);

/* Accepts in the main loop. */
QIONetListener *qio_net_listener_new(void);
/* Accepts in ctx, whose thread sets the client function and frees the listener. */
QIONetListener *qio_net_listener_new_in(AioContext *ctx);
/*
 * Closes all sockets and removes the unix socket files that were made; the client function is not
 * called again. The client function itself may do this, and free the listener in a bottom half.
 */
void qio_net_listener_close(QIONetListener *listener);
/* The same, and frees it. NULL is allowed. */
void qio_net_listener_free(QIONetListener *listener);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QIONetListener, qio_net_listener_free)

/*
 * Listens on addr (an inet address may open several sockets; `fd` is an inherited listening
 * socket). May be called several times. Connections wait in the backlog until a client function is
 * set. An existing socket file is replaced. The main thread.
 */
bool coroutine_fn qio_net_listener_co_open(QIONetListener *listener, const SocketAddress *addr,
                                           int backlog, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* NULL: stop accepting for now. */
void qio_net_listener_set_client_func(QIONetListener *listener, QIONetListenerClientFunc *func,
                                      void *opaque);
unsigned qio_net_listener_count(const QIONetListener *listener);
/* A connection waits to be accepted. */
bool qio_net_listener_pending(const QIONetListener *listener);
/* Where they really listen, ports resolved; qapi_free_SocketAddressList(). */
SocketAddressList *qio_net_listener_addresses(const QIONetListener *listener);

#endif
