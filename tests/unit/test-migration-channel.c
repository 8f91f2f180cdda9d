/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Connections of migrations: every transport carries bytes from a connector to a listener, with and
 * without TLS; attempts end when they are cancelled; peers that say nothing harm nobody.
 */
#include <fcntl.h>
#include <glib/gstdio.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "migration/channel.h"
#include "monitor/fds.h"
#include "monitor/monitor-int.h"
#include "tests/unit/crypto-objects.h"
#include "tests/unit/tls-pki.h"
#include "util/aio.h"
#include "util/open.h"
#include "util/sockets.h"

static char *dir;

static char *path_in_dir(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static void write_file(const char *name, const char *text)
{
    g_autofree char *path = path_in_dir(name);

    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

/* Runs the main loop until *done. */
static void run_until(const bool *done)
{
    while (!__atomic_load_n(done, __ATOMIC_ACQUIRE)) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

static void set_param(const char *name, const char *value)
{
    json_object *json = json_object_new_object();
    g_autoptr(MigrationParameters) params = NULL;
    GError *err = NULL;

    json_object_object_add(json, name, json_object_new_string(value));
    params = MigrationParameters_from_json(json, QAPI_DECODE_KEYVAL, &err);
    json_object_put(json);
    g_assert_no_error(err);
    g_assert_true(migration_settings_change_params(params, &err));
}

static void set_cap(MigrationCapability cap)
{
    MigrationCapabilityStatus status = {.capability = cap, .state = true};
    MigrationCapabilityStatusList list = {.value = &status};

    g_assert_true(migration_settings_change_caps(&list, false, NULL));
}

/* --- the destination --- */

enum { ARRIVALS_MAX = 16 };

typedef struct Destination {
    MigrationListener *listener;
    QIOChannel *channels[ARRIVALS_MAX];
    unsigned n;
    GError *error;
    bool arrived; /* a channel or an error */
    bool stop;    /* at the first channel */
} Destination;

static void on_channel(QIOChannel *ioc, GError *err, void *opaque)
{
    Destination *dst = opaque;

    g_assert_cmpint(ioc == NULL, ==, err != NULL);
    g_assert_false(qemu_in_coroutine());
    if (ioc) {
        g_assert_cmpuint(dst->n, <, ARRIVALS_MAX);
        dst->channels[dst->n++] = ioc;
    } else {
        dst->error = err;
    }
    dst->arrived = true;
    if (dst->stop) {
        migration_listener_free(g_steal_pointer(&dst->listener));
    }
}

typedef struct ListenCall {
    const MigrationAddress *addr;
    Destination *dst;
    GError **errp;
} ListenCall;

static void coroutine_fn listen_co(void *opaque)
{
    ListenCall *call = opaque;

    call->dst->listener = migration_listener_co_new(call->addr, on_channel, call->dst, call->errp);
    g_assert_cmpuint(call->dst->n, ==, 0);
}

static bool try_listen(Destination *dst, const char *uri, GError **errp)
{
    g_autoptr(MigrationAddress) addr = migration_uri_parse(uri, NULL);
    ListenCall call = {addr, dst, errp};

    g_assert_nonnull(addr);
    aio_run_coroutine(listen_co, &call);
    return dst->listener != NULL;
}

static void listen_at(Destination *dst, const char *uri)
{
    GError *err = NULL;

    (void)try_listen(dst, uri, &err);
    g_assert_no_error(err);
}

static void destination_clear(Destination *dst)
{
    migration_listener_free(dst->listener);
    for (unsigned i = 0; i < dst->n; i++) {
        qio_channel_unref(dst->channels[i]);
    }
    g_clear_error(&dst->error);
    memset(dst, 0, sizeof(*dst));
}

/* Where the listener really is. */
static char *listener_uri(const Destination *dst)
{
    g_autoptr(MigrationAddress) addr = g_new0(MigrationAddress, 1);
    SocketAddressList *list = migration_listener_addresses(dst->listener);
    SocketAddress *one;
    char *uri;

    g_assert_nonnull(list);
    one = QAPI_CLONE(SocketAddress, list->value);
    addr->u.socket = *one;
    g_free(one);
    uri = migration_address_to_uri(addr);
    qapi_free_SocketAddressList(list);
    return uri;
}

/* --- the source --- */

static MigrationConnector *try_connector(const char *uri, GError **errp)
{
    g_autoptr(MigrationAddress) addr = migration_uri_parse(uri, NULL);
    g_autoptr(MigrationSettings) settings = migration_settings_get();

    g_assert_nonnull(addr);
    return migration_connector_new(addr, settings, errp);
}

static MigrationConnector *new_connector(const char *uri)
{
    GError *err = NULL;
    MigrationConnector *c = try_connector(uri, &err);

    g_assert_no_error(err);
    return c;
}

typedef struct ConnectCall {
    MigrationConnector *c;
    QIOChannel *ioc;
    GError *err;
    bool done;
} ConnectCall;

static void coroutine_fn connect_co(void *opaque)
{
    ConnectCall *call = opaque;

    call->ioc = migration_connector_co_connect(call->c, &call->err);
    __atomic_store_n(&call->done, true, __ATOMIC_RELEASE);
}

static void start_connect(ConnectCall *call)
{
    qemu_coroutine_enter(qemu_coroutine_create(connect_co, call));
}

static QIOChannel *connect_to(MigrationConnector *c)
{
    ConnectCall call = {.c = c};

    start_connect(&call);
    run_until(&call.done);
    g_assert_no_error(call.err);
    return call.ioc;
}

static void *blocking_thread(void *opaque)
{
    ConnectCall *call = opaque;
    GError *err = NULL;

    call->ioc = migration_connector_connect_blocking(call->c, &call->err);
    if (call->ioc) {
        g_assert_cmpint(qio_channel_write_all(call->ioc, "thread", 6, &err), ==, 0);
        g_assert_no_error(err);
    }
    __atomic_store_n(&call->done, true, __ATOMIC_RELEASE);
    aio_notify(qemu_get_aio_context());
    return NULL;
}

/* --- bytes --- */

typedef struct Bytes {
    QIOChannel *ioc;
    const char *expected;
    bool done;
} Bytes;

static void coroutine_fn read_co(void *opaque)
{
    Bytes *bytes = opaque;
    size_t len = strlen(bytes->expected);
    g_autofree char *buf = g_malloc0(len + 1);
    GError *err = NULL;

    g_assert_cmpint(qio_channel_co_read_all(bytes->ioc, buf, len, &err), ==, 0);
    g_assert_no_error(err);
    g_assert_cmpstr(buf, ==, bytes->expected);
    qio_channel_detach_aio_context(bytes->ioc);
    bytes->done = true;
}

static void expect_bytes(QIOChannel *ioc, const char *expected)
{
    Bytes bytes = {ioc, expected};

    qemu_coroutine_enter(qemu_coroutine_create(read_co, &bytes));
    run_until(&bytes.done);
}

static void send_bytes(QIOChannel *ioc, const char *text)
{
    GError *err = NULL;

    g_assert_cmpint(qio_channel_write_all(ioc, text, strlen(text), &err), ==, 0);
    g_assert_no_error(err);
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
    run_until(&dst.arrived);
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
        "{'qom-type': 'tls-creds-psk', 'id': 'psk', 'dir': '%s', 'endpoint': 'server'}", dir);

    write_file("keys.psk", "qemu:00112233445566778899aabbccddeeff\n");
    add_object(server);
}

/*
 * Both ends are in this process and read the same settings: the listener looks them up when somebody
 * connects, the connector when it is made.
 */
static void test_tls_psk(void)
{
    g_autofree char *client =
        g_strdup_printf("{'qom-type': 'tls-creds-psk', 'id': 'client', 'dir': '%s'}", dir);
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
    pki_write(&ca, 'c', dir, "ca-cert.pem");
    pki_write(&server, 'c', dir, "server-cert.pem");
    pki_write(&server, 'k', dir, "server-key.pem");
    pki_write(&client, 'c', dir, "client-cert.pem");
    pki_write(&client, 'k', dir, "client-key.pem");
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
        "{'qom-type': 'tls-creds-x509', 'id': 's', 'dir': '%s', 'endpoint': 'server'}", dir);
    g_autofree char *client =
        g_strdup_printf("{'qom-type': 'tls-creds-x509', 'id': 'c', 'dir': '%s'}", dir);

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
        g_strdup_printf("{'qom-type': 'tls-creds-psk', 'id': 'client', 'dir': '%s'}", dir);
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

/* A unix listener whose queue is full keeps who connects waiting. */
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

/* Peers that connect and never say a word keep nobody out for long, and go with the listener. */
static void test_silent_peers(void)
{
    enum { PEERS = 64 };
    g_autofree char *path = path_in_dir("sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    Destination dst = {0};
    int fds[PEERS];

    migration_settings_reset();
    add_psk();
    set_param("tls-creds", "psk");
    listen_at(&dst, uri);
    g_strlcpy(sa.sun_path, path, sizeof(sa.sun_path));
    for (int i = 0; i < PEERS; i++) {
        fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        g_assert_cmpint(connect(fds[i], (struct sockaddr *)&sa, sizeof(sa)), ==, 0);
    }
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
    g_assert_cmpuint(dst.n, ==, 0);
    destination_clear(&dst);
    for (int i = 0; i < PEERS; i++) {
        char byte;

        /* closed by us, or never accepted */
        while (recv(fds[i], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN) {
            aio_poll(qemu_get_aio_context(), true);
        }
        close(fds[i]);
    }
    migration_settings_reset();
    del_object("psk");
}

/* Those who hang up make room for others; garbage is no handshake. */
static void test_garbage_then_guest(void)
{
    g_autofree char *path = path_in_dir("sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    g_autofree char *client =
        g_strdup_printf("{'qom-type': 'tls-creds-psk', 'id': 'client', 'dir': '%s'}", dir);
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    g_autoptr(MigrationConnector) c = NULL;
    Destination dst = {0};
    QIOChannel *ioc;

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
    ioc = connect_to(c);
    run_until(&dst.arrived);
    g_assert_cmpuint(dst.n, ==, 1);
    send_bytes(ioc, "guest");
    expect_bytes(dst.channels[0], "guest");
    qio_channel_unref(ioc);
    destination_clear(&dst);
    g_clear_pointer(&c, migration_connector_unref);
    migration_settings_reset();
    del_object("client");
    del_object("psk");
}

/* Whoever has all channels ends the listener in the callback. */
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
    run_until(&dst.arrived);
    g_assert_null(dst.listener);
    send_bytes(ioc, "x");
    expect_bytes(dst.channels[0], "x");
    qio_channel_unref(ioc);
    destination_clear(&dst);
}

/* --- what is there at once --- */

static void test_exec(void)
{
    g_autofree char *path = path_in_dir("exec-out"), *text = NULL;
    g_autofree char *out = g_strdup_printf("exec:cat > %s", path);
    g_autofree char *in = g_strdup_printf("exec:cat %s", path);
    g_autoptr(MigrationConnector) c = NULL;
    Destination dst = {0};
    QIOChannel *ioc;
    GError *err = NULL;

    migration_settings_reset();
    c = new_connector(out);
    ioc = connect_to(c);
    send_bytes(ioc, "through a program");
    g_assert_cmpint(qio_channel_close(ioc, &err), ==, 0);
    g_assert_no_error(err);
    qio_channel_unref(ioc);
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "through a program");

    listen_at(&dst, in);
    run_until(&dst.arrived);
    g_assert_no_error(dst.error);
    g_assert_null(migration_listener_addresses(dst.listener));
    expect_bytes(dst.channels[0], "through a program");
    destination_clear(&dst);
}

/* With a return path both directions of the program are used. */
static void test_exec_both_ways(void)
{
    g_autoptr(MigrationConnector) c = NULL;
    QIOChannel *ioc;

    migration_settings_reset();
    set_cap(MIGRATION_CAPABILITY_RETURN_PATH);
    c = new_connector("exec:cat");
    ioc = connect_to(c);
    send_bytes(ioc, "echo");
    expect_bytes(ioc, "echo");
    qio_channel_unref(ioc);
    migration_settings_reset();
}

static int take_name(const char *name, GError **errp)
{
    return strcmp(name, "mig") ? -1 : open("/dev/null", O_WRONLY);
}

static void test_fd(void)
{
    int fds[2];
    g_autofree char *out = NULL, *in = NULL;
    g_autoptr(MigrationConnector) c = NULL;
    g_autoptr(GError) err = NULL;
    Destination dst = {0};
    ConnectCall again = {0};
    QIOChannel *ioc;

    migration_settings_reset();
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    out = g_strdup_printf("fd:%d", fds[0]);
    in = g_strdup_printf("fd:%d", fds[1]);
    listen_at(&dst, in);
    c = new_connector(out);
    ioc = connect_to(c);
    run_until(&dst.arrived);
    send_bytes(ioc, "over descriptors");
    expect_bytes(dst.channels[0], "over descriptors");
    again.c = c;
    start_connect(&again);
    run_until(&again.done);
    g_assert_nonnull(again.err);
    g_clear_error(&again.err);
    qio_channel_unref(ioc);
    destination_clear(&dst);

    socket_set_fd_lookup(take_name);
    g_clear_pointer(&c, migration_connector_unref);
    c = new_connector("fd:mig");
    qio_channel_unref(connect_to(c));
    socket_set_fd_lookup(NULL);
    g_assert_null(try_connector("fd:mig", &err));
    g_clear_error(&err);
    g_assert_null(try_connector("fd:999", &err));
    g_test_message("%s", err->message);
}

static void test_file(void)
{
    g_autofree char *path = path_in_dir("file");
    g_autofree char *uri = g_strdup_printf("file:%s,offset=16", path), *text = NULL;
    g_autofree char *long_old = g_strnfill(5000, 'o');
    g_autoptr(MigrationConnector) c = NULL;
    Destination dst = {0};
    GError *err = NULL;
    gsize len;
    QIOChannel *ioc;
    int extra;

    migration_settings_reset();
    write_file("file", long_old);
    c = new_connector(uri);
    ioc = connect_to(c);
    g_assert_true(qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_SEEKABLE));
    send_bytes(ioc, "behind the header");
    extra = migration_connector_open_extra(c, false, &err);
    g_assert_no_error(err);
    g_assert_cmpint(pwrite(extra, "header", 6, 0), ==, 6);
    close(extra);
    qio_channel_unref(ioc);
    g_assert_true(g_file_get_contents(path, &text, &len, NULL));
    g_assert_cmpuint(len, ==, 16 + 17);
    g_assert_cmpint(memcmp(text, "headeroooooooooobehind the header", len), ==, 0);

    listen_at(&dst, uri);
    run_until(&dst.arrived);
    g_assert_true(qio_channel_has_feature(dst.channels[0], QIO_CHANNEL_FEATURE_SEEKABLE));
    extra = migration_listener_open_extra(dst.listener, false, &err);
    g_assert_no_error(err);
    close(extra);
    {
        char buf[18] = "";

        g_assert_cmpint(qio_channel_read_all(dst.channels[0], buf, 17, &err), ==, 0);
        g_assert_cmpstr(buf, ==, "behind the header");
    }
    destination_clear(&dst);
}

/* libvirt passes one descriptor with O_DIRECT and one without in one set. */
static void test_fdset(void)
{
    g_autofree char *path = path_in_dir("set");
    g_autoptr(MigrationConnector) c = NULL;
    g_autofree char *uri = NULL, *text = NULL;
    GError *err = NULL;
    int direct, plain, extra;
    int64_t set;
    QIOChannel *ioc;

    migration_settings_reset();
    write_file("set", "old old old old old old old old");
    direct = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    if (direct < 0) {
        g_test_skip("no O_DIRECT here");
        return;
    }
    plain = open(path, O_WRONLY | O_CLOEXEC);
    set = monitor_fdset_add_fd(-1, direct, NULL);
    g_assert_cmpint(monitor_fdset_add_fd(set, plain, NULL), ==, set);
    uri = g_strdup_printf("file:/dev/fdset/%" G_GINT64_FORMAT ",offset=4", set);
    c = new_connector(uri);
    ioc = connect_to(c);
    send_bytes(ioc, "stream");

    extra = migration_connector_open_extra(c, true, &err);
    g_assert_no_error(err);
    g_assert_true(fcntl(extra, F_GETFL) & O_DIRECT);
    qemu_close(extra);
    extra = migration_connector_open_extra(c, false, &err);
    g_assert_no_error(err);
    g_assert_false(fcntl(extra, F_GETFL) & O_DIRECT);
    g_assert_cmpint(pwrite(extra, "OLD", 3, 0), ==, 3);
    qemu_close(extra);

    send_bytes(ioc, "ed");
    qio_channel_unref(ioc);
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "OLD streamed");
}

/* A set's only descriptor, whose flags are those of neither use: each gets one that fits. */
static void test_fdset_of_one(void)
{
    g_autofree char *path = path_in_dir("one");
    static const int flags[] = {0, O_DIRECT, O_APPEND};

    migration_settings_reset();
    for (unsigned i = 0; i < G_N_ELEMENTS(flags); i++) {
        g_autofree char *uri = NULL, *text = NULL;
        g_autoptr(MigrationConnector) c = NULL;
        GError *err = NULL;
        QIOChannel *ioc;
        int fd, extra;

        write_file("one", "old old old old old old old old");
        fd = open(path, O_WRONLY | O_CLOEXEC | flags[i]);
        if (fd < 0) {
            g_test_skip("no O_DIRECT here");
            return;
        }
        uri = g_strdup_printf("file:/dev/fdset/%" G_GINT64_FORMAT ",offset=4",
                              monitor_fdset_add_fd(-1, fd, NULL));
        c = new_connector(uri);
        ioc = connect_to(c);
        send_bytes(ioc, "streamed");
        for (int direct = 0; direct < 2; direct++) {
            extra = migration_connector_open_extra(c, direct, &err);
            g_assert_no_error(err);
            g_assert_cmphex(fcntl(extra, F_GETFL) & (O_DIRECT | O_APPEND), ==,
                            direct ? O_DIRECT : 0);
            qemu_close(extra);
        }
        qio_channel_unref(ioc);
        g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
        g_assert_cmpstr(text, ==, "old streamed");
    }
}

/* A file's descriptor serves mapped-ram from where it stands; what has no places does not. */
static void test_mapped_fd(void)
{
    g_autofree char *path = path_in_dir("mapped"), *uri = NULL, *text = NULL;
    g_autofree char *append_uri = NULL, *pipe_uri = NULL;
    g_autoptr(MigrationConnector) c = NULL;
    GError *err = NULL;
    int fds[2], fd, extra;
    QIOChannel *ioc;

    migration_settings_reset();
    set_cap(MIGRATION_CAPABILITY_MAPPED_RAM);
    write_file("mapped", "header");
    fd = open(path, O_WRONLY | O_CLOEXEC);
    g_assert_cmpint(lseek(fd, 4, SEEK_SET), ==, 4);
    uri = g_strdup_printf("fd:%d", fd);
    c = new_connector(uri);
    ioc = connect_to(c);
    send_bytes(ioc, "the stream");
    extra = migration_connector_open_extra(c, false, &err);
    g_assert_no_error(err);
    g_assert_cmpint(pwrite(extra, "page", 4, 20), ==, 4);
    qemu_close(extra);
    send_bytes(ioc, ".");
    qio_channel_unref(ioc);
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "headthe stream.");
    g_assert_cmpstr(text + 20, ==, "page");

    append_uri = g_strdup_printf("fd:%d", open(path, O_WRONLY | O_APPEND | O_CLOEXEC));
    g_assert_null(try_connector(append_uri, &err));
    g_assert_nonnull(strstr(err->message, "O_APPEND"));
    g_clear_error(&err);
    g_assert_cmpint(pipe(fds), ==, 0);
    pipe_uri = g_strdup_printf("fd:%d", fds[1]);
    g_assert_null(try_connector(pipe_uri, &err));
    g_assert_nonnull(strstr(err->message, "seekable transport"));
    g_clear_error(&err);
    close(fds[0]);
    migration_settings_reset();
}

