/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AioContext's epoll back end.
 *
 * Regular files, which epoll refuses and poll() calls always ready, are kept on a list of their
 * own. The wake-up descriptor is watched edge triggered: each write to it is an event, and it need
 * not be read.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "util/aio-int.h"
#include "util/error.h"
#include "util/queue.h"

#define EPOLL_BATCH 64

typedef struct EpollWatch {
    AioWatch *watch;
    uint32_t events; /* what the kernel was told; 0: nothing yet */
    bool always_ready;
    unsigned turn;                /* always_ready: when it was dispatched last */
    TAILQ_ENTRY(EpollWatch) link; /* in always_ready */
} EpollWatch;

typedef struct EpollState {
    int epoll_fd;
    bool no_pwait2; /* the kernel lacks epoll_pwait2(): timeouts are rounded up to ms */
    int n_events;
    struct epoll_event events[EPOLL_BATCH];
    TAILQ_HEAD(, EpollWatch) always_ready;
    unsigned turn;
} EpollState;

static bool epoll_init(AioContext *ctx, GError **errp)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    EpollState *s = g_new0(EpollState, 1);

    TAILQ_INIT(&s->always_ready);
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll_fd < 0 || epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, ctx->wake_fd, &event) < 0) {
        error_setg_errno(errp, errno, "Could not set up epoll for an event loop");
        if (s->epoll_fd >= 0) {
            close(s->epoll_fd);
        }
        g_free(s);
        return false;
    }
    ctx->state = s;
    return true;
}

static void epoll_cleanup(AioContext *ctx)
{
    EpollState *s = ctx->state;

    close(s->epoll_fd);
    g_free(s);
}

static void epoll_attach(AioContext *ctx)
{
    (void)ctx;
}

static void epoll_watch_update(AioContext *ctx, AioWatch *watch, unsigned events)
{
    EpollState *s = ctx->state;
    EpollWatch *ew = watch->backend;
    struct epoll_event event = {
        .events =
            ((events & AIO_WATCH_READ) ? EPOLLIN : 0) | ((events & AIO_WATCH_WRITE) ? EPOLLOUT : 0),
        .data.ptr = watch,
    };

    if (!ew) {
        ew = watch->backend = g_new0(EpollWatch, 1);
        ew->watch = watch;
    }
    if (ew->always_ready || ew->events == event.events) {
        return;
    }
    if (epoll_ctl(s->epoll_fd, ew->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, watch->fd, &event) < 0) {
        if (errno != EPERM) {
            g_error("epoll refuses file descriptor %d: %s", watch->fd, g_strerror(errno));
        }
        ew->always_ready = true;
        ew->turn = s->turn;
        TAILQ_INSERT_TAIL(&s->always_ready, ew, link);
        return;
    }
    ew->events = event.events;
}

static void epoll_watch_forget(AioContext *ctx, AioWatch *watch)
{
    EpollState *s = ctx->state;
    EpollWatch *ew = watch->backend;

    if (ew->always_ready) {
        TAILQ_REMOVE(&s->always_ready, ew, link);
    } else {
        epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
    }
    /* Events that were fetched but not dispatched must not find it. */
    for (int i = 0; i < s->n_events; i++) {
        if (s->events[i].data.ptr == watch) {
            s->events[i].data.ptr = NULL;
        }
    }
}

static int epoll_wait_ns(EpollState *s, int64_t timeout_ns)
{
    int64_t timeout_ms;

    if (timeout_ns > 0 && !s->no_pwait2) {
        struct timespec ts = {
            .tv_sec = timeout_ns / NANOSECONDS_PER_SECOND,
            .tv_nsec = timeout_ns % NANOSECONDS_PER_SECOND,
        };
        int n = epoll_pwait2(s->epoll_fd, s->events, EPOLL_BATCH, &ts, NULL);

        if (n >= 0 || errno != ENOSYS) {
            return n;
        }
        s->no_pwait2 = true;
    }
    timeout_ms = timeout_ns <= 0 ? timeout_ns : timeout_ns / SCALE_MS + 1;
    return epoll_wait(s->epoll_fd, s->events, EPOLL_BATCH, (int)MIN(timeout_ms, G_MAXINT));
}

static void epoll_back_end_wait(AioContext *ctx, int64_t timeout_ns)
{
    EpollState *s = ctx->state;
    int n = epoll_wait_ns(s, TAILQ_EMPTY(&s->always_ready) ? timeout_ns : 0);

    if (n < 0 && errno != EINTR) {
        g_error("epoll_wait failed: %s", g_strerror(errno));
    }
    s->n_events = MAX(n, 0);
}

static unsigned epoll_ready(uint32_t events)
{
    unsigned ready = 0;

    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        ready |= AIO_WATCH_READ;
    }
    if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        ready |= AIO_WATCH_WRITE;
    }
    return ready;
}

/* Each watch moves to the end of the list before its handler runs, which may forget any of them. */
static bool epoll_dispatch_always_ready(EpollState *s)
{
    bool progress = false;
    EpollWatch *ew;

    s->turn++;
    while ((ew = TAILQ_FIRST(&s->always_ready)) && ew->turn != s->turn) {
        AioWatch *watch = aio_watch_ref(ew->watch);

        ew->turn = s->turn;
        TAILQ_REMOVE(&s->always_ready, ew, link);
        TAILQ_INSERT_TAIL(&s->always_ready, ew, link);
        progress |= aio_watch_dispatch(watch, AIO_WATCH_READ | AIO_WATCH_WRITE);
        aio_watch_unref(watch);
    }
    return progress;
}

static bool epoll_dispatch(AioContext *ctx)
{
    EpollState *s = ctx->state;
    bool progress = false;

    for (int i = 0; i < s->n_events; i++) {
        AioWatch *watch = s->events[i].data.ptr;

        if (watch) {
            aio_watch_ref(watch);
            progress |= aio_watch_dispatch(watch, epoll_ready(s->events[i].events));
            aio_watch_unref(watch);
        }
    }
    s->n_events = 0;
    return epoll_dispatch_always_ready(s) || progress;
}

const AioBackendOps aio_epoll_ops = {
    .name = "epoll",
    .init = epoll_init,
    .cleanup = epoll_cleanup,
    .attach = epoll_attach,
    .watch_update = epoll_watch_update,
    .watch_forget = epoll_watch_forget,
    .wait = epoll_back_end_wait,
    .dispatch = epoll_dispatch,
};
