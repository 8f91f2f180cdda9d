/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Snapshots inside images, as they are told to users. */
#ifndef FERRY_BLOCK_SNAPSHOT_INTERNAL_H
#define FERRY_BLOCK_SNAPSHOT_INTERNAL_H

#include "block/block.h"
#include "qapi/qapi-types.h"

/* A disk that a snapshot of the whole machine would be in. */
typedef struct SnapshotDisk {
    char *name;        /* of the device, else of the node */
    bool can_snapshot; /* its format has snapshots */
    SnapshotInfoList *snapshots;
} SnapshotDisk;

/* Those of one image, a filter's being those of what it filters; NULL: none. The caller frees. */
SnapshotInfoList *coroutine_fn bdrv_co_snapshot_list(BlockDriverState *bs);

/*
 * SnapshotDisk for each writable image below a device, then for each that blockdev-add made. The
 * caller frees. Main context.
 */
GPtrArray *coroutine_fn bdrv_co_snapshot_disks(void);

#endif
