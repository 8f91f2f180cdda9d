/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RAM in a migration to a file in which each page has its place: there and back, and broken files. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/channel-file.h"
#include "memory/address-space.h"
#include "tests/unit/migration-ram-world.h"
#include "util/bswap.h"
#include "util/bufferiszero.h"
#include "util/error.h"
#include "util/units.h"

static void mapped(MigrationSettings *settings)
{
    settings->caps[MIGRATION_CAPABILITY_MAPPED_RAM] = true;
}

static void mapped_all_pages(MigrationSettings *settings)
{
    mapped(settings);
    settings->params.zero_page_detection = ZERO_PAGE_DETECTION_NONE;
}

static void mapped_direct(MigrationSettings *settings)
{
    mapped(settings);
    settings->params.direct_io = true;
}

static void mapped_threads(MigrationSettings *settings)
{
    mapped(settings);
    settings->caps[MIGRATION_CAPABILITY_MULTIFD] = true;
    settings->params.multifd_channels = 3;
}

static void mapped_direct_threads(MigrationSettings *settings)
{
    mapped_threads(settings);
    settings->params.multifd_channels = 5;
    settings->params.direct_io = true;
}

/* Each way to move pages, and how many descriptors it opens besides that of the stream. */
static const struct {
    const char *name;
    ChangeSettings *change;
    unsigned opened;
} ways[] = {
    {"one", mapped, 0},
    {"all-pages", mapped_all_pages, 0},
    {"direct", mapped_direct, 1},
    {"threads", mapped_threads, 3},
    {"direct-threads", mapped_direct_threads, 5},
};

static QEMUFile *open_file(int fd, bool writable)
{
    QIOChannel *ioc = QIO_CHANNEL(qio_channel_file_new_fd(dup(fd), NULL));
    QEMUFile *f = writable ? qemu_file_new_output(ioc) : qemu_file_new_input(ioc);

    qio_channel_unref(ioc);
    g_assert_cmpint(lseek(fd, 0, SEEK_SET), ==, 0);
    return f;
}

static int source_to_file(Source *src, ChangeSettings *change)
{
    world.file = memfd_create("saved", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    world.opened = 0;
    g_assert_cmpint(world.file, >=, 0);
    source_begin(src, change);
    (void)!qemu_fclose(src->f);
    src->f = open_file(world.file, true);
    source_setup(src);
    return world.file;
}

/* Pages that are on their way have gone when this returns. */
static void source_close(Source *src)
{
    ram_save_state_free(src->rs);
    (void)!qemu_fclose(src->f);
    g_free(src->s.settings);
    g_mutex_clear(&src->s.lock);
}

/* Everything into a file, with changes between two passes; its descriptor. */
static int save(ChangeSettings *change, RAMBlock *changing)
{
    g_autoptr(GError) err = NULL;
    Source src;
    int fd = source_to_file(&src, change);

    while (source_iterate(&src) == 0) {
    }
    if (changing) {
        guest_fill(changing, 0, 0, 4096);
        fill_pages(changing, 30, 2, 9);
    }
    g_assert_cmpint(ram_save_complete(src.rs, src.f, &err), ==, 0);
    g_assert_no_error(err);
    g_assert_cmpint(qemu_fflush(src.f), ==, 0);
    source_close(&src);
    return fd;
}

static int load(int fd, ChangeSettings *change, GError **errp)
{
    g_autofree MigrationSettings *settings = changed_settings(change);
    MigrationIncomingState mis = {.settings = settings};
    QEMUFile *f = open_file(fd, false);
    RAMLoadState *rl = ram_load_new(&mis, NULL);
    int ret = 0;

    world.file = fd;
    world.opened = 0;
    while (ret == 0 && !qemu_file_at_end(f)) {
        ret = ram_load_section(rl, f, RAM_SAVE_VERSION, errp);
    }
    ram_load_free(rl);
    (void)!qemu_fclose(f);
    return ret;
}

static bool have_direct(void)
{
    int fd = memfd_create("probe", MFD_CLOEXEC), again;
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);

    again = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    close(fd);
    return again >= 0 && close(again) == 0;
}

