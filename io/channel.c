/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QIOChannel: references, single calls, and life. */
#include "io/channel.h"
#include <errno.h>
#include <limits.h>
#include "util/error.h"

QIOChannel *qio_channel_alloc(const QIOChannelClass *klass, const char *name)
{
    QIOChannel *ioc = g_malloc0(klass->instance_size);

    ioc->klass = klass;
    ioc->refcount = 1;
    ioc->name = g_strdup(name ? name : klass->name);
    for (unsigned i = 0; i < G_N_ELEMENTS(ioc->polls); i++) {
        ioc->polls[i] = (QIOChannelPoll){.ioc = ioc, .fd = -1};
    }
    return ioc;
}

QIOChannel *qio_channel_ref(QIOChannel *ioc)
{
    g_atomic_int_inc(&ioc->refcount);
    return ioc;
}

void qio_channel_unref(QIOChannel *ioc)
{
    if (!ioc || !g_atomic_int_dec_and_test(&ioc->refcount)) {
        return;
    }
    qio_channel_detach_aio_context(ioc);
    ioc->klass->finalize(ioc);
    g_free(ioc->name);
    g_free(ioc);
}

void qio_channel_set_name(QIOChannel *ioc, const char *name)
{
    g_free(ioc->name);
    ioc->name = g_strdup(name);
}

const char *qio_channel_get_name(const QIOChannel *ioc)
{
    return ioc->name;
}

bool qio_channel_has_feature(const QIOChannel *ioc, QIOChannelFeature feature)
{
    return (ioc->features & feature) != 0;
}

/* --- single calls --- */

static bool iov_is_empty(const struct iovec *iov, size_t niov)
{
    for (size_t i = 0; i < niov; i++) {
        if (iov[i].iov_len) {
            return false;
        }
    }
    return true;
}

ssize_t qio_channel_readv_full(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                               QIOChannelFds *fds, int flags, GError **errp)
{
    ssize_t len;

    if (fds) {
        *fds = (QIOChannelFds){NULL, 0};
        if (!qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_FD_PASS)) {
            fds = NULL;
        }
    }
    if ((flags & QIO_CHANNEL_READ_FLAG_MSG_PEEK) &&
        !qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_READ_MSG_PEEK)) {
        error_setg(errp, "Channel '%s' does not support peeking at messages", ioc->name);
        return -ENOTSUP;
    }
    niov = MIN(niov, IOV_MAX);
    if (iov_is_empty(iov, niov)) {
        return 0;
    }
    if (!ioc->blocking) {
        return ioc->klass->readv(ioc, iov, niov, fds, flags, errp);
    }
    flags |= QIO_CHANNEL_FLAG_MAY_BLOCK;
    while ((len = ioc->klass->readv(ioc, iov, niov, fds, flags, errp)) == -EAGAIN) {
        int ret = qio_channel_wait(ioc, QIO_CHANNEL_READ, 0);

        if (ret < 0) {
            error_setg_errno(errp, -ret, "Waiting for channel '%s' failed", ioc->name);
            return ret;
        }
    }
    return len;
}

ssize_t qio_channel_writev_full(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                const QIOChannelFds *fds, int flags, GError **errp)
{
    ssize_t len;

    fds = fds && fds->n ? fds : NULL;
    if (fds && !qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_FD_PASS)) {
        error_setg(errp, "Channel '%s' does not support file descriptor passing", ioc->name);
        return -ENOTSUP;
    }
    if ((flags & QIO_CHANNEL_WRITE_FLAG_ZERO_COPY) &&
        !qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_WRITE_ZERO_COPY)) {
        error_setg(errp, "Requested Zero Copy feature is not available");
        return -ENOTSUP;
    }
    niov = MIN(niov, IOV_MAX);
    if (iov_is_empty(iov, niov)) {
        return 0;
    }
    if (!ioc->blocking) {
        return ioc->klass->writev(ioc, iov, niov, fds, flags, errp);
    }
    flags |= QIO_CHANNEL_FLAG_MAY_BLOCK;
    while ((len = ioc->klass->writev(ioc, iov, niov, fds, flags, errp)) == -EAGAIN) {
        int ret = qio_channel_wait(ioc, QIO_CHANNEL_WRITE, 0);

        if (ret < 0) {
            error_setg_errno(errp, -ret, "Waiting for channel '%s' failed", ioc->name);
            return ret;
        }
    }
    return len;
}

