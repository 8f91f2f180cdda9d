/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Are these certificates fit for their purpose? (RFC 5280, sections 4.1.2.5 and 4.2.1.) An
 * extension that says no and is critical is an error; one that is not critical is a warning, for
 * peers may overlook it.
 */
#include <gnutls/x509.h>
#include <time.h>
#include "crypto/tlscreds-int.h"
#include "util/error.h"

typedef struct CertList {
    gnutls_x509_crt_t *certs;
    unsigned n;
} CertList;

static void cert_list_clear(CertList *list)
{
    for (unsigned i = 0; i < list->n; i++) {
        gnutls_x509_crt_deinit(list->certs[i]);
    }
    gnutls_free(list->certs);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(CertList, cert_list_clear)

/* A certificate to be looked at. */
typedef struct CertCheck {
    gnutls_x509_crt_t cert;
    const char *path;
    bool is_ca; /* an authority is wanted, not an end */
    QCryptoTLSCredsEndpoint endpoint;
} CertCheck;

static const char *check_what(const CertCheck *check)
{
    return check->is_ca ? "CA" : QCryptoTLSCredsEndpoint_str(check->endpoint);
}

static bool cert_list_import(CertList *list, const gnutls_datum_t *pem, const char *what,
                             const char *path, GError **errp)
{
    int ret = gnutls_x509_crt_list_import2(&list->certs, &list->n, pem, GNUTLS_X509_FMT_PEM, 0);

    if (ret < 0 || list->n == 0) {
        error_setg(errp, "Unable to import %s certificate %s: %s", what, path,
                   ret < 0 ? gnutls_strerror(ret) : "it holds no certificate");
        return false;
    }
    return true;
}

static bool check_times(const CertCheck *check, GError **errp)
{
    time_t now = time(NULL);

    if (gnutls_x509_crt_get_expiration_time(check->cert) < now) {
        error_setg(errp, "The %s certificate %s has expired", check_what(check), check->path);
        return false;
    }
    if (gnutls_x509_crt_get_activation_time(check->cert) > now) {
        error_setg(errp, "The %s certificate %s is not yet active", check_what(check), check->path);
        return false;
    }
    return true;
}

static bool check_basic_constraints(const CertCheck *check, GError **errp)
{
    unsigned critical = 0, ca = 0;
    int ret = gnutls_x509_crt_get_basic_constraints(check->cert, &critical, &ca, NULL);

    if (ret == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
        ca = 0;
        if (check->is_ca) {
            error_setg(errp, "The certificate %s is missing basic constraints for a CA",
                       check->path);
            return false;
        }
    } else if (ret < 0) {
        error_setg(errp, "Unable to query certificate %s basic constraints: %s", check->path,
                   gnutls_strerror(ret));
        return false;
    }
    if (check->is_ca && !ca) {
        error_setg(errp, "The certificate %s basic constraints do not show a CA", check->path);
        return false;
    }
    if (!check->is_ca && ca) {
        error_setg(errp, "The certificate %s basic constraints show a CA, but we need one for a %s",
                   check->path, check_what(check));
        return false;
    }
    return true;
}

/*
 * Reports a use that an extension forbids: an error if the extension is critical, else a warning.
 */
static bool unfit(const CertCheck *check, bool critical, const char *why, GError **errp)
{
    if (critical) {
        error_setg(errp, "Certificate %s %s", check->path, why);
        return false;
    }
    warn_report("Certificate %s %s", check->path, why);
    return true;
}

static bool check_key_usage(const CertCheck *check, GError **errp)
{
    unsigned usage = 0, critical = 0;
    int ret = gnutls_x509_crt_get_key_usage(check->cert, &usage, &critical);

    if (ret == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
        return true; /* all uses */
    }
    if (ret < 0) {
        error_setg(errp, "Unable to query certificate %s key usage: %s", check->path,
                   gnutls_strerror(ret));
        return false;
    }
    if (check->is_ca && !(usage & GNUTLS_KEY_KEY_CERT_SIGN)) {
        return unfit(check, critical, "usage does not permit certificate signing", errp);
    }
    if (!check->is_ca && !(usage & (GNUTLS_KEY_DIGITAL_SIGNATURE | GNUTLS_KEY_KEY_ENCIPHERMENT))) {
        return unfit(check, critical, "usage does not permit digital signature", errp);
    }
    return true;
}

static bool check_key_purpose(const CertCheck *check, GError **errp)
{
    bool server = check->endpoint == QCRYPTO_TLS_CREDS_ENDPOINT_SERVER;
    const char *wanted = server ? GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT;
    bool any_critical = false;

    for (unsigned i = 0;; i++) {
        char oid[128];
        size_t size = sizeof(oid);
        unsigned critical = 0;
        int ret = gnutls_x509_crt_get_key_purpose_oid(check->cert, i, oid, &size, &critical);

        if (ret == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
            if (i == 0) {
                return true; /* all purposes */
            }
            break;
        }
        if (ret < 0 && ret != GNUTLS_E_SHORT_MEMORY_BUFFER) {
            error_setg(errp, "Unable to query certificate %s key purpose: %s", check->path,
                       gnutls_strerror(ret));
            return false;
        }
        any_critical = any_critical || critical;
        if (ret >= 0 && (!g_strcmp0(oid, wanted) || !g_strcmp0(oid, GNUTLS_KP_ANY))) {
            return true;
        }
    }
    return unfit(check, any_critical,
                 server ? "purpose does not allow use with a TLS server"
                        : "purpose does not allow use with a TLS client",
                 errp);
}

static bool check_cert(const CertCheck *check, GError **errp)
{
    return check_times(check, errp) && check_basic_constraints(check, errp) &&
           check_key_usage(check, errp) && (check->is_ca || check_key_purpose(check, errp));
}

/* Would a peer with the same authorities believe us? */
static bool check_chain(const CertList *ca, const CertList *own, const char *ca_path,
                        const char *own_path, GError **errp)
{
    unsigned status = 0;
    gnutls_datum_t text = {NULL, 0};
    int ret =
        gnutls_x509_crt_list_verify(own->certs, own->n, ca->certs, ca->n, NULL, 0, 0, &status);

    if (ret < 0) {
        error_setg(errp, "Unable to verify certificate %s against CA certificate %s: %s", own_path,
                   ca_path, gnutls_strerror(ret));
        return false;
    }
    if (status) {
        (void)gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
        error_setg(errp, "Our own certificate %s failed validation against %s: %s", own_path,
                   ca_path, text.data ? g_strchomp((char *)text.data) : "not trusted");
        gnutls_free(text.data);
        return false;
    }
    return true;
}

bool tls_creds_check_certs(const QCryptoTLSCreds *creds, const gnutls_datum_t *ca_pem,
                           const gnutls_datum_t *cert_pem, GError **errp)
{
    bool server = creds->endpoint == QCRYPTO_TLS_CREDS_ENDPOINT_SERVER;
    g_autofree char *ca_path = tls_creds_path(creds, QCRYPTO_TLS_CREDS_X509_CA_CERT);
    g_autofree char *path = tls_creds_path(creds, server ? QCRYPTO_TLS_CREDS_X509_SERVER_CERT
                                                         : QCRYPTO_TLS_CREDS_X509_CLIENT_CERT);
    g_auto(CertList) ca = {0}, own = {0};

    if (!cert_list_import(&ca, ca_pem, "CA", ca_path, errp)) {
        return false;
    }
    /*
     * one of a distribution's many authorities may be past its time; if it is ours, the chain says
     * so
     */
    if (ca.n == 1) {
        CertCheck check = {ca.certs[0], ca_path, true, creds->endpoint};

        if (!check_cert(&check, errp)) {
            return false;
        }
    }
    if (!cert_pem->size) {
        return true;
    }
    if (!cert_list_import(&own, cert_pem, QCryptoTLSCredsEndpoint_str(creds->endpoint), path,
                          errp)) {
        return false;
    }
    for (unsigned i = 0; i < own.n; i++) {
        CertCheck check = {own.certs[i], path, i > 0, creds->endpoint};

        if (!check_cert(&check, errp)) {
            return false;
        }
    }
    return check_chain(&ca, &own, ca_path, path, errp);
}
