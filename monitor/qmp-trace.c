/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP commands about trace events. */
#include <string.h>
#include "qapi/qapi-commands-trace.h"
#include "util/error.h"
#include "util/trace.h"

static bool is_pattern(const char *name)
{
    return strpbrk(name, "*?");
}

static TraceEventState state_of(const TraceEvent *event)
{
    if (!event->available) {
        return TRACE_EVENT_STATE_UNAVAILABLE;
    }
    return trace_event_enabled(event) ? TRACE_EVENT_STATE_ENABLED : TRACE_EVENT_STATE_DISABLED;
}

/* False, with errp, for a plain name that no event has. */
static bool check_name(const char *name, GError **errp)
{
    if (!is_pattern(name) && !trace_event_by_name(name)) {
        error_setg(errp, "unknown event \"%s\"", name);
        return false;
    }
    return true;
}

bool coroutine_fn qmp_trace_event_get_state(const TraceEventGetStateArg *arg,
                                            TraceEventInfoList **ret, GError **errp)
{
    TraceEventIter iter = {.pattern = arg->name};
    TraceEvent *event;

    if (!check_name(arg->name, errp)) {
        return false;
    }
    while ((event = trace_event_iter_next(&iter))) {
        TraceEventInfo *info = g_new0(TraceEventInfo, 1);

        info->name = g_strdup(event->name);
        info->state = state_of(event);
        QAPI_LIST_APPEND(ret, info);
    }
    return true;
}

bool coroutine_fn qmp_trace_event_set_state(const TraceEventSetStateArg *arg, GError **errp)
{
    TraceEventIter iter = {.pattern = arg->name};
    TraceEvent *event;

    if (!check_name(arg->name, errp)) {
        return false;
    }
    if (!arg->has_ignore_unavailable || !arg->ignore_unavailable) {
        while ((event = trace_event_iter_next(&iter))) {
            if (!event->available) {
                error_setg(errp, "event \"%s\" is disabled", event->name);
                return false;
            }
        }
    }
    trace_event_set_state(arg->name, arg->enable);
    return true;
}
