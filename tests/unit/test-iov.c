/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Scatter-gather vectors against a flat buffer that models them. */
#include <glib.h>
#include <string.h>

#include "util/iov.h"

/* A vector of pieces of random sizes (empty ones too) cut from one buffer in order. */
static void make_pieces(QEMUIOVector *qiov, GRand *rand, uint8_t *buf, size_t bytes)
{
    qemu_iovec_init(qiov, 1);
    for (size_t pos = 0; pos < bytes;) {
        size_t n = g_rand_int_range(rand, 0, 40);

        n = MIN(n, bytes - pos);
        qemu_iovec_add(qiov, buf + pos, n);
        pos += n;
    }
}

static void test_random_ranges_match_flat_buffer(void)
{
    const guint32 seed = 20111;
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    uint8_t data[600], model[600], out[600];

    g_test_message("seed %u", seed);
    for (int round = 0; round < 500; round++) {
        size_t bytes = g_rand_int_range(rand, 1, sizeof(data));
        size_t offset = g_rand_int_range(rand, 0, bytes + 1);
        size_t want = g_rand_int_range(rand, 0, sizeof(data));
        size_t expect = MIN(want, bytes - offset);
        g_auto(QEMUIOVector) qiov = {0};

        for (size_t i = 0; i < sizeof(data); i++) {
            data[i] = model[i] = g_rand_int(rand);
            out[i] = g_rand_int(rand);
        }
        make_pieces(&qiov, rand, data, bytes);
        g_assert_cmpuint(qiov.size, ==, bytes);
        g_assert_cmpuint(iov_size(qiov.iov, qiov.niov), ==, bytes);

        g_assert_cmpuint(qemu_iovec_from_buf(&qiov, offset, out, want), ==, expect);
        memcpy(model + offset, out, expect);
        g_assert_cmpmem(data, sizeof(data), model, sizeof(model));

        memset(out, 0, sizeof(out));
        g_assert_cmpuint(qemu_iovec_to_buf(&qiov, offset, out, want), ==, expect);
        g_assert_cmpmem(out, expect, model + offset, expect);

        g_assert_cmpuint(qemu_iovec_memset(&qiov, offset, 0x5a, want), ==, expect);
        memset(model + offset, 0x5a, expect);
        g_assert_cmpmem(data, sizeof(data), model, sizeof(model));
    }
}

static void test_slice_is_a_view(void)
{
    const guint32 seed = 77;
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    uint8_t data[500], out[500];

    g_test_message("seed %u", seed);
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = i * 7;
    }
    for (int round = 0; round < 300; round++) {
        size_t offset = g_rand_int_range(rand, 0, sizeof(data));
        size_t bytes = g_rand_int_range(rand, 0, sizeof(data) - offset + 1);
        g_auto(QEMUIOVector) qiov = {0};
        g_auto(QEMUIOVector) slice = {0};

        make_pieces(&qiov, rand, data, sizeof(data));
        qemu_iovec_init_slice(&slice, &qiov, offset, bytes);
        g_assert_cmpuint(slice.size, ==, bytes);
        g_assert_cmpuint(qemu_iovec_to_buf(&slice, 0, out, sizeof(out)), ==, bytes);
        g_assert_cmpmem(out, bytes, data + offset, bytes);
        if (bytes > 0) {
            g_assert_true(slice.iov[0].iov_base == data + offset);
        }
    }
}

static void test_concat_appends(void)
{
    char a[] = "abcdef", b[] = "0123456789", out[16] = "";
    QEMUIOVector src;
    g_auto(QEMUIOVector) dst = {0};

    qemu_iovec_init(&dst, 0);
    qemu_iovec_init_buf(&src, a, 6);
    qemu_iovec_concat(&dst, &src, 2, 3);
    qemu_iovec_init_buf(&src, b, 10);
    qemu_iovec_concat(&dst, &src, 0, 0);
    qemu_iovec_concat(&dst, &src, 8, 2);
    g_assert_cmpuint(dst.size, ==, 5);
    g_assert_cmpuint(qemu_iovec_to_buf(&dst, 0, out, sizeof(out)), ==, 5);
    g_assert_cmpstr(out, ==, "cde89");

    qemu_iovec_reset(&dst);
    g_assert_cmpuint(dst.size, ==, 0);
    g_assert_cmpint(dst.niov, ==, 0);
    g_assert_cmpuint(qemu_iovec_to_buf(&dst, 0, out, sizeof(out)), ==, 0);
}

static void test_external_array_is_left_to_its_owner(void)
{
    char a[3] = "ab", b[5] = "cdef", out[8] = "";
    struct iovec iov[] = {{a, 2}, {NULL, 0}, {b, 4}};
    QEMUIOVector qiov;

    qemu_iovec_init_external(&qiov, iov, 3);
    g_assert_cmpuint(qiov.size, ==, 6);
    g_assert_cmpuint(qemu_iovec_to_buf(&qiov, 1, out, 3), ==, 3);
    g_assert_cmpstr(out, ==, "bcd");
    qemu_iovec_destroy(&qiov);
    g_assert_true(iov[0].iov_base == a);
}

static void test_is_zero_sees_only_its_range(void)
{
    uint8_t data[300] = {0};
    g_autoptr(GRand) rand = g_rand_new_with_seed(3);
    g_auto(QEMUIOVector) qiov = {0};

    make_pieces(&qiov, rand, data, sizeof(data));
    g_assert_true(qemu_iovec_is_zero(&qiov, 0, sizeof(data)));
    for (size_t pos = 0; pos < sizeof(data); pos++) {
        data[pos] = 1;
        g_assert_false(qemu_iovec_is_zero(&qiov, 0, sizeof(data)));
        g_assert_false(qemu_iovec_is_zero(&qiov, pos, 1));
        g_assert_true(qemu_iovec_is_zero(&qiov, 0, pos));
        g_assert_true(qemu_iovec_is_zero(&qiov, pos + 1, sizeof(data) - pos - 1));
        data[pos] = 0;
    }
}

static void test_is_aligned_checks_address_and_length(void)
{
    static _Alignas(512) uint8_t data[2048];
    g_auto(QEMUIOVector) qiov = {0};

    qemu_iovec_init(&qiov, 2);
    g_assert_true(qemu_iovec_is_aligned(&qiov, 512));
    qemu_iovec_add(&qiov, data, 1024);
    g_assert_true(qemu_iovec_is_aligned(&qiov, 512));
    qemu_iovec_add(&qiov, data + 1024, 256);
    g_assert_false(qemu_iovec_is_aligned(&qiov, 512));
    g_assert_true(qemu_iovec_is_aligned(&qiov, 256));
    qemu_iovec_reset(&qiov);
    qemu_iovec_add(&qiov, data + 1, 512);
    g_assert_false(qemu_iovec_is_aligned(&qiov, 512));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/iov/random-ranges", test_random_ranges_match_flat_buffer);
    g_test_add_func("/iov/slice", test_slice_is_a_view);
    g_test_add_func("/iov/concat", test_concat_appends);
    g_test_add_func("/iov/external", test_external_array_is_left_to_its_owner);
    g_test_add_func("/iov/is-zero", test_is_zero_sees_only_its_range);
    g_test_add_func("/iov/is-aligned", test_is_aligned_checks_address_and_length);
    return g_test_run();
}
