/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process's NBD server: where it listens, which clients it lets in, and the exports it offers
 * by name. Main thread.
 */
#ifndef FERRY_BLOCK_NBD_SERVER_H
#define FERRY_BLOCK_NBD_SERVER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "io/channel-socket.h"
#include "qapi/qapi-types.h"
#include "util/coroutine.h"

#define NBD_DEFAULT_HANDSHAKE_MAX_SECONDS 10
#define NBD_DEFAULT_MAX_CONNECTIONS       100

typedef struct NbdServerConfig {
    const SocketAddress *addr;
    uint32_t
        /* a client that has not chosen an export by then is dropped; 0: no limit */
        handshake_max_seconds;
    uint32_t max_connections; /* at the same time; more wait in the backlog. 0: no limit */
    const char *tls_creds;    /* id of a tls-creds-* object, NULL: no TLS */
    const char *tls_authz;    /* id of an authz-* object, NULL: any */
} NbdServerConfig;

/* Makes exports of type nbd known to block/export.h; start-up. */
void nbd_server_register(void);
/* Fails when the server runs already or the address cannot be had. */
bool coroutine_fn nbd_server_co_start(const NbdServerConfig *config, GError **errp);
bool nbd_server_is_running(void);
/*
 * Serves a connection that was not accepted from the listener; takes over the reference. The server
 * runs.
 */
void nbd_server_take(QIOChannelSocket *sioc);
/* Clients connected, those in their handshake included. */
unsigned nbd_server_connections(void);
/*
 * Stops listening, disconnects all clients and removes the NBD exports; returns when they are gone.
 */
void coroutine_fn nbd_server_co_stop(void);

#endif
