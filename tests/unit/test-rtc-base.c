/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What -rtc base= and clock= mean for clocks of devices. */
#include "hw/timer/rtc-base.h"

#include "tests/unit/chip-fixture.h"

#define SECOND NANOSECONDS_PER_SECOND

static void test_utc_is_the_time_of_the_host(void)
{
    RTCBase base = rtc_base_utc(QEMU_CLOCK_HOST);
    int64_t host = qemu_clock_get_ns(QEMU_CLOCK_HOST), rest;

    g_assert_cmpint(rtc_base_seconds(&base, host, &rest), ==, host / SECOND);
    g_assert_cmpint(rest, ==, host % SECOND);
}

static void test_localtime_is_ahead_by_the_zone(void)
{
    int64_t host = qemu_clock_get_ns(QEMU_CLOCK_HOST), rest;
    RTCBase base;

    g_setenv("TZ", "UTC-3", true);
    base = rtc_base_localtime(QEMU_CLOCK_HOST);
    g_assert_cmpint(rtc_base_seconds(&base, host, &rest), ==, host / SECOND + 3 * 3600);
}

static void test_another_clock_goes_on_from_the_time_of_the_host(void)
{
    int64_t before = qemu_clock_get_ns(QEMU_CLOCK_HOST), rest, first;
    RTCBase base = rtc_base_utc(QEMU_CLOCK_VIRTUAL);
    int64_t after = qemu_clock_get_ns(QEMU_CLOCK_HOST);

    first = rtc_base_seconds(&base, chip_now(), &rest);
    g_assert_cmpint(first, >=, before / SECOND);
    g_assert_cmpint(first, <=, after / SECOND);
    g_assert_cmpint(rtc_base_seconds(&base, chip_now() + 86400 * SECOND, &rest), ==, first + 86400);
}

static void test_a_date_begins_now(void)
{
    RTCBase base = rtc_base_date(QEMU_CLOCK_VIRTUAL, 1000);
    int64_t rest;

    g_assert_cmpint(rtc_base_seconds(&base, chip_now(), &rest), ==, 1000);
    g_assert_cmpint(rest, ==, 0);
    g_assert_cmpint(rtc_base_seconds(&base, chip_now() - 1, &rest), ==, 999);
    g_assert_cmpint(rest, ==, SECOND - 1);
}

static void test_clocks_get_the_base_that_was_set(void)
{
    RTCBase kept = rtc_base_get(), base = rtc_base_date(QEMU_CLOCK_VIRTUAL, 1000);

    g_assert_cmpint(kept.clock, ==, QEMU_CLOCK_HOST);
    rtc_base_set(&base);
    g_assert_cmpint(rtc_base_get().clock, ==, QEMU_CLOCK_VIRTUAL);
    g_assert_cmpint(rtc_base_get().start_s, ==, 1000);
    rtc_base_set(&kept);
}

int main(int argc, char **argv)
{
    chip_test_start(&argc, &argv);
#define TEST(name) g_test_add_func("/rtc-base/" #name, test_##name)
    TEST(utc_is_the_time_of_the_host);
    TEST(localtime_is_ahead_by_the_zone);
    TEST(another_clock_goes_on_from_the_time_of_the_host);
    TEST(a_date_begins_now);
    TEST(clocks_get_the_base_that_was_set);
    return g_test_run();
}
