/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 16550A chip: registers, receiving, transmitting, loopback. */
#include "tests/unit/serial-fixture.h"

#include "util/bql.h"

/* --- registers --- */

static void test_reset_values(Fixture *f, gconstpointer data)
{
    static const uint8_t values[] = {0, 0, 0x01, 0, 0, 0x60, 0xb0, 0};

    register_table_check(&serial_registers);
    for (int round = 0; round < 2; round++) {
        for (unsigned at = 0; at < SERIAL_PORTS; at++) {
            g_assert_cmphex(in(f, at), ==, values[at]);
        }
        g_assert_false(high(f));
        for (unsigned at = 1; at < SERIAL_PORTS; at++) {
            out(f, at, 0x5f);
        }
        serial_reset_enter(&f->s);
        serial_reset_exit(&f->s);
    }
}

static void test_registers_keep_the_bits_that_they_have(Fixture *f, gconstpointer data)
{
    static const struct {
        uint8_t at, mask;
    } writable[] = {{IER, 0x0f}, {LCR, 0x7f}, {MCR, 0x1f}, {SCR, 0xff}};

    for (size_t i = 0; i < G_N_ELEMENTS(writable); i++) {
        for (unsigned value = 0; value < 0x100; value++) {
            out(f, writable[i].at, (uint8_t)(value & ~(writable[i].at == LCR ? DLAB : 0)));
            g_assert_cmphex(in(f, writable[i].at), ==, value & writable[i].mask);
        }
        out(f, writable[i].at, 0);
    }
    out(f, LSR, 0xff);
    out(f, MSR, 0xff);
    g_assert_cmphex(in(f, LSR), ==, 0x60);
    (void)in(f, MSR); /* the changes of the loopback */
    g_assert_cmphex(in(f, MSR), ==, 0xb0);
}

static void test_dlab_shows_the_divisor(Fixture *f, gconstpointer data)
{
    out(f, LCR, DLAB);
    g_assert_cmphex(in(f, DATA), ==, 12);
    out(f, DATA, 0x34);
    out(f, IER, 0x12);
    g_assert_cmphex(f->s.divider, ==, 0x1234);
    g_assert_cmphex(in(f, DATA), ==, 0x34);
    g_assert_cmphex(in(f, IER), ==, 0x12);
    out(f, LCR, 0);
    g_assert_cmphex(in(f, IER), ==, 0);
    g_assert_cmpuint(f->sent->len, ==, 0);
}

static void test_every_size_at_every_place(Fixture *f, gconstpointer data)
{
    /* Reads that have no side effect here. */
    out(f, SCR, 0xa5);
    out(f, LCR, WORD);
    for (unsigned size = 1; size <= 8; size *= 2) {
        for (unsigned at = 0; at < SERIAL_PORTS + 2; at++) {
            uint64_t got = register_table_read(&serial_registers, &f->s, at, size);

            for (unsigned i = 0; i < size; i++) {
                uint8_t expect = at + i < SERIAL_PORTS ? in(f, at + i) : 0;

                g_assert_cmphex(got >> (8 * i) & 0xff, ==, expect);
            }
        }
    }
    register_table_write(&serial_registers, &f->s, DATA, 0x0741, 2);
    g_assert_cmpstr(f->sent->str, ==, "A");
    g_assert_cmphex(in(f, IER), ==, 7);
    register_table_write(&serial_registers, &f->s, LSR, 0x5affffff, 4);
    g_assert_cmphex(in(f, SCR), ==, 0xff);
    register_table_write(&serial_registers, &f->s, SCR, UINT64_C(0x1122334455667788), 8);
    g_assert_cmphex(in(f, SCR), ==, 0x88);
}

/* --- receiving --- */

static void test_without_fifos_one_byte_is_taken_at_a_time(Fixture *f, gconstpointer data)
{
    out(f, IER, 1);
    g_assert_cmpuint(peer_sends(f, "abc"), ==, 1);
    g_assert_cmpuint(qemu_chr_be_can_read(&f->chr), ==, 0);
    g_assert_true(high(f));
    g_assert_cmphex(in(f, IIR), ==, 0x04);
    g_assert_cmphex(in(f, LSR), ==, 0x61);
    g_assert_cmphex(in(f, DATA), ==, 'a');
    g_assert_false(high(f));
    g_assert_cmphex(in(f, IIR), ==, 0x01);
    g_assert_cmphex(in(f, LSR), ==, 0x60);
    g_assert_cmpuint(peer_sends(f, "bc"), ==, 1);
}

