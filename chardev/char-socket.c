/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * chardev socket: one conversation at a time over TCP or a unix socket, as server or client.
 *
 *   server   LISTENING --accept--> GREETING --handshakes done--> CONNECTED
 *            --peer left, or no handshake in time--> LISTENING. While greeting or connected, further
 *            clients wait in the backlog, unless the peer has closed its sending half: then the next
 *            client replaces it.
 *   client   CONNECTING --> GREETING --> CONNECTED --peer left, or no handshake--> (after the
 *            reconnect time) CONNECTING, or the end.
 *
 * All of it takes place in the chardev's context. `lock` guards what other threads may ask: the name of
 * the connection.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>
#include "chardev/char-layers.h"
#include "chardev/char-stream.h"
#include "io/socket-address.h"
#include "trace/trace-chardev.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/sockets.h"
#include "util/timer.h"
#include "util/yank.h"

/* One conversation at a time: few need to queue. */
#define CHR_SOCKET_BACKLOG 16

typedef struct SocketConnector SocketConnector;
typedef struct SocketGreeting SocketGreeting;

typedef struct SocketChardev {
    Chardev parent;
    FerrySockAddr *addr;
    bool is_server;
    bool nodelay;
    int64_t reconnect_ns; /* 0: never */
    int listen_fd;        /* 0: none */
    bool accepting;       /* listen_fd is watched, or will be once the move is over */
    bool moving;          /* between two contexts, or waiting to leave one */
    bool retry;           /* an attempt to connect was given up for the move */
    Coroutine *mover;     /* waits for the end of the handshakes */
    QEMUTimer *reconnect_timer;
    SocketConnector *connector; /* an attempt in progress */
    bool told;                  /* why greeting failed; once until it succeeds */
    CharLayers *layers;
    QCryptoTLSCreds *creds;   /* acquired; NULL without TLS */
    QIOChannelSocket *sioc;   /* greeting or connected; NULL: neither */
    SocketGreeting *greeting; /* in progress */
    QIOChannel *ioc;          /* what the stream goes over, with it */
    CharStream *stream;       /* connected */
    GMutex lock;
    char *name; /* of the connection; NULL: not connected; lock */
    Yankable *yank;
    Coroutine *waiter;            /* co_open() with wait=on */
    SocketConnectControl opening; /* co_open() of a client */
} SocketChardev;

/* An attempt to connect; it may outlive the chardev, which then clears `owner`. */
struct SocketConnector {
    SocketChardev *owner;
    FerrySockAddr *addr;
    SocketConnectControl control;
};

/* Handshakes with one peer; may outlive the chardev, too. */
struct SocketGreeting {
    SocketChardev *owner;
};

static void socket_connect_later(SocketChardev *s);
static void socket_accept(void *opaque);

/* --- names --- */

/* "tcp:127.0.0.1:80", "unix:/path", "unix:@name,abstract=on,tight=on", "fd:7". The caller frees. */
static char *chr_address_name(const SocketChardev *s, const FerrySockAddr *addr)
{
    g_autofree char *words = ferry_sockaddr_to_string(addr);

    if (addr->type == FERRY_SOCK_INET) {
        return g_strconcat(char_layers_scheme(s->layers), ":", words, NULL);
    }
    if (addr->type == FERRY_SOCK_UNIX && addr->un.has_abstract && addr->un.abstract) {
        bool tight = !addr->un.has_tight || addr->un.tight;

        return g_strdup_printf("%s,abstract=on,tight=%s", words, tight ? "on" : "off");
    }
    return g_steal_pointer(&words);
}

static char *address_name(const SocketChardev *s, const char *prefix)
{
    g_autoptr(FerrySockAddr) local = NULL;
    g_autofree char *where = NULL;

    /* A server shows the port it really has. */
    if (s->listen_fd > 0 && s->addr->type != FERRY_SOCK_UNIX) {
        local = socket_local_address(s->listen_fd, NULL);
    }
    where = chr_address_name(s, local ? local : s->addr);
    return g_strdup_printf("%s%s%s", prefix, where, s->is_server ? ",server=on" : "");
}

