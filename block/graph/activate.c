/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ownership of images: nodes are active, or inactive while another process has them.
 *
 * An inactive node locks nothing, its parents may do nothing, and their requests fail with -EPERM.
 * Below an active node all are active. The steps of a change, for a set of nodes at once:
 *
 *   inactivate: closing parents awaited; users asked; drained; from parents to children written back
 *               (caches, bitmaps, flush); users asked again; marked, permissions and locks dropped
 *               in one step
 *   activate:   drained; unmarked, permissions and locks taken in one step, or none; from children
 *               to parents read anew (metadata, bitmaps, size)
 *
 * A step that fails takes those before it back, so that a set is active or inactive as a whole.
 * One change runs at a time.
 */
#include "block/graph/activate.h"

#include <errno.h>
#include <string.h>
#include "block/dirty-bitmap.h"
#include "block/graph/graph.h"
#include "trace/trace-block.h"
#include "util/error.h"

/* The nodes of one change, parents before children, referenced. */
typedef struct NodeSet {
    GPtrArray *nodes;
    guint drained; /* so many of them, from the first */
} NodeSet;

static bool default_inactive;
static bool (*activation_check)(GError **errp); /* NULL: none */

bool bdrv_is_inactive(const BlockDriverState *bs)
{
    return bs->open_flags & BDRV_O_INACTIVE;
}

bool bdrv_check_active(const BlockDriverState *bs, GError **errp)
{
    if (bdrv_is_inactive(bs)) {
        error_setg(errp, "Block node '%s' is inactive: another process owns the image",
                   bs->node_name);
        return false;
    }
    return true;
}

void bdrv_set_default_inactive(bool inactive)
{
    default_inactive = inactive;
}

int bdrv_default_open_flags(void)
{
    return default_inactive ? BDRV_O_INACTIVE : 0;
}

/* Held through a change, by one coroutine of the main thread. */
static CoMutex *change_lock(void)
{
    static CoMutex lock;
    static bool ready;

    if (!ready) {
        qemu_co_mutex_init(&lock);
        ready = true;
    }
    return &lock;
}

/* --- sets of nodes --- */

static BlockDriverState *node_at(const NodeSet *set, guint i)
{
    return g_ptr_array_index(set->nodes, i);
}

static bool in_set(const NodeSet *set, const BlockDriverState *bs)
{
    return g_ptr_array_find(set->nodes, bs, NULL);
}

/* Open and not on its way out. */
static bool is_usable(const BlockDriverState *bs)
{
    return bs->drv && bs->is_open && !bs->closing;
}

/* Adds bs and what is below it as far as it is in the state `inactive`. */
static void add_below(NodeSet *set, GHashTable *seen, BlockDriverState *bs, bool inactive)
{
    BdrvChild *child;

    if (bdrv_is_inactive(bs) != inactive || !is_usable(bs) || !g_hash_table_add(seen, bs)) {
        return;
    }
    LIST_FOREACH(child, &bs->children, next) {
        if (child->bs) {
            add_below(set, seen, child->bs, inactive);
        }
    }
    g_ptr_array_add(set->nodes, bs); /* children first: turned round at the end */
}

/* bs and those below it that are in the state `inactive`; NULL: all such nodes. */
static void set_init(NodeSet *set, BlockDriverState *bs, bool inactive)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    GPtrArray *nodes = g_ptr_array_new();

    *set = (NodeSet){.nodes = nodes};
    if (bs) {
        add_below(set, seen, bs, inactive);
    } else {
        TAILQ_FOREACH(bs, &block_graph()->nodes, all_nodes) {
            add_below(set, seen, bs, inactive);
        }
    }
    set->nodes = g_ptr_array_new();
    for (guint i = nodes->len; i-- > 0;) {
        bs = g_ptr_array_index(nodes, i);
        bdrv_ref(bs);
        g_ptr_array_add(set->nodes, bs);
    }
    g_ptr_array_free(nodes, true);
}

static void coroutine_fn set_clear(NodeSet *set)
{
    for (guint i = 0; i < set->drained; i++) {
        bdrv_co_drained_end(node_at(set, i));
    }
    for (guint i = 0; i < set->nodes->len; i++) {
        bdrv_co_unref(node_at(set, i));
    }
    g_ptr_array_free(set->nodes, true);
}

static bool coroutine_fn set_drain(NodeSet *set, GError **errp)
{
    for (; set->drained < set->nodes->len; set->drained++) {
        if (!bdrv_co_drained_begin_within(node_at(set, set->drained), BDRV_DRAIN_COMMAND_NS,
                                          errp)) {
            return false;
        }
    }
    return true;
}

