/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Coroutines: entering, yielding, nesting, the pool, registers and control words across switches.
 */
#include <fenv.h>
#include <glib.h>
#include "util/coroutine.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

static void coroutine_fn count_co_entry(void *opaque)
{
    int *steps = opaque;

    for (int i = 0; i < 5; i++) {
        (*steps)++;
        qemu_coroutine_yield();
    }
    *steps = 100;
}

static void test_enter_runs_until_yield(void)
{
    int steps = 0;
    Coroutine *co = qemu_coroutine_create(count_co_entry, &steps);

    for (int i = 1; i <= 5; i++) {
        g_assert_false(qemu_coroutine_entered(co));
        qemu_coroutine_enter(co);
        g_assert_cmpint(steps, ==, i);
    }
    qemu_coroutine_enter(co);
    g_assert_cmpint(steps, ==, 100);
}

typedef struct Nest {
    Coroutine *outer;
    Coroutine *inner;
    GString *log;
} Nest;

static void coroutine_fn inner_co_entry(void *opaque)
{
    Nest *n = opaque;

    g_assert_true(qemu_coroutine_self() == n->inner);
    g_assert_true(qemu_coroutine_entered(n->outer));
    g_assert_true(qemu_coroutine_entered(n->inner));
    g_string_append(n->log, "b");
    qemu_coroutine_yield();
    g_string_append(n->log, "d");
}

static void coroutine_fn outer_co_entry(void *opaque)
{
    Nest *n = opaque;

    g_string_append(n->log, "a");
    qemu_coroutine_enter(n->inner);
    g_assert_true(qemu_coroutine_self() == n->outer);
    g_assert_false(qemu_coroutine_entered(n->inner));
    g_string_append(n->log, "c");
    qemu_coroutine_enter(n->inner);
    g_string_append(n->log, "e");
}

static void test_nested_entry_returns_to_enterer(void)
{
    g_autoptr(GString) log = g_string_new(NULL);
    Nest n = {.log = log};

    n.outer = qemu_coroutine_create(outer_co_entry, &n);
    n.inner = qemu_coroutine_create(inner_co_entry, &n);
    g_assert_false(qemu_in_coroutine());
    qemu_coroutine_enter(n.outer);
    g_assert_false(qemu_in_coroutine());
    g_assert_cmpstr(log->str, ==, "abcde");
}

static void coroutine_fn in_coroutine_co_entry(void *opaque)
{
    *(bool *)opaque = qemu_in_coroutine();
}

static void test_in_coroutine(void)
{
    bool inside = false;

    g_assert_false(qemu_in_coroutine());
    g_assert_nonnull(qemu_coroutine_self());
    qemu_coroutine_enter(qemu_coroutine_create(in_coroutine_co_entry, &inside));
    g_assert_true(inside);
}

static void coroutine_fn yield_once_co_entry(void *opaque)
{
    int *n = opaque;

    (*n)++;
    qemu_coroutine_yield();
    (*n)++;
}

/*
 * More than the pool holds, alive together, twice: the second round takes part of them from the
 * pool.
 */
static void test_many_alive_together(void)
{
    enum {
        N = 300,
    };
    Coroutine *co[N];
    int n = 0;

    for (int round = 0; round < 2; round++) {
        n = 0;
        for (int i = 0; i < N; i++) {
            co[i] = qemu_coroutine_create(yield_once_co_entry, &n);
            qemu_coroutine_enter(co[i]);
        }
        g_assert_cmpint(n, ==, N);
        for (int i = 0; i < N; i++) {
            qemu_coroutine_enter(co[i]);
        }
        g_assert_cmpint(n, ==, 2 * N);
    }
}

static int coroutine_fn recurse_co(int depth)
{
    char buf[512];

    memset(buf, depth, sizeof(buf));
    if (depth > 0) {
        recurse_co(depth - 1);
    }
    qemu_coroutine_yield();
    for (unsigned i = 0; i < sizeof(buf); i++) {
        g_assert_cmpint(buf[i], ==, (char)depth);
    }
    return depth;
}

static void coroutine_fn recurse_co_entry(void *opaque)
{
    recurse_co(100);
    *(bool *)opaque = true;
}

static void test_deep_stacks_are_separate(void)
{
    bool done[2] = {false, false};
    Coroutine *co[2];

    for (int i = 0; i < 2; i++) {
        co[i] = qemu_coroutine_create(recurse_co_entry, &done[i]);
    }
    for (int step = 0; step < 102; step++) {
        g_assert_false(done[0] || done[1]);
        qemu_coroutine_enter(co[0]);
        qemu_coroutine_enter(co[1]);
    }
    g_assert_true(done[0] && done[1]);
}

