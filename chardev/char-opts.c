/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Character devices as command lines write them: flat options to the schema's types. */
#include "chardev/char-opts.h"

#include <stdio.h>
#include <string.h>
#include "util/error.h"
#include "util/qemu-opts.h"

typedef struct OptBool {
    bool has, value;
} OptBool;

static bool get_bool(QemuOpts *opts, const char *key, OptBool *b, GError **errp)
{
    return qemu_opts_get_bool(opts, key, &b->has, &b->value, errp);
}

static bool parse_common(QemuOpts *opts, ChardevCommon *common, GError **errp)
{
    common->logfile = g_strdup(qemu_opts_get(opts, "logfile"));
    return qemu_opts_get_bool(opts, "logappend", &common->has_logappend, &common->logappend, errp);
}

static bool need(QemuOpts *opts, const char *kind, const char *key, char **value, GError **errp)
{
    *value = g_strdup(qemu_opts_get(opts, key));
    if (!*value) {
        error_setg(errp, "chardev: %s: no %s given", kind, key);
        return false;
    }
    return true;
}

static bool parse_file(QemuOpts *opts, ChardevBackend *backend, GError **errp)
{
    ChardevFile *file = backend->u.file.data = g_new0(ChardevFile, 1);

    file->in = g_strdup(qemu_opts_get(opts, "input-path"));
    return parse_common(opts, (ChardevCommon *)file, errp) &&
           qemu_opts_get_bool(opts, "append", &file->has_append, &file->append, errp) &&
           need(opts, "file", "path", &file->out, errp);
}

static bool parse_pipe(QemuOpts *opts, ChardevBackend *backend, GError **errp)
{
    ChardevHostdev *pipe = backend->u.pipe.data = g_new0(ChardevHostdev, 1);

    return parse_common(opts, (ChardevCommon *)pipe, errp) &&
           need(opts, "pipe", "path", &pipe->device, errp);
}

static bool parse_pty(QemuOpts *opts, ChardevBackend *backend, GError **errp)
{
    ChardevPty *pty = backend->u.pty.data = g_new0(ChardevPty, 1);

    pty->path = g_strdup(qemu_opts_get(opts, "path"));
    return parse_common(opts, (ChardevCommon *)pty, errp);
}

static bool parse_null(QemuOpts *opts, ChardevBackend *backend, GError **errp)
{
    backend->u.null.data = g_new0(ChardevCommon, 1);
    return parse_common(opts, backend->u.null.data, errp);
}

static bool parse_mux(QemuOpts *opts, ChardevBackend *backend, GError **errp)
{
    ChardevMux *mux = backend->u.mux.data = g_new0(ChardevMux, 1);

    return parse_common(opts, (ChardevCommon *)mux, errp) &&
           need(opts, "mux", "chardev", &mux->chardev, errp);
}

static bool parse_stdio(QemuOpts *opts, ChardevBackend *backend, GError **errp)
{
    ChardevStdio *stdio_opts = backend->u.stdio.data = g_new0(ChardevStdio, 1);

    return parse_common(opts, (ChardevCommon *)stdio_opts, errp) &&
           qemu_opts_get_bool(opts, "signal", &stdio_opts->has_signal, &stdio_opts->signal, errp);
}

static bool parse_ringbuf(QemuOpts *opts, ChardevBackend *backend, GError **errp)
{
    ChardevRingbuf *ringbuf = backend->u.ringbuf.data = g_new0(ChardevRingbuf, 1);

    return parse_common(opts, (ChardevCommon *)ringbuf, errp) &&
           qemu_opts_get_int(opts, "size", &ringbuf->has_size, &ringbuf->size, errp);
}

/* --- sockets --- */

static bool parse_inet(QemuOpts *opts, const char *host, InetSocketAddress *inet, GError **errp)
{
    bool has_to;
    int64_t to = 0;

    inet->host = g_strdup(host);
    if (!need(opts, "socket", "port", &inet->port, errp)) {
        return false;
    }
    if (!qemu_opts_get_int(opts, "to", &has_to, &to, errp) ||
        !qemu_opts_get_bool(opts, "ipv4", &inet->has_ipv4, &inet->ipv4, errp) ||
        !qemu_opts_get_bool(opts, "ipv6", &inet->has_ipv6, &inet->ipv6, errp) ||
        !qemu_opts_get_bool(opts, "numeric", &inet->has_numeric, &inet->numeric, errp) ||
        !qemu_opts_get_bool(opts, "keep-alive", &inet->has_keep_alive, &inet->keep_alive, errp)) {
        return false;
    }
    if (has_to && (to < 0 || to > UINT16_MAX)) {
        error_setg(errp, "Parameter 'to' expects a port number");
        return false;
    }
    inet->has_to = has_to;
    inet->to = (uint16_t)to;
    return true;
}

