/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RAM blocks, their dirty bitmaps, and which of their pages were never touched. */
#include "memory/ram-block.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "memory/populated.h"
#include "util/units.h"

#define PAGE ((uint64_t)4096)
#define SEED 4711

static RAMBlock *make(const char *name, uint64_t size, uint32_t flags)
{
    const RAMBlockOptions options = {
        .what = name, .size = size, .flags = flags, .fd = -1, .no_hugepages = true};
    g_autoptr(GError) err = NULL;
    RAMBlock *block = ram_block_new(&options, &err);

    g_assert_no_error(err);
    if (*name) {
        g_assert_true(ram_block_set_idstr(block, name, &err));
        ram_block_set_migratable(block, true);
    }
    return block;
}

/* --- the list --- */

static void test_list_is_sorted_by_size_then_age(void)
{
    RAMBlock *blocks[] = {make("small", PAGE, 0), make("big", 64 * PAGE, 0),
                          make("small2", PAGE, 0), make("", 64 * PAGE, 0)};
    static const char *const order[] = {"big", "", "small", "small2"};
    g_autoptr(RAMBlockList) list = ram_block_list_get();

    g_assert_cmpuint(list->n, ==, 4);
    for (unsigned i = 0; i < 4; i++) {
        g_assert_cmpstr(list->blocks[i]->idstr, ==, order[i]);
    }
    g_assert_true(ram_block_list_find(list, "small2") == blocks[2]);
    g_assert_null(ram_block_list_find(list, "none"));
    g_assert_null(ram_block_list_find(list, ""));
    g_assert_cmpuint(ram_block_bytes_total(), ==, 66 * PAGE);
    for (unsigned i = 0; i < 4; i++) {
        ram_block_free(blocks[i]);
    }
}

static void test_names_are_unique_and_bounded(void)
{
    RAMBlock *a = make("a", PAGE, 0), *b = make("", PAGE, 0);
    g_autofree char *longest = g_strnfill(RAM_BLOCK_NAME_MAX, 'x');
    g_autofree char *longer = g_strnfill(RAM_BLOCK_NAME_MAX + 1, 'x');
    g_autoptr(GError) err = NULL;

    g_assert_false(ram_block_is_migratable(b));
    g_assert_false(ram_block_set_idstr(b, "a", &err));
    g_assert_nonnull(strstr(err->message, "already"));
    g_clear_error(&err);
    g_assert_false(ram_block_set_idstr(b, longer, &err));
    g_clear_error(&err);
    g_assert_false(ram_block_set_idstr(b, "", &err));
    g_assert_true(ram_block_set_idstr(b, longest, NULL));
    ram_block_unset_idstr(a);
    g_assert_null(ram_block_by_name("a"));
    ram_block_free(a);
    ram_block_free(b);
}

static void test_old_lists_and_lookups_keep_blocks_alive(void)
{
    RAMBlock *block = make("a", PAGE, 0);
    RAMBlockList *list = ram_block_list_get();
    uint64_t generation = list->generation, offset;
    RAMBlock *found = ram_block_from_host(block->host + 17, &offset);

    g_assert_true(found == block);
    g_assert_cmpuint(offset, ==, 17);
    g_assert_null(ram_block_from_host(&generation, &offset));
    ram_block_free(block);
    g_assert_cmpuint(ram_block_list_generation(), >, generation);
    g_assert_null(ram_block_by_name("a"));
    list->blocks[0]->host[5] = 1;
    ram_block_list_unref(list);
    g_assert_true(ram_block_from_mapping(found->host + 5, &offset) == found);
    ram_block_unref(found);
    g_assert_cmpuint(found->host[offset], ==, 1);
    ram_block_unref(found);
}

