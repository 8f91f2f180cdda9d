/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copy engine: copies one node to another while the source goes on being written. Jobs (mirror;
 * commit, backup and stream to come) own one, say when it may work, and decide what its end means.
 *
 *   engine.c  takes extents, keeps several in flight, handles errors        copy_pump()
 *   scan.c    finds what is allocated in the source, a bounded amount ahead of the copying
 *   read.c    questions to a source that may hang, which can be left behind
 *   write.c   data and zeroes on their way to the target
 *   buffer.c  the memory that copying holds, within buf_size
 *   pace.c    how large requests are and how many are in flight, by measurement
 *   state.c   what is known of the target: unknown, zero, data
 *
 * Each file uses those below it. Invariants that make the copy right:
 *
 *   1. A granule at or behind scan.issued that may differ from the target is dirty in `dirty`, or
 *      in flight. What lies ahead of scan.issued has not been copied at all.
 *   2. A dirty bit is cleared before the source is read, and the request path sets it after the
 *      source was written: a write that a read may have missed leaves its bit behind.
 *   3. No two ranges in `ops` overlap, so no two requests race on the same bytes of the target.
 *
 * Everything here runs in the thread of the source's graph, which is the target's too.
 */
#ifndef FERRY_BLOCK_COPY_H
#define FERRY_BLOCK_COPY_H

#include "block/block-backend.h"
#include "block/block_int.h"
#include "block/dirty-bitmap.h"
#include "util/co-lock.h"
#include "util/hbitmap.h"

/* Largest single request, bytes. */
#define COPY_MAX_REQUEST (16 << 20)
/* Requests in flight at most, whatever their size. */
#define COPY_MAX_IN_FLIGHT 64
/* Extents found ahead of the copying, at most. */
#define COPY_SCAN_ITEMS 64
/*
 * An extent shorter than this is no request of its own: it is copied together with its neighbours,
 * up to the next multiple of this.
 */
#define COPY_MIXED_UNIT (64 << 10)
/* ... and while such extents follow each other, the source is asked once for so much. */
#define COPY_MIXED_MAX (1 << 20)

typedef struct CopyEngine CopyEngine;

/* --- what the owner decides --- */

typedef enum CopyWish {
    COPY_GO_ON,
    COPY_PAUSE,  /* nothing new starts, but for copy_pump(even_if_paused) */
    COPY_CANCEL, /* what is under way ends as soon as it can, with -ECANCELED */
} CopyWish;

/* The graph's thread; `owner` is CopyEngine.owner. */
typedef struct CopyOwner {
    /* What the user wants now. Asked before each request. */
    CopyWish (*wish)(void *owner);
    /* Charges `bytes` to the speed limit (0: only asks); ns to wait before more may start. */
    int64_t (*delay_ns)(void *owner, int64_t bytes);
    /* An operation failed (positive errno); its range is dirty again. What is to follow. */
    BlockErrorAction coroutine_fn (*co_failed)(void *owner, bool is_read, int error);
    /* `bytes` were copied, or something else has changed that copy_pump() may act on. */
    void (*moved)(void *owner, int64_t bytes);
} CopyOwner;

/* --- state.c: per granule, what the target holds --- */

typedef enum CopyTargetState {
    COPY_TARGET_UNKNOWN,
    COPY_TARGET_ZERO,
    COPY_TARGET_DATA,
} CopyTargetState;

typedef struct CopyTargetMap {
    bool zero_at_start;   /* granules in neither bitmap: ZERO, else UNKNOWN */
    HBitmap *zero, *data; /* disjoint */
} CopyTargetMap;

void copy_map_init(CopyTargetMap *map, int64_t size, uint32_t granularity, bool zero_at_start);
void copy_map_destroy(CopyTargetMap *map);
/* State at offset; *pnum: how far (at most bytes) it is the same. */
CopyTargetState copy_map_get(const CopyTargetMap *map, int64_t offset, int64_t bytes,
                             int64_t *pnum);
/* Something is about to be written: every granule touched becomes DATA. */
void copy_map_set_data(CopyTargetMap *map, int64_t offset, int64_t bytes);
/* The range reads as zeroes: granules that lie wholly in it become ZERO. */
void copy_map_set_zero(CopyTargetMap *map, int64_t offset, int64_t bytes);

/* --- scan.c --- */

typedef enum CopyExtentKind {
    COPY_EXTENT_SKIP, /* not to be copied: below the top layer */
    COPY_EXTENT_ZERO, /* reads as zeroes */
    COPY_EXTENT_DATA,
    COPY_EXTENT_MIXED, /* data and holes in small pieces: read all of it and look */
    COPY_EXTENT_DIRTY, /* written since it was copied: ask again what it is */
} CopyExtentKind;

typedef struct CopyExtent {
    int64_t offset, bytes;
    CopyExtentKind kind;
} CopyExtent;

