/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Debug events: what happens in a graph, told to the blkdebug node nearest below. Graph thread. */
#include "block/block_int.h"

void coroutine_fn bdrv_co_debug_event(BdrvChild *child, BlkdebugEvent event)
{
    while (child && child->bs && child->bs->drv) {
        BlockDriverState *bs = child->bs;

        if (BDRV_OP(bs->drv, debug, bdrv_co_debug_event)) {
            bs->drv->debug->bdrv_co_debug_event(bs, event);
            return;
        }
        child = bs->file;
    }
}
