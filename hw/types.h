/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The descriptors of all devices. A new device is one line here and one in hw/types.c. */
#ifndef FERRY_HW_TYPES_H
#define FERRY_HW_TYPES_H

#include "hw/core/device.h"
#include "hw/core/machine.h"

extern const DeviceClass isa_debug_exit_device;
extern const DeviceClass isa_debugcon_device;
extern const DeviceClass isa_i8259_device;
extern const DeviceClass isa_pit_device;
extern const DeviceClass isa_serial_device;
extern const DeviceClass isabus_bridge_device;
extern const DeviceClass mc146818rtc_device;
extern const DeviceClass microvm_memory_device;
extern const DeviceClass pci_testdev_device;
extern const DeviceClass virtio_mmio_device;

extern const MachineClass microvm_machine;

/* Start-up: registers buses, devices and machines. */
void hw_register_types(void);

#endif
