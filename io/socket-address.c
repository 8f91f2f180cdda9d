/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SocketAddress, in both forms of the schema, to FerrySockAddr, member by member. */
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

/* The members of an address in whichever form: one of them is set. */
typedef struct AddressParts {
    const InetSocketAddress *inet;
    const UnixSocketAddress *un;
    const VsockSocketAddress *vsock;
    const FdSocketAddress *fd;
} AddressParts;

static FerrySockAddr *convert(AddressParts from, GError **errp)
{
    g_autoptr(FerrySockAddr) out = g_new0(FerrySockAddr, 1);

    if (from.inet) {
        out->type = FERRY_SOCK_INET;
        convert_inet(from.inet, &out->inet);
    } else if (from.un) {
        out->type = FERRY_SOCK_UNIX;
        convert_unix(from.un, &out->un);
    } else if (from.vsock) {
        out->type = FERRY_SOCK_VSOCK;
        if (!parse_u32(from.vsock->cid, "cid", &out->vsock.cid, errp) ||
            !parse_u32(from.vsock->port, "port", &out->vsock.port, errp)) {
            return NULL;
        }
    } else {
        g_assert(from.fd);
        out->type = FERRY_SOCK_FD;
        out->fd = g_strdup(from.fd->str);
    }
    return g_steal_pointer(&out);
}

FerrySockAddr *socket_address_convert(const SocketAddress *addr, GError **errp)
{
    AddressParts parts = {0};

    switch (addr->type) {
    case SOCKET_ADDRESS_TYPE_INET:
        parts.inet = &addr->u.inet;
        break;
    case SOCKET_ADDRESS_TYPE_UNIX:
        parts.un = &addr->u.q_unix;
        break;
    case SOCKET_ADDRESS_TYPE_VSOCK:
        parts.vsock = &addr->u.vsock;
        break;
    case SOCKET_ADDRESS_TYPE_FD:
        parts.fd = &addr->u.fd;
        break;
    default:
        g_assert_not_reached();
    }
    return convert(parts, errp);
}

FerrySockAddr *socket_address_convert_legacy(const SocketAddressLegacy *addr, GError **errp)
{
    AddressParts parts = {0};

    switch (addr->type) {
    case SOCKET_ADDRESS_TYPE_INET:
        parts.inet = addr->u.inet.data;
        break;
    case SOCKET_ADDRESS_TYPE_UNIX:
        parts.un = addr->u.q_unix.data;
        break;
    case SOCKET_ADDRESS_TYPE_VSOCK:
        parts.vsock = addr->u.vsock.data;
        break;
    case SOCKET_ADDRESS_TYPE_FD:
        parts.fd = addr->u.fd.data;
        break;
    default:
        g_assert_not_reached();
    }
    return convert(parts, errp);
}

char *socket_address_to_string(const SocketAddress *addr)
{
    g_autoptr(FerrySockAddr) native = socket_address_convert(addr, NULL);

    return native ? ferry_sockaddr_to_string(native) : g_strdup("(invalid address)");
}

static void revert_inet(const FerrySockInet *from, InetSocketAddress *to)
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

void socket_address_fill(SocketAddress *to, const FerrySockAddr *from)
{
    switch (from->type) {
    case FERRY_SOCK_INET:
        to->type = SOCKET_ADDRESS_TYPE_INET;
        revert_inet(&from->inet, &to->u.inet);
        break;
    case FERRY_SOCK_UNIX:
        to->type = SOCKET_ADDRESS_TYPE_UNIX;
        to->u.q_unix.path = g_strdup(from->un.path);
        to->u.q_unix.has_abstract = from->un.has_abstract;
        to->u.q_unix.abstract = from->un.abstract;
        to->u.q_unix.has_tight = from->un.has_tight;
        to->u.q_unix.tight = from->un.tight;
        break;
    case FERRY_SOCK_VSOCK:
        to->type = SOCKET_ADDRESS_TYPE_VSOCK;
        to->u.vsock.cid = g_strdup_printf("%u", from->vsock.cid);
        to->u.vsock.port = g_strdup_printf("%u", from->vsock.port);
        break;
    case FERRY_SOCK_FD:
        to->type = SOCKET_ADDRESS_TYPE_FD;
        to->u.fd.str = g_strdup(from->fd);
        break;
    }
}

SocketAddress *socket_address_from_native(const FerrySockAddr *addr)
{
    SocketAddress *out = g_new0(SocketAddress, 1);

    socket_address_fill(out, addr);
    return out;
}
