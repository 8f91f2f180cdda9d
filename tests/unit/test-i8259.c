/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 8259A interrupt controller, alone and as the pair of a PC. */
#include "hw/intc/i8259.h"

#include "tests/unit/chip-fixture.h"

typedef struct Pair {
    I8259 master, slave;
    IRQLine slave_int, cascade;
    Listener cpu;
} Pair;

static void cascade_changed(void *opaque, int n, int level)
{
    i8259_set_input(opaque, I8259_CASCADE, level != 0);
}

static void out(I8259 *s, unsigned port, uint8_t value)
{
    register_table_write(&i8259_ports, s, port, value, 1);
}

static uint8_t in(I8259 *s, unsigned port)
{
    return (uint8_t)register_table_read(&i8259_ports, s, port, 1);
}

static uint8_t irr(I8259 *s)
{
    out(s, 0, 0x0a);
    return in(s, 0);
}

static uint8_t isr(I8259 *s)
{
    out(s, 0, 0x0b);
    return in(s, 0);
}

/* ICW1 to ICW4 as a PC's firmware writes them. */
static void program(I8259 *s, uint8_t base, uint8_t icw1, uint8_t icw4)
{
    out(s, 0, icw1);
    out(s, 1, base);
    if (!(icw1 & 0x02)) {
        out(s, 1, s->master ? 0x04 : 0x02);
    }
    if (icw1 & 0x01) {
        out(s, 1, icw4);
    }
}

static void pair_init(Pair *p)
{
    *p = (Pair){0};
    irq_line_init(&p->slave_int, NULL, NULL, 0);
    irq_line_init(&p->cascade, cascade_changed, &p->master, 0);
    irq_connect(&p->slave_int, &p->cascade);
    listener_init(&p->cpu);
    p->master.master = true;
    p->master.elcr_mask = 0xf8;
    p->slave.elcr_mask = 0xde;
    p->master.int_out = &p->cpu.line;
    p->slave.int_out = &p->slave_int;
    p->master.cascaded = &p->slave;
    i8259_reset(&p->master);
    i8259_reset(&p->slave);
    program(&p->master, 0x08, 0x11, 0x01);
    program(&p->slave, 0x70, 0x11, 0x01);
}

static void pair_end(Pair *p)
{
    irq_line_clear(&p->slave_int);
    irq_line_clear(&p->cascade);
    irq_line_clear(&p->cpu.line);
}

static void pulse(I8259 *s, unsigned n)
{
    i8259_set_input(s, n, true);
    i8259_set_input(s, n, false);
}

static bool interrupts(const Pair *p)
{
    return irq_level(&p->cpu.line);
}

static void test_an_edge_is_served_once(void)
{
    Pair p;

    pair_init(&p);
    i8259_set_input(&p.master, 3, true);
    g_assert_true(interrupts(&p));
    g_assert_cmphex(irr(&p.master), ==, 0x08);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x0b);
    g_assert_false(interrupts(&p));
    g_assert_cmphex(irr(&p.master), ==, 0);
    g_assert_cmphex(isr(&p.master), ==, 0x08);
    out(&p.master, 0, 0x20);
    g_assert_false(interrupts(&p)); /* the line is still high, but there was no other edge */
    i8259_set_input(&p.master, 3, false);
    i8259_set_input(&p.master, 3, true);
    g_assert_true(interrupts(&p));
    g_assert_cmpuint(p.cpu.rises, ==, 2);
    pair_end(&p);
}

static void test_a_pulse_waits_until_it_is_acknowledged(void)
{
    Pair p;

    pair_init(&p);
    out(&p.master, 1, 0x10);
    pulse(&p.master, 4);
    g_assert_false(interrupts(&p));
    g_assert_cmphex(in(&p.master, 1), ==, 0x10);
    out(&p.master, 1, 0);
    g_assert_true(interrupts(&p));
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x0c);
    pair_end(&p);
}

