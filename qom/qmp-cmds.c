/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP commands about objects and their types. */
#include <string.h>
#include "qapi/qapi-commands-qom.h"
#include "qom/object.h"
#include "qom/user-creatable.h"
#include "util/error.h"

bool coroutine_fn qmp_object_add(const ObjectOptions *arg, GError **errp)
{
    return user_creatable_co_add(arg, errp);
}

bool coroutine_fn qmp_object_del(const ObjectDelArg *arg, GError **errp)
{
    return user_creatable_del(arg->id, errp);
}

/* --- properties --- */

typedef struct Properties {
    ObjectPropertyInfoList *list, **tail;
} Properties;

static ObjectPropertyInfo *add_property(Properties *to, const char *name, char *type)
{
    ObjectPropertyInfo *info = g_new0(ObjectPropertyInfo, 1);

    info->name = g_strdup(name);
    info->type = type;
    QAPI_LIST_APPEND(to->tail, info);
    return info;
}

static void add_described(const QomProperty *property, void *opaque)
{
    add_property(opaque, property->name, g_strdup(property->type));
}

/* The same with what device-list-properties tells besides. */
static void add_with_default(const QomProperty *property, void *opaque)
{
    ObjectPropertyInfo *info;

    if (property->status) {
        return;
    }
    info = add_property(opaque, property->name, g_strdup(property->type));
    info->description = g_strdup(property->description);
    info->default_value = json_object_get(property->default_value);
}

static void add_child(QomObject *child, void *opaque)
{
    add_property(opaque, qom_object_name(child),
                 g_strdup_printf("child<%s>", qom_object_type(child)->name));
}

/* The properties of a type, and of one object where there is one. */
static ObjectPropertyInfoList *list_properties(const QomType *type, QomObject *object)
{
    Properties to = {.tail = &to.list};

    add_property(&to, "type", g_strdup("string"));
    qom_type_foreach_property(type, add_described, &to);
    if (object) {
        qom_object_foreach_child(object, add_child, &to);
    }
    return to.list;
}

bool coroutine_fn qmp_qom_list(const QomListArg *arg, ObjectPropertyInfoList **ret, GError **errp)
{
    QomObject *object = qom_resolve(arg->path, errp);

    if (!object) {
        return false;
    }
    *ret = list_properties(qom_object_type(object), object);
    return true;
}

bool coroutine_fn qmp_qom_get(const QomGetArg *arg, json_object **ret, GError **errp)
{
    QomObject *object = qom_resolve(arg->path, errp);

    return object && qom_object_get(object, arg->property, ret, errp);
}

bool coroutine_fn qmp_qom_set(const QomSetArg *arg, GError **errp)
{
    QomObject *object = qom_resolve(arg->path, errp);

    return object && qom_object_set(object, arg->property, arg->value, errp);
}

static ObjectPropertiesValues *values_of(QomObject *object)
{
    ObjectPropertiesValues *all = g_new0(ObjectPropertiesValues, 1);
    ObjectPropertyValueList **tail = &all->properties;
    ObjectPropertyInfoList *infos = list_properties(qom_object_type(object), object);

    for (ObjectPropertyInfoList *it = infos; it; it = it->next) {
        ObjectPropertyValue *property = g_new0(ObjectPropertyValue, 1);

        property->name = g_strdup(it->value->name);
        property->type = g_strdup(it->value->type);
        /* what cannot be read has no value here */
        (void)qom_object_get(object, property->name, &property->value, NULL);
        QAPI_LIST_APPEND(tail, property);
    }
    qapi_free_ObjectPropertyInfoList(infos);
    return all;
}

bool coroutine_fn qmp_qom_list_get(const QomListGetArg *arg, ObjectPropertiesValuesList **ret,
                                   GError **errp)
{
    ObjectPropertiesValuesList **tail = ret;

    for (strList *it = arg->paths; it; it = it->next) {
        QomObject *object = qom_resolve(it->value, errp);

        if (!object) {
            qapi_free_ObjectPropertiesValuesList(*ret);
            *ret = NULL;
            return false;
        }
        QAPI_LIST_APPEND(tail, values_of(object));
    }
    return true;
}

/* --- types --- */

typedef struct TypeFilter {
    const QomListTypesArg *arg;
    ObjectTypeInfoList **tail;
} TypeFilter;

static void add_type(const QomType *type, void *opaque)
{
    TypeFilter *filter = opaque;
    ObjectTypeInfo *info;

    if ((type->abstract && !(filter->arg->has_abstract && filter->arg->abstract)) ||
        (filter->arg->implements && !qom_type_is(type, filter->arg->implements))) {
        return;
    }
    info = g_new0(ObjectTypeInfo, 1);
    info->name = g_strdup(type->name);
    info->has_abstract = info->abstract = type->abstract;
    if (strcmp(type->name, "object") != 0) {
        info->parent = g_strdup(type->parent ? type->parent : "object");
    }
    QAPI_LIST_APPEND(filter->tail, info);
}

bool coroutine_fn qmp_qom_list_types(const QomListTypesArg *arg, ObjectTypeInfoList **ret,
                                     GError **errp)
{
    TypeFilter filter = {.arg = arg, .tail = ret};

    qom_type_foreach(add_type, &filter);
    return true;
}

/*
 * Types that libvirt (9.0, 11.3) asks about without looking first whether they exist, and whose
 * absence ends its process. They are shown as types without properties.
 */
static bool is_asked_blindly(const char *name)
{
    static const char *const names[] = {"memory-backend-file", "memory-backend-memfd",
                                        "max-x86_64-cpu", "generic-pc-machine", NULL};

    return g_strv_contains(names, name);
}

bool coroutine_fn qmp_qom_list_properties(const QomListPropertiesArg *arg,
                                          ObjectPropertyInfoList **ret, GError **errp)
{
    const QomType *type = qom_type_find(arg->typename);

    if (type) {
        *ret = list_properties(type, NULL);
        return true;
    }
    if (is_asked_blindly(arg->typename)) {
        return true;
    }
    error_set_class(errp, FERRY_ERROR_DEVICE_NOT_FOUND, "Class '%s' not found", arg->typename);
    return false;
}

bool coroutine_fn qmp_device_list_properties(const DeviceListPropertiesArg *arg,
                                             ObjectPropertyInfoList **ret, GError **errp)
{
    const QomType *type = qom_type_find(arg->typename);
    Properties to = {.tail = ret};

    if (!type) {
        error_set_class(errp, FERRY_ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", arg->typename);
        return false;
    }
    if (!qom_type_is(type, "device") || type->abstract) {
        error_setg(errp, "Parameter 'typename' expects a non-abstract device type");
        return false;
    }
    qom_type_foreach_property(type, add_with_default, &to);
    return true;
}
