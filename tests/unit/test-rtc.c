/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The MC146818 real-time clock. */
#include "hw/timer/mc146818rtc.h"

#include "tests/unit/chip-fixture.h"

#define SECOND NANOSECONDS_PER_SECOND
/* 2026-02-28 23:59:58, a Saturday */
#define START 1772323198

/* Places in the section. */
#define AT_INDEX    128
#define AT_PERIODIC 165
#define AT_BASE     205
#define AT_UPDATE   213
#define AT_OFFSET   221
#define SECTION     245

typedef struct World {
    MC146818 rtc;
    Listener irq;
    int64_t began; /* when the base begins */
    unsigned changes;
    int64_t offset_s;
} World;

static void note_change(void *opaque, int64_t offset_s)
{
    World *w = opaque;

    w->changes++;
    w->offset_s = offset_s;
}

static void start_at(World *w, int64_t seconds, bool slew)
{
    *w = (World){.began = chip_now()};
    listener_init(&w->irq);
    w->rtc.base = rtc_base_date(QEMU_CLOCK_VIRTUAL, seconds);
    w->rtc.slew = slew;
    w->rtc.irq = &w->irq.line;
    w->rtc.changed = note_change;
    w->rtc.opaque = w;
    mc146818_init(&w->rtc, qemu_get_aio_context());
}

static void start(World *w)
{
    start_at(w, START, false);
}

static void end(World *w)
{
    mc146818_end(&w->rtc);
    irq_line_clear(&w->irq.line);
}

static void out(World *w, unsigned index, uint8_t value)
{
    register_table_write(&mc146818_ports, &w->rtc, 0, index, 1);
    register_table_write(&mc146818_ports, &w->rtc, 1, value, 1);
}

static uint8_t in(World *w, unsigned index)
{
    register_table_write(&mc146818_ports, &w->rtc, 0, index, 1);
    return (uint8_t)register_table_read(&mc146818_ports, &w->rtc, 1, 1);
}

/* So long after the base began. */
static void to(World *w, int64_t ns)
{
    chip_step_to(w->began + ns);
}

/* "CCYY-MM-DD hh:mm:ss W" of the raw bytes. */
static char *text(World *w)
{
    return g_strdup_printf("%02x%02x-%02x-%02x %02x:%02x:%02x %x", in(w, RTC_CENTURY),
                           in(w, RTC_YEAR), in(w, RTC_MONTH), in(w, RTC_DAY_OF_MONTH),
                           in(w, RTC_HOURS), in(w, RTC_MINUTES), in(w, RTC_SECONDS),
                           in(w, RTC_DAY_OF_WEEK));
}

static void assert_time(World *w, const char *expected)
{
    g_autofree char *got = text(w);

    g_assert_cmpstr(got, ==, expected);
}

static void set_time(World *w, const uint8_t *year_to_seconds)
{
    static const uint8_t indices[] = {RTC_CENTURY, RTC_YEAR,    RTC_MONTH,  RTC_DAY_OF_MONTH,
                                      RTC_HOURS,   RTC_MINUTES, RTC_SECONDS};
    uint8_t b = in(w, RTC_REG_B);

    out(w, RTC_REG_B, b | RTC_B_SET);
    for (size_t i = 0; i < G_N_ELEMENTS(indices); i++) {
        out(w, indices[i], year_to_seconds[i]);
    }
    out(w, RTC_REG_B, b);
}

static void set_alarm(World *w, uint8_t hours, uint8_t minutes, uint8_t seconds)
{
    out(w, RTC_HOURS_ALARM, hours);
    out(w, RTC_MINUTES_ALARM, minutes);
    out(w, RTC_SECONDS_ALARM, seconds);
}

/* --- time --- */

static void test_after_power_on(void)
{
    World w;

    start(&w);
    g_assert_cmphex(in(&w, RTC_REG_A), ==, 0x26);
    g_assert_cmphex(in(&w, RTC_REG_B), ==, 0x02);
    g_assert_cmphex(in(&w, RTC_REG_C), ==, 0x00);
    g_assert_cmphex(in(&w, RTC_REG_D), ==, 0x80);
    assert_time(&w, "2026-02-28 23:59:58 7");
    to(&w, 2 * SECOND - 1);
    assert_time(&w, "2026-02-28 23:59:59 7");
    to(&w, 2 * SECOND);
    assert_time(&w, "2026-03-01 00:00:00 1");
    end(&w);
}

