/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The server's side of STARTTLS (NBD protocol, "TLS support"). The handshake reads nothing ahead,
 * so what a client sent behind the option in the clear is the first thing TLS gets to see, and ends
 * the connection.
 */
#include "block/nbd/server-int.h"
#include "io/channel-tls.h"
#include "util/error.h"

/* What was said in the clear counts for nothing. */
static void nbd_conn_forget(NbdConn *conn)
{
    conn->structured = false;
    conn->contexts.n = 0;
}

int coroutine_fn nbd_conn_co_starttls(NbdConn *conn, GError **errp)
{
    QIOChannel *plain = conn->ioc;
    QIOChannelTLS *tioc =
        qio_channel_tls_new_server(plain, nbd_server_creds(), nbd_server_config()->tls_authz, errp);

    if (!tioc) {
        return -EIO;
    }
    conn->ioc =
        QIO_CHANNEL(tioc); /* from now on the deadline and the server's end shut down this one */
    conn->tls = true;
    qio_channel_unref(plain);
    nbd_conn_forget(conn);
    if (qio_channel_is_shut_down(QIO_CHANNEL(conn->sioc))) {
        error_setg(errp, "TLS handshake was cancelled");
        return -ECANCELED;
    }
    return qio_channel_tls_co_handshake(tioc, 0, errp);
}
