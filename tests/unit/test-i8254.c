/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 8254 interval timer: each mode against the data sheet's waveforms. */
#include "hw/timer/i8254.h"

#include "tests/unit/chip-fixture.h"

#define CONTROL       3
#define CHANNEL_BYTES 32
#define CHANNEL(n)    (4 + (n)*CHANNEL_BYTES) /* in the section */

typedef struct World {
    I8254 pit;
    Listener irq;
    int64_t loaded; /* tick 0 */
} World;

static void out(World *w, unsigned port, uint8_t value)
{
    register_table_write(&i8254_ports, &w->pit, port, value, 1);
}

static uint8_t in(World *w, unsigned port)
{
    return (uint8_t)register_table_read(&i8254_ports, &w->pit, port, 1);
}

static void start(World *w)
{
    *w = (World){0};
    listener_init(&w->irq);
    i8254_init(&w->pit, device_clock_virtual(), &w->irq.line);
    i8254_reset(&w->pit);
    i8254_update(&w->pit);
    w->irq.rises = 0;
}

static void end(World *w)
{
    i8254_end(&w->pit);
    irq_line_clear(&w->irq.line);
}

/* Counts of two bytes, the control word `word` first (0: none). */
static void load(World *w, unsigned n, uint8_t word, unsigned count)
{
    if (word) {
        out(w, CONTROL, (uint8_t)(n << 6 | word));
    }
    out(w, n, (uint8_t)count);
    out(w, n, (uint8_t)(count >> 8));
    w->loaded = chip_now();
}

static int64_t tick_ns(uint64_t tick)
{
    return (int64_t)((tick * NANOSECONDS_PER_SECOND + I8254_HZ - 1) / I8254_HZ);
}

/* Goes to the first ns of a tick. */
static void to_tick(World *w, uint64_t tick)
{
    chip_step_to(w->loaded + tick_ns(tick));
}

static unsigned value(World *w, unsigned n)
{
    unsigned low;

    out(w, CONTROL, (uint8_t)(n << 6));
    low = in(w, n);
    return low | (unsigned)in(w, n) << 8;
}

static uint8_t status(World *w, unsigned n)
{
    out(w, CONTROL, (uint8_t)(0xe0 | 2u << n));
    return in(w, n);
}

/* The wave from tick 0 on: a letter a tick, H or L; and what is in the counter. */
static void assert_wave(World *w, unsigned n, const char *wave, const unsigned *values)
{
    for (unsigned tick = 0; wave[tick]; tick++) {
        to_tick(w, tick);
        g_assert_cmpint(i8254_out(&w->pit, n) ? 'H' : 'L', ==, wave[tick]);
        if (values) {
            g_assert_cmphex(value(w, n), ==, values[tick]);
        }
        if (n == 0) {
            g_assert_true(irq_level(&w->irq.line) == (wave[tick] == 'H'));
        }
    }
}

static void test_mode_0_rises_at_the_terminal_count(void)
{
    static const unsigned values[] = {4, 3, 2, 1, 0, 0xffff, 0xfffe};
    World w;

    start(&w);
    out(&w, CONTROL, 0x30);
    g_assert_false(i8254_out(&w.pit, 0)); /* with the control word already */
    load(&w, 0, 0, 4);
    assert_wave(&w, 0, "LLLLHHH", values);
    g_assert_cmpuint(w.irq.rises, ==, 1);
    g_assert_cmpint(w.irq.risen_at, ==, w.loaded + tick_ns(4));
    load(&w, 0, 0, 2); /* a new count starts anew */
    assert_wave(&w, 0, "LLHHH", NULL);
    load(&w, 0, 0, 3);
    to_tick(&w, 1);
    out(&w, 0, 3); /* the first of two bytes stops it, with OUT low */
    chip_step(tick_ns(100));
    g_assert_false(i8254_out(&w.pit, 0));
    out(&w, 0, 0);
    w.loaded = chip_now();
    assert_wave(&w, 0, "LLLH", NULL);
    end(&w);
}

