/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS: credentials that are refused with a reason, peers that are, and bytes that arrive as they
 * were sent.
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "tests/unit/crypto-objects.h"
#include "tests/unit/tls-pki.h"
#include "util/error.h"
#include "util/timer.h"

#define CA_USAGE   (GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN)
#define LEAF_USAGE GNUTLS_KEY_DIGITAL_SIGNATURE

static const PkiTemplate ca_template = {.cn = "CA", .ca = true, .usage = CA_USAGE};
static const PkiTemplate server_template = {.cn = "localhost",
                                            .dns = "localhost",
                                            .usage = LEAF_USAGE,
                                            .purpose = GNUTLS_KP_TLS_WWW_SERVER};
static const PkiTemplate client_template = {
    .cn = "alice", .usage = LEAF_USAGE, .purpose = GNUTLS_KP_TLS_WWW_CLIENT};

/* --- folders of credentials --- */

typedef struct Fixture {
    char *dir;
    PkiCert ca, other_ca, server, client;
} Fixture;

static Fixture fix;

static char *fresh_dir(void)
{
    static int n;
    char *dir = g_strdup_printf("%s/%d", fix.dir, n++);

    g_assert_cmpint(g_mkdir(dir, 0700), ==, 0);
    return dir;
}

/* A folder for x509 credentials; NULL leaves the file out. */
static char *x509_dir(const PkiCert *ca, const PkiCert *cert, const PkiCert *key, bool server)
{
    char *dir = fresh_dir();

    if (ca) {
        pki_write(ca, 'c', dir, "ca-cert.pem");
    }
    if (cert) {
        pki_write(cert, 'c', dir, server ? "server-cert.pem" : "client-cert.pem");
    }
    if (key) {
        pki_write(key, 'k', dir, server ? "server-key.pem" : "client-key.pem");
    }
    return dir;
}

static void write_file(const char *dir, const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);

    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static char *x509_json(const char *id, const char *dir, bool server, const char *more)
{
    return g_strdup_printf(
        "{'qom-type': 'tls-creds-x509', 'id': '%s', 'dir': '%s', 'endpoint': '%s'%s}", id, dir,
        server ? "server" : "client", more);
}

static void add_x509(const char *id, const PkiCert *ca, const PkiCert *cert, bool server,
                     const char *more)
{
    g_autofree char *dir = x509_dir(ca, cert, cert, server);
    g_autofree char *json = x509_json(id, dir, server, more);

    add_object(json);
}

static void remove_tree(const char *path)
{
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *child = g_build_filename(path, name, NULL);

        remove_tree(child);
    }
    if (dir) {
        g_dir_close(dir);
    }
    g_remove(path);
}

/* --- credentials --- */

/*
 * A server's certificate by this template is refused for this reason; without sanity-check it is
 * not.
 */
static void check_server_refused(const PkiTemplate *tmpl, const PkiCert *issuer, const char *why)
{
    PkiCert cert = pki_make(tmpl, issuer);
    g_autofree char *dir = x509_dir(&fix.ca, &cert, &cert, true);
    g_autofree char *json = x509_json("t", dir, true, "");
    g_autofree char *unchecked = x509_json("t", dir, true, ", 'sanity-check': false");

    assert_refused(json, why);
    add_object(unchecked);
    del_object("t");
    pki_free(&cert);
}

static void test_unfit_certificates(void)
{
    PkiTemplate t = server_template;

    t.from_days = -2;
    t.until_days = -1;
    check_server_refused(&t, &fix.ca, "has expired");
    t.from_days = 1;
    t.until_days = 2;
    check_server_refused(&t, &fix.ca, "is not yet active");
    t = server_template;
    t.ca = true;
    check_server_refused(&t, &fix.ca, "show a CA, but we need one for a server");
    t = server_template;
    t.purpose = GNUTLS_KP_TLS_WWW_CLIENT;
    check_server_refused(&t, &fix.ca, "purpose does not allow use with a TLS server");
    t = server_template;
    t.usage = GNUTLS_KEY_CRL_SIGN;
    check_server_refused(&t, &fix.ca, "usage does not permit digital signature");
    check_server_refused(&server_template, &fix.other_ca, "failed validation against");
}