typedef struct CopyScan {
    int64_t pos;                       /* found up to here */
    int64_t issued;                    /* copying begun up to here; <= pos */
    bool running;                      /* its coroutine is under way */
    int64_t mixed_bytes;               /* of the last MIXED extents, found in a row */
    CopyExtent items[COPY_SCAN_ITEMS]; /* ring; contiguous from issued to pos */
    unsigned head, count;
} CopyScan;

/* Goes on finding extents if there is room; tells the owner when something was found. */
void copy_scan_kick(CopyEngine *s);
/*
 * The next extent, cut to max_bytes if it is DATA or MIXED; false when none has been found yet.
 * Advances issued.
 */
bool copy_scan_take(CopyEngine *s, int64_t max_bytes, CopyExtent *extent);
/* Everything was found and taken. */
bool copy_scan_done(const CopyEngine *s);

/* --- the engine --- */

/* A range that is being written on the target, by the engine or by its owner. */
typedef struct CopyOp {
    int64_t offset, bytes;
    CoQueue waiters;
    LIST_ENTRY(CopyOp) next;
} CopyOp;

struct CopyEngine {
    const CopyOwner *callbacks;
    void *owner;
    const int64_t *speed; /* of the owner, bytes/s, 0: unlimited; read atomically */

    /* Set at start, then constant. */
    BlockDriverState *source, *base; /* only what is above it is copied; NULL: all */
    BdrvChild *source_edge;          /* what is read through; the owner's */
    BlockBackend *reader;            /* what is read through instead, where a server may hang */
    BlockDriverState *target_bs;
    BlockBackend *target;
    BdrvDirtyBitmap *dirty; /* on source, of `granularity`; the owner's */
    bool unmap;             /* zeroes may deallocate on the target */
    /* What the target does not hold reads as zeroes: no backing file will show through. */
    bool target_plain;
    int64_t size;
    uint32_t granularity;
    int64_t buf_size;     /* memory that copying may hold, bytes */
    bool host_target;     /* the target's bytes end in a file of this host */
    bool server_target;   /* ... or behind a connection */
    int64_t max_transfer; /* of the target, bytes; 0: no limit */
    size_t piece_bytes;   /* of one buffer */
    int64_t zero_unit;    /* zeroes in what was read are looked for in blocks of this; power of 2 */
    bool fine_target;     /* ... and worker threads find them where both ends are host files */
    int64_t zero_run;     /* shorter runs of them are not worth a request of their own, bytes */

    /* Set by the owner at any time. */
    int64_t lent_bytes;  /* of buf_size, what the owner uses now */
    bool short_requests; /* its own writes wait for requests that are under way in the same place */

    CopyScan scan;
    CopyTargetMap map;
    LIST_HEAD(, CopyOp) ops;
    int in_flight; /* copying operations; the owner's writes not counted */
    int64_t bytes_in_flight;
    int left_behind;     /* the owner's writes to the target that it does not wait for */
    int64_t last_end_ns; /* when an operation on the target ended last */
    int ret;             /* first fatal error, -errno */
    CoQueue idle;        /* woken when nothing is on its way to the target any more */
    CoQueue op_ended;    /* woken at the end of every operation */
    bool turn_over;      /* copy_pump() stopped to let others have their turn: call it again soon */
    int64_t dirty_cursor;    /* where the search for dirty extents goes on */
    int64_t not_before_ns;   /* no new operation before this time: after an ignored error */
    int copy_range_refusals; /* of bdrv_co_copy_range(), in a row */
    int copy_range_skip;     /* pieces to copy by hand before it is tried again */

    /* read.c */
    LIST_HEAD(, CopyQuestion) questions; /* that the source has not answered */
    bool no_questions;                   /* the owner ends: none is asked any more */
    bool left_questions;                 /* some are under way that the engine has left */

    /* pace.c */
    int64_t rate;                      /* bytes/s copied of late; 0: not known yet */
    int64_t rate_start_ns, rate_bytes; /* the measurement under way */
    int processors;                    /* of this host */
    int depth;                         /* operations in flight that have proved useful */
    int64_t best_latency, latency_sum; /* ns for 1 MiB */
    int latency_ops;
    int64_t request_bytes; /* that the device has proved to be quick with; a power of two */
    bool server_quick, long_request_sent;

    /* buffer.c */
    GSList *free_buffers;
    int nr_buffers;         /* free or in use, of piece_bytes each */
    int64_t memory_charged; /* held by copies that the nodes do by themselves */
    CoQueue memory_freed;
};

/* What a copy is made of; the nodes and the callbacks outlive the engine. */
typedef struct CopyOptions {
    BlockDriverState *source, *base, *target;
    uint32_t granularity;
    int64_t buf_size;
    bool unmap;
    bool target_plain;
    bool target_is_zero; /* the target reads as zeroes throughout */
    const CopyOwner *callbacks;
    void *owner;
    const int64_t *speed;
} CopyOptions;

/*
 * Initialises an engine, all zeroes before. The owner then sets target, source_edge and dirty, and
 * calls copy_pump(). Any thread, before the first request.
 */
