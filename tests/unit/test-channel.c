/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Channels: every kind carries bytes as they were sent, between threads and between coroutines,
 * ends when it is shut down from elsewhere, and says why when it fails.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/unit/channel-pair.h"

#define STREAM_SEED  7919u
#define CHUNK_MAX    300000
#define IOV_ELEMENTS 40

/* Bytes that a pair moves each way in a test. */
static size_t stream_bytes = 6 << 20;

static uint8_t stream_byte(size_t pos, unsigned salt)
{
    return (pos * 167 + (pos >> 8) * 31 + (pos >> 16)) ^ salt;
}

/* Splits buf into elements of random size, some of them empty. */
static size_t split_randomly(GRand *rand, uint8_t *buf, size_t bytes, struct iovec *iov)
{
    size_t n = 0;

    while (bytes && n < IOV_ELEMENTS) {
        size_t len = g_rand_int_range(rand, 0, 4) ? g_rand_int_range(rand, 0, 200)
                                                  : g_rand_int_range(rand, 1, 100000);

        len = n == IOV_ELEMENTS - 1 ? bytes : MIN(len, bytes);
        iov[n++] = (struct iovec){buf, len};
        buf += len;
        bytes -= len;
    }
    return n;
}

/* One direction of one end. */
typedef struct Stream {
    QIOChannel *ioc;
    unsigned salt;
    bool co;
    bool done;
} Stream;

static void stream_write(void *opaque)
{
    Stream *s = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(STREAM_SEED + s->salt);
    g_autofree uint8_t *buf = g_malloc(CHUNK_MAX);
    struct iovec iov[IOV_ELEMENTS];

    for (size_t pos = 0; pos < stream_bytes;) {
        size_t chunk = g_rand_int_range(rand, 1, CHUNK_MAX);
        size_t n = MIN(chunk, stream_bytes - pos);
        size_t niov = split_randomly(rand, buf, n, iov);
        g_autoptr(GError) err = NULL;
        int ret;

        for (size_t i = 0; i < n; i++) {
            buf[i] = stream_byte(pos + i, s->salt);
        }
        ret = s->co ? qio_channel_co_writev_all(s->ioc, iov, niov, &err)
                    : qio_channel_writev_all(s->ioc, iov, niov, &err);
        g_assert_no_error(err);
        g_assert_cmpint(ret, ==, 0);
        pos += n;
    }
    s->done = true;
}

static void stream_read(void *opaque)
{
    Stream *s = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(STREAM_SEED + 1 + s->salt);
    g_autofree uint8_t *buf = g_malloc(CHUNK_MAX);
    struct iovec iov[IOV_ELEMENTS];

    for (size_t pos = 0; pos < stream_bytes;) {
        size_t chunk = g_rand_int_range(rand, 1, CHUNK_MAX);
        size_t n = MIN(chunk, stream_bytes - pos);
        size_t niov = split_randomly(rand, buf, n, iov);
        g_autoptr(GError) err = NULL;
        int ret = s->co ? qio_channel_co_readv_all(s->ioc, iov, niov, &err)
                        : qio_channel_readv_all(s->ioc, iov, niov, &err);

        g_assert_no_error(err);
        g_assert_cmpint(ret, ==, 0);
        for (size_t i = 0; i < n; i++) {
            if (buf[i] != stream_byte(pos + i, s->salt)) {
                g_error("byte %zu of stream %u differs", pos + i, s->salt);
            }
        }
        pos += n;
    }
    s->done = true;
}

static void *thread_write(void *opaque)
{
    stream_write(opaque);
    return NULL;
}

static void *thread_read(void *opaque)
{
    stream_read(opaque);
    return NULL;
}

/* --- moving bytes --- */

static void move_by_threads(ChannelPair *pair)
{
    Stream w[2], r[2];
    GThread *threads[4];
    unsigned n = 0;

    for (unsigned i = 0; i < (pair->two_way ? 2 : 1); i++) {
        w[i] = (Stream){.ioc = pair->end[i], .salt = i};
        r[i] = (Stream){.ioc = pair->end[1 - i], .salt = i};
        threads[n++] = g_thread_new("writer", thread_write, &w[i]);
        threads[n++] = g_thread_new("reader", thread_read, &r[i]);
    }
    while (n) {
        g_thread_join(threads[--n]);
    }
}

