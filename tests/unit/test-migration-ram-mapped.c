/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RAM in a migration to a file in which each page has its place: there and back, and broken files. */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/channel-file.h"
#include "memory/address-space.h"
#include "tests/unit/migration-ram-world.h"
#include "util/bswap.h"
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

static QEMUFile *open_file(int fd, bool writable)
{
    QIOChannel *ioc = QIO_CHANNEL(qio_channel_file_new_fd(dup(fd), NULL));
    QEMUFile *f = writable ? qemu_file_new_output(ioc) : qemu_file_new_input(ioc);

    qio_channel_unref(ioc);
    g_assert_cmpint(lseek(fd, 0, SEEK_SET), ==, 0);
    return f;
}

/* Everything into a file, with changes between two passes; its descriptor. */
static int save(ChangeSettings *change, RAMBlock *changing)
{
    int fd = memfd_create("saved", MFD_CLOEXEC);
    g_autoptr(GError) err = NULL;
    Source src;

    g_assert_cmpint(fd, >=, 0);
    source_begin(&src, change);
    (void)!qemu_fclose(src.f);
    src.f = open_file(fd, true);
    source_setup(&src);
    while (source_iterate(&src) == 0) {
    }
    if (changing) {
        guest_fill(changing, 0, 0, 4096);
        fill_pages(changing, 30, 2, 9);
    }
    g_assert_cmpint(ram_save_complete(src.rs, src.f, &err), ==, 0);
    g_assert_no_error(err);
    g_assert_cmpint(qemu_fclose(src.f), ==, 0);
    ram_save_state_free(src.rs);
    g_free(src.s.settings);
    g_mutex_clear(&src.s.lock);
    return fd;
}

static int load(int fd, GError **errp)
{
    g_autofree MigrationSettings *settings = changed_settings(mapped);
    MigrationIncomingState mis = {.settings = settings};
    QEMUFile *f = open_file(fd, false);
    RAMLoadState *rl = ram_load_new(&mis, NULL);
    int ret = 0;

    while (ret == 0 && !qemu_file_at_end(f)) {
        ret = ram_load_section(rl, f, RAM_SAVE_VERSION, errp);
    }
    ram_load_free(rl);
    (void)!qemu_fclose(f);
    return ret;
}

static void round_trip(ChangeSettings *change)
{
    RAMBlock *a = make_block("a", 70 * PAGE, 0), *b = make_block("b", 3 * PAGE, 0), *a2, *b2;
    g_autoptr(GError) err = NULL;
    int fd;

    fill_pages(a, 0, 3, 1);
    fill_pages(a, 63, 2, 2);
    fill_pages(b, 2, 1, 3);
    fd = save(change, a);
    a2 = make_twin(a, 0);
    b2 = make_twin(b, RAM_SHARED);
    /* what was there before goes, also where the file has nothing */
    guest_fill(a2, 0, 0x55, 70 * PAGE);
    g_assert_cmpint(load(fd, &err), ==, 0);
    g_assert_no_error(err);
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
    round_trip(mapped);
    round_trip(mapped_all_pages);
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
        {"pages behind the end", AT_HEADER + 20, 8, 1 * TiB, "RAM block 'ram' at offset 0x1000"},
        {"a page record", 1 * MiB + 70 * 4096, 8, RAM_SAVE_FLAG_PAGE, "flags 0x8"},
        {"a flush", 1 * MiB + 70 * 4096, 8, RAM_SAVE_FLAG_MULTIFD_FLUSH, "flags 0x200"},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        RAMBlock *block = make_block("ram", 70 * PAGE, 0);
        g_autoptr(GError) err = NULL;
        uint8_t value[8];
        int fd;

        g_test_message("%s", table[i].what);
        fill_pages(block, 1, 1, 1);
        fd = save(mapped, NULL);
        stq_be_p(value, table[i].value << (64 - 8 * table[i].size));
        g_assert_cmpint(pwrite(fd, value, table[i].size, table[i].at), ==, table[i].size);
        g_assert_cmpint(load(fd, &err), <, 0);
        g_assert_nonnull(err);
        g_test_message("%s", err->message);
        g_assert_nonnull(strstr(err->message, table[i].error));
        close(fd);
        ram_block_free(block);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    world.channels = g_string_new("");
    (void)get_address_space_memory();
    g_test_add_func("/migration/ram/mapped/round-trip", test_round_trip);
    g_test_add_func("/migration/ram/mapped/layout", test_layout_of_the_file);
    g_test_add_func("/migration/ram/mapped/broken", test_broken_files);
    return g_test_run();
}
