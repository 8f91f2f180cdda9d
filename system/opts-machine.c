/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Options that describe the machine. Only the machine "none" exists: memory, no CPU.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "hw/core/globals.h"
#include "hw/core/machine.h"
#include "migration/address.h"
#include "migration/options.h"
#include "system/accel.h"
#include "system/cmdline.h"
#include "system/uuid.h"
#include "util/cutils.h"
#include "util/error.h"
#include "util/migration-blocker.h"
#include "util/qemu-opts.h"

static void G_GNUC_NORETURN print_and_exit(const char *text)
{
    fputs(text, stdout);
    fflush(stdout);
    exit(0);
}

/* "kvm:tcg": system/accel.c takes the first that there is. Names that are no accelerator are left out. */
static bool choose_accel(const char *names, GError **errp)
{
    g_auto(GStrv) list = g_strsplit(names, ":", -1);
    g_autoptr(GPtrArray) known = g_ptr_array_new_with_free_func(g_free);

    for (char **name = list; *name; name++) {
        if (accel_is_known(*name)) {
            g_ptr_array_add(known, g_strdup(*name));
        }
    }
    if (!known->len) {
        error_setg(errp, "invalid accelerator %s", names);
        return false;
    }
    start_config.accel_qtest = !strcmp(g_ptr_array_index(known, 0), "qtest");
    g_clear_pointer(&start_config.accels, g_ptr_array_unref);
    start_config.accels = g_steal_pointer(&known);
    return true;
}

static bool handle_accel(const char *arg, GError **errp)
{
    g_autoptr(QemuOpts) opts = qemu_opts_parse(arg, "accel");
    const char *accel = qemu_opts_get(opts, "accel");

    if (qemu_opts_wants_help(opts)) {
        print_and_exit("Accelerators supported in QEMU binary:\nqtest\nkvm\n");
    }
    if (!accel) {
        error_setg(errp, "no accelerator given");
        return false;
    }
    return choose_accel(accel, errp) && qemu_opts_check_known(opts, errp);
}

/* on or off; *off stays when the option is absent. */
static bool machine_flag(QemuOpts *opts, const char *key, bool *off, GError **errp)
{
    bool has, value;

    if (!qemu_opts_get_bool(opts, key, &has, &value, errp)) {
        return false;
    }
    *off = has ? !value : *off;
    return true;
}

static void G_GNUC_NORETURN print_machines(void)
{
    const GPtrArray *classes = machine_classes();

    printf("Supported machines are:\n");
    for (guint i = 0; i < classes->len; i++) {
        const MachineClass *class = g_ptr_array_index(classes, i);

        if (class->alias && !class->hidden) {
            printf("%-20s %s (alias of %s)\n", class->alias, class->desc, class->name);
        }
        if (!class->hidden) {
            printf("%-20s %s%s\n", class->name, class->desc, class->is_default ? " (default)" : "");
        }
    }
    print_and_exit("");
}

static bool choose_machine(const char *type, GError **errp)
{
    const MachineClass *class = machine_class_find(type);
    g_autoptr(GString) names = g_string_new(NULL);

    if (class) {
        start_config.machine = class;
        return true;
    }
    for (guint i = 0; i < machine_classes()->len; i++) {
        class = g_ptr_array_index(machine_classes(), i);
        if (!class->hidden) {
            g_string_append_printf(names, "%s%s", names->len ? ", " : "", class->name);
        }
    }
    error_setg(errp, "unsupported machine type '%s'; supported: %s", type, names->str);
    return false;
}

static bool handle_machine(const char *arg, GError **errp)
{
    /* Properties every machine has and that mean nothing without CPU and devices. */
    static const char *const ignored[] = {"usb", "kernel-irqchip", "graphics", "vmport", "acpi"};
    g_autoptr(QemuOpts) opts = qemu_opts_parse(arg, "type");
    const char *type = qemu_opts_get(opts, "type"), *accel = qemu_opts_get(opts, "accel");
    const char *backend = qemu_opts_get(opts, "memory-backend");
    g_autoptr(GError) err = NULL;

    if (qemu_opts_wants_help(opts)) {
        print_machines();
    }
    if (type && !choose_machine(type, errp)) {
        return false;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(ignored); i++) {
        bool has, value;

        if (!qemu_opts_get_bool(opts, ignored[i], &has, &value, errp)) {
            return false;
        }
    }
    if (!machine_flag(opts, "mem-merge", &start_config.no_mem_merge, errp) ||
        !machine_flag(opts, "dump-guest-core", &start_config.no_dump_guest_core, errp)) {
        return false;
    }
    if (accel && !choose_accel(accel, errp)) {
        return false;
    }
    if (backend) {
        g_free(start_config.memory_backend);
        start_config.memory_backend = g_strdup(backend);
    }
    if (!qemu_opts_check_known(opts, &err)) {
        g_propagate_prefixed_error(errp, g_steal_pointer(&err), "machine '%s': ",
                                   start_config.machine ? start_config.machine->name : "none");
        return false;
    }
    return true;
}

