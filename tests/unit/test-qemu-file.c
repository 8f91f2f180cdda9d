/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMUFile: what is put comes out, however the channel cuts it; pages land where they belong. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/channel-file.h"
#include "io/channel-socket.h"
#include "io/channel.h"
#include "util/bswap.h"
#include "util/error.h"
#include "util/iov.h"
#include "vmstate/qemu-file.h"

/* --- a channel that gives and takes random pieces, and sometimes nothing --- */

typedef struct PiecesChannel {
    QIOChannel parent;
    GRand *rand;
    int ready_fd;     /* always readable */
    GByteArray *data; /* what is written is read */
    size_t at;
    size_t max_piece;
    bool stutters; /* one call in three is told to wait */
    unsigned calls, waits;
    size_t fail_at; /* fails with -ECONNRESET when so many bytes have passed */
} PiecesChannel;

static size_t pieces_next(PiecesChannel *c, size_t size)
{
    size_t piece = g_rand_int_range(c->rand, 1, c->max_piece + 1);

    return MIN(size, piece);
}

static ssize_t pieces_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                            QIOChannelFds *fds, int flags, GError **errp)
{
    PiecesChannel *c = (PiecesChannel *)ioc;
    size_t size = MIN(iov_size(iov, niov), c->data->len - c->at);

    c->calls++;
    if (c->fail_at && c->at >= c->fail_at) {
        error_setg(errp, "The cable is cut");
        return -ECONNRESET;
    }
    if (size == 0) {
        return 0;
    }
    if (c->stutters && g_rand_int_range(c->rand, 0, 3) == 0) {
        return -EAGAIN;
    }
    size = iov_from_buf(iov, niov, 0, c->data->data + c->at, pieces_next(c, size));
    c->at += size;
    return size;
}

static ssize_t pieces_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                             const QIOChannelFds *fds, int flags, GError **errp)
{
    PiecesChannel *c = (PiecesChannel *)ioc;
    size_t size = pieces_next(c, iov_size(iov, niov));
    guint old = c->data->len;

    c->calls++;
    g_assert_cmpint(niov, <=, 1024);
    for (size_t i = 0; i < niov; i++) {
        g_assert_cmpint(iov[i].iov_len, >, 0);
    }
    if (c->fail_at && old >= c->fail_at) {
        error_setg(errp, "The cable is cut");
        return -ECONNRESET;
    }
    if (c->stutters && g_rand_int_range(c->rand, 0, 3) == 0) {
        return -EAGAIN;
    }
    g_byte_array_set_size(c->data, old + size);
    return iov_to_buf(iov, niov, 0, c->data->data + old, size);
}

static int pieces_poll_fd(QIOChannel *ioc, QIOChannelDirection dir, short *events)
{
    PiecesChannel *c = (PiecesChannel *)ioc;

    c->waits++;
    return c->ready_fd;
}

static void pieces_finalize(QIOChannel *ioc)
{
    PiecesChannel *c = (PiecesChannel *)ioc;

    close(c->ready_fd);
    g_rand_free(c->rand);
    g_byte_array_unref(c->data);
}

static int pieces_shutdown(QIOChannel *ioc, QIOChannelShutdown how)
{
    return 0;
}

static const QIOChannelClass pieces_class = {
    .name = "pieces",
    .instance_size = sizeof(PiecesChannel),
    .readv = pieces_readv,
    .writev = pieces_writev,
    .poll_fd = pieces_poll_fd,
    .shutdown = pieces_shutdown,
    .finalize = pieces_finalize,
};

static PiecesChannel *pieces_new(guint32 seed, size_t max_piece, bool stutters)
{
    PiecesChannel *c = (PiecesChannel *)qio_channel_alloc(&pieces_class, NULL);

    c->rand = g_rand_new_with_seed(seed);
    c->ready_fd = eventfd(1, EFD_CLOEXEC);
    c->data = g_byte_array_new();
    c->max_piece = max_piece;
    c->stutters = stutters;
    return c;
}

/* --- writing and reading --- */

