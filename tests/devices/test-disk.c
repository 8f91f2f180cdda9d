/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A disk with several queues that exists in the tests alone. Its registers: test-machine.h. */
#include <errno.h>
#include "accel/runstate.h"
#include "hw/core/reset.h"
#include "memory/address-space.h"
#include "tests/devices/disk-load.h"
#include "tests/devices/test-machine.h"
#include "util/co-lock.h"
#include "util/error.h"
#include "util/iothread.h"

#define CONTROL_LOAD  0x01
#define STATUS_LOAD   0x01
#define STATUS_DIRECT 0x02

typedef struct DiskState {
    PCIDevice parent;
    /* properties */
    uint32_t iobase;
    BlockBackend *drive;
    char *iothreads; /* ids, with colons between them */
    /* state */
    uint8_t control;
    bool wanted; /* atomic: the load is to go on */
    bool running;
    uint32_t generation;
    uint32_t stops; /* of the load; those that a reset made do not count */
    DiskLoad *load;
    DiskLoadState *load_state; /* the load's */
    CoQueue gone;
    RegisterBank bank;
} DiskState;

/* --- the load --- */

static bool load_may_go_on(void *opaque)
{
    DiskState *s = opaque;

    return __atomic_load_n(&s->wanted, __ATOMIC_ACQUIRE) && !device_is_resetting(&s->parent.qdev);
}

static void start_or_stop(DiskState *s)
{
    bool wanted = s->running && (s->control & CONTROL_LOAD);

    __atomic_store_n(&s->wanted, wanted, __ATOMIC_RELEASE);
    if (wanted && !disk_load_is_running(s->load) &&
        device_request_begin(&s->parent.qdev, &s->generation)) {
        disk_load_start(s->load);
    }
}

static void load_gone(void *opaque)
{
    DiskState *s = opaque;

    s->stops += device_request_end(&s->parent.qdev, s->generation);
    qemu_co_queue_restart_all(&s->gone);
    if (s->parent.qdev.phase == DEVICE_REALIZED) {
        start_or_stop(s); /* the guest may want it again by now */
    }
}

static const DiskLoadOps load_ops = {.may_go_on = load_may_go_on, .gone = load_gone};

/* --- registers --- */

static void control_written(void *state, const RegisterWrite *write)
{
    start_or_stop(state);
}

static uint64_t status_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    DiskState *s = state;

    return (disk_load_is_running(s->load) ? STATUS_LOAD : 0) |
           (blk_is_direct(s->drive) ? STATUS_DIRECT : 0);
}

static uint64_t ended_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    DiskState *s = state;

    return disk_load_ended_in_each(s->load);
}

static uint64_t bad_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    DiskState *s = state;

    return disk_load_bad(s->load);
}

static uint64_t contents_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    DiskState *s = state;
    g_autofree char *sum =
        g_compute_checksum_for_data(G_CHECKSUM_MD5, s->load_state->contents, LOAD_BYTES);

    return g_ascii_strtoull(sum + strlen(sum) - 8, NULL, 16);
}

static const RegisterRow rows[] = {
    REGISTER(0, DiskState, control, "CONTROL", .writable = CONTROL_LOAD, .write = control_written),
    REGISTER_HOOKS(1, 1, "STATUS", .read = status_read),
    REGISTER_HOOKS(4, 4, "ENDED", .read = ended_read),
    REGISTER_HOOKS(8, 4, "BAD", .read = bad_read),
    REGISTER_HOOKS(12, 4, "CONTENTS", .read = contents_read),
};
static const RegisterTable table = {"test-disk", rows, G_N_ELEMENTS(rows)};

static void disk_reset_enter(DeviceState *dev)
{
    register_table_reset(&table, dev);
}

static void disk_run_state_changed(DeviceState *dev, bool running)
{
    DiskState *s = (DiskState *)dev;

    s->running = running;
    start_or_stop(s);
}

/* --- realizing --- */

