/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The registry of what can be cut: names, all or nothing, and threads. */
#include "util/error.h"
#include "util/yank.h"

static void count(void *opaque)
{
    g_atomic_int_inc((int *)opaque);
}

static void test_all_or_nothing(void)
{
    g_autoptr(GError) err = NULL;
    Yankable *a = yank_register_instance(YANK_BLOCK_NODE, "a", NULL);
    Yankable *b = yank_register_instance(YANK_CHARDEV, "a", NULL);
    YankName both[] = {{YANK_BLOCK_NODE, "a"}, {YANK_CHARDEV, "a"}};
    YankName wrong[] = {{YANK_BLOCK_NODE, "a"}, {YANK_MIGRATION, ""}};
    int n = 0, m = 0;

    g_assert_nonnull(a);
    g_assert_nonnull(b);
    g_assert_null(yank_register_instance(YANK_BLOCK_NODE, "a", &err));
    g_clear_error(&err);
    yank_register_function(a, count, &n);
    yank_register_function(a, count, &m);
    yank_register_function(b, count, &n);
    g_assert_false(yank_run(wrong, 2, &err));
    g_assert_cmpint(n + m, ==, 0);
    g_assert_true(yank_run(both, 2, NULL));
    g_assert_cmpint(n, ==, 2);
    g_assert_cmpint(m, ==, 1);
    yank_unregister_function(a, count, &n);
    g_assert_true(yank_run(both, 1, NULL));
    g_assert_cmpint(n, ==, 2);
    g_assert_cmpint(m, ==, 2);
    yank_unregister_function(a, count, &m);
    yank_unregister_function(b, count, &n);
    yank_unregister_instance(a);
    yank_unregister_instance(b);
    g_assert_false(yank_run(both, 1, NULL));
}

#define ROUNDS 20000

static int running;

static void *come_and_go(void *opaque)
{
    const char *name = opaque;

    for (int i = 0; i < ROUNDS; i++) {
        Yankable *instance = yank_register_instance(YANK_BLOCK_NODE, name, NULL);
        int *n = g_new0(int, 1);

        yank_register_function(instance, count, n);
        yank_unregister_function(instance, count, n);
        g_free(n); /* no callback may touch it any more */
        yank_unregister_instance(instance);
    }
    g_atomic_int_add(&running, -1);
    return NULL;
}

static void test_threads(void)
{
    YankName names[] = {{YANK_BLOCK_NODE, "x"}, {YANK_BLOCK_NODE, "y"}};
    GThread *x, *y;
    unsigned hits = 0;

    running = 2;
    x = g_thread_new("x", come_and_go, (void *)"x");
    y = g_thread_new("y", come_and_go, (void *)"y");
    for (unsigned i = 0; g_atomic_int_get(&running); i++) {
        hits += yank_run(&names[i % 2], 1, NULL);
    }
    g_thread_join(x);
    g_thread_join(y);
    g_test_message("%u hits", hits);
    g_assert_false(yank_run(names, 1, NULL));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/yank/all-or-nothing", test_all_or_nothing);
    g_test_add_func("/yank/threads", test_threads);
    return g_test_run();
}