static SocketAddressLegacy *parse_address(QemuOpts *opts, GError **errp)
{
    const char *path = qemu_opts_get(opts, "path"), *host = qemu_opts_get(opts, "host"),
               *fd = qemu_opts_get(opts, "fd");
    g_autoptr(SocketAddressLegacy) addr = g_new0(SocketAddressLegacy, 1);

    addr->type = SOCKET_ADDRESS_TYPE_VSOCK; /* no member of the union is set */
    if (!path + !host + !fd != 2) {
        error_setg(errp, "None or one of 'path', 'fd' or 'host' option required.");
        return NULL;
    }
    if (path) {
        UnixSocketAddress *un = g_new0(UnixSocketAddress, 1);

        addr->type = SOCKET_ADDRESS_TYPE_UNIX;
        addr->u.q_unix.data = un;
        un->path = g_strdup(path);
        if (!qemu_opts_get_bool(opts, "abstract", &un->has_abstract, &un->abstract, errp) ||
            !qemu_opts_get_bool(opts, "tight", &un->has_tight, &un->tight, errp)) {
            return NULL;
        }
    } else if (fd) {
        addr->type = SOCKET_ADDRESS_TYPE_FD;
        addr->u.fd.data = g_new0(FdSocketAddress, 1);
        addr->u.fd.data->str = g_strdup(fd);
    } else {
        addr->type = SOCKET_ADDRESS_TYPE_INET;
        addr->u.inet.data = g_new0(InetSocketAddress, 1);
        if (!parse_inet(opts, host, addr->u.inet.data, errp)) {
            return NULL;
        }
    }
    return g_steal_pointer(&addr);
}

static bool parse_socket(QemuOpts *opts, ChardevBackend *backend, GError **errp)
{
    ChardevSocket *sock = backend->u.socket.data = g_new0(ChardevSocket, 1);
    OptBool server = {0}, delay = {0};

    if (!parse_common(opts, (ChardevCommon *)sock, errp) ||
        !get_bool(opts, "server", &server, errp) || !get_bool(opts, "delay", &delay, errp) ||
        !qemu_opts_get_bool(opts, "wait", &sock->has_wait, &sock->wait, errp) ||
        !qemu_opts_get_bool(opts, "nodelay", &sock->has_nodelay, &sock->nodelay, errp) ||
        !qemu_opts_get_bool(opts, "telnet", &sock->has_telnet, &sock->telnet, errp) ||
        !qemu_opts_get_bool(opts, "websocket", &sock->has_websocket, &sock->websocket, errp) ||
        !qemu_opts_get_int(opts, "reconnect", &sock->has_reconnect, &sock->reconnect, errp) ||
        !qemu_opts_get_int(opts, "reconnect-ms", &sock->has_reconnect_ms, &sock->reconnect_ms,
                           errp)) {
        return false;
    }
    if (sock->has_reconnect && sock->has_reconnect_ms) {
        error_setg(errp, "'reconnect' and 'reconnect-ms' are mutually exclusive");
        return false;
    }
    sock->tls_creds = g_strdup(qemu_opts_get(opts, "tls-creds"));
    sock->tls_authz = g_strdup(qemu_opts_get(opts, "tls-authz"));
    /* Unlike in QMP, connecting is the default, and a server waits for its first client. */
    sock->has_server = true;
    sock->server = server.has && server.value;
    if (!sock->has_wait) {
        sock->has_wait = true;
        sock->wait = sock->server;
    }
    if (delay.has && !sock->has_nodelay) {
        sock->has_nodelay = true;
        sock->nodelay = !delay.value;
    }
    sock->addr = parse_address(opts, errp);
    return sock->addr;
}

/* --- entry --- */

static const struct {
    ChardevBackendKind kind;
    bool (*parse)(QemuOpts *opts, ChardevBackend *backend, GError **errp);
} parsers[] = {
    {CHARDEV_BACKEND_KIND_FILE, parse_file},       {CHARDEV_BACKEND_KIND_NULL, parse_null},
    {CHARDEV_BACKEND_KIND_PIPE, parse_pipe},       {CHARDEV_BACKEND_KIND_PTY, parse_pty},
    {CHARDEV_BACKEND_KIND_RINGBUF, parse_ringbuf}, {CHARDEV_BACKEND_KIND_SOCKET, parse_socket},
    {CHARDEV_BACKEND_KIND_STDIO, parse_stdio},     {CHARDEV_BACKEND_KIND_MUX, parse_mux},
};

