/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RAM in a migration: nothing is lost however the guest writes, and untouched memory stays
 * untouched.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/address-space.h"
#include "memory/listener.h"
#include "memory/populated.h"
#include "migration/ram-receive.h"
#include "tests/unit/migration-ram-world.h"
#include "util/bufferiszero.h"
#include "util/units.h"

/* --- round trips --- */

static void round_trip(uint32_t flags, ChangeSettings *change)
{
    RAMBlock *big = make_block("big", 700 * PAGE, flags), *small = make_block("small", PAGE, 0);
    RAMBlock *big2, *small2;
    g_autoptr(GBytes) bytes = NULL;

    fill_pages(big, 3, 1, 1);
    fill_pages(big, 100, 513, 2);
    guest_fill(big, 50 * PAGE, 0, PAGE);
    guest_fill(big, 699 * PAGE + PAGE - 1, 0xff, 1);
    fill_pages(small, 0, 1, 3);
    bytes = save_all(change);
    big2 = make_twin(big, flags);
    small2 = make_twin(small, 0);
    guest_fill(big2, 20 * PAGE, 0x55, 3 * PAGE);
    load_ok(bytes, change);
    assert_same(big, big2);
    assert_same(small, small2);
    ram_block_free(big);
    ram_block_free(small);
    ram_block_free(big2);
    ram_block_free(small2);
}

static void no_zero_detection(MigrationSettings *settings)
{
    settings->params.zero_page_detection = ZERO_PAGE_DETECTION_NONE;
}

static void legacy_zero_detection(MigrationSettings *settings)
{
    settings->params.zero_page_detection = ZERO_PAGE_DETECTION_LEGACY;
}

static void ignore_shared(MigrationSettings *settings)
{
    settings->caps[MIGRATION_CAPABILITY_X_IGNORE_SHARED] = true;
}

static void test_round_trip(void)
{
    round_trip(0, NULL);
    round_trip(RAM_SHARED, NULL);
    round_trip(0, no_zero_detection);
    round_trip(0, legacy_zero_detection);
    round_trip(0, xbzrle);
    round_trip(RAM_SHARED, ignore_shared);
}

/* Sections of random length, and writes of random places between them. */
static void random_passes(unsigned seed, ChangeSettings *change)
{
    GRand *rand = g_rand_new_with_seed(seed);
    RAMBlock *blocks[] = {make_block("a", 300 * PAGE, 0), make_block("b", 130 * PAGE, RAM_SHARED)};
    RAMBlock *twins[2];
    g_autoptr(GBytes) bytes = NULL;
    Source src;

    fill_pages(blocks[0], 0, 150, seed);
    source_begin(&src, change);
    source_setup(&src);
    for (unsigned section = 0; section < 60; section++) {
        world.runs_per_section = (unsigned)g_rand_int_range(rand, 1, 20);
        src.s.rate.window_limit = (uint64_t)g_rand_int_range(rand, 0, 64) * PAGE * 8;
        for (int writes = g_rand_int_range(rand, 0, 30); writes > 0; writes--) {
            RAMBlock *block = blocks[g_rand_int_range(rand, 0, 2)];
            uint32_t value = g_rand_boolean(rand) ? g_rand_int(rand) : 0;
            uint64_t size = block->max_length;

            guest_write(block, (uint64_t)g_rand_int_range(rand, 0, (int)(size - 4)), &value, 4);
            if (g_rand_int_range(rand, 0, 8) == 0) {
                guest_fill(block, (uint64_t)g_rand_int_range(rand, 0, (int)(size / PAGE)) * PAGE, 0,
                           PAGE);
            }
        }
        if (g_rand_int_range(rand, 0, 4) == 0) {
            ram_sync_dirty_log(src.rs, false);
        }
        (void)source_iterate(&src);
    }
    bytes = source_end(&src);
    twins[0] = make_twin(blocks[0], 0);
    twins[1] = make_twin(blocks[1], seed % 2 ? RAM_SHARED : 0);
    load_ok(bytes, NULL);
    for (unsigned i = 0; i < 2; i++) {
        assert_same(blocks[i], twins[i]);
        ram_block_free(blocks[i]);
        ram_block_free(twins[i]);
    }
    g_rand_free(rand);
}

