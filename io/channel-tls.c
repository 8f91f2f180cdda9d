/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QIOChannelTLS: a TLS session whose transport is another channel. */
#include "io/channel-tls.h"
#include <errno.h>
#include <poll.h>
#include "crypto/tlssession.h"
#include "io/channel-deadline.h"
#include "trace/trace-io.h"
#include "util/error.h"
#include "util/timer.h"

struct QIOChannelTLS {
    QIOChannel parent;
    QIOChannel *master;

    GMutex lock; /* of what follows: shutdown comes from any thread and wants to say good-bye */
    QCryptoTLSSession *session;
    bool established;
    bool said_bye;
    bool have_peeked;
    uint8_t peeked; /* a byte read to find out whether there is one */
    char *refusal;  /* the error with which the peer ended the session; NULL: it has not */
};

static QIOChannelTLS *tioc_of(QIOChannel *ioc)
{
    return (QIOChannelTLS *)ioc;
}

/* --- the session's transport: never waits, whatever mode the master is in --- */

static ssize_t tls_push(void *opaque, const struct iovec *iov, size_t niov)
{
    QIOChannelTLS *tioc = opaque;

    return tioc->master->klass->writev(tioc->master, iov, niov, NULL, 0, NULL);
}

static ssize_t tls_pull(void *opaque, const struct iovec *iov, size_t niov)
{
    QIOChannelTLS *tioc = opaque;

    return tioc->master->klass->readv(tioc->master, iov, niov, NULL, 0, NULL);
}

/* --- the class --- */

/* Every read of the session comes by here. */
static ssize_t tls_session_read(QIOChannelTLS *tioc, void *buf, size_t bytes, GError **errp)
{
    GError *err = NULL;
    ssize_t len = qcrypto_tls_session_read(tioc->session, buf, bytes, &err);

    if (len == -EACCES && !tioc->refusal) {
        tioc->refusal = g_strdup(err->message);
    }
    if (err) {
        g_propagate_error(errp, err);
    }
    return len;
}

static void tls_peek(QIOChannelTLS *tioc)
{
    if (!tioc->have_peeked) {
        tioc->have_peeked = tls_session_read(tioc, &tioc->peeked, 1, NULL) > 0;
    }
}

/*
 * Reads into one element. Bytes, also fewer when there are no more at hand; 0 at the end; -errno.
 */
static ssize_t tls_read_element(QIOChannelTLS *tioc, uint8_t *buf, size_t bytes, GError **errp)
{
    size_t done = 0;

    if (tioc->have_peeked) {
        tioc->have_peeked = false;
        buf[done++] = tioc->peeked;
    }
    while (done < bytes && (!done || qcrypto_tls_session_pending(tioc->session))) {
        ssize_t len = tls_session_read(tioc, buf + done, bytes - done, done ? NULL : errp);

        if (len <= 0) {
            return done ? (ssize_t)done : len;
        }
        done += len;
    }
    return done;
}

/* As readv, with the lock. */
static ssize_t tls_read_elements(QIOChannelTLS *tioc, const struct iovec *iov, size_t niov,
                                 GError **errp)
{
    ssize_t done = 0;

    for (size_t i = 0; i < niov; i++) {
        ssize_t len;

        if (!iov[i].iov_len) {
            continue;
        }
        if (done && !qcrypto_tls_session_pending(tioc->session)) {
            break;
        }
        len = tls_read_element(tioc, iov[i].iov_base, iov[i].iov_len, done ? NULL : errp);
        if (len <= 0) {
            return done ? done : len;
        }
        done += len;
        if ((size_t)len < iov[i].iov_len) {
            break;
        }
    }
    return done;
}

static ssize_t tls_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, QIOChannelFds *fds,
                         int flags, GError **errp)
{
    QIOChannelTLS *tioc = tioc_of(ioc);
    g_autoptr(GError) err = NULL;
    ssize_t len;

    if (qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_READ)) {
        return 0;
    }
    g_mutex_lock(&tioc->lock);
    len = tls_read_elements(tioc, iov, niov, &err);
    g_mutex_unlock(&tioc->lock);
    if (len >= 0 || len == -EAGAIN) {
        return len;
    }
    if (qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_READ)) {
        return 0; /* our own doing */
    }
    if (len == -ECONNABORTED && (flags & QIO_CHANNEL_READ_FLAG_RELAXED_EOF)) {
        return 0;
    }
    g_propagate_error(errp, g_steal_pointer(&err));
    return len;
}

/*
 * A peer that refuses us says why, then closes; a user that only writes would see the close alone.
 */
static void tls_explain_write_error(QIOChannelTLS *tioc, GError **err)
{
    tls_peek(tioc);
    if (tioc->refusal) {
        g_clear_error(err);
        error_setg(err, "%s", tioc->refusal);
    }
}

