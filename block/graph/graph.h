/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of the block graph: what graph.c, perm.c, drain.c, open.c and reopen.c share. Main thread
 * unless said otherwise.
 */
#ifndef FERRY_BLOCK_GRAPH_H
#define FERRY_BLOCK_GRAPH_H

#include "block/block_int.h"

/* The graph's globals: one object, made on first use. */
typedef struct BlockGraph {
    TAILQ_HEAD(BlockNodeList, BlockDriverState) nodes; /* in order of creation */
    GHashTable *by_name;                               /* node_name -> BlockDriverState */
    unsigned auto_names;                               /* counter of made-up names */
    /* nodes given to bdrv_unref_later() and not closed yet; atomic */
    unsigned closing;
    unsigned settling;     /* looks of context.c that are to come or under way */
    unsigned giving_up;    /* steps of give-up.c that hold nodes without a reference */
    CoQueue closing_queue; /* waits for closing, settling or giving_up to become 0 */
    unsigned opening;      /* calls of bdrv_co_open_inherit() under way */
    bool no_opening;       /* the process ends: those fail, and so do new ones */
    bool threads_wished;   /* a parent has asked for several threads since the process began */
    bool passing;          /* bdrv_co_arrange() passes through threads */
    /* woken when a node's `settling` or `closing` has become 0, a node was freed, or `passing` has ended */
    CoQueue settled_queue;
} BlockGraph;

BlockGraph *block_graph(void);

/* A node without driver data, one reference, not registered by name. */
BlockDriverState *bdrv_new(void);
/* Registers the name; NULL or "" makes one up. Refuses ill-formed and taken names. */
bool bdrv_assign_node_name(BlockDriverState *bs, const char *node_name, GError **errp);
/* Unlinks and frees an edge; its reference to the node goes to the caller. No permission update. */
void bdrv_detach_child_edge(BdrvChild *child);
/* Opens with a parent's force-share on top of bdrv_co_open(). */
BlockDriverState *coroutine_fn bdrv_co_open_inherit(const BlockdevOptions *options, int flags,
                                                    bool force_share, GError **errp);
/*
 * Where the image's backing file is: relative names start at the image's own folder. The caller
 * frees.
 */
char *bdrv_backing_path(BlockDriverState *bs, GError **errp);
/* Asks the driver for the names of bs anew. */
void bdrv_refresh_filename(BlockDriverState *bs);
/* The edge belongs to a BlockBackend (opaque). */
bool bdrv_child_is_blk_root(const BdrvChild *child);
/* Drops the references that blockdev-add took for its user. */
void coroutine_fn bdrv_co_unref_monitor_nodes(void);
/* A BlockBackend has this name. */
bool blk_name_in_use(const char *name);
/* Frees a node that has neither parents nor children nor driver data. */
void bdrv_free(BlockDriverState *bs);

/* The edge class of node parents. */
extern const BdrvChildClass child_of_bds;

/*
 * Repoints an edge without asking for permissions; drains are carried over. Keeps references
 * unchanged.
 */
void bdrv_replace_child_noperm(BdrvChild *child, BlockDriverState *new_bs);

/* --- contexts --- */

/*
 * The graph of bs goes where its users wish it, or home to the main context. Does nothing inside a
 * drained section of another coroutine: then it is done when that ends.
 */
void coroutine_fn bdrv_co_settle_context(BlockDriverState *bs);
/* The same when such looks at the graph that are under way have ended: they drain it themselves. */
void coroutine_fn bdrv_co_settle_context_in_turn(BlockDriverState *bs);
/* The same soon, from code that cannot yield. */
void bdrv_settle_context_later(BlockDriverState *bs);
/* The last drained section of bs has ended. Any thread. */
void bdrv_context_drained_end(BlockDriverState *bs);
/* Puts a node that is being opened, alone and without a connection, into ctx. */
void bdrv_adopt_context(BlockDriverState *bs, AioContext *ctx);
/* The node is about to be freed: its iothread may be deleted. */
void bdrv_release_context(BlockDriverState *bs);
/* Waits until no such look at the node of that name is under way any more. */
void coroutine_fn bdrv_co_wait_settled(const char *node_name);