static void test_random_passes(void)
{
    for (unsigned seed = SEED; seed < SEED + 20; seed++) {
        g_test_message("seed %u", seed);
        random_passes(seed, NULL);
        random_passes(seed, xbzrle);
        random_passes(seed, no_zero_detection);
    }
}

/* A guest that writes all the time, in a thread of its own. */
typedef struct Writer {
    RAMBlock *block;
    bool stop; /* atomic */
} Writer;

static gpointer write_all_the_time(gpointer opaque)
{
    Writer *w = opaque;
    GRand *rand = g_rand_new_with_seed(SEED);

    for (uint32_t n = 1; !__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE); n++) {
        uint32_t value = n % 5 ? n : 0;

        guest_write(w->block, (uint64_t)g_rand_int_range(rand, 0, 256) * PAGE, &value, 4);
    }
    g_rand_free(rand);
    return NULL;
}

static void test_nothing_is_lost_under_writes(void)
{
    Writer w = {.block = make_block("ram", 256 * PAGE, 0)};
    GThread *thread = g_thread_new("guest", write_all_the_time, &w);
    g_autoptr(GBytes) bytes = NULL;
    RAMBlock *twin;
    Source src;

    source_begin(&src, NULL);
    source_setup(&src);
    for (unsigned pass = 0; pass < 200; pass++) {
        world.runs_per_section = pass % 7 + 1;
        (void)source_iterate(&src);
        if (pass % 3 == 0) {
            ram_sync_dirty_log(src.rs, false);
        }
    }
    __atomic_store_n(&w.stop, true, __ATOMIC_RELEASE);
    g_thread_join(thread);
    bytes = source_end(&src);
    twin = make_twin(w.block, 0);
    load_ok(bytes, NULL);
    assert_same(w.block, twin);
    ram_block_free(w.block);
    ram_block_free(twin);
}

/* --- XBZRLE --- */

/* A page that was zero in between comes back whole, though the cache has seen its bytes before. */
static void test_zero_pages_are_in_the_cache(void)
{
    RAMBlock *block = make_block("ram", PAGE, 0), *twin;
    g_autoptr(GBytes) bytes = NULL;
    Source src;

    fill_pages(block, 0, 1, 1);
    source_begin(&src, xbzrle);
    source_setup(&src);
    (void)source_iterate(&src);
    for (unsigned i = 0; i < 2; i++) {
        fill_pages(block, 0, 1, 1);
        ram_sync_dirty_log(src.rs, false);
        (void)source_iterate(&src);
    }
    guest_fill(block, 0, 0, PAGE);
    ram_sync_dirty_log(src.rs, false);
    (void)source_iterate(&src);
    fill_pages(block, 0, 1, 1);
    bytes = source_end(&src);
    twin = make_twin(block, 0);
    load_ok(bytes, NULL);
    assert_same(block, twin);
    ram_block_free(block);
    ram_block_free(twin);
}

/* --- memory that is a file --- */

static void check_put(RAMRecvBlock *rb, uint64_t page, uint64_t n, uint8_t value)
{
    g_autofree uint8_t *data = g_malloc(n * PAGE), *got = g_malloc(n * PAGE);
    g_autoptr(GError) err = NULL;

    memset(data, value, n * PAGE);
    g_assert_true(ram_recv_put(rb, page, n, data, &err));
    g_assert_no_error(err);
    g_assert_cmpmem(rb->block->host + page * PAGE, n * PAGE, data, n * PAGE);
    g_assert_cmpint(
        pread(rb->block->fd, got, n * PAGE, (off_t)(rb->block->fd_offset + page * PAGE)), ==,
        (ssize_t)(n * PAGE));
    g_assert_cmpmem(got, n * PAGE, data, n * PAGE);
    g_assert_cmpuint(ram_recv_fresh(rb, page, n), ==, 0);
}

