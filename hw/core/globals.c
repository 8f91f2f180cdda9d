/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rows of machine types, and -global. */
#include "hw/core/globals.h"

#include "util/error.h"

typedef struct Global {
    char *driver, *property, *value;
    bool user;
} Global;

static GPtrArray *globals; /* Global, in order of application */

static void global_free(gpointer data)
{
    Global *global = data;

    g_free(global->driver);
    g_free(global->property);
    g_free(global->value);
    g_free(global);
}

static void add(const char *driver, const char *property, const char *value, bool user)
{
    Global *global = g_new0(Global, 1);
    guint at;

    if (!globals) {
        globals = g_ptr_array_new_with_free_func(global_free);
    }
    global->driver = g_strdup(driver);
    global->property = g_strdup(property);
    global->value = g_strdup(value);
    global->user = user;
    /* What users say comes last, whenever the machine adds its rows. */
    for (at = globals->len; !user && at > 0; at--) {
        const Global *before = g_ptr_array_index(globals, at - 1);

        if (!before->user) {
            break;
        }
    }
    g_ptr_array_insert(globals, (gint)at, global);
}

void globals_add_row(const PropertyRow *row)
{
    add(row->driver, row->property, row->value, false);
}

void globals_add_user(const char *driver, const char *property, const char *value)
{
    add(driver, property, value, true);
}

void globals_check(void)
{
    for (guint i = 0; globals && i < globals->len; i++) {
        const Global *global = g_ptr_array_index(globals, i);

        if (global->user && !device_class_find(global->driver)) {
            warn_report("global %s.%s has invalid class name", global->driver, global->property);
        }
    }
}

void globals_clear(void)
{
    g_clear_pointer(&globals, g_ptr_array_unref);
}

static bool apply(DeviceState *dev, const Global *global, GError **errp)
{
    const Property *prop = device_class_property(dev->class, global->property);
    json_object *value;
    GError *err = NULL;
    bool ok;

    if (!prop) {
        error_setg(errp, "can't apply global %s.%s=%s: Property '%s.%s' not found", global->driver,
                   global->property, global->value, dev->class->name, global->property);
        return false;
    }
    value = json_object_new_string(global->value);
    ok = property_set(dev, prop, value, PROPERTY_FROM_GLOBAL, &err);
    json_object_put(value);
    if (!ok) {
        g_propagate_prefixed_error(errp, err, "can't apply global %s.%s=%s: ", global->driver,
                                   global->property, global->value);
    }
    return ok;
}

bool globals_apply(DeviceState *dev, GError **errp)
{
    for (guint i = 0; globals && i < globals->len; i++) {
        const Global *global = g_ptr_array_index(globals, i);

        if (device_class_is(dev->class, global->driver) && !apply(dev, global, errp)) {
            return false;
        }
    }
    return true;
}
