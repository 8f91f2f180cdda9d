/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ISA bus: I/O ports, memory below 1 MiB and 16 interrupt lines, without addresses of devices' own: each
 * device says which ports it takes.
 */
#ifndef FERRY_HW_ISA_ISA_H
#define FERRY_HW_ISA_ISA_H

#include "hw/core/bus.h"

#define TYPE_ISA_BUS    "ISA"
#define TYPE_ISA_DEVICE "isa-device"
#define ISA_NUM_IRQS    16

typedef struct ISABus {
    BusState qbus;
    MemoryRegion *memory, *io;   /* the bridge's */
    qemu_irq irqs[ISA_NUM_IRQS]; /* NULL: not wired */
} ISABus;

typedef struct ISADevice {
    DeviceState qdev;
} ISADevice;

/* The bus "isa.N" of a bridge. */
ISABus *isa_bus_new(DeviceState *bridge, MemoryRegion *memory, MemoryRegion *io);
/* Where its lines lead: an array of ISA_NUM_IRQS. */
void isa_bus_register_input_irqs(ISABus *bus, const qemu_irq *irqs);

ISABus *isa_bus_of(DeviceState *dev);
/* Of co_realize: an output of the device drives line n. False and errp: there is no such line. */
bool isa_connect_irq(DeviceState *dev, IRQLine *out, unsigned n, GError **errp);
/* Of co_realize: places a region at a port. False and errp: the ports end below. */
bool isa_register_ioport(DeviceState *dev, MemoryRegion *mr, uint32_t port, GError **errp);

void isa_register_types(void);

#endif
