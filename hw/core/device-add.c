/* SPDX-License-Identifier: GPL-2.0-or-later */
/* -device, device_add and device_del. */
#include "hw/core/device-add.h"

#include <string.h>
#include "accel/vm-stop.h"
#include "hw/core/bus.h"
#include "hw/core/device-int.h"
#include "qapi/qapi-commands-qdev.h"
#include "qapi/qapi-events-qdev.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/id.h"

static DevicePlugCheck *plug_check;
static unsigned plugs; /* under way */

void device_set_plug_check(DevicePlugCheck *check)
{
    plug_check = check;
}

bool device_plug_under_way(void)
{
    return plugs;
}

static bool plugging_allowed(const char *command, GError **errp)
{
    return !plug_check || plug_check(command, errp);
}

/* Takes a member out of `args`; the caller frees. NULL: it is absent. */
static char *take_text(json_object *args, const char *name)
{
    json_object *value;
    char *text;

    if (!json_object_object_get_ex(args, name, &value)) {
        return NULL;
    }
    text = g_strdup(property_text(value));
    json_object_object_del(args, name);
    return text;
}

static const DeviceClass *find_class(const char *driver, bool hotplug, GError **errp)
{
    const DeviceClass *class = driver ? device_class_find(driver) : NULL;

    if (!driver) {
        error_setg(errp, "Parameter 'driver' is missing");
    } else if (!class) {
        error_setg(errp, "'%s' is not a valid device model name", driver);
    } else if (class->abstract) {
        error_setg(errp, "Parameter 'driver' expects a non-abstract device type");
    } else if (class->internal || (hotplug && device_class_stays(class))) {
        error_setg(errp, "Parameter 'driver' expects a pluggable device type");
    } else {
        return class;
    }
    return NULL;
}

/* False: errp. *bus stays NULL for a device that has no use for one. */
static bool find_bus(const DeviceClass *class, const char *name, bool hotplug, BusState **bus,
                     GError **errp)
{
    const char *type = device_class_bus(class);

    if (name) {
        *bus = bus_find(name);
        if (!*bus) {
            error_setg(errp, "Bus '%s' not found", name);
            return false;
        }
        if (!type || !bus_class_is((*bus)->class, type)) {
            error_setg(errp, "Device '%s' can't go on %s bus", class->name, (*bus)->class->name);
            return false;
        }
    } else if (type) {
        *bus = bus_find_type(type);
        if (!*bus) {
            error_setg(errp, "No '%s' bus found for device '%s'", type, class->name);
            return false;
        }
    }
    if (hotplug && (!*bus || !(*bus)->hotplug)) {
        if (*bus) {
            error_setg(errp, "Bus '%s' does not support hotplugging", (*bus)->name);
        } else {
            error_setg(errp, "Device '%s' can not be hotplugged on this machine", class->name);
        }
        return false;
    }
    return true;
}

static bool check_id(const char *id, bool hotplug, GError **errp)
{
    if (!id) {
        return true;
    }
    if (!qemu_id_check(id, errp)) {
        return false;
    }
    if (device_find(id)) {
        if (hotplug) {
            error_setg(errp, "Duplicate device ID '%s'", id);
        } else {
            error_setg(errp, "Duplicate ID '%s' for device", id);
        }
        return false;
    }
    return true;
}

static bool coroutine_fn co_make(const DeviceOptions *options, bool hotplug, GError **errp)
{
    DeviceState *dev = check_id(options->id, hotplug, errp) ? device_create(options, errp) : NULL;
    BusState *bus;

    if (!dev) {
        return false;
    }
    dev->hotplugged = hotplug;
    device_ref(dev);
    if (!device_co_realize(dev, errp)) {
        device_co_destroy(dev);
        device_unref(dev);
        return false;
    }
    bus = dev->parent_bus;
    if (hotplug && bus && bus->hotplug->plugged && device_is_realized(dev)) {
        bus->hotplug->plugged(bus->hotplug_opaque, dev);
    }
    device_unref(dev);
    return true;
}

/* The same while the guest is there. */
static bool coroutine_fn co_plug(const DeviceOptions *options, GError **errp)
{
    bool ok;

    if (!plugging_allowed("device_add", errp) || !vm_change_begin(errp)) {
        return false;
    }
    plugs++;
    ok = co_make(options, true, errp);
    plugs--;
    vm_change_end();
    return ok;
}

