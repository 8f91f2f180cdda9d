/* SPDX-License-Identifier: GPL-2.0-or-later */
/* HBitmap against a plain array of bools, one a granule; and what its laziness promises. */
#include <glib.h>
#include <malloc.h>
#include <string.h>

#include "util/hbitmap.h"

#define KiB 1024ULL
#define MiB (1024 * KiB)
#define GiB (1024 * MiB)
#define TiB (1024 * GiB)

typedef struct Model {
    HBitmap *hb;
    uint64_t size;
    uint64_t gran;
    GArray *dirty; /* of uint8_t, one a granule */
    GRand *rand;
} Model;

static uint64_t model_granules(const Model *m, uint64_t bytes)
{
    return (bytes + m->gran - 1) / m->gran;
}

static bool model_get(const Model *m, uint64_t offset)
{
    return g_array_index(m->dirty, uint8_t, offset / m->gran);
}

static void model_fill(Model *m, uint64_t offset, uint64_t bytes, bool value)
{
    if (bytes > 0) {
        for (uint64_t g = offset / m->gran; g <= (offset + bytes - 1) / m->gran; g++) {
            g_array_index(m->dirty, uint8_t, g) = value;
        }
    }
}

/* First byte >= offset and < end with the value, or -1. */
static int64_t model_find(const Model *m, uint64_t offset, uint64_t end, bool value)
{
    for (end = MIN(end, m->size); offset < end; offset = (offset / m->gran + 1) * m->gran) {
        if (model_get(m, offset) == value) {
            return offset;
        }
    }
    return -1;
}

static uint64_t model_count(const Model *m)
{
    uint64_t count = 0;

    for (uint64_t g = 0; g < m->dirty->len; g++) {
        if (g_array_index(m->dirty, uint8_t, g)) {
            count += MIN(m->gran, m->size - g * m->gran);
        }
    }
    return count;
}

/* Between lo and hi, both included. */
static uint64_t pick(Model *m, uint64_t lo, uint64_t hi)
{
    uint64_t r = (uint64_t)g_rand_int(m->rand) << 32 | g_rand_int(m->rand);

    return lo + r % (hi - lo + 1);
}

/*
 * Short runs mostly, so that mixed words abound; sometimes to the end, so that nodes fill and
 * empty.
 */
static uint64_t pick_bytes(Model *m, uint64_t offset)
{
    uint64_t max = m->size - offset;

    switch (pick(m, 0, 9)) {
    case 0:
        return max;
    case 1:
    case 2:
        return pick(m, 0, max);
    default:
        return pick(m, 0, MIN(max, m->gran * 200));
    }
}

/* Up to max bytes from offset on, within the range. */
static uint64_t pick_at_most(Model *m, uint64_t offset, uint64_t max)
{
    uint64_t bytes = pick(m, 0, max);

    return MIN(bytes, m->size - offset);
}

static void model_start(Model *m, uint64_t size, uint64_t gran, guint32 seed)
{
    g_test_message("size %" G_GUINT64_FORMAT " granularity %" G_GUINT64_FORMAT " seed %u", size,
                   gran, seed);
    *m = (Model){.size = size, .gran = gran};
    m->rand = g_rand_new_with_seed(seed);
    m->hb = hbitmap_new(size, gran);
    m->dirty = g_array_new(false, true, 1);
    g_array_set_size(m->dirty, model_granules(m, size));
}

static void model_end(Model *m)
{
    hbitmap_free(m->hb);
    g_array_free(m->dirty, true);
    g_rand_free(m->rand);
}

static void check_area(Model *m)
{
    uint64_t start = pick(m, 0, m->size), end = pick(m, start, m->size + m->gran);
    uint64_t max = pick(m, 1, m->size), at = 0, bytes = 0;
    int64_t from = model_find(m, start, end, true);
    bool found = hbitmap_next_dirty_area(m->hb, start, end, max, &at, &bytes);

    g_assert_cmpint(found, ==, from >= 0);
    if (found) {
        uint64_t limit = MIN(MIN(end, m->size), from + max);
        int64_t to = model_find(m, from, limit, false);

        g_assert_cmpuint(at, ==, from);
        g_assert_cmpuint(bytes, ==, (to < 0 ? limit : (uint64_t)to) - from);
    }
}

