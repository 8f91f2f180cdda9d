/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMUFile: the reader. */
#include "vmstate/qemu-file.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "util/bswap.h"
#include "util/error.h"
#include "util/iov.h"
#include "vmstate/qemu-file-int.h"

ssize_t qemu_file_readv(QEMUFile *f, const struct iovec *iov, size_t niov, bool may_wait)
{
    GError *err = NULL;
    ssize_t len;

    g_assert(!f->writable);
    if (qemu_file_failed(f)) {
        return qemu_file_get_error(f);
    }
    if (f->ended) {
        return 0;
    }
    if (f->source) {
        size_t size;
        const uint8_t *data = g_bytes_get_data(f->source, &size);

        len = size > 0 ? iov_from_buf(iov, niov, 0, data + f->source_pos, size - f->source_pos) : 0;
        f->source_pos += len;
    } else {
        /* the stream says itself where it ends: a TLS peer need not */
        int flags = QIO_CHANNEL_READ_FLAG_RELAXED_EOF | (may_wait ? qemu_file_channel_flags(f) : 0);

        while ((len = f->ioc->klass->readv(f->ioc, iov, niov, NULL, flags, &err)) == -EAGAIN) {
            if (!may_wait) {
                return -EAGAIN;
            }
            if (qemu_file_wait(f, QIO_CHANNEL_READ) < 0) {
                return qemu_file_get_error(f);
            }
        }
    }
    if (len < 0) {
        qemu_file_set_error_obj(f, len, err);
        return qemu_file_get_error(f);
    }
    f->ended = len == 0;
    qemu_file_count(&f->moved, len);
    return len;
}

void qemu_file_set_ended(QEMUFile *f)
{
    GError *err = NULL;

    error_setg(&err, "Unexpected end of the migration stream at offset 0x%" PRIx64,
               qemu_file_moved(f));
    qemu_file_set_error_obj(f, -EIO, err);
}

static size_t qemu_file_buffered(const QEMUFile *f)
{
    return f->buf_end - f->buf_pos;
}

/* Takes up to `size` bytes out of the buffer. */
static size_t qemu_file_take(QEMUFile *f, void *to, size_t size)
{
    size_t n = MIN(size, qemu_file_buffered(f));

    memcpy(to, f->buf + f->buf_pos, n);
    f->buf_pos += n;
    qemu_file_count(&f->position, n);
    return n;
}

/* Where bytes may land that no caller has asked for yet; the buffer is empty. */
static struct iovec qemu_file_landing(QEMUFile *f)
{
    f->buf_pos = f->buf_end = 0;
    return (struct iovec){f->buf, QEMU_FILE_BUFFER_SIZE};
}

size_t qemu_peek_buffer(QEMUFile *f, const uint8_t **buf, size_t size)
{
    g_assert(size <= QEMU_FILE_BUFFER_SIZE);
    while (qemu_file_buffered(f) < size) {
        struct iovec iov;
        ssize_t len;

        if (f->buf_pos + size > f->buf_size || qemu_file_buffered(f) == 0) {
            memmove(f->buf, f->buf + f->buf_pos, qemu_file_buffered(f));
            f->buf_end -= f->buf_pos;
            f->buf_pos = 0;
        }
        iov.iov_base = f->buf + f->buf_end;
        iov.iov_len = MIN(f->buf_size - f->buf_end, QEMU_FILE_BUFFER_SIZE);
        len = qemu_file_readv(f, &iov, 1, true);
        if (len <= 0) {
            break;
        }
        f->buf_end += len;
    }
    *buf = f->buf + f->buf_pos;
    return qemu_file_failed(f) ? 0 : MIN(size, qemu_file_buffered(f));
}

size_t qemu_peek_buffered(QEMUFile *f, const uint8_t **buf)
{
    *buf = f->buf + f->buf_pos;
    return qemu_file_failed(f) ? 0 : qemu_file_buffered(f);
}

bool qemu_file_at_end(QEMUFile *f)
{
    const uint8_t *byte;

    return qemu_peek_buffer(f, &byte, 1) == 0;
}

/* Fetches until `to` is full; the buffer is empty. */
static int qemu_file_fetch(QEMUFile *f, uint8_t *to, size_t size)
{
    while (size > 0) {
        struct iovec iov[2] = {{to, size}, qemu_file_landing(f)};
        ssize_t len = qemu_file_readv(f, iov, 2, true);
        size_t n;

        if (len <= 0) {
            if (len == 0) {
                qemu_file_set_ended(f);
            }
            return qemu_file_get_error(f);
        }
        n = MIN((size_t)len, size);
        qemu_file_count(&f->position, n);
        f->buf_end = len - n;
        to += n;
        size -= n;
    }
    return 0;
}

int qemu_get_buffer(QEMUFile *f, void *buf, size_t size)
{
    size_t n;

    if (size == 0 || qemu_file_failed(f)) {
        return qemu_file_get_error(f);
    }
    n = qemu_file_take(f, buf, size);
    return qemu_file_fetch(f, (uint8_t *)buf + n, size - n);
}

