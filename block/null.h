/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The null-co and null-aio drivers. */
#ifndef FERRY_BLOCK_NULL_H
#define FERRY_BLOCK_NULL_H

#include "block/block_int.h"

extern const BlockDriver bdrv_null_co;
extern const BlockDriver bdrv_null_aio;

#endif