static bool find_contexts(DiskState *s, AioContext **ctxs, unsigned *n, GError **errp)
{
    g_auto(GStrv) ids = g_strsplit(s->iothreads ? s->iothreads : "", ":", LOAD_QUEUES_MAX + 1);

    *n = g_strv_length(ids);
    if (*n == 0 || *n > LOAD_QUEUES_MAX) {
        error_setg(errp, "iothreads must have 1 to %d names", LOAD_QUEUES_MAX);
        return false;
    }
    for (unsigned i = 0; i < *n; i++) {
        IOThread *iothread = iothread_by_id(ids[i]);

        if (!iothread) {
            error_setg(errp, "iothread '%s' not found", ids[i]);
            return false;
        }
        ctxs[i] = iothread_get_aio_context(iothread);
    }
    return true;
}

static void free_load(void *opaque)
{
    DiskState *s = opaque;

    g_clear_pointer(&s->load, disk_load_free);
}

static char *disk_get_desc(void *opaque)
{
    DiskState *s = opaque;
    g_autofree char *path = device_path(&s->parent.qdev);

    return g_strdup_printf("disk '%s'", path);
}

static const BlockDevOps block_ops = {.get_desc = disk_get_desc};

static bool coroutine_fn disk_co_realize(DeviceState *dev, GError **errp)
{
    DiskState *s = (DiskState *)dev;
    g_autofree char *path = device_path(dev);
    AioContext *ctxs[LOAD_QUEUES_MAX];
    unsigned n;

    if (!s->drive) {
        error_setg(errp, "drive is needed");
        return false;
    }
    if (!find_contexts(s, ctxs, &n, errp) ||
        !blk_set_perm(s->drive, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL, errp)) {
        return false;
    }
    blk_set_allow_inactive(s->drive, true);
    blk_set_dev_ops(s->drive, &block_ops, s);
    qemu_co_queue_init(&s->gone);
    s->running = runstate_is_running();
    s->load = disk_load_new(s->drive, ctxs, n, &load_ops, s);
    s->load_state = disk_load_state(s->load);
    device_on_unrealize(dev, free_load, s);
    register_bank_init(&s->bank, path, &table, s, 16);
    device_map_region(dev, get_system_io(), s->iobase, &s->bank.region);
    return blk_co_bind_contexts(s->drive, ctxs, n, true, errp);
}

static void coroutine_fn disk_co_unrealize(DeviceState *dev)
{
    DiskState *s = (DiskState *)dev;

    while (disk_load_is_running(s->load)) {
        qemu_co_queue_wait(&s->gone, NULL);
    }
    blk_co_unbind_context(s->drive);
}

/* --- migration --- */

static int loaded(void *opaque, int version_id, GError **errp)
{
    DiskState *s = opaque;

    if (s->control & ~CONTROL_LOAD) {
        error_setg(errp, "reserved bits are set");
        return -EINVAL;
    }
    return 0;
}

static const VMStateField disk_fields[] = {
    VMSTATE_PCI_DEVICE(parent, DiskState), VMSTATE_UINT8(control, DiskState),
    VMSTATE_STRUCT_POINTER(load_state, DiskState, vmstate_disk_load, DiskLoadState),
    VMSTATE_END_OF_LIST()};

static const VMStateDescription vmstate_test_disk = {
    .name = "test-disk",
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = loaded,
    .fields = disk_fields,
};

/* --- the type --- */

static const Property disk_properties[] = {
    DEFINE_PROP_UINT32("iobase", DiskState, iobase, 0x320, .max = 0xfff0),
    DEFINE_PROP_DRIVE("drive", DiskState, drive),
    DEFINE_PROP_STRING("iothreads", DiskState, iothreads),
    {0},
};

static const PCIDeviceInfo disk_info = {
    .vendor_id = 0x1b36, .device_id = 0x00fe, .class_id = 0x0180};

DEFINE_DEVICE(test_disk_device, DiskState, &vmstate_test_disk, .name = "test-disk",
              .parent = TYPE_PCI_DEVICE, .desc = "a disk with several queues, for tests",
              .properties = disk_properties, .bus_info = &disk_info, .co_realize = disk_co_realize,
              .co_unrealize = disk_co_unrealize, .reset_enter = disk_reset_enter,
              .run_state_changed = disk_run_state_changed);