static void test_values(void)
{
    static const uint8_t expect[] = {0xab, 0x12, 0x34, 0xde, 0xad, 0xbe, 0xef, 1,   2,   3,   4,
                                     5,    6,    7,    8,    3,    'r',  'a',  'm', 'x', 'y', 'z'};
    g_autoptr(QEMUFile) out = qemu_file_new_memory_output(1000);
    g_autoptr(QEMUFile) in = NULL;
    g_autoptr(GBytes) bytes = NULL;
    const uint8_t *peek;
    char name[256], rest[3];
    size_t size;

    qemu_put_byte(out, 0xab);
    qemu_put_be16(out, 0x1234);
    qemu_put_be32(out, 0xdeadbeef);
    qemu_put_be64(out, 0x0102030405060708);
    qemu_put_counted_string(out, "ram");
    qemu_put_buffer_async(out, "xyz", 3);
    g_assert_cmpint(qemu_file_transferred(out), ==, sizeof(expect));
    g_assert_cmpint(qemu_file_moved(out), ==, 0);
    bytes = qemu_file_memory_steal(out);
    g_assert_cmpint(qemu_file_moved(out), ==, sizeof(expect));
    g_assert_cmpmem(g_bytes_get_data(bytes, &size), g_bytes_get_size(bytes), expect,
                    sizeof(expect));

    in = qemu_file_new_memory_input(bytes);
    g_assert_cmpint(qemu_peek_buffer(in, &peek, 3), ==, 3);
    g_assert_cmpmem(peek, 3, expect, 3);
    g_assert_cmphex(qemu_get_byte(in), ==, 0xab);
    g_assert_cmphex(qemu_get_be16(in), ==, 0x1234);
    g_assert_cmphex(qemu_get_be32(in), ==, 0xdeadbeef);
    g_assert_cmphex(qemu_get_be64(in), ==, 0x0102030405060708);
    g_assert_cmpint(qemu_get_counted_string(in, name), ==, 3);
    g_assert_cmpstr(name, ==, "ram");
    g_assert_cmpint(qemu_file_transferred(in), ==, sizeof(expect) - 3);
    g_assert_false(qemu_file_at_end(in));
    g_assert_cmpint(qemu_get_buffer(in, rest, 3), ==, 0);
    g_assert_true(qemu_file_at_end(in));
    g_assert_cmpint(qemu_file_get_error(in), ==, 0);
}

static void test_end_of_stream_is_an_error_that_names_the_offset(void)
{
    g_autoptr(GBytes) bytes = g_bytes_new_static("12345", 5);
    g_autoptr(QEMUFile) in = qemu_file_new_memory_input(bytes);
    g_autoptr(GError) err = NULL;
    const uint8_t *peek;

    g_assert_cmphex(qemu_get_be16(in), ==, 0x3132);
    g_assert_cmpint(qemu_peek_buffer(in, &peek, 10), ==, 3);
    g_assert_cmpint(qemu_file_get_error(in), ==, 0);
    g_assert_cmphex(qemu_get_be32(in), ==, 0);
    g_assert_cmpint(qemu_file_get_error_obj(in, &err), ==, -EIO);
    g_assert_cmpstr(err->message, ==, "Unexpected end of the migration stream at offset 0x5");
    g_assert_cmphex(qemu_get_byte(in), ==, 0);
    g_assert_cmpint(qemu_peek_buffer(in, &peek, 1), ==, 0);
    g_assert_cmpint(qemu_fclose(g_steal_pointer(&in)), ==, -EIO);
}

static void test_memory_output_is_bounded(void)
{
    g_autoptr(QEMUFile) out = qemu_file_new_memory_output(10);

    qemu_put_buffer(out, "0123456789", 10);
    g_assert_cmpint(qemu_fflush(out), ==, 0);
    qemu_put_byte(out, 1);
    g_assert_cmpint(qemu_fflush(out), ==, -ENOSPC);
    g_assert_null(qemu_file_memory_steal(out));
}

