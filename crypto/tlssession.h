/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A TLS session (versions 1.2 and 1.3) over any transport that moves bytes without blocking.
 * io/channel-tls.h makes a channel of it, which is what most users want.
 *
 * One thread at a time. The handshake checks the identity of the peer. The peer's certificate is
 * checked against the authority, and by a client against the host name. Then a server checks the
 * identity against an authorization object.
 */
#ifndef FERRY_CRYPTO_TLSSESSION_H
#define FERRY_CRYPTO_TLSSESSION_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "crypto/tlscreds.h"

/* Most bytes that one record carries (RFC 8446, section 5.1). */
#define QCRYPTO_TLS_RECORD_MAX 16384

typedef struct QCryptoTLSSession QCryptoTLSSession;

/*
 * What carries the records. Both return the bytes moved or -errno, -EAGAIN for "not now"; pull
 * returns 0 at the end of the stream. What pull has delivered belongs to the session, also what the
 * session has not looked at yet.
 */
typedef struct QCryptoTLSTransport {
    ssize_t (*push)(void *opaque, const struct iovec *iov, size_t niov);
    ssize_t (*pull)(void *opaque, const struct iovec *iov, size_t niov);
    void *opaque;
} QCryptoTLSTransport;

typedef enum QCryptoTLSHandshake {
    QCRYPTO_TLS_HANDSHAKE_FAILED = -1,
    QCRYPTO_TLS_HANDSHAKE_COMPLETE = 0,
    QCRYPTO_TLS_HANDSHAKE_READ,  /* call again when the transport has bytes */
    QCRYPTO_TLS_HANDSHAKE_WRITE, /* call again when the transport takes bytes */
} QCryptoTLSHandshake;

/*
 * The client's end. hostname: what the server's certificate must be for; needed with x509
 * credentials that verify.
 */
QCryptoTLSSession *qcrypto_tls_session_new_client(QCryptoTLSCreds *creds, const char *hostname,
                                                  const QCryptoTLSTransport *transport,
                                                  GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * The server's end. authz_id: object that decides about the client's identity, NULL: any.
 */
QCryptoTLSSession *qcrypto_tls_session_new_server(QCryptoTLSCreds *creds, const char *authz_id,
                                                  const QCryptoTLSTransport *transport,
                                                  GError **errp) G_GNUC_WARN_UNUSED_RESULT;
void qcrypto_tls_session_free(QCryptoTLSSession *session); /* NULL is allowed */

/* One step. After a failure the peer has been sent an alert, as far as the transport took it. */
QCryptoTLSHandshake qcrypto_tls_session_handshake(QCryptoTLSSession *session,
                                                  GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/*
 * Bytes, or -EAGAIN (no error is set), or -errno. Reading ends with 0 when the peer has said that
 * it is done, and with -ECONNABORTED when it is gone without that.
 */
ssize_t qcrypto_tls_session_read(QCryptoTLSSession *session, void *buf, size_t bytes,
                                 GError **errp);
/*
 * After -EAGAIN the next call must begin with the same bytes: a record of them may be on its way.
 */
ssize_t qcrypto_tls_session_write(QCryptoTLSSession *session, const struct iovec *iov, size_t niov,
                                  GError **errp);
/*
 * The next read has something to work on without asking the transport; never true after it returned
 * -EAGAIN.
 */
bool qcrypto_tls_session_pending(const QCryptoTLSSession *session);
/* Tells the peer that nothing more will be written (close_notify). 0 or -errno, also -EAGAIN. */
int qcrypto_tls_session_bye(QCryptoTLSSession *session);

/*
 * The identity that the peer has proved, see crypto/authz.h; NULL: it proved none. Valid after the
 * handshake, as long as the session.
 */
const char *qcrypto_tls_session_get_peer_name(const QCryptoTLSSession *session);

#endif
