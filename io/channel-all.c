/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QIOChannel: moving whole vectors, in coroutines and in threads. */
#include <errno.h>
#include <limits.h>
#include "io/channel.h"
#include "util/error.h"
#include "util/iov.h"

/*
 * Elements that are copied to go on in the middle of one. Where a call begins with a whole element
 * the caller's own array is used, up to IOV_MAX of it.
 */
#define IOV_BATCH 64

/* What is next: the caller's array or `batch`, filled. *n elements; 0 when nothing is left. */
static const struct iovec *iov_cursor_next(IovCursor *cur, struct iovec *batch, size_t *n)
{
    iov_cursor_advance(cur, 0); /* over empty elements */
    if (!cur->skip) {
        *n = MIN(cur->niov, IOV_MAX);
        return cur->iov;
    }
    *n = MIN(cur->niov, IOV_BATCH);
    batch[0].iov_base = (char *)cur->iov->iov_base + cur->skip;
    batch[0].iov_len = cur->iov->iov_len - cur->skip;
    for (size_t i = 1; i < *n; i++) {
        batch[i] = cur->iov[i];
    }
    return batch;
}

/* How to wait, and with what flags. */
typedef struct AllCall {
    QIOChannel *ioc;
    bool co;
    int flags;
    int64_t deadline_ns; /* threads */
} AllCall;

static int all_wait(const AllCall *call, QIOChannelDirection dir, GError **errp)
{
    int ret = call->co ? qio_channel_co_wait(call->ioc, dir)
                       : qio_channel_wait(call->ioc, dir, call->deadline_ns);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Waiting for channel '%s' failed", call->ioc->name);
    }
    return ret;
}

static int eof_is_error(int ret, GError **errp)
{
    if (ret == 0) {
        error_setg(errp, "Unexpected end-of-file before all data were read");
        return -EPIPE;
    }
    return ret < 0 ? ret : 0;
}

static ssize_t move_some(const AllCall *call, QIOChannelDirection dir, const struct iovec *iov,
                         size_t niov, GError **errp)
{
    const QIOChannelClass *klass = call->ioc->klass;

    return dir == QIO_CHANNEL_READ ? klass->readv(call->ioc, iov, niov, NULL, call->flags, errp)
                                   : klass->writev(call->ioc, iov, niov, NULL, call->flags, errp);
}

/* 1: all moved; 0: the stream that is read ended before the first byte; -errno. */
static int all_move(const AllCall *call, QIOChannelDirection dir, const struct iovec *iov,
                    size_t niov, GError **errp)
{
    struct iovec batch[IOV_BATCH];
    IovCursor cur = {iov, niov, 0};
    bool started = false;

    for (;;) {
        size_t n;
        const struct iovec *next = iov_cursor_next(&cur, batch, &n);
        ssize_t len;

        if (!n) {
            return 1;
        }
        len = move_some(call, dir, next, n, errp);
        if (len == -EAGAIN) {
            int ret = all_wait(call, dir, errp);

            if (ret < 0) {
                return ret;
            }
        } else if (len < 0) {
            return len;
        } else if (len == 0 && dir == QIO_CHANNEL_READ) {
            return started ? eof_is_error(0, errp) : 0;
        } else {
            started = true;
            iov_cursor_advance(&cur, len);
        }
    }
}

static int all_read(const AllCall *call, const struct iovec *iov, size_t niov, GError **errp)
{
    return all_move(call, QIO_CHANNEL_READ, iov, niov, errp);
}

static int all_write(const AllCall *call, const struct iovec *iov, size_t niov, GError **errp)
{
    int ret = all_move(call, QIO_CHANNEL_WRITE, iov, niov, errp);

    return MIN(ret, 0);
}

/* --- in coroutines --- */

ssize_t coroutine_fn qio_channel_co_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                          GError **errp)
{
    const AllCall call = {.ioc = ioc, .co = true};
    ssize_t len;

    while ((len = ioc->klass->readv(ioc, iov, MIN(niov, IOV_MAX), NULL, 0, errp)) == -EAGAIN) {
        int ret = all_wait(&call, QIO_CHANNEL_READ, errp);

        if (ret < 0) {
            return ret;
        }
    }
    return len;
}

int coroutine_fn qio_channel_co_readv_all_eof(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                              GError **errp)
{
    const AllCall call = {.ioc = ioc, .co = true};

    return all_read(&call, iov, niov, errp);
}

int coroutine_fn qio_channel_co_readv_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                          GError **errp)
{
    return eof_is_error(qio_channel_co_readv_all_eof(ioc, iov, niov, errp), errp);
}

int coroutine_fn qio_channel_co_read_all_eof(QIOChannel *ioc, void *buf, size_t bytes,
                                             GError **errp)
{
    struct iovec iov = {buf, bytes};

    return qio_channel_co_readv_all_eof(ioc, &iov, 1, errp);
}

