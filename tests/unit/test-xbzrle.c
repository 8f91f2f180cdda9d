/* SPDX-License-Identifier: GPL-2.0-or-later */
/* XBZRLE: what is encoded decodes, what is malformed does not, and what the cache keeps. */
#include <string.h>

#include "migration/xbzrle.h"

#define PAGE 4096
#define SEED 77

static void assert_encodes(const uint8_t *old, const uint8_t *page, int want)
{
    uint8_t delta[PAGE], result[PAGE];
    int n = xbzrle_encode(old, page, PAGE, delta, sizeof(delta));

    if (want != -2) {
        g_assert_cmpint(n, ==, want);
    }
    if (n < 0) {
        return;
    }
    memcpy(result, old, PAGE);
    g_assert_true(xbzrle_decode(delta, (size_t)n, result, PAGE));
    g_assert_cmpmem(result, PAGE, page, PAGE);
}

static void test_small_changes(void)
{
    uint8_t old[PAGE], page[PAGE];

    memset(old, 0x11, PAGE);
    memcpy(page, old, PAGE);
    assert_encodes(old, page, 0);
    page[0] = 1;
    assert_encodes(old, page, 3);
    page[PAGE - 1] = 1;
    assert_encodes(old, page, 3 + 4);
    /* two bytes that stay are cheaper sent again */
    page[3] = 1;
    assert_encodes(old, page, 6 + 4);
    memset(page, 0x22, PAGE);
    assert_encodes(old, page, -1);
    page[PAGE - 4] = page[PAGE - 3] = page[PAGE - 2] = page[PAGE - 1] = 0x11;
    assert_encodes(old, page, 1 + 2 + PAGE - 4);
}

static void test_random_changes(void)
{
    GRand *rand = g_rand_new_with_seed(SEED);
    uint8_t old[PAGE], page[PAGE];

    for (unsigned i = 0; i < PAGE; i++) {
        old[i] = (uint8_t)g_rand_int(rand);
    }
    for (unsigned round = 0; round < 3000; round++) {
        memcpy(page, old, PAGE);
        for (int n = g_rand_int_range(rand, 0, 80); n > 0; n--) {
            int at = g_rand_int_range(rand, 0, PAGE);
            int len = g_rand_int_range(rand, 1, 200);

            memset(page + at, g_rand_int_range(rand, 0, 256), (size_t)MIN(len, PAGE - at));
        }
        assert_encodes(old, page, -2);
        memcpy(old, page, PAGE);
    }
    g_rand_free(rand);
}

/* The output never goes beyond the room it has. */
static void test_output_is_bounded(void)
{
    uint8_t old[PAGE] = {0}, page[PAGE], delta[PAGE + 1];
    int need;

    memset(page, 0, PAGE);
    for (unsigned i = 0; i < PAGE; i += 40) {
        page[i] = 1;
    }
    need = xbzrle_encode(old, page, PAGE, delta, PAGE);
    g_assert_cmpint(need, >, 0);
    for (int room = 0; room <= need; room++) {
        delta[room] = 0xee;
        g_assert_cmpint(xbzrle_encode(old, page, PAGE, delta, (size_t)room), ==,
                        room < need ? -1 : need);
        g_assert_cmphex(delta[room], ==, 0xee);
    }
}

/* A record that QEMU 7.2 sent. */
static void test_captured_delta(void)
{
    static const uint8_t delta[] = {0x00, 0x01, 0x5c, 0x07, 0x01, 0x5c};
    uint8_t page[PAGE] = {0}, want[PAGE] = {0};

    want[0] = want[8] = 0x5c;
    g_assert_true(xbzrle_decode(delta, sizeof(delta), page, PAGE));
    g_assert_cmpmem(page, PAGE, want, PAGE);
}

typedef struct Malformed {
    const char *what;
    size_t size;
    uint8_t delta[8];
} Malformed;

static void test_malformed_deltas(void)
{
    static const Malformed table[] = {
        {"no second run", 1, {0x05}},
        {"empty run of data", 2, {0x00, 0x00}},
        {"data cut short", 3, {0x00, 0x02, 0xaa}},
        {"no data", 2, {0x00, 0x01}},
        {"second run of 0 bytes that stay", 6, {0x01, 0x01, 0xaa, 0x00, 0x01, 0xbb}},
        {"varint cut short", 1, {0x80}},
        {"varint of three bytes", 5, {0x80, 0x80, 0x01, 0x01, 0xaa}},
        {"stays beyond the page", 4, {0x81, 0x20, 0x01, 0xaa}},
        {"data beyond the page", 5, {0xff, 0x1f, 0x02, 0xaa, 0xbb}},
        {"nothing but bytes that stay", 2, {0x80, 0x20}},
    };
    uint8_t page[PAGE + 16];

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        g_autofree uint8_t *delta = g_memdup2(table[i].delta, table[i].size);

        g_test_message("%s", table[i].what);
        memset(page, 0x77, sizeof(page));
        g_assert_false(xbzrle_decode(delta, table[i].size, page, PAGE));
        for (unsigned k = PAGE; k < sizeof(page); k++) {
            g_assert_cmphex(page[k], ==, 0x77);
        }
    }
    g_assert_true(xbzrle_decode(page, 0, page, PAGE));
}

/* What bytes at random do stays inside the page. */
static void test_random_deltas(void)
{
    GRand *rand = g_rand_new_with_seed(SEED);
    uint8_t page[PAGE + 16];

    memset(page, 0x77, sizeof(page));
    for (unsigned round = 0; round < 20000; round++) {
        size_t size = (size_t)g_rand_int_range(rand, 0, 300);
        g_autofree uint8_t *delta = g_malloc(size + 1);

        for (size_t i = 0; i < size; i++) {
            delta[i] = (uint8_t)g_rand_int(rand);
        }
        (void)!xbzrle_decode(delta, size, page, PAGE);
    }
    for (unsigned k = PAGE; k < sizeof(page); k++) {
        g_assert_cmphex(page[k], ==, 0x77);
    }
    g_rand_free(rand);
}

