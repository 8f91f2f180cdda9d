/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Certificates for tests. */
#include "tests/unit/tls-pki.h"
#include <glib.h>
#include <string.h>
#include <time.h>

#define DAY_SECONDS 86400

static void must(int ret)
{
    if (ret < 0) {
        g_error("GnuTLS: %s", gnutls_strerror(ret));
    }
}

PkiCert pki_make(const PkiTemplate *tmpl, const PkiCert *issuer)
{
    static unsigned char serial = 1;
    bool default_times = !tmpl->from_days && !tmpl->until_days;
    time_t now = time(NULL);
    PkiCert c;

    must(gnutls_x509_privkey_init(&c.key));
    must(gnutls_x509_privkey_generate(c.key, GNUTLS_PK_ECDSA,
                                      GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
    must(gnutls_x509_crt_init(&c.cert));
    must(gnutls_x509_crt_set_version(c.cert, 3));
    must(gnutls_x509_crt_set_serial(c.cert, &serial, 1));
    serial++;
    must(gnutls_x509_crt_set_key(c.cert, c.key));
    must(gnutls_x509_crt_set_dn_by_oid(c.cert, GNUTLS_OID_X520_COMMON_NAME, 0, tmpl->cn,
                                       strlen(tmpl->cn)));
    must(gnutls_x509_crt_set_activation_time(c.cert, now + (default_times ? -1 : tmpl->from_days) *
                                                               DAY_SECONDS));
    must(gnutls_x509_crt_set_expiration_time(c.cert, now + (default_times ? 1 : tmpl->until_days) *
                                                               DAY_SECONDS));
    must(gnutls_x509_crt_set_basic_constraints(c.cert, tmpl->ca, -1));
    if (tmpl->dns) {
        must(gnutls_x509_crt_set_subject_alt_name(c.cert, GNUTLS_SAN_DNSNAME, tmpl->dns,
                                                  strlen(tmpl->dns), GNUTLS_FSAN_APPEND));
    }
    if (tmpl->usage) {
        must(gnutls_x509_crt_set_key_usage(c.cert, tmpl->usage));
    }
    if (tmpl->purpose) {
        must(gnutls_x509_crt_set_key_purpose_oid(c.cert, tmpl->purpose, 1));
    }
    must(gnutls_x509_crt_sign2(c.cert, issuer ? issuer->cert : c.cert, issuer ? issuer->key : c.key,
                               GNUTLS_DIG_SHA256, 0));
    return c;
}

void pki_free(PkiCert *c)
{
    gnutls_x509_crt_deinit(c->cert);
    gnutls_x509_privkey_deinit(c->key);
}

void pki_write(const PkiCert *c, char what, const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    gnutls_datum_t pem;

    if (what == 'c') {
        must(gnutls_x509_crt_export2(c->cert, GNUTLS_X509_FMT_PEM, &pem));
    } else {
        must(gnutls_x509_privkey_export2(c->key, GNUTLS_X509_FMT_PEM, &pem));
    }
    g_assert_true(g_file_set_contents(path, (char *)pem.data, pem.size, NULL));
    gnutls_free(pem.data);
}