static void test_new_file_is_private(void)
{
    g_autofree char *path = path_in_dir("new");
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    g_autoptr(MigrationConnector) c = NULL;
    struct stat st;

    migration_settings_reset();
    c = new_connector(uri);
    qio_channel_unref(connect_to(c));
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_mode & 077, ==, 0);
}

static void test_missing_file(void)
{
    g_autoptr(GError) err = NULL;
    Destination dst = {0};

    migration_settings_reset();
    g_assert_false(try_listen(&dst, "file:/nonexistent/x", &err));
    g_test_message("%s", err->message);
    g_assert_nonnull(strstr(err->message, "/nonexistent/x"));
}

/* --- what goes with what --- */

typedef struct CheckCase {
    const char *uri;
    int caps[2]; /* -1: none */
    const char *tls, *compression;
    const char *error; /* NULL: fine */
} CheckCase;

#define CAP(name) MIGRATION_CAPABILITY_##name

static const CheckCase checks[] = {
    {"file:/x", {CAP(MAPPED_RAM), -1}, "", "none", NULL},
    {"file:/x", {CAP(MAPPED_RAM), CAP(MULTIFD)}, "", "none", NULL},
    {"file:/x", {CAP(MAPPED_RAM), CAP(MULTIFD)}, "", "zstd", "compression with mapped-ram"},
    {"file:/x", {CAP(MAPPED_RAM), -1}, "t", "none", "TLS with mapped-ram"},
    {"tcp:h:1", {CAP(MAPPED_RAM), -1}, "", "none", "seekable transport"},
    {"exec:x", {CAP(MULTIFD), -1}, "", "none", "multi-channel URIs"},
    {"fd:1", {CAP(MULTIFD), -1}, "", "none", "multi-channel URIs"},
    {"file:/x", {CAP(MULTIFD), -1}, "", "none", "multi-channel URIs"},
    {"file:/x", {-1, -1}, "t", "none", "TLS with a file"},
};

