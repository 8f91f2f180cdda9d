/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The named groups of interrupt lines that a device has, and qtest's view of them. */
#include <string.h>
#include "hw/core/device.h"

struct GPIOList {
    char *name; /* NULL: the unnamed ones */
    bool input;
    unsigned n;
    IRQLine *lines;
    LIST_ENTRY(GPIOList) next;
};

static GPIOList *find(DeviceState *dev, const char *name, bool input)
{
    GPIOList *list;

    LIST_FOREACH(list, &dev->gpios, next) {
        if (list->input == input && !g_strcmp0(list->name, name)) {
            return list;
        }
    }
    return NULL;
}

static GPIOList *add(DeviceState *dev, qemu_irq_handler *handler, const char *name, unsigned n)
{
    GPIOList *list = g_new0(GPIOList, 1), *last = LIST_FIRST(&dev->gpios);

    g_assert(!find(dev, name, handler != NULL));
    list->name = g_strdup(name);
    list->input = handler != NULL;
    list->n = n;
    list->lines = g_new0(IRQLine, n);
    for (unsigned i = 0; i < n; i++) {
        irq_line_init(&list->lines[i], handler, dev, (int)i);
    }
    while (last && LIST_NEXT(last, next)) {
        last = LIST_NEXT(last, next);
    }
    if (last) {
        LIST_INSERT_AFTER(last, list, next);
    } else {
        LIST_INSERT_HEAD(&dev->gpios, list, next);
    }
    return list;
}

void qdev_init_gpio_in_named(DeviceState *dev, qemu_irq_handler *handler, const char *name,
                             unsigned n)
{
    add(dev, handler, name, n);
}

IRQLine *qdev_init_gpio_out_named(DeviceState *dev, const char *name, unsigned n)
{
    return add(dev, NULL, name, n)->lines;
}

static qemu_irq get(DeviceState *dev, const char *name, bool input, unsigned n)
{
    GPIOList *list = find(dev, name, input);

    return list && n < list->n ? &list->lines[n] : NULL;
}

qemu_irq qdev_get_gpio_in_named(DeviceState *dev, const char *name, unsigned n)
{
    return get(dev, name, true, n);
}

qemu_irq qdev_get_gpio_out_named(DeviceState *dev, const char *name, unsigned n)
{
    return get(dev, name, false, n);
}

void qdev_connect_gpio_out_named(DeviceState *dev, const char *name, unsigned n, qemu_irq to)
{
    qemu_irq from = get(dev, name, false, n);

    g_assert(from);
    if (to) {
        irq_connect(from, to);
    }
}

void qdev_foreach_gpio(DeviceState *dev,
                       void (*fn)(const char *name, bool input, unsigned n, void *opaque),
                       void *opaque)
{
    GPIOList *list;

    LIST_FOREACH(list, &dev->gpios, next) {
        fn(list->name ? list->name : "", list->input, list->n, opaque);
    }
}

void gpio_lists_free(DeviceState *dev)
{
    GPIOList *list;

    while ((list = LIST_FIRST(&dev->gpios))) {
        for (unsigned i = 0; i < list->n; i++) {
            irq_line_clear(&list->lines[i]);
        }
        LIST_REMOVE(list, next);
        g_free(list->lines);
        g_free(list->name);
        g_free(list);
    }
}
