/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Limits of drives: block_set_io_throttle, -drive throttling.*, and what query-block shows of them.
 * Main thread.
 */
#ifndef FERRY_BLOCK_IO_LIMITS_H
#define FERRY_BLOCK_IO_LIMITS_H

#include <json-c/json.h>
#include "block/block-backend.h"
#include "util/throttle.h"

/*
 * Takes throttling.* (and the older spellings bps, iops_rd_max, ...) out of the options of a drive.
 * *group is NULL or the name of the group; the caller frees it.
 */
bool io_limits_take_options(json_object *options, ThrottleConfig *cfg, char **group, GError **errp);
/*
 * Puts a drive into a group (NULL: the one it is in, else its own) and sets the group's limits;
 * without limits it leaves the group. False, and nothing is changed, when the disk does not become
 * idle in BDRV_DRAIN_COMMAND_NS, as it must for another group.
 */
bool coroutine_fn io_limits_co_apply(BlockBackend *blk, const ThrottleConfig *cfg,
                                     const char *group, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* From now on requests wait for no limit, of a drive or of a throttle node: the process ends. */
void io_limits_lift_all(void);
/* Fills the limits of a node's info from the drive above it. */
void io_limits_fill_info(BlockDeviceInfo *info, const BlockBackend *blk);

#endif
