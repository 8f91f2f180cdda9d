/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A TLS session: a GnuTLS session, its callbacks, and the identity of the peer. */
#include "crypto/tlssession.h"
#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/x509.h>
#include <string.h>
#include "crypto/authz.h"
#include "crypto/tlscreds-int.h"
#include "trace/trace-crypto.h"
#include "util/error.h"
#include "util/iov.h"

/*
 * The most bytes that one read of the transport takes beyond what GnuTLS asks for. So a record's
 * header arrives with the record before it, and a small record in one call. Of large records only a
 * small part has to be copied.
 */
#define TLS_READ_AHEAD 1024
/* Messages in a row that a peer may send and that carry nothing. */
#define TLS_MAX_IDLE_MESSAGES 32

struct QCryptoTLSSession {
    gnutls_session_t gnutls;
    QCryptoTLSCreds *creds;
    QCryptoTLSTransport transport;
    bool server;
    char *hostname;  /* client: the name that the server must prove; or NULL */
    char *authz_id;  /* server: the authorization object that decides; or NULL */
    char *peer_name; /* after the handshake; or NULL */

    bool verified;        /* the peer's certificate was found good */
    GError *verify_error; /* why it was not */
    int transport_errno;  /* positive: of the last push or pull that failed */

    uint8_t ahead[TLS_READ_AHEAD]; /* received, not yet asked for: [ahead_pos, ahead_len) */
    size_t ahead_pos, ahead_len;

    bool flushing;  /* GnuTLS holds a record that the transport has not taken to its end */
    uint8_t *stage; /* a record put together from small pieces */
};

/* --- transport --- */

static ssize_t tls_transport_result(QCryptoTLSSession *s, ssize_t ret)
{
    if (ret < 0) {
        s->transport_errno = -ret;
        gnutls_transport_set_errno(s->gnutls, -ret);
        return -1;
    }
    return ret;
}

static ssize_t tls_vec_push(gnutls_transport_ptr_t opaque, const giovec_t *iov, int niov)
{
    QCryptoTLSSession *s = opaque;

    /* giovec_t is struct iovec where there is one */
    return tls_transport_result(s, s->transport.push(s->transport.opaque, iov, niov));
}

static ssize_t tls_pull(gnutls_transport_ptr_t opaque, void *buf, size_t bytes)
{
    QCryptoTLSSession *s = opaque;
    struct iovec iov[2] = {{buf, bytes}, {s->ahead, sizeof(s->ahead)}};
    ssize_t len;

    if (s->ahead_pos < s->ahead_len) {
        size_t n = MIN(bytes, s->ahead_len - s->ahead_pos);

        memcpy(buf, s->ahead + s->ahead_pos, n);
        s->ahead_pos += n;
        return n;
    }
    len = s->transport.pull(s->transport.opaque, iov, 2);
    if (len > 0 && (size_t)len > bytes) {
        s->ahead_pos = 0;
        s->ahead_len = len - bytes;
        len = bytes;
    }
    return tls_transport_result(s, len);
}

/* --- errors --- */

/* What went wrong, as -errno and as words behind `what`. */
static int tls_fail(QCryptoTLSSession *s, int ret, const char *what, GError **errp)
{
    switch (ret) {
    case GNUTLS_E_PUSH_ERROR:
    case GNUTLS_E_PULL_ERROR:
        error_setg_errno(errp, s->transport_errno, "%s", what);
        return s->transport_errno ? -s->transport_errno : -EIO;
    case GNUTLS_E_PREMATURE_TERMINATION:
        error_setg(errp, "%s: the peer closed the connection", what);
        return -ECONNABORTED;
    case GNUTLS_E_FATAL_ALERT_RECEIVED: {
        const char *name = gnutls_alert_get_name(gnutls_alert_get(s->gnutls));

        error_setg(errp, "%s: the peer refused it: %s", what, name ? name : "unknown alert");
        return -EACCES;
    }
    default:
        error_setg(errp, "%s: %s", what, gnutls_strerror(ret));
        return -EPROTO;
    }
}

/* --- the identity of the peer --- */

