/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP requests: from a JSON value to a command that runs and its reply. */
#include <string.h>
#include "monitor/command-gate.h"
#include "monitor/qmp-int.h"
#include "qapi/dispatch.h"
#include "qapi/qapi-commands-control.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/version.h"

/* A request whose form is right. The members are borrowed from the JSON value. */
typedef struct QmpParsed {
    const char *name;
    bool cut;               /* the name goes on after a NUL, so there is no such command */
    json_object *arguments; /* NULL: none */
    json_object *id;        /* NULL: none */
    bool has_id;
    bool oob;
} QmpParsed;

static json_object *version_json(void)
{
    json_object *version = json_object_new_object(), *qemu = json_object_new_object();

    json_object_object_add(qemu, "micro", json_object_new_int(QEMU_VERSION_MICRO));
    json_object_object_add(qemu, "minor", json_object_new_int(QEMU_VERSION_MINOR));
    json_object_object_add(qemu, "major", json_object_new_int(QEMU_VERSION_MAJOR));
    json_object_object_add(version, "qemu", qemu);
    json_object_object_add(version, "package", json_object_new_string(FERRY_PACKAGE));
    return version;
}

json_object *qmp_greeting(void)
{
    json_object *greeting = json_object_new_object(), *qmp = json_object_new_object();
    json_object *capabilities = json_object_new_array();

    json_object_array_add(capabilities, json_object_new_string("oob"));
    json_object_object_add(qmp, "version", version_json());
    json_object_object_add(qmp, "capabilities", capabilities);
    json_object_object_add(greeting, "QMP", qmp);
    return greeting;
}

json_object *qmp_error_reply(json_object *id, const GError *error)
{
    json_object *reply = json_object_new_object(), *what = json_object_new_object();

    if (id) {
        json_object_object_add(reply, "id", json_object_get(id));
    }
    json_object_object_add(what, "class", json_object_new_string(ferry_error_class(error)));
    json_object_object_add(what, "desc", json_object_new_string(error->message));
    json_object_object_add(reply, "error", what);
    return reply;
}

bool qmp_is_oob_request(json_object *request)
{
    return json_object_is_type(request, json_type_object) &&
           json_object_object_get_ex(request, "exec-oob", NULL) &&
           !json_object_object_get_ex(request, "execute", NULL);
}

static bool parse_command_name(QmpParsed *parsed, const char *member, json_object *value,
                               GError **errp)
{
    if (!json_object_is_type(value, json_type_string)) {
        error_setg(errp, "QMP input member '%s' must be a string", member);
        return false;
    }
    if (parsed->name) {
        error_setg(errp, "QMP input member '%s' clashes with '%s'", member,
                   parsed->oob ? "exec-oob" : "execute");
        return false;
    }
    parsed->name = json_object_get_string(value);
    parsed->cut = strlen(parsed->name) != (size_t)json_object_get_string_len(value);
    parsed->oob = !strcmp(member, "exec-oob");
    return true;
}

static bool parse_request(QmpParsed *parsed, const QmpState *state, json_object *request,
                          GError **errp)
{
    if (!json_object_is_type(request, json_type_object)) {
        error_setg(errp, "QMP input must be a JSON object");
        return false;
    }
    parsed->has_id = json_object_object_get_ex(request, "id", &parsed->id);
    json_object_object_foreach(request, member, value)
    {
        if (!strcmp(member, "execute") || (!strcmp(member, "exec-oob") && state->oob)) {
            if (!parse_command_name(parsed, member, value, errp)) {
                return false;
            }
        } else if (!strcmp(member, "arguments")) {
            if (!json_object_is_type(value, json_type_object)) {
                error_setg(errp, "QMP input member 'arguments' must be an object");
                return false;
            }
            parsed->arguments = value;
        } else if (strcmp(member, "id") != 0) {
            error_setg(errp, "QMP input member '%s' is unexpected", member);
            return false;
        }
    }
    if (!parsed->name) {
        error_setg(errp, "QMP input lacks member 'execute'");
        return false;
    }
    return true;
}

