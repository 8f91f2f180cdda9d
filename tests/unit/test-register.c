/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Register tables: masks, sizes, places, and interrupt lines. */
#include "hw/core/register.h"

#include <string.h>
#include "hw/core/irq.h"
#include "memory/address-space.h"
#include "util/aio.h"

typedef struct State {
    uint8_t control, status;
    uint16_t half[3];
    uint32_t word;
    uint64_t wide;
    unsigned reads, writes;
    RegisterWrite last;
} State;

static uint64_t count_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    ((State *)state)->reads++;
    return stored;
}

static void note_write(void *state, const RegisterWrite *write)
{
    ((State *)state)->writes++;
    ((State *)state)->last = *write;
}

static const RegisterRow rows[] = {
    REGISTER(0, State, control, "CONTROL", .reset = 0x81, .writable = 0x0f),
    REGISTER(1, State, status, "STATUS", .clear_on_one = 0x30),
    REGISTER_ARRAY(2, State, half, "HALF", .reset = 0x1234, .writable = 0xffff),
    REGISTER(8, State, word, "WORD", .writable = UINT32_MAX, .read = count_read,
             .write = note_write),
    /* 12..15: nothing */
    REGISTER(16, State, wide, "WIDE", .writable = UINT64_MAX),
};
static const RegisterTable table = {"test", rows, G_N_ELEMENTS(rows), .filler = 0xee};
#define TABLE_END 24

static void test_only_writable_bits_change(void)
{
    State s = {0};

    register_table_check(&table);
    register_table_reset(&table, &s);
    g_assert_cmphex(s.control, ==, 0x81);
    g_assert_cmphex(s.half[2], ==, 0x1234);
    register_table_write(&table, &s, 0, 0xf6, 1);
    g_assert_cmphex(s.control, ==, 0x86);
    s.status = 0xff;
    register_table_write(&table, &s, 1, 0x1f, 1);
    g_assert_cmphex(s.status, ==, 0xef);
    register_table_write(&table, &s, 1, 0, 1);
    g_assert_cmphex(s.status, ==, 0xef);
}

/* What each byte of the space holds, by the table's words. */
static void model_read(const State *s, uint8_t bytes[TABLE_END])
{
    memset(bytes, 0xee, TABLE_END);
    bytes[0] = s->control;
    bytes[1] = s->status;
    memcpy(bytes + 2, s->half, 6);
    memcpy(bytes + 8, &s->word, 4);
    memcpy(bytes + 16, &s->wide, 8);
}

static void test_every_size_at_every_place_is_the_sum_of_its_bytes(void)
{
    for (unsigned size = 1; size <= 8; size *= 2) {
        for (unsigned at = 0; at < TABLE_END + 8; at++) {
            State s = {.word = 0x44332211, .wide = UINT64_C(0x8877665544332211)};
            uint8_t bytes[TABLE_END + 16], after[TABLE_END + 16];
            uint64_t value = UINT64_C(0xa1b2c3d4e5f60718), got;

            memset(bytes, 0xee, sizeof(bytes));
            memset(after, 0xee, sizeof(after));
            register_table_reset(&table, &s);
            s.word = 0x44332211;
            s.wide = UINT64_C(0x8877665544332211);
            model_read(&s, bytes);
            got = register_table_read(&table, &s, at, size);
            g_assert_cmpmem(&got, size, bytes + at, size);
            g_assert_cmpuint(s.reads, ==, at < 12 && at + size > 8);

            register_table_write(&table, &s, at, value, size);
            g_assert_cmpuint(s.writes, ==, at < 12 && at + size > 8);
            model_read(&s, after);
            for (unsigned i = 0; i < TABLE_END; i++) {
                bool written = i >= at && i < at + size;
                uint8_t mask = i == 0 ? 0x0f : i == 1 || (i >= 12 && i < 16) ? 0 : 0xff;
                uint8_t data = written ? (uint8_t)(value >> (8 * (i - at))) : bytes[i];

                g_assert_cmphex(after[i], ==, (bytes[i] & ~mask) | (data & mask));
            }
        }
    }
}

static void test_a_hook_sees_which_bits_were_meant(void)
{
    State s = {.word = 0x11223344};

    register_table_write(&table, &s, 9, 0xbeef, 2);
    g_assert_cmphex(s.last.mask, ==, 0x00ffff00);
    g_assert_cmphex(s.last.data, ==, 0x00beef00);
    g_assert_cmphex(s.last.old, ==, 0x11223344);
    g_assert_cmphex(s.last.value, ==, 0x11beef44);
}

static void test_what_is_far_away_is_filler(void)
{
    State s = {0};
    State before;

    register_table_reset(&table, &s);
    before = s;
    g_assert_cmphex(register_table_read(&table, &s, UINT64_MAX, 8), ==,
                    UINT64_C(0xeeeeeeeeeeeeeeee));
    g_assert_cmphex(register_table_read(&table, &s, UINT64_MAX - 3, 4), ==, 0xeeeeeeee);
    g_assert_cmphex(register_table_read(&table, &s, 1000, 2), ==, 0xeeee);
    register_table_write(&table, &s, UINT64_MAX, 1, 8);
    register_table_write(&table, &s, 1000, 1, 1);
    g_assert_cmpmem(&s, sizeof(s), &before, sizeof(before));
}

