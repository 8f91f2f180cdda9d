/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMUFile: life, errors, waiting, and the writer. */
#include "vmstate/qemu-file.h"
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>
#include "util/bswap.h"
#include "util/error.h"
#include "vmstate/qemu-file-int.h"

G_STATIC_ASSERT(QEMU_FILE_MAX_IOV <= IOV_MAX);

static QEMUFile *qemu_file_new(QIOChannel *ioc, bool writable)
{
    QEMUFile *f = g_new0(QEMUFile, 1);

    f->ioc = ioc ? qio_channel_ref(ioc) : NULL;
    f->writable = writable;
    f->buf_size = QEMU_FILE_BUFFER_SIZE;
    f->buf = g_malloc(f->buf_size);
    g_mutex_init(&f->lock);
    return f;
}

QEMUFile *qemu_file_new_output(QIOChannel *ioc)
{
    return qemu_file_new(ioc, true);
}

QEMUFile *qemu_file_new_input(QIOChannel *ioc)
{
    return qemu_file_new(ioc, false);
}

QEMUFile *qemu_file_new_input_behind(QIOChannel *ioc, const void *first, size_t n)
{
    QEMUFile *f = qemu_file_new_input(ioc);

    g_assert(n <= f->buf_size);
    if (n > 0) {
        memcpy(f->buf, first, n);
    }
    f->buf_end = f->moved = n;
    return f;
}

QEMUFile *qemu_file_get_return(QEMUFile *f)
{
    return f->ioc ? qemu_file_new(f->ioc, !f->writable) : NULL;
}

QEMUFile *qemu_file_new_memory_output(size_t max_bytes)
{
    QEMUFile *f = qemu_file_new(NULL, true);

    f->sink = g_byte_array_new();
    f->sink_max = MIN(max_bytes, G_MAXINT);
    return f;
}

QEMUFile *qemu_file_new_memory_input(GBytes *bytes)
{
    QEMUFile *f = qemu_file_new(NULL, false);

    f->source = g_bytes_ref(bytes);
    return f;
}

GBytes *qemu_file_memory_steal(QEMUFile *f)
{
    GByteArray *full = f->sink;

    g_assert(full);
    if (qemu_fflush(f) < 0) {
        return NULL;
    }
    f->sink = g_byte_array_new();
    return g_byte_array_free_to_bytes(full);
}

int qemu_fclose(QEMUFile *f)
{
    int ret;

    if (!f) {
        return 0;
    }
    ret = f->writable ? qemu_fflush(f) : qemu_file_get_error(f);
    qio_channel_unref(f->ioc);
    if (f->sink) {
        g_byte_array_unref(f->sink);
    }
    if (f->source) {
        g_bytes_unref(f->source);
    }
    g_clear_error(&f->error_text);
    g_mutex_clear(&f->lock);
    g_free(f->run_tags);
    g_free(f->buf);
    g_free(f);
    return ret;
}

QIOChannel *qemu_file_get_ioc(const QEMUFile *f)
{
    return f->ioc;
}

bool qemu_file_is_writable(const QEMUFile *f)
{
    return f->writable;
}

static void file_shutdown(QEMUFile *f, QIOChannelShutdown how)
{
    GError *err = NULL;

    error_setg(&err, "The migration stream was shut down");
    qemu_file_set_error_obj(f, -EIO, err);
    if (f->ioc) {
        qio_channel_shutdown(f->ioc, how);
    }
}

void qemu_file_shutdown(QEMUFile *f)
{
    file_shutdown(f, QIO_CHANNEL_SHUTDOWN_BOTH);
}

void qemu_file_stop_reading(QEMUFile *f)
{
    file_shutdown(f, QIO_CHANNEL_SHUTDOWN_READ);
}

/* --- the place in a file --- */