static void check_ca_refused(const PkiTemplate *tmpl, const char *why)
{
    PkiCert ca = pki_make(tmpl, NULL);
    g_autofree char *dir = x509_dir(&ca, NULL, NULL, false);
    g_autofree char *json = x509_json("t", dir, false, "");

    assert_refused(json, why);
    pki_free(&ca);
}

static void test_unfit_authorities(void)
{
    PkiTemplate t = ca_template;

    t.ca = false;
    check_ca_refused(&t, "basic constraints do not show a CA");
    t = ca_template;
    t.usage = GNUTLS_KEY_DIGITAL_SIGNATURE;
    check_ca_refused(&t, "usage does not permit certificate signing");
    t = ca_template;
    t.from_days = -2;
    t.until_days = -1;
    check_ca_refused(&t, "The CA certificate");
}

static void check_dir_refused(const char *dir, bool server, const char *why)
{
    g_autofree char *json = x509_json("t", dir, server, "");

    assert_refused(json, why);
}

static void test_unreadable_files(void)
{
    g_autofree char *no_ca = x509_dir(NULL, &fix.server, &fix.server, true);
    g_autofree char *no_cert = x509_dir(&fix.ca, NULL, NULL, true);
    g_autofree char *no_key = x509_dir(&fix.ca, &fix.client, NULL, false);
    g_autofree char *wrong_key = x509_dir(&fix.ca, &fix.server, &fix.client, true);
    g_autofree char *garbage = x509_dir(&fix.ca, NULL, &fix.server, true);
    g_autofree char *garbage_ca = x509_dir(NULL, NULL, NULL, false);
    g_autofree char *garbage_dh = x509_dir(&fix.ca, &fix.server, &fix.server, true);

    write_file(garbage, "server-cert.pem", "certainly not");
    write_file(garbage_ca, "ca-cert.pem", "");
    write_file(garbage_dh, "dh-params.pem", "large primes");
    check_dir_refused(no_ca, true, "Unable to access credentials");
    check_dir_refused(no_cert, true, "server-cert.pem: No such file");
    check_dir_refused(no_key, false, "client-key.pem: No such file");
    check_dir_refused(wrong_key, true, "Cannot load certificate");
    check_dir_refused(garbage, true, "Unable to import server certificate");
    check_dir_refused(garbage_ca, false, "Unable to import CA certificate");
    check_dir_refused(garbage_dh, true, "Unable to load DH parameters");
    assert_refused("{'qom-type': 'tls-creds-x509', 'id': 't'}", "Missing 'dir'");
    assert_refused("{'qom-type': 'tls-creds-anon', 'id': 't', 'priority': 'NONSENSE'}",
                   "Unable to set TLS session priority 'NONSENSE'");
}

static void test_psk_files(void)
{
    g_autofree char *dir = fresh_dir();
    g_autofree char *json =
        g_strdup_printf("{'qom-type': 'tls-creds-psk', 'id': 't', 'dir': '%s'}", dir);
    g_autofree char *other = g_strdup_printf(
        "{'qom-type': 'tls-creds-psk', 'id': 't', 'dir': '%s', 'username': 'bob'}", dir);
    g_autofree char *server = g_strdup_printf("{'qom-type': 'tls-creds-psk', 'id': 't', 'dir': "
                                              "'%s', 'username': 'bob', 'endpoint': 'server'}",
                                              dir);

    assert_refused(json, "keys.psk: No such file");
    write_file(dir, "keys.psk", "qemux:00\nalice:00ff\nbob:xyz\n");
    assert_refused(json, "Username qemu not found");
    assert_refused(other, "not in hexadecimal");
    assert_refused(server, "username should not be set");
}

static void test_acquired_credentials_stay(void)
{
    g_autoptr(GError) err = NULL;
    QCryptoTLSCreds *creds;

    add_object("{'qom-type': 'tls-creds-anon', 'id': 't', 'endpoint': 'server'}");
    g_assert_null(qcrypto_tls_creds_acquire("t", QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT, &err));
    g_assert_nonnull(strstr(err->message, "for a client endpoint"));
    g_clear_error(&err);
    creds = qcrypto_tls_creds_acquire("t", QCRYPTO_TLS_CREDS_ENDPOINT_SERVER, &err);
    g_assert_no_error(err);
    g_assert_false(user_creatable_del("t", &err));
    g_assert_cmpstr(err->message, ==, "object 't' is in use, can not be deleted");
    qcrypto_tls_creds_release(creds);
    del_object("t");
}

