/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Configuration space: what a guest may change in it, BARs, and how it travels. */
#include <stddef.h>
#include <string.h>
#include "hw/pci/pci.h"
#include "util/error.h"
#include "util/int-math.h"

#define DEFAULT_SUBSYSTEM_VENDOR 0x1af4
#define DEFAULT_SUBSYSTEM        0x1100

void pci_config_init(PCIDevice *dev, const PCIDeviceInfo *info, bool multifunction)
{
    uint32_t size = info->express ? PCIE_CONFIG_SIZE : PCI_CONFIG_SIZE;
    uint8_t **tables[] = {&dev->config, &dev->wmask, &dev->w1cmask, &dev->cmask, &dev->initial};

    dev->config_size = size;
    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
        *tables[i] = g_malloc0(size);
    }
    pci_set_word(dev->config + PCI_VENDOR_ID, info->vendor_id);
    pci_set_word(dev->config + PCI_DEVICE_ID, info->device_id);
    dev->config[PCI_REVISION_ID] = info->revision;
    dev->config[PCI_CLASS_PROG] = info->prog_interface;
    pci_set_word(dev->config + PCI_CLASS_DEVICE, info->class_id);
    dev->config[PCI_HEADER_TYPE] = multifunction ? PCI_HEADER_MULTI_FUNCTION : 0;
    pci_set_word(dev->config + PCI_SUBSYSTEM_VENDOR_ID,
                 info->subsystem_vendor_id ? info->subsystem_vendor_id : DEFAULT_SUBSYSTEM_VENDOR);
    pci_set_word(dev->config + PCI_SUBSYSTEM_ID,
                 info->subsystem_id ? info->subsystem_id : DEFAULT_SUBSYSTEM);
    dev->config[PCI_INTERRUPT_PIN] = info->interrupt_pin;

    pci_set_word(dev->wmask + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY |
                                               PCI_COMMAND_MASTER | PCI_COMMAND_SERR |
                                               PCI_COMMAND_INTX_DISABLE);
    pci_set_word(dev->w1cmask + PCI_STATUS, PCI_STATUS_ERRORS);
    dev->wmask[PCI_CACHE_LINE_SIZE] = 0xff;
    dev->wmask[PCI_INTERRUPT_LINE] = 0xff;
    memset(dev->wmask + 0x40, 0xff, size - 0x40);

    pci_set_long(dev->cmask + PCI_VENDOR_ID, UINT32_MAX);
    memset(dev->cmask + PCI_REVISION_ID, 0xff, 4);
    dev->cmask[PCI_HEADER_TYPE] = 0xff;
    dev->cmask[PCI_CAPABILITY_LIST] = 0xff;
}

void pci_config_free(PCIDevice *dev)
{
    uint8_t **tables[] = {&dev->config, &dev->wmask, &dev->w1cmask, &dev->cmask, &dev->initial};

    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
        g_clear_pointer(tables[i], g_free);
    }
    dev->have_initial = false;
}

/* The bits that something changes go back; those that nothing changes are left alone. */
void pci_config_reset(PCIDevice *dev)
{
    if (!dev->have_initial) {
        memcpy(dev->initial, dev->config, dev->config_size);
        dev->have_initial = true;
        return;
    }
    for (uint32_t i = 0; i < dev->config_size; i++) {
        uint8_t mask = dev->wmask[i] | dev->w1cmask[i];

        dev->config[i] = (uint8_t)((dev->config[i] & ~mask) | (dev->initial[i] & mask));
    }
    dev->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
}

uint32_t pci_config_read(PCIDevice *dev, uint32_t addr, unsigned len)
{
    uint32_t value = 0;

    if (!range_fits_u64(addr, len, dev->config_size)) {
        return UINT32_MAX;
    }
    for (unsigned i = 0; i < len; i++) {
        value |= (uint32_t)dev->config[addr + i] << (8 * i);
    }
    return value;
}