static void test_mode_0_stands_while_gate_is_low(void)
{
    World w;

    start(&w);
    i8254_set_gate(&w.pit, 2, true);
    load(&w, 2, 0x30, 5);
    to_tick(&w, 2);
    i8254_set_gate(&w.pit, 2, false);
    chip_step(tick_ns(1000));
    g_assert_cmphex(value(&w, 2), ==, 3);
    g_assert_false(i8254_out(&w.pit, 2));
    i8254_set_gate(&w.pit, 2, true);
    w.loaded = chip_now();
    to_tick(&w, 2);
    g_assert_cmphex(value(&w, 2), ==, 1);
    to_tick(&w, 3);
    g_assert_true(i8254_out(&w.pit, 2));
    /* After the terminal count GATE holds the value, and OUT stays. */
    i8254_set_gate(&w.pit, 2, false);
    chip_step(tick_ns(1000));
    g_assert_cmphex(value(&w, 2), ==, 0);
    g_assert_true(i8254_out(&w.pit, 2));
    end(&w);
}

static void test_mode_1_is_a_one_shot_that_gate_starts(void)
{
    World w;

    start(&w);
    load(&w, 2, 0x32, 3);
    assert_wave(&w, 2, "HHHHHHH", NULL);
    g_assert_cmphex(status(&w, 2), ==, 0xf2); /* null count: it is not in the counter */
    i8254_set_gate(&w.pit, 2, true);
    w.loaded = chip_now();
    g_assert_cmphex(status(&w, 2), ==, 0x32);
    assert_wave(&w, 2, "LLLHH", NULL);
    i8254_set_gate(&w.pit, 2, false); /* has no effect */
    i8254_set_gate(&w.pit, 2, true);
    w.loaded = chip_now();
    assert_wave(&w, 2, "LL", NULL);
    i8254_set_gate(&w.pit, 2, false);
    i8254_set_gate(&w.pit, 2, true); /* triggers again */
    w.loaded = chip_now();
    assert_wave(&w, 2, "LL", NULL);
    out(&w, 2, 5); /* for the next trigger */
    out(&w, 2, 0);
    g_assert_cmphex(status(&w, 2) & 0x40, ==, 0x40);
    to_tick(&w, 3);
    g_assert_true(i8254_out(&w.pit, 2));
    i8254_set_gate(&w.pit, 2, false);
    i8254_set_gate(&w.pit, 2, true);
    w.loaded = chip_now();
    assert_wave(&w, 2, "LLLLLH", NULL);
    end(&w);
}

static void test_mode_2_divides(void)
{
    static const unsigned values[] = {3, 2, 1, 3, 2, 1, 3};
    World w;

    start(&w);
    i8254_set_gate(&w.pit, 2, true);
    load(&w, 2, 0x34, 3);
    assert_wave(&w, 2, "HHLHHLH", values);
    i8254_set_gate(&w.pit, 2, false); /* OUT high at once */
    to_tick(&w, 8);
    g_assert_true(i8254_out(&w.pit, 2));
    i8254_set_gate(&w.pit, 2, true); /* starts anew */
    w.loaded = chip_now();
    assert_wave(&w, 2, "HHLHHL", values);
    /* Counter 0 in an ordinary period interrupts at each rise. */
    load(&w, 0, 0x34, 1000);
    w.irq.rises = 0;
    to_tick(&w, 999);
    g_assert_false(irq_level(&w.irq.line));
    to_tick(&w, 10500);
    g_assert_cmpuint(w.irq.rises, ==, 10);
    g_assert_cmpint(w.irq.risen_at, ==, w.loaded + tick_ns(10000));
    end(&w);
}

