/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Errors: GError in one domain, whose codes are QMP's error classes.
 *
 * A function that can fail takes `GError **errp` last and says so in its return value as well. The
 * message is one sentence without a final full stop that names the operation, the object and the
 * cause. It is set where the failure happens and printed once, by the monitor or main().
 */
#ifndef FERRY_UTIL_ERROR_H
#define FERRY_UTIL_ERROR_H

#include <glib.h>
#include <stdbool.h>

#define FERRY_ERROR (ferry_error_quark())
GQuark ferry_error_quark(void);

/* The QMP error class a failure is reported with (docs: QMP specification, "Error response"). */
typedef enum FerryError {
    FERRY_ERROR_GENERIC,
    FERRY_ERROR_COMMAND_NOT_FOUND,
    FERRY_ERROR_DEVICE_NOT_ACTIVE,
    FERRY_ERROR_DEVICE_NOT_FOUND,
    FERRY_ERROR_KVM_MISSING_CAP,
} FerryError;

/* "GenericError", "CommandNotFound", ...; any error of another domain is "GenericError". */
const char *ferry_error_class(const GError *err);

/* Sets a GENERIC error, or another class. Does nothing when errp is NULL, as g_set_error(). */
void error_setg(GError **errp, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
void error_set_class(GError **errp, FerryError code, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

/* As error_setg(), followed by ": " and strerror(os_errno). os_errno is a positive errno. */
void error_setg_errno(GError **errp, int os_errno, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

/* Prints "PROGRAM: message" on stderr, and the warning form "PROGRAM: warning: message". */
void error_report(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void warn_report(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* Prints "PROGRAM: info: message". */
void info_report(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* -msg: a time before each report, and the guest's name (NULL: none) after it. Start-up only. */
void error_report_set_prefix(bool timestamp, const char *guest_name);
/* Prints err as error_report() and frees it. */
void error_report_err(GError *err);

#endif
