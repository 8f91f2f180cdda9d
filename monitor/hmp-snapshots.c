/* SPDX-License-Identifier: GPL-2.0-or-later */
/* HMP "info snapshots": which snapshots the whole machine has, and which only some of its disks. */
#include <string.h>
#include <time.h>
#include "block/qmp/snapshot-internal.h"
#include "monitor/hmp-int.h"
#include "monitor/hmp.h"
#include "util/cutils.h"

static void print_heading(HMPOutput *out)
{
    hmp_printf(out, "%-9s %-16s %8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK",
               "ICOUNT");
}

/* Names come out of images, and the reader may be a terminal. */
static char *printable(const char *name)
{
    char *copy = g_strdup(name);

    for (char *p = copy; *p; p++) {
        *p = g_ascii_iscntrl(*p) ? '?' : *p;
    }
    return copy;
}

static void print_snapshot(HMPOutput *out, const SnapshotInfo *sn, const char *id)
{
    g_autofree char *tag = printable(sn->name), *number = printable(id);
    g_autofree char *size = size_to_str((uint64_t)sn->vm_state_size);
    g_autofree char *vm_clock = g_strdup_printf(
        "%02" PRId64 ":%02" PRId64 ":%02" PRId64 ".%03" PRId64, sn->vm_clock_sec / 3600,
        sn->vm_clock_sec / 60 % 60, sn->vm_clock_sec % 60, sn->vm_clock_nsec / 1000000);
    g_autofree char *icount =
        sn->has_icount ? g_strdup_printf("%" PRId64, sn->icount) : g_strdup("");
    time_t date = (time_t)sn->date_sec;
    char when[32] = "";
    struct tm tm;

    if (localtime_r(&date, &tm)) {
        strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
    }
    hmp_printf(out, "%-9s %-16s %8s%20s%13s%11s\n", number, tag, size, when, vm_clock, icount);
}

static bool has_snapshot(const SnapshotDisk *disk, const char *name)
{
    for (const SnapshotInfoList *e = disk->snapshots; e; e = e->next) {
        if (!strcmp(e->value->name, name)) {
            return true;
        }
    }
    return false;
}

static bool on_all(GPtrArray *disks, const char *name)
{
    for (guint i = 0; i < disks->len; i++) {
        if (!has_snapshot(g_ptr_array_index(disks, i), name)) {
            return false;
        }
    }
    return true;
}

/* Those of the disk that would hold the machine's state: on each disk the numbers differ. */
static void print_whole(HMPOutput *out, GPtrArray *disks, const SnapshotDisk *first)
{
    bool any = false;

    hmp_printf(out, "List of snapshots present on all disks:\n");
    for (const SnapshotInfoList *e = first->snapshots; e; e = e->next) {
        if (on_all(disks, e->value->name)) {
            if (!any) {
                print_heading(out);
            }
            any = true;
            print_snapshot(out, e->value, "--");
        }
    }
    if (!any) {
        hmp_printf(out, "None\n");
    }
}

static void print_partial(HMPOutput *out, GPtrArray *disks, const SnapshotDisk *disk)
{
    bool any = false;

    for (const SnapshotInfoList *e = disk->snapshots; e; e = e->next) {
        if (!on_all(disks, e->value->name)) {
            if (!any) {
                hmp_printf(out, "\nList of partial (non-loadable) snapshots on '%s':\n",
                           disk->name);
                print_heading(out);
            }
            any = true;
            print_snapshot(out, e->value, e->value->id);
        }
    }
}

static void coroutine_fn info_snapshots(HMPOutput *out, const HMPCommand *cmd, int argc,
                                        char **argv)
{
    g_autoptr(GPtrArray) disks = bdrv_co_snapshot_disks();
    const SnapshotDisk *first = NULL;
    bool any = false;

    for (guint i = 0; i < disks->len; i++) {
        const SnapshotDisk *disk = g_ptr_array_index(disks, i);

        first = first || !disk->can_snapshot ? first : disk;
        any |= disk->snapshots != NULL;
    }
    if (!first) {
        hmp_printf(out, "no block device can store vmstate for snapshot\n");
        return;
    }
    if (!any) {
        hmp_printf(out, "There is no snapshot available.\n");
        return;
    }
    print_whole(out, disks, first);
    for (guint i = 0; i < disks->len; i++) {
        print_partial(out, disks, g_ptr_array_index(disks, i));
    }
}

void hmp_register_snapshot_commands(void)
{
    static const HMPCommand info = {"snapshots", "", "snapshots inside the disks' images",
                                    info_snapshots};

    hmp_register_info(&info);
}