static void test_ram_addresses_are_disjoint_and_reused(void)
{
    GRand *rand = g_rand_new_with_seed(SEED);
    RAMBlock *blocks[12] = {0};

    for (unsigned step = 0; step < 300; step++) {
        unsigned i = (unsigned)g_rand_int_range(rand, 0, G_N_ELEMENTS(blocks));

        if (blocks[i]) {
            ram_block_free(blocks[i]);
            blocks[i] = NULL;
        } else {
            blocks[i] = make("", PAGE * (uint64_t)g_rand_int_range(rand, 1, 300), 0);
        }
        for (unsigned a = 0; a < G_N_ELEMENTS(blocks); a++) {
            uint64_t at;

            if (!blocks[a]) {
                continue;
            }
            RAMBlock *found = ram_block_from_ram_addr(blocks[a]->offset + PAGE - 1, &at);

            g_assert_true(found == blocks[a]);
            g_assert_cmpuint(at, ==, PAGE - 1);
            ram_block_unref(found);
            g_assert_cmpuint(blocks[a]->offset + blocks[a]->max_length, <, 64 * MiB);
            for (unsigned b = 0; b < a; b++) {
                g_assert_true(!blocks[b] ||
                              blocks[a]->offset >= blocks[b]->offset + blocks[b]->max_length ||
                              blocks[b]->offset >= blocks[a]->offset + blocks[a]->max_length);
            }
        }
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(blocks); i++) {
        ram_block_free(blocks[i]);
    }
    g_rand_free(rand);
}

static void test_allocation_failure_names_size_and_cause(void)
{
    const RAMBlockOptions huge = {.what = "x", .size = UINT64_C(1) << 60, .fd = -1};
    const RAMBlockOptions none = {.what = "x", .size = 0, .fd = -1};
    const RAMBlockOptions overflow = {.what = "x", .size = UINT64_MAX, .fd = -1};
    g_autoptr(GError) err = NULL;

    g_assert_null(ram_block_new(&huge, &err));
    g_assert_cmpstr(err->message, ==,
                    "cannot set up guest memory 'x' of 1 EiB: Cannot allocate memory");
    g_clear_error(&err);
    g_assert_null(ram_block_new(&none, &err));
    g_clear_error(&err);
    g_assert_null(ram_block_new(&overflow, &err));
}

/* --- size and content --- */

static void count_resize(void *opaque, RAMBlock *block, uint64_t old_length)
{
    uint64_t *expected = opaque;

    g_assert_cmpuint(old_length, ==, expected[0]);
    g_assert_cmpuint(ram_block_used_length(block), ==, expected[1]);
    expected[0] = 0;
}

static void test_resize_keeps_what_stays_and_zeroes_what_goes(void)
{
    const RAMBlockOptions options = {
        .what = "r", .size = 3 * PAGE, .max_size = 8 * PAGE, .flags = RAM_RESIZEABLE, .fd = -1};
    g_autoptr(GError) err = NULL;
    RAMBlock *block = ram_block_new(&options, &err);
    uint64_t expected[] = {3 * PAGE, 8 * PAGE};

    ram_block_set_resized(block, count_resize, expected);
    g_assert_true(ram_block_resize(block, 8 * PAGE, NULL));
    g_assert_cmpuint(expected[0], ==, 0);
    ram_block_set_resized(block, NULL, NULL);
    memset(block->host, 7, 8 * PAGE);
    g_assert_true(ram_block_resize(block, 2 * PAGE - 1, NULL));
    g_assert_cmpuint(ram_block_used_length(block), ==, 2 * PAGE);
    g_assert_cmpuint(block->host[2 * PAGE - 1], ==, 7);
    g_assert_cmpuint(block->host[2 * PAGE], ==, 0);
    g_assert_cmpuint(block->host[8 * PAGE - 1], ==, 0);
    g_assert_false(ram_block_resize(block, 8 * PAGE + 1, &err));
    g_clear_error(&err);
    g_assert_false(ram_block_resize(block, 0, &err));
    ram_block_free(block);

    block = make("fixed", 2 * PAGE, 0);
    g_clear_error(&err);
    g_assert_true(ram_block_resize(block, 2 * PAGE, &err));
    g_assert_false(ram_block_resize(block, PAGE, &err));
    g_assert_nonnull(strstr(err->message, "Size"));
    ram_block_free(block);
}