ssize_t qio_channel_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, GError **errp)
{
    return qio_channel_readv_full(ioc, iov, niov, NULL, 0, errp);
}

ssize_t qio_channel_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov, GError **errp)
{
    return qio_channel_writev_full(ioc, iov, niov, NULL, 0, errp);
}

ssize_t qio_channel_read(QIOChannel *ioc, void *buf, size_t bytes, GError **errp)
{
    struct iovec iov = {buf, bytes};

    return qio_channel_readv(ioc, &iov, 1, errp);
}

ssize_t qio_channel_write(QIOChannel *ioc, const void *buf, size_t bytes, GError **errp)
{
    struct iovec iov = {(void *)buf, bytes};

    return qio_channel_writev(ioc, &iov, 1, errp);
}

/* --- at an offset --- */

static bool check_seekable(QIOChannel *ioc, GError **errp)
{
    if (!qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_SEEKABLE)) {
        error_setg(errp, "Channel '%s' is not seekable", ioc->name);
        return false;
    }
    return true;
}

ssize_t qio_channel_preadv(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                           GError **errp)
{
    return check_seekable(ioc, errp)
               ? ioc->klass->preadv(ioc, iov, MIN(niov, IOV_MAX), offset, errp)
               : -ESPIPE;
}

ssize_t qio_channel_pwritev(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                            GError **errp)
{
    return check_seekable(ioc, errp)
               ? ioc->klass->pwritev(ioc, iov, MIN(niov, IOV_MAX), offset, errp)
               : -ESPIPE;
}

off_t qio_channel_seek(QIOChannel *ioc, off_t offset, int whence, GError **errp)
{
    return check_seekable(ioc, errp) ? ioc->klass->seek(ioc, offset, whence, errp) : -ESPIPE;
}

/* --- life and tuning --- */

bool qio_channel_set_blocking(QIOChannel *ioc, bool on, GError **errp)
{
    int ret = ioc->klass->set_blocking ? ioc->klass->set_blocking(ioc, on) : 0;

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not change the blocking mode of channel '%s'",
                         ioc->name);
        return false;
    }
    ioc->blocking = on;
    return true;
}

void qio_channel_shutdown(QIOChannel *ioc, QIOChannelShutdown how)
{
    g_atomic_int_or((guint *)&ioc->shut, how);
    if (ioc->klass->shutdown) {
        ioc->klass->shutdown(ioc, how);
    }
}

bool qio_channel_is_shut(const QIOChannel *ioc, QIOChannelShutdown how)
{
    return ((QIOChannelShutdown)g_atomic_int_get(&ioc->shut) & how) == how;
}

bool qio_channel_is_shut_down(const QIOChannel *ioc)
{
    return qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_BOTH);
}

int qio_channel_close(QIOChannel *ioc, GError **errp)
{
    qio_channel_detach_aio_context(ioc);
    return ioc->klass->close ? ioc->klass->close(ioc, errp) : 0;
}

int qio_channel_flush(QIOChannel *ioc, GError **errp)
{
    return ioc->klass->flush ? ioc->klass->flush(ioc, errp) : 0;
}

void qio_channel_set_cork(QIOChannel *ioc, bool on)
{
    if (ioc->klass->set_cork) {
        ioc->klass->set_cork(ioc, on);
    }
}

void qio_channel_set_delay(QIOChannel *ioc, bool on)
{
    if (ioc->klass->set_delay) {
        ioc->klass->set_delay(ioc, on);
    }
}