/* One that may not be written to any more, though its mapping may, takes pages all the same. */
static void test_pages_are_put_into_files(void)
{
    int fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    RAMBlockOptions options = {
        .what = "ram", .size = 8 * PAGE, .flags = RAM_SHARED, .fd = fd, .fd_offset = 3 * PAGE};
    g_autofree MigrationSettings *settings = changed_settings(NULL);
    g_autoptr(GError) err = NULL;
    RAMRecvBlock *rb;
    RAMBlock *block;
    RAMRecv *recv;

    g_assert_cmpint(ftruncate(fd, 11 * PAGE), ==, 0);
    block = ram_block_new(&options, &err);
    g_assert_no_error(err);
    g_assert_true(ram_block_set_idstr(block, "ram", NULL));
    ram_block_set_migratable(block, true);
    recv = ram_recv_new(settings, &err);
    g_assert_no_error(err);
    rb = ram_recv_find(recv, "ram", &err);
    g_assert_no_error(err);
    rb->by_write = true; /* whatever the system does with huge pages */
    check_put(rb, 0, 1, 0x11);
    check_put(rb, 2, 3, 0x22);
    g_assert_true(ram_recv_is_by_write(rb));
    g_assert_cmpuint(touched_pages(block), ==, 4);
    g_assert_cmpint(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), ==, 0);
    check_put(rb, 3, 5, 0x33);
    g_assert_false(ram_recv_is_by_write(rb));
    check_put(rb, 0, 1, 0x44);
    ram_recv_free(recv);
    ram_block_free(block);
}

/* --- zero pages --- */

/* Memory is what the stream says, whatever wrote to it after the load began. */
static void zero_pages_land(uint32_t flags)
{
    g_autoptr(MigrationSettings) settings = migration_settings_get();
    RAMBlock *block = make_block("ram", 256 * PAGE, flags);
    g_autofree uint8_t *ones = g_malloc(4096);
    RAMRecv *recv = ram_recv_new(settings, NULL);
    RAMRecvBlock *rb = ram_recv_find(recv, "ram", NULL);

    memset(ones, 1, 4096);
    block->host[3 * 4096 + 7] = 0xff; /* before its zero page comes */
    g_assert_true(ram_recv_zero(rb, 0, 200, NULL));
    block->host[9 * 4096] = 0xff;                       /* after it */
    g_assert_true(ram_recv_put(rb, 10, 1, ones, NULL)); /* it is another page's bytes by now */
    g_assert_true(ram_recv_zero(rb, 0, 8, NULL));
    g_assert_true(ram_recv_settle(recv, NULL));
    for (unsigned page = 0; page < 200; page++) {
        if (page == 10) {
            g_assert_cmpmem(block->host + 10 * 4096, 4096, ones, 4096);
        } else {
            g_assert_true(buffer_is_zero(block->host + page * 4096, 4096));
        }
    }
    ram_recv_free(recv);
    ram_block_free(block);
}

static void test_a_zero_page_lands_where_memory_was_written_meanwhile(void)
{
    zero_pages_land(0);
    zero_pages_land(RAM_SHARED);
}

/* --- another place for pages --- */

enum { CACHED = 64, HOST_PAGE = 4 };

/* Keeps pages, as a second guest's cache will, and counts calls, as a kernel that wakes a guest will. */
typedef struct Cache {
    uint8_t *bytes;
    uint64_t unit; /* pages: calls are whole multiples */
    unsigned calls, zero_calls;
} Cache;

static bool cache_page(void *opaque, RAMRecvBlock *rb, uint64_t page, uint64_t n, const void *data,
                       GError **errp)
{
    Cache *cache = opaque;

    g_assert_cmpuint(page % cache->unit, ==, 0);
    g_assert_cmpuint(n % cache->unit, ==, 0);
    cache->calls++;
    if (data) {
        memcpy(cache->bytes + page * PAGE, data, n * PAGE);
    } else {
        cache->zero_calls++;
        memset(cache->bytes + page * PAGE, 0, n * PAGE);
    }
    return true;
}