static void test_cache_keeps_what_is_used(void)
{
    XBZRLECache *cache = xbzrle_cache_new(3 * PAGE, NULL); /* two places */
    MigrationState s = {0};
    uint8_t *a, *b;

    g_mutex_init(&s.lock);
    g_assert_null(xbzrle_cache_find(cache, 0));
    a = xbzrle_cache_insert(cache, 0);
    b = xbzrle_cache_insert(cache, PAGE);
    g_assert_true(a && b && a != b);
    g_assert_true(xbzrle_cache_find(cache, 0) == a);
    g_assert_null(xbzrle_cache_insert(cache, 2 * PAGE));
    xbzrle_cache_next_pass(cache, &s);
    g_assert_true(xbzrle_cache_find(cache, 0) == a);
    xbzrle_cache_next_pass(cache, &s);
    g_assert_null(xbzrle_cache_insert(cache, 2 * PAGE));
    /* no look-up has asked for the other for two passes */
    g_assert_true(xbzrle_cache_insert(cache, 3 * PAGE) == b);
    g_assert_null(xbzrle_cache_find(cache, PAGE));
    xbzrle_cache_free(cache);
    g_mutex_clear(&s.lock);
}

/* A page that begins with its number. */
static void put_page(XBZRLECache *cache, uint64_t n)
{
    uint8_t *page = xbzrle_cache_insert(cache, n * PAGE);

    g_assert_nonnull(page);
    memset(page, (int)n + 1, PAGE);
}

static bool has_page(XBZRLECache *cache, uint64_t n)
{
    const uint8_t *page = xbzrle_cache_find(cache, n * PAGE);

    g_assert_true(!page || (page[0] == n + 1 && page[PAGE - 1] == n + 1));
    return page;
}

static void test_another_size_keeps_what_fits(void)
{
    XBZRLECache *cache = xbzrle_cache_new(4 * PAGE, NULL);
    MigrationState s = {0};

    g_mutex_init(&s.lock);
    for (uint64_t n = 0; n < 4; n++) {
        put_page(cache, n);
    }
    xbzrle_cache_next_pass(cache, &s);
    g_assert_true(has_page(cache, 0) && has_page(cache, 3)); /* used since */
    xbzrle_cache_resize(cache, 16 * PAGE);
    g_assert_cmpuint(xbzrle_cache_bytes(cache), ==, 16 * PAGE);
    for (uint64_t n = 4; n < 16; n++) {
        g_assert_false(has_page(cache, n));
    }
    put_page(cache, 8);
    xbzrle_cache_resize(cache, 2 * PAGE + 1); /* two places: even and odd */
    g_assert_cmpuint(xbzrle_cache_bytes(cache), ==, 2 * PAGE);
    g_assert_true(has_page(cache, 0) != has_page(cache, 8));
    g_assert_true(has_page(cache, 3));
    g_assert_false(has_page(cache, 1) || has_page(cache, 2));
    xbzrle_cache_free(cache);
    g_mutex_clear(&s.lock);
}

static void test_a_size_that_is_too_large_changes_nothing(void)
{
    XBZRLECache *cache = xbzrle_cache_new(PAGE, NULL);

    put_page(cache, 5);
    xbzrle_cache_resize(cache, UINT64_C(1) << 63);
    xbzrle_cache_resize(cache, UINT64_C(1) << 63);
    g_assert_cmpuint(xbzrle_cache_bytes(cache), ==, PAGE);
    g_assert_true(has_page(cache, 5));
    xbzrle_cache_free(cache);
}

static void test_rates_of_a_pass(void)
{
    XBZRLECache *cache = xbzrle_cache_new(PAGE, NULL);
    MigrationState s = {0};

    g_mutex_init(&s.lock);
    s.counters.xbzrle_pages = 3;
    s.counters.xbzrle_bytes = 1024;
    s.counters.xbzrle_cache_miss = 1;
    xbzrle_cache_next_pass(cache, &s);
    g_assert_cmpfloat(s.counters.xbzrle_cache_miss_rate, ==, 0.25);
    g_assert_cmpfloat(s.counters.xbzrle_encoding_rate, ==, 12);
    s.counters.xbzrle_pages = 4;
    s.counters.xbzrle_bytes = 2048;
    xbzrle_cache_next_pass(cache, &s);
    g_assert_cmpfloat(s.counters.xbzrle_cache_miss_rate, ==, 0);
    g_assert_cmpfloat(s.counters.xbzrle_encoding_rate, ==, 4);
    xbzrle_cache_free(cache);
    g_mutex_clear(&s.lock);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/xbzrle/small-changes", test_small_changes);
    g_test_add_func("/xbzrle/random-changes", test_random_changes);
    g_test_add_func("/xbzrle/bounded", test_output_is_bounded);
    g_test_add_func("/xbzrle/captured", test_captured_delta);
    g_test_add_func("/xbzrle/malformed", test_malformed_deltas);
    g_test_add_func("/xbzrle/random-deltas", test_random_deltas);
    g_test_add_func("/xbzrle/cache", test_cache_keeps_what_is_used);
    g_test_add_func("/xbzrle/rates", test_rates_of_a_pass);
    g_test_add_func("/xbzrle/resize", test_another_size_keeps_what_fits);
    g_test_add_func("/xbzrle/too-large", test_a_size_that_is_too_large_changes_nothing);
    return g_test_run();
}
