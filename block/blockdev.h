/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Nodes and devices as users make them: -blockdev, -drive. */
#ifndef FERRY_BLOCK_BLOCKDEV_H
#define FERRY_BLOCK_BLOCKDEV_H

#include "block/block.h"

/*
 * -drive: options as the command line has them ("file=x,format=qcow2,if=none,id=d0,..."). Makes the
 * node and, if an id is given or made up, its device. `text` "format=help" prints the formats to
 * stdout and exits. Start-up only.
 */
bool coroutine_fn drive_co_new(const char *text, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * After the machine was made: false, with errp, when there is a drive for an interface (if=ide)
 * that no machine has. Start-up only.
 */
bool drive_check_places(GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Removes the devices that -drive made; shutdown, before bdrv_co_close_all(). */
void coroutine_fn drive_co_close_all(void);

#endif