/* Copied and referenced pieces of all sizes leave in order, in vectors of bounded length. */
static void test_order_is_kept(void)
{
    for (guint32 seed = 1; seed <= 20; seed++) {
        PiecesChannel *c = pieces_new(seed, seed % 2 ? 100 : 300000, seed % 3 == 0);
        g_autoptr(QEMUFile) out = qemu_file_new_output(&c->parent);
        g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
        g_autoptr(GByteArray) expect = g_byte_array_new();
        g_autofree uint8_t *memory = g_malloc(1 << 20);

        for (size_t i = 0; i < 1 << 20; i++) {
            memory[i] = g_rand_int(rand);
        }
        for (int i = 0; i < 3000; i++) {
            bool async = g_rand_boolean(rand);
            size_t size = g_rand_int_range(rand, 0, async ? 5000 : i % 100 == 0 ? 70000 : 20);
            const uint8_t *from = memory + g_rand_int_range(rand, 0, (1 << 20) - size);

            (async ? qemu_put_buffer_async : qemu_put_buffer)(out, from, size);
            g_byte_array_append(expect, from, size);
            g_assert_cmpint(qemu_file_transferred(out), ==, expect->len);
        }
        g_assert_cmpint(qemu_fflush(out), ==, 0);
        g_assert_cmpint(qemu_file_moved(out), ==, expect->len);
        g_assert_cmpmem(c->data->data, c->data->len, expect->data, expect->len);
        g_assert_true((c->waits > 0) == c->stutters);
        qio_channel_unref(&c->parent);
    }
}

/* Every way of reading, in random order, over a channel that cuts at random. */
static void test_reads_of_all_kinds(void)
{
    for (guint32 seed = 1; seed <= 30; seed++) {
        PiecesChannel *c = pieces_new(seed, seed % 2 ? 50 : 100000, seed % 3 == 0);
        g_autoptr(QEMUFile) in = qemu_file_new_input(&c->parent);
        g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
        g_autofree uint8_t *buf = g_malloc(200000);
        const uint8_t *all, *peek;
        size_t at = 0, total = 2000000;

        for (size_t i = 0; i < total; i++) {
            uint8_t byte = g_rand_int(rand);
            g_byte_array_append(c->data, &byte, 1);
        }
        all = c->data->data;
        while (at < total - 200000) {
            size_t n = g_rand_int_range(rand, 0, g_rand_int_range(rand, 1, 100000));
            struct iovec iov[4] = {{buf, n / 3}, {buf + n / 3, 0}, {buf + n / 3, n - n / 3}, {0}};

            g_assert_cmpint(qemu_file_transferred(in), ==, at);
            switch (g_rand_int_range(rand, 0, 6)) {
            case 0:
                g_assert_cmphex(qemu_get_be64(in), ==, ldq_be_p(all + at));
                at += 8;
                break;
            case 1:
                g_assert_cmpint(qemu_get_buffer(in, buf, n), ==, 0);
                g_assert_cmpmem(buf, n, all + at, n);
                at += n;
                break;
            case 2:
                g_assert_cmpint(qemu_get_buffer_vec(in, iov, 4), ==, 0);
                g_assert_cmpmem(buf, n, all + at, n);
                at += n;
                break;
            case 3:
                n = MIN(n, QEMU_FILE_BUFFER_SIZE);
                g_assert_cmpint(qemu_peek_buffer(in, &peek, n), ==, n);
                g_assert_cmpmem(peek, n, all + at, n);
                break;
            case 4:
                g_assert_cmpint(qemu_file_skip(in, n), ==, 0);
                at += n;
                break;
            case 5:
                n = MIN(n, at);
                g_assert_true(qemu_file_unread(in, all + at - n, n));
                at -= n;
                break;
            }
        }
        g_assert_cmpint(qemu_file_get_error(in), ==, 0);
        qio_channel_unref(&c->parent);
    }
}

