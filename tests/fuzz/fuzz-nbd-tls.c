/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD server that wants TLS, against any client.
 *
 * The first byte chooses. Even: all the rest is sent as it is, so what follows a STARTTLS of the
 * input are records of any kind. Odd: the second byte says how many bytes are sent in the clear;
 * then this client starts TLS in earnest, and the rest goes through the session. Whatever is sent
 * in the clear, no answer in the clear may name an export.
 */
#include <errno.h>
#include <glib.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/block.h"
#include "block/export.h"
#include "block/nbd/proto.h"
#include "block/nbd/server.h"
#include "crypto/objects.h"
#include "crypto/tlscreds.h"
#include "crypto/tlssession.h"
#include "qom/user-creatable.h"
#include "util/aio.h"
#include "util/bswap.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The export's name and description; no peer may learn of them in the clear. */
#define SECRET "kept-from-eyes"

typedef struct Client {
    int fd;
    GByteArray *clear; /* what came outside TLS */
    bool over;         /* the server has hung up */
} Client;

static QCryptoTLSCreds *client_creds;

static void coroutine_fn add_creds(const char *id, QCryptoTLSCredsEndpoint endpoint)
{
    ObjectOptions options = {.qom_type = OBJECT_TYPE_TLS_CREDS_ANON, .id = (char *)id};

    options.u.tls_creds_anon.has_endpoint = true;
    options.u.tls_creds_anon.endpoint = endpoint;
    g_assert_true(user_creatable_co_add(&options, NULL));
}

static void coroutine_fn start(void *opaque)
{
    g_autofree char *name = g_strdup_printf("ferry-fuzz-tls-%d", getpid());
    SocketAddress addr = {.type = SOCKET_ADDRESS_TYPE_UNIX, .u.q_unix.path = name};
    NbdServerConfig config = {.addr = &addr, .tls_creds = "server"};
    BlockExportOptions opts = {.type = BLOCK_EXPORT_TYPE_NBD, .node_name = (char *)"disk"};
    g_autoptr(BlockdevOptions) disk = g_new0(BlockdevOptions, 1);

    user_creatable_register(&tls_creds_anon_object_ops);
    add_creds("server", QCRYPTO_TLS_CREDS_ENDPOINT_SERVER);
    add_creds("client", QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT);
    client_creds = qcrypto_tls_creds_acquire("client", QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT, NULL);
    disk->driver = BLOCKDEV_DRIVER_NULL_CO;
    disk->node_name = g_strdup("disk");
    disk->u.null_co.has_size = disk->u.null_co.has_read_zeroes = disk->u.null_co.read_zeroes = true;
    disk->u.null_co.size = 1 << 20;
    addr.u.q_unix.has_abstract = addr.u.q_unix.abstract = true;
    g_assert_true(bdrv_co_open(disk, BDRV_O_RDWR | BDRV_O_UNMAP, NULL) &&
                  nbd_server_co_start(&config, NULL));
    opts.id = (char *)"export";
    opts.u.nbd.name = opts.u.nbd.description = (char *)SECRET;
    opts.has_writable = opts.writable = true;
    g_assert_true(blk_exp_co_add(&opts, NULL));
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    g_assert_true(qemu_init_main_loop(NULL));
    nbd_server_register();
    aio_run_coroutine(start, NULL);
    return 0;
}

/* --- in the clear --- */

