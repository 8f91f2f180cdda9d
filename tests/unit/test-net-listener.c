/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Listening and connecting: where, in which thread, and how that is ended. */
#include "io/net-listener.h"
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "qapi/qapi-types.h"
#include "util/error.h"
#include "util/inherited-fds.h"
#include "util/iothread.h"

typedef struct OpenCall {
    QIONetListener *listener;
    const SocketAddress *addr;
    GError **errp;
    bool ok;
} OpenCall;

static void coroutine_fn co_open(void *opaque)
{
    OpenCall *call = opaque;

    call->ok = qio_net_listener_co_open(call->listener, call->addr, 4, call->errp);
}

static SocketAddress inet(const char *host, const char *port)
{
    return (SocketAddress){.type = SOCKET_ADDRESS_TYPE_INET,
                           .u.inet = {.host = (char *)host, .port = (char *)port}};
}

static bool open_at(QIONetListener *listener, const SocketAddress *addr, GError **errp)
{
    OpenCall call = {listener, addr, errp, false};

    aio_run_coroutine(co_open, &call);
    return call.ok;
}

/* --- accepting --- */

typedef struct Accepted {
    AioContext *ctx;
    int count; /* atomic */
} Accepted;

static void on_client(QIONetListener *listener, QIOChannelSocket *sioc, void *opaque)
{
    Accepted *a = opaque;

    g_assert_true(aio_context_in_own_thread(a->ctx));
    qio_channel_unref(QIO_CHANNEL(sioc));
    g_atomic_int_inc(&a->count);
}

static void connect_to_all(QIONetListener *listener)
{
    g_autoptr(SocketAddressList) list = qio_net_listener_addresses(listener);

    for (SocketAddressList *l = list; l; l = l->next) {
        QIOChannelSocket *sioc = qio_channel_socket_new();
        g_autoptr(SocketAddress) remote = NULL;
        g_autoptr(GError) err = NULL;

        g_assert_cmpint(qio_channel_socket_connect(sioc, l->value, 0, &err), ==, 0);
        g_assert_no_error(err);
        remote = qio_channel_socket_remote_address(sioc, &err);
        g_assert_no_error(err);
        g_assert_cmpint(remote->type, ==, l->value->type);
        if (remote->type == SOCKET_ADDRESS_TYPE_INET) {
            g_assert_cmpstr(remote->u.inet.port, ==, l->value->u.inet.port);
            g_assert_true(remote->u.inet.has_ipv4 && remote->u.inet.ipv4);
            g_assert_false(remote->u.inet.has_ipv6);
        }
        qio_channel_unref(QIO_CHANNEL(sioc));
    }
}

static void test_several_addresses(void)
{
    QIONetListener *listener = qio_net_listener_new();
    g_autofree char *name = g_strdup_printf("ferry-test-%d", (int)getpid());
    SocketAddress tcp = inet("127.0.0.1", "0");
    SocketAddress un = {.type = SOCKET_ADDRESS_TYPE_UNIX,
                        .u.q_unix = {.path = name, .has_abstract = true, .abstract = true}};
    Accepted accepted = {.ctx = qemu_get_aio_context()};
    g_autoptr(GError) err = NULL;

    g_assert_true(open_at(listener, &tcp, &err));
    g_assert_true(open_at(listener, &un, &err));
    g_assert_no_error(err);
    g_assert_cmpint(qio_net_listener_count(listener), ==, 2);
    qio_net_listener_set_client_func(listener, on_client, &accepted);
    connect_to_all(listener);
    while (accepted.count < 2) {
        aio_poll(qemu_get_aio_context(), true);
    }
    qio_net_listener_free(listener);
}

static void start_in_thread(void *opaque)
{
    void **args = opaque;

    qio_net_listener_set_client_func(args[0], on_client, args[1]);
}

static void free_in_thread(void *opaque)
{
    void **args = opaque;

    qio_net_listener_free(args[0]);
    g_atomic_int_inc(&((Accepted *)args[1])->count);
}

static void await_count(Accepted *a, int count)
{
    while (g_atomic_int_get(&a->count) < count) {
        g_thread_yield();
    }
}

static void test_in_another_thread(void)
{
    IOThread *thread = iothread_new("t", NULL);
    AioContext *ctx = iothread_get_aio_context(thread);
    QIONetListener *listener = qio_net_listener_new_in(ctx);
    SocketAddress tcp = inet("127.0.0.1", "0");
    Accepted accepted = {.ctx = ctx};
    void *args[2] = {listener, &accepted};

    g_assert_true(open_at(listener, &tcp, NULL));
    aio_bh_schedule_oneshot(ctx, start_in_thread, args);
    connect_to_all(listener);
    await_count(&accepted, 1);
    aio_bh_schedule_oneshot(ctx, free_in_thread, args);
    await_count(&accepted, 2);
    iothread_free(thread);
}

static void test_inherited_descriptor(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    g_autofree char *number = g_strdup_printf("%d", fd);
    SocketAddress addr = {.type = SOCKET_ADDRESS_TYPE_FD, .u.fd = {.str = number}};
    QIONetListener *listener = qio_net_listener_new();
    Accepted accepted = {.ctx = qemu_get_aio_context()};

    g_assert_cmpint(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), ==, 0);
    inherited_fds_record();
    g_assert_true(open_at(listener, &addr, NULL));
    qio_net_listener_set_client_func(listener, on_client, &accepted);
    connect_to_all(listener);
    while (!accepted.count) {
        aio_poll(qemu_get_aio_context(), true);
    }
    qio_net_listener_free(listener);
}