static void test_mode_2_takes_a_new_count_at_the_end_of_the_period(void)
{
    static const unsigned values[] = {100, 99};
    World w;

    start(&w);
    load(&w, 0, 0x34, 500);
    to_tick(&w, 200);
    out(&w, 0, 100);
    out(&w, 0, 0);
    g_assert_cmphex(status(&w, 0), ==, 0xf4);
    w.irq.rises = 0;
    to_tick(&w, 499);
    g_assert_cmphex(value(&w, 0), ==, 1);
    g_assert_cmpuint(w.irq.rises, ==, 0);
    to_tick(&w, 500);
    g_assert_cmphex(status(&w, 0), ==, 0xb4);
    g_assert_cmpuint(w.irq.rises, ==, 1);
    w.loaded = chip_now();
    assert_wave(&w, 0, "HH", values);
    to_tick(&w, 100);
    g_assert_cmpuint(w.irq.rises, ==, 2);
    end(&w);
}

static void test_mode_3_is_a_square_wave(void)
{
    static const unsigned even[] = {4, 2, 4, 2, 4, 2}, odd[] = {4, 2, 0, 4, 2, 4, 2, 0, 4, 2};
    World w;

    start(&w);
    i8254_set_gate(&w.pit, 2, true);
    load(&w, 2, 0x36, 4);
    assert_wave(&w, 2, "HHLLHH", even);
    load(&w, 2, 0x36, 5);
    assert_wave(&w, 2, "HHHLLHHHLL", odd);
    i8254_set_gate(&w.pit, 2, false); /* in the low half: OUT high at once */
    g_assert_true(i8254_out(&w.pit, 2));
    i8254_set_gate(&w.pit, 2, true);
    w.loaded = chip_now();
    assert_wave(&w, 2, "HHHLL", odd);
    end(&w);
}

static void test_mode_3_takes_a_new_count_after_the_half(void)
{
    World w;

    start(&w);
    load(&w, 0, 0x36, 200);
    to_tick(&w, 50); /* in the high half */
    out(&w, 0, 60);
    out(&w, 0, 0);
    w.irq.rises = 0;
    to_tick(&w, 99);
    g_assert_true(irq_level(&w.irq.line));
    to_tick(&w, 101);
    g_assert_false(irq_level(&w.irq.line));
    g_assert_cmpuint(w.irq.rises, ==, 0); /* to take it is no edge */
    to_tick(&w, 128);
    g_assert_false(irq_level(&w.irq.line));
    to_tick(&w, 131); /* 30 low, then high for 30 */
    g_assert_cmpuint(w.irq.rises, ==, 1);
    to_tick(&w, 140);
    out(&w, 0, 80);
    out(&w, 0, 0);
    to_tick(&w, 159);
    g_assert_true(irq_level(&w.irq.line));
    to_tick(&w, 161);
    g_assert_false(irq_level(&w.irq.line));
    to_tick(&w, 199);
    g_assert_false(irq_level(&w.irq.line));
    to_tick(&w, 202); /* 40 low */
    g_assert_true(irq_level(&w.irq.line));
    to_tick(&w, 280); /* in the low half */
    end(&w);
}

static void test_mode_4_strobes_once(void)
{
    static const unsigned values[] = {3, 2, 1, 0, 0xffff, 0xfffe};
    World w;

    start(&w);
    load(&w, 0, 0x38, 3);
    assert_wave(&w, 0, "HHHLHH", values);
    g_assert_cmpuint(w.irq.rises, ==, 1);
    to_tick(&w, 0x10000 + 3); /* not again, when the counter has gone round */
    g_assert_true(i8254_out(&w.pit, 0));
    load(&w, 0, 0, 2);
    assert_wave(&w, 0, "HHLH", NULL);
    i8254_set_gate(&w.pit, 2, true);
    load(&w, 2, 0x38, 4);
    to_tick(&w, 2);
    i8254_set_gate(&w.pit, 2, false);
    chip_step(tick_ns(50));
    g_assert_cmphex(value(&w, 2), ==, 2);
    end(&w);
}

