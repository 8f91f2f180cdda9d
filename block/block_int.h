/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a block driver sees: its table of functions, the node, and the limits it may state.
 *
 * Included by block/ only. Requests reach a driver in coroutines, several at a time, in the graph's
 * thread; those of a driver that states `multi_thread` in other threads as well. Offsets and lengths
 * obey bl.request_alignment and the max_* limits, and lie inside the image (writes of a growable
 * protocol excepted).
 */
#ifndef FERRY_BLOCK_BLOCK_INT_H
#define FERRY_BLOCK_BLOCK_INT_H

#include "block/block.h"
#include "block/block-io.h"
#include "util/bql.h"
#include "util/co-lock.h"
#include "util/queue.h"

typedef struct BdrvDirtyBitmap BdrvDirtyBitmap;
typedef struct BDRVReopenState BDRVReopenState;

typedef struct BlockLimits {
    uint32_t request_alignment; /* bytes, power of two; 1 when any byte range will do */
    int64_t max_transfer;       /* bytes; 0: no limit */
    int max_iov;                /* elements; 0: IOV_MAX */
    size_t min_mem_alignment;   /* buffers of requests, bytes */
    int64_t max_pdiscard, pdiscard_alignment;           /* 0: no limit / request_alignment */
    int64_t max_pwrite_zeroes, pwrite_zeroes_alignment; /* 0: no limit / request_alignment */
    int64_t opt_transfer;                               /* bytes; 0: unknown */
} BlockLimits;

/*
 * What only protocols have: nodes that hold the bytes themselves, in a file or behind a connection,
 * and have no `file` child. Members may be NULL.
 */
typedef struct BlockProtocolOps {
    /*
     * What file names of the protocol start with ("nbd:", "nbd+unix:"; NULL-terminated), and
     * how such a name becomes options: fills o->driver and o->u.
     */
    const char *const *filename_prefixes;
    bool (*bdrv_parse_filename)(const char *filename, BlockdevOptions *o, GError **errp);

    /*
     * The sum of what parents do and share on bs is about to change: locks. set or abort follows
     * check. Main thread.
     */
    bool (*bdrv_check_perm)(BlockDriverState *bs, uint64_t perm, uint64_t shared, GError **errp);
    void (*bdrv_set_perm)(BlockDriverState *bs, uint64_t perm, uint64_t shared);
    void (*bdrv_abort_perm_update)(BlockDriverState *bs);
    /*
     * A descriptor whose bytes at the same offsets are the node's, to be read by any
     * thread while the caller's request keeps the node open; -1: there is none.
     */
    int (*bdrv_get_read_fd)(BlockDriverState *bs);
    /*
     * The connection is to be given up now, so that a hung request ends with an error (yank, force
     * cancel, shutdown).
     */
    void (*bdrv_cancel_in_flight)(BlockDriverState *bs);
    /*
     * While true, new requests fail at once, so that what was given up does not come to hang again.
     * Comes before bdrv_cancel_in_flight; calls nest. Graph thread.
     */
    void (*bdrv_refuse_requests)(BlockDriverState *bs, bool refuse);
} BlockProtocolOps;

/*
 * What only formats have: nodes that show the guest's bytes out of an image in their `file` child.
 * Members may be NULL.
 */
