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
    RAMRecv *recv_ram; /* where the channels put pages */
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

void multifd_recv_set_ram(MigrationIncomingState *mis, RAMRecv *ram)
{
    world.recv_ram = ram;
}

int multifd_recv_sync(MigrationIncomingState *mis, GError **errp)
{
    g_assert_nonnull(world.recv_ram);
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

static void test_log_is_cleared_before_pages_are_read(void)
{
    GRand *rand = g_rand_new_with_seed(SEED);
    RAMBlock *block = hw.block = make_block("ram", HW_PAGES * PAGE, 0), *twin;
    g_autoptr(GBytes) bytes = NULL;
    MemoryRegion mr;
    Source src;

    memory_region_init_ram_from_block(&mr, NULL, "ram", block);
    memory_region_add_subregion(get_system_memory(), 0, &mr);
    hw.listener = (MemoryListener){.name = "hw", .log_sync = hw_sync, .log_clear = hw_clear};
    memory_listener_register(&hw.listener, get_address_space_memory());
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
    memory_listener_unregister(&hw.listener);
    memory_region_del_subregion(get_system_memory(), &mr);
    twin = make_twin(block, 0);
    load_ok(bytes, NULL);
    assert_same(block, twin);
    memory_region_destroy(&mr);
    ram_block_free(block);
    ram_block_free(twin);
    g_rand_free(rand);
}

/* --- the wire --- */

static void put_name(GByteArray *out, const char *name)
{
    uint8_t len = (uint8_t)strlen(name);

    g_byte_array_append(out, &len, 1);
    g_byte_array_append(out, (const uint8_t *)name, len);
}

static void put_word(GByteArray *out, uint64_t word)
{
    uint8_t buf[8];

    stq_be_p(buf, word);
    g_byte_array_append(out, buf, 8);
}

static void put_filled(GByteArray *out, uint8_t value, size_t n)
{
    g_autofree uint8_t *buf = g_malloc(n);

    memset(buf, value, n);
    g_byte_array_append(out, buf, n);
}

static void test_records_on_the_wire(void)
{
    RAMBlock *a = make_block("a", 4 * PAGE, 0), *bb = make_block("bb", PAGE, 0);
    g_autoptr(GByteArray) want = g_byte_array_new();
    g_autoptr(GBytes) got = NULL;

    guest_fill(a, PAGE, 0xa1, 2 * PAGE);
    guest_fill(bb, 0, 0xb0, PAGE);
    got = save_all(NULL);
    put_word(want, 5 * PAGE | RAM_SAVE_FLAG_MEM_SIZE);
    put_name(want, "a");
    put_word(want, 4 * PAGE);
    put_name(want, "bb");
    put_word(want, PAGE);
    put_word(want, RAM_SAVE_FLAG_EOS);
    put_word(want, RAM_SAVE_FLAG_ZERO);
    put_name(want, "a");
    put_filled(want, 0, 1);
    put_word(want, PAGE | RAM_SAVE_FLAG_PAGE | RAM_SAVE_FLAG_CONTINUE);
    put_filled(want, 0xa1, PAGE);
    put_word(want, 2 * PAGE | RAM_SAVE_FLAG_PAGE | RAM_SAVE_FLAG_CONTINUE);
    put_filled(want, 0xa1, PAGE);
    put_word(want, 3 * PAGE | RAM_SAVE_FLAG_ZERO | RAM_SAVE_FLAG_CONTINUE);
    put_filled(want, 0, 1);
    put_word(want, RAM_SAVE_FLAG_PAGE);
    put_name(want, "bb");
    put_filled(want, 0xb0, PAGE);
    put_word(want, RAM_SAVE_FLAG_EOS);
    put_word(want, RAM_SAVE_FLAG_EOS);
    g_assert_cmpmem(g_bytes_get_data(got, NULL), g_bytes_get_size(got), want->data, want->len);
    ram_block_free(a);
    ram_block_free(bb);
}

/* --- channels: which pages they get, and where the barriers are --- */

static GBytes *save_to_channels(void (*change)(MigrationSettings *settings), GString **told)
{
    RAMBlock *block = make_block("ram", 8 * PAGE, 0);
    GBytes *bytes;
    Source src;

    g_string_truncate(world.channels, 0);
    fill_pages(block, 2, 3, 1);
    source_begin(&src, change);
    src.s.multifd = (MultiFDSend *)&src;
    source_setup(&src);
    g_assert_cmpint(source_iterate(&src), ==, 1);
    fill_pages(block, 3, 1, 2);
    bytes = source_end(&src);
    *told = world.channels;
    ram_block_free(block);
    return bytes;
}

static void assert_words(GBytes *bytes, size_t at, const uint64_t *words, size_t n)
{
    size_t size;
    const uint8_t *data = g_bytes_get_data(bytes, &size);

    g_assert_cmpuint(size, ==, at + n * 8);
    for (size_t i = 0; i < n; i++) {
        g_assert_cmphex(ldq_be_p(data + at + i * 8), ==, words[i]);
    }
}

/* Bytes of the list of the one block: the word, the name, the length. */
#define LIST_SIZE (8 + 4 + 8)

static void per_round(MigrationSettings *settings)
{
    settings->params.zero_page_detection = ZERO_PAGE_DETECTION_MULTIFD;
    settings->compat.multifd_flush_after_each_section = false;
}

static void test_channels_with_a_barrier_each_round(void)
{
    const uint64_t words[] = {
        RAM_SAVE_FLAG_MULTIFD_FLUSH, RAM_SAVE_FLAG_EOS,           /* START */
        RAM_SAVE_FLAG_EOS,                                        /* PART: the walk is at the end */
        RAM_SAVE_FLAG_MULTIFD_FLUSH, RAM_SAVE_FLAG_MULTIFD_FLUSH, /* END: round it goes, */
        RAM_SAVE_FLAG_EOS,                                        /* and after the last page */
    };
    g_autoptr(GBytes) bytes = NULL;
    GString *told;

    bytes = save_to_channels(per_round, &told);
    assert_words(bytes, LIST_SIZE, words, G_N_ELEMENTS(words));
    g_assert_cmpstr(told->str, ==,
                    "sync@20;ram 0+2 detect untouched;ram 2+3 detect;ram 5+3 detect untouched;"
                    "sync@44;ram 3+1 detect;sync@52;");
}

static void per_section(MigrationSettings *settings)
{
    settings->params.zero_page_detection = ZERO_PAGE_DETECTION_LEGACY;
    settings->compat.multifd_flush_after_each_section = true;
}

static void test_channels_with_a_barrier_each_section(void)
{
    g_autoptr(GBytes) bytes = NULL;
    GString *told;

    bytes = save_to_channels(per_section, &told);
    /* 5 zero pages, the first with the name, are on the main channel */
    g_assert_cmpuint(g_bytes_get_size(bytes), ==, LIST_SIZE + 3 * 8 + 5 * 9 + 4);
    g_assert_cmpstr(told->str, ==, "sync@20;ram 2+3;sync@77;ram 3+1;sync@85;");
}

/* --- hostile streams --- */

/* Eight pages of "ram" are at the destination; a resizable block may have two to eight. */
typedef struct Hostile {
    const char *what;
    const char *stream; /* hex, with x as "the rest of a page"; the list is not sent */
    const char *error;  /* part of it; NULL: loads */
} Hostile;

#define NAME "0372616d" /* "ram" */
#define EOS  "0000000000000010"

static const Hostile hostile[] = {
    {"a page", "0000000000001008" NAME "x" EOS, NULL},
    {"the last page", "0000000000007008" NAME "x" EOS, NULL},
    {"continued without a block", "0000000000001028x" EOS, "Ack, bad migration stream!"},
    {"behind the end", "0000000000008008" NAME "x" EOS, "Illegal RAM offset 8000"},
    {"far behind the end", "fffffffffffff008" NAME "x" EOS, "Illegal RAM offset fffffffffffff000"},
    {"zeroes behind the end", "0000000000008002" NAME "00" EOS, "Illegal RAM offset 8000"},
    {"unknown block", "0000000000001008037a7a7ax" EOS, "Can't find block zzz"},
    {"no name", "000000000000100800x" EOS, "Can't find block "},
    {"fill byte", "0000000000001002" NAME "55" EOS, "Found a zero page with value 85"},
    {"zero and page", "000000000000100a" NAME "x" EOS, "flags: 0xa"},
    {"compressed", "0000000000001100" NAME EOS, "flags: 0x100"},
    {"full", "0000000000000001" EOS, "flags: 0x1"},
    {"nothing", "0000000000000000" EOS, "flags: 0x0"},
    {"continued end", "0000000000000030", "flags: 0x30"},
    {"hook", "0000000000000080" EOS, NULL},
    {"flush without channels", "0000000000000200" EOS, NULL},
    {"delta",
     "0000000000001040" NAME "010004"
     "0302aabb" EOS,
     NULL},
    {"no delta", "0000000000001040" NAME "010000" EOS, NULL},
    {"other encoding", "0000000000001040" NAME "020000" EOS, "wrong compression"},
    {"malformed delta",
     "0000000000001040" NAME "010002"
     "0000" EOS,
     "decode error"},
    {"delta beyond the page",
     "0000000000001040" NAME "010005"
     "ff1f02aabb" EOS,
     "decode error"},
    {"long delta", "0000000000001040" NAME "011001" EOS, "len overflow"},
    {"unknown block listed", "000000000000100403666f6f0000000000001000" EOS,
     "Unknown ramblock \"foo\", cannot accept migration"},
    {"too large", "0000000000010004" NAME "0000000000010000" EOS,
     "Size mismatch: ram: 0x10000 != 0x8000"},
    {"more than the total", "0000000000001004" NAME "0000000000008000" EOS, "Invalid length"},
    {"no length", "0000000000008004" NAME "0000000000000000" EOS, "Invalid length"},
    {"no page", "0000000000008004" NAME "0000000000000800" EOS, "Invalid length"},
    {"resized",
     "0000000000003004"
     "03726573"
     "0000000000003000" EOS,
     NULL},
    {"resized too far",
     "0000000000009004"
     "03726573"
     "0000000000009000" EOS,
     "Size too large: res: 0x9000 > 0x8000"},
    {"resized, then used",
     "0000000000003004"
     "03726573"
     "0000000000003000"
     "0000000000002002"
     "03726573"
     "00" EOS,
     NULL},
    {"used, not resized",
     "0000000000002002"
     "03726573"
     "00" EOS,
     "Illegal RAM offset 2000"},
};

/* The hex of a table above as bytes. */
static GBytes *from_hex(const char *hex)
{
    g_autoptr(GByteArray) out = g_byte_array_new();

    for (; *hex; hex++) {
        if (*hex == 'x') {
            put_filled(out, 0xcc, PAGE);
        } else {
            uint8_t byte =
                (uint8_t)(g_ascii_xdigit_value(hex[0]) << 4 | g_ascii_xdigit_value(hex[1]));

            g_byte_array_append(out, &byte, 1);
            hex++;
        }
    }
    return g_byte_array_free_to_bytes(g_steal_pointer(&out));
}

static void test_hostile_records(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(hostile); i++) {
        RAMBlock *ram = make_block("ram", 8 * PAGE, 0);
        RAMBlock *res = make_block("res", 2 * PAGE, RAM_RESIZEABLE);
        g_autoptr(GBytes) bytes = from_hex(hostile[i].stream);
        g_autoptr(GError) err = NULL;
        int ret;

        g_test_message("%s", hostile[i].what);
        ret = load_all(bytes, NULL, &err);
        if (hostile[i].error) {
            g_assert_cmpint(ret, <, 0);
            g_assert_nonnull(err);
            g_test_message("%s", err->message);
            g_assert_nonnull(strstr(err->message, hostile[i].error));
        } else {
            g_assert_no_error(err);
            g_assert_cmpint(ret, ==, 0);
        }
        ram_block_free(ram);
        ram_block_free(res);
    }
}

