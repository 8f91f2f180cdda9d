/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QIOChannelSocket: sendmsg() and recvmsg() on a non-blocking stream socket. */
#include "io/channel-socket.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "io/socket-address.h"
#include "io/zero-copy.h"
#include "util/error.h"
#include "util/sockets.h"

struct QIOChannelSocket {
    QIOChannel parent;
    int fd;
    GMutex lock; /* keeps fd open while another thread shuts it down */
    bool is_inet;
    SocketConnectControl *connecting; /* a coroutine's attempt in progress */
    int attempt_fd;                   /* a thread's, or -1; under lock */
    ZeroCopyQueue zero_copy;
};

static QIOChannelSocket *sioc_of(QIOChannel *ioc)
{
    return (QIOChannelSocket *)ioc;
}

static ssize_t socket_fail(int err, const char *what, GError **errp)
{
    if (err == EAGAIN || err == EWOULDBLOCK) {
        return -EAGAIN;
    }
    error_setg_errno(errp, err, "Unable to %s socket", what);
    return -err;
}

static ssize_t socket_read_fds(int fd, const struct iovec *iov, size_t niov, QIOChannelFds *fds,
                               int msg_flags)
{
    int got[QIO_CHANNEL_MAX_FDS];
    ssize_t len = socket_recv_fds(fd, iov, niov, got, G_N_ELEMENTS(got), &fds->n, msg_flags);

    if (len >= 0) {
        fds->fd = fds->n ? g_memdup2(got, fds->n * sizeof(int)) : NULL;
    }
    return len;
}

static ssize_t socket_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                            QIOChannelFds *fds, int flags, GError **errp)
{
    QIOChannelSocket *sioc = sioc_of(ioc);
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = niov};
    int msg_flags = (flags & QIO_CHANNEL_FLAG_MAY_BLOCK ? 0 : MSG_DONTWAIT) |
                    (flags & QIO_CHANNEL_READ_FLAG_WAITALL ? MSG_WAITALL : 0) |
                    (flags & QIO_CHANNEL_READ_FLAG_MSG_PEEK ? MSG_PEEK : 0);
    ssize_t len;

    if (qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_READ)) {
        return 0;
    }
    if (fds) {
        len = socket_read_fds(sioc->fd, iov, niov, fds, msg_flags);
    } else {
        do {
            len = recvmsg(sioc->fd, &msg, MSG_CMSG_CLOEXEC | msg_flags);
        } while (len < 0 && errno == EINTR);
        len = len < 0 ? -errno : len;
    }
    if (len == -EAGAIN && qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_WRITE_ZERO_COPY)) {
        zero_copy_tidy(&sioc->zero_copy, sioc->fd);
    }
    return len < 0 ? socket_fail(-len, "read from", errp) : len;
}

/* The kernel refuses to pin more pages: once earlier ones are free it may not. */
static ssize_t socket_send_zero_copy(QIOChannelSocket *sioc, const struct msghdr *msg,
                                     int msg_flags, GError **errp)
{
    ssize_t len;
    int ret;

    for (;;) {
        len = sendmsg(sioc->fd, msg, msg_flags | MSG_ZEROCOPY);
        if (len >= 0) {
            zero_copy_sent(&sioc->zero_copy);
            return len;
        }
        if (errno != ENOBUFS) {
            if (errno != EINTR) {
                return socket_fail(errno, "write to", errp);
            }
            continue;
        }
        ret = zero_copy_wait(&sioc->zero_copy, sioc->fd, false);
        if (ret < 0) {
            return socket_fail(-ret, "write to", errp);
        }
        if (ret > 0) {
            error_setg(errp, "Process can't lock enough memory for using MSG_ZEROCOPY "
                             "(RLIMIT_MEMLOCK is too low)");
            return -ENOBUFS;
        }
    }
}

static ssize_t socket_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                             const QIOChannelFds *fds, int flags, GError **errp)
{
    QIOChannelSocket *sioc = sioc_of(ioc);
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = niov};
    int msg_flags = MSG_NOSIGNAL | (flags & QIO_CHANNEL_FLAG_MAY_BLOCK ? 0 : MSG_DONTWAIT);
    ssize_t len;

    if (fds && fds->n > QIO_CHANNEL_MAX_FDS) {
        error_setg(errp, "Only %d file descriptors can be sent at once", QIO_CHANNEL_MAX_FDS);
        return -EINVAL;
    }
    if (fds) {
        len = socket_send_fds(sioc->fd, iov, niov, fds->fd, fds->n, msg_flags);
        return len < 0 ? socket_fail(-len, "write to", errp) : len;
    }
    if (flags & QIO_CHANNEL_WRITE_FLAG_ZERO_COPY) {
        return socket_send_zero_copy(sioc, &msg, msg_flags, errp);
    }
    do {
        len = sendmsg(sioc->fd, &msg, msg_flags);
    } while (len < 0 && errno == EINTR);
    return len < 0 ? socket_fail(errno, "write to", errp) : len;
}

