/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hostile sections of guest memory for four blocks: "ram" of 16 pages, "res" that may have 2 to 8,
 * "rom" that can't be written, and "edge". The last lies between two pages that the load must not
 * touch. Whatever the sections hold, memory beside the blocks stays as it is, and an error has a
 * text.
 */
#include <glib.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/address-space.h"
#include "migration/ram.h"
#include "tests/unit/migration-ram-world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static RAMBlock *make_guarded(uint8_t **guard)
{
    uint8_t *map = mmap(NULL, 18 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    g_assert_true(map != MAP_FAILED);
    g_assert_cmpint(mprotect(map + PAGE, 16 * PAGE, PROT_READ | PROT_WRITE), ==, 0);
    *guard = map;
    return name_block(ram_block_new_from_ptr("edge", map + PAGE, 16 * PAGE, 0, NULL), "edge");
}

static void load(const uint8_t *data, size_t size, bool ignore_shared)
{
    MigrationSettings settings = {0};
    g_autoptr(GBytes) bytes = g_bytes_new_static(data, size);
    QEMUFile *f = qemu_file_new_memory_input(bytes);
    g_autoptr(GError) err = NULL;
    int ret;

    settings.caps[MIGRATION_CAPABILITY_X_IGNORE_SHARED] = ignore_shared;
    ret = load_file(f, &settings, &err);
    g_assert_true((ret < 0) == (err != NULL));
    (void)!qemu_fclose(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    RAMBlock *blocks[4];
    uint8_t *guard;

    if (size < 1) {
        return -1;
    }
    (void)get_address_space_memory();
    blocks[0] = make_guarded(&guard);
    blocks[1] = make_block("res", 2 * PAGE, RAM_RESIZEABLE);
    blocks[2] = make_rom(2 * PAGE);
    blocks[3] = make_block("ram", 16 * PAGE, 0);
    load(data + 1, size - 1, data[0] & 1);
    assert_rom(blocks[2]);
    for (unsigned i = 0; i < G_N_ELEMENTS(blocks); i++) {
        ram_block_free(blocks[i]);
    }
    munmap(guard, 18 * PAGE);
    return 0;
}
