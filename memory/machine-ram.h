/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The RAM a machine starts with: -m, -mem-path, -mem-prealloc, -machine memory-backend. Main
 * thread.
 */
#ifndef FERRY_MEMORY_MACHINE_RAM_H
#define FERRY_MEMORY_MACHINE_RAM_H

#include <glib.h>
#include "memory/memory.h"
#include "util/coroutine.h"

typedef struct MachineRAMOptions {
    const char *default_id; /* id of the backend that is made when none is named: "ram" */
    bool has_size;
    uint64_t size;       /* bytes; 0: no RAM */
    const char *backend; /* id of a memory backend, or NULL */
    const char *mem_path;
    bool prealloc;
} MachineRAMOptions;

/*
 * Finds or makes the backend and takes it into use. *ram is its region, or NULL when the machine
 * has no RAM. False and errp.
 */
bool coroutine_fn machine_ram_co_init(const MachineRAMOptions *options, MemoryRegion **ram,
                                      GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* End of shutdown: the guest's memory goes away. */
void machine_ram_cleanup(void);
/* Bytes; 0 without RAM. */
uint64_t machine_ram_size(void);

#endif
