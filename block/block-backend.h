/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * BlockBackend: where a device, an export or a job meets the graph. It holds one root edge, queues
 * requests while drained, keeps accounting and error policy, and reports events to its user through
 * BlockDevOps.
 *
 * A backend has a context, in whose thread its requests run: that of its node's graph, or without
 * one the context that its user wishes. It changes only inside a drained section; a request that
 * waited for the end of that section goes on in the new thread.
 *
 * Several threads (a disk with a queue in each of some iothreads): the user binds them by
 * blk_co_bind_contexts(). Then each of them may send requests, and is told of the end of each. Where
 * all nodes below can take requests from any thread (BlockDriver.multi_thread), they go down the
 * graph in the thread that they come from. Else, and while a job or a dirty bitmap wants one order of all
 * writes, the backend takes them to its context and back; its user notices nothing. What is about
 * the graph (BlockDevOps, drains, sizes) stays with the backend's context.
 *
 * Configuration in the main thread; requests in the backend's thread or those bound, which they
 * assert. They return 0 or -errno. They check that the range lies inside the image (-EIO), that there
 * is a medium (-ENOMEDIUM) which is active (-EPERM), and that writing was asked for.
 */
#ifndef FERRY_BLOCK_BLOCK_BACKEND_H
#define FERRY_BLOCK_BLOCK_BACKEND_H

#include "block/block.h"
#include "block/block-io.h"
#include "block/io/accounting.h"

typedef struct BlockBackend BlockBackend;
typedef struct ThrottleGroup ThrottleGroup;

/* What its user wants to hear; all optional; the backend's context unless said otherwise. */
typedef struct BlockDevOps {
    void (*resize_cb)(void *opaque);
    void (*drained_begin)(void *opaque);
    bool (*drained_poll)(void *opaque); /* true: still busy */
    void (*drained_end)(void *opaque);
    char *(*get_desc)(
        void *opaque); /* "export 'e0'"; for conflicts. The caller frees. Main thread. */
    bool (*can_set_aio_context)(void *opaque, AioContext *ctx, GError **errp); /* main thread */
    /* main thread, drained */
    void (*set_aio_context)(void *opaque, AioContext *ctx);
} BlockDevOps;

/* One reference, no medium. perm/shared are taken on insertion. */
BlockBackend *blk_new(uint64_t perm, uint64_t shared);
void blk_ref(BlockBackend *blk); /* any thread */
/*
 * The last reference removes the medium (its node is unreferenced by the main loop soon after). Any
 * thread; from one other than the main thread that happens in the main loop.
 */
void blk_unref(BlockBackend *blk);
/* Gives it the name under which users address the device (-drive id=). */
bool blk_set_name(BlockBackend *blk, const char *name, GError **errp);
const char *blk_name(const BlockBackend *blk);
BlockBackend *blk_by_name(const char *name);
/* Named backends in creation order; NULL starts and ends. */
BlockBackend *blk_next(BlockBackend *blk);
/* Every backend, the unnamed ones of exports and jobs included. */
BlockBackend *blk_all_next(BlockBackend *blk);

void blk_set_dev_ops(BlockBackend *blk, const BlockDevOps *ops, void *opaque);
/* Refused when the user wishes another context than that of bs: blk_co_insert_bs() moves bs. */
bool blk_insert_bs(BlockBackend *blk, BlockDriverState *bs,
                   GError **errp) G_GNUC_WARN_UNUSED_RESULT;
bool coroutine_fn blk_co_insert_bs(BlockBackend *blk, BlockDriverState *bs,
                                   GError **errp) G_GNUC_WARN_UNUSED_RESULT;