static void test_calendar(void)
{
    static const struct {
        int64_t seconds;
        const char *time;
    } cases[] = {
        {0, "1970-01-01 00:00:00 5"},
        {951782400, "2000-02-29 00:00:00 3"},
        {4107542399, "2100-02-28 23:59:59 1"},
        {4107542400, "2100-03-01 00:00:00 2"},
        {1798761599, "2026-12-31 23:59:59 5"},
        {-1, "1969-12-31 23:59:59 4"},
        {253402300799, "9999-12-31 23:59:59 6"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        World w;

        start_at(&w, cases[i].seconds, false);
        assert_time(&w, cases[i].time);
        end(&w);
    }
}

static void test_hours_and_numbers_in_both_forms(void)
{
    static const struct {
        int hour;
        uint8_t bcd_12, binary_12, bcd_24, binary_24;
    } cases[] = {
        {0, 0x12, 12, 0x00, 0},     {1, 0x01, 1, 0x01, 1},      {11, 0x11, 11, 0x11, 11},
        {12, 0x92, 0x8c, 0x12, 12}, {13, 0x81, 0x81, 0x13, 13}, {23, 0x91, 0x8b, 0x23, 23},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint8_t forms[4] = {cases[i].bcd_12, cases[i].bcd_24, cases[i].binary_12,
                            cases[i].binary_24};
        World w;

        start_at(&w, START / 86400 * 86400 + cases[i].hour * 3600 + 42, false);
        for (unsigned form = 0; form < 4; form++) {
            bool binary = form >= 2;
            uint8_t b = (uint8_t)((binary ? RTC_B_DM : 0) | (form & 1 ? RTC_B_24H : 0));
            uint8_t set[] = {0x20, 0x26, 0x02, 0x28, forms[form], 0x10, 0x20};
            const uint8_t set_binary[] = {20, 26, 2, 28, forms[form], 10, 20};

            out(&w, RTC_REG_B, b);
            g_assert_cmphex(in(&w, RTC_HOURS), ==, forms[form]);
            g_assert_cmphex(in(&w, RTC_YEAR), ==, binary ? 26 : 0x26);
            set_time(&w, binary ? set_binary : set);
            out(&w, RTC_REG_B, RTC_B_24H);
            g_assert_cmphex(in(&w, RTC_HOURS), ==, cases[i].bcd_24);
            g_assert_cmphex(in(&w, RTC_MINUTES), ==, 0x10);
        }
        end(&w);
    }
}

static void test_base_year(void)
{
    static const uint8_t set[] = {0x00, 0x20, 0x02, 0x28, 0x10, 0x00, 0x00};
    World w;

    start(&w);
    w.rtc.base_year = 1980;
    g_assert_cmphex(in(&w, RTC_YEAR), ==, 0x46);
    g_assert_cmphex(in(&w, RTC_CENTURY), ==, 0x00);
    set_time(&w, set);
    w.rtc.base_year = 0;
    assert_time(&w, "2000-02-28 10:00:00 2");
    end(&w);
}

static void test_setting_holds_the_time_and_keeps_the_phase(void)
{
    World w;

    start(&w);
    to(&w, SECOND / 4);
    out(&w, RTC_REG_B, RTC_B_SET | RTC_B_24H);
    out(&w, RTC_MINUTES, 0x30);
    to(&w, 5 * SECOND);
    g_assert_cmphex(in(&w, RTC_SECONDS), ==, 0x58); /* no updates */
    g_assert_cmphex(in(&w, RTC_REG_C) & RTC_C_UF, ==, 0);
    g_assert_cmpuint(w.changes, ==, 0);
    to(&w, 5 * SECOND + SECOND / 2);
    out(&w, RTC_REG_B, RTC_B_24H);
    assert_time(&w, "2026-02-28 23:30:58 7");
    to(&w, 6 * SECOND - 1);
    g_assert_cmphex(in(&w, RTC_SECONDS), ==, 0x58);
    to(&w, 6 * SECOND);
    g_assert_cmphex(in(&w, RTC_SECONDS), ==, 0x59);
    end(&w);
}

static void test_a_write_while_it_runs_counts_on_from_there(void)
{
    World w;

    start(&w);
    to(&w, SECOND + 100);
    out(&w, RTC_HOURS, 0x05);
    assert_time(&w, "2026-02-28 05:59:59 7");
    to(&w, 2 * SECOND);
    assert_time(&w, "2026-02-28 06:00:00 7");
    end(&w);
}

static void test_the_divider_chain_starts_half_a_second_before_an_update(void)
{
    World w;

    start(&w);
    out(&w, RTC_REG_A, 0x76);
    to(&w, 10 * SECOND);
    g_assert_cmphex(in(&w, RTC_SECONDS), ==, 0x58);
    to(&w, 10 * SECOND + 123456789);
    out(&w, RTC_REG_A, 0x26);
    to(&w, 10 * SECOND + 123456789 + SECOND / 2 - 1);
    g_assert_cmphex(in(&w, RTC_SECONDS), ==, 0x58);
    to(&w, 10 * SECOND + 123456789 + SECOND / 2);
    g_assert_cmphex(in(&w, RTC_SECONDS), ==, 0x59);
    end(&w);
}

static void test_values_that_no_calendar_has_count_on(void)
{
    static const uint8_t ones[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    static const uint8_t zeroes[] = {0, 0, 0, 0, 0, 0, 0};
    static const uint8_t late[] = {0x20, 0x26, 0x02, 0x28, 0x23, 0x59, 0x75};
    World w;

    start(&w);
    set_time(&w, late);
    assert_time(&w, "2026-03-01 00:00:15 1");
    set_time(&w, ones);
    set_time(&w, zeroes);
    out(&w, RTC_REG_B, RTC_B_DM);
    set_time(&w, ones);
    chip_step(10 * SECOND);
    set_time(&w, zeroes);
    out(&w, RTC_REG_B, 0);
    set_time(&w, zeroes);
    chip_step(10 * SECOND);
    end(&w);
}

static void test_changes_are_told_as_seconds_against_the_base(void)
{
    static const uint8_t set[] = {0x20, 0x26, 0x03, 0x01, 0x01, 0x00, 0x00};
    World w;

    start(&w);
    to(&w, 7 * SECOND + 5);
    set_time(&w, set);
    g_assert_cmpuint(w.changes, ==, 1);
    g_assert_cmpint(w.offset_s, ==, 3600 - 5);
    out(&w, RTC_YEAR, 0x25);
    g_assert_cmpuint(w.changes, ==, 2);
    g_assert_cmpint(w.offset_s, ==, 3600 - 5 - 365 * 86400);
    (void)in(&w, RTC_SECONDS);
    g_assert_cmpuint(w.changes, ==, 2);
    end(&w);
}

/* --- updates and alarm --- */

static void test_uip_is_set_before_an_update(void)
{
    World w;

    start(&w);
    to(&w, SECOND - RTC_UIP_NS - 1);
    g_assert_cmphex(in(&w, RTC_REG_A), ==, 0x26);
    to(&w, SECOND - RTC_UIP_NS);
    g_assert_cmphex(in(&w, RTC_REG_A), ==, 0xa6);
    to(&w, SECOND - 1);
    g_assert_cmphex(in(&w, RTC_REG_A), ==, 0xa6);
    g_assert_cmphex(in(&w, RTC_SECONDS), ==, 0x58);
    to(&w, SECOND);
    g_assert_cmphex(in(&w, RTC_REG_A), ==, 0x26);
    to(&w, 2 * SECOND - 1);
    out(&w, RTC_REG_A, 0xa6); /* read-only */
    out(&w, RTC_REG_B, RTC_B_SET);
    g_assert_cmphex(in(&w, RTC_REG_A), ==, 0x26);
    end(&w);
}

static void test_update_ended(void)
{
    World w;

    start(&w);
    set_alarm(&w, 0x12, 0x00, 0x00);
    to(&w, SECOND - 1);
    g_assert_cmphex(in(&w, RTC_REG_C) & RTC_C_UF, ==, 0);
    to(&w, SECOND);
    g_assert_cmphex(in(&w, RTC_REG_C) & ~RTC_C_PF, ==, RTC_C_UF);
    g_assert_cmphex(in(&w, RTC_REG_C), ==, 0); /* a read clears */
    g_assert_false(timer_pending(w.rtc.update_timer));
    out(&w, RTC_REG_B, RTC_B_UIE | RTC_B_24H);
    to(&w, 2 * SECOND - 1);
    g_assert_cmpuint(w.irq.rises, ==, 0);
    to(&w, 2 * SECOND);
    g_assert_cmpuint(w.irq.rises, ==, 1);
    to(&w, 5 * SECOND); /* unread: nothing new */
    g_assert_cmpuint(w.irq.rises, ==, 1);
    g_assert_true(irq_level(&w.irq.line));
    g_assert_cmphex(in(&w, RTC_REG_C) & ~RTC_C_PF, ==, RTC_C_IRQF | RTC_C_UF);
    g_assert_false(irq_level(&w.irq.line));
    to(&w, 6 * SECOND);
    g_assert_cmpuint(w.irq.rises, ==, 2);
    out(&w, RTC_REG_B, RTC_B_SET | RTC_B_UIE | RTC_B_24H); /* SET clears UIE */
    g_assert_cmphex(in(&w, RTC_REG_B), ==, RTC_B_SET | RTC_B_24H);
    g_assert_false(irq_level(&w.irq.line));
    end(&w);
}

/* A flag that was set before it is enabled interrupts at once. */
static void test_enabling_a_flag_that_is_set(void)
{
    World w;

    start(&w);
    to(&w, SECOND);
    out(&w, RTC_REG_B, RTC_B_UIE | RTC_B_24H);
    g_assert_true(irq_level(&w.irq.line));
    end(&w);
}

static void test_alarm(void)
{
    static const struct {
        uint8_t hours, minutes, seconds;
        int64_t first, second; /* seconds after 23:59:58; 0: none */
    } cases[] = {
        {0x23, 0x59, 0x59, 1, 86401}, {0x00, 0x00, 0x00, 2, 86402},   {0x23, 0x59, 0x58, 86400, 0},
        {0xc0, 0x00, 0x05, 7, 3607},  {0xff, 0xff, 0x10, 12, 72},     {0xff, 0xff, 0xff, 1, 2},
        {0xc0, 0x59, 0xc0, 1, 3542},  {0x24, 0x00, 0x00, 0, 0},       {0x00, 0x60, 0x00, 0, 0},
        {0x00, 0x00, 0x9a, 0, 0},     {0x01, 0xc1, 0x00, 3602, 3662},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        World w;

        start(&w);
        set_alarm(&w, cases[i].hours, cases[i].minutes, cases[i].seconds);
        out(&w, RTC_REG_B, RTC_B_AIE | RTC_B_24H);
        if (!cases[i].first) {
            to(&w, 2 * 86400 * SECOND);
            g_assert_cmpuint(w.irq.rises, ==, 0);
            end(&w);
            continue;
        }
        to(&w, cases[i].first * SECOND - 1);
        g_assert_cmpuint(w.irq.rises, ==, 0);
        to(&w, cases[i].first * SECOND);
        g_assert_cmpuint(w.irq.rises, ==, 1);
        g_assert_cmphex(in(&w, RTC_REG_C) & ~RTC_C_PF, ==, RTC_C_IRQF | RTC_C_AF | RTC_C_UF);
        if (cases[i].second) {
            to(&w, cases[i].second * SECOND - 1);
            g_assert_cmpuint(w.irq.rises, ==, 1);
            to(&w, cases[i].second * SECOND);
            g_assert_cmpuint(w.irq.rises, ==, 2);
        }
        end(&w);
    }
}

static void test_alarm_in_twelve_hours_and_binary(void)
{
    World w;

    start_at(&w, START / 86400 * 86400, false); /* midnight */
    out(&w, RTC_REG_B, RTC_B_AIE | RTC_B_DM);
    set_alarm(&w, 0x8c, 15, 0); /* 12:15 pm */
    to(&w, (12 * 3600 + 15 * 60) * SECOND - 1);
    g_assert_cmpuint(w.irq.rises, ==, 0);
    to(&w, (12 * 3600 + 15 * 60) * SECOND);
    g_assert_cmpuint(w.irq.rises, ==, 1);
    end(&w);
}

/* Without its interrupt the flag is there all the same, for a guest that polls. */
static void test_alarm_without_interrupt(void)
{
    World w;

    start(&w);
    set_alarm(&w, 0x00, 0x00, 0x10);
    to(&w, 11 * SECOND);
    g_assert_cmphex(in(&w, RTC_REG_C) & RTC_C_AF, ==, 0);
    to(&w, 100 * SECOND);
    g_assert_cmphex(in(&w, RTC_REG_C) & RTC_C_AF, ==, RTC_C_AF);
    g_assert_cmpuint(w.irq.rises, ==, 0);
    end(&w);
}

/* --- periodic interrupt --- */

static void test_every_rate(void)
{
    static const unsigned rates_hz[] = {0,   256, 128, 8192, 4096, 2048, 1024, 512,
                                        256, 128, 64,  32,   16,   8,    4,    2};

    for (unsigned rate = 0; rate < 16; rate++) {
        World w;
        unsigned n = 0;
        int64_t until;

        start(&w);
        out(&w, RTC_REG_A, (uint8_t)(0x20 | rate));
        out(&w, RTC_REG_B, RTC_B_PIE | RTC_B_24H);
        until = chip_now() + SECOND;
        while (timer_pending(w.rtc.periodic_timer) &&
               timer_expire_ns(w.rtc.periodic_timer) <= until) {
            chip_step_to(timer_expire_ns(w.rtc.periodic_timer));
            g_assert_cmphex(in(&w, RTC_REG_C) & RTC_C_PF, ==, RTC_C_PF);
            n++;
        }
        g_assert_cmpuint(n, ==, rates_hz[rate]);
        g_assert_cmpuint(w.irq.rises, ==, n);
        end(&w);
    }
}

static void test_periods_do_not_drift(void)
{
    World w;
    int64_t first;

    start(&w);
    out(&w, RTC_REG_B, RTC_B_PIE | RTC_B_24H);
    first = timer_expire_ns(w.rtc.periodic_timer);
    for (unsigned i = 0; i < 1024; i++) {
        chip_step_to(timer_expire_ns(w.rtc.periodic_timer));
        (void)in(&w, RTC_REG_C);
    }
    g_assert_cmpint(timer_expire_ns(w.rtc.periodic_timer), ==, first + SECOND);
    end(&w);
}

/* 1024 a second, of which the guest reads none for 100 periods. */
static unsigned lost(World *w)
{
    unsigned n = 0;

    out(w, RTC_REG_B, RTC_B_PIE | RTC_B_24H);
    chip_step_to(timer_expire_ns(w->rtc.periodic_timer) + 100 * SECOND / 1024 + 1000);
    while (in(w, RTC_REG_C) & RTC_C_PF) {
        n++;
    }
    return n;
}

static void test_discard_forgets_lost_ticks(void)
{
    World w;

    start(&w);
    g_assert_cmpuint(lost(&w), ==, 1);
    end(&w);
}

static void test_slew_makes_up_for_lost_ticks(void)
{
    World w;
    unsigned n;

    start_at(&w, START, true);
    n = lost(&w);
    g_assert_cmpuint(n, ==, 1 + RTC_REINJECT_MAX);
    g_assert_cmpuint(w.irq.rises, ==, n);
    while (w.rtc.irq_coalesced) { /* the others in later periods */
        unsigned in_period = 0;

        chip_step_to(timer_expire_ns(w.rtc.periodic_timer));
        while (in(&w, RTC_REG_C) & RTC_C_PF) {
            in_period++;
        }
        g_assert_cmpuint(in_period, <=, 1 + RTC_REINJECT_MAX);
        n += in_period;
    }
    /* 101 periods until then, and those in which it caught up. */
    g_assert_cmpuint(n, ==, 101 + 4);
    end(&w);
}

static void test_slew_keeps_the_time_that_is_missing_when_the_rate_changes(void)
{
    World w;

    start_at(&w, START, true);
    out(&w, RTC_REG_B, RTC_B_PIE | RTC_B_24H);
    chip_step_to(timer_expire_ns(w.rtc.periodic_timer) + 64 * SECOND / 1024);
    out(&w, RTC_REG_A, 0x25); /* twice as fast */
    g_assert_cmpuint(w.rtc.irq_coalesced, ==, 128);
    out(&w, RTC_REG_B, RTC_B_24H);
    g_assert_cmpuint(w.rtc.irq_coalesced, ==, 0);
    end(&w);
}

/* A clock of the host goes on while the guest stands. */
static void test_a_guest_that_stood_was_not_late(void)
{
    World w;

    start_at(&w, START, true);
    out(&w, RTC_REG_B, RTC_B_PIE | RTC_B_UIE | RTC_B_24H);
    (void)in(&w, RTC_REG_C);
    w.irq.rises = 0;
    mc146818_guest_runs(&w.rtc, false);
    to(&w, 3600 * SECOND);
    g_assert_cmpuint(w.irq.rises, ==, 0);
    mc146818_guest_runs(&w.rtc, true);
    g_assert_cmpuint(w.irq.rises, ==, 1);
    g_assert_cmphex(in(&w, RTC_REG_C) & (RTC_C_PF | RTC_C_UF), ==, RTC_C_PF | RTC_C_UF);
    g_assert_cmphex(in(&w, RTC_REG_C) & RTC_C_PF, ==, 0);
    g_assert_cmphex(in(&w, RTC_HOURS), ==, 0x00);
    end(&w);
}

/* --- ports, memory, reset --- */

static void test_memory_and_index(void)
{
    World w;

    register_table_check(&mc146818_ports);
    start(&w);
    for (unsigned i = RTC_REG_D + 1; i < RTC_CMOS_BYTES; i++) {
        if (i != RTC_CENTURY && i != RTC_CENTURY_PS2) {
            out(&w, i, (uint8_t)(i ^ 0x5a));
        }
    }
    for (unsigned i = RTC_REG_D + 1; i < RTC_CMOS_BYTES; i++) {
        if (i != RTC_CENTURY && i != RTC_CENTURY_PS2) {
            g_assert_cmphex(in(&w, i | 0x80), ==, i ^ 0x5a); /* bit 7 masks NMI */
            g_assert_cmphex(mc146818_get_byte(&w.rtc, i), ==, i ^ 0x5a);
        }
    }
    g_assert_cmphex(in(&w, RTC_CENTURY_PS2), ==, 0x20);
    g_assert_cmphex(register_table_read(&mc146818_ports, &w.rtc, 0, 1), ==, 0xff);
    out(&w, RTC_REG_C, 0xff);
    out(&w, RTC_REG_D, 0x00);
    g_assert_cmphex(in(&w, RTC_REG_C) & RTC_C_IRQF, ==, 0);
    g_assert_cmphex(in(&w, RTC_REG_D), ==, 0x80);
    register_table_write(&mc146818_ports, &w.rtc, 0, 0x7740, 2); /* index and data */
    g_assert_cmphex(in(&w, 0x40), ==, 0x77);
    g_assert_cmphex(register_table_read(&mc146818_ports, &w.rtc, 0, 2), ==, 0x77ff);
    mc146818_set_byte(&w.rtc, 0x5b, 0x12);
    g_assert_cmphex(in(&w, 0x5b), ==, 0x12);
    end(&w);
}

static void test_reset_ends_interrupts_and_keeps_the_rest(void)
{
    World w;

    start(&w);
    out(&w, 0x40, 0x12);
    out(&w, RTC_HOURS, 0x05);
    out(&w, RTC_REG_B, RTC_B_PIE | RTC_B_AIE | RTC_B_UIE | RTC_B_SQWE | RTC_B_24H);
    to(&w, SECOND);
    g_assert_true(irq_level(&w.irq.line));
    mc146818_reset(&w.rtc);
    g_assert_true(irq_level(&w.irq.line));
    mc146818_update(&w.rtc);
    g_assert_false(irq_level(&w.irq.line));
    g_assert_cmphex(in(&w, RTC_REG_B), ==, RTC_B_24H);
    g_assert_cmphex(in(&w, RTC_REG_C), ==, 0);
    g_assert_cmphex(in(&w, 0x40), ==, 0x12);
    g_assert_cmphex(in(&w, RTC_HOURS), ==, 0x05);
    g_assert_false(timer_pending(w.rtc.periodic_timer));
    g_assert_false(timer_pending(w.rtc.update_timer));
    end(&w);
}

/* --- section --- */

static void test_what_stock_describes(void)
{
    static const char *const fields[][3] = {
        {"cmos_data", "buffer", "128"},
        {"cmos_index", "uint8", "1"},
        {"unused[0]", "unused_buffer", "28"},
        {"periodic_timer", "timer", "8"},
        {"next_periodic_time", "int64", "8"},
        {"unused[1]", "unused_buffer", "24"},
        {"irq_coalesced", "uint32", "4"},
        {"period", "uint32", "4"},
        {"base_rtc", "uint64", "8"},
        {"last_update", "uint64", "8"},
        {"offset", "int64", "8"},
        {"update_timer", "timer", "8"},
        {"next_alarm_time", "uint64", "8"},
    };
    g_autoptr(GString) expected =
        g_string_new("{\"vmsd_name\": \"mc146818rtc\", \"version\": 3, \"fields\": [");
    World w;

    for (size_t i = 0; i < G_N_ELEMENTS(fields); i++) {
        g_string_append_printf(expected, "%s{\"name\": \"%s\", \"type\": \"%s\", \"size\": %s}",
                               i ? ", " : "", fields[i][0], fields[i][1], fields[i][2]);
    }
    g_string_append(expected, "]}");
    start(&w);
    chip_assert_described(&vmstate_mc146818, &w.rtc, expected->str);
    end(&w);
}

static void test_time_and_interrupts_go_on_after_a_load(void)
{
    World w, v;
    g_autoptr(GBytes) bytes = NULL;

    start_at(&w, START, true);
    out(&w, RTC_HOURS, 0x05);
    set_alarm(&w, 0xff, 0x00, 0x00);
    out(&w, 0x40, 0x12);
    out(&w, RTC_REG_B, RTC_B_PIE | RTC_B_AIE | RTC_B_24H);
    to(&w, SECOND / 2);
    (void)in(&w, RTC_REG_C);
    (void)in(&w, RTC_REG_C); /* one was made up for: the subsection is there */
    g_assert_cmpuint(w.rtc.irq_reinject_on_ack_count, >, 0);
    bytes = chip_save(&vmstate_mc146818, &w.rtc);
    end(&w);

    start_at(&v, 0, true);
    v.began = w.began;
    g_assert_true(chip_load(&vmstate_mc146818, &v.rtc, bytes));
    g_assert_cmpuint(v.rtc.irq_coalesced, ==, w.rtc.irq_coalesced);
    g_assert_true(irq_level(&v.irq.line));
    g_assert_cmpuint(v.irq.rises, ==, 0); /* the controller has its own view */
    assert_time(&v, "2026-02-28 05:59:58 7");
    g_assert_cmphex(in(&v, 0x40), ==, 0x12);
    to(&v, 2 * SECOND);
    assert_time(&v, "2026-02-28 06:00:00 7");
    g_assert_cmphex(in(&v, RTC_REG_C), ==, RTC_C_IRQF | RTC_C_PF | RTC_C_AF | RTC_C_UF);
    end(&v);
}

static void test_the_time_being_set_travels(void)
{
    World w, v;
    g_autoptr(GBytes) bytes = NULL;

    start(&w);
    out(&w, RTC_REG_B, RTC_B_SET | RTC_B_24H);
    out(&w, RTC_MINUTES, 0x10);
    bytes = chip_save(&vmstate_mc146818, &w.rtc);
    start_at(&v, 0, false);
    chip_step(20 * SECOND);
    g_assert_true(chip_load(&vmstate_mc146818, &v.rtc, bytes));
    out(&v, RTC_REG_B, RTC_B_24H);
    assert_time(&v, "2026-02-28 23:10:58 7");
    end(&v);
    end(&w);
}

static void test_an_interrupt_that_was_due_when_the_guest_left_comes_at_the_destination(void)
{
    World w, v;
    g_autoptr(GBytes) bytes = NULL;

    start(&w);
    (void)in(&w, RTC_REG_C);
    set_alarm(&w, 0x00, 0x00, 0x00);
    out(&w, RTC_REG_B, RTC_B_AIE | RTC_B_24H);
    timer_del(w.rtc.update_timer); /* the guest stops before it fires */
    to(&w, 3 * SECOND);
    bytes = chip_save(&vmstate_mc146818, &w.rtc);
    g_assert_cmpuint(w.irq.rises, ==, 0);
    start_at(&v, 0, false);
    g_assert_true(chip_load(&vmstate_mc146818, &v.rtc, bytes));
    g_assert_cmpuint(v.irq.rises, ==, 0);
    chip_step(1);
    g_assert_cmpuint(v.irq.rises, ==, 1);
    end(&v);
    end(&w);
}

static bool loads_with(World *w, GBytes *good, size_t at, uint64_t value)
{
    uint64_t be = GUINT64_TO_BE(value);
    g_autoptr(GBytes) bad = chip_patch(good, at, &be, sizeof(be));

    return chip_load(&vmstate_mc146818, &w->rtc, bad);
}

static void test_hostile_sections_do_no_harm(void)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    World w;
    g_autoptr(GBytes) good = NULL;

    start_at(&w, START, true);
    out(&w, RTC_REG_B, RTC_B_PIE | RTC_B_AIE | RTC_B_UIE | RTC_B_24H);
    good = chip_save(&vmstate_mc146818, &w.rtc);
    g_assert_cmpuint(g_bytes_get_size(good), ==, SECTION);
    g_assert_false(chip_load_patched(&vmstate_mc146818, &w.rtc, good, AT_INDEX, 0x80));
    g_assert_false(loads_with(&w, good, AT_BASE, INT64_MAX));
    g_assert_false(loads_with(&w, good, AT_BASE, (uint64_t)INT64_MIN));
    g_assert_false(loads_with(&w, good, AT_UPDATE, UINT64_MAX));
    g_assert_false(loads_with(&w, good, AT_OFFSET, SECOND));
    g_assert_false(loads_with(&w, good, AT_OFFSET, (uint64_t)INT64_MIN));
    g_assert_false(loads_with(&w, good, AT_UPDATE, INT64_MAX));
    g_assert_false(loads_with(&w, good, AT_OFFSET, (uint64_t)-SECOND));
    g_assert_true(loads_with(&w, good, AT_OFFSET, (uint64_t)(1 - SECOND)));
    g_assert_true(loads_with(&w, good, AT_UPDATE, INT64_MAX / 2));
    chip_step(SCALE_MS);
    (void)in(&w, RTC_REG_C);
    g_assert_true(loads_with(&w, good, AT_PERIODIC, (uint64_t)INT64_MIN));
    g_assert_true(loads_with(&w, good, AT_PERIODIC, INT64_MAX));
    chip_step(2 * SCALE_MS);
    g_assert_cmphex(in(&w, RTC_REG_C) & RTC_C_PF, ==, RTC_C_PF);
    for (size_t at = 0; at < SECTION; at++) {
        for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
            if (chip_load_patched(&vmstate_mc146818, &w.rtc, good, at, values[i])) {
                chip_step(SCALE_MS);
                /* They have fired, and do not fire without end. */
                g_assert_true(!timer_pending(w.rtc.update_timer) ||
                              timer_expire_ns(w.rtc.update_timer) > chip_now());
                g_assert_true(!timer_pending(w.rtc.periodic_timer) ||
                              timer_expire_ns(w.rtc.periodic_timer) > chip_now());
                for (unsigned index = 0; index <= RTC_REG_D; index++) {
                    (void)in(&w, index);
                }
                out(&w, RTC_REG_B, 0x82);
                out(&w, RTC_REG_B, 0x72);
            }
        }
    }
    end(&w);
}

