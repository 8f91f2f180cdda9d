/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets: connecting from a coroutine, within a deadline, until told otherwise. */
#include <errno.h>

#include "util/aio.h"
#include "util/sockets-attempt.h"

/* A unix listener whose queue is full is asked again after this time. */
#define UNIX_RETRY_NS (20 * SCALE_MS)

void socket_connect_cancel(SocketConnectControl *ctl)
{
    ctl->cancelled = true;
    qemu_co_sleep_wake(&ctl->wait);
}

static int check_control(int fd, void *opaque)
{
    const SocketConnectControl *ctl = opaque;

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

static int coroutine_fn await_outcome_co(int fd, void *opaque)
{
    SocketConnectControl *ctl = opaque;
    AioContext *ctx = qemu_get_current_aio_context();
    ConnectWait wait = {.ctl = ctl};
    int ret;

    aio_set_fd_handler(ctx, fd, NULL, connect_ready, &wait);
    do {
        wait.ready = false;
        while ((ret = check_control(fd, ctl)) == 0 && !wait.ready) {
            control_co_sleep(ctl, 3600 * NANOSECONDS_PER_SECOND);
        }
        ret = ret < 0 ? ret : socket_attempt_outcome(fd);
    } while (ret == -EINPROGRESS);
    aio_set_fd_handler(ctx, fd, NULL, NULL, NULL);
    return ret;
}

static void coroutine_fn pause_co(void *opaque)
{
    control_co_sleep(opaque, UNIX_RETRY_NS);
}

typedef struct ResolveCall {
    const FerrySockInet *inet;
    bool passive;
    GArray *list;
    GError **errp;
} ResolveCall;

static int resolve_in_worker(void *opaque)
{
    ResolveCall *call = opaque;

    call->list = socket_resolve(call->inet, call->passive, call->errp);
    return 0;
}

GArray *coroutine_fn socket_resolve_co(const FerrySockInet *inet, bool passive, GError **errp)
{
    ResolveCall call = {.inet = inet, .passive = passive, .errp = errp};

    thread_pool_submit_co(resolve_in_worker, &call);
    return call.list;
}

static GArray *coroutine_fn resolve_co(const FerrySockInet *inet, GError **errp)
{
    return socket_resolve_co(inet, false, errp);
}

int coroutine_fn socket_connect_co(const FerrySockAddr *addr, SocketConnectControl *ctl,
                                   GError **errp)
{
    SocketConnectControl own = {0};
    const SocketAttempt attempt = {
        .resolve = resolve_co,
        .check = check_control,
        .await = await_outcome_co,
        .pause = pause_co,
        .opaque = ctl ? ctl : &own,
    };

    return socket_attempt_run(&attempt, addr, errp);
}
