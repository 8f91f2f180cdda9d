/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The log: one descriptor, one write() an entry. */
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "util/error.h"
#include "util/trace.h"

#define LOG_LINE_MAX 2048

unsigned qemu_loglevel;

/*
 * Guards log_fd, so that no thread writes to a descriptor that is being replaced; never held for
 * long.
 */
static GMutex log_lock;
static int log_fd = STDERR_FILENO;

static const struct LogItem {
    const char *name;
    LogMask mask;
    const char *help;
} log_items[] = {
    {"unimp", LOG_UNIMP, "a guest uses a function of a device that is not there"},
    {"guest_errors", LOG_GUEST_ERROR, "a guest uses a device against its specification"},
    {"cpu_reset", LOG_CPU_RESET, "registers of a CPU that is about to be reset"},
};

static void log_write(const char *text, size_t len)
{
    g_mutex_lock(&log_lock);
    while (len > 0) {
        ssize_t n = write(log_fd, text, len);

        if (n < 0 && errno != EINTR) {
            break; /* there is nowhere to say so */
        }
        if (n > 0) {
            text += n;
            len -= n;
        }
    }
    g_mutex_unlock(&log_lock);
}

void qemu_log(const char *fmt, ...)
{
    char text[LOG_LINE_MAX];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n > 0) {
        log_write(text, MIN((size_t)n, sizeof(text) - 1));
    }
}

void qemu_log_line(const char *line)
{
    char text[LOG_LINE_MAX];
    size_t len = g_strlcpy(text, line, sizeof(text) - 1);

    len = MIN(len, sizeof(text) - 2);
    text[len++] = '\n';
    log_write(text, len);
}

static const struct LogItem *find_item(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(log_items); i++) {
        if (g_str_equal(log_items[i].name, name)) {
            return &log_items[i];
        }
    }
    return NULL;
}

bool qemu_set_log_items(const char *items, GError **errp)
{
    g_auto(GStrv) names = g_strsplit(items, ",", -1);
    unsigned mask = 0;

    /* Twice over the list: an unknown item changes nothing. */
    for (char **name = names; *name; name++) {
        const struct LogItem *item = find_item(*name);

        if (item) {
            mask |= item->mask;
        } else if (g_str_has_prefix(*name, "trace:") && (*name)[strlen("trace:")]) {
            mask |= LOG_TRACE;
        } else if (!g_str_equal(*name, "none")) {
            error_setg(errp, "Unknown log item '%s' (see -d help)", *name);
            return false;
        }
    }
    for (char **name = names; *name; name++) {
        if (g_str_has_prefix(*name, "trace:")) {
            trace_enable_item(*name + strlen("trace:"));
        }
    }
    __atomic_store_n(&qemu_loglevel, mask, __ATOMIC_RELAXED);
    return true;
}

void qemu_print_log_items(void)
{
    printf("Log items (comma separated):\n");
    for (size_t i = 0; i < G_N_ELEMENTS(log_items); i++) {
        printf("%-15s %s\n", log_items[i].name, log_items[i].help);
    }
    printf("trace:PATTERN   enable trace events\n");
}

/* The name with its one "%d" replaced; NULL and errp for any other use of '%'. */
static char *expand_filename(const char *path, GError **errp)
{
    const char *percent = strchr(path, '%');

    if (!percent) {
        return g_strdup(path);
    }
    if (percent[1] != 'd' || strchr(percent + 2, '%')) {
        error_setg(errp, "Bad log file name '%s': only one %%d is allowed", path);
        return NULL;
    }
    return g_strdup_printf("%.*s%d%s", (int)(percent - path), path, (int)getpid(), percent + 2);
}

bool qemu_set_log_filename(const char *path, GError **errp)
{
    g_autofree char *name = NULL;
    int fd = STDERR_FILENO, old;

    if (path) {
        name = expand_filename(path, errp);
        if (!name) {
            return false;
        }
        fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
        if (fd < 0) {
            error_setg_errno(errp, errno, "Could not open log file '%s'", name);
            return false;
        }
    }
    g_mutex_lock(&log_lock);
    old = log_fd;
    log_fd = fd;
    g_mutex_unlock(&log_lock);
    if (old != STDERR_FILENO) {
        close(old);
    }
    return true;
}
