/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loop under mixed load: pairs of coroutines in the main loop and two iothreads send each
 * other streams over sockets and pipes. These are opened and closed all the time, so that
 * descriptor numbers return at once. Other coroutines sleep, write and read a file, and call worker
 * threads. Every byte is checked. FERRY_AIO chooses the back end.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "util/aio.h"
#include "util/iothread.h"

enum {
    SEED = 4711,
    LANES = 24, /* pairs of coroutines */
    SESSIONS = 12,
    SESSION_BYTES_MAX = 300000,
    DISK_WORKERS = 24,
    DISK_ROUNDS = 60,
    DISK_SLOT_BYTES = 16384,
};

static int n_alive; /* atomic */

static void alive_add(int n)
{
    __atomic_fetch_add(&n_alive, n, __ATOMIC_ACQ_REL);
    aio_notify(qemu_get_aio_context());
}

/* --- streams --- */

typedef struct Session Session;

typedef struct Stream {
    Session *session;
    int fd;
    bool sender;
    bool both_sides; /* waits with both handlers set */
    Coroutine *co;   /* waits for fd */
} Stream;

struct Session {
    guint32 seed; /* of the content */
    int bytes;
    Stream ends[2];
    int n_ended;
    Coroutine *parent; /* waits for both */
};

static void stream_ready(void *opaque)
{
    Stream *s = opaque;
    Coroutine *co = s->co;

    g_assert_nonnull(co); /* else called after it was forgotten */
    s->co = NULL;
    aio_set_fd_handler(qemu_get_current_aio_context(), s->fd, NULL, NULL, NULL);
    if (s->both_sides) {
        aio_co_wake(co);
    } else {
        qemu_coroutine_enter(co);
    }
}

static void stream_other_side(void *opaque)
{
    Stream *s = opaque;

    g_assert_nonnull(s->co);
}

static void coroutine_fn stream_co_wait(Stream *s)
{
    IOHandler *other = s->both_sides ? stream_other_side : NULL;

    s->co = qemu_coroutine_self();
    aio_set_fd_handler(qemu_get_current_aio_context(), s->fd, s->sender ? other : stream_ready,
                       s->sender ? stream_ready : other, s);
    qemu_coroutine_yield();
    g_assert_null(s->co);
}

static void coroutine_fn stream_co_send(Stream *s, GRand *rng)
{
    int bytes = s->session->bytes;
    g_autofree char *content = g_malloc(bytes);

    for (int i = 0; i < bytes; i++) {
        content[i] = g_rand_int(rng);
    }
    for (int sent = 0; sent < bytes;) {
        ssize_t ret = write(s->fd, content + sent, MIN(bytes - sent, 40000));

        if (ret < 0) {
            g_assert_cmpint(errno, ==, EAGAIN);
            stream_co_wait(s);
        } else {
            sent += ret;
        }
    }
}

static void coroutine_fn stream_co_receive(Stream *s, GRand *rng)
{
    char buf[5000];
    int received = 0;
    ssize_t ret;

    while ((ret = read(s->fd, buf, sizeof(buf))) != 0) {
        if (ret < 0) {
            g_assert_cmpint(errno, ==, EAGAIN);
            stream_co_wait(s);
            continue;
        }
        for (ssize_t i = 0; i < ret; i++) {
            g_assert_cmpint(buf[i], ==, (char)g_rand_int(rng));
        }
        received += ret;
    }
    g_assert_cmpint(received, ==, s->session->bytes);
}

static void coroutine_fn stream_co_entry(void *opaque)
{
    Stream *s = opaque;
    Session *session = s->session;
    g_autoptr(GRand) rng = g_rand_new_with_seed(session->seed);

    if (s->sender) {
        stream_co_send(s, rng);
    } else {
        stream_co_receive(s, rng);
    }
    close(s->fd);
    if (++session->n_ended == 2 && session->parent) {
        aio_co_wake(session->parent);
    }
}

static void coroutine_fn session_co_run(GRand *rng)
{
    Session session = {
        .seed = g_rand_int(rng),
        .bytes = g_rand_int_range(rng, 1, SESSION_BYTES_MAX),
    };
    int fd[2];

    if (g_rand_boolean(rng)) {
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), ==, 0);
    } else {
        g_assert_cmpint(pipe2(fd, O_NONBLOCK), ==, 0);
    }
    for (int i = 0; i < 2; i++) {
        session.ends[i] = (Stream){
            .session = &session,
            .fd = fd[i],
            .sender = i == 1,
            .both_sides = g_rand_boolean(rng),
        };
        qemu_coroutine_enter(qemu_coroutine_create(stream_co_entry, &session.ends[i]));
    }
    if (session.n_ended < 2) {
        session.parent = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    g_assert_cmpint(session.n_ended, ==, 2);
}

