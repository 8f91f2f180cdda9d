/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The block drivers that users can open. */
#include "block/debug/blkdebug.h"
#include "block/block_int.h"
#include "block/copy-on-read.h"
#include "block/file/file.h"
#include "block/nbd/client.h"
#include "block/null.h"
#include "block/qcow2/qcow2.h"
#include "block/raw.h"
#include "block/throttle/throttle.h"

const BlockDriver *const bdrv_drivers[] = {
    &bdrv_file, &bdrv_host_device, &bdrv_nbd,          &bdrv_null_co,  &bdrv_null_aio, &bdrv_qcow2,
    &bdrv_raw,  &bdrv_blkdebug,    &bdrv_copy_on_read, &bdrv_throttle, NULL,
};