int main(int argc, char **argv)
{
    chip_test_start(&argc, &argv);
#define TEST(name) g_test_add_func("/rtc/" #name, test_##name)
    TEST(after_power_on);
    TEST(calendar);
    TEST(hours_and_numbers_in_both_forms);
    TEST(base_year);
    TEST(setting_holds_the_time_and_keeps_the_phase);
    TEST(a_write_while_it_runs_counts_on_from_there);
    TEST(the_divider_chain_starts_half_a_second_before_an_update);
    TEST(values_that_no_calendar_has_count_on);
    TEST(changes_are_told_as_seconds_against_the_base);
    TEST(uip_is_set_before_an_update);
    TEST(update_ended);
    TEST(enabling_a_flag_that_is_set);
    TEST(alarm);
    TEST(alarm_in_twelve_hours_and_binary);
    TEST(alarm_without_interrupt);
    TEST(every_rate);
    TEST(periods_do_not_drift);
    TEST(discard_forgets_lost_ticks);
    TEST(slew_makes_up_for_lost_ticks);
    TEST(slew_keeps_the_time_that_is_missing_when_the_rate_changes);
    TEST(a_guest_that_stood_was_not_late);
    TEST(memory_and_index);
    TEST(reset_ends_interrupts_and_keeps_the_rest);
    TEST(what_stock_describes);
    TEST(time_and_interrupts_go_on_after_a_load);
    TEST(the_time_being_set_travels);
    TEST(an_interrupt_that_was_due_when_the_guest_left_comes_at_the_destination);
    TEST(hostile_sections_do_no_harm);
    return g_test_run();
}
