/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets: connecting from a coroutine, within a deadline, until told otherwise. */
#include <errno.h>
#include <unistd.h>

#include "trace/trace-util.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/sockets.h"

/*
 * A unix listener whose queue is full refuses without a way to wait for it: asked again after this
 * time.
 */
#define UNIX_RETRY_NS (20 * SCALE_MS)
/* ... for so long, when there is no earlier deadline. */
#define UNIX_RETRY_MAX_NS (5 * NANOSECONDS_PER_SECOND)

void socket_connect_cancel(SocketConnectControl *ctl)
{
    ctl->cancelled = true;
    qemu_co_sleep_wake(&ctl->wait);
}

/* 0 while the attempt may go on. */
static int check_control(const SocketConnectControl *ctl)
{
    if (ctl->cancelled) {
        return -ECANCELED;
    }
    if (ctl->deadline_ns && qemu_clock_get_ns(QEMU_CLOCK_REALTIME) >= ctl->deadline_ns) {
        return -ETIMEDOUT;
    }
    return 0;
}

/* Sleeps until woken or the deadline, at most max_ns. */
static void coroutine_fn control_co_sleep(SocketConnectControl *ctl, int64_t max_ns)
{
    int64_t ns = max_ns;

    if (ctl->deadline_ns) {
        int64_t left = ctl->deadline_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

        ns = MIN(ns, MAX(left, 0));
    }
    qemu_co_sleep_ns_wakeable(&ctl->wait, QEMU_CLOCK_REALTIME, ns);
}

typedef struct ConnectWait {
    SocketConnectControl *ctl;
    bool ready;
} ConnectWait;

static void connect_ready(void *opaque)
{
    ConnectWait *wait = opaque;

    wait->ready = true;
    qemu_co_sleep_wake(&wait->ctl->wait);
}

/* Waits for the outcome of a connect() under way: 0 or -errno. */
static int coroutine_fn await_outcome_co(int fd, SocketConnectControl *ctl)
{
    AioContext *ctx = qemu_get_current_aio_context();
    ConnectWait wait = {.ctl = ctl};
    int ret, err = 0;
    socklen_t len = sizeof(err);

    aio_set_fd_handler(ctx, fd, NULL, connect_ready, &wait);
    while ((ret = check_control(ctl)) == 0 && !wait.ready) {
        control_co_sleep(ctl, 3600 * NANOSECONDS_PER_SECOND);
    }
    aio_set_fd_handler(ctx, fd, NULL, NULL, NULL);
    if (ret < 0) {
        return ret;
    }
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 ? -errno : -err;
}

static int coroutine_fn connect_fd_co(int fd, const struct sockaddr_storage *sa, socklen_t len,
                                      SocketConnectControl *ctl)
{
    int64_t give_up = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + UNIX_RETRY_MAX_NS;

    for (;;) {
        int ret = check_control(ctl);

        if (ret < 0) {
            return ret;
        }
        if (connect(fd, (const struct sockaddr *)sa, len) == 0) {
            return 0;
        }
        if (errno == EINPROGRESS) {
            return await_outcome_co(fd, ctl);
        }
        if (errno == EINTR) {
            continue;
        }
        if (errno != EAGAIN || qemu_clock_get_ns(QEMU_CLOCK_REALTIME) >= give_up) {
            return -errno;
        }
        control_co_sleep(ctl, UNIX_RETRY_NS);
    }
}

/* One candidate: a connected socket, or -errno. */
static int coroutine_fn connect_native_co(const struct sockaddr_storage *sa, socklen_t len,
                                          SocketConnectControl *ctl)
{
    int fd = socket(sa->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int ret;

    if (fd < 0) {
        return -errno;
    }
    if (trace_socket_connect_try_enabled()) {
        g_autoptr(FerrySockAddr) addr = ferry_sockaddr_from_native(sa, len, NULL);
        g_autofree char *name = addr ? ferry_sockaddr_to_string(addr) : NULL;

        trace_socket_connect_try(fd, name ? name : "?");
    }
    ret = connect_fd_co(fd, sa, len, ctl);
    trace_socket_connect_done(fd, ret);
    if (ret < 0) {
        close(fd);
        return ret;
    }
    return fd;
}

typedef struct ResolveCall {
    const FerrySockInet *inet;
    GArray *list;
    GError **errp;
} ResolveCall;

static int resolve_in_worker(void *opaque)
{
    ResolveCall *call = opaque;

    call->list = socket_resolve(call->inet, false, call->errp);
    return 0;
}

/* A socket, or -errno with errp set where resolution failed. */
static int coroutine_fn connect_inet_co(const FerrySockInet *inet, SocketConnectControl *ctl,
                                        GError **errp)
{
    ResolveCall call = {.inet = inet, .errp = errp};
    g_autoptr(GArray) list = NULL;
    int first_err = 0;

    thread_pool_submit_co(resolve_in_worker, &call);
    list = call.list;
    if (!list) {
        return -ENOENT;
    }
    for (guint i = 0; i < list->len; i++) {
        SocketCandidate *c = &g_array_index(list, SocketCandidate, i);
        int fd = connect_native_co(&c->sa, c->len, ctl);

        if (fd >= 0) {
            if (inet->has_keep_alive && inet->keep_alive) {
                socket_set_keepalive(fd, true);
            }
            return fd;
        }
        /* The best candidate's error says more than that of a family which this host lacks. */
        first_err = first_err ? first_err : fd;
        if (check_control(ctl) < 0) {
            first_err = fd;
            break;
        }
    }
    return first_err;
}

int coroutine_fn socket_connect_co(const FerrySockAddr *addr, SocketConnectControl *ctl,
                                   GError **errp)
{
    g_autofree char *name = ferry_sockaddr_to_string(addr);
    g_autoptr(GError) err = NULL;
    SocketConnectControl own = {0};
    struct sockaddr_storage sa;
    socklen_t len;
    int fd;

    ctl = ctl ? ctl : &own;
    switch (addr->type) {
    case FERRY_SOCK_FD:
        return socket_get_fd(addr->fd, errp);
    case FERRY_SOCK_INET:
        fd = connect_inet_co(&addr->inet, ctl, &err);
        break;
    default:
        if (!ferry_sockaddr_to_native(addr, &sa, &len, errp)) {
            return -1;
        }
        fd = connect_native_co(&sa, len, ctl);
        break;
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
