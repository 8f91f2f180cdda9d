/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What becomes of a request of the guest that failed: reported to the guest, ignored, or kept while
 * the guest is stopped (rerror and werror of its device).
 */
#ifndef FERRY_BLOCK_ERROR_POLICY_H
#define FERRY_BLOCK_ERROR_POLICY_H

#include <stdbool.h>
#include "block/block-backend.h"
#include "qapi/qapi-types-block-node.h"
#include "qapi/qapi-types-run-state.h"

/*
 * Stops the guest soon; any thread. The upper floor registers it (accel/vm-stop.h). Until then a
 * stop is a stop of nothing. Main thread, before requests.
 */
void blk_set_guest_stopper(void (*request)(RunState reason));

/*
 * What the policy says about `error`, a positive errno. `auto` is report for reads and enospc for
 * writes; enospc stops for a full disk and reports everything else. Graph thread.
 */
BlockErrorAction blk_get_error_action(const BlockBackend *blk, bool is_read, int error);

/*
 * Carries out `action`, which is blk_get_error_action()'s: I/O status, then BLOCK_IO_ERROR, then the
 * stop of the guest, in this order and in the main loop soon after; until then `blk` is busy. With
 * `stop` the caller has put the request where `cont` finds it before it calls this
 * (accel/held-requests.h does). qom_path is the device's, "" for none. Graph thread.
 */
void blk_error_action(BlockBackend *blk, BlockErrorAction action, bool is_read, int error,
                      const char *qom_path);

#endif