static void test_higher_priority_interrupts_lower_and_not_the_reverse(void)
{
    Pair p;

    pair_init(&p);
    pulse(&p.master, 4);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x0c);
    pulse(&p.master, 5);
    pulse(&p.master, 4);
    g_assert_false(interrupts(&p));
    pulse(&p.master, 1);
    g_assert_true(interrupts(&p));
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x09);
    g_assert_cmphex(isr(&p.master), ==, 0x12);
    out(&p.master, 0, 0x20); /* non-specific: the highest, 1 */
    g_assert_cmphex(isr(&p.master), ==, 0x10);
    out(&p.master, 0, 0x64); /* specific: 4 */
    g_assert_cmphex(isr(&p.master), ==, 0);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x0c);
    out(&p.master, 0, 0x20);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x0d);
    pair_end(&p);
}

static void test_the_slave_interrupts_through_input_2(void)
{
    Pair p;

    pair_init(&p);
    pulse(&p.slave, 0);
    g_assert_true(interrupts(&p));
    g_assert_cmphex(irr(&p.master), ==, 0x04);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x70);
    g_assert_cmphex(isr(&p.master), ==, 0x04);
    g_assert_cmphex(isr(&p.slave), ==, 0x01);
    /* Both want an end of interrupt; a second request of the slave comes after it. */
    pulse(&p.slave, 6);
    g_assert_false(interrupts(&p));
    out(&p.slave, 0, 0x20);
    g_assert_false(interrupts(&p));
    out(&p.master, 0, 0x20);
    g_assert_true(interrupts(&p));
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x76);
    pair_end(&p);
}

static void test_every_input_of_the_pair_has_its_vector(void)
{
    for (unsigned n = 0; n < 2 * I8259_INPUTS; n++) {
        Pair p;

        if (n == I8259_CASCADE) {
            continue;
        }
        pair_init(&p);
        pulse(n < I8259_INPUTS ? &p.master : &p.slave, n % I8259_INPUTS);
        g_assert_cmphex(i8259_acknowledge(&p.master), ==,
                        n < I8259_INPUTS ? 0x08 + n : 0x70 + n - I8259_INPUTS);
        g_assert_false(interrupts(&p));
        pair_end(&p);
    }
}

static void test_a_request_that_has_gone_is_spurious(void)
{
    Pair p;

    pair_init(&p);
    register_table_write(&i8259_elcr_port, &p.master, 0, 0x20, 1);
    i8259_set_input(&p.master, 5, true);
    g_assert_true(interrupts(&p));
    i8259_set_input(&p.master, 5, false);
    g_assert_false(interrupts(&p));
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x0f);
    g_assert_cmphex(isr(&p.master), ==, 0); /* so it wants no end of interrupt */
    /* The slave's 7: the master does not know, and is in service. */
    register_table_write(&i8259_elcr_port, &p.slave, 0, 0x08, 1);
    i8259_set_input(&p.slave, 3, true);
    i8259_set_input(&p.slave, 3, false);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x77);
    g_assert_cmphex(isr(&p.slave), ==, 0);
    g_assert_cmphex(isr(&p.master), ==, 0x04);
    pair_end(&p);
}

static void test_a_level_requests_as_long_as_it_is_high(void)
{
    Pair p;

    pair_init(&p);
    register_table_write(&i8259_elcr_port, &p.master, 0, 0xff, 1);
    g_assert_cmphex(register_table_read(&i8259_elcr_port, &p.master, 0, 1), ==, 0xf8);
    i8259_set_input(&p.master, 5, true);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x0d);
    g_assert_cmphex(irr(&p.master), ==, 0x20);
    out(&p.master, 0, 0x20);
    g_assert_true(interrupts(&p));
    i8259_set_input(&p.master, 5, false);
    g_assert_false(interrupts(&p));
    /* A line that is high requests as soon as it is level-triggered. */
    register_table_write(&i8259_elcr_port, &p.master, 0, 0, 1);
    i8259_set_input(&p.master, 6, true);
    (void)i8259_acknowledge(&p.master);
    out(&p.master, 0, 0x20);
    g_assert_false(interrupts(&p));
    register_table_write(&i8259_elcr_port, &p.master, 0, 0x40, 1);
    g_assert_true(interrupts(&p));
    pair_end(&p);
}

static void test_ltim_makes_all_inputs_levels(void)
{
    Pair p;

    pair_init(&p);
    program(&p.master, 0x08, 0x19, 0x01);
    i8259_set_input(&p.master, 0, true);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x08);
    out(&p.master, 0, 0x20);
    g_assert_true(interrupts(&p));
    i8259_set_input(&p.master, 0, false);
    g_assert_false(interrupts(&p));
    pair_end(&p);
}

