/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * chardev socket: one conversation at a time over TCP or a unix socket, as server or client.
 *
 *   server   LISTENING --accept--> CONNECTED --peer left--> LISTENING. While connected, further clients wait in the backlog, unless
 *            the peer has closed its sending half: then the next client replaces it.
 *   client   CONNECTING --> CONNECTED --peer left--> (after the reconnect time) CONNECTING, or the end.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>
#include "chardev/char-stream.h"
#include "io/socket-address.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/sockets.h"
#include "util/timer.h"
#include "util/yank.h"

/* One conversation at a time: few need to queue. */
#define CHR_SOCKET_BACKLOG 16

typedef struct SocketConnector SocketConnector;

typedef struct SocketChardev {
    Chardev parent;
    FerrySockAddr *addr;
    bool is_server;
    bool nodelay;
    int64_t reconnect_ns; /* 0: never */
    int listen_fd;        /* 0: none */
    bool accepting;       /* listen_fd is watched */
    QEMUTimer *reconnect_timer;
    SocketConnector *connector; /* an attempt in progress */
    int fd;                     /* connected, with stream; 0: none */
    CharStream *stream;
    char *name; /* of the connection */
    Yankable *yank;
    Coroutine *waiter; /* co_open() with wait=on */
} SocketChardev;

/* An attempt to connect; it may outlive the chardev, which then clears `owner`. */
struct SocketConnector {
    SocketChardev *owner;
    FerrySockAddr *addr;
    SocketConnectControl control;
};

static void socket_connect_later(SocketChardev *s);
static void socket_accept(void *opaque);

/* --- names --- */

/* "tcp:127.0.0.1:80", "unix:/path", "unix:@name,abstract=on,tight=on", "fd:7". The caller frees. */
static char *chr_address_name(const FerrySockAddr *addr)
{
    g_autofree char *words = ferry_sockaddr_to_string(addr);

    if (addr->type == FERRY_SOCK_INET) {
        return g_strconcat("tcp:", words, NULL);
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
    where = chr_address_name(local ? local : s->addr);
    return g_strdup_printf("%s%s%s", prefix, where, s->is_server ? ",server=on" : "");
}

static char *connection_name(const SocketChardev *s)
{
    g_autoptr(FerrySockAddr) local = socket_local_address(s->fd, NULL);
    g_autoptr(FerrySockAddr) remote = socket_remote_address(s->fd, NULL);
    g_autofree char *here = NULL, *there = NULL;

    if (!local || !remote || local->type == FERRY_SOCK_UNIX) {
        return address_name(s, "");
    }
    here = chr_address_name(local);
    there = ferry_sockaddr_to_string(remote);
    return g_strdup_printf("%s%s <-> %s", here, s->is_server ? ",server=on" : "", there);
}

static char *socket_filename(const Chardev *chr)
{
    const SocketChardev *s = (const SocketChardev *)chr;

    return s->stream ? g_strdup(s->name) : address_name(s, "disconnected:");
}

/* --- a conversation --- */

static void socket_watch_listener(SocketChardev *s, bool on)
{
    if (s->listen_fd > 0 && s->accepting != on) {
        s->accepting = on;
        aio_set_fd_handler(qemu_get_aio_context(), s->listen_fd, on ? socket_accept : NULL, NULL,
                           s);
    }
}

/* Any thread: the connection ends as if the peer had left. */
static void socket_yank(void *opaque)
{
    shutdown(GPOINTER_TO_INT(opaque), SHUT_RDWR);
}

/* Frees the connection without a word to the front end. */
static void socket_drop(SocketChardev *s)
{
    g_clear_pointer(&s->stream, char_stream_free);
    if (s->fd > 0) {
        yank_unregister_function(s->yank, socket_yank, GINT_TO_POINTER(s->fd));
        close(s->fd);
        s->fd = 0;
    }
    g_clear_pointer(&s->name, g_free);
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

/* Takes over fd, which is connected. */
static void socket_start(SocketChardev *s, int fd)
{
    s->fd = fd;
    yank_register_function(s->yank, socket_yank, GINT_TO_POINTER(fd));
    if (s->nodelay) {
        (void)socket_set_nodelay(fd, true);
    }
    s->stream = char_stream_new(&s->parent, fd, fd, socket_hangup);
    s->name = connection_name(s);
    socket_watch_listener(s, false);
    qemu_chr_be_opened(&s->parent);
    if (s->stream) {
        char_stream_update_read(s->stream);
    }
}

static void socket_accept(void *opaque)
{
    SocketChardev *s = opaque;
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0) {
        return;
    }
    if (s->stream) {
        /* The peer had closed its sending half; somebody else wants to talk. */
        socket_drop(s);
        qemu_chr_be_closed(&s->parent);
    }
    socket_start(s, fd);
    if (s->waiter) {
        Coroutine *co = s->waiter;

        s->waiter = NULL;
        aio_co_wake(co);
    }
}

/* --- client --- */

static void coroutine_fn socket_co_reconnect(void *opaque)
{
    SocketConnector *c = opaque;
    int fd = socket_connect_co(c->addr, &c->control, NULL);
    SocketChardev *s = c->owner;

    if (s) {
        s->connector = NULL;
        if (fd >= 0) {
            socket_start(s, fd);
        } else {
            socket_connect_later(s);
        }
    } else if (fd >= 0) {
        close(fd);
    }
    ferry_sockaddr_free(c->addr);
    g_free(c);
}

static void socket_reconnect(void *opaque)
{
    SocketChardev *s = opaque;

    if (s->stream || s->connector) {
        return;
    }
    s->connector = g_new0(SocketConnector, 1);
    s->connector->owner = s;
    s->connector->addr = ferry_sockaddr_copy(s->addr);
    qemu_coroutine_enter(qemu_coroutine_create(socket_co_reconnect, s->connector));
}

static void socket_connect_later(SocketChardev *s)
{
    timer_mod_ns(s->reconnect_timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + s->reconnect_ns);
}

static bool coroutine_fn socket_co_open_client(SocketChardev *s, GError **errp)
{
    int fd;

    if (s->reconnect_ns) {
        /* Whoever asks for reconnecting does not need the server to be there yet. */
        s->reconnect_timer =
            aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME, socket_reconnect, s);
        socket_reconnect(s);
        return true;
    }
    fd = socket_connect_co(s->addr, NULL, errp);
    if (fd < 0) {
        return false;
    }
    socket_start(s, fd);
    return true;
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
    if (wait) {
        g_autofree char *name = address_name(s, "disconnected:");

        info_report("QEMU waiting for connection on: %s", name);
        s->waiter = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    return true;
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
    } else {
        return true;
    }
    return false;
}