static void test_mode_5_strobes_after_a_trigger(void)
{
    World w;

    start(&w);
    load(&w, 2, 0x3a, 2);
    assert_wave(&w, 2, "HHHHH", NULL);
    i8254_set_gate(&w.pit, 2, true);
    w.loaded = chip_now();
    assert_wave(&w, 2, "HHLHHH", NULL);
    i8254_set_gate(&w.pit, 2, false);
    i8254_set_gate(&w.pit, 2, true);
    w.loaded = chip_now();
    assert_wave(&w, 2, "HHLHHH", NULL);
    end(&w);
}

static void test_modes_6_and_7_are_2_and_3(void)
{
    World w;

    start(&w);
    i8254_set_gate(&w.pit, 2, true);
    load(&w, 2, 0x3c, 3);
    assert_wave(&w, 2, "HHLHHL", NULL);
    load(&w, 2, 0x3e, 4);
    assert_wave(&w, 2, "HHLLHH", NULL);
    g_assert_cmphex(status(&w, 2) & 0x3f, ==, 0x3e); /* as it was written */
    end(&w);
}

static void test_decimal_counts(void)
{
    World w;

    start(&w);
    load(&w, 0, 0x31, 0x1000);
    to_tick(&w, 1);
    g_assert_cmphex(value(&w, 0), ==, 0x0999);
    to_tick(&w, 1000);
    g_assert_true(i8254_out(&w.pit, 0));
    g_assert_cmphex(value(&w, 0), ==, 0);
    to_tick(&w, 1001);
    g_assert_cmphex(value(&w, 0), ==, 0x9999);
    load(&w, 0, 0x31, 0); /* 10000 */
    to_tick(&w, 9999);
    g_assert_false(i8254_out(&w.pit, 0));
    to_tick(&w, 10000);
    g_assert_true(i8254_out(&w.pit, 0));
    load(&w, 0, 0x31, 0xffff); /* not a number */
    chip_step(NANOSECONDS_PER_SECOND);
    (void)value(&w, 0);
    end(&w);
}

static void test_zero_is_the_largest_count(void)
{
    World w;

    start(&w);
    load(&w, 0, 0x30, 0);
    g_assert_cmphex(value(&w, 0), ==, 0);
    g_assert_cmpuint(i8254_initial_count(&w.pit, 0), ==, 0x10000);
    to_tick(&w, 0xffff);
    g_assert_cmphex(value(&w, 0), ==, 1);
    g_assert_false(i8254_out(&w.pit, 0));
    to_tick(&w, 0x10000);
    g_assert_true(i8254_out(&w.pit, 0));
    end(&w);
}

static void test_bytes_are_those_of_the_access_mode(void)
{
    World w;

    start(&w);
    out(&w, CONTROL, 0x14); /* low byte alone */
    out(&w, 0, 0x80);
    g_assert_cmpuint(i8254_initial_count(&w.pit, 0), ==, 0x80);
    g_assert_cmphex(in(&w, 0), ==, 0x80);
    g_assert_cmphex(in(&w, 0), ==, 0x80);
    out(&w, CONTROL, 0x24); /* high byte alone */
    out(&w, 0, 0x12);
    g_assert_cmpuint(i8254_initial_count(&w.pit, 0), ==, 0x1200);
    g_assert_cmphex(in(&w, 0), ==, 0x12);
    load(&w, 0, 0x34, 0x3456);
    g_assert_cmphex(in(&w, 0), ==, 0x56);
    g_assert_cmphex(in(&w, 0), ==, 0x34);
    g_assert_cmphex(in(&w, 0), ==, 0x56);
    out(&w, CONTROL, 0x34); /* the sequence begins anew */
    out(&w, 0, 0xcd);
    out(&w, 0, 0xab);
    g_assert_cmphex(in(&w, 0), ==, 0xcd);
    end(&w);
}

