/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLS, WebSocket and telnet on a chardev's socket. */
#include "chardev/char-layers.h"
#include "chardev/char-telnet.h"
#include "io/channel-tls.h"
#include "io/channel-websock.h"
#include "util/error.h"
#include "util/timer.h"

/* A peer that does not finish a handshake by then is given up: others wait behind it. */
#define CHR_HANDSHAKE_NS (10 * NANOSECONDS_PER_SECOND)

struct CharLayers {
    bool is_server;
    QCryptoTLSCreds *creds; /* NULL: no TLS */
    char *hostname, *authz;
    bool websocket, telnet;
};

static void layers_clear(void *opaque)
{
    CharLayers *layers = opaque;

    qcrypto_tls_creds_unref(layers->creds);
    g_free(layers->hostname);
    g_free(layers->authz);
}

static bool check(const ChardevSocket *opts, bool is_server, bool websocket, GError **errp)
{
    if (websocket && !is_server) {
        error_setg(errp, "Websocket client is not implemented");
    } else if (opts->tls_authz && !opts->tls_creds) {
        error_setg(errp, "'tls_authz' option requires 'tls_creds' option");
    } else if (opts->tls_authz && !is_server) {
        error_setg(errp, "'tls_authz' option is incompatible with socket in client connect mode: "
                         "a client knows the server by its certificate");
    } else {
        return true;
    }
    return false;
}

CharLayers *char_layers_new(const ChardevSocket *opts, bool is_server, QCryptoTLSCreds *creds,
                            const char *hostname, GError **errp)
{
    bool websocket = opts->has_websocket && opts->websocket;
    CharLayers *layers;

    if (!check(opts, is_server, websocket, errp)) {
        return NULL;
    }
    layers = g_atomic_rc_box_new0(CharLayers);
    layers->is_server = is_server;
    layers->creds = creds ? qcrypto_tls_creds_ref(creds) : NULL;
    layers->hostname = g_strdup(hostname);
    layers->authz = g_strdup(opts->tls_authz);
    layers->websocket = websocket;
    layers->telnet = opts->has_telnet && opts->telnet;
    return layers;
}

CharLayers *char_layers_ref(CharLayers *layers)
{
    return g_atomic_rc_box_acquire(layers);
}

void char_layers_unref(CharLayers *layers)
{
    if (layers) {
        g_atomic_rc_box_release_full(layers, layers_clear);
    }
}

const char *char_layers_scheme(const CharLayers *layers)
{
    return layers->telnet ? "telnet" : layers->websocket ? "websocket" : "tcp";
}

/* Each takes the place of what it stands on; NULL and errp: nothing is left. */

static QIOChannel *coroutine_fn add_tls(const CharLayers *layers, QIOChannel *ioc, GError **errp)
{
    AioContext *home = qemu_get_current_aio_context();
    QIOChannelTLS *tioc =
        layers->is_server ? qio_channel_tls_new_server(ioc, layers->creds, layers->authz, errp)
                          : qio_channel_tls_new_client(ioc, layers->creds, layers->hostname, errp);
    int ret;

    qio_channel_unref(ioc);
    if (!tioc) {
        return NULL;
    }
    /* The lists that say which names may in are objects, which belong to the main thread. */
    if (layers->authz) {
        aio_co_reschedule_self(qemu_get_aio_context());
    }
    ret = qio_channel_tls_co_handshake(tioc, CHR_HANDSHAKE_NS, errp);
    qio_channel_detach_aio_context(QIO_CHANNEL(tioc));
    aio_co_reschedule_self(home);
    if (ret < 0) {
        qio_channel_unref(QIO_CHANNEL(tioc));
        return NULL;
    }
    return QIO_CHANNEL(tioc);
}

static QIOChannel *coroutine_fn add_websocket(QIOChannel *ioc, GError **errp)
{
    QIOChannelWebsock *wioc = qio_channel_websock_new_server(ioc);

    qio_channel_unref(ioc);
    if (qio_channel_websock_co_handshake(wioc, CHR_HANDSHAKE_NS, errp) < 0) {
        qio_channel_unref(QIO_CHANNEL(wioc));
        return NULL;
    }
    return QIO_CHANNEL(wioc);
}

QIOChannel *coroutine_fn char_layers_co_open(const CharLayers *layers, QIOChannelSocket *sioc,
                                             GError **errp)
{
    QIOChannel *ioc = qio_channel_ref(QIO_CHANNEL(sioc));

    if (layers->creds) {
        ioc = add_tls(layers, ioc, errp);
    }
    if (ioc && layers->websocket) {
        ioc = add_websocket(ioc, errp);
    }
    if (ioc && layers->telnet) {
        QIOChannel *telnet = char_telnet_new(ioc, layers->is_server);

        qio_channel_unref(ioc);
        ioc = telnet;
    }
    return ioc;
}
