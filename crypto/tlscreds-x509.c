/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tls-creds-x509: a certificate authority, and a certificate of our own with its key. A server must
 * have one; a client may.
 */
#include "crypto/secret.h"
#include "crypto/tlscreds-int.h"
#include "util/error.h"
#include "util/wipe.h"

/* The PEM files of the folder; empty where there is none. */
typedef struct X509Files {
    gnutls_datum_t ca, crl, cert, key;
    const char *cert_name, *key_name;
} X509Files;

static void x509_files_clear(X509Files *files)
{
    tls_creds_wipe_file(&files->ca);
    tls_creds_wipe_file(&files->crl);
    tls_creds_wipe_file(&files->cert);
    tls_creds_wipe_file(&files->key);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(X509Files, x509_files_clear)

static bool x509_read_files(const QCryptoTLSCreds *creds, X509Files *files, GError **errp)
{
    bool server = creds->endpoint == QCRYPTO_TLS_CREDS_ENDPOINT_SERVER;
    int have_cert;

    files->cert_name =
        server ? QCRYPTO_TLS_CREDS_X509_SERVER_CERT : QCRYPTO_TLS_CREDS_X509_CLIENT_CERT;
    files->key_name =
        server ? QCRYPTO_TLS_CREDS_X509_SERVER_KEY : QCRYPTO_TLS_CREDS_X509_CLIENT_KEY;
    if (tls_creds_read_file(creds, QCRYPTO_TLS_CREDS_X509_CA_CERT, true, &files->ca, errp) < 0 ||
        tls_creds_read_file(creds, QCRYPTO_TLS_CREDS_X509_CA_CRL, false, &files->crl, errp) < 0) {
        return false;
    }
    have_cert = tls_creds_read_file(creds, files->cert_name, server, &files->cert, errp);
    return have_cert == 0 || (have_cert > 0 && tls_creds_read_file(creds, files->key_name, true,
                                                                   &files->key, errp) > 0);
}

static bool x509_load_authority(QCryptoTLSCreds *creds, const X509Files *files, GError **errp)
{
    int ret = gnutls_certificate_set_x509_trust_mem(creds->u.x509, &files->ca, GNUTLS_X509_FMT_PEM);

    if (ret <= 0) {
        g_autofree char *path = tls_creds_path(creds, QCRYPTO_TLS_CREDS_X509_CA_CERT);

        error_setg(errp, "Unable to import CA certificate list %s: %s", path,
                   ret < 0 ? gnutls_strerror(ret) : "it holds no certificate");
        return false;
    }
    if (!files->crl.size) {
        return true;
    }
    ret = gnutls_certificate_set_x509_crl_mem(creds->u.x509, &files->crl, GNUTLS_X509_FMT_PEM);
    if (ret <= 0) {
        g_autofree char *path = tls_creds_path(creds, QCRYPTO_TLS_CREDS_X509_CA_CRL);

        error_setg(errp, "Unable to import certificate revocation list %s: %s", path,
                   ret < 0 ? gnutls_strerror(ret) : "it holds no list");
        return false;
    }
    return true;
}

static bool x509_load_own(QCryptoTLSCreds *creds, const X509Files *files, const char *passwordid,
                          GError **errp)
{
    g_autofree char *cert_path = tls_creds_path(creds, files->cert_name);
    g_autofree char *key_path = tls_creds_path(creds, files->key_name);
    char *password = NULL;
    int ret;

    if (passwordid) {
        password = qcrypto_secret_lookup_as_utf8(passwordid, errp);
        if (!password) {
            return false;
        }
    }
    ret = gnutls_certificate_set_x509_key_mem2(creds->u.x509, &files->cert, &files->key,
                                               GNUTLS_X509_FMT_PEM, password, 0);
    wipe_free_text(password);
    if (ret < 0) {
        error_setg(errp, "Cannot load certificate '%s' & key '%s': %s%s", cert_path, key_path,
                   gnutls_strerror(ret),
                   ret == GNUTLS_E_DECRYPTION_FAILED && !passwordid
                       ? " (the key is encrypted, but no passwordid was given)"
                       : "");
        return false;
    }
    return true;
}

static bool x509_load(QCryptoTLSCreds *creds, const TlsCredsX509Properties *props, GError **errp)
{
    g_auto(X509Files) files = {0};
    int ret;

    if (!x509_read_files(creds, &files, errp)) {
        return false;
    }
    if ((!props->has_sanity_check || props->sanity_check) &&
        !tls_creds_check_certs(creds, &files.ca, &files.cert, errp)) {
        return false;
    }
    ret = gnutls_certificate_allocate_credentials(&creds->u.x509);
    if (ret < 0) {
        error_setg(errp, "Cannot make TLS credentials: %s", gnutls_strerror(ret));
        return false;
    }
    if (!x509_load_authority(creds, &files, errp) ||
        (files.cert.size && !x509_load_own(creds, &files, props->passwordid, errp))) {
        return false;
    }
    if (creds->endpoint == QCRYPTO_TLS_CREDS_ENDPOINT_SERVER) {
        if (!tls_creds_load_dh_params(creds, errp)) {
            return false;
        }
        if (creds->dh_params) {
            gnutls_certificate_set_dh_params(creds->u.x509, creds->dh_params);
        }
    }
    return true;
}

QCryptoTLSCreds *qcrypto_tls_creds_x509_new(const TlsCredsX509Properties *props, GError **errp)
{
    /* the members of a base come first in a QAPI struct */
    g_autoptr(QCryptoTLSCreds) creds =
        tls_creds_new(TLS_CREDS_X509, (const TlsCredsProperties *)props, errp);

    if (!creds || !x509_load(creds, props, errp)) {
        return NULL;
    }
    return g_steal_pointer(&creds);
}