static void test_a_latched_count_holds_until_it_is_read(void)
{
    World w;

    start(&w);
    load(&w, 0, 0x34, 0x1234);
    to_tick(&w, 0x34);
    out(&w, CONTROL, 0x00);
    to_tick(&w, 0x134);
    out(&w, CONTROL, 0x00); /* ignored: one is latched */
    g_assert_cmphex(in(&w, 0), ==, 0x00);
    to_tick(&w, 0x234);
    g_assert_cmphex(in(&w, 0), ==, 0x12);
    g_assert_cmphex(value(&w, 0), ==, 0x1000);
    out(&w, CONTROL, 0x00);
    load(&w, 0, 0x34, 0x4321); /* programming drops it */
    g_assert_cmphex(in(&w, 0), ==, 0x21);
    end(&w);
}

static void test_read_back(void)
{
    World w;

    start(&w);
    load(&w, 0, 0x34, 0x1000);
    load(&w, 1, 0x36, 0x2000);
    out(&w, CONTROL, 0xb0); /* a control word: mode 0, awaits a count */
    to_tick(&w, 0x10);
    out(&w, CONTROL, 0xce); /* status and count of all three; the status comes first */
    to_tick(&w, 0x20);
    g_assert_cmphex(in(&w, 0), ==, 0xb4);
    g_assert_cmphex(in(&w, 0), ==, 0xf0);
    g_assert_cmphex(in(&w, 0), ==, 0x0f);
    g_assert_cmphex(in(&w, 1), ==, 0xb6);
    g_assert_cmphex(in(&w, 1), ==, 0xe0);
    g_assert_cmphex(in(&w, 1), ==, 0x1f);
    g_assert_cmphex(in(&w, 2), ==, 0x70); /* OUT low, null count */
    out(&w, CONTROL, 0xd2);               /* the count of 0 alone */
    g_assert_cmphex(in(&w, 0), ==, 0xe0);
    g_assert_cmphex(in(&w, 0), ==, 0x0f);
    out(&w, CONTROL, 0xe2); /* the status of 0 alone, which holds until it is read */
    out(&w, CONTROL, 0x32);
    out(&w, CONTROL, 0xe2);
    g_assert_cmphex(in(&w, 0), ==, 0xf2);
    g_assert_cmphex(in(&w, CONTROL), ==, 0);
    end(&w);
}

static void test_wide_accesses_are_those_of_bytes(void)
{
    World w;

    register_table_check(&i8254_ports);
    start(&w);
    register_table_write(&i8254_ports, &w.pit, 3, 0x16, 1);
    register_table_write(&i8254_ports, &w.pit, 3, 0x56, 2);
    register_table_write(&i8254_ports, &w.pit, 0, 0x2010, 2);
    g_assert_cmpuint(i8254_initial_count(&w.pit, 0), ==, 0x10);
    g_assert_cmpuint(i8254_initial_count(&w.pit, 1), ==, 0x20);
    register_table_write(&i8254_ports, &w.pit, 0, 0x94999999, 4);
    g_assert_cmphex(register_table_read(&i8254_ports, &w.pit, 1, 8) & 0xff, ==, 0x20);
    end(&w);
}

static void test_port_61_is_gate_output_and_refresh(void)
{
    World w;
    unsigned refreshes = 0;
    uint8_t last;

    start(&w);
    load(&w, 2, 0x36, 1000);
    g_assert_cmphex(i8254_port_b_read(&w.pit) & 0x21, ==, 0x20);
    i8254_port_b_write(&w.pit, 0x03);
    w.loaded = chip_now();
    g_assert_cmphex(i8254_port_b_read(&w.pit) & 0x21, ==, 0x21);
    to_tick(&w, 500);
    g_assert_cmphex(i8254_port_b_read(&w.pit) & 0x21, ==, 0x01);
    last = i8254_port_b_read(&w.pit);
    for (int us = 0; us < 3000; us++) {
        chip_step(1000);
        refreshes += ((i8254_port_b_read(&w.pit) ^ last) & I8254_PORT_B_REFRESH) != 0;
        last = i8254_port_b_read(&w.pit);
    }
    g_assert_cmpuint(refreshes, >=, 198);
    g_assert_cmpuint(refreshes, <=, 200);
    i8254_port_b_write(&w.pit, 0);
    g_assert_false(i8254_gate(&w.pit, 2));
    end(&w);
}