static bool handle_smp(const char *arg, GError **errp)
{
    static const char *const keys[] = {"cpus",     "maxcpus", "sockets", "dies",
                                       "clusters", "modules", "cores",   "threads"};
    g_autoptr(QemuOpts) opts = qemu_opts_parse(arg, "cpus");
    int64_t cpus = 1;

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        int64_t value = 1;
        bool has;

        if (!qemu_opts_get_int(opts, keys[i], &has, &value, errp)) {
            return false;
        }
        if (has && value <= 0) {
            error_setg(errp, "Invalid CPU topology: '%s' must be greater than zero", keys[i]);
            return false;
        }
        cpus = MAX(cpus, value);
    }
    if (!qemu_opts_check_known(opts, errp)) {
        return false;
    }
    start_config.cpus = (unsigned)MIN(cpus, UINT_MAX);
    return true;
}

static bool handle_kernel(const char *arg, GError **errp)
{
    start_config.kernel = arg;
    return true;
}

static bool handle_initrd(const char *arg, GError **errp)
{
    start_config.initrd = arg;
    return true;
}

static bool handle_append(const char *arg, GError **errp)
{
    start_config.append = arg;
    return true;
}

/* Memory comes in pieces of this many bytes, whatever was asked for. */
#define RAM_SIZE_ALIGN 8192

static bool memory_size(QemuOpts *opts, const char *key, bool *has, uint64_t *bytes, GError **errp)
{
    const char *text = qemu_opts_get(opts, key);

    *has = text;
    if (text && (qemu_strtosz_MiB(text, NULL, bytes) < 0 || *bytes > INT64_MAX - RAM_SIZE_ALIGN)) {
        error_setg(errp, "Parameter '%s' expects a size", key);
        return false;
    }
    return true;
}

static bool handle_memory(const char *arg, GError **errp)
{
    g_autoptr(QemuOpts) opts = qemu_opts_parse(arg, "size");
    bool has_size, has_max, has_slots;
    uint64_t size = 0, max = 0;
    int64_t slots = 0;

    if (!memory_size(opts, "size", &has_size, &size, errp) ||
        !memory_size(opts, "maxmem", &has_max, &max, errp) ||
        !qemu_opts_get_int(opts, "slots", &has_slots, &slots, errp) ||
        !qemu_opts_check_known(opts, errp)) {
        return false;
    }
    if (has_size) {
        start_config.has_ram_size = true;
        start_config.ram_size = (size + RAM_SIZE_ALIGN - 1) & ~(uint64_t)(RAM_SIZE_ALIGN - 1);
    }
    if (has_max && max < start_config.ram_size) {
        error_setg(errp,
                   "invalid value of maxmem: maximum memory size (0x%" PRIx64
                   ") must be at least the initial memory size (0x%" PRIx64 ")",
                   max, start_config.ram_size);
        return false;
    }
    if (slots && !has_max) {
        error_setg(errp, "slots specified but no max-size");
        return false;
    }
    if (slots && max == start_config.ram_size) {
        error_setg(errp, "slots specified, but maxmem leaves no room for what they take");
        return false;
    }
    return true;
}

static bool handle_overcommit(const char *arg, GError **errp)
{
    static const char *const keys[] = {"mem-lock", "cpu-pm"};
    g_autoptr(QemuOpts) opts = qemu_opts_parse(arg, NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        bool has, on = false;

        if (!qemu_opts_get_bool(opts, keys[i], &has, &on, errp)) {
            return false;
        }
        if (on) {
            error_setg(errp, "Ferry does not support %s=on yet", keys[i]);
            return false;
        }
    }
    return qemu_opts_check_known(opts, errp);
}