static void test_trigger_levels(Fixture *f, gconstpointer data)
{
    static const uint8_t levels[] = {1, 4, 8, 14};

    out(f, IER, 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(levels); i++) {
        out(f, FCR, (uint8_t)(i << 6 | 0x03));
        for (unsigned n = 1; n <= SERIAL_FIFO_BYTES; n++) {
            g_assert_cmpuint(peer_sends(f, "x"), ==, 1);
            g_assert_cmpint(high(f), ==, n >= levels[i]);
            g_assert_cmphex(in(f, IIR), ==, n >= levels[i] ? 0xc4 : 0xc1);
        }
        g_assert_cmpuint(peer_sends(f, "x"), ==, 0);
        for (unsigned n = SERIAL_FIFO_BYTES; n-- > 0;) {
            g_assert_cmphex(in(f, LSR) & 1, ==, 1);
            g_assert_cmphex(in(f, DATA), ==, 'x');
            g_assert_cmpint(high(f), ==, n >= levels[i]);
        }
        g_assert_cmphex(in(f, LSR), ==, 0x60);
    }
}

static void test_fifo_keeps_the_order_around_its_end(Fixture *f, gconstpointer data)
{
    uint8_t next = 0, expect = 0;

    out(f, FCR, 1);
    for (int round = 0; round < 20; round++) {
        while (qemu_chr_be_can_read(&f->chr)) {
            qemu_chr_be_read(&f->chr, &next, 1, NULL, 0);
            next++;
        }
        for (int i = 0; i < 11; i++) {
            g_assert_cmphex(in(f, DATA), ==, expect++);
        }
    }
}

static void test_fcr_clears_fifos(Fixture *f, gconstpointer data)
{
    out(f, FCR, 1);
    peer_sends(f, "abc");
    out(f, FCR, 0x02); /* without the enable bit nothing but that bit counts: it was cleared */
    g_assert_cmphex(in(f, LSR), ==, 0x60);
    g_assert_cmphex(in(f, IIR), ==, 0x01);
    out(f, FCR, 1);
    peer_sends(f, "abc");
    out(f, FCR, 1);
    g_assert_cmphex(in(f, LSR), ==, 0x61);
    out(f, FCR, 3);
    g_assert_cmphex(in(f, LSR), ==, 0x60);
    f->full = true;
    out_text(f, "abc");
    g_assert_cmphex(in(f, LSR), ==, 0);
    out(f, FCR, 5);
    g_assert_cmphex(in(f, LSR), ==, 0x20);
    peer_takes_again(f);
    g_assert_cmpstr(f->sent->str, ==, "a"); /* it was in the shift register */
    g_assert_cmphex(in(f, LSR), ==, 0x60);
}

static void test_bytes_below_the_trigger_level_time_out(Fixture *f, gconstpointer data)
{
    set_divisor(f, 1);
    out(f, FCR, 0x81);
    out(f, IER, 1);
    peer_sends(f, "ab");
    step(TIMEOUT_NS - 10);
    g_assert_false(high(f));
    step(20);
    g_assert_true(high(f));
    g_assert_cmphex(in(f, IIR), ==, 0xcc);
    g_assert_cmphex(in(f, DATA), ==, 'a');
    g_assert_false(high(f));
    step(TIMEOUT_NS - 10); /* the read has begun the time anew */
    peer_sends(f, "c");
    step(TIMEOUT_NS - 10); /* and so has a new byte */
    g_assert_false(high(f));
    step(20);
    g_assert_true(high(f));
    g_assert_cmphex(in(f, DATA), ==, 'b');
    g_assert_cmphex(in(f, DATA), ==, 'c');
    step(10 * TIMEOUT_NS);
    g_assert_false(high(f));
    g_assert_false(timer_pending(f->s.fifo_timeout_timer));
}