static bool coroutine_fn socket_co_open(Chardev *chr, const ChardevBackend *backend, GError **errp)
{
    SocketChardev *s = (SocketChardev *)chr;
    const ChardevSocket *opts = backend->u.socket.data;
    int64_t reconnect_ms = 0;

    if (opts->has_reconnect_ms) {
        reconnect_ms = opts->reconnect_ms;
    } else if (opts->has_reconnect) {
        reconnect_ms =
            opts->reconnect < 0 || opts->reconnect > INT32_MAX / 1000 ? -1 : opts->reconnect * 1000;
    }
    s->is_server = !opts->has_server || opts->server;
    if (!socket_check_options(opts, s->is_server, reconnect_ms, errp)) {
        return false;
    }
    s->addr = socket_address_convert_legacy(opts->addr, errp);
    s->yank = s->addr ? yank_register_instance(YANK_CHARDEV, chr->label, errp) : NULL;
    if (!s->yank) {
        return false;
    }
    s->nodelay = opts->has_nodelay && opts->nodelay;
    s->reconnect_ns = reconnect_ms * SCALE_MS;
    return s->is_server ? socket_co_open_server(s, opts->has_wait && opts->wait, errp)
                        : socket_co_open_client(s, errp);
}

static void socket_close(Chardev *chr)
{
    SocketChardev *s = (SocketChardev *)chr;

    if (s->connector) {
        s->connector->owner = NULL;
        socket_connect_cancel(&s->connector->control);
    }
    timer_free(s->reconnect_timer);
    char_stream_push(s->stream);
    socket_drop(s);
    if (s->listen_fd > 0) {
        socket_watch_listener(s, false);
        close(s->listen_fd);
        socket_listen_cleanup(s->addr);
    }
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
    .close = socket_close,
    .write = socket_write,
    .pending = socket_pending,
    .update_read = socket_update_read,
    .eof = socket_eof,
    .disconnect = socket_disconnect,
    .filename = socket_filename,
};
