/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Certificates for tests, made on the spot with GnuTLS (P-256 keys). Failures abort the test. */
#ifndef FERRY_TESTS_TLS_PKI_H
#define FERRY_TESTS_TLS_PKI_H

#include <gnutls/x509.h>
#include <stdbool.h>

typedef struct PkiCert {
    gnutls_x509_crt_t cert;
    gnutls_x509_privkey_t key;
} PkiCert;

/* What a certificate says. */
typedef struct PkiTemplate {
    const char *cn;
    const char *dns;           /* subject alternative name; NULL: none */
    bool ca;                   /* basic constraints */
    unsigned usage;            /* GNUTLS_KEY_*; 0: no such extension. Always critical */
    const char *purpose;       /* GNUTLS_KP_*; NULL: no such extension. Critical */
    int from_days, until_days; /* from now; both 0: yesterday to tomorrow */
} PkiTemplate;

/* issuer NULL: signed by itself. */
PkiCert pki_make(const PkiTemplate *tmpl, const PkiCert *issuer);
void pki_free(PkiCert *cert);
/* Writes the certificate (what 'c') or the key ('k') to DIR/NAME. */
void pki_write(const PkiCert *cert, char what, const char *dir, const char *name);

#endif
