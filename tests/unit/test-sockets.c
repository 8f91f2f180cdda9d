/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Socket addresses as text; listening and connecting on this host; descriptors sent along. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "util/aio.h"
#include "util/inherited-fds.h"
#include "util/sockets.h"

static void test_parse_and_format(void)
{
    static const struct {
        const char *text, *shown; /* shown NULL: refused */
    } cases[] = {
        {"localhost:80", "localhost:80"},
        {"tcp:10.0.0.1:http", "10.0.0.1:http"},
        {":5900,to=5999", ":5900"},
        {"[::1]:4444", "[::1]:4444"},
        {"tcp:[fe80::1%eth0]:1", "[fe80::1%eth0]:1"},
        {"h:1,ipv4,ipv6=off,keep-alive=on,numeric", "h:1"},
        {"unix:/tmp/a:b,c", "unix:/tmp/a:b,c"},
        {"vsock:2:1024", "vsock:2:1024"},
        {"vsock:4294967295:0", "vsock:4294967295:0"},
        {"fd:7", "fd:7"},
        {"fd:migration", "fd:migration"},
        {"", NULL},
        {"localhost", NULL},
        {"localhost:", NULL},
        {"::1:80", NULL},
        {"[::1]", NULL},
        {"[::1]80", NULL},
        {"[::1:80", NULL},
        {"h:1,bogus", NULL},
        {"h:1,to=65536", NULL},
        {"h:1,to=", NULL},
        {"h:1,ipv4=maybe", NULL},
        {"unix:", NULL},
        {"vsock:2", NULL},
        {"vsock:2:x", NULL},
        {"vsock:4294967296:1", NULL},
        {"fd:", NULL},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) err = NULL;
        g_autoptr(FerrySockAddr) addr = ferry_sockaddr_parse(cases[i].text, &err);

        g_test_message("'%s': %s", cases[i].text, err ? err->message : "accepted");
        g_assert_cmpint(addr != NULL, ==, cases[i].shown != NULL);
        g_assert_cmpint(err == NULL, ==, addr != NULL);
        if (addr) {
            g_autoptr(FerrySockAddr) copy = ferry_sockaddr_copy(addr);
            g_autofree char *shown = ferry_sockaddr_to_string(copy);

            g_assert_cmpstr(shown, ==, cases[i].shown);
        }
    }
}

static void test_inet_options(void)
{
    g_autoptr(FerrySockAddr) a = ferry_sockaddr_parse("h:1,to=9,ipv4=off,keep-alive", NULL);
    g_autofree char *longer = g_strnfill(300, 'x');
    g_autofree char *text = g_strdup_printf("%s:1", longer);

    g_assert_true(a->inet.has_to && a->inet.to == 9);
    g_assert_true(a->inet.has_ipv4 && !a->inet.ipv4 && !a->inet.has_ipv6);
    g_assert_true(a->inet.has_keep_alive && a->inet.keep_alive && !a->inet.has_numeric);
    g_assert_null(ferry_sockaddr_parse(text, NULL));
}

static void test_inet_family(void)
{
    static const struct {
        int v4, v6; /* -1: not given */
        int family; /* -1: refused */
    } cases[] = {
        {-1, -1, AF_UNSPEC}, {1, 1, AF_UNSPEC}, {1, -1, AF_INET},
        {1, 0, AF_INET},     {-1, 0, AF_INET},  {-1, 1, AF_INET6},
        {0, 1, AF_INET6},    {0, -1, AF_INET6}, {0, 0, -1},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        FerrySockInet inet = {.has_ipv4 = cases[i].v4 >= 0,
                              .ipv4 = cases[i].v4 > 0,
                              .has_ipv6 = cases[i].v6 >= 0,
                              .ipv6 = cases[i].v6 > 0};
        g_autoptr(GError) err = NULL;

        g_assert_cmpint(ferry_sockaddr_inet_family(&inet, &err), ==, cases[i].family);
        g_assert_cmpint(err != NULL, ==, cases[i].family == -1);
    }
}

static void test_unix_paths_have_a_limit(void)
{
    FerrySockAddr addr = {.type = FERRY_SOCK_UNIX};
    struct sockaddr_storage sa;
    socklen_t len = 0;

    for (size_t n = 0; n < 120; n++) {
        g_autofree char *path = g_strnfill(n, 'p');
        g_autoptr(GError) err = NULL;
        bool ok;

        addr.un = (FerrySockUnix){.path = path};
        ok = ferry_sockaddr_to_native(&addr, &sa, &len, &err);
        g_assert_cmpint(ok, ==, n >= 1 && n <= 107);
        g_assert_cmpint(err == NULL, ==, ok);
        if (ok) {
            g_autoptr(FerrySockAddr) back = ferry_sockaddr_from_native(&sa, len, NULL);

            g_assert_cmpstr(back->un.path, ==, path);
        }
    }
}

