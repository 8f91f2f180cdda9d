/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets: name resolution, listening, descriptors by name, properties, descriptors sent along. */
#include "util/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "trace/trace-util.h"
#include "util/aio.h"
#include "util/cutils.h"
#include "util/error.h"
#include "util/inherited-fds.h"

static SocketFdLookup *fd_lookup;

/* --- name resolution --- */

GArray *socket_resolve(const FerrySockInet *inet, bool passive, GError **errp)
{
    int family = ferry_sockaddr_inet_family(inet, errp);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *res = NULL;
    bool any = inet->host[0] == '\0';
    GArray *list;
    int rc;

    if (family < 0 || !ferry_sockaddr_check_port(inet->port, errp)) {
        return NULL;
    }
    if (any && !passive) {
        error_setg(errp, "The host to connect to is missing (port '%s')", inet->port);
        return NULL;
    }
    hints.ai_family = family;
    hints.ai_flags = passive ? AI_PASSIVE : 0;
    if (inet->has_numeric && inet->numeric) {
        hints.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
    }
    rc = getaddrinfo(any ? NULL : inet->host, inet->port, &hints, &res);
    if (rc != 0) {
        error_setg(errp, "address resolution failed for %s:%s: %s", inet->host, inet->port,
                   rc == EAI_SYSTEM ? g_strerror(errno) : gai_strerror(rc));
        return NULL;
    }
    list = g_array_new(false, true, sizeof(SocketCandidate));
    for (struct addrinfo *ai = res; ai && list->len < SOCKET_CANDIDATES_MAX; ai = ai->ai_next) {
        SocketCandidate c = {.len = MIN(ai->ai_addrlen, sizeof(c.sa))};

        memcpy(&c.sa, ai->ai_addr, c.len);
        /* The IPv6 wildcard first: it serves IPv4 as well, the IPv4 one serves nothing else. */
        if (any && ai->ai_family == AF_INET6) {
            g_array_prepend_val(list, c);
        } else {
            g_array_append_val(list, c);
        }
    }
    freeaddrinfo(res);
    trace_socket_resolve(inet->host, inet->port, list->len);
    return list;
}

/* --- listening --- */

static void candidate_set_port(SocketCandidate *c, unsigned port)
{
    if (c->sa.ss_family == AF_INET6) {
        ((struct sockaddr_in6 *)&c->sa)->sin6_port = htons(port);
    } else {
        ((struct sockaddr_in *)&c->sa)->sin_port = htons(port);
    }
}

static unsigned candidate_port(const SocketCandidate *c)
{
    return ntohs(c->sa.ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)&c->sa)->sin6_port
                                             : ((const struct sockaddr_in *)&c->sa)->sin_port);
}

/* A socket bound to sa that listens, or -errno. */
static int bind_and_listen(const struct sockaddr_storage *sa, socklen_t len, bool v6only,
                           int backlog)
{
    int fd = socket(sa->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1, only = v6only, err;

    if (fd < 0) {
        return -errno;
    }
    if (sa->ss_family == AF_INET || sa->ss_family == AF_INET6) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    }
    if (sa->ss_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
    }
    if (bind(fd, (const struct sockaddr *)sa, len) < 0 || listen(fd, backlog) < 0) {
        err = errno;
        close(fd);
        return -err;
    }
    return fd;
}

/* The first port of the candidate's own..last that is free; -errno of the last attempt. */
static int listen_candidate(SocketCandidate *c, unsigned last, bool v6only, int backlog)
{
    unsigned port = candidate_port(c);
    int fd;

    do {
        candidate_set_port(c, port);
        fd = bind_and_listen(&c->sa, c->len, v6only, backlog);
    } while (fd == -EADDRINUSE && port++ < last);
    return fd;
}