/* --- handshakes --- */

/* The two ends of a connection, each run by a coroutine. */
typedef struct End {
    const char *creds, *hostname, *authz;
    bool server, stalls;
    int64_t timeout_ns;
    QIOChannelSocket *sioc;
    QIOChannel *ioc;
    GError *err;
    int ret;
    bool done;
    void (*then)(struct End *end); /* coroutine; after a handshake that went well */
    struct End *peer;
} End;

static void coroutine_fn end_co_run(void *opaque)
{
    End *end = opaque;
    QCryptoTLSCredsEndpoint endpoint =
        end->server ? QCRYPTO_TLS_CREDS_ENDPOINT_SERVER : QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT;
    QCryptoTLSCreds *creds = qcrypto_tls_creds_acquire(end->creds, endpoint, &end->err);
    QIOChannelTLS *tioc;

    g_assert_no_error(end->err);
    tioc =
        end->server
            ? qio_channel_tls_new_server(QIO_CHANNEL(end->sioc), creds, end->authz, &end->err)
            : qio_channel_tls_new_client(QIO_CHANNEL(end->sioc), creds, end->hostname, &end->err);
    qcrypto_tls_creds_release(creds);
    end->ret = -EINVAL;
    if (tioc) {
        end->ioc = QIO_CHANNEL(tioc);
        end->ret = qio_channel_tls_co_handshake(tioc, end->timeout_ns, &end->err);
    }
    if (end->ret == 0 && end->then) {
        end->then(end);
    } else if (end->ret < 0) {
        qio_channel_shutdown(QIO_CHANNEL(end->sioc), QIO_CHANNEL_SHUTDOWN_BOTH);
    }
    end->done = true;
}