/* --- with sockets --- */

typedef struct Connect {
    const FerrySockAddr *addr;
    SocketConnectControl ctl;
    bool cancel;
    int fd;
    GError *err;
} Connect;

static void cancel_bh(void *opaque)
{
    socket_connect_cancel(opaque);
}

static void connect_entry(void *opaque)
{
    Connect *c = opaque;

    if (c->cancel) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), cancel_bh, &c->ctl);
    }
    c->fd = socket_connect_co(c->addr, &c->ctl, &c->err);
}

static int connect_to(const FerrySockAddr *addr)
{
    Connect c = {.addr = addr};

    aio_run_coroutine(connect_entry, &c);
    g_assert_no_error(c.err);
    g_assert_cmpint(c.fd, >=, 0);
    return c.fd;
}

/* Expects failure with a message that has this in it. */
static void connect_fails(const FerrySockAddr *addr, const char *why)
{
    Connect c = {.addr = addr};

    aio_run_coroutine(connect_entry, &c);
    g_assert_cmpint(c.fd, ==, -1);
    g_assert_nonnull(c.err);
    g_test_message("%s", c.err->message);
    g_assert_nonnull(strstr(c.err->message, why));
    g_error_free(c.err);
}

static void set_blocking_and_exchange(int a, int b)
{
    char buf[3] = "";

    g_assert_cmpint(socket_set_nonblock(b, false), ==, 0);
    g_assert_cmpint(write(a, "hi", 2), ==, 2);
    g_assert_cmpint(read(b, buf, 2), ==, 2);
    g_assert_cmpstr(buf, ==, "hi");
}

/* Listens at addr, connects to `to` (NULL: to where it listens), talks; the listener's address. */
static FerrySockAddr *listen_and_connect(const FerrySockAddr *addr, const FerrySockAddr *to)
{
    g_autoptr(GError) err = NULL;
    int listener = socket_listen(addr, 5, &err), fd, peer;
    FerrySockAddr *local;

    g_assert_no_error(err);
    local = socket_local_address(listener, &err);
    g_assert_no_error(err);
    g_assert_cmpint(fcntl(listener, F_GETFL) & O_NONBLOCK, !=, 0);
    g_assert_cmpint(fcntl(listener, F_GETFD) & FD_CLOEXEC, !=, 0);
    fd = connect_to(to ? to : local);
    g_assert_cmpint(fcntl(fd, F_GETFL) & O_NONBLOCK, !=, 0);
    g_assert_cmpint(fcntl(fd, F_GETFD) & FD_CLOEXEC, !=, 0);
    peer = accept(listener, NULL, NULL);
    g_assert_cmpint(peer, >=, 0);
    set_blocking_and_exchange(fd, peer);
    close(fd);
    close(peer);
    close(listener);
    return local;
}

static void test_tcp(void)
{
    g_autoptr(FerrySockAddr) addr = ferry_sockaddr_parse("127.0.0.1:0", NULL);
    g_autoptr(FerrySockAddr) local = listen_and_connect(addr, NULL);

    g_assert_cmpstr(local->inet.host, ==, "127.0.0.1");
    g_assert_cmpstr(local->inet.port, !=, "0");
    connect_fails(local, "Connection refused");
}

static bool have_ipv6(void)
{
    g_autoptr(FerrySockAddr) addr = ferry_sockaddr_parse("[::1]:0", NULL);
    int fd = socket_listen(addr, 1, NULL);

    if (fd < 0) {
        g_test_skip("no IPv6 on this host");
        return false;
    }
    close(fd);
    return true;
}

static void test_tcp6(void)
{
    g_autoptr(FerrySockAddr) addr = ferry_sockaddr_parse("[::1]:0", NULL);

    if (have_ipv6()) {
        g_autoptr(FerrySockAddr) local = listen_and_connect(addr, NULL);
        g_autofree char *name = ferry_sockaddr_to_string(local);

        g_assert_true(g_str_has_prefix(name, "[::1]:"));
    }
}

