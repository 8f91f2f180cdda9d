/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The qcow2 driver: its state and the rules its files keep.
 *
 * An image maps guest clusters to host clusters through two levels (L1 table, L2 tables). It counts
 * the references to every host cluster in two levels as well (refcount table, refcount blocks). A
 * crash may leave clusters counted too high (leaks) but never too low, and no L2 entry may show
 * anything but what was written or what was there before.
 *
 * Life of an allocating write:
 *   allocate: count the host clusters in cached refcount blocks       (s->lock held, usually no I/O)
 *   write:    guest data and copied-on-write surroundings as one      (s->lock not held)
 *   link:     point cached L2 entries at them                         (s->lock held, usually no I/O)
 * Clusters being written are in s->allocs from allocate to link; a request that needs the same
 * guest cluster waits for them.
 *
 * What reaches the disk, and when: writeback.c takes a snapshot of all dirty metadata at one instant
 * and writes it in stages: refcount blocks, (barrier) refcount table, (barrier) L2 slices, (barrier)
 * L1 entries. A later stage refers only to what an earlier stage or an earlier writeback made
 * durable. Clusters that lose their last reference are put on a list. They are counted down only
 * when the L2 tables that dropped them are durable and no request from before that still uses them
 * (free.c). With lazy refcounts the dirty bit is durable before the first change and the first two
 * stages wait until close.
 *
 * Threads: all in the graph's thread. s->lock (coroutine) excludes changes of the metadata from
 * each other; it may be held across metadata reads but never across guest data I/O. Looking up a
 * cached entry needs no lock. s->writeback_lock excludes writebacks from each other and nests
 * inside s->lock.
 */
#ifndef FERRY_BLOCK_QCOW2_QCOW2_H
#define FERRY_BLOCK_QCOW2_QCOW2_H

#include "block/block_int.h"
#include "block/qcow2/header.h"
#include "util/co-lock.h"
#include "util/timer.h"

extern const BlockDriver bdrv_qcow2;

/* L1 and L2 entries. */
#define QCOW2_OFLAG_COPIED     (1ULL << 63)
#define QCOW2_OFLAG_COMPRESSED (1ULL << 62)
#define QCOW2_OFLAG_ZERO       (1ULL << 0)
#define QCOW2_OFFSET_MASK      0x00fffffffffffe00ULL
/* Host clusters lie below this, so that L2 entries can point at them. */
#define QCOW2_HOST_LIMIT (1ULL << 56)

/* Why clusters are freed: which pass-discard option decides whether the file hears of it. */
typedef enum Qcow2DiscardReason {
    QCOW2_DISCARD_NEVER,
    QCOW2_DISCARD_REQUEST,
    QCOW2_DISCARD_SNAPSHOT,
    QCOW2_DISCARD_OTHER,
    QCOW2_DISCARD_MAX,
} Qcow2DiscardReason;

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

typedef struct Qcow2Cache Qcow2Cache;
typedef struct Qcow2CleanTimer Qcow2CleanTimer;