static void test_threads(const void *kind)
{
    ChannelPair pair = channel_pair_new(kind);

    move_by_threads(&pair);
    channel_pair_clear(&pair);
}

static void test_blocking_threads(const void *kind)
{
    ChannelPair pair = channel_pair_new(kind);

    g_assert_true(qio_channel_set_blocking(pair.end[0], true, NULL));
    g_assert_true(qio_channel_set_blocking(pair.end[1], true, NULL));
    move_by_threads(&pair);
    channel_pair_clear(&pair);
}

static void test_coroutines(const void *kind)
{
    ChannelPair pair = channel_pair_new(kind);
    unsigned ways = pair.two_way ? 2 : 1;
    Stream w[2], r[2];

    for (unsigned i = 0; i < ways; i++) {
        w[i] = (Stream){.ioc = pair.end[i], .salt = i, .co = true};
        r[i] = (Stream){.ioc = pair.end[1 - i], .salt = i, .co = true};
        qemu_coroutine_enter(qemu_coroutine_create(stream_write, &w[i]));
        qemu_coroutine_enter(qemu_coroutine_create(stream_read, &r[i]));
    }
    for (unsigned i = 0; i < ways; i++) {
        while (!w[i].done || !r[i].done) {
            aio_poll(qemu_get_aio_context(), true);
        }
    }
    channel_pair_clear(&pair);
}

/* A coroutine at one end, a thread at the other. */
static void test_mixed(const void *kind)
{
    ChannelPair pair = channel_pair_new(kind);
    Stream w = {.ioc = pair.end[0]}, r = {.ioc = pair.end[1], .co = true};
    GThread *thread = g_thread_new("writer", thread_write, &w);

    qemu_coroutine_enter(qemu_coroutine_create(stream_read, &r));
    while (!r.done) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_thread_join(thread);
    channel_pair_clear(&pair);
}

/* --- shutdown from elsewhere --- */

typedef struct Waiter {
    QIOChannel *ioc;
    bool co, writes;
    int ret;
    GError *err;
    bool done;
} Waiter;

static void wait_for_ever(void *opaque)
{
    Waiter *w = opaque;
    g_autofree uint8_t *buf = g_malloc0(CHUNK_MAX);
    struct iovec iov = {buf, CHUNK_MAX};

    do {
        if (w->writes) {
            w->ret = w->co ? qio_channel_co_writev_all(w->ioc, &iov, 1, &w->err)
                           : qio_channel_writev_all(w->ioc, &iov, 1, &w->err);
        } else {
            w->ret = w->co ? qio_channel_co_readv_all(w->ioc, &iov, 1, &w->err)
                           : qio_channel_readv_all(w->ioc, &iov, 1, &w->err);
        }
    } while (w->ret == 0);
    w->done = true;
}

static void *thread_wait(void *opaque)
{
    wait_for_ever(opaque);
    return NULL;
}

static void waiter_check(Waiter *w)
{
    g_assert_cmpint(w->ret, ==, -EPIPE);
    g_assert_nonnull(w->err);
    if (w->writes) {
        /* "Unable to write to socket: Broken pipe", "... it was shut down" */
        g_assert_true(strstr(w->err->message, "Broken pipe") ||
                      strstr(w->err->message, "shut down"));
    } else {
        g_assert_cmpstr(w->err->message, ==, "Unexpected end-of-file before all data were read");
    }
    g_clear_error(&w->err);
}

