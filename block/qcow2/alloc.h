/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Allocating writes. s->lock held unless said otherwise. */
#ifndef FERRY_BLOCK_QCOW2_ALLOC_H
#define FERRY_BLOCK_QCOW2_ALLOC_H

#include "block/qcow2/qcow2.h"

/* Most host clusters a writer gets at once, as bytes: one request to the file. */
#define QCOW2_MAX_RUN_BYTES (16u << 20)
/*
 * Guest clusters whose host clusters are being written. Lives on the writer's stack, in s->allocs.
 * Offsets are guest bytes unless they are called host.
 */
typedef struct Qcow2Alloc {
    uint64_t start; /* cluster-aligned */
    uint32_t nb_clusters;
    uint64_t host_offset;
    uint64_t fill_start,
        fill_end;  /* subcluster-aligned: what will be NORMAL; the writer fills all of it */
    bool in_place; /* the host clusters were reserved for these guest clusters already */
    bool fresh;    /* the host clusters have never been written and read as zeroes */
    bool compressed;
    uint64_t compressed_entry; /* L2 entry, with compressed */
    CoQueue waiters;
    LIST_ENTRY(Qcow2Alloc) list;
} Qcow2Alloc;

typedef struct Qcow2WritePlan {
    uint64_t bytes;       /* of the request, from its start, that the plan covers: > 0 */
    uint64_t host_offset; /* of the first byte */
    bool allocating;      /* alloc is in s->allocs: write, then link or abort */
    Qcow2Alloc alloc;
} Qcow2WritePlan;

/*
 * Finds or allocates where the first bytes of [offset, offset + bytes) are to be written. Waits for
 * overlapping allocations, with the lock released meanwhile.
 */
int coroutine_fn qcow2_co_plan_write(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                     Qcow2WritePlan *plan) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Points the L2 entries at what was written; frees what they pointed at. On failure the clusters
 * are released.
 */
int coroutine_fn qcow2_co_alloc_link(BlockDriverState *bs,
                                     Qcow2Alloc *alloc) G_GNUC_WARN_UNUSED_RESULT;
/* Gives the clusters back. */
void coroutine_fn qcow2_co_alloc_abort(BlockDriverState *bs, Qcow2Alloc *alloc);
/* Takes it off s->allocs and wakes those that wait for it; after link or abort. Needs no lock. */
void qcow2_alloc_finish(BDRVQcow2State *s, Qcow2Alloc *alloc);
/* Waits until no allocation overlaps [offset, offset + bytes). */
void coroutine_fn qcow2_co_wait_allocs(BDRVQcow2State *s, uint64_t offset, uint64_t bytes);
/* Frees what an L2 entry refers to. */
void qcow2_free_entry(BlockDriverState *bs, uint64_t entry, Qcow2DiscardReason reason);

#endif
