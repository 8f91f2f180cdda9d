/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RAM in a migration: what is saved from some blocks is loaded into others of the same names, from
 * memory to memory; what a hostile stream can do; and that memory nobody has touched stays that way.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/address-space.h"
#include "memory/listener.h"
#include "memory/populated.h"
#include "migration/multifd.h"
#include "migration/ram-load.h"
#include "migration/ram-save.h"
#include "util/bswap.h"
#include "util/bufferiszero.h"
#include "util/error.h"
#include "util/units.h"

#define PAGE ((uint64_t)4096)
#define SEED 20260

/* --- the rest of the migration, as these tests want it --- */

static struct {
    unsigned runs_per_section; /* UINT_MAX: no limit */
    unsigned runs;
    GString *channels; /* what the channels were told: "run block first n detect;" and "sync;" */
    QEMUFile *f;       /* then the main channel's offset is told as well */
    unsigned recv_syncs;
} world;

bool migration_should_stop(MigrationState *s)
{
    return false;
}

bool migration_rate_exceeded(MigrationState *s)
{
    return ++world.runs >= world.runs_per_section;
}

uint64_t migration_transferred_bytes(MigrationState *s)
{
    return 0;
}

int multifd_send_run(MigrationState *s, const RAMRun *run, bool detect_zero)
{
    g_string_append_printf(world.channels, "%s %" PRIu64 "+%u%s%s;", run->sb->block->idstr,
                           run->first, run->n, detect_zero ? " detect" : "",
                           run->untouched ? " untouched" : "");
    return 0;
}

int multifd_send_sync(MigrationState *s)
{
    g_string_append_printf(world.channels, "sync@%" PRIu64 ";", qemu_file_transferred(world.f));
    return 0;
}

int multifd_recv_sync(MigrationIncomingState *mis, GError **errp)
{
    world.recv_syncs++;
    return 0;
}

/* --- blocks and both ends --- */

static RAMBlock *make_block(const char *name, uint64_t size, uint32_t flags)
{
    const RAMBlockOptions options = {.what = name,
                                     .size = size,
                                     .max_size = flags & RAM_RESIZEABLE ? 4 * size : 0,
                                     .flags = flags,
                                     .fd = -1,
                                     .no_hugepages = true};
    g_autoptr(GError) err = NULL;
    RAMBlock *block = ram_block_new(&options, &err);

    g_assert_no_error(err);
    g_assert_true(ram_block_set_idstr(block, name, &err));
    ram_block_set_migratable(block, true);
    return block;
}

static void guest_write(RAMBlock *block, uint64_t offset, const void *data, size_t size)
{
    memcpy(block->host + offset, data, size);
    ram_block_set_dirty(block, offset, size);
}

static void guest_fill(RAMBlock *block, uint64_t offset, uint8_t value, size_t size)
{
    memset(block->host + offset, value, size);
    ram_block_set_dirty(block, offset, size);
}

/* Bytes that differ from page to page. */
static void fill_pages(RAMBlock *block, uint64_t first, uint64_t n, uint32_t seed)
{
    for (uint64_t page = first; page < first + n; page++) {
        uint32_t *words = (uint32_t *)(block->host + page * PAGE);

        for (unsigned i = 0; i < PAGE / 4; i++) {
            words[i] = (uint32_t)(page * 2654435761u + i * 40503u + seed) | 1;
        }
        ram_block_set_dirty(block, page * PAGE, PAGE);
    }
}

typedef struct Source {
    MigrationState s;
    RAMSaveState *rs;
    QEMUFile *f;
} Source;

static MigrationSettings *changed_settings(void (*change)(MigrationSettings *settings))
{
    g_autoptr(MigrationSettings) present = migration_settings_get();
    MigrationSettings *settings = g_new0(MigrationSettings, 1);

    *settings = *present;
    settings->refcount = 1;
    if (change) {
        change(settings);
    }
    return settings;
}

static void source_begin(Source *src, void (*change)(MigrationSettings *settings))
{
    g_autoptr(GError) err = NULL;

    memset(src, 0, sizeof(*src));
    world.runs_per_section = UINT_MAX;
    world.runs = 0;
    g_mutex_init(&src->s.lock);
    src->s.settings = changed_settings(change);
    src->s.rate.window_limit = UINT64_MAX;
    src->f = world.f = qemu_file_new_memory_output(G_MAXINT);
    src->rs = ram_save_state_new(&src->s, &err);
    g_assert_no_error(err);
}

