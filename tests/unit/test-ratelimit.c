/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RateLimit and the checked arithmetic, on a clock of the test's own. */
#include <glib.h>
#include <stdint.h>

#include "util/bswap.h"
#include "util/int-math.h"
#include "util/ratelimit.h"
#include "util/timer.h"
#include "util/units.h"

#define SEC   NANOSECONDS_PER_SECOND
#define SLICE (100 * SCALE_MS)

static void test_unlimited_never_waits(void)
{
    RateLimit limit = {0};

    g_assert_cmpint(ratelimit_calculate_delay_at(&limit, UINT64_MAX, 5), ==, 0);
    ratelimit_set_speed_at(&limit, 0, SLICE, 7);
    g_assert_cmpint(ratelimit_calculate_delay_at(&limit, UINT64_MAX, INT64_MAX / 2), ==, 0);
}

/* Moves requests as a job would: charge, wait, go on. Returns the bytes moved in the time. */
static uint64_t run_for(RateLimit *limit, uint64_t request, int64_t *now, int64_t ns)
{
    int64_t end = *now + ns;
    uint64_t moved = 0;

    while (*now < end) {
        moved += request;
        *now += ratelimit_calculate_delay_at(limit, request, *now);
        *now += 1000; /* the request itself takes some time */
    }
    return moved;
}

static void test_holds_the_speed(void)
{
    static const struct {
        uint64_t speed, request;
    } cases[] = {
        {10 * MiB, 64 * KiB}, {10 * MiB, 16 * MiB}, {1 * MiB, 1}, {1000, 512}, {100 * GiB, MiB},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        RateLimit limit = {0};
        int64_t now = 12345;
        uint64_t moved, due = cases[i].speed * 20;

        ratelimit_set_speed_at(&limit, cases[i].speed, SLICE, now);
        moved = run_for(&limit, cases[i].request, &now, 20 * SEC);
        g_assert_cmpuint(moved, <=, due + cases[i].speed / 10 + 2 * cases[i].request);
        if (cases[i].request * (SEC / 1000) > cases[i].speed) {
            /* Not bound by the 1 µs that each request takes. */
            g_assert_cmpuint(moved, >=, due - due / 100);
        }
    }
}

static void test_idle_time_is_not_saved_up(void)
{
    RateLimit limit = {0};

    ratelimit_set_speed_at(&limit, MiB, SLICE, 0);
    g_assert_cmpint(ratelimit_calculate_delay_at(&limit, MiB, 1000 * SEC), ==, SEC - SLICE);
    g_assert_cmpint(ratelimit_calculate_delay_at(&limit, 0, 1000 * SEC), ==, SEC - SLICE);
    g_assert_cmpint(ratelimit_calculate_delay_at(&limit, 0, 1001 * SEC), ==, 0);
}

static void test_new_speed_applies_to_what_is_owed(void)
{
    RateLimit limit = {0};

    ratelimit_set_speed_at(&limit, 1, SLICE, 0);
    g_assert_cmpint(ratelimit_calculate_delay_at(&limit, MiB, 0), ==, MiB * SEC - SLICE);
    ratelimit_set_speed_at(&limit, MiB, SLICE, 0);
    g_assert_cmpint(ratelimit_calculate_delay_at(&limit, 0, 0), ==, SEC - SLICE);
    ratelimit_set_speed_at(&limit, 0, SLICE, 0);
    g_assert_cmpint(ratelimit_calculate_delay_at(&limit, 0, 0), ==, 0);
    ratelimit_set_speed_at(&limit, MiB, SLICE, 0);
    g_assert_cmpint(ratelimit_calculate_delay_at(&limit, 0, 0), ==, 0);
}

static void test_extreme_charges_do_not_overflow(void)
{
    RateLimit limit = {0};
    int64_t now = SEC * 86400 * 3650;

    ratelimit_set_speed_at(&limit, 1, UINT64_MAX, now);
    for (int i = 0; i < 10; i++) {
        g_assert_cmpint(ratelimit_calculate_delay_at(&limit, UINT64_MAX, now), >=, 0);
    }
    ratelimit_set_speed_at(&limit, UINT64_MAX, 0, now);
    g_assert_cmpint(ratelimit_calculate_delay_at(&limit, UINT64_MAX, now), >=, 0);
}

static void test_real_clock_is_used(void)
{
    RateLimit limit = {0};

    ratelimit_set_speed(&limit, 1, SLICE);
    g_assert_cmpint(ratelimit_calculate_delay(&limit, 1000000), >, SEC);
}

