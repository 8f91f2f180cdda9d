/* SPDX-License-Identifier: GPL-2.0-or-later */
/* FerrySockAddr: text to address, address to text, and to and from the kernel's form. */
#include "util/sockaddr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

#include "util/cutils.h"
#include "util/error.h"

/* DNS names have at most 253 characters (RFC 1035, section 2.3.4). */
#define HOST_MAX 255
#define PORT_MAX 63

void ferry_sockaddr_free(FerrySockAddr *addr)
{
    if (!addr) {
        return;
    }
    switch (addr->type) {
    case FERRY_SOCK_INET:
        g_free(addr->inet.host);
        g_free(addr->inet.port);
        break;
    case FERRY_SOCK_UNIX:
        g_free(addr->un.path);
        break;
    case FERRY_SOCK_VSOCK:
        break;
    case FERRY_SOCK_FD:
        g_free(addr->fd);
        break;
    }
    g_free(addr);
}

FerrySockAddr *ferry_sockaddr_copy(const FerrySockAddr *addr)
{
    FerrySockAddr *copy = g_new(FerrySockAddr, 1);

    *copy = *addr;
    switch (addr->type) {
    case FERRY_SOCK_INET:
        copy->inet.host = g_strdup(addr->inet.host);
        copy->inet.port = g_strdup(addr->inet.port);
        break;
    case FERRY_SOCK_UNIX:
        copy->un.path = g_strdup(addr->un.path);
        break;
    case FERRY_SOCK_VSOCK:
        break;
    case FERRY_SOCK_FD:
        copy->fd = g_strdup(addr->fd);
        break;
    }
    return copy;
}

/* "name", "name=on" or "name=off": sets *has and *value. */
static bool parse_flag(const char *option, const char *name, bool *has, bool *value, GError **errp)
{
    const char *eq = strchr(option, '=');

    *has = true;
    *value = true;
    return !eq || qemu_parse_bool(name, eq + 1, value, errp);
}

static bool option_is(const char *option, const char *name)
{
    size_t len = strlen(name);

    return strncmp(option, name, len) == 0 && (option[len] == '\0' || option[len] == '=');
}

static bool parse_inet_option(FerrySockInet *inet, const char *option, GError **errp)
{
    uint64_t to;

    if (option_is(option, "ipv4")) {
        return parse_flag(option, "ipv4", &inet->has_ipv4, &inet->ipv4, errp);
    }
    if (option_is(option, "ipv6")) {
        return parse_flag(option, "ipv6", &inet->has_ipv6, &inet->ipv6, errp);
    }
    if (option_is(option, "keep-alive")) {
        return parse_flag(option, "keep-alive", &inet->has_keep_alive, &inet->keep_alive, errp);
    }
    if (option_is(option, "numeric")) {
        return parse_flag(option, "numeric", &inet->has_numeric, &inet->numeric, errp);
    }
    if (g_str_has_prefix(option, "to=")) {
        if (qemu_strtou64(option + strlen("to="), NULL, 10, &to) < 0 || to > UINT16_MAX) {
            error_setg(errp, "Parameter 'to' expects a port number, not '%s'",
                       option + strlen("to="));
            return false;
        }
        inet->has_to = true;
        inet->to = to;
        return true;
    }
    error_setg(errp, "Invalid address option '%s'", option);
    return false;
}

bool ferry_sockaddr_check_port(const char *port, GError **errp)
{
    uint64_t number = 0;
    int ret = g_ascii_isdigit(port[0]) ? qemu_strtou64(port, NULL, 10, &number) : 0;

    if (ret == -ERANGE || number > UINT16_MAX) {
        error_setg(errp, "Port %s does not exist: the last one is %d", port, UINT16_MAX);
        return false;
    }
    return true;
}