/* Options that QEMU's chardevs have and these have not: "off" is accepted, "on" is refused. */
static bool refuse_absent(QemuOpts *opts, GError **errp)
{
    static const struct {
        const char *key, *why;
    } absent[] = {
        {"tn3270", "there are no 3270 terminals"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(absent); i++) {
        bool has, value = false;

        if (!qemu_opts_get_bool(opts, absent[i].key, &has, &value, errp)) {
            return false;
        }
        if (value) {
            error_setg(errp, "'%s' is not supported: %s", absent[i].key, absent[i].why);
            return false;
        }
    }
    return true;
}

static ChardevBackend *parse_opts(QemuOpts *opts, bool *shared, GError **errp)
{
    bool has_mux;
    const char *name = qemu_opts_get(opts, "backend");
    ChardevBackend *backend;

    if (!name) {
        error_setg(errp, "chardev: \"%s\" missing backend", qemu_opts_get(opts, "id"));
        return NULL;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(parsers); i++) {
        if (strcmp(name, ChardevBackendKind_str(parsers[i].kind)) != 0) {
            continue;
        }
        backend = g_new0(ChardevBackend, 1);
        backend->type = parsers[i].kind;
        *shared = false;
        if (!refuse_absent(opts, errp) ||
            !qemu_opts_get_bool(opts, "mux", &has_mux, shared, errp) ||
            !parsers[i].parse(opts, backend, errp) || !qemu_opts_check_known(opts, errp)) {
            qapi_free_ChardevBackend(backend);
            return NULL;
        }
        return backend;
    }
    error_setg(errp, "'%s' is not a valid char driver name", name);
    return NULL;
}

ChardevBackend *chardev_parse_option(const char *text, char **id, bool *shared, GError **errp)
{
    g_autoptr(QemuOpts) opts = qemu_opts_parse(text, "backend");
    const char *name = qemu_opts_get(opts, "id");
    ChardevBackend *backend;

    if (!name) {
        error_setg(errp, "chardev: no id specified");
        return NULL;
    }
    backend = parse_opts(opts, shared, errp);
    if (backend) {
        *id = g_strdup(name);
    }
    return backend;
}

/*
 * "HOST:PORT[,more]" to the long form; the host may be empty or an IPv6 address in brackets. layer:
 * what the scheme switches on, or "".
 */
static char *long_form_of_tcp(const char *scheme, const char *text, const char *layer,
                              GError **errp)
{
    const char *colon, *comma = strchr(text, ',');
    size_t end = comma ? (size_t)(comma - text) : strlen(text);
    g_autofree char *address = g_strndup(text, end);
    g_autofree char *host = NULL;

    colon = strrchr(address, ':');
    if (!colon || !colon[1]) {
        error_setg(errp, "parse error: %s%s", scheme, text);
        return NULL;
    }
    if (address[0] == '[' && colon > address + 1 && colon[-1] == ']') {
        host = g_strndup(address + 1, (size_t)(colon - address) - 2);
    } else {
        host = g_strndup(address, (size_t)(colon - address));
    }
    return g_strdup_printf("socket,host=%s,port=%s%s%s", host, colon + 1, layer, text + end);
}

ChardevBackend *chardev_parse_short(const char *text, bool *shared, GError **errp)
{
    static const struct {
        const char *prefix, *to;
    } forms[] = {{"unix:", "socket,path="},
                 {"file:", "file,path="},
                 {"pipe:", "pipe,path="},
                 {"fd:", "socket,fd="}};
    static const struct {
        const char *prefix, *layer;
    } schemes[] = {{"tcp:", ""}, {"telnet:", ",telnet=on"}, {"websocket:", ",websocket=on"}};
    static const char *const words[] = {"null", "pty", "stdio", "ringbuf"};
    g_autofree char *form = NULL;
    g_autoptr(QemuOpts) opts = NULL;
    ChardevBackend *backend;
    bool mon = g_str_has_prefix(text, "mon:");

    text += mon ? strlen("mon:") : 0;
    for (size_t i = 0; i < G_N_ELEMENTS(forms) && !form; i++) {
        if (g_str_has_prefix(text, forms[i].prefix)) {
            form = g_strconcat(forms[i].to, text + strlen(forms[i].prefix), NULL);
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(words) && !form; i++) {
        if (!strcmp(text, words[i]) ||
            (g_str_has_prefix(text, words[i]) && text[strlen(words[i])] == ',')) {
            form = g_strdup(text);
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(schemes) && !form; i++) {
        if (g_str_has_prefix(text, schemes[i].prefix)) {
            form = long_form_of_tcp(schemes[i].prefix, text + strlen(schemes[i].prefix),
                                    schemes[i].layer, errp);
            if (!form) {
                return NULL;
            }
        }
    }
    if (!form) {
        error_setg(errp, "'%s' is not a valid char driver", text);
        return NULL;
    }
    opts = qemu_opts_parse(form, "backend");
    backend = parse_opts(opts, shared, errp);
    if (backend && mon) {
        *shared = true;
        if (backend->type == CHARDEV_BACKEND_KIND_STDIO && !backend->u.stdio.data->has_signal) {
            /* Ctrl-C is for the front end with the focus; Ctrl-a x ends the process */
            backend->u.stdio.data->has_signal = true;
            backend->u.stdio.data->signal = false;
        }
    }
    return backend;
}

void chardev_print_kinds(void)
{
    printf("Available chardev backend types:\n");
    for (size_t i = 0; i < G_N_ELEMENTS(parsers); i++) {
        printf("  %s\n", ChardevBackendKind_str(parsers[i].kind));
    }
}
