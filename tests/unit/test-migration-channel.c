/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Connections of migrations over sockets. They carry bytes from a connector to a listener, with and
 * without TLS. Attempts end when they are cancelled. Silent peers hold up no other connection.
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "migration/multifd-packet.h"
#include "migration/newcomers.h"
#include "tests/unit/crypto-objects.h"
#include "tests/unit/migration-ends.h"
#include "tests/unit/tls-pki.h"
#include "util/aio.h"

/* --- both ways, by coroutines and by threads --- */

static void *blocking_thread(void *opaque)
{
    ConnectCall *call = opaque;
    GError *err = NULL;

    call->ioc = migration_connector_connect_blocking(call->c, &call->err);
    if (call->ioc) {
        g_assert_cmpint(qio_channel_write_all(call->ioc, "QEVMthread", 10, &err), ==, 0);
        g_assert_no_error(err);
    }
    __atomic_store_n(&call->done, true, __ATOMIC_RELEASE);
    aio_notify(qemu_get_aio_context());
    return NULL;
}

/* A main channel and a second one made by a thread, both ways. */
static void check_sockets(const char *uri)
{
    Destination dst = {0};
    g_autofree char *to = NULL;
    g_autoptr(MigrationConnector) c = NULL;
    QIOChannel *main;
    ConnectCall second = {0};
    GThread *thread;

    listen_at(&dst, uri);
    to = listener_uri(&dst);
    c = new_connector(to);
    main = connect_to(c);
    say_hello(main);
    run_until(&dst.arrived);
    g_assert_cmpmem(dst.hello.bytes, dst.hello.n, "QEVM", 4);
    send_bytes(main, "there");
    expect_bytes(dst.channels[0], "there");
    send_bytes(dst.channels[0], "back");
    expect_bytes(main, "back");

    dst.arrived = false;
    second.c = c;
    thread = g_thread_new("connect", blocking_thread, &second);
    run_until(&second.done);
    g_thread_join(thread);
    g_assert_no_error(second.err);
    run_until(&dst.arrived);
    expect_bytes(dst.channels[1], "thread");

    migration_listener_stop(dst.listener);
    g_assert_null(migration_listener_addresses(dst.listener));
    qio_channel_unref(main);
    qio_channel_unref(second.ioc);
    destination_clear(&dst);
}

static void check_all_sockets(void)
{
    g_autofree char *path = path_in_dir("sock");
    g_autofree char *unix_uri = g_strdup_printf("unix:%s", path);

    check_sockets("tcp:127.0.0.1:0");
    check_sockets(unix_uri);
}

static void test_sockets(void)
{
    migration_settings_reset();
    check_all_sockets();
}

static void test_ipv6(void)
{
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    bool works = fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0;

    close(fd);
    if (!works) {
        g_test_skip("no IPv6 here");
        return;
    }
    migration_settings_reset();
    check_sockets("tcp:[::1]:0");
}

static void add_psk(void)
{
    g_autofree char *server = g_strdup_printf(
        "{'qom-type': 'tls-creds-psk', 'id': 'psk', 'dir': '%s', 'endpoint': 'server'}", test_dir);

    write_file("keys.psk", "qemu:00112233445566778899aabbccddeeff\n");
    add_object(server);
}

/*
 * Both ends are in this process and read the same settings: the listener looks them up when a peer
 * connects, the connector when it is made.
 */
static void test_tls_psk(void)
{
    g_autofree char *client =
        g_strdup_printf("{'qom-type': 'tls-creds-psk', 'id': 'client', 'dir': '%s'}", test_dir);
    g_autoptr(MigrationConnector) c = NULL;
    g_autofree char *uri = NULL;
    Destination dst = {0};
    QIOChannel *ioc;

    migration_settings_reset();
    add_psk();
    add_object(client);
    listen_at(&dst, "tcp:127.0.0.1:0");
    uri = listener_uri(&dst);
    set_param("tls-creds", "client");
    c = new_connector(uri);
    set_param("tls-creds", "psk");
    ioc = connect_to(c);
    say_hello(ioc);
    run_until(&dst.arrived);
    g_assert_true(qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_TLS));
    g_assert_true(qio_channel_has_feature(dst.channels[0], QIO_CHANNEL_FEATURE_TLS));
    send_bytes(ioc, "secret");
    expect_bytes(dst.channels[0], "secret");
    send_bytes(dst.channels[0], "answer");
    expect_bytes(ioc, "answer");
    {
        g_autoptr(GError) err = NULL;

        /* in use by the connector */
        g_assert_false(user_creatable_del("client", &err));
    }
    qio_channel_unref(ioc);
    destination_clear(&dst);
    g_clear_pointer(&c, migration_connector_unref);
    del_object("client");
    del_object("psk");
    migration_settings_reset();
}

