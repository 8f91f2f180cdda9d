/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Announcements: how many are sent, which card sends them, and which replaces which. */
#include "net/announce.h"
#include "util/aio.h"

static unsigned counts[2];

static void count(void *opaque)
{
    ++*(unsigned *)opaque;
}

/* Runs the loop until card 0 has announced n times. */
static void run_until(unsigned n)
{
    while (counts[0] < n) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

static AnnounceParameters params(int64_t rounds)
{
    return (AnnounceParameters){.initial = 1, .max = 2, .rounds = rounds, .step = 1};
}

static void test_rounds(void)
{
    AnnounceParameters p = params(4);

    counts[0] = counts[1] = 0;
    g_assert_true(announce_start(&p, NULL));
    g_assert_cmpuint(counts[0], ==, 1);
    run_until(4);
    g_assert_cmpuint(counts[1], ==, 4);
    p.rounds = 0;
    g_assert_true(announce_start(&p, NULL));
    g_assert_cmpuint(counts[0], ==, 4);
}

static void test_interfaces(void)
{
    AnnounceParameters p = params(2);
    strList only = {.value = (char *)"a"};

    counts[0] = counts[1] = 0;
    p.has_interfaces = true;
    p.interfaces = &only;
    g_assert_true(announce_start(&p, NULL));
    run_until(2);
    g_assert_cmpuint(counts[1], ==, 0);
}

/* The same id replaces, another one goes on beside. */
static void test_ids(void)
{
    AnnounceParameters slow = params(1000), once = params(1);

    counts[0] = 0;
    slow.initial = slow.max = 100000;
    slow.id = (char *)"x";
    g_assert_true(announce_start(&slow, NULL));
    once.id = (char *)"x";
    g_assert_true(announce_start(&once, NULL));
    g_assert_cmpuint(counts[0], ==, 2);
    g_assert_true(announce_start(&slow, NULL));
    once.id = NULL;
    g_assert_true(announce_start(&once, NULL));
    g_assert_cmpuint(counts[0], ==, 4);
    announce_stop_all();
    announce_stop_all();
}

static void test_ranges(void)
{
    AnnounceParameters bad[] = {
        {.initial = -1}, {.initial = 100001}, {.max = 100001},     {.rounds = 1001},
        {.rounds = -1},  {.step = -1},        {.step = INT64_MAX},
    };

    counts[0] = 0;
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) err = NULL;

        g_assert_false(announce_start(&bad[i], &err));
        g_assert_nonnull(err);
    }
    g_assert_cmpuint(counts[0], ==, 0);
}

int main(int argc, char **argv)
{
    AnnouncedCard *a, *b;
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    a = announce_card_register("a", count, &counts[0]);
    b = announce_card_register("b", count, &counts[1]);
    g_test_add_func("/announce/rounds", test_rounds);
    g_test_add_func("/announce/interfaces", test_interfaces);
    g_test_add_func("/announce/ids", test_ids);
    g_test_add_func("/announce/ranges", test_ranges);
    ret = g_test_run();
    announce_card_unregister(a);
    announce_card_unregister(b);
    return ret;
}
