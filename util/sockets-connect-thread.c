/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets: connecting in a thread that waits, until another one ends it. */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "trace/trace-util.h"
#include "util/error.h"
#include "util/sockets.h"

/* A unix listener whose queue is full is asked again after this time, in ms ... */
#define UNIX_RETRY_MS 20
/* ... for so long, when there is no earlier deadline. */
#define UNIX_RETRY_MAX_NS (5 * NANOSECONDS_PER_SECOND)

/* ms until the deadline, rounded up; -1: there is none. */
static int left_ms(int64_t deadline_ns)
{
    int64_t left = deadline_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    if (!deadline_ns) {
        return -1;
    }
    return left <= 0 ? 0 : MIN((left + SCALE_MS - 1) / SCALE_MS, 3600 * 1000);
}

/* The outcome of a connect() under way: 0 or -errno. */
static int await_outcome(int fd, int64_t deadline_ns)
{
    struct pollfd pfd = {.fd = fd, .events = POLLOUT};
    int err = 0, n, ms;
    socklen_t len = sizeof(err);

    do {
        ms = left_ms(deadline_ns);
        n = poll(&pfd, 1, ms);
        if (n == 0 && ms == 0) {
            return -ETIMEDOUT;
        }
    } while (n == 0 || (n < 0 && errno == EINTR));
    if (n < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0) {
        return -errno;
    }
    if (!err && (pfd.revents & POLLHUP)) {
        return -ECANCELED; /* shut down before there was a peer */
    }
    return -err;
}

static int connect_fd(int fd, const struct sockaddr_storage *sa, socklen_t len,
                      const SocketConnectHooks *hooks)
{
    int64_t give_up = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + UNIX_RETRY_MAX_NS;

    for (;;) {
        if (!hooks->attempt(fd, hooks->opaque)) {
            return -ECANCELED;
        }
        if (connect(fd, (const struct sockaddr *)sa, len) == 0) {
            return 0;
        }
        if (errno == EINPROGRESS) {
            return await_outcome(fd, hooks->deadline_ns);
        }
        if (errno == EINTR) {
            continue;
        }
        if (errno != EAGAIN || qemu_clock_get_ns(QEMU_CLOCK_REALTIME) >= give_up) {
            return -errno;
        }
        if (left_ms(hooks->deadline_ns) == 0) {
            return -ETIMEDOUT;
        }
        (void)poll(NULL, 0, UNIX_RETRY_MS);
    }
}

/* A connected socket, or -errno. */
static int connect_native(const struct sockaddr_storage *sa, socklen_t len,
                          const SocketConnectHooks *hooks)
{
    int fd = socket(sa->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int ret;

    if (fd < 0) {
        return -errno;
    }
    ret = connect_fd(fd, sa, len, hooks);
    trace_socket_connect_done(fd, ret);
    if (!hooks->attempt(-1, hooks->opaque) && ret == 0) {
        ret = -ECANCELED;
    }
    if (ret < 0) {
        close(fd);
        return ret;
    }
    return fd;
}

/* As above; errp is set where resolution failed. */
static int connect_inet(const FerrySockInet *inet, const SocketConnectHooks *hooks, GError **errp)
{
    g_autoptr(GArray) list = socket_resolve(inet, false, errp);
    int first_err = 0;

    if (!list) {
        return -ENOENT;
    }
    for (guint i = 0; i < list->len; i++) {
        SocketCandidate *c = &g_array_index(list, SocketCandidate, i);
        int fd = connect_native(&c->sa, c->len, hooks);

        if (fd >= 0) {
            if (inet->has_keep_alive && inet->keep_alive) {
                socket_set_keepalive(fd, true);
            }
            return fd;
        }
        if (fd == -ECANCELED || left_ms(hooks->deadline_ns) == 0) {
            return fd;
        }
        /* the best candidate's error says more than that of a family which this host lacks */
        first_err = first_err ? first_err : fd;
    }
    return first_err;
}

int socket_connect(const FerrySockAddr *addr, const SocketConnectHooks *hooks, GError **errp)
{
    g_autofree char *name = ferry_sockaddr_to_string(addr);
    g_autoptr(GError) err = NULL;
    struct sockaddr_storage sa;
    socklen_t len;
    int fd;

    if (addr->type == FERRY_SOCK_FD) {
        return socket_get_fd(addr->fd, errp);
    }
    if (addr->type == FERRY_SOCK_INET) {
        fd = connect_inet(&addr->inet, hooks, &err);
    } else if (ferry_sockaddr_to_native(addr, &sa, &len, &err)) {
        fd = connect_native(&sa, len, hooks);
    } else {
        fd = -1;
    }
    if (err) {
        g_propagate_error(errp, g_steal_pointer(&err));
        return -1;
    }
    if (fd < 0) {
        error_setg_errno(errp, -fd, "Failed to connect to '%s'", name);
        return -1;
    }
    return fd;
}
