/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QIOChannel: references, waiting in the event loop, and moving whole vectors. */
#include "io/channel.h"
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include "util/error.h"

/* Elements handed to the kernel in one call. */
#define QIO_CHANNEL_IOV_BATCH 128

QIOChannel *qio_channel_alloc(const QIOChannelClass *klass, const char *name)
{
    QIOChannel *ioc = g_malloc0(klass->instance_size);

    ioc->klass = klass;
    ioc->refcount = 1;
    ioc->polled_fd = -1;
    ioc->name = g_strdup(name ? name : klass->name);
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
    g_assert(!ioc->reader && !ioc->writer);
    ioc->idle_cb = NULL;
    qio_channel_detach_aio_context(ioc);
    ioc->klass->close(ioc);
    if (ioc->klass->finalize) {
        ioc->klass->finalize(ioc);
    }
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

/* --- without waiting --- */

ssize_t qio_channel_readv_full(QIOChannel *ioc, const struct iovec *iov, size_t niov, int **fds,
                               size_t *nfds, GError **errp)
{
    if (fds) {
        *fds = NULL;
        *nfds = 0;
        if (!qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_FD_PASS)) {
            fds = NULL;
            nfds = NULL;
        }
    }
    return ioc->klass->readv(ioc, iov, MIN(niov, IOV_MAX), fds, nfds, errp);
}

ssize_t qio_channel_writev_full(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                const int *fds, size_t nfds, GError **errp)
{
    if (nfds && !qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_FD_PASS)) {
        error_setg(errp, "Channel '%s' does not support file descriptor passing", ioc->name);
        return -ENOTSUP;
    }
    return ioc->klass->writev(ioc, iov, MIN(niov, IOV_MAX), fds, nfds, errp);
}

ssize_t qio_channel_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, GError **errp)
{
    return ioc->klass->readv(ioc, iov, MIN(niov, IOV_MAX), NULL, NULL, errp);
}

ssize_t qio_channel_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov, GError **errp)
{
    return ioc->klass->writev(ioc, iov, MIN(niov, IOV_MAX), NULL, 0, errp);
}

/* --- waiting --- */

static void qio_channel_on_readable(void *opaque);
static void qio_channel_on_writable(void *opaque);

/*
 * Registers what is wanted; leaves alone what is there already, so that a busy channel makes no
 * system calls for it.
 */
static void qio_channel_arm(QIOChannel *ioc, AioContext *ctx, int fd, bool in, bool out)
{
    if (ioc->ctx == ctx && ioc->polled_fd == fd && ioc->poll_in == in && ioc->poll_out == out) {
        return;
    }
    if (ioc->ctx && (ioc->ctx != ctx || ioc->polled_fd != fd)) {
        aio_set_fd_handler(ioc->ctx, ioc->polled_fd, NULL, NULL, NULL);
    }
    ioc->ctx = ctx;
    ioc->polled_fd = fd;
    ioc->poll_in = in;
    ioc->poll_out = out;
    if (ctx) {
        aio_set_fd_handler(ctx, fd, in ? qio_channel_on_readable : NULL,
                           out ? qio_channel_on_writable : NULL, ioc);
    }
}

static bool qio_channel_wants(const QIOChannel *ioc, short event)
{
    return (ioc->reader && ioc->reader_events == event) ||
           (ioc->writer && ioc->writer_events == event) || (event == POLLIN && ioc->idle_cb);
}

/*
 * The descriptor is ready for `event`: resumes whoever waits for that; a handler that serves nobody
 * is dropped.
 */