static void shutdown_wakes_threads(const void *kind, bool blocking)
{
    /* once with the wait probably begun, and with luck on either side of its beginning */
    for (int round = 0; round < 20; round++) {
        ChannelPair pair = channel_pair_new(kind);
        QIOChannel *both[2] = {pair.end[1], pair.two_way ? pair.end[1] : pair.end[0]};
        Waiter r = {.ioc = both[0]}, w = {.ioc = both[1], .writes = true};
        GThread *reader, *writer = NULL;

        g_assert_true(qio_channel_set_blocking(both[0], blocking, NULL));
        g_assert_true(qio_channel_set_blocking(both[1], blocking, NULL));
        reader = g_thread_new("reader", thread_wait, &r);
        if (pair.two_way) { /* no coroutine reads there, so it gets stuck */
            writer = g_thread_new("writer", thread_wait, &w);
        }
        for (int i = 0; i < round * 20; i++) {
            g_thread_yield();
        }
        qio_channel_shutdown(both[0], QIO_CHANNEL_SHUTDOWN_BOTH);
        g_thread_join(reader);
        waiter_check(&r);
        if (writer) {
            g_thread_join(writer);
            waiter_check(&w);
        }
        channel_pair_clear(&pair);
    }
}

static void test_shutdown_wakes_threads(const void *kind)
{
    shutdown_wakes_threads(kind, false);
}

static void test_shutdown_wakes_blocking_threads(const void *kind)
{
    shutdown_wakes_threads(kind, true);
}

static void *thread_shutdown(void *opaque)
{
    qio_channel_shutdown(opaque, QIO_CHANNEL_SHUTDOWN_BOTH);
    return NULL;
}

static void test_shutdown_wakes_coroutines(const void *kind)
{
    for (int round = 0; round < 2; round++) {
        ChannelPair pair = channel_pair_new(kind);
        bool writes = round == 1;
        /* no coroutine reads what the first end sends */
        Waiter w = {.ioc = pair.end[writes ? 0 : 1], .co = true, .writes = writes};
        GThread *thread;

        qemu_coroutine_enter(qemu_coroutine_create(wait_for_ever, &w));
        g_assert_false(w.done);
        thread = g_thread_new("shutdown", thread_shutdown, w.ioc);
        while (!w.done) {
            aio_poll(qemu_get_aio_context(), true);
        }
        g_thread_join(thread);
        waiter_check(&w);
        channel_pair_clear(&pair);
    }
}

/* --- the end of a stream, deadlines --- */

static void test_end_of_stream(const void *kind)
{
    ChannelPair pair = channel_pair_new(kind);
    g_autoptr(GError) err = NULL;
    uint8_t buf[8];

    g_assert_cmpint(qio_channel_write_all(pair.end[0], "12345", 5, &err), ==, 0);
    channel_pair_leave(&pair, 0);
    g_assert_cmpint(qio_channel_read_all_eof(pair.end[1], buf, 3, &err), ==, 1);
    g_assert_cmpint(qio_channel_read_all(pair.end[1], buf, 3, &err), ==, -EPIPE);
    g_assert_cmpstr(err->message, ==, "Unexpected end-of-file before all data were read");
    g_clear_error(&err);
    g_assert_cmpint(qio_channel_read_all_eof(pair.end[1], buf, 3, &err), ==, 0);
    g_assert_no_error(err);
    channel_pair_clear(&pair);
}

static void test_deadline(const void *kind)
{
    ChannelPair pair = channel_pair_new(kind);
    uint8_t byte;
    struct iovec iov = {&byte, 1};
    QIOChannelAllOptions opts = {.deadline_ns =
                                     qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + 5 * SCALE_MS};
    g_autoptr(GError) err = NULL;

    g_assert_true(qio_channel_set_blocking(pair.end[1], true, NULL));
    g_assert_cmpint(qio_channel_readv_all_full(pair.end[1], &iov, 1, &opts, &err), ==, -ETIMEDOUT);
    g_assert_nonnull(err);
    g_assert_cmpint(qemu_clock_get_ns(QEMU_CLOCK_REALTIME), >=, opts.deadline_ns);
    channel_pair_clear(&pair);
}