/* Lets the server work and takes what it has sent. */
static void listen_clear(Client *c)
{
    uint8_t buf[4096];
    ssize_t len;

    aio_poll(qemu_get_aio_context(), false);
    while ((len = recv(c->fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
        g_byte_array_append(c->clear, buf, (guint)len);
    }
    c->over |= len == 0 || errno == ECONNRESET || !nbd_server_connections();
}

static void send_clear(Client *c, const void *data, size_t size)
{
    const uint8_t *at = data;

    while (size && !c->over) {
        ssize_t len = send(c->fd, at, size, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (len > 0) {
            at += len;
            size -= (size_t)len;
        } else if (errno != EAGAIN) {
            c->over = true;
        }
        listen_clear(c);
    }
}

static void check_clear(const Client *c, const uint8_t *data, size_t size)
{
    if (c->clear->len && !memmem(data, size, SECRET, strlen(SECRET))) {
        g_assert_null(memmem(c->clear->data, c->clear->len, SECRET, strlen(SECRET)));
    }
}

/* --- behind STARTTLS --- */

static ssize_t result(ssize_t len)
{
    return len < 0 ? -errno : len;
}

static ssize_t push(void *opaque, const struct iovec *iov, size_t niov)
{
    Client *c = opaque;
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = niov};

    return result(sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static ssize_t pull(void *opaque, const struct iovec *iov, size_t niov)
{
    Client *c = opaque;
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = niov};

    return result(recvmsg(c->fd, &msg, MSG_DONTWAIT));
}

/* Asks for TLS. True: the server's last word is its consent. */
static bool start_tls(Client *c)
{
    uint8_t option[16], consent[20];

    stq_be_p(option, NBD_OPTS_MAGIC);
    stl_be_p(option + 8, NBD_OPT_STARTTLS);
    stl_be_p(option + 12, 0);
    stq_be_p(consent, NBD_REP_MAGIC);
    stl_be_p(consent + 8, NBD_OPT_STARTTLS);
    stl_be_p(consent + 12, NBD_REP_ACK);
    stl_be_p(consent + 16, 0);
    send_clear(c, option, sizeof(option));
    for (;;) {
        guint before = c->clear->len;

        if (before >= sizeof(consent) &&
            !memcmp(c->clear->data + before - sizeof(consent), consent, sizeof(consent))) {
            return true;
        }
        listen_clear(c);
        if (c->over || (c->clear->len == before && !aio_poll(qemu_get_aio_context(), false))) {
            return false; /* the input has left the server in the middle of something else */
        }
    }
}

static bool shake_hands(Client *c, QCryptoTLSSession *session)
{
    QCryptoTLSHandshake step;

    do {
        step = qcrypto_tls_session_handshake(session, NULL);
        aio_poll(qemu_get_aio_context(), false);
    } while (step > QCRYPTO_TLS_HANDSHAKE_COMPLETE && nbd_server_connections());
    return step == QCRYPTO_TLS_HANDSHAKE_COMPLETE;
}

/* Sends through the session as fast as the server takes it, and reads over what it answers. */
static void talk(QCryptoTLSSession *session, const uint8_t *data, size_t size)
{
    static char sink[1 << 14];
    ssize_t len = 0;

    while (size && nbd_server_connections()) {
        struct iovec iov = {(void *)data, size};

        len = qcrypto_tls_session_write(session, &iov, 1, NULL);
        if (len > 0) {
            data += len;
            size -= (size_t)len;
        } else if (len != -EAGAIN) {
            return;
        }
        while (qcrypto_tls_session_read(session, sink, sizeof(sink), NULL) > 0) {
        }
        aio_poll(qemu_get_aio_context(), false);
    }
    while (nbd_server_connections() && qcrypto_tls_session_bye(session) == -EAGAIN) {
        while (qcrypto_tls_session_read(session, sink, sizeof(sink), NULL) > 0) {
        }
        aio_poll(qemu_get_aio_context(), false);
    }
}

static void converse(Client *c, const uint8_t *data, size_t size)
{
    bool secure = data[0] & 1;
    size_t clear = secure ? MIN(data[1], size - 2) : size - 2;
    const QCryptoTLSTransport transport = {.push = push, .pull = pull, .opaque = c};

    data += 2;
    size -= 2;
    send_clear(c, data, clear);
    if (secure && start_tls(c)) {
        QCryptoTLSSession *session =
            qcrypto_tls_session_new_client(client_creds, NULL, &transport, NULL);

        g_assert_nonnull(session);
        if (shake_hands(c, session)) {
            talk(session, data + clear, size - clear);
        }
        qcrypto_tls_session_free(session);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Client c = {.clear = NULL};
    int fds[2];
    QIOChannelSocket *sioc;

    if (size < 2) {
        return 0;
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    sioc = qio_channel_socket_new_fd(fds[0], NULL);
    g_assert_nonnull(sioc);
    c.fd = fds[1];
    c.clear = g_byte_array_new();
    nbd_server_take(sioc);
    converse(&c, data, size);
    shutdown(c.fd, SHUT_WR);
    while (nbd_server_connections()) {
        listen_clear(&c); /* also what would slip out behind an end of TLS */
    }
    check_clear(&c, data, size);
    g_byte_array_unref(c.clear);
    close(c.fd);
    return 0;
}
