/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The block graph: nodes, the edges between them, what a parent may do through an edge, and drained
 * sections.
 *
 * A node (BlockDriverState) is one instance of a driver: a file, an NBD connection, a qcow2 image
 * over a file. An edge (BdrvChild) leads from a parent (another node, a BlockBackend, a job, an
 * export) to a node. Each connected graph lives in one AioContext: its I/O, jobs and exports run in
 * that context's thread. The main thread owns the shape of every graph: it opens, closes, attaches
 * and detaches, in coroutines, and for a graph that has I/O only inside a drained section. Unless
 * said otherwise a function here is called in the main thread.
 *
 * Offsets and lengths are bytes in int64_t. Configuration fails with `GError **`, I/O with -errno.
 */
#ifndef FERRY_BLOCK_BLOCK_H
#define FERRY_BLOCK_BLOCK_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "qapi/qapi-types.h"
#include "util/aio.h"
#include "util/queue.h"

typedef struct BlockDriver BlockDriver;
typedef struct BlockDriverState BlockDriverState;
typedef struct BdrvChild BdrvChild;
typedef struct BdrvChildClass BdrvChildClass;

/* Threads, by the contexts that they run: each once, at least two. Never changes. */
typedef struct BdrvThreads {
    unsigned n;
    AioContext *ctx[];
} BdrvThreads;

/* How a parent uses several threads; NULL: it has that of the graph alone. */
typedef struct BdrvThreadsUse {
    const BdrvThreads *wished, *in_force;
    bool direct; /* its requests go down the graph in the thread that they come from */
} BdrvThreadsUse;

/* Longest node name, id and export name, with the final NUL. */
#define BDRV_NODE_NAME_MAX 32
#define BDRV_SECTOR_SIZE   512
/* Largest image: what fits int64_t, rounded down to any alignment we accept. */
#define BDRV_MAX_LENGTH (INT64_MAX & ~((int64_t)(1 << 30) - 1))
/* Most nodes on top of each other: a request goes through all of them on one coroutine's stack. */
#define BDRV_MAX_DEPTH 256

/* What a parent does on an edge (perm), or tolerates from the node's other parents (shared). */
enum {
    BLK_PERM_CONSISTENT_READ = 0x01, /* reads see a point in time that makes sense to the guest */
    BLK_PERM_WRITE = 0x02,           /* changes what a reader sees */
    /* writes what a reader sees already (copy-on-read, block-stream) */
    BLK_PERM_WRITE_UNCHANGED = 0x04,
    BLK_PERM_RESIZE = 0x08,
    BLK_PERM_ALL = 0x0f,
};

/* "consistent read, write"; the caller frees. */
char *bdrv_perm_names(uint64_t perm);

/* What the child is to its parent. */
enum {
    BDRV_CHILD_DATA = 0x01,     /* guest-visible data */
    BDRV_CHILD_METADATA = 0x02, /* the parent's own structures */
    BDRV_CHILD_FILTERED = 0x04, /* the parent is a filter and shows this child's data unchanged */
    BDRV_CHILD_COW = 0x08,      /* backing file */
    BDRV_CHILD_PRIMARY = 0x10,  /* bs->file of formats and filters */
    BDRV_CHILD_IMAGE = BDRV_CHILD_DATA | BDRV_CHILD_METADATA | BDRV_CHILD_PRIMARY,
};

/* Flags of an open. */
enum {
    BDRV_O_RDWR = 0x01,
    BDRV_O_NOCACHE = 0x02,     /* O_DIRECT */
    BDRV_O_NO_FLUSH = 0x04,    /* cache.no-flush: flushes are not passed down */
    BDRV_O_UNMAP = 0x08,       /* discard=unmap */
    BDRV_O_AUTO_RDONLY = 0x10, /* degrade to read-only where writing is impossible */
    BDRV_O_NO_BACKING = 0x20,  /* do not open the image's backing file */
    BDRV_O_INACTIVE = 0x40,    /* another process owns the image for now */
    BDRV_O_NO_IO = 0x80,       /* metadata only */
    BDRV_O_TEMPORARY = 0x100,  /* delete the file once open (snapshot=on) */
};

