/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices as text for people: -device help, -device TYPE,help and info qtree. */
#include <inttypes.h>
#include <string.h>
#include "hw/core/bus.h"
#include "hw/core/device-add.h"
#include "util/error.h"

/* --- types --- */

static gint by_name(gconstpointer a, gconstpointer b)
{
    return strcmp((*(const DeviceClass *const *)a)->name, (*(const DeviceClass *const *)b)->name);
}

static void print_class(GString *out, const DeviceClass *class)
{
    const char *bus = device_class_bus(class);

    g_string_append_printf(out, "name \"%s\"", class->name);
    if (bus) {
        g_string_append_printf(out, ", bus %s", bus);
    }
    if (class->alias) {
        g_string_append_printf(out, ", alias \"%s\"", class->alias);
    }
    if (class->desc) {
        g_string_append_printf(out, ", desc \"%s\"", class->desc);
    }
    g_string_append_c(out, '\n');
}

char *device_help(void)
{
    static const char *const titles[DEVICE_CATEGORY_MAX + 1] = {
        [DEVICE_CATEGORY_BRIDGE] = "Controller/Bridge/Hub",
        [DEVICE_CATEGORY_USB] = "USB",
        [DEVICE_CATEGORY_STORAGE] = "Storage",
        [DEVICE_CATEGORY_NETWORK] = "Network",
        [DEVICE_CATEGORY_INPUT] = "Input",
        [DEVICE_CATEGORY_DISPLAY] = "Display",
        [DEVICE_CATEGORY_SOUND] = "Sound",
        [DEVICE_CATEGORY_MISC] = "Misc",
        [DEVICE_CATEGORY_CPU] = "CPU",
        [DEVICE_CATEGORY_WATCHDOG] = "Watchdog",
        [DEVICE_CATEGORY_MAX] = "Uncategorized",
    };
    GString *out = g_string_new(NULL);
    g_autoptr(GPtrArray) sorted = g_ptr_array_copy((GPtrArray *)device_classes(), NULL, NULL);

    g_ptr_array_sort(sorted, by_name);
    for (int category = 1; category <= DEVICE_CATEGORY_MAX; category++) {
        bool any = false;

        for (guint i = 0; i < sorted->len; i++) {
            const DeviceClass *class = g_ptr_array_index(sorted, i);
            int of = class->category ? (int)class->category : DEVICE_CATEGORY_MAX;

            if (class->abstract || class->internal || of != category) {
                continue;
            }
            if (!any) {
                g_string_append_printf(out, "%s%s devices:\n", out->len ? "\n" : "",
                                       titles[category]);
            }
            any = true;
            print_class(out, class);
        }
    }
    return g_string_free(out, FALSE);
}

static gint by_option(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* "  iobase=<uint32>        -  (default: 1281)" */
static void add_option(const QomProperty *property, void *opaque)
{
    g_autoptr(GString) line = g_string_new(NULL);

    if (property->status) {
        return;
    }
    g_string_append_printf(line, "  %s=<%s>", property->name, property->type);
    if (property->description || property->default_value) {
        int pad = 24 - (int)line->len;

        g_string_append_printf(line, "%*s - %s", MAX(pad, 0), "",
                               property->description ? property->description : "");
    }
    if (property->default_value) {
        g_string_append_printf(line, " (default: %s)",
                               json_object_to_json_string(property->default_value));
    }
    g_string_append_c(line, '\n');
    g_ptr_array_add(opaque, g_strdup(line->str));
}

char *device_type_help(const char *type, GError **errp)
{
    const DeviceClass *class = device_class_find(type);
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
    GString *out;

    if (!class) {
        error_set_class(errp, FERRY_ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", type);
        return NULL;
    }
    if (class->abstract) {
        error_setg(errp, "Parameter 'typename' expects a non-abstract device type");
        return NULL;
    }
    qom_type_foreach_property(qom_type_find(class->name), add_option, lines);
    g_ptr_array_sort(lines, by_option);
    out = g_string_new(NULL);
    if (lines->len) {
        g_string_append_printf(out, "%s options:\n", class->name);
    } else {
        g_string_append_printf(out, "There are no options for %s.\n", class->name);
    }
    for (guint i = 0; i < lines->len; i++) {
        g_string_append(out, g_ptr_array_index(lines, i));
    }
    return g_string_free(out, FALSE);
}

/* --- the tree --- */

typedef struct TreeText {
    GString *out;
    DeviceState *dev;
    int indent;
} TreeText;

static void print_gpio(const char *name, bool input, unsigned n, void *opaque)
{
    TreeText *tree = opaque;

    g_string_append_printf(tree->out, "%*sgpio-%s \"%s\" %u\n", tree->indent, "",
                           input ? "in" : "out", name, n);
}

static void print_property(const Property *prop, void *opaque)
{
    TreeText *tree = opaque;
    g_autofree char *value = prop->kind->print(tree->dev, prop, property_slot(tree->dev, prop));

    g_string_append_printf(tree->out, "%*s%s = %s\n", tree->indent, "", prop->name, value);
}

static void print_bus(GString *out, BusState *bus, int indent);

static void print_device(GString *out, DeviceState *dev, int indent)
{
    TreeText tree = {.out = out, .dev = dev, .indent = indent + 2};
    BusState *bus;

    g_string_append_printf(out, "%*sdev: %s, id \"%s\"\n", indent, "", dev->class->name,
                           dev->id ? dev->id : "");
    qdev_foreach_gpio(dev, print_gpio, &tree);
    device_class_foreach_property(dev->class, print_property, &tree);
    if (dev->parent_bus && dev->parent_bus->class->print_device) {
        dev->parent_bus->class->print_device(dev, out, indent + 2);
    }
    TAILQ_FOREACH(bus, &dev->buses, sibling) {
        print_bus(out, bus, indent + 2);
    }
}

static void print_bus(GString *out, BusState *bus, int indent)
{
    DeviceState *dev;

    g_string_append_printf(out, "%*sbus: %s\n%*stype %s\n", indent, "", bus->name, indent + 2, "",
                           bus->class->name);
    TAILQ_FOREACH(dev, &bus->devices, sibling) {
        print_device(out, dev, indent + 2);
    }
}

char *device_tree_text(void)
{
    GString *out = g_string_new(NULL);

    print_bus(out, sysbus_get_default(), 0);
    return g_string_free(out, FALSE);
}
