/* SPDX-License-Identifier: GPL-2.0-or-later */
/* All devices, parents first. */
#include "hw/types.h"

#include "hw/core/loader.h"
#include "hw/core/sysbus.h"
#include "hw/isa/isa.h"
#include "hw/pci/pci.h"
#include "hw/virtio/virtio.h"

/* One a line. */
/* clang-format off */
static const DeviceClass *const devices[] = {
    &isa_debug_exit_device,
    &isa_debugcon_device,
    &isa_i8259_device,
    &isa_pit_device,
    &isa_serial_device,
    &isabus_bridge_device,
    &mc146818rtc_device,
    &microvm_memory_device,
    &pci_testdev_device,
    &virtio_mmio_device,
};
/* clang-format on */

void hw_register_types(void)
{
    sysbus_register_types();
    isa_register_types();
    pci_register_types();
    virtio_register_types();
    for (size_t i = 0; i < G_N_ELEMENTS(devices); i++) {
        device_class_register(devices[i]);
    }
    loader_register_types();
    machine_class_register(&microvm_machine);
}
