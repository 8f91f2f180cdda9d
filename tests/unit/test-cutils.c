/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Numbers as text. */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "util/cutils.h"
#include "util/units.h"

static void test_sizes(void)
{
    static const struct {
        const char *text;
        int ret;
        uint64_t value;
    } cases[] = {
        {"0", 0, 0},
        {"12345", 0, 12345},
        {"64k", 0, 64 * KiB},
        {"64K", 0, 64 * KiB},
        {"1.5G", 0, GiB + GiB / 2},
        {"1.1k", 0, 1126},
        {"1.9k", 0, 1946},
        {"1.99999k", 0, 2048},
        {"1.", 0, 1},
        {"1.0", 0, 1},
        {"5b", 0, 5},
        {"5B", 0, 5},
        {"3M", 0, 3 * MiB},
        {"2T", 0, 2 * TiB},
        {"2p", 0, 2 * PiB},
        {"8E", 0, 8 * (uint64_t)EiB},
        {"0x1000", 0, 4096},
        {"0X1f", 0, 31},
        {"0x1e", 0, 30},
        {"0x5E", 0, 94},
        {"0x10b", 0, 267},
        {"08", 0, 8},
        {" 12k", 0, 12 * KiB},
        {"+5k", 0, 5 * KiB},
        {"18446744073709551615", 0, UINT64_MAX},
        {"1.0000000000000000000000000001k", 0, 1024},
        {"18446744073709551616", -ERANGE, 0},
        {"16E", -ERANGE, 0},
        {"0x10000000000000000", -ERANGE, 0},
        {"15.9999999999999999999E", 0, UINT64_MAX},
        {"", -EINVAL, 0},
        {" ", -EINVAL, 0},
        {"k", -EINVAL, 0},
        {"-1k", -EINVAL, 0},
        {"+-1", -EINVAL, 0},
        {".5G", -EINVAL, 0},
        {"1.5", -EINVAL, 0},
        {"1.5B", -EINVAL, 0},
        {"1e3", -EINVAL, 0},
        {"1.5e2k", -EINVAL, 0},
        {"0x", -EINVAL, 0},
        {"0x.8k", -EINVAL, 0},
        {"0x10M", -EINVAL, 0},
        {"0x1p3", -EINVAL, 0},
        {"10kB", -EINVAL, 0},
        {"10KiB", -EINVAL, 0},
        {"1,5k", -EINVAL, 0},
        {"inf", -EINVAL, 0},
        {"1 k", -EINVAL, 0},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint64_t value = 77;

        g_test_message("'%s'", cases[i].text);
        g_assert_cmpint(qemu_strtosz(cases[i].text, NULL, &value), ==, cases[i].ret);
        g_assert_cmpuint(value, ==, cases[i].value);
    }
}

static void test_size_end_and_defaults(void)
{
    const char *text = "16M,next", *end = NULL;
    uint64_t value;

    g_assert_cmpint(qemu_strtosz(text, &end, &value), ==, 0);
    g_assert_cmpuint(value, ==, 16 * MiB);
    g_assert_true(end == text + 3);
    text = "x";
    g_assert_cmpint(qemu_strtosz(text, &end, &value), ==, -EINVAL);
    g_assert_true(end == text);
    g_assert_cmpint(qemu_strtosz_MiB("128", NULL, &value), ==, 0);
    g_assert_cmpuint(value, ==, 128 * MiB);
    g_assert_cmpint(qemu_strtosz_MiB("1.5", NULL, &value), ==, 0);
    g_assert_cmpuint(value, ==, MiB + MiB / 2);
}

static void test_integers(void)
{
    const char *text, *end;
    uint64_t u = 1;
    int64_t i = 1;

    g_assert_cmpint(qemu_strtoi64("-9223372036854775808", NULL, 10, &i), ==, 0);
    g_assert_cmpint(i, ==, INT64_MIN);
    g_assert_cmpint(qemu_strtoi64("9223372036854775808", NULL, 10, &i), ==, -ERANGE);
    g_assert_cmpint(i, ==, 0);
    g_assert_cmpint(qemu_strtoi64("0x20", NULL, 0, &i), ==, 0);
    g_assert_cmpint(i, ==, 32);
    g_assert_cmpint(qemu_strtoi64("12x", NULL, 10, &i), ==, -EINVAL);
    g_assert_cmpint(qemu_strtoi64("", NULL, 10, &i), ==, -EINVAL);
    text = "12x";
    g_assert_cmpint(qemu_strtoi64(text, &end, 10, &i), ==, 0);
    g_assert_cmpint(i, ==, 12);
    g_assert_true(end == text + 2);
    g_assert_cmpint(qemu_strtou64("18446744073709551615", NULL, 10, &u), ==, 0);
    g_assert_cmpuint(u, ==, UINT64_MAX);
    g_assert_cmpint(qemu_strtou64("18446744073709551616", NULL, 10, &u), ==, -ERANGE);
    g_assert_cmpint(qemu_strtou64(" -1", NULL, 10, &u), ==, -ERANGE);
    g_assert_cmpuint(u, ==, 0);
    g_assert_cmpint(qemu_strtou64("junk", NULL, 10, &u), ==, -EINVAL);
}

static void test_bool(void)
{
    g_autoptr(GError) err = NULL;
    bool b = false;

    g_assert_true(qemu_parse_bool("x", "on", &b, NULL) && b);
    g_assert_true(qemu_parse_bool("x", "no", &b, NULL) && !b);
    g_assert_true(qemu_parse_bool("x", "yes", &b, NULL) && b);
    g_assert_true(qemu_parse_bool("x", "false", &b, NULL) && !b);
    g_assert_true(qemu_parse_bool("x", "true", &b, NULL) && b);
    g_assert_true(qemu_parse_bool("x", "off", &b, NULL) && !b);
    g_assert_false(qemu_parse_bool("readonly", "On", &b, &err));
    g_assert_nonnull(strstr(err->message, "'readonly'"));
}

static void test_human_sizes(void)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},
        {512, "512 B"},
        {1023, "0.999 KiB"},
        {1024, "1 KiB"},
        {1536, "1.5 KiB"},
        {1048575, "1 MiB"},
        {10 * GiB, "10 GiB"},
        {1000 * TiB, "0.977 PiB"},
        {UINT64_MAX, "16 EiB"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = size_to_str(cases[i].bytes);

        g_assert_cmpstr(text, ==, cases[i].text);
    }
}

static void test_hexdump(void)
{
    g_autoptr(GString) out = g_string_new(NULL);

    qemu_hexdump(out, "", 0x10, "Hello ~\x7f\x80\0\0\0\0\0\0\0AB", 18);
    g_assert_cmpstr(out->str, ==,
                    "00000010:  48 65 6c 6c 6f 20 7e 7f 80 00 00 00 00 00 00 00  Hello...........\n"
                    "00000020:  41 42  AB\n");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/cutils/sizes", test_sizes);
    g_test_add_func("/cutils/size-end", test_size_end_and_defaults);
    g_test_add_func("/cutils/integers", test_integers);
    g_test_add_func("/cutils/bool", test_bool);
    g_test_add_func("/cutils/human", test_human_sizes);
    g_test_add_func("/cutils/hexdump", test_hexdump);
    return g_test_run();
}