static void qio_channel_ready(QIOChannel *ioc, short event)
{
    Coroutine *reader = ioc->reader_events == event ? ioc->reader : NULL;
    Coroutine *writer = ioc->writer_events == event ? ioc->writer : NULL;

    if (!reader && !writer) {
        if (event == POLLIN && ioc->idle_cb) {
            if (ioc->klass->idle_event && !ioc->klass->idle_event(ioc)) {
                return;
            }
            qio_channel_ref(ioc);
            ioc->idle_cb(ioc->idle_opaque);
            qio_channel_unref(ioc);
            return;
        }
        qio_channel_arm(ioc, ioc->ctx, ioc->polled_fd, qio_channel_wants(ioc, POLLIN),
                        qio_channel_wants(ioc, POLLOUT));
        return;
    }
    qio_channel_ref(ioc);
    if (reader) {
        ioc->reader = NULL;
        qemu_coroutine_enter(reader);
    }
    /* the reader may have ended the writer's wait */
    if (writer && ioc->writer == writer) {
        ioc->writer = NULL;
        qemu_coroutine_enter(writer);
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
    Coroutine **slot = dir == QIO_CHANNEL_READ ? &ioc->reader : &ioc->writer;
    short *slot_events = dir == QIO_CHANNEL_READ ? &ioc->reader_events : &ioc->writer_events;
    bool *interrupted =
        dir == QIO_CHANNEL_READ ? &ioc->reader_interrupted : &ioc->writer_interrupted;
    short events = dir == QIO_CHANNEL_READ ? POLLIN : POLLOUT;
    int fd;

    g_assert(!*slot);
    if (dir == QIO_CHANNEL_READ && ioc->klass->read_pending && ioc->klass->read_pending(ioc)) {
        return 0;
    }
    fd = ioc->klass->poll_fd(ioc, dir, &events);
    if (fd < 0) {
        return -EPIPE;
    }
    *slot = qemu_coroutine_self();
    *slot_events = events;
    *interrupted = false;
    qio_channel_arm(ioc, qemu_get_current_aio_context(), fd,
                    ioc->poll_in || qio_channel_wants(ioc, POLLIN),
                    ioc->poll_out || qio_channel_wants(ioc, POLLOUT));
    qemu_coroutine_yield();
    return *interrupted ? -ECANCELED : 0;
}

void qio_channel_interrupt(QIOChannel *ioc)
{
    Coroutine *reader = ioc->reader, *writer = ioc->writer;

    ioc->reader = ioc->writer = NULL;
    if (reader) {
        ioc->reader_interrupted = true;
        aio_co_wake(reader);
    }
    if (writer) {
        ioc->writer_interrupted = true;
        aio_co_wake(writer);
    }
}

void qio_channel_detach_aio_context(QIOChannel *ioc)
{
    g_assert(!ioc->reader && !ioc->writer);
    if (ioc->ctx) {
        qio_channel_arm(ioc, NULL, -1, false, false);
    }
}

void qio_channel_set_idle_watch(QIOChannel *ioc, AioContext *ctx, void (*cb)(void *opaque),
                                void *opaque)
{
    short events = POLLIN;
    int fd;

    ioc->idle_cb = cb;
    ioc->idle_opaque = opaque;
    if (!cb) {
        return; /* the handler, should it fire, finds nobody and goes */
    }
    fd = ioc->klass->poll_fd(ioc, QIO_CHANNEL_READ, &events);
    if (fd >= 0) {
        qio_channel_arm(ioc, ctx, fd, true, qio_channel_wants(ioc, POLLOUT));
    }
}

/* --- whole vectors --- */

/* A position in a vector that is the caller's and stays as it is. */
typedef struct IovCursor {
    const struct iovec *iov;
    size_t niov;
    size_t skip; /* bytes of iov[0] that are done */
} IovCursor;

/* Fills batch with what is next and drops empty elements; 0 when nothing is left. */
static size_t iov_cursor_batch(IovCursor *cur, struct iovec *batch)
{
    size_t n = 0;

    for (size_t i = 0; i < cur->niov && n < QIO_CHANNEL_IOV_BATCH; i++) {
        size_t skip = i == 0 ? cur->skip : 0;

        if (cur->iov[i].iov_len == skip) {
            continue;
        }
        batch[n].iov_base = (char *)cur->iov[i].iov_base + skip;
        batch[n].iov_len = cur->iov[i].iov_len - skip;
        n++;
    }
    return n;
}

static void iov_cursor_advance(IovCursor *cur, size_t bytes)
{
    while (cur->niov && bytes >= cur->iov->iov_len - cur->skip) {
        bytes -= cur->iov->iov_len - cur->skip;
        cur->skip = 0;
        cur->iov++;
        cur->niov--;
    }
    cur->skip += bytes;
}

typedef int WaitFunc(QIOChannel *ioc, QIOChannelDirection dir);

/* Waits in the calling thread itself. */
static int qio_channel_thread_wait(QIOChannel *ioc, QIOChannelDirection dir)
{
    struct pollfd pfd = {.events = dir == QIO_CHANNEL_READ ? POLLIN : POLLOUT};

    if (dir == QIO_CHANNEL_READ && ioc->klass->read_pending && ioc->klass->read_pending(ioc)) {
        return 0;
    }
    pfd.fd = ioc->klass->poll_fd(ioc, dir, &pfd.events);
    if (pfd.fd < 0) {
        return -EPIPE;
    }
    if (poll(&pfd, 1, -1) < 0 && errno != EINTR) {
        return -errno;
    }
    return 0;
}

static int qio_channel_wait_error(QIOChannel *ioc, int ret, GError **errp)
{
    error_setg_errno(errp, -ret, "Waiting for channel '%s' failed", ioc->name);
    return ret;
}

/* 1: all read; 0: the stream ended before the first byte; -errno. */
static int qio_channel_do_read_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                   WaitFunc *wait, GError **errp)
{
    struct iovec batch[QIO_CHANNEL_IOV_BATCH];
    IovCursor cur = {iov, niov, 0};
    bool started = false;
    size_t n;

    while ((n = iov_cursor_batch(&cur, batch)) > 0) {
        ssize_t len = ioc->klass->readv(ioc, batch, n, NULL, NULL, errp);

        if (len == -EAGAIN) {
            int ret = wait(ioc, QIO_CHANNEL_READ);
            if (ret < 0) {
                return qio_channel_wait_error(ioc, ret, errp);
            }
        } else if (len < 0) {
            return len;
        } else if (len == 0) {
            if (started) {
                error_setg(errp, "Unexpected end-of-file before all data were read");
                return -EPIPE;
            }
            return 0;
        } else {
            started = true;
            iov_cursor_advance(&cur, len);
        }
    }
    return 1;
}

