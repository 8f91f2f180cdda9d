/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Options that make things: disks, objects, character devices, monitors. Start-up makes them later,
 * in its own order.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/block.h"
#include "chardev/char-opts.h"
#include "hw/core/device-add.h"
#include "qapi/keyval.h"
#include "system/cmdline.h"
#include "system/objects.h"
#include "util/error.h"

static bool defer(GArray *list, const char *name, const char *arg)
{
    DeferredOption opt = {.name = name, .arg = arg};

    g_array_append_val(list, opt);
    return true;
}

static bool handle_blockdev(const char *arg, GError **errp)
{
    return defer(start_config.blockdevs, "blockdev", arg);
}

static bool handle_drive(const char *arg, GError **errp)
{
    if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
        option_print_parameters("drive");
        exit(0);
    }
    return defer(start_config.drives, "drive", arg);
}

/* A disk by its place among the default ones, with a file name that may have commas. */
static bool defer_disk(const char *name, int index, const char *media, const char *file)
{
    g_auto(GStrv) parts = g_strsplit(file, ",", -1);
    g_autofree char *escaped = g_strjoinv(",,", parts);

    /* lives as long as the other arguments */
    return defer(start_config.drives, name,
                 g_strdup_printf("index=%d,media=%s,file=%s", index, media, escaped));
}

static bool handle_hda(const char *arg, GError **errp)
{
    return defer_disk("hda", 0, "disk", arg);
}

static bool handle_hdb(const char *arg, GError **errp)
{
    return defer_disk("hdb", 1, "disk", arg);
}

static bool handle_hdc(const char *arg, GError **errp)
{
    return defer_disk("hdc", 2, "disk", arg);
}

static bool handle_hdd(const char *arg, GError **errp)
{
    return defer_disk("hdd", 3, "disk", arg);
}

static bool handle_cdrom(const char *arg, GError **errp)
{
    return defer_disk("cdrom", 2, "cdrom", arg);
}

static bool handle_snapshot(const char *arg, GError **errp)
{
    start_config.snapshot = true;
    return true;
}

static bool handle_object(const char *arg, GError **errp)
{
    if (!g_strcmp0(arg, "help") || !g_strcmp0(arg, "?")) {
        objects_print_types();
        exit(0);
    }
    return defer(start_config.objects, "object", arg);
}

static bool handle_chardev(const char *arg, GError **errp)
{
    if (!g_strcmp0(arg, "help") || !g_strcmp0(arg, "?")) {
        chardev_print_kinds();
        exit(0);
    }
    return defer(start_config.chardevs, "chardev", arg);
}

/* "help", "TYPE,help", or a device for start-up to make. */
static bool handle_device(const char *arg, GError **errp)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *text = NULL;
    bool help = false;

    if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
        text = device_help();
    } else {
        QapiDecodeFlags flags;
        json_object *json = keyval_parse_or_json(arg, "driver", &help, &flags, NULL), *driver;

        if (help && json && json_object_object_get_ex(json, "driver", &driver)) {
            text = device_type_help(json_object_get_string(driver), &err);
        }
        json_object_put(json);
    }
    if (err) {
        error_report("-device %s: %s", arg, err->message);
        exit(0); /* as stock has it */
    }
    if (text) {
        fputs(text, stdout);
        fflush(stdout);
        exit(0);
    }
    return defer(start_config.devices, "device", arg);
}

static bool handle_mon(const char *arg, GError **errp)
{
    return defer(start_config.monitors, "mon", arg);
}

static bool handle_qmp(const char *arg, GError **errp)
{
    return defer(start_config.monitors, "qmp", arg);
}

static bool handle_qtest(const char *arg, GError **errp)
{
    start_config.qtest = arg;
    return true;
}

static bool handle_qtest_log(const char *arg, GError **errp)
{
    start_config.qtest_log = arg;
    return true;
}

static bool handle_qmp_pretty(const char *arg, GError **errp)
{
    return defer(start_config.monitors, "qmp-pretty", arg);
}

static bool handle_monitor(const char *arg, GError **errp)
{
    return defer(start_config.monitors, "monitor", arg);
}

static bool only_none(const char *arg, const char *what, GError **errp)
{
    if (strcmp(arg, "none") != 0) {
        error_setg(errp, "Ferry has no %s yet; only 'none' is accepted", what);
        return false;
    }
    return true;
}

static bool handle_serial(const char *arg, GError **errp)
{
    return only_none(arg, "serial ports", errp);
}

static bool handle_parallel(const char *arg, GError **errp)
{
    return only_none(arg, "parallel ports", errp);
}

static bool handle_network(const char *arg, GError **errp)
{
    return only_none(arg, "network devices", errp);
}

static bool handle_nodefaults(const char *arg, GError **errp)
{
    start_config.no_defaults = true;
    return true;
}

static bool handle_no_user_config(const char *arg, GError **errp)
{
    return true; /* there are no configuration files */
}

const QemuOption device_options[] = {
    {"blockdev", GROUP_BLOCK, "driver=...,node-name=...[,option...]",
     "open a disk as a node (or JSON)", handle_blockdev},
    {"drive", GROUP_BLOCK, "file=...,if=none,id=...[,format=...]...",
     "open a disk; if=none: for a -device to name", handle_drive},
    {"hda", GROUP_BLOCK, "file", "the first disk, of the machine's usual kind", handle_hda},
    {"hdb", GROUP_BLOCK, "file", "the second disk", handle_hdb},
    {"hdc", GROUP_BLOCK, "file", "the third disk", handle_hdc},
    {"hdd", GROUP_BLOCK, "file", "the fourth disk", handle_hdd},
    {"cdrom", GROUP_BLOCK, "file", "a CD, in the place of the third disk", handle_cdrom},
    {"snapshot", GROUP_BLOCK, NULL, "writes to -drive disks are dropped when the process ends",
     handle_snapshot},
    {"qmp", GROUP_CONTROL, "dev",
     "QMP on unix:PATH, tcp:HOST:PORT, stdio...; [,server=on,wait=off] to listen", handle_qmp},
    {"qtest", GROUP_DEBUG, "dev", "serve a test that plays the guest, on a character device",
     handle_qtest},
    {"qtest-log", GROUP_DEBUG, "file", "log of that (default: standard error; none)",
     handle_qtest_log},
    {"qmp-pretty", GROUP_CONTROL, "dev", "the same with indented output", handle_qmp_pretty},
    {"monitor", GROUP_CONTROL, "dev|none", "HMP: commands for people", handle_monitor},
    {"mon", GROUP_CONTROL, "chardev=id[,mode=readline|control][,pretty=on]",
     "a monitor on a character device", handle_mon},
    {"chardev", GROUP_CONTROL, "type,id=...[,option...]",
     "a character device; \"help\" lists the types", handle_chardev},
    {"serial", GROUP_STANDARD, "none", "no serial port", handle_serial},
    {"parallel", GROUP_STANDARD, "none", "no parallel port", handle_parallel},
    {"nic|net", GROUP_STANDARD, "none", "no network device", handle_network},
    {"device", GROUP_STANDARD, "driver[,id=...][,bus=...][,property=value...]",
     "a device (or JSON); \"help\" lists the types, \"driver,help\" the properties", handle_device},
    {"object", GROUP_CONTROL, "type,id=...[,option...]", "an object; \"help\" lists the types",
     handle_object},
    {"nodefaults", GROUP_CONTROL, NULL, "make no default devices and monitors", handle_nodefaults},
    {"no-user-config", GROUP_CONTROL, NULL, "read no configuration files (there are none)",
     handle_no_user_config},
    {NULL},
};
