/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PCI buses and devices: addresses, the standard properties, interrupt pins, DMA. */
#include "hw/pci/pci.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "memory/address-space.h"
#include "util/cutils.h"
#include "util/error.h"
#include "util/int-math.h"

/* Bits of PCIDevice.flags. */
enum {
    FLAG_MULTIFUNCTION,
    FLAG_LNKSTA_DLLLA,
    FLAG_EXTCAP_INIT,
};

static bool is_multifunction(const PCIDevice *dev)
{
    return dev->flags >> FLAG_MULTIFUNCTION & 1;
}

PCIBus *pci_bus_of(const PCIDevice *dev)
{
    return (PCIBus *)dev->qdev.parent_bus;
}

const PCIDeviceInfo *pci_device_info(const PCIDevice *dev)
{
    const DeviceClass *class = dev->qdev.class;

    while (!class->bus_info) {
        class = device_class_parent(class);
    }
    return class->bus_info;
}

/* --- the property "addr" --- */

/* "SLOT[.FUNCTION]", hexadecimal. -1: it is something else. */
static int parse_devfn(const char *text)
{
    const char *dot = strchr(text, '.');
    g_autofree char *first = dot ? g_strndup(text, dot - text) : g_strdup(text);
    uint64_t slot, function = 0;

    if (qemu_strtou64(first, NULL, 16, &slot) < 0 || slot >= PCI_SLOTS ||
        (dot && (qemu_strtou64(dot + 1, NULL, 16, &function) < 0 || function >= PCI_FUNCTIONS))) {
        return -1;
    }
    return PCI_DEVFN((int)slot, (int)function);
}

static bool set_devfn(DeviceState *dev, const Property *prop, void *slot, json_object *value,
                      PropertySource source, GError **errp)
{
    int devfn;

    if (json_object_is_type(value, json_type_int)) {
        int64_t number = json_object_get_int64(value);

        devfn = number >= -1 && number < PCI_SLOTS * PCI_FUNCTIONS ? (int)number : -2;
    } else {
        devfn = parse_devfn(property_text(value));
        devfn = devfn < 0 ? -2 : devfn;
    }
    if (devfn == -2) {
        return property_refuse(dev, prop, property_text(value), errp);
    }
    *(int32_t *)slot = devfn;
    return true;
}

static json_object *get_devfn(DeviceState *dev, const Property *prop, const void *slot)
{
    return json_object_new_int(*(const int32_t *)slot);
}

static char *print_devfn(DeviceState *dev, const Property *prop, const void *slot)
{
    int32_t devfn = *(const int32_t *)slot;

    return devfn < 0 ? g_strdup("<unset>")
                     : g_strdup_printf("%02x.%x", PCI_SLOT(devfn), PCI_FUNC(devfn));
}

static void default_devfn(const Property *prop, void *slot)
{
    *(int32_t *)slot = -1;
}

static json_object *show_default_devfn(const Property *prop)
{
    return json_object_new_int(-1);
}

static const PropertyKind property_devfn = {
    .name = "int32",
    .description = "Slot and optional function number, example: 06.0 or 06",
    .set = set_devfn,
    .get = get_devfn,
    .print = print_devfn,
    .set_default = default_devfn,
    .get_default = show_default_devfn,
};

/* --- buses --- */

static bool slot_is_free(const PCIBus *bus, unsigned slot)
{
    for (unsigned fn = 0; fn < PCI_FUNCTIONS; fn++) {
        if (bus->devices[PCI_DEVFN(slot, fn)]) {
            return false;
        }
    }
    return true;
}

static int free_slot(const PCIBus *bus)
{
    for (unsigned slot = bus->first_slot; slot < PCI_SLOTS; slot++) {
        if (slot_is_free(bus, slot)) {
            return (int)slot;
        }
    }
    return -1;
}

/* Function 0 says whether there are others. */
static bool functions_agree(const PCIBus *bus, const PCIDevice *dev, GError **errp)
{
    unsigned slot = PCI_SLOT(dev->devfn), fn = PCI_FUNC(dev->devfn);
    const PCIDevice *first = bus->devices[PCI_DEVFN(slot, 0)];

    if (fn && first && !is_multifunction(first)) {
        error_setg(errp, "PCI: single function device can't be populated in function %x.%x", slot,
                   fn);
        return false;
    }
    for (unsigned other = 1; !fn && !is_multifunction(dev) && other < PCI_FUNCTIONS; other++) {
        if (bus->devices[PCI_DEVFN(slot, other)]) {
            error_setg(errp, "PCI: %x.0 indicates single function, but %x.%x is already populated.",
                       slot, slot, other);
            return false;
        }
    }
    return true;
}