static void check_queries(Model *m)
{
    uint64_t offset = pick(m, 0, m->size - 1), bytes = pick_bytes(m, offset), pnum = 0;
    uint64_t end = offset + bytes;
    bool dirty = model_get(m, offset);
    int64_t change = model_find(m, offset, end, !dirty);

    g_assert_cmpint(hbitmap_get(m->hb, offset), ==, dirty);
    g_assert_cmpint(hbitmap_next_dirty(m->hb, offset, bytes), ==, model_find(m, offset, end, true));
    g_assert_cmpint(hbitmap_next_zero(m->hb, offset, bytes), ==, model_find(m, offset, end, false));
    g_assert_cmpint(hbitmap_next_zero(m->hb, offset, UINT64_MAX), ==,
                    model_find(m, offset, m->size, false));
    g_assert_cmpint(hbitmap_status(m->hb, offset, bytes, &pnum), ==, dirty);
    g_assert_cmpuint(pnum, ==, change < 0 ? bytes : change - offset);
    check_area(m);
}

static void check_whole(Model *m)
{
    g_assert_cmpuint(hbitmap_size(m->hb), ==, m->size);
    g_assert_cmpuint(hbitmap_count(m->hb), ==, model_count(m));
    g_assert_cmpint(hbitmap_empty(m->hb), ==, model_count(m) == 0);
    for (uint64_t g = 0; g < m->dirty->len; g++) {
        g_assert_cmpint(hbitmap_get(m->hb, g * m->gran), ==, model_get(m, g * m->gran));
    }
}

static void model_truncate(Model *m)
{
    uint64_t size = pick(m, MAX(m->size / 2, 1), m->size * 2);

    size = MIN(size, m->gran * 300000);
    hbitmap_truncate(m->hb, size);
    m->size = size;
    g_array_set_size(m->dirty, model_granules(m, size));
}

static void model_step(Model *m)
{
    uint64_t offset = pick(m, 0, m->size - 1), bytes = pick_bytes(m, offset);

    switch (pick(m, 0, 199)) {
    case 0:
        hbitmap_reset_all(m->hb);
        model_fill(m, 0, m->size, false);
        break;
    case 1:
        model_truncate(m);
        break;
    case 2 ... 99:
        hbitmap_set(m->hb, offset, bytes);
        model_fill(m, offset, bytes, true);
        break;
    default:
        offset -= offset % m->gran;
        bytes = MIN((bytes + m->gran - 1) / m->gran * m->gran, m->size - offset);
        hbitmap_reset(m->hb, offset, bytes);
        model_fill(m, offset, bytes, false);
        break;
    }
}

static void test_random_operations_match_model(void)
{
    static const struct {
        uint64_t size, gran;
    } cases[] = {
        {1, 1},
        {63, 1},
        {4096, 1},
        {4097, 1},
        {300 * KiB, 1},
        {MiB + 511, 512},
        {64 * MiB, 512},
        {2 * GiB, 64 * KiB},
        {3 * GiB + 7, 64 * KiB},
        {GiB, 64 * MiB},
        {16 * TiB - 1, 1U << 31},
    };

    for (guint32 i = 0; i < G_N_ELEMENTS(cases); i++) {
        Model m;

        model_start(&m, cases[i].size, cases[i].gran, 1000 + i);
        for (int step = 0; step < 600; step++) {
            model_step(&m);
            for (int query = 0; query < 4; query++) {
                check_queries(&m);
            }
            if (step % 30 == 0) {
                check_whole(&m);
            }
        }
        check_whole(&m);
        model_end(&m);
    }
}

