/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PCI: buses, devices, configuration space, BARs, interrupt pins.
 * Specification: PCI Local Bus Specification 3.0, chapter 6 (configuration space); the PCI Code and ID
 * Assignment Specification (classes).
 *
 * A device's configuration space is four tables of bytes. They hold the values, the bits that a
 * guest may write, those that writing one clears, and those that a migration must find equal. The
 * bus fills the standard header from the device's PCIDeviceInfo before the device's own co_realize,
 * which may then go on with them. After the first reset the values at that moment are what a reset
 * gives back.
 */
#ifndef FERRY_HW_PCI_PCI_H
#define FERRY_HW_PCI_PCI_H

#include "hw/core/bus.h"

#define TYPE_PCI_BUS    "PCI"
#define TYPE_PCI_DEVICE "pci-device"

#define PCI_SLOTS           32
#define PCI_FUNCTIONS       8
#define PCI_PINS            4
#define PCI_REGIONS         6 /* BARs */
#define PCI_CONFIG_SIZE     256
#define PCIE_CONFIG_SIZE    4096
#define PCI_DEVFN(slot, fn) ((slot) << 3 | (fn))
#define PCI_SLOT(devfn)     ((devfn) >> 3 & 31)
#define PCI_FUNC(devfn)     ((devfn)&7)
#define PCI_BAR_UNMAPPED    UINT64_MAX

/* Configuration space, byte offsets. */
enum {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION_ID = 0x08,
    PCI_CLASS_PROG = 0x09,
    PCI_CLASS_DEVICE = 0x0a,
    PCI_CACHE_LINE_SIZE = 0x0c,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BASE_ADDRESS_0 = 0x10,
    PCI_SUBSYSTEM_VENDOR_ID = 0x2c,
    PCI_SUBSYSTEM_ID = 0x2e,
    PCI_CAPABILITY_LIST = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
};
#define PCI_COMMAND_IO            0x001
#define PCI_COMMAND_MEMORY        0x002
#define PCI_COMMAND_MASTER        0x004
#define PCI_COMMAND_SERR          0x100
#define PCI_COMMAND_INTX_DISABLE  0x400
#define PCI_STATUS_INTERRUPT      0x008
#define PCI_STATUS_ERRORS         0xf900 /* written as one, cleared */
#define PCI_HEADER_MULTI_FUNCTION 0x80
#define PCI_BASE_ADDRESS_SPACE_IO 0x01
#define PCI_BASE_ADDRESS_MEM_64   0x04
#define PCI_BASE_ADDRESS_PREFETCH 0x08

typedef struct PCIBus PCIBus;
typedef struct PCIDevice PCIDevice;

/* What a device class tells its bus (DeviceClass.bus_info). */
typedef struct PCIDeviceInfo {
    uint16_t vendor_id, device_id, class_id;
    uint8_t revision, prog_interface;
    uint16_t subsystem_vendor_id, subsystem_id; /* 0: 1af4:1100 */
    uint8_t interrupt_pin;                      /* 1..4: A..D; 0: none */
    bool express;                               /* 4096 bytes of configuration space */
    /* Called after the guest's write of `len` bytes at `addr`, or after a load. NULL: nothing. */
    void (*config_written)(PCIDevice *dev, uint32_t addr, unsigned len);
} PCIDeviceInfo;

typedef struct PCIRegion {
    MemoryRegion *mr; /* NULL: none */
    uint64_t size;
    uint8_t type;  /* PCI_BASE_ADDRESS_* */
    uint64_t addr; /* where it is, or PCI_BAR_UNMAPPED */
} PCIRegion;

struct PCIDevice {
    DeviceState qdev;
    /* properties */
    int32_t devfn; /* -1 until the bus has chosen one */
    char *romfile;
    uint32_t romsize, rombar, acpi_index, flags;
    char *failover_pair_id;

    uint32_t config_size;
    uint8_t *config; /* the guest's, little endian */
    uint8_t *wmask, *w1cmask, *cmask, *initial;
    bool have_initial;
    PCIRegion regions[PCI_REGIONS];
    bool intx; /* the device asserts its pin */
    IRQLine pin;
    int32_t version_id; /* of the section */
};

