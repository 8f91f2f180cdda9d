/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Errors: the GError domain, its QMP classes, and reports on stderr. */
#include "util/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Any thread. */
GQuark ferry_error_quark(void)
{
    static gsize quark;

    if (g_once_init_enter(&quark)) {
        g_once_init_leave(&quark, g_quark_from_static_string("ferry-error-quark"));
    }
    return (GQuark)quark;
}

static const char *const class_names[] = {
    [FERRY_ERROR_GENERIC] = "GenericError",
    [FERRY_ERROR_COMMAND_NOT_FOUND] = "CommandNotFound",
    [FERRY_ERROR_DEVICE_NOT_ACTIVE] = "DeviceNotActive",
    [FERRY_ERROR_DEVICE_NOT_FOUND] = "DeviceNotFound",
    [FERRY_ERROR_KVM_MISSING_CAP] = "KVMMissingCap",
};

const char *ferry_error_class(const GError *err)
{
    if (err->domain == FERRY_ERROR && err->code >= 0 &&
        err->code < (int)G_N_ELEMENTS(class_names)) {
        return class_names[err->code];
    }
    return class_names[FERRY_ERROR_GENERIC];
}

static void G_GNUC_PRINTF(3, 0)
    error_set_valist(GError **errp, FerryError code, const char *fmt, va_list ap)
{
    if (errp) {
        g_propagate_error(errp, g_error_new_valist(FERRY_ERROR, code, fmt, ap));
    }
}

void error_setg(GError **errp, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    error_set_valist(errp, FERRY_ERROR_GENERIC, fmt, ap);
    va_end(ap);
}

void error_set_class(GError **errp, FerryError code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    error_set_valist(errp, code, fmt, ap);
    va_end(ap);
}

void error_setg_errno(GError **errp, int os_errno, const char *fmt, ...)
{
    g_autofree char *message = NULL;
    va_list ap;

    if (!errp) {
        return;
    }
    va_start(ap, fmt);
    message = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    error_setg(errp, "%s: %s", message, g_strerror(os_errno));
}

static bool with_timestamp;
static char *with_guest_name;

void error_report_set_prefix(bool timestamp, const char *guest_name)
{
    with_timestamp = timestamp;
    g_free(with_guest_name);
    with_guest_name = g_strdup(guest_name);
}

/* "2026-01-31T12:00:00.123456Z guest ", or as much of it as was asked for. The caller frees. */
static char *report_prefix(void)
{
    g_autofree char *time = NULL;

    if (with_timestamp) {
        g_autoptr(GDateTime) now = g_date_time_new_now_utc();

        time = g_date_time_format(now, "%Y-%m-%dT%H:%M:%S.%fZ ");
    }
    return g_strconcat(time ? time : "", with_guest_name ? with_guest_name : "",
                       with_guest_name ? " " : "", NULL);
}

/* One write for a line, so that reports of several threads do not mix. */
static void G_GNUC_PRINTF(2, 0) report_valist(const char *kind, const char *fmt, va_list ap)
{
    g_autofree char *message = g_strdup_vprintf(fmt, ap);
    g_autofree char *prefix = report_prefix();
    const char *program = g_get_prgname();

    fprintf(stderr, "%s%s: %s%s\n", prefix, program ? program : "qemu-system-x86_64", kind,
            message);
}

void error_report(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    report_valist("", fmt, ap);
    va_end(ap);
}

void warn_report(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    report_valist("warning: ", fmt, ap);
    va_end(ap);
}

void info_report(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    report_valist("info: ", fmt, ap);
    va_end(ap);
}

void error_report_err(GError *err)
{
    error_report("%s", err->message);
    g_error_free(err);
}