/* Pages 0 to 9 and 33 hold data: host pages that are full, mixed and empty. */
static void load_into_cache(ChangeSettings *change, bool whole_host_pages, Cache *cache)
{
    RAMBlock *block = make_block("ram", CACHED * PAGE, 0), *twin;
    const RAMPlace place = {
        .func = cache_page, .opaque = cache, .whole_host_pages = whole_host_pages};
    g_autoptr(GBytes) bytes = NULL;

    fill_pages(block, 0, 10, 1);
    fill_pages(block, 33, 1, 2);
    bytes = save_all(change);
    twin = make_twin(block, 0);
    twin->page_size = HOST_PAGE * PAGE;
    cache->bytes = g_malloc(CACHED * PAGE);
    memset(cache->bytes, 0xee, CACHED * PAGE);
    cache->unit = whole_host_pages ? HOST_PAGE : 1;
    world.place = &place;
    load_ok(bytes, change);
    world.place = NULL;
    g_assert_cmpmem(cache->bytes, CACHED * PAGE, block->host, CACHED * PAGE);
    g_assert_cmpuint(touched_pages(twin), ==, 0);
    g_free(cache->bytes);
    ram_block_free(block);
    ram_block_free(twin);
}

static void test_pages_go_to_the_place_that_is_set(void)
{
    Cache cache = {0};

    load_into_cache(NULL, false, &cache);
    g_assert_cmpuint(cache.zero_calls, >, 0);
    g_assert_cmpuint(cache.calls, >, cache.zero_calls);
}

static void test_a_host_page_is_placed_whole_and_once(void)
{
    Cache cache = {0};

    load_into_cache(NULL, true, &cache);
    g_assert_cmpuint(cache.calls, <=, CACHED / HOST_PAGE);
    g_assert_cmpuint(cache.zero_calls, >, 0);
}

static void test_a_host_page_in_disorder_is_refused(void)
{
    g_autoptr(MigrationSettings) settings = migration_settings_get();
    RAMBlock *block = make_block("ram", CACHED * PAGE, 0);
    g_autofree uint8_t *data = g_malloc0(CACHED * PAGE), *bytes = g_malloc0(CACHED * PAGE);
    Cache cache = {.bytes = bytes, .unit = HOST_PAGE};
    const RAMPlace place = {.func = cache_page, .opaque = &cache, .whole_host_pages = true};
    RAMRecv *recv = ram_recv_new(settings, NULL);
    RAMRecvBlock *rb = ram_recv_find(recv, "ram", NULL);
    GError *err = NULL;

    block->page_size = HOST_PAGE * PAGE;
    ram_recv_set_place(recv, &place);
    g_assert_false(ram_recv_put(rb, 1, 1, data, &err)); /* not its beginning */
    g_assert_nonnull(strstr(err->message, "0x1000 comes before the rest of a host page"));
    g_clear_error(&err);
    g_assert_true(ram_recv_put(rb, 0, 10, data, NULL));
    g_assert_cmpuint(cache.calls, ==, 1);
    g_assert_false(ram_recv_zero(rb, 12, 4, &err)); /* 8 and 9 have come, 10 and 11 are missing */
    g_clear_error(&err);
    g_assert_false(ram_recv_settle(recv, &err));
    g_assert_nonnull(strstr(err->message, "0x8000 is not whole"));
    g_clear_error(&err);
    g_assert_true(ram_recv_zero(rb, 10, 6, NULL));
    g_assert_true(ram_recv_settle(recv, NULL));
    ram_recv_free(recv);
    ram_block_free(block);
}

/* --- untouched memory --- */

static void untouched(uint32_t flags)
{
    const uint64_t size = 1 * GiB;
    RAMBlock *block = make_block("ram", size, flags), *twin;
    g_autoptr(GBytes) bytes = NULL;

    fill_pages(block, 1000, 256, 1);
    bytes = save_all(NULL);
    g_assert_cmpuint(touched_pages(block), ==, 256);
    twin = make_twin(block, flags);
    load_ok(bytes, NULL);
    g_assert_cmpuint(touched_pages(twin), >=, 256);
    /* some more are made zero again where the reader guessed what would come */
    g_assert_cmpuint(touched_pages(twin), <=, 256 + 128);
    g_assert_cmpmem(block->host + 1000 * PAGE, 256 * PAGE, twin->host + 1000 * PAGE, 256 * PAGE);
    ram_block_free(block);
    ram_block_free(twin);
}

