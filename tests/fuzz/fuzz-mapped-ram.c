/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A hostile mapped-ram file is loaded into four blocks: "ram" of 4 pages, "res" that may have 1 to
 * 4, "rom" that can't be written, and "edge". The last has 4 pages between two that belong to no
 * block. The first byte chooses how the file is read (bit 0: two threads; bit 1: past the page
 * cache) and x-ignore-shared (bit 2). Whatever the file holds, memory beside the blocks stays as it
 * is, an error has a text, and loading comes to an end.
 */
#include <fcntl.h>
#include <glib.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/channel-file.h"
#include "memory/address-space.h"
#include "tests/unit/migration-ram-world.h"

#define INPUT_MAX  (256 * 1024)
#define EDGE_PAGES 4
#define BESIDE     0xa5

enum {
    THREADS = 1,
    DIRECT = 2,
    IGNORE_SHARED = 4,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The pages of the block, and one on either side that a read of the kernel's could reach. */
static uint8_t *make_surroundings(void)
{
    uint8_t *map = mmap(NULL, (EDGE_PAGES + 2) * PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    g_assert_true(map != MAP_FAILED);
    memset(map, BESIDE, PAGE);
    memset(map + (EDGE_PAGES + 1) * PAGE, BESIDE, PAGE);
    return map;
}

static void check_surroundings(const uint8_t *map)
{
    for (size_t i = 0; i < PAGE; i++) {
        g_assert_cmphex(map[i], ==, BESIDE);
        g_assert_cmphex(map[(EDGE_PAGES + 1) * PAGE + i], ==, BESIDE);
    }
}

static QEMUFile *make_file(const uint8_t *data, size_t size)
{
    QIOChannel *ioc;
    QEMUFile *f;

    world.file = memfd_create("saved", MFD_CLOEXEC);
    g_assert_cmpint(pwrite(world.file, data, size, 0), ==, (ssize_t)size);
    ioc = QIO_CHANNEL(qio_channel_file_new_fd(fcntl(world.file, F_DUPFD_CLOEXEC, 0), NULL));
    f = qemu_file_new_input(ioc);
    qio_channel_unref(ioc);
    return f;
}

static void load(QEMUFile *f, unsigned how)
{
    MigrationSettings settings = {.params.multifd_channels = 2, .params.direct_io = how & DIRECT};
    g_autoptr(GError) err = NULL;
    int ret;

    settings.caps[MIGRATION_CAPABILITY_MAPPED_RAM] = true;
    settings.caps[MIGRATION_CAPABILITY_MULTIFD] = how & THREADS;
    settings.caps[MIGRATION_CAPABILITY_X_IGNORE_SHARED] = how & IGNORE_SHARED;
    ret = load_file(f, &settings, &err);
    g_assert_true((ret < 0) == (err != NULL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *map;
    RAMBlock *edge, *rom, *ram, *res;
    QEMUFile *f;

    if (size < 1 || size > INPUT_MAX) {
        return -1;
    }
    (void)get_address_space_memory();
    map = make_surroundings();
    edge =
        name_block(ram_block_new_from_ptr("edge", map + PAGE, EDGE_PAGES * PAGE, 0, NULL), "edge");
    res = make_block("res", PAGE, RAM_RESIZEABLE);
    ram = make_block("ram", EDGE_PAGES * PAGE, 0);
    rom = make_rom(PAGE);
    f = make_file(data + 1, size - 1);
    load(f, data[0]);
    check_surroundings(map);
    assert_rom(rom);
    (void)!qemu_fclose(f);
    close(world.file);
    ram_block_free(edge);
    ram_block_free(res);
    ram_block_free(ram);
    ram_block_free(rom);
    munmap(map, (EDGE_PAGES + 2) * PAGE);
    return 0;
}