typedef struct BlockFormatOps {
    bool supports_backing; /* an image may name the file that completes it */
    /* 0..100: how sure buf (the first `bytes` bytes, at most 2048) is this format. */
    int (*bdrv_probe)(const uint8_t *buf, size_t bytes, const char *filename);
    int coroutine_fn (*bdrv_co_pwritev_compressed)(BlockDriverState *bs, int64_t offset,
                                                   int64_t bytes, QEMUIOVector *qiov,
                                                   size_t qiov_offset);
    /* Writes caches to the children (which are flushed afterwards). */
    int coroutine_fn (*bdrv_co_flush_to_os)(BlockDriverState *bs);
    /* The backing file name and format recorded in the image; "" and NULL: none. */
    int coroutine_fn (*bdrv_co_change_backing_file)(BlockDriverState *bs, const char *backing_file,
                                                    const char *backing_fmt);
    /*
     * Dirty bitmaps kept in the image; NULL: none can be. Whether one more of that name could be
     * stored when the image is closed; and removing what the image has of one (nothing is fine).
     */
    bool coroutine_fn (*bdrv_co_can_store_new_dirty_bitmap)(BlockDriverState *bs, const char *name,
                                                            uint32_t granularity, GError **errp);
    bool coroutine_fn (*bdrv_co_remove_persistent_dirty_bitmap)(BlockDriverState *bs,
                                                                const char *name, GError **errp);
    /* Internal snapshots, in the image's order; NULL: none. Graph thread. */
    SnapshotInfoList *(*bdrv_snapshot_list)(BlockDriverState *bs);
} BlockFormatOps;

/* Events and breakpoints of blkdebug. */
typedef struct BlockDebugOps {
    /* What a format is about to do: "l1_update", "read_aio", ...: see BlkdebugEvent. */
    void coroutine_fn (*bdrv_co_debug_event)(BlockDriverState *bs, BlkdebugEvent event);
    int (*bdrv_debug_breakpoint)(BlockDriverState *bs, const char *event, const char *tag);
    int (*bdrv_debug_remove_breakpoint)(BlockDriverState *bs, const char *tag);
    int (*bdrv_debug_resume)(BlockDriverState *bs, const char *tag);
    /*
     * Waits until a request has stopped at the breakpoint; -ENOENT when there is none of that tag
     * (any more). Graph thread.
     */
    int coroutine_fn (*bdrv_co_debug_wait)(BlockDriverState *bs, const char *tag);
} BlockDebugOps;

/* A member of one of a driver's tables; NULL when the driver has no such table. */
#define BDRV_OP(drv, table, op) ((drv)->table ? (drv)->table->op : NULL)

struct BlockDriver {
    const char *format_name;
    /* which branch of BlockdevOptions; BLOCKDEV_DRIVER__MAX for internal filters */
    BlockdevDriver driver;
    size_t instance_size; /* of bs->opaque, zeroed before open */

    const BlockProtocolOps *protocol; /* NULL: no protocol */
    const BlockFormatOps *format;     /* NULL: nothing besides the members below */
    const BlockDebugOps *debug;
    bool is_filter; /* shows its PRIMARY|FILTERED child's data unchanged */
    /*
     * Reads, writes, zeroes, discards and flushes may be called in several threads at once. All else
     * is called in the graph's thread, as with other drivers. What they share is constant while the
     * node is not drained, atomic, or under bdrv_lock().
     */
    bool multi_thread;

    /*
     * Opens: reads options (opts->u.DRIVER; NULL for internal filters), attaches children, sets
     * bs->total_bytes, bs->supported_*_flags. On failure undoes all but children, which the caller
     * detaches. bs->open_flags is final but for read-only degradation, which the driver states
     * through bdrv_apply_auto_read_only(). Begins in the main thread; once a child is there, in the
     * thread of its graph.
     */
    bool coroutine_fn (*bdrv_co_open)(BlockDriverState *bs, const BlockdevOptions *opts, int flags,
                                      GError **errp);
    /* Everything drained. Writes back what must be on disk; children are still attached. */
    void coroutine_fn (*bdrv_co_close)(BlockDriverState *bs);

    /*
     * Reopen in two steps. prepare may fail; exactly one of commit, abort follows. Graph thread,
     * drained.
     */
    bool coroutine_fn (*bdrv_co_reopen_prepare)(BDRVReopenState *state, GError **errp);
    void coroutine_fn (*bdrv_co_reopen_commit)(BDRVReopenState *state);
    void coroutine_fn (*bdrv_co_reopen_abort)(BDRVReopenState *state);