static void make_pki(void)
{
    PkiCert ca, server, client;

    ca = pki_make(&(PkiTemplate){.cn = "ca", .ca = true, .usage = GNUTLS_KEY_KEY_CERT_SIGN}, NULL);
    server = pki_make(
        &(PkiTemplate){.cn = "server", .dns = "good.example", .purpose = GNUTLS_KP_TLS_WWW_SERVER},
        &ca);
    client = pki_make(&(PkiTemplate){.cn = "client", .purpose = GNUTLS_KP_TLS_WWW_CLIENT}, &ca);
    pki_write(&ca, 'c', test_dir, "ca-cert.pem");
    pki_write(&server, 'c', test_dir, "server-cert.pem");
    pki_write(&server, 'k', test_dir, "server-key.pem");
    pki_write(&client, 'c', test_dir, "client-cert.pem");
    pki_write(&client, 'k', test_dir, "client-key.pem");
    pki_free(&ca);
    pki_free(&server);
    pki_free(&client);
}

typedef struct X509Case {
    const char *hostname, *authz;
    const char *client_error; /* NULL: it connects */
    bool arrives;
} X509Case;

static const X509Case x509_cases[] = {
    {"good.example", "", NULL, true},
    {"good.example", "only-client", NULL, true},
    {"bad.example", "", "Certificate does not match", false},
    {"", "", "Certificate does not match", false}, /* 127.0.0.1 is not in it */
    /* With TLS 1.3 the client is done before the server has looked at it. */
    {"good.example", "nobody", NULL, false},
    {"good.example", "missing", NULL, false},
};

static void test_tls_x509(void)
{
    g_autofree char *server = g_strdup_printf(
        "{'qom-type': 'tls-creds-x509', 'id': 's', 'dir': '%s', 'endpoint': 'server'}", test_dir);
    g_autofree char *client =
        g_strdup_printf("{'qom-type': 'tls-creds-x509', 'id': 'c', 'dir': '%s'}", test_dir);

    migration_settings_reset();
    make_pki();
    add_object(server);
    add_object(client);
    add_object("{'qom-type': 'authz-simple', 'id': 'only-client', 'identity': 'CN=client'}");
    add_object("{'qom-type': 'authz-simple', 'id': 'nobody', 'identity': 'CN=other'}");
    for (size_t i = 0; i < G_N_ELEMENTS(x509_cases); i++) {
        const X509Case *x = &x509_cases[i];
        g_autoptr(MigrationConnector) c = NULL;
        g_autofree char *uri = NULL;
        Destination dst = {0};
        ConnectCall call = {0};

        migration_settings_reset();
        listen_at(&dst, "tcp:127.0.0.1:0");
        uri = listener_uri(&dst);
        set_param("tls-creds", "c");
        set_param("tls-hostname", x->hostname);
        c = new_connector(uri);
        set_param("tls-creds", "s");
        set_param("tls-authz", x->authz);
        call.c = c;
        start_connect(&call);
        run_until(&call.done);
        if (x->client_error) {
            g_assert_nonnull(call.err);
            g_test_message("%s", call.err->message);
            g_assert_nonnull(strstr(call.err->message, x->client_error));
            g_clear_error(&call.err);
        } else {
            g_assert_no_error(call.err);
        }
        if (x->arrives) {
            say_hello(call.ioc);
            run_until(&dst.arrived);
        } else if (call.ioc) {
            char byte;
            GError *err = NULL;

            /* The server closes without a byte, and goes on listening. */
            while (qio_channel_read(call.ioc, &byte, 1, &err) == -EAGAIN) {
                aio_poll(qemu_get_aio_context(), true);
            }
            g_clear_error(&err);
        }
        g_assert_cmpuint(dst.n, ==, x->arrives);
        qio_channel_unref(call.ioc);
        destination_clear(&dst);
    }
    migration_settings_reset();
    del_object("c");
    del_object("s");
    del_object("only-client");
    del_object("nobody");
}