/* More elements than one call takes: the bytes behind them stay behind them. */
static void test_long_vectors(void)
{
    PiecesChannel *c = pieces_new(1, 1 << 20, false);
    g_autoptr(QEMUFile) in = qemu_file_new_input(&c->parent);
    g_autofree struct iovec *iov = g_new(struct iovec, 5000);
    uint8_t got[5000];

    for (int i = 0; i < 5000; i++) {
        uint8_t byte = i * 7 + i / 256;
        g_byte_array_append(c->data, &byte, 1);
        iov[i] = (struct iovec){&got[i], 1};
    }
    g_byte_array_append(c->data, (const uint8_t *)"end", 3);
    g_assert_cmpint(qemu_get_buffer_vec(in, iov, 5000), ==, 0);
    g_assert_cmpmem(got, 5000, c->data->data, 5000);
    g_assert_cmpint(qemu_get_buffer(in, got, 3), ==, 0);
    g_assert_cmpmem(got, 3, "end", 3);
    g_assert_cmpint(c->calls, <=, 6);
    qio_channel_unref(&c->parent);
}

static void test_unread_is_bounded(void)
{
    PiecesChannel *c = pieces_new(1, 1 << 20, false);
    g_autoptr(QEMUFile) in = qemu_file_new_input(&c->parent);
    g_autofree uint8_t *buf = g_malloc0(QEMU_FILE_UNREAD_MAX + 1);

    g_byte_array_set_size(c->data, 2 * QEMU_FILE_UNREAD_MAX);
    memset(c->data->data, 0, c->data->len);
    g_assert_cmpint(qemu_get_buffer(in, buf, QEMU_FILE_UNREAD_MAX + 1), ==, 0);
    while (qemu_file_transferred(in) < qemu_file_moved(in)) {
        (void)qemu_get_byte(in);
    }
    g_assert_true(qemu_file_unread(in, buf, QEMU_FILE_UNREAD_MAX));
    g_assert_false(qemu_file_unread(in, buf, 1));
    g_assert_cmpint(qemu_file_get_error(in), ==, -EOVERFLOW);
    qio_channel_unref(&c->parent);
}

static void test_first_error_is_kept(void)
{
    PiecesChannel *c = pieces_new(1, 1000, true);
    g_autoptr(QEMUFile) out = qemu_file_new_output(&c->parent);
    g_autoptr(GError) err = NULL;

    c->fail_at = 100000;
    for (int i = 0; i < 100000; i++) {
        qemu_put_be64(out, i);
    }
    qemu_file_set_error(out, -EINVAL);
    g_assert_cmpint(qemu_fflush(out), ==, -ECONNRESET);
    g_assert_cmpint(qemu_file_get_error_obj(out, &err), ==, -ECONNRESET);
    g_assert_cmpstr(err->message, ==, "The cable is cut");
    g_assert_cmpint(c->data->len, <, 101000);
    g_assert_cmpint(qemu_file_moved(out), ==, c->data->len);
    qio_channel_unref(&c->parent);
}

/* --- sockets and threads --- */

static void socket_pair(QIOChannel **a, QIOChannel **b)
{
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    *a = (QIOChannel *)qio_channel_socket_new_fd(fds[0], NULL);
    *b = (QIOChannel *)qio_channel_socket_new_fd(fds[1], NULL);
}

typedef struct Hooks {
    unsigned before, after;
    QEMUFile *peer; /* receives a byte while we wait */
} Hooks;

static void hook_before(void *opaque)
{
    Hooks *h = opaque;

    g_assert_cmpint(h->before, ==, h->after);
    h->before++;
    qemu_put_byte(h->peer, 42);
    g_assert_cmpint(qemu_fflush(h->peer), ==, 0);
}

static void hook_after(void *opaque)
{
    Hooks *h = opaque;

    h->after++;
    g_assert_cmpint(h->before, ==, h->after);
}

static void test_hooks_surround_real_waits_only(void)
{
    g_autoptr(QIOChannel) a = NULL;
    g_autoptr(QIOChannel) b = NULL;
    g_autoptr(QEMUFile) out = NULL;
    g_autoptr(QEMUFile) in = NULL;
    Hooks h = {0};

    socket_pair(&a, &b);
    h.peer = out = qemu_file_new_output(a);
    in = qemu_file_new_input(b);
    qemu_file_set_wait_hooks(in, hook_before, hook_after, &h);
    qemu_put_byte(out, 41);
    g_assert_cmpint(qemu_fflush(out), ==, 0);
    g_assert_cmpint(qemu_get_byte(in), ==, 41);
    g_assert_cmpint(h.before, ==, 0);
    g_assert_cmpint(qemu_get_byte(in), ==, 42);
    g_assert_cmpint(h.before, ==, 1);
    g_assert_cmpint(h.after, ==, 1);
}

