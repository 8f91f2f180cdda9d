/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses of socket chardevs. */
#include "chardev/char-address.h"

#include "util/cutils.h"
#include "util/error.h"

static void from_inet(FerrySockInet *to, const InetSocketAddress *from)
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

static bool from_vsock(FerrySockVsock *to, const VsockSocketAddress *from, GError **errp)
{
    uint64_t cid, port;

    if (qemu_strtou64(from->cid, NULL, 10, &cid) < 0 || cid > UINT32_MAX) {
        error_setg(errp, "Failed to parse cid '%s'", from->cid);
        return false;
    }
    if (qemu_strtou64(from->port, NULL, 10, &port) < 0 || port > UINT32_MAX) {
        error_setg(errp, "Failed to parse port '%s'", from->port);
        return false;
    }
    to->cid = (uint32_t)cid;
    to->port = (uint32_t)port;
    return true;
}

FerrySockAddr *chr_address_from_legacy(const SocketAddressLegacy *addr, GError **errp)
{
    g_autoptr(FerrySockAddr) to = g_new0(FerrySockAddr, 1);

    switch (addr->type) {
    case SOCKET_ADDRESS_TYPE_INET:
        to->type = FERRY_SOCK_INET;
        from_inet(&to->inet, addr->u.inet.data);
        break;
    case SOCKET_ADDRESS_TYPE_UNIX:
        to->type = FERRY_SOCK_UNIX;
        to->un.path = g_strdup(addr->u.q_unix.data->path);
        to->un.has_abstract = addr->u.q_unix.data->has_abstract;
        to->un.abstract = addr->u.q_unix.data->abstract;
        to->un.has_tight = addr->u.q_unix.data->has_tight;
        to->un.tight = addr->u.q_unix.data->tight;
        break;
    case SOCKET_ADDRESS_TYPE_VSOCK:
        to->type = FERRY_SOCK_VSOCK;
        if (!from_vsock(&to->vsock, addr->u.vsock.data, errp)) {
            return NULL;
        }
        break;
    default:
        to->type = FERRY_SOCK_FD;
        to->fd = g_strdup(addr->u.fd.data->str);
        break;
    }
    return g_steal_pointer(&to);
}

char *chr_address_name(const FerrySockAddr *addr)
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
