/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Flat options of the command line: "value,key=value,flag,noflag", as -chardev, -name and -msg take
 * them. A comma in a value is written twice. The first item without '=' may be the value of an
 * implied key; any other item NAME stands for NAME=on, and noNAME for NAME=off.
 */
#ifndef FERRY_UTIL_QEMU_OPTS_H
#define FERRY_UTIL_QEMU_OPTS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct QemuOpts QemuOpts;

/* implied: the key of a first item without '=', or NULL. The caller frees. */
QemuOpts *qemu_opts_parse(const char *text, const char *implied);
void qemu_opts_free(QemuOpts *opts);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QemuOpts, qemu_opts_free)

/* True when the user asked for a list ("help" or "?"). */
bool qemu_opts_wants_help(const QemuOpts *opts);

/*
 * The last value given for the key, or NULL; marks the key as known. The string is the options'.
 * The typed forms leave *value alone, and *has false, when the key is absent; they fail with
 * "Parameter 'KEY' expects ..." .
 */
const char *qemu_opts_get(QemuOpts *opts, const char *key);
bool qemu_opts_get_bool(QemuOpts *opts, const char *key, bool *has, bool *value, GError **errp);
bool qemu_opts_get_int(QemuOpts *opts, const char *key, bool *has, int64_t *value, GError **errp);

/* False, with "Invalid parameter 'KEY'", when a key was never asked for. */
bool qemu_opts_check_known(const QemuOpts *opts, GError **errp);

#endif
