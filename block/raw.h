/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The raw format driver. */
#ifndef FERRY_BLOCK_RAW_H
#define FERRY_BLOCK_RAW_H

#include "block/block_int.h"

extern const BlockDriver bdrv_raw;

#endif
