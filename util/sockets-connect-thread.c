/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets: connecting in a thread that waits, until another one ends it. */
#include <errno.h>
#include <poll.h>

#include "util/sockets-attempt.h"

/* A unix listener whose queue is full is asked again after this time. */
#define UNIX_RETRY_MS 20

/* ms until the deadline, rounded up; -1: there is none. */
static int left_ms(int64_t deadline_ns)
{
    int64_t left = deadline_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    if (!deadline_ns) {
        return -1;
    }
    return left <= 0 ? 0 : MIN((left + SCALE_MS - 1) / SCALE_MS, 3600 * 1000);
}

static int await_outcome(int fd, void *opaque)
{
    const SocketConnectHooks *hooks = opaque;
    struct pollfd pfd = {.fd = fd, .events = POLLOUT};

    for (;;) {
        int ms = left_ms(hooks->deadline_ns), n = poll(&pfd, 1, ms), ret;

        if (n == 0 && ms == 0) {
            return -ETIMEDOUT;
        }
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n <= 0) {
            continue;
        }
        ret = socket_attempt_outcome(fd);
        if ((ret == 0 || ret == -EINPROGRESS) && (pfd.revents & POLLHUP)) {
            return -ECANCELED; /* shut down before there was a peer */
        }
        if (ret != -EINPROGRESS) {
            return ret;
        }
    }
}

static int check_hooks(int fd, void *opaque)
{
    const SocketConnectHooks *hooks = opaque;

    if (!hooks->attempt(fd, hooks->opaque)) {
        return -ECANCELED;
    }
    return left_ms(hooks->deadline_ns) == 0 ? -ETIMEDOUT : 0;
}

static void pause_before_retry(void *opaque)
{
    (void)poll(NULL, 0, UNIX_RETRY_MS);
}

static GArray *resolve(const FerrySockInet *inet, GError **errp)
{
    return socket_resolve(inet, false, errp);
}

int socket_connect(const FerrySockAddr *addr, const SocketConnectHooks *hooks, GError **errp)
{
    const SocketAttempt attempt = {
        .resolve = resolve,
        .check = check_hooks,
        .await = await_outcome,
        .pause = pause_before_retry,
        .opaque = (void *)hooks,
    };

    return socket_attempt_run(&attempt, addr, errp);
}
