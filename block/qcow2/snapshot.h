/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of internal snapshots. */
#ifndef FERRY_BLOCK_QCOW2_SNAPSHOT_H
#define FERRY_BLOCK_QCOW2_SNAPSHOT_H

#include "block/qcow2/qcow2.h"

/* An entry of the snapshot table: where its L1 table is and how large; the rest is for people. */
typedef struct Qcow2Snapshot {
    uint64_t l1_table_offset;
    uint32_t l1_size;
    uint64_t disk_size;
    uint64_t vm_state_size;
    uint32_t date_sec, date_nsec; /* since 1970 UTC */
    uint64_t vm_clock_nsec;
    uint64_t icount; /* UINT64_MAX: not counted */
    char *id, *name;
} Qcow2Snapshot;

/* Reads and checks the snapshot table. */
bool coroutine_fn qcow2_co_load_snapshots(BlockDriverState *bs, GError **errp);
void qcow2_free_snapshots(BDRVQcow2State *s);
SnapshotInfoList *qcow2_snapshot_list(BlockDriverState *bs);

#endif
