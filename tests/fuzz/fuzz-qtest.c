/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lines of the qtest protocol, carried out on a small machine: RAM, ROM, a device and ports. Each
 * is answered by exactly one line.
 */
#include <glib.h>
#include <stdint.h>
#include <string.h>
#include "accel/qtest/qtest.h"
#include "memory/address-space.h"
#include "memory/listener.h"
#include "util/aio.h"

#define PAGE 4096u
/* Lines of one run: some take long. */
#define LINES_MAX 40

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t device_read(void *opaque, hwaddr addr, unsigned size)
{
    g_assert(addr + size <= 32);
    return addr * 0x0101010101010101;
}

static void device_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    g_assert(addr + size <= 32);
    g_assert(size == 8 || data >> (8 * size) == 0);
}

static const MemoryRegionOps device_ops = {
    .read = device_read,
    .write = device_write,
    .device.min = 2,
};

static void make_machine(void)
{
    static MemoryRegion ram, rom, device, port;
    g_autoptr(GError) err = NULL;

    if (!qemu_init_main_loop(&err) || !memory_region_init_ram(&ram, NULL, "ram", 16 * PAGE, &err) ||
        !memory_region_init_rom(&rom, NULL, "rom", PAGE, &err)) {
        g_error("%s", err->message);
    }
    qtest_clock_init();
    memory_region_init_io(&device, NULL, &device_ops, NULL, "device", 32);
    memory_region_init_io(&port, NULL, &device_ops, NULL, "port", 7);
    memory_region_add_subregion(get_system_memory(), 0, &ram);
    memory_region_add_subregion_overlap(get_system_memory(), PAGE + 5, &device, 1);
    memory_region_add_subregion(get_system_memory(), UINT64_MAX - PAGE + 1, &rom);
    memory_region_add_subregion(get_system_io(), 0xfff8, &port);
    (void)memory_global_dirty_log_start(1u << DIRTY_MEMORY_MIGRATION, NULL);
}

static void run(const char *line, size_t len)
{
    g_autoptr(GString) answer = g_string_new(NULL);
    g_autofree char *copy = g_malloc(len + 1);

    memcpy(copy, line, len);
    copy[len] = '\0';
    qtest_command(copy, len, answer);
    g_assert(g_str_has_prefix(answer->str, "OK") || g_str_has_prefix(answer->str, "FAIL "));
    g_assert(strchr(answer->str, '\n') == answer->str + answer->len - 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool made;
    const char *at = (const char *)data;

    if (!made) {
        make_machine();
        made = true;
    }
    for (unsigned n = 0; n < LINES_MAX && size; n++) {
        const char *end = memchr(at, '\n', size);
        size_t len = end ? (size_t)(end - at) : size;

        run(at, len);
        len += end ? 1 : 0;
        at += len;
        size -= len;
    }
    return 0;
}
