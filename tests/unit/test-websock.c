/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The WebSocket server channel against a client made by hand: Data arrives, however it is cut into
 * frames. Frames that break the protocol are refused by the right status. No call waits for ever.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "io/channel-socket.h"
#include "io/channel-websock.h"
#include "io/websock-proto.h"
#include "tests/unit/channel-pair.h"
#include "util/aio.h"
#include "util/bswap.h"
#include "util/timer.h"

#define STREAM_SEED  20260u
#define STREAM_BYTES (3 << 20)

/* The example of RFC 6455, section 1.3. */
#define KEY    "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

#define FIELDS                                                                 \
    "Host: ferry\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" \
    "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n"
#define REQUEST "GET /chat HTTP/1.1\r\n" FIELDS "Sec-WebSocket-Protocol: chat, binary\r\n\r\n"

/* Both ends of a conversation; the client's is a plain channel that speaks the protocol by hand. */
typedef struct Talk {
    ChannelPair pair; /* 0: what the server's channel stands on; 1: the client */
    QIOChannelWebsock *server;
    int ret; /* of the handshake */
    GError *err;
    bool done;
    int64_t timeout_ns;
} Talk;

static void coroutine_fn shake_hands(void *opaque)
{
    Talk *t = opaque;

    t->ret = qio_channel_websock_co_handshake(t->server, t->timeout_ns, &t->err);
    t->done = true;
}

static const ChannelKind *kind_named(const char *name)
{
    const ChannelKind *kind = channel_kinds;

    while (strcmp(kind->name, name) != 0) {
        kind++;
    }
    return kind;
}

static void talk_begin_over(Talk *t, const char *kind)
{
    *t = (Talk){.pair = channel_pair_new(kind_named(kind)), .timeout_ns = t->timeout_ns};
    t->server = qio_channel_websock_new_server(t->pair.end[0]);
    qemu_coroutine_enter(qemu_coroutine_create(shake_hands, t));
}

static void talk_end(Talk *t)
{
    qio_channel_unref(QIO_CHANNEL(t->server));
    g_clear_error(&t->err);
    channel_pair_clear(&t->pair);
}

static void client_send(Talk *t, const void *bytes, size_t len)
{
    g_assert_cmpint(qio_channel_write_all(t->pair.end[1], bytes, len, NULL), ==, 0);
}

/* What the server has sent so far; it has nothing else to do any more. */
static GByteArray *client_hear(Talk *t)
{
    GByteArray *heard = g_byte_array_new();
    uint8_t buf[4096];
    ssize_t len;

    while (aio_poll(qemu_get_aio_context(), false)) {
    }
    while ((len = qio_channel_read(t->pair.end[1], buf, sizeof(buf), NULL)) > 0) {
        g_byte_array_append(heard, buf, len);
    }
    return heard;
}

static void expect_heard(Talk *t, const void *bytes, size_t len)
{
    GByteArray *heard = client_hear(t);

    g_assert_cmpmem(heard->data, heard->len, bytes, len);
    g_byte_array_unref(heard);
}

static void wait_done(Talk *t)
{
    while (!t->done) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

static void talk_open(Talk *t, const char *kind)
{
    t->timeout_ns = 0;
    talk_begin_over(t, kind);
    client_send(t, REQUEST, strlen(REQUEST));
    wait_done(t);
    g_assert_no_error(t->err);
    g_assert_cmpint(t->ret, ==, 0);
    g_byte_array_unref(client_hear(t));
}

/* A client's frame with its mask, appended. */
static void frame_add(GByteArray *to, unsigned first, const void *payload, size_t len)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    uint8_t head[14] = {first, 0x80};
    size_t n = 2;
    guint at;

    if (len < 126) {
        head[1] |= len;
    } else if (len <= UINT16_MAX) {
        head[1] |= 126;
        stw_be_p(head + 2, len);
        n = 4;
    } else {
        head[1] |= 127;
        stq_be_p(head + 2, len);
        n = 10;
    }
    g_byte_array_append(to, head, n);
    g_byte_array_append(to, mask, 4);
    at = to->len;
    g_byte_array_append(to, payload, len);
    for (size_t i = 0; i < len; i++) {
        to->data[at + i] ^= mask[i % 4];
    }
}

static void client_frame(Talk *t, unsigned first, const void *payload, size_t len)
{
    GByteArray *bytes = g_byte_array_new();

    frame_add(bytes, first, payload, len);
    client_send(t, bytes->data, bytes->len);
    g_byte_array_unref(bytes);
}

