/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A 16550A chip on a clock (qtest's), a line and a chardev of the test's own. */
#ifndef FERRY_TESTS_UNIT_SERIAL_FIXTURE_H
#define FERRY_TESTS_UNIT_SERIAL_FIXTURE_H

#include <string.h>
#include "accel/qtest/qtest.h"
#include "chardev/char-int.h"
#include "hw/char/serial.h"
#include "util/aio.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };
enum { FCR = IIR };
#define DLAB 0x80
#define WORD 0x03 /* 8 bits, no parity, one stop bit: 10 bits a frame */
#define LOOP 0x10

/* --- the chip and what is around it --- */

typedef struct Fixture {
    SerialState s;
    IRQLine line;
    Chardev chr;
    GString *sent;
    bool full; /* the chardev takes no more */
} Fixture;

static inline Fixture *of_chardev(const Chardev *chr)
{
    return (Fixture *)((char *)chr - offsetof(Fixture, chr));
}

static inline void fake_write(Chardev *chr, const uint8_t *buf, size_t len)
{
    g_string_append_len(of_chardev(chr)->sent, (const char *)buf, (gssize)len);
}

static inline size_t fake_pending(const Chardev *chr)
{
    return of_chardev(chr)->full ? CHR_OUTPUT_LIMIT : 0;
}

static const ChardevClass fake_class = {
    .name = "fake", .write = fake_write, .pending = fake_pending};

static inline void set_up(Fixture *f, gconstpointer data)
{
    DeviceClock clock = device_clock_virtual();

    f->sent = g_string_new(NULL);
    f->chr = (Chardev){.klass = &fake_class, .label = (char *)"fake", .open = true, .log_fd = -1};
    f->chr.fe = &f->s.chr;
    f->s.chr.chr = &f->chr;
    f->s.baudbase = SERIAL_BAUDBASE;
    irq_line_init(&f->line, NULL, NULL, 0);
    g_assert_true(serial_init(&f->s, &clock, &f->line, NULL));
    serial_set_running(&f->s, true);
    serial_reset_exit(&f->s);
}

static inline void tear_down(Fixture *f, gconstpointer data)
{
    serial_cleanup(&f->s);
    g_assert_null(f->chr.fe);
    irq_line_clear(&f->line);
    g_string_free(f->sent, TRUE);
}

static inline uint8_t in(Fixture *f, unsigned at)
{
    return (uint8_t)register_table_read(&serial_registers, &f->s, at, 1);
}

static inline void out(Fixture *f, unsigned at, uint8_t value)
{
    register_table_write(&serial_registers, &f->s, at, value, 1);
}

static inline void out_text(Fixture *f, const char *text)
{
    for (; *text; text++) {
        out(f, DATA, (uint8_t)*text);
    }
}

/* The peer sends as much of it as the chip takes; how much that was. */
static inline size_t peer_sends(Fixture *f, const char *text)
{
    size_t n = MIN(strlen(text), qemu_chr_be_can_read(&f->chr));

    qemu_chr_be_read(&f->chr, (const uint8_t *)text, n, NULL, 0);
    return n;
}

static inline void peer_takes_again(Fixture *f)
{
    f->full = false;
    qemu_chr_be_drained(&f->chr);
}

static inline void set_divisor(Fixture *f, uint16_t divisor)
{
    out(f, LCR, DLAB | WORD);
    out(f, DATA, divisor & 0xff);
    out(f, IER, divisor >> 8);
    out(f, LCR, WORD);
}

static inline void step(int64_t ns)
{
    g_assert_true(qtest_clock_set_ns(qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + ns));
}

static inline bool high(Fixture *f)
{
    return irq_level(&f->line);
}

/* 10 bits of 115200 in a second, times 4. */
#define TIMEOUT_NS (4 * INT64_C(10000000000) / 115200)

#define SERIAL_TEST(suite, name) \
    g_test_add("/" suite "/" #name, Fixture, NULL, set_up, test_##name, tear_down)

#endif