static int listen_inet(const FerrySockAddr *addr, int backlog, GError **errp)
{
    const FerrySockInet *inet = &addr->inet;
    g_autofree char *name = ferry_sockaddr_to_string(addr);
    g_autoptr(GArray) list = socket_resolve(inet, true, errp);
    bool v6only = ferry_sockaddr_inet_family(inet, NULL) != AF_UNSPEC;
    int first_err = 0;

    if (!list) {
        return -1;
    }
    for (guint i = 0; i < list->len; i++) {
        SocketCandidate *c = &g_array_index(list, SocketCandidate, i);
        unsigned last = inet->has_to ? inet->to : candidate_port(c);
        int fd = listen_candidate(c, last, v6only, backlog);

        if (fd >= 0) {
            return fd;
        }
        first_err = first_err ? first_err : -fd;
    }
    error_setg_errno(errp, first_err, "Failed to listen on '%s'", name);
    return -1;
}

static void remove_stale_socket(const FerrySockUnix *un)
{
    struct stat st;

    if (!(un->has_abstract && un->abstract) && lstat(un->path, &st) == 0 && S_ISSOCK(st.st_mode)) {
        unlink(un->path);
    }
}

static int listen_native(const FerrySockAddr *addr, int backlog, GError **errp)
{
    g_autofree char *name = ferry_sockaddr_to_string(addr);
    struct sockaddr_storage sa;
    socklen_t len;
    int fd;

    if (!ferry_sockaddr_to_native(addr, &sa, &len, errp)) {
        return -1;
    }
    if (addr->type == FERRY_SOCK_UNIX) {
        remove_stale_socket(&addr->un);
    }
    fd = bind_and_listen(&sa, len, false, backlog);
    if (fd < 0) {
        error_setg_errno(errp, -fd, "Failed to listen on '%s'", name);
        return -1;
    }
    return fd;
}

static int listen_fd(const char *name, int backlog, GError **errp)
{
    int fd = socket_get_fd(name, errp);

    if (fd >= 0 && listen(fd, backlog) < 0) {
        error_setg_errno(errp, errno, "Failed to listen on fd '%s'", name);
        close(fd);
        return -1;
    }
    return fd;
}

int socket_listen(const FerrySockAddr *addr, int backlog, GError **errp)
{
    g_autofree char *name = ferry_sockaddr_to_string(addr);
    int fd;

    switch (addr->type) {
    case FERRY_SOCK_INET:
        fd = listen_inet(addr, backlog, errp);
        break;
    case FERRY_SOCK_FD:
        fd = listen_fd(addr->fd, backlog, errp);
        break;
    default:
        fd = listen_native(addr, backlog, errp);
        break;
    }
    if (fd >= 0) {
        trace_socket_listen(fd, name);
    }
    return fd;
}

typedef struct ListenCall {
    const FerrySockAddr *addr;
    int backlog;
    GError **errp;
} ListenCall;

static int listen_in_worker(void *opaque)
{
    ListenCall *call = opaque;

    return socket_listen(call->addr, call->backlog, call->errp);
}

int coroutine_fn socket_listen_co(const FerrySockAddr *addr, int backlog, GError **errp)
{
    ListenCall call = {.addr = addr, .backlog = backlog, .errp = errp};

    /*
     * Only names can take time; a lookup among the monitor's descriptors must stay in its thread.
     */
    return addr->type == FERRY_SOCK_INET ? thread_pool_submit_co(listen_in_worker, &call)
                                         : socket_listen(addr, backlog, errp);
}

void socket_listen_cleanup(const FerrySockAddr *addr)
{
    if (addr->type == FERRY_SOCK_UNIX) {
        remove_stale_socket(&addr->un);
    }
}

/* --- descriptors by name --- */

void socket_set_fd_lookup(SocketFdLookup *lookup)
{
    fd_lookup = lookup;
}

static bool is_number(const char *name)
{
    return g_ascii_isdigit(name[0]);
}

static int take_by_name(const char *name, GError **errp)
{
    if (!fd_lookup) {
        error_setg(errp, "No file descriptor named '%s' found", name);
        return -1;
    }
    return fd_lookup(name, errp);
}

