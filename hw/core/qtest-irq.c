/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What qtest does with devices' interrupt lines. */
#include "accel/qtest/qtest.h"
#include "hw/core/device-add.h"
#include "util/error.h"

static DeviceState *find_device(const char *path, GError **errp)
{
    QomObject *object = qom_resolve(path, errp);

    if (object && !qom_type_is(qom_object_type(object), "device")) {
        error_setg(errp, "Unknown device");
        return NULL;
    }
    return object ? qom_object_opaque(object) : NULL;
}

static void tell(void *opaque, int n, int level)
{
    qtest_irq_changed((unsigned)n, level != 0);
}

static bool intercept(const char *path, const char *name, bool input, GError **errp)
{
    DeviceState *dev = find_device(path, errp);
    unsigned n = 0;

    for (; dev; n++) {
        qemu_irq line =
            input ? qdev_get_gpio_in_named(dev, name, n) : qdev_get_gpio_out_named(dev, name, n);

        if (!line) {
            break;
        }
        irq_watch(line, tell, NULL);
    }
    if (dev && !n) {
        error_setg(errp, "the device has no such lines");
    }
    return n;
}

static bool intercept_in(const char *path, GError **errp)
{
    return intercept(path, NULL, true, errp);
}

static bool intercept_out(const char *path, const char *name, GError **errp)
{
    return intercept(path, name, false, errp);
}

static bool set_in(const char *path, const char *name, unsigned number, int level, GError **errp)
{
    DeviceState *dev = find_device(path, errp);
    bool unnamed = !*name || !g_strcmp0(name, "unnamed-gpio-in");
    qemu_irq line = dev ? qdev_get_gpio_in_named(dev, unnamed ? NULL : name, number) : NULL;

    if (dev && !line) {
        error_setg(errp, "the device has no such line");
    }
    qemu_set_irq(line, level);
    return line;
}

static const QTestIRQOps irq_ops = {
    .intercept_in = intercept_in, .intercept_out = intercept_out, .set_in = set_in};

void qtest_irq_init(void)
{
    qtest_set_irq_ops(&irq_ops);
}