/* GnuTLS has the peer's certificate, within the handshake. Not 0 ends it. */
static int tls_verify(gnutls_session_t gnutls)
{
    QCryptoTLSSession *s = gnutls_session_get_ptr(gnutls);
    gnutls_datum_t text = {NULL, 0};
    unsigned status = 0;
    int ret;

    if (!s->creds->verify_peer) {
        return 0;
    }
    ret = gnutls_certificate_verify_peers3(gnutls, s->hostname, &status);
    if (ret >= 0 && status == 0) {
        s->verified = true;
        return 0;
    }
    if (s->verify_error) {
        return GNUTLS_E_CERTIFICATE_ERROR;
    }
    if (ret < 0) {
        error_setg(&s->verify_error, "Unable to verify the peer's certificate: %s",
                   gnutls_strerror(ret));
        return GNUTLS_E_CERTIFICATE_ERROR;
    }
    (void)gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
    if (status & GNUTLS_CERT_UNEXPECTED_OWNER) {
        error_setg(&s->verify_error, "Certificate does not match the hostname %s", s->hostname);
    } else {
        error_setg(&s->verify_error, "The peer's certificate cannot be trusted: %s",
                   text.data ? g_strchomp((char *)text.data) : "unknown reason");
    }
    gnutls_free(text.data);
    return GNUTLS_E_CERTIFICATE_ERROR;
}

/* The distinguished name in the peer's certificate. */
static char *tls_peer_dn(QCryptoTLSSession *s)
{
    unsigned n = 0;
    const gnutls_datum_t *certs = gnutls_certificate_get_peers(s->gnutls, &n);
    gnutls_datum_t dn = {NULL, 0};
    gnutls_x509_crt_t cert;
    char *name = NULL;

    if (!certs || !n || gnutls_x509_crt_init(&cert) < 0) {
        return NULL;
    }
    if (gnutls_x509_crt_import(cert, &certs[0], GNUTLS_X509_FMT_DER) >= 0 &&
        gnutls_x509_crt_get_dn2(cert, &dn) >= 0) {
        name = g_strndup((char *)dn.data, dn.size);
        gnutls_free(dn.data);
    }
    gnutls_x509_crt_deinit(cert);
    return name;
}

static void tls_note_peer(QCryptoTLSSession *s)
{
    if (s->creds->kind == TLS_CREDS_X509 && s->verified) {
        s->peer_name = tls_peer_dn(s);
    } else if (s->creds->kind == TLS_CREDS_PSK && s->server) {
        s->peer_name = g_strdup(gnutls_psk_server_get_username(s->gnutls));
    }
}

/* The handshake is through. May this peer go on? */
static bool tls_admit(QCryptoTLSSession *s, GError **errp)
{
    if (s->creds->kind == TLS_CREDS_X509 && s->creds->verify_peer && !s->verified) {
        error_setg(errp, "The peer did not provide a certificate");
        return false;
    }
    tls_note_peer(s);
    if (!s->authz_id) {
        return true;
    }
    if (!s->peer_name) {
        error_setg(errp, "The peer is anonymous, so '%s' cannot authorize it", s->authz_id);
        return false;
    }
    return qauthz_is_allowed_by_id(s->authz_id, s->peer_name, errp);
}

/* --- making one --- */

static int tls_set_credentials(QCryptoTLSSession *s)
{
    const QCryptoTLSCreds *creds = s->creds;

    switch (creds->kind) {
    case TLS_CREDS_X509:
        return gnutls_credentials_set(s->gnutls, GNUTLS_CRD_CERTIFICATE, creds->u.x509);
    case TLS_CREDS_PSK:
        return gnutls_credentials_set(s->gnutls, GNUTLS_CRD_PSK,
                                      s->server ? (void *)creds->u.psk_server
                                                : (void *)creds->u.psk_client);
    default:
        return gnutls_credentials_set(s->gnutls, GNUTLS_CRD_ANON,
                                      s->server ? (void *)creds->u.anon_server
                                                : (void *)creds->u.anon_client);
    }
}

/* Names are sent along, addresses are not (RFC 6066, section 3). */
static bool is_ip_address(const char *name)
{
    uint8_t addr[16];

    return inet_pton(AF_INET, name, addr) == 1 || inet_pton(AF_INET6, name, addr) == 1;
}

