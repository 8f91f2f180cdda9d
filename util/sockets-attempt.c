/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets: one attempt to connect, for coroutines, for callbacks and for threads. */
#include "util/sockets-attempt.h"
#include <errno.h>
#include <unistd.h>

#include "trace/trace-util.h"
#include "util/error.h"

/*
 * A unix listener whose queue is full refuses without a way to wait for it. It is asked again for so
 * long, when there is no earlier deadline.
 */
#define UNIX_RETRY_MAX_NS (5 * NANOSECONDS_PER_SECOND)

int socket_attempt_outcome(int fd)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof(int);
    int err = 0;

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0) {
        return -errno;
    }
    len = sizeof(peer);
    if (err || getpeername(fd, (struct sockaddr *)&peer, &len) == 0) {
        return -err;
    }
    return errno == ENOTCONN ? -EINPROGRESS : -errno;
}

static int connect_fd(const SocketAttempt *attempt, int fd, const struct sockaddr_storage *sa,
                      socklen_t len)
{
    int64_t give_up = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + UNIX_RETRY_MAX_NS;

    for (;;) {
        int ret = attempt->check(fd, attempt->opaque);

        if (ret < 0) {
            return ret;
        }
        if (connect(fd, (const struct sockaddr *)sa, len) == 0) {
            return 0;
        }
        if (errno == EINPROGRESS) {
            return attempt->await(fd, attempt->opaque);
        }
        if (errno == EINTR) {
            continue;
        }
        if (errno != EAGAIN || qemu_clock_get_ns(QEMU_CLOCK_REALTIME) >= give_up) {
            return -errno;
        }
        attempt->pause(attempt->opaque);
    }
}

static void trace_try(int fd, const struct sockaddr_storage *sa, socklen_t len)
{
    if (trace_socket_connect_try_enabled()) {
        g_autoptr(FerrySockAddr) addr = ferry_sockaddr_from_native(sa, len, NULL);
        g_autofree char *name = addr ? ferry_sockaddr_to_string(addr) : NULL;

        trace_socket_connect_try(fd, name ? name : "?");
    }
}

/* One candidate: a connected socket, or -errno. */
static int connect_native(const SocketAttempt *attempt, const struct sockaddr_storage *sa,
                          socklen_t len)
{
    int fd = socket(sa->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int ret;

    if (fd < 0) {
        return -errno;
    }
    trace_try(fd, sa, len);
    ret = connect_fd(attempt, fd, sa, len);
    trace_socket_connect_done(fd, ret);
    if (attempt->check(-1, attempt->opaque) == -ECANCELED && ret == 0) {
        ret = -ECANCELED;
    }
    if (ret < 0) {
        close(fd);
        return ret;
    }
    return fd;
}

/* A socket, or -errno with errp set where resolution failed. */
static int connect_inet(const SocketAttempt *attempt, const FerrySockInet *inet, GError **errp)
{
    g_autoptr(GArray) list = attempt->resolve(inet, errp);
    int first_err = 0;

    if (!list) {
        return -ENOENT;
    }
    for (guint i = 0; i < list->len; i++) {
        SocketCandidate *c = &g_array_index(list, SocketCandidate, i);
        int fd = connect_native(attempt, &c->sa, c->len);

        if (fd >= 0) {
            if (inet->has_keep_alive && inet->keep_alive) {
                socket_set_keepalive(fd, true);
            }
            return fd;
        }
        if (fd == -ECANCELED || attempt->check(-1, attempt->opaque) < 0) {
            return fd;
        }
        /* the best candidate's error says more than that of a family which this host lacks */
        first_err = first_err ? first_err : fd;
    }
    return first_err;
}

/* The kernel's words for what goes wrong over vsock mislead. */
static void set_vsock_error(const FerrySockAddr *addr, int err, GError **errp)
{
    unsigned cid = addr->vsock.cid, port = addr->vsock.port;

    if (err == ECONNRESET) {
        error_setg(errp, "Failed to connect to 'vsock:%u:%u': no process listens at that port", cid,
                   port);
    } else if (err == ETIMEDOUT) {
        error_setg(errp,
                   "Failed to connect to 'vsock:%u:%u': no machine of that CID answers (vsock "
                   "connects a host, CID 2, with its guests)",
                   cid, port);
    } else if (err == ENODEV) {
        error_setg(errp,
                   "Failed to connect to 'vsock:%u:%u': this kernel has no vsock transport that "
                   "leads to that CID",
                   cid, port);
    } else {
        error_setg_errno(errp, err, "Failed to connect to 'vsock:%u:%u'", cid, port);
    }
}

int socket_attempt_run(const SocketAttempt *attempt, const FerrySockAddr *addr, GError **errp)
{
    g_autofree char *name = ferry_sockaddr_to_string(addr);
    g_autoptr(GError) err = NULL;
    struct sockaddr_storage sa;
    socklen_t len;
    int fd = -1;

    if (addr->type == FERRY_SOCK_FD) {
        return socket_get_fd(addr->fd, errp);
    }
    if (addr->type == FERRY_SOCK_INET) {
        fd = connect_inet(attempt, &addr->inet, &err);
    } else if (ferry_sockaddr_to_native(addr, &sa, &len, &err)) {
        fd = connect_native(attempt, &sa, len);
    }
    if (fd >= 0) {
        return fd;
    }
    if (err) {
        g_propagate_error(errp, g_steal_pointer(&err));
    } else if (addr->type == FERRY_SOCK_VSOCK) {
        set_vsock_error(addr, -fd, errp);
    } else {
        error_setg_errno(errp, -fd, "Failed to connect to '%s'", name);
    }
    return -1;
}
