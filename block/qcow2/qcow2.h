/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The qcow2 driver: its state and the rules its files keep.
 *
 * An image maps guest clusters to host clusters through two levels (L1 table, L2 tables) and counts
 * the references to every host cluster in two levels as well (refcount table, refcount blocks). A
 * crash may leave clusters counted too high (leaks) but never too low, and no L2 entry may show
 * anything but what was written or what was there before.
 *
 * Life of an allocating write:
 *   allocate: count the host clusters in cached refcount blocks       (s->lock held, usually no I/O)
 *   write:    guest data and copied-on-write surroundings as one      (s->lock not held)
 *   link:     point cached L2 entries at them                         (s->lock held, usually no I/O)
 * Clusters being written are in s->allocs from allocate to link; whoever needs the same guest
 * cluster waits for them.
 *
 * What reaches the disk, and when: writeback.c takes a snapshot of all dirty metadata at one
 * instant and writes it in stages: refcount blocks, (barrier) refcount table, (barrier) L2 slices,
 * (barrier) L1 entries. A later stage refers only to what an earlier stage or an earlier writeback
 * made durable. Clusters that lose their last reference are put on a list and are counted down only
 * when the L2 tables that dropped them are durable and no request from before that is still using
 * them (free.c). With lazy refcounts the dirty bit is durable before the first change and the first
 * two stages wait until close.
 *
 * Threads: all in the graph's thread. s->lock (coroutine) excludes changes of the metadata from
 * each other; it may be held across metadata reads but never across guest data I/O. Looking up a
 * cached entry needs no lock. s->writeback_lock excludes writebacks from each other and nests
 * inside s->lock.
 */
#ifndef FERRY_BLOCK_QCOW2_QCOW2_H
#define FERRY_BLOCK_QCOW2_QCOW2_H

#include "block/block_int.h"
#include "block/qcow2/cache.h"
#include "block/qcow2/header.h"
#include "util/co-lock.h"
#include "util/timer.h"

extern const BlockDriver bdrv_qcow2;

/* L1 and L2 entries. */
#define QCOW2_OFLAG_COPIED     (1ULL << 63)
#define QCOW2_OFLAG_COMPRESSED (1ULL << 62)
#define QCOW2_OFLAG_ZERO       (1ULL << 0)
#define QCOW2_OFFSET_MASK      0x00fffffffffffe00ULL
#define QCOW2_L1_RESERVED      0x7f000000000001ffULL
#define QCOW2_L2_RESERVED      0x3f000000000001feULL
#define QCOW2_REFT_RESERVED    0x1ffULL
/* Host clusters lie below this, so that L2 entries can point at them. */
#define QCOW2_HOST_LIMIT (1ULL << 56)
/* Most host clusters a writer gets at once, as bytes: one request to the file. */
#define QCOW2_MAX_RUN_BYTES (16u << 20)
/* Freed but uncounted runs that are kept before a flush is forced. */
#define QCOW2_MAX_PENDING_FREES 65536
/*
 * Bytes of freed clusters that are kept before a flush brings them back: an eighth of the file, this
 * at least.
 */
#define QCOW2_PENDING_FREE_BYTES (4u << 20)

/* What a guest cluster (or subcluster) is. */
typedef enum Qcow2Kind {
    QCOW2_UNALLOCATED, /* shows the backing file; a host cluster may be reserved */
    QCOW2_ZERO,        /* zeroes; a host cluster may be reserved */
    QCOW2_NORMAL,
    QCOW2_COMPRESSED,
    QCOW2_INVALID, /* contradicts the format */
} Qcow2Kind;

/* Why clusters are freed: which pass-discard option decides whether the file hears of it. */
typedef enum Qcow2DiscardReason {
    QCOW2_DISCARD_NEVER,
    QCOW2_DISCARD_REQUEST,
    QCOW2_DISCARD_SNAPSHOT,
    QCOW2_DISCARD_OTHER,
    QCOW2_DISCARD_MAX,
} Qcow2DiscardReason;