static void test_missing_creds(void)
{
    g_autoptr(GError) err = NULL;

    migration_settings_reset();
    set_param("tls-creds", "none-such");
    g_assert_null(try_connector("tcp:127.0.0.1:1", &err));
    g_assert_nonnull(strstr(err->message, "none-such"));
    migration_settings_reset();
}

/* --- giving up --- */

static void test_refused(void)
{
    g_autofree char *path = path_in_dir("nobody");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    g_autoptr(MigrationConnector) c = NULL;
    ConnectCall call = {0};

    migration_settings_reset();
    c = new_connector(uri);
    call.c = c;
    start_connect(&call);
    run_until(&call.done);
    g_assert_null(call.ioc);
    g_test_message("%s", call.err->message);
    g_assert_nonnull(strstr(call.err->message, "Failed to connect to"));
    g_assert_nonnull(strstr(call.err->message, "No such file or directory"));
    g_clear_error(&call.err);
}

static void *cancel_thread(void *opaque)
{
    migration_connector_cancel(opaque);
    return NULL;
}

static int silent_listener(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(sa.sun_path, path, sizeof(sa.sun_path));
    g_unlink(path);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), ==, 0);
    g_assert_cmpint(listen(fd, 1), ==, 0);
    return fd;
}

/* The peer has accepted, as far as the kernel goes, and does not answer the TLS handshake. */
static void test_cancel_handshake(void)
{
    g_autofree char *path = path_in_dir("silent");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    g_autofree char *json =
        g_strdup_printf("{'qom-type': 'tls-creds-psk', 'id': 'client', 'dir': '%s'}", test_dir);
    int fd = silent_listener(path);
    g_autoptr(MigrationConnector) c = NULL;
    ConnectCall call = {0};
    GThread *thread;

    migration_settings_reset();
    write_file("keys.psk", "qemu:00112233445566778899aabbccddeeff\n");
    add_object(json);
    set_param("tls-creds", "client");
    c = new_connector(uri);
    call.c = c;
    start_connect(&call);
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
    g_assert_false(call.done);
    thread = g_thread_new("cancel", cancel_thread, c);
    run_until(&call.done);
    g_thread_join(thread);
    g_assert_null(call.ioc);
    g_assert_cmpstr(call.err->message, ==, "Connecting was cancelled");
    g_clear_error(&call.err);

    /* and so does every later attempt */
    call.done = false;
    start_connect(&call);
    run_until(&call.done);
    g_assert_null(call.ioc);
    g_assert_cmpstr(call.err->message, ==, "Connecting was cancelled");
    g_clear_error(&call.err);
    close(fd);
    g_clear_pointer(&c, migration_connector_unref);
    migration_settings_reset();
    del_object("client");
}

/* A unix listener whose queue is full lets the connector wait. */
static void test_cancel_connect(void)
{
    g_autofree char *path = path_in_dir("full");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    int fd = silent_listener(path);
    g_autoptr(MigrationConnector) c = NULL;
    ConnectCall calls[6] = {0};

    migration_settings_reset();
    c = new_connector(uri);
    for (size_t i = 0; i < G_N_ELEMENTS(calls); i++) {
        calls[i].c = c;
        start_connect(&calls[i]);
    }
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
    g_assert_false(calls[G_N_ELEMENTS(calls) - 1].done);
    migration_connector_cancel(c);
    for (size_t i = 0; i < G_N_ELEMENTS(calls); i++) {
        run_until(&calls[i].done);
        qio_channel_unref(calls[i].ioc);
        g_clear_error(&calls[i].err);
    }
    g_assert_null(calls[G_N_ELEMENTS(calls) - 1].ioc);
    close(fd);
}

/* --- hostile peers --- */

