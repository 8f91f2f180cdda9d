/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kernels that begin as the Multiboot Specification 0.6.96 says: in flat 32-bit mode, with what the
 * boot loader tells in memory.
 */
#ifndef FERRY_HW_I386_MULTIBOOT_H
#define FERRY_HW_I386_MULTIBOOT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* What the first processor starts with. */
typedef struct MultibootEntry {
    uint32_t eip;
    uint32_t info; /* address, for EBX */
} MultibootEntry;

/* In EAX (3.2). */
#define MULTIBOOT_BOOTLOADER_MAGIC 0x2badb002u

/* Whether the file's first bytes have a Multiboot header. */
bool multiboot_detect(const uint8_t *file, size_t bytes);
/*
 * Hands the kernel, its modules and the tables to hw/core/loader.h. `name` is the file's. `low_ram` is the
 * RAM below 4 GiB (bytes), `high_ram` that above. `modules`: "file args,file args"; NULL: none. False
 * and errp: the kernel or a module is broken, or does not fit.
 */
bool multiboot_load(const char *name, const uint8_t *file, size_t bytes, const char *cmdline,
                    const char *modules, uint64_t low_ram, uint64_t high_ram, MultibootEntry *entry,
                    GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
