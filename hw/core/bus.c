/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Buses, and the tree that they and devices make. */
#include "hw/core/bus.h"

#include <string.h>
#include "hw/core/sysbus.h"
#include "util/bql.h"
#include "util/error.h"

static const BusClass base_class = {.name = "bus", .instance_size = sizeof(BusState)};
static const BusClass system_class = {
    .name = "System", .instance_size = sizeof(BusState), .print_device = sysbus_print_device};

static struct {
    GPtrArray *classes;  /* const BusClass */
    GHashTable *types;   /* BusClass -> QomType */
    GHashTable *numbers; /* name of a type -> how many of its buses were named after it */
    BusState *system;
} buses;

/* --- classes --- */

static json_object *get_nothing(void *opaque)
{
    return NULL;
}

static void bus_finalize(void *opaque)
{
    BusState *bus = opaque;

    g_free(bus->name);
    g_free(bus);
}

static void add_class(const BusClass *class, bool abstract)
{
    QomType *type = g_new0(QomType, 1);

    *type = (QomType){
        .name = class->name,
        .parent = class == &base_class ? NULL
                  : class->parent      ? class->parent
                                       : base_class.name,
        .abstract = abstract,
        .get = get_nothing,
        .finalize = bus_finalize,
    };
    qom_type_register(type);
    g_ptr_array_add(buses.classes, (gpointer) class);
    g_hash_table_insert(buses.types, (gpointer) class, type);
}

static void init_classes(void)
{
    if (!buses.classes) {
        buses.classes = g_ptr_array_new();
        buses.types = g_hash_table_new(NULL, NULL);
        buses.numbers = g_hash_table_new(g_str_hash, g_str_equal);
        add_class(&base_class, true);
        add_class(&system_class, false);
    }
}

void bus_class_register(const BusClass *class)
{
    init_classes();
    g_assert(class->instance_size >= sizeof(BusState));
    add_class(class, false);
}

bool bus_class_is(const BusClass *class, const char *name)
{
    init_classes();
    return qom_type_is(g_hash_table_lookup(buses.types, class), name);
}

/* --- making and ending --- */

static char *choose_name(const BusClass *class, DeviceState *parent)
{
    g_autofree char *kind = g_ascii_strdown(class->name, -1);
    unsigned n = 0;

    if (parent && parent->id) {
        BusState *other;

        TAILQ_FOREACH(other, &parent->buses, sibling) {
            n++;
        }
        return g_strdup_printf("%s.%u", parent->id, n);
    }
    n = GPOINTER_TO_UINT(g_hash_table_lookup(buses.numbers, class->name));
    g_hash_table_insert(buses.numbers, (gpointer) class->name, GUINT_TO_POINTER(n + 1));
    return g_strdup_printf("%s.%u", kind, n);
}

BusState *bus_new(const BusClass *class, DeviceState *parent, const char *name)
{
    BusState *bus = g_malloc0(class->instance_size);

    g_assert(bql_locked());
    init_classes();
    bus->class = class;
    bus->parent = parent;
    bus->name = name ? g_strdup(name) : choose_name(class, parent);
    TAILQ_INIT(&bus->devices);
    if (parent) {
        TAILQ_INSERT_HEAD(&parent->buses, bus, sibling);
        bus->object =
            qom_object_new(parent->object, bus->name, g_hash_table_lookup(buses.types, class), bus);
    }
    return bus;
}

void bus_free(BusState *bus)
{
    g_assert(TAILQ_EMPTY(&bus->devices));
    if (bus->parent) {
        TAILQ_REMOVE(&bus->parent->buses, bus, sibling);
    }
    qom_object_free(bus->object);
}

void bus_set_hotplug_handler(BusState *bus, const HotplugHandler *handler, void *opaque)
{
    bus->hotplug = handler;
    bus->hotplug_opaque = opaque;
}

BusState *sysbus_get_default(void)
{
    if (!buses.system) {
        QomObject *machine = qom_container("machine");
        QomObject *place = qom_object_child(machine, "unattached");

        buses.system = bus_new(&system_class, NULL, "main-system-bus");
        if (!place) {
            place = qom_object_new(machine, "unattached", qom_type_find("container"), NULL);
        }
        buses.system->object = qom_object_new(
            place, "sysbus", g_hash_table_lookup(buses.types, &system_class), buses.system);
    }
    return buses.system;
}

bool bus_plug(BusState *bus, DeviceState *dev, GError **errp)
{
    g_assert(!dev->parent_bus);
    dev->parent_bus = bus;
    if (bus->class->plug && !bus->class->plug(bus, dev, errp)) {
        dev->parent_bus = NULL;
        return false;
    }
    TAILQ_INSERT_HEAD(&bus->devices, dev, sibling);
    return true;
}

void bus_unplug(BusState *bus, DeviceState *dev)
{
    if (bus->class->unplug) {
        bus->class->unplug(bus, dev);
    }
    TAILQ_REMOVE(&bus->devices, dev, sibling);
    dev->parent_bus = NULL;
}

/* --- looking --- */

/* Buses of a device in order of creation: lists have the youngest first. */
#define FOREACH_BUS(bus, dev)    TAILQ_FOREACH_REVERSE(bus, &(dev)->buses, BusList, sibling)
#define FOREACH_DEVICE(dev, bus) TAILQ_FOREACH_REVERSE(dev, &(bus)->devices, DeviceList, sibling)

typedef bool BusTest(BusState *bus, const char *what);

static BusState *search(BusState *bus, BusTest *test, const char *what)
{
    DeviceState *dev;
    BusState *below;

    if (test(bus, what)) {
        return bus;
    }
    FOREACH_DEVICE(dev, bus)
    {
        FOREACH_BUS(below, dev)
        {
            BusState *found = search(below, test, what);

            if (found) {
                return found;
            }
        }
    }
    return NULL;
}

static bool is_named(BusState *bus, const char *name)
{
    return !strcmp(bus->name, name);
}

static bool is_of_type(BusState *bus, const char *type)
{
    return bus_class_is(bus->class, type);
}

static bool is_of_type_with_room(BusState *bus, const char *type)
{
    return is_of_type(bus, type) && (!bus->class->has_room || bus->class->has_room(bus));
}

BusState *bus_find(const char *name)
{
    return search(sysbus_get_default(), is_named, name);
}

BusState *bus_find_type(const char *type)
{
    BusState *bus = search(sysbus_get_default(), is_of_type_with_room, type);

    return bus ? bus : search(sysbus_get_default(), is_of_type, type);
}

void bus_foreach_device(BusState *bus, void (*fn)(DeviceState *dev, void *opaque), void *opaque)
{
    DeviceState *dev;
    BusState *below;

    FOREACH_DEVICE(dev, bus)
    {
        fn(dev, opaque);
        FOREACH_BUS(below, dev)
        {
            bus_foreach_device(below, fn, opaque);
        }
    }
}
