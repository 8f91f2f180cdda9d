/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tls-creds-psk: keys that both ends know. keys.psk has lines "USER:KEY" with the key in
 * hexadecimal, as psktool(1) makes them. A client takes one user's key; a server lets GnuTLS look
 * up the user of each connection, so that users can be added while it runs.
 */
#include <string.h>
#include "crypto/tlscreds-int.h"
#include "util/error.h"
#include "util/wipe.h"

#define PSK_DEFAULT_USER "qemu"

/* The key of `user`, in hexadecimal; NULL: not there. Free it with wipe_free_text(). */
static char *psk_find_key(const char *text, const char *user)
{
    size_t len = strlen(user);

    while (*text) {
        size_t line = strcspn(text, "\r\n");

        if (line > len && !strncmp(text, user, len) && text[len] == ':') {
            return g_strndup(text + len + 1, line - len - 1);
        }
        text += line;
        text += strspn(text, "\r\n");
    }
    return NULL;
}

static bool psk_key_is_valid(const char *hex)
{
    size_t len = strspn(hex, "0123456789abcdefABCDEF");

    return len > 0 && len % 2 == 0 && hex[len] == 0;
}

static bool psk_load_client(QCryptoTLSCreds *creds, const char *user, const char *text,
                            const char *path, GError **errp)
{
    char *key = psk_find_key(text, user);
    gnutls_datum_t key_datum = {(unsigned char *)key, key ? strlen(key) : 0};
    int ret = 0;

    if (!key) {
        error_setg(errp, "Username %s not found in PSK file %s", user, path);
        return false;
    }
    if (!psk_key_is_valid(key)) {
        error_setg(errp, "The key of user %s in PSK file %s is not in hexadecimal", user, path);
        wipe_free_text(key);
        return false;
    }
    ret = gnutls_psk_allocate_client_credentials(&creds->u.psk_client);
    if (ret >= 0) {
        ret = gnutls_psk_set_client_credentials(creds->u.psk_client, user, &key_datum,
                                                GNUTLS_PSK_KEY_HEX);
    }
    wipe_free_text(key);
    if (ret < 0) {
        error_setg(errp, "Cannot use the key of user %s in PSK file %s: %s", user, path,
                   gnutls_strerror(ret));
        return false;
    }
    return true;
}

static bool psk_load_server(QCryptoTLSCreds *creds, const char *path, GError **errp)
{
    int ret;

    if (!tls_creds_load_dh_params(creds, errp)) {
        return false;
    }
    ret = gnutls_psk_allocate_server_credentials(&creds->u.psk_server);
    if (ret >= 0) {
        ret = gnutls_psk_set_server_credentials_file(creds->u.psk_server, path);
    }
    if (ret >= 0 && creds->dh_params) {
        gnutls_psk_set_server_dh_params(creds->u.psk_server, creds->dh_params);
    } else if (ret >= 0) {
        ret = gnutls_psk_set_server_known_dh_params(creds->u.psk_server, GNUTLS_SEC_PARAM_MEDIUM);
    }
    if (ret < 0) {
        error_setg(errp, "Cannot use PSK file %s: %s", path, gnutls_strerror(ret));
        return false;
    }
    return true;
}

QCryptoTLSCreds *qcrypto_tls_creds_psk_new(const TlsCredsPskProperties *props, GError **errp)
{
    /* the members of a base come first in a QAPI struct */
    g_autoptr(QCryptoTLSCreds) creds =
        tls_creds_new(TLS_CREDS_PSK, (const TlsCredsProperties *)props, errp);
    g_auto(gnutls_datum_t) file = {NULL, 0};
    g_autofree char *path = NULL;
    bool server, ok;

    if (!creds) {
        return NULL;
    }
    server = creds->endpoint == QCRYPTO_TLS_CREDS_ENDPOINT_SERVER;
    if (server && props->username) {
        error_setg(errp, "username should not be set when endpoint=server");
        return NULL;
    }
    path = tls_creds_path(creds, QCRYPTO_TLS_CREDS_PSKFILE);
    if (tls_creds_read_file(creds, QCRYPTO_TLS_CREDS_PSKFILE, true, &file, errp) < 0) {
        return NULL;
    }
    ok = server ? psk_load_server(creds, path, errp)
                : psk_load_client(creds, props->username ? props->username : PSK_DEFAULT_USER,
                                  (char *)file.data, path, errp);
    return ok ? g_steal_pointer(&creds) : NULL;
}