/*
 * Drains the graph of bs, moves it to ctx if it is elsewhere, and has users send requests in the
 * threads that they wish and drivers can take. False: nothing has changed.
 */
bool coroutine_fn bdrv_co_arrange(BlockDriverState *bs, AioContext *ctx, GError **errp);

/* Whether the edge's parent is in the context of bs, or may be in any. */
bool bdrv_edge_context_fits(BdrvChild *child, BlockDriverState *bs, GError **errp);

/* --- several threads: threads.c --- */

/* The edge leads elsewhere now: parents above it that cannot be direct any more are not. */
void bdrv_threads_edge_changed(BdrvChild *child);
/* The same after something else has changed at bs, in a drained section. */
void bdrv_threads_check_above(BlockDriverState *bs);
/* A dirty bitmap of bs was released: parents may become direct soon. */
void bdrv_threads_bitmap_gone(BlockDriverState *bs);
/* Whether all parents in the graph send requests as they wish and drivers can take them. */
bool bdrv_threads_arranged(GHashTable *graph);
/*
 * Sees to it; all are drained, and nothing is in flight. Returns the contexts in which parents were
 * bound before; the caller frees.
 */
GPtrArray *bdrv_threads_arrange(GHashTable *graph);
/* What was on its way to a gate in these contexts has got there. */
void coroutine_fn bdrv_co_threads_pass(GPtrArray *contexts);
/* That has been done for what these nodes' parents had in force before. */
void bdrv_threads_passed(GPtrArray *nodes);

/* --- permissions --- */

/* One change of permissions, to be committed or rolled back as a whole. */
typedef struct BdrvPermTxn BdrvPermTxn;
BdrvPermTxn *bdrv_perm_txn_new(void);
/* bs and all below it are to be recomputed. */
void bdrv_perm_txn_add(BdrvPermTxn *txn, BlockDriverState *bs);
/* Sets a root edge's own wishes within the transaction. */
void bdrv_perm_txn_set(BdrvPermTxn *txn, BdrvChild *child, uint64_t perm, uint64_t shared);
/* Gives the change up before it ran. */
void bdrv_perm_txn_free(BdrvPermTxn *txn);
/* Recomputes and checks; then commits or, on failure, leaves every edge. Frees txn either way. */
bool bdrv_perm_txn_run(BdrvPermTxn *txn, GError **errp);
/* The same; on failure *failed is the node that refused. */
bool bdrv_perm_txn_run_on(BdrvPermTxn *txn, BlockDriverState **failed, GError **errp);

/* --- drain --- */

/*
 * Delivers or takes back one level of quiescence at bs and above. Graph thread, or main thread
 * while drained.
 */
void bdrv_quiesce_begin(BlockDriverState *bs);
void bdrv_quiesce_end(BlockDriverState *bs);
/* True while bs or a parent above it is busy. */
bool bdrv_drain_busy(BlockDriverState *bs);
/*
 * Held while edges are linked and unlinked, and while they are walked outside of the main thread.
 * Recursive. Any thread.
 */
void bdrv_edges_lock(void);
void bdrv_edges_unlock(void);
/*
 * Within a drained section of the caller's: waits until no coroutine of the main thread visits bs any
 * more. False, with errp, after limit_ns. Main thread.
 */
bool coroutine_fn bdrv_co_await_visits(BlockDriverState *bs, int64_t limit_ns, GError **errp);
/* Something became idle: drains in progress look again. Any thread. */
void bdrv_drain_kick(void);

/* The caller's reference is not the only one. Main thread. */
bool bdrv_has_other_refs(BlockDriverState *bs);

/* --- nodes on their way out; main thread --- */

/* A parent of bs that is being closed, or NULL. */
BlockDriverState *bdrv_closing_parent(const BlockDriverState *bs);

/* Of one caller; all 0 at first. */
typedef struct BdrvClosingWait {
    QEMUTimer *timer;
    bool expired;
} BdrvClosingWait;
/*
 * Yields until a node has gone, or the time is over, and the caller is to look again. False, without a
 * yield: BDRV_DRAIN_COMMAND_NS are over since the first call.
 */
bool coroutine_fn bdrv_co_closing_wait(BdrvClosingWait *wait);
void bdrv_closing_wait_end(BdrvClosingWait *wait);

#endif
