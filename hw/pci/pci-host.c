/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Configuration mechanism #1: a dword at 0xcf8 selects bus, device, function and register, and the
 * four ports at 0xcfc are that register. Specification: PCI Local Bus Specification 3.0, 3.2.2.3.2.
 */
#include "hw/pci/pci.h"
#include "util/int-math.h"

#define ADDRESS_ENABLE 0x80000000u

static uint64_t index_read(void *opaque, hwaddr addr, unsigned size)
{
    PCIHostPorts *ports = opaque;

    return ports->address;
}

static void index_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    PCIHostPorts *ports = opaque;

    ports->address = (uint32_t)data;
}

/* Only a whole dword reaches the register. */
static const MemoryRegionOps index_ops = {
    .read = index_read,
    .write = index_write,
    .guest = {.min = 4, .max = 4},
    .device = {.min = 4, .max = 4},
};

/* No bus below the root has been built. */
static bool selected(const PCIHostPorts *ports, uint8_t *devfn)
{
    *devfn = (uint8_t)(ports->address >> 8);
    return (ports->address & ADDRESS_ENABLE) && (ports->address >> 16 & 0xff) == ports->bus->number;
}

static uint64_t data_read(void *opaque, hwaddr addr, unsigned size)
{
    PCIHostPorts *ports = opaque;
    uint8_t devfn;

    if (!selected(ports, &devfn)) {
        return REGISTER_ALL(size);
    }
    return pci_bus_config_read(ports->bus, devfn, (ports->address & 0xfc) | (uint32_t)addr, size);
}

static void data_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    PCIHostPorts *ports = opaque;
    uint8_t devfn;

    if (selected(ports, &devfn)) {
        pci_bus_config_write(ports->bus, devfn, (ports->address & 0xfc) | (uint32_t)addr,
                             (uint32_t)data, size);
    }
}

static const MemoryRegionOps data_ops = {
    .read = data_read,
    .write = data_write,
    .guest = {.min = 1, .max = 4, .unaligned = true},
    .device = {.min = 1, .max = 4, .unaligned = true},
};

void pci_host_ports_init(PCIHostPorts *ports, const char *owner, PCIBus *bus)
{
    ports->bus = bus;
    memory_region_init_io(&ports->index, owner, &index_ops, ports, "pci-conf-idx", 4);
    memory_region_init_io(&ports->data, owner, &data_ops, ports, "pci-conf-data", 4);
}
