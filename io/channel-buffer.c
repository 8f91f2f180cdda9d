/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QIOChannelBuffer: bytes in memory. */
#include "io/channel-buffer.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "util/error.h"
#include "util/iov.h"

/* The first allocation, in bytes; each further one doubles it. */
#define BUFFER_FIRST_BYTES 4096

struct QIOChannelBuffer {
    QIOChannel parent;
    uint8_t *data;
    size_t max, allocated, bytes, pos; /* pos <= bytes <= allocated; bytes <= max */
};

static QIOChannelBuffer *bioc_of(QIOChannel *ioc)
{
    return (QIOChannelBuffer *)ioc;
}

static size_t buffer_get(const QIOChannelBuffer *bioc, size_t pos, const struct iovec *iov,
                         size_t niov)
{
    return pos < bioc->bytes ? iov_from_buf(iov, niov, 0, bioc->data + pos, bioc->bytes - pos) : 0;
}

/* Makes room up to `end`. 0 or -errno. */
static int buffer_reserve(QIOChannelBuffer *bioc, size_t end)
{
    size_t want = MAX(bioc->allocated, BUFFER_FIRST_BYTES);
    uint8_t *data;

    if (end <= bioc->allocated) {
        return 0;
    }
    while (want < end) {
        want = want > bioc->max / 2 ? bioc->max : want * 2;
    }
    data = g_try_realloc(bioc->data, want);
    if (!data) {
        return -ENOMEM;
    }
    bioc->data = data;
    bioc->allocated = want;
    return 0;
}

static ssize_t buffer_put(QIOChannelBuffer *bioc, size_t pos, const struct iovec *iov, size_t niov,
                          GError **errp)
{
    size_t len = iov_size(iov, niov);
    int ret = pos > bioc->max || len > bioc->max - pos ? -ENOSPC : buffer_reserve(bioc, pos + len);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Unable to write %zu bytes to buffer", len);
        return ret;
    }
    if (pos > bioc->bytes) {
        memset(bioc->data + bioc->bytes, 0, pos - bioc->bytes);
    }
    iov_to_buf(iov, niov, 0, bioc->data + pos, len);
    bioc->bytes = MAX(bioc->bytes, pos + len);
    return len;
}

static ssize_t buffer_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                            QIOChannelFds *fds, int flags, GError **errp)
{
    QIOChannelBuffer *bioc = bioc_of(ioc);
    size_t len;

    if (qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_READ)) {
        return 0;
    }
    len = buffer_get(bioc, bioc->pos, iov, niov);
    bioc->pos += flags & QIO_CHANNEL_READ_FLAG_MSG_PEEK ? 0 : len;
    return len;
}

static ssize_t buffer_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                             const QIOChannelFds *fds, int flags, GError **errp)
{
    QIOChannelBuffer *bioc = bioc_of(ioc);
    ssize_t len;

    if (qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_WRITE)) {
        error_setg_errno(errp, EPIPE, "Unable to write to buffer");
        return -EPIPE;
    }
    len = buffer_put(bioc, bioc->pos, iov, niov, errp);
    bioc->pos += MAX(len, 0);
    return len;
}

static ssize_t buffer_preadv(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                             GError **errp)
{
    return offset < 0 ? -EINVAL : (ssize_t)buffer_get(bioc_of(ioc), offset, iov, niov);
}

static ssize_t buffer_pwritev(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                              GError **errp)
{
    return buffer_put(bioc_of(ioc), offset < 0 ? SIZE_MAX : (size_t)offset, iov, niov, errp);
}

static off_t buffer_seek(QIOChannel *ioc, off_t offset, int whence, GError **errp)
{
    QIOChannelBuffer *bioc = bioc_of(ioc);
    off_t base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? bioc->pos : bioc->bytes;
    off_t pos;

    if (__builtin_add_overflow(base, offset, &pos) || pos < 0 || (size_t)pos > bioc->bytes) {
        error_setg(errp, "Unable to seek in buffer: the position is outside of it");
        return -EINVAL;
    }
    bioc->pos = pos;
    return pos;
}

static int buffer_poll_fd(QIOChannel *ioc, QIOChannelDirection dir, short *events)
{
    return -1;
}

static void buffer_finalize(QIOChannel *ioc)
{
    g_free(bioc_of(ioc)->data);
}

static const QIOChannelClass qio_channel_buffer_class = {
    .name = "buffer",
    .instance_size = sizeof(QIOChannelBuffer),
    .readv = buffer_readv,
    .writev = buffer_writev,
    .preadv = buffer_preadv,
    .pwritev = buffer_pwritev,
    .seek = buffer_seek,
    .poll_fd = buffer_poll_fd,
    .finalize = buffer_finalize,
};

QIOChannelBuffer *qio_channel_buffer_new(size_t max_bytes)
{
    QIOChannelBuffer *bioc = bioc_of(qio_channel_alloc(&qio_channel_buffer_class, NULL));

    bioc->max = max_bytes;
    bioc->parent.features = QIO_CHANNEL_FEATURE_SEEKABLE | QIO_CHANNEL_FEATURE_READ_MSG_PEEK;
    return bioc;
}

const uint8_t *qio_channel_buffer_data(const QIOChannelBuffer *bioc, size_t *bytes)
{
    *bytes = bioc->bytes;
    return bioc->data;
}

void qio_channel_buffer_reset(QIOChannelBuffer *bioc)
{
    bioc->bytes = bioc->pos = 0;
}
