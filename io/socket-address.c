/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SocketAddress to FerrySockAddr, member by member. */
#include "io/socket-address.h"
#include "util/error.h"

static bool parse_u32(const char *str, const char *what, uint32_t *value, GError **errp)
{
    guint64 v;

    if (!g_ascii_string_to_unsigned(str, 10, 0, UINT32_MAX, &v, NULL)) {
        error_setg(errp, "Failed to parse vsock %s '%s'", what, str);
        return false;
    }
    *value = v;
    return true;
}

static void convert_inet(const InetSocketAddress *from, FerrySockInet *to)
{
    to->host = g_strdup(from->host);
    to->port = g_strdup(from->port);
    to->has_numeric = from->has_numeric;
    to->numeric = from->numeric;
    to->has_to = from->has_to;
    to->to = from->to;
    to->has_ipv4 = from->has_ipv4;
    to->ipv4 = from->ipv4;
    to->has_ipv6 = from->has_ipv6;
    to->ipv6 = from->ipv6;
    to->has_keep_alive = from->has_keep_alive;
    to->keep_alive = from->keep_alive;
}

static void convert_unix(const UnixSocketAddress *from, FerrySockUnix *to)
{
    to->path = g_strdup(from->path);
    to->has_abstract = from->has_abstract;
    to->abstract = from->abstract;
    to->has_tight = from->has_tight;
    to->tight = from->tight;
}

FerrySockAddr *socket_address_convert(const SocketAddress *addr, GError **errp)
{
    g_autoptr(FerrySockAddr) out = g_new0(FerrySockAddr, 1);

    switch (addr->type) {
    case SOCKET_ADDRESS_TYPE_INET:
        out->type = FERRY_SOCK_INET;
        convert_inet(&addr->u.inet, &out->inet);
        break;
    case SOCKET_ADDRESS_TYPE_UNIX:
        out->type = FERRY_SOCK_UNIX;
        convert_unix(&addr->u.q_unix, &out->un);
        break;
    case SOCKET_ADDRESS_TYPE_VSOCK:
        out->type = FERRY_SOCK_VSOCK;
        if (!parse_u32(addr->u.vsock.cid, "cid", &out->vsock.cid, errp) ||
            !parse_u32(addr->u.vsock.port, "port", &out->vsock.port, errp)) {
            return NULL;
        }
        break;
    case SOCKET_ADDRESS_TYPE_FD:
        out->type = FERRY_SOCK_FD;
        out->fd = g_strdup(addr->u.fd.str);
        break;
    default:
        g_assert_not_reached();
    }
    return g_steal_pointer(&out);
}

char *socket_address_to_string(const SocketAddress *addr)
{
    g_autoptr(FerrySockAddr) native = socket_address_convert(addr, NULL);

    return native ? ferry_sockaddr_to_string(native) : g_strdup("(invalid address)");
}
