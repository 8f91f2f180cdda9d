/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Repairing refcounts. */
#include "block/qcow2/qcow2.h"

#include "util/error.h"

bool coroutine_fn qcow2_co_repair_refcounts(BlockDriverState *bs, GError **errp)
{
    error_setg(errp, "the dirty bit is set; repair it with 'qemu-img check -r all'");
    return false;
}