static void expect_read(Talk *t, const char *text)
{
    char buf[256];
    g_autoptr(GError) err = NULL;
    ssize_t len = qio_channel_read(QIO_CHANNEL(t->server), buf, sizeof(buf), &err);

    g_assert_no_error(err);
    g_assert_cmpmem(buf, MAX(len, 0), text, strlen(text));
}

static ssize_t try_read(Talk *t, GError **errp)
{
    return qio_channel_read(QIO_CHANNEL(t->server), (char[256]){0}, 256, errp);
}

/* --- the opening --- */

static void test_open(gconstpointer kind)
{
    static const char reply[] = "HTTP/1.1 101 Switching Protocols\r\n"
                                "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                                "Sec-WebSocket-Accept: " ACCEPT "\r\n"
                                "Sec-WebSocket-Protocol: binary\r\n\r\n";
    Talk t = {.timeout_ns = 0};

    talk_begin_over(&t, kind);
    for (const char *byte = REQUEST; *byte; byte++) {
        g_assert_false(t.done);
        client_send(&t, byte, 1);
        while (aio_poll(qemu_get_aio_context(), false)) {
        }
    }
    wait_done(&t);
    g_assert_no_error(t.err);
    expect_heard(&t, reply, strlen(reply));
    client_frame(&t, 0x82, "hello", 5);
    expect_read(&t, "hello");
    g_assert_cmpint(qio_channel_write(QIO_CHANNEL(t.server), "world", 5, NULL), ==, 5);
    expect_heard(&t, "\x82\x05world", 7);
    talk_end(&t);
}

static void test_open_without_subprotocol(void)
{
    static const char request[] = "GET / HTTP/1.1\r\n" FIELDS "\r\n";
    g_autofree char *reply = NULL;
    size_t used;

    g_assert_cmpint(
        websock_request_parse((const uint8_t *)request, strlen(request), &used, &reply, NULL), ==,
        WEBSOCK_REQUEST_ACCEPTED);
    g_assert_cmpuint(used, ==, strlen(request));
    g_assert_nonnull(strstr(reply, ACCEPT));
    g_assert_null(strstr(reply, "Protocol:"));
}

/* Frames that came with the request are not lost, and a reader need not wait for more of them. */
static void test_frames_right_behind_the_request(void)
{
    GByteArray *bytes = g_byte_array_new();
    Talk t = {.timeout_ns = 0};

    g_byte_array_append(bytes, (const uint8_t *)REQUEST, strlen(REQUEST));
    frame_add(bytes, 0x82, "one", 3);
    frame_add(bytes, 0x82, "two", 3);
    talk_begin_over(&t, "unix");
    client_send(&t, bytes->data, bytes->len);
    wait_done(&t);
    g_assert_cmpint(qio_channel_wait(QIO_CHANNEL(t.server), QIO_CHANNEL_READ, 1), ==, 0);
    expect_read(&t, "onetwo");
    g_assert_cmpint(try_read(&t, NULL), ==, -EAGAIN);
    g_assert_cmpint(qio_channel_wait(QIO_CHANNEL(t.server), QIO_CHANNEL_READ, 1), ==, -ETIMEDOUT);
    g_byte_array_unref(bytes);
    talk_end(&t);
}

static const struct {
    const char *request, *status, *message;
} refused[] = {
    {"HELO\r\n\r\n", "400", "begin with a GET"},
    {"POST / HTTP/1.1\r\n" FIELDS "\r\n", "400", "begin with a GET"},
    {"GET / HTTP/1.0\r\n" FIELDS "\r\n", "400", "begin with a GET"},
    {"GET  HTTP/1.1\r\n" FIELDS "\r\n", "400", "begin with a GET"},
    {"GET / HTTP/1.1\r\nno colon\r\n" FIELDS "\r\n", "400", "malformed"},
    {"GET / HTTP/1.1\r\n" FIELDS " folded: x\r\n\r\n", "400", "malformed"},
    {"GET / HTTP/1.1\r\n" FIELDS "X: a\nY: b\r\n\r\n", "400", "malformed"},
    {"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " KEY
     "\r\nSec-WebSocket-Version: 13\r\n\r\n",
     "400", "no Host"},
    {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "400", "upgrade to websocket"},
    {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "400",
     "upgrade to websocket"},
    {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: close\r\n\r\n", "400",
     "upgrade to websocket"},
    {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
     "Sec-WebSocket-Version: 13\r\n\r\n",
     "400", "16 bytes"},
    {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
     "Sec-WebSocket-Key: AAAA\r\nSec-WebSocket-Version: 13\r\n\r\n",
     "400", "16 bytes"},
    {"GET / HTTP/1.1\r\n" FIELDS "Sec-WebSocket-Key: " KEY "\r\n\r\n", "400", "16 bytes"},
    {"GET / HTTP/1.1\r\n" FIELDS "Sec-WebSocket-Protocol: chat\r\n\r\n", "400", "'binary'"},
    {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
     "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 8\r\n\r\n",
     "426", "version 13"},
};