static bool parse_inet(FerrySockInet *inet, const char *str, GError **errp)
{
    g_auto(GStrv) parts = g_strsplit(str, ",", -1);
    const char *first = parts[0] ? parts[0] : "", *host = first, *host_end, *colon;

    if (*first == '[') {
        host++;
        host_end = strchr(first, ']');
        colon = host_end ? host_end + 1 : first;
    } else {
        host_end = colon = strchr(first, ':');
    }
    if (!host_end || *colon != ':' || !colon[1] || strchr(colon + 1, ':') ||
        host_end - host > HOST_MAX || strlen(colon + 1) > PORT_MAX) {
        error_setg(errp, "Bad address '%s': expected HOST:PORT or [IPV6]:PORT", first);
        return false;
    }
    if (!ferry_sockaddr_check_port(colon + 1, errp)) {
        return false;
    }
    inet->host = g_strndup(host, host_end - host);
    inet->port = g_strdup(colon + 1);
    for (char **option = parts + 1; *option; option++) {
        if (!parse_inet_option(inet, *option, errp)) {
            return false;
        }
    }
    return true;
}

static bool parse_vsock(FerrySockVsock *vsock, const char *str, GError **errp)
{
    const char *end;
    uint64_t cid, port;

    if (qemu_strtou64(str, &end, 10, &cid) < 0 || *end != ':' ||
        qemu_strtou64(end + 1, NULL, 10, &port) < 0 || cid > UINT32_MAX || port > UINT32_MAX) {
        error_setg(errp, "Bad vsock address '%s': expected CID:PORT", str);
        return false;
    }
    vsock->cid = cid;
    vsock->port = port;
    return true;
}

FerrySockAddr *ferry_sockaddr_parse(const char *str, GError **errp)
{
    g_autoptr(FerrySockAddr) addr = g_new0(FerrySockAddr, 1);
    const char *rest = strchr(str, ':');

    rest = rest ? rest + 1 : str;
    if (g_str_has_prefix(str, "unix:")) {
        addr->type = FERRY_SOCK_UNIX;
        addr->un.path = g_strdup(rest);
        if (!*rest) {
            error_setg(errp, "Bad address '%s': the path is missing", str);
            return NULL;
        }
    } else if (g_str_has_prefix(str, "fd:")) {
        addr->type = FERRY_SOCK_FD;
        addr->fd = g_strdup(rest);
        if (!*rest) {
            error_setg(errp, "Bad address '%s': the descriptor is missing", str);
            return NULL;
        }
    } else if (g_str_has_prefix(str, "vsock:")) {
        addr->type = FERRY_SOCK_VSOCK;
        if (!parse_vsock(&addr->vsock, rest, errp)) {
            return NULL;
        }
    } else if (!parse_inet(&addr->inet, g_str_has_prefix(str, "tcp:") ? rest : str, errp)) {
        return NULL;
    }
    return g_steal_pointer(&addr);
}

char *ferry_sockaddr_to_string(const FerrySockAddr *addr)
{
    switch (addr->type) {
    case FERRY_SOCK_INET:
        return g_strdup_printf(strchr(addr->inet.host, ':') ? "[%s]:%s" : "%s:%s", addr->inet.host,
                               addr->inet.port);
    case FERRY_SOCK_UNIX:
        return g_strdup_printf("unix:%s%s", addr->un.has_abstract && addr->un.abstract ? "@" : "",
                               addr->un.path);
    case FERRY_SOCK_VSOCK:
        return g_strdup_printf("vsock:%u:%u", addr->vsock.cid, addr->vsock.port);
    case FERRY_SOCK_FD:
        return g_strdup_printf("fd:%s", addr->fd);
    }
    g_assert_not_reached();
}

static FerrySockAddr *inet_from_native(int family, const void *ip, uint16_t port)
{
    FerrySockAddr *addr = g_new0(FerrySockAddr, 1);
    char host[INET6_ADDRSTRLEN] = "";

    inet_ntop(family, ip, host, sizeof(host));
    addr->type = FERRY_SOCK_INET;
    addr->inet.host = g_strdup(host);
    addr->inet.port = g_strdup_printf("%u", ntohs(port));
    addr->inet.has_ipv4 = addr->inet.ipv4 = family == AF_INET;
    addr->inet.has_ipv6 = addr->inet.ipv6 = family == AF_INET6;
    return addr;
}