static void test_wildcard_serves_both_families(void)
{
    g_autoptr(FerrySockAddr) addr = ferry_sockaddr_parse(":0", NULL);
    int listener, fd;

    if (!have_ipv6()) {
        return;
    }
    listener = socket_listen(addr, 5, NULL);
    g_assert_cmpint(listener, >=, 0);
    g_autoptr(FerrySockAddr) local = socket_local_address(listener, NULL);

    for (int v6 = 0; v6 < 2; v6++) {
        g_free(local->inet.host);
        local->inet.host = g_strdup(v6 ? "::1" : "127.0.0.1");
        local->inet.has_ipv6 = false;
        fd = connect_to(local);
        close(fd);
    }
    close(listener);
    connect_fails(addr, "host to connect to is missing");
}

static void test_port_range_takes_the_next_free_one(void)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(FerrySockAddr) addr = ferry_sockaddr_parse("127.0.0.1:0", NULL);
    int first = socket_listen(addr, 1, NULL), second;
    g_autoptr(FerrySockAddr) taken = socket_local_address(first, NULL);
    unsigned port = g_ascii_strtoull(taken->inet.port, NULL, 10);

    g_assert_cmpint(socket_listen(taken, 1, &err), ==, -1);
    g_assert_nonnull(strstr(err->message, "Address already in use"));
    taken->inet.has_to = true;
    taken->inet.to = MIN(port + 50, 65535);
    second = socket_listen(taken, 1, NULL);
    if (port < 65000) {
        g_autoptr(FerrySockAddr) got = socket_local_address(second, NULL);

        g_assert_cmpuint(g_ascii_strtoull(got->inet.port, NULL, 10), >, port);
    }
    close(first);
    if (second >= 0) {
        close(second);
    }
}

static void test_numeric_hosts_are_not_looked_up(void)
{
    g_autoptr(FerrySockAddr) addr = ferry_sockaddr_parse("localhost:1,numeric", NULL);

    connect_fails(addr, "address resolution failed for localhost:1");
}

typedef struct Dir {
    char *path;
    FerrySockAddr addr;
} Dir;

static void dir_start(Dir *d)
{
    d->path = g_dir_make_tmp("test-sockets-XXXXXX", NULL);
    g_assert_nonnull(d->path);
    d->addr = (FerrySockAddr){.type = FERRY_SOCK_UNIX};
    d->addr.un.path = g_build_filename(d->path, "sock", NULL);
}

static void dir_end(Dir *d)
{
    g_unlink(d->addr.un.path);
    g_assert_cmpint(g_rmdir(d->path), ==, 0);
    g_free(d->addr.un.path);
    g_free(d->path);
}

static void test_unix_replaces_only_stale_sockets(void)
{
    g_autoptr(GError) err = NULL;
    Dir d;

    dir_start(&d);
    for (int i = 0; i < 2; i++) {
        g_autoptr(FerrySockAddr) local = listen_and_connect(&d.addr, NULL);

        g_assert_cmpstr(local->un.path, ==, d.addr.un.path);
    }
    connect_fails(&d.addr, "Connection refused");
    socket_listen_cleanup(&d.addr);
    connect_fails(&d.addr, "No such file");

    g_assert_true(g_file_set_contents(d.addr.un.path, "a disk", -1, NULL));
    g_assert_cmpint(socket_listen(&d.addr, 1, &err), ==, -1);
    g_assert_nonnull(strstr(err->message, "Address already in use"));
    socket_listen_cleanup(&d.addr);
    g_assert_true(g_file_test(d.addr.un.path, G_FILE_TEST_IS_REGULAR));
    dir_end(&d);
}

static void test_abstract_names(void)
{
    g_autofree char *name = g_strdup_printf("ferry-test-%d", (int)getpid());
    FerrySockAddr addr = {.type = FERRY_SOCK_UNIX};

    for (int tight = 0; tight < 2; tight++) {
        addr.un = (FerrySockUnix){.path = name,
                                  .has_abstract = true,
                                  .abstract = true,
                                  .has_tight = true,
                                  .tight = tight};
        g_autoptr(FerrySockAddr) local = listen_and_connect(&addr, &addr);

        g_assert_true(local->un.abstract);
        g_assert_cmpint(local->un.tight, ==, tight);
        g_assert_cmpstr(local->un.path, ==, name);
    }
}