static void test_refused(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++) {
        Talk t = {.timeout_ns = 0};
        GByteArray *heard;
        g_autofree char *line = g_strdup_printf("HTTP/1.1 %s ", refused[i].status);

        talk_begin_over(&t, "unix");
        client_send(&t, refused[i].request, strlen(refused[i].request));
        wait_done(&t);
        g_assert_cmpint(t.ret, ==, -EPROTO);
        if (!strstr(t.err->message, refused[i].message)) {
            g_error("request %zu: %s", i, t.err->message);
        }
        heard = client_hear(&t);
        g_assert_cmpmem(heard->data, MIN(heard->len, strlen(line)), line, strlen(line));
        g_byte_array_unref(heard);
        talk_end(&t);
    }
}

static void test_refused_when_too_long(void)
{
    g_autofree char *request = g_strnfill(WEBSOCK_REQUEST_MAX, 'x');
    Talk t = {.timeout_ns = 0};
    GByteArray *heard;

    talk_begin_over(&t, "unix");
    client_send(&t, request, WEBSOCK_REQUEST_MAX - 1);
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
    g_assert_false(t.done);
    client_send(&t, request, 1);
    wait_done(&t);
    g_assert_cmpint(t.ret, ==, -EPROTO);
    heard = client_hear(&t);
    g_assert_cmpmem(heard->data, 12, "HTTP/1.1 431", 12);
    g_byte_array_unref(heard);
    talk_end(&t);
}

/* A client that says nothing, and one that never comes to the end. */
static void test_deadline(void)
{
    static const char *const begins[] = {"", "GET / HTTP/1.1\r\nHost:"};

    for (size_t i = 0; i < G_N_ELEMENTS(begins); i++) {
        Talk t = {.timeout_ns = 20 * SCALE_MS};

        talk_begin_over(&t, "unix");
        client_send(&t, begins[i], strlen(begins[i]));
        wait_done(&t);
        g_assert_cmpint(t.ret, ==, -ETIMEDOUT);
        g_assert_nonnull(strstr(t.err->message, "timed out"));
        talk_end(&t);
    }
}

static void test_cancelled_and_left(void)
{
    Talk t = {.timeout_ns = 0};

    talk_begin_over(&t, "unix");
    qio_channel_shutdown(QIO_CHANNEL(t.server), QIO_CHANNEL_SHUTDOWN_BOTH);
    wait_done(&t);
    g_assert_cmpint(t.ret, ==, -ECANCELED);
    talk_end(&t);
    talk_begin_over(&t, "unix");
    channel_pair_leave(&t.pair, 1);
    wait_done(&t);
    g_assert_cmpint(t.ret, ==, -ECONNABORTED);
    talk_end(&t);
}

/* --- frames --- */

static void test_fragments_and_pings(void)
{
    GByteArray *bytes = g_byte_array_new();
    g_autoptr(GString) got = g_string_new(NULL);
    Talk t;

    talk_open(&t, "unix");
    frame_add(bytes, 0x02, "frag", 4);
    frame_add(bytes, 0x89, "are you there", 13);
    frame_add(bytes, 0x00, "", 0);
    frame_add(bytes, 0x8a, "unasked", 7);
    frame_add(bytes, 0x00, "men", 3);
    frame_add(bytes, 0x80, "ted", 3);
    frame_add(bytes, 0x82, "", 0);
    frame_add(bytes, 0x82, "!", 1);
    for (guint i = 0; i < bytes->len; i++) { /* wherever a read ends */
        char byte;
        ssize_t len;

        client_send(&t, bytes->data + i, 1);
        len = qio_channel_read(QIO_CHANNEL(t.server), &byte, 1, NULL);
        g_assert_true(len == -EAGAIN || len == 1);
        g_string_append_len(got, &byte, MAX(len, 0));
    }
    g_assert_cmpstr(got->str, ==, "fragmented!");
    expect_heard(&t,
                 "\x8a\x0d"
                 "are you there",
                 15);
    g_byte_array_unref(bytes);
    talk_end(&t);
}

