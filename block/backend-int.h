/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The BlockBackend's representation, for block-backend.c and backend-context.c only. */
#ifndef FERRY_BLOCK_BACKEND_INT_H
#define FERRY_BLOCK_BACKEND_INT_H

#include "block/block-backend.h"
#include "block/throttle/throttle-group.h"
#include "util/queue.h"

/* A request that waits at the gate; on its coroutine's stack. */
typedef struct GateWaiter {
    Coroutine *co;
    TAILQ_ENTRY(GateWaiter) next;
} GateWaiter;

/* Where a user would like its requests to run. */
typedef struct Wish {
    AioContext *ctx; /* NULL: anywhere; else its iothread is held in the holder's name */
    char *holder;    /* owned */
    bool fixed;      /* no other user may take the graph away from there */
} Wish;

struct BlockBackend {
    int refcnt;      /* atomic */
    AioContext *ctx; /* atomic; the main thread changes it, while drained if there is a node */

    /* Main thread. */
    char *name; /* NULL: internal */
    BdrvChild *root;
    Wish wish;
    uint64_t perm, shared_perm;
    const BlockDevOps *dev_ops;
    void *dev_opaque;
    BlockdevOnError on_read_error, on_write_error;
    bool iostatus_enabled;
    BlockDeviceIoStatus iostatus;
    bool stay_at_node;
    bool allow_inactive;
    TAILQ_ENTRY(BlockBackend) all;
    TAILQ_ENTRY(BlockBackend) named;

    /* The backend's thread. */
    int in_flight; /* atomic */
    int quiesce;
    bool disable_request_queuing;
    bool allow_write_beyond_eof;
    bool enable_write_cache;
    TAILQ_HEAD(, GateWaiter) queued;
    BlockAcctStats stats;
    ThrottleGroupMember *throttle; /* NULL: no limits; changes while drained */
};

/* "export 'e0'", for messages; the caller frees. Main thread. */
char *blk_describe(BlockBackend *blk);
/* The backend is in ctx from now on; its user is told. Main thread, drained if there is a node. */
void blk_set_context(BlockBackend *blk, AioContext *ctx);
/* Takes the wish back without a move: the backend is about to be freed. */
void blk_drop_wish(BlockBackend *blk);

#endif
