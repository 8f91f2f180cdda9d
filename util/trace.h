/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trace points. Each folder lists its own in FOLDER/trace-events, one a line:
 *
 *     [disable] name(type arg, type arg, ...) "printf format"        (or name(void) "text")
 *
 * scripts/tracetool.py turns them into "trace/trace-FOLDER.h" (slashes become dashes) with, for
 * each, an inline trace_name(arg, ...) and trace_name_enabled(). A trace point that is off costs
 * one load and one branch that is predicted; arguments that are expensive to have are computed
 * under trace_name_enabled(). An event marked `disable` compiles to nothing.
 *
 * An enabled event writes "PID@SECONDS.MICROSECONDS:name text" to the log (util/log.h). With
 * CONFIG_USDT each is also a static probe qemu:name, whether enabled or not.
 *
 * Any thread may trace and may change states.
 */
#ifndef FERRY_UTIL_TRACE_H
#define FERRY_UTIL_TRACE_H

#include <glib.h>
#include <stdbool.h>

typedef struct TraceEvent {
    const char *name;
    bool available; /* false: marked `disable`, cannot be enabled */
    bool enabled;   /* atomic */
} TraceEvent;

static inline bool trace_event_enabled(const TraceEvent *event)
{
    return G_UNLIKELY(__atomic_load_n(&event->enabled, __ATOMIC_RELAXED));
}

/* A folder's events, NULL-terminated; and all folders', generated. */
typedef struct TraceGroup {
    const char *folder;
    TraceEvent *const *events;
} TraceGroup;
extern const TraceGroup trace_groups[]; /* ends with folder NULL */

/* The event of this exact name, or NULL. */
TraceEvent *trace_event_by_name(const char *name);
/* True when name matches the glob pattern (* and ?). */
bool trace_name_matches(const char *pattern, const char *name);

/* Walks the events that match the pattern (NULL: all). Zero-initialise but for pattern. */
typedef struct TraceEventIter {
    const char *pattern;
    unsigned group;
    unsigned event;
} TraceEventIter;
TraceEvent *trace_event_iter_next(TraceEventIter *iter);

/*
 * Enables or disables the events that match a name or a glob pattern, those that are available;
 * returns how many there are. QMP, which reports unavailable events as an error, looks them up
 * first.
 */
unsigned trace_event_set_state(const char *pattern, bool enable);

/*
 * An item of -trace or a line of an events file: a name or pattern, with a '-' in front to disable.
 * A name that does not exist or is not available is a warning, a pattern that matches nothing is
 * not.
 */
void trace_enable_item(const char *item);
/* Reads such lines; empty ones and those that start with '#' are skipped. */
G_GNUC_WARN_UNUSED_RESULT bool trace_enable_file(const char *path, GError **errp);
/*
 * The argument of -trace: "[enable=]PATTERN", "events=FILE", "file=FILE" (where the log goes),
 * separated by commas. "help" prints the names and sets *help_shown.
 */
G_GNUC_WARN_UNUSED_RESULT bool trace_opt_parse(const char *arg, bool *help_shown, GError **errp);

/* For generated code: writes one event to the log. */
void trace_log(const TraceEvent *event, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

#endif
