/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The BlockBackend's representation, for block-backend.c and backend-*.c only. */
#ifndef FERRY_BLOCK_BACKEND_INT_H
#define FERRY_BLOCK_BACKEND_INT_H

#include "block/block-backend.h"
#include "block/graph/graph.h"
#include "block/throttle/throttle-group.h"
#include "util/queue.h"

/* A request that waits at the gate; on its coroutine's stack. */
typedef struct GateWaiter {
    Coroutine *co;
    AioContext *ctx; /* where it waits */
    TAILQ_ENTRY(GateWaiter) next;
} GateWaiter;

/* A request between passing and leaving the gate; on its coroutine's stack. */
typedef struct GatePass {
    AioContext *from; /* it was forwarded and goes back there; NULL: it was not */
    bool held;        /* it had to wait and has a reference, as its user may have left meanwhile */
} GatePass;

/* Where a user would like its requests to run. */
typedef struct Wish {
    AioContext *ctx;      /* NULL: anywhere; else its iothread is held in the holder's name */
    BdrvThreads *threads; /* owned; NULL: one thread; else all of these are held as well */
    char *holder;         /* owned */
    bool fixed;           /* no other user may take the graph away from there */
    bool was_in_force;    /* requests have come, or may have, in these threads */
} Wish;

struct BlockBackend {
    int refcnt;      /* atomic */
    AioContext *ctx; /* atomic; the main thread changes it, while drained if there is a node */

    /* Main thread. */
    char *name; /* NULL: internal */
    BdrvChild *root;
    Wish wish;
    CoMutex binding; /* the wish changes, and a node comes, one after the other */
    GArray *past;    /* of Wish: taken back, but their threads may be in force or looked at */
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

    /*
     * Main thread while drained, or without a node; read by counted requests, and in threads that
     * the main thread passes through before it frees the old ones.
     */
    BdrvThreads *threads; /* atomic: in which requests may come; NULL: the context's alone */
    bool direct;          /* they go down the graph there */

    int in_flight;        /* atomic */
    int quiesce;          /* atomic; changes in the backend's thread, or in the main thread */
    pthread_mutex_t gate; /* guards the waiters */
    TAILQ_HEAD(, GateWaiter) queued;

    /* The backend's thread; constant while a request is counted. */
    bool disable_request_queuing;
    bool allow_write_beyond_eof;
    bool enable_write_cache;
    BlockAcctStats stats;
    ThrottleGroupMember *throttle; /* NULL: no limits; changes while drained */
};

/* "export 'e0'", for messages; the caller frees. Main thread. */
char *blk_describe(BlockBackend *blk);
/* The backend is in ctx from now on; its user is told. Main thread, drained if there is a node. */
void blk_set_context(BlockBackend *blk, AioContext *ctx);
/* The state of backend-context.c. Its end takes the wish back without a move. */
void blk_binding_init(BlockBackend *blk);
void blk_binding_destroy(BlockBackend *blk);
/* Members of the root edge's class. */
void blk_root_get_threads(BdrvChild *child, BdrvThreadsUse *use);
void blk_root_set_threads(BdrvChild *child, const BdrvThreads *in_force, bool direct);
void blk_root_settle_threads(BdrvChild *child);

/* --- backend-gate.c --- */

/*
 * Passes the gate; until the matching leave the request is counted. It is in the thread in which it
 * may go down the graph; leave brings it back to where it came from, if that is another one.
 */
void coroutine_fn blk_co_gate_pass(BlockBackend *blk, GatePass *pass);
void coroutine_fn blk_co_gate_leave(BlockBackend *blk, const GatePass *pass);
/* A drained section has ended: what waits goes on. Backend's thread, or main thread. */
void blk_gate_open(BlockBackend *blk);

#endif