static void test_discard_makes_zeroes(void)
{
    for (unsigned shared = 0; shared < 2; shared++) {
        RAMBlock *block = make("d", 8 * PAGE, shared ? RAM_SHARED : 0);
        uint64_t map;

        memset(block->host, 9, 8 * PAGE);
        g_assert_cmpint(ram_block_discard(block, 2 * PAGE, 3 * PAGE), ==, 0);
        g_assert_cmpuint(block->host[2 * PAGE - 1], ==, 9);
        g_assert_cmpuint(block->host[5 * PAGE], ==, 9);
        g_assert_true(ram_block_populated(block, 0, 8 * PAGE, &map));
        g_assert_cmphex(map, ==, 0xe3);
        g_assert_cmpuint(block->host[2 * PAGE], ==, 0);
        g_assert_cmpint(ram_block_discard(block, 1, PAGE), ==, -EINVAL);
        g_assert_cmpint(ram_block_discard(block, 0, 9 * PAGE), ==, -EINVAL);
        g_assert_cmpint(ram_block_discard(block, PAGE, UINT64_MAX - PAGE + 1), ==, -EINVAL);
        ram_block_free(block);
    }
}

/* --- dirty bitmaps --- */

#define PAGES 200

static uint64_t dest[(PAGES + 63) / 64];

static bool dest_has(unsigned page)
{
    return dest[page / 64] >> (page % 64) & 1;
}

static void test_nothing_is_marked_while_no_client_logs(void)
{
    RAMBlock *block = make("b", PAGES * PAGE, 0);

    ram_block_set_dirty(block, 0, PAGES * PAGE);
    g_assert_null(block->dirty[DIRTY_MEMORY_MIGRATION]);
    ram_block_log_start(block, DIRTY_MEMORY_MIGRATION);
    g_assert_true(ram_block_is_logged(block, DIRTY_MEMORY_MIGRATION));
    g_assert_false(ram_block_get_dirty(block, DIRTY_MEMORY_MIGRATION, 0, PAGES * PAGE));
    ram_block_set_dirty(block, 5 * PAGE, 1);
    ram_block_log_stop(block, DIRTY_MEMORY_MIGRATION);
    /* A second start sees only the writes after it. */
    ram_block_log_start(block, DIRTY_MEMORY_MIGRATION);
    g_assert_false(ram_block_get_dirty(block, DIRTY_MEMORY_MIGRATION, 0, PAGES * PAGE));
    ram_block_log_stop(block, DIRTY_MEMORY_MIGRATION);
    ram_block_free(block);
}

static void test_blocks_that_come_while_all_are_logged_are_logged(void)
{
    RAMBlock *before = make("before", PAGE, 0), *after;
    const unsigned clients = 1u << DIRTY_MEMORY_MIGRATION | 1u << DIRTY_MEMORY_RATE;

    ram_dirty_log_start_all(clients);
    ram_dirty_log_start_all(1u << DIRTY_MEMORY_RATE);
    after = make("after", PAGE, 0);
    g_assert_true(ram_block_is_logged(before, DIRTY_MEMORY_MIGRATION));
    g_assert_true(ram_block_is_logged(after, DIRTY_MEMORY_MIGRATION));
    g_assert_false(ram_block_is_logged(after, DIRTY_MEMORY_VGA));
    ram_dirty_log_stop_all(clients);
    g_assert_false(ram_block_is_logged(after, DIRTY_MEMORY_MIGRATION));
    g_assert_true(ram_block_is_logged(after, DIRTY_MEMORY_RATE));
    ram_dirty_log_stop_all(1u << DIRTY_MEMORY_RATE);
    g_assert_false(ram_block_is_logged(before, DIRTY_MEMORY_RATE));
    ram_block_free(before);
    ram_block_free(after);
}

