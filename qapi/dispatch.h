/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP commands: the table of what the schema offers, and how a handler is called.
 *
 * The generated "qapi/qapi-commands-NAME.h" (or all of them, "qapi/qapi-commands.h") declares a
 * handler for each command of qapi/NAME.json:
 *
 *   bool coroutine_fn qmp_NAME(const ARG *arg, RET *ret, GError **errp);
 *
 * - `arg` is the command's 'data': the type it names, or NAMEArg (drive-mirror: DriveMirrorArg)
 *   when its members stand in the command itself. It belongs to the caller; QAPI_CLONE() what must
 *   outlive the call. A command without arguments has no such parameter.
 * - `ret` is where the result goes: bool, int64_t, double, an enum, char **, X **, XList ** (which
 *   may stay NULL: the empty list) or json_object ** for 'any'. The caller owns it. It starts as
 *   zero. A command without 'returns' has no such parameter.
 * - true is success; false comes with *errp set and nothing in *ret.
 *
 * Handlers run in a coroutine of the main thread's loop, so they may yield. Those of commands that
 * the schema marks 'off-main' or 'allow-oob' run in the loop of the session that asks. That is the
 * monitors' thread or the main thread, without the big lock. They read atomics, or take locks that
 * no thread holds while it waits, and do not wait for the main thread. A command with 'gen': false
 * takes and gives JSON: bool qmp_NAME(json_object *args, json_object **ret, errp); args may be
 * NULL.
 */
#ifndef FERRY_QAPI_DISPATCH_H
#define FERRY_QAPI_DISPATCH_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#include "qapi/codec.h"
#include "util/coroutine.h"

typedef enum QmpCommandFlags {
    QMP_COMMAND_OOB = 1 << 0,                 /* may run out of band */
    QMP_COMMAND_PRECONFIG = 1 << 1,           /* may run before the machine is made */
    QMP_COMMAND_NO_SUCCESS_RESPONSE = 1 << 2, /* only failure is answered */
    QMP_COMMAND_DEPRECATED = 1 << 3,
    QMP_COMMAND_UNSTABLE = 1 << 4,
    QMP_COMMAND_OFF_MAIN = 1 << 5, /* its handler runs in any thread that has an event loop */
    QMP_COMMAND_AT_END = 1 << 6,   /* begins nothing: may run while the process ends */
} QmpCommandFlags;

typedef struct QmpCommand {
    const char *name;
    QmpCommandFlags flags;
    const QapiType *arg; /* NULL: no arguments */
    const QapiType *ret; /* NULL: nothing is returned */
    /* Calls the handler; exactly one of the two is set. */
    bool (*call)(const void *arg, void *ret, GError **errp);
    bool (*call_json)(json_object *args, json_object **ret, GError **errp);
} QmpCommand;

/* Every command offered, sorted by name in strcmp() order. Generated. */
extern const QmpCommand qmp_commands[];
extern const size_t qmp_command_count;

/* The command of that name, or NULL. */
const QmpCommand *qmp_find_command(const char *name);

/*
 * Decodes args (NULL: none), runs the handler and encodes its result: an empty object when the
 * command returns nothing. On success the caller owns *ret. May yield for as long as the handler
 * does.
 */
bool coroutine_fn qmp_command_co_run(const QmpCommand *cmd, json_object *args, json_object **ret,
                                     GError **errp);

/*
 * For a command with 'gen': false that takes none: false, with an error, when there are arguments.
 */
bool qmp_refuse_arguments(json_object *args, GError **errp);

/*
 * The reply to query-qmp-schema: a JSON array, made anew at each call from a constant text that
 * costs no memory until then. It can be written out and freed, not looked into.
 */
json_object *qmp_schema_json(void);

/* That text. Generated. */
extern const char qmp_schema_text[];

#endif
