/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: yank, query-yank. They yield nowhere, for they run out of band. */
#include "qapi/qapi-commands-yank.h"
#include "util/yank.h"

static YankName yank_name(const YankInstance *instance)
{
    switch (instance->type) {
    case YANK_INSTANCE_TYPE_BLOCK_NODE:
        return (YankName){YANK_BLOCK_NODE, instance->u.block_node.node_name};
    case YANK_INSTANCE_TYPE_CHARDEV:
        return (YankName){YANK_CHARDEV, instance->u.chardev.id};
    default:
        return (YankName){YANK_MIGRATION, ""};
    }
}

bool coroutine_fn qmp_yank(const YankArg *arg, GError **errp)
{
    g_autoptr(GArray) names = g_array_new(FALSE, FALSE, sizeof(YankName));

    for (YankInstanceList *it = arg->instances; it; it = it->next) {
        YankName name = yank_name(it->value);

        g_array_append_val(names, name);
    }
    return yank_run((const YankName *)(void *)names->data, names->len, errp);
}

static void add_instance(YankKind kind, const char *name, void *opaque)
{
    YankInstanceList ***tail = opaque;
    YankInstance *instance = g_new0(YankInstance, 1);

    switch (kind) {
    case YANK_BLOCK_NODE:
        instance->type = YANK_INSTANCE_TYPE_BLOCK_NODE;
        instance->u.block_node.node_name = g_strdup(name);
        break;
    case YANK_CHARDEV:
        instance->type = YANK_INSTANCE_TYPE_CHARDEV;
        instance->u.chardev.id = g_strdup(name);
        break;
    case YANK_MIGRATION:
        instance->type = YANK_INSTANCE_TYPE_MIGRATION;
        break;
    }
    QAPI_LIST_APPEND(*tail, instance);
}

bool coroutine_fn qmp_query_yank(YankInstanceList **ret, GError **errp)
{
    yank_foreach(add_instance, &ret);
    return true;
}
