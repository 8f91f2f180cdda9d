/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mirror job: copies a live node to another until both are the same, then lets the user pivot
 * to the copy or keep it.
 */
#ifndef FERRY_BLOCK_MIRROR_H
#define FERRY_BLOCK_MIRROR_H

#include "block/block.h"

#define MIRROR_DEFAULT_BUF_SIZE    (16 << 20)
#define MIRROR_DEFAULT_GRANULARITY (64u << 10)
#define MIRROR_MIN_GRANULARITY     512u
#define MIRROR_MAX_GRANULARITY     (64u << 20)

/* What becomes of the target's backing file at the pivot. */
typedef enum MirrorBackingMode {
    MIRROR_LEAVE_BACKING,  /* the user has arranged it */
    MIRROR_SOURCE_BACKING, /* full: none; top: the source's; none: the source itself */
    MIRROR_OPEN_BACKING,   /* full: none; else what the target's header names */
} MirrorBackingMode;

typedef struct MirrorOptions MirrorOptions;
struct MirrorOptions {
    const char *job_id; /* NULL: the device name */
    /* The target is as large as the source, or ends with the source's last sector. */
    BlockDriverState *source, *target;
    const char *replaces;         /* node to be replaced by the target; NULL: the source */
    const char *filter_node_name; /* NULL: made up, and the filter is implicit */
    MirrorSyncMode sync;          /* full, top or none */
    MirrorCopyMode copy_mode;
    int64_t speed;        /* bytes/s, 0 unlimited */
    uint32_t granularity; /* bytes; 0: default */
    int64_t buf_size;     /* bytes of buffers at most; 0: default */
    BlockdevOnError on_source_error, on_target_error;
    bool unmap;          /* zeroes may deallocate on the target */
    bool converge;       /* guests' writes go to both sides when the copy does not catch up */
    bool target_is_zero; /* the target is known to read as zeroes throughout */
    MirrorBackingMode backing_mode;
    int flags; /* JOB_* */
    /* Whether both ends still allow the job, asked within drained sections of both; or NULL. */
    bool (*check)(const MirrorOptions *opts, GError **errp);
};

/*
 * Checks both ends, inserts the filter above the source, and starts the job. On failure nothing has
 * changed. The caller keeps its references to the nodes. Main context.
 */
bool coroutine_fn mirror_co_start(const MirrorOptions *opts,
                                  GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