static void coroutine_fn rounding_co_entry(void *opaque)
{
    g_assert_cmpint(fegetround(), ==, FE_TONEAREST);
    fesetround(FE_UPWARD);
    qemu_coroutine_yield();
    g_assert_cmpint(fegetround(), ==, FE_UPWARD);
    *(bool *)opaque = true;
    fesetround(FE_TONEAREST);
}

static void test_rounding_mode_belongs_to_coroutine(void)
{
    bool done = false;
    Coroutine *co = qemu_coroutine_create(rounding_co_entry, &done);

    qemu_coroutine_enter(co);
    g_assert_cmpint(fegetround(), ==, FE_TONEAREST);
    fesetround(FE_DOWNWARD);
    qemu_coroutine_enter(co);
    g_assert_cmpint(fegetround(), ==, FE_DOWNWARD);
    fesetround(FE_TONEAREST);
    g_assert_true(done);
}

static void *thread_with_pool(void *opaque)
{
    int n = 0;

    for (int i = 0; i < 3; i++) {
        Coroutine *co = qemu_coroutine_create(yield_once_co_entry, &n);

        qemu_coroutine_enter(co);
        qemu_coroutine_enter(co);
    }
    g_assert_cmpint(n, ==, 6);
    return opaque;
}

/* A coroutine may be entered in one thread, and after its yield in another one. */
static void *thread_that_enters(void *opaque)
{
    qemu_coroutine_enter(opaque);
    return NULL;
}

static void test_threads(void)
{
    int n = 0;
    Coroutine *co = qemu_coroutine_create(yield_once_co_entry, &n);

    g_thread_join(g_thread_new("pool", thread_with_pool, NULL));
    qemu_coroutine_enter(co);
    g_thread_join(g_thread_new("enter", thread_that_enters, co));
    g_assert_cmpint(n, ==, 2);
}

static void test_enter_running_aborts(void)
{
    if (g_test_subprocess()) {
        int n = 0;
        Coroutine *co = qemu_coroutine_create(yield_once_co_entry, &n);

        qemu_coroutine_enter(co);
        qemu_coroutine_enter(qemu_coroutine_self()); /* the leader */
        return;
    }
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
    g_test_trap_assert_failed();
}

static void test_enter_ended_aborts(void)
{
    if (g_test_subprocess()) {
        int n = 0;
        Coroutine *co = qemu_coroutine_create(yield_once_co_entry, &n);

        qemu_coroutine_enter(co);
        qemu_coroutine_enter(co);
        qemu_coroutine_enter(co); /* it has ended and is in the pool */
        return;
    }
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
    g_test_trap_assert_failed();
}

#ifdef __SANITIZE_ADDRESS__
static void coroutine_fn tell_frame_co_entry(void *opaque)
{
    char in_frame[64] = {0};

    *(char *volatile *)opaque = in_frame;
    qemu_coroutine_yield();
}
#endif

/* A pooled stack keeps its mapping. The address sanitizer still reports a pointer into it. */
static void test_frames_of_the_ended_are_poisoned(void)
{
#ifdef __SANITIZE_ADDRESS__
    char *in_frame = NULL;
    Coroutine *co = qemu_coroutine_create(tell_frame_co_entry, &in_frame);

    qemu_coroutine_enter(co);
    g_assert_false(__asan_address_is_poisoned(in_frame));
    qemu_coroutine_enter(co);
    g_assert_true(__asan_address_is_poisoned(in_frame));
    co = qemu_coroutine_create(tell_frame_co_entry, &in_frame);
    qemu_coroutine_enter(co);
    g_assert_false(__asan_address_is_poisoned(in_frame));
    qemu_coroutine_enter(co);
#else
    g_test_skip("needs the address sanitizer");
#endif
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/coroutine/enter-runs-until-yield", test_enter_runs_until_yield);
    g_test_add_func("/coroutine/nested-entry-returns-to-enterer",
                    test_nested_entry_returns_to_enterer);
    g_test_add_func("/coroutine/in-coroutine", test_in_coroutine);
    g_test_add_func("/coroutine/many-alive-together", test_many_alive_together);
    g_test_add_func("/coroutine/deep-stacks-are-separate", test_deep_stacks_are_separate);
    g_test_add_func("/coroutine/rounding-mode-belongs-to-coroutine",
                    test_rounding_mode_belongs_to_coroutine);
    g_test_add_func("/coroutine/threads", test_threads);
    g_test_add_func("/coroutine/enter-running-aborts", test_enter_running_aborts);
    g_test_add_func("/coroutine/enter-ended-aborts", test_enter_ended_aborts);
    g_test_add_func("/coroutine/frames-of-the-ended-are-poisoned",
                    test_frames_of_the_ended_are_poisoned);
    return g_test_run();
}
