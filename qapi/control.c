/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What QMP tells about itself: its commands and its schema. */
#include "qapi/qapi-commands-control.h"
#include "qapi/qapi-commands-introspect.h"

bool coroutine_fn qmp_query_commands(CommandInfoList **ret, GError **errp)
{
    CommandInfoList **tail = ret;

    for (size_t i = 0; i < qmp_command_count; i++) {
        CommandInfo *info = g_new0(CommandInfo, 1);

        info->name = g_strdup(qmp_commands[i].name);
        QAPI_LIST_APPEND(tail, info);
    }
    return true;
}

bool coroutine_fn qmp_query_qmp_schema(json_object *args, json_object **ret, GError **errp)
{
    if (!qmp_refuse_arguments(args, errp)) {
        return false;
    }
    *ret = qmp_schema_json();
    return true;
}
