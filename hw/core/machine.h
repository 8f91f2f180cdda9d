/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Machine types: the machines that -machine makes, and the version in which a guest sees each.
 *
 * A machine of an older version shows what a guest of that version knows: rows say which
 * properties had which values up to which version. A row of 7.2 holds for all machines up to 7.2. Rows
 * of older versions are applied after those of newer ones, so the oldest that holds counts.
 */
#ifndef FERRY_HW_CORE_MACHINE_H
#define FERRY_HW_CORE_MACHINE_H

#include <glib.h>
#include <stdbool.h>
#include "hw/core/globals.h"
#include "memory/memory.h"
#include "util/coroutine.h"

typedef struct VersionedRow {
    unsigned version; /* MACHINE_VERSION(); the last that has the value */
    PropertyRow row;
} VersionedRow;

#define MACHINE_VERSION(major, minor) ((major)*1000 + (minor))
#define MACHINE_NEWEST                UINT_MAX

typedef struct MachineClass {
    const char *name;
    const char *alias;  /* NULL: none */
    const char *parent; /* type of object; NULL: "machine" */
    const char *desc;
    bool is_default;
    bool hidden; /* -machine takes it; no list shows it */
    bool acpi;
    unsigned max_cpus;
    bool has_cpus;   /* an accelerator runs them */
    bool places_ram; /* co_init puts the RAM into memory; otherwise it lies at address 0 */
    const char *default_ram_id;
    unsigned version; /* MACHINE_NEWEST: no row applies */
    const VersionedRow *rows;
    unsigned n_rows;
    /* Makes its devices; memory and the machine's object exist. May yield. NULL: it has none. */
    bool coroutine_fn (*co_init)(const struct MachineClass *class, GError **errp);
} MachineClass;

/* What the command line says about the machine's first moments. Constant from before co_init. */
typedef struct MachineBoot {
    unsigned cpus;
    MemoryRegion *ram; /* NULL: none */
    uint64_t ram_bytes;
    bool runs_code;     /* false: a test plays the guest, there are no vCPUs */
    const char *kernel; /* file; NULL: firmware */
    const char *initrd; /* file; NULL: none */
    const char *append; /* never NULL */
} MachineBoot;

extern MachineBoot machine_boot;

/* Start-up, before the command line is read; it lives on. */
void machine_class_register(const MachineClass *class);
/* By name or alias; NULL: none. */
const MachineClass *machine_class_find(const char *name);
const GPtrArray *machine_classes(void);
/* Hands the rows that hold for this machine to hw/core/globals.h. */
void machine_apply_rows(const MachineClass *class);

#endif
