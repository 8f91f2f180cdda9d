/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line: a table of options whose handlers fill one description of what to start. */
#ifndef FERRY_SYSTEM_CMDLINE_H
#define FERRY_SYSTEM_CMDLINE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "hw/core/machine.h"

/* An option that a later step of start-up carries out; kept to name it in errors. */
typedef struct DeferredOption {
    const char *name; /* "qmp" */
    const char *arg;
} DeferredOption;

/* What the command line asks for. Strings belong to argv unless marked. */
typedef struct StartConfig {
    const MachineClass *machine; /* NULL: none was named */
    GPtrArray
        *accels;   /* char *: accelerators, the first that works is taken; NULL: none was named */
    unsigned cpus; /* 0: not said */
    const char *kernel, *initrd, *append;
    bool has_ram_size;
    uint64_t ram_size;    /* bytes */
    char *memory_backend; /* owned; id */
    const char *mem_path;
    bool mem_prealloc;
    bool no_mem_merge, no_dump_guest_core; /* what memory backends are when they don't say */
    bool accel_qtest;                      /* the virtual clock is qtest's */
    const char *qtest, *qtest_log;         /* character device, in short form */
    bool stopped;                          /* -S */
    bool no_defaults;
    bool nographic;
    char *guest_name;   /* owned */
    char *process_name; /* owned */
    bool have_uuid;
    uint8_t uuid[16];
    bool reboot_ends;     /* -no-reboot: a guest that reboots ends the process */
    bool shutdown_pauses; /* -no-shutdown: a guest that powers off is only stopped */
    const char *incoming; /* -incoming: a URI, the JSON of a channel, or "defer" */
    bool snapshot;        /* all drives are, unless they say otherwise */
    bool daemonize;
    const char *pidfile, *log_file, *log_items;
    const char *dump_vmstate; /* the file; the process ends when it is written */
    bool msg_timestamp, msg_guest_name;
    GArray *objects, *chardevs, *monitors, *blockdevs, *drives, *fds, *traces,
        *devices; /* DeferredOption, in order */
} StartConfig;

extern StartConfig start_config;

/*
 * Fills start_config. False, with errp, on errors; exits after -help, -version and lists ("-machine
 * help").
 */
bool cmdline_parse(int argc, char **argv, GError **errp);

/* The groups of -help, in the order in which they are printed. */
typedef enum OptionGroup {
    GROUP_STANDARD,
    GROUP_BLOCK,
    GROUP_CONTROL,
    GROUP_PROCESS,
    GROUP_DEBUG,
    GROUP_MAX,
} OptionGroup;

typedef struct QemuOption {
    const char *name; /* "machine|M": other names follow a bar */
    OptionGroup group;
    const char *arg;  /* what -help shows for the argument; NULL: takes none */
    const char *help; /* one line */
    /* arg is NULL for options without one. */
    bool (*handler)(const char *arg, GError **errp);
} QemuOption;

/* The tables, each ended by an option without a name. */
extern const QemuOption machine_options[]; /* opts-machine.c */
extern const QemuOption device_options[];  /* opts-device.c */
extern const QemuOption process_options[]; /* opts-process.c */

/* Whether QEMU's program of the same name has this option and Ferry lacks it; opts-stock.c. */
bool option_is_of_stock(const char *name);
/* Prints the parameters that an option takes, as query-command-line-options has them; opts-params.c. */
void option_print_parameters(const char *option);

#endif