    /*
     * What bs needs on `child` so that its parents may have perm and share shared. NULL:
     * bdrv_default_perms(). Pure function; main thread.
     */
    void (*bdrv_child_perm)(BlockDriverState *bs, BdrvChild *child, int role, uint64_t perm,
                            uint64_t shared, uint64_t *nperm, uint64_t *nshared);
    /* Data path. flags are limited to bs->supported_*_flags; the rest is emulated above. */
    int coroutine_fn (*bdrv_co_preadv)(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, size_t qiov_offset,
                                       BdrvRequestFlags flags);
    int coroutine_fn (*bdrv_co_pwritev)(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        QEMUIOVector *qiov, size_t qiov_offset,
                                        BdrvRequestFlags flags);
    /* -ENOTSUP: the caller writes a buffer of zeroes instead. */
    int coroutine_fn (*bdrv_co_pwrite_zeroes)(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                              BdrvRequestFlags flags);
    int coroutine_fn (*bdrv_co_pdiscard)(BlockDriverState *bs, int64_t offset, int64_t bytes);
    /* Protocols: make what was written durable. */
    int coroutine_fn (*bdrv_co_flush_to_disk)(BlockDriverState *bs);

    /*
     * Copies from bs to dst: translate and call bdrv_co_copy_range_from() on a child, or, in a
     * protocol driver, call bdrv_co_copy_range_to(). NULL: -ENOTSUP.
     */
    int coroutine_fn (*bdrv_co_copy_range_from)(BlockDriverState *bs, int64_t offset,
                                                BdrvChild *dst, int64_t dst_offset, int64_t bytes,
                                                BdrvRequestFlags write_flags);
    /*
     * Receives from the protocol node behind src; translate towards bs's own protocol node, which
     * does the copy.
     */
    int coroutine_fn (*bdrv_co_copy_range_to)(BlockDriverState *bs, BdrvChild *src,
                                              int64_t src_offset, int64_t offset, int64_t bytes,
                                              BdrvRequestFlags write_flags);

    /* offset and bytes are aligned to request_alignment, bytes > 0. Filters need none. */
    int coroutine_fn (*bdrv_co_block_status)(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             BdrvBlockStatus *status);
    int64_t coroutine_fn (*bdrv_co_getlength)(BlockDriverState *bs);
    int64_t coroutine_fn (*bdrv_co_get_allocated_file_size)(BlockDriverState *bs);
    bool coroutine_fn (*bdrv_co_truncate)(BlockDriverState *bs, int64_t size, bool exact,
                                          PreallocMode prealloc, BdrvRequestFlags flags,
                                          GError **errp);
    /* bs->bl holds the children's merged limits on entry */
    void (*bdrv_refresh_limits)(BlockDriverState *bs);
    bool (*bdrv_has_zero_init)(BlockDriverState *bs);

    /* Creation: from schema options. */
    bool coroutine_fn (*bdrv_co_create)(const BlockdevCreateOptions *opts, GError **errp);
    /* drained; old thread is idle */
    void (*bdrv_detach_aio_context)(BlockDriverState *bs);
    void (*bdrv_attach_aio_context)(BlockDriverState *bs, AioContext *ctx); /* drained */
    /* Drained section begins/ends: background work of the driver stops and starts. Graph thread. */
    void (*bdrv_drain_begin)(BlockDriverState *bs);
    void (*bdrv_drain_end)(BlockDriverState *bs);

    /*
     * The image is about to be another process's: writes back what the flush before it has not, so
     * that the image is complete; drained, locks are held. And it is this process's again: reads
     * anew what the other one may have changed; on failure the old state stays. Graph thread.
     */
    int coroutine_fn (*bdrv_co_inactivate)(BlockDriverState *bs);
    bool coroutine_fn (*bdrv_co_invalidate_cache)(BlockDriverState *bs, GError **errp);

    /* For people and query-*; NULL where there is nothing to tell. The caller frees. */
    ImageInfoSpecific *coroutine_fn (*bdrv_co_get_specific_info)(BlockDriverState *bs,
                                                                 GError **errp);
    BlockStatsSpecific *(*bdrv_get_specific_stats)(BlockDriverState *bs);
    /* Requests pass without waiting for a limit, those that wait as well; counted. Graph thread. */
    void (*bdrv_lift_limits)(BlockDriverState *bs, bool lift);
    bool coroutine_fn (*bdrv_co_get_info)(BlockDriverState *bs, int64_t *cluster_size,
                                          bool *is_dirty);
    /*
     * Sets bs->filename (a name to reopen by) where the options say it better than a json: name
     * would.
     */
    void (*bdrv_refresh_filename)(BlockDriverState *bs);
};

