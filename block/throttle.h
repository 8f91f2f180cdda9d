/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The throttle filter driver, and the throttle-group object (`-object throttle-group`). */
#ifndef FERRY_BLOCK_THROTTLE_H
#define FERRY_BLOCK_THROTTLE_H

#include "block/block_int.h"
#include "util/throttle.h"

extern const BlockDriver bdrv_throttle;

/* Makes the type throttle-group known to -object and object-add; start-up. */
void throttle_group_register_object(void);
/* Schema limits to and from a configuration; false when they make no sense together. */
bool throttle_limits_to_config(const ThrottleLimits *limits, ThrottleConfig *cfg, GError **errp);

#endif