static void test_untouched_memory_stays_untouched(void)
{
    untouched(0);
    untouched(RAM_SHARED);
}

/* --- a log as KVM keeps it: in the hardware, told at a sync, forgotten when it is cleared --- */

#define HW_PAGES 256

static struct {
    MemoryListener listener;
    RAMBlock *block;
    uint64_t written[HW_PAGES / 64]; /* what the hardware noted */
    uint64_t told[HW_PAGES / 64];    /* what the last sync told */
    unsigned clears;
} hw;

static void hw_write(uint64_t page, uint8_t value)
{
    hw.block->host[page * PAGE + value % PAGE] = value;
    hw.written[page / 64] |= UINT64_C(1) << page % 64;
}

static void hw_sync(MemoryListener *listener, const MemoryRegionSection *section)
{
    memcpy(hw.told, hw.written, sizeof(hw.told));
    ram_block_set_dirty_bitmap(hw.block, 0, hw.told, HW_PAGES);
}

static void hw_clear(MemoryListener *listener, const MemoryRegionSection *section)
{
    uint64_t first = section->offset_within_region / PAGE, n = section->size / PAGE;

    hw.clears++;
    for (uint64_t page = first; page < first + n; page++) {
        uint64_t bit = UINT64_C(1) << page % 64;

        if (hw.told[page / 64] & bit) {
            hw.written[page / 64] &= ~bit;
            hw.told[page / 64] &= ~bit;
        }
    }
}

static void small_chunks(MigrationSettings *settings)
{
    settings->compat.clear_bitmap_shift = 6;
}

/* The block is the guest's memory, and the test its hardware. */
static void hw_begin(MemoryRegion *mr, RAMBlock *block)
{
    memory_region_init_ram_from_block(mr, NULL, "ram", block);
    memory_region_add_subregion(get_system_memory(), 0, mr);
    hw.listener = (MemoryListener){.name = "hw", .log_sync = hw_sync, .log_clear = hw_clear};
    memory_listener_register(&hw.listener, get_address_space_memory());
}

/* The stream gives another block the same contents. Frees the block. */
static void hw_end(MemoryRegion *mr, RAMBlock *block, GBytes *bytes)
{
    RAMBlock *twin;

    memory_listener_unregister(&hw.listener);
    memory_region_del_subregion(get_system_memory(), mr);
    twin = make_twin(block, 0);
    load_ok(bytes, NULL);
    assert_same(block, twin);
    memory_region_destroy(mr);
    ram_block_free(block);
    ram_block_free(twin);
}

static void test_log_is_cleared_before_pages_are_read(void)
{
    GRand *rand = g_rand_new_with_seed(SEED);
    RAMBlock *block = hw.block = make_block("ram", HW_PAGES * PAGE, 0);
    g_autoptr(GBytes) bytes = NULL;
    MemoryRegion mr;
    Source src;

    hw_begin(&mr, block);
    source_begin(&src, small_chunks);
    source_setup(&src);
    for (unsigned section = 0; section < 300; section++) {
        for (int writes = g_rand_int_range(rand, 0, 10); writes > 0; writes--) {
            hw_write((uint64_t)g_rand_int_range(rand, 0, HW_PAGES), (uint8_t)g_rand_int(rand));
        }
        if (g_rand_int_range(rand, 0, 5) == 0) {
            ram_sync_dirty_log(src.rs, false);
        }
        world.runs_per_section = (unsigned)g_rand_int_range(rand, 1, 5);
        (void)source_iterate(&src);
    }
    bytes = source_end(&src);
    g_assert_cmpuint(hw.clears, >, 4);
    hw_end(&mr, block, bytes);
    g_rand_free(rand);
}

/*
 * A log that begins with every bit set (KVM can) does not say what was written before a chunk was
 * cleared. Untouched pages are not read, and a write between the start and the clear is sent.
 */