static void test_version_is_checked(void)
{
    MigrationIncomingState mis = {.settings = changed_settings(NULL)};
    g_autoptr(GBytes) bytes = from_hex(EOS);
    g_autoptr(GError) err = NULL;
    QEMUFile *f = qemu_file_new_memory_input(bytes);
    RAMLoadState *rl = ram_load_new(&mis, &err);

    g_assert_cmpint(ram_load_section(rl, f, 3, &err), <, 0);
    g_assert_nonnull(strstr(err->message, "Version 3"));
    ram_load_free(rl);
    (void)!qemu_fclose(f);
    g_free(mis.settings);
}

/* Cut off anywhere, a stream is an error, whose text says so, and nothing else happens. */
static void test_truncated_anywhere(void)
{
    RAMBlock *block = make_block("ram", 5 * PAGE, 0), *twin;
    g_autoptr(GBytes) bytes = NULL;
    size_t size;
    Source src;

    fill_pages(block, 1, 3, 1);
    source_begin(&src, xbzrle);
    source_setup(&src);
    (void)source_iterate(&src);
    for (unsigned i = 0; i < 2; i++) {
        guest_fill(block, 2 * PAGE, (uint8_t)i, 5);
        ram_sync_dirty_log(src.rs, false);
        (void)source_iterate(&src);
    }
    guest_fill(block, 2 * PAGE, 7, 5);
    bytes = source_end(&src);
    g_assert_cmpuint(stat64_get(&src.s.counters.xbzrle_pages), >, 0);
    twin = make_twin(block, 0);
    size = g_bytes_get_size(bytes);
    for (size_t cut = 0; cut < size; cut++) {
        g_autoptr(GBytes) part = g_bytes_new_from_bytes(bytes, 0, cut);
        g_autoptr(GError) err = NULL;
        g_autofree MigrationSettings *settings = changed_settings(NULL);
        MigrationIncomingState mis = {.settings = settings};
        QEMUFile *f = qemu_file_new_memory_input(part);
        RAMLoadState *rl = ram_load_new(&mis, NULL);
        int ret = 0;

        while (ret == 0 && qemu_file_transferred(f) < size) {
            ret = ram_load_section(rl, f, RAM_SAVE_VERSION, &err);
        }
        g_assert_cmpint(ret, ==, -EIO);
        g_assert_nonnull(strstr(err->message, "Unexpected end"));
        ram_load_free(rl);
        (void)!qemu_fclose(f);
    }
    load_ok(bytes, NULL);
    assert_same(block, twin);
    ram_block_free(block);
    ram_block_free(twin);
}