static void test_vsock(void)
{
    SocketAddress addr = {.type = SOCKET_ADDRESS_TYPE_VSOCK,
                          .u.vsock = {.cid = (char *)"1", .port = (char *)"40961"}};
    QIONetListener *listener = qio_net_listener_new();
    Accepted accepted = {.ctx = qemu_get_aio_context()};
    g_autoptr(GError) err = NULL;
    QIOChannelSocket *sioc = qio_channel_socket_new();

    if (!open_at(listener, &addr, &err) || qio_channel_socket_connect(sioc, &addr, 0, &err) < 0) {
        g_test_skip(err->message);
    } else {
        qio_net_listener_set_client_func(listener, on_client, &accepted);
        while (!accepted.count) {
            aio_poll(qemu_get_aio_context(), true);
        }
    }
    qio_channel_unref(QIO_CHANNEL(sioc));
    qio_net_listener_free(listener);
}

/* --- connecting --- */

typedef struct Attempt {
    QIOChannelSocket *sioc;
    SocketAddress addr;
    int64_t deadline_ns;
    int ret;
    GError *err;
} Attempt;

static void *connect_thread(void *opaque)
{
    Attempt *a = opaque;

    a->ret = qio_channel_socket_connect(a->sioc, &a->addr, a->deadline_ns, &a->err);
    return NULL;
}

/* A listener whose queue is full: a client that connects to it waits. */
static int full_listener(char *port, size_t size, int fillers[2])
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sa);
    int lfd = socket(AF_INET, SOCK_STREAM, 0);

    g_assert_cmpint(bind(lfd, (struct sockaddr *)&sa, sizeof(sa)), ==, 0);
    g_assert_cmpint(listen(lfd, 0), ==, 0);
    g_assert_cmpint(getsockname(lfd, (struct sockaddr *)&sa, &len), ==, 0);
    g_snprintf(port, size, "%u", ntohs(sa.sin_port));
    for (int i = 0; i < 2; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&sa, sizeof(sa));
    }
    return lfd;
}

static void test_connecting_is_cancelled(void)
{
    char port[8];
    int fillers[2], lfd = full_listener(port, sizeof(port), fillers);

    for (int round = 0; round < 20; round++) {
        Attempt a = {.sioc = qio_channel_socket_new(), .addr = inet("127.0.0.1", port)};
        GThread *thread = g_thread_new("connect", connect_thread, &a);

        for (int i = 0; i < round * 20; i++) {
            g_thread_yield();
        }
        qio_channel_shutdown(QIO_CHANNEL(a.sioc), QIO_CHANNEL_SHUTDOWN_BOTH);
        g_thread_join(thread);
        g_assert_cmpint(a.ret, ==, -ECANCELED);
        g_assert_cmpstr(a.err->message, ==, "Connecting was cancelled");
        g_clear_error(&a.err);
        qio_channel_unref(QIO_CHANNEL(a.sioc));
    }
    close(fillers[0]);
    close(fillers[1]);
    close(lfd);
}

static void test_connecting_has_a_deadline(void)
{
    char port[8];
    int fillers[2], lfd = full_listener(port, sizeof(port), fillers);
    Attempt a = {.sioc = qio_channel_socket_new(), .addr = inet("127.0.0.1", port)};

    a.deadline_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + 10 * SCALE_MS;
    (void)connect_thread(&a);
    g_assert_cmpint(a.ret, <, 0);
    g_assert_nonnull(strstr(a.err->message, "timed out"));
    g_clear_error(&a.err);
    qio_channel_unref(QIO_CHANNEL(a.sioc));
    close(fillers[0]);
    close(fillers[1]);
    close(lfd);
}

static void test_refused(void)
{
    Attempt a = {.sioc = qio_channel_socket_new(),
                 .addr = {.type = SOCKET_ADDRESS_TYPE_UNIX,
                          .u.q_unix = {.path = (char *)"/nonexistent/socket"}}};

    (void)connect_thread(&a);
    g_assert_cmpint(a.ret, <, 0);
    g_assert_cmpstr(a.err->message, ==,
                    "Failed to connect to 'unix:/nonexistent/socket': No such file or directory");
    g_clear_error(&a.err);
    qio_channel_unref(QIO_CHANNEL(a.sioc));
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    g_test_add_func("/net-listener/several-addresses", test_several_addresses);
    g_test_add_func("/net-listener/in-another-thread", test_in_another_thread);
    g_test_add_func("/net-listener/inherited-descriptor", test_inherited_descriptor);
    g_test_add_func("/net-listener/vsock", test_vsock);
    g_test_add_func("/connect/is-cancelled", test_connecting_is_cancelled);
    g_test_add_func("/connect/has-a-deadline", test_connecting_has_a_deadline);
    g_test_add_func("/connect/refused", test_refused);
    ret = g_test_run();
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* the loop lets go of handlers in its next turns */
    }
    return ret;
}