static void coroutine_fn lane_co_entry(void *opaque)
{
    g_autoptr(GRand) rng = g_rand_new_with_seed(GPOINTER_TO_UINT(opaque));

    for (int i = 0; i < SESSIONS; i++) {
        session_co_run(rng);
        if (g_rand_boolean(rng)) {
            qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, g_rand_int_range(rng, 0, SCALE_MS));
        }
    }
    alive_add(-1);
}

/* --- disk and worker threads --- */

typedef struct DiskWorker {
    int fd;
    int slot;
} DiskWorker;

static int checksum(void *arg)
{
    const guint8 *buf = arg;
    guint32 sum = 0;

    for (int i = 0; i < DISK_SLOT_BYTES; i++) {
        sum = sum * 31 + buf[i];
    }
    return sum & G_MAXINT;
}

static void coroutine_fn disk_co_entry(void *opaque)
{
    DiskWorker *d = opaque;
    g_autoptr(GRand) rng = g_rand_new_with_seed(SEED + d->slot);
    g_autofree guint8 *out = g_malloc(DISK_SLOT_BYTES);
    g_autofree guint8 *in = g_malloc(DISK_SLOT_BYTES);
    int64_t offset = (int64_t)d->slot * DISK_SLOT_BYTES;

    for (int round = 0; round < DISK_ROUNDS; round++) {
        AioDiskEngine engine = g_rand_boolean(rng) ? AIO_DISK_IO_URING : AIO_DISK_THREADS;
        int split = g_rand_int_range(rng, 1, DISK_SLOT_BYTES);
        struct iovec iov_out[] = {{out, split}, {out + split, DISK_SLOT_BYTES - split}};
        struct iovec iov_in = {in, DISK_SLOT_BYTES};

        for (int i = 0; i < DISK_SLOT_BYTES; i++) {
            out[i] = g_rand_int(rng);
        }
        g_assert_cmpint(aio_co_pwritev(engine, d->fd, iov_out, 2, offset, round % 20 == 0), ==,
                        DISK_SLOT_BYTES);
        engine = g_rand_boolean(rng) ? AIO_DISK_IO_URING : AIO_DISK_THREADS;
        g_assert_cmpint(aio_co_preadv(engine, d->fd, &iov_in, 1, offset), ==, DISK_SLOT_BYTES);
        g_assert_cmpint(thread_pool_submit_co(checksum, in), ==, checksum(out));
    }
    alive_add(-1);
}

static void test_mixed_load(void)
{
    IOThread *threads[2] = {iothread_new("one", NULL), iothread_new("two", NULL)};
    AioContext *ctx[3] = {
        qemu_get_aio_context(),
        iothread_get_aio_context(threads[0]),
        iothread_get_aio_context(threads[1]),
    };
    DiskWorker disks[DISK_WORKERS];
    g_autofree char *name = NULL;
    int fd = g_file_open_tmp("ferry-stress-XXXXXX", &name, NULL);

    g_assert_cmpint(fd, >=, 0);
    g_test_message("seed %d, back end %s", SEED, aio_context_backend_name(ctx[0]));
    alive_add(LANES + DISK_WORKERS);
    for (int i = 0; i < LANES; i++) {
        aio_co_schedule(ctx[i % 3],
                        qemu_coroutine_create(lane_co_entry, GUINT_TO_POINTER(SEED + i)));
    }
    for (int i = 0; i < DISK_WORKERS; i++) {
        disks[i] = (DiskWorker){.fd = fd, .slot = i};
        aio_co_schedule(ctx[i % 3], qemu_coroutine_create(disk_co_entry, &disks[i]));
    }
    while (__atomic_load_n(&n_alive, __ATOMIC_ACQUIRE)) {
        aio_poll(ctx[0], true);
    }
    iothread_free(threads[0]);
    iothread_free(threads[1]);
    close(fd);
    g_unlink(name);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!qemu_init_main_loop(NULL)) {
        return 1;
    }
    g_test_add_func("/aio-stress/mixed-load", test_mixed_load);
    return g_test_run();
}
