/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * isa-debug-exit: a guest that writes VALUE to one of its ports ends the process with the status
 * (VALUE << 1 | 1) & 0xff. Reads give 0. The end is the orderly one: what the guest has written before is on its
 * disks and on its terminals, and the first write counts.
 */
#include "accel/runstate.h"
#include "hw/isa/isa.h"
#include "hw/types.h"

typedef struct DebugExitState {
    ISADevice parent;
    uint32_t iobase, iosize;
    MemoryRegion io;
} DebugExitState;

static uint64_t exit_port_read(void *opaque, hwaddr addr, unsigned size)
{
    return 0;
}

static void exit_port_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    if (qemu_shutdown_cause() == SHUTDOWN_CAUSE_NONE) {
        qemu_system_set_exit_status((int)((data << 1 | 1) & 0xff));
        qemu_system_shutdown_request(SHUTDOWN_CAUSE_GUEST_SHUTDOWN);
    }
}

/* Not a register table: a write of any width at any port is one value. */
static const MemoryRegionOps debug_exit_ops = {
    .read = exit_port_read,
    .write = exit_port_write,
    .guest = {.min = 1, .max = 4, .unaligned = true},
    .device = {.min = 1, .max = 4, .unaligned = true},
};

static bool coroutine_fn exit_port_co_realize(DeviceState *dev, GError **errp)
{
    DebugExitState *s = (DebugExitState *)dev;
    g_autofree char *path = device_path(dev);

    memory_region_init_io(&s->io, path, &debug_exit_ops, s, dev->class->name, s->iosize);
    return isa_register_ioport(dev, &s->io, s->iobase, errp);
}

static const Property debug_exit_properties[] = {
    DEFINE_PROP_UINT32("iobase", DebugExitState, iobase, 0x501),
    DEFINE_PROP_UINT32("iosize", DebugExitState, iosize, 2),
    {0},
};

DEFINE_DEVICE(isa_debug_exit_device, DebugExitState, NO_VMSTATE, .name = "isa-debug-exit",
              .parent = TYPE_ISA_DEVICE, .category = DEVICE_CATEGORY_MISC,
              .properties = debug_exit_properties, .co_realize = exit_port_co_realize);