static void test_the_timeout_is_four_frames(Fixture *f, gconstpointer data)
{
    static const struct {
        uint8_t lcr;
        uint16_t divisor;
        int64_t half_bits;
    } frames[] = {
        {0x00, 1, 14},  {0x04, 1, 15},      {0x01, 2, 16}, {0x05, 2, 18},
        {0x03, 12, 20}, {0x0f, 0xffff, 24}, {0x0b, 6, 22}, {0x03, 0, 20},
    };

    out(f, FCR, 1);
    for (size_t i = 0; i < G_N_ELEMENTS(frames); i++) {
        int64_t divisor = MAX(frames[i].divisor, 1);
        int64_t frame = frames[i].half_bits * 500000000 * divisor / 115200;

        set_divisor(f, frames[i].divisor);
        out(f, LCR, frames[i].lcr);
        peer_sends(f, "x");
        g_assert_cmpint(timer_expire_ns(f->s.fifo_timeout_timer), ==,
                        qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + 4 * frame);
        (void)in(f, DATA);
    }
}

static void test_overrun(Fixture *f, gconstpointer data)
{
    out(f, MCR, LOOP);
    out(f, IER, 4);
    out_text(f, "ab");
    g_assert_true(high(f));
    g_assert_cmphex(in(f, IIR), ==, 0x06);
    g_assert_cmphex(in(f, LSR), ==, 0x63);
    g_assert_false(high(f));
    g_assert_cmphex(in(f, LSR), ==, 0x61);
    g_assert_cmphex(in(f, DATA), ==, 'b'); /* the register has the last byte */
    out(f, FCR, 1);
    out_text(f, "0123456789abcdef");
    g_assert_cmphex(in(f, LSR), ==, 0x61);
    out(f, DATA, 'X');
    g_assert_cmphex(in(f, LSR), ==, 0x63);
    for (const char *c = "0123456789abcdef"; *c; c++) { /* the FIFO has the first ones */
        g_assert_cmphex(in(f, DATA), ==, *c);
    }
    g_assert_cmphex(in(f, LSR), ==, 0x60);
}

static void test_break(Fixture *f, gconstpointer data)
{
    out(f, IER, 5);
    serial_receive_break(&f->s);
    g_assert_cmphex(in(f, IIR), ==, 0x06);
    g_assert_cmphex(in(f, LSR), ==, 0x71);
    g_assert_cmphex(in(f, IIR), ==, 0x04);
    g_assert_cmphex(in(f, DATA), ==, 0);
    out(f, FCR, 1);
    serial_receive_break(&f->s);
    g_assert_cmphex(in(f, LSR), ==, 0xf1);
    g_assert_cmphex(in(f, LSR), ==, 0x61);
    g_assert_cmphex(in(f, DATA), ==, 0);
    out(f, MCR, LOOP);
    serial_receive_break(&f->s);
    g_assert_cmphex(in(f, LSR), ==, 0x60);
    /* The break that the guest sends acts on the wire alone. */
    out(f, LCR, 0x40 | WORD);
    out(f, DATA, 'a');
    g_assert_cmphex(in(f, LSR), ==, 0x61);
    g_assert_cmphex(in(f, DATA), ==, 'a');
}

/* --- transmitting --- */

static void test_an_empty_holding_register_is_reported_once(Fixture *f, gconstpointer data)
{
    out(f, IER, 2);
    g_assert_true(high(f));
    (void)in(f, LSR);
    g_assert_true(high(f));
    g_assert_cmphex(in(f, IIR), ==, 0x02);
    g_assert_false(high(f));
    g_assert_cmphex(in(f, IIR), ==, 0x01);
    out(f, IER, 2);
    g_assert_false(high(f));
    out(f, IER, 0);
    out(f, IER, 2); /* enabling it asks again */
    g_assert_cmphex(in(f, IIR), ==, 0x02);
    f->full = true;
    out_text(f, "ab");
    (void)in(f, IIR);
    g_assert_false(high(f));
    out(f, IER, 0);
    out(f, IER, 2);
    g_assert_false(high(f)); /* it is full */
    peer_takes_again(f);
    g_assert_true(high(f));
    out(f, DATA, 'c'); /* a byte takes the request back, and is gone at once */
    g_assert_cmphex(in(f, IIR), ==, 0x02);
    g_assert_cmpstr(f->sent->str, ==, "abc");
}