static bool handle_mem_path(const char *arg, GError **errp)
{
    start_config.mem_path = arg;
    return true;
}

static bool handle_mem_prealloc(const char *arg, GError **errp)
{
    start_config.mem_prealloc = true;
    return true;
}

static bool handle_name(const char *arg, GError **errp)
{
    g_autoptr(QemuOpts) opts = NULL;
    bool has, debug_threads;
    const char *process;

    opts = qemu_opts_parse(arg, "guest");
    process = qemu_opts_get(opts, "process");
    if (!qemu_opts_get_bool(opts, "debug-threads", &has, &debug_threads, errp)) {
        return false;
    }
    g_free(start_config.guest_name);
    start_config.guest_name = g_strdup(qemu_opts_get(opts, "guest"));
    if (process) {
        g_free(start_config.process_name);
        start_config.process_name = g_strdup(process);
    }
    return qemu_opts_check_known(opts, errp);
}

static bool handle_uuid(const char *arg, GError **errp)
{
    if (!uuid_parse(arg, start_config.uuid)) {
        error_setg(errp, "failed to parse UUID string: wrong format");
        return false;
    }
    start_config.have_uuid = true;
    return true;
}

static bool handle_stopped(const char *arg, GError **errp)
{
    start_config.stopped = true;
    return true;
}

static bool handle_display(const char *arg, GError **errp)
{
    g_autoptr(QemuOpts) opts = qemu_opts_parse(arg, "type");
    const char *type = qemu_opts_get(opts, "type");

    if (qemu_opts_wants_help(opts)) {
        print_and_exit("Available display backend types:\nnone\n");
    }
    if (!type || strcmp(type, "none") != 0) {
        error_setg(errp, "Parameter 'type' does not accept value '%.*s'; supported: none",
                   (int)strcspn(arg, "=,"), type ? type : arg);
        return false;
    }
    return qemu_opts_check_known(opts, errp);
}

static bool handle_nographic(const char *arg, GError **errp)
{
    start_config.nographic = true;
    return true;
}

static bool handle_no_reboot(const char *arg, GError **errp)
{
    start_config.reboot_ends = true;
    return true;
}

static bool handle_no_shutdown(const char *arg, GError **errp)
{
    start_config.shutdown_pauses = true;
    return true;
}

static bool handle_action(const char *arg, GError **errp)
{
    static const struct {
        const char *key, *const values[8];
    } actions[] = {
        {"reboot", {"reset", "shutdown"}},
        {"shutdown", {"poweroff", "pause"}},
        {"panic", {"pause", "shutdown", "exit-failure", "none"}},
        {"watchdog", {"reset", "shutdown", "poweroff", "pause", "debug", "none", "inject-nmi"}},
    };
    g_autoptr(QemuOpts) opts = qemu_opts_parse(arg, NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(actions); i++) {
        const char *value = qemu_opts_get(opts, actions[i].key);

        if (value && !g_strv_contains(actions[i].values, value)) {
            error_setg(errp, "Parameter '%s' does not accept value '%s'", actions[i].key, value);
            return false;
        }
    }
    if (qemu_opts_get(opts, "reboot")) {
        start_config.reboot_ends = !strcmp(qemu_opts_get(opts, "reboot"), "shutdown");
    }
    if (qemu_opts_get(opts, "shutdown")) {
        start_config.shutdown_pauses = !strcmp(qemu_opts_get(opts, "shutdown"), "pause");
    }
    return qemu_opts_check_known(opts, errp);
}

static bool handle_boot(const char *arg, GError **errp)
{
    static const char *const keys[] = {"order",       "once",           "menu",  "splash",
                                       "splash-time", "reboot-timeout", "strict"};
    g_autoptr(QemuOpts) opts = qemu_opts_parse(arg, "order");

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        (void)qemu_opts_get(opts, keys[i]);
    }
    return qemu_opts_check_known(opts, errp);
}