/* Marks the nodes, and gives the edges from outside the graph what they may do then. */
static bool set_mark(NodeSet *set, bool inactive, BlockDriverState **failed, GError **errp)
{
    BdrvPermTxn *txn = bdrv_perm_txn_new();

    for (guint i = 0; i < set->nodes->len; i++) {
        BlockDriverState *bs = node_at(set, i);
        BdrvChild *edge;

        __atomic_fetch_xor(&bs->open_flags, BDRV_O_INACTIVE, __ATOMIC_RELAXED); /* queries look */
        bdrv_perm_txn_add(txn, bs);
        LIST_FOREACH(edge, &bs->parents, next_parent) {
            uint64_t perm = 0, shared = BLK_PERM_ALL;

            if (edge->klass->parent_is_bds) {
                continue;
            }
            if (!inactive && edge->klass->active_perms) {
                edge->klass->active_perms(edge, &perm, &shared);
            }
            bdrv_perm_txn_set(txn, edge, perm, shared);
        }
    }
    if (bdrv_perm_txn_run_on(txn, failed, errp)) {
        return true;
    }
    for (guint i = 0; i < set->nodes->len; i++) {
        node_at(set, i)->open_flags ^= BDRV_O_INACTIVE;
    }
    return false;
}

/* --- what drivers do; their I/O runs in the thread of the graph --- */

static int coroutine_fn co_write_back(BlockDriverState *bs)
{
    AioContext *from = bdrv_co_enter_graph(bs);
    int ret = bdrv_co_flush(bs);

    if (ret == 0 && bs->drv->bdrv_co_inactivate) {
        ret = bs->drv->bdrv_co_inactivate(bs);
    }
    bdrv_co_leave_graph(bs, from);
    return ret;
}

static bool coroutine_fn co_read_anew(BlockDriverState *bs, GError **errp)
{
    AioContext *from = bdrv_co_enter_graph(bs);
    bool ok = !bs->drv->bdrv_co_invalidate_cache || bs->drv->bdrv_co_invalidate_cache(bs, errp);
    int64_t len = ok ? bdrv_co_getlength(bs) : 0;

    bdrv_co_leave_graph(bs, from);
    if (len < 0) {
        error_setg_errno(errp, -len, "Could not get the size of the image");
        return false;
    }
    bdrv_refresh_limits(bs);
    return ok;
}

/* Takes back co_write_back() of the first n nodes, whose locks are still held. */
static void coroutine_fn co_take_back(NodeSet *set, guint n)
{
    while (n-- > 0) {
        g_autoptr(GError) err = NULL;

        if (!co_read_anew(node_at(set, n), &err)) {
            error_report("Block node '%s' could not be read again: %s", node_at(set, n)->node_name,
                         err->message);
        }
    }
}

/* --- inactive --- */

static bool check_edge(NodeSet *set, BdrvChild *edge, GError **errp)
{
    g_autofree char *desc = NULL;

    if (edge->klass->parent_is_bds) {
        if (bdrv_is_inactive(edge->opaque) || in_set(set, edge->opaque)) {
            return true;
        }
    } else if (edge->klass->can_inactivate && edge->klass->can_inactivate(edge)) {
        return true;
    }
    desc = edge->klass->get_parent_desc ? edge->klass->get_parent_desc(edge) : NULL;
    error_setg(errp, "Cannot inactivate node '%s': it is in use by %s", edge->bs->node_name,
               desc ? desc : "another user");
    return false;
}

/* A stored bitmap leaves with its image, and its user would lose it. */
static bool check_bitmaps(BlockDriverState *bs, GError **errp)
{
    BdrvDirtyBitmap *bitmap = NULL;

    while ((bitmap = bdrv_dirty_bitmap_next(bs, bitmap))) {
        if (bdrv_dirty_bitmap_get_persistence(bitmap) && bdrv_dirty_bitmap_busy(bitmap)) {
            error_setg(errp, "Cannot inactivate node '%s': its bitmap '%s' is in use",
                       bs->node_name, bdrv_dirty_bitmap_name(bitmap));
            return false;
        }
    }
    return true;
}

/* Jobs first: what else they hold says less about what is in the way. */
static bool check_users(NodeSet *set, GError **errp)
{
    BdrvChild *edge;

    for (int others = 0; others < 2; others++) {
        for (guint i = 0; i < set->nodes->len; i++) {
            LIST_FOREACH(edge, &node_at(set, i)->parents, next_parent) {
                bool other = edge->klass->parent_is_bds || edge->klass->can_inactivate;

                if (other == others && !check_edge(set, edge, errp)) {
                    return false;
                }
            }
        }
    }
    for (guint i = 0; i < set->nodes->len; i++) {
        if (!check_bitmaps(node_at(set, i), errp)) {
            return false;
        }
    }
    return true;
}

static int coroutine_fn co_inactivate_set(NodeSet *set, GError **errp)
{
    BlockDriverState *failed;

    if (!check_users(set, errp)) {
        return -EBUSY;
    }
    if (!set_drain(set, errp)) {
        return -ETIMEDOUT;
    }
    for (guint i = 0; i < set->nodes->len; i++) {
        BlockDriverState *bs = node_at(set, i);
        int ret = co_write_back(bs);

        trace_bdrv_inactivate(bs->node_name, ret);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Cannot inactivate node '%s': could not write it back",
                             bs->node_name);
            co_take_back(set, i);
            return ret;
        }
    }
    /* Writing back yielded: a new user may have taken a permission. */
    if (!check_users(set, errp) || !set_mark(set, true, &failed, errp)) {
        co_take_back(set, set->nodes->len);
        return -EBUSY;
    }
    return 0;
}