static void test_merge_matches_model(void)
{
    static const uint64_t grans[] = {512, 4096, 64 * KiB};

    for (guint32 i = 0; i < 9; i++) {
        Model a, b;
        uint64_t size = 100 * MiB + 700;

        model_start(&a, size, grans[i / 3], 2000 + i);
        model_start(&b, size, grans[i % 3], 3000 + i);
        for (int step = 0; step < 60; step++) {
            uint64_t at = pick(&a, 0, size - 1), bytes = pick_at_most(&a, at, MiB);

            hbitmap_set(a.hb, at, bytes);
            model_fill(&a, at, bytes, true);
            at = pick(&b, 0, size - 1);
            bytes = pick_at_most(&b, at, 4 * MiB);
            hbitmap_set(b.hb, at, bytes);
            model_fill(&b, at, bytes, true);
        }
        hbitmap_merge(a.hb, b.hb);
        for (uint64_t at = 0; at < size; at += b.gran) {
            if (model_get(&b, at)) {
                model_fill(&a, at, MIN(b.gran, size - at), true);
            }
        }
        check_whole(&a);
        check_whole(&b);
        hbitmap_merge(a.hb, a.hb);
        check_whole(&a);
        model_end(&a);
        model_end(&b);
    }
}

static void test_clone_is_independent(void)
{
    Model m;

    model_start(&m, 64 * MiB, 512, 42);
    for (int step = 0; step < 100; step++) {
        model_step(&m);
    }
    HBitmap *original = m.hb;

    m.hb = hbitmap_clone(original);
    hbitmap_reset_all(original);
    hbitmap_free(original);
    check_whole(&m);
    model_end(&m);
}

static void test_serialized_parts_restore_the_bitmap(void)
{
    for (guint32 i = 0; i < 20; i++) {
        Model m;

        model_start(&m, 3 * MiB + 513 * i, 512, 500 + i);
        for (int step = 0; step < 200; step++) {
            model_step(&m);
        }
        g_autoptr(HBitmap) copy = hbitmap_new(m.size, m.gran);
        uint64_t align = hbitmap_serialization_align(m.hb);

        hbitmap_set(copy, 0, m.size);
        for (uint64_t at = 0, bytes; at < m.size; at += bytes) {
            bytes = align * pick(&m, 1, 5);
            bytes = MIN(bytes, m.size - at);
            uint64_t len = hbitmap_serialization_size(m.hb, at, bytes);
            g_autofree uint8_t *buf = g_malloc(len);

            hbitmap_serialize_part(m.hb, buf, at, bytes);
            for (uint64_t g = 0; g < model_granules(&m, bytes); g++) {
                g_assert_cmpint(buf[g / 8] >> g % 8 & 1, ==, model_get(&m, at + g * m.gran));
            }
            hbitmap_deserialize_part(copy, buf, at, bytes);
        }
        hbitmap_free(m.hb);
        m.hb = g_steal_pointer(&copy);
        check_whole(&m);
        model_end(&m);
    }
}

static void test_deserialize_ignores_bits_past_the_end(void)
{
    uint8_t buf[16];
    g_autoptr(HBitmap) hb = hbitmap_new(70 * 512 - 1, 512);

    memset(buf, 0xff, sizeof(buf));
    g_assert_cmpuint(hbitmap_serialization_size(hb, 0, 70 * 512 - 1), ==, sizeof(buf));
    hbitmap_deserialize_part(hb, buf, 0, 70 * 512 - 1);
    g_assert_cmpuint(hbitmap_count(hb), ==, 70 * 512 - 1);
    hbitmap_truncate(hb, 1000 * 512);
    g_assert_cmpint(hbitmap_next_zero(hb, 0, UINT64_MAX), ==, 70 * 512);
}