/* Fills a listener's queue, so that the next attempt has to wait; the descriptors to close. */
static GArray *fill_queue(const FerrySockAddr *addr)
{
    GArray *fds = g_array_new(false, false, sizeof(int));

    for (int i = 0; i < 20; i++) {
        struct sockaddr_storage sa;
        struct sockaddr *to = (struct sockaddr *)&sa;
        socklen_t len = 0;
        int fd, rc;

        if (addr->type == FERRY_SOCK_UNIX) {
            g_assert_true(ferry_sockaddr_to_native(addr, &sa, &len, NULL));
        } else {
            g_autoptr(GArray) list = socket_resolve(&addr->inet, false, NULL);

            sa = g_array_index(list, SocketCandidate, 0).sa;
            len = g_array_index(list, SocketCandidate, 0).len;
        }
        fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
        rc = connect(fd, to, len);
        g_assert_true(rc == 0 || errno == EAGAIN || errno == EINPROGRESS);
        g_array_append_val(fds, fd);
    }
    return fds;
}

static void free_queue(GArray *fds)
{
    for (guint i = 0; i < fds->len; i++) {
        close(g_array_index(fds, int, i));
    }
    g_array_free(fds, true);
}

/* An attempt that no server answers ends at its deadline, and when it is cancelled. */
static void check_attempt_ends(const FerrySockAddr *listen_at)
{
    int listener = socket_listen(listen_at, 0, NULL);

    g_assert_cmpint(listener, >=, 0);
    g_autoptr(FerrySockAddr) addr = socket_local_address(listener, NULL);
    GArray *fds = fill_queue(addr);

    for (int cancel = 0; cancel < 2; cancel++) {
        Connect c = {.addr = addr, .cancel = cancel};

        if (!cancel) {
            c.ctl.deadline_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + 30 * SCALE_MS;
        }
        aio_run_coroutine(connect_entry, &c);
        g_assert_cmpint(c.fd, ==, -1);
        g_test_message("%s", c.err->message);
        g_assert_nonnull(strstr(c.err->message, cancel ? "canceled" : "timed out"));
        g_error_free(c.err);
    }
    free_queue(fds);
    close(listener);
}

static void test_unix_attempt_ends(void)
{
    Dir d;

    dir_start(&d);
    check_attempt_ends(&d.addr);
    dir_end(&d);
}

static void test_tcp_attempt_ends(void)
{
    g_autoptr(FerrySockAddr) addr = ferry_sockaddr_parse("127.0.0.1:0", NULL);

    check_attempt_ends(addr);
}

static void listen_entry(void *opaque)
{
    g_autoptr(FerrySockAddr) addr = ferry_sockaddr_parse("127.0.0.1:0", NULL);
    int *fd = opaque;

    *fd = socket_listen_co(addr, 1, NULL);
}

static void test_listen_from_a_coroutine(void)
{
    int fd = -1;

    aio_run_coroutine(listen_entry, &fd);
    g_assert_cmpint(fd, >=, 0);
    close(fd);
}

static int named_fd;

static int lookup(const char *name, GError **errp)
{
    return g_str_equal(name, "known") ? named_fd : -1;
}

static void test_descriptors_by_number_and_name(void)
{
    g_autoptr(GError) err = NULL;
    int pair[2], file = open("/dev/null", O_RDONLY);
    g_autofree char *number = NULL, *no_socket = g_strdup_printf("%d", file);

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    number = g_strdup_printf("%d", pair[0]);
    /* What this process opened itself is not for users. */
    g_assert_cmpint(socket_get_fd(number, &err), ==, -1);
    g_assert_nonnull(strstr(err->message, "was not inherited"));
    g_clear_error(&err);
    inherited_fds_record();
    g_assert_cmpint(socket_get_fd(number, NULL), ==, pair[0]);
    g_assert_cmpint(socket_get_fd(number, &err), ==, -1);
    g_assert_nonnull(strstr(err->message, "is in use"));
    g_clear_error(&err);
    g_assert_cmpint(socket_get_fd("0", &err), ==, -1);
    g_clear_error(&err);
    g_assert_cmpint(fcntl(pair[0], F_GETFL) & O_NONBLOCK, !=, 0);
    g_assert_cmpint(socket_get_fd(no_socket, &err), ==, -1);
    g_assert_nonnull(strstr(err->message, "is not a socket"));
    g_clear_error(&err);
    g_assert_cmpint(socket_get_fd("12x", &err), ==, -1);
    g_clear_error(&err);
    g_assert_cmpint(socket_get_fd("99999999999999", &err), ==, -1);
    g_clear_error(&err);
    g_assert_cmpint(socket_get_fd("known", &err), ==, -1);
    g_clear_error(&err);
    socket_set_fd_lookup(lookup);
    named_fd = pair[1];
    g_assert_cmpint(socket_get_fd("known", NULL), ==, pair[1]);
    g_assert_cmpint(socket_get_fd("unknown", NULL), ==, -1);
    socket_set_fd_lookup(NULL);
    close(pair[0]);
    close(pair[1]);
    close(file);
}

