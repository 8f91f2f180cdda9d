/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses of migrations: URIs, channel lists, and back. */
#include "migration/address.h"

#include <string.h>
#include "io/socket-address.h"
#include "qapi/json.h"
#include "util/cutils.h"
#include "util/error.h"

/* --- from URIs --- */

static bool parse_exec(MigrationAddress *addr, const char *command, GError **errp)
{
    const char *const words[] = {"/bin/sh", "-c", command};
    strList **tail = &addr->u.exec.args;

    if (!*command) {
        error_setg(errp, "The command of an 'exec:' URI is empty");
        return false;
    }
    addr->transport = MIGRATION_ADDRESS_TYPE_EXEC;
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        *tail = g_new0(strList, 1);
        (*tail)->value = g_strdup(words[i]);
        tail = &(*tail)->next;
    }
    return true;
}

/* "PATH[,offset=BYTES]"; other commas belong to the path. */
static bool parse_file(MigrationAddress *addr, const char *spec, GError **errp)
{
    const char *option = strstr(spec, ",offset=");
    size_t path_len = option ? (size_t)(option - spec) : strlen(spec);
    uint64_t offset = 0;

    if (option &&
        (qemu_strtosz(option + strlen(",offset="), NULL, &offset) < 0 || offset > INT64_MAX)) {
        error_setg(errp, "file URI has bad offset %s", option + strlen(",offset="));
        return false;
    }
    if (!path_len) {
        error_setg(errp, "The path of a 'file:' URI is empty");
        return false;
    }
    addr->transport = MIGRATION_ADDRESS_TYPE_FILE;
    addr->u.file.filename = g_strndup(spec, path_len);
    addr->u.file.offset = offset;
    return true;
}

static bool parse_socket(MigrationAddress *addr, const char *uri, GError **errp)
{
    g_autoptr(FerrySockAddr) native = ferry_sockaddr_parse(uri, errp);

    if (!native) {
        return false;
    }
    addr->transport = MIGRATION_ADDRESS_TYPE_SOCKET;
    socket_address_fill(&addr->u.socket, native);
    return true;
}

MigrationAddress *migration_uri_parse(const char *uri, GError **errp)
{
    static const char *const sockets[] = {"tcp:", "unix:", "vsock:", "fd:"};
    g_autoptr(MigrationAddress) addr = g_new0(MigrationAddress, 1);
    bool ok = false, known = false;

    if (g_str_has_prefix(uri, "exec:")) {
        known = true;
        ok = parse_exec(addr, uri + strlen("exec:"), errp);
    } else if (g_str_has_prefix(uri, "file:")) {
        known = true;
        ok = parse_file(addr, uri + strlen("file:"), errp);
    }
    for (size_t i = 0; !known && i < G_N_ELEMENTS(sockets); i++) {
        if (g_str_has_prefix(uri, sockets[i])) {
            known = true;
            ok = parse_socket(addr, uri, errp);
        }
    }
    if (!known) {
        error_setg(errp, "unknown migration protocol: %s", uri);
    }
    return ok ? g_steal_pointer(&addr) : NULL;
}

/* --- from channel lists --- */

/* What the schema lets through and nothing can be done with. */
static bool check_address(const MigrationAddress *addr, GError **errp)
{
    g_autoptr(FerrySockAddr) native = NULL;

    switch (addr->transport) {
    case MIGRATION_ADDRESS_TYPE_EXEC:
        if (!addr->u.exec.args || !*addr->u.exec.args->value) {
            error_setg(errp, "The list of arguments of an 'exec' channel is empty");
            return false;
        }
        return true;
    case MIGRATION_ADDRESS_TYPE_FILE:
        if (!*addr->u.file.filename) {
            error_setg(errp, "The filename of a 'file' channel is empty");
            return false;
        }
        if (addr->u.file.offset > INT64_MAX) {
            error_setg(errp, "The offset of a 'file' channel is too large");
            return false;
        }
        return true;
    default:
        native = socket_address_convert(&addr->u.socket, errp);
        return native != NULL;
    }
}

MigrationAddress *migration_args_to_address(const char *uri, bool has_channels,
                                            const MigrationChannelList *channels,
                                            const char *command, GError **errp)
{
    if (!uri && !has_channels) {
        error_setg(errp, "need either 'uri' or 'channels' argument in '%s'", command);
        return NULL;
    }
    if (uri && has_channels) {
        error_setg(errp, "'uri' and 'channels' arguments of '%s' are mutually exclusive", command);
        return NULL;
    }
    if (uri) {
        return migration_uri_parse(uri, errp);
    }
    if (!channels) {
        error_setg(errp, "Channel list has no main channel");
        return NULL;
    }
    if (channels->next) {
        error_setg(errp, "Channel list has more than one main channel");
        return NULL;
    }
    if (!check_address(channels->value->addr, errp)) {
        return NULL;
    }
    return migration_address_copy(channels->value->addr);
}

MigrationAddress *migration_incoming_arg_parse(const char *arg, GError **errp)
{
    g_autoptr(MigrationChannel) channel = NULL;
    json_object *json;

    if (*arg != '{') {
        return migration_uri_parse(arg, errp);
    }
    if (!json_parse_text(arg, strlen(arg), &json, errp)) {
        return NULL;
    }
    channel = MigrationChannel_from_json(json, QAPI_DECODE_JSON, errp);
    json_object_put(json);
    if (!channel || !check_address(channel->addr, errp)) {
        return NULL;
    }
    return migration_address_copy(channel->addr);
}

MigrationAddress *migration_address_copy(const MigrationAddress *addr)
{
    return QAPI_CLONE(MigrationAddress, addr);
}

/* --- to URIs --- */

char *migration_address_to_uri(const MigrationAddress *addr)
{
    GString *text = g_string_new(NULL);
    g_autofree char *socket = NULL;

    switch (addr->transport) {
    case MIGRATION_ADDRESS_TYPE_EXEC:
        g_string_append(text, "exec:");
        for (const strList *arg = addr->u.exec.args; arg; arg = arg->next) {
            g_string_append_printf(text, arg == addr->u.exec.args ? "%s" : " %s", arg->value);
        }
        break;
    case MIGRATION_ADDRESS_TYPE_FILE:
        g_string_append_printf(text, "file:%s", addr->u.file.filename);
        if (addr->u.file.offset) {
            g_string_append_printf(text, ",offset=%" G_GUINT64_FORMAT, addr->u.file.offset);
        }
        break;
    default:
        socket = socket_address_to_string(&addr->u.socket);
        g_string_append_printf(
            text, addr->u.socket.type == SOCKET_ADDRESS_TYPE_INET ? "tcp:%s" : "%s", socket);
        break;
    }
    return g_string_free(text, FALSE);
}

/* --- what it can do --- */

bool migration_address_is_multi_channel(const MigrationAddress *addr)
{
    return addr->transport == MIGRATION_ADDRESS_TYPE_SOCKET &&
           addr->u.socket.type != SOCKET_ADDRESS_TYPE_FD;
}

bool migration_address_is_fd(const MigrationAddress *addr)
{
    return addr->transport == MIGRATION_ADDRESS_TYPE_SOCKET &&
           addr->u.socket.type == SOCKET_ADDRESS_TYPE_FD;
}

bool migration_address_is_seekable(const MigrationAddress *addr)
{
    return addr->transport == MIGRATION_ADDRESS_TYPE_FILE;
}
