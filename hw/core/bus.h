/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Buses, which devices plug into. A bus belongs to a device (a bridge, a controller) or to nothing
 * (the system bus), has a name that -device's bus= finds, and a class that knows addresses.
 *
 * Under the big lock (util/bql.h).
 */
#ifndef FERRY_HW_CORE_BUS_H
#define FERRY_HW_CORE_BUS_H

#include "hw/core/device.h"

struct BusClass {
    const char *name;   /* "PCI": what devices ask for, and what users see */
    const char *parent; /* NULL: "bus" */
    size_t instance_size;
    /*
     * Finds the device's address by its properties, before it is realized. False and errp: the bus is full,
     * or the address is taken or wrong. NULL: there are no addresses.
     */
    bool (*plug)(BusState *bus, DeviceState *dev, GError **errp);
    /* The address is free again. NULL: nothing to do. */
    void (*unplug)(BusState *bus, DeviceState *dev);
    /* NULL: there is always room. */
    bool (*has_room)(BusState *bus);
    /* The device's part of its section's name ("0000:00:02.0"); the caller frees. NULL: none. */
    char *(*section_path)(DeviceState *dev);
    /* Lines of `info qtree` about the device, each with `indent` blanks. NULL: none. */
    void (*print_device)(DeviceState *dev, GString *out, int indent);
};

/* The first member of every bus's struct. Members are those of hw/core. */
struct BusState {
    const BusClass *class;
    QomObject *object;
    char *name;
    DeviceState *parent;       /* NULL: the system bus */
    struct DeviceList devices; /* the youngest first */
    TAILQ_ENTRY(BusState) sibling;
    const HotplugHandler *hotplug; /* NULL: devices stay as they are while the machine runs */
    void *hotplug_opaque;
};

/*
 * The functions that plug and unplug devices while the machine runs. The controller that the guest
 * sees (ACPI, a port) registers them with bus_set_hotplug_handler().
 */
struct HotplugHandler {
    /* The device is realized: tell the guest. */
    void (*plugged)(void *opaque, DeviceState *dev);
    /*
     * Asks the guest to release the device. When the guest has done so, the handler calls
     * device_unplug(); it may do so at once. False and errp: it cannot be asked.
     */
    bool (*unplug_request)(void *opaque, DeviceState *dev, GError **errp);
};

void bus_class_register(const BusClass *class);
bool bus_class_is(const BusClass *class, const char *name);

/*
 * Makes a bus of a device's, in memory of class->instance_size bytes that goes with it. name NULL: "ID.N" after
 * the id of the device, or "KIND.N".
 */
BusState *bus_new(const BusClass *class, DeviceState *parent, const char *name);
/* Its devices have gone. */
void bus_free(BusState *bus);
void bus_set_hotplug_handler(BusState *bus, const HotplugHandler *handler, void *opaque);

/* The system bus, "main-system-bus"; made when it is first asked for. */
BusState *sysbus_get_default(void);
/* The bus of that name; NULL: none. */
BusState *bus_find(const char *name);
/* The first bus of that type, with room where there is one that has; NULL: none at all. */
BusState *bus_find_type(const char *type);
/* fn for each device, a bridge before what is behind it, in order of creation. */
void bus_foreach_device(BusState *bus, void (*fn)(DeviceState *dev, void *opaque), void *opaque);

/* device.c's */
bool bus_plug(BusState *bus, DeviceState *dev, GError **errp);
void bus_unplug(BusState *bus, DeviceState *dev);

#endif
