/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The form of ids. */
#include "util/id.h"

#include <string.h>
#include "util/error.h"

bool id_wellformed(const char *id)
{
    if (!g_ascii_isalpha(id[0])) {
        return false;
    }
    for (const char *p = id; *p; p++) {
        if (!g_ascii_isalnum(*p) && !strchr("-._", *p)) {
            return false;
        }
    }
    return true;
}

bool qemu_id_check(const char *id, GError **errp)
{
    if (!id_wellformed(id)) {
        error_setg(errp, "Parameter 'id' expects an identifier");
        return false;
    }
    return true;
}
