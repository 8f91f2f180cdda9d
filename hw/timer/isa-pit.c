/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The interval timer of a PC. The chip is i8254.c. */
#include "hw/timer/isa-pit.h"

#include "hw/isa/isa.h"
#include "hw/types.h"

typedef struct ISAPITState {
    ISADevice parent;
    uint32_t iobase;
    I8254 chip;
    RegisterBank ports;
} ISAPITState;

I8254 *isa_pit_chip(DeviceState *dev)
{
    return &((ISAPITState *)dev)->chip;
}

static void enable_changed(void *opaque, int n, int level)
{
    i8254_enable_irq(isa_pit_chip(opaque), level != 0);
}

static void pit_init(DeviceState *dev)
{
    qdev_init_gpio_in_named(dev, enable_changed, NULL, 1);
    isa_pit_chip(dev)->out = qdev_init_gpio_out_named(dev, NULL, 1);
}

static void end_chip(void *opaque)
{
    i8254_end(opaque);
}

static bool coroutine_fn pit_co_realize(DeviceState *dev, GError **errp)
{
    ISAPITState *s = (ISAPITState *)dev;
    g_autofree char *path = device_path(dev);

    i8254_init(&s->chip, dev->clock, s->chip.out);
    device_on_unrealize(dev, end_chip, &s->chip);
    i8254_reset(&s->chip);
    register_bank_init(&s->ports, path, &i8254_ports, &s->chip, 4);
    return isa_register_ioport(dev, &s->ports.region, s->iobase, errp);
}

static void pit_reset_enter(DeviceState *dev)
{
    i8254_reset(isa_pit_chip(dev));
}

static void pit_reset_exit(DeviceState *dev)
{
    i8254_update(isa_pit_chip(dev));
}

static const Property pit_properties[] = {
    DEFINE_PROP_UINT32("iobase", ISAPITState, iobase, UINT32_MAX),
    {0},
};

DEFINE_DEVICE(isa_pit_device, ISAPITState, &vmstate_i8254, .name = "isa-pit",
              .parent = TYPE_ISA_DEVICE, .internal = true,
              .vmstate_at = offsetof(ISAPITState, chip), .properties = pit_properties,
              .init = pit_init, .co_realize = pit_co_realize, .reset_enter = pit_reset_enter,
              .reset_exit = pit_reset_exit);