/* Metadata that data must not overwrite: bits of overlap_check. */
enum {
    QCOW2_OL_MAIN_HEADER = 1 << 0,
    QCOW2_OL_ACTIVE_L1 = 1 << 1,
    QCOW2_OL_ACTIVE_L2 = 1 << 2,
    QCOW2_OL_REFCOUNT_BLOCK = 1 << 3,
    QCOW2_OL_REFCOUNT_TABLE = 1 << 4,
    QCOW2_OL_SNAPSHOT_TABLE = 1 << 5,
    QCOW2_OL_INACTIVE_L1 = 1 << 6,
    QCOW2_OL_INACTIVE_L2 = 1 << 7,
    QCOW2_OL_BITMAP_DIRECTORY = 1 << 8,

    QCOW2_OL_NONE = 0,
    QCOW2_OL_CONSTANT = QCOW2_OL_MAIN_HEADER | QCOW2_OL_REFCOUNT_TABLE | QCOW2_OL_SNAPSHOT_TABLE |
                        QCOW2_OL_BITMAP_DIRECTORY,
    QCOW2_OL_CACHED = QCOW2_OL_CONSTANT | QCOW2_OL_ACTIVE_L1 | QCOW2_OL_ACTIVE_L2 |
                      QCOW2_OL_REFCOUNT_BLOCK | QCOW2_OL_INACTIVE_L1,
    QCOW2_OL_ALL = QCOW2_OL_CACHED | QCOW2_OL_INACTIVE_L2,
};

/* A run of freed host clusters whose refcounts still include the reference. */
typedef struct Qcow2PendingFree {
    uint64_t first; /* cluster index */
    uint32_t count; /* clusters */
    Qcow2DiscardReason reason;
} Qcow2PendingFree;

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

    /* --- requests --- */
    LIST_HEAD(, Qcow2Alloc) allocs;
    unsigned epoch;        /* parity selects the counter that a starting request takes */
    unsigned in_flight[2]; /* requests that use host clusters, by the epoch they began in */
    GArray *frees;         /* of Qcow2PendingFree: since the last flush */
    GArray *grace;         /* of Qcow2PendingFree: durable once grace_epoch's requests are done */
    unsigned grace_epoch;
    bool grace_busy;
    uint64_t frees_clusters; /* in `frees` */
    CoQueue requests_ended;  /* ... of an epoch, or a flush that frees */
    uint64_t frees_base;     /* how many entries have left `frees` since the image was opened */
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

/* --- header on disk (open.c) --- */