static bool pci_plug(BusState *qbus, DeviceState *qdev, GError **errp)
{
    PCIBus *bus = (PCIBus *)qbus;
    PCIDevice *dev = (PCIDevice *)qdev, *other;

    if (dev->devfn < 0) {
        int slot = free_slot(bus);

        if (slot < 0) {
            error_setg(errp, "PCI: no slot/function available for %s, all in use or reserved",
                       qdev->class->name);
            return false;
        }
        dev->devfn = PCI_DEVFN(slot, 0);
    }
    other = bus->devices[dev->devfn];
    if (other) {
        error_setg(errp, "PCI: slot %d function %d not available for %s, in use by %s,id=%s",
                   PCI_SLOT(dev->devfn), PCI_FUNC(dev->devfn), qdev->class->name,
                   other->qdev.class->name, other->qdev.id ? other->qdev.id : "(null)");
        return false;
    }
    if (!functions_agree(bus, dev, errp)) {
        return false;
    }
    bus->devices[dev->devfn] = dev;
    return true;
}

static void pci_unplug(BusState *qbus, DeviceState *qdev)
{
    ((PCIBus *)qbus)->devices[((PCIDevice *)qdev)->devfn] = NULL;
}

static bool pci_has_room(BusState *qbus)
{
    return free_slot((PCIBus *)qbus) >= 0;
}

static char *pci_section_path(DeviceState *qdev)
{
    PCIDevice *dev = (PCIDevice *)qdev;

    return g_strdup_printf("0000:%02x:%02x.%x", pci_bus_of(dev)->number, PCI_SLOT(dev->devfn),
                           PCI_FUNC(dev->devfn));
}