static void test_checked_arithmetic(void)
{
    uint64_t u;
    int64_t i;
    size_t z;

    g_assert_true(add_u64(UINT64_MAX - 1, 1, &u) && u == UINT64_MAX);
    g_assert_false(add_u64(UINT64_MAX, 1, &u));
    g_assert_false(mul_u64(UINT64_C(1) << 32, UINT64_C(1) << 32, &u));
    g_assert_false(add_i64(INT64_MAX, 1, &i));
    g_assert_false(mul_size(SIZE_MAX, 2, &z));
    g_assert_cmpuint(muldiv64(UINT64_MAX, 3, 3), ==, UINT64_MAX);
    g_assert_cmpuint(muldiv64(UINT64_MAX, 3, 2), ==, UINT64_MAX);
    g_assert_true(range_fits_u64(10, 0, 10));
    g_assert_false(range_fits_u64(11, 0, 10));
    g_assert_false(range_fits_u64(1, UINT64_MAX, 10));
    g_assert_true(round_up_u64(5, 4, &u) && u == 8);
    g_assert_false(round_up_u64(UINT64_MAX - 1, 512, &u));
}

static void test_overlap_matches_definition(void)
{
    for (uint64_t a = 0; a < 5; a++) {
        for (uint64_t an = 0; an < 5; an++) {
            for (uint64_t b = 0; b < 5; b++) {
                for (uint64_t bn = 0; bn < 5; bn++) {
                    bool share = false;

                    for (uint64_t x = a; x < a + an; x++) {
                        share |= x >= b && x < b + bn;
                    }
                    g_assert_cmpint(ranges_overlap(a, an, b, bn), ==, share);
                }
            }
        }
    }
    g_assert_true(ranges_overlap(10, UINT64_MAX, UINT64_MAX - 1, 5));
}

static void test_rounding_and_bits(void)
{
    uint32_t small = 4096;

    g_assert_cmpuint(ROUND_DOWN(UINT64_C(0x100001fff), small), ==, 0x100001000);
    g_assert_cmpint(ROUND_UP((int64_t)5000000001, 512), ==, 5000000512);
    g_assert_cmpint(ROUND_UP(0, 512), ==, 0);
    g_assert_cmpint(QEMU_ALIGN_UP(10, 3), ==, 12);
    g_assert_cmpint(QEMU_ALIGN_DOWN(10, 3), ==, 9);
    g_assert_cmpint(DIV_ROUND_UP(10, 3), ==, 4);
    g_assert_true(IS_ALIGNED(1024, 512) && !IS_ALIGNED(1023, 512));
    g_assert_true(is_power_of_2(1) && is_power_of_2(UINT64_C(1) << 63));
    g_assert_false(is_power_of_2(0) || is_power_of_2(6));
    g_assert_cmpint(clz64(0), ==, 64);
    g_assert_cmpuint(pow2floor(1000), ==, 512);
    g_assert_cmpuint(pow2ceil(1000), ==, 1024);
    g_assert_cmpuint(pow2ceil(1024), ==, 1024);
    g_assert_cmpuint(pow2ceil(UINT64_MAX), ==, 0);
}

static void test_byte_order_at_any_alignment(void)
{
    uint8_t buf[16];

    for (int at = 0; at < 8; at++) {
        stq_be_p(buf + at, 0x0102030405060708);
        g_assert_cmphex(buf[at], ==, 1);
        g_assert_cmphex(buf[at + 7], ==, 8);
        g_assert_cmphex(ldq_be_p(buf + at), ==, 0x0102030405060708);
        g_assert_cmphex(ldq_le_p(buf + at), ==, 0x0807060504030201);
        stl_le_p(buf + at, 0xfffefdfc);
        g_assert_cmphex(buf[at], ==, 0xfc);
        g_assert_cmpint(ldl_le_p(buf + at), ==, -0x10204);
        g_assert_cmphex(ldul_le_p(buf + at), ==, 0xfffefdfc);
        stw_be_p(buf + at, 0x8001);
        g_assert_cmpint(lduw_be_p(buf + at), ==, 0x8001);
        g_assert_cmpint(lduw_le_p(buf + at), ==, 0x0180);
    }
    g_assert_cmphex(be32_to_cpu(cpu_to_be32(0x12345678)), ==, 0x12345678);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ratelimit/unlimited", test_unlimited_never_waits);
    g_test_add_func("/ratelimit/holds-speed", test_holds_the_speed);
    g_test_add_func("/ratelimit/idle", test_idle_time_is_not_saved_up);
    g_test_add_func("/ratelimit/new-speed", test_new_speed_applies_to_what_is_owed);
    g_test_add_func("/ratelimit/extremes", test_extreme_charges_do_not_overflow);
    g_test_add_func("/ratelimit/clock", test_real_clock_is_used);
    g_test_add_func("/int-math/checked", test_checked_arithmetic);
    g_test_add_func("/int-math/overlap", test_overlap_matches_definition);
    g_test_add_func("/int-math/rounding", test_rounding_and_bits);
    g_test_add_func("/bswap/unaligned", test_byte_order_at_any_alignment);
    return g_test_run();
}
