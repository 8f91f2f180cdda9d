/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FerrySockAddr: a socket address as users give it, before resolution: the counterpart, member by
 * member, of the QAPI type SocketAddress. Any thread; strings belong to the address.
 */
#ifndef FERRY_UTIL_SOCKADDR_H
#define FERRY_UTIL_SOCKADDR_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

typedef enum FerrySockType {
    FERRY_SOCK_INET,
    FERRY_SOCK_UNIX,
    FERRY_SOCK_VSOCK,
    FERRY_SOCK_FD,
} FerrySockType;

typedef struct FerrySockInet {
    char *host; /* name or number; empty: every address of this host (to listen only) */
    char *port; /* number or service name */
    bool has_numeric, numeric;       /* names are not looked up */
    bool has_to, has_ipv4, has_ipv6; /* not given: any family that the host has */
    uint16_t to;                     /* the last port to try when listening */
    bool ipv4, ipv6;
    bool has_keep_alive, keep_alive;
} FerrySockInet;

typedef struct FerrySockUnix {
    char *path;
    bool has_abstract, abstract; /* a name of Linux's abstract namespace, not of the file system */
    bool has_tight,
        /* abstract: the name ends with its last character (default); else padded with NULs */
        tight;
} FerrySockUnix;

typedef struct FerrySockVsock {
    uint32_t cid;
    uint32_t port;
} FerrySockVsock;

typedef struct FerrySockAddr {
    FerrySockType type;
    union {
        FerrySockInet inet;
        FerrySockUnix un;
        FerrySockVsock vsock;
        char *fd; /* a number, or the name of a descriptor passed to the monitor */
    };
} FerrySockAddr;

void ferry_sockaddr_free(FerrySockAddr *addr); /* NULL is allowed */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FerrySockAddr, ferry_sockaddr_free)
FerrySockAddr *ferry_sockaddr_copy(const FerrySockAddr *addr);

/*
 * "[tcp:]HOST:PORT[,to=N][,ipv4[=on|off]][,ipv6[=on|off]][,keep-alive[=on|off]][,numeric[=on|off]]",
 * "[tcp:][IPV6]:PORT...", "unix:PATH", "vsock:CID:PORT", "fd:NAME". NULL and errp when it is none
 * of these.
 */
FerrySockAddr *ferry_sockaddr_parse(const char *str, GError **errp);
/*
 * For messages: "127.0.0.1:80", "[::1]:80", "unix:/path", "unix:@name", "vsock:2:1024", "fd:7".
 * Caller frees.
 */
char *ferry_sockaddr_to_string(const FerrySockAddr *addr);
/* From the kernel's form; numeric, never looks anything up. NULL and errp for other families. */
FerrySockAddr *ferry_sockaddr_from_native(const struct sockaddr_storage *sa, socklen_t len,
                                          GError **errp);
/*
 * The kernel's form of a unix or vsock address. False and errp when it has none (a path that is
 * empty or longer than sun_path).
 */
G_GNUC_WARN_UNUSED_RESULT bool ferry_sockaddr_to_native(const FerrySockAddr *addr,
                                                        struct sockaddr_storage *sa, socklen_t *len,
                                                        GError **errp);
/*
 * False and errp for a number past the last port, which getaddrinfo() would take modulo 65536. Names of services are
 * not looked at.
 */
G_GNUC_WARN_UNUSED_RESULT bool ferry_sockaddr_check_port(const char *port, GError **errp);
/* AF_INET, AF_INET6, AF_UNSPEC (either) as ipv4 and ipv6 say; -1 and errp when both are off. */
int ferry_sockaddr_inet_family(const FerrySockInet *inet, GError **errp);

#endif