void coroutine_fn copy_co_init(CopyEngine *s, const CopyOptions *opts);
/* Frees what it holds. Nothing is in flight. */
void copy_destroy(CopyEngine *s);

static inline CopyWish copy_wish(const CopyEngine *s)
{
    return s->callbacks->wish(s->owner);
}

static inline void copy_moved(const CopyEngine *s, int64_t bytes)
{
    s->callbacks->moved(s->owner, bytes);
}

CopyOp *copy_find_overlap(CopyEngine *s, int64_t offset, int64_t bytes);
void copy_op_begin(CopyEngine *s, CopyOp *op, int64_t offset, int64_t bytes);
void copy_op_end(CopyEngine *s, CopyOp *op);
/* Something is on its way to the target: copying, a flush, or the owner's write. */
bool copy_target_busy(const CopyEngine *s);
/* An operation has ended; coroutines that wait for the last one go on. */
void copy_note_idle(CopyEngine *s);
/*
 * Starts as many operations as make sense now. Returns 0, or how many ns to wait before it can
 * start more. even_if_paused: inside the owner's own drained section. With turn_over set there is
 * more to start, after the thread's other users had their turn.
 */
int64_t copy_pump(CopyEngine *s, bool even_if_paused);
/* Nothing in flight and nothing left to copy. */
bool copy_is_clean(const CopyEngine *s);
/* What is still to be copied, bytes. */
int64_t copy_bytes_left(const CopyEngine *s);
/* Waits until no operation is in flight. Any coroutine of the graph's thread. */
void coroutine_fn copy_co_wait_idle(CopyEngine *s);
/* Flushes the target; 0 or -errno. */
int coroutine_fn copy_co_flush_target(CopyEngine *s);

/* --- read.c --- */

/*
 * Has a source that is behind a server read through a backend of the engine's own, so that requests
 * can be left to themselves. Before the first request, main thread, the source drained.
 */
bool copy_attach_reader(CopyEngine *s, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Gives the backend back; requests that were left keep it until they end. Main thread. */
void copy_detach_reader(CopyEngine *s);
/*
 * Reads into what copy_co_get_buffer() gave. 0 or -errno; -ECANCELED: qiov is empty, its buffers have
 * gone to the request, which is still under way.
 */
int coroutine_fn copy_co_read(CopyEngine *s, int64_t offset, QEMUIOVector *qiov);
/* bdrv_co_block_status_above() of the source. -ECANCELED: not answered, and not waited for. */
int coroutine_fn copy_co_source_status(CopyEngine *s, BlockDriverState *base, int64_t offset,
                                       int64_t bytes, BdrvBlockStatus *st);
/* Ends the wait for all that was asked of the source, with -ECANCELED. Nothing more is asked. */
void copy_leave_questions(CopyEngine *s);

/* --- write.c; the range is owned by an operation --- */

/* The target reads as zeroes in all of the range: by the map, or because it says so. */
bool coroutine_fn copy_co_target_is_zero(CopyEngine *s, int64_t offset, int64_t bytes);
/* Makes the range read as zeroes. 0 or -errno. */
int coroutine_fn copy_co_zero(CopyEngine *s, int64_t offset, int64_t bytes);
/* Writes what was read, all of qiov, its runs of zeroes as zeroes. 0 or -errno. */
int coroutine_fn copy_co_write_read(CopyEngine *s, int64_t offset, QEMUIOVector *qiov);

/* --- buffer.c --- */

/*
 * Initialises qiov over buffers of at most `bytes`, as many as can be had, and returns their size:
 * waits for the first one only. 0: no memory. Ended by copy_put_buffer().
 */
int64_t coroutine_fn copy_co_get_buffer(CopyEngine *s, int64_t bytes, QEMUIOVector *qiov);
void copy_put_buffer(CopyEngine *s, QEMUIOVector *qiov);
/* Waits until `bytes` that another part allocates for the copy fit in, and counts them. */
void coroutine_fn copy_co_charge_memory(CopyEngine *s, int64_t bytes);
void copy_uncharge_memory(CopyEngine *s, int64_t bytes);
/* Bytes that copying holds now: buffers, idle ones too, and what was charged. */
int64_t copy_memory_held(const CopyEngine *s);
/* All buffers that are not in use. */
void copy_free_buffers(CopyEngine *s);

/* --- pace.c --- */

void copy_pace_init(CopyEngine *s);
/* Bytes that the next request should have at most: a power of two. */
int64_t copy_request_bytes(const CopyEngine *s);
/* One more operation may start. */
bool copy_has_room(const CopyEngine *s);
/* An operation starts, before it is counted; one has ended that copied data_bytes (0: zeroes). */
void copy_pace_started(CopyEngine *s, int64_t data_bytes);
void copy_pace_ended(CopyEngine *s, int64_t data_bytes, int64_t elapsed_ns);

#endif