static void source_setup(Source *src)
{
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(ram_save_setup(src->rs, src->f, &err), ==, 0);
    g_assert_no_error(err);
}

static int source_iterate(Source *src)
{
    g_autoptr(GError) err = NULL;
    int ret;

    world.runs = 0;
    ret = ram_save_iterate(src->rs, src->f, &err);
    g_assert_no_error(err);
    g_assert_cmpint(ret, >=, 0);
    return ret;
}

static GBytes *source_end(Source *src)
{
    g_autoptr(GError) err = NULL;
    GBytes *bytes;

    g_assert_cmpint(ram_save_complete(src->rs, src->f, &err), ==, 0);
    g_assert_no_error(err);
    g_assert_cmpuint(src->rs->dirty_pages, ==, 0);
    g_assert_cmpuint(stat64_get(&src->s.counters.remaining_bytes), ==, 0);
    bytes = qemu_file_memory_steal(src->f);
    g_assert_nonnull(bytes);
    ram_save_state_free(src->rs);
    (void)!qemu_fclose(src->f);
    g_free(src->s.settings);
    g_mutex_clear(&src->s.lock);
    return bytes;
}

/* Everything in one stream, without changes meanwhile. */
static GBytes *save_all(void (*change)(MigrationSettings *settings))
{
    Source src;

    source_begin(&src, change);
    source_setup(&src);
    while (source_iterate(&src) == 0) {
    }
    return source_end(&src);
}

/* Loads section after section up to the end of the bytes. 0 or -errno. */
static int load_all(GBytes *bytes, void (*change)(MigrationSettings *settings), GError **errp)
{
    g_autofree MigrationSettings *settings = changed_settings(change);
    MigrationIncomingState mis = {.settings = settings};
    QEMUFile *f = qemu_file_new_memory_input(bytes);
    RAMLoadState *rl = ram_load_new(&mis, errp);
    int ret = rl ? 0 : -ENOMEM;

    while (ret == 0 && !qemu_file_at_end(f)) {
        ret = ram_load_section(rl, f, RAM_SAVE_VERSION, errp);
    }
    ram_load_free(rl);
    (void)!qemu_fclose(f);
    return ret;
}

static void load_ok(GBytes *bytes, void (*change)(MigrationSettings *settings))
{
    g_autoptr(GError) err = NULL;
    int ret = load_all(bytes, change, &err);

    g_assert_no_error(err);
    g_assert_cmpint(ret, ==, 0);
}

/* A block of the same name and size takes the other's place. */
static RAMBlock *make_twin(RAMBlock *block, uint32_t flags)
{
    ram_block_unset_idstr(block);
    return make_block(block->idstr, block->max_length, flags);
}

static void assert_same(const RAMBlock *a, const RAMBlock *b)
{
    uint64_t length = ram_block_used_length(a);

    g_assert_cmpuint(length, ==, ram_block_used_length(b));
    for (uint64_t at = 0; at < length; at += PAGE) {
        if (memcmp(a->host + at, b->host + at, PAGE)) {
            g_error("%s differs in the page at 0x%" PRIx64, a->idstr, at);
        }
    }
}

static uint64_t touched_pages(const RAMBlock *block)
{
    uint64_t pages = block->max_length / PAGE, n = 0;
    g_autofree uint64_t *map = g_new(uint64_t, pages / 64 + 1);

    g_assert_true(ram_block_populated(block, 0, block->max_length, map));
    for (uint64_t page = 0; page < pages; page++) {
        n += map[page / 64] >> page % 64 & 1;
    }
    return n;
}

/* --- round trips --- */

static void round_trip(uint32_t flags, void (*change)(MigrationSettings *settings))
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

static void xbzrle(MigrationSettings *settings)
{
    settings->caps[MIGRATION_CAPABILITY_XBZRLE] = true;
    settings->params.xbzrle_cache_size = 64 * PAGE;
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
static void random_passes(unsigned seed, void (*change)(MigrationSettings *settings))
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
    twins[1] = make_twin(blocks[1], 0);
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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    world.channels = g_string_new("");
    (void)get_address_space_memory();
    g_test_add_func("/migration/ram/round-trip", test_round_trip);
    g_test_add_func("/migration/ram/random-passes", test_random_passes);
    g_test_add_func("/migration/ram/under-writes", test_nothing_is_lost_under_writes);
    g_test_add_func("/migration/ram/untouched", test_untouched_memory_stays_untouched);
    return g_test_run();
}
