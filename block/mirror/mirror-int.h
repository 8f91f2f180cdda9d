/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of the mirror job. Its parts:
 *
 *   ../mirror.c  life: the main loop, READY, finish, verbs
 *   qmp.c        blockdev-mirror and drive-mirror
 *   start.c      makes the job and puts it into the graph
 *   pivot.c      the target takes the source's place
 *   filter.c     the node above the source that sees guest writes
 *   active.c     guest writes that go to both sides together
 *   converge.c   begins to send them there when copying does not catch up
 *   copy.c       the copy engine: takes extents, keeps several in flight, handles errors
 *   write.c      data and zeroes on their way to the target
 *   scan.c       finds what is allocated in the source, a bounded amount ahead of the copying
 *   pace.c       how large requests are and how many are in flight, by measurement
 *   buffer.c     the memory that copying holds, within buf-size
 *   state.c      what is known of the target: unknown, zero, data
 *   phase.c      the phases of the job, as a table
 *
 * Invariants that make the copy right:
 *
 *   1. A granule at or behind scan.issued that may differ from the target is dirty in `dirty`, or
 *      in flight. What lies ahead of scan.issued has not been copied at all.
 *   2. A dirty bit is cleared before the source is read, and the request path sets it after the
 *      source was written: a write that a read may have missed leaves its bit behind.
 *   3. No two ranges in `ops` overlap, so no two requests race on the same bytes of the target.
 *
 * Everything here runs in the graph's thread, but for what is marked.
 */
#ifndef FERRY_BLOCK_MIRROR_INT_H
#define FERRY_BLOCK_MIRROR_INT_H

#include "block/block_int.h"
#include "block/dirty-bitmap.h"
#include "block/job/job.h"
#include "block/mirror.h"
#include "util/co-lock.h"

/* Largest single request, bytes. */
#define MIRROR_MAX_REQUEST (16 << 20)
/* Requests in flight at most, whatever their size. */
#define MIRROR_MAX_IN_FLIGHT 64
/* Extents found ahead of the copying, at most. */
#define MIRROR_SCAN_ITEMS 64

typedef struct MirrorBlockJob MirrorBlockJob;

/* --- mirror-state.c: per granule, what the target holds --- */

typedef enum MirrorTargetState {
    MIRROR_TARGET_UNKNOWN,
    MIRROR_TARGET_ZERO,
    MIRROR_TARGET_DATA,
} MirrorTargetState;

typedef struct MirrorTargetMap {
    bool zero_at_start;   /* granules in neither bitmap: ZERO, else UNKNOWN */
    HBitmap *zero, *data; /* disjoint */
} MirrorTargetMap;

void mirror_map_init(MirrorTargetMap *map, int64_t size, uint32_t granularity, bool zero_at_start);
void mirror_map_destroy(MirrorTargetMap *map);
/* State at offset; *pnum: how far (at most bytes) it is the same. */
MirrorTargetState mirror_map_get(const MirrorTargetMap *map, int64_t offset, int64_t bytes,
                                 int64_t *pnum);
/* Something is about to be written: every granule touched becomes DATA. */
void mirror_map_set_data(MirrorTargetMap *map, int64_t offset, int64_t bytes);
/* The range reads as zeroes: granules that lie wholly in it become ZERO. */
void mirror_map_set_zero(MirrorTargetMap *map, int64_t offset, int64_t bytes);

/* --- mirror-scan.c --- */

/*
 * An extent shorter than this is no request of its own: it is copied together with its neighbours,
 * up to the next multiple of this.
 */
#define MIRROR_MIXED_UNIT (64 << 10)
/* ... and while such extents follow each other, the source is asked once for so much. */
#define MIRROR_MIXED_MAX (1 << 20)

typedef enum MirrorExtentKind {
    MIRROR_EXTENT_SKIP, /* not to be copied: sync=top, below the top layer */
    MIRROR_EXTENT_ZERO, /* reads as zeroes */
    MIRROR_EXTENT_DATA,
    MIRROR_EXTENT_MIXED, /* data and holes in small pieces: read all of it and look */
    MIRROR_EXTENT_DIRTY, /* written since it was copied: ask again what it is */
} MirrorExtentKind;

typedef struct MirrorExtent {
    int64_t offset, bytes;
    MirrorExtentKind kind;
} MirrorExtent;

