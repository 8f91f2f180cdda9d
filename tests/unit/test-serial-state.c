/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The section of a 16550A chip: stock's layout, a port that travels, hostile streams. */
#include <errno.h>
#include <inttypes.h>
#include "tests/unit/serial-fixture.h"
#include "tests/unit/vmstate-bytes.h"

#define SAVED_RESET "000c 00 00 01 00 00 60 b0 00 00"
#define NONE16      "00000000000000000000000000000000"

static GBytes *saved(Fixture *f)
{
    g_autoptr(GError) err = NULL;
    GBytes *bytes = save_json(&vmstate_serial_chip, &f->s, NULL, &err);

    g_assert_no_error(err);
    return bytes;
}

static void load_from(Fixture *to, GBytes *bytes)
{
    g_autoptr(QEMUFile) file = qemu_file_new_memory_input(bytes);
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(vmstate_load_state(file, &vmstate_serial_chip, &to->s, 3, &err), ==, 0);
    g_assert_no_error(err);
}

static void test_the_section_is_stocks(Fixture *f, gconstpointer data)
{
    g_autofree char *json = NULL;
    g_autoptr(GBytes) bytes = NULL;

    out(f, FCR, 0xc8); /* nothing counts without the bit that enables FIFOs */
    bytes = save_json(&vmstate_serial_chip, &f->s, &json, NULL);
    assert_bytes(bytes, SAVED_RESET);
    g_assert_cmpstr(json, ==,
                    "{\"vmsd_name\": \"serial\", \"version\": 3, \"fields\": ["
                    "{\"name\": \"divider\", \"type\": \"uint16\", \"size\": 2}, "
                    "{\"name\": \"rbr\", \"type\": \"uint8\", \"size\": 1}, "
                    "{\"name\": \"ier\", \"type\": \"uint8\", \"size\": 1}, "
                    "{\"name\": \"iir\", \"type\": \"uint8\", \"size\": 1}, "
                    "{\"name\": \"lcr\", \"type\": \"uint8\", \"size\": 1}, "
                    "{\"name\": \"mcr\", \"type\": \"uint8\", \"size\": 1}, "
                    "{\"name\": \"lsr\", \"type\": \"uint8\", \"size\": 1}, "
                    "{\"name\": \"msr\", \"type\": \"uint8\", \"size\": 1}, "
                    "{\"name\": \"scr\", \"type\": \"uint8\", \"size\": 1}, "
                    "{\"name\": \"fcr_vmstate\", \"type\": \"uint8\", \"size\": 1}]}");
}

static void test_subsections_are_stocks(Fixture *f, gconstpointer data)
{
    g_autofree char *text = NULL;

    set_divisor(f, 1);
    out(f, FCR, 0x81);
    out(f, IER, 3);
    peer_sends(f, "AB");
    f->full = true;
    out_text(f, "CD");
    text = g_strdup_printf("0001 00 03 c1 03 00 01 b0 00 81"
                           "05 0a 'serial/tsr' 00000001 00000001 00 43"
                           "05 10 'serial/recv_fifo' 00000001 4142 0000000000000000000000000000"
                           " 00000000 00000002"
                           "05 10 'serial/xmit_fifo' 00000001 4344 0000000000000000000000000000"
                           " 00000001 00000001"
                           "05 19 'serial/fifo_timeout_timer' 00000001 %016" PRIx64,
                           (uint64_t)timer_expire_ns(f->s.fifo_timeout_timer));
    assert_saves(&vmstate_serial_chip, &f->s, text);
}

/* Everything at once, in the middle: the other side goes on where this one stood. */
static void test_a_port_travels_in_the_middle_of_everything(Fixture *f, gconstpointer data)
{
    Fixture *to = g_new0(Fixture, 1);
    g_autoptr(GBytes) bytes = NULL;

    set_up(to, NULL);
    set_divisor(f, 1);
    out(f, FCR, 0x81);
    out(f, IER, 3);
    out(f, SCR, 0x77);
    peer_sends(f, "AB");
    f->full = true;
    out_text(f, "CDE");
    serial_set_running(&f->s, false);
    bytes = saved(f);

    serial_set_running(&to->s, false);
    load_from(to, bytes);
    g_assert_cmpstr(to->sent->str, ==, "");
    serial_set_running(&to->s, true);
    g_assert_cmpstr(to->sent->str, ==, "CDE");
    g_assert_cmphex(in(to, SCR), ==, 0x77);
    g_assert_cmphex(in(to, IIR), ==, 0xc2);
    g_assert_false(high(to));
    step(TIMEOUT_NS + 10);
    g_assert_true(high(to));
    g_assert_cmphex(in(to, IIR), ==, 0xcc);
    g_assert_cmphex(in(to, DATA), ==, 'A');
    g_assert_cmphex(in(to, DATA), ==, 'B');
    g_assert_cmphex(in(to, LSR), ==, 0x60);
    tear_down(to, NULL);
    g_free(to);
}

static void test_pending_interrupts_travel(Fixture *f, gconstpointer data)
{
    Fixture *to = g_new0(Fixture, 1);
    g_autoptr(GBytes) two = NULL, none = NULL;

    set_up(to, NULL);
    set_divisor(f, 1);
    out(f, FCR, 0x81);
    out(f, IER, 3);
    peer_sends(f, "A");
    step(TIMEOUT_NS + 10); /* the timeout hides the empty holding register */
    two = saved(f);
    load_from(to, two);
    g_assert_true(high(to));
    g_assert_cmphex(in(to, IIR), ==, 0xcc);
    g_assert_cmphex(in(to, DATA), ==, 'A');
    g_assert_cmphex(in(to, IIR), ==, 0xc2);
    (void)in(f, DATA);
    (void)in(f, IIR);
    none = saved(f);
    load_from(to, none);
    g_assert_false(high(to));
    g_assert_cmphex(in(to, IIR), ==, 0xc1);
    out(f, IER, 1);
    out(f, IER, 2);
    assert_saves(&vmstate_serial_chip, &f->s, "0001 41 02 c2 03 00 60 b0 00 81");
    assert_loads(&vmstate_serial_chip, &to->s, "0001 41 02 c2 03 00 60 b0 00 81");
    g_assert_true(high(to));
    g_assert_cmphex(in(to, IIR), ==, 0xc2);
    g_assert_false(high(to));
    tear_down(to, NULL);
    g_free(to);
}

