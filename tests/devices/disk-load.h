/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a guest does to a disk with several queues: each queue has its thread and keeps workers busy.
 * Each worker writes, zeroes, reads and flushes an area of the disk that is its own, and compares
 * what it reads with what it has written. Main thread unless said otherwise.
 */
#ifndef FERRY_TESTS_DEVICES_DISK_LOAD_H
#define FERRY_TESTS_DEVICES_DISK_LOAD_H

#include "block/block-backend.h"
#include "vmstate/vmstate.h"

enum {
    LOAD_QUEUES_MAX = 4,
    LOAD_WORKERS = 4, /* a queue */
    LOAD_AREA_BYTES = 16384,
    LOAD_BYTES = LOAD_QUEUES_MAX * LOAD_WORKERS * LOAD_AREA_BYTES, /* of the disk, from its start */
};

typedef struct DiskLoad DiskLoad;

/* What a load needs to go on in another process. */
typedef struct DiskLoadState {
    uint8_t contents[LOAD_BYTES];                     /* each area its worker's */
    uint32_t numbers[LOAD_QUEUES_MAX * LOAD_WORKERS]; /* each worker's random ones */
} DiskLoadState;

extern const VMStateDescription vmstate_disk_load;

typedef struct DiskLoadOps {
    bool (*may_go_on)(void *opaque); /* asked before each request, in the queue's thread */
    void (*gone)(void *opaque);      /* the last worker has ended */
} DiskLoadOps;

/* The disk reads as zeroes, and blk is bound to the n contexts before a start. */
DiskLoad *disk_load_new(BlockBackend *blk, AioContext *const *ctxs, unsigned n,
                        const DiskLoadOps *ops, void *opaque);
/* No worker is left. */
void disk_load_free(DiskLoad *load);
void disk_load_start(DiskLoad *load);
bool disk_load_is_running(const DiskLoad *load);
/* Requests that have ended: of a queue; in the queue with the fewest. Any thread. */
unsigned disk_load_ended(const DiskLoad *load, unsigned queue);
unsigned disk_load_ended_in_each(const DiskLoad *load);
/* Requests that failed, read something else than was written, or ended in another thread. Any thread. */
unsigned disk_load_bad(const DiskLoad *load);
/* `contents` is what the first LOAD_BYTES should read as while no worker runs. Saved and loaded only then. */
DiskLoadState *disk_load_state(DiskLoad *load);

#endif
