/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Throttling: rates, bursts, independence of the buckets, and what is refused. */
#include <glib.h>

#include "util/throttle.h"
#include "util/timer.h"

#define SEC NANOSECONDS_PER_SECOND

typedef struct Client {
    ThrottleState ts;
    int64_t now;
} Client;

static void start(Client *c, const ThrottleConfig *cfg)
{
    c->now = 1000 * SEC;
    throttle_init(&c->ts, cfg, c->now);
}

/* As many requests as may start in the time; what they amount to. */
static uint64_t run_for(Client *c, bool is_write, uint64_t request, int64_t ns)
{
    int64_t end = c->now + ns;
    uint64_t moved = 0;

    for (;;) {
        int64_t wait = throttle_compute_wait(&c->ts, is_write, c->now);

        if (wait > end - c->now) {
            c->now = end;
            return moved;
        }
        c->now += wait;
        g_assert_cmpint(throttle_compute_wait(&c->ts, is_write, c->now), ==, 0);
        throttle_account(&c->ts, is_write, request);
        moved += request;
    }
}

static void assert_near(uint64_t value, uint64_t expect, uint64_t slack)
{
    g_assert_cmpuint(value, >=, expect - MIN(slack, expect));
    g_assert_cmpuint(value, <=, expect + slack);
}

static void test_every_bucket_holds_its_rate(void)
{
    for (int b = 0; b < THROTTLE_BUCKETS; b++) {
        bool ops = b >= THROTTLE_OPS_TOTAL,
             total = b == THROTTLE_BPS_TOTAL || b == THROTTLE_OPS_TOTAL;
        bool writes = total || b == THROTTLE_BPS_WRITE || b == THROTTLE_OPS_WRITE;
        uint64_t request = ops ? 1 : 4096;
        ThrottleConfig cfg;
        Client c;

        throttle_config_init(&cfg);
        g_assert_false(throttle_enabled(&cfg));
        cfg.limits[b].avg = 100 * request;
        g_assert_true(throttle_enabled(&cfg));
        start(&c, &cfg);
        /*
         * A tenth of a second's worth is let through at once, and one request that passes the rim.
         */
        assert_near(run_for(&c, writes, request, 10 * SEC), 1000 * request, 12 * request);
        if (total) {
            g_assert_cmpint(throttle_compute_wait(&c.ts, !writes, c.now), >, 0);
        } else {
            throttle_account(&c.ts, !writes, 1ULL << 40);
            g_assert_cmpint(throttle_compute_wait(&c.ts, !writes, c.now), ==, 0);
        }
    }
}

static void test_burst_then_average(void)
{
    ThrottleConfig cfg;
    Client c;

    throttle_config_init(&cfg);
    cfg.limits[THROTTLE_OPS_TOTAL] = (ThrottleLimit){.avg = 100, .max = 1000, .burst_length = 1};
    start(&c, &cfg);
    /* burst_length 1: `max` operations at once, then avg. */
    g_assert_cmpuint(run_for(&c, false, 1, 0), ==, 1001);
    assert_near(run_for(&c, false, 1, 10 * SEC), 1000, 2);
    /* Rest refills the burst, as far as time allows. */
    c.now += 5 * SEC;
    assert_near(run_for(&c, false, 1, 0), 500, 2);
}

static void test_long_burst_runs_at_max(void)
{
    ThrottleConfig cfg;
    Client c;
    uint64_t moved;

    throttle_config_init(&cfg);
    cfg.limits[THROTTLE_OPS_WRITE] = (ThrottleLimit){.avg = 100, .max = 1000, .burst_length = 10};
    start(&c, &cfg);
    moved = run_for(&c, true, 1, 5 * SEC);
    assert_near(moved, 5000, 105);
    /*
     * The bucket of 10 s at max also leaks at avg meanwhile, so the burst lasts 10000 / (1000 -
     * 100) s.
     */
    moved += run_for(&c, true, 1, 15 * SEC);
    assert_near(moved, 10000 + 20 * 100, 105);
    assert_near(run_for(&c, true, 1, 10 * SEC), 1000, 2);
}

static void test_op_size_splits_large_requests(void)
{
    ThrottleConfig cfg;
    Client c;

    throttle_config_init(&cfg);
    cfg.limits[THROTTLE_OPS_TOTAL].avg = 100;
    cfg.op_size = 4096;
    start(&c, &cfg);
    assert_near(run_for(&c, false, 4 * 4096, 10 * SEC) / (4 * 4096), 250, 5);
    start(&c, &cfg);
    assert_near(run_for(&c, false, 512, 10 * SEC) / 512, 1000, 12);
}

