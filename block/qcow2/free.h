/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Host clusters that lose a reference: counted down when nothing durable refers to them. */
#ifndef FERRY_BLOCK_QCOW2_FREE_H
#define FERRY_BLOCK_QCOW2_FREE_H

#include "block/qcow2/qcow2.h"

/* Freed but uncounted runs that are kept before a flush is forced. */
#define QCOW2_MAX_PENDING_FREES 65536
/*
 * Bytes of freed clusters that are kept before a flush brings them back: an eighth of the file, this
 * at least.
 */
#define QCOW2_PENDING_FREE_BYTES (4u << 20)
/* The same for a file that has grown since the last look: what waits could have been used instead. */
#define QCOW2_PENDING_FREE_GROWN_BYTES (1u << 20)

/* A run of freed host clusters whose refcounts still include the reference. */
typedef struct Qcow2PendingFree {
    uint64_t first; /* cluster index */
    uint32_t count; /* clusters */
    Qcow2DiscardReason reason;
} Qcow2PendingFree;

/*
 * The run loses one reference; counted down some time after the change that dropped it is durable.
 * Never yields.
 */
void qcow2_free_later(BlockDriverState *bs, uint64_t host, uint64_t bytes,
                      Qcow2DiscardReason reason);
/* Appends a cluster to a list of Qcow2PendingFree, extending its last run where possible. */
void qcow2_run_append(GArray *runs, uint64_t cluster, Qcow2DiscardReason reason);
/* A request that uses host clusters begins/ends. */
static inline unsigned qcow2_request_begin(BDRVQcow2State *s)
{
    unsigned e = s->epoch & 1;
    s->in_flight[e]++;
    return e;
}
static inline void qcow2_request_end(BDRVQcow2State *s, unsigned e)
{
    if (--s->in_flight[e] == 0) {
        qemu_co_queue_restart_all(&s->requests_ended);
    }
}
/* Flush: writeback, then counts down what may be. s->lock not held. */
int coroutine_fn qcow2_co_flush_metadata(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;
/* Flushes when too much is waiting to be freed. s->lock not held, outside of request_begin/end. */
int coroutine_fn qcow2_co_throttle_frees(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;
/*
 * After a request found no room: makes all that waits to be freed usable, and waits for the requests
 * that may use it still. True: there is room that there was not before. As above.
 */
bool coroutine_fn qcow2_co_reclaim(BlockDriverState *bs);

#endif
