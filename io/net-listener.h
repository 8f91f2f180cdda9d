/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QIONetListener: listening sockets, all that an address stands for, and what to do with who
 * connects. Main thread only.
 */
#ifndef FERRY_IO_NET_LISTENER_H
#define FERRY_IO_NET_LISTENER_H

#include "io/channel-socket.h"

typedef struct QIONetListener QIONetListener;

/* Takes over the reference to sioc. Called in the main loop, once for each connection. */
typedef void QIONetListenerClientFunc(QIONetListener *listener, QIOChannelSocket *sioc,
                                      void *opaque);

QIONetListener *qio_net_listener_new(void);
/* Closes all sockets and removes the unix socket files that were made. NULL is allowed. */
void qio_net_listener_free(QIONetListener *listener);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QIONetListener, qio_net_listener_free)

/*
 * Listens on addr (an inet address may open several sockets; `fd` is an inherited listening
 * socket). May be called several times. Connections wait in the backlog until a client function is
 * set. An existing socket file is replaced.
 */
bool coroutine_fn qio_net_listener_co_open(QIONetListener *listener, const SocketAddress *addr,
                                           int backlog, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* NULL: stop accepting for now. */
void qio_net_listener_set_client_func(QIONetListener *listener, QIONetListenerClientFunc *func,
                                      void *opaque);
unsigned qio_net_listener_count(const QIONetListener *listener);
/* Where socket `index` really listens ("127.0.0.1:40123"). The caller frees. */
char *qio_net_listener_address(const QIONetListener *listener, unsigned index);

#endif
