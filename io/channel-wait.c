/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QIOChannel: waiting for a descriptor, in the event loop or in the calling thread; watches. */
#include <errno.h>
#include <poll.h>
#include "io/channel.h"

static void qio_channel_on_readable(void *opaque);
static void qio_channel_on_writable(void *opaque);

static bool read_pending(QIOChannel *ioc)
{
    return ioc->klass->read_pending && ioc->klass->read_pending(ioc);
}

/* --- registrations --- */

/* A coroutine or a watch waits for `event` of fd. */
static bool qio_channel_wants(const QIOChannel *ioc, int fd, short event)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(ioc->waiters); i++) {
        const QIOChannelWaiter *w = &ioc->waiters[i];

        if ((w->co && w->fd == fd && w->events == event) ||
            (w->watch && w->watch_fd == fd && w->watch_events == event)) {
            return true;
        }
    }
    return false;
}

static void poll_forget(QIOChannelPoll *p)
{
    if (p->fd >= 0) {
        aio_set_fd_handler(p->ioc->ctx, p->fd, NULL, NULL, NULL);
    }
    p->fd = -1;
    p->in = p->out = false;
}

/*
 * Registers what is wanted; leaves alone what is there already, so that a busy channel makes no
 * system calls for it.
 */
static void poll_set(QIOChannelPoll *p, int fd, bool in, bool out)
{
    if (p->fd == fd && p->in == in && p->out == out) {
        return;
    }
    if (p->fd != fd) {
        poll_forget(p);
    }
    if (!in && !out) {
        poll_forget(p);
        return;
    }
    p->fd = fd;
    p->in = in;
    p->out = out;
    aio_set_fd_handler(p->ioc->ctx, fd, in ? qio_channel_on_readable : NULL,
                       out ? qio_channel_on_writable : NULL, p);
}

/* The registration of fd, or a free one. */
static QIOChannelPoll *poll_find(QIOChannel *ioc, int fd)
{
    QIOChannelPoll *spare = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(ioc->polls); i++) {
        QIOChannelPoll *p = &ioc->polls[i];

        if (p->fd == fd) {
            return p;
        }
        if (p->fd < 0 ||
            (!qio_channel_wants(ioc, p->fd, POLLIN) && !qio_channel_wants(ioc, p->fd, POLLOUT))) {
            spare = spare && spare->fd < 0 ? spare : p;
        }
    }
    return spare;
}

/* Sees to it that `event` of fd is noticed. */
static void qio_channel_arm(QIOChannel *ioc, AioContext *ctx, int fd, short event)
{
    QIOChannelPoll *p;

    if (ioc->ctx != ctx) {
        poll_forget(&ioc->polls[0]);
        poll_forget(&ioc->polls[1]);
        ioc->ctx = ctx;
    }
    p = poll_find(ioc, fd);
    if (p->fd == fd) {
        poll_set(p, fd, p->in || event == POLLIN, p->out || event == POLLOUT);
    } else {
        poll_set(p, fd, event == POLLIN, event == POLLOUT);
    }
}

void qio_channel_detach_aio_context(QIOChannel *ioc)
{
    g_assert(!ioc->waiters[QIO_CHANNEL_READ].co && !ioc->waiters[QIO_CHANNEL_WRITE].co);
    poll_forget(&ioc->polls[0]);
    poll_forget(&ioc->polls[1]);
    ioc->ctx = NULL;
    ioc->watch_due = false;
}

/* --- watches --- */

static void watch_call_again(void *opaque);

/* A reader whose bytes are at hand, or a channel that never waits: the descriptor will be silent. */
static bool watch_is_ready(QIOChannel *ioc, QIOChannelDirection dir)
{
    QIOChannelWaiter *w = &ioc->waiters[dir];

    return w->watch && (w->watch_fd < 0 || (dir == QIO_CHANNEL_READ && read_pending(ioc)));
}

static void watch_schedule(QIOChannel *ioc)
{
    if (ioc->ctx && !ioc->watch_due &&
        (watch_is_ready(ioc, QIO_CHANNEL_READ) || watch_is_ready(ioc, QIO_CHANNEL_WRITE))) {
        ioc->watch_due = true;
        aio_bh_schedule_oneshot(ioc->ctx, watch_call_again, qio_channel_ref(ioc));
    }
}

static void watch_call_again(void *opaque)
{
    g_autoptr(QIOChannel) ioc = opaque;

    ioc->watch_due = false;
    for (int dir = QIO_CHANNEL_READ; dir <= QIO_CHANNEL_WRITE; dir++) {
        if (!ioc->waiters[dir].co && watch_is_ready(ioc, dir)) {
            ioc->waiters[dir].watch(ioc->waiters[dir].watch_opaque);
        }
    }
    watch_schedule(ioc);
}

static void watch_fire(QIOChannel *ioc, QIOChannelDirection dir)
{
    if (dir == QIO_CHANNEL_READ && ioc->klass->idle_event && !ioc->klass->idle_event(ioc)) {
        return;
    }
    ioc->waiters[dir].watch(ioc->waiters[dir].watch_opaque);
    watch_schedule(ioc);
}