static void run_pair(End *server, End *client)
{
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    server->server = true;
    server->peer = client;
    client->peer = server;
    server->sioc = qio_channel_socket_new_fd(fds[0], NULL);
    client->sioc = qio_channel_socket_new_fd(fds[1], NULL);
    for (int i = 0; i < 2; i++) {
        End *end = i ? client : server;

        if (end->stalls) {
            end->done = true;
        } else {
            qemu_coroutine_enter(qemu_coroutine_create(end_co_run, end));
        }
    }
    while (!server->done || !client->done) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

static void end_clear(End *end)
{
    qio_channel_unref(end->ioc);
    qio_channel_unref(QIO_CHANNEL(end->sioc));
    g_clear_error(&end->err);
}

static void assert_failed(const End *end, const char *why)
{
    g_assert_cmpint(end->ret, <, 0);
    g_assert_nonnull(end->err);
    if (!strstr(end->err->message, why)) {
        g_error("'%s' does not say '%s'", end->err->message, why);
    }
}

/* Reads one byte, which tells a client of TLS 1.3 what the server thought of it. */
static void coroutine_fn then_read(End *end)
{
    uint8_t byte;

    end->ret = qio_channel_co_read_all(end->ioc, &byte, 1, &end->err);
}

static void coroutine_fn then_write(End *end)
{
    end->ret = qio_channel_co_write_all(end->ioc, "x", 1, &end->err);
}

/* A pair of x509 ends with these credentials; what each must say, NULL: it must succeed. */
static void check_x509(const char *hostname, const char *authz, const char *server_why,
                       const char *client_why)
{
    End server = {.creds = "s", .authz = authz, .then = then_write};
    End client = {.creds = "c", .hostname = hostname, .then = then_read};

    run_pair(&server, &client);
    if (server_why) {
        assert_failed(&server, server_why);
    } else {
        g_assert_no_error(server.err);
    }
    if (client_why) {
        assert_failed(&client, client_why);
    } else {
        g_assert_no_error(client.err);
    }
    if (!server_why && !client_why) {
        g_assert_cmpstr(qio_channel_tls_peer_name((QIOChannelTLS *)server.ioc), ==, "CN=alice");
        g_assert_cmpstr(qio_channel_tls_peer_name((QIOChannelTLS *)client.ioc), ==, "CN=localhost");
    }
    end_clear(&server);
    end_clear(&client);
}

static void test_x509(void)
{
    add_x509("s", &fix.ca, &fix.server, true, "");
    add_x509("c", &fix.ca, &fix.client, false, "");
    check_x509("localhost", NULL, NULL, NULL);
    check_x509("elsewhere", NULL, "refused", "does not match the hostname elsewhere");
    add_object("{'qom-type': 'authz-simple', 'id': 'a', 'identity': 'CN=alice'}");
    check_x509("localhost", "a", NULL, NULL);
    del_object("a");
    add_object("{'qom-type': 'authz-simple', 'id': 'a', 'identity': 'CN=bob'}");
    check_x509("localhost", "a", "'CN=alice' is not authorized by 'a'", "Access was denied");
    del_object("a");
    check_x509("localhost", "a", "No authorization object", "Access was denied");
    del_object("c");
    add_x509("c", &fix.ca, NULL, false, "");
    check_x509("localhost", NULL, "handshake failed", "refused");
    del_object("c");
    add_x509("c", &fix.other_ca, NULL, false, "");
    check_x509("localhost", NULL, "refused", "cannot be trusted");
    del_object("c");
    add_x509("c", &fix.ca, &fix.client, false, ", 'priority': 'NORMAL:-VERS-ALL:+VERS-TLS1.2'");
    check_x509("localhost", NULL, NULL, NULL);
    del_object("c");
    del_object("s");
}

static void test_hostname_is_needed(void)
{
    End server = {.creds = "s", .stalls = true}, client = {.creds = "c"};

    add_x509("s", &fix.ca, &fix.server, true, "");
    add_x509("c", &fix.ca, &fix.client, false, "");
    run_pair(&server, &client);
    assert_failed(&client, "No hostname for certificate validation");
    end_clear(&server);
    end_clear(&client);
    del_object("c");
    del_object("s");
}

/* Versions before 1.2 are not spoken, whatever the priority string says. */
static void test_old_versions_are_refused(void)
{
    g_autofree char *dir = x509_dir(&fix.ca, &fix.client, &fix.client, false);
    g_autofree char *json =
        x509_json("c", dir, false, ", 'priority': 'NORMAL:-VERS-ALL:+VERS-TLS1.1'");

    assert_refused(json, "Unable to set TLS session priority");
}

static void test_psk_and_anon(void)
{
    g_autofree char *dir = fresh_dir();
    g_autofree char *json = g_strdup_printf(
        "{'qom-type': 'tls-creds-psk', 'id': 's', 'dir': '%s', 'endpoint': 'server'}", dir);
    g_autofree char *client_json =
        g_strdup_printf("{'qom-type': 'tls-creds-psk', 'id': 'c', 'dir': '%s'}", dir);

    write_file(dir, "keys.psk", "qemu:00112233445566778899aabbccddeeff\n");
    add_object(json);
    add_object(client_json);
    for (int anon = 0; anon < 2; anon++) {
        End server = {.creds = "s", .then = then_write}, client = {.creds = "c", .then = then_read};

        run_pair(&server, &client);
        g_assert_no_error(server.err);
        g_assert_no_error(client.err);
        g_assert_cmpstr(qio_channel_tls_peer_name((QIOChannelTLS *)server.ioc), ==,
                        anon ? NULL : "qemu");
        end_clear(&server);
        end_clear(&client);
        del_object("c");
        del_object("s");
        add_object("{'qom-type': 'tls-creds-anon', 'id': 's', 'endpoint': 'server'}");
        add_object("{'qom-type': 'tls-creds-anon', 'id': 'c'}");
    }
    del_object("c");
    del_object("s");
}

/* --- stalls and ends --- */

static void test_stalled_handshake_times_out(void)
{
    End server = {.creds = "s", .timeout_ns = 20 * SCALE_MS}, client = {.stalls = true};

    add_object("{'qom-type': 'tls-creds-anon', 'id': 's', 'endpoint': 'server'}");
    run_pair(&server, &client);
    g_assert_cmpint(server.ret, ==, -ETIMEDOUT);
    assert_failed(&server, "timed out");
    end_clear(&server);
    end_clear(&client);
    del_object("s");
}

static void *shut_down_from_thread(void *opaque)
{
    qio_channel_shutdown(opaque, QIO_CHANNEL_SHUTDOWN_BOTH);
    return NULL;
}

static void test_handshake_is_cancelled_by_shutdown(void)
{
    for (int master = 0; master < 2; master++) {
        End server = {.creds = "s"};
        int fds[2];
        GThread *thread;

        add_object("{'qom-type': 'tls-creds-anon', 'id': 's', 'endpoint': 'server'}");
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
        server.server = true;
        server.sioc = qio_channel_socket_new_fd(fds[0], NULL);
        qemu_coroutine_enter(qemu_coroutine_create(end_co_run, &server));
        g_assert_false(server.done);
        thread = g_thread_new("shutdown", shut_down_from_thread,
                              master ? QIO_CHANNEL(server.sioc) : server.ioc);
        while (!server.done) {
            aio_poll(qemu_get_aio_context(), true);
        }
        g_thread_join(thread);
        assert_failed(&server, "cancelled");
        end_clear(&server);
        close(fds[1]);
        del_object("s");
    }
}

static void coroutine_fn then_shut_down(End *end)
{
    then_write(end);
    qio_channel_shutdown(end->ioc, QIO_CHANNEL_SHUTDOWN_BOTH);
    g_assert_cmpint(qio_channel_co_write_all(end->ioc, "x", 1, NULL), ==, -EPIPE);
    g_assert_cmpint(qio_channel_co_read_all_eof(end->ioc, &(uint8_t){0}, 1, NULL), ==, 0);
}

static void coroutine_fn then_cut(End *end)
{
    then_write(end);
    qio_channel_shutdown(QIO_CHANNEL(end->sioc), QIO_CHANNEL_SHUTDOWN_BOTH);
}

static void coroutine_fn then_read_to_the_end(End *end)
{
    uint8_t byte;

    then_read(end);
    g_assert_no_error(end->err);
    end->ret = qio_channel_co_read_all_eof(end->ioc, &byte, 1, &end->err);
}

static void test_an_end_is_told_from_a_cut(void)
{
    End server = {.creds = "s", .then = then_shut_down},
        client = {.creds = "c", .then = then_read_to_the_end};
    End cutter = {.creds = "s", .then = then_cut},
        victim = {.creds = "c", .then = then_read_to_the_end};

    add_object("{'qom-type': 'tls-creds-anon', 'id': 's', 'endpoint': 'server'}");
    add_object("{'qom-type': 'tls-creds-anon', 'id': 'c'}");
    run_pair(&server, &client);
    g_assert_no_error(client.err);
    g_assert_cmpint(client.ret, ==, 0);
    end_clear(&server);
    end_clear(&client);
    run_pair(&cutter, &victim);
    g_assert_cmpint(victim.ret, ==, -ECONNABORTED);
    end_clear(&cutter);
    end_clear(&victim);
    del_object("c");
    del_object("s");
}

/* --- messages of TLS's own --- */

/*
 * A server of another make, in a thread: sends a session ticket when told to, then a byte when told
 * to.
 */
typedef struct TicketServer {
    int fd;
    const char *psk_file;
    GAsyncQueue *orders, *answers;
} TicketServer;

static void *ticket_server(void *opaque)
{
    TicketServer *ts = opaque;
    gnutls_psk_server_credentials_t creds;
    gnutls_datum_t key;
    gnutls_session_t session;

    g_assert_cmpint(gnutls_psk_allocate_server_credentials(&creds), ==, 0);
    g_assert_cmpint(gnutls_psk_set_server_credentials_file(creds, ts->psk_file), ==, 0);
    g_assert_cmpint(gnutls_session_ticket_key_generate(&key), ==, 0);
    g_assert_cmpint(gnutls_init(&session, GNUTLS_SERVER | GNUTLS_NO_AUTO_SEND_TICKET), ==, 0);
    g_assert_cmpint(
        gnutls_priority_set_direct(session, "NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK", NULL), ==,
        0);
    g_assert_cmpint(gnutls_credentials_set(session, GNUTLS_CRD_PSK, creds), ==, 0);
    g_assert_cmpint(gnutls_session_ticket_enable_server(session, &key), ==, 0);
    gnutls_transport_set_int(session, ts->fd);
    g_assert_cmpint(gnutls_handshake(session), ==, 0);
    (void)g_async_queue_pop(ts->orders);
    g_assert_cmpint(gnutls_session_ticket_send(session, 1, 0), ==, 0);
    g_async_queue_push(ts->answers, ts);
    (void)g_async_queue_pop(ts->orders);
    g_assert_cmpint(gnutls_record_send(session, "x", 1), ==, 1);
    (void)g_async_queue_pop(ts->orders);
    gnutls_deinit(session);
    gnutls_psk_free_server_credentials(creds);
    gnutls_free(key.data);
    return NULL;
}

typedef struct IdleCount {
    QIOChannel *ioc;
    int calls;
} IdleCount;

static void count_idle_event(void *opaque)
{
    IdleCount *count = opaque;
    uint8_t byte = 0;
    struct iovec iov = {&byte, 1};

    count->calls++;
    qio_channel_set_watch(count->ioc, NULL, QIO_CHANNEL_READ, NULL, NULL);
    g_assert_cmpint(qio_channel_readv(count->ioc, &iov, 1, NULL), ==, 1);
    g_assert_cmpint(byte, ==, 'x');
}

static void test_idle_watch_sees_only_what_is_for_the_user(void)
{
    g_autofree char *dir = fresh_dir();
    g_autofree char *file = g_build_filename(dir, "keys.psk", NULL);
    g_autofree char *json =
        g_strdup_printf("{'qom-type': 'tls-creds-psk', 'id': 'c', 'dir': '%s'}", dir);
    TicketServer ts = {
        .psk_file = file, .orders = g_async_queue_new(), .answers = g_async_queue_new()};
    End client = {.creds = "c"};
    IdleCount count = {0};
    struct pollfd pfd = {.events = POLLIN};
    GThread *thread;
    int fds[2];

    write_file(dir, "keys.psk", "qemu:00112233445566778899aabbccddeeff\n");
    add_object(json);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    client.sioc = qio_channel_socket_new_fd(fds[0], NULL);
    pfd.fd = fds[0];
    ts.fd = fds[1];
    thread = g_thread_new("server", ticket_server, &ts);
    qemu_coroutine_enter(qemu_coroutine_create(end_co_run, &client));
    while (!client.done) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_no_error(client.err);
    count.ioc = client.ioc;
    qio_channel_set_watch(client.ioc, qemu_get_aio_context(), QIO_CHANNEL_READ, count_idle_event,
                          &count);
    g_async_queue_push(ts.orders, &ts);
    (void)g_async_queue_pop(ts.answers);
    g_assert_cmpint(poll(&pfd, 1, 0), ==, 1);
    while (poll(&pfd, 1, 0) == 1) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_cmpint(count.calls, ==, 0);
    g_async_queue_push(ts.orders, &ts);
    while (!count.calls) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_async_queue_push(ts.orders, &ts);
    g_thread_join(thread);
    end_clear(&client);
    close(fds[1]);
    g_async_queue_unref(ts.orders);
    g_async_queue_unref(ts.answers);
    del_object("c");
}

/* --- data --- */

#define STREAM_BYTES (24 << 20)
#define STREAM_SEED  20240229

/* Byte `pos` of the stream that an end writes. */
static uint8_t stream_byte(const End *end, size_t pos)
{
    return (pos * 167 + (pos >> 8) * 31 + (pos >> 16)) ^ (end->server ? 0x5a : 0);
}

/* Splits buf into elements of random size, small and large. */
static size_t split_randomly(GRand *rand, uint8_t *buf, size_t bytes, struct iovec *iov, size_t max)
{
    size_t n = 0;

    while (bytes && n < max) {
        size_t len = g_rand_int_range(rand, 0, 4) ? g_rand_int_range(rand, 1, 200)
                                                  : g_rand_int_range(rand, 1, 100000);

        len = n == max - 1 ? bytes : MIN(len, bytes);
        iov[n++] = (struct iovec){buf, len};
        buf += len;
        bytes -= len;
    }
    return n;
}

#define CHUNK_MAX 300000

static void coroutine_fn stream_co_write(void *opaque)
{
    End *end = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(STREAM_SEED + end->server);
    g_autofree uint8_t *buf = g_malloc(CHUNK_MAX);
    struct iovec iov[16];

    for (size_t pos = 0; pos < STREAM_BYTES;) {
        size_t chunk = g_rand_int_range(rand, 1, CHUNK_MAX);
        size_t n = MIN(chunk, STREAM_BYTES - pos);

        for (size_t i = 0; i < n; i++) {
            buf[i] = stream_byte(end, pos + i);
        }
        g_assert_cmpint(
            qio_channel_co_writev_all(end->ioc, iov,
                                      split_randomly(rand, buf, n, iov, G_N_ELEMENTS(iov)), NULL),
            ==, 0);
        pos += n;
    }
}

static void coroutine_fn then_exchange(End *end)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(STREAM_SEED + 2 + end->server);
    g_autofree uint8_t *buf = g_malloc(CHUNK_MAX);
    struct iovec iov[16];

    qemu_coroutine_enter(qemu_coroutine_create(stream_co_write, end));
    for (size_t pos = 0; pos < STREAM_BYTES;) {
        size_t chunk = g_rand_int_range(rand, 1, CHUNK_MAX);
        size_t n = MIN(chunk, STREAM_BYTES - pos);

        g_assert_cmpint(
            qio_channel_co_readv_all(end->ioc, iov,
                                     split_randomly(rand, buf, n, iov, G_N_ELEMENTS(iov)), NULL),
            ==, 0);
        for (size_t i = 0; i < n; i++) {
            g_assert_cmpint(buf[i], ==, stream_byte(end->peer, pos + i));
        }
        pos += n;
    }
}

