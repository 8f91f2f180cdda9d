/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS credentials: the objects tls-creds-x509, tls-creds-psk and tls-creds-anon. Everything is read
 * from the credentials' folder when the object is made; only the key file of a PSK server is looked
 * at again with each connection.
 *
 * Objects are made, found and deleted in the main thread. Credentials do not change, so sessions in
 * any thread share them.
 */
#ifndef FERRY_CRYPTO_TLSCREDS_H
#define FERRY_CRYPTO_TLSCREDS_H

#include <glib.h>
#include <stdbool.h>
#include "qapi/qapi-types-crypto.h"

/* Names of the files in `dir`. */
#define QCRYPTO_TLS_CREDS_X509_CA_CERT     "ca-cert.pem"
#define QCRYPTO_TLS_CREDS_X509_CA_CRL      "ca-crl.pem"
#define QCRYPTO_TLS_CREDS_X509_SERVER_CERT "server-cert.pem"
#define QCRYPTO_TLS_CREDS_X509_SERVER_KEY  "server-key.pem"
#define QCRYPTO_TLS_CREDS_X509_CLIENT_CERT "client-cert.pem"
#define QCRYPTO_TLS_CREDS_X509_CLIENT_KEY  "client-key.pem"
#define QCRYPTO_TLS_CREDS_DH_PARAMS        "dh-params.pem"
#define QCRYPTO_TLS_CREDS_PSKFILE          "keys.psk"

typedef struct QCryptoTLSCreds QCryptoTLSCreds;

/* Reads and checks the files. The caller owns one reference. NULL and errp on failure. */
QCryptoTLSCreds *qcrypto_tls_creds_x509_new(const TlsCredsX509Properties *props,
                                            GError **errp) G_GNUC_WARN_UNUSED_RESULT;
QCryptoTLSCreds *qcrypto_tls_creds_psk_new(const TlsCredsPskProperties *props,
                                           GError **errp) G_GNUC_WARN_UNUSED_RESULT;
QCryptoTLSCreds *qcrypto_tls_creds_anon_new(const TlsCredsAnonProperties *props,
                                            GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* Keeps the credentials' memory, not the object: what a connection holds. Any thread. */
QCryptoTLSCreds *qcrypto_tls_creds_ref(QCryptoTLSCreds *creds);
void qcrypto_tls_creds_unref(QCryptoTLSCreds *creds); /* NULL is allowed */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QCryptoTLSCreds, qcrypto_tls_creds_unref)

/*
 * The object `id`, which must be for this end of connections. Until qcrypto_tls_creds_release() the
 * object cannot be deleted. It is for users that make connections later (a server, a disk). Main
 * thread. NULL and errp when there is no such object.
 */
QCryptoTLSCreds *qcrypto_tls_creds_acquire(const char *id, QCryptoTLSCredsEndpoint endpoint,
                                           GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Any thread; NULL is allowed. */
void qcrypto_tls_creds_release(QCryptoTLSCreds *creds);

#endif
