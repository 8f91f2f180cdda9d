/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pairs of channels for tests. */
#include "tests/unit/channel-pair.h"
#include <fcntl.h>
#include <glib/gstdio.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#include "io/channel-command.h"
#include "io/channel-fd.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "tests/unit/crypto-objects.h"

/* Small enough that most writes and reads are partial. */
#define TINY_BUFFER 4096

static void shrink_send_buffer(int fd)
{
    int bytes = TINY_BUFFER;

    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

static void tcp_socketpair(int fds[2])
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sa);
    int lfd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(lfd, >=, 0);
    g_assert_cmpint(bind(lfd, (struct sockaddr *)&sa, sizeof(sa)), ==, 0);
    g_assert_cmpint(listen(lfd, 1), ==, 0);
    g_assert_cmpint(getsockname(lfd, (struct sockaddr *)&sa, &len), ==, 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(connect(fds[0], (struct sockaddr *)&sa, sizeof(sa)), ==, 0);
    fds[1] = accept4(lfd, NULL, NULL, SOCK_CLOEXEC);
    g_assert_cmpint(fds[1], >=, 0);
    close(lfd);
}

static void make_from_sockets(ChannelPair *pair, const int fds[2], bool tiny)
{
    pair->two_way = true;
    for (int i = 0; i < 2; i++) {
        if (tiny) {
            shrink_send_buffer(fds[i]);
        }
        pair->end[i] = QIO_CHANNEL(qio_channel_socket_new_fd(fds[i], NULL));
        g_assert_nonnull(pair->end[i]);
        qio_channel_set_delay(pair->end[i], false);
    }
}

static void make_unix(ChannelPair *pair)
{
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    make_from_sockets(pair, fds, false);
}

static void make_unix_tiny(ChannelPair *pair)
{
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    make_from_sockets(pair, fds, true);
}

static void make_tcp(ChannelPair *pair)
{
    int fds[2];

    tcp_socketpair(fds);
    make_from_sockets(pair, fds, true);
}

/* --- TLS --- */

static void *handshake_in_thread(void *opaque)
{
    GError *err = NULL;
    int ret = qio_channel_tls_handshake(opaque, 0, &err);

    g_assert_no_error(err);
    g_assert_cmpint(ret, ==, 0);
    return NULL;
}

static QCryptoTLSCreds *creds_of(const char *id, QCryptoTLSCredsEndpoint endpoint)
{
    QCryptoTLSCreds *creds = qcrypto_tls_creds_acquire(id, endpoint, NULL);

    g_assert_nonnull(creds);
    return creds;
}

/* Both ends of the pair speak TLS from now on: 1.3 with pre-shared keys, 1.2 without. */
static void wrap_in_tls(ChannelPair *pair, const char *server_id, const char *client_id)
{
    QCryptoTLSCreds *server = creds_of(server_id, QCRYPTO_TLS_CREDS_ENDPOINT_SERVER);
    QCryptoTLSCreds *client = creds_of(client_id, QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT);
    QIOChannelTLS *tls[2] = {
        qio_channel_tls_new_server(pair->end[0], server, NULL, NULL),
        qio_channel_tls_new_client(pair->end[1], client, NULL, NULL),
    };
    GThread *thread = g_thread_new("handshake", handshake_in_thread, tls[0]);

    (void)handshake_in_thread(tls[1]);
    g_thread_join(thread);
    for (int i = 0; i < 2; i++) {
        qio_channel_unref(pair->end[i]);
        pair->end[i] = QIO_CHANNEL(tls[i]);
    }
    qcrypto_tls_creds_release(server);
    qcrypto_tls_creds_release(client);
}

static void make_tls_unix(ChannelPair *pair)
{
    make_unix_tiny(pair);
    wrap_in_tls(pair, "anon-server", "anon-client");
}

static void make_tls_tcp(ChannelPair *pair)
{
    make_tcp(pair);
    wrap_in_tls(pair, "psk-server", "psk-client");
}

/* --- pipes and programs --- */

static void make_pipe(ChannelPair *pair)
{
    int fds[2];

    g_assert_cmpint(pipe2(fds, O_CLOEXEC), ==, 0);
    g_assert_cmpint(fcntl(fds[0], F_SETPIPE_SZ, TINY_BUFFER), >=, 0);
    pair->end[0] = qio_channel_new_fd(fds[1], NULL);
    pair->end[1] = qio_channel_new_fd(fds[0], NULL);
    g_assert_nonnull(pair->end[0]);
    g_assert_nonnull(pair->end[1]);
}

