/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a QMP command's handler is called. */
#include "qapi/dispatch.h"

#include <json-c/printbuf.h>
#include <string.h>

#include "util/error.h"

bool qmp_refuse_arguments(json_object *args, GError **errp)
{
    if (args) {
        json_object_object_foreach(args, key, value)
        {
            error_setg(errp, "Parameter '%s' is unexpected", key);
            return false;
        }
    }
    return true;
}

static bool coroutine_fn co_run_decoded(const QmpCommand *cmd, const void *arg, json_object **ret,
                                        GError **errp)
{
    union {
        void *pointer;
        uint64_t integer;
        double number;
    } result = {0};

    if (!cmd->call(arg, &result, errp)) {
        return false;
    }
    if (!cmd->ret) {
        *ret = json_object_new_object();
        return true;
    }
    *ret = qapi_slot_encode(cmd->ret, &result);
    qapi_slot_clear(cmd->ret, &result);
    return true;
}

bool coroutine_fn qmp_command_co_run(const QmpCommand *cmd, json_object *args, json_object **ret,
                                     GError **errp)
{
    json_object *none = NULL;
    void *arg = NULL;
    bool ok;

    *ret = NULL;
    if (cmd->call_json) {
        return cmd->call_json(args, ret, errp);
    }
    if (!cmd->arg) {
        return qmp_refuse_arguments(args, errp) && co_run_decoded(cmd, NULL, ret, errp);
    }
    if (!args) {
        args = none = json_object_new_object();
    }
    arg = qapi_decode(cmd->arg, args, QAPI_DECODE_JSON, errp);
    json_object_put(none);
    if (!arg) {
        return false;
    }
    ok = co_run_decoded(cmd, arg, ret, errp);
    qapi_free(cmd->arg, arg);
    return ok;
}

static int print_schema(json_object *json, struct printbuf *out, int level, int flags)
{
    return printbuf_memappend(out, qmp_schema_text, (int)strlen(qmp_schema_text));
}

json_object *qmp_schema_json(void)
{
    json_object *json = json_object_new_array();

    json_object_set_serializer(json, print_schema, NULL, NULL);
    return json;
}