static const char *class_name(uint16_t class_id)
{
    static const struct {
        uint16_t id;
        const char *name;
    } names[] = {
        {0x0100, "SCSI controller"},     {0x0101, "IDE controller"}, {0x0106, "SATA controller"},
        {0x0200, "Ethernet controller"}, {0x0300, "VGA controller"}, {0x0600, "Host bridge"},
        {0x0601, "ISA bridge"},          {0x0604, "PCI bridge"},     {0x0680, "Bridge"},
        {0x0c03, "USB controller"},      {0x0c05, "SMBus"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        if (names[i].id == class_id) {
            return names[i].name;
        }
    }
    return NULL;
}

static void pci_print_device(DeviceState *qdev, GString *out, int indent)
{
    PCIDevice *dev = (PCIDevice *)qdev;
    uint16_t class_id;
    char unknown[16];

    if (!device_is_realized(qdev)) {
        return;
    }
    class_id = pci_get_word(dev->config + PCI_CLASS_DEVICE);
    snprintf(unknown, sizeof(unknown), "Class %04x", class_id);
    g_string_append_printf(
        out, "%*sclass %s, addr %02x:%02x.%x, pci id %04x:%04x (sub %04x:%04x)\n", indent, "",
        class_name(class_id) ? class_name(class_id) : unknown, pci_bus_of(dev)->number,
        PCI_SLOT(dev->devfn), PCI_FUNC(dev->devfn), pci_get_word(dev->config + PCI_VENDOR_ID),
        pci_get_word(dev->config + PCI_DEVICE_ID),
        pci_get_word(dev->config + PCI_SUBSYSTEM_VENDOR_ID),
        pci_get_word(dev->config + PCI_SUBSYSTEM_ID));
    for (unsigned n = 0; n < PCI_REGIONS; n++) {
        const PCIRegion *region = &dev->regions[n];

        if (region->mr) {
            g_string_append_printf(out, "%*sbar %u: %s at 0x%" PRIx64 " [0x%" PRIx64 "]\n", indent,
                                   "", n, region->type & PCI_BASE_ADDRESS_SPACE_IO ? "i/o" : "mem",
                                   region->addr, region->addr + region->size - 1);
        }
    }
}

static const BusClass pci_bus_class = {
    .name = TYPE_PCI_BUS,
    .instance_size = sizeof(PCIBus),
    .plug = pci_plug,
    .unplug = pci_unplug,
    .has_room = pci_has_room,
    .section_path = pci_section_path,
    .print_device = pci_print_device,
};

PCIBus *pci_bus_new(DeviceState *bridge, const char *name, MemoryRegion *memory, MemoryRegion *io)
{
    PCIBus *bus = (PCIBus *)bus_new(&pci_bus_class, bridge, name);

    bus->memory = memory;
    bus->io = io;
    return bus;
}

static unsigned swizzle(PCIDevice *dev, unsigned pin)
{
    return (PCI_SLOT(dev->devfn) + pin) % PCI_PINS;
}

void pci_bus_set_irqs(PCIBus *bus, const qemu_irq *irqs,
                      unsigned (*map_irq)(PCIDevice *dev, unsigned pin))
{
    bus->irqs = irqs;
    bus->map_irq = map_irq ? map_irq : swizzle;
}

/* --- reaching the configuration space --- */

static PCIDevice *device_at(PCIBus *bus, uint8_t devfn)
{
    PCIDevice *dev = bus->devices[devfn];

    return dev && device_is_realized(&dev->qdev) ? dev : NULL;
}

uint32_t pci_bus_config_read(PCIBus *bus, uint8_t devfn, uint32_t addr, unsigned len)
{
    PCIDevice *dev = device_at(bus, devfn);

    return (dev ? pci_config_read(dev, addr, len) : UINT32_MAX) & (uint32_t)REGISTER_ALL(len);
}

void pci_bus_config_write(PCIBus *bus, uint8_t devfn, uint32_t addr, uint32_t value, unsigned len)
{
    PCIDevice *dev = device_at(bus, devfn);

    if (dev) {
        pci_config_write(dev, addr, value, len);
    }
}

/* --- interrupts and DMA --- */

void pci_update_pin(PCIDevice *dev)
{
    bool masked = pci_get_word(dev->config + PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE;

    if (dev->intx) {
        dev->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
    } else {
        dev->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
    }
    qemu_set_irq(&dev->pin, dev->intx && !masked);
}

void pci_set_irq(PCIDevice *dev, int level)
{
    dev->intx = level;
    pci_update_pin(dev);
}

static MemTxResult dma(PCIDevice *dev, hwaddr addr, void *buf, uint64_t len, bool is_write)
{
    MemTxAttrs attrs = {.requester_id =
                            (uint16_t)(pci_bus_of(dev)->number << 8 | (uint8_t)dev->devfn)};

    if (!(pci_get_word(dev->config + PCI_COMMAND) & PCI_COMMAND_MASTER)) {
        return MEMTX_ACCESS_ERROR;
    }
    return address_space_rw(get_address_space_memory(), addr, attrs, buf, len, is_write);
}

MemTxResult pci_dma_read(PCIDevice *dev, hwaddr addr, void *buf, uint64_t len)
{
    return dma(dev, addr, buf, len, false);
}

MemTxResult pci_dma_write(PCIDevice *dev, hwaddr addr, const void *buf, uint64_t len)
{
    return dma(dev, addr, (void *)buf, len, true);
}

/* --- the class of all PCI devices --- */

static void give_up(void *opaque)
{
    PCIDevice *dev = opaque;

    irq_line_clear(&dev->pin);
    pci_config_free(dev);
    memset(dev->regions, 0, sizeof(dev->regions));
}

static bool coroutine_fn pci_co_realize(DeviceState *qdev, GError **errp)
{
    PCIDevice *dev = (PCIDevice *)qdev;
    const PCIDeviceInfo *info = pci_device_info(dev);
    PCIBus *bus = pci_bus_of(dev);

    if (dev->romfile && *dev->romfile) {
        error_setg(errp, "failed to find romfile \"%s\": option ROMs are not built", dev->romfile);
        return false;
    }
    pci_config_init(dev, info, is_multifunction(dev));
    irq_line_init(&dev->pin, NULL, NULL, 0);
    if (bus->irqs && info->interrupt_pin) {
        irq_connect(&dev->pin, bus->irqs[bus->map_irq(dev, info->interrupt_pin - 1U)]);
    }
    device_on_unrealize(qdev, give_up, dev);
    return true;
}

static void pci_reset_enter(DeviceState *qdev)
{
    PCIDevice *dev = (PCIDevice *)qdev;

    dev->intx = false;
    pci_config_reset(dev);
}

static void pci_reset_exit(DeviceState *qdev)
{
    pci_update_mappings((PCIDevice *)qdev);
    pci_update_pin((PCIDevice *)qdev);
}

static void pci_init(DeviceState *qdev)
{
    ((PCIDevice *)qdev)->version_id = 2;
}

#define PCI_FLAG(_name, _bit, _default) DEFINE_PROP_BIT(_name, PCIDevice, flags, _bit, _default)
static const Property pci_properties[] = {
    DEFINE_PROP_OBJECT("addr", property_devfn, PCIDevice, devfn, int32_t, .has_default = true),
    DEFINE_PROP_STRING("romfile", PCIDevice, romfile),
    DEFINE_PROP_UINT32("romsize", PCIDevice, romsize, UINT32_MAX),
    DEFINE_PROP_UINT32("rombar", PCIDevice, rombar, 1),
    PCI_FLAG("multifunction", FLAG_MULTIFUNCTION, false),
    PCI_FLAG("x-pcie-lnksta-dllla", FLAG_LNKSTA_DLLLA, true),
    PCI_FLAG("x-pcie-extcap-init", FLAG_EXTCAP_INIT, true),
    DEFINE_PROP_STRING("failover_pair_id", PCIDevice, failover_pair_id),
    DEFINE_PROP_UINT32("acpi-index", PCIDevice, acpi_index, 0),
    {0},
};

static DEFINE_ABSTRACT_DEVICE(pci_device, PCIDevice, .name = TYPE_PCI_DEVICE, .bus = TYPE_PCI_BUS,
                              .properties = pci_properties, .init = pci_init,
                              .co_realize = pci_co_realize, .reset_enter = pci_reset_enter,
                              .reset_exit = pci_reset_exit);

void pci_register_types(void)
{
    bus_class_register(&pci_bus_class);
    device_class_register(&pci_device);
}
