/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices of the system bus: they have regions and interrupt lines, and the machine decides where these go. Users
 * cannot make them.
 */
#ifndef FERRY_HW_CORE_SYSBUS_H
#define FERRY_HW_CORE_SYSBUS_H

#include "hw/core/bus.h"

/* Most regions of one device. */
#define SYSBUS_REGIONS_MAX 32

typedef struct SysBusDevice {
    DeviceState qdev;
    struct {
        MemoryRegion *region;
        hwaddr addr; /* UINT64_MAX: placed nowhere */
    } mmio[SYSBUS_REGIONS_MAX];
    unsigned n_mmio;
} SysBusDevice;

/* Of co_realize: the next region, which the device owns (device_own_region()). */
void sysbus_init_mmio(SysBusDevice *dev, MemoryRegion *mr);
/* Of init: outputs in the group "sysbus-irq". */
IRQLine *sysbus_init_irqs(SysBusDevice *dev, unsigned n);

/* Of the machine: places region n in memory; the device is realized. */
void sysbus_mmio_map(SysBusDevice *dev, unsigned n, hwaddr addr);
void sysbus_connect_irq(SysBusDevice *dev, unsigned n, qemu_irq to);
/* A part of the machine on the system bus, realized. NULL and errp. */
DeviceState *coroutine_fn sysbus_co_new(const char *type, GError **errp);

void sysbus_register_types(void);
void sysbus_print_device(DeviceState *dev, GString *out, int indent); /* bus.c's */

#endif