static void test_the_hpet_takes_the_line_over(void)
{
    World w;

    start(&w);
    load(&w, 0, 0x34, 100);
    i8254_enable_irq(&w.pit, false);
    w.irq.rises = 0;
    to_tick(&w, 1000);
    g_assert_cmpuint(w.irq.rises, ==, 0);
    g_assert_false(timer_pending(w.pit.timer));
    i8254_enable_irq(&w.pit, true);
    w.irq.rises = 0;
    to_tick(&w, 2050);
    g_assert_cmpuint(w.irq.rises, ==, 10);
    end(&w);
}

static void test_a_hostile_count_cannot_occupy_the_loop(void)
{
    static const unsigned modes[] = {0x30, 0x34, 0x36, 0x38};
    static const unsigned counts[] = {0, 1, 2, 3, 22};
    World w;

    start(&w);
    for (size_t m = 0; m < G_N_ELEMENTS(modes); m++) {
        for (size_t i = 0; i < G_N_ELEMENTS(counts); i++) {
            load(&w, 0, (uint8_t)modes[m], counts[i]);
            w.irq.rises = 0;
            chip_step(10 * SCALE_MS);
            g_assert_cmpuint(w.irq.rises, <=, 10 * SCALE_MS / I8254_FASTEST_NS);
        }
    }
    end(&w);
}

static void test_an_edge_that_the_loop_was_late_for_is_told_once(void)
{
    World w;

    start(&w);
    load(&w, 0, 0x34, 1000);
    w.irq.rises = 0;
    /* The timer is lost, as where the loop does not run. */
    timer_del(w.pit.timer);
    to_tick(&w, 5500);
    g_assert_cmpuint(w.irq.rises, ==, 0);
    i8254_update(&w.pit);
    g_assert_cmpuint(w.irq.rises, ==, 1);
    to_tick(&w, 6000);
    g_assert_cmpuint(w.irq.rises, ==, 2);
    end(&w);
}

static void test_what_stock_describes(void)
{
    static const char *const fields[][3] = {
        {"count", "int32", "4"},
        {"latched_count", "uint16", "2"},
        {"count_latched", "uint8", "1"},
        {"status_latched", "uint8", "1"},
        {"status", "uint8", "1"},
        {"read_state", "uint8", "1"},
        {"write_state", "uint8", "1"},
        {"write_latch", "uint8", "1"},
        {"rw_mode", "uint8", "1"},
        {"mode", "uint8", "1"},
        {"bcd", "uint8", "1"},
        {"gate", "uint8", "1"},
        {"count_load_time", "int64", "8"},
        {"next_transition_time", "int64", "8"},
    };
    g_autoptr(GString) expected = g_string_new(
        "{\"vmsd_name\": \"i8254\", \"version\": 3, \"fields\": [{\"name\": "
        "\"channels[0].irq_disabled\", \"type\": \"uint32\", \"size\": 4}, {\"name\": "
        "\"channels\", \"array_len\": 3, \"type\": \"struct\", \"struct\": {\"vmsd_name\": \"pit "
        "channel\", \"version\": 2, \"fields\": [");
    World w;

    for (size_t i = 0; i < G_N_ELEMENTS(fields); i++) {
        g_string_append_printf(expected, "%s{\"name\": \"%s\", \"type\": \"%s\", \"size\": %s}",
                               i ? ", " : "", fields[i][0], fields[i][1], fields[i][2]);
    }
    g_string_append(expected, "]}, \"size\": 32}, {\"name\": \"channels[0].next_transition_time\", "
                              "\"type\": \"int64\", \"size\": 8}]}");
    start(&w);
    chip_assert_described(&vmstate_i8254, &w.pit, expected->str);
    end(&w);
}