/* The next iov[] for a vectored read: what is left of the caller's, then the buffer. */
static size_t qemu_file_rest_vec(QEMUFile *f, const struct iovec *iov, size_t niov, size_t skip)
{
    size_t n = 0, i;

    for (i = 0; i < niov && n < QEMU_FILE_MAX_IOV - 1; i++) {
        size_t done = i == 0 ? skip : 0;

        if (iov[i].iov_len > done) {
            f->iov[n].iov_base = (char *)iov[i].iov_base + done;
            f->iov[n].iov_len = iov[i].iov_len - done;
            n++;
        }
    }
    if (n > 0 && i == niov) {
        f->iov[n++] = qemu_file_landing(f);
    }
    return n;
}

int qemu_get_buffer_vec(QEMUFile *f, const struct iovec *iov, size_t niov)
{
    size_t skip = 0; /* bytes of *iov that are there */
    size_t n;

    if (qemu_file_failed(f)) {
        return qemu_file_get_error(f);
    }
    while (niov > 0 && qemu_file_buffered(f) > 0) {
        if (iov->iov_len > 0) {
            skip += qemu_file_take(f, (char *)iov->iov_base + skip, iov->iov_len - skip);
        }
        if (skip == iov->iov_len) {
            iov++;
            niov--;
            skip = 0;
        }
    }
    /* the buffer is empty, or nothing is left to get */
    while (niov > 0 && (n = qemu_file_rest_vec(f, iov, niov, skip)) > 0) {
        ssize_t len = qemu_file_readv(f, f->iov, n, true);

        if (len <= 0) {
            if (len == 0) {
                qemu_file_set_ended(f);
            }
            return qemu_file_get_error(f);
        }
        while (niov > 0 && (size_t)len >= iov->iov_len - skip) {
            qemu_file_count(&f->position, iov->iov_len - skip);
            len -= iov->iov_len - skip;
            iov++;
            niov--;
            skip = 0;
        }
        if (niov > 0) {
            qemu_file_count(&f->position, len);
            skip += len;
        } else {
            f->buf_end = len;
        }
    }
    return 0;
}

int qemu_file_skip(QEMUFile *f, uint64_t size)
{
    while (size > 0) {
        const uint8_t *ignored;
        size_t n = qemu_peek_buffer(f, &ignored, MIN(size, 1));

        if (n == 0) {
            if (!qemu_file_failed(f)) {
                qemu_file_set_ended(f);
            }
            return qemu_file_get_error(f);
        }
        n = MIN(size, qemu_file_buffered(f));
        f->buf_pos += n;
        qemu_file_count(&f->position, n);
        size -= n;
    }
    return qemu_file_get_error(f);
}

uint8_t qemu_get_byte(QEMUFile *f)
{
    uint8_t v = 0;

    return qemu_get_buffer(f, &v, sizeof(v)) < 0 ? 0 : v;
}

uint16_t qemu_get_be16(QEMUFile *f)
{
    uint16_t v = 0;

    return qemu_get_buffer(f, &v, sizeof(v)) < 0 ? 0 : be16_to_cpu(v);
}

uint32_t qemu_get_be32(QEMUFile *f)
{
    uint32_t v = 0;

    return qemu_get_buffer(f, &v, sizeof(v)) < 0 ? 0 : be32_to_cpu(v);
}

uint64_t qemu_get_be64(QEMUFile *f)
{
    uint64_t v = 0;

    return qemu_get_buffer(f, &v, sizeof(v)) < 0 ? 0 : be64_to_cpu(v);
}

int qemu_get_counted_string(QEMUFile *f, char buf[256])
{
    size_t len = qemu_get_byte(f);
    int ret = qemu_get_buffer(f, buf, len);

    buf[ret < 0 ? 0 : len] = '\0';
    return ret < 0 ? ret : (int)len;
}

bool qemu_file_unread(QEMUFile *f, const void *data, size_t size)
{
    size_t buffered = qemu_file_buffered(f);

    g_assert(!f->writable && size <= qemu_file_transferred(f));
    if (size > QEMU_FILE_UNREAD_MAX - MIN(buffered, QEMU_FILE_UNREAD_MAX)) {
        GError *err = NULL;

        error_setg(&err, "More than %d bytes are put back into the migration stream",
                   QEMU_FILE_UNREAD_MAX);
        qemu_file_set_error_obj(f, -EOVERFLOW, err);
        return false;
    }
    if (size > f->buf_pos) {
        /* what there is moves to the end of a buffer that holds both */
        if (size + buffered > f->buf_size) {
            f->buf_size = size + buffered;
            f->buf = g_realloc(f->buf, f->buf_size);
        }
        memmove(f->buf + f->buf_size - buffered, f->buf + f->buf_pos, buffered);
        f->buf_pos = f->buf_size - buffered;
        f->buf_end = f->buf_size;
    }
    if (size == 0) {
        return true;
    }
    f->buf_pos -= size;
    memcpy(f->buf + f->buf_pos, data, size);
    qemu_file_count(&f->position, -(int64_t)size);
    return true;
}
