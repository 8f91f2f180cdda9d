/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ownership of images: whether a node is active (this process may use the image) or inactive
 * (another process owns it: no locks, no permissions, requests fail with -EPERM).
 *
 * A migration moves ownership: the source calls bdrv_co_inactivate_all() when the guest has
 * stopped, the destination, whose nodes were opened inactive, bdrv_co_activate_all() before the
 * guest starts. Main thread, in coroutines; changes run one after the other.
 */
#ifndef FERRY_BLOCK_ACTIVATE_H
#define FERRY_BLOCK_ACTIVATE_H

#include "block/block.h"

/* Main thread, or the graph's: it changes while the node is drained. */
bool bdrv_is_inactive(const BlockDriverState *bs);
/* False with errp when it is inactive: for commands that need the image. */
bool bdrv_check_active(const BlockDriverState *bs, GError **errp);

/*
 * Whether nodes that users make from now on (blockdev-add, -blockdev, -drive) are inactive unless
 * their options say otherwise: from start-up with -incoming until bdrv_co_activate_all().
 */
void bdrv_set_default_inactive(bool inactive);
/* BDRV_O_INACTIVE or 0, for opening such a node. */
int bdrv_default_open_flags(void);

/*
 * Gives up every node, or one node and the nodes below it that have no other active node above. Requests in
 * flight end; caches, metadata and persistent bitmaps are written and flushed; locks and permissions are
 * dropped. What a disk reads is then complete in its image. Persistent bitmaps leave memory. Returns 0, also
 * when nothing was active. On failure it returns -errno with errp, and everything is active as before. The
 * error -EBUSY: a job, an export or another active node needs one (errp names both). -ETIMEDOUT: requests do
 * not end. Else it is the error of the write.
 */
int coroutine_fn bdrv_co_inactivate_all(GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int coroutine_fn bdrv_co_inactivate(BlockDriverState *bs, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Takes every inactive node, or one and all below it: locks and permissions first, then what the
 * other owner may have changed is read anew (metadata, bitmaps, size). All or none: on failure errp
 * names the node that could not be had, and those of this call are inactive as before.
 */
bool coroutine_fn bdrv_co_activate_all(GError **errp) G_GNUC_WARN_UNUSED_RESULT;
bool coroutine_fn bdrv_co_activate(BlockDriverState *bs, GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/*
 * What is asked before bdrv_co_activate() takes an inactive node: false with an error refuses, for the disks
 * of a guest on its way are the migration's. Start-up.
 */
void bdrv_set_activation_check(bool (*check)(GError **errp));

#endif
