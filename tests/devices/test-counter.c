/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A device that exists in the tests alone. Its registers: test-machine.h. */
#include "hw/core/reset.h"
#include "tests/devices/test-machine.h"
#include "util/error.h"

#define CONTROL_COUNTS     0x01
#define CONTROL_INTERRUPTS 0x02
#define STATUS_EXPIRED     0x01
#define STATUS_RESETTING   0x80

static void update_line(CounterState *s)
{
    qemu_set_irq(s->out, (s->status & STATUS_EXPIRED) && (s->control & CONTROL_INTERRUPTS));
}

static void arm(CounterState *s)
{
    if (s->control & CONTROL_COUNTS) {
        timer_mod_ns(s->timer, device_clock_ns(&s->parent.qdev.clock) + s->period);
    } else {
        timer_del(s->timer);
    }
}

static void expired(void *opaque)
{
    CounterState *s = opaque;

    s->count++;
    s->status |= STATUS_EXPIRED;
    update_line(s);
    arm(s);
}

static void control_written(void *state, const RegisterWrite *write)
{
    CounterState *s = state;

    if ((write->old ^ write->value) & CONTROL_COUNTS) {
        arm(s);
    }
    update_line(s);
}

static uint64_t status_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    CounterState *s = state;

    return stored | (device_is_resetting(&s->parent.qdev) ? STATUS_RESETTING : 0);
}

static void status_written(void *state, const RegisterWrite *write)
{
    update_line(state);
}

static void command_ended(void *opaque)
{
    CounterState *s = opaque;

    s->done++;
}

static void kicked(void *state, const RegisterWrite *write)
{
    CounterState *s = state;

    if (!timer_pending(s->command) && !device_is_resetting(&s->parent.qdev)) {
        timer_mod_ns(s->command, device_clock_ns(&s->parent.qdev.clock) + s->delay);
    }
}

static void asked(void *state, const RegisterWrite *write)
{
    CounterState *s = state;
    uint32_t generation;

    if (device_request_begin(&s->parent.qdev, &generation)) {
        g_queue_push_tail(&s->requests, GUINT_TO_POINTER(generation));
    }
}

void test_counter_answer(CounterState *s)
{
    if (!g_queue_is_empty(&s->requests) &&
        device_request_end(&s->parent.qdev, GPOINTER_TO_UINT(g_queue_pop_head(&s->requests)))) {
        s->done++;
    }
}

static void answered(void *state, const RegisterWrite *write)
{
    test_counter_answer(state);
}

static const RegisterRow rows[] = {
    REGISTER(0, CounterState, control, "CONTROL", .writable = 3, .write = control_written),
    REGISTER(1, CounterState, status, "STATUS", .clear_on_one = STATUS_EXPIRED, .read = status_read,
             .write = status_written),
    REGISTER(4, CounterState, count, "COUNT"),
    REGISTER_HOOKS(8, 1, "KICK", .write = kicked),
    REGISTER_HOOKS(9, 1, "ASK", .write = asked),
    REGISTER_HOOKS(10, 1, "ANSWER", .write = answered),
    REGISTER(12, CounterState, done, "DONE"),
};
static const RegisterTable table = {"test-counter", rows, G_N_ELEMENTS(rows), .filler = 0xff};

static void counter_reset_enter(DeviceState *dev)
{
    register_table_reset(&table, dev);
    timer_del(((CounterState *)dev)->command);
}

static void counter_reset_exit(DeviceState *dev)
{
    CounterState *s = (CounterState *)dev;

    arm(s);
    update_line(s);
}

static void counter_init(DeviceState *dev)
{
    ((CounterState *)dev)->out = qdev_init_gpio_out_named(dev, NULL, 1);
}

static void free_timers(void *opaque)
{
    CounterState *s = opaque;

    timer_free(g_steal_pointer(&s->timer));
    timer_free(g_steal_pointer(&s->command));
}

static bool coroutine_fn counter_co_realize(DeviceState *dev, GError **errp)
{
    CounterState *s = (CounterState *)dev;
    g_autofree char *path = device_path(dev);

    s->timer = device_clock_timer(&dev->clock, expired, s);
    s->command = device_clock_timer(&dev->clock, command_ended, s);
    device_on_unrealize(dev, free_timers, s);
    if (!isa_connect_irq(dev, s->out, s->irq, errp)) {
        return false;
    }
    register_bank_init(&s->bank, path, &table, s, 16);
    if (!isa_register_ioport(dev, &s->bank.region, s->iobase, errp)) {
        return false;
    }
    if (s->fail) {
        error_setg(errp, "the counter was told to fail");
        return false;
    }
    return true;
}

static int loaded(void *opaque, int version_id, GError **errp)
{
    CounterState *s = opaque;

    if (s->control & ~3u || s->status & ~STATUS_EXPIRED) {
        error_setg(errp, "reserved bits are set");
        return -EINVAL;
    }
    irq_load_level(s->out, (s->status & STATUS_EXPIRED) && (s->control & CONTROL_INTERRUPTS));
    return 0;
}

static const VMStateField counter_fields[] = {VMSTATE_UINT8(control, CounterState),
                                              VMSTATE_UINT8(status, CounterState),
                                              VMSTATE_UINT32(count, CounterState),
                                              VMSTATE_UINT32(done, CounterState),
                                              VMSTATE_TIMER_PTR(timer, CounterState),
                                              VMSTATE_TIMER_PTR(command, CounterState),
                                              VMSTATE_END_OF_LIST()};

const VMStateDescription vmstate_test_counter = {
    .name = "test-counter",
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = loaded,
    .fields = counter_fields,
};

static const Property counter_properties[] = {
    DEFINE_PROP_UINT32("iobase", CounterState, iobase, 0x300),
    DEFINE_PROP_UINT8("irq", CounterState, irq, 5),
    DEFINE_PROP_UINT32("period", CounterState, period, 1000, .min = 10,
                       .description = "nanoseconds"),
    DEFINE_PROP_UINT32("delay", CounterState, delay, 100),
    DEFINE_PROP_STRING("label", CounterState, label),
    DEFINE_PROP_ON_OFF_AUTO("mode", CounterState, mode, ON_OFF_AUTO_AUTO),
    DEFINE_PROP_SIZE("space", CounterState, space, 4096),
    DEFINE_PROP_BIT("feature", CounterState, flags, 3, true),
    DEFINE_PROP_MACADDR("mac", CounterState, mac),
    DEFINE_PROP_LINK("iothread", CounterState, iothread, "iothread"),
    DEFINE_PROP_CHR("chardev", CounterState, chr),
    DEFINE_PROP_DRIVE("drive", CounterState, drive),
    DEFINE_PROP_BOOL("fail", CounterState, fail, false),
    {0},
};

DEFINE_DEVICE(test_counter_device, CounterState, &vmstate_test_counter, .name = "test-counter",
              .parent = TYPE_ISA_DEVICE, .desc = "counts, for tests",
              .properties = counter_properties, .init = counter_init,
              .co_realize = counter_co_realize, .reset_enter = counter_reset_enter,
              .reset_exit = counter_reset_exit);