static FerrySockAddr *unix_from_native(const struct sockaddr_un *un, socklen_t len)
{
    FerrySockAddr *addr = g_new0(FerrySockAddr, 1);
    size_t n = len > offsetof(struct sockaddr_un, sun_path)
                   ? len - offsetof(struct sockaddr_un, sun_path)
                   : 0;

    n = MIN(n, sizeof(un->sun_path));
    addr->type = FERRY_SOCK_UNIX;
    if (n > 0 && un->sun_path[0] == '\0') {
        addr->un.has_abstract = addr->un.abstract = true;
        addr->un.has_tight = true;
        addr->un.tight = n < sizeof(un->sun_path);
        addr->un.path = g_strndup(un->sun_path + 1, n - 1);
    } else {
        addr->un.path = g_strndup(un->sun_path, n); /* empty: an unnamed socket */
    }
    return addr;
}

FerrySockAddr *ferry_sockaddr_from_native(const struct sockaddr_storage *sa, socklen_t len,
                                          GError **errp)
{
    const struct sockaddr_in *in = (const void *)sa;
    const struct sockaddr_in6 *in6 = (const void *)sa;
    const struct sockaddr_vm *vm = (const void *)sa;
    FerrySockAddr *addr;

    switch (sa->ss_family) {
    case AF_INET:
        return inet_from_native(AF_INET, &in->sin_addr, in->sin_port);
    case AF_INET6:
        return inet_from_native(AF_INET6, &in6->sin6_addr, in6->sin6_port);
    case AF_UNIX:
        return unix_from_native((const void *)sa, len);
    case AF_VSOCK:
        addr = g_new0(FerrySockAddr, 1);
        addr->type = FERRY_SOCK_VSOCK;
        addr->vsock = (FerrySockVsock){.cid = vm->svm_cid, .port = vm->svm_port};
        return addr;
    default:
        error_setg(errp, "Socket address family %d is not supported", sa->ss_family);
        return NULL;
    }
}

static bool unix_to_native(const FerrySockUnix *u, struct sockaddr_un *un, socklen_t *len,
                           GError **errp)
{
    bool abstract = u->has_abstract && u->abstract;
    bool padded = abstract && u->has_tight && !u->tight;
    size_t n = strlen(u->path), max = sizeof(un->sun_path) - 1;

    if (n == 0 && !abstract) {
        error_setg(errp, "UNIX socket path is empty");
        return false;
    }
    if (n > max) {
        error_setg(errp, "UNIX socket path '%s' is too long: %zu bytes at most", u->path, max);
        return false;
    }
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path + abstract, u->path, n);
    *len = padded ? sizeof(*un) : offsetof(struct sockaddr_un, sun_path) + n + 1;
    return true;
}

bool ferry_sockaddr_to_native(const FerrySockAddr *addr, struct sockaddr_storage *sa,
                              socklen_t *len, GError **errp)
{
    struct sockaddr_vm *vm = (void *)sa;

    memset(sa, 0, sizeof(*sa));
    if (addr->type == FERRY_SOCK_UNIX) {
        return unix_to_native(&addr->un, (void *)sa, len, errp);
    }
    g_assert(addr->type == FERRY_SOCK_VSOCK);
    vm->svm_family = AF_VSOCK;
    vm->svm_cid = addr->vsock.cid;
    vm->svm_port = addr->vsock.port;
    *len = sizeof(*vm);
    return true;
}

int ferry_sockaddr_inet_family(const FerrySockInet *inet, GError **errp)
{
    /* One that is asked for excludes the other, unless that is asked for too. */
    bool v4 = inet->has_ipv4 ? inet->ipv4 : !(inet->has_ipv6 && inet->ipv6);
    bool v6 = inet->has_ipv6 ? inet->ipv6 : !(inet->has_ipv4 && inet->ipv4);

    if (!v4 && !v6) {
        error_setg(errp, "Cannot disable IPv4 and IPv6 at same time");
        return -1;
    }
    return v4 && v6 ? AF_UNSPEC : v4 ? AF_INET : AF_INET6;
}
