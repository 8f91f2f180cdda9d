/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine of the tests. */
#include "tests/devices/test-machine.h"

#include "hw/core/device-add.h"
#include "hw/core/sysbus.h"
#include "memory/address-space.h"
#include "util/error.h"

/* --- the interrupt controller: nothing but inputs --- */

static void line_changed(void *opaque, int n, int level)
{
}

static void intc_init(DeviceState *dev)
{
    qdev_init_gpio_in_named(dev, line_changed, NULL, TEST_INTC_LINES);
}

static DEFINE_DEVICE(intc_device, SysBusDevice, NO_VMSTATE, .name = "test-intc",
                     .parent = "sys-bus-device", .internal = true, .init = intc_init);

/* --- the bridge to both buses --- */

typedef struct BridgeState {
    SysBusDevice parent;
    PCIBus *pci;
    ISABus *isa;
    PCIHostPorts ports;
    qemu_irq pci_irqs[PCI_PINS];
    uint32_t wanted; /* slots whose devices the user wants back */
    RegisterBank eject;
} BridgeState;

static void eject_written(void *state, const RegisterWrite *write)
{
    BridgeState *s = state;

    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        PCIDevice *dev = s->pci->devices[PCI_DEVFN(slot, 0)];

        if ((write->data >> slot & 1) && dev && dev->qdev.unplug_asked) {
            s->wanted &= ~(1u << slot);
            device_unplug(&dev->qdev);
        }
    }
}

static const RegisterRow eject_rows[] = {
    REGISTER(0, BridgeState, wanted, "EJECT", .write = eject_written),
};
static const RegisterTable eject_table = {"test-eject", eject_rows, G_N_ELEMENTS(eject_rows)};

static bool unplug_request(void *opaque, DeviceState *dev, GError **errp)
{
    BridgeState *s = opaque;

    s->wanted |= 1u << PCI_SLOT(((PCIDevice *)dev)->devfn);
    return true;
}

static const HotplugHandler hotplug = {.unplug_request = unplug_request};

static bool coroutine_fn bridge_co_realize(DeviceState *dev, GError **errp)
{
    BridgeState *s = (BridgeState *)dev;
    DeviceState *intc = qom_object_opaque(qom_object_child(qom_container("machine"), "intc"));
    g_autofree char *path = device_path(dev);
    qemu_irq isa_irqs[ISA_NUM_IRQS];

    for (unsigned i = 0; i < ISA_NUM_IRQS; i++) {
        isa_irqs[i] = qdev_get_gpio_in_named(intc, NULL, i);
    }
    for (unsigned i = 0; i < PCI_PINS; i++) {
        s->pci_irqs[i] = qdev_get_gpio_in_named(intc, NULL, ISA_NUM_IRQS + i);
    }
    s->isa = isa_bus_new(dev, get_system_memory(), get_system_io());
    isa_bus_register_input_irqs(s->isa, isa_irqs);
    s->pci = pci_bus_new(dev, NULL, get_system_memory(), get_system_io());
    pci_bus_set_irqs(s->pci, s->pci_irqs, NULL);
    bus_set_hotplug_handler(&s->pci->qbus, &hotplug, s);
    pci_host_ports_init(&s->ports, path, s->pci);
    device_map_region(dev, get_system_io(), 0xcf8, &s->ports.index);
    device_map_region(dev, get_system_io(), 0xcfc, &s->ports.data);
    register_bank_init(&s->eject, path, &eject_table, s, 4);
    device_map_region(dev, get_system_io(), TEST_EJECT_PORT, &s->eject.region);
    return true;
}

static DEFINE_DEVICE(bridge_device, BridgeState, NO_VMSTATE, .name = "test-bridge",
                     .parent = "sys-bus-device", .internal = true, .co_realize = bridge_co_realize);

/* --- the machine, in two versions --- */

bool coroutine_fn test_machine_co_init(const MachineClass *class, GError **errp)
{
    DeviceOptions intc = {.class = &intc_device,
                          .bus = sysbus_get_default(),
                          .parent = qom_container("machine"),
                          .name = "intc"};
    DeviceOptions bridge = {.class = &bridge_device,
                            .bus = sysbus_get_default(),
                            .parent = qom_container("machine"),
                            .name = "bridge"};

    return device_co_new(&intc, errp) && device_co_new(&bridge, errp);
}

static const VersionedRow rows[] = {
    {MACHINE_VERSION(1, 5), {"test-counter", "period", "500"}},
    {MACHINE_VERSION(1, 0), {"test-counter", "period", "250"}},
};

#define TEST_MACHINE(_name, _alias, _version)                                                   \
    {                                                                                           \
        .name = (_name), .alias = (_alias), .desc = "for tests", .hidden = true, .max_cpus = 1, \
        .default_ram_id = "ram", .version = (_version), .rows = rows,                           \
        .n_rows = G_N_ELEMENTS(rows), .co_init = test_machine_co_init,                          \
    }
static const MachineClass machines[] = {
    TEST_MACHINE("ferry-test-1.0", NULL, MACHINE_VERSION(1, 0)),
    TEST_MACHINE("ferry-test-1.5", NULL, MACHINE_VERSION(1, 5)),
    TEST_MACHINE("ferry-test-2.0", "ferry-test", MACHINE_VERSION(2, 0)),
};

void test_machine_register(void)
{
    device_class_register(&intc_device);
    device_class_register(&bridge_device);
    device_class_register(&test_counter_device);
    device_class_register(&test_disk_device);
    for (size_t i = 0; i < G_N_ELEMENTS(machines); i++) {
        machine_class_register(&machines[i]);
    }
}
