/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The real-time clock of a PC. The chip is mc146818rtc.c. */
#include "hw/timer/isa-rtc.h"

#include "hw/isa/isa.h"
#include "hw/types.h"
#include "qapi/qapi-events-machine.h"
#include "qapi/qapi-types-machine.h"
#include "util/error.h"

typedef struct ISARTCState {
    ISADevice parent;
    uint16_t iobase;
    uint8_t irq;
    LostTickPolicy lost_tick_policy;
    MC146818 chip;
    RegisterBank ports;
} ISARTCState;

MC146818 *isa_rtc_chip(DeviceState *dev)
{
    return &((ISARTCState *)dev)->chip;
}

static void time_changed(void *opaque, int64_t offset_s)
{
    g_autofree char *path = device_path(opaque);

    qapi_event_send_rtc_change(offset_s, path);
}

static void rtc_init(DeviceState *dev)
{
    isa_rtc_chip(dev)->irq = qdev_init_gpio_out_named(dev, NULL, 1);
}

static void end_chip(void *opaque)
{
    mc146818_end(opaque);
}

static bool coroutine_fn rtc_co_realize(DeviceState *dev, GError **errp)
{
    ISARTCState *s = (ISARTCState *)dev;
    g_autofree char *path = device_path(dev);

    if (s->lost_tick_policy == LOST_TICK_POLICY_DELAY) {
        error_setg(errp, "mc146818rtc: lost_tick_policy is discard or slew");
        return false;
    }
    s->chip.slew = s->lost_tick_policy == LOST_TICK_POLICY_SLEW;
    s->chip.base = rtc_base_get();
    s->chip.changed = time_changed;
    s->chip.opaque = dev;
    s->chip.stands = true; /* until it is told */
    mc146818_init(&s->chip, dev->clock.ctx);
    device_on_unrealize(dev, end_chip, &s->chip);
    if (!isa_connect_irq(dev, s->chip.irq, s->irq, errp)) {
        return false;
    }
    register_bank_init(&s->ports, path, &mc146818_ports, &s->chip, 2);
    return isa_register_ioport(dev, &s->ports.region, s->iobase, errp);
}

static void rtc_reset_enter(DeviceState *dev)
{
    mc146818_reset(isa_rtc_chip(dev));
}

static void rtc_reset_exit(DeviceState *dev)
{
    mc146818_update(isa_rtc_chip(dev));
}

static void rtc_run_state_changed(DeviceState *dev, bool running)
{
    mc146818_guest_runs(isa_rtc_chip(dev), running);
}

static const Property rtc_properties[] = {
    DEFINE_PROP_INT32("base_year", ISARTCState, chip.base_year, 1980),
    DEFINE_PROP_UINT16("iobase", ISARTCState, iobase, 0x70),
    DEFINE_PROP_UINT8("irq", ISARTCState, irq, 8),
    DEFINE_PROP_ENUM("lost_tick_policy", ISARTCState, lost_tick_policy, LostTickPolicy,
                     LOST_TICK_POLICY_DISCARD,
                     .description = "Policy for handling lost ticks (discard/delay/slew)"),
    {0},
};

DEFINE_DEVICE(mc146818rtc_device, ISARTCState, &vmstate_mc146818, .name = "mc146818rtc",
              .parent = TYPE_ISA_DEVICE, .category = DEVICE_CATEGORY_MISC,
              .vmstate_at = offsetof(ISARTCState, chip), .properties = rtc_properties,
              .init = rtc_init, .co_realize = rtc_co_realize, .reset_enter = rtc_reset_enter,
              .reset_exit = rtc_reset_exit, .run_state_changed = rtc_run_state_changed);