/* Random marks and syncs against an array of flags. */
static void test_sync_moves_exactly_the_marked_pages(void)
{
    GRand *rand = g_rand_new_with_seed(SEED);
    RAMBlock *block = make("b", PAGES * PAGE, 0);
    bool marked[PAGES] = {0}, moved[PAGES] = {0};

    ram_block_log_start(block, DIRTY_MEMORY_MIGRATION);
    ram_block_log_start(block, DIRTY_MEMORY_VGA);
    memset(dest, 0, sizeof(dest));
    for (unsigned step = 0; step < 3000; step++) {
        unsigned start = (unsigned)g_rand_int_range(rand, 0, PAGES + 20);
        unsigned n = (unsigned)g_rand_int_range(rand, 0, 140), fresh = 0;

        if (step % 3 == 0) {
            uint64_t bits[3] = {0};

            start = MIN(start, PAGES);
            for (unsigned i = 0; i < MIN(n, 140); i++) {
                if (g_rand_boolean(rand)) {
                    bits[i / 64] |= UINT64_C(1) << (i % 64);
                    if (start + i < PAGES) {
                        marked[start + i] = true;
                    }
                }
            }
            ram_block_set_dirty_bitmap(block, start * PAGE, bits, n);
        } else if (step % 3 == 1) {
            /* Bytes that begin and end inside pages. */
            ram_block_set_dirty(block, start * PAGE + 9, n ? n * PAGE - 10 : 0);
            for (unsigned i = start; i < MIN(start + n, PAGES); i++) {
                marked[i] = true;
            }
        } else {
            for (unsigned i = start; i < MIN(start + n, PAGES); i++) {
                fresh += marked[i] && !moved[i];
                moved[i] |= marked[i];
                marked[i] = false;
            }
            g_assert_cmpuint(
                ram_block_dirty_sync_and_clear(block, DIRTY_MEMORY_MIGRATION, dest, start, n), ==,
                fresh);
        }
        for (unsigned i = 0; i < PAGES; i++) {
            g_assert_true(dest_has(i) == moved[i]);
            g_assert_true(ram_block_get_dirty(block, DIRTY_MEMORY_MIGRATION, i * PAGE, 1) ==
                          marked[i]);
        }
        if (step % 100 == 0) {
            memset(dest, 0, sizeof(dest));
            memset(moved, 0, sizeof(moved));
        }
    }
    /* The other client's bits are its own. */
    g_assert_true(ram_block_test_and_clear_dirty(block, DIRTY_MEMORY_VGA, 0, PAGES * PAGE));
    g_assert_false(ram_block_test_and_clear_dirty(block, DIRTY_MEMORY_VGA, 0, PAGES * PAGE));
    ram_block_set_dirty(block, UINT64_MAX, UINT64_MAX);
    ram_block_set_dirty(block, 0, 0);
    ram_block_log_stop(block, DIRTY_MEMORY_MIGRATION);
    ram_block_log_stop(block, DIRTY_MEMORY_VGA);
    ram_block_free(block);
    g_rand_free(rand);
}

#define RACERS 3
#define WRITES 20000

typedef struct Race {
    RAMBlock *block;
    int writing; /* atomic */
    unsigned next;
} Race;

/* A racer's own word in a page. */
static uint64_t *word(RAMBlock *block, uint64_t page, unsigned id)
{
    return (uint64_t *)(block->host + page * PAGE) + id;
}

