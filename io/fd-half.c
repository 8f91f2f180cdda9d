/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One direction of a pipe, a file or a device. */
#include "io/fd-half.h"
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include "util/error.h"
#include "util/sockets.h"

bool fd_half_init(FdHalf *half, int fd, QIOChannelDirection dir, const char *what, GError **errp)
{
    int ret;

    *half = (FdHalf){.fd = -1, .dir = dir, .poll = WAKE_POLL_INIT, .what = what};
    if (!wake_poll_init(&half->poll, fd, dir == QIO_CHANNEL_READ ? EPOLLIN : EPOLLOUT, errp)) {
        return false;
    }
    if (half->poll.epoll_fd >= 0) {
        ret = socket_set_nonblock(fd, true);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not make file descriptor %d non-blocking", fd);
            wake_poll_clear(&half->poll);
            return false;
        }
    }
    half->fd = fd;
    return true;
}

void fd_half_clear(FdHalf *half)
{
    if (half->fd >= 0) {
        wake_poll_clear(&half->poll);
        half->fd = -1;
    }
}

static ssize_t fd_half_fail(const FdHalf *half, int err, GError **errp)
{
    if (err == EAGAIN || err == EWOULDBLOCK) {
        return -EAGAIN;
    }
    error_setg_errno(errp, err, "Unable to %s %s",
                     half->dir == QIO_CHANNEL_READ ? "read from" : "write to", half->what);
    return -err;
}

ssize_t fd_half_readv(FdHalf *half, QIOChannel *ioc, const struct iovec *iov, size_t niov,
                      GError **errp)
{
    ssize_t len;

    if (qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_READ)) {
        return 0;
    }
    do {
        len = readv(half->fd, iov, niov);
    } while (len < 0 && errno == EINTR);
    return len < 0 ? fd_half_fail(half, errno, errp) : len;
}

ssize_t fd_half_writev(FdHalf *half, QIOChannel *ioc, const struct iovec *iov, size_t niov,
                       GError **errp)
{
    ssize_t len;

    if (qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_WRITE)) {
        return fd_half_fail(half, EPIPE, errp);
    }
    do {
        len = writev(half->fd, iov, niov);
    } while (len < 0 && errno == EINTR);
    return len < 0 ? fd_half_fail(half, errno, errp) : len;
}

int fd_half_poll_fd(FdHalf *half, short *events)
{
    *events = POLLIN; /* of the set, whatever it is for */
    return half->poll.epoll_fd;
}

void fd_half_wake(FdHalf *half)
{
    wake_poll_wake(&half->poll);
}
