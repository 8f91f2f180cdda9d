/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sockets: listening, connecting, options, and descriptors sent along with data.
 *
 * Every descriptor made here is close-on-exec and non-blocking, and belongs to the caller.
 * Functions of the configuration path return -1 (or NULL, false) and set errp; those of the data
 * path return -errno.
 */
#ifndef FERRY_UTIL_SOCKETS_H
#define FERRY_UTIL_SOCKETS_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include "util/coroutine.h"
#include "util/sockaddr.h"
#include "util/timer.h"

/* --- name resolution --- */

/* More candidates of one name are ignored. */
#define SOCKET_CANDIDATES_MAX 32

typedef struct SocketCandidate {
    struct sockaddr_storage sa;
    socklen_t len;
} SocketCandidate;

/*
 * What an inet address may mean, best first: an array of SocketCandidate, never empty. Blocks while
 * it asks name servers: for worker threads and start-up. passive: to listen.
 */
GArray *socket_resolve(const FerrySockInet *inet, bool passive, GError **errp);
/* The same in a worker thread, for which the coroutine waits. */
GArray *coroutine_fn socket_resolve_co(const FerrySockInet *inet, bool passive, GError **errp);

/* --- listening --- */

/*
 * Binds and listens. For inet it takes the first candidate and port of PORT..to that is free. An
 * empty host serves IPv4 and IPv6 on one socket where both are allowed. Port 0 takes any free port
 * (see socket_local_address()). For unix, a socket left over at that path is removed first; nothing
 * else is. fd: takes the descriptor over. Blocks while names are resolved; socket_listen_co() does
 * that in a worker thread.
 */
G_GNUC_WARN_UNUSED_RESULT int socket_listen(const FerrySockAddr *addr, int backlog, GError **errp);
G_GNUC_WARN_UNUSED_RESULT int coroutine_fn socket_listen_co(const FerrySockAddr *addr, int backlog,
                                                            GError **errp);
/* Removes the path of a unix listener that is no longer used; does nothing for other addresses. */
void socket_listen_cleanup(const FerrySockAddr *addr);

/* --- connecting --- */

/* Bounds and ends a connection attempt. Zero-initialise; lives until the attempt returns. */
typedef struct SocketConnectControl {
    int64_t deadline_ns; /* of QEMU_CLOCK_REALTIME; 0: as long as the kernel tries */
    bool cancelled;
    QemuCoSleep wait;
} SocketConnectControl;

/*
 * Connects, trying the candidates in turn, in the running coroutine's AioContext. ctl may be NULL.
 * keep-alive is set as the address says. fd: takes the descriptor over. A look-up under way is
 * waited for even when cancelled.
 */
G_GNUC_WARN_UNUSED_RESULT int coroutine_fn socket_connect_co(const FerrySockAddr *addr,
                                                             SocketConnectControl *ctl,
                                                             GError **errp);
/* Makes the attempt return with an error soon; from the attempt's thread. */
void socket_connect_cancel(SocketConnectControl *ctl);

/* How the thread that connects is reached by others. */
typedef struct SocketConnectHooks {
    int64_t deadline_ns; /* of QEMU_CLOCK_REALTIME; 0: as long as the kernel tries */
    /*
     * The socket that is being connected, or -1 when there is none any more; false gives up. A
     * thread that wants to end the attempt calls shutdown(2) on it.
     */
    bool (*attempt)(int fd, void *opaque);
    void *opaque;
} SocketConnectHooks;

/*
 * The same in the calling thread, which waits. The name of a descriptor is looked up in the main
 * thread only.
 */
G_GNUC_WARN_UNUSED_RESULT int socket_connect(const FerrySockAddr *addr,
                                             const SocketConnectHooks *hooks, GError **errp);

/* --- descriptors by name --- */

/*
 * Finds a descriptor that was passed to a monitor under a name, and gives it away; -1 and errp if
 * there is none. Registered once, at start-up; without it only inherited descriptors are known.
 */
typedef int SocketFdLookup(const char *name, GError **errp);
void socket_set_fd_lookup(SocketFdLookup *lookup);
/*
 * A descriptor of any kind: the inherited one with that number (util/inherited-fds.h), or the one passed under
 * that name. It is the caller's now. -1 and errp.
 */
G_GNUC_WARN_UNUSED_RESULT int named_fd_take(const char *name, GError **errp);
/*
 * The socket that an `fd` address means, made non-blocking; -1 and errp when it is no open socket.
 */
G_GNUC_WARN_UNUSED_RESULT int socket_get_fd(const char *name, GError **errp);

/* --- a socket's properties --- */

/* Addresses of the two ends; caller frees. */
FerrySockAddr *socket_local_address(int fd, GError **errp);
FerrySockAddr *socket_remote_address(int fd, GError **errp);

/* 0 or -errno. nodelay is TCP's; for other sockets -EOPNOTSUPP. */
int socket_set_nodelay(int fd, bool on);
int socket_set_keepalive(int fd, bool on);
int socket_set_nonblock(int fd, bool on);

/* --- descriptors along with data (SCM_RIGHTS, unix sockets) --- */

#define SOCKET_MAX_FDS 16

/*
 * One sendmsg() or recvmsg(): the bytes moved, 0 at end of file, -EAGAIN when it would block.
 * Descriptors travel with the first byte: niov must have at least one, and nfds is at most
 * SOCKET_MAX_FDS. Received descriptors are the caller's; those beyond max_fds are closed. *nfds is
 * set on success. flags: MSG_DONTWAIT and the like.
 */
G_GNUC_WARN_UNUSED_RESULT ssize_t socket_send_fds(int fd, const struct iovec *iov, int niov,
                                                  const int *fds, size_t nfds, int flags);
G_GNUC_WARN_UNUSED_RESULT ssize_t socket_recv_fds(int fd, const struct iovec *iov, int niov,
                                                  int *fds, size_t max_fds, size_t *nfds,
                                                  int flags);

#endif