static int socket_flush(QIOChannel *ioc, GError **errp)
{
    QIOChannelSocket *sioc = sioc_of(ioc);
    int ret;

    if (!qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_WRITE_ZERO_COPY)) {
        return 0;
    }
    ret = zero_copy_wait(&sioc->zero_copy, sioc->fd, true);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Unable to flush zero-copy sends of socket");
        return ret;
    }
    return zero_copy_take_result(&sioc->zero_copy);
}

static int socket_poll_fd(QIOChannel *ioc, QIOChannelDirection dir, short *events)
{
    *events = dir == QIO_CHANNEL_READ ? POLLIN : POLLOUT;
    return sioc_of(ioc)->fd;
}

static int socket_shutdown(QIOChannel *ioc, QIOChannelShutdown how)
{
    QIOChannelSocket *sioc = sioc_of(ioc);
    int sockhow = how == QIO_CHANNEL_SHUTDOWN_BOTH    ? SHUT_RDWR
                  : how == QIO_CHANNEL_SHUTDOWN_WRITE ? SHUT_WR
                                                      : SHUT_RD;
    int ret = 0;

    g_mutex_lock(&sioc->lock);
    if (sioc->fd >= 0 && shutdown(sioc->fd, sockhow) < 0) {
        ret = -errno;
    }
    if (sioc->attempt_fd >= 0) {
        (void)shutdown(sioc->attempt_fd, SHUT_RDWR);
    }
    g_mutex_unlock(&sioc->lock);
    return ret;
}

static void socket_set_fd(QIOChannelSocket *sioc, int fd)
{
    int old;

    g_mutex_lock(&sioc->lock);
    old = sioc->fd;
    sioc->fd = fd;
    g_mutex_unlock(&sioc->lock);
    if (old >= 0) {
        close(old);
    }
}

static int socket_close(QIOChannel *ioc, GError **errp)
{
    socket_set_fd(sioc_of(ioc), -1);
    return 0;
}

static void socket_finalize(QIOChannel *ioc)
{
    socket_set_fd(sioc_of(ioc), -1);
    zero_copy_destroy(&sioc_of(ioc)->zero_copy);
    g_mutex_clear(&sioc_of(ioc)->lock);
}

static int socket_set_blocking(QIOChannel *ioc, bool on)
{
    return socket_set_nonblock(sioc_of(ioc)->fd, !on);
}

static void socket_set_cork(QIOChannel *ioc, bool on)
{
    int v = on;

    if (sioc_of(ioc)->is_inet) {
        (void)setsockopt(sioc_of(ioc)->fd, IPPROTO_TCP, TCP_CORK, &v, sizeof(v));
    }
}

static void socket_set_delay(QIOChannel *ioc, bool on)
{
    int v = !on;

    if (sioc_of(ioc)->is_inet) {
        (void)setsockopt(sioc_of(ioc)->fd, IPPROTO_TCP, TCP_NODELAY, &v, sizeof(v));
    }
}

static int socket_raw(const QIOChannel *ioc)
{
    return ((const QIOChannelSocket *)ioc)->fd;
}

static const QIOChannelClass qio_channel_socket_class = {
    .name = "socket",
    .instance_size = sizeof(QIOChannelSocket),
    .readv = socket_readv,
    .writev = socket_writev,
    .poll_fd = socket_poll_fd,
    .shutdown = socket_shutdown,
    .close = socket_close,
    .finalize = socket_finalize,
    .flush = socket_flush,
    .set_blocking = socket_set_blocking,
    .raw_socket = socket_raw,
    .set_cork = socket_set_cork,
    .set_delay = socket_set_delay,
};

QIOChannelSocket *qio_channel_socket_new(void)
{
    QIOChannelSocket *sioc = sioc_of(qio_channel_alloc(&qio_channel_socket_class, NULL));

    sioc->fd = sioc->attempt_fd = -1;
    g_mutex_init(&sioc->lock);
    zero_copy_init(&sioc->zero_copy);
    sioc->parent.features = QIO_CHANNEL_FEATURE_SHUTDOWN | QIO_CHANNEL_FEATURE_READ_MSG_PEEK;
    return sioc;
}