int coroutine_fn qio_channel_co_read_all(QIOChannel *ioc, void *buf, size_t bytes, GError **errp)
{
    return eof_is_error(qio_channel_co_read_all_eof(ioc, buf, bytes, errp), errp);
}

int coroutine_fn qio_channel_co_writev_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                           GError **errp)
{
    const AllCall call = {.ioc = ioc, .co = true};

    return all_write(&call, iov, niov, errp);
}

int coroutine_fn qio_channel_co_write_all(QIOChannel *ioc, const void *buf, size_t bytes,
                                          GError **errp)
{
    struct iovec iov = {(void *)buf, bytes};

    return qio_channel_co_writev_all(ioc, &iov, 1, errp);
}

/* --- in threads --- */

/* A deadline can only be kept in poll(2), not in a call that waits in the kernel. */
static AllCall thread_call(QIOChannel *ioc, const QIOChannelAllOptions *opts, int waiting_flags)
{
    AllCall call = {.ioc = ioc};

    if (opts) {
        call.flags = opts->flags;
        call.deadline_ns = opts->deadline_ns;
    }
    if (ioc->blocking && !call.deadline_ns) {
        call.flags |= waiting_flags;
    }
    return call;
}

static int thread_read(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                       const QIOChannelAllOptions *opts, GError **errp)
{
    const AllCall call =
        thread_call(ioc, opts, QIO_CHANNEL_FLAG_MAY_BLOCK | QIO_CHANNEL_READ_FLAG_WAITALL);

    return all_read(&call, iov, niov, errp);
}

int qio_channel_readv_all_eof_full(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                   const QIOChannelAllOptions *opts, GError **errp)
{
    return thread_read(ioc, iov, niov, opts, errp);
}

int qio_channel_readv_all_full(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                               const QIOChannelAllOptions *opts, GError **errp)
{
    return eof_is_error(thread_read(ioc, iov, niov, opts, errp), errp);
}

int qio_channel_readv_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, GError **errp)
{
    return qio_channel_readv_all_full(ioc, iov, niov, NULL, errp);
}

int qio_channel_read_all_eof(QIOChannel *ioc, void *buf, size_t bytes, GError **errp)
{
    struct iovec iov = {buf, bytes};

    return thread_read(ioc, &iov, 1, NULL, errp);
}

int qio_channel_read_all(QIOChannel *ioc, void *buf, size_t bytes, GError **errp)
{
    return eof_is_error(qio_channel_read_all_eof(ioc, buf, bytes, errp), errp);
}

int qio_channel_writev_all_full(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                const QIOChannelAllOptions *opts, GError **errp)
{
    const AllCall call = thread_call(ioc, opts, QIO_CHANNEL_FLAG_MAY_BLOCK);

    if ((call.flags & QIO_CHANNEL_WRITE_FLAG_ZERO_COPY) &&
        !qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_WRITE_ZERO_COPY)) {
        error_setg(errp, "Requested Zero Copy feature is not available");
        return -ENOTSUP;
    }
    return all_write(&call, iov, niov, errp);
}

int qio_channel_writev_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, GError **errp)
{
    return qio_channel_writev_all_full(ioc, iov, niov, NULL, errp);
}

int qio_channel_write_all(QIOChannel *ioc, const void *buf, size_t bytes, GError **errp)
{
    struct iovec iov = {(void *)buf, bytes};

    return qio_channel_writev_all_full(ioc, &iov, 1, NULL, errp);
}

int qio_channel_writev_zero_copy_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                     GError **errp)
{
    const QIOChannelAllOptions opts = {.flags = QIO_CHANNEL_WRITE_FLAG_ZERO_COPY};

    return qio_channel_writev_all_full(ioc, iov, niov, &opts, errp);
}

/* --- at an offset --- */

static int all_move_at(QIOChannel *ioc, QIOChannelDirection dir, const struct iovec *iov,
                       size_t niov, off_t offset, GError **errp)
{
    struct iovec batch[IOV_BATCH];
    IovCursor cur = {iov, niov, 0};

    for (;;) {
        size_t n;
        const struct iovec *next = iov_cursor_next(&cur, batch, &n);
        ssize_t len;

        if (!n) {
            return 0;
        }
        len = dir == QIO_CHANNEL_READ ? qio_channel_preadv(ioc, next, n, offset, errp)
                                      : qio_channel_pwritev(ioc, next, n, offset, errp);
        if (len < 0) {
            return len;
        }
        if (len == 0 && dir == QIO_CHANNEL_READ) {
            return eof_is_error(0, errp);
        }
        offset += len;
        iov_cursor_advance(&cur, len);
    }
}

int qio_channel_preadv_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                           GError **errp)
{
    return all_move_at(ioc, QIO_CHANNEL_READ, iov, niov, offset, errp);
}

int qio_channel_pwritev_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                            GError **errp)
{
    return all_move_at(ioc, QIO_CHANNEL_WRITE, iov, niov, offset, errp);
}
