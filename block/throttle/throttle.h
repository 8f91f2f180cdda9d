/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The throttle filter driver. */
#ifndef FERRY_BLOCK_THROTTLE_H
#define FERRY_BLOCK_THROTTLE_H

#include "block/block_int.h"

extern const BlockDriver bdrv_throttle;

#endif
