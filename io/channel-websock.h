/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QIOChannelWebsock: the server's end of a WebSocket (RFC 6455) over another channel, the master: a
 * socket or TLS. The bytes of binary messages are the stream; where messages begin and end means
 * nothing. Threads and rules are those of io/channel.h; besides:
 *
 * - a writer that was told -EAGAIN goes on with the same bytes: their frame may be on its way;
 * - the next read or write answers pings and the peer's close frame; the peer's close frame ends
 * the stream;
 * - a stream that ends without one is an error (-ECONNABORTED), not an end, unless the reader says
 *    QIO_CHANNEL_READ_FLAG_RELAXED_EOF;
 * - a peer that breaks the protocol, or sends text, is told so in a close frame; reading then fails
 *    with -EPROTO;
 * - shutdown sends a close frame as far as that can be done without waiting.
 */
#ifndef FERRY_IO_CHANNEL_WEBSOCK_H
#define FERRY_IO_CHANNEL_WEBSOCK_H

#include <stdint.h>
#include "io/channel.h"

typedef struct QIOChannelWebsock QIOChannelWebsock;

/*
 * Takes a reference to master. The caller may still shut master down, but uses it for nothing else.
 * To be called in the thread that used master last, while no call waits for it.
 */
QIOChannelWebsock *qio_channel_websock_new_server(QIOChannel *master);

/*
 * Reads the client's request and answers it; has to succeed before anything else is read or
 * written. timeout_ns: fails with -ETIMEDOUT after so long; 0: the caller sees to that, by shutting
 * the channel down. 0 or -errno.
 */
int coroutine_fn qio_channel_websock_co_handshake(QIOChannelWebsock *wioc, int64_t timeout_ns,
                                                  GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
