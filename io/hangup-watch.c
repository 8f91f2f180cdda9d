/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QIOHangupWatch: an epoll set that holds the channel's descriptor and asks for the end alone. Event
 * loops know readable and writable only; the set is readable when the peer has hung up.
 */
#include "io/hangup-watch.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "util/aio.h"
#include "util/error.h"

struct QIOHangupWatch {
    QIOChannel *ioc; /* referenced: the descriptor stays open while it is in the set */
    AioContext *ctx;
    int epoll_fd;
    QIOChannelWatchFunc *cb;
    void *opaque;
};

static void hung_up(void *opaque)
{
    QIOHangupWatch *watch = opaque;

    watch->cb(watch->opaque);
}

QIOHangupWatch *qio_hangup_watch_new(QIOChannel *ioc, AioContext *ctx, QIOChannelWatchFunc *cb,
                                     void *opaque, GError **errp)
{
    struct epoll_event ev = {.events = EPOLLRDHUP};
    short events;
    int fd = ioc->klass->poll_fd(ioc, QIO_CHANNEL_READ, &events);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    QIOHangupWatch *watch;

    if (epoll_fd < 0 || fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
        error_setg_errno(errp, fd < 0 ? EBADF : errno, "Could not watch channel %s", ioc->name);
        if (epoll_fd >= 0) {
            close(epoll_fd);
        }
        return NULL;
    }
    watch = g_new(QIOHangupWatch, 1);
    *watch = (QIOHangupWatch){qio_channel_ref(ioc), ctx, epoll_fd, cb, opaque};
    aio_set_fd_handler(ctx, epoll_fd, hung_up, NULL, watch);
    return watch;
}

bool qio_channel_has_hung_up(QIOChannel *ioc)
{
    struct pollfd pfd = {.events = POLLRDHUP};
    short events;

    pfd.fd = ioc->klass->poll_fd(ioc, QIO_CHANNEL_READ, &events);
    return pfd.fd >= 0 && poll(&pfd, 1, 0) > 0;
}

void qio_hangup_watch_free(QIOHangupWatch *watch)
{
    if (watch) {
        aio_set_fd_handler(watch->ctx, watch->epoll_fd, NULL, NULL, NULL);
        close(watch->epoll_fd);
        qio_channel_unref(watch->ioc);
        g_free(watch);
    }
}