static void *racer(void *opaque)
{
    Race *race = opaque;
    unsigned id = __atomic_fetch_add(&race->next, 1, __ATOMIC_RELAXED);
    GRand *rand = g_rand_new_with_seed(SEED + id);

    for (uint64_t i = 1; i <= WRITES; i++) {
        uint64_t page = (uint64_t)g_rand_int_range(rand, 0, PAGES);

        /* A plain store: only the marking orders it. */
        __atomic_store_n(word(race->block, page, id), i, __ATOMIC_RELAXED);
        ram_block_set_dirty(race->block, page * PAGE + 8 * id, 8);
    }
    g_rand_free(rand);
    __atomic_fetch_sub(&race->writing, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void copy_page(RAMBlock *block, uint64_t page, uint64_t *copy)
{
    for (unsigned id = 0; id < RACERS; id++) {
        copy[id] = __atomic_load_n(word(block, page, id), __ATOMIC_RELAXED);
    }
}

/*
 * A client that copies what it is told of has, in the end, everything: no write is lost between
 * clear and read.
 */
static void test_a_copy_that_follows_the_log_is_complete(void)
{
    Race race = {.block = make("b", PAGES * PAGE, 0), .writing = RACERS};
    GThread *threads[RACERS];
    uint64_t copy[PAGES][RACERS] = {0};
    bool last = false;

    for (unsigned i = 0; i < RACERS; i++) {
        threads[i] = g_thread_new("racer", racer, &race);
    }
    ram_block_log_start(race.block, DIRTY_MEMORY_MIGRATION);
    for (unsigned page = 0; page < PAGES; page++) {
        copy_page(race.block, page, copy[page]);
    }
    while (!last) {
        last = __atomic_load_n(&race.writing, __ATOMIC_ACQUIRE) == 0;
        memset(dest, 0, sizeof(dest));
        (void)ram_block_dirty_sync_and_clear(race.block, DIRTY_MEMORY_MIGRATION, dest, 0, PAGES);
        for (unsigned page = 0; page < PAGES; page++) {
            if (dest_has(page)) {
                copy_page(race.block, page, copy[page]);
            }
        }
    }
    for (unsigned i = 0; i < RACERS; i++) {
        g_thread_join(threads[i]);
    }
    for (unsigned page = 0; page < PAGES; page++) {
        for (unsigned id = 0; id < RACERS; id++) {
            g_assert_cmpuint(copy[page][id], ==, *word(race.block, page, id));
        }
    }
    ram_block_log_stop(race.block, DIRTY_MEMORY_MIGRATION);
    ram_block_free(race.block);
}

/* --- untouched pages --- */

static void check_populated(RAMBlock *block, bool exact)
{
    GRand *rand = g_rand_new_with_seed(SEED);
    uint64_t pages = block->max_length / PAGE;
    g_autofree bool *touched = g_new0(bool, pages);
    g_autofree uint64_t *map = g_new(uint64_t, pages / 64 + 1);

    for (unsigned i = 0; i < 40; i++) {
        uint64_t page = (uint64_t)g_rand_int_range(rand, 0, (gint32)pages);
        uint64_t n = MIN((uint64_t)g_rand_int_range(rand, 1, 20), pages - page);

        for (uint64_t k = page; k < page + n; k++) {
            block->host[k * PAGE + 100] = 1;
            touched[k] = true;
        }
    }
    /* More runs than one call of the kernel tells. */
    for (uint64_t k = 1000; k < pages; k += 2) {
        block->host[k * PAGE] = 1;
        touched[k] = true;
    }
    for (unsigned i = 0; i < 50; i++) {
        uint64_t page = (uint64_t)g_rand_int_range(rand, 0, (gint32)pages);
        uint64_t n = (uint64_t)g_rand_int_range(rand, 0, (gint32)(pages - page) + 1);

        memset(map, 0xaa, (pages / 64 + 1) * sizeof(map[0]));
        g_assert_true(ram_block_populated(block, page * PAGE, n * PAGE, map) || !exact);
        for (uint64_t k = 0; k < n; k++) {
            bool told = map[k / 64] >> (k % 64) & 1;

            g_assert_true(told || !touched[page + k]);
            g_assert_true(!exact || told == touched[page + k]);
        }
        g_assert_true(n % 64 == 0 || map[n / 64] >> (n % 64) == 0);
    }
    g_rand_free(rand);
}

static void test_populated_anonymous(void)
{
    for (unsigned disable = 0; disable < 2; disable++) {
        RAMBlock *block = make("b", 3000 * PAGE, 0);

        ram_block_populated_disable_scan(disable);
        check_populated(block, true);
        ram_block_populated_disable_scan(false);
        ram_block_free(block);
    }
}

static void test_populated_shared_sees_what_others_wrote(void)
{
    RAMBlock *block = make("b", 3000 * PAGE, RAM_SHARED);
    uint8_t *other = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, block->fd, 2999 * PAGE);
    uint64_t map;

    g_assert_true(other != MAP_FAILED);
    other[0] = 1;
    g_assert_true(ram_block_populated(block, 2998 * PAGE, 2 * PAGE, &map));
    g_assert_cmphex(map, ==, 2);
    munmap(other, PAGE);
    memset(block->host + 2999 * PAGE, 0, PAGE);
    g_assert_cmpint(ram_block_discard(block, 2999 * PAGE, PAGE), ==, 0);
    check_populated(block, true);
    ram_block_free(block);
}

/* A private mapping of a file: the file's data, and what was written over its holes. */
static void test_populated_private_file(void)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    const RAMBlockOptions options = {
        .what = "f", .size = 64 * PAGE, .fd = fd, .fd_offset = 2 * PAGE};
    g_autoptr(GError) err = NULL;
    RAMBlock *block;
    uint64_t map;

    g_assert_cmpint(ftruncate(fd, 70 * PAGE), ==, 0);
    g_assert_cmpint(pwrite(fd, "x", 1, 7 * PAGE), ==, 1);
    block = ram_block_new(&options, &err);
    g_assert_no_error(err);
    block->host[9 * PAGE] = 1;
    g_assert_true(ram_block_populated(block, 0, 64 * PAGE, &map));
    g_assert_cmphex(map, ==, 1 << 5 | 1 << 9);
    g_assert_cmpint(ram_block_discard(block, 0, PAGE), ==, -EINVAL);
    ram_block_free(block);
}

