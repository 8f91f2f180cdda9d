/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ISA bus. */
#include "hw/isa/isa.h"

#include <inttypes.h>
#include "util/error.h"

#define ISA_PORTS 0x10000

static const BusClass isa_bus_class = {.name = TYPE_ISA_BUS, .instance_size = sizeof(ISABus)};

static DEFINE_ABSTRACT_DEVICE(isa_device, ISADevice, .name = TYPE_ISA_DEVICE, .bus = TYPE_ISA_BUS);

ISABus *isa_bus_new(DeviceState *bridge, MemoryRegion *memory, MemoryRegion *io)
{
    ISABus *bus = (ISABus *)bus_new(&isa_bus_class, bridge, "isa.0");

    bus->memory = memory;
    bus->io = io;
    return bus;
}

void isa_bus_register_input_irqs(ISABus *bus, const qemu_irq *irqs)
{
    for (unsigned i = 0; i < ISA_NUM_IRQS; i++) {
        bus->irqs[i] = irqs[i];
    }
}

ISABus *isa_bus_of(DeviceState *dev)
{
    return (ISABus *)dev->parent_bus;
}

bool isa_connect_irq(DeviceState *dev, IRQLine *out, unsigned n, GError **errp)
{
    ISABus *bus = isa_bus_of(dev);

    if (n >= ISA_NUM_IRQS) {
        error_setg(errp, "Invalid ISA IRQ %u, which must be in range 0..%u", n, ISA_NUM_IRQS - 1);
        return false;
    }
    if (bus->irqs[n]) {
        irq_connect(out, bus->irqs[n]);
    }
    return true;
}

bool isa_register_ioport(DeviceState *dev, MemoryRegion *mr, uint32_t port, GError **errp)
{
    uint64_t size = memory_region_size(mr);

    if (!size || port >= ISA_PORTS || size > ISA_PORTS - port) {
        error_setg(errp, "%s: I/O ports 0x%" PRIx32 "..0x%" PRIx64 " are not within 0..0x%x",
                   dev->class->name, port, port + size - 1, ISA_PORTS - 1);
        memory_region_destroy(mr);
        return false;
    }
    device_map_region(dev, isa_bus_of(dev)->io, port, mr);
    return true;
}

void isa_register_types(void)
{
    bus_class_register(&isa_bus_class);
    device_class_register(&isa_device);
}
