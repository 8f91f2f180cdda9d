/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QIOChannelFile: files, pipes and devices by descriptor. */
#include "io/channel-file.h"
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include "io/fd-half.h"
#include "util/error.h"
#include "util/open.h"

struct QIOChannelFile {
    QIOChannel parent;
    int fd;
    GMutex lock; /* keeps what shutdown touches while another thread closes */
    FdHalf half[2];
};

static QIOChannelFile *fioc_of(QIOChannel *ioc)
{
    return (QIOChannelFile *)ioc;
}

static ssize_t file_fail(int err, const char *what, GError **errp)
{
    error_setg_errno(errp, err, "Unable to %s file", what);
    return -err;
}

static ssize_t file_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, QIOChannelFds *fds,
                          int flags, GError **errp)
{
    return fd_half_readv(&fioc_of(ioc)->half[QIO_CHANNEL_READ], ioc, iov, niov, errp);
}

static ssize_t file_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                           const QIOChannelFds *fds, int flags, GError **errp)
{
    return fd_half_writev(&fioc_of(ioc)->half[QIO_CHANNEL_WRITE], ioc, iov, niov, errp);
}

static ssize_t file_preadv(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                           GError **errp)
{
    ssize_t len;

    if (qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_READ)) {
        return 0;
    }
    do {
        len = preadv(fioc_of(ioc)->fd, iov, niov, offset);
    } while (len < 0 && errno == EINTR);
    return len < 0 ? file_fail(errno, "read from", errp) : len;
}

static ssize_t file_pwritev(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                            GError **errp)
{
    ssize_t len;

    if (qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_WRITE)) {
        return file_fail(EPIPE, "write to", errp);
    }
    do {
        len = pwritev(fioc_of(ioc)->fd, iov, niov, offset);
    } while (len < 0 && errno == EINTR);
    return len < 0 ? file_fail(errno, "write to", errp) : len;
}

static off_t file_seek(QIOChannel *ioc, off_t offset, int whence, GError **errp)
{
    off_t pos = lseek(fioc_of(ioc)->fd, offset, whence), end;

    if (pos >= 0) {
        return pos;
    }
    pos = file_fail(errno, "seek in", errp);
    end = whence == SEEK_SET ? lseek(fioc_of(ioc)->fd, 0, SEEK_END) : -1;
    if (end >= 0 && end < offset) {
        g_prefix_error(errp, "Byte %lld lies behind the end of a device of %lld bytes: ",
                       (long long)offset, (long long)end);
    }
    return pos;
}

static int file_poll_fd(QIOChannel *ioc, QIOChannelDirection dir, short *events)
{
    return fd_half_poll_fd(&fioc_of(ioc)->half[dir], events);
}

static int file_shutdown(QIOChannel *ioc, QIOChannelShutdown how)
{
    QIOChannelFile *fioc = fioc_of(ioc);

    g_mutex_lock(&fioc->lock);
    if (how & QIO_CHANNEL_SHUTDOWN_READ) {
        fd_half_wake(&fioc->half[QIO_CHANNEL_READ]);
    }
    if (how & QIO_CHANNEL_SHUTDOWN_WRITE) {
        fd_half_wake(&fioc->half[QIO_CHANNEL_WRITE]);
    }
    g_mutex_unlock(&fioc->lock);
    return 0;
}

static int file_close(QIOChannel *ioc, GError **errp)
{
    QIOChannelFile *fioc = fioc_of(ioc);
    int fd, ret = 0;

    g_mutex_lock(&fioc->lock);
    fd = fioc->fd;
    fioc->fd = -1;
    fd_half_clear(&fioc->half[QIO_CHANNEL_READ]);
    fd_half_clear(&fioc->half[QIO_CHANNEL_WRITE]);
    g_mutex_unlock(&fioc->lock);
    if (fd < 0) {
        return 0;
    }
    /* a duplicate's close() tells what the last one would, and the fd set hears of its own */
    ret = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    ret = ret >= 0 && close(ret) < 0 && errno != EINTR ? -errno : 0;
    qemu_close(fd);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Unable to close file");
    }
    return ret;
}

static void file_finalize(QIOChannel *ioc)
{
    (void)file_close(ioc, NULL);
    g_mutex_clear(&fioc_of(ioc)->lock);
}

static const QIOChannelClass qio_channel_file_class = {
    .name = "file",
    .instance_size = sizeof(QIOChannelFile),
    .readv = file_readv,
    .writev = file_writev,
    .preadv = file_preadv,
    .pwritev = file_pwritev,
    .seek = file_seek,
    .poll_fd = file_poll_fd,
    .shutdown = file_shutdown,
    .close = file_close,
    .finalize = file_finalize,
};

/* The directions that fd is open for; in the others read(2) and write(2) say -EBADF. */
static bool file_init_halves(QIOChannelFile *fioc, int fd, int mode, GError **errp)
{
    for (int dir = QIO_CHANNEL_READ; dir <= QIO_CHANNEL_WRITE; dir++) {
        int lacking = dir == QIO_CHANNEL_READ ? O_WRONLY : O_RDONLY;

        fioc->half[dir] = (FdHalf){.fd = -1, .dir = dir, .poll = WAKE_POLL_INIT, .what = "file"};
        if (mode != lacking && !fd_half_init(&fioc->half[dir], fd, dir, "file", errp)) {
            return false;
        }
    }
    return true;
}

QIOChannelFile *qio_channel_file_new_fd(int fd, GError **errp)
{
    int flags = fcntl(fd, F_GETFL);
    QIOChannelFile *fioc;

    if (flags < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        error_setg_errno(errp, errno, "Unable to use file descriptor %d", fd);
        return NULL;
    }
    fioc = fioc_of(qio_channel_alloc(&qio_channel_file_class, NULL));
    g_mutex_init(&fioc->lock);
    fioc->fd = -1;
    if (!file_init_halves(fioc, fd, flags & O_ACCMODE, errp)) {
        qio_channel_unref(&fioc->parent);
        return NULL;
    }
    fioc->fd = fd;
    if (lseek(fd, 0, SEEK_CUR) >= 0) {
        fioc->parent.features |= QIO_CHANNEL_FEATURE_SEEKABLE;
    }
    return fioc;
}

QIOChannelFile *qio_channel_file_new_path(const char *path, int flags, mode_t mode, GError **errp)
{
    int fd = qemu_open(path, flags, mode, errp);
    QIOChannelFile *fioc;

    if (fd < 0) {
        return NULL;
    }
    fioc = qio_channel_file_new_fd(fd, errp);
    if (!fioc) {
        qemu_close(fd);
    }
    return fioc;
}

int qio_channel_file_get_fd(const QIOChannelFile *fioc)
{
    return fioc->fd;
}

int qio_channel_file_sync(QIOChannelFile *fioc, GError **errp)
{
    if (fdatasync(fioc->fd) < 0 && errno != EINVAL && errno != EROFS) {
        return file_fail(errno, "flush", errp);
    }
    return 0;
}
