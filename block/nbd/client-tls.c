/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client's side of TLS: its credentials and the change of channel after the server has agreed
 * to STARTTLS.
 */
#include "block/nbd/client-int.h"
#include "io/channel-tls.h"
#include "util/error.h"

/* A server that does not get on with the TLS handshake is given up after this time. */
#define NBD_TLS_HANDSHAKE_NS (60 * NANOSECONDS_PER_SECOND)

bool nbd_client_set_tls(NbdClient *client, const BlockdevOptionsNbd *opts, GError **errp)
{
    NbdTarget *target = client->target;

    if (opts->tls_hostname && !opts->tls_creds) {
        error_setg(errp, "tls-hostname only supported with tls-creds");
        return false;
    }
    if (!opts->tls_creds) {
        return true;
    }
    client->tls_creds =
        qcrypto_tls_creds_acquire(opts->tls_creds, QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT, errp);
    if (!client->tls_creds) {
        return false;
    }
    target->tls_creds = qcrypto_tls_creds_ref(client->tls_creds);
    if (opts->tls_hostname) {
        target->tls_hostname = g_strdup(opts->tls_hostname);
    } else if (target->addr->type == SOCKET_ADDRESS_TYPE_INET) {
        target->tls_hostname = g_strdup(target->addr->u.inet.host);
    }
    return true;
}

int coroutine_fn nbd_client_co_start_tls(QIOChannel **ioc, const NbdTarget *target, GError **errp)
{
    QIOChannelTLS *tioc =
        qio_channel_tls_new_client(*ioc, target->tls_creds, target->tls_hostname, errp);

    if (!tioc) {
        return -EINVAL;
    }
    qio_channel_unref(*ioc);
    *ioc = QIO_CHANNEL(tioc);
    return qio_channel_tls_co_handshake(tioc, NBD_TLS_HANDSHAKE_NS, errp);
}
