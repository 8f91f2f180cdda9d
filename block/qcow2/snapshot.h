/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of internal snapshots. */
#ifndef FERRY_BLOCK_QCOW2_SNAPSHOT_H
#define FERRY_BLOCK_QCOW2_SNAPSHOT_H

#include "block/qcow2/qcow2.h"

/* Reads and checks the snapshot table. */
bool coroutine_fn qcow2_co_load_snapshots(BlockDriverState *bs, GError **errp);
void qcow2_free_snapshots(BDRVQcow2State *s);
SnapshotInfoList *qcow2_snapshot_list(BlockDriverState *bs);

#endif
