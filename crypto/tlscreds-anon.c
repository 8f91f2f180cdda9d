/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tls-creds-anon: encryption without a proof of identity. */
#include "crypto/tlscreds-int.h"
#include "util/error.h"

QCryptoTLSCreds *qcrypto_tls_creds_anon_new(const TlsCredsAnonProperties *props, GError **errp)
{
    /* the members of a base come first in a QAPI struct */
    g_autoptr(QCryptoTLSCreds) creds =
        tls_creds_new(TLS_CREDS_ANON, (const TlsCredsProperties *)props, errp);
    int ret;

    if (!creds) {
        return NULL;
    }
    if (creds->endpoint == QCRYPTO_TLS_CREDS_ENDPOINT_SERVER) {
        if (!tls_creds_load_dh_params(creds, errp)) {
            return NULL;
        }
        ret = gnutls_anon_allocate_server_credentials(&creds->u.anon_server);
        if (ret >= 0 && creds->dh_params) {
            gnutls_anon_set_server_dh_params(creds->u.anon_server, creds->dh_params);
        } else if (ret >= 0) {
            ret = gnutls_anon_set_server_known_dh_params(creds->u.anon_server,
                                                         GNUTLS_SEC_PARAM_MEDIUM);
        }
    } else {
        ret = gnutls_anon_allocate_client_credentials(&creds->u.anon_client);
    }
    if (ret < 0) {
        error_setg(errp, "Cannot make anonymous TLS credentials: %s", gnutls_strerror(ret));
        return NULL;
    }
    return g_steal_pointer(&creds);
}
