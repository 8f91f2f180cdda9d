/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Zero detection: every version, at every alignment and length around its block sizes. */
#include <glib.h>
#include <stdint.h>
#include <string.h>

#include "util/bufferiszero.h"

#define MAX_BYTES 700
#define MAX_ALIGN 64

static bool select_or_skip(gconstpointer name)
{
    if (buffer_is_zero_select(name)) {
        g_assert_cmpstr(buffer_is_zero_implementation(), ==, name);
        return true;
    }
    g_test_skip("this CPU lacks the instructions");
    return false;
}

/*
 * Dirty bytes around the buffer must not matter; the allocation is exact so that a sanitizer sees
 * overreads.
 */
static void test_ignores_bytes_outside(gconstpointer name)
{
    if (!select_or_skip(name)) {
        return;
    }
    for (size_t bytes = 0; bytes <= MAX_BYTES; bytes++) {
        for (size_t align = 0; align < MAX_ALIGN; align += bytes < 300 ? 1 : 13) {
            g_autofree char *buf = g_malloc(align + bytes + 1);

            memset(buf, 0xff, align + bytes + 1);
            memset(buf + align, 0, bytes);
            g_assert_true(buffer_is_zero(buf + align, bytes));
        }
        g_autofree char *exact = g_malloc0(bytes);

        g_assert_true(buffer_is_zero(exact, bytes));
    }
}

static void test_finds_every_byte(gconstpointer name)
{
    static const uint8_t values[] = {1, 0x80, 0xff};
    g_autofree uint8_t *buf = g_malloc0(MAX_ALIGN + MAX_BYTES);

    if (!select_or_skip(name)) {
        return;
    }
    for (size_t bytes = 1; bytes <= MAX_BYTES; bytes += bytes < 80 ? 1 : 31) {
        for (size_t align = 0; align < MAX_ALIGN; align += 3) {
            for (size_t pos = 0; pos < bytes; pos++) {
                buf[align + pos] = values[pos % G_N_ELEMENTS(values)];
                g_assert_false(buffer_is_zero(buf + align, bytes));
                buf[align + pos] = 0;
            }
        }
    }
}

static void test_finds_one_bit_in_a_large_buffer(gconstpointer name)
{
    const size_t bytes = 1 << 20;
    g_autofree uint8_t *buf = g_malloc0(bytes);

    if (!select_or_skip(name)) {
        return;
    }
    g_assert_true(buffer_is_zero(buf, bytes));
    for (size_t pos = 0; pos < bytes; pos += 4099) {
        buf[pos] = 1 << pos % 8;
        g_assert_false(buffer_is_zero(buf, bytes));
        buf[pos] = 0;
    }
}

static void test_refuses_unknown_name(void)
{
    const char *before = buffer_is_zero_implementation();

    g_assert_false(buffer_is_zero_select("abacus"));
    g_assert_cmpstr(buffer_is_zero_implementation(), ==, before);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"scalar", "avx2", "avx512"};

    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        const char *name = names[i];
        g_autofree char *outside = g_strdup_printf("/bufferiszero/%s/outside", name);
        g_autofree char *every = g_strdup_printf("/bufferiszero/%s/every-byte", name);
        g_autofree char *large = g_strdup_printf("/bufferiszero/%s/large", name);

        g_test_add_data_func(outside, name, test_ignores_bytes_outside);
        g_test_add_data_func(every, name, test_finds_every_byte);
        g_test_add_data_func(large, name, test_finds_one_bit_in_a_large_buffer);
    }
    g_test_add_func("/bufferiszero/unknown-name", test_refuses_unknown_name);
    return g_test_run();
}
