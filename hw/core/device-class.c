/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The registry of device classes, and how the object model sees them. */
#include <string.h>
#include "hw/core/bus.h"
#include "hw/core/device-int.h"
#include "util/error.h"

const VMStateDescription device_no_section = {.name = "none"};

static const DeviceClass base_class = {
    .name = "device", .abstract = true, .instance_size = sizeof(DeviceState)};

static struct {
    GPtrArray *classes;  /* const DeviceClass */
    GHashTable *by_name; /* and by alias */
    GHashTable *types;   /* DeviceClass -> QomType */
} registry;

/* --- what every device has besides the properties of its classes --- */

static const char *const status_names[][2] = {
    {"parent_bus", "link<bus>"},
    {"realized", "bool"},
    {"hotplugged", "bool"},
    {"hotpluggable", "bool"},
};

static json_object *status_value(DeviceState *dev, const char *name)
{
    if (!strcmp(name, "parent_bus")) {
        g_autofree char *path = dev->parent_bus ? qom_object_path(dev->parent_bus->object) : NULL;

        return json_object_new_string(path ? path : "");
    }
    if (!strcmp(name, "realized")) {
        return json_object_new_boolean(device_is_realized(dev));
    }
    if (!strcmp(name, "hotplugged")) {
        return json_object_new_boolean(dev->hotplugged);
    }
    return json_object_new_boolean(!device_class_stays(dev->class));
}

/* --- properties as the object model lists them --- */

typedef struct PropertyLister {
    QomPropertyFn *fn;
    void *opaque;
} PropertyLister;

static void list_property(const Property *prop, void *opaque)
{
    PropertyLister *lister = opaque;
    const PropertyKind *kind = prop->kind;
    g_autofree char *link = prop->link ? g_strdup_printf("link<%s>", prop->link) : NULL;
    QomProperty property = {
        .name = prop->name,
        .type = link           ? link
                : prop->values ? prop->values->name
                               : kind->name,
        .description = prop->description ? prop->description : kind->description,
    };

    if (prop->has_default && kind->get_default) {
        property.default_value = kind->get_default(prop);
    }
    lister->fn(&property, lister->opaque);
    json_object_put(property.default_value);
}

static void list_properties(const QomType *type, QomPropertyFn *fn, void *opaque)
{
    PropertyLister lister = {.fn = fn, .opaque = opaque};

    for (size_t i = 0; i < G_N_ELEMENTS(status_names); i++) {
        QomProperty property = {
            .name = status_names[i][0], .type = status_names[i][1], .status = true};

        fn(&property, opaque);
    }
    device_class_foreach_property(type->opaque, list_property, &lister);
}

static bool get_property(void *opaque, const char *name, json_object **value, GError **errp)
{
    DeviceState *dev = opaque;
    const Property *prop = device_class_property(dev->class, name);

    *value = prop ? prop->kind->get(dev, prop, property_slot(dev, prop)) : status_value(dev, name);
    return true;
}

static bool set_property(void *opaque, const char *name, json_object *value, GError **errp)
{
    DeviceState *dev = opaque;
    const Property *prop = device_class_property(dev->class, name);

    if (!prop) {
        error_setg(errp, "Property '%s.%s' is not writable", dev->class->name, name);
        return false;
    }
    if (dev->phase != DEVICE_CREATED) {
        error_setg(errp,
                   "Attempt to set property '%s' on device '%s' (type '%s') after it was realized",
                   name, dev->id ? dev->id : "", dev->class->name);
        return false;
    }
    return property_set(dev, prop, value, PROPERTY_FROM_JSON, errp);
}

/* --- the registry --- */

static void add_class(const DeviceClass *class)
{
    QomType *type = g_new0(QomType, 1);

    *type = (QomType){
        .name = class->name,
        .parent = class == &base_class ? NULL : device_class_parent(class)->name,
        .abstract = class->abstract,
        .opaque = (void *)class,
        .foreach_property = list_properties,
        .get_one = get_property,
        .set = set_property,
        .finalize = device_finalize,
    };
    qom_type_register(type);
    g_ptr_array_add(registry.classes, (gpointer) class);
    g_hash_table_insert(registry.types, (gpointer) class, type);
    g_hash_table_insert(registry.by_name, (gpointer) class->name, (gpointer) class);
    if (class->alias) {
        g_hash_table_insert(registry.by_name, (gpointer) class->alias, (gpointer) class);
    }
}

static void init_registry(void)
{
    if (!registry.classes) {
        registry.classes = g_ptr_array_new();
        registry.by_name = g_hash_table_new(g_str_hash, g_str_equal);
        registry.types = g_hash_table_new(NULL, NULL);
        add_class(&base_class);
    }
}

void device_class_register(const DeviceClass *class)
{
    init_registry();
    g_assert(!device_class_find(class->name) && device_class_parent(class));
    g_assert(class->instance_size >= device_class_parent(class)->instance_size);
    g_assert(class->abstract || class->vmstate);
    add_class(class);
    if (class->vmstate && class->vmstate != NO_VMSTATE) {
        vmstate_register_class_description(class->name, class->vmstate);
    }
}

const GPtrArray *device_classes(void)
{
    init_registry();
    return registry.classes;
}

const DeviceClass *device_class_find(const char *name)
{
    init_registry();
    return g_hash_table_lookup(registry.by_name, name);
}

const QomType *device_class_type(const DeviceClass *class)
{
    return g_hash_table_lookup(registry.types, class);
}

const DeviceClass *device_class_parent(const DeviceClass *class)
{
    if (class == &base_class) {
        return NULL;
    }
    return class->parent ? device_class_find(class->parent) : &base_class;
}

bool device_class_is(const DeviceClass *class, const char *name)
{
    while (class && strcmp(class->name, name) != 0) {
        class = device_class_parent(class);
    }
    return class != NULL;
}

const char *device_class_bus(const DeviceClass *class)
{
    while (class && !class->bus) {
        class = device_class_parent(class);
    }
    return class ? class->bus : NULL;
}

bool device_class_stays(const DeviceClass *class)
{
    for (; class; class = device_class_parent(class)) {
        if (class->stays) {
            return true;
        }
    }
    return false;
}

const Property *device_class_property(const DeviceClass *class, const char *name)
{
    for (; class; class = device_class_parent(class)) {
        for (const Property *prop = class->properties; prop && prop->name; prop++) {
            if (!strcmp(prop->name, name)) {
                return prop;
            }
        }
    }
    return NULL;
}

void device_class_foreach_property(const DeviceClass *class,
                                   void (*fn)(const Property *prop, void *opaque), void *opaque)
{
    for (; class; class = device_class_parent(class)) {
        for (const Property *prop = class->properties; prop && prop->name; prop++) {
            fn(prop, opaque);
        }
    }
}
