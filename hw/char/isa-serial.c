/* SPDX-License-Identifier: GPL-2.0-or-later */
/* isa-serial: the chip of hw/char/serial.h at the ports and on the line of COM1 to COM4. */
#include "accel/runstate.h"
#include "hw/char/serial.h"
#include "hw/isa/isa.h"
#include "hw/types.h"
#include "util/error.h"

#define PORTS_MAX   4
#define NOT_GIVEN   UINT32_MAX
#define SERIAL_PART "serial" /* the part of the device that has the chardev, for messages */

typedef struct ISASerialState {
    ISADevice parent;
    uint32_t index, iobase, irq;
    bool wakeup; /* there is no sleep to wake from */
    SerialState state;
    IRQLine *out;
    RegisterBank bank;
} ISASerialState;

static void isa_serial_reset_enter(DeviceState *dev)
{
    serial_reset_enter(&((ISASerialState *)dev)->state);
}

static void isa_serial_reset_exit(DeviceState *dev)
{
    serial_reset_exit(&((ISASerialState *)dev)->state);
}

static void isa_serial_run_state_changed(DeviceState *dev, bool running)
{
    serial_set_running(&((ISASerialState *)dev)->state, running);
}

static void isa_serial_init(DeviceState *dev)
{
    ((ISASerialState *)dev)->out = qdev_init_gpio_out_named(dev, NULL, 1);
}

/* How many ports there were on the bus before this one. */
static uint32_t ports_before(DeviceState *dev)
{
    DeviceState *other = dev;
    uint32_t n = 0;

    while ((other = TAILQ_NEXT(other, sibling))) { /* the youngest is first */
        n += other->class == dev->class;
    }
    return n;
}

static bool find_place(ISASerialState *s, GError **errp)
{
    static const uint16_t ports[PORTS_MAX] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
    static const uint8_t lines[PORTS_MAX] = {4, 3, 4, 3};

    if (s->index == NOT_GIVEN) {
        s->index = ports_before(&s->parent.qdev);
    }
    if (s->index >= PORTS_MAX) {
        error_setg(errp, "Max. supported number of ISA serial ports is %d.", PORTS_MAX);
        return false;
    }
    s->iobase = s->iobase == NOT_GIVEN ? ports[s->index] : s->iobase;
    s->irq = s->irq == NOT_GIVEN ? lines[s->index] : s->irq;
    return true;
}

static void disconnect(void *opaque)
{
    serial_cleanup(opaque);
}

static bool coroutine_fn isa_serial_co_realize(DeviceState *dev, GError **errp)
{
    ISASerialState *s = (ISASerialState *)dev;
    g_autofree char *path = device_path(dev);

    if (!find_place(s, errp) || !isa_connect_irq(dev, s->out, s->irq, errp) ||
        !serial_init(&s->state, &dev->clock, s->out, errp)) {
        return false;
    }
    device_on_unrealize(dev, disconnect, &s->state);
    register_bank_init(&s->bank, path, &serial_registers, &s->state, SERIAL_PORTS);
    if (!isa_register_ioport(dev, &s->bank.region, s->iobase, errp)) {
        return false;
    }
    serial_set_running(&s->state, runstate_is_running());
    return true;
}

static const VMStateField isa_serial_fields[] = {
    VMSTATE_STRUCT(state, ISASerialState, 0, vmstate_serial_chip, SerialState),
    VMSTATE_END_OF_LIST()};

static const VMStateDescription vmstate_isa_serial = {
    .name = "serial",
    .version_id = 3,
    .minimum_version_id = 3,
    .fields = isa_serial_fields,
};

static const Property isa_serial_properties[] = {
    DEFINE_PROP_UINT32("index", ISASerialState, index, NOT_GIVEN),
    DEFINE_PROP_UINT32("iobase", ISASerialState, iobase, NOT_GIVEN),
    DEFINE_PROP_UINT32("irq", ISASerialState, irq, NOT_GIVEN),
    DEFINE_PROP_UINT32("baudbase", ISASerialState, state.baudbase, SERIAL_BAUDBASE, .min = 1),
    DEFINE_PROP_CHR("chardev", ISASerialState, state.chr, .part = SERIAL_PART),
    DEFINE_PROP_BOOL("wakeup", ISASerialState, wakeup, false, .description = "on/off"),
    {0},
};

DEFINE_DEVICE(isa_serial_device, ISASerialState, &vmstate_isa_serial, .name = "isa-serial",
              .parent = TYPE_ISA_DEVICE, .category = DEVICE_CATEGORY_INPUT,
              .properties = isa_serial_properties, .init = isa_serial_init,
              .co_realize = isa_serial_co_realize, .reset_enter = isa_serial_reset_enter,
              .reset_exit = isa_serial_reset_exit,
              .run_state_changed = isa_serial_run_state_changed);