int named_fd_take(const char *name, GError **errp)
{
    int fd;

    if (is_number(name)) {
        return inherited_fd_take(name, errp);
    }
    fd = take_by_name(name, errp);
    if (fd >= 0) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    return fd;
}

static bool check_socket(int fd, const char *name, GError **errp)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        error_setg(errp, "File descriptor '%s' is not a socket", name);
        return false;
    }
    return true;
}

int socket_get_fd(const char *name, GError **errp)
{
    /* A number that is no socket stays free for another use. */
    int fd = is_number(name) ? inherited_fd_look(name, errp) : take_by_name(name, errp);

    if (fd < 0) {
        return -1;
    }
    if (!check_socket(fd, name, errp)) {
        if (!is_number(name)) {
            close(fd);
        }
        return -1;
    }
    if (is_number(name) && inherited_fd_take(name, errp) < 0) {
        return -1;
    }
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    socket_set_nonblock(fd, true);
    return fd;
}

/* --- a socket's properties --- */

FerrySockAddr *socket_local_address(int fd, GError **errp)
{
    struct sockaddr_storage sa = {0};
    socklen_t len = sizeof(sa);

    if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0) {
        error_setg_errno(errp, errno, "Unable to query local socket address");
        return NULL;
    }
    return ferry_sockaddr_from_native(&sa, len, errp);
}

FerrySockAddr *socket_remote_address(int fd, GError **errp)
{
    struct sockaddr_storage sa = {0};
    socklen_t len = sizeof(sa);

    if (getpeername(fd, (struct sockaddr *)&sa, &len) < 0) {
        error_setg_errno(errp, errno, "Unable to query remote socket address");
        return NULL;
    }
    return ferry_sockaddr_from_native(&sa, len, errp);
}

int socket_set_nodelay(int fd, bool on)
{
    int value = on;

    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof(value)) < 0 ? -errno : 0;
}

int socket_set_keepalive(int fd, bool on)
{
    int value = on;

    return setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof(value)) < 0 ? -errno : 0;
}

int socket_set_nonblock(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0) {
        return -errno;
    }
    return 0;
}

/* --- descriptors along with data --- */

typedef union FdControl {
    struct cmsghdr align;
    char buf[CMSG_SPACE(SOCKET_MAX_FDS * sizeof(int))];
} FdControl;

ssize_t socket_send_fds(int fd, const struct iovec *iov, int niov, const int *fds, size_t nfds,
                        int flags)
{
    FdControl control = {0};
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = niov};
    ssize_t n;

    g_assert(nfds <= SOCKET_MAX_FDS);
    if (nfds > 0) {
        struct cmsghdr *cmsg;

        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, nfds * sizeof(int));
    }
    do {
        n = sendmsg(fd, &msg, MSG_NOSIGNAL | flags);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* Keeps the message's descriptors in fds while there is room, and closes the others. */
static size_t take_fds(struct cmsghdr *cmsg, int *fds, size_t nfds, size_t max_fds)
{
    size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

    for (size_t i = 0; i < count; i++) {
        int received;

        memcpy(&received, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
        if (nfds < max_fds) {
            fds[nfds++] = received;
        } else {
            close(received);
        }
    }
    return nfds;
}

ssize_t socket_recv_fds(int fd, const struct iovec *iov, int niov, int *fds, size_t max_fds,
                        size_t *nfds, int flags)
{
    FdControl control;
    struct msghdr msg = {.msg_iov = (struct iovec *)iov,
                         .msg_iovlen = niov,
                         .msg_control = control.buf,
                         .msg_controllen = sizeof(control.buf)};
    ssize_t n;

    do {
        n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | flags);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return -errno;
    }
    *nfds = 0;
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
        if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS) {
            *nfds = take_fds(cmsg, fds, *nfds, max_fds);
        }
    }
    return n;
}