/* Lengths around the ends of their forms, and a reader with small buffers. */
static void test_lengths(void)
{
    static const size_t lengths[] = {1, 125, 126, 127, 16383, 65535, 65536, 100000};
    g_autofree uint8_t *payload = g_malloc(100000), *got = g_malloc(100000);
    Talk t;

    for (size_t i = 0; i < 100000; i++) {
        payload[i] = i * 7 + (i >> 8);
    }
    talk_open(&t, "unix");
    for (size_t i = 0; i < G_N_ELEMENTS(lengths); i++) {
        client_frame(&t, 0x82, payload, lengths[i]);
        g_assert_cmpint(qio_channel_read_all(QIO_CHANNEL(t.server), got, lengths[i], NULL), ==, 0);
        g_assert_cmpmem(got, lengths[i], payload, lengths[i]);
    }
    talk_end(&t);
}

static const struct {
    const char *bytes;
    size_t len;
    unsigned status;
} broken[] = {
#define CASE(bytes, status)              \
    {                                    \
        bytes, sizeof(bytes) - 1, status \
    }
    CASE("\x82\x01x", 1002),    /* no mask */
    CASE("\xc2\x80mask", 1002), /* a reserved bit */
    CASE("\x83\x80mask", 1002), /* unknown opcodes */
    CASE("\x8b\x80mask", 1002),
    CASE("\x80\x80mask", 1002),             /* continues nothing */
    CASE("\x02\x80mask\x82\x80mask", 1002), /* a message within a message */
    CASE("\x02\x80mask\x81\x80mask", 1002),
    CASE("\x09\x80mask", 1002),         /* a control frame in pieces */
    CASE("\x89\xfe\x00\x7emask", 1002), /* a long one */
    CASE("\x82\xfe\x00\x7dmask", 1002), /* lengths in a longer form than needed */
    CASE("\x82\xff\0\0\0\0\0\0\xff\xffmask", 1002),
    CASE("\x82\xff\x80\0\0\0\0\0\0\0mask", 1002), /* 2^63 bytes */
    CASE("\x81\x80mask", 1003),                   /* text */
    CASE("\x01\x80mask", 1003),
    CASE("\x88\x81maskx", 1002),            /* half a status */
    CASE("\x88\x82\0\0\0\0\x03\xed", 1002), /* 1005 is not for the wire */
    CASE("\x88\x82\0\0\0\0\x00\x01", 1002),
    CASE("\x88\x83\0\0\0\0\x03\xe8\xff", 1002), /* a reason that is no text */
#undef CASE
};

static void test_broken_protocol(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(broken); i++) {
        g_autoptr(GError) err = NULL;
        GByteArray *heard;
        Talk t;

        talk_open(&t, "unix");
        client_send(&t, broken[i].bytes, broken[i].len);
        g_assert_cmpint(try_read(&t, &err), ==, -EPROTO);
        g_assert_nonnull(err);
        g_assert_cmpint(try_read(&t, NULL), ==, -EPROTO);
        g_assert_cmpint(qio_channel_wait(QIO_CHANNEL(t.server), QIO_CHANNEL_READ, 1), ==, 0);
        heard = client_hear(&t);
        g_assert_cmpuint(heard->len, >=, 4);
        g_assert_cmphex(heard->data[0], ==, 0x88);
        g_assert_cmpuint(heard->data[1], ==, heard->len - 2);
        if ((unsigned)lduw_be_p(heard->data + 2) != broken[i].status) {
            g_error("case %zu: status %d", i, lduw_be_p(heard->data + 2));
        }
        g_assert_cmpmem(heard->data + 4, heard->len - 4, err->message, strlen(err->message));
        g_assert_cmpint(qio_channel_write(QIO_CHANNEL(t.server), "x", 1, NULL), ==, -EPIPE);
        g_byte_array_unref(heard);
        talk_end(&t);
    }
}

/* --- the end --- */