static char *connection_name(const SocketChardev *s)
{
    int fd = qio_channel_socket_get_fd(s->sioc);
    g_autoptr(FerrySockAddr) local = socket_local_address(fd, NULL);
    g_autoptr(FerrySockAddr) remote = socket_remote_address(fd, NULL);
    g_autofree char *here = NULL, *there = NULL;

    if (!local || !remote || local->type == FERRY_SOCK_UNIX) {
        return address_name(s, "");
    }
    here = chr_address_name(s, local);
    there = ferry_sockaddr_to_string(remote);
    return g_strdup_printf("%s%s <-> %s", here, s->is_server ? ",server=on" : "", there);
}

static char *socket_filename(const Chardev *chr)
{
    SocketChardev *s = (SocketChardev *)chr;
    char *name;

    g_mutex_lock(&s->lock);
    name = g_strdup(s->name);
    g_mutex_unlock(&s->lock);
    return name ? name : address_name(s, "disconnected:");
}

/* Takes over the name. */
static void socket_set_name(SocketChardev *s, char *name)
{
    g_mutex_lock(&s->lock);
    g_free(s->name);
    s->name = name;
    g_mutex_unlock(&s->lock);
}

/* --- a conversation --- */

static void socket_apply_listener(SocketChardev *s, bool on)
{
    aio_set_fd_handler(s->parent.ctx, s->listen_fd, on ? socket_accept : NULL, NULL, s);
}

static void socket_watch_listener(SocketChardev *s, bool on)
{
    if (s->listen_fd > 0 && s->accepting != on) {
        s->accepting = on;
        if (!s->moving) {
            socket_apply_listener(s, on);
        }
    }
}

/* Any thread: the connection ends as if the peer had left. */
static void socket_yank(void *opaque)
{
    qio_channel_shutdown(QIO_CHANNEL(opaque), QIO_CHANNEL_SHUTDOWN_BOTH);
}

/* Ends the conversation, or what is to become one, without a word to the front end. */
static void socket_drop(SocketChardev *s)
{
    g_clear_pointer(&s->stream, char_stream_free);
    if (s->sioc) {
        yank_unregister_function(s->yank, socket_yank, s->sioc);
    }
    if (s->ioc) {
        (void)qio_channel_close(s->ioc, NULL); /* the layers say good-bye */
        g_clear_pointer(&s->ioc, qio_channel_unref);
    }
    if (s->greeting) {
        s->greeting->owner = NULL;
        s->greeting = NULL;
        qio_channel_shutdown(QIO_CHANNEL(s->sioc), QIO_CHANNEL_SHUTDOWN_BOTH);
    }
    qio_channel_unref(QIO_CHANNEL(s->sioc));
    s->sioc = NULL;
    socket_set_name(s, NULL);
}

static void socket_hangup(Chardev *chr)
{
    SocketChardev *s = (SocketChardev *)chr;

    socket_drop(s);
    socket_watch_listener(s, true);
    if (s->reconnect_ns) {
        socket_connect_later(s);
    }
    qemu_chr_be_closed(chr);
}

static void socket_wake_waiter(SocketChardev *s)
{
    Coroutine *co = s->waiter;

    s->waiter = NULL;
    if (co) {
        aio_co_wake(co);
    }
}

/* s->sioc has been greeted; takes over ioc. */
static void socket_start(SocketChardev *s, QIOChannel *ioc)
{
    s->told = false;
    s->ioc = ioc;
    s->stream = char_stream_new_channel(&s->parent, ioc, socket_hangup);
    socket_set_name(s, connection_name(s));
    qemu_chr_be_opened(&s->parent);
    if (s->stream) {
        char_stream_update_read(s->stream);
    }
    socket_wake_waiter(s);
}

/* There is no peer to talk to after all. */
static void socket_greeting_failed(SocketChardev *s, const GError *err)
{
    g_assert(err);
    socket_drop(s);
    socket_watch_listener(s, true);
    if (s->reconnect_ns) {
        if (!s->told) {
            s->told = true;
            warn_report("chardev '%s': %s", s->parent.label, err->message);
        }
        socket_connect_later(s);
    }
}

