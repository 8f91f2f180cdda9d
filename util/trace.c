/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Trace points: finding events, changing their states, the log back end. */
#include "util/trace.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "util/error.h"
#include "util/log.h"

/* Longer events are cut. */
#define TRACE_LINE_MAX 1024
/* An events file is a list of names; larger than this, it is something else. */
#define EVENTS_FILE_MAX (1024 * 1024)

TraceEvent *trace_event_iter_next(TraceEventIter *iter)
{
    while (trace_groups[iter->group].folder) {
        TraceEvent *event = trace_groups[iter->group].events[iter->event];

        if (!event) {
            iter->group++;
            iter->event = 0;
            continue;
        }
        iter->event++;
        if (!iter->pattern || trace_name_matches(iter->pattern, event->name)) {
            return event;
        }
    }
    return NULL;
}

TraceEvent *trace_event_by_name(const char *name)
{
    TraceEventIter iter = {0};
    TraceEvent *event;

    while ((event = trace_event_iter_next(&iter)) && !g_str_equal(event->name, name)) {
    }
    return event;
}

bool trace_name_matches(const char *pattern, const char *name)
{
    return g_pattern_match_simple(pattern, name);
}

unsigned trace_event_set_state(const char *pattern, bool enable)
{
    TraceEventIter iter = {.pattern = pattern};
    TraceEvent *event;
    unsigned n = 0;

    while ((event = trace_event_iter_next(&iter))) {
        if (event->available) {
            __atomic_store_n(&event->enabled, enable, __ATOMIC_RELAXED);
            n++;
        }
    }
    return n;
}

void trace_enable_item(const char *item)
{
    bool enable = *item != '-';
    const char *name = enable ? item : item + 1;
    TraceEvent *event;

    if (strpbrk(name, "*?")) {
        trace_event_set_state(name, enable);
        return;
    }
    event = trace_event_by_name(name);
    if (!event) {
        warn_report("trace event '%s' does not exist", name);
    } else if (!event->available) {
        warn_report("trace event '%s' is not traceable", name);
    } else {
        trace_event_set_state(name, enable);
    }
}

bool trace_enable_file(const char *path, GError **errp)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    g_autoptr(GError) err = NULL;
    gsize len;

    if (!g_file_get_contents(path, &text, &len, &err)) {
        error_setg(errp, "Could not read the trace events file '%s': %s", path, err->message);
        return false;
    }
    if (len > EVENTS_FILE_MAX) {
        error_setg(errp, "The trace events file '%s' is larger than %d bytes", path,
                   EVENTS_FILE_MAX);
        return false;
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        g_strstrip(*line);
        if (**line && **line != '#') {
            trace_enable_item(*line);
        }
    }
    return true;
}

static void print_events(void)
{
    TraceEventIter iter = {0};
    TraceEvent *event;

    while ((event = trace_event_iter_next(&iter))) {
        printf("%s\n", event->name);
    }
}

bool trace_opt_parse(const char *arg, bool *help_shown, GError **errp)
{
    g_auto(GStrv) items = g_strsplit(arg, ",", -1);

    *help_shown = false;
    for (char **i = items; *i; i++) {
        const char *value;

        if (g_str_equal(*i, "help") || g_str_equal(*i, "?")) {
            print_events();
            *help_shown = true;
        } else if (g_str_has_prefix(*i, "enable=")) {
            trace_enable_item(*i + strlen("enable="));
        } else if (g_str_has_prefix(*i, "events=")) {
            if (!trace_enable_file(*i + strlen("events="), errp)) {
                return false;
            }
        } else if (g_str_has_prefix(*i, "file=")) {
            if (!qemu_set_log_filename(*i + strlen("file="), errp)) {
                return false;
            }
        } else if ((value = strchr(*i, '='))) {
            error_setg(errp, "Invalid parameter '%.*s'", (int)(value - *i), *i);
            return false;
        } else if (**i) {
            trace_enable_item(*i);
        }
    }
    return true;
}

void trace_log(const TraceEvent *event, const char *fmt, ...)
{
    char line[TRACE_LINE_MAX];
    struct timespec ts;
    va_list ap;
    int n;

    clock_gettime(CLOCK_REALTIME, &ts);
    n = snprintf(line, sizeof(line), "%d@%lld.%06ld:%s ", (int)getpid(), (long long)ts.tv_sec,
                 ts.tv_nsec / 1000, event->name);
    va_start(ap, fmt);
    vsnprintf(line + n, sizeof(line) - n, fmt, ap);
    va_end(ap);
    qemu_log_line(line);
}