void pci_config_write(PCIDevice *dev, uint32_t addr, uint32_t value, unsigned len)
{
    const PCIDeviceInfo *info = pci_device_info(dev);

    if (!range_fits_u64(addr, len, dev->config_size)) {
        return;
    }
    for (unsigned i = 0; i < len; i++) {
        uint8_t *byte = &dev->config[addr + i], data = (uint8_t)(value >> (8 * i));
        uint8_t wmask = dev->wmask[addr + i];

        *byte = (uint8_t)((*byte & ~wmask) | (data & wmask));
        *byte &= (uint8_t) ~(data & dev->w1cmask[addr + i]);
    }
    if (ranges_overlap(addr, len, PCI_BASE_ADDRESS_0, 4 * PCI_REGIONS) ||
        ranges_overlap(addr, len, PCI_COMMAND, 2)) {
        pci_update_mappings(dev);
        pci_update_pin(dev);
    }
    if (info->config_written) {
        info->config_written(dev, addr, len);
    }
}

/* --- BARs --- */

void pci_register_bar(PCIDevice *dev, unsigned n, uint8_t type, MemoryRegion *mr)
{
    PCIRegion *region = &dev->regions[n];
    uint32_t at = PCI_BASE_ADDRESS_0 + 4 * n;
    uint64_t size = memory_region_size(mr), writable = ~(size - 1);
    bool is_64 = !(type & PCI_BASE_ADDRESS_SPACE_IO) && (type & PCI_BASE_ADDRESS_MEM_64);

    g_assert(n + is_64 < PCI_REGIONS && !region->mr);
    g_assert(is_power_of_2(size) && size >= (type & PCI_BASE_ADDRESS_SPACE_IO ? 4 : 16));
    *region = (PCIRegion){.mr = mr, .size = size, .type = type, .addr = PCI_BAR_UNMAPPED};
    pci_set_long(dev->config + at, type);
    pci_set_long(dev->wmask + at, (uint32_t)writable);
    pci_set_long(dev->cmask + at, 0xf);
    if (is_64) {
        pci_set_long(dev->wmask + at + 4, (uint32_t)(writable >> 32));
    }
    device_own_region(&dev->qdev, mr);
}

/* Where the guest wants a region; PCI_BAR_UNMAPPED where that is no place. */
static uint64_t wanted_address(PCIDevice *dev, unsigned n)
{
    const PCIRegion *region = &dev->regions[n];
    uint32_t at = PCI_BASE_ADDRESS_0 + 4 * n;
    uint16_t command = pci_get_word(dev->config + PCI_COMMAND);
    uint64_t addr = pci_get_long(dev->config + at), limit = UINT32_MAX;

    if (region->type & PCI_BASE_ADDRESS_SPACE_IO) {
        addr &= ~(region->size - 1);
        limit = UINT16_MAX;
        if (!(command & PCI_COMMAND_IO)) {
            return PCI_BAR_UNMAPPED;
        }
    } else {
        if (region->type & PCI_BASE_ADDRESS_MEM_64) {
            addr |= (uint64_t)pci_get_long(dev->config + at + 4) << 32;
            limit = UINT64_MAX;
        }
        addr &= ~(region->size - 1);
        if (!(command & PCI_COMMAND_MEMORY)) {
            return PCI_BAR_UNMAPPED;
        }
    }
    /* While a guest sizes a BAR it holds 0, or all ones: nowhere, as the last byte does not fit. */
    if (!addr || addr > limit - (region->size - 1) || addr + (region->size - 1) == limit) {
        return PCI_BAR_UNMAPPED;
    }
    return addr;
}

void pci_update_mappings(PCIDevice *dev)
{
    PCIBus *bus = pci_bus_of(dev);

    memory_region_transaction_begin();
    for (unsigned n = 0; n < PCI_REGIONS; n++) {
        PCIRegion *region = &dev->regions[n];
        uint64_t addr = region->mr ? wanted_address(dev, n) : PCI_BAR_UNMAPPED;
        MemoryRegion *space = region->type & PCI_BASE_ADDRESS_SPACE_IO ? bus->io : bus->memory;

        if (!region->mr || addr == region->addr) {
            continue;
        }
        if (region->addr != PCI_BAR_UNMAPPED) {
            memory_region_del_subregion(space, region->mr);
        }
        region->addr = addr;
        if (addr != PCI_BAR_UNMAPPED) {
            memory_region_add_subregion_overlap(space, addr, region->mr, 1);
        }
    }
    memory_region_transaction_commit();
}