typedef struct MirrorScan {
    int64_t pos;                           /* found up to here */
    int64_t issued;                        /* copying begun up to here; <= pos */
    bool running;                          /* its coroutine is under way */
    int64_t mixed_bytes;                   /* of the last MIXED extents, found in a row */
    MirrorExtent items[MIRROR_SCAN_ITEMS]; /* ring; contiguous from issued to pos */
    unsigned head, count;
} MirrorScan;

/* Goes on finding extents if there is room; calls job_enter() when something was found. */
void mirror_scan_kick(MirrorBlockJob *s);
/*
 * The next extent, cut to max_bytes if it is DATA or MIXED; false when none has been found yet. Advances
 * issued.
 */
bool mirror_scan_take(MirrorBlockJob *s, int64_t max_bytes, MirrorExtent *extent);
/* Everything was found and taken. */
bool mirror_scan_done(const MirrorBlockJob *s);

/* --- the job --- */

/*
 * A guest's write waits so long for a target that hangs: when it is forwarded, and when guests are
 * held up so that source and target can meet.
 */
#define MIRROR_FORWARD_WAIT_NS (2 * NANOSECONDS_PER_SECOND)
#define MIRROR_MEET_WAIT_NS    (500 * SCALE_MS)

/* A range that is being written on the target, by the copy engine or by a guest write. */
typedef struct MirrorOp {
    int64_t offset, bytes;
    CoQueue waiters;
    LIST_ENTRY(MirrorOp) next;
} MirrorOp;

typedef enum MirrorFinish {
    MIRROR_FINISH_NONE,
    MIRROR_FINISH_PIVOT, /* complete */
    MIRROR_FINISH_KEEP,  /* cancel after READY: the copy stays as it is at one point in time */
} MirrorFinish;

/* How guest writes are treated by the filter. */
typedef enum MirrorForward {
    MIRROR_FORWARD_BY_MODE, /* as copy_mode says */
    MIRROR_FORWARD_ALWAYS,  /* the copy is complete and waits for its pivot: stay in step */
    MIRROR_FORWARD_NEVER,   /* the copy is final, or the job is over */
} MirrorForward;

/* The phases of the job and what leads from one to the next: the table is in phase.c. */
typedef enum MirrorPhase {
    MIRROR_COPYING,
    MIRROR_READY,
    MIRROR_COMPLETE, /* equal to the source, and kept so until the pivot */
    MIRROR_KEPT,     /* equal to the source as it was at one moment */
    MIRROR_PIVOTED,
    MIRROR_OVER,
    MIRROR_PHASE__MAX,
} MirrorPhase;

typedef enum MirrorEvent {
    MIRROR_EVENT_MET,
    MIRROR_EVENT_MET_TO_PIVOT,
    MIRROR_EVENT_MET_TO_KEEP,
    MIRROR_EVENT_SWITCHED,
    MIRROR_EVENT_ENDED,
    MIRROR_EVENT__MAX,
} MirrorEvent;

struct MirrorBlockJob {
    BlockJob common;

    /* Set at start, then constant. */
    BlockDriverState *filter, *source,
        *base; /* base: sync=top copies what is above it; NULL: all */
    BlockDriverState *target_bs;
    BlockBackend *target;
    char *replaces; /* node name or NULL */
    MirrorSyncMode sync;
    BlockdevOnError on_source_error, on_target_error;
    bool unmap;
    bool
        /* what the target does not hold reads as zeroes: no backing file will show through */
        target_plain;
    MirrorBackingMode backing_mode;
    int64_t size;
    uint32_t granularity;
    int64_t buf_size;
    bool host_target;     /* the target's bytes end in a file of this host */
    bool server_target;   /* ... or behind a connection */
    int64_t max_transfer; /* of the target, bytes; 0: no limit */
    size_t piece_bytes;   /* of one buffer */
    int64_t zero_unit;    /* zeroes in what was read are looked for in blocks of this; power of 2 */
    bool fine_target;     /* ... and worker threads find them where both ends are host files */
    int64_t zero_run;     /* shorter runs of them are not worth a request of their own, bytes */
    int64_t tail_bytes;   /* of the target, beyond size, that are still to be zeroed */

    /* Graph thread writes, main thread reads: atomic. */
    bool in_step;    /* nothing in flight and nothing left to copy, when that was last looked at */
    bool converging; /* guests' writes go to both sides until source and target meet */