static void test_counters_go_on_after_a_load(void)
{
    World w, v;
    g_autoptr(GBytes) bytes = NULL;

    start(&w);
    load(&w, 0, 0x34, 1000);
    load(&w, 1, 0x30, 0x2000);
    out(&w, 1, 0x42); /* the first of two bytes */
    i8254_set_gate(&w.pit, 2, true);
    load(&w, 2, 0x30, 0x1000);
    to_tick(&w, 0x100);
    i8254_set_gate(&w.pit, 2, false);
    to_tick(&w, 0x180);
    out(&w, CONTROL, 0xdc); /* counts of 1 and 2 */
    g_assert_cmphex(in(&w, 2), ==, 0x00);
    bytes = chip_save(&vmstate_i8254, &w.pit);
    g_assert_cmpuint(g_bytes_get_size(bytes), ==, 108);
    g_assert_cmphex(in(&w, 2), ==, 0x0f); /* the source goes on as well */

    start(&v);
    g_assert_true(chip_load(&vmstate_i8254, &v.pit, bytes));
    v.loaded = w.loaded;
    v.irq.rises = 0;
    g_assert_cmphex(in(&v, 2), ==, 0x0f);
    g_assert_cmphex(value(&v, 2), ==, 0x0f00);
    g_assert_true(irq_level(&v.irq.line));
    to_tick(&v, 5500);
    g_assert_cmpuint(v.irq.rises, ==, 5);
    g_assert_cmpint(v.irq.risen_at, ==, v.loaded + tick_ns(5000));
    (void)in(&v, 1);
    (void)in(&v, 1);
    out(&v, 1, 0x01); /* the second byte */
    g_assert_cmpuint(i8254_initial_count(&v.pit, 1), ==, 0x142);
    i8254_set_gate(&v.pit, 2, true);
    v.loaded = chip_now();
    to_tick(&v, 0xeff);
    g_assert_false(i8254_out(&v.pit, 2));
    to_tick(&v, 0xf00);
    g_assert_true(i8254_out(&v.pit, 2));
    end(&v);
    end(&w);
}

static void test_counters_that_wait_are_saved_as_something_that_loads(void)
{
    static const uint8_t words[] = {0x30, 0x32, 0x34, 0x36, 0x38, 0x3a};

    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        World w, v;
        g_autoptr(GBytes) awaits = NULL;
        g_autoptr(GBytes) pending = NULL;

        start(&w);
        out(&w, CONTROL, 0x80 | words[i]);
        awaits = chip_save(&vmstate_i8254, &w.pit);
        start(&v);
        g_assert_true(chip_load(&vmstate_i8254, &v.pit, awaits));
        g_assert_true(i8254_out(&v.pit, 2) == i8254_out(&w.pit, 2));
        end(&v);
        load(&w, 2, 0, 1000);
        i8254_set_gate(&w.pit, 2, true);
        load(&w, 2, 0, 500);
        pending = chip_save(&vmstate_i8254, &w.pit);
        start(&v);
        g_assert_true(chip_load(&vmstate_i8254, &v.pit, pending));
        g_assert_cmpuint(i8254_initial_count(&v.pit, 2), ==, 500);
        end(&v);
        end(&w);
    }
}

static void test_an_edge_that_was_due_when_the_guest_left_comes_at_the_destination(void)
{
    World w, v;
    g_autoptr(GBytes) bytes = NULL;

    start(&w);
    load(&w, 0, 0x30, 1000); /* a guest that ticks by one-shots would hang without it */
    timer_del(w.pit.timer);  /* the guest stops before it fires */
    to_tick(&w, 1200);
    bytes = chip_save(&vmstate_i8254, &w.pit);
    start(&v);
    g_assert_true(chip_load(&vmstate_i8254, &v.pit, bytes));
    v.irq.rises = 0;
    g_assert_false(irq_level(&v.irq.line));
    chip_step(1);
    g_assert_cmpuint(v.irq.rises, ==, 1);
    end(&v);
    end(&w);
}

