/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLS credentials: what all kinds have in common, and finding them by id. */
#include "crypto/tlscreds.h"
#include <string.h>
#include <unistd.h>
#include "crypto/tlscreds-int.h"
#include "qom/user-creatable.h"
#include "util/error.h"
#include "util/read-file.h"
#include "util/wipe.h"

/*
 * What a kind of credentials needs besides the certificate-based key exchanges. Anonymous ones do
 * not exist in TLS 1.3.
 */
static const char *const kind_priority[] = {
    [TLS_CREDS_X509] = "",
    [TLS_CREDS_PSK] = ":+ECDHE-PSK:+DHE-PSK:+PSK",
    [TLS_CREDS_ANON] = ":+ANON-ECDH:+ANON-DH:-VERS-TLS1.3",
};
#define TLS_PRIORITY_DEFAULT "NORMAL"
/* Applies to what users give as well: older versions are never spoken. */
#define TLS_PRIORITY_MINIMUM ":-VERS-SSL3.0:-VERS-TLS1.0:-VERS-TLS1.1"

/*
 * Keys that are shared beforehand rule out AES-256-GCM (its hash is another one). GnuTLS puts
 * ChaCha20 next, which costs ten times as much as AES-128-GCM on a processor with AES instructions.
 * Only the order changes, and only where the user has not chosen one.
 */
static const char *cipher_order(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul")) {
        return ":-CHACHA20-POLY1305:+CHACHA20-POLY1305:%SERVER_PRECEDENCE";
    }
#endif
    return "";
}

/* Makes and checks the priority string. */
static bool tls_creds_set_priority(QCryptoTLSCreds *creds, const char *priority, GError **errp)
{
    gnutls_priority_t cache;
    const char *where = NULL;
    int ret;

    creds->priority =
        g_strconcat(priority ? priority : TLS_PRIORITY_DEFAULT, kind_priority[creds->kind],
                    priority ? "" : cipher_order(), TLS_PRIORITY_MINIMUM, NULL);
    ret = gnutls_priority_init(&cache, creds->priority, &where);
    if (ret < 0) {
        error_setg(errp, "Unable to set TLS session priority '%s': %s at '%s'",
                   priority ? priority : TLS_PRIORITY_DEFAULT, gnutls_strerror(ret),
                   where ? where : "");
        return false;
    }
    gnutls_priority_deinit(cache);
    return true;
}

QCryptoTLSCreds *tls_creds_new(TLSCredsKind kind, const TlsCredsProperties *props, GError **errp)
{
    g_autoptr(QCryptoTLSCreds) creds = g_new0(QCryptoTLSCreds, 1);

    creds->refcount = 1;
    creds->kind = kind;
    creds->endpoint = props->has_endpoint ? props->endpoint : QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT;
    creds->verify_peer = !props->has_verify_peer || props->verify_peer;
    if (props->dir) {
        creds->dir = g_canonicalize_filename(props->dir, NULL);
    } else if (kind != TLS_CREDS_ANON) {
        error_setg(errp, "Missing 'dir' property value");
        return NULL;
    }
    if (!tls_creds_set_priority(creds, props->priority, errp)) {
        return NULL;
    }
    return g_steal_pointer(&creds);
}

static void tls_creds_free(QCryptoTLSCreds *creds)
{
    bool server = creds->endpoint == QCRYPTO_TLS_CREDS_ENDPOINT_SERVER;

    if (creds->kind == TLS_CREDS_X509 && creds->u.x509) {
        gnutls_certificate_free_credentials(creds->u.x509);
    } else if (creds->kind == TLS_CREDS_PSK && server && creds->u.psk_server) {
        gnutls_psk_free_server_credentials(creds->u.psk_server);
    } else if (creds->kind == TLS_CREDS_PSK && !server && creds->u.psk_client) {
        gnutls_psk_free_client_credentials(creds->u.psk_client);
    } else if (creds->kind == TLS_CREDS_ANON && server && creds->u.anon_server) {
        gnutls_anon_free_server_credentials(creds->u.anon_server);
    } else if (creds->kind == TLS_CREDS_ANON && !server && creds->u.anon_client) {
        gnutls_anon_free_client_credentials(creds->u.anon_client);
    }
    if (creds->dh_params) {
        gnutls_dh_params_deinit(creds->dh_params);
    }
    g_free(creds->id);
    g_free(creds->dir);
    g_free(creds->priority);
    g_free(creds);
}