void blk_remove_bs(BlockBackend *blk);
/* The node below, or NULL. */
BlockDriverState *blk_bs(const BlockBackend *blk);
BdrvChild *blk_root(const BlockBackend *blk);
bool blk_set_perm(BlockBackend *blk, uint64_t perm, uint64_t shared,
                  GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Any thread; in one other than the main thread or the backend's it may be out of date at once. */
AioContext *blk_get_aio_context(const BlockBackend *blk);
/*
 * The user wishes its requests in ctx: the graph below follows, now and when a node is inserted.
 * fixed: other users cannot move the graph. Without it the backend follows their moves. Refused,
 * with both names, when another user keeps the graph elsewhere; nothing has changed then. The
 * context's iothread cannot be deleted until the wish is taken back.
 */
bool coroutine_fn blk_co_bind_context(BlockBackend *blk, AioContext *ctx, bool fixed,
                                      GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * The same for a user that sends requests in n > 0 threads; the graph goes to ctxs[0]. The user has
 * them sent only after this returns, and stops that before it binds others or unbinds. Requests that
 * are under way then are waited for; those that wait at the gate go on in the backend's context.
 */
bool coroutine_fn blk_co_bind_contexts(BlockBackend *blk, AioContext *const *ctxs, unsigned n,
                                       bool fixed, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * `wanted` if the backend is bound to it, else the backend's context: where a request goes on that
 * came from `wanted` some time ago. Main thread, or a thread that is or was bound.
 */
AioContext *blk_context_for(const BlockBackend *blk, AioContext *wanted);
/* Requests go down the graph in each bound thread now. Main thread. */
bool blk_is_direct(const BlockBackend *blk);
/*
 * Takes the wish back (unplug). On return the graph is where its other users wish it, or in the main
 * context; requests that do not end within BDRV_DRAIN_COMMAND_NS keep it where it is.
 */
void coroutine_fn blk_co_unbind_context(BlockBackend *blk);
/*
 * Runs entry(opaque) as a coroutine in the backend's thread, soon. Any thread that holds the big
 * lock, vCPUs too: this is how a device starts requests. The backend stays alive until entry
 * returns.
 */
void blk_co_spawn(BlockBackend *blk, CoroutineEntry *entry, void *opaque);
/* The same in ctx, if the backend is bound to it; else in the backend's thread. */
void blk_co_spawn_in(BlockBackend *blk, AioContext *ctx, CoroutineEntry *entry, void *opaque);
/* The edge stays at its node when nodes are replaced above it (jobs' targets). */
void blk_set_stay_at_node(BlockBackend *blk, bool stay);
/* Requests issued inside a drained section are not held back (jobs that drain their own nodes). */
void blk_set_disable_request_queuing(BlockBackend *blk, bool disable);
/* Requests may lie beyond the end (a growing raw file). */
void blk_set_allow_write_beyond_eof(BlockBackend *blk, bool allow);
/*
 * A user that writes keeps its node from becoming inactive unless it was told here to live with
 * that, as a guest's device can that is stopped then. Named backends and readers always do.
 */
void blk_set_allow_inactive(BlockBackend *blk, bool allow);
void blk_set_enable_write_cache(BlockBackend *blk, bool wce); /* false: every write is FUA */
bool blk_enable_write_cache(const BlockBackend *blk);

/*
 * Reads and writes wait for the limits of a group; NULL: no limits. Takes over the caller's
 * reference. Main thread; no request may be under way: the node is drained, if there is one.
 */
void blk_set_throttle_group(BlockBackend *blk, ThrottleGroup *group);
/* Not referenced. */
ThrottleGroup *blk_get_throttle_group(const BlockBackend *blk);

int coroutine_fn blk_co_preadv(BlockBackend *blk, int64_t offset, int64_t bytes, QEMUIOVector *qiov,
                               BdrvRequestFlags flags);
int coroutine_fn blk_co_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes,
                                QEMUIOVector *qiov, BdrvRequestFlags flags);
int coroutine_fn blk_co_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf,
                              BdrvRequestFlags flags);
int coroutine_fn blk_co_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes, const void *buf,
                               BdrvRequestFlags flags);
int coroutine_fn blk_co_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
                                      BdrvRequestFlags flags);
int coroutine_fn blk_co_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes);
int coroutine_fn blk_co_flush(BlockBackend *blk);
int coroutine_fn blk_co_copy_range(BlockBackend *src, int64_t src_offset, BlockBackend *dst,
                                   int64_t dst_offset, int64_t bytes, BdrvRequestFlags write_flags);
bool coroutine_fn blk_co_truncate(BlockBackend *blk, int64_t size, bool exact,
                                  PreallocMode prealloc, GError **errp);
int64_t blk_getlength(BlockBackend *blk);
/* Counts the user itself as busy (a device working on a request between block requests). */
void blk_inc_in_flight(BlockBackend *blk);
void blk_dec_in_flight(BlockBackend *blk);
bool blk_in_drain(const BlockBackend *blk);

/* --- error policy of devices --- */
void blk_set_on_error(BlockBackend *blk, BlockdevOnError on_read, BlockdevOnError on_write);
BlockdevOnError blk_get_on_error(const BlockBackend *blk, bool is_read);
void blk_iostatus_enable(BlockBackend *blk);
bool blk_iostatus_is_enabled(const BlockBackend *blk);
BlockDeviceIoStatus blk_iostatus(const BlockBackend *blk);
void blk_iostatus_reset(BlockBackend *blk);
void blk_iostatus_set_err(BlockBackend *blk, int error); /* positive errno; the first one sticks */

BlockAcctStats *blk_get_stats(BlockBackend *blk);

#endif