static void *read_until_error(void *opaque)
{
    QEMUFile *in = opaque;

    while (qemu_file_get_error(in) == 0) {
        (void)qemu_get_byte(in);
    }
    return NULL;
}

static void *write_until_error(void *opaque)
{
    QEMUFile *out = opaque;

    while (qemu_file_get_error(out) == 0) {
        qemu_put_be64(out, 1);
    }
    return NULL;
}

static void test_shutdown_ends_waits_in_other_threads(void)
{
    g_autoptr(QIOChannel) a = NULL;
    g_autoptr(QIOChannel) b = NULL;
    g_autoptr(QEMUFile) in = NULL;
    g_autoptr(QEMUFile) out = NULL;
    g_autoptr(GError) err = NULL;
    GThread *reader, *writer;

    socket_pair(&a, &b);
    in = qemu_file_new_input(a);
    out = qemu_file_get_return(in);
    g_assert_true(qemu_file_is_writable(out));
    g_assert_true(qemu_file_get_ioc(out) == a);
    reader = g_thread_new("reader", read_until_error, in);
    writer = g_thread_new("writer", write_until_error, out);
    while (qemu_file_moved(out) == 0) {
        g_thread_yield();
    }
    qemu_file_shutdown(in);
    g_thread_join(reader);
    g_thread_join(writer);
    g_assert_cmpint(qemu_file_get_error_obj(in, &err), ==, -EIO);
    g_assert_cmpstr(err->message, ==, "The migration stream was shut down");
    g_assert_cmpint(qemu_file_get_error(out), ==, -EPIPE);
}

/* --- files --- */

static void test_offsets_in_a_file(void)
{
    g_autofree char *path = NULL;
    int fd = g_file_open_tmp("ferry-qemu-file-XXXXXX", &path, NULL);
    g_autoptr(QIOChannel) ioc = QIO_CHANNEL(qio_channel_file_new_fd(fd, NULL));
    g_autoptr(QEMUFile) out = qemu_file_new_output(ioc);
    g_autoptr(QEMUFile) in = NULL;
    g_autoptr(QEMUFile) nowhere = qemu_file_new_memory_output(10);

    unlink(path);
    qemu_put_be32(out, 0x11111111);
    g_assert_cmpint(qemu_get_offset(out), ==, 4);
    qemu_put_be32(out, 0x22222222);
    g_assert_cmpint(qemu_set_offset(out, 100000), ==, 0);
    qemu_put_be32(out, 0x33333333);
    g_assert_cmpint(qemu_get_offset(out), ==, 100004);
    g_assert_cmpint(qemu_file_transferred(out), ==, 12);

    in = qemu_file_get_return(out);
    g_assert_cmpint(qemu_set_offset(in, 0), ==, 0);
    g_assert_cmphex(qemu_get_be32(in), ==, 0x11111111);
    g_assert_cmpint(qemu_get_offset(in), ==, 4);
    g_assert_cmpint(qemu_set_offset(in, 100000), ==, 0);
    g_assert_cmphex(qemu_get_be32(in), ==, 0x33333333);
    g_assert_true(qemu_file_at_end(in));
    g_assert_cmpint(qemu_set_offset(in, 4), ==, 0);
    g_assert_cmphex(qemu_get_be32(in), ==, 0x22222222);
    g_assert_cmpint(qemu_file_transferred(in), ==, 12);
    g_assert_cmpint(qemu_file_get_error(in), ==, 0);
    g_assert_cmpint(qemu_get_offset(nowhere), ==, -ENOTSUP);
}

/* --- runs --- */

typedef struct RunModel {
    size_t body_size, pages;
    uint8_t *memory, *expect;
    bool *received;
    unsigned restored;
} RunModel;

