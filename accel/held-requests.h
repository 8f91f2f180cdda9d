/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of a device that failed under rerror=stop or werror=stop: they are held while the guest
 * is stopped, and start again when it runs. They may travel: a device saves those that are held and
 * adds them again when it is loaded. A held request is not in flight: the device has ended it for
 * hw/core/reset.h, and begins it again when it starts again.
 *
 * Made and freed with the big lock; a request is held in a context of the backend or with the big
 * lock.
 */
#ifndef FERRY_ACCEL_HELD_REQUESTS_H
#define FERRY_ACCEL_HELD_REQUESTS_H

#include <stdbool.h>
#include "block/block-backend.h"
#include "block/error-policy.h"
#include "util/queue.h"

/* Embedded in the device's own request. */
typedef struct HeldRequest {
    AioContext *ctx; /* in which it failed; NULL: it came with the stream */
    TAILQ_ENTRY(HeldRequest) link;
} HeldRequest;

typedef struct HeldRequests HeldRequests;
/* The device's; either makes the request the device's from now on. */
typedef struct HeldRequestOps {
    /*
     * Starts it again. In the context in which it failed, if the backend is still bound to that,
     * else in the backend's. The request enters the backend before this returns: one that is only
     * scheduled is not counted, and a stop would not wait for it.
     */
    void (*restart)(void *opaque, HeldRequest *req);
    /* It will not be started any more: the device or the process ends. With the big lock. */
    void (*drop)(void *opaque, HeldRequest *req);
} HeldRequestOps;

/* blk lives longer. qom_path is the device's, for BLOCK_IO_ERROR. */
HeldRequests *held_requests_new(BlockBackend *blk, const char *qom_path, const HeldRequestOps *ops,
                                void *opaque);
/* Drops what is still held. The backend is drained. NULL is allowed. */
void held_requests_free(HeldRequests *held);

/*
 * A request failed with `error`, a positive errno: decides, reports (block/error-policy.h) and, if
 * the answer is `stop`, holds it. With the other answers the request stays the device's.
 */
BlockErrorAction held_requests_error(HeldRequests *held, HeldRequest *req, bool is_read, int error);
/* Holds a request that came with the stream. */
void held_requests_add(HeldRequests *held, HeldRequest *req);
/* The oldest one, which is not held any more; NULL: none. For a reset, and for unplugging. */
HeldRequest *held_requests_take(HeldRequests *held);
/* The one after `req`, NULL: the first; for saving. The guest is stopped and its disks are quiet. */
HeldRequest *held_requests_next(HeldRequests *held, HeldRequest *req);

#endif
