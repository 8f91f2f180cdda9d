/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The protocol layers between a chardev's socket and its bytes: TLS, WebSocket, telnet, in that
 * order, each if asked for. In the chardev's context; with `tls-authz` the TLS handshake takes
 * place in the main thread. References are taken and dropped in any thread.
 */
#ifndef FERRY_CHARDEV_CHAR_LAYERS_H
#define FERRY_CHARDEV_CHAR_LAYERS_H

#include "chardev/char.h"
#include "crypto/tlscreds.h"
#include "io/channel-socket.h"

typedef struct CharLayers CharLayers;

/*
 * creds: NULL without TLS; referenced. hostname: the server's name that a TLS client expects, or
 * NULL. Also checks opts for contradictions. NULL and errp.
 */
CharLayers *char_layers_new(const ChardevSocket *opts, bool is_server, QCryptoTLSCreds *creds,
                            const char *hostname, GError **errp);
CharLayers *char_layers_ref(CharLayers *layers);
void char_layers_unref(CharLayers *layers); /* NULL is allowed */
/* "telnet", "websocket" or "tcp": the prefix of names of TCP addresses. */
const char *char_layers_scheme(const CharLayers *layers);

/*
 * Puts the layers on a connected socket: handshakes, each within a deadline. Without any it does
 * not yield. The channel to talk over, the caller's; NULL and errp. Shutting sioc down ends it.
 */
QIOChannel *coroutine_fn char_layers_co_open(const CharLayers *layers, QIOChannelSocket *sioc,
                                             GError **errp);

#endif