/* What one way has saved any way loads. */
static void round_trip(unsigned saving, unsigned loading)
{
    RAMBlock *a = make_block("a", 700 * PAGE, 0), *b = make_block("b", 3 * PAGE, 0), *a2, *b2;
    g_autoptr(GError) err = NULL;
    int fd;

    g_test_message("%s, then %s", ways[saving].name, ways[loading].name);
    fill_pages(a, 0, 3, 1);
    for (unsigned i = 63; i < 700; i += 7) {
        fill_pages(a, i, 1 + i % 6, i);
    }
    fill_pages(b, 2, 1, 3);
    fd = save(ways[saving].change, a);
    g_assert_cmpuint(world.opened, ==, ways[saving].opened);
    a2 = make_twin(a, 0);
    b2 = make_twin(b, RAM_SHARED);
    /* what was there before goes, also where the file has nothing */
    guest_fill(a2, 0, 0x55, 700 * PAGE);
    g_assert_cmpint(load(fd, ways[loading].change, &err), ==, 0);
    g_assert_no_error(err);
    g_assert_cmpuint(world.opened, ==, ways[loading].opened);
    assert_same(a, a2);
    assert_same(b, b2);
    close(fd);
    ram_block_free(a);
    ram_block_free(b);
    ram_block_free(a2);
    ram_block_free(b2);
}

static void test_round_trip(void)
{
    bool direct = have_direct();

    for (unsigned i = 0; i < G_N_ELEMENTS(ways); i++) {
        for (unsigned j = 0; j < G_N_ELEMENTS(ways); j++) {
            if (direct || (!strstr(ways[i].name, "direct") && !strstr(ways[j].name, "direct"))) {
                round_trip(i, j);
            }
        }
    }
}

/* --- while the guest writes --- */

typedef struct Writer {
    RAMBlock *block;
    int stop; /* atomic */
} Writer;

/* Pages come, change and become zero. */
static void *write_all_the_time(void *opaque)
{
    Writer *writer = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(SEED);
    uint64_t pages = writer->block->max_length / PAGE;

    while (!__atomic_load_n(&writer->stop, __ATOMIC_RELAXED)) {
        uint64_t page = (uint64_t)g_rand_int_range(rand, 0, (gint32)pages);

        guest_fill(writer->block, page * PAGE, (uint8_t)(g_rand_int(rand) % 3), PAGE);
    }
    return NULL;
}

static void test_under_writes(void)
{
    RAMBlock *block = make_block("ram", 1000 * PAGE, 0), *twin;
    Writer writer = {.block = block};
    g_autoptr(GError) err = NULL;
    GThread *thread;
    Source src;
    int fd = source_to_file(&src, mapped_threads);

    g_test_message("seed %d", SEED);
    thread = g_thread_new("guest", write_all_the_time, &writer);
    for (unsigned pass = 0; pass < 200; pass++) {
        while (source_iterate(&src) == 0) {
        }
        ram_sync_dirty_log(src.rs, false);
    }
    __atomic_store_n(&writer.stop, 1, __ATOMIC_RELAXED);
    g_thread_join(thread);
    g_assert_cmpint(ram_save_complete(src.rs, src.f, &err), ==, 0);
    g_assert_no_error(err);
    g_assert_cmpint(qemu_fflush(src.f), ==, 0);
    source_close(&src);
    twin = make_twin(block, 0);
    g_assert_cmpint(load(fd, mapped, &err), ==, 0);
    g_assert_no_error(err);
    assert_same(block, twin);
    close(fd);
    ram_block_free(block);
    ram_block_free(twin);
}

/* A page that takes long to look at, and what its onlookers find. Atomic. */
static struct {
    const void *page; /* NULL: none */
    int looking, looked, overlaps;
} slow;

bool buffer_is_zero(const void *buf, size_t bytes)
{
    const char *p = buf;

    if (buf == __atomic_load_n(&slow.page, __ATOMIC_SEQ_CST)) {
        if (__atomic_fetch_add(&slow.looking, 1, __ATOMIC_SEQ_CST)) {
            __atomic_store_n(&slow.overlaps, 1, __ATOMIC_SEQ_CST);
        }
        __atomic_fetch_add(&slow.looked, 1, __ATOMIC_SEQ_CST);
        g_usleep(50 * 1000);
        __atomic_fetch_sub(&slow.looking, 1, __ATOMIC_SEQ_CST);
    }
    return *p == 0 && memcmp(p, p + 1, bytes - 1) == 0;
}

/*
 * A page that is written again goes to a thread only when the thread before has done with it.
 * Otherwise the older bytes, or the older bit, might be written last.
 */