/* "DRIVER.PROPERTY=VALUE" or "driver=...,property=...,value=..." */
static bool handle_global(const char *arg, GError **errp)
{
    const char *equals = strchr(arg, '='), *dot = memchr(arg, '.', equals ? equals - arg : 0);
    g_autofree char *driver = NULL, *property = NULL, *value = NULL;

    if (dot) {
        driver = g_strndup(arg, dot - arg);
        property = g_strndup(dot + 1, equals - dot - 1);
        value = g_strdup(equals + 1);
    } else {
        g_autoptr(QemuOpts) opts = qemu_opts_parse(arg, NULL);

        driver = g_strdup(qemu_opts_get(opts, "driver"));
        property = g_strdup(qemu_opts_get(opts, "property"));
        value = g_strdup(qemu_opts_get(opts, "value"));
        if (driver && property && value && !qemu_opts_check_known(opts, errp)) {
            return false;
        }
    }
    if (!driver || !property || !value) {
        error_setg(errp, "expected DRIVER.PROPERTY=VALUE");
        return false;
    }
    if (!strcmp(driver, "migration")) {
        return migration_settings_set_global(property, value, errp);
    }
    globals_add_user(driver, property, value);
    return true;
}

/* The last one counts. */
static bool handle_incoming(const char *arg, GError **errp)
{
    g_autoptr(MigrationAddress) addr = NULL;

    if (strcmp(arg, "defer") != 0) {
        addr = migration_incoming_arg_parse(arg, errp);
        if (!addr) {
            return false;
        }
    }
    start_config.incoming = arg;
    return true;
}

static bool handle_only_migratable(const char *arg, GError **errp)
{
    migrate_set_only_migratable(true);
    return true;
}

const QemuOption machine_options[] = {
    {"machine|M", GROUP_STANDARD, "none[,accel=qtest|kvm]",
     "the machine to be; \"help\" lists them", handle_machine},
    {"accel", GROUP_STANDARD, "qtest|kvm", "accelerator that runs the guest; \"help\" lists them",
     handle_accel},
    {"S", GROUP_STANDARD, NULL, "do not start the guest yet: wait for \"cont\"", handle_stopped},
    {"smp", GROUP_STANDARD, "[cpus=]n", "number of CPUs", handle_smp},
    {"kernel", GROUP_STANDARD, "file", "start this Multiboot kernel (microvm only)", handle_kernel},
    {"initrd", GROUP_STANDARD, "file", "the kernel's initial RAM disk, or modules", handle_initrd},
    {"append", GROUP_STANDARD, "text", "the kernel's command line", handle_append},
    {"m", GROUP_STANDARD, "[size=]megs[,slots=n,maxmem=size]", "how much memory the guest has",
     handle_memory},
    {"mem-path", GROUP_STANDARD, "path", "memory is a file at or in that path", handle_mem_path},
    {"mem-prealloc", GROUP_STANDARD, NULL, "take the host's memory at the start",
     handle_mem_prealloc},
    {"overcommit", GROUP_STANDARD, "[mem-lock=off][,cpu-pm=off]",
     "memory and CPUs are shared with the rest of the host", handle_overcommit},
    {"name", GROUP_STANDARD, "[guest=]name[,process=name][,debug-threads=on|off]",
     "name of the guest, and of the process", handle_name},
    {"uuid", GROUP_STANDARD, "uuid", "identity of the guest", handle_uuid},
    {"boot", GROUP_STANDARD, "[order=drives][,strict=on|off]...",
     "boot devices (the machine none does not boot)", handle_boot},
    {"display", GROUP_STANDARD, "none", "no picture", handle_display},
    {"nographic", GROUP_STANDARD, NULL,
     "no picture; without -nodefaults, a monitor on standard input and output", handle_nographic},
    {"global", GROUP_STANDARD, "driver.property=value",
     "default of a property of a device, or of \"migration\"", handle_global},
    {"incoming", GROUP_STANDARD, "uri|channel|defer",
     "wait for a guest: tcp:host:port, unix:path, vsock:cid:port, exec:command, fd:name, "
     "file:path[,offset=n]",
     handle_incoming},
    {"only-migratable", GROUP_STANDARD, NULL,
     "refuse disks and devices that would keep the guest from migrating", handle_only_migratable},
    {"action", GROUP_STANDARD, "reboot=...,shutdown=...,panic=...,watchdog=...",
     "answers to a guest that reboots, powers off, panics, or whose watchdog expires",
     handle_action},
    {"no-reboot", GROUP_STANDARD, NULL, "end instead of rebooting", handle_no_reboot},
    {"no-shutdown", GROUP_STANDARD, NULL, "stop instead of ending when the guest powers off",
     handle_no_shutdown},
    {NULL},
};