/* --- life --- */

/*
 * Opens a node tree from schema options. The caller owns one reference. Named nodes are registered;
 * `flags` gives the defaults for options that are absent (BDRV_O_RDWR unless read-only was asked
 * for).
 */
BlockDriverState *coroutine_fn bdrv_co_open(const BlockdevOptions *options, int flags,
                                            GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Opens by name as the command line and image headers give it: a path, "json:{...}", "nbd://...",
 * "nbd+unix://...", "nbd:host:port:exportname=X". With format NULL the contents are probed, and the
 * first sector of a raw file is write-protected. node_name may be NULL.
 */
BlockDriverState *coroutine_fn bdrv_co_open_filename(const char *filename, const char *format,
                                                     const char *node_name, int flags,
                                                     GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * The same with members to add to what the name says: those of extra's object "file" to the
 * options of the protocol, the others to those of the format. Numbers may be text, with suffixes.
 */
BlockDriverState *coroutine_fn bdrv_co_open_filename_with(const char *filename, const char *format,
                                                          json_object *extra, int flags,
                                                          GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The same as options, for callers that add members before bdrv_co_open(). The caller frees. */
BlockdevOptions *bdrv_filename_to_options(const char *filename, const char *format,
                                          GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/*
 * Makes a node of a driver that users cannot open by name (a job's filter), without children; the
 * caller attaches them. node_name NULL: one is made up ("#block123"). It is not open, and so no
 * query sees it, until bdrv_append_filter() has put it in its place.
 */
BlockDriverState *bdrv_new_filter(const BlockDriver *drv, const char *node_name, int flags,
                                  GError **errp);

void bdrv_ref(BlockDriverState *bs); /* any thread */
/* Drops a reference; the last one flushes and closes the node and drops its children. */
void coroutine_fn bdrv_co_unref(BlockDriverState *bs);
/*
 * From code that cannot yield: the node is closed by a coroutine of the main loop soon after. NULL
 * is allowed. Any thread.
 */
void bdrv_unref_later(BlockDriverState *bs);

/* --- names --- */

/* A node that is open. One that is still being opened has its name, and is not found by it. */
BlockDriverState *bdrv_find_node(const char *node_name);
/* Whether a node has the name, open or not. */
bool bdrv_node_name_in_use(const char *node_name);
/*
 * A device (BlockBackend name or qdev id) or a node name; DeviceNotFound/GenericError in errp when
 * neither exists.
 */
BlockDriverState *bdrv_lookup_bs(const char *device, const char *node_name, GError **errp);
/* The next named or anonymous node; NULL starts and ends. */
BlockDriverState *bdrv_next_node(BlockDriverState *bs);
const char *bdrv_get_node_name(const BlockDriverState *bs);
/* The root BlockBackend's name above bs, or "". */
const char *bdrv_get_device_name(const BlockDriverState *bs);
const char *bdrv_get_device_or_node_name(const BlockDriverState *bs);
const char *bdrv_get_format_name(const BlockDriverState *bs);
/*
 * The name a user would reopen it by: a path where that says it all, else a json: name. Valid until
 * the node changes.
 */
const char *bdrv_get_filename(const BlockDriverState *bs);

/* --- properties --- */

bool bdrv_is_read_only(const BlockDriverState *bs);
bool bdrv_is_inserted(BlockDriverState *bs);
/* any thread, while the caller holds a reference */
AioContext *bdrv_get_aio_context(const BlockDriverState *bs);
/*
 * Moves the whole graph of bs into ctx; fails when a parent is bound to another context, or when
 * requests do not end within BDRV_DRAIN_COMMAND_NS. Unless a parent wishes it there (see
 * blk_co_bind_context()), the graph goes home to the main context when an edge of it is removed.
 */
bool coroutine_fn bdrv_co_set_aio_context(BlockDriverState *bs, AioContext *ctx, GError **errp);
/*
 * Brings two graphs that are about to be connected into one context: `other` follows bs, or, where
 * its users do not let it, bs follows `other`. On failure both are where they were.
 */
bool coroutine_fn bdrv_co_join_contexts(BlockDriverState *bs, BlockDriverState *other,
                                        GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Cached size in bytes, -errno; for a growing protocol node ask bdrv_co_getlength(). */
int64_t bdrv_getlength(const BlockDriverState *bs);

/* --- edges --- */

/*
 * What a parent implements to live above a node. All in the thread of the graph unless said
 * otherwise.
 */
struct BdrvChildClass {
    bool parent_is_bds;
    bool stay_at_node; /* edges are made with that */

    /*
     * "node 'x'", "block device 'drive0'", "mirror job 'j'": for error messages. The caller frees.
     * Main thread.
     */
    char *(*get_parent_desc)(BdrvChild *child);
    const char *(*get_name)(BdrvChild *child); /* BlockBackend name, or NULL. Main thread. */

    /*
     * A drained section begins: the parent stops sending requests and sees to it that those it has
     * sent end. drained_poll is true while it is still busy. Both may be called again for nested
     * sections.
     */
    void (*drained_begin)(BdrvChild *child);
    bool (*drained_poll)(BdrvChild *child);
    void (*drained_end)(BdrvChild *child);

    void (*resize)(BdrvChild *child); /* the node's size changed */
    void (*attach)(BdrvChild *child); /* the edge was linked; main thread */
    void (*detach)(BdrvChild *child); /* about to be unlinked; main thread */
    /*
     * Whether the parent can follow to ctx; then, inside the drained section, that it does. Main
     * thread.
     */
    bool (*can_set_aio_context)(BdrvChild *child, AioContext *ctx, GError **errp);
    void (*set_aio_context)(BdrvChild *child, AioContext *ctx);
    AioContext *(*get_parent_aio_context)(BdrvChild *child); /* NULL or absent: anywhere */
    /* Where the parent would like the graph to be; NULL or absent: it does not care. Main thread. */
    AioContext *(*get_wished_context)(BdrvChild *child);
    /*
     * Root parents that send requests in several threads (graph/threads.c); main thread. set_threads,
     * while the parent is drained: what is in force, and whether it is direct. settle_threads: each
     * thread has passed since, so none looks at what was in force before.
     */
    void (*get_threads)(BdrvChild *child, BdrvThreadsUse *use);
    void (*set_threads)(BdrvChild *child, const BdrvThreads *in_force, bool direct);
    void (*settle_threads)(BdrvChild *child);
    /*
     * Whether the node may become inactive under the parent; absent: it may not. And what the
     * parent does and shares while it is active; the edge has no permissions otherwise. Root
     * parents only; main thread.
     */
    bool (*can_inactivate)(BdrvChild *child);
    void (*active_perms)(BdrvChild *child, uint64_t *perm, uint64_t *shared);
};

struct BdrvChild {
    BlockDriverState *bs;
    char *name; /* "file", "backing", "root", ...: what the parent calls it */
    const BdrvChildClass *klass;
    int role;     /* BDRV_CHILD_* */
    void *opaque; /* the parent: BlockDriverState (parent_is_bds) or the owner's object */
    uint64_t perm, shared_perm;        /* atomic: the main thread writes, the graph's reads */
    bool quiesced_parent;              /* drained_begin was delivered for a drained bs */
    bool stay_at_node;                 /* bdrv_replace_node() leaves the edge where it is */
    bool frozen;                       /* the edge may not be changed while a job relies on it */
    LIST_ENTRY(BdrvChild) next;        /* bs_parent->children */
    LIST_ENTRY(BdrvChild) next_parent; /* bs->parents */
};

/* What the edge's user may do to the node, BLK_PERM_*. Any thread. */
static inline uint64_t bdrv_child_perm(const BdrvChild *child)
{
    return __atomic_load_n(&child->perm, __ATOMIC_RELAXED);
}

/*
 * Links a root parent (BlockBackend, job, export). Takes over the caller's reference to bs in any
 * case.
 */
BdrvChild *bdrv_root_attach_child(BlockDriverState *bs, const char *name,
                                  const BdrvChildClass *klass, int role, uint64_t perm,
                                  uint64_t shared, void *opaque, GError **errp);
/* Unlinks and gives the edge's reference back to be dropped (later, by the main loop). */
void bdrv_root_unref_child(BdrvChild *child);
/* A node's edge to another node; takes over the caller's reference to child_bs in any case. */
BdrvChild *bdrv_attach_child(BlockDriverState *parent, BlockDriverState *child_bs, const char *name,
                             int role, GError **errp);
void bdrv_unref_child(BlockDriverState *parent, BdrvChild *child);
/*
 * Opens the node that a driver's option refers to (by name or inline) and attaches it. NULL ref:
 * error. For drivers' bdrv_co_open: the first child decides in which context the new node is. Any
 * thread; returns in the thread of the parent's graph, where the driver goes on opening.
 */
BdrvChild *coroutine_fn bdrv_co_open_child(BlockDriverState *parent, const BlockdevRef *ref,
                                           const char *name, int role, GError **errp);
/* Changes what a root parent does and tolerates; on failure everything is as before. */
bool bdrv_child_try_set_perm(BdrvChild *child, uint64_t perm, uint64_t shared, GError **errp);
/* Asks the drivers of bs and below again what they need. */
bool bdrv_refresh_perms(BlockDriverState *bs, GError **errp);
/*
 * Inserts filter (no parents yet) between bs and all of bs's parents (stay_at_node ones excepted),
 * and makes bs the filter's child `file`. Drained section required. On failure everything is as
 * before.
 */
bool bdrv_append_filter(BlockDriverState *filter, BlockDriverState *bs, GError **errp);
/*
 * Makes `to` the child of all of from's parents (stay_at_node ones excepted). Drained sections on
 * both required.
 */
bool bdrv_replace_node(BlockDriverState *from, BlockDriverState *to, GError **errp);
/* The same for some of the parents: those for which keep(child, opaque) is false. */
bool bdrv_replace_node_if(BlockDriverState *from, BlockDriverState *to,
                          bool (*skip)(BdrvChild *child, void *opaque), void *opaque,
                          GError **errp);
typedef struct BdrvReplace {
    bool (*stays)(BdrvChild *child, void *opaque); /* parents that keep their edge; NULL: none */
    void *opaque;
} BdrvReplace;
/* The same for the parents of n nodes, all in one step: on failure each is where it was. */
bool bdrv_replace_nodes(BlockDriverState *const *from, unsigned n, BlockDriverState *to,
                        const BdrvReplace *how, GError **errp);
/*
 * Points one edge at another node (NULL: nothing); drained section required. Permissions are
 * checked.
 */
bool bdrv_replace_child(BdrvChild *child, BlockDriverState *to, GError **errp);
/* Sets or clears the backing edge. */
bool bdrv_set_backing_hd(BlockDriverState *bs, BlockDriverState *backing, GError **errp);

/* --- looking around --- */

BlockDriverState *bdrv_skip_filters(BlockDriverState *bs);
/* The backing file behind bs's filters, filters on it included; NULL without. */
BlockDriverState *bdrv_cow_bs(BlockDriverState *bs);
/* The child a filter shows, or NULL. */
BlockDriverState *bdrv_filter_bs(BlockDriverState *bs);
bool bdrv_chain_contains(BlockDriverState *top, BlockDriverState *base);
/* True when `needle` is bs or anywhere below it, by any edge. */
bool bdrv_graph_contains(BlockDriverState *bs, BlockDriverState *needle);

/* --- operations that others forbid ("op blockers") --- */

/* A command asks for its own type; a type comes with the first command that does. */
typedef enum BlockOpType {
    BLOCK_OP_TYPE_RESIZE,
    BLOCK_OP_TYPE_DRIVE_DEL,
    BLOCK_OP_TYPE_EXTERNAL_SNAPSHOT,
    BLOCK_OP_TYPE_REPLACE,
    BLOCK_OP_TYPE_MIRROR_TARGET,
    BLOCK_OP_TYPE_MIRROR_SOURCE,
    BLOCK_OP_TYPE_MAX,
} BlockOpType;

/*
 * Forbids `op` (or all) on bs, with the reason a refusal will quote; reason is the key for unblock
 * and copied.
 */
void bdrv_op_block(BlockDriverState *bs, BlockOpType op, const char *reason);
void bdrv_op_block_all(BlockDriverState *bs, const char *reason);
void bdrv_op_unblock(BlockDriverState *bs, BlockOpType op, const char *reason);
void bdrv_op_unblock_all(BlockDriverState *bs, const char *reason);
/* True, with "Node 'x' is busy: REASON" in errp, when the operation is forbidden. */
bool bdrv_op_is_blocked(BlockDriverState *bs, BlockOpType op, GError **errp);

/* --- drained sections --- */

/*
 * A drained section of bs and of all that is above it. On return no request is in flight there, and
 * none starts until the matching end, because parents hold new requests back. Sections nest and may
 * be held by several coroutines. The caller may be in the main context or in the graph's; it
 * returns in the context it was called in. A job that calls this for its own nodes does not wait
 * for itself. After BDRV_DRAIN_WARN_NS it reports on stderr what it still waits for, and goes on
 * waiting.
 */
void coroutine_fn bdrv_co_drained_begin(BlockDriverState *bs);
void coroutine_fn bdrv_co_drained_end(BlockDriverState *bs);
#define BDRV_DRAIN_WARN_NS (10 * NANOSECONDS_PER_SECOND)
/*
 * The same for a command that a client waits for. After limit_ns it gives up, the section is not
 * held, and errp says what it waited for. Requests go on as before.
 */
bool coroutine_fn bdrv_co_drained_begin_within(BlockDriverState *bs, int64_t limit_ns,
                                               GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* As long as guests may be held up for a command that in the end does nothing. */
#define BDRV_DRAIN_COMMAND_NS (10 * NANOSECONDS_PER_SECOND)
/*
 * "node 'x': write of 65536 bytes at 0 for 12 s; ...": what a drain of bs would wait for. The
 * caller frees.
 */
char *bdrv_describe_in_flight(BlockDriverState *bs);
/* Drains every graph, then flushes all nodes side by side. Main context, as bdrv_co_flush_all(). */
void coroutine_fn bdrv_co_drain_all(void);
/*
 * As bdrv_co_drain_all(), but ends after limit_ns, with -ETIMEDOUT and what it has waited for; 0 is
 * no limit. Otherwise 0, or the first -errno of a flush. Nothing is drained on return.
 */
int coroutine_fn bdrv_co_quiesce_all(int64_t limit_ns, GError **errp);
/*
 * Writes back the caches of every node that is open for writing, also of those that have no parent.
 * 0, or the first -errno, whose node errp names; the others are flushed nevertheless.
 */
int coroutine_fn bdrv_co_flush_all(GError **errp);
/*
 * Closes all that is left; end of shutdown. Nodes that are still referenced are reported as bugs
 * under -trace only.
 */
void coroutine_fn bdrv_co_close_all(void);

/* --- drivers --- */

/* The driver of a format or protocol name, NULL when there is none ("qcow2", "file", "nbd"). */
const BlockDriver *bdrv_find_format(const char *format_name);
const BlockDriver *bdrv_driver_of(BlockdevDriver driver);
/* The protocol driver whose prefix the name starts with; NULL for plain paths and "json:". */
const BlockDriver *bdrv_find_protocol(const char *filename);
/* Calls fn(name, opaque) for every driver that users can open, sorted by name (format=help). */
void bdrv_iterate_format(void (*fn)(const char *name, void *opaque), void *opaque);

/*
 * Creates an image as `qemu-img create` would: the file with its driver's defaults, then the format
 * in it. size -1: taken from the backing file. backing_* NULL: none. Works for protocols that
 * already exist (nbd) by doing nothing to them.
 */
bool coroutine_fn bdrv_co_img_create(const char *filename, const char *format, int64_t size,
                                     const char *backing_filename, const char *backing_format,
                                     GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