static void test_rotation_moves_the_bottom(void)
{
    Pair p;

    pair_init(&p);
    out(&p.master, 0, 0xc0 | 4); /* 4 is the lowest: the order is 5 6 7 0 1 2 3 4 */
    pulse(&p.master, 0);
    pulse(&p.master, 4);
    pulse(&p.master, 6);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x0e);
    out(&p.master, 0, 0xa0); /* rotate on non-specific EOI: 6 is the lowest, 7 the highest */
    g_assert_cmphex(isr(&p.master), ==, 0);
    pulse(&p.master, 6);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x08);
    out(&p.master, 0, 0xe0); /* rotate on specific EOI: 0 is the lowest */
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x0c);
    out(&p.master, 0, 0xe4);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x0e);
    out(&p.master, 0, 0x40); /* no operation */
    g_assert_cmphex(isr(&p.master), ==, 0x40);
    pair_end(&p);
}

static void test_automatic_end_of_interrupt(void)
{
    Pair p;

    pair_init(&p);
    program(&p.master, 0x20, 0x11, 0x03);
    pulse(&p.master, 1);
    pulse(&p.master, 3);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x21);
    g_assert_cmphex(isr(&p.master), ==, 0);
    g_assert_true(interrupts(&p));
    g_assert_cmpuint(p.cpu.rises, ==, 2); /* INT falls between them */
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x23);
    out(&p.master, 0, 0x80); /* rotate */
    pulse(&p.master, 3);
    pulse(&p.master, 5);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x23);
    pulse(&p.master, 3);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x25);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x23);
    out(&p.master, 0, 0x00); /* no longer: the order is 4 5 6 7 0 1 2 3 for good */
    pulse(&p.master, 4);
    pulse(&p.master, 0);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x24);
    pulse(&p.master, 4);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x24);
    pair_end(&p);
}

static void test_a_slave_with_automatic_end_sends_its_next_request(void)
{
    Pair p;

    pair_init(&p);
    program(&p.slave, 0x70, 0x11, 0x03);
    pulse(&p.slave, 1);
    pulse(&p.slave, 2);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x71);
    out(&p.master, 0, 0x20);
    g_assert_true(interrupts(&p));
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x72);
    pair_end(&p);
}

static void test_special_mask_lets_lower_ones_through(void)
{
    Pair p;

    pair_init(&p);
    pulse(&p.master, 1);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x09);
    pulse(&p.master, 6);
    g_assert_false(interrupts(&p));
    out(&p.master, 1, 0x02);
    g_assert_false(interrupts(&p));
    out(&p.master, 0, 0x68);
    g_assert_true(interrupts(&p));
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x0e);
    out(&p.master, 0, 0x20); /* does not mean the masked one */
    g_assert_cmphex(isr(&p.master), ==, 0x02);
    out(&p.master, 0, 0x20);
    g_assert_cmphex(isr(&p.master), ==, 0x02);
    out(&p.master, 0, 0x48);
    pulse(&p.master, 6);
    g_assert_false(interrupts(&p));
    out(&p.master, 0, 0x08); /* without ESMM the mode stays */
    g_assert_false(interrupts(&p));
    pair_end(&p);
}

static void test_special_fully_nested_slave_interrupts_itself(void)
{
    for (int nested = 0; nested < 2; nested++) {
        Pair p;

        pair_init(&p);
        program(&p.master, 0x08, 0x11, nested ? 0x11 : 0x01);
        pulse(&p.slave, 5);
        g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x75);
        pulse(&p.slave, 1); /* of a higher priority within the slave */
        pulse(&p.master, 4);
        g_assert_true(interrupts(&p) == nested);
        if (nested) {
            g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x71);
            g_assert_false(interrupts(&p));
        }
        pair_end(&p);
    }
}

