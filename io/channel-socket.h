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
/*
 * The same in the calling thread, which waits, until deadline_ns of QEMU_CLOCK_REALTIME (0: as long
 * as the kernel tries). qio_channel_shutdown() in any thread ends it, as soon as a look-up of a name
 * that is under way returns. Descriptors by name: in the main thread only.
 */
int qio_channel_socket_connect(QIOChannelSocket *sioc, const SocketAddress *addr,
                               int64_t deadline_ns, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Shuts the channel down and makes co_connect return soon. The attempt's thread. */
void qio_channel_socket_cancel_connect(QIOChannelSocket *sioc);

/* The descriptor, still the channel's; -1 without a connection. */
int qio_channel_socket_get_fd(const QIOChannelSocket *sioc);
/*
 * "127.0.0.1:1234", "unix:/path", "vsock:2:1": the address of the peer, for messages. The caller
 * frees.
 */
char *qio_channel_socket_peer_name(const QIOChannelSocket *sioc);
/*
 * The peer's address as the kernel has it; NULL and errp where it has none. The caller frees with
 * qapi_free_SocketAddress().
 */
SocketAddress *qio_channel_socket_remote_address(const QIOChannelSocket *sioc, GError **errp);

#endif