/* Greets the peer at s->sioc. False, and errp: it is gone, and maybe s too. */
static bool coroutine_fn socket_co_greet(SocketChardev *s, GError **errp)
{
    g_autofree SocketGreeting *greeting = g_new0(SocketGreeting, 1);
    g_autoptr(QIOChannel) sock = qio_channel_ref(QIO_CHANNEL(s->sioc));
    CharLayers *layers = char_layers_ref(s->layers);
    g_autoptr(GError) err = NULL;
    QIOChannel *ioc;

    greeting->owner = s;
    s->greeting = greeting;
    ioc = char_layers_co_open(layers, (QIOChannelSocket *)sock, &err);
    trace_chr_socket_greeted(greeting->owner, err ? err->message : "ok");
    char_layers_unref(layers);
    if (!greeting->owner) {
        qio_channel_unref(ioc);
        error_setg(errp, "The character device was removed meanwhile");
        return false;
    }
    s->greeting = NULL;
    if (s->mover) {
        aio_co_wake(s->mover);
        s->mover = NULL;
    }
    if (ioc) {
        socket_start(s, ioc);
        return true;
    }
    socket_greeting_failed(s, err);
    g_propagate_error(errp, g_steal_pointer(&err));
    return false;
}

/* Takes over fd, which is connected; the peer is still to be greeted. */
static bool socket_take(SocketChardev *s, int fd, GError **errp)
{
    QIOChannelSocket *sioc = qio_channel_socket_new_fd(fd, errp);

    if (!sioc) {
        close(fd);
        return false;
    }
    s->sioc = sioc;
    yank_register_function(s->yank, socket_yank, sioc);
    if (s->nodelay) {
        qio_channel_set_delay(QIO_CHANNEL(sioc), false);
    }
    socket_watch_listener(s, false);
    return true;
}

static void coroutine_fn socket_co_serve(void *opaque)
{
    (void)socket_co_greet(opaque, NULL);
}

static void socket_accept(void *opaque)
{
    SocketChardev *s = opaque;
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0) {
        return;
    }
    if (s->stream) {
        /* The peer had closed its sending half; another one has connected. */
        socket_drop(s);
        qemu_chr_be_closed(&s->parent);
    }
    if (socket_take(s, fd, NULL)) {
        qemu_coroutine_enter(qemu_coroutine_create(socket_co_serve, s));
    }
}

/* --- client --- */

static void coroutine_fn socket_co_reconnect(void *opaque)
{
    SocketConnector *c = opaque;
    int fd = socket_connect_co(c->addr, &c->control, NULL);
    SocketChardev *s = c->owner;

    trace_chr_socket_tried(s, fd);
    ferry_sockaddr_free(c->addr);
    g_free(c);
    if (!s) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    s->connector = NULL;
    if (fd < 0 || !socket_take(s, fd, NULL)) {
        socket_connect_later(s);
    } else {
        (void)socket_co_greet(s, NULL);
    }
}

static void socket_reconnect(void *opaque)
{
    SocketChardev *s = opaque;

    if (s->sioc || s->connector) {
        return;
    }
    s->connector = g_new0(SocketConnector, 1);
    s->connector->owner = s;
    s->connector->addr = ferry_sockaddr_copy(s->addr);
    qemu_coroutine_enter(qemu_coroutine_create(socket_co_reconnect, s->connector));
}

static void socket_connect_later(SocketChardev *s)
{
    if (!s->reconnect_timer) {
        return; /* in a move: enter() sees to it */
    }
    timer_mod_ns(s->reconnect_timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + s->reconnect_ns);
}

static bool coroutine_fn socket_co_open_client(SocketChardev *s, GError **errp)
{
    int fd;

    if (s->reconnect_ns) {
        /* With reconnecting on, the server need not be there yet. */
        s->reconnect_timer = aio_timer_new(s->parent.ctx, QEMU_CLOCK_REALTIME, socket_reconnect, s);
        socket_reconnect(s);
        return true;
    }
    fd = socket_connect_co(s->addr, &s->opening, errp);
    if (fd < 0 || !socket_take(s, fd, errp)) {
        return false;
    }
    /* It was told to give up before there was a greeting to cut. */
    return !s->parent.abandoned && socket_co_greet(s, errp);
}