static void test_a_cause_of_higher_rank_hides_the_others(Fixture *f, gconstpointer data)
{
    out(f, MCR, LOOP | 1);
    out(f, IER, 0x0f);
    out_text(f, "ab");
    g_assert_cmphex(in(f, IIR), ==, 0x06);
    g_assert_cmphex(in(f, IIR), ==, 0x06);
    (void)in(f, LSR);
    g_assert_cmphex(in(f, IIR), ==, 0x04);
    (void)in(f, DATA);
    g_assert_cmphex(in(f, IIR), ==, 0x02);
    g_assert_cmphex(in(f, IIR), ==, 0x00);
    g_assert_true(high(f));
    (void)in(f, MSR);
    g_assert_cmphex(in(f, IIR), ==, 0x01);
    g_assert_false(high(f));
}

static void test_a_slow_back_end_keeps_the_registers_full(Fixture *f, gconstpointer data)
{
    f->full = true;
    out(f, DATA, 'a');
    g_assert_cmphex(in(f, LSR), ==, 0x20); /* in the shift register */
    out(f, DATA, 'b');
    g_assert_cmphex(in(f, LSR), ==, 0);
    qemu_chr_be_drained(&f->chr); /* not true: it still takes nothing */
    g_assert_cmphex(in(f, LSR), ==, 0);
    g_assert_cmpstr(f->sent->str, ==, "");
    peer_takes_again(f);
    g_assert_cmpstr(f->sent->str, ==, "ab");
    g_assert_cmphex(in(f, LSR), ==, 0x60);
}

static void test_a_slow_back_end_fills_the_fifo(Fixture *f, gconstpointer data)
{
    out(f, FCR, 1);
    out(f, IER, 2);
    f->full = true;
    out_text(f, "0123456789abcdefghijk"); /* one is sent, 16 wait */
    g_assert_cmphex(in(f, LSR), ==, 0);
    g_assert_cmphex(in(f, IIR), ==, 0xc1);
    g_assert_false(high(f));
    peer_takes_again(f);
    g_assert_cmpstr(f->sent->str, ==, "0123456789abcdefg");
    g_assert_cmphex(in(f, LSR), ==, 0x60);
    g_assert_cmphex(in(f, IIR), ==, 0xc2);
}

static void test_peers_come_and_go(Fixture *f, gconstpointer data)
{
    f->full = true;
    out_text(f, "ab");
    f->full = false;
    qemu_chr_be_closed(&f->chr); /* what waits goes where the peer went */
    g_assert_cmphex(in(f, LSR), ==, 0x60);
    out_text(f, "lost");
    g_assert_cmphex(in(f, LSR), ==, 0x60);
    qemu_chr_be_opened(&f->chr);
    out_text(f, "new");
    g_assert_cmpstr(f->sent->str, ==, "new");
    g_assert_cmpuint(peer_sends(f, "x"), ==, 1);
    g_assert_cmphex(in(f, DATA), ==, 'x');
}

static void test_without_a_chardev_bytes_vanish(Fixture *f, gconstpointer data)
{
    qemu_chr_fe_deinit(&f->s.chr);
    out(f, FCR, 1);
    out_text(f, "a text that is longer than the FIFO");
    g_assert_cmphex(in(f, LSR), ==, 0x60);
    g_assert_cmphex(in(f, DATA), ==, 0);
}

static void test_a_guest_that_stands_neither_takes_nor_sends(Fixture *f, gconstpointer data)
{
    f->full = true;
    out(f, DATA, 'a');
    serial_set_running(&f->s, false);
    peer_takes_again(f);
    g_assert_cmpstr(f->sent->str, ==, "");
    g_assert_cmpuint(peer_sends(f, "x"), ==, 0);
    serial_set_running(&f->s, true);
    g_assert_cmpstr(f->sent->str, ==, "a");
    g_assert_cmpuint(peer_sends(f, "x"), ==, 1);
}

static void test_a_guest_that_stops_has_sent_what_the_chardev_takes(Fixture *f, gconstpointer data)
{
    f->full = true;
    out_text(f, "ab");
    f->full = false;
    serial_set_running(&f->s, false);
    g_assert_cmpstr(f->sent->str, ==, "ab");
    g_assert_cmphex(in(f, LSR), ==, 0x60);
}

static gpointer vcpu_writes(gpointer data)
{
    Fixture *f = data;
    bool sent_nothing;

    bql_lock();
    out_text(f, "ab");
    sent_nothing = !f->sent->len;
    bql_unlock();
    return GINT_TO_POINTER(sent_nothing);
}

