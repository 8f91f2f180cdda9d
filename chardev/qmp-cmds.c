/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP commands about character devices. */
#include "chardev/char.h"
#include "qapi/qapi-commands-char.h"
#include "util/error.h"

bool coroutine_fn qmp_query_chardev(ChardevInfoList **ret, GError **errp)
{
    for (Chardev *chr = qemu_chr_next(NULL); chr; chr = qemu_chr_next(chr)) {
        ChardevInfo *info = g_new0(ChardevInfo, 1);

        info->label = g_strdup(qemu_chr_label(chr));
        info->filename = qemu_chr_filename(chr);
        info->frontend_open = qemu_chr_has_frontend(chr);
        QAPI_LIST_APPEND(ret, info);
    }
    return true;
}

bool coroutine_fn qmp_query_chardev_backends(ChardevBackendInfoList **ret, GError **errp)
{
    for (int kind = 0; kind < CHARDEV_BACKEND_KIND__MAX; kind++) {
        ChardevBackendInfo *info = g_new0(ChardevBackendInfo, 1);

        info->name = g_strdup(ChardevBackendKind_str((ChardevBackendKind)kind));
        QAPI_LIST_APPEND(ret, info);
    }
    return true;
}

bool coroutine_fn qmp_chardev_add(const ChardevAddArg *arg, ChardevReturn **ret, GError **errp)
{
    Chardev *chr = qemu_chr_co_new(arg->id, arg->backend, errp);

    if (!chr) {
        return false;
    }
    *ret = g_new0(ChardevReturn, 1);
    (*ret)->pty = g_strdup(qemu_chr_pty(chr));
    return true;
}

bool coroutine_fn qmp_chardev_remove(const ChardevRemoveArg *arg, GError **errp)
{
    return qemu_chr_remove(arg->id, errp);
}
