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

/* The QAPI types and their native counterparts have members of the same names. */
#define COPY_INET(src, dst)                            \
    do {                                               \
        (dst)->host = g_strdup((src)->host);           \
        (dst)->port = g_strdup((src)->port);           \
        (dst)->has_numeric = (src)->has_numeric;       \
        (dst)->numeric = (src)->numeric;               \
        (dst)->has_to = (src)->has_to;                 \
        (dst)->to = (src)->to;                         \
        (dst)->has_ipv4 = (src)->has_ipv4;             \
        (dst)->ipv4 = (src)->ipv4;                     \
        (dst)->has_ipv6 = (src)->has_ipv6;             \
        (dst)->ipv6 = (src)->ipv6;                     \
        (dst)->has_keep_alive = (src)->has_keep_alive; \
        (dst)->keep_alive = (src)->keep_alive;         \
    } while (0)

#define COPY_UNIX(src, dst)                        \
    do {                                           \
        (dst)->path = g_strdup((src)->path);       \
        (dst)->has_abstract = (src)->has_abstract; \
        (dst)->abstract = (src)->abstract;         \
        (dst)->has_tight = (src)->has_tight;       \
        (dst)->tight = (src)->tight;               \
    } while (0)

/* The members of an address in either form: one of them is set. */
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
        COPY_INET(from.inet, &out->inet);
    } else if (from.un) {
        out->type = FERRY_SOCK_UNIX;
        COPY_UNIX(from.un, &out->un);
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

void socket_address_fill(SocketAddress *to, const FerrySockAddr *from)
{
    switch (from->type) {
    case FERRY_SOCK_INET:
        to->type = SOCKET_ADDRESS_TYPE_INET;
        COPY_INET(&from->inet, &to->u.inet);
        break;
    case FERRY_SOCK_UNIX:
        to->type = SOCKET_ADDRESS_TYPE_UNIX;
        COPY_UNIX(&from->un, &to->u.q_unix);
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
