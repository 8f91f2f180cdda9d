/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loop, over each of its back ends: bottom halves, descriptors.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/unit/aio-fixture.h"

/* --- bottom halves --- */

static void test_bh_runs_once_however_often_scheduled(Fixture *f, gconstpointer data)
{
    int n = 0;
    QEMUBH *bh = aio_bh_new(f->ctx, count_cb, &n);

    g_assert_false(aio_poll(f->ctx, false));
    qemu_bh_schedule(bh);
    qemu_bh_schedule(bh);
    g_assert_cmpint(n, ==, 0);
    g_assert_true(aio_poll(f->ctx, true));
    g_assert_cmpint(n, ==, 1);
    g_assert_false(aio_poll(f->ctx, false));
    g_assert_cmpint(n, ==, 1);
    qemu_bh_schedule(bh);
    g_assert_true(aio_poll(f->ctx, true));
    g_assert_cmpint(n, ==, 2);
    qemu_bh_delete(bh);
}

static void test_bh_cancelled_or_deleted_does_not_run(Fixture *f, gconstpointer data)
{
    int n = 0;
    QEMUBH *bh = aio_bh_new(f->ctx, count_cb, &n);

    qemu_bh_schedule(bh);
    qemu_bh_cancel(bh);
    aio_poll(f->ctx, false);
    g_assert_cmpint(n, ==, 0);
    qemu_bh_schedule(bh);
    aio_poll(f->ctx, false);
    g_assert_cmpint(n, ==, 1);
    qemu_bh_schedule(bh);
    qemu_bh_delete(bh);
    aio_poll(f->ctx, false);
    g_assert_cmpint(n, ==, 1);
}

typedef struct SelfBH {
    QEMUBH *bh;
    int n;
    int limit;
} SelfBH;

static void reschedule_then_delete_cb(void *opaque)
{
    SelfBH *s = opaque;

    if (++s->n < s->limit) {
        qemu_bh_schedule(s->bh);
    } else {
        qemu_bh_schedule(s->bh);
        qemu_bh_delete(s->bh);
    }
}

static void test_bh_schedules_and_deletes_itself(Fixture *f, gconstpointer data)
{
    SelfBH s = {.limit = 5};

    s.bh = aio_bh_new(f->ctx, reschedule_then_delete_cb, &s);
    qemu_bh_schedule(s.bh);
    for (int i = 1; i <= 5; i++) {
        aio_poll(f->ctx, true);
        g_assert_cmpint(s.n, ==, i); /* once a turn */
    }
    aio_poll(f->ctx, false);
    g_assert_cmpint(s.n, ==, 5);
}

static void test_bh_order(Fixture *f, gconstpointer data)
{
    g_autoptr(GString) log = g_string_new(NULL);

    aio_bh_schedule_oneshot(f->ctx, append_a, log);
    aio_bh_schedule_oneshot(f->ctx, append_b, log);
    aio_bh_schedule_oneshot(f->ctx, append_b, log);
    aio_bh_schedule_oneshot(f->ctx, append_a, log);
    aio_poll(f->ctx, true);
    g_assert_cmpstr(log->str, ==, "abba");
}

static void *oneshots_from_thread(void *opaque)
{
    void **args = opaque;

    for (int i = 0; i < 1000; i++) {
        aio_bh_schedule_oneshot(args[0], count_cb, args[1]);
    }
    return NULL;
}

static void test_bh_from_other_threads(Fixture *f, gconstpointer data)
{
    int n = 0;
    void *args[] = {f->ctx, &n};
    GThread *threads[3];

    for (int i = 0; i < 3; i++) {
        threads[i] = g_thread_new("oneshot", oneshots_from_thread, args);
    }
    while (n < 3000) {
        aio_poll(f->ctx, true);
    }
    for (int i = 0; i < 3; i++) {
        g_thread_join(threads[i]);
    }
    g_assert_cmpint(n, ==, 3000);
}

static void *notify_from_thread(void *opaque)
{
    aio_notify(opaque);
    return NULL;
}

