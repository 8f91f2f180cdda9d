/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 8259A interrupt controllers of a PC. The chip is i8259.c. */
#include "hw/intc/isa-i8259.h"

#include "hw/intc/i8259.h"
#include "hw/types.h"

typedef struct ISAI8259State {
    ISADevice parent;
    uint32_t iobase, elcr_addr;
    uint8_t elcr_mask;
    bool master;
    I8259 chip;
    RegisterBank ports, elcr;
} ISAI8259State;

static void input_changed(void *opaque, int n, int level)
{
    i8259_set_input(&((ISAI8259State *)opaque)->chip, (unsigned)n, level != 0);
}

static void i8259_device_init(DeviceState *dev)
{
    ISAI8259State *s = (ISAI8259State *)dev;

    qdev_init_gpio_in_named(dev, input_changed, NULL, I8259_INPUTS);
    s->chip.int_out = qdev_init_gpio_out_named(dev, NULL, 1);
}

static bool coroutine_fn i8259_co_realize(DeviceState *dev, GError **errp)
{
    ISAI8259State *s = (ISAI8259State *)dev;
    g_autofree char *path = device_path(dev);

    s->chip.master = s->master;
    s->chip.elcr_mask = s->elcr_mask;
    register_bank_init(&s->ports, path, &i8259_ports, &s->chip, 2);
    if (!isa_register_ioport(dev, &s->ports.region, s->iobase, errp)) {
        return false;
    }
    register_bank_init(&s->elcr, path, &i8259_elcr_port, &s->chip, 1);
    return isa_register_ioport(dev, &s->elcr.region, s->elcr_addr, errp);
}

static void i8259_reset_enter(DeviceState *dev)
{
    i8259_reset(&((ISAI8259State *)dev)->chip);
}

static void i8259_reset_exit(DeviceState *dev)
{
    i8259_update(&((ISAI8259State *)dev)->chip);
}

static const Property i8259_properties[] = {
    DEFINE_PROP_UINT32("iobase", ISAI8259State, iobase, UINT32_MAX),
    DEFINE_PROP_UINT32("elcr_addr", ISAI8259State, elcr_addr, UINT32_MAX),
    DEFINE_PROP_UINT8("elcr_mask", ISAI8259State, elcr_mask, UINT8_MAX),
    DEFINE_PROP_BOOL("master", ISAI8259State, master, false),
    {0},
};

DEFINE_DEVICE(isa_i8259_device, ISAI8259State, &vmstate_i8259, .name = "isa-i8259",
              .parent = TYPE_ISA_DEVICE, .internal = true,
              .vmstate_at = offsetof(ISAI8259State, chip), .properties = i8259_properties,
              .init = i8259_device_init, .co_realize = i8259_co_realize,
              .reset_enter = i8259_reset_enter, .reset_exit = i8259_reset_exit);

/* --- the pair --- */

static DeviceState *coroutine_fn co_new(ISABus *bus, bool master, GError **errp)
{
    DeviceOptions options = {.class = &isa_i8259_device, .bus = &bus->qbus};
    json_object *values = json_object_new_object();
    DeviceState *dev;

    json_object_object_add(values, "iobase", json_object_new_int(master ? 0x20 : 0xa0));
    json_object_object_add(values, "elcr_addr", json_object_new_int(master ? 0x4d0 : 0x4d1));
    /* The timer, the keyboard, the slave, the clock and the coprocessor have edges. */
    json_object_object_add(values, "elcr_mask", json_object_new_int(master ? 0xf8 : 0xde));
    json_object_object_add(values, "master", json_object_new_boolean(master));
    options.values = values;
    dev = device_co_new(&options, errp);
    json_object_put(values);
    return dev;
}

bool coroutine_fn isa_i8259_co_new_pair(ISABus *bus, qemu_irq cpu, I8259Pair *pair, GError **errp)
{
    pair->master = co_new(bus, true, errp);
    pair->slave = pair->master ? co_new(bus, false, errp) : NULL;
    if (!pair->slave) {
        return false;
    }
    ((ISAI8259State *)pair->master)->chip.cascaded = &((ISAI8259State *)pair->slave)->chip;
    qdev_connect_gpio_out_named(pair->slave, NULL, 0,
                                qdev_get_gpio_in_named(pair->master, NULL, I8259_CASCADE));
    if (cpu) {
        qdev_connect_gpio_out_named(pair->master, NULL, 0, cpu);
    }
    return true;
}

void isa_i8259_pair_inputs(const I8259Pair *pair, qemu_irq inputs[ISA_NUM_IRQS])
{
    for (unsigned n = 0; n < ISA_NUM_IRQS; n++) {
        inputs[n] = qdev_get_gpio_in_named(n < I8259_INPUTS ? pair->master : pair->slave, NULL,
                                           n % I8259_INPUTS);
    }
}

uint8_t pic_read_irq(DeviceState *master)
{
    return i8259_acknowledge(&((ISAI8259State *)master)->chip);
}
