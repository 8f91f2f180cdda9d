/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QIOChannelSocket: a channel over a connected stream socket (TCP over IPv4 and IPv6, unix, vsock).
 */
#ifndef FERRY_IO_CHANNEL_SOCKET_H
#define FERRY_IO_CHANNEL_SOCKET_H

#include "io/channel.h"
#include "qapi/qapi-types.h"

typedef struct QIOChannelSocket QIOChannelSocket;

/* A channel without a connection yet, for qio_channel_socket_co_connect(). */
QIOChannelSocket *qio_channel_socket_new(void);
/*
 * Takes over fd (connected; made non-blocking and close-on-exec). On failure the caller keeps fd.
 */
QIOChannelSocket *qio_channel_socket_new_fd(int fd, GError **errp);

/*
 * Connects, trying the addresses of a host name in turn; names are resolved in a worker thread. 0
 * or -errno.
 */
int coroutine_fn qio_channel_socket_co_connect(QIOChannelSocket *sioc, const SocketAddress *addr,
                                               GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Shuts the channel down and makes an attempt to connect return soon. The attempt's thread. */
void qio_channel_socket_cancel_connect(QIOChannelSocket *sioc);

/* The descriptor, still the channel's; -1 without a connection. */
int qio_channel_socket_get_fd(const QIOChannelSocket *sioc);
/*
 * "127.0.0.1:1234", "unix:/path", "vsock:2:1": who is at the other end, for messages. The caller
 * frees.
 */
char *qio_channel_socket_peer_name(const QIOChannelSocket *sioc);
/* True for TCP. */
bool qio_channel_socket_is_inet(const QIOChannelSocket *sioc);
/* Asks for kernel buffers of at least so many bytes, as far as the system's limits let it. */
void qio_channel_socket_set_buffers(QIOChannelSocket *sioc, int send_bytes, int receive_bytes);

#endif
