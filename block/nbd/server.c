/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD server: listening, admission, and the life of a connection around its handshake and
 * service.
 */
#include "block/nbd/server.h"
#include "block/nbd/server-int.h"
#include "io/net-listener.h"
#include "trace/trace-block-nbd.h"
#include "util/co-lock.h"
#include "util/error.h"
#include "util/timer.h"

/*
 * Connections that the kernel holds for us when max-connections is reached, and before they are
 * accepted.
 */
#define NBD_BACKLOG 128

struct NbdServer {
    bool running;
    unsigned run; /* counts starts and stops: what a start began may be over when it has waited */
    bool stopping;
    NbdServerConfig config; /* addr is not kept */
    QCryptoTLSCreds *creds; /* acquired: cannot be deleted while the server runs */
    char *tls_authz;
    QIONetListener *listener;
    unsigned n_conns;
    TAILQ_HEAD(, NbdConn) conns; /* still in their handshake, or served */
    CoQueue conn_ended;          /* nbd_server_co_stop() waits here */
    bool initialised;
};

static NbdServer nbd_server;

static NbdServer *server(void)
{
    if (!nbd_server.initialised) {
        nbd_server.initialised = true;
        TAILQ_INIT(&nbd_server.conns);
        qemu_co_queue_init(&nbd_server.conn_ended);
    }
    return &nbd_server;
}

const NbdServerConfig *nbd_server_config(void)
{
    return &server()->config;
}

QCryptoTLSCreds *nbd_server_creds(void)
{
    return server()->creds;
}

bool nbd_server_is_running(void)
{
    return server()->running && !server()->stopping;
}

/* --- connections --- */

static void nbd_server_accept(QIONetListener *listener, QIOChannelSocket *sioc, void *opaque);

/* Accepts while there is room; the others wait in the backlog. */
static void nbd_server_update_admission(void)
{
    NbdServer *s = server();
    bool room = !s->config.max_connections || s->n_conns < s->config.max_connections;

    if (s->listener) {
        qio_net_listener_set_client_func(s->listener, room ? nbd_server_accept : NULL, s);
    }
}

static void nbd_conn_deadline(void *opaque)
{
    NbdConn *conn = opaque;

    qio_channel_shutdown(conn->ioc, QIO_CHANNEL_SHUTDOWN_BOTH);
}

static void nbd_conn_free(NbdConn *conn)
{
    NbdServer *s = server();

    TAILQ_REMOVE(&s->conns, conn, next_in_server);
    s->n_conns--;
    if (conn->exp) {
        blk_exp_unref(&conn->exp->common);
    }
    timer_free(conn->deadline);
    qio_channel_unref(conn->ioc);
    qio_channel_unref(QIO_CHANNEL(conn->sioc));
    g_free(conn->peer);
    g_free(conn);
    nbd_server_update_admission();
    qemu_co_queue_restart_all(&s->conn_ended);
}

static void coroutine_fn nbd_conn_co_run(void *opaque)
{
    NbdConn *conn = opaque;
    g_autoptr(GError) err = NULL;
    int ret = nbd_conn_co_handshake(conn, &err);

    timer_del(conn->deadline);
    qio_channel_detach_aio_context(conn->ioc);
    if (ret == 0) {
        trace_nbd_server_serves(conn->peer, conn->exp->name);
        nbd_conn_co_serve(conn);
    }
    trace_nbd_server_gone(conn->peer, err ? err->message : "served");
    nbd_conn_free(conn);
}

void nbd_server_take(QIOChannelSocket *sioc)
{
    NbdServer *s = server();
    NbdConn *conn = g_new0(NbdConn, 1);

    conn->sioc = sioc;
    conn->ioc = qio_channel_ref(QIO_CHANNEL(sioc));
    conn->peer = qio_channel_socket_peer_name(sioc);
    TAILQ_INIT(&conn->replies);
    qio_channel_set_delay(conn->ioc, false);
    conn->deadline =
        aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME, nbd_conn_deadline, conn);
    if (s->config.handshake_max_seconds) {
        timer_mod_ns(conn->deadline, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) +
                                         s->config.handshake_max_seconds * NANOSECONDS_PER_SECOND);
    }
    TAILQ_INSERT_TAIL(&s->conns, conn, next_in_server);
    s->n_conns++;
    trace_nbd_server_accept(conn->peer, s->n_conns);
    nbd_server_update_admission();
    qemu_coroutine_enter(qemu_coroutine_create(nbd_conn_co_run, conn));
}

static void nbd_server_accept(QIONetListener *listener, QIOChannelSocket *sioc, void *opaque)
{
    nbd_server_take(sioc);
}

unsigned nbd_server_connections(void)
{
    return server()->n_conns;
}

/* --- start and stop --- */

/* Takes hold of the credentials, if TLS is wanted. */
static bool nbd_server_set_tls(const NbdServerConfig *config, GError **errp)
{
    NbdServer *s = server();

    if (!config->tls_creds) {
        if (config->tls_authz) {
            error_setg(errp, "tls-authz only supported with tls-creds");
        }
        return !config->tls_authz;
    }
    s->creds =
        qcrypto_tls_creds_acquire(config->tls_creds, QCRYPTO_TLS_CREDS_ENDPOINT_SERVER, errp);
    return s->creds != NULL;
}

static void nbd_server_clear_tls(void)
{
    g_clear_pointer(&server()->creds, qcrypto_tls_creds_release);
    g_clear_pointer(&server()->tls_authz, g_free);
}

bool coroutine_fn nbd_server_co_start(const NbdServerConfig *config, GError **errp)
{
    NbdServer *s = server();
    g_autoptr(QIONetListener) listener = NULL;
    unsigned run;
    bool opened;

    if (s->running) {
        error_setg(errp, "NBD server already running");
        return false;
    }
    if (!nbd_server_set_tls(config, errp)) {
        return false;
    }
    s->running = true; /* no other command starts it while names are resolved */
    run = ++s->run;
    listener = qio_net_listener_new();
    opened = qio_net_listener_co_open(listener, config->addr, NBD_BACKLOG, errp);
    if (run != s->run) {
        g_clear_error(errp);
        error_setg(errp, "The NBD server was stopped before it listened");
        return false;
    }
    if (!opened) {
        s->running = false;
        nbd_server_clear_tls();
        return false;
    }
    s->config = *config;
    s->config.addr = NULL;
    s->config.tls_creds = NULL; /* nbd_server_creds() */
    s->config.tls_authz = s->tls_authz = g_strdup(config->tls_authz);
    s->listener = g_steal_pointer(&listener);
    nbd_server_update_admission();
    return true;
}

void coroutine_fn nbd_server_co_stop(void)
{
    NbdServer *s = server();
    NbdConn *conn;

    if (!s->running || s->stopping) {
        return;
    }
    s->stopping = true;
    s->run++; /* one that is starting ends as well */
    g_clear_pointer(&s->listener, qio_net_listener_free);
    blk_exp_co_close_all(BLOCK_EXPORT_TYPE_NBD);
    TAILQ_FOREACH(conn, &s->conns, next_in_server) {
        qio_channel_shutdown(conn->ioc, QIO_CHANNEL_SHUTDOWN_BOTH); /* those in their handshake */
    }
    while (!TAILQ_EMPTY(&s->conns)) {
        qemu_co_queue_wait(&s->conn_ended, NULL);
    }
    nbd_server_clear_tls();
    memset(&s->config, 0, sizeof(s->config));
    s->stopping = false;
    s->running = false;
}