void qio_channel_set_watch(QIOChannel *ioc, AioContext *ctx, QIOChannelDirection dir,
                           QIOChannelWatchFunc *cb, void *opaque)
{
    QIOChannelWaiter *w = &ioc->waiters[dir];

    w->watch = cb;
    w->watch_opaque = opaque;
    if (!cb) {
        return; /* the handler, should it fire, finds no waiter and returns */
    }
    w->watch_events = dir == QIO_CHANNEL_READ ? POLLIN : POLLOUT;
    w->watch_fd = ioc->klass->poll_fd(ioc, dir, &w->watch_events);
    if (w->watch_fd >= 0) {
        qio_channel_arm(ioc, ctx, w->watch_fd, w->watch_events);
    } else {
        ioc->ctx = ctx;
    }
    watch_schedule(ioc);
}

/* --- coroutines --- */

static bool waits_for(const QIOChannelWaiter *w, const QIOChannelPoll *p, short event)
{
    return w->co && w->fd == p->fd && w->events == event;
}

/*
 * Calls the watch of a direction without a waiter, and resumes the coroutine that waits for `event`. A
 * coroutine may take the channel to another thread: that direction comes last, and nothing of the
 * channel is looked at afterwards.
 */
static void qio_channel_ready(QIOChannelPoll *p, short event)
{
    QIOChannel *ioc = p->ioc;
    Coroutine *wake[2] = {NULL, NULL};
    bool used = false;

    qio_channel_ref(ioc);
    for (int dir = QIO_CHANNEL_READ; dir <= QIO_CHANNEL_WRITE; dir++) {
        wake[dir] = waits_for(&ioc->waiters[dir], p, event) ? ioc->waiters[dir].co : NULL;
    }
    for (int dir = QIO_CHANNEL_READ; dir <= QIO_CHANNEL_WRITE; dir++) {
        QIOChannelWaiter *w = &ioc->waiters[dir];

        if (!wake[dir] && !w->co && w->watch && w->watch_fd == p->fd && w->watch_events == event) {
            used = true;
            watch_fire(ioc, dir);
        }
    }
    if (!used && !wake[0] && !wake[1] && p->fd >= 0) {
        poll_set(p, p->fd, qio_channel_wants(ioc, p->fd, POLLIN),
                 qio_channel_wants(ioc, p->fd, POLLOUT));
    }
    for (int dir = QIO_CHANNEL_READ; dir <= QIO_CHANNEL_WRITE; dir++) {
        QIOChannelWaiter *w = &ioc->waiters[dir];

        /* A watch, or the other coroutine, may have ended this wait. */
        if (wake[dir] && w->co == wake[dir]) {
            w->co = NULL;
            qemu_coroutine_enter(wake[dir]);
        }
    }
    qio_channel_unref(ioc);
}

static void qio_channel_on_readable(void *opaque)
{
    qio_channel_ready(opaque, POLLIN);
}

static void qio_channel_on_writable(void *opaque)
{
    qio_channel_ready(opaque, POLLOUT);
}

int coroutine_fn qio_channel_co_wait(QIOChannel *ioc, QIOChannelDirection dir)
{
    QIOChannelWaiter *w = &ioc->waiters[dir];
    short events = dir == QIO_CHANNEL_READ ? POLLIN : POLLOUT;
    int fd;

    g_assert(!w->co);
    if (dir == QIO_CHANNEL_READ && read_pending(ioc)) {
        return 0;
    }
    fd = ioc->klass->poll_fd(ioc, dir, &events);
    if (fd < 0) {
        return -EPIPE;
    }
    w->co = qemu_coroutine_self();
    w->fd = fd;
    w->events = events;
    w->interrupted = false;
    qio_channel_arm(ioc, qemu_get_current_aio_context(), fd, events);
    qemu_coroutine_yield();
    return w->interrupted ? -ECANCELED : 0;
}

void qio_channel_interrupt(QIOChannel *ioc)
{
    Coroutine *co[2] = {ioc->waiters[0].co, ioc->waiters[1].co};

    ioc->waiters[0].co = ioc->waiters[1].co = NULL;
    for (int i = 0; i < 2; i++) {
        if (co[i]) {
            ioc->waiters[i].interrupted = true;
            aio_co_wake(co[i]);
        }
    }
}

/* --- threads --- */

/* What poll(2) takes as its time limit in ms, rounded up; -1: none. */
static int poll_timeout(int64_t deadline_ns)
{
    int64_t left;

    if (!deadline_ns) {
        return -1;
    }
    left = deadline_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    return left <= 0 ? 0 : MIN((left + SCALE_MS - 1) / SCALE_MS, 3600 * 1000);
}

int qio_channel_wait(QIOChannel *ioc, QIOChannelDirection dir, int64_t deadline_ns)
{
    struct pollfd pfd = {.events = dir == QIO_CHANNEL_READ ? POLLIN : POLLOUT};

    if (dir == QIO_CHANNEL_READ && read_pending(ioc)) {
        return 0;
    }
    pfd.fd = ioc->klass->poll_fd(ioc, dir, &pfd.events);
    if (pfd.fd < 0) {
        return -EPIPE;
    }
    for (;;) {
        int timeout = poll_timeout(deadline_ns);
        int n = poll(&pfd, 1, timeout);

        if (n > 0) {
            return 0;
        }
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n == 0 && timeout == 0) {
            return -ETIMEDOUT;
        }
    }
}
