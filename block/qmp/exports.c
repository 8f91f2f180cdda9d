/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: block-export-add, block-export-del, query-block-exports. */
#include "block/export.h"
#include "qapi/qapi-commands.h"
#include "util/error.h"

bool coroutine_fn qmp_block_export_add(const BlockExportOptions *arg, GError **errp)
{
    return blk_exp_co_add(arg, errp) != NULL;
}

bool coroutine_fn qmp_block_export_del(const BlockExportDelArg *arg, GError **errp)
{
    bool hard = arg->has_mode && arg->mode == BLOCK_EXPORT_REMOVE_MODE_HARD;
    BlockExport *exp = blk_exp_find(arg->id);

    if (!exp) {
        error_setg(errp, "Export '%s' is not found", arg->id);
    } else if (!exp->user_owned) {
        error_setg(errp, "Export '%s' is already shutting down", arg->id);
    } else if (!hard && g_atomic_int_get(&exp->refcount) > 1) { /* clients hold the others */
        error_setg(errp, "export '%s' still in use", arg->id);
    } else {
        blk_exp_request_shutdown(exp);
        return true;
    }
    return false;
}

bool coroutine_fn qmp_query_block_exports(BlockExportInfoList **ret, GError **errp)
{
    BlockExportInfoList **tail = ret;

    for (BlockExport *exp = blk_exp_next(NULL); exp; exp = blk_exp_next(exp)) {
        BlockExportInfo *info = g_new0(BlockExportInfo, 1);
        BlockDriverState *bs = blk_bs(exp->blk);

        info->id = g_strdup(exp->id);
        info->type = exp->drv->type;
        info->node_name = g_strdup(bs ? bdrv_get_node_name(bs) : "");
        info->shutting_down = !exp->user_owned;
        QAPI_LIST_APPEND(tail, info);
    }
    return true;
}