static void test_peer_closes(void)
{
    static const struct {
        const char *payload;
        size_t len;
    } cases[] = {{"", 0},
                 {"\x03\xe8", 2},
                 {"\x03\xe9"
                  "going away",
                  12},
                 {"\x0f\xa0", 2}};

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint8_t answer[4] = {0x88, cases[i].len ? 2 : 0};
        Talk t;

        memcpy(answer + 2, cases[i].payload, answer[1]);
        talk_open(&t, "unix");
        client_frame(&t, 0x82, "last", 4);
        client_frame(&t, 0x88, cases[i].payload, cases[i].len);
        expect_read(&t, "last");
        g_assert_cmpint(try_read(&t, NULL), ==, 0);
        g_assert_cmpint(try_read(&t, NULL), ==, 0);
        expect_heard(&t, answer, 2 + answer[1]);
        g_assert_cmpint(qio_channel_write(QIO_CHANNEL(t.server), "x", 1, NULL), ==, -EPIPE);
        talk_end(&t);
    }
}

static void test_peer_leaves(void)
{
    g_autoptr(GError) err = NULL;
    struct iovec iov = {(char[8]){0}, 8};
    Talk t;

    talk_open(&t, "unix");
    client_frame(&t, 0x82, "last", 4);
    channel_pair_leave(&t.pair, 1);
    expect_read(&t, "last");
    g_assert_cmpint(try_read(&t, &err), ==, -ECONNABORTED);
    g_assert_nonnull(err);
    g_assert_cmpint(qio_channel_readv_full(QIO_CHANNEL(t.server), &iov, 1, NULL,
                                           QIO_CHANNEL_READ_FLAG_RELAXED_EOF, NULL),
                    ==, 0);
    talk_end(&t);
}

static void test_shutdown_and_close_say_bye(void)
{
    Talk t;

    talk_open(&t, "unix");
    qio_channel_shutdown(QIO_CHANNEL(t.server), QIO_CHANNEL_SHUTDOWN_BOTH);
    expect_heard(&t, "\x88\x02\x03\xe8", 4);
    g_assert_cmpint(try_read(&t, NULL), ==, 0);
    g_assert_cmpint(qio_channel_write(QIO_CHANNEL(t.server), "x", 1, NULL), ==, -EPIPE);
    talk_end(&t);
    talk_open(&t, "unix");
    g_assert_cmpint(qio_channel_close(QIO_CHANNEL(t.server), NULL), ==, 0);
    expect_heard(&t, "\x88\x02\x03\xe8", 4);
    talk_end(&t);
    talk_open(&t, "unix");
    qio_channel_unref(QIO_CHANNEL(t.server));
    t.server = NULL;
    expect_heard(&t, "\x88\x02\x03\xe8", 4);
    talk_end(&t);
}

/* --- waiting --- */

static void count_calls(void *opaque)
{
    ++*(unsigned *)opaque;
}

/* Control frames are answered and do not wake a reader that waits for bytes. */
static void test_watch_is_not_told_of_pings(void)
{
    unsigned calls = 0;
    Talk t;

    talk_open(&t, "unix");
    qio_channel_set_watch(QIO_CHANNEL(t.server), qemu_get_aio_context(), QIO_CHANNEL_READ,
                          count_calls, &calls);
    client_frame(&t, 0x89, "", 0);
    expect_heard(&t, "\x8a\x00", 2);
    g_assert_cmpuint(calls, ==, 0);
    client_frame(&t, 0x82, "x", 1);
    while (!calls) {
        aio_poll(qemu_get_aio_context(), true);
    }
    expect_read(&t, "x");
    qio_channel_set_watch(QIO_CHANNEL(t.server), NULL, QIO_CHANNEL_READ, NULL, NULL);
    talk_end(&t);
}

typedef struct Toggler {
    QIOChannel *ioc;
    unsigned calls;
} Toggler;

static void toggle_watch(void *opaque)
{
    Toggler *tg = opaque;

    tg->calls++;
    qio_channel_set_watch(tg->ioc, NULL, QIO_CHANNEL_READ, NULL, NULL);
    qio_channel_set_watch(tg->ioc, qemu_get_aio_context(), QIO_CHANNEL_READ, toggle_watch, tg);
}