static void test_poll_reads_and_acknowledges(void)
{
    Pair p;

    pair_init(&p);
    out(&p.master, 0, 0x0c);
    g_assert_cmphex(in(&p.master, 0), ==, 0);
    pulse(&p.master, 6);
    pulse(&p.master, 3);
    out(&p.master, 0, 0x0f); /* poll wins over a read of ISR */
    g_assert_cmphex(in(&p.master, 0), ==, 0x83);
    g_assert_cmphex(in(&p.master, 0), ==, 0x40); /* once; IRR again */
    g_assert_cmphex(isr(&p.master), ==, 0x08);
    g_assert_false(interrupts(&p));
    out(&p.master, 0, 0x20);
    out(&p.master, 0, 0x0c);
    g_assert_cmphex(in(&p.master, 1), ==, 0x86); /* from either port */
    pair_end(&p);
}

static void test_initialization_takes_the_words_that_it_announces(void)
{
    static const struct {
        uint8_t icw1;
        unsigned words;
    } cases[] = {{0x10, 2}, {0x11, 3}, {0x12, 1}, {0x13, 2}};
    Pair p;

    pair_init(&p);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        pulse(&p.master, 3);
        out(&p.master, 1, 0xff);
        out(&p.master, 0, 0x0b);
        out(&p.master, 0, cases[i].icw1);
        g_assert_cmphex(in(&p.master, 1), ==, 0); /* the mask is cleared, */
        g_assert_cmphex(in(&p.master, 0), ==, 0); /* and the reads give IRR, which is empty */
        i8259_set_input(&p.master, 1, true);
        for (unsigned word = 0; word < cases[i].words; word++) {
            g_assert_false(interrupts(&p));
            out(&p.master, 1, word ? 0 : 0x43);
        }
        g_assert_true(interrupts(&p));
        out(&p.master, 1, 0xfd);
        g_assert_cmphex(in(&p.master, 1), ==, 0xfd);
        g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x41); /* its low bits are the input */
        out(&p.master, 0, 0x20);
        i8259_set_input(&p.master, 1, false);
    }
    /* A line that is high when the chip is initialized must fall before it requests. */
    i8259_set_input(&p.master, 1, true);
    program(&p.master, 0x08, 0x11, 0x01);
    g_assert_false(interrupts(&p));
    pair_end(&p);
}

static void test_single_mode_has_no_slave(void)
{
    Pair p;

    pair_init(&p);
    program(&p.master, 0x20, 0x13, 0x01);
    pulse(&p.master, I8259_CASCADE);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x22);
    pair_end(&p);
}

static void test_wide_and_shifted_accesses_are_those_of_bytes(void)
{
    Pair p;

    register_table_check(&i8259_ports);
    register_table_check(&i8259_elcr_port);
    pair_init(&p);
    register_table_write(&i8259_ports, &p.master, 0, 0x3011, 2); /* ICW1, ICW2 */
    register_table_write(&i8259_ports, &p.master, 1, 0x04, 4);
    register_table_write(&i8259_ports, &p.master, 1, 0x01, 1);
    register_table_write(&i8259_ports, &p.master, 0, 0xaa0a, 8);
    pulse(&p.master, 0);
    g_assert_cmphex(register_table_read(&i8259_ports, &p.master, 0, 2), ==, 0xaa01);
    g_assert_cmphex(i8259_acknowledge(&p.master), ==, 0x30);
    pair_end(&p);
}

static void test_what_stock_describes(void)
{
    static const char *const names[] = {"last_irr",
                                        "irr",
                                        "imr",
                                        "isr",
                                        "priority_add",
                                        "irq_base",
                                        "read_reg_select",
                                        "poll",
                                        "special_mask",
                                        "init_state",
                                        "auto_eoi",
                                        "rotate_on_auto_eoi",
                                        "special_fully_nested_mode",
                                        "init4",
                                        "single_mode",
                                        "elcr"};
    g_autoptr(GString) expected =
        g_string_new("{\"vmsd_name\": \"i8259\", \"version\": 1, \"fields\": [");
    Pair p;

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_string_append_printf(expected, "%s{\"name\": \"%s\", \"type\": \"uint8\", \"size\": 1}",
                               i ? ", " : "", names[i]);
    }
    g_string_append(expected, "]}");
    pair_init(&p);
    chip_assert_described(&vmstate_i8259, &p.master, expected->str);
    pair_end(&p);
}

