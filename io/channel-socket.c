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
#include "util/error.h"
#include "util/sockets.h"

struct QIOChannelSocket {
    QIOChannel parent;
    int fd;
    GMutex lock; /* keeps fd open while another thread shuts it down */
    bool is_inet;
    SocketConnectControl *connecting; /* an attempt in progress */
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

static ssize_t socket_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, int **fds,
                            size_t *nfds, GError **errp)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = niov};
    int got[QIO_CHANNEL_MAX_FDS];
    ssize_t len;

    if (!fds) {
        do {
            len = recvmsg(sioc_of(ioc)->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        } while (len < 0 && errno == EINTR);
        return len < 0 ? socket_fail(errno, "read from", errp) : len;
    }
    len = socket_recv_fds(sioc_of(ioc)->fd, iov, niov, got, G_N_ELEMENTS(got), nfds);
    if (len < 0) {
        return socket_fail(-len, "read from", errp);
    }
    *fds = *nfds ? g_memdup2(got, *nfds * sizeof(int)) : NULL;
    return len;
}

static ssize_t socket_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov, const int *fds,
                             size_t nfds, GError **errp)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = niov};
    ssize_t len;

    if (nfds > QIO_CHANNEL_MAX_FDS) {
        error_setg(errp, "Only %d file descriptors can be sent at once", QIO_CHANNEL_MAX_FDS);
        return -EINVAL;
    }
    if (nfds) {
        len = socket_send_fds(sioc_of(ioc)->fd, iov, niov, fds, nfds);
        return len < 0 ? socket_fail(-len, "write to", errp) : len;
    }
    do {
        len = sendmsg(sioc_of(ioc)->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (len < 0 && errno == EINTR);
    return len < 0 ? socket_fail(errno, "write to", errp) : len;
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

static void socket_close(QIOChannel *ioc)
{
    socket_set_fd(sioc_of(ioc), -1);
}

static void socket_finalize(QIOChannel *ioc)
{
    g_mutex_clear(&sioc_of(ioc)->lock);
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
    .raw_socket = socket_raw,
    .set_cork = socket_set_cork,
    .set_delay = socket_set_delay,
};

QIOChannelSocket *qio_channel_socket_new(void)
{
    QIOChannelSocket *sioc = sioc_of(qio_channel_alloc(&qio_channel_socket_class, NULL));

    sioc->fd = -1;
    g_mutex_init(&sioc->lock);
    sioc->parent.features = QIO_CHANNEL_FEATURE_SHUTDOWN;
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

bool qio_channel_socket_is_inet(const QIOChannelSocket *sioc)
{
    return sioc->is_inet;
}

char *qio_channel_socket_peer_name(const QIOChannelSocket *sioc)
{
    g_autoptr(FerrySockAddr) addr = sioc->fd >= 0 ? socket_remote_address(sioc->fd, NULL) : NULL;

    return addr ? ferry_sockaddr_to_string(addr) : g_strdup("(unknown)");
}

void qio_channel_socket_set_buffers(QIOChannelSocket *sioc, int send_bytes, int receive_bytes)
{
    /*
     * The privileged form passes the system's limit; whoever may not use it gets what the limit
     * allows.
     */
    if (send_bytes > 0 &&
        setsockopt(sioc->fd, SOL_SOCKET, SO_SNDBUFFORCE, &send_bytes, sizeof(send_bytes)) < 0) {
        (void)setsockopt(sioc->fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof(send_bytes));
    }
    if (receive_bytes > 0 && setsockopt(sioc->fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive_bytes,
                                        sizeof(receive_bytes)) < 0) {
        (void)setsockopt(sioc->fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    }
}
