/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QIOChannelTLS: TLS over another channel, the master. Threads and rules are those of io/channel.h;
 * besides:
 *
 *  - a writer that was told -EAGAIN goes on with the same bytes, for a record of them may be on its
 *    way;
 *  - shutdown tells the peer that this is the end (close_notify) as far as that can be done without
 *    waiting;
 *  - a stream that ends without the peer having said so is an error (-ECONNABORTED), not an end,
 *    unless the reader says QIO_CHANNEL_READ_FLAG_RELAXED_EOF;
 *  - a reader and a writer in two threads take turns inside the session, also for new keys (TLS 1.3
 *  KeyUpdate) in either direction. Neither waits for the peer while it has its turn;
 *  - a user that wants to cancel may as well shut down the master.
 */
#ifndef FERRY_IO_CHANNEL_TLS_H
#define FERRY_IO_CHANNEL_TLS_H

#include <stdint.h>
#include "crypto/tlscreds.h"
#include "io/channel.h"

typedef struct QIOChannelTLS QIOChannelTLS;

/*
 * Takes a reference to master, whose bytes are TLS from now on. The caller may still shut master
 * down, but uses it for nothing else. The arguments are those of qcrypto_tls_session_new_client()
 * and _server(). To be called in the thread that used master last, while no call waits for it.
 */
QIOChannelTLS *qio_channel_tls_new_client(QIOChannel *master, QCryptoTLSCreds *creds,
                                          const char *hostname,
                                          GError **errp) G_GNUC_WARN_UNUSED_RESULT;
QIOChannelTLS *qio_channel_tls_new_server(QIOChannel *master, QCryptoTLSCreds *creds,
                                          const char *authz_id,
                                          GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/*
 * Has to succeed before anything is read or written. timeout_ns: fails with -ETIMEDOUT after so
 * long; 0: the caller sees to that, by shutting the channel down. 0 or -errno. The second form
 * waits in the calling thread.
 */
int coroutine_fn qio_channel_tls_co_handshake(QIOChannelTLS *tioc, int64_t timeout_ns,
                                              GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int qio_channel_tls_handshake(QIOChannelTLS *tioc, int64_t timeout_ns,
                              GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/*
 * Tells the peer that nothing more will be written (close_notify), waiting until that is on its way
 * or timeout_ns (0: no limit) is over. In the calling thread, which is the writer. Shutdown does the
 * same without waiting. 0 or -errno.
 */
int qio_channel_tls_bye(QIOChannelTLS *tioc, int64_t timeout_ns, GError **errp);

/*
 * The identity that the peer has proved, see crypto/authz.h; NULL: it proved none. After the
 * handshake; valid as long as the channel.
 */
const char *qio_channel_tls_peer_name(const QIOChannelTLS *tioc);

#endif