static void test_notify_ends_wait(Fixture *f, gconstpointer data)
{
    GThread *thread;

    /* Before the wait: it must not be lost. */
    aio_notify(f->ctx);
    g_assert_false(aio_poll(f->ctx, true));
    for (int i = 0; i < 100; i++) {
        thread = g_thread_new("notify", notify_from_thread, f->ctx);
        g_assert_false(aio_poll(f->ctx, true));
        g_thread_join(thread);
    }
}

/* --- descriptors --- */

typedef struct Pair {
    AioContext *ctx;
    int fd[2];
    int n_read;
    int n_write;
    int other;
} Pair;

static void pair_open(Pair *p, AioContext *ctx)
{
    *p = (Pair){.ctx = ctx};
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p->fd), ==, 0);
}

static void pair_close(Pair *p)
{
    aio_set_fd_handler(p->ctx, p->fd[0], NULL, NULL, NULL);
    close(p->fd[0]);
    close(p->fd[1]);
}

static void pair_send(Pair *p)
{
    g_assert_cmpint(write(p->fd[1], "x", 1), ==, 1);
}

static void pair_count_read(void *opaque)
{
    ((Pair *)opaque)->n_read++;
}

static void pair_count_write(void *opaque)
{
    ((Pair *)opaque)->n_write++;
}

static void pair_take(void *opaque)
{
    Pair *p = opaque;
    char c;

    g_assert_cmpint(read(p->fd[0], &c, 1), ==, 1);
    p->n_read++;
}

static void test_fd_level_triggered(Fixture *f, gconstpointer data)
{
    Pair p;

    pair_open(&p, f->ctx);
    aio_set_fd_handler(f->ctx, p.fd[0], pair_count_read, NULL, &p);
    settle(f->ctx);
    g_assert_cmpint(p.n_read, ==, 0);
    pair_send(&p);
    for (int i = 1; i <= 5; i++) {
        while (p.n_read < i) {
            g_assert_true(aio_poll(f->ctx, true)); /* unread data counts every turn */
        }
    }
    aio_set_fd_handler(f->ctx, p.fd[0], pair_take, NULL, &p);
    p.n_read = 0;
    while (!p.n_read) {
        aio_poll(f->ctx, true);
    }
    settle(f->ctx);
    g_assert_cmpint(p.n_read, ==, 1);
    pair_close(&p);
}

static void *watch_from_thread(void *opaque)
{
    Pair *p = opaque;

    aio_set_fd_handler(p->ctx, p->fd[0], pair_take, pair_count_write, p);
    aio_set_fd_handler(p->ctx, p->fd[0], pair_take, NULL, p);
    return NULL;
}

static void test_fd_handler_set_by_another_thread(Fixture *f, gconstpointer data)
{
    Pair p;

    pair_open(&p, f->ctx);
    pair_send(&p);
    g_thread_join(g_thread_new("watch", watch_from_thread, &p));
    while (!p.n_read) {
        aio_poll(f->ctx, true);
    }
    settle(f->ctx);
    g_assert_cmpint(p.n_read, ==, 1);
    g_assert_cmpint(p.n_write, ==, 0); /* the later call holds */
    pair_close(&p);
}

static void test_fd_sides_are_independent(Fixture *f, gconstpointer data)
{
    Pair p;

    pair_open(&p, f->ctx);
    aio_set_fd_handler(f->ctx, p.fd[0], pair_take, pair_count_write, &p);
    while (!p.n_write) {
        aio_poll(f->ctx, true);
    }
    g_assert_cmpint(p.n_read, ==, 0);
    aio_set_fd_handler(f->ctx, p.fd[0], pair_take, NULL, &p);
    p.n_write = 0;
    settle(f->ctx);
    g_assert_cmpint(p.n_write, ==, 0);
    pair_send(&p);
    while (!p.n_read) {
        aio_poll(f->ctx, true);
    }
    aio_set_fd_handler(f->ctx, p.fd[0], NULL, pair_count_write, &p);
    pair_send(&p);
    p.n_read = 0;
    while (p.n_write < 3) {
        aio_poll(f->ctx, true);
    }
    g_assert_cmpint(p.n_read, ==, 0);
    pair_close(&p);
}

