/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of NBD exports: the old colon form and URIs (doc/uri.md of the nbd project). */
#include "block/nbd/client.h"
#include <string.h>
#include "util/error.h"

#define NBD_DEFAULT_PORT "10809"
#define EXPORTNAME       ":exportname="

/* Fills in server; host is without brackets. */
static void set_inet(BlockdevOptionsNbd *out, const char *host, const char *port)
{
    out->server = g_new0(SocketAddress, 1);
    out->server->type = SOCKET_ADDRESS_TYPE_INET;
    out->server->u.inet.host = g_strdup(host);
    out->server->u.inet.port = g_strdup(port);
}

static void set_unix(BlockdevOptionsNbd *out, const char *path)
{
    out->server = g_new0(SocketAddress, 1);
    out->server->type = SOCKET_ADDRESS_TYPE_UNIX;
    out->server->u.q_unix.path = g_strdup(path);
}

/* "HOST:PORT" or "[V6]:PORT", the port after the last colon. */
static bool parse_host_port(const char *str, const char *default_port, BlockdevOptionsNbd *out,
                            GError **errp)
{
    g_autofree char *host = NULL;
    const char *port;

    if (*str == '[') {
        const char *end = strchr(str, ']');

        if (!end || (end[1] && end[1] != ':')) {
            error_setg(errp, "Invalid IPv6 address in '%s'", str);
            return false;
        }
        host = g_strndup(str + 1, end - str - 1);
        port = end[1] ? end + 2 : default_port;
    } else {
        const char *colon = strrchr(str, ':');

        host = colon ? g_strndup(str, colon - str) : g_strdup(str);
        port = colon ? colon + 1 : default_port;
    }
    if (!port || !*port) {
        error_setg(errp, "No port in NBD address '%s'", str);
        return false;
    }
    set_inet(out, *host ? host : "localhost", port);
    return true;
}

/* What follows "nbd:". */
static bool parse_colon_form(const char *rest, BlockdevOptionsNbd *out, GError **errp)
{
    const char *exp = strstr(rest, EXPORTNAME);
    g_autofree char *address = exp ? g_strndup(rest, exp - rest) : g_strdup(rest);

    if (exp && exp[strlen(EXPORTNAME)]) {
        out->export = g_strdup(exp + strlen(EXPORTNAME));
    }
    if (g_str_has_prefix(address, "unix:")) {
        if (!address[strlen("unix:")]) {
            error_setg(errp, "No path in NBD address '%s'", address);
            return false;
        }
        set_unix(out, address + strlen("unix:"));
        return true;
    }
    return parse_host_port(address, NULL, out, errp);
}

/*
 * The name of the export: the path without its first slash, decoded and otherwise as it is. GUri would remove
 * the segments "." and "..", which are ordinary text in the name of an export. *rest is the URI without the path.
 * NULL: the path is no UTF-8 text.
 */
static char *take_export(const char *uri, char **rest)
{
    const char *authority = strstr(uri, "://") + strlen("://");
    const char *path = authority + strcspn(authority, "/?#");
    const char *end = path + strcspn(path, "?#");
    g_autofree char *name = g_uri_unescape_segment(*path == '/' ? path + 1 : path, end, NULL);

    *rest = g_strdup_printf("%.*s%s", (int)(path - uri), uri, end);
    return name && g_utf8_validate(name, -1, NULL) ? g_steal_pointer(&name) : NULL;
}

static bool parse_uri(const char *filename, BlockdevOptionsNbd *out, GError **errp)
{
    g_autofree char *rest = NULL, *export = take_export(filename, &rest);
    g_autoptr(GUri) uri = export ? g_uri_parse(rest, G_URI_FLAGS_NONE, NULL) : NULL;
    g_autoptr(GHashTable) query = NULL;
    const char *scheme, *sock = NULL;
    bool is_unix;

    if (!uri) {
        error_setg(errp, "Invalid NBD URI '%s'", filename);
        return false;
    }
    scheme = g_uri_get_scheme(uri);
    is_unix = !strcmp(scheme, "nbd+unix");
    if (!is_unix && strcmp(scheme, "nbd") && strcmp(scheme, "nbd+tcp")) {
        error_setg(errp, "Unsupported NBD URI scheme '%s'", scheme);
        return false;
    }
    if (*export) {
        out->export = g_steal_pointer(&export);
    }
    if (g_uri_get_query(uri)) {
        query = g_uri_parse_params(g_uri_get_query(uri), -1, "&", G_URI_PARAMS_NONE, NULL);
        sock = query ? g_hash_table_lookup(query, "socket") : NULL;
        if (!query || g_hash_table_size(query) > 1 || !sock || !is_unix) {
            error_setg(errp, "Unsupported parameters in NBD URI '%s'", filename);
            return false;
        }
    }
    if (is_unix) {
        if (!sock || !*sock || (g_uri_get_host(uri) && *g_uri_get_host(uri)) ||
            g_uri_get_port(uri) > 0) {
            error_setg(errp, "NBD URI '%s' has to be of the form nbd+unix:///NAME?socket=PATH",
                       filename);
            return false;
        }
        set_unix(out, sock);
    } else {
        g_autofree char *port =
            g_uri_get_port(uri) > 0 ? g_strdup_printf("%d", g_uri_get_port(uri)) : NULL;
        const char *host = g_uri_get_host(uri);

        set_inet(out, host && *host ? host : "localhost", port ? port : NBD_DEFAULT_PORT);
    }
    return true;
}

bool nbd_parse_filename(const char *filename, BlockdevOptionsNbd *out, GError **errp)
{
    if (strstr(filename, "://")) {
        return parse_uri(filename, out, errp);
    }
    if (!g_str_has_prefix(filename, "nbd:") || !filename[strlen("nbd:")]) {
        error_setg(errp, "File name string for NBD export '%s' must start with 'nbd:'", filename);
        return false;
    }
    return parse_colon_form(filename + strlen("nbd:"), out, errp);
}

char *nbd_make_filename(const BlockdevOptionsNbd *opts)
{
    const SocketAddress *addr = opts->server;
    g_autofree char *export = opts->export ? g_uri_escape_string(opts->export, "/", TRUE) : NULL;

    if (opts->tls_creds || opts->x_dirty_bitmap) {
        return NULL;
    }
    if (addr->type == SOCKET_ADDRESS_TYPE_UNIX &&
        !(addr->u.q_unix.has_abstract && addr->u.q_unix.abstract)) {
        g_autofree char *path = g_uri_escape_string(addr->u.q_unix.path, "/", TRUE);

        return g_strdup_printf("nbd+unix://%s%s?socket=%s", export ? "/" : "", export ? export : "",
                               path);
    }
    if (addr->type == SOCKET_ADDRESS_TYPE_INET && !addr->u.inet.has_ipv4 &&
        !addr->u.inet.has_ipv6) {
        const char *host = addr->u.inet.host;
        bool v6 = strchr(host, ':') != NULL;

        return g_strdup_printf("nbd://%s%s%s:%s%s%s", v6 ? "[" : "", host, v6 ? "]" : "",
                               addr->u.inet.port, export ? "/" : "", export ? export : "");
    }
    return NULL;
}