static ssize_t tls_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                          const QIOChannelFds *fds, int flags, GError **errp)
{
    QIOChannelTLS *tioc = tioc_of(ioc);
    ssize_t len = -EPIPE;
    GError *err = NULL;

    g_mutex_lock(&tioc->lock);
    if (tioc->said_bye || qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_WRITE)) {
        error_setg(errp, "Cannot write to TLS channel: it was shut down");
    } else {
        len = qcrypto_tls_session_write(tioc->session, iov, niov, &err);
    }
    if (err) {
        tls_explain_write_error(tioc, &err);
        g_propagate_error(errp, err);
    }
    g_mutex_unlock(&tioc->lock);
    return len;
}

static bool tls_read_pending(QIOChannel *ioc)
{
    QIOChannelTLS *tioc = tioc_of(ioc);
    bool pending;

    g_mutex_lock(&tioc->lock);
    pending = tioc->have_peeked || qcrypto_tls_session_pending(tioc->session);
    g_mutex_unlock(&tioc->lock);
    return pending;
}

/* Takes in messages that are TLS's own; true when something for the user has come. */
static bool tls_idle_event(QIOChannel *ioc)
{
    QIOChannelTLS *tioc = tioc_of(ioc);
    ssize_t len = 1;

    g_mutex_lock(&tioc->lock);
    if (!tioc->have_peeked) {
        len = tls_session_read(tioc, &tioc->peeked, 1, NULL);
        tioc->have_peeked = len > 0;
    }
    g_mutex_unlock(&tioc->lock);
    return len != -EAGAIN;
}

static int tls_poll_fd(QIOChannel *ioc, QIOChannelDirection dir, short *events)
{
    QIOChannel *master = tioc_of(ioc)->master;

    return master->klass->poll_fd(master, dir, events);
}

/* As much of a good-bye as can be had at once. tioc->lock. */
static void tls_say_bye(QIOChannelTLS *tioc)
{
    if (tioc->established && !tioc->said_bye) {
        tioc->said_bye = true;
        (void)qcrypto_tls_session_bye(tioc->session);
    }
}

static int tls_shutdown(QIOChannel *ioc, QIOChannelShutdown how)
{
    QIOChannelTLS *tioc = tioc_of(ioc);

    /* a thread that is inside the session must not be waited for: it may be encrypting 32 MiB */
    if ((how & QIO_CHANNEL_SHUTDOWN_WRITE) && g_mutex_trylock(&tioc->lock)) {
        tls_say_bye(tioc);
        g_mutex_unlock(&tioc->lock);
    }
    qio_channel_shutdown(tioc->master, how);
    return 0;
}

static int tls_close(QIOChannel *ioc, GError **errp)
{
    QIOChannelTLS *tioc = tioc_of(ioc);

    g_mutex_lock(&tioc->lock);
    if (!qio_channel_is_shut_down(ioc)) {
        tls_say_bye(tioc);
    }
    g_mutex_unlock(&tioc->lock);
    return qio_channel_close(tioc->master, errp);
}

static void tls_finalize(QIOChannel *ioc)
{
    QIOChannelTLS *tioc = tioc_of(ioc);

    if (!qio_channel_is_shut_down(ioc)) {
        tls_say_bye(tioc);
    }
    g_free(tioc->refusal);
    qcrypto_tls_session_free(tioc->session);
    qio_channel_unref(tioc->master);
    g_mutex_clear(&tioc->lock);
}

static void tls_set_cork(QIOChannel *ioc, bool on)
{
    qio_channel_set_cork(tioc_of(ioc)->master, on);
}

static void tls_set_delay(QIOChannel *ioc, bool on)
{
    qio_channel_set_delay(tioc_of(ioc)->master, on);
}

static const QIOChannelClass qio_channel_tls_class = {
    .name = "tls",
    .instance_size = sizeof(QIOChannelTLS),
    .readv = tls_readv,
    .writev = tls_writev,
    .read_pending = tls_read_pending,
    .idle_event = tls_idle_event,
    .poll_fd = tls_poll_fd,
    .shutdown = tls_shutdown,
    .close = tls_close,
    .finalize = tls_finalize,
    .set_cork = tls_set_cork,
    .set_delay = tls_set_delay,
};

/* --- making one --- */

static QIOChannelTLS *tls_channel_alloc(QIOChannel *master)
{
    QIOChannelTLS *tioc =
        tioc_of(qio_channel_alloc(&qio_channel_tls_class, qio_channel_get_name(master)));

    g_mutex_init(&tioc->lock);
    tioc->master = qio_channel_ref(master);
    tioc->parent.features =
        (master->features & QIO_CHANNEL_FEATURE_SHUTDOWN) | QIO_CHANNEL_FEATURE_TLS;
    qio_channel_detach_aio_context(master); /* from now on this channel waits for the descriptor */
    return tioc;
}

static QIOChannelTLS *tls_channel_finish(QIOChannelTLS *tioc)
{
    if (!tioc->session) {
        qio_channel_unref(&tioc->parent);
        return NULL;
    }
    return tioc;
}