    int phase; /* MirrorPhase; written in the graph's thread or while all is drained, atomic */

    /* Main thread writes, graph thread reads: atomics. */
    int copy_mode; /* MirrorCopyMode */
    int finish;    /* MirrorFinish */

    /* Graph thread. */
    BdrvDirtyBitmap *dirty; /* on source */
    MirrorScan scan;
    MirrorTargetMap map;
    LIST_HEAD(, MirrorOp) ops;
    int in_flight; /* copying operations; guest writes not counted */
    int64_t bytes_in_flight;
    int64_t rate;                      /* bytes/s copied of late; 0: not known yet */
    int64_t rate_start_ns, rate_bytes; /* the measurement under way */
    int processors;                    /* of this host */
    int depth;                         /* operations in flight that have proved useful */
    int64_t best_latency, latency_sum; /* ns for 1 MiB */
    int latency_ops;
    int64_t dirty_cursor;        /* where the search for dirty extents goes on */
    int64_t not_before_ns;       /* no new operation before this time: after an ignored error */
    int ret;                     /* first fatal error */
    int copy_range_refusals;     /* of bdrv_co_copy_range(), in a row */
    int copy_range_skip;         /* pieces to copy by hand before it is tried again */
    int64_t not_before_final_ns; /* no attempt to hold up guests and finish before this time */
    bool stopped;                /* an error paused it, and the user has not resumed it yet */
    CoQueue idle;                /* woken when nothing is on its way to the target any more */
    CoQueue op_ended;            /* woken at the end of every copying operation */
    int64_t request_bytes;       /* that the device has proved to be quick with; a power of two */
    bool server_quick, long_request_sent; /* see mirror-pace.c */
    GSList *free_buffers;
    int nr_buffers;         /* free or in use, of piece_bytes each */
    int64_t memory_charged; /* held by copies that the nodes do by themselves */
    CoQueue memory_freed;
    int64_t active_bytes; /* of guest writes in flight to both sides */
    CoQueue active_ended;
    /* Guests' writes that may wait for the target, the oldest first (active.c). */
    TAILQ_HEAD(, MirrorGuestWait) guest_waits;
    QEMUTimer *guest_timer; /* NULL: not needed so far */
    bool guest_timer_armed;
    bool lagging; /* the target kept a guest waiting for too long, and has finished nothing since */
    int left_behind; /* target's halves of writes that their guests do not wait for any more */
    bool converge;   /* as the user wants it */
    int64_t least_left, least_left_ns; /* the least that was left, and when; see converge.c */
    bool guest_flushed;                /* since the target was flushed last */
    int64_t last_end_ns;               /* when an operation on the target ended last */
};

/* Goes to the next phase, as the table says. */
void mirror_event(MirrorBlockJob *s, MirrorEvent event);
MirrorPhase mirror_phase(const MirrorBlockJob *s); /* any thread */
MirrorForward mirror_forward(const MirrorBlockJob *s);

static inline MirrorCopyMode mirror_copy_mode(const MirrorBlockJob *s)
{
    return __atomic_load_n(&s->copy_mode, __ATOMIC_SEQ_CST);
}

static inline bool mirror_is_converging(const MirrorBlockJob *s)
{
    return __atomic_load_n(&s->converging, __ATOMIC_RELAXED);
}

/* What is still to be copied, bytes, and the job's progress from it. */
int64_t mirror_bytes_left(const MirrorBlockJob *s);
void mirror_update_progress(MirrorBlockJob *s);

extern const JobDriver mirror_job_driver;

/*
 * Moves the parents of the source (or of `replaces`) to the target, within one drained section in
 * which the last writes are copied. 0, or -errno with errp and nothing moved. Main context.
 */
int coroutine_fn mirror_co_pivot(MirrorBlockJob *s, GError **errp);

/* --- converging (converge.c) --- */

/*
 * Looks whether what is left shrinks; `wanted`: source and target are to meet. Begins to forward
 * guests' writes when it does not, and ends that when it is not wanted any more; tells users.
 */
void coroutine_fn mirror_co_watch_progress(MirrorBlockJob *s, bool wanted);

/* --- ranges (mirror-copy.c) --- */

MirrorOp *mirror_find_overlap(MirrorBlockJob *s, int64_t offset, int64_t bytes);
void mirror_op_begin(MirrorBlockJob *s, MirrorOp *op, int64_t offset, int64_t bytes);
void mirror_op_end(MirrorBlockJob *s, MirrorOp *op);
/* An operation has ended; whoever waits for the last one hears of it. */
void mirror_note_idle(MirrorBlockJob *s);

