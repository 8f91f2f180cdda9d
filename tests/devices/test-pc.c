/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine of the tests with the chips of a PC. */
#include "tests/devices/test-pc.h"

#include "hw/core/sysbus.h"
#include "hw/intc/isa-i8259.h"
#include "hw/timer/isa-pit.h"
#include "hw/types.h"
#include "memory/address-space.h"
#include "tests/devices/test-machine.h"

#define CPU_PORTS 0xae10
#define PORT_B    0x61

typedef struct TestCPUState {
    SysBusDevice parent;
    I8259Pair pics;
    DeviceState *pit;
    RegisterBank ports, port_b;
} TestCPUState;

static void int_changed(void *opaque, int n, int level)
{
}

static uint64_t acknowledge(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    TestCPUState *s = state;

    return s->pics.master ? pic_read_irq(s->pics.master) : 0;
}

static uint64_t int_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    return irq_level(qdev_get_gpio_in_named(state, NULL, 0));
}

static const RegisterRow cpu_rows[] = {
    REGISTER_HOOKS(0, 1, "ACKNOWLEDGE", .read = acknowledge),
    REGISTER_HOOKS(1, 1, "INT", .read = int_read),
};
static const RegisterTable cpu_table = {"test-cpu", cpu_rows, G_N_ELEMENTS(cpu_rows)};

static uint64_t port_b_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    TestCPUState *s = state;

    return s->pit ? i8254_port_b_read(isa_pit_chip(s->pit)) : 0;
}

static void port_b_written(void *state, const RegisterWrite *write)
{
    TestCPUState *s = state;

    if (s->pit) {
        i8254_port_b_write(isa_pit_chip(s->pit), (uint8_t)write->data);
    }
}

static const RegisterRow port_b_rows[] = {
    REGISTER_HOOKS(0, 1, "PORT_B", .read = port_b_read, .write = port_b_written),
};
static const RegisterTable port_b_table = {"port-b", port_b_rows, G_N_ELEMENTS(port_b_rows)};

static void cpu_init(DeviceState *dev)
{
    qdev_init_gpio_in_named(dev, int_changed, NULL, 1);
}

static bool coroutine_fn cpu_co_realize(DeviceState *dev, GError **errp)
{
    TestCPUState *s = (TestCPUState *)dev;
    g_autofree char *path = device_path(dev);

    register_bank_init(&s->ports, path, &cpu_table, s, 2);
    device_map_region(dev, get_system_io(), CPU_PORTS, &s->ports.region);
    register_bank_init(&s->port_b, path, &port_b_table, s, 1);
    device_map_region(dev, get_system_io(), PORT_B, &s->port_b.region);
    return true;
}

static DEFINE_DEVICE(cpu_device, TestCPUState, NO_VMSTATE, .name = "test-cpu",
                     .parent = "sys-bus-device", .internal = true, .init = cpu_init,
                     .co_realize = cpu_co_realize);

static DeviceState *coroutine_fn co_new_pit(ISABus *isa, GError **errp)
{
    DeviceOptions options = {.class = &isa_pit_device, .bus = &isa->qbus};
    DeviceState *pit;

    options.values = json_object_new_object();
    json_object_object_add(options.values, "iobase", json_object_new_int(0x40));
    pit = device_co_new(&options, errp);
    json_object_put(options.values);
    return pit;
}

bool coroutine_fn test_pc_co_init(const MachineClass *class, GError **errp)
{
    DeviceOptions cpu_options = {.class = &cpu_device,
                                 .bus = sysbus_get_default(),
                                 .parent = qom_container("machine"),
                                 .name = "cpu"};
    DeviceOptions rtc = {.class = &mc146818rtc_device};
    qemu_irq inputs[ISA_NUM_IRQS];
    TestCPUState *cpu;
    ISABus *isa;

    if (!test_machine_co_init(class, errp)) {
        return false;
    }
    isa = (ISABus *)bus_find("isa.0");
    rtc.bus = &isa->qbus;
    cpu = (TestCPUState *)device_co_new(&cpu_options, errp);
    if (!cpu || !isa_i8259_co_new_pair(isa, qdev_get_gpio_in_named((DeviceState *)cpu, NULL, 0),
                                       &cpu->pics, errp)) {
        return false;
    }
    isa_i8259_pair_inputs(&cpu->pics, inputs);
    isa_bus_register_input_irqs(isa, inputs);
    cpu->pit = co_new_pit(isa, errp);
    if (!cpu->pit) {
        return false;
    }
    qdev_connect_gpio_out_named(cpu->pit, NULL, 0, inputs[0]);
    return device_co_new(&rtc, errp);
}

static const MachineClass machine = {.name = "ferry-test-pc",
                                     .desc = "for tests of the chips of a PC",
                                     .hidden = true,
                                     .max_cpus = 1,
                                     .default_ram_id = "ram",
                                     .version = MACHINE_NEWEST,
                                     .co_init = test_pc_co_init};

void test_pc_register(void)
{
    device_class_register(&cpu_device);
    machine_class_register(&machine);
}