static QCryptoTLSSession *tls_session_new(QCryptoTLSCreds *creds, bool server,
                                          const QCryptoTLSTransport *transport, GError **errp)
{
    QCryptoTLSSession *s;
    int ret;

    g_assert(server == (creds->endpoint == QCRYPTO_TLS_CREDS_ENDPOINT_SERVER));
    s = g_new0(QCryptoTLSSession, 1);
    s->creds = qcrypto_tls_creds_ref(creds);
    s->transport = *transport;
    s->server = server;
    /* no tickets: no client resumes a session */
    ret = gnutls_init(&s->gnutls, (server ? GNUTLS_SERVER | GNUTLS_NO_TICKETS : GNUTLS_CLIENT) |
                                      GNUTLS_NONBLOCK);
    if (ret >= 0) {
        ret = gnutls_priority_set_direct(s->gnutls, creds->priority, NULL);
    }
    if (ret >= 0) {
        ret = tls_set_credentials(s);
    }
    if (ret < 0) {
        error_setg(errp, "Failed to initialize TLS session: %s", gnutls_strerror(ret));
        qcrypto_tls_session_free(s);
        return NULL;
    }
    gnutls_session_set_ptr(s->gnutls, s);
    gnutls_session_set_verify_function(s->gnutls, tls_verify);
    gnutls_transport_set_ptr(s->gnutls, s);
    gnutls_transport_set_vec_push_function(s->gnutls, tls_vec_push);
    gnutls_transport_set_pull_function(s->gnutls, tls_pull);
    return s;
}

QCryptoTLSSession *qcrypto_tls_session_new_client(QCryptoTLSCreds *creds, const char *hostname,
                                                  const QCryptoTLSTransport *transport,
                                                  GError **errp)
{
    QCryptoTLSSession *s;

    if (creds->kind == TLS_CREDS_X509 && creds->verify_peer && !hostname) {
        error_setg(errp, "No hostname for certificate validation");
        return NULL;
    }
    s = tls_session_new(creds, false, transport, errp);
    if (s && hostname) {
        s->hostname = g_strdup(hostname);
        if (!is_ip_address(hostname)) {
            /* only a hint for the server: a name that cannot be sent does no harm */
            (void)gnutls_server_name_set(s->gnutls, GNUTLS_NAME_DNS, hostname, strlen(hostname));
        }
    }
    return s;
}

QCryptoTLSSession *qcrypto_tls_session_new_server(QCryptoTLSCreds *creds, const char *authz_id,
                                                  const QCryptoTLSTransport *transport,
                                                  GError **errp)
{
    QCryptoTLSSession *s = tls_session_new(creds, true, transport, errp);

    if (s) {
        s->authz_id = g_strdup(authz_id);
        gnutls_certificate_server_set_request(s->gnutls, creds->verify_peer ? GNUTLS_CERT_REQUIRE
                                                                            : GNUTLS_CERT_IGNORE);
    }
    return s;
}

void qcrypto_tls_session_free(QCryptoTLSSession *s)
{
    if (!s) {
        return;
    }
    if (s->gnutls) {
        gnutls_deinit(s->gnutls);
    }
    g_clear_error(&s->verify_error);
    qcrypto_tls_creds_unref(s->creds);
    if (s->stage) {
        explicit_bzero(s->stage, QCRYPTO_TLS_RECORD_MAX);
    }
    g_free(s->stage);
    g_free(s->hostname);
    g_free(s->authz_id);
    g_free(s->peer_name);
    g_free(s);
}

/* --- handshake --- */

static QCryptoTLSHandshake tls_handshake_failed(QCryptoTLSSession *s, int ret, GError **errp)
{
    if (s->verify_error) {
        g_propagate_error(errp, g_steal_pointer(&s->verify_error));
    } else {
        (void)tls_fail(s, ret, "TLS handshake failed", errp);
    }
    (void)gnutls_alert_send_appropriate(s->gnutls, ret);
    return QCRYPTO_TLS_HANDSHAKE_FAILED;
}