static void test_one_thread_a_page(void)
{
    RAMBlock *block = make_block("ram", 256 * PAGE, 0);
    g_autoptr(GError) err = NULL;
    Source src;
    int fd = source_to_file(&src, mapped_threads);

    fill_pages(block, 0, 256, 7);
    ram_sync_dirty_log(src.rs, false);
    __atomic_store_n(&slow.page, block->host + 100 * PAGE, __ATOMIC_SEQ_CST);
    (void)source_iterate(&src);
    while (!__atomic_load_n(&slow.looked, __ATOMIC_SEQ_CST)) {
        g_thread_yield();
    }
    guest_fill(block, 0, 0, 256 * PAGE);
    g_assert_cmpint(ram_save_complete(src.rs, src.f, &err), ==, 0);
    g_assert_no_error(err);
    g_assert_cmpint(slow.looked, >=, 2);
    g_assert_cmpint(slow.overlaps, ==, 0);
    slow.page = NULL;
    source_close(&src);
    close(fd);
    ram_block_free(block);
}

/* --- what goes wrong --- */

/* The file can't be written any more: the thread that finds out tells the migration, and the owner hears of it. */
static void test_thread_fails(void)
{
    RAMBlock *block = make_block("ram", 2000 * PAGE, 0);
    g_autoptr(GError) err = NULL;
    Source src;
    int ret = 0, fd = source_to_file(&src, mapped_threads);

    fill_pages(block, 0, 2000, 5);
    ram_sync_dirty_log(src.rs, false);
    g_assert_cmpint(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), ==, 0);
    while (ret == 0) {
        ret = ram_save_iterate(src.rs, src.f, &err);
        if (ret == 1) {
            ret = ram_save_complete(src.rs, src.f, &err);
        }
    }
    g_assert_cmpint(ret, <, 0);
    g_assert_nonnull(strstr(err->message, "write to file"));
    source_close(&src);
    g_assert_nonnull(world.error);
    g_assert_nonnull(strstr(world.error->message, "write to file"));
    g_clear_error(&world.error);
    close(fd);
    ram_block_free(block);
}

/* Threads are in the middle when it ends. */
static void test_given_up(void)
{
    for (unsigned i = 0; i < 50; i++) {
        RAMBlock *block = make_block("ram", 2000 * PAGE, 0);
        Source src;
        int fd = source_to_file(&src, mapped_threads);

        fill_pages(block, 0, 2000, i);
        ram_sync_dirty_log(src.rs, false);
        world.runs_per_section = 1 + i % 8;
        (void)source_iterate(&src);
        source_close(&src);
        close(fd);
        ram_block_free(block);
    }
}

/* "ram" of 70 pages: the list's word, name and length, then the header. */
#define AT_HEADER (8 + 4 + 8)
#define AT_BITMAP (AT_HEADER + 28)

static void test_layout_of_the_file(void)
{
    RAMBlock *block = make_block("ram", 70 * PAGE, 0);
    uint8_t head[AT_BITMAP + 16], page[4096];
    struct stat st;
    int fd;

    fill_pages(block, 1, 1, 1);
    fill_pages(block, 69, 1, 2);
    fd = save(mapped, NULL);
    g_assert_cmpint(pread(fd, head, sizeof(head), 0), ==, sizeof(head));
    g_assert_cmphex(ldul_be_p(head + AT_HEADER), ==, 1);
    g_assert_cmphex(ldq_be_p(head + AT_HEADER + 4), ==, PAGE);
    g_assert_cmphex(ldq_be_p(head + AT_HEADER + 12), ==, AT_BITMAP);
    g_assert_cmphex(ldq_be_p(head + AT_HEADER + 20), ==, 1 * MiB);
    g_assert_cmphex(ldq_le_p(head + AT_BITMAP), ==, 2);
    g_assert_cmphex(ldq_le_p(head + AT_BITMAP + 8), ==, 1u << 5);
    g_assert_cmpint(pread(fd, page, sizeof(page), 1 * MiB + 69 * 4096), ==, sizeof(page));
    g_assert_cmpmem(page, sizeof(page), block->host + 69 * PAGE, sizeof(page));
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    /* three EOS records behind the pages, and nothing where pages are zero */
    g_assert_cmpint(st.st_size, ==, 1 * MiB + 70 * 4096 + 3 * 8);
    g_assert_cmpint(st.st_blocks, <=, 4 * 8);
    close(fd);
    ram_block_free(block);
}