/* Makes connections to a unix listener without a word. */
static void connect_silently(const char *path, int *fds, int n)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};

    g_strlcpy(sa.sun_path, path, sizeof(sa.sun_path));
    for (int i = 0; i < n; i++) {
        fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        g_assert_cmpint(connect(fds[i], (struct sockaddr *)&sa, sizeof(sa)), ==, 0);
    }
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
}

static bool hung_up(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);

    return n == 0 || (n < 0 && errno == ECONNRESET); /* bytes of ours were not read */
}

static void expect_hung_up(int *fds, int n)
{
    for (int i = 0; i < n; i++) {
        while (!hung_up(fds[i])) {
            aio_poll(qemu_get_aio_context(), false);
        }
        close(fds[i]);
    }
}

enum { SILENT_PEERS = MIGRATION_SPARE_SLOTS + 86 };

/* A source connects, and its bytes arrive at the destination, which ends then. */
static void expect_guest(MigrationConnector *c, Destination *dst)
{
    QIOChannel *ioc = connect_to(c);

    say_hello(ioc);
    run_until(&dst->arrived);
    g_assert_cmpuint(dst->n, ==, 1);
    send_bytes(ioc, "guest");
    expect_bytes(dst->channels[0], "guest");
    qio_channel_unref(ioc);
    destination_clear(dst);
}