/* --- the engine (mirror-copy.c) --- */

/*
 * Starts as many operations as make sense now. Returns 0, or how many ns to wait before it can
 * start more. even_if_paused: inside the job's own drained section.
 */
int64_t mirror_pump(MirrorBlockJob *s, bool even_if_paused);
/* Nothing in flight and nothing left to copy. */
bool mirror_is_clean(const MirrorBlockJob *s);
/* Waits until no copying operation is in flight. Any coroutine of the graph's thread. */
void coroutine_fn mirror_co_wait_idle(MirrorBlockJob *s);
/* Flushes the target; 0 or -errno. */
int coroutine_fn mirror_co_flush_target(MirrorBlockJob *s);

/* --- the target's side (write.c) --- */

/*
 * The target reads as zeroes in all of the range: by the map, or because it says so. The range is
 * owned by an operation, as for the two below.
 */
bool coroutine_fn mirror_co_target_is_zero(MirrorBlockJob *s, int64_t offset, int64_t bytes);
/* Makes the range read as zeroes. 0 or -errno. */
int coroutine_fn mirror_co_zero(MirrorBlockJob *s, int64_t offset, int64_t bytes);
/* Writes what was read, all of qiov, its runs of zeroes as zeroes. 0 or -errno. */
int coroutine_fn mirror_co_write_read(MirrorBlockJob *s, int64_t offset, QEMUIOVector *qiov);

/* --- memory (mirror-buffer.c) --- */

/*
 * Initialises qiov over buffers of at most `bytes`, as many as can be had, and returns their size:
 * waits for the first one only. 0: no memory. Ended by mirror_put_buffer().
 */
int64_t coroutine_fn mirror_co_get_buffer(MirrorBlockJob *s, int64_t bytes, QEMUIOVector *qiov);
void mirror_put_buffer(MirrorBlockJob *s, QEMUIOVector *qiov);
/* Waits until `bytes` that somebody else allocates for the job fit in, and counts them. */
void coroutine_fn mirror_co_charge_memory(MirrorBlockJob *s, int64_t bytes);
void mirror_uncharge_memory(MirrorBlockJob *s, int64_t bytes);
/* Bytes that copying holds now: buffers, idle ones too, and what was charged. */
int64_t mirror_memory_held(const MirrorBlockJob *s);
/* All buffers that are not in use. */
void mirror_free_buffers(MirrorBlockJob *s);

/* --- pace (mirror-pace.c) --- */

void mirror_pace_init(MirrorBlockJob *s);
/* Bytes that the next request should have at most: a power of two. */
int64_t mirror_request_bytes(const MirrorBlockJob *s);
/* One more operation may start. */
bool mirror_has_room(const MirrorBlockJob *s);
/* An operation starts, before it is counted; one has ended that copied data_bytes (0: zeroes). */
void mirror_pace_started(MirrorBlockJob *s, int64_t data_bytes);
void mirror_pace_ended(MirrorBlockJob *s, int64_t data_bytes, int64_t elapsed_ns);

/* --- the filter (mirror-filter.c, mirror-active.c) --- */

extern const BlockDriver bdrv_mirror_top;
/* A filter for the source, in its context, that nothing uses yet. NULL and errp on failure. */
BlockDriverState *coroutine_fn mirror_filter_co_new(const MirrorOptions *opts, GError **errp);
/* Binds the filter to its job; NULL: from now on it only passes requests through. */
void mirror_filter_set_job(BlockDriverState *filter, MirrorBlockJob *s);

typedef struct MirrorGuestWrite {
    int64_t offset, bytes;
    QEMUIOVector *qiov; /* NULL: zeroes */
    size_t qiov_offset;
    BdrvRequestFlags flags;
} MirrorGuestWrite;

/* Whether a guest write goes to both sides now; then that it does. */
bool mirror_forwards_now(const MirrorBlockJob *s, int64_t offset, int64_t bytes);
/* Of buf_size, bytes that guest writes use now: the copy engine waits for them. */
int64_t mirror_active_borrowed(const MirrorBlockJob *s);
int coroutine_fn mirror_co_active_write(MirrorBlockJob *s, const MirrorGuestWrite *w);

#endif
