/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests of the event loop: a context for each test, and every test over each back end. */
#ifndef FERRY_TESTS_UNIT_AIO_FIXTURE_H
#define FERRY_TESTS_UNIT_AIO_FIXTURE_H

#include <glib.h>
#include "tests/unit/sanitizer.h"
#include "util/aio.h"

typedef struct Fixture {
    AioContext *ctx;
} Fixture;

static inline void fixture_set_up(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) err = NULL;

    f->ctx = aio_context_new(GPOINTER_TO_INT(data), &err);
    g_assert_no_error(err);
    aio_context_attach_thread(f->ctx);
}

static inline void fixture_tear_down(Fixture *f, gconstpointer data)
{
    (void)data;
    while (aio_poll(f->ctx, false)) {
    }
    aio_context_unref(f->ctx);
}

static inline void count_cb(void *opaque)
{
    (*(int *)opaque)++;
}

/* Turns of the loop that end with nothing left to do. */
static inline void settle(AioContext *ctx)
{
    for (int i = 0; i < 4; i++) {
        aio_poll(ctx, false);
    }
}

static inline void append_a(void *opaque)
{
    g_string_append_c(opaque, 'a');
}

static inline void append_b(void *opaque)
{
    g_string_append_c(opaque, 'b');
}

/* In a function add_tests(backend, name). */
#define ADD(path, fn)                                                            \
    do {                                                                         \
        g_autofree char *full_ = g_strdup_printf("/aio/%s/%s", name, path);      \
        g_test_add(full_, Fixture, GINT_TO_POINTER(backend), fixture_set_up, fn, \
                   fixture_tear_down);                                           \
    } while (0)

/* Runs what add_tests() adds over epoll and, where there is one, io_uring. */
static inline int fixture_run(void (*add_tests)(AioBackend backend, const char *name))
{
    AioContext *probe;

    add_tests(AIO_BACKEND_EPOLL, "epoll");
    probe = aio_context_new(AIO_BACKEND_IO_URING, NULL);
    if (probe) {
        aio_context_unref(probe);
        add_tests(AIO_BACKEND_IO_URING, "io_uring");
    } else {
        g_test_message("this system offers no io_uring");
    }
    return g_test_run();
}

#endif