/* The command, if it exists and may run now; NULL and errp. */
static const QmpCommand *find_command(const QmpParsed *parsed, const QmpState *state, GError **errp)
{
    const QmpCommand *cmd = parsed->cut ? NULL : qmp_find_command(parsed->name);
    bool negotiates = cmd && !strcmp(parsed->name, "qmp_capabilities");

    if (!state->negotiated && !negotiates) {
        error_set_class(errp, FERRY_ERROR_COMMAND_NOT_FOUND,
                        "Expecting capabilities negotiation with 'qmp_capabilities'");
        return NULL;
    }
    if (state->negotiated && negotiates) {
        error_set_class(errp, FERRY_ERROR_COMMAND_NOT_FOUND,
                        "Capabilities negotiation is already complete, command ignored");
        return NULL;
    }
    if (!cmd) {
        error_set_class(errp, FERRY_ERROR_COMMAND_NOT_FOUND, "The command %s has not been found",
                        parsed->name);
        return NULL;
    }
    if (parsed->oob && !(cmd->flags & QMP_COMMAND_OOB)) {
        error_setg(errp, "The command %s does not support OOB", parsed->name);
        return NULL;
    }
    return cmd;
}

/* Main thread, unless the command is one for any time. */
static bool coroutine_fn co_run_through_gate(const QmpCommand *cmd, json_object *arguments,
                                             json_object **result, GError **errp)
{
    bool any_time = cmd->flags & QMP_COMMAND_AT_END, ok;

    if (!any_time && !command_gate_enter(errp)) {
        return false;
    }
    ok = qmp_command_co_run(cmd, arguments, result, errp);
    if (!any_time) {
        command_gate_leave();
    }
    return ok;
}

/*
 * Runs a command where it may run: in the session's thread, or in the main thread, from which this
 * comes back.
 */
static bool coroutine_fn co_run_at_home(const QmpCommand *cmd, json_object *arguments,
                                        json_object **result, GError **errp)
{
    AioContext *home = qemu_get_current_aio_context();
    bool ok;

    if (!(cmd->flags & QMP_COMMAND_OFF_MAIN)) {
        aio_co_reschedule_self(qemu_get_aio_context());
    }
    ok = co_run_through_gate(cmd, arguments, result, errp);
    aio_co_reschedule_self(home);
    return ok;
}

json_object *coroutine_fn qmp_co_answer(QmpState *state, json_object *request)
{
    QmpParsed parsed = {0};
    g_autoptr(GError) error = NULL;
    json_object *result = NULL, *reply;
    const QmpCommand *cmd = NULL;

    if (parse_request(&parsed, state, request, &error)) {
        cmd = find_command(&parsed, state, &error);
    }
    if (!cmd || !co_run_at_home(cmd, parsed.arguments, &result, &error)) {
        reply = qmp_error_reply(NULL, error);
    } else if (cmd->flags & QMP_COMMAND_NO_SUCCESS_RESPONSE) {
        json_object_put(result);
        return NULL;
    } else {
        reply = json_object_new_object();
        json_object_object_add(reply, "return", result);
    }
    if (parsed.has_id) {
        json_object_object_add(reply, "id", json_object_get(parsed.id));
    }
    return reply;
}

/* --- the commands about QMP itself --- */

bool coroutine_fn qmp_qmp_capabilities(const QmpCapabilitiesArg *arg, GError **errp)
{
    QmpState *state = qmp_current_state();

    if (state) {
        for (QMPCapabilityList *it = arg->enable; it; it = it->next) {
            state->oob |= it->value == QMP_CAPABILITY_OOB;
        }
        state->negotiated = true;
    }
    return true;
}

bool coroutine_fn qmp_query_version(VersionInfo **ret, GError **errp)
{
    *ret = g_new0(VersionInfo, 1);
    (*ret)->qemu = g_new0(VersionTriple, 1);
    (*ret)->qemu->major = QEMU_VERSION_MAJOR;
    (*ret)->qemu->minor = QEMU_VERSION_MINOR;
    (*ret)->qemu->micro = QEMU_VERSION_MICRO;
    (*ret)->package = g_strdup(FERRY_PACKAGE);
    return true;
}