/* --- server --- */

static bool coroutine_fn socket_co_open_server(SocketChardev *s, bool wait, GError **errp)
{
    int fd = s->addr->type == FERRY_SOCK_INET ? socket_listen_co(s->addr, CHR_SOCKET_BACKLOG, errp)
                                              : socket_listen(s->addr, CHR_SOCKET_BACKLOG, errp);

    if (fd < 0) {
        return false;
    }
    s->listen_fd = fd;
    socket_watch_listener(s, true);
    if (wait && !s->parent.abandoned) {
        g_autofree char *name = address_name(s, "disconnected:");

        info_report("QEMU waiting for connection on: %s", name);
        s->waiter = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    return !s->parent.abandoned;
}

/* --- the back end's table --- */

static bool socket_check_options(const ChardevSocket *opts, bool is_server, int64_t reconnect_ms,
                                 GError **errp)
{
    if (is_server && reconnect_ms) {
        error_setg(errp, "'reconnect' option is incompatible with socket in server listen mode");
    } else if (!is_server && opts->has_wait && opts->wait) {
        error_setg(errp, "'wait' option is incompatible with socket in client connect mode");
    } else if (reconnect_ms < 0 || reconnect_ms > INT32_MAX) {
        error_setg(errp, "'reconnect-ms' must be between 0 and %d", INT32_MAX);
    } else if (reconnect_ms && opts->addr->type == SOCKET_ADDRESS_TYPE_FD) {
        error_setg(errp, "'reconnect' option is incompatible with 'fd' address");
    } else if (opts->tls_creds && (opts->addr->type == SOCKET_ADDRESS_TYPE_UNIX ||
                                   opts->addr->type == SOCKET_ADDRESS_TYPE_VSOCK)) {
        error_setg(errp, "'tls_creds' option is incompatible with '%s' address type",
                   SocketAddressType_str(opts->addr->type));
    } else {
        return true;
    }
    return false;
}

/* -1 is out of range. */
static int64_t reconnect_ms_of(const ChardevSocket *opts)
{
    if (opts->has_reconnect_ms) {
        return opts->reconnect_ms;
    }
    if (opts->has_reconnect) {
        return opts->reconnect < 0 || opts->reconnect > INT32_MAX / 1000 ? -1
                                                                         : opts->reconnect * 1000;
    }
    return 0;
}

static bool socket_set_layers(SocketChardev *s, const ChardevSocket *opts, GError **errp)
{
    if (opts->tls_creds) {
        s->creds = qcrypto_tls_creds_acquire(opts->tls_creds,
                                             s->is_server ? QCRYPTO_TLS_CREDS_ENDPOINT_SERVER
                                                          : QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT,
                                             errp);
        if (!s->creds) {
            return false;
        }
    }
    s->layers = char_layers_new(opts, s->is_server, s->creds,
                                s->addr->type == FERRY_SOCK_INET ? s->addr->inet.host : NULL, errp);
    return s->layers;
}

static bool coroutine_fn socket_co_open(Chardev *chr, const ChardevBackend *backend, GError **errp)
{
    SocketChardev *s = (SocketChardev *)chr;
    const ChardevSocket *opts = backend->u.socket.data;
    int64_t reconnect_ms = reconnect_ms_of(opts);

    g_mutex_init(&s->lock);
    s->is_server = !opts->has_server || opts->server;
    if (!socket_check_options(opts, s->is_server, reconnect_ms, errp)) {
        return false;
    }
    s->addr = socket_address_convert_legacy(opts->addr, errp);
    if (!s->addr || !socket_set_layers(s, opts, errp)) {
        return false;
    }
    s->yank = yank_register_instance(YANK_CHARDEV, chr->label, errp);
    if (!s->yank) {
        return false;
    }
    s->nodelay = opts->has_nodelay && opts->nodelay;
    s->reconnect_ns = reconnect_ms * SCALE_MS;
    return s->is_server ? socket_co_open_server(s, opts->has_wait && opts->wait, errp)
                        : socket_co_open_client(s, errp);
}

static void socket_abandon(Chardev *chr)
{
    SocketChardev *s = (SocketChardev *)chr;

    socket_connect_cancel(&s->opening);
    if (s->greeting) {
        qio_channel_shutdown(QIO_CHANNEL(s->sioc), QIO_CHANNEL_SHUTDOWN_BOTH);
    }
    socket_wake_waiter(s);
}

/* The attempt to connect, if there is one, goes on without its chardev, and ends soon. */
static bool socket_forget_connector(SocketChardev *s)
{
    SocketConnector *c = s->connector;

    if (!c) {
        return false;
    }
    c->owner = NULL;
    s->connector = NULL;
    socket_connect_cancel(&c->control);
    return true;
}

static bool coroutine_fn socket_co_leave(Chardev *chr, bool at_once)
{
    SocketChardev *s = (SocketChardev *)chr;

    s->moving = true;
    if (s->accepting) {
        socket_apply_listener(s, false);
    }
    s->retry = socket_forget_connector(s);
    if (s->greeting && at_once) {
        qio_channel_shutdown(QIO_CHANNEL(s->sioc), QIO_CHANNEL_SHUTDOWN_BOTH);
    }
    while (s->greeting) {
        s->mover = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    g_clear_pointer(&s->reconnect_timer, timer_free);
    char_stream_leave(s->stream);
    return !s->retry;
}

static void socket_enter(Chardev *chr)
{
    SocketChardev *s = (SocketChardev *)chr;

    s->moving = false;
    if (s->accepting) {
        socket_apply_listener(s, true);
    }
    char_stream_enter(s->stream);
    if (s->reconnect_ns) {
        s->reconnect_timer = aio_timer_new(chr->ctx, QEMU_CLOCK_REALTIME, socket_reconnect, s);
        if (s->retry) {
            socket_reconnect(s);
        } else if (!s->sioc) {
            socket_connect_later(s);
        }
    }
}

static void socket_close(Chardev *chr)
{
    SocketChardev *s = (SocketChardev *)chr;

    (void)socket_forget_connector(s);
    timer_free(s->reconnect_timer);
    char_stream_push(s->stream);
    socket_drop(s);
    if (s->listen_fd > 0) {
        socket_watch_listener(s, false);
        close(s->listen_fd);
        socket_listen_cleanup(s->addr);
    }
    g_free(s->name);
    g_mutex_clear(&s->lock);
    char_layers_unref(s->layers);
    qcrypto_tls_creds_release(s->creds);
    ferry_sockaddr_free(s->addr);
    yank_unregister_instance(s->yank);
}

static void socket_write(Chardev *chr, const uint8_t *buf, size_t len)
{
    SocketChardev *s = (SocketChardev *)chr;

    if (s->stream) {
        char_stream_write(s->stream, buf, len);
    }
}

static size_t socket_pending(const Chardev *chr)
{
    const SocketChardev *s = (const SocketChardev *)chr;

    return s->stream ? char_stream_pending(s->stream) : 0;
}

static void socket_update_read(Chardev *chr)
{
    SocketChardev *s = (SocketChardev *)chr;

    if (s->stream) {
        char_stream_update_read(s->stream);
    }
}

/* However long the peer takes to leave, others need not wait for it. */
static void socket_eof(Chardev *chr)
{
    socket_watch_listener((SocketChardev *)chr, true);
}

static void socket_disconnect(Chardev *chr, bool at_once)
{
    SocketChardev *s = (SocketChardev *)chr;

    if (!s->stream) {
        return;
    }
    if (at_once) {
        char_stream_abort(s->stream);
    } else {
        char_stream_finish(s->stream);
        socket_watch_listener(s, true);
    }
}

const ChardevClass chardev_socket_class = {
    .kind = CHARDEV_BACKEND_KIND_SOCKET,
    .name = "socket",
    .instance_size = sizeof(SocketChardev),
    .co_open = socket_co_open,
    .abandon = socket_abandon,
    .close = socket_close,
    .write = socket_write,
    .pending = socket_pending,
    .update_read = socket_update_read,
    .co_leave = socket_co_leave,
    .enter = socket_enter,
    .eof = socket_eof,
    .disconnect = socket_disconnect,
    .filename = socket_filename,
};
