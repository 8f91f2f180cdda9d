/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside TLS credentials: shared by the kinds of credentials and by sessions. */
#ifndef FERRY_CRYPTO_TLSCREDS_INT_H
#define FERRY_CRYPTO_TLSCREDS_INT_H

#include <gnutls/gnutls.h>
#include <stddef.h>
#include <stdint.h>
#include "crypto/tlscreds.h"

/*
 * Largest file of a kind that is read, in bytes; the CA certificates of a whole distribution fit.
 */
#define TLS_CREDS_MAX_FILE (8u << 20)

typedef enum TLSCredsKind {
    TLS_CREDS_X509,
    TLS_CREDS_PSK,
    TLS_CREDS_ANON,
} TLSCredsKind;

/* Constant after it was made, but for the counters. */
struct QCryptoTLSCreds {
    int refcount; /* atomic */
    int users;    /* atomic: qcrypto_tls_creds_acquire() minus qcrypto_tls_creds_release() */

    char *id; /* the object's */
    TLSCredsKind kind;
    QCryptoTLSCredsEndpoint endpoint;
    bool verify_peer;
    char *dir;      /* absolute; NULL: none given (anonymous only) */
    char *priority; /* GnuTLS priority string, complete */
    gnutls_dh_params_t dh_params;
    union {
        gnutls_certificate_credentials_t x509;
        gnutls_psk_server_credentials_t psk_server;
        gnutls_psk_client_credentials_t psk_client;
        gnutls_anon_server_credentials_t anon_server;
        gnutls_anon_client_credentials_t anon_client;
    } u; /* by kind and endpoint; NULL until it is there */
};

/*
 * An object with what all kinds have in common, `u` empty. one reference; NULL and errp on failure.
 */
QCryptoTLSCreds *tls_creds_new(TLSCredsKind kind, const TlsCredsProperties *props, GError **errp);

/*
 * Reads file `name` of the credentials' folder. 1: *data is what it holds, with a NUL behind it, to
 * be freed by tls_creds_wipe_file(); 0: it is not there, and `required` is false; -1: errp.
 */
int tls_creds_read_file(const QCryptoTLSCreds *creds, const char *name, bool required,
                        gnutls_datum_t *data, GError **errp);
void tls_creds_wipe_file(gnutls_datum_t *data);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(gnutls_datum_t, tls_creds_wipe_file)
/* The path of that file, for messages; the caller frees. */
char *tls_creds_path(const QCryptoTLSCreds *creds, const char *name);
/* Reads dh-params.pem where it is; otherwise GnuTLS has groups of its own (RFC 7919). */
bool tls_creds_load_dh_params(QCryptoTLSCreds *creds, GError **errp);

/*
 * tlscreds-check.c: certificates that cannot work are refused now, with a reason, and not by the
 * first peer without one. cert_pem may be empty (a client without a certificate).
 */
bool tls_creds_check_certs(const QCryptoTLSCreds *creds, const gnutls_datum_t *ca_pem,
                           const gnutls_datum_t *cert_pem, GError **errp);

#endif
