/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QIOChannelNull: nowhere. */
#include "io/channel-null.h"
#include <errno.h>
#include "util/error.h"
#include "util/iov.h"

static ssize_t null_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, QIOChannelFds *fds,
                          int flags, GError **errp)
{
    return 0;
}

static ssize_t null_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                           const QIOChannelFds *fds, int flags, GError **errp)
{
    if (qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_WRITE)) {
        error_setg_errno(errp, EPIPE, "Unable to write to null channel");
        return -EPIPE;
    }
    return iov_size(iov, niov);
}

static ssize_t null_preadv(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                           GError **errp)
{
    return 0;
}

static ssize_t null_pwritev(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                            GError **errp)
{
    return null_writev(ioc, iov, niov, NULL, 0, errp);
}

static off_t null_seek(QIOChannel *ioc, off_t offset, int whence, GError **errp)
{
    return 0;
}

static int null_poll_fd(QIOChannel *ioc, QIOChannelDirection dir, short *events)
{
    return -1;
}

static void null_finalize(QIOChannel *ioc)
{
}

static const QIOChannelClass qio_channel_null_class = {
    .name = "null",
    .instance_size = sizeof(QIOChannel),
    .readv = null_readv,
    .writev = null_writev,
    .preadv = null_preadv,
    .pwritev = null_pwritev,
    .seek = null_seek,
    .poll_fd = null_poll_fd,
    .finalize = null_finalize,
};

QIOChannel *qio_channel_null_new(void)
{
    QIOChannel *ioc = qio_channel_alloc(&qio_channel_null_class, NULL);

    ioc->features = QIO_CHANNEL_FEATURE_SEEKABLE;
    return ioc;
}