static void test_wait_is_the_longest_of_the_buckets(void)
{
    ThrottleConfig cfg;
    Client c;

    throttle_config_init(&cfg);
    cfg.limits[THROTTLE_BPS_READ].avg = 1000;
    cfg.limits[THROTTLE_OPS_READ].avg = 1;
    start(&c, &cfg);
    throttle_account(&c.ts, false, 600);
    /* bytes: (600 - 100) / 1000 s; operations: (1 - 0.1) / 1 s */
    g_assert_cmpint(throttle_compute_wait(&c.ts, false, c.now), ==, 900 * SCALE_MS);
    throttle_account(&c.ts, false, 9400);
    g_assert_cmpint(throttle_compute_wait(&c.ts, false, c.now), ==, 9900 * SCALE_MS);
    g_assert_cmpint(throttle_compute_wait(&c.ts, false, c.now - SEC), ==, 9900 * SCALE_MS);
    g_assert_cmpint(throttle_compute_wait(&c.ts, false, c.now + SEC), ==, 8900 * SCALE_MS);
}

static void test_huge_debt_does_not_overflow(void)
{
    ThrottleConfig cfg;
    Client c;

    throttle_config_init(&cfg);
    cfg.limits[THROTTLE_BPS_TOTAL].avg = 1;
    start(&c, &cfg);
    for (int i = 0; i < 100; i++) {
        throttle_account(&c.ts, true, INT64_MAX);
    }
    g_assert_cmpint(throttle_compute_wait(&c.ts, true, c.now), ==, INT64_MAX / 4 + 1);
}

static void test_new_config_starts_empty(void)
{
    ThrottleConfig cfg;
    Client c;

    throttle_config_init(&cfg);
    cfg.limits[THROTTLE_BPS_TOTAL].avg = 1;
    start(&c, &cfg);
    throttle_account(&c.ts, true, 1 << 30);
    cfg.limits[THROTTLE_BPS_TOTAL].avg = 2;
    throttle_set_config(&c.ts, &cfg, c.now);
    g_assert_cmpint(throttle_compute_wait(&c.ts, true, c.now), ==, 0);
}

static void test_validity(void)
{
    static const struct {
        ThrottleLimit total, read;
        int64_t op_size;
        bool ops;
        const char *error; /* NULL: valid */
    } cases[] = {
        {{0, 0, 1}, {0, 0, 1}, 0, false, NULL},
        {{5, 0, 1}, {0, 0, 1}, 0, false, NULL},
        {{5, 10, 3}, {0, 0, 1}, 4096, true, NULL},
        {{0, 0, 1}, {7, 7, 1}, 0, true, NULL},
        {{THROTTLE_VALUE_MAX, THROTTLE_VALUE_MAX, 1}, {0, 0, 1}, 0, true, NULL},
        {{5, 0, 1}, {7, 0, 1}, 0, true, "*cannot be used at the same time*"},
        {{-1, 0, 1}, {0, 0, 1}, 0, true, "*must be within*"},
        {{THROTTLE_VALUE_MAX + 1, 0, 1}, {0, 0, 1}, 0, false, "*must be within*"},
        {{1, -1, 1}, {0, 0, 1}, 0, false, "*must be within*"},
        {{0, 5, 1}, {0, 0, 1}, 0, false, "*require corresponding*"},
        {{9, 5, 1}, {0, 0, 1}, 0, false, "*cannot be lower*"},
        {{5, 9, 0}, {0, 0, 1}, 0, false, "*at least 1*"},
        {{5, 0, 2}, {0, 0, 1}, 0, false, "*without burst rate*"},
        {{5, 1000, THROTTLE_VALUE_MAX / 999}, {0, 0, 1}, 0, false, "*too high*"},
        {{5, 0, 1}, {0, 0, 1}, 4096, false, "*requires an iops value*"},
        {{5, 0, 1}, {0, 0, 1}, -1, true, "*iops size*"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) err = NULL;
        ThrottleConfig cfg;
        int first = cases[i].ops ? THROTTLE_OPS_TOTAL : THROTTLE_BPS_TOTAL;

        throttle_config_init(&cfg);
        cfg.limits[first] = cases[i].total;
        cfg.limits[first + 1] = cases[i].read;
        cfg.op_size = cases[i].op_size;
        g_assert_cmpint(throttle_config_is_valid(&cfg, &err), ==, cases[i].error == NULL);
        if (cases[i].error) {
            g_assert_nonnull(err);
            g_test_message("%s", err->message);
            g_assert_true(g_pattern_match_simple(cases[i].error, err->message));
        } else {
            g_assert_no_error(err);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/throttle/rates", test_every_bucket_holds_its_rate);
    g_test_add_func("/throttle/burst", test_burst_then_average);
    g_test_add_func("/throttle/long-burst", test_long_burst_runs_at_max);
    g_test_add_func("/throttle/op-size", test_op_size_splits_large_requests);
    g_test_add_func("/throttle/longest-wait", test_wait_is_the_longest_of_the_buckets);
    g_test_add_func("/throttle/huge-debt", test_huge_debt_does_not_overflow);
    g_test_add_func("/throttle/new-config", test_new_config_starts_empty);
    g_test_add_func("/throttle/validity", test_validity);
    return g_test_run();
}
