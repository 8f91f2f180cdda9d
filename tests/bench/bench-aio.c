/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the event loop costs: ns for each of its basic operations, one line an operation and back
 * end.
 */
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "util/aio.h"
#include "util/co-lock.h"
#include "util/iothread.h"

static const char *backend;

static void report(const char *what, int64_t start_ns, int64_t operations)
{
    int64_t ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start_ns;

    printf("%-9s %-40s %10.1f ns\n", backend, what, (double)ns / operations);
}

static int64_t now(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

static void coroutine_fn yield_for_ever_co_entry(void *opaque)
{
    while (!*(bool *)opaque) {
        qemu_coroutine_yield();
    }
}

static void coroutine_fn nothing_co_entry(void *opaque)
{
    (void)opaque;
}

static void bench_coroutines(void)
{
    enum {
        N = 20000000,
    };
    bool stop = false;
    Coroutine *co = qemu_coroutine_create(yield_for_ever_co_entry, &stop);
    int64_t start = now();

    for (int i = 0; i < N; i++) {
        qemu_coroutine_enter(co);
    }
    report("coroutine switch (half of enter + yield)", start, 2LL * N);
    stop = true;
    qemu_coroutine_enter(co);

    start = now();
    for (int i = 0; i < N; i++) {
        qemu_coroutine_enter(qemu_coroutine_create(nothing_co_entry, NULL));
    }
    report("create + enter + end", start, N);
}

static void coroutine_fn mutex_co_entry(void *opaque)
{
    enum {
        N = 5000000,
    };
    CoMutex mutex;
    int64_t start = now();

    (void)opaque;
    qemu_co_mutex_init(&mutex);
    for (int i = 0; i < N; i++) {
        qemu_co_mutex_lock(&mutex);
        qemu_co_mutex_unlock(&mutex);
    }
    report("CoMutex lock + unlock", start, N);
    qemu_co_mutex_destroy(&mutex);
}

static void coroutine_fn to_loop_co_entry(void *opaque)
{
    enum {
        N = 1000000,
    };
    int64_t start = now();

    (void)opaque;
    for (int i = 0; i < N; i++) {
        qemu_co_yield_to_loop();
    }
    report("turn of the loop (yield to it)", start, N);
}

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

static void coroutine_fn pool_co_entry(void *opaque)
{
    enum {
        N = 50000,
    };
    int64_t start = now();

    for (int i = 0; i < N; i++) {
        thread_pool_submit_co(nothing, NULL);
    }
    if (opaque) {
        --*(int *)opaque;
    } else {
        report("thread pool round trip", start, N);
    }
}

static void bench_pool_depth(int depth)
{
    g_autofree char *what = g_strdup_printf("thread pool call, %d in flight", depth);
    int left = depth;
    int64_t start = now();

    for (int i = 0; i < depth; i++) {
        qemu_coroutine_enter(qemu_coroutine_create(pool_co_entry, &left));
    }
    while (left) {
        aio_poll(qemu_get_current_aio_context(), true);
    }
    report(what, start, 50000LL * depth);
}

typedef struct Disk {
    AioDiskEngine engine;
    int fd;
    int left;
    char *buf;
} Disk;

static void coroutine_fn disk_co_entry(void *opaque)
{
    Disk *d = opaque;
    struct iovec iov = {d->buf, 4096};

    for (int i = 0; i < 20000; i++) {
        if (aio_co_preadv(d->engine, d->fd, &iov, 1, (i % 256) * 4096) != 4096) {
            abort();
        }
    }
    d->left--;
}

static void bench_disk(AioDiskEngine engine, int depth)
{
    g_autofree char *what = g_strdup_printf("cached 4 KiB read by %s, %d in flight",
                                            engine == AIO_DISK_THREADS ? "threads" : "ring", depth);
    Disk d = {.engine = engine, .left = depth, .buf = g_malloc0(1024 * 1024)};
    char name[] = "/tmp/bench-aio-XXXXXX";
    int64_t start;

    d.fd = mkstemp(name);
    unlink(name);
    if (d.fd < 0 || write(d.fd, d.buf, 1024 * 1024) != 1024 * 1024) {
        abort();
    }
    start = now();
    for (int i = 0; i < depth; i++) {
        qemu_coroutine_enter(qemu_coroutine_create(disk_co_entry, &d));
    }
    while (d.left) {
        aio_poll(qemu_get_current_aio_context(), true);
    }
    report(what, start, 20000LL * depth);
    close(d.fd);
    g_free(d.buf);
}

typedef struct Echo {
    AioContext *ctx;
    int fd[2];
    int left;
} Echo;

static void echo_other(void *opaque)
{
    Echo *e = opaque;
    char c;

    if (read(e->fd[1], &c, 1) != 1 || write(e->fd[1], &c, 1) != 1) {
        abort();
    }
}

static void echo_own(void *opaque)
{
    Echo *e = opaque;
    char c;

    if (read(e->fd[0], &c, 1) != 1) {
        abort();
    }
    if (e->left-- && write(e->fd[0], &c, 1) != 1) {
        abort();
    }
}

static void bench_sockets(void)
{
    enum {
        N = 200000,
    };
    Echo e = {.ctx = qemu_get_current_aio_context(), .left = N};
    int64_t start;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, e.fd) < 0) {
        abort();
    }
    aio_set_fd_handler(e.ctx, e.fd[0], echo_own, NULL, &e);
    aio_set_fd_handler(e.ctx, e.fd[1], echo_other, NULL, &e);
    start = now();
    if (write(e.fd[0], "x", 1) != 1) {
        abort();
    }
    while (e.left >= 0) {
        aio_poll(e.ctx, true);
    }
    report("socket event (with its read and write)", start, 2LL * N);
    for (int i = 0; i < 2; i++) {
        aio_set_fd_handler(e.ctx, e.fd[i], NULL, NULL, NULL);
        close(e.fd[i]);
    }
}

