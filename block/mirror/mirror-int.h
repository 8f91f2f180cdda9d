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
 *   phase.c      the phases of the job, as a table
 *
 * The copying itself, and what keeps it right, is block/copy/.
 *
 * Everything here runs in the graph's thread, but for what is marked.
 */
#ifndef FERRY_BLOCK_MIRROR_INT_H
#define FERRY_BLOCK_MIRROR_INT_H

#include "block/copy/copy.h"
#include "block/job/job.h"
#include "block/mirror.h"

typedef struct MirrorBlockJob MirrorBlockJob;

/* --- the job --- */

/*
 * A guest's write waits so long for a target that hangs: when it is forwarded, and when guests are
 * held up so that source and target can meet.
 */
#define MIRROR_FORWARD_WAIT_NS (2 * NANOSECONDS_PER_SECOND)
#define MIRROR_MEET_WAIT_NS    (500 * SCALE_MS)

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

    CopyEngine copy; /* the graph's thread */

    /* Set at start, then constant. */
    BlockDriverState *filter;
    char *replaces; /* node name or NULL */
    MirrorSyncMode sync;
    BlockdevOnError on_source_error, on_target_error;
    MirrorBackingMode backing_mode;
    bool converge; /* as the user wants it */

    /* Graph thread writes, main thread reads: atomic. */
    bool in_step;    /* nothing in flight and nothing left to copy, when that was last looked at */
    bool converging; /* guests' writes go to both sides until source and target meet */

    int phase; /* MirrorPhase; written in the graph's thread or while all is drained, atomic */

    /* Main thread writes, graph thread reads: atomics. */
    int copy_mode; /* MirrorCopyMode */
    int finish;    /* MirrorFinish */

    /* Graph thread. */
    int64_t tail_bytes;          /* of the target, beyond the source, that are still to be zeroed */
    int64_t not_before_final_ns; /* no attempt to hold up guests and finish before this time */
    bool stopped;                /* an error paused it, and the user has not resumed it yet */
    bool read_failed;            /* the error that ends the job came from the source */
    bool guest_flushed;          /* since the target was flushed last */
    int64_t least_left, least_left_ns; /* the least that was left, and when; see converge.c */

    /* Guests' writes that go to both sides (active.c); graph thread. */
    int64_t active_bytes; /* in flight */
    CoQueue active_ended;
    TAILQ_HEAD(, MirrorGuestWait) guest_waits; /* that may wait for the target, the oldest first */
    QEMUTimer *guest_timer;                    /* NULL: not needed so far */
    bool guest_timer_armed;
    /* The target kept a guest waiting for too long, then, and has finished nothing since. 0: no. */
    int64_t lagging_since_ns;
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

/* The job's progress, from what is still to be copied. */
void mirror_update_progress(MirrorBlockJob *s);

extern const JobDriver mirror_job_driver;
extern const CopyOwner mirror_copy_owner;

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

/* --- the filter (filter.c, active.c) --- */

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
/*
 * The target keeps guests waiting, and has finished nothing since: their writes go to the source
 * alone.
 */
bool mirror_is_lagging(const MirrorBlockJob *s);
int coroutine_fn mirror_co_active_write(MirrorBlockJob *s, const MirrorGuestWrite *w);

#endif