static void run_restore(void *opaque, void *base, size_t size)
{
    RunModel *m = opaque;

    g_assert_true((uint8_t *)base > m->memory);
    g_assert_true((uint8_t *)base + size <= m->memory + m->pages * m->body_size);
    memset(base, 0, size);
    m->restored++;
}

/* A tag is page << 8 | kind. */
enum { RUN_PAGE = 8, RUN_OTHER = 2, RUN_END = 16 };

static void run_make_stream(RunModel *m, GRand *rand, GByteArray *stream, int records)
{
    size_t page = 0;
    int run = 0;
    uint64_t tag;

    for (int i = 0; i < records; i++) {
        if (run-- <= 0 || ++page >= m->pages) {
            page = g_rand_int_range(rand, 0, m->pages);
            run = g_rand_int_range(rand, 0, g_rand_boolean(rand) ? 3 : 300);
        }
        if (g_rand_int_range(rand, 0, 20) == 0) {
            uint8_t size = g_rand_int_range(rand, 0, 256);

            tag = cpu_to_be64((uint64_t)page << 8 | RUN_OTHER);
            g_byte_array_append(stream, (void *)&tag, 8);
            g_byte_array_append(stream, &size, 1);
            for (int k = 0; k < size; k++) {
                g_byte_array_append(stream, (const uint8_t *)"0123456789" + k % 10, 1);
            }
            continue;
        }
        tag = cpu_to_be64((uint64_t)page << 8 | RUN_PAGE);
        g_byte_array_append(stream, (void *)&tag, 8);
        for (size_t k = 0; k < m->body_size; k++) {
            m->expect[page * m->body_size + k] = g_rand_int(rand);
        }
        g_byte_array_append(stream, m->expect + page * m->body_size, m->body_size);
    }
    tag = cpu_to_be64(RUN_END);
    g_byte_array_append(stream, (void *)&tag, 8);
}

/* As a RAM loader does it: guessing only where no page has come yet. */
static void run_load(RunModel *m, QEMUFile *in, bool own_restore)
{
    for (;;) {
        uint64_t tag = qemu_get_be64(in);
        size_t page = tag >> 8, fresh = 1, n;
        QEMUFileRun run = {
            .base = m->memory + page * m->body_size,
            .body_size = m->body_size,
            .next_tag = tag + 256,
            .tag_step = 256,
            .restore = own_restore ? run_restore : NULL,
            .opaque = m,
        };

        if ((tag & 0xff) == RUN_END || qemu_file_get_error(in) < 0) {
            return;
        }
        if ((tag & 0xff) == RUN_OTHER) {
            uint8_t text[256];
            uint8_t size = qemu_get_byte(in);

            if (qemu_get_buffer(in, text, size) < 0) {
                return;
            }
            for (int k = 0; k < size; k++) {
                g_assert_cmpint(text[k], ==, "0123456789"[k % 10]);
            }
            continue;
        }
        g_assert_cmpint(tag & 0xff, ==, RUN_PAGE);
        while (page + fresh < m->pages && !m->received[page + fresh]) {
            fresh++;
        }
        run.max_bodies = fresh;
        n = qemu_get_run(in, &run);
        g_assert_cmpint(n, <=, fresh);
        memset(m->received + page, 1, n * sizeof(bool));
    }
}

static void run_one(guint32 seed, size_t body_size, size_t pages, size_t max_piece, size_t cut)
{
    PiecesChannel *c = pieces_new(seed, max_piece, seed % 3 == 0);
    g_autoptr(QEMUFile) in = qemu_file_new_input(&c->parent);
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    RunModel m = {.body_size = body_size, .pages = pages};

    m.memory = g_malloc0(body_size * pages);
    m.expect = g_malloc0(body_size * pages);
    m.received = g_new0(bool, pages);
    run_make_stream(&m, rand, c->data, 2 * pages);
    if (cut) {
        g_byte_array_set_size(c->data, MIN(cut, c->data->len - 1));
    }
    run_load(&m, in, seed % 2);
    if (cut) {
        g_assert_cmpint(qemu_file_get_error(in), ==, -EIO);
    } else {
        g_assert_cmpint(qemu_file_get_error(in), ==, 0);
        g_assert_cmpint(qemu_file_transferred(in), ==, c->data->len);
        g_assert_cmpmem(m.memory, body_size * pages, m.expect, body_size * pages);
    }
    g_free(m.memory);
    g_free(m.expect);
    g_free(m.received);
    qio_channel_unref(&c->parent);
}