typedef struct BDRVQcow2State {
    /* --- constant while open --- */
    Qcow2Header header;
    unsigned cluster_bits;
    uint64_t cluster_size;
    bool has_subclusters;
    unsigned subcluster_bits,
        subclusters; /* bytes of one as a power of two; how many in a cluster: 1 or 32 */
    uint64_t subcluster_size;
    unsigned l2_entry_bytes; /* 8 or 16 */
    unsigned l2_bits;        /* entries of an L2 table, power of two */
    unsigned slice_bits;     /* entries of a cached slice of one */
    uint64_t slice_bytes;
    unsigned refcount_bits; /* width of a refcount */
    unsigned refblock_bits; /* refcounts in a block, power of two */
    uint64_t refcount_max;
    unsigned compressed_shift; /* position of the sector count in a compressed entry */
    uint64_t compressed_offset_mask;
    BdrvChild *data_file; /* bs->file, or the external data file */

    /* --- options --- */
    bool lazy_refcounts;
    bool discard_pass[QCOW2_DISCARD_MAX];
    bool discard_no_unref;
    int overlap_check;             /* QCOW2_OL_* */
    uint64_t cache_clean_interval; /* seconds, 0: never */

    /* --- metadata --- */
    CoMutex lock;
    CoMutex writeback_lock;
    Qcow2Cache *l2_cache, *refblock_cache;
    uint64_t *l1_table;                    /* host-endian, header.l1_size entries */
    uint32_t l1_dirty_start, l1_dirty_end; /* entries to write; empty when equal */
    uint64_t *reftable;                    /* host-endian, reftable_size entries */
    uint64_t reftable_size;
    uint64_t reftable_dirty_start, reftable_dirty_end;
    uint64_t free_hint; /* no free cluster below this index */
    uint64_t
        /* from here on the file was never written; UINT64_MAX: not known to be zero */
        fresh_offset;
    uint64_t
        /* host offset after the last compressed cluster, 0: none with room behind it */
        compressed_pos;
    GHashTable *l2_clusters, *refblock_clusters; /* sets of host offsets, for the overlap check */
    uint64_t
        *inactive_l2; /* sorted offsets of the L2 tables of snapshots, with QCOW2_OL_INACTIVE_L2 */
    size_t nb_inactive_l2;
    GArray *snapshots;        /* of Qcow2Snapshot */
    uint64_t snapshots_bytes; /* length of the snapshot table */
    /*
     * Completed writes that later metadata relies on, and how many of them are durable: writes in
     * flight count in neither.
     */
    uint64_t ordered_writes, ordered_durable;
    /* not closed properly, and refcounts not rebuilt since: read only */
    bool needs_repair;
    bool dirty_bit_set;  /* the dirty bit is on disk */
    size_t header_bytes; /* of the first cluster that a header on disk may occupy */
    bool write_prepared; /* qcow2_co_prepare_write() has nothing left to do */
    GArray *bitmaps;     /* of Qcow2Bitmap: the directory; NULL without */
    bool bitmaps_kept;   /* persistent bitmaps follow our writes, or are marked as in use */
    bool bitmaps_broken; /* left out; the image is not written */

    /* --- requests --- */
    LIST_HEAD(, Qcow2Alloc) allocs;
    unsigned epoch;        /* parity selects the counter that a starting request takes */
    unsigned in_flight[2]; /* requests that use host clusters, by the epoch they began in */
    GArray *frees;         /* of Qcow2PendingFree: since the last flush */
    GArray *grace;         /* of Qcow2PendingFree: durable once grace_epoch's requests are done */
    unsigned grace_epoch;
    bool grace_busy;
    uint64_t frees_clusters;  /* in `frees` */
    int64_t frees_file_bytes; /* length of the file when the frees were last looked at */
    CoQueue requests_ended;   /* ... of an epoch, or a flush that frees */
    uint64_t frees_base;      /* how many entries have left `frees` since the image was opened */
    uint64_t
        /* entries before this one, counted as frees_base, are not merged with new ones */
        frees_sealed;

    /* --- the rest --- */
    bool corrupt; /* marked corrupt: writes fail */
    bool fatal;   /* metadata cannot be trusted: everything fails */
    bool corruption_signalled;
    /* -1: not known yet; 1: the file has holes below data clusters (preallocation) */
    int sparse_file;
    Qcow2CleanTimer *clean_timer; /* NULL: none runs */
} BDRVQcow2State;

static inline uint64_t qcow2_cluster_start(const BDRVQcow2State *s, uint64_t offset)
{
    return offset & ~(s->cluster_size - 1);
}

static inline uint64_t qcow2_cluster_end(const BDRVQcow2State *s, uint64_t offset)
{
    return (offset + s->cluster_size - 1) & ~(s->cluster_size - 1);
}

static inline uint64_t qcow2_in_cluster(const BDRVQcow2State *s, uint64_t offset)
{
    return offset & (s->cluster_size - 1);
}

static inline bool qcow2_has_data_file(const BDRVQcow2State *s)
{
    return s->header.incompatible_features & QCOW2_INCOMPAT_DATA_FILE;
}

static inline bool qcow2_data_file_is_raw(const BDRVQcow2State *s)
{
    return s->header.autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW;
}

#endif