/* However often a user sets its watch while bytes are at hand, it is called once a turn. */
static void test_watch_set_again_is_one_watch(void)
{
    Talk t;
    Toggler tg = {NULL, 0};

    talk_open(&t, "unix");
    client_frame(&t, 0x82, "xy", 2);
    g_assert_cmpint(qio_channel_read(QIO_CHANNEL(t.server), (char[1]){0}, 1, NULL), ==, 1);
    tg.ioc = QIO_CHANNEL(t.server);
    qio_channel_set_watch(tg.ioc, qemu_get_aio_context(), QIO_CHANNEL_READ, toggle_watch, &tg);
    for (unsigned turn = 0; turn < 20; turn++) {
        aio_poll(qemu_get_aio_context(), false);
    }
    g_assert_cmpuint(tg.calls, >, 0);
    g_assert_cmpuint(tg.calls, <=, 40);
    qio_channel_set_watch(tg.ioc, NULL, QIO_CHANNEL_READ, NULL, NULL);
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
    talk_end(&t);
}

static void read_all(void *opaque)
{
    (void)try_read(opaque, NULL);
}

/* A pong that did not fit leaves when the peer has read, although no coroutine writes. */
static void test_pong_leaves_when_there_is_room(void)
{
    static const uint8_t zeroes[65536];
    size_t sent = 0, heard_bytes = 0, frames = 0;
    ssize_t len;
    GByteArray *heard, *all = g_byte_array_new();
    Talk t;

    talk_open(&t, "unix-tiny");
    do {
        len = qio_channel_write(QIO_CHANNEL(t.server), zeroes, sizeof(zeroes), NULL);
        sent += MAX(len, 0);
        frames++;
    } while (len > 0);
    g_assert_cmpint(len, ==, -EAGAIN);
    qio_channel_set_watch(QIO_CHANNEL(t.server), qemu_get_aio_context(), QIO_CHANNEL_READ, read_all,
                          &t);
    client_frame(&t, 0x89, "first", 5);
    client_frame(&t, 0x89, "still?", 6);
    do { /* only the last ping needs an answer */
        aio_poll(qemu_get_aio_context(), all->len > 0);
        heard = client_hear(&t);
        g_byte_array_append(all, heard->data, heard->len);
        heard_bytes += heard->len;
        g_byte_array_unref(heard);
    } while (all->len < 8 || memcmp(all->data + all->len - 8, "\x8a\x06still?", 8) != 0);
    g_assert_cmpuint(heard_bytes, >, sent + frames);
    g_assert_null(memmem(all->data, all->len, "first", 5));
    qio_channel_set_watch(QIO_CHANNEL(t.server), NULL, QIO_CHANNEL_READ, NULL, NULL);
    g_byte_array_unref(all);
    talk_end(&t);
}

/* --- streams --- */

static uint8_t stream_byte(size_t pos, unsigned salt)
{
    return (pos * 131 + (pos >> 8) * 17 + (pos >> 16)) ^ salt;
}

static void fill(uint8_t *buf, size_t pos, size_t n, unsigned salt)
{
    for (size_t i = 0; i < n; i++) {
        buf[i] = stream_byte(pos + i, salt);
    }
}

/* The client's sending half: messages in pieces of any length, pings between them. */
static void *client_talks(void *opaque)
{
    Talk *t = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(STREAM_SEED);
    g_autofree uint8_t *buf = g_malloc(70000);
    bool within = false;

    for (size_t pos = 0; pos < STREAM_BYTES;) {
        size_t n = g_rand_int_range(rand, 0, 4) ? g_rand_int_range(rand, 0, 300)
                                                : g_rand_int_range(rand, 0, 70000);
        bool fin = g_rand_boolean(rand);

        n = MIN(n, STREAM_BYTES - pos);
        fill(buf, pos, n, 1);
        client_frame(t, (fin ? 0x80 : 0) | (within ? 0 : 2), buf, n);
        within = !fin;
        if (!g_rand_int_range(rand, 0, 20)) {
            client_frame(t, 0x89, "ping", 4);
        }
        pos += n;
    }
    return NULL;
}

static void client_read(Talk *t, void *buf, size_t n)
{
    g_assert_cmpint(qio_channel_read_all(t->pair.end[1], buf, n, NULL), ==, 0);
}