off_t qemu_get_offset(QEMUFile *f)
{
    GError *err = NULL;
    off_t at;

    if (f->writable) {
        (void)!qemu_fflush(f);
    }
    if (qemu_file_failed(f)) {
        return qemu_file_get_error(f);
    }
    if (!f->ioc || !qio_channel_has_feature(f->ioc, QIO_CHANNEL_FEATURE_SEEKABLE)) {
        error_setg(&err, "The migration stream has no offsets");
        at = -ENOTSUP;
    } else {
        at = qio_channel_seek(f->ioc, 0, SEEK_CUR, &err);
    }
    if (at < 0) {
        qemu_file_set_error_obj(f, at, err);
        return at;
    }
    return at - (off_t)(f->buf_end - f->buf_pos);
}

int qemu_set_offset(QEMUFile *f, off_t offset)
{
    off_t at = qemu_get_offset(f);
    GError *err = NULL;

    if (at < 0 || at == offset) {
        return MIN(at, 0);
    }
    at = qio_channel_seek(f->ioc, offset, SEEK_SET, &err);
    if (at < 0) {
        qemu_file_set_error_obj(f, at, err);
        return at;
    }
    f->buf_pos = f->buf_end = 0;
    f->ended = false;
    return 0;
}

/* --- errors and counters --- */

int qemu_file_get_error(const QEMUFile *f)
{
    return __atomic_load_n(&f->error, __ATOMIC_ACQUIRE);
}

int qemu_file_get_error_obj(QEMUFile *f, GError **errp)
{
    int ret = qemu_file_get_error(f);

    if (ret < 0) {
        g_mutex_lock(&f->lock);
        if (errp && f->error_text) {
            *errp = g_error_copy(f->error_text);
        } else {
            error_setg(errp, "%s", g_strerror(-ret));
        }
        g_mutex_unlock(&f->lock);
    }
    return ret;
}

void qemu_file_set_error_obj(QEMUFile *f, int ret, GError *err)
{
    g_assert(ret < 0);
    g_mutex_lock(&f->lock);
    if (!f->error) {
        f->error_text = g_steal_pointer(&err);
        __atomic_store_n(&f->error, ret, __ATOMIC_RELEASE);
    }
    g_mutex_unlock(&f->lock);
    g_clear_error(&err);
}

void qemu_file_set_error(QEMUFile *f, int ret)
{
    qemu_file_set_error_obj(f, ret, NULL);
}

uint64_t qemu_file_transferred(const QEMUFile *f)
{
    return __atomic_load_n(&f->position, __ATOMIC_RELAXED);
}

uint64_t qemu_file_moved(const QEMUFile *f)
{
    return __atomic_load_n(&f->moved, __ATOMIC_RELAXED);
}

/* --- waiting --- */

void qemu_file_set_wait_hooks(QEMUFile *f, QEMUFileWaitFunc *before, QEMUFileWaitFunc *after,
                              void *opaque)
{
    f->before_wait = before;
    f->after_wait = after;
    f->wait_opaque = opaque;
}

void qemu_file_set_deadline(QEMUFile *f, int64_t deadline_ns)
{
    f->deadline_ns = deadline_ns;
}

int qemu_file_wait(QEMUFile *f, QIOChannelDirection dir)
{
    int ret;

    if (qemu_file_failed(f)) {
        return qemu_file_get_error(f);
    }
    if (f->before_wait) {
        f->before_wait(f->wait_opaque);
    }
    ret = qio_channel_wait(f->ioc, dir, f->deadline_ns);
    if (f->after_wait) {
        f->after_wait(f->wait_opaque);
    }
    if (ret < 0) {
        GError *err = NULL;

        error_setg_errno(&err, -ret, "Waiting for the migration stream failed");
        qemu_file_set_error_obj(f, ret, err);
    }
    return ret;
}

int qemu_file_channel_flags(const QEMUFile *f)
{
    bool in_kernel = f->ioc->blocking && !f->before_wait && !f->deadline_ns;

    return in_kernel ? QIO_CHANNEL_FLAG_MAY_BLOCK : 0;
}

/* --- the writer --- */