typedef struct Broken {
    const char *what;
    unsigned at; /* where a value of `size` bytes is put, big endian */
    unsigned size;
    uint64_t value;
    const char *error;
} Broken;

static void check_broken(const Broken *broken, ChangeSettings *change)
{
    RAMBlock *block = make_block("ram", 70 * PAGE, 0);
    g_autoptr(GError) err = NULL;
    uint8_t value[8];
    int fd;

    g_test_message("%s", broken->what);
    fill_pages(block, 1, 1, 1);
    fd = save(mapped, NULL);
    stq_be_p(value, broken->value << (64 - 8 * broken->size));
    g_assert_cmpint(pwrite(fd, value, broken->size, broken->at), ==, broken->size);
    g_assert_cmpint(load(fd, change, &err), <, 0);
    g_assert_nonnull(err);
    g_test_message("%s", err->message);
    g_assert_nonnull(strstr(err->message, broken->error));
    close(fd);
    ram_block_free(block);
}

static void test_broken_files(void)
{
    static const Broken table[] = {
        {"version 0", AT_HEADER, 4, 0, "version 0"},
        {"version 2", AT_HEADER, 4, 2, "version 2"},
        {"larger pages", AT_HEADER + 4, 8, 8192, "pages of 0x2000"},
        {"bitmap beyond all files", AT_HEADER + 12, 8, UINT64_MAX, "offset of the bitmap"},
        {"bitmap at the end of all files", AT_HEADER + 12, 8, INT64_MAX, "offset of the bitmap"},
        {"bitmap behind the end", AT_HEADER + 12, 8, 1 * TiB, "bitmap of RAM block 'ram'"},
        {"pages between pages", AT_HEADER + 20, 8, 1 * MiB + 1, "offset of pages"},
        {"pages beyond all files", AT_HEADER + 20, 8, UINT64_MAX - 4095, "offset of pages"},
        {"pages where the stream has been", AT_HEADER + 20, 8, 0, "offset of pages"},
        {"pages behind the end", AT_HEADER + 20, 8, 1 * TiB, "RAM block 'ram' at offset 0x1000"},
        {"a page record", 1 * MiB + 70 * 4096, 8, RAM_SAVE_FLAG_PAGE, "flags 0x8"},
        {"a flush", 1 * MiB + 70 * 4096, 8, RAM_SAVE_FLAG_MULTIFD_FLUSH, "flags 0x200"},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        check_broken(&table[i], mapped);
        check_broken(&table[i], mapped_threads);
    }
}

/* A list that names a block a second time, behind the first one's pages. */
static void test_block_twice(void)
{
    RAMBlock *block = make_block("ram", 70 * PAGE, 0);
    g_autoptr(GError) err = NULL;
    uint8_t entry[12 + 28];
    int fd = save(mapped, NULL);

    stq_be_p(entry, (2 * 70 * PAGE) | RAM_SAVE_FLAG_MEM_SIZE);
    g_assert_cmpint(pwrite(fd, entry, 8, 0), ==, 8);
    g_assert_cmpint(pread(fd, entry, sizeof(entry), 8), ==, sizeof(entry));
    g_assert_cmpint(pwrite(fd, entry, sizeof(entry), 1 * MiB + 70 * 4096), ==, sizeof(entry));
    g_assert_cmpint(load(fd, mapped, &err), <, 0);
    g_assert_nonnull(strstr(err->message, "twice"));
    close(fd);
    ram_block_free(block);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    world.channels = g_string_new("");
    (void)get_address_space_memory();
    g_test_add_func("/migration/ram/mapped/round-trip", test_round_trip);
    g_test_add_func("/migration/ram/mapped/layout", test_layout_of_the_file);
    g_test_add_func("/migration/ram/mapped/under-writes", test_under_writes);
    g_test_add_func("/migration/ram/mapped/one-thread-a-page", test_one_thread_a_page);
    g_test_add_func("/migration/ram/mapped/thread-fails", test_thread_fails);
    g_test_add_func("/migration/ram/mapped/given-up", test_given_up);
    g_test_add_func("/migration/ram/mapped/broken", test_broken_files);
    g_test_add_func("/migration/ram/mapped/block-twice", test_block_twice);
    return g_test_run();
}
