/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices of the system bus. */
#include "hw/core/sysbus.h"

#include <inttypes.h>
#include "memory/address-space.h"

static DEFINE_ABSTRACT_DEVICE(sysbus_device, SysBusDevice, .name = "sys-bus-device",
                              .bus = "System", .internal = true);

void sysbus_init_mmio(SysBusDevice *dev, MemoryRegion *mr)
{
    g_assert(dev->n_mmio < SYSBUS_REGIONS_MAX);
    dev->mmio[dev->n_mmio].region = mr;
    dev->mmio[dev->n_mmio++].addr = UINT64_MAX;
    device_own_region(&dev->qdev, mr);
}

IRQLine *sysbus_init_irqs(SysBusDevice *dev, unsigned n)
{
    return qdev_init_gpio_out_named(&dev->qdev, "sysbus-irq", n);
}

void sysbus_mmio_map(SysBusDevice *dev, unsigned n, hwaddr addr)
{
    g_assert(n < dev->n_mmio);
    if (dev->mmio[n].addr == UINT64_MAX) {
        memory_region_add_subregion(get_system_memory(), addr, dev->mmio[n].region);
    } else {
        memory_region_set_address(dev->mmio[n].region, addr);
    }
    dev->mmio[n].addr = addr;
}

void sysbus_connect_irq(SysBusDevice *dev, unsigned n, qemu_irq to)
{
    qdev_connect_gpio_out_named(&dev->qdev, "sysbus-irq", n, to);
}

DeviceState *coroutine_fn sysbus_co_new(const char *type, GError **errp)
{
    DeviceOptions options = {.class = device_class_find(type), .bus = sysbus_get_default()};

    g_assert(options.class);
    return device_co_new(&options, errp);
}

void sysbus_print_device(DeviceState *dev, GString *out, int indent)
{
    SysBusDevice *sysbus = (SysBusDevice *)dev;

    if (!device_class_is(dev->class, sysbus_device.name)) {
        return;
    }
    for (unsigned i = 0; i < sysbus->n_mmio; i++) {
        g_string_append_printf(out, "%*smmio %016" PRIx64 "/%016" PRIx64 "\n", indent, "",
                               sysbus->mmio[i].addr, memory_region_size(sysbus->mmio[i].region));
    }
}

void sysbus_register_types(void)
{
    device_class_register(&sysbus_device);
}
