/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log: what -d asks for goes to stderr, or to the file that -D names. Any thread writes; whole
 * lines do not mix. Errors for the user are not log entries: see util/error.h.
 */
#ifndef FERRY_UTIL_LOG_H
#define FERRY_UTIL_LOG_H

#include <glib.h>
#include <stdbool.h>

typedef enum LogMask {
    LOG_UNIMP = 1 << 0,       /* "unimp": a guest uses what is not implemented */
    LOG_GUEST_ERROR = 1 << 1, /* "guest_errors": a guest does what no hardware allows */
    LOG_CPU_RESET = 1 << 2,   /* "cpu_reset" */
    LOG_TRACE = 1 << 3,       /* "trace:PATTERN": trace events */
} LogMask;

extern unsigned qemu_loglevel; /* a set of LogMask; atomic */

static inline bool qemu_loglevel_mask(unsigned mask)
{
    return G_UNLIKELY(__atomic_load_n(&qemu_loglevel, __ATOMIC_RELAXED) & mask);
}

/* Writes the text as given. Bounds: see LOG_LINE_MAX in the source; more is cut. */
void qemu_log(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* Writes only if one of mask's items is on; arguments are not evaluated otherwise. */
#define qemu_log_mask(mask, ...)        \
    do {                                \
        if (qemu_loglevel_mask(mask)) { \
            qemu_log(__VA_ARGS__);      \
        }                               \
    } while (0)
/* Writes one line and a newline, whatever the mask. */
void qemu_log_line(const char *line);

/*
 * The argument of -d, comma separated; "trace:PATTERN" enables events, "none" empties the mask.
 * Replaces the mask. Unknown items are an error.
 */
G_GNUC_WARN_UNUSED_RESULT bool qemu_set_log_items(const char *items, GError **errp);
/* The items, one a line, for -d help. */
void qemu_print_log_items(void);

/*
 * The log goes to this file from now on, made empty first; NULL: stderr. "%d" in the name, once,
 * becomes the process id. On error nothing changes.
 */
G_GNUC_WARN_UNUSED_RESULT bool qemu_set_log_filename(const char *path, GError **errp);

#endif