/* A section in which every byte is something else, one at a time; what loads must work. */
static void test_hostile_sections_do_no_harm(void)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    World w;
    g_autoptr(GBytes) good = NULL;

    start(&w);
    load(&w, 0, 0x34, 1000);
    good = chip_save(&vmstate_i8254, &w.pit);
    g_assert_false(chip_load_patched(&vmstate_i8254, &w.pit, good, CHANNEL(0), 0xff));
    g_assert_false(chip_load_patched(&vmstate_i8254, &w.pit, good, CHANNEL(2), 0x7f));
    for (size_t at = 0; at < g_bytes_get_size(good); at++) {
        for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
            if (!chip_load_patched(&vmstate_i8254, &w.pit, good, at, values[i])) {
                continue;
            }
            chip_step(SCALE_MS);
            /* It has fired, and does not fire without end. */
            g_assert_true(!timer_pending(w.pit.timer) || timer_expire_ns(w.pit.timer) > chip_now());
            for (unsigned n = 0; n < I8254_COUNTERS; n++) {
                (void)in(&w, n);
                (void)value(&w, n);
                (void)status(&w, n);
            }
            i8254_port_b_write(&w.pit, (uint8_t)i);
        }
    }
    end(&w);
}

static void test_a_counter_that_was_never_programmed_loads(void)
{
    World w;
    uint8_t zeroes[CHANNEL_BYTES] = {0};
    g_autoptr(GBytes) good = NULL;
    g_autoptr(GBytes) odd = NULL;

    zeroes[15] = 0xff; /* mode, as the kernel leaves it */
    start(&w);
    good = chip_save(&vmstate_i8254, &w.pit);
    odd = chip_patch(good, CHANNEL(1), zeroes, sizeof(zeroes));
    g_assert_true(chip_load(&vmstate_i8254, &w.pit, odd));
    g_assert_cmpuint(i8254_initial_count(&w.pit, 1), ==, 0x10000);
    end(&w);
}

int main(int argc, char **argv)
{
    chip_test_start(&argc, &argv);
#define TEST(name) g_test_add_func("/i8254/" #name, test_##name)
    TEST(mode_0_rises_at_the_terminal_count);
    TEST(mode_0_stands_while_gate_is_low);
    TEST(mode_1_is_a_one_shot_that_gate_starts);
    TEST(mode_2_divides);
    TEST(mode_2_takes_a_new_count_at_the_end_of_the_period);
    TEST(mode_3_is_a_square_wave);
    TEST(mode_3_takes_a_new_count_after_the_half);
    TEST(mode_4_strobes_once);
    TEST(mode_5_strobes_after_a_trigger);
    TEST(modes_6_and_7_are_2_and_3);
    TEST(decimal_counts);
    TEST(zero_is_the_largest_count);
    TEST(bytes_are_those_of_the_access_mode);
    TEST(a_latched_count_holds_until_it_is_read);
    TEST(read_back);
    TEST(wide_accesses_are_those_of_bytes);
    TEST(port_61_is_gate_output_and_refresh);
    TEST(the_hpet_takes_the_line_over);
    TEST(a_hostile_count_cannot_occupy_the_loop);
    TEST(an_edge_that_the_loop_was_late_for_is_told_once);
    TEST(what_stock_describes);
    TEST(counters_go_on_after_a_load);
    TEST(counters_that_wait_are_saved_as_something_that_loads);
    TEST(an_edge_that_was_due_when_the_guest_left_comes_at_the_destination);
    TEST(hostile_sections_do_no_harm);
    TEST(a_counter_that_was_never_programmed_loads);
    return g_test_run();
}