static bool qemu_file_sink_vec(QEMUFile *f)
{
    for (size_t i = 0; i < f->niov; i++) {
        if (f->iov[i].iov_len > f->sink_max - f->sink->len) {
            GError *err = NULL;

            error_setg(&err, "More than %zu bytes are written into memory", f->sink_max);
            qemu_file_set_error_obj(f, -ENOSPC, err);
            return false;
        }
        g_byte_array_append(f->sink, f->iov[i].iov_base, f->iov[i].iov_len);
        qemu_file_count(&f->moved, f->iov[i].iov_len);
    }
    return true;
}

static void qemu_file_send_vec(QEMUFile *f)
{
    struct iovec *iov = f->iov;
    size_t niov = f->niov;

    while (niov > 0 && !qemu_file_failed(f)) {
        GError *err = NULL;
        ssize_t len =
            f->ioc->klass->writev(f->ioc, iov, niov, NULL, qemu_file_channel_flags(f), &err);

        if (len == -EAGAIN) {
            if (qemu_file_wait(f, QIO_CHANNEL_WRITE) < 0) {
                return;
            }
            continue;
        }
        if (len < 0) {
            qemu_file_set_error_obj(f, len, err);
            return;
        }
        qemu_file_count(&f->moved, len);
        while (niov > 0 && (size_t)len >= iov->iov_len) {
            len -= iov->iov_len;
            iov++;
            niov--;
        }
        if (niov > 0) {
            iov->iov_base = (char *)iov->iov_base + len;
            iov->iov_len -= len;
        }
    }
}

int qemu_fflush(QEMUFile *f)
{
    g_assert(f->writable);
    if (f->niov > 0 && !qemu_file_failed(f)) {
        if (f->sink) {
            qemu_file_sink_vec(f);
        } else {
            qemu_file_send_vec(f);
        }
    }
    f->niov = 0;
    f->buf_used = 0;
    return qemu_file_get_error(f);
}

static void qemu_file_append(QEMUFile *f, const void *base, size_t size)
{
    struct iovec *last = f->niov > 0 ? &f->iov[f->niov - 1] : NULL;

    qemu_file_count(&f->position, size);
    if (last && (const char *)last->iov_base + last->iov_len == base) {
        last->iov_len += size;
        return;
    }
    f->iov[f->niov].iov_base = (void *)base;
    f->iov[f->niov].iov_len = size;
    f->niov++;
}

void qemu_put_buffer(QEMUFile *f, const void *buf, size_t size)
{
    const uint8_t *from = buf;

    g_assert(f->writable);
    while (size > 0 && !qemu_file_failed(f)) {
        size_t n = MIN(size, f->buf_size - f->buf_used);

        memcpy(f->buf + f->buf_used, from, n);
        qemu_file_append(f, f->buf + f->buf_used, n);
        f->buf_used += n;
        from += n;
        size -= n;
        if (f->buf_used == f->buf_size || f->niov == QEMU_FILE_MAX_IOV) {
            (void)!qemu_fflush(f);
        }
    }
}

void qemu_put_buffer_async(QEMUFile *f, const void *buf, size_t size)
{
    g_assert(f->writable);
    if (size == 0 || qemu_file_failed(f)) {
        return;
    }
    qemu_file_append(f, buf, size);
    if (f->niov == QEMU_FILE_MAX_IOV) {
        (void)!qemu_fflush(f);
    }
}

void qemu_put_byte(QEMUFile *f, uint8_t v)
{
    qemu_put_buffer(f, &v, 1);
}

void qemu_put_be16(QEMUFile *f, uint16_t v)
{
    v = cpu_to_be16(v);
    qemu_put_buffer(f, &v, sizeof(v));
}

void qemu_put_be32(QEMUFile *f, uint32_t v)
{
    v = cpu_to_be32(v);
    qemu_put_buffer(f, &v, sizeof(v));
}

void qemu_put_be64(QEMUFile *f, uint64_t v)
{
    v = cpu_to_be64(v);
    qemu_put_buffer(f, &v, sizeof(v));
}

void qemu_put_counted_string(QEMUFile *f, const char *str)
{
    size_t len = strlen(str);

    g_assert(len <= 255);
    qemu_put_byte(f, len);
    qemu_put_buffer(f, str, len);
}