static void test_checks(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(checks); i++) {
        const CheckCase *check = &checks[i];
        g_autoptr(GError) err = NULL, listen_err = NULL;
        g_autoptr(MigrationConnector) c = NULL;
        Destination dst = {0};

        migration_settings_reset();
        for (int j = 0; j < 2 && check->caps[j] >= 0; j++) {
            set_cap(check->caps[j]);
        }
        set_param("tls-creds", check->tls);
        set_param("multifd-compression", check->compression);
        c = try_connector(check->uri, &err);
        g_assert_cmpint(c == NULL, ==, check->error != NULL);
        if (check->error) {
            g_assert_nonnull(strstr(err->message, check->error));
            g_assert_false(try_listen(&dst, check->uri, &listen_err));
            g_assert_cmpstr(listen_err->message, ==, err->message);
        }
    }
    migration_settings_reset();
}

static void remove_dir(void)
{
    GDir *d = g_dir_open(dir, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(d))) {
        g_autofree char *path = path_in_dir(name);

        g_unlink(path);
    }
    g_dir_close(d);
    g_rmdir(dir);
    g_free(dir);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    register_crypto_objects();
    fdsets_init();
    dir = g_dir_make_tmp("ferry-migration-XXXXXX", NULL);
    g_test_add_func("/migration-channel/sockets", test_sockets);
    g_test_add_func("/migration-channel/ipv6", test_ipv6);
    g_test_add_func("/migration-channel/tls-psk", test_tls_psk);
    g_test_add_func("/migration-channel/tls-x509", test_tls_x509);
    g_test_add_func("/migration-channel/missing-creds", test_missing_creds);
    g_test_add_func("/migration-channel/refused", test_refused);
    g_test_add_func("/migration-channel/cancel-handshake", test_cancel_handshake);
    g_test_add_func("/migration-channel/cancel-connect", test_cancel_connect);
    g_test_add_func("/migration-channel/silent-peers", test_silent_peers);
    g_test_add_func("/migration-channel/garbage-then-guest", test_garbage_then_guest);
    g_test_add_func("/migration-channel/free-in-callback", test_free_in_callback);
    g_test_add_func("/migration-channel/exec", test_exec);
    g_test_add_func("/migration-channel/exec-both-ways", test_exec_both_ways);
    g_test_add_func("/migration-channel/fd", test_fd);
    g_test_add_func("/migration-channel/file", test_file);
    g_test_add_func("/migration-channel/fdset", test_fdset);
    g_test_add_func("/migration-channel/fdset-of-one", test_fdset_of_one);
    g_test_add_func("/migration-channel/mapped-fd", test_mapped_fd);
    g_test_add_func("/migration-channel/new-file-is-private", test_new_file_is_private);
    g_test_add_func("/migration-channel/missing-file", test_missing_file);
    g_test_add_func("/migration-channel/checks", test_checks);
    ret = g_test_run();
    remove_dir();
    return ret;
}