static inline bool bdrv_driver_has_backing(const BlockDriver *drv)
{
    return drv->format && drv->format->supports_backing;
}

typedef enum BdrvTrackedRequestType {
    BDRV_TRACKED_READ,
    BDRV_TRACKED_WRITE,
    BDRV_TRACKED_DISCARD,
    BDRV_TRACKED_TRUNCATE,
    BDRV_TRACKED_FLUSH,
} BdrvTrackedRequestType;

/* A request in flight on a node; lives on its coroutine's stack. block/io/request.c. */
typedef struct BdrvTrackedRequest {
    BlockDriverState *bs;
    BdrvTrackedRequestType type;
    int64_t offset, bytes;
    int64_t start_ns; /* QEMU_CLOCK_REALTIME, for diagnosis */
    Coroutine *co;
    LIST_ENTRY(BdrvTrackedRequest) list;

    /* --- exclusion --- */
    uint64_t ticket;    /* rises in the order in which requests of the node began */
    bool admitted;      /* it has waited for those before it and may touch the node */
    bool blocked;       /* it waits: it touches nothing now */
    bool exclusive;     /* nothing else may touch its range */
    int64_t lock_start; /* the range, which may be wider than the request, bytes */
    int64_t lock_end;
    CoQueue behind; /* requests that wait for this one to end */
} BdrvTrackedRequest;

typedef struct BdrvOpBlocker {
    char *reason;
    LIST_ENTRY(BdrvOpBlocker) list;
} BdrvOpBlocker;

struct BlockDriverState {
    /* Main thread. */
    const BlockDriver *drv;
    char node_name[BDRV_NODE_NAME_MAX]; /* never empty once open; '#' first when made up */
    bool is_open;                       /* the driver has opened it */
    bool closing;                       /* the last reference is gone: the name is free again */
    bool implicit;                      /* inserted by a job without the user asking for it */
    int refcnt;                         /* atomic */
    int open_flags;                     /* BDRV_O_* as in force */
    BlockdevOptions *options;           /* as opened, node references resolved to names; owned */
    LIST_HEAD(, BdrvChild) children;
    LIST_HEAD(, BdrvChild) parents;
    LIST_HEAD(, BdrvOpBlocker) op_blockers[BLOCK_OP_TYPE_MAX];
    uint64_t cumulative_perm, cumulative_shared; /* as last set in the driver */
    char *filename;                              /* see bdrv_get_filename() */
    char *exact_filename; /* a plain path or URL when that is enough, else "" */
    char *backing_file;   /* as the image header says, "" without */
    char *backing_format; /* as the image header says, "" without */
    TAILQ_ENTRY(BlockDriverState) all_nodes;
    struct {
        uint64_t finished; /* as at the last look that found it idle or at work */
        int64_t since_ns;  /* when that was, QEMU_CLOCK_REALTIME; 0: never looked at */
        int64_t limit_ns;  /* in force when it was given up */
        bool given_up;
        bool probing; /* the server is being asked whether it lives */
        bool told;    /* graph's thread: that it does, but does not finish */
    } silence;        /* give-up.c */

    /* Main thread while drained, then read in the graph's thread. */
    AioContext *aio_context;
    void *opaque;              /* instance of the driver */
    BdrvChild *file, *backing; /* shortcuts into children */
    BlockLimits bl;
    BdrvRequestFlags supported_read_flags, supported_write_flags, supported_zero_flags,
        supported_truncate_flags;
    BlockdevDetectZeroesOptions detect_zeroes;
    bool force_share;   /* the image may be in use elsewhere: read without locking it */
    bool monitor_owned; /* blockdev-add holds a reference for its user */
    /* format was guessed as raw: writes that would make it look like another format fail */
    bool probed_raw;
    unsigned settling;      /* main thread: looks of context.c that are to come or under way */
    bool context_unsettled; /* atomic: such a look is wanted when the drained section ends */