/* Rewrites the header from s->header. Durable on return. */
int coroutine_fn qcow2_co_update_header(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;
/* Sets the dirty bit, durably, unless it is set. */
int coroutine_fn qcow2_co_mark_dirty(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;
/*
 * What must be true before the first change to the image: clears autoclear bits that we do not keep
 * up.
 */
int coroutine_fn qcow2_co_prepare_write(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;

/* --- corruption (overlap.c) --- */

/*
 * Reports that metadata contradicts itself: event BLOCK_IMAGE_CORRUPTED and a message. fatal: the
 * image is marked corrupt on disk and every later request fails. offset and size, host bytes, are
 * left out of the event when negative.
 */
void coroutine_fn qcow2_co_signal_corruption(BlockDriverState *bs, bool fatal, int64_t offset,
                                             int64_t size, const char *fmt, ...)
    G_GNUC_PRINTF(5, 6);
/*
 * 0 when [offset, offset + bytes) of the file may be written, -EIO after signalling corruption when
 * it holds metadata. ignore: kinds that are about to be written.
 */
int coroutine_fn qcow2_co_check_overlap(BlockDriverState *bs, int ignore, uint64_t offset,
                                        uint64_t bytes) G_GNUC_WARN_UNUSED_RESULT;

/* --- L1 and L2 (l2.c); offsets are guest bytes --- */

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

/* --- allocating writes (alloc.c); s->lock held unless said otherwise --- */

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

/* --- refcounts (refcount.c); s->lock held --- */

uint64_t qcow2_refcount_load(const uint8_t *block, unsigned order, uint64_t index);
void qcow2_refcount_store(uint8_t *block, unsigned order, uint64_t index, uint64_t value);
int coroutine_fn qcow2_co_refcount_init(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;
void qcow2_refcount_close(BlockDriverState *bs);
int coroutine_fn qcow2_co_get_refcount(BlockDriverState *bs, uint64_t cluster,
                                       uint64_t *refcount) G_GNUC_WARN_UNUSED_RESULT;
/* Makes `offset` the refcount block for table entry ti, 0: none; written with the next writeback. */
void qcow2_reftable_set(BDRVQcow2State *s, uint64_t ti, uint64_t offset);
/*
 * Adds delta (1 or -1) to the counts of `count` clusters. When it fails, increments are taken back;
 * decrements may be done in part (a leak).
 */
int coroutine_fn qcow2_co_update_refcount(BlockDriverState *bs, uint64_t first, uint64_t count,
                                          int delta) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Takes 1..want free clusters in one run and counts them; *got of them from host offset *host on.
 * *fresh: they were never written and read as zeroes.
 */
int coroutine_fn qcow2_co_alloc_run(BlockDriverState *bs, uint32_t want, uint64_t *host,
                                    uint32_t *got, bool *fresh) G_GNUC_WARN_UNUSED_RESULT;
/* Takes exactly `count` contiguous clusters. */
int coroutine_fn qcow2_co_alloc_contiguous(BlockDriverState *bs, uint64_t count,
                                           uint64_t *host) G_GNUC_WARN_UNUSED_RESULT;
/* Takes room for a compressed cluster; may share host clusters with others. */
int coroutine_fn qcow2_co_alloc_bytes(BlockDriverState *bs, uint32_t bytes,
                                      uint64_t *host) G_GNUC_WARN_UNUSED_RESULT;
/* Gives back clusters that nothing on disk or in memory has referred to. */
void coroutine_fn qcow2_co_unalloc(BlockDriverState *bs, uint64_t host, uint64_t bytes);

/* --- freeing (free.c) --- */

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

/* --- writeback.c --- */

/*
 * Writes all dirty metadata in order; with lazy refcounts and not `final`, refcounts stay in
 * memory.
 */
int coroutine_fn qcow2_co_writeback(BlockDriverState *bs, bool final) G_GNUC_WARN_UNUSED_RESULT;
/*
 * A write that later metadata relies on has completed. Not before: a barrier that passes it in
 * flight does not make it durable.
 */
static inline void qcow2_note_ordered(BDRVQcow2State *s)
{
    s->ordered_writes++;
}
/* Makes durable what was noted before. Several may run at once. */
int coroutine_fn qcow2_co_barrier(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;

/* --- data path (io.c, zero.c, compress.c, status.c) --- */

int coroutine_fn qcow2_co_read(BlockDriverState *bs, int64_t offset, int64_t bytes,
                               QEMUIOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn qcow2_co_write(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                QEMUIOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);
/* 1 when the range reads as zeroes for sure, 0 when not, -errno. */
int coroutine_fn qcow2_co_reads_zero(BlockDriverState *bs, uint64_t offset,
                                     uint64_t bytes) G_GNUC_WARN_UNUSED_RESULT;
/* Plans a write and checks that it hits no metadata. */
int coroutine_fn qcow2_co_start_write(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                      Qcow2WritePlan *plan) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Links or aborts what was planned, by the result of the write; returns that result, or the failure
 * to link.
 */
int coroutine_fn qcow2_co_finish_write(BlockDriverState *bs, Qcow2WritePlan *plan,
                                       int ret) G_GNUC_WARN_UNUSED_RESULT;
int coroutine_fn qcow2_co_zero(BlockDriverState *bs, int64_t offset, int64_t bytes,
                               BdrvRequestFlags flags);
int coroutine_fn qcow2_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes);
/*
 * Drops the clusters in [offset, offset + bytes) (cluster-aligned) from the active L2 tables; full:
 * the backing file shows.
 */
int coroutine_fn qcow2_co_discard_clusters(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                           Qcow2DiscardReason reason,
                                           bool full) G_GNUC_WARN_UNUSED_RESULT;
int coroutine_fn qcow2_co_write_compressed(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           QEMUIOVector *qiov, size_t qiov_offset);
/* Reads [in_cluster, in_cluster + bytes) of a compressed cluster. */
int coroutine_fn qcow2_co_read_compressed(BlockDriverState *bs, uint64_t entry, uint64_t in_cluster,
                                          uint64_t bytes, QEMUIOVector *qiov,
                                          size_t qiov_offset) G_GNUC_WARN_UNUSED_RESULT;
int coroutine_fn qcow2_co_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                 BdrvBlockStatus *status);
int coroutine_fn qcow2_co_copy_out(BlockDriverState *bs, int64_t offset, BdrvChild *dst,
                                   int64_t dst_offset, int64_t bytes, BdrvRequestFlags write_flags);
int coroutine_fn qcow2_co_copy_in(BlockDriverState *bs, BdrvChild *src, int64_t src_offset,
                                  int64_t offset, int64_t bytes, BdrvRequestFlags write_flags);

/* --- the rest --- */

bool coroutine_fn qcow2_co_open(BlockDriverState *bs, const BlockdevOptions *opts, int flags,
                                GError **errp);
void coroutine_fn qcow2_co_close(BlockDriverState *bs);
/*
 * Another process takes the image over: everything is on disk, and nothing is written until it is
 * invalidated.
 */
int coroutine_fn qcow2_co_hand_over(BlockDriverState *bs);
/*
 * Another process has changed the image: everything is read anew. On failure all later requests
 * fail.
 */
bool coroutine_fn qcow2_co_take_over(BlockDriverState *bs, GError **errp);
/*
 * Nothing in flight: brings the file up to date with what is in memory and takes the dirty bit
 * away.
 */
int coroutine_fn qcow2_co_sync(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;
bool coroutine_fn qcow2_co_format(const BlockdevCreateOptions *options, GError **errp);
/* Writes the size into the header. s->lock held. */
int coroutine_fn qcow2_co_set_size(BlockDriverState *bs, uint64_t size) G_GNUC_WARN_UNUSED_RESULT;
/* Makes the image smaller, and its file; l1_entries are those that the new size needs. */
int coroutine_fn qcow2_co_shrink(BlockDriverState *bs, uint64_t size,
                                 uint64_t l1_entries) G_GNUC_WARN_UNUSED_RESULT;
bool coroutine_fn qcow2_co_resize(BlockDriverState *bs, int64_t size, bool exact,
                                  PreallocMode prealloc, BdrvRequestFlags flags, GError **errp);
/* Host clusters for all of [offset, end), which must not be in use by anybody. */
bool coroutine_fn qcow2_co_preallocate(BlockDriverState *bs, uint64_t offset, uint64_t end,
                                       PreallocMode mode, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Reads and checks the snapshot table. */
bool coroutine_fn qcow2_co_load_snapshots(BlockDriverState *bs, GError **errp);
void qcow2_free_snapshots(BDRVQcow2State *s);
SnapshotInfoList *qcow2_snapshot_list(BlockDriverState *bs);
/*
 * Rebuilds the refcounts if s->needs_repair, and takes the dirty bit away. The file below is
 * writable; nothing is in flight.
 */
bool coroutine_fn qcow2_co_repair_dirty(BlockDriverState *bs,
                                        GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Rebuilds refcounts from what refers to clusters: for images whose dirty bit is set. */
bool coroutine_fn qcow2_co_repair_refcounts(BlockDriverState *bs, GError **errp);
ImageInfoSpecific *coroutine_fn qcow2_co_describe(BlockDriverState *bs, GError **errp);
bool coroutine_fn qcow2_co_say_geometry(BlockDriverState *bs, int64_t *cluster_size,
                                        bool *is_dirty);
int coroutine_fn qcow2_co_refer_to_backing(BlockDriverState *bs, const char *backing_file,
                                           const char *backing_fmt);

#endif