static void test_descriptors_travel_with_data(void)
{
    int pair[2], pipes[2], fds[SOCKET_MAX_FDS], got[SOCKET_MAX_FDS];
    char buf[8] = "data", in[8] = "";
    struct iovec out_iov = {buf, 4}, in_iov = {in, sizeof(in)};
    size_t nfds = 99;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), ==, 0);
    g_assert_cmpint(pipe(pipes), ==, 0);
    for (int i = 0; i < SOCKET_MAX_FDS; i++) {
        fds[i] = pipes[1];
    }
    for (size_t room = 0; room <= SOCKET_MAX_FDS; room += 4) {
        g_assert_cmpint(socket_send_fds(pair[0], &out_iov, 1, fds, SOCKET_MAX_FDS, 0), ==, 4);
        g_assert_cmpint(socket_recv_fds(pair[1], &in_iov, 1, got, room, &nfds, 0), ==, 4);
        g_assert_cmpuint(nfds, ==, room);
        for (size_t i = 0; i < nfds; i++) {
            g_assert_cmpint(fcntl(got[i], F_GETFD) & FD_CLOEXEC, !=, 0);
            g_assert_cmpint(write(got[i], "x", 1), ==, 1);
            close(got[i]);
        }
    }
    g_assert_cmpint(socket_send_fds(pair[0], &out_iov, 1, NULL, 0, 0), ==, 4);
    g_assert_cmpint(socket_recv_fds(pair[1], &in_iov, 1, got, 4, &nfds, 0), ==, 4);
    g_assert_cmpuint(nfds, ==, 0);
    g_assert_cmpint(socket_recv_fds(pair[1], &in_iov, 1, got, 4, &nfds, 0), ==, -EAGAIN);
    /* The sender holds the pipe's last writing end: no received descriptor was left open. */
    close(pipes[1]);
    while (read(pipes[0], in, 1) == 1) {
    }
    g_assert_cmpint(read(pipes[0], in, 1), ==, 0);
    close(pair[0]);
    g_assert_cmpint(socket_recv_fds(pair[1], &in_iov, 1, got, 4, &nfds, 0), ==, 0);
    g_assert_cmpint(socket_send_fds(pair[1], &out_iov, 1, NULL, 0, 0), ==, -EPIPE);
    close(pair[1]);
    close(pipes[0]);
}

static void test_properties(void)
{
    g_autoptr(FerrySockAddr) addr = ferry_sockaddr_parse("127.0.0.1:0", NULL);
    int fd = socket_listen(addr, 1, NULL), pair[2];

    g_assert_cmpint(socket_set_nodelay(fd, true), ==, 0);
    g_assert_cmpint(socket_set_keepalive(fd, true), ==, 0);
    g_assert_null(socket_remote_address(fd, NULL));
    close(fd);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    g_assert_cmpint(socket_set_nodelay(pair[0], true), ==, -EOPNOTSUPP);
    close(pair[0]);
    close(pair[1]);
}

int main(int argc, char **argv)
{
    g_autoptr(GError) err = NULL;

    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&err);
    g_assert_no_error(err);
    g_test_add_func("/sockaddr/parse", test_parse_and_format);
    g_test_add_func("/sockaddr/options", test_inet_options);
    g_test_add_func("/sockaddr/family", test_inet_family);
    g_test_add_func("/sockaddr/unix-limit", test_unix_paths_have_a_limit);
    g_test_add_func("/sockets/tcp", test_tcp);
    g_test_add_func("/sockets/tcp6", test_tcp6);
    g_test_add_func("/sockets/wildcard", test_wildcard_serves_both_families);
    g_test_add_func("/sockets/port-range", test_port_range_takes_the_next_free_one);
    g_test_add_func("/sockets/numeric", test_numeric_hosts_are_not_looked_up);
    g_test_add_func("/sockets/unix-stale", test_unix_replaces_only_stale_sockets);
    g_test_add_func("/sockets/abstract", test_abstract_names);
    g_test_add_func("/sockets/unix-attempt-ends", test_unix_attempt_ends);
    g_test_add_func("/sockets/tcp-attempt-ends", test_tcp_attempt_ends);
    g_test_add_func("/sockets/listen-co", test_listen_from_a_coroutine);
    g_test_add_func("/sockets/fd", test_descriptors_by_number_and_name);
    g_test_add_func("/sockets/send-fds", test_descriptors_travel_with_data);
    g_test_add_func("/sockets/properties", test_properties);
    return g_test_run();
}