/* The client's receiving half. */
static void *client_listens(void *opaque)
{
    Talk *t = opaque;
    g_autofree uint8_t *buf = g_malloc(1 << 17), *want = g_malloc(1 << 17);

    for (size_t pos = 0; pos < STREAM_BYTES;) {
        uint8_t head[2], ext[8];
        size_t n;

        client_read(t, head, 2);
        n = head[1];
        if (n == 126) {
            client_read(t, ext, 2);
            n = lduw_be_p(ext);
        } else if (n == 127) {
            client_read(t, ext, 8);
            n = ldq_be_p(ext);
        }
        g_assert_cmpuint(n, <=, 1 << 17);
        client_read(t, buf, n);
        if (head[0] == 0x8a) {
            g_assert_cmpmem(buf, n, "ping", 4);
            continue;
        }
        g_assert_cmphex(head[0], ==, 0x82);
        fill(want, pos, n, 2);
        g_assert_cmpmem(buf, n, want, n);
        pos += n;
    }
    return NULL;
}

typedef struct Stream {
    Talk *t;
    bool done;
} Stream;

static void coroutine_fn server_talks(void *opaque)
{
    Stream *s = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(STREAM_SEED + 1);
    g_autofree uint8_t *buf = g_malloc(100000);

    for (size_t pos = 0; pos < STREAM_BYTES;) {
        size_t n = MIN((size_t)g_rand_int_range(rand, 1, 100000), STREAM_BYTES - pos);

        fill(buf, pos, n, 2);
        g_assert_cmpint(qio_channel_co_write_all(QIO_CHANNEL(s->t->server), buf, n, NULL), ==, 0);
        pos += n;
    }
    s->done = true;
}

static void coroutine_fn server_listens(void *opaque)
{
    Stream *s = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(STREAM_SEED + 2);
    g_autofree uint8_t *buf = g_malloc(100000), *want = g_malloc(100000);

    for (size_t pos = 0; pos < STREAM_BYTES;) {
        size_t n = MIN((size_t)g_rand_int_range(rand, 1, 100000), STREAM_BYTES - pos);

        g_assert_cmpint(qio_channel_co_read_all(QIO_CHANNEL(s->t->server), buf, n, NULL), ==, 0);
        fill(want, pos, n, 1);
        g_assert_cmpmem(buf, n, want, n);
        pos += n;
    }
    s->done = true;
}

static void test_stream(gconstpointer kind)
{
    Talk t;
    Stream w = {&t, false}, r = {&t, false};
    GThread *talks, *listens;

    talk_open(&t, kind);
    talks = g_thread_new("talks", client_talks, &t);
    listens = g_thread_new("listens", client_listens, &t);
    qemu_coroutine_enter(qemu_coroutine_create(server_talks, &w));
    qemu_coroutine_enter(qemu_coroutine_create(server_listens, &r));
    while (!w.done || !r.done) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_thread_join(talks);
    g_thread_join(listens);
    talk_end(&t);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    channel_pairs_init();
    g_test_add_data_func("/websock/open", "unix", test_open);
    g_test_add_data_func("/websock/open-over-tls", "tls-unix", test_open);
    g_test_add_func("/websock/open-without-subprotocol", test_open_without_subprotocol);
    g_test_add_func("/websock/frames-right-behind-the-request",
                    test_frames_right_behind_the_request);
    g_test_add_func("/websock/refused", test_refused);
    g_test_add_func("/websock/refused-when-too-long", test_refused_when_too_long);
    g_test_add_func("/websock/deadline", test_deadline);
    g_test_add_func("/websock/cancelled-and-left", test_cancelled_and_left);
    g_test_add_func("/websock/fragments-and-pings", test_fragments_and_pings);
    g_test_add_func("/websock/lengths", test_lengths);
    g_test_add_func("/websock/broken-protocol", test_broken_protocol);
    g_test_add_func("/websock/peer-closes", test_peer_closes);
    g_test_add_func("/websock/peer-leaves", test_peer_leaves);
    g_test_add_func("/websock/shutdown-and-close-say-bye", test_shutdown_and_close_say_bye);
    g_test_add_func("/websock/watch-is-not-told-of-pings", test_watch_is_not_told_of_pings);
    g_test_add_func("/websock/watch-set-again-is-one-watch", test_watch_set_again_is_one_watch);
    g_test_add_func("/websock/pong-leaves-when-there-is-room", test_pong_leaves_when_there_is_room);
    g_test_add_data_func("/websock/stream", "unix-tiny", test_stream);
    g_test_add_data_func("/websock/stream-over-tls", "tls-tcp", test_stream);
    ret = g_test_run();
    channel_pairs_cleanup();
    return ret;
}