bool coroutine_fn device_co_add(json_object *args, PropertySource source, bool hotplug,
                                GError **errp)
{
    g_autofree char *driver = take_text(args, "driver"), *bus_name = take_text(args, "bus");
    g_autofree char *id = take_text(args, "id");
    DeviceOptions options = {.id = id, .values = args, .source = source, .user = true};

    options.class = find_class(driver, hotplug, errp);
    if (!options.class || !find_bus(options.class, bus_name, hotplug, &options.bus, errp)) {
        return false;
    }
    return hotplug ? co_plug(&options, errp) : co_make(&options, false, errp);
}

bool coroutine_fn qmp_device_add(json_object *args, json_object **ret, GError **errp)
{
    json_object *own = NULL;
    bool ok;

    if (!args) {
        error_setg(errp, "Parameter 'driver' is missing");
        return false;
    }
    if (json_object_deep_copy(args, &own, NULL) < 0) {
        error_setg(errp, "out of memory");
        return false;
    }
    ok = device_co_add(own, PROPERTY_FROM_TEXT, true, errp);
    json_object_put(own);
    return ok;
}

/* --- unplugging --- */

static void coroutine_fn unplug(DeviceState *dev)
{
    g_autofree char *path = NULL;

    if (!dev->ending && device_is_realized(dev)) {
        path = device_path(dev);
        device_co_destroy(dev);
        qapi_event_send_device_deleted(dev->id, path);
    }
}

/* A take that follows waits for it. */
static void coroutine_fn co_unplug(void *opaque)
{
    DeviceState *dev = opaque;

    unplug(dev);
    vm_change_end();
    device_unref(dev);
}

/* The device goes when the guest is given back, or has left. While the process ends it goes anyway. */
static void coroutine_fn co_unplug_later(void *opaque)
{
    DeviceState *dev = opaque;

    if (vm_co_change_begin()) {
        unplug(dev);
        vm_change_end();
    }
    device_unref(dev);
}

void device_unplug(DeviceState *dev)
{
    bool now = vm_change_begin(NULL);

    dev->unplug_asked = true;
    device_ref(dev);
    /* From the loop: the caller may be a register of the device, or of its bus. */
    aio_co_schedule(qemu_get_aio_context(),
                    qemu_coroutine_create(now ? co_unplug : co_unplug_later, dev));
}

/* By id, or by a path that begins with '/'. */
static DeviceState *find_device(const char *id, GError **errp)
{
    QomObject *object;
    DeviceState *dev;

    if (*id != '/') {
        dev = device_find(id);
        if (!dev) {
            error_set_class(errp, FERRY_ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", id);
        }
        return dev;
    }
    object = qom_resolve(id, errp);
    if (object && !qom_type_is(qom_object_type(object), "device")) {
        error_setg(errp, "%s is not a hotpluggable device", id);
        return NULL;
    }
    return object ? qom_object_opaque(object) : NULL;
}

bool coroutine_fn qmp_device_del(const DeviceDelArg *arg, GError **errp)
{
    DeviceState *dev = find_device(arg->id, errp);
    BusState *bus = dev ? dev->parent_bus : NULL;

    if (!dev) {
        return false;
    }
    if (dev->unplug_asked || dev->ending) {
        error_setg(errp, "Device %s is already in the process of unplug", arg->id);
        return false;
    }
    if (!device_is_realized(dev)) {
        error_setg(errp, "Device %s is still being plugged", arg->id);
        return false;
    }
    if (bus && !bus->hotplug) {
        error_setg(errp, "Bus '%s' does not support hotplugging", bus->name);
        return false;
    }
    if (!bus || device_class_stays(dev->class)) {
        error_setg(errp, "Device '%s' does not support hotplugging", dev->class->name);
        return false;
    }
    if (!plugging_allowed("device_del", errp) || !vm_check_not_taken(errp)) {
        return false;
    }
    dev->unplug_asked = true;
    if (!bus->hotplug->unplug_request(bus->hotplug_opaque, dev, errp)) {
        dev->unplug_asked = false;
        return false;
    }
    return true;
}
