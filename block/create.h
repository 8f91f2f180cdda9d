/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names that new images record; images are created by bdrv_co_img_create(). */
#ifndef FERRY_BLOCK_CREATE_H
#define FERRY_BLOCK_CREATE_H

#include "block/block.h"

/*
 * The name by which the new image `overlay` (a name of a file, or of another protocol) can record
 * bs as its backing file. It is the name that bs was opened with where that leads to bs from the
 * folder of the overlay, else an absolute one. NULL: neither leads there. The caller frees. Main
 * thread.
 */
char *bdrv_name_for_overlay(BlockDriverState *bs, const char *overlay, GError **errp);

#endif