static void test_both_directions_at_once(void)
{
    End server = {.creds = "s", .then = then_exchange};
    End client = {.creds = "c", .hostname = "localhost", .then = then_exchange};

    g_test_message("seed %d", STREAM_SEED);
    add_x509("s", &fix.ca, &fix.server, true, "");
    add_x509("c", &fix.ca, &fix.client, false, "");
    run_pair(&server, &client);
    g_assert_no_error(server.err);
    g_assert_no_error(client.err);
    end_clear(&server);
    end_clear(&client);
    del_object("c");
    del_object("s");
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    register_crypto_objects();
    fix.dir = g_dir_make_tmp("ferry-tls-XXXXXX", NULL);
    g_assert_nonnull(fix.dir);
    fix.ca = pki_make(&ca_template, NULL);
    fix.other_ca = pki_make(&(PkiTemplate){.cn = "Other CA", .ca = true, .usage = CA_USAGE}, NULL);
    fix.server = pki_make(&server_template, &fix.ca);
    fix.client = pki_make(&client_template, &fix.ca);
    g_test_add_func("/tls/unfit-certificates", test_unfit_certificates);
    g_test_add_func("/tls/unfit-authorities", test_unfit_authorities);
    g_test_add_func("/tls/unreadable-files", test_unreadable_files);
    g_test_add_func("/tls/psk-files", test_psk_files);
    g_test_add_func("/tls/acquired-credentials-stay", test_acquired_credentials_stay);
    g_test_add_func("/tls/x509", test_x509);
    g_test_add_func("/tls/hostname-is-needed", test_hostname_is_needed);
    g_test_add_func("/tls/old-versions-are-refused", test_old_versions_are_refused);
    g_test_add_func("/tls/psk-and-anon", test_psk_and_anon);
    g_test_add_func("/tls/stalled-handshake-times-out", test_stalled_handshake_times_out);
    g_test_add_func("/tls/handshake-is-cancelled-by-shutdown",
                    test_handshake_is_cancelled_by_shutdown);
    g_test_add_func("/tls/an-end-is-told-from-a-cut", test_an_end_is_told_from_a_cut);
    g_test_add_func("/tls/idle-watch-sees-only-what-is-for-the-user",
                    test_idle_watch_sees_only_what_is_for_the_user);
    g_test_add_func("/tls/both-directions-at-once", test_both_directions_at_once);
    ret = g_test_run();
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* the loop lets go of handlers in its next turns */
    }
    pki_free(&fix.ca);
    pki_free(&fix.other_ca);
    pki_free(&fix.server);
    pki_free(&fix.client);
    remove_tree(fix.dir);
    g_free(fix.dir);
    return ret;
}