/* --- migration --- */

static PCIDevice *of_config(void *pv)
{
    return (PCIDevice *)((char *)pv - offsetof(PCIDevice, config));
}

static int put_config(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                      JSONWriter *vmdesc, GError **errp)
{
    qemu_put_buffer(f, of_config(pv)->config, size);
    return 0;
}

/* What a guest cannot change must be the same on both sides: it has seen it. */
static int get_config(QEMUFile *f, void *pv, size_t size, const VMStateField *field, GError **errp)
{
    PCIDevice *dev = of_config(pv);
    g_autofree uint8_t *loaded = g_malloc(size);
    int ret = qemu_get_buffer(f, loaded, size);

    if (ret < 0) {
        return ret;
    }
    for (uint32_t i = 0; i < size; i++) {
        uint8_t fixed = dev->cmask[i] & (uint8_t) ~(dev->wmask[i] | dev->w1cmask[i]);

        if ((loaded[i] ^ dev->config[i]) & fixed) {
            error_setg(errp, "configuration space differs at 0x%x: read 0x%02x, here 0x%02x", i,
                       loaded[i], dev->config[i]);
            return -EINVAL;
        }
    }
    memcpy(dev->config, loaded, size);
    return 0;
}

static const VMStateInfo info_config = {"pci config", get_config, put_config};

static PCIDevice *of_intx(void *pv)
{
    return (PCIDevice *)((char *)pv - offsetof(PCIDevice, intx));
}

/* One 32-bit level for each of the four pins; a device has the first. */
static int put_irq_state(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                         JSONWriter *vmdesc, GError **errp)
{
    PCIDevice *dev = of_intx(pv);
    unsigned pin = dev->config[PCI_INTERRUPT_PIN];

    for (unsigned i = 0; i < PCI_PINS; i++) {
        qemu_put_be32(f, dev->intx && pin == i + 1);
    }
    return 0;
}

static int get_irq_state(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                         GError **errp)
{
    PCIDevice *dev = of_intx(pv);

    dev->intx = false;
    for (unsigned i = 0; i < PCI_PINS; i++) {
        uint32_t level = qemu_get_be32(f);

        if (level > 1) {
            error_setg(errp, "interrupt pin %u has the level %u", i, level);
            return -EINVAL;
        }
        dev->intx |= level;
    }
    return 0;
}

static const VMStateInfo info_irq_state = {"pci irq state", get_irq_state, put_irq_state};

static bool is_conventional(void *opaque, int version_id)
{
    return ((PCIDevice *)opaque)->config_size == PCI_CONFIG_SIZE;
}

static bool is_express(void *opaque, int version_id)
{
    return !is_conventional(opaque, version_id);
}

static int loaded(void *opaque, int version_id, GError **errp)
{
    PCIDevice *dev = opaque;
    const PCIDeviceInfo *info = pci_device_info(dev);

    pci_update_mappings(dev);
    pci_update_pin(dev);
    if (info->config_written) {
        info->config_written(dev, 0, dev->config_size);
    }
    return 0;
}

#define CONFIG_FIELD(_test, _size)                                                \
    {                                                                             \
        .name = "config", .offset = offsetof(PCIDevice, config), .size = (_size), \
        .flags = VMS_BUFFER, .info = &info_config, .field_exists = (_test)        \
    }

const VMStateDescription vmstate_pci_device = {
    .name = "PCIDevice",
    .version_id = 2,
    .minimum_version_id = 1,
    .post_load = loaded,
    .fields = (const VMStateField[]){VMSTATE_SINGLE(version_id, PCIDevice, vmstate_info_int32_le,
                                                    int32_t),
                                     CONFIG_FIELD(is_conventional, PCI_CONFIG_SIZE),
                                     CONFIG_FIELD(is_express, PCIE_CONFIG_SIZE),
                                     {.name = "irq_state",
                                      .offset = offsetof(PCIDevice, intx),
                                      .size = 16,
                                      .flags = VMS_BUFFER,
                                      .version_id = 2,
                                      .info = &info_irq_state},
                                     VMSTATE_END_OF_LIST()},
};