static void test_sizes_that_a_table_refuses_do_nothing(void)
{
    RegisterTable narrow = table;
    State s = {0};

    narrow.min_access = 2;
    narrow.max_access = 4;
    register_table_write(&narrow, &s, 0, 0xff, 1);
    register_table_write(&narrow, &s, 16, 1, 8);
    g_assert_cmphex(s.control, ==, 0);
    g_assert_cmphex(s.wide, ==, 0);
    g_assert_cmphex(register_table_read(&narrow, &s, 16, 8), ==, UINT64_C(0xeeeeeeeeeeeeeeee));
    register_table_write(&narrow, &s, 16, 1, 4);
    g_assert_cmphex(s.wide, ==, 1);
}

/* Through the region, as a guest's port accesses come. */
static void test_a_bank_answers_over_ports_of_any_size(void)
{
    static RegisterBank bank;
    State s = {.word = 0x44332211};
    uint8_t buf[8] = {0};

    register_bank_init(&bank, NULL, &table, &s, 10);
    memory_region_add_subregion(get_system_io(), 0x80, &bank.region);
    address_space_read(get_address_space_io(), 0x88, MEMTXATTRS_UNSPECIFIED, buf, 2);
    g_assert_cmphex(buf[0] | buf[1] << 8, ==, 0x2211);
    /* The region ends inside of the register: the rest is not the bank's. */
    address_space_read(get_address_space_io(), 0x87, MEMTXATTRS_UNSPECIFIED, buf, 8);
    g_assert_cmphex(buf[1], ==, 0x11);
    g_assert_cmphex(buf[3], ==, 0xff);
    memset(buf, 0x5a, sizeof(buf));
    address_space_write(get_address_space_io(), 0x83, MEMTXATTRS_UNSPECIFIED, buf, 4);
    g_assert_cmphex(s.half[0], ==, 0x5a00);
    g_assert_cmphex(s.half[1], ==, 0x5a5a);
    memory_region_del_subregion(get_system_io(), &bank.region);
    memory_region_destroy(&bank.region);
}

/* --- interrupt lines --- */

static void record(void *opaque, int n, int level)
{
    g_string_append_printf(opaque, "%d:%d ", n, level);
}

static void test_a_line_is_high_while_anything_holds_it(void)
{
    g_autoptr(GString) seen = g_string_new(NULL);
    g_autoptr(GString) watched = g_string_new(NULL);
    IRQLine a, b, joint, in;

    irq_line_init(&a, NULL, NULL, 0);
    irq_line_init(&b, NULL, NULL, 0);
    irq_line_init(&joint, NULL, NULL, 0);
    irq_line_init(&in, record, seen, 7);
    irq_connect(&a, &joint);
    irq_connect(&b, &joint);
    irq_connect(&joint, &in);
    irq_watch(&in, record, watched);
    qemu_irq_raise(&a);
    qemu_irq_raise(&b);
    qemu_irq_raise(&b);
    qemu_irq_lower(&a);
    g_assert_cmpstr(seen->str, ==, "7:1 ");
    qemu_irq_lower(&b);
    g_assert_cmpstr(seen->str, ==, "7:1 7:0 ");
    qemu_irq_pulse(&in);
    g_assert_cmpstr(seen->str, ==, "7:1 7:0 7:1 7:0 ");
    g_assert_cmpstr(watched->str, ==, seen->str);

    /* A device that goes leaves no line high behind it. */
    qemu_irq_raise(&b);
    irq_line_clear(&b);
    g_assert_false(irq_level(&in));
    g_string_set_size(seen, 0);
    irq_load_level(&a, 1);
    g_assert_true(irq_level(&in));
    g_assert_cmpstr(seen->str, ==, "");
    irq_line_clear(&in);
    irq_line_clear(&a);
    irq_line_clear(&joint);
}

int main(int argc, char **argv)
{
    g_autoptr(GError) err = NULL;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(&err));
    g_test_add_func("/register/masks", test_only_writable_bits_change);
    g_test_add_func("/register/sizes", test_every_size_at_every_place_is_the_sum_of_its_bytes);
    g_test_add_func("/register/hook", test_a_hook_sees_which_bits_were_meant);
    g_test_add_func("/register/far", test_what_is_far_away_is_filler);
    g_test_add_func("/register/refused", test_sizes_that_a_table_refuses_do_nothing);
    g_test_add_func("/register/bank", test_a_bank_answers_over_ports_of_any_size);
    g_test_add_func("/irq/wired-or", test_a_line_is_high_while_anything_holds_it);
    return g_test_run();
}