static void test_untouched_pages_are_not_read_under_a_log_that_begins_full(void)
{
    RAMBlock *block = hw.block = make_block("ram", HW_PAGES * PAGE, 0);
    g_autoptr(GBytes) bytes = NULL;
    MemoryRegion mr;
    Source src;

    memset(hw.written, 0xff, sizeof(hw.written));
    hw_begin(&mr, block);
    hw_write(3, 3);
    source_begin(&src, small_chunks);
    source_setup(&src);
    hw_write(200, 7);
    while (source_iterate(&src) == 0) {
    }
    /* Here also a page counts that was read but never written. */
    ram_block_populated_disable_scan(true);
    g_assert_cmpuint(touched_pages(block), ==, 2);
    ram_block_populated_disable_scan(false);
    bytes = source_end(&src);
    hw_end(&mr, block, bytes);
}

/* --- sizes --- */

static void test_resized_block_ends_the_migration(void)
{
    RAMBlock *block = make_block("ram", 2 * PAGE, RAM_RESIZEABLE);
    g_autoptr(GError) err = NULL;
    Source src;

    source_begin(&src, NULL);
    source_setup(&src);
    g_assert_true(ram_block_resize(block, 3 * PAGE, NULL));
    g_assert_cmpint(ram_save_iterate(src.rs, src.f, &err), <, 0);
    g_assert_nonnull(strstr(err->message, "'ram' was resized"));
    g_assert_true(ram_block_resize(block, 2 * PAGE, NULL));
    g_bytes_unref(source_end(&src));
    ram_block_free(block);
}

/* --- auto-converge --- */

static void test_throttle_follows_the_guest(void)
{
    const MigrationThrottle t = {
        .trigger_threshold = 50, .initial = 20, .increment = 10, .max = 45};
    const AutoConvergePeriod slow = {.dirty_bytes = 50, .sent_bytes = 100};
    const AutoConvergePeriod fast = {.dirty_bytes = 51, .sent_bytes = 100};
    MigrationThrottle tail = t;
    AutoConverge ac = {0};

    g_assert_cmpuint(auto_converge_decide(&ac, &t, &fast), ==, 0);
    g_assert_cmpuint(auto_converge_decide(&ac, &t, &slow), ==, 0);
    g_assert_cmpuint(auto_converge_decide(&ac, &t, &fast), ==, 0);
    g_assert_cmpuint(auto_converge_decide(&ac, &t, &fast), ==, 20);
    ac.percent = 20;
    tail.tailslow = true;
    (void)auto_converge_decide(&ac, &t, &fast);
    g_assert_cmpuint(auto_converge_decide(&ac, &tail, &fast), ==, 22);
    (void)auto_converge_decide(&ac, &t, &fast);
    g_assert_cmpuint(auto_converge_decide(&ac, &t, &fast), ==, 30);
    ac.percent = 40;
    (void)auto_converge_decide(&ac, &t, &fast);
    g_assert_cmpuint(auto_converge_decide(&ac, &t, &fast), ==, 45);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    world.channels = g_string_new("");
    (void)get_address_space_memory();
    g_test_add_func("/migration/ram/round-trip", test_round_trip);
    g_test_add_func("/migration/ram/random-passes", test_random_passes);
    g_test_add_func("/migration/ram/under-writes", test_nothing_is_lost_under_writes);
    g_test_add_func("/migration/ram/xbzrle-zero", test_zero_pages_are_in_the_cache);
    g_test_add_func("/migration/ram/into-files", test_pages_are_put_into_files);
    g_test_add_func("/migration/ram/zero-pages-land",
                    test_a_zero_page_lands_where_memory_was_written_meanwhile);
    g_test_add_func("/migration/ram/place", test_pages_go_to_the_place_that_is_set);
    g_test_add_func("/migration/ram/place/host-pages", test_a_host_page_is_placed_whole_and_once);
    g_test_add_func("/migration/ram/place/disorder", test_a_host_page_in_disorder_is_refused);
    g_test_add_func("/migration/ram/untouched", test_untouched_memory_stays_untouched);
    g_test_add_func("/migration/ram/hardware-log", test_log_is_cleared_before_pages_are_read);
    g_test_add_func("/migration/ram/log-begins-full",
                    test_untouched_pages_are_not_read_under_a_log_that_begins_full);
    g_test_add_func("/migration/ram/resized", test_resized_block_ends_the_migration);
    g_test_add_func("/migration/ram/throttle", test_throttle_follows_the_guest);
    return g_test_run();
}