/* The socket is connected: note what it is. */
static void socket_note_family(QIOChannelSocket *sioc)
{
    int family = AF_UNSPEC;
    socklen_t len = sizeof(family);

    (void)getsockopt(sioc->fd, SOL_SOCKET, SO_DOMAIN, &family, &len);
    sioc->is_inet = family == AF_INET || family == AF_INET6;
    if (family == AF_UNIX) {
        sioc->parent.features |= QIO_CHANNEL_FEATURE_FD_PASS;
    } else if (zero_copy_enable(sioc->fd)) {
        sioc->parent.features |= QIO_CHANNEL_FEATURE_WRITE_ZERO_COPY;
    }
}

QIOChannelSocket *qio_channel_socket_new_fd(int fd, GError **errp)
{
    QIOChannelSocket *sioc;
    int type;
    socklen_t len = sizeof(type);

    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0) {
        error_setg_errno(errp, errno, "File descriptor %d is not a socket", fd);
        return NULL;
    }
    if (type != SOCK_STREAM) {
        error_setg(errp, "File descriptor %d is not a stream socket", fd);
        return NULL;
    }
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        error_setg_errno(errp, errno, "Could not make socket %d non-blocking", fd);
        return NULL;
    }
    sioc = qio_channel_socket_new();
    socket_set_fd(sioc, fd);
    socket_note_family(sioc);
    return sioc;
}

int coroutine_fn qio_channel_socket_co_connect(QIOChannelSocket *sioc, const SocketAddress *addr,
                                               GError **errp)
{
    g_autoptr(FerrySockAddr) native = socket_address_convert(addr, errp);
    SocketConnectControl control = {0};
    int fd;

    if (!native) {
        return -EINVAL;
    }
    if (qio_channel_is_shut_down(&sioc->parent)) {
        error_setg(errp, "Connecting was cancelled");
        return -ECANCELED;
    }
    sioc->connecting = &control;
    fd = socket_connect_co(native, &control, errp);
    sioc->connecting = NULL;
    if (fd < 0) {
        return -ECONNREFUSED;
    }
    socket_set_fd(sioc, fd);
    socket_note_family(sioc);
    if (qio_channel_is_shut_down(&sioc->parent)) {
        error_setg(errp, "Connecting was cancelled");
        return -ECANCELED;
    }
    return 0;
}

static bool socket_note_attempt(int fd, void *opaque)
{
    QIOChannelSocket *sioc = opaque;
    bool go_on;

    g_mutex_lock(&sioc->lock);
    sioc->attempt_fd = fd;
    go_on = !qio_channel_is_shut_down(&sioc->parent);
    g_mutex_unlock(&sioc->lock);
    return go_on;
}

int qio_channel_socket_connect(QIOChannelSocket *sioc, const SocketAddress *addr,
                               int64_t deadline_ns, GError **errp)
{
    g_autoptr(FerrySockAddr) native = socket_address_convert(addr, errp);
    g_autoptr(GError) err = NULL;
    SocketConnectHooks hooks = {deadline_ns, socket_note_attempt, sioc};
    int fd;

    if (!native) {
        return -EINVAL;
    }
    fd = socket_connect(native, &hooks, &err);
    if (fd >= 0) {
        socket_set_fd(sioc, fd);
        socket_note_family(sioc);
    }
    if (qio_channel_is_shut_down(&sioc->parent)) {
        error_setg(errp, "Connecting was cancelled");
        return -ECANCELED;
    }
    if (fd < 0) {
        g_propagate_error(errp, g_steal_pointer(&err));
        return -ECONNREFUSED;
    }
    return 0;
}

void qio_channel_socket_cancel_connect(QIOChannelSocket *sioc)
{
    qio_channel_shutdown(&sioc->parent, QIO_CHANNEL_SHUTDOWN_BOTH);
    if (sioc->connecting) {
        socket_connect_cancel(sioc->connecting);
    }
}

int qio_channel_socket_get_fd(const QIOChannelSocket *sioc)
{
    return sioc->fd;
}

SocketAddress *qio_channel_socket_remote_address(const QIOChannelSocket *sioc, GError **errp)
{
    g_autoptr(FerrySockAddr) addr = socket_remote_address(sioc->fd, errp);

    return addr ? socket_address_from_native(addr) : NULL;
}

char *qio_channel_socket_peer_name(const QIOChannelSocket *sioc)
{
    g_autoptr(FerrySockAddr) addr = sioc->fd >= 0 ? socket_remote_address(sioc->fd, NULL) : NULL;

    return addr ? ferry_sockaddr_to_string(addr) : g_strdup("(unknown)");
}
