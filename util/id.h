/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The form of the ids that users give to disks, jobs, exports, objects and devices. */
#ifndef FERRY_UTIL_ID_H
#define FERRY_UTIL_ID_H

#include <glib.h>
#include <stdbool.h>

/* A letter, then letters, digits, '-', '.' and '_'. Any thread. */
bool id_wellformed(const char *id);
/* The same, with the error that names the parameter `id`. */
bool qemu_id_check(const char *id, GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