    /*
     * Threads that may send requests, NULL: that of the graph alone. Changes in the main thread while
     * the node is drained and no request is in flight. graph/threads.c.
     */
    BdrvThreads *threads;

    /* Graph thread; changes of the size in that alone. */
    int64_t total_bytes; /* other threads read it by bdrv_size() */
    int in_flight;       /* atomic: requests in the driver or queued inside this node */
    uint64_t
        finished; /* requests that have ended; relaxed, approximate: it moves while work ends */
    int quiesce_counter;  /* atomic; > 0: in a drained section */
    unsigned drain_look;  /* last look of a drain that found it idle; under the edges lock */
    pthread_mutex_t lock; /* guards what follows, with several threads: bdrv_lock() */
    LIST_HEAD(, BdrvTrackedRequest) tracked_requests;
    uint64_t next_ticket;
    unsigned exclusive_requests;
    CoMutex flushing;
    /* of contents, counted; as many as the last flush covered: one without news skips the disk */
    uint64_t changes, durable_changes;
    TAILQ_HEAD(, BdrvDirtyBitmap) dirty_bitmaps;
    GHashTable *named_bitmaps;       /* name -> BdrvDirtyBitmap; NULL while there was none */
    int copy_on_read;                /* > 0: reads populate this node */
    uint64_t wr_highest_offset;      /* end of the highest write, bytes: BlockDeviceStats */
    uint64_t write_threshold_offset; /* atomic: BLOCK_WRITE_THRESHOLD event above this; 0: off */
};

struct BDRVReopenState {
    BlockDriverState *bs;
    const BlockdevOptions *options; /* the new ones */
    int flags;    /* prepare may take BDRV_O_RDWR away where auto-read-only allows that */
    void *opaque; /* the driver's, between prepare and commit or abort */
};

/* --- threads --- */

static inline bool bdrv_threads_have(const BdrvThreads *threads, const AioContext *ctx)
{
    for (unsigned i = 0; threads && i < threads->n; i++) {
        if (threads->ctx[i] == ctx) {
            return true;
        }
    }
    return false;
}

/*
 * True in the thread that runs the graph of bs. Every driver callback whose comment does not name
 * another thread runs there and nowhere else; so do requests, unless the node has several threads.
 */
static inline bool bdrv_in_home_thread(const BlockDriverState *bs)
{
    return aio_context_in_own_thread(bs->aio_context);
}
#define assert_home_thread(bs) g_assert(bdrv_in_home_thread(bs))

/* True there, and in the further threads that may send requests to bs now. */
static inline bool bdrv_in_graph_thread(const BlockDriverState *bs)
{
    return bdrv_in_home_thread(bs) ||
           bdrv_threads_have(__atomic_load_n(&bs->threads, __ATOMIC_RELAXED),
                             qemu_get_current_aio_context());
}
#define assert_graph_thread(bs) g_assert(bdrv_in_graph_thread(bs))

/*
 * The small lock of a node with several threads, for a few instructions and never over a yield; a
 * node with one thread takes none. True: it is held, which bdrv_unlock() is told.
 */
static inline bool bdrv_lock(BlockDriverState *bs)
{
    if (G_LIKELY(!__atomic_load_n(&bs->threads, __ATOMIC_RELAXED))) {
        return false;
    }
    pthread_mutex_lock(&bs->lock);
    return true;
}

static inline void bdrv_unlock(BlockDriverState *bs, bool held)
{
    if (held) {
        pthread_mutex_unlock(&bs->lock);
    }
}

/* The "main thread" of this folder's contracts: the thread that may change configuration. */
static inline bool bdrv_in_main_thread(void)
{
    return aio_context_in_own_thread(qemu_get_aio_context()) || bql_locked();
}
#define bdrv_assert_main_thread() g_assert(bdrv_in_main_thread())

/* --- for drivers --- */

