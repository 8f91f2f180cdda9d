/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * microvm: a machine without PCI and with little of a PC. It is being built and no list shows it yet:
 * RAM, KVM's interrupt controllers, an ISA bus, and kernels that begin as Multiboot says.
 */
#include "accel/kvm/kvm.h"
#include "hw/core/loader.h"
#include "hw/core/machine.h"
#include "hw/core/sysbus.h"
#include "hw/i386/multiboot.h"
#include "hw/isa/isa.h"
#include "hw/types.h"
#include "memory/address-space.h"
#include "util/error.h"
#include "util/read-file.h"

/* RAM beyond this is above 4 GiB: devices have the addresses between. */
#define LOW_RAM_MAX      UINT64_C(0xc0000000)
#define HIGH_RAM         UINT64_C(0x100000000)
#define KERNEL_MAX_BYTES (UINT64_C(1) << 30)

static struct {
    MemoryRegion low, high;
    MultibootEntry entry;
} microvm;

static uint64_t low_ram(void)
{
    return MIN(machine_boot.ram_bytes, LOW_RAM_MAX);
}

static void place(MemoryRegion *alias, const char *name, uint64_t offset, hwaddr addr,
                  uint64_t bytes)
{
    memory_region_init_alias(alias, NULL, name, machine_boot.ram, offset, bytes);
    memory_region_add_subregion(get_system_memory(), addr, alias);
}

static void take_away(void *opaque)
{
    MemoryRegion *alias = opaque;

    memory_region_del_subregion(get_system_memory(), alias);
    memory_region_destroy(alias);
}

static bool coroutine_fn memory_co_realize(DeviceState *dev, GError **errp)
{
    uint64_t high = machine_boot.ram_bytes - low_ram();

    if (low_ram()) {
        place(&microvm.low, "microvm.low", 0, 0, low_ram());
        device_on_unrealize(dev, take_away, &microvm.low);
    }
    if (high) {
        place(&microvm.high, "microvm.high", low_ram(), HIGH_RAM, high);
        device_on_unrealize(dev, take_away, &microvm.high);
    }
    return true;
}

DEFINE_DEVICE(microvm_memory_device, SysBusDevice, NO_VMSTATE, .name = "microvm-memory",
              .parent = "sys-bus-device", .internal = true, .co_realize = memory_co_realize);

/* --- the ISA bus --- */

static bool coroutine_fn bridge_co_realize(DeviceState *dev, GError **errp)
{
    ISABus *bus = isa_bus_new(dev, get_system_memory(), get_system_io());
    qemu_irq lines[ISA_NUM_IRQS] = {NULL};

    for (unsigned i = 0; i < ISA_NUM_IRQS && machine_boot.runs_code; i++) {
        lines[i] = &kvm_gsi_lines()[i];
    }
    isa_bus_register_input_irqs(bus, lines);
    return true;
}

DEFINE_DEVICE(isabus_bridge_device, SysBusDevice, NO_VMSTATE, .name = "isabus-bridge",
              .parent = "sys-bus-device", .internal = true, .co_realize = bridge_co_realize);

/* --- the kernel --- */

static bool load_kernel(GError **errp)
{
    const char *name = machine_boot.kernel;
    g_autofree uint8_t *file = NULL;
    g_autoptr(GError) err = NULL;
    size_t bytes;

    if (!name) {
        error_setg(errp, "microvm: firmware is not built yet: -kernel is needed");
        return false;
    }
    if (!qemu_read_file(name, KERNEL_MAX_BYTES, &file, &bytes, &err)) {
        error_setg(errp, "could not load kernel '%s': %s", name, err->message);
        return false;
    }
    if (!multiboot_detect(file, bytes)) {
        error_setg(errp, "could not load kernel '%s': it has no Multiboot header", name);
        return false;
    }
    return multiboot_load(name, file, bytes, machine_boot.append, machine_boot.initrd, low_ram(),
                          machine_boot.ram_bytes - low_ram(), &microvm.entry, errp);
}

static void boot(void *opaque, X86Registers *regs)
{
    x86_registers_enter_flat(regs, microvm.entry.eip);
    regs->gpr[X86_RAX] = MULTIBOOT_BOOTLOADER_MAGIC;
    regs->gpr[X86_RBX] = microvm.entry.info;
}

static bool coroutine_fn microvm_co_init(const MachineClass *class, GError **errp)
{
    if (machine_boot.runs_code && !kvm_machine_start(errp)) {
        return false;
    }
    return sysbus_co_new(microvm_memory_device.name, errp) &&
           sysbus_co_new(isabus_bridge_device.name, errp) && load_kernel(errp) &&
           loader_co_start(errp) &&
           (!machine_boot.runs_code || kvm_cpus_new(machine_boot.cpus, boot, NULL, errp));
}

const MachineClass microvm_machine = {
    .name = "microvm",
    .desc = "microvm (i386)",
    .hidden = true,
    .has_cpus = true,
    .places_ram = true,
    .max_cpus = 288,
    .default_ram_id = "microvm.ram",
    .version = MACHINE_NEWEST,
    .co_init = microvm_co_init,
};