static void test_hostile_streams_are_refused(Fixture *f, gconstpointer data)
{
#define BEGIN "0001 00 03 c1 03 00 00 b0 00 81"
    static const char *const streams[] = {
        BEGIN, /* a shift register that is full, and no byte for it */
        BEGIN "05 0a 'serial/tsr' 00000001 00000005 00 43",
        BEGIN "05 0a 'serial/tsr' 00000001 ffffffff 00 43",
        BEGIN "05 0a 'serial/tsr' 00000001 00000000 00 43",
        SAVED_RESET "05 0a 'serial/tsr' 00000001 00000001 00 43",
        SAVED_RESET "05 10 'serial/recv_fifo' 00000001" NONE16 "00000010 00000001",
        SAVED_RESET "05 10 'serial/recv_fifo' 00000001" NONE16 "00000000 00000011",
        SAVED_RESET "05 10 'serial/recv_fifo' 00000001" NONE16 "ffffffff 00000001",
        SAVED_RESET "05 10 'serial/xmit_fifo' 00000001" NONE16 "00000000 ffffffff",
        SAVED_RESET "05 10 'serial/xmit_fifo' 00000001" NONE16 "7fffffff 00000000",
        SAVED_RESET "05 13 'serial/thr_ipending' 00000001 00000002",
        SAVED_RESET "05 13 'serial/thr_ipending' 00000001 80000000",
        SAVED_RESET "05 17 'serial/timeout_ipending' 00000001 ffffffff",
        SAVED_RESET "05 17 'serial/timeout_ipending' 00000001 00000002",
        SAVED_RESET "05 0e 'serial/unknown' 00000001",
        SAVED_RESET "05 0a 'serial/tsr' 00000002 00000001 00 43",
        "0001 00 03",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(streams); i++) {
        g_autoptr(GError) err = NULL;

        g_assert_cmpint(load_version(&vmstate_serial_chip, &f->s, streams[i], 3, &err), <, 0);
        g_assert_nonnull(err);
    }
    assert_refused(
        &vmstate_serial_chip, &f->s, BEGIN, -EINVAL,
        "Failed to load serial at offset 0xb: LSR is 0x00, but the shift register is empty");
}

/* What is not refused leaves a chip that works, whatever it says. */
static void test_odd_streams_are_put_right(Fixture *f, gconstpointer data)
{
    assert_loads(&vmstate_serial_chip, &f->s,
                 "0000 41 ff ff 7f ff bf ff ff 00"
                 "05 0a 'serial/tsr' 00000001 00000004 00 43"
                 "05 10 'serial/recv_fifo' 00000001" NONE16 "0000000f 00000010");
    g_assert_cmphex(in(f, IER), ==, 0x0f);
    g_assert_cmphex(in(f, MCR), ==, 0x1f);
    g_assert_cmpuint(f->s.recv_fifo.num, ==, 0); /* there are no FIFOs */
    g_assert_true(high(f));
    assert_loads(&vmstate_serial_chip, &f->s,
                 "0001 00 01 01 03 00 60 b0 00 c1"
                 "05 10 'serial/recv_fifo' 00000001 4142434445464748494a4b4c4d4e4f50"
                 "0000000f 00000010"
                 "05 10 'serial/xmit_fifo' 00000001 6162636465666768696a6b6c6d6e6f70"
                 "0000000e 00000003"
                 "05 17 'serial/timeout_ipending' 00000001 00000001");
    g_assert_cmpuint(peer_sends(f, "x"), ==, 0);
    g_assert_true(high(f));
    for (const char *c = "PABCDEFGHIJKLMNO"; *c; c++) {
        g_assert_cmphex(in(f, DATA), ==, *c);
    }
    serial_set_running(&f->s, true);
    g_assert_cmpstr(f->sent->str, ==, "opa");
    g_assert_cmphex(in(f, LSR), ==, 0x60);
    /* A timeout of bytes that are not there. */
    assert_loads(&vmstate_serial_chip, &f->s,
                 SAVED_RESET "05 17 'serial/timeout_ipending' 00000001 00000001"
                             "05 19 'serial/fifo_timeout_timer' 00000001 0000000000000001");
    out(f, IER, 1);
    step(1000);
    g_assert_false(high(f));
}

static void test_a_senders_modem_poll_is_taken(Fixture *f, gconstpointer data)
{
    assert_loads(&vmstate_serial_chip, &f->s,
                 SAVED_RESET "05 0b 'serial/poll' 00000001 00000001 0000000000000005");
    assert_saves(&vmstate_serial_chip, &f->s, SAVED_RESET);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    qtest_clock_init();
#define TEST(name) SERIAL_TEST("serial-state", name)
    TEST(the_section_is_stocks);
    TEST(subsections_are_stocks);
    TEST(a_port_travels_in_the_middle_of_everything);
    TEST(pending_interrupts_travel);
    TEST(hostile_streams_are_refused);
    TEST(odd_streams_are_put_right);
    TEST(a_senders_modem_poll_is_taken);
    return g_test_run();
}