typedef struct Hop {
    AioContext *ctx[2];
    bool done;
} Hop;

static void coroutine_fn hop_co_entry(void *opaque)
{
    enum {
        N = 100000,
    };
    Hop *h = opaque;
    int64_t start = now();

    for (int i = 0; i <= N; i++) {
        aio_co_reschedule_self(h->ctx[i % 2]);
    }
    report("move to another thread", start, N);
    h->done = true;
}

static void bench_hops(void)
{
    IOThread *iothread = iothread_new("bench", NULL);
    Hop h = {.ctx = {qemu_get_current_aio_context(), iothread_get_aio_context(iothread)}};

    qemu_coroutine_enter(qemu_coroutine_create(hop_co_entry, &h));
    while (!h.done) {
        aio_poll(h.ctx[0], true);
    }
    iothread_free(iothread);
}

int main(void)
{
    static const AioBackend backends[] = {AIO_BACKEND_IO_URING, AIO_BACKEND_EPOLL};

    backend = "-";
    bench_coroutines();
    for (unsigned i = 0; i < G_N_ELEMENTS(backends); i++) {
        AioContext *ctx = aio_context_new(backends[i], NULL);

        if (!ctx) {
            continue;
        }
        backend = aio_context_backend_name(ctx);
        g_setenv("FERRY_AIO", backend, true);
        aio_context_attach_thread(ctx);
        aio_run_coroutine(mutex_co_entry, NULL);
        aio_run_coroutine(to_loop_co_entry, NULL);
        aio_run_coroutine(pool_co_entry, NULL);
        bench_pool_depth(16);
        bench_disk(AIO_DISK_IO_URING, 1);
        bench_disk(AIO_DISK_IO_URING, 32);
        bench_disk(AIO_DISK_THREADS, 32);
        bench_sockets();
        bench_hops();
        aio_context_unref(ctx);
    }
    return 0;
}