static void test_the_pair_goes_on_after_a_load(void)
{
    Pair p, q;
    g_autoptr(GBytes) master = NULL;
    g_autoptr(GBytes) slave = NULL;

    pair_init(&p);
    program(&p.master, 0x50, 0x19, 0x01); /* with LTIM, which is a subsection */
    out(&p.master, 1, 0x80);
    i8259_set_input(&p.master, 1, true);
    (void)i8259_acknowledge(&p.master);
    pulse(&p.slave, 4);
    i8259_set_input(&p.master, 0, true);
    out(&p.slave, 0, 0x11); /* in the middle of an initialization */
    master = chip_save(&vmstate_i8259, &p.master);
    slave = chip_save(&vmstate_i8259, &p.slave);
    pair_end(&p);

    pair_init(&q);
    g_assert_true(chip_load(&vmstate_i8259, &q.master, master));
    g_assert_true(chip_load(&vmstate_i8259, &q.slave, slave));
    g_assert_true(interrupts(&q));
    g_assert_cmpuint(q.cpu.rises, ==, 0); /* the CPU has its own view */
    g_assert_cmphex(i8259_acknowledge(&q.master), ==, 0x50);
    g_assert_cmphex(isr(&q.master), ==, 0x03);
    g_assert_cmphex(in(&q.master, 1), ==, 0x80);
    out(&q.slave, 1, 0x78);
    out(&q.slave, 1, 0x02);
    out(&q.slave, 1, 0x01);
    out(&q.master, 1, 0);
    i8259_set_input(&q.master, 0, false);
    i8259_set_input(&q.master, 1, false);
    out(&q.master, 0, 0x20);
    out(&q.master, 0, 0x20);
    pulse(&q.slave, 7);
    g_assert_cmphex(i8259_acknowledge(&q.master), ==, 0x7f);
    pair_end(&q);
}

static void test_hostile_sections_are_refused(void)
{
    static const struct {
        size_t at;
        uint8_t value;
    } bad[] = {{4, 8}, {4, 0xff}, {5, 0x09}, {9, 4}, {15, 0x01}};
    Pair p;
    g_autoptr(GBytes) good = NULL;

    pair_init(&p);
    good = chip_save(&vmstate_i8259, &p.master);
    g_assert_cmpuint(g_bytes_get_size(good), ==, 16);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_false(chip_load_patched(&vmstate_i8259, &p.master, good, bad[i].at, bad[i].value));
    }
    /* Anything else is a state that works. */
    for (size_t at = 0; at < 16; at++) {
        for (unsigned value = 0; value < 256; value++) {
            if (chip_load_patched(&vmstate_i8259, &p.master, good, at, (uint8_t)value)) {
                i8259_update(&p.master);
                pulse(&p.master, value & 7);
                (void)i8259_acknowledge(&p.master);
                (void)in(&p.master, 0);
                out(&p.master, 0, (uint8_t)value);
                out(&p.master, 1, (uint8_t)value);
            }
        }
    }
    pair_end(&p);
}

int main(int argc, char **argv)
{
    chip_test_start(&argc, &argv);
#define TEST(name) g_test_add_func("/i8259/" #name, test_##name)
    TEST(an_edge_is_served_once);
    TEST(a_pulse_waits_until_it_is_acknowledged);
    TEST(higher_priority_interrupts_lower_and_not_the_reverse);
    TEST(the_slave_interrupts_through_input_2);
    TEST(every_input_of_the_pair_has_its_vector);
    TEST(a_request_that_has_gone_is_spurious);
    TEST(a_level_requests_as_long_as_it_is_high);
    TEST(ltim_makes_all_inputs_levels);
    TEST(rotation_moves_the_bottom);
    TEST(automatic_end_of_interrupt);
    TEST(a_slave_with_automatic_end_sends_its_next_request);
    TEST(special_mask_lets_lower_ones_through);
    TEST(special_fully_nested_slave_interrupts_itself);
    TEST(poll_reads_and_acknowledges);
    TEST(initialization_takes_the_words_that_it_announces);
    TEST(single_mode_has_no_slave);
    TEST(wide_and_shifted_accesses_are_those_of_bytes);
    TEST(what_stock_describes);
    TEST(the_pair_goes_on_after_a_load);
    TEST(hostile_sections_are_refused);
    return g_test_run();
}