/* The table of drivers, in probing order; NULL-terminated (block/drivers.c). */
extern const BlockDriver *const bdrv_drivers[];

/* Formats: file holds metadata and data. Filters: passes through. */
void bdrv_default_perms(BlockDriverState *bs, BdrvChild *child, int role, uint64_t perm,
                        uint64_t shared, uint64_t *nperm, uint64_t *nshared);
/*
 * A read-write open turned out impossible: goes read-only when auto-read-only allows it; false with
 * errp (which says errmsg) otherwise.
 */
bool bdrv_apply_auto_read_only(BlockDriverState *bs, const char *errmsg, GError **errp);
/*
 * For drivers that hand their requests to `below` as they are: bs keeps the promises about writes
 * that below keeps. The driver may add to them afterwards.
 */
void bdrv_promise_as_below(BlockDriverState *bs, const BlockDriverState *below);
/* Merges the children's limits into bs->bl and asks the driver. */
void bdrv_refresh_limits(BlockDriverState *bs);

/* In a drained section. Any thread; one that holds no section may learn too late. */
static inline bool bdrv_is_quiesced(const BlockDriverState *bs)
{
    return __atomic_load_n(&bs->quiesce_counter, __ATOMIC_SEQ_CST) > 0;
}

/* The size of bs, bytes, as it was a moment ago. Any thread. */
static inline int64_t bdrv_size(const BlockDriverState *bs)
{
    return __atomic_load_n(&bs->total_bytes, __ATOMIC_RELAXED);
}
/* The size changed: dirty bitmaps and parents follow. The graph's own thread. */
void bdrv_set_total_bytes(BlockDriverState *bs, int64_t bytes);

/* Counts bs as busy from outside the request path (background work that a drain must wait for). */
void bdrv_inc_in_flight(BlockDriverState *bs);
void bdrv_dec_in_flight(BlockDriverState *bs);

/* Memory that one copy takes at most while it runs, bytes. */
#define BDRV_COPY_RANGE_BUFFER (512 << 10)
/* ... and what it may map of the target's pages besides, with BDRV_REQ_MAY_MAP. */
#define BDRV_COPY_RANGE_MAP (4 << 20)
int coroutine_fn bdrv_co_copy_range_from(BdrvChild *src, int64_t src_offset, BdrvChild *dst,
                                         int64_t dst_offset, int64_t bytes,
                                         BdrvRequestFlags write_flags);
int coroutine_fn bdrv_co_copy_range_to(BdrvChild *src, int64_t src_offset, BdrvChild *dst,
                                       int64_t dst_offset, int64_t bytes,
                                       BdrvRequestFlags write_flags);

/* Tells blkdebug nodes below (bs->file chain) that the event happens now. */
void coroutine_fn bdrv_co_debug_event(BdrvChild *child, BlkdebugEvent event);
#define BLKDBG_CO_EVENT(child, evt)          \
    do {                                     \
        if (child) {                         \
            bdrv_co_debug_event(child, evt); \
        }                                    \
    } while (0)

/*
 * Buffer aligned for requests on bs (and as large as a page at least); -> NULL when memory is
 * short. qemu_vfree() frees.
 */
void *qemu_try_blockalign(BlockDriverState *bs, size_t bytes);
void qemu_vfree(void *buf);
size_t bdrv_opt_mem_align(BlockDriverState *bs);

/* Marks [offset, offset+bytes) as written in the node's dirty bitmaps. */
void bdrv_set_dirty(BlockDriverState *bs, int64_t offset, int64_t bytes);

/*
 * The one way for a coroutine of the main thread to do I/O on a graph: it goes to the graph's
 * thread, and comes back with what enter returned. In between the node counts as busy, so that its
 * graph neither moves nor counts as drained; the caller holds a reference to it, and starts no
 * drained section there. In the graph's thread both return at once. context.c.
 */
AioContext *coroutine_fn bdrv_co_enter_graph(BlockDriverState *bs);
void coroutine_fn bdrv_co_leave_graph(BlockDriverState *bs, AioContext *from);

#endif