QCryptoTLSCreds *qcrypto_tls_creds_ref(QCryptoTLSCreds *creds)
{
    g_atomic_int_inc(&creds->refcount);
    return creds;
}

void qcrypto_tls_creds_unref(QCryptoTLSCreds *creds)
{
    if (creds && g_atomic_int_dec_and_test(&creds->refcount)) {
        tls_creds_free(creds);
    }
}

/* --- files --- */

char *tls_creds_path(const QCryptoTLSCreds *creds, const char *name)
{
    return g_build_filename(creds->dir, name, NULL);
}

int tls_creds_read_file(const QCryptoTLSCreds *creds, const char *name, bool required,
                        gnutls_datum_t *data, GError **errp)
{
    g_autofree char *path = tls_creds_path(creds, name);
    g_autoptr(GError) err = NULL;
    uint8_t *bytes;
    size_t size;

    if (!required && access(path, F_OK) < 0) {
        return 0;
    }
    if (!qemu_read_file(path, TLS_CREDS_MAX_FILE, &bytes, &size, &err)) {
        error_setg(errp, "Unable to access credentials: %s", err->message);
        return -1;
    }
    *data = (gnutls_datum_t){bytes, size};
    return 1;
}

void tls_creds_wipe_file(gnutls_datum_t *data)
{
    wipe_free(data->data, data->size);
    *data = (gnutls_datum_t){NULL, 0};
}

bool tls_creds_load_dh_params(QCryptoTLSCreds *creds, GError **errp)
{
    g_auto(gnutls_datum_t) pem = {NULL, 0};
    int ret =
        creds->dir ? tls_creds_read_file(creds, QCRYPTO_TLS_CREDS_DH_PARAMS, false, &pem, errp) : 0;

    if (ret <= 0) {
        return ret == 0;
    }
    ret = gnutls_dh_params_init(&creds->dh_params);
    if (ret >= 0) {
        ret = gnutls_dh_params_import_pkcs3(creds->dh_params, &pem, GNUTLS_X509_FMT_PEM);
    }
    if (ret < 0) {
        g_autofree char *path = tls_creds_path(creds, QCRYPTO_TLS_CREDS_DH_PARAMS);

        error_setg(errp, "Unable to load DH parameters from %s: %s", path, gnutls_strerror(ret));
        return false;
    }
    return true;
}

/* --- by id --- */

static const ObjectType tls_creds_types[] = {OBJECT_TYPE_TLS_CREDS_X509, OBJECT_TYPE_TLS_CREDS_PSK,
                                             OBJECT_TYPE_TLS_CREDS_ANON};

QCryptoTLSCreds *qcrypto_tls_creds_acquire(const char *id, QCryptoTLSCredsEndpoint endpoint,
                                           GError **errp)
{
    UserCreatable *object = NULL;
    QCryptoTLSCreds *creds;

    for (size_t i = 0; i < G_N_ELEMENTS(tls_creds_types) && !object; i++) {
        object = user_creatable_find(id, tls_creds_types[i], NULL);
    }
    if (!object) {
        error_setg(errp, "No TLS credentials with id '%s'", id);
        return NULL;
    }
    creds = user_creatable_get(object);
    if (creds->endpoint != endpoint) {
        error_setg(errp, "Expected TLS credentials for a %s endpoint, '%s' is for a %s",
                   QCryptoTLSCredsEndpoint_str(endpoint), id,
                   QCryptoTLSCredsEndpoint_str(creds->endpoint));
        return NULL;
    }
    g_atomic_int_inc(&creds->users);
    return qcrypto_tls_creds_ref(creds);
}

void qcrypto_tls_creds_release(QCryptoTLSCreds *creds)
{
    if (creds) {
        g_atomic_int_add(&creds->users, -1);
        qcrypto_tls_creds_unref(creds);
    }
}