static void pair_forget_other(void *opaque)
{
    Pair *p = opaque;

    p->n_read++;
    aio_set_fd_handler(p->ctx, p->other, NULL, NULL, NULL);
    aio_set_fd_handler(p->ctx, p->fd[0], NULL, NULL, NULL);
}

/* Two descriptors are ready in the same turn; whichever runs first forgets both. */
static void test_fd_forgotten_by_another_handler(Fixture *f, gconstpointer data)
{
    Pair a, b;

    pair_open(&a, f->ctx);
    pair_open(&b, f->ctx);
    a.other = b.fd[0];
    b.other = a.fd[0];
    pair_send(&a);
    pair_send(&b);
    aio_set_fd_handler(f->ctx, a.fd[0], pair_forget_other, NULL, &a);
    aio_set_fd_handler(f->ctx, b.fd[0], pair_forget_other, NULL, &b);
    while (!a.n_read && !b.n_read) {
        aio_poll(f->ctx, true);
    }
    settle(f->ctx);
    g_assert_cmpint(a.n_read + b.n_read, ==, 1);
    pair_close(&a);
    pair_close(&b);
}

static void pair_drop_write(void *opaque)
{
    Pair *p = opaque;

    p->n_read++;
    aio_set_fd_handler(p->ctx, p->fd[0], NULL, NULL, NULL);
}

static void test_fd_forgotten_by_own_read_handler(Fixture *f, gconstpointer data)
{
    Pair p;

    pair_open(&p, f->ctx);
    pair_send(&p);
    aio_set_fd_handler(f->ctx, p.fd[0], pair_drop_write, NULL, &p);
    aio_set_fd_handler(f->ctx, p.fd[0], pair_drop_write, pair_count_write, &p);
    while (!p.n_read) {
        aio_poll(f->ctx, true);
    }
    p.n_write = 0;
    settle(f->ctx);
    g_assert_cmpint(p.n_read, ==, 1);
    g_assert_cmpint(p.n_write, ==, 0);
    pair_close(&p);
}

/*
 * The same number may be another file at once; the old one is really closed: its peer sees the end.
 */
static void test_fd_number_reused(Fixture *f, gconstpointer data)
{
    Pair a, b;
    char c;

    pair_open(&a, f->ctx);
    pair_open(&b, f->ctx);
    aio_set_fd_handler(f->ctx, a.fd[0], pair_count_read, NULL, &a);
    settle(f->ctx);
    aio_set_fd_handler(f->ctx, a.fd[0], NULL, NULL, NULL);
    close(a.fd[0]);
    g_assert_cmpint(read(a.fd[1], &c, 1), ==, 0);
    g_assert_cmpint(dup2(b.fd[0], a.fd[0]), ==, a.fd[0]);
    aio_set_fd_handler(f->ctx, a.fd[0], pair_count_write, NULL, &a);
    settle(f->ctx);
    g_assert_cmpint(a.n_write, ==, 0);
    pair_send(&b);
    while (!a.n_write) {
        aio_poll(f->ctx, true);
    }
    g_assert_cmpint(a.n_read, ==, 0);
    pair_close(&a);
    pair_close(&b);
}

static void test_fd_hang_up_reaches_both_sides(Fixture *f, gconstpointer data)
{
    Pair p;
    int fd;

    pair_open(&p, f->ctx);
    /* A full socket: only the error makes it "writable". */
    while (write(p.fd[0], "xxxxxxxxxxxxxxxx", 16) > 0) {
    }
    aio_set_fd_handler(f->ctx, p.fd[0], pair_count_read, pair_count_write, &p);
    settle(f->ctx);
    g_assert_cmpint(p.n_read + p.n_write, ==, 0);
    fd = p.fd[1];
    p.fd[1] = dup(fd);
    close(fd);
    settle(f->ctx);
    g_assert_cmpint(p.n_read + p.n_write, ==, 0);
    close(p.fd[1]);
    p.fd[1] = -1;
    while (!p.n_read || !p.n_write) {
        aio_poll(f->ctx, true);
    }
    pair_close(&p);
}

