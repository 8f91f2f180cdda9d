/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The WebSocket server channel against any client.
 *
 * The first byte chooses. Even: the rest begins with the request. Odd: a good request is sent
 * first, the rest are frames. The second byte chooses the size of the pieces in which it is sent
 * and read. Whatever comes, the server answers in well-formed frames, one close frame at most and
 * nothing behind it.
 */
#include <errno.h>
#include <glib.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "io/channel-socket.h"
#include "io/channel-websock.h"
#include "io/websock-proto.h"
#include "util/aio.h"
#include "util/bswap.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
                              "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

typedef struct Talk {
    QIOChannelWebsock *wioc;
    int fd; /* the client's end */
    size_t piece;
    GByteArray *heard;
    int ret;
    bool done, over;
} Talk;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    g_assert_true(qemu_init_main_loop(NULL));
    return 0;
}

static void coroutine_fn serve(void *opaque)
{
    Talk *t = opaque;
    g_autofree uint8_t *buf = g_malloc(t->piece);
    struct iovec iov = {buf, t->piece};
    ssize_t len = -1;

    t->ret = qio_channel_websock_co_handshake(t->wioc, 0, NULL);
    t->done = true;
    while (t->ret == 0 && (len = qio_channel_co_readv(QIO_CHANNEL(t->wioc), &iov, 1, NULL)) > 0) {
        if (qio_channel_co_write_all(QIO_CHANNEL(t->wioc), buf, len, NULL) < 0) {
            break;
        }
    }
    qio_channel_shutdown(QIO_CHANNEL(t->wioc), QIO_CHANNEL_SHUTDOWN_BOTH);
    t->over = true;
}

/* Takes what the server has sent; it goes on working meanwhile. */
static void hear(Talk *t)
{
    uint8_t buf[16384];
    ssize_t len;

    aio_poll(qemu_get_aio_context(), false);
    while ((len = recv(t->fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
        g_byte_array_append(t->heard, buf, len);
    }
}

static void say(Talk *t, const uint8_t *bytes, size_t size)
{
    while (size && !t->over) {
        ssize_t len = send(t->fd, bytes, MIN(size, t->piece), MSG_DONTWAIT | MSG_NOSIGNAL);

        if (len > 0) {
            bytes += len;
            size -= len;
        } else if (errno != EAGAIN) {
            return;
        }
        hear(t);
    }
}

/* The server's frames, all of them whole. */
static void check_frames(const uint8_t *at, size_t left)
{
    bool closed = false;

    while (left) {
        size_t head = 2, len;

        g_assert_false(closed);
        g_assert_cmpuint(left, >=, 2);
        g_assert_true(at[0] == (0x80 | WEBSOCK_OP_BINARY) || at[0] == (0x80 | WEBSOCK_OP_PONG) ||
                      at[0] == (0x80 | WEBSOCK_OP_CLOSE));
        closed = at[0] == (0x80 | WEBSOCK_OP_CLOSE);
        len = at[1];
        g_assert_cmpuint(len, <=, 126);
        if (len == 126) {
            g_assert_cmpuint(left, >=, 4);
            len = lduw_be_p(at + 2);
            head = 4;
            g_assert_cmpuint(len, >=, 126);
        }
        g_assert_cmpuint(left - head, >=, len);
        at += head + len;
        left -= head + len;
    }
}

static void check(const Talk *t)
{
    const uint8_t *end =
        t->heard->len ? memmem(t->heard->data, t->heard->len, "\r\n\r\n", 4) : NULL;

    if (!end) {
        g_assert_cmpint(t->ret, !=, 0);
        return;
    }
    g_assert_cmpint(memcmp(t->heard->data, "HTTP/1.1 ", 9), ==, 0);
    end += 4;
    if (t->ret == 0) {
        check_frames(end, t->heard->data + t->heard->len - end);
    } else {
        g_assert_true(end == t->heard->data + t->heard->len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Talk t = {.ret = -1};
    QIOChannelSocket *sioc;
    int fds[2];

    if (size < 2) {
        return 0;
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    sioc = qio_channel_socket_new_fd(fds[0], NULL);
    g_assert_nonnull(sioc);
    t.wioc = qio_channel_websock_new_server(QIO_CHANNEL(sioc));
    qio_channel_unref(QIO_CHANNEL(sioc));
    t.fd = fds[1];
    t.piece = data[1] < 128 ? data[1] + 1u : data[1] * 64u;
    t.heard = g_byte_array_new();
    qemu_coroutine_enter(qemu_coroutine_create(serve, &t));
    if (data[0] & 1) {
        say(&t, (const uint8_t *)request, strlen(request));
    }
    say(&t, data + 2, size - 2);
    shutdown(t.fd, SHUT_WR);
    while (!t.over) {
        hear(&t);
    }
    hear(&t);
    check(&t);
    qio_channel_unref(QIO_CHANNEL(t.wioc));
    g_byte_array_unref(t.heard);
    close(t.fd);
    return 0;
}
