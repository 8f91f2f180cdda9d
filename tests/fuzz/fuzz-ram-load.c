/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sections of guest memory, as a stranger sends them to four blocks: "ram" of 16 pages, "res" that may
 * have 2 to 8, "rom" that can't be written, and "edge" between two pages that nobody may touch. Whatever comes, memory beside the blocks stays as it is, and
 * an error has a text.
 */
#include <glib.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/address-space.h"
#include "migration/ram-load.h"
#include "migration/ram.h"

#define PAGE ((uint64_t)4096)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static RAMBlock *make_block(const char *name, const RAMBlockOptions *options)
{
    RAMBlock *block = ram_block_new(options, NULL);

    g_assert_nonnull(block);
    g_assert_true(ram_block_set_idstr(block, name, NULL));
    ram_block_set_migratable(block, true);
    return block;
}

static RAMBlock *make_rom(void)
{
    int fd = memfd_create("rom", MFD_CLOEXEC);
    const RAMBlockOptions options = {
        .what = "rom", .size = 2 * PAGE, .flags = RAM_READONLY, .fd = fd};

    g_assert_cmpint(ftruncate(fd, 2 * PAGE), ==, 0);
    g_assert_cmpint(pwrite(fd, "rom", 3, 100), ==, 3);
    return make_block("rom", &options);
}

static RAMBlock *make_guarded(uint8_t **guard)
{
    uint8_t *map = mmap(NULL, 18 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    RAMBlock *block;

    g_assert_true(map != MAP_FAILED);
    g_assert_cmpint(mprotect(map + PAGE, 16 * PAGE, PROT_READ | PROT_WRITE), ==, 0);
    block = ram_block_new_from_ptr("edge", map + PAGE, 16 * PAGE, 0, NULL);
    g_assert_true(ram_block_set_idstr(block, "edge", NULL));
    ram_block_set_migratable(block, true);
    *guard = map;
    return block;
}

static void load(const uint8_t *data, size_t size, bool ignore_shared)
{
    MigrationSettings settings = {0};
    MigrationIncomingState mis = {.settings = &settings};
    g_autoptr(GBytes) bytes = g_bytes_new_static(data, size);
    QEMUFile *f = qemu_file_new_memory_input(bytes);
    RAMLoadState *rl;
    int ret = 0;

    settings.caps[MIGRATION_CAPABILITY_X_IGNORE_SHARED] = ignore_shared;
    rl = ram_load_new(&mis, NULL);
    g_assert_nonnull(rl);
    while (ret == 0 && !qemu_file_at_end(f)) {
        g_autoptr(GError) err = NULL;

        ret = ram_load_section(rl, f, RAM_SAVE_VERSION, &err);
        g_assert_true((ret < 0) == (err != NULL));
    }
    ram_load_free(rl);
    (void)!qemu_fclose(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const RAMBlockOptions res = {.what = "res",
                                 .size = 2 * PAGE,
                                 .max_size = 8 * PAGE,
                                 .flags = RAM_RESIZEABLE,
                                 .fd = -1,
                                 .no_hugepages = true};
    const RAMBlockOptions ram = {.what = "ram", .size = 16 * PAGE, .fd = -1, .no_hugepages = true};
    RAMBlock *blocks[4];
    uint8_t *guard;

    if (size < 1) {
        return -1;
    }
    (void)get_address_space_memory();
    blocks[0] = make_guarded(&guard);
    blocks[1] = make_block("res", &res);
    blocks[2] = make_rom();
    blocks[3] = make_block("ram", &ram);
    load(data + 1, size - 1, data[0] & 1);
    g_assert_cmpmem(blocks[2]->host + 100, 4, "rom", 4);
    for (unsigned i = 0; i < G_N_ELEMENTS(blocks); i++) {
        ram_block_free(blocks[i]);
    }
    munmap(guard, 18 * PAGE);
    return 0;
}