static void test_what_a_vcpu_writes_is_sent_by_the_main_loop(Fixture *f, gconstpointer data)
{
    GThread *thread = g_thread_new("vcpu", vcpu_writes, f);

    while (f->sent->len < 2) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_true(GPOINTER_TO_INT(g_thread_join(thread)));
    g_assert_cmpstr(f->sent->str, ==, "ab");
    g_assert_cmphex(in(f, LSR), ==, 0x60);
}

/* --- loopback and modem lines --- */

static void test_loopback_keeps_bytes_inside(Fixture *f, gconstpointer data)
{
    out(f, MCR, LOOP);
    g_assert_cmpuint(peer_sends(f, "x"), ==, 0);
    for (unsigned i = 0; i < 0x100; i++) {
        out(f, DATA, (uint8_t)i);
        g_assert_cmphex(in(f, LSR), ==, 0x61);
        g_assert_cmphex(in(f, DATA), ==, i);
    }
    g_assert_cmpuint(f->sent->len, ==, 0);
    out(f, MCR, 0);
    g_assert_cmpuint(peer_sends(f, "x"), ==, 1);
    /* A byte that waits for the chardev comes back when the chip is looped. */
    (void)in(f, DATA);
    f->full = true;
    out(f, DATA, 'w');
    out(f, MCR, LOOP);
    g_assert_cmphex(in(f, LSR), ==, 0x61);
    g_assert_cmphex(in(f, DATA), ==, 'w');
}

static void test_modem_lines_follow_the_outputs_in_loopback(Fixture *f, gconstpointer data)
{
    static const uint8_t lines[4] = {0x20, 0x10, 0x40, 0x80}; /* DTR, RTS, OUT1, OUT2 */

    out(f, MCR, LOOP);
    g_assert_cmphex(in(f, MSR), ==, 0x0b); /* the lines of the null modem have gone */
    g_assert_cmphex(in(f, MSR), ==, 0);
    out(f, IER, 8);
    for (unsigned i = 0; i < 4; i++) {
        uint8_t delta = lines[i] >> 4;

        out(f, MCR, (uint8_t)(LOOP | 1u << i));
        g_assert_cmpint(high(f), ==, i != 2);
        g_assert_cmphex(in(f, MSR), ==, lines[i] | (i == 2 ? 0 : delta));
        g_assert_false(high(f));
        out(f, MCR, LOOP);
        g_assert_true(high(f));
        g_assert_cmphex(in(f, IIR), ==, 0);
        g_assert_cmphex(in(f, MSR), ==, delta);
    }
    out(f, MCR, LOOP | 0x0a);
    g_assert_cmphex(in(f, MSR) & 0xf0, ==, 0x90);
    out(f, MCR, 0);
    g_assert_cmphex(in(f, MSR) & 0xf0, ==, 0xb0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    qtest_clock_init();
#define TEST(name) SERIAL_TEST("serial", name)
    TEST(reset_values);
    TEST(registers_keep_the_bits_that_they_have);
    TEST(dlab_shows_the_divisor);
    TEST(every_size_at_every_place);
    TEST(without_fifos_one_byte_is_taken_at_a_time);
    TEST(trigger_levels);
    TEST(fifo_keeps_the_order_around_its_end);
    TEST(fcr_clears_fifos);
    TEST(bytes_below_the_trigger_level_time_out);
    TEST(the_timeout_is_four_frames);
    TEST(overrun);
    TEST(break);
    TEST(an_empty_holding_register_is_reported_once);
    TEST(a_cause_of_higher_rank_hides_the_others);
    TEST(a_slow_back_end_keeps_the_registers_full);
    TEST(a_slow_back_end_fills_the_fifo);
    TEST(peers_come_and_go);
    TEST(without_a_chardev_bytes_vanish);
    TEST(a_guest_that_stands_neither_takes_nor_sends);
    TEST(a_guest_that_stops_has_sent_what_the_chardev_takes);
    TEST(what_a_vcpu_writes_is_sent_by_the_main_loop);
    TEST(loopback_keeps_bytes_inside);
    TEST(modem_lines_follow_the_outputs_in_loopback);
    return g_test_run();
}