static void test_fd_regular_file_is_always_ready(Fixture *f, gconstpointer data)
{
    Pair p = {.ctx = f->ctx, .fd = {-1, -1}};
    g_autofree char *name = NULL;

    p.fd[0] = g_file_open_tmp("ferry-aio-XXXXXX", &name, NULL);
    g_assert_cmpint(p.fd[0], >=, 0);
    aio_set_fd_handler(f->ctx, p.fd[0], pair_count_read, NULL, &p);
    while (p.n_read < 3) {
        g_assert_true(aio_poll(f->ctx, true));
    }
    pair_close(&p);
    g_unlink(name);
}

static void test_fd_many(Fixture *f, gconstpointer data)
{
    enum {
        N = 400, /* more than a batch of events or a submission queue holds */
    };
    g_autofree Pair *pairs = g_new(Pair, N);
    int total = 0;

    for (int i = 0; i < N; i++) {
        pair_open(&pairs[i], f->ctx);
        aio_set_fd_handler(f->ctx, pairs[i].fd[0], pair_take, NULL, &pairs[i]);
    }
    settle(f->ctx);
    for (int i = 0; i < N; i++) {
        pair_send(&pairs[i]);
    }
    while (total < N) {
        aio_poll(f->ctx, true);
        total = 0;
        for (int i = 0; i < N; i++) {
            g_assert_cmpint(pairs[i].n_read, <=, 1);
            total += pairs[i].n_read;
        }
    }
    for (int i = 0; i < N; i++) {
        pair_close(&pairs[i]);
    }
}

/* --- what does not depend on the back end --- */

static void test_backend_choice(void)
{
    g_autoptr(GError) err = NULL;
    AioContext *ctx;

    g_setenv("FERRY_AIO", "epoll", true);
    ctx = aio_context_new(AIO_BACKEND_AUTO, &err);
    g_assert_no_error(err);
    g_assert_cmpstr(aio_context_backend_name(ctx), ==, "epoll");
    aio_context_unref(ctx);
    g_setenv("FERRY_AIO", "nonsense", true);
    g_assert_null(aio_context_new(AIO_BACKEND_AUTO, &err));
    g_assert_nonnull(err);
    g_unsetenv("FERRY_AIO");
}

static void add_tests(AioBackend backend, const char *name)
{
    ADD("bh/runs-once-however-often-scheduled", test_bh_runs_once_however_often_scheduled);
    ADD("bh/cancelled-or-deleted-does-not-run", test_bh_cancelled_or_deleted_does_not_run);
    ADD("bh/schedules-and-deletes-itself", test_bh_schedules_and_deletes_itself);
    ADD("bh/order", test_bh_order);
    ADD("bh/from-other-threads", test_bh_from_other_threads);
    ADD("notify-ends-wait", test_notify_ends_wait);
    ADD("fd/level-triggered", test_fd_level_triggered);
    ADD("fd/set-by-another-thread", test_fd_handler_set_by_another_thread);
    ADD("fd/sides-are-independent", test_fd_sides_are_independent);
    ADD("fd/forgotten-by-another-handler", test_fd_forgotten_by_another_handler);
    ADD("fd/forgotten-by-own-read-handler", test_fd_forgotten_by_own_read_handler);
    ADD("fd/number-reused", test_fd_number_reused);
    ADD("fd/hang-up-reaches-both-sides", test_fd_hang_up_reaches_both_sides);
    ADD("fd/regular-file-is-always-ready", test_fd_regular_file_is_always_ready);
    ADD("fd/many", test_fd_many);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/aio/backend-choice", test_backend_choice);
    return fixture_run(add_tests);
}