/* A program reads what one end writes, and copies it into a pipe for the other. */
static void make_command_writer(ChannelPair *pair)
{
    g_autofree char *command = NULL;
    int fds[2];

    /* named by our process, for the program inherits nothing */
    g_assert_cmpint(pipe2(fds, O_CLOEXEC), ==, 0);
    command = g_strdup_printf("exec cat >/proc/%d/fd/%d", (int)getpid(), fds[1]);
    pair->end[0] = QIO_CHANNEL(qio_channel_command_new_shell(command, O_WRONLY, NULL));
    pair->end[1] = qio_channel_new_fd(fds[0], NULL);
    g_assert_nonnull(pair->end[0]);
    g_assert_cmpint(qio_channel_write_all(pair->end[0], "!", 1, NULL), ==, 0);
    g_assert_cmpint(qio_channel_read_all(pair->end[1], &(char){0}, 1, NULL), ==, 0);
    close(fds[1]); /* the program has it open */
}

static void make_command_reader(ChannelPair *pair)
{
    g_autofree char *command = NULL;
    int fds[2];

    g_assert_cmpint(pipe2(fds, O_CLOEXEC), ==, 0);
    command = g_strdup_printf("exec cat </proc/%d/fd/%d", (int)getpid(), fds[0]);
    pair->end[0] = qio_channel_new_fd(fds[1], NULL);
    pair->end[1] = QIO_CHANNEL(qio_channel_command_new_shell(command, O_RDONLY, NULL));
    g_assert_nonnull(pair->end[1]);
    g_assert_cmpint(qio_channel_write_all(pair->end[0], "!", 1, NULL), ==, 0);
    g_assert_cmpint(qio_channel_read_all(pair->end[1], &(char){0}, 1, NULL), ==, 0);
    close(fds[0]);
}

/* --- all of them --- */

const ChannelKind channel_kinds[] = {
    {"unix", make_unix},
    {"unix-tiny", make_unix_tiny},
    {"tcp", make_tcp},
    {"tls-unix", make_tls_unix},
    {"tls-tcp", make_tls_tcp},
    {"pipe", make_pipe},
    {"command-writer", make_command_writer},
    {"command-reader", make_command_reader},
    {NULL, NULL},
};

static char *psk_dir;

static void add_psk(const char *id, const char *endpoint)
{
    g_autofree char *json =
        g_strdup_printf("{'qom-type': 'tls-creds-psk', 'id': '%s', 'endpoint': '%s', 'dir': '%s'}",
                        id, endpoint, psk_dir);

    add_object(json);
}

void channel_pairs_init(void)
{
    g_autofree char *keys = NULL;

    signal(SIGPIPE, SIG_IGN);
    register_crypto_objects();
    psk_dir = g_dir_make_tmp("ferry-psk-XXXXXX", NULL);
    keys = g_build_filename(psk_dir, QCRYPTO_TLS_CREDS_PSKFILE, NULL);
    g_assert_true(g_file_set_contents(keys, "qemu:00112233445566778899aabbccddeeff\n", -1, NULL));
    add_object("{'qom-type': 'tls-creds-anon', 'id': 'anon-server', 'endpoint': 'server'}");
    add_object("{'qom-type': 'tls-creds-anon', 'id': 'anon-client'}");
    add_psk("psk-server", "server");
    add_psk("psk-client", "client");
}

void channel_pairs_cleanup(void)
{
    g_autofree char *keys = g_build_filename(psk_dir, QCRYPTO_TLS_CREDS_PSKFILE, NULL);

    del_object("psk-client");
    del_object("psk-server");
    del_object("anon-client");
    del_object("anon-server");
    g_assert_cmpint(g_unlink(keys), ==, 0);
    g_assert_cmpint(g_rmdir(psk_dir), ==, 0);
    g_free(psk_dir);
}

ChannelPair channel_pair_new(const ChannelKind *kind)
{
    ChannelPair pair = {0};

    kind->make(&pair);
    return pair;
}

void channel_pair_leave(ChannelPair *pair, unsigned end)
{
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(qio_channel_close(pair->end[end], &err), ==, 0);
    g_assert_no_error(err);
    qio_channel_unref(pair->end[end]);
    pair->end[end] = NULL;
}

void channel_pair_clear(ChannelPair *pair)
{
    for (int i = 0; i < 2; i++) {
        qio_channel_unref(pair->end[i]);
    }
}
