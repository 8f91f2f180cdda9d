/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The copy-on-read filter driver. */
#ifndef FERRY_BLOCK_COPY_ON_READ_H
#define FERRY_BLOCK_COPY_ON_READ_H

#include "block/block_int.h"

extern const BlockDriver bdrv_copy_on_read;

#endif