static void test_truncate_forgets_what_was_cut_off(void)
{
    g_autoptr(HBitmap) hb = hbitmap_new(MiB, 512);

    hbitmap_set(hb, 0, MiB);
    hbitmap_truncate(hb, 1000);
    g_assert_cmpuint(hbitmap_count(hb), ==, 1000);
    hbitmap_truncate(hb, TiB);
    g_assert_cmpuint(hbitmap_count(hb), ==, 1024);
    g_assert_cmpint(hbitmap_next_zero(hb, 0, TiB), ==, 1024);
    hbitmap_truncate(hb, 0);
    g_assert_true(hbitmap_empty(hb));
    g_assert_cmpint(hbitmap_next_dirty(hb, 0, UINT64_MAX), ==, -1);
}

/* Bytes in use by malloc; 0 where a sanitizer replaces it. */
static size_t heap_bytes(void)
{
    return mallinfo2().uordblks;
}

static void test_huge_ranges_cost_next_to_nothing(void)
{
    size_t before = heap_bytes();
    g_autoptr(HBitmap) disk = hbitmap_new(4 * TiB, 64 * KiB);
    g_autoptr(HBitmap) hostile = hbitmap_new(INT64_MAX, 1);
    uint64_t at = 0, bytes = 0;

    hbitmap_set(disk, 0, 4 * TiB);
    hbitmap_set(hostile, 0, INT64_MAX);
    g_assert_cmpuint(hbitmap_count(hostile), ==, INT64_MAX);
    hbitmap_reset(hostile, 12345, 1);
    g_assert_cmpint(hbitmap_next_zero(hostile, 0, INT64_MAX), ==, 12345);
    g_assert_cmpuint(heap_bytes() - before, <, 64 * KiB);

    hbitmap_reset(disk, 0, 4 * TiB);
    hbitmap_set(disk, 3 * TiB, 1);
    hbitmap_set(disk, 4 * TiB - 1, 1);
    g_assert_true(hbitmap_next_dirty_area(disk, 0, UINT64_MAX, UINT64_MAX, &at, &bytes));
    g_assert_cmpuint(at, ==, 3 * TiB);
    g_assert_cmpuint(bytes, ==, 64 * KiB);
    g_assert_true(hbitmap_next_dirty_area(disk, at + bytes, UINT64_MAX, UINT64_MAX, &at, &bytes));
    g_assert_cmpuint(at, ==, 4 * TiB - 64 * KiB);
    g_assert_cmpuint(heap_bytes() - before, <, 64 * KiB);
}

/* Shown, not asserted: time belongs to benchmarks. */
static void test_search_speed(void)
{
    g_autoptr(HBitmap) hb = hbitmap_new(4 * TiB, 64 * KiB);
    uint64_t at = 0, bytes = 0, found = 0;
    gint64 start;

    if (!g_test_perf()) {
        g_test_skip("run with -m perf");
        return;
    }
    hbitmap_set(hb, 4 * TiB - 1, 1);
    start = g_get_monotonic_time();
    for (int i = 0; i < 1000000; i++) {
        found += hbitmap_next_dirty_area(hb, i, 4 * TiB, TiB, &at, &bytes);
    }
    g_test_minimized_result((g_get_monotonic_time() - start) / 1e3, "ns a search: %g",
                            (g_get_monotonic_time() - start) / 1e3);
    g_assert_cmpuint(found, ==, 1000000);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hbitmap/random", test_random_operations_match_model);
    g_test_add_func("/hbitmap/merge", test_merge_matches_model);
    g_test_add_func("/hbitmap/clone", test_clone_is_independent);
    g_test_add_func("/hbitmap/serialize", test_serialized_parts_restore_the_bitmap);
    g_test_add_func("/hbitmap/deserialize-past-end", test_deserialize_ignores_bits_past_the_end);
    g_test_add_func("/hbitmap/truncate", test_truncate_forgets_what_was_cut_off);
    g_test_add_func("/hbitmap/huge", test_huge_ranges_cost_next_to_nothing);
    g_test_add_func("/hbitmap/perf", test_search_speed);
    return g_test_run();
}