static void test_run_lands_where_it_belongs(void)
{
    for (guint32 seed = 1; seed <= 60; seed++) {
        g_test_message("seed %u", seed);
        run_one(seed, 1 + seed % 23, 2000, seed % 4 ? 40 + seed : 100000, 0);
        run_one(seed, 4096, 300, seed % 4 ? 20000 : 1 << 20, 0);
    }
}

static void test_run_in_a_stream_that_ends(void)
{
    for (guint32 seed = 1; seed <= 400; seed++) {
        run_one(seed, 1 + seed % 50, 200, seed % 4 ? 40 : 100000, 1 + seed * 17);
    }
}

/* The first pass over memory: few calls, nothing put back, nothing restored. */
static void test_run_of_consecutive_pages_takes_few_calls(void)
{
    PiecesChannel *c = pieces_new(1, 1 << 30, false);
    g_autoptr(QEMUFile) in = qemu_file_new_input(&c->parent);
    RunModel m = {.body_size = 4096, .pages = 2048};
    uint64_t tag;

    m.memory = g_malloc0(m.body_size * m.pages);
    m.expect = g_malloc(m.body_size * m.pages);
    m.received = g_new0(bool, m.pages);
    for (size_t i = 0; i < m.pages; i++) {
        memset(m.expect + i * 4096, 1 + i % 255, 4096);
        tag = cpu_to_be64(i << 8 | RUN_PAGE);
        g_byte_array_append(c->data, (void *)&tag, 8);
        g_byte_array_append(c->data, m.expect + i * 4096, 4096);
    }
    tag = cpu_to_be64(RUN_END);
    g_byte_array_append(c->data, (void *)&tag, 8);
    run_load(&m, in, true);
    g_assert_cmpmem(m.memory, m.body_size * m.pages, m.expect, m.body_size * m.pages);
    g_assert_cmpint(m.restored, ==, 0);
    g_assert_cmpint(c->calls, <=, 32);
    g_free(m.memory);
    g_free(m.expect);
    g_free(m.received);
    qio_channel_unref(&c->parent);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qemu-file/values", test_values);
    g_test_add_func("/qemu-file/end-of-stream-is-an-error-that-names-the-offset",
                    test_end_of_stream_is_an_error_that_names_the_offset);
    g_test_add_func("/qemu-file/memory-output-is-bounded", test_memory_output_is_bounded);
    g_test_add_func("/qemu-file/order-is-kept", test_order_is_kept);
    g_test_add_func("/qemu-file/reads-of-all-kinds", test_reads_of_all_kinds);
    g_test_add_func("/qemu-file/long-vectors", test_long_vectors);
    g_test_add_func("/qemu-file/unread-is-bounded", test_unread_is_bounded);
    g_test_add_func("/qemu-file/first-error-is-kept", test_first_error_is_kept);
    g_test_add_func("/qemu-file/hooks-surround-real-waits-only",
                    test_hooks_surround_real_waits_only);
    g_test_add_func("/qemu-file/shutdown-ends-waits-in-other-threads",
                    test_shutdown_ends_waits_in_other_threads);
    g_test_add_func("/qemu-file/offsets-in-a-file", test_offsets_in_a_file);
    g_test_add_func("/qemu-file/run-lands-where-it-belongs", test_run_lands_where_it_belongs);
    g_test_add_func("/qemu-file/run-in-a-stream-that-ends", test_run_in_a_stream_that_ends);
    g_test_add_func("/qemu-file/run-of-consecutive-pages-takes-few-calls",
                    test_run_of_consecutive_pages_takes_few_calls);
    return g_test_run();
}