/* With and without TLS; `tls` is the name of the listener's credentials. */
static void check_silent_peers(const char *tls)
{
    g_autofree char *path = path_in_dir("sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    g_autoptr(MigrationConnector) c = NULL;
    int fds[SILENT_PEERS], speaker;
    Destination dst = {0};

    if (tls) {
        set_param("tls-creds", "client");
    }
    c = new_connector(uri);
    if (tls) {
        set_param("tls-creds", tls);
    }
    listen_at(&dst, uri);
    connect_silently(path, &speaker, 1);
    g_assert_cmpint(write(speaker, "Q", 1), ==, 1);
    connect_silently(path, fds, SILENT_PEERS);
    for (int i = 0; i < SILENT_PEERS; i++) {
        /* the oldest are gone, as many as there is no slot for */
        g_assert_cmpint(hung_up(fds[i]), ==, i < SILENT_PEERS - MIGRATION_SPARE_SLOTS);
    }
    g_assert_false(tls == NULL && hung_up(speaker)); /* it is not silent */
    expect_guest(c, &dst);
    expect_hung_up(fds, SILENT_PEERS);
    close(speaker);
}

static void test_silent_peers_cost_a_bounded_number_of_slots(void)
{
    migration_settings_reset();
    check_silent_peers(NULL);
}

static void test_silent_peers_do_not_keep_tls_peers_out(void)
{
    g_autofree char *client =
        g_strdup_printf("{'qom-type': 'tls-creds-psk', 'id': 'client', 'dir': '%s'}", test_dir);

    migration_settings_reset();
    add_psk();
    add_object(client);
    check_silent_peers("psk");
    migration_settings_reset();
    del_object("client");
    del_object("psk");
}

/* Without TLS the first bytes decide; a peer that leaves or says something else changes nothing. */
static void test_a_peer_is_the_source_when_its_first_bytes_say_so(void)
{
    static const char *const words[] = {"", "Q", "QEV", "GET / HTTP/1.0\r\n\r\n",
                                        "\x11\x22\x33\x44\1"};
    g_autofree char *path = path_in_dir("sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    uint8_t handshake[MULTIFD_HANDSHAKE_BYTES];
    Destination dst = {0};
    int fd;

    migration_settings_reset();
    listen_at(&dst, uri);
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        connect_silently(path, &fd, 1);
        g_assert_cmpint(write(fd, words[i], strlen(words[i])), ==, strlen(words[i]));
        shutdown(fd, SHUT_WR);
        expect_hung_up(&fd, 1);
    }
    g_assert_false(dst.arrived);
    multifd_handshake_encode(&(MultiFDHandshake){.channel = 3}, handshake);
    connect_silently(path, &fd, 1);
    g_assert_cmpint(write(fd, handshake, 10), ==, 10);
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
    g_assert_false(dst.arrived); /* it has come in two pieces */
    g_assert_cmpint(write(fd, handshake + 10, sizeof(handshake) - 10), ==, sizeof(handshake) - 10);
    run_until(&dst.arrived);
    g_assert_cmpmem(dst.hello.bytes, dst.hello.n, handshake, sizeof(handshake));
    destination_clear(&dst);
    close(fd);
}

/* Peers that hang up make room for others; garbage is no handshake. */
static void test_garbage_then_guest(void)
{
    g_autofree char *path = path_in_dir("sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    g_autofree char *client =
        g_strdup_printf("{'qom-type': 'tls-creds-psk', 'id': 'client', 'dir': '%s'}", test_dir);
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    g_autoptr(MigrationConnector) c = NULL;
    Destination dst = {0};

    migration_settings_reset();
    add_psk();
    add_object(client);
    set_param("tls-creds", "client");
    c = new_connector(uri);
    set_param("tls-creds", "psk");
    listen_at(&dst, uri);
    g_strlcpy(sa.sun_path, path, sizeof(sa.sun_path));
    for (int i = 0; i < 40; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        g_assert_cmpint(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), ==, 0);
        if (i % 2) {
            g_assert_cmpint(write(fd, "QEVM garbage, no TLS\n", 21), ==, 21);
        }
        close(fd);
    }
    expect_guest(c, &dst);
    g_clear_pointer(&c, migration_connector_unref);
    migration_settings_reset();
    del_object("client");
    del_object("psk");
}

/* The owner ends the listener in the callback once it has all channels. */
static void test_free_in_callback(void)
{
    Destination dst = {.stop = true};
    g_autofree char *uri = NULL;
    g_autoptr(MigrationConnector) c = NULL;
    QIOChannel *ioc;

    migration_settings_reset();
    listen_at(&dst, "tcp:127.0.0.1:0");
    uri = listener_uri(&dst);
    c = new_connector(uri);
    ioc = connect_to(c);
    say_hello(ioc);
    run_until(&dst.arrived);
    g_assert_null(dst.listener);
    send_bytes(ioc, "x");
    expect_bytes(dst.channels[0], "x");
    qio_channel_unref(ioc);
    destination_clear(&dst);
}

/* The path belongs to the second listener, whatever the first one has still to do. */
static void test_a_listener_that_has_ended_leaves_its_path_to_the_next(void)
{
    g_autofree char *path = path_in_dir("again");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    Destination first = {0}, second = {0};
    g_autoptr(MigrationConnector) c = NULL;
    QIOChannel *ioc;

    migration_settings_reset();
    listen_at(&first, uri);
    migration_listener_stop(first.listener);
    listen_at(&second, uri);
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
    c = new_connector(uri);
    ioc = connect_to(c);
    say_hello(ioc);
    run_until(&second.arrived);
    qio_channel_unref(ioc);
    destination_clear(&first);
    destination_clear(&second);
}

int main(int argc, char **argv)
{
    migration_ends_init(&argc, &argv);
    register_crypto_objects();
    g_test_add_func("/migration-channel/sockets", test_sockets);
    g_test_add_func("/migration-channel/ipv6", test_ipv6);
    g_test_add_func("/migration-channel/tls-psk", test_tls_psk);
    g_test_add_func("/migration-channel/tls-x509", test_tls_x509);
    g_test_add_func("/migration-channel/missing-creds", test_missing_creds);
    g_test_add_func("/migration-channel/refused", test_refused);
    g_test_add_func("/migration-channel/cancel-handshake", test_cancel_handshake);
    g_test_add_func("/migration-channel/cancel-connect", test_cancel_connect);
    g_test_add_func("/migration-channel/silent-peers",
                    test_silent_peers_cost_a_bounded_number_of_slots);
    g_test_add_func("/migration-channel/silent-tls-peers",
                    test_silent_peers_do_not_keep_tls_peers_out);
    g_test_add_func("/migration-channel/first-bytes",
                    test_a_peer_is_the_source_when_its_first_bytes_say_so);
    g_test_add_func("/migration-channel/garbage-then-guest", test_garbage_then_guest);
    g_test_add_func("/migration-channel/path-again",
                    test_a_listener_that_has_ended_leaves_its_path_to_the_next);
    g_test_add_func("/migration-channel/free-in-callback", test_free_in_callback);
    return migration_ends_run();
}
