/* SPDX-License-Identifier: GPL-2.0-or-later */
/* HMP: devices and objects. */
#include <string.h>
#include "hw/core/device-add.h"
#include "monitor/hmp-int.h"
#include "monitor/hmp.h"
#include "qapi/keyval.h"
#include "qom/object.h"
#include "util/error.h"

static void coroutine_fn hmp_co_device_add(HMPOutput *out, const HMPCommand *cmd, int argc,
                                           char **argv)
{
    QapiDecodeFlags flags = QAPI_DECODE_JSON;
    bool help = false;
    json_object *args, *driver = NULL;
    GError *err = NULL;

    if (argc && (!strcmp(argv[0], "help") || !strcmp(argv[0], "?"))) {
        g_autofree char *text = device_help();

        hmp_printf(out, "%s", text);
        return;
    }
    args = keyval_parse_or_json(argc ? argv[0] : "", "driver", &help, &flags, &err);
    if (args && help && json_object_object_get_ex(args, "driver", &driver)) {
        g_autofree char *text = device_type_help(json_object_get_string(driver), &err);

        hmp_printf(out, "%s", text ? text : "");
    } else if (args) {
        (void)device_co_add(args, PROPERTY_FROM_TEXT, true, &err);
    }
    json_object_put(args);
    hmp_error(out, err);
}

static void coroutine_fn hmp_co_device_del(HMPOutput *out, const HMPCommand *cmd, int argc,
                                           char **argv)
{
    json_object *args;

    if (argc != 1) {
        hmp_printf(out, "%s: string expected\nTry \"help %s\" for more information\n", cmd->name,
                   cmd->name);
        return;
    }
    args = json_object_new_object();
    json_object_object_add(args, "id", json_object_new_string(argv[0]));
    json_object_put(hmp_co_qmp(out, "device_del", args));
}

static void coroutine_fn info_qtree(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    g_autofree char *text = device_tree_text();

    hmp_printf(out, "%s", text);
}

/* --- objects --- */

static void collect(QomObject *child, void *opaque)
{
    g_ptr_array_add(opaque, child);
}

static gint by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(qom_object_name(*(QomObject *const *)a), qom_object_name(*(QomObject *const *)b));
}

static void print_object(HMPOutput *out, QomObject *object, int depth)
{
    g_autoptr(GPtrArray) children = g_ptr_array_new();

    hmp_printf(out, "%*s/%s (%s)\n", depth, "", qom_object_name(object),
               qom_object_type(object)->name);
    qom_object_foreach_child(object, collect, children);
    g_ptr_array_sort(children, by_name);
    for (guint i = 0; i < children->len; i++) {
        print_object(out, g_ptr_array_index(children, i), depth + 2);
    }
}

static void coroutine_fn info_qom_tree(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    const char *path = argc ? argv[0] : "/machine";
    QomObject *object = qom_resolve(path, NULL);

    if (object) {
        print_object(out, object, 0);
    } else {
        hmp_printf(out, "Path '%s' could not be resolved.\n", path);
    }
}

static json_object *path_and_property(int argc, char **argv)
{
    json_object *args = json_object_new_object();

    json_object_object_add(args, "path", json_object_new_string(argc > 0 ? argv[0] : "/"));
    if (argc > 1) {
        json_object_object_add(args, "property", json_object_new_string(argv[1]));
    }
    return args;
}

static void coroutine_fn hmp_co_qom_list(HMPOutput *out, const HMPCommand *cmd, int argc,
                                         char **argv)
{
    json_object *list, *name, *type;

    if (!argc) {
        hmp_printf(out, "/\n");
        return;
    }
    list = hmp_co_qmp(out, "qom-list", path_and_property(1, argv));
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        json_object *item = json_object_array_get_idx(list, i);

        json_object_object_get_ex(item, "name", &name);
        json_object_object_get_ex(item, "type", &type);
        hmp_printf(out, "%s (%s)\n", json_object_get_string(name), json_object_get_string(type));
    }
    json_object_put(list);
}

static void coroutine_fn hmp_co_qom_get(HMPOutput *out, const HMPCommand *cmd, int argc,
                                        char **argv)
{
    GError *err = NULL;
    QomObject *object;
    json_object *value = NULL;

    if (argc != 2) {
        hmp_printf(out, "%s: string expected\nTry \"help %s\" for more information\n", cmd->name,
                   cmd->name);
        return;
    }
    object = qom_resolve(argv[0], &err);
    if (object && qom_object_get(object, argv[1], &value, &err)) {
        hmp_printf(out, "%s\n",
                   json_object_to_json_string_ext(value, JSON_C_TO_STRING_PRETTY |
                                                             JSON_C_TO_STRING_NOSLASHESCAPE));
    }
    json_object_put(value);
    hmp_error(out, err);
}

void hmp_register_device_commands(void)
{
    static const HMPCommand commands[] = {
        {"device_add", "driver[,id=id][,property=value...]",
         "make a device; \"help\" lists the types", hmp_co_device_add},
        {"device_del", "device", "ask the guest to let a device go", hmp_co_device_del},
        {"qom-get", "path property", "read a property of an object", hmp_co_qom_get},
        {"qom-list", "[path]", "properties of an object", hmp_co_qom_list},
    };
    static const HMPCommand infos[] = {
        {"qom-tree", "[path]", "objects", info_qom_tree},
        {"qtree", "", "devices", info_qtree},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        hmp_register_command(&commands[i]);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(infos); i++) {
        hmp_register_info(&infos[i]);
    }
}