/* Looking does not make pages. */
static void test_populated_does_not_populate(void)
{
    RAMBlock *blocks[] = {make("a", 1 * GiB, 0), make("b", 1 * GiB, RAM_SHARED)};
    g_autofree uint64_t *map = g_new(uint64_t, GiB / PAGE / 64);

    for (unsigned i = 0; i < 2; i++) {
        unsigned char present;

        blocks[i]->host[77 * PAGE] = 1;
        for (unsigned k = 0; k < 3; k++) {
            g_assert_true(ram_block_populated(blocks[i], 0, GiB, map));
        }
        g_assert_cmphex(map[1], ==, 1 << 13);
        g_assert_cmphex(map[2], ==, 0);
        g_assert_cmpint(mincore(blocks[i]->host + 500 * MiB, PAGE, &present), ==, 0);
        g_assert_false(present & 1);
        ram_block_free(blocks[i]);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_message("seed %d", SEED);
    g_test_add_func("/ram-block/list/order", test_list_is_sorted_by_size_then_age);
    g_test_add_func("/ram-block/list/names", test_names_are_unique_and_bounded);
    g_test_add_func("/ram-block/list/lifetime", test_old_lists_and_lookups_keep_blocks_alive);
    g_test_add_func("/ram-block/list/addresses", test_ram_addresses_are_disjoint_and_reused);
    g_test_add_func("/ram-block/no_memory", test_allocation_failure_names_size_and_cause);
    g_test_add_func("/ram-block/resize", test_resize_keeps_what_stays_and_zeroes_what_goes);
    g_test_add_func("/ram-block/discard", test_discard_makes_zeroes);
    g_test_add_func("/ram-block/dirty/off", test_nothing_is_marked_while_no_client_logs);
    g_test_add_func("/ram-block/dirty/all", test_blocks_that_come_while_all_are_logged_are_logged);
    g_test_add_func("/ram-block/dirty/model", test_sync_moves_exactly_the_marked_pages);
    g_test_add_func("/ram-block/dirty/threads", test_a_copy_that_follows_the_log_is_complete);
    g_test_add_func("/ram-block/populated/anonymous", test_populated_anonymous);
    g_test_add_func("/ram-block/populated/shared", test_populated_shared_sees_what_others_wrote);
    g_test_add_func("/ram-block/populated/private_file", test_populated_private_file);
    g_test_add_func("/ram-block/populated/untouched", test_populated_does_not_populate);
    return g_test_run();
}