static int qio_channel_do_write_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                    WaitFunc *wait, GError **errp)
{
    struct iovec batch[QIO_CHANNEL_IOV_BATCH];
    IovCursor cur = {iov, niov, 0};
    size_t n;

    while ((n = iov_cursor_batch(&cur, batch)) > 0) {
        ssize_t len = ioc->klass->writev(ioc, batch, n, NULL, 0, errp);

        if (len == -EAGAIN) {
            int ret = wait(ioc, QIO_CHANNEL_WRITE);
            if (ret < 0) {
                return qio_channel_wait_error(ioc, ret, errp);
            }
        } else if (len < 0) {
            return len;
        } else {
            iov_cursor_advance(&cur, len);
        }
    }
    return 0;
}

static int qio_channel_eof_is_error(int ret, GError **errp)
{
    if (ret == 0) {
        error_setg(errp, "Unexpected end-of-file before all data were read");
        return -EPIPE;
    }
    return ret < 0 ? ret : 0;
}

ssize_t coroutine_fn qio_channel_co_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                          GError **errp)
{
    ssize_t len;

    while ((len = qio_channel_readv(ioc, iov, niov, errp)) == -EAGAIN) {
        int ret = qio_channel_co_wait(ioc, QIO_CHANNEL_READ);
        if (ret < 0) {
            return qio_channel_wait_error(ioc, ret, errp);
        }
    }
    return len;
}

int coroutine_fn qio_channel_co_readv_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                          GError **errp)
{
    int ret = qio_channel_do_read_all(ioc, iov, niov, qio_channel_co_wait, errp);

    return qio_channel_eof_is_error(ret, errp);
}

int coroutine_fn qio_channel_co_read_all_eof(QIOChannel *ioc, void *buf, size_t bytes,
                                             GError **errp)
{
    struct iovec iov = {buf, bytes};

    return qio_channel_do_read_all(ioc, &iov, 1, qio_channel_co_wait, errp);
}

int coroutine_fn qio_channel_co_read_all(QIOChannel *ioc, void *buf, size_t bytes, GError **errp)
{
    return qio_channel_eof_is_error(qio_channel_co_read_all_eof(ioc, buf, bytes, errp), errp);
}

int coroutine_fn qio_channel_co_writev_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                           GError **errp)
{
    return qio_channel_do_write_all(ioc, iov, niov, qio_channel_co_wait, errp);
}

int coroutine_fn qio_channel_co_write_all(QIOChannel *ioc, const void *buf, size_t bytes,
                                          GError **errp)
{
    struct iovec iov = {(void *)buf, bytes};

    return qio_channel_do_write_all(ioc, &iov, 1, qio_channel_co_wait, errp);
}

int qio_channel_readv_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, GError **errp)
{
    int ret = qio_channel_do_read_all(ioc, iov, niov, qio_channel_thread_wait, errp);

    return qio_channel_eof_is_error(ret, errp);
}

int qio_channel_writev_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, GError **errp)
{
    return qio_channel_do_write_all(ioc, iov, niov, qio_channel_thread_wait, errp);
}

/* --- life and tuning --- */

void qio_channel_shutdown(QIOChannel *ioc, QIOChannelShutdown how)
{
    g_atomic_int_or((guint *)&ioc->shut, how);
    if (ioc->klass->shutdown) {
        ioc->klass->shutdown(ioc, how);
    }
}

bool qio_channel_is_shut_down(const QIOChannel *ioc)
{
    return g_atomic_int_get(&ioc->shut) == QIO_CHANNEL_SHUTDOWN_BOTH;
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
