/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk with several queues, each in an iothread of its own, under load (tests/devices/disk-load.h).
 * What goes wrong fails the test.
 */
#ifndef FERRY_TESTS_UNIT_DISK_QUEUES_H
#define FERRY_TESTS_UNIT_DISK_QUEUES_H

#include "block/block-backend.h"

typedef struct DiskQueues DiskQueues;

/*
 * n iothreads "q0", "q1", ..., bound to a new backend on bs, whose reference it takes; NULL: no
 * medium.
 */
DiskQueues *coroutine_fn disk_queues_co_new(unsigned n, BlockDriverState *bs);
BlockBackend *disk_queues_blk(DiskQueues *d);
AioContext *disk_queues_ctx(DiskQueues *d, unsigned queue);
void disk_queues_start(DiskQueues *d);
/* Until `requests` more have ended in each queue. */
void coroutine_fn disk_queues_co_progress(DiskQueues *d, unsigned requests);
/* On return no worker is left, and the disk has what they have written. */
void coroutine_fn disk_queues_co_stop(DiskQueues *d);
/* Not under load. Unbinds; the medium and the iothreads go. */
void coroutine_fn disk_queues_co_free(DiskQueues *d);

#endif