/* --- memory that can't be written --- */

static void test_readonly_memory_is_compared(void)
{
    int fd = memfd_create("ro", MFD_CLOEXEC);
    RAMBlockOptions options = {.what = "rom", .size = 3 * PAGE, .flags = RAM_READONLY};
    static const char *const streams[] = {"0000000000001008"
                                          "03726f6d"
                                          "x" EOS,
                                          "0000000000002002"
                                          "03726f6d"
                                          "00" EOS,
                                          "0000000000002008"
                                          "03726f6d"
                                          "x" EOS,
                                          "0000000000001002"
                                          "03726f6d"
                                          "00" EOS,
                                          "0000000000001040"
                                          "03726f6d"
                                          "010004"
                                          "0302aabb" EOS};
    g_autofree uint8_t *page = g_malloc(PAGE);
    RAMBlock *block;

    memset(page, 0xcc, PAGE);
    g_assert_cmpint(ftruncate(fd, 3 * PAGE), ==, 0);
    g_assert_cmpint(pwrite(fd, page, PAGE, PAGE), ==, (ssize_t)PAGE);
    options.fd = fd;
    block = ram_block_new(&options, NULL);
    g_assert_true(ram_block_set_idstr(block, "rom", NULL));
    ram_block_set_migratable(block, true);
    for (unsigned i = 0; i < G_N_ELEMENTS(streams); i++) {
        g_autoptr(GBytes) bytes = from_hex(streams[i]);
        g_autoptr(GError) err = NULL;
        int ret = load_all(bytes, NULL, &err);

        if (i < 2) {
            g_assert_no_error(err);
            g_assert_cmpint(ret, ==, 0);
        } else {
            g_assert_cmpint(ret, <, 0);
            g_assert_nonnull(strstr(err->message, "read-only"));
        }
    }
    ram_block_free(block);
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
    g_test_add_func("/migration/ram/untouched", test_untouched_memory_stays_untouched);
    g_test_add_func("/migration/ram/hardware-log", test_log_is_cleared_before_pages_are_read);
    g_test_add_func("/migration/ram/records", test_records_on_the_wire);
    g_test_add_func("/migration/ram/channels/round", test_channels_with_a_barrier_each_round);
    g_test_add_func("/migration/ram/channels/section", test_channels_with_a_barrier_each_section);
    g_test_add_func("/migration/ram/hostile", test_hostile_records);
    g_test_add_func("/migration/ram/version", test_version_is_checked);
    g_test_add_func("/migration/ram/truncated", test_truncated_anywhere);
    g_test_add_func("/migration/ram/read-only", test_readonly_memory_is_compared);
    g_test_add_func("/migration/ram/resized", test_resized_block_ends_the_migration);
    g_test_add_func("/migration/ram/throttle", test_throttle_follows_the_guest);
    return g_test_run();
}