/* --- buses --- */

struct PCIBus {
    BusState qbus;
    MemoryRegion *memory, *io; /* the bridge's */
    uint8_t number;
    uint8_t first_slot; /* the lowest that devices without an address get */
    PCIDevice *devices[PCI_SLOTS * PCI_FUNCTIONS];
    const qemu_irq *irqs;                              /* NULL: not wired */
    unsigned (*map_irq)(PCIDevice *dev, unsigned pin); /* pin 0..3 to a line */
};

PCIBus *pci_bus_new(DeviceState *bridge, const char *name, MemoryRegion *memory, MemoryRegion *io);
/* Where pins lead; map_irq NULL: line (slot + pin) % 4. Before devices come. */
void pci_bus_set_irqs(PCIBus *bus, const qemu_irq *irqs,
                      unsigned (*map_irq)(PCIDevice *dev, unsigned pin));
PCIBus *pci_bus_of(const PCIDevice *dev);
/* Configuration space as the guest reaches it; nothing there reads as ones. len is 1, 2 or 4. */
uint32_t pci_bus_config_read(PCIBus *bus, uint8_t devfn, uint32_t addr, unsigned len);
void pci_bus_config_write(PCIBus *bus, uint8_t devfn, uint32_t addr, uint32_t value, unsigned len);

/* --- devices --- */

/*
 * Of co_realize: BAR `n` (and n + 1, of 64 bits) is `mr`, a power of two of at least 4 bytes (ports) or 16. The
 * device owns mr from here on.
 */
void pci_register_bar(PCIDevice *dev, unsigned n, uint8_t type, MemoryRegion *mr);
/* Asserts the device's pin, or no longer. */
void pci_set_irq(PCIDevice *dev, int level);
/* DMA, as far as the guest has switched it on; else MEMTX_ACCESS_ERROR. Any thread. */
MemTxResult pci_dma_read(PCIDevice *dev, hwaddr addr, void *buf, uint64_t len);
MemTxResult pci_dma_write(PCIDevice *dev, hwaddr addr, const void *buf, uint64_t len);
const PCIDeviceInfo *pci_device_info(const PCIDevice *dev);

static inline uint16_t pci_get_word(const uint8_t *config)
{
    return (uint16_t)(config[0] | config[1] << 8);
}

static inline void pci_set_word(uint8_t *config, uint16_t value)
{
    config[0] = (uint8_t)value;
    config[1] = (uint8_t)(value >> 8);
}

static inline uint32_t pci_get_long(const uint8_t *config)
{
    return pci_get_word(config) | (uint32_t)pci_get_word(config + 2) << 16;
}

static inline void pci_set_long(uint8_t *config, uint32_t value)
{
    pci_set_word(config, (uint16_t)value);
    pci_set_word(config + 2, (uint16_t)(value >> 16));
}

/* --- migration: the member that each PCI device's section begins with --- */

extern const VMStateDescription vmstate_pci_device;
#define VMSTATE_PCI_DEVICE(_f, _s) VMSTATE_STRUCT(_f, _s, 0, vmstate_pci_device, PCIDevice)

/* --- configuration mechanism #1: ports 0xcf8 and 0xcfc --- */

typedef struct PCIHostPorts {
    PCIBus *bus;
    uint32_t address;
    MemoryRegion index, data;
} PCIHostPorts;

/* Makes the two regions, of 4 bytes each. */
void pci_host_ports_init(PCIHostPorts *ports, const char *owner, PCIBus *bus);

void pci_register_types(void);

/* pci-config.c, for pci.c */
void pci_config_init(PCIDevice *dev, const PCIDeviceInfo *info, bool multifunction);
void pci_config_free(PCIDevice *dev);
void pci_config_reset(PCIDevice *dev);
uint32_t pci_config_read(PCIDevice *dev, uint32_t addr, unsigned len);
void pci_config_write(PCIDevice *dev, uint32_t addr, uint32_t value, unsigned len);
/* Regions and the pin follow the configuration space. */
void pci_update_mappings(PCIDevice *dev);
void pci_update_pin(PCIDevice *dev);

#endif