/* A vector longer than the kernel takes in one call, of small elements. */
static void test_long_vectors(const void *kind)
{
    ChannelPair pair = channel_pair_new(kind);
    size_t n = 3 * IOV_MAX + 17, len = 30;
    g_autofree uint8_t *buf = g_malloc(n * len);
    g_autofree struct iovec *iov = g_new(struct iovec, n);
    Stream r = {.ioc = pair.end[1], .salt = 3};
    size_t before = stream_bytes;
    GThread *thread;

    stream_bytes = n * len;
    for (size_t i = 0; i < n; i++) {
        iov[i] = (struct iovec){buf + i * len, len};
    }
    for (size_t i = 0; i < n * len; i++) {
        buf[i] = stream_byte(i, 3);
    }
    thread = g_thread_new("reader", thread_read, &r);
    g_assert_cmpint(qio_channel_writev_all(pair.end[0], iov, n, NULL), ==, 0);
    g_thread_join(thread);
    stream_bytes = before;
    channel_pair_clear(&pair);
}

/* --- watches --- */

typedef struct Watched {
    QIOChannel *ioc;
    unsigned char seen;
    bool end;
} Watched;

static void watch_readable(void *opaque)
{
    Watched *w = opaque;
    uint8_t byte = 0;
    ssize_t len = qio_channel_read(w->ioc, &byte, 1, NULL);

    if (len == 1) {
        g_assert_cmpint(byte, ==, w->seen++);
    } else if (len == 0) {
        w->end = true;
        qio_channel_set_watch(w->ioc, NULL, QIO_CHANNEL_READ, NULL, NULL);
    } else {
        g_assert_cmpint(len, ==, -EAGAIN);
    }
}

static void watch_writable(void *opaque)
{
    QIOChannel **ioc = opaque;

    qio_channel_set_watch(*ioc, NULL, QIO_CHANNEL_WRITE, NULL, NULL);
    *ioc = NULL;
}

static void test_watches(const void *kind)
{
    ChannelPair pair = channel_pair_new(kind);
    AioContext *ctx = qemu_get_aio_context();
    Watched w = {.ioc = pair.end[1]};
    QIOChannel *writer = pair.end[0];
    uint8_t bytes[100];

    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = i;
    }
    qio_channel_set_watch(w.ioc, ctx, QIO_CHANNEL_READ, watch_readable, &w);
    qio_channel_set_watch(writer, ctx, QIO_CHANNEL_WRITE, watch_writable, &writer);
    while (writer) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(qio_channel_write_all(pair.end[0], bytes, sizeof(bytes), NULL), ==, 0);
    while (w.seen < sizeof(bytes)) { /* one at a time, though all arrived at once */
        aio_poll(ctx, true);
    }
    qio_channel_detach_aio_context(pair.end[0]);
    channel_pair_leave(&pair, 0);
    while (!w.end) {
        aio_poll(ctx, true);
    }
    channel_pair_clear(&pair);
}

static const struct {
    const char *name;
    GTestDataFunc func;
} tests[] = {
    {"threads", test_threads},
    {"blocking-threads", test_blocking_threads},
    {"coroutines", test_coroutines},
    {"mixed", test_mixed},
    {"shutdown-wakes-threads", test_shutdown_wakes_threads},
    {"shutdown-wakes-blocking-threads", test_shutdown_wakes_blocking_threads},
    {"shutdown-wakes-coroutines", test_shutdown_wakes_coroutines},
    {"end-of-stream", test_end_of_stream},
    {"deadline", test_deadline},
    {"long-vectors", test_long_vectors},
    {"watches", test_watches},
};

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    channel_pairs_init();
    if (g_test_slow()) {
        stream_bytes = (size_t)1 << 30;
    }
    g_test_message("seed %u", STREAM_SEED);
    for (const ChannelKind *kind = channel_kinds; kind->name; kind++) {
        for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
            g_autofree char *path = g_strdup_printf("/channel/%s/%s", kind->name, tests[i].name);

            g_test_add_data_func(path, kind, tests[i].func);
        }
    }
    ret = g_test_run();
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* the loop lets go of handlers in its next turns */
    }
    channel_pairs_cleanup();
    return ret;
}