QCryptoTLSHandshake qcrypto_tls_session_handshake(QCryptoTLSSession *s, GError **errp)
{
    int ret = gnutls_handshake(s->gnutls);

    if (ret == GNUTLS_E_SUCCESS) {
        if (!tls_admit(s, errp)) {
            (void)gnutls_alert_send(s->gnutls, GNUTLS_AL_FATAL, GNUTLS_A_ACCESS_DENIED);
            return QCRYPTO_TLS_HANDSHAKE_FAILED;
        }
        trace_tls_session_established(s, s->server, s->peer_name ? s->peer_name : "");
        return QCRYPTO_TLS_HANDSHAKE_COMPLETE;
    }
    if (gnutls_error_is_fatal(ret)) {
        return tls_handshake_failed(s, ret, errp);
    }
    return gnutls_record_get_direction(s->gnutls) ? QCRYPTO_TLS_HANDSHAKE_WRITE
                                                  : QCRYPTO_TLS_HANDSHAKE_READ;
}

/* --- data --- */

ssize_t qcrypto_tls_session_read(QCryptoTLSSession *s, void *buf, size_t bytes, GError **errp)
{
    ssize_t ret = 0;

    for (int i = 0; i < TLS_MAX_IDLE_MESSAGES; i++) {
        ret = gnutls_record_recv(s->gnutls, buf, bytes);
        if (ret >= 0) {
            return ret;
        }
        if (ret == GNUTLS_E_AGAIN) {
            return -EAGAIN;
        }
        /* renegotiation and requests for another certificate are refused */
        if (gnutls_error_is_fatal(ret) || ret == GNUTLS_E_REHANDSHAKE ||
            ret == GNUTLS_E_REAUTH_REQUEST) {
            break;
        }
    }
    return tls_fail(s, ret, "Cannot read from TLS channel", errp);
}

/*
 * The next record's bytes: the caller's own memory where one piece fills it, else pieces put
 * together. NULL: none left.
 */
static const void *tls_next_record(QCryptoTLSSession *s, const IovCursor *cur, size_t *bytes)
{
    size_t n = 0, skip = cur->skip;

    if (!cur->niov) {
        return NULL;
    }
    n = cur->iov->iov_len - skip;
    if (n >= QCRYPTO_TLS_RECORD_MAX || cur->niov == 1) {
        *bytes = MIN(n, QCRYPTO_TLS_RECORD_MAX);
        return (const uint8_t *)cur->iov->iov_base + skip;
    }
    if (!s->stage) {
        s->stage = g_malloc(QCRYPTO_TLS_RECORD_MAX);
    }
    n = 0;
    for (size_t i = 0; i < cur->niov && n < QCRYPTO_TLS_RECORD_MAX; i++, skip = 0) {
        size_t len = MIN(cur->iov[i].iov_len - skip, QCRYPTO_TLS_RECORD_MAX - n);

        memcpy(s->stage + n, (const uint8_t *)cur->iov[i].iov_base + skip, len);
        n += len;
    }
    *bytes = n;
    return s->stage;
}

ssize_t qcrypto_tls_session_write(QCryptoTLSSession *s, const struct iovec *iov, size_t niov,
                                  GError **errp)
{
    IovCursor cur = {iov, niov, 0};
    ssize_t done = 0, ret = 0;

    iov_cursor_advance(&cur, 0); /* over empty elements */
    while (cur.niov) {
        size_t bytes = 0;
        const void *data = s->flushing ? NULL : tls_next_record(s, &cur, &bytes);

        do {
            ret = gnutls_record_send(s->gnutls, data, bytes);
        } while (ret == GNUTLS_E_INTERRUPTED);
        if (ret < 0) {
            break;
        }
        s->flushing = false;
        done += ret;
        iov_cursor_advance(&cur, ret);
    }
    if (ret == GNUTLS_E_AGAIN) {
        s->flushing = true;
        return done ? done : -EAGAIN;
    }
    if (ret < 0 && !done) {
        return tls_fail(s, ret, "Cannot write to TLS channel", errp);
    }
    return done;
}

bool qcrypto_tls_session_pending(const QCryptoTLSSession *s)
{
    return s->ahead_pos < s->ahead_len || gnutls_record_check_pending(s->gnutls) > 0;
}

int qcrypto_tls_session_bye(QCryptoTLSSession *s)
{
    int ret = gnutls_bye(s->gnutls, GNUTLS_SHUT_WR);

    if (ret >= 0) {
        return 0;
    }
    return gnutls_error_is_fatal(ret) ? tls_fail(s, ret, "Cannot end TLS session", NULL) : -EAGAIN;
}

const char *qcrypto_tls_session_get_peer_name(const QCryptoTLSSession *s)
{
    return s->peer_name;
}