QIOChannelTLS *qio_channel_tls_new_client(QIOChannel *master, QCryptoTLSCreds *creds,
                                          const char *hostname, GError **errp)
{
    QIOChannelTLS *tioc = tls_channel_alloc(master);
    QCryptoTLSTransport transport = {tls_push, tls_pull, tioc};

    tioc->session = qcrypto_tls_session_new_client(creds, hostname, &transport, errp);
    return tls_channel_finish(tioc);
}

QIOChannelTLS *qio_channel_tls_new_server(QIOChannel *master, QCryptoTLSCreds *creds,
                                          const char *authz_id, GError **errp)
{
    QIOChannelTLS *tioc = tls_channel_alloc(master);
    QCryptoTLSTransport transport = {tls_push, tls_pull, tioc};

    tioc->session = qcrypto_tls_session_new_server(creds, authz_id, &transport, errp);
    return tls_channel_finish(tioc);
}

/* --- handshake and good-bye --- */

/* What a wait that failed means; returns ret. */
static int tls_handshake_over(int ret, GError **errp)
{
    error_setg(errp, ret == -ETIMEDOUT ? "TLS handshake timed out" : "TLS handshake was cancelled");
    return ret;
}

/* 1: *dir is what to wait for before the next step; 0: done; -errno. */
static int tls_handshake_step(QIOChannelTLS *tioc, QIOChannelDirection *dir, GError **errp)
{
    g_autoptr(GError) err = NULL;
    QCryptoTLSHandshake step;

    g_mutex_lock(&tioc->lock);
    step = qcrypto_tls_session_handshake(tioc->session, &err);
    tioc->established = step == QCRYPTO_TLS_HANDSHAKE_COMPLETE;
    g_mutex_unlock(&tioc->lock);
    if (step == QCRYPTO_TLS_HANDSHAKE_COMPLETE) {
        return 0;
    }
    if (qio_channel_is_shut_down(&tioc->parent) || qio_channel_is_shut_down(tioc->master)) {
        return tls_handshake_over(-ECANCELED, errp);
    }
    if (step == QCRYPTO_TLS_HANDSHAKE_FAILED) {
        g_propagate_error(errp, g_steal_pointer(&err));
        return -EPROTO;
    }
    *dir = step == QCRYPTO_TLS_HANDSHAKE_READ ? QIO_CHANNEL_READ : QIO_CHANNEL_WRITE;
    return 1;
}

int coroutine_fn qio_channel_tls_co_handshake(QIOChannelTLS *tioc, int64_t timeout_ns,
                                              GError **errp)
{
    QIOChannelDeadline deadline;
    QIOChannelDirection dir;
    int ret;

    qio_channel_deadline_start(&deadline, &tioc->parent, timeout_ns);
    while ((ret = tls_handshake_step(tioc, &dir, errp)) > 0) {
        ret = qio_channel_deadline_co_wait(&deadline, dir);
        if (ret < 0) {
            ret = tls_handshake_over(ret, errp);
            break;
        }
    }
    qio_channel_deadline_stop(&deadline);
    trace_qio_channel_tls_handshake(tioc, ret);
    return ret;
}

static int64_t tls_deadline(int64_t timeout_ns)
{
    return timeout_ns ? qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + timeout_ns : 0;
}

int qio_channel_tls_handshake(QIOChannelTLS *tioc, int64_t timeout_ns, GError **errp)
{
    int64_t deadline_ns = tls_deadline(timeout_ns);
    QIOChannelDirection dir;
    int ret;

    while ((ret = tls_handshake_step(tioc, &dir, errp)) > 0) {
        ret = qio_channel_wait(&tioc->parent, dir, deadline_ns);
        if (ret < 0) {
            ret = tls_handshake_over(ret == -ETIMEDOUT ? ret : -ECANCELED, errp);
            break;
        }
    }
    trace_qio_channel_tls_handshake(tioc, ret);
    return ret;
}

int qio_channel_tls_bye(QIOChannelTLS *tioc, int64_t timeout_ns, GError **errp)
{
    int64_t deadline_ns = tls_deadline(timeout_ns);
    int ret;

    for (;;) {
        g_mutex_lock(&tioc->lock);
        ret = !tioc->established || tioc->said_bye ? 0 : qcrypto_tls_session_bye(tioc->session);
        tioc->said_bye = tioc->established && ret != -EAGAIN;
        g_mutex_unlock(&tioc->lock);
        if (ret == -EAGAIN) {
            ret = qio_channel_wait(&tioc->parent, QIO_CHANNEL_WRITE, deadline_ns);
        } else if (ret == 0) {
            return 0;
        }
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Cannot end TLS session");
            return ret;
        }
    }
}

const char *qio_channel_tls_peer_name(const QIOChannelTLS *tioc)
{
    return qcrypto_tls_session_get_peer_name(tioc->session);
}