/* What is below bs and has other active nodes above it stays with them. */
static void coroutine_fn leave_to_others(NodeSet *set, BlockDriverState *top)
{
    for (guint i = 0; i < set->nodes->len;) {
        BlockDriverState *bs = node_at(set, i);
        bool shared = false;
        BdrvChild *edge;

        LIST_FOREACH(edge, &bs->parents, next_parent) {
            shared |= edge->klass->parent_is_bds && !bdrv_is_inactive(edge->opaque) &&
                      !in_set(set, edge->opaque);
        }
        if (shared && bs != top) {
            g_ptr_array_remove_index(set->nodes, i); /* its children come later */
            bdrv_co_unref(bs);
        } else {
            i++;
        }
    }
}

static BlockDriverState *find_closing_above(const NodeSet *set)
{
    BlockDriverState *closing = NULL;

    for (guint i = 0; i < set->nodes->len && !closing; i++) {
        closing = bdrv_closing_parent(node_at(set, i));
    }
    return closing;
}

/* As set_init(), once no node above the set is on its way out: it still writes to what is below. */
static bool coroutine_fn co_set_init_active(NodeSet *set, BlockDriverState *top, GError **errp)
{
    BdrvClosingWait wait = {0};
    BlockDriverState *closing;

    set_init(set, top, false);
    while ((closing = find_closing_above(set)) && bdrv_co_closing_wait(&wait)) {
        set_clear(set);
        set_init(set, top, false);
    }
    bdrv_closing_wait_end(&wait);
    if (closing) {
        error_setg(errp, "Cannot inactivate nodes: node '%s' was not closed in time",
                   closing->node_name);
    }
    return !closing;
}

static int coroutine_fn co_inactivate(BlockDriverState *top, GError **errp)
{
    int ret = -ETIMEDOUT;
    NodeSet set;

    qemu_co_mutex_lock(change_lock());
    if (co_set_init_active(&set, top, errp)) {
        if (top) {
            leave_to_others(&set, top);
        }
        ret = co_inactivate_set(&set, errp);
    }
    set_clear(&set);
    qemu_co_mutex_unlock(change_lock());
    return ret;
}

int coroutine_fn bdrv_co_inactivate(BlockDriverState *bs, GError **errp)
{
    return co_inactivate(bs, errp);
}

int coroutine_fn bdrv_co_inactivate_all(GError **errp)
{
    return co_inactivate(NULL, errp);
}

/* --- active --- */

/* The nodes from `from` on were read; what that changed in the images is put right for the owner.
 */
static void coroutine_fn co_give_up(NodeSet *set, guint from)
{
    BlockDriverState *failed;

    for (guint i = from; i < set->nodes->len; i++) {
        int ret = co_write_back(node_at(set, i));

        if (ret < 0) {
            error_report("Block node '%s' could not be written back: %s",
                         node_at(set, i)->node_name, strerror(-ret));
        }
    }
    if (!set_mark(set, true, &failed, NULL)) {
        g_assert_not_reached(); /* giving a permission up is never refused */
    }
}

static bool coroutine_fn co_activate_set(NodeSet *set, GError **errp)
{
    BlockDriverState *failed = NULL;

    if (!set_drain(set, errp)) {
        return false;
    }
    if (!set_mark(set, false, &failed, errp)) {
        if (failed) {
            g_prefix_error(errp, "Could not activate node '%s': ", failed->node_name);
        }
        return false;
    }
    for (guint i = set->nodes->len; i-- > 0;) {
        BlockDriverState *bs = node_at(set, i);
        bool ok = co_read_anew(bs, errp);

        trace_bdrv_activate(bs->node_name, ok);
        if (!ok) {
            g_prefix_error(errp, "Could not activate node '%s': ", bs->node_name);
            co_give_up(set, i + 1);
            return false;
        }
    }
    return true;
}

static bool coroutine_fn co_activate(BlockDriverState *top, GError **errp)
{
    NodeSet set;
    bool ok;

    qemu_co_mutex_lock(change_lock());
    set_init(&set, top, true);
    ok = co_activate_set(&set, errp);
    set_clear(&set);
    qemu_co_mutex_unlock(change_lock());
    return ok;
}

void bdrv_set_activation_check(bool (*check)(GError **errp))
{
    activation_check = check;
}

bool coroutine_fn bdrv_co_activate(BlockDriverState *bs, GError **errp)
{
    if (bdrv_is_inactive(bs) && activation_check && !activation_check(errp)) {
        return false;
    }
    return co_activate(bs, errp);
}

bool coroutine_fn bdrv_co_activate_all(GError **errp)
{
    default_inactive = false;
    return co_activate(NULL, errp);
}
