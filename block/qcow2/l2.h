/* SPDX-License-Identifier: GPL-2.0-or-later */
/* L1 and L2 tables: what a guest cluster is and where its bytes lie. Offsets are guest bytes. */
#ifndef FERRY_BLOCK_QCOW2_L2_H
#define FERRY_BLOCK_QCOW2_L2_H

#include "block/qcow2/cache.h"
#include "block/qcow2/qcow2.h"

/* What a guest cluster (or subcluster) is. */
typedef enum Qcow2Kind {
    QCOW2_UNALLOCATED, /* shows the backing file; a host cluster may be reserved */
    QCOW2_ZERO,        /* zeroes; a host cluster may be reserved */
    QCOW2_NORMAL,
    QCOW2_COMPRESSED,
    QCOW2_INVALID, /* contradicts the format */
} Qcow2Kind;

/*
 * The cached slice with the entry for offset, pinned (qcow2_cache_put()); *entry NULL: there is no
 * L2 table.
 */
int coroutine_fn qcow2_co_l2_get(BlockDriverState *bs, uint64_t offset,
                                 Qcow2CacheEntry **entry) G_GNUC_WARN_UNUSED_RESULT;
/* The same for writing: makes (or copies) the L2 table when need be. s->lock held. */
int coroutine_fn qcow2_co_l2_get_writable(BlockDriverState *bs, uint64_t offset,
                                          Qcow2CacheEntry **entry) G_GNUC_WARN_UNUSED_RESULT;

static inline unsigned qcow2_slice_index(const BDRVQcow2State *s, uint64_t offset)
{
    return (offset >> s->cluster_bits) & ((1u << s->slice_bits) - 1);
}

static inline uint64_t qcow2_l2_entry(const BDRVQcow2State *s, const uint8_t *slice, unsigned index)
{
    return ldq_be_p(slice + (size_t)index * s->l2_entry_bytes);
}

/*
 * Subcluster bitmap: allocated in bits 0..31, zero in 32..63. Without subclusters: made up from the
 * entry.
 */
static inline uint64_t qcow2_l2_bitmap(const BDRVQcow2State *s, const uint8_t *slice,
                                       unsigned index)
{
    return s->has_subclusters ? ldq_be_p(slice + (size_t)index * 16 + 8) : 0;
}

/* A standard entry that has a host cluster, in use or reserved. */
bool qcow2_has_host_cluster(const BDRVQcow2State *s, uint64_t entry);
/* What subcluster sc is; INVALID when the entry contradicts itself. */
Qcow2Kind qcow2_entry_kind(const BDRVQcow2State *s, uint64_t entry, uint64_t bitmap, unsigned sc);
/* How many subclusters from sc on are of that kind. */
unsigned qcow2_entry_run(const BDRVQcow2State *s, uint64_t entry, uint64_t bitmap, unsigned sc,
                         Qcow2Kind kind);
/* False, after signalling corruption, when the entry contradicts the format. */
bool coroutine_fn qcow2_co_entry_check(BlockDriverState *bs, uint64_t offset, uint64_t entry,
                                       uint64_t bitmap);

/* A run of guest bytes of one kind, contiguous on the host where NORMAL. */
typedef struct Qcow2Extent {
    Qcow2Kind kind;
    uint64_t bytes;       /* > 0, at most what was asked */
    uint64_t host_offset; /* NORMAL: of the first byte */
    uint64_t entry;       /* COMPRESSED: the L2 entry; the run ends with the cluster */
} Qcow2Extent;
int coroutine_fn qcow2_co_lookup(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                 Qcow2Extent *x) G_GNUC_WARN_UNUSED_RESULT;
/*
 * As lookup, when it can be answered from the cache and the answer is NORMAL and all of [offset,
 * offset + bytes).
 */
bool qcow2_lookup_fast(BlockDriverState *bs, uint64_t offset, uint64_t bytes, bool for_write,
                       uint64_t *host_offset);

/* Sets L1 entry i in memory and marks it for writeback. */
void qcow2_l1_set(BDRVQcow2State *s, uint32_t i, uint64_t value);
/* Host offset and length in bytes of a compressed cluster, up to the end of its last sector. */
void qcow2_parse_compressed(const BDRVQcow2State *s, uint64_t entry, uint64_t *offset,
                            uint64_t *bytes);

#endif
