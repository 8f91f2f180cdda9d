/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Permissions: what each edge does to its node and lets others do.
 *
 * A change recomputes the edges of every node at or below the changed ones, from parents to
 * children. Only then it checks that no two parents of a node conflict, and after that that each
 * driver agrees (image locks, read-only files). What is tried stands in the transaction; the edges
 * themselves, which requests look at in other threads, change when all have agreed.
 */
#include "block/graph/graph.h"

#include <string.h>
#include "util/error.h"

/* What is tried on an edge. */
typedef struct Trial {
    uint64_t perm, shared;
} Trial;

struct BdrvPermTxn {
    GPtrArray *roots;   /* BlockDriverState *, where recomputation starts */
    GHashTable *trials; /* BdrvChild * -> Trial *, for edges that are to change */
};

static const char *perm_name(uint64_t bit)
{
    switch (bit) {
    case BLK_PERM_CONSISTENT_READ:
        return "consistent read";
    case BLK_PERM_WRITE:
        return "write";
    case BLK_PERM_WRITE_UNCHANGED:
        return "write unchanged";
    case BLK_PERM_RESIZE:
        return "resize";
    default:
        g_assert_not_reached();
    }
}

char *bdrv_perm_names(uint64_t perm)
{
    const char *words[5] = {NULL};
    size_t n = 0;

    for (uint64_t bit = 1; bit & BLK_PERM_ALL; bit <<= 1) {
        if (perm & bit) {
            words[n++] = perm_name(bit);
        }
    }
    return g_strjoinv(", ", (char **)words);
}

BdrvPermTxn *bdrv_perm_txn_new(void)
{
    BdrvPermTxn *txn = g_new0(BdrvPermTxn, 1);

    txn->roots = g_ptr_array_new();
    txn->trials = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    return txn;
}

void bdrv_perm_txn_free(BdrvPermTxn *txn)
{
    g_ptr_array_free(txn->roots, true);
    g_hash_table_unref(txn->trials);
    g_free(txn);
}

void bdrv_perm_txn_add(BdrvPermTxn *txn, BlockDriverState *bs)
{
    g_ptr_array_add(txn->roots, bs);
}

void bdrv_perm_txn_set(BdrvPermTxn *txn, BdrvChild *child, uint64_t perm, uint64_t shared)
{
    Trial *trial = g_new(Trial, 1);

    *trial = (Trial){.perm = perm, .shared = shared};
    g_hash_table_insert(txn->trials, child, trial);
}

/* What the edge would do and share after the transaction. */
static Trial tried_on(const BdrvPermTxn *txn, BdrvChild *child)
{
    const Trial *trial = g_hash_table_lookup(txn->trials, child);

    return trial ? *trial : (Trial){.perm = child->perm, .shared = child->shared_perm};
}

static Trial sum_of_parents(const BdrvPermTxn *txn, BlockDriverState *bs)
{
    Trial sum = {.perm = 0, .shared = BLK_PERM_ALL};
    BdrvChild *parent;

    LIST_FOREACH(parent, &bs->parents, next_parent) {
        Trial one = tried_on(txn, parent);

        sum.perm |= one.perm;
        sum.shared &= one.shared;
    }
    return sum;
}

/*
 * Reverse post-order over children: every node comes after all of its parents that are in the set.
 */
static void topological_visit(BlockDriverState *bs, GHashTable *seen, GPtrArray *order)
{
    BdrvChild *child;

    if (!g_hash_table_add(seen, bs)) {
        return;
    }
    LIST_FOREACH(child, &bs->children, next) {
        if (child->bs) {
            topological_visit(child->bs, seen, order);
        }
    }
    g_ptr_array_insert(order, 0, bs);
}

static char *parent_desc(BdrvChild *child)
{
    return child->klass->get_parent_desc ? child->klass->get_parent_desc(child)
                                         : g_strdup("another user");
}

static void set_conflict_error(BlockDriverState *bs, uint64_t perm, BdrvChild *user,
                               BdrvChild *other, GError **errp)
{
    g_autofree char *perms = bdrv_perm_names(perm);
    g_autofree char *user_desc = parent_desc(user);
    g_autofree char *other_desc = parent_desc(other);

    error_setg(errp,
               "Permission conflict on node '%s': '%s' is required by %s (link '%s'), but unshared "
               "by %s (link '%s')",
               bs->node_name, perms, user_desc, user->name, other_desc, other->name);
}

static bool check_conflicts(const BdrvPermTxn *txn, BlockDriverState *bs, GError **errp)
{
    BdrvChild *user, *other;

    LIST_FOREACH(user, &bs->parents, next_parent) {
        LIST_FOREACH(other, &bs->parents, next_parent) {
            uint64_t clash = tried_on(txn, user).perm & ~tried_on(txn, other).shared;

            if (user != other && clash) {
                set_conflict_error(bs, clash, user, other, errp);
                return false;
            }
        }
    }
    return true;
}

void bdrv_default_perms(BlockDriverState *bs, BdrvChild *child, int role, uint64_t perm,
                        uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    bool writable = !bdrv_is_read_only(bs);

    if (role & BDRV_CHILD_FILTERED) {
        *nperm = perm;
        *nshared = shared;
        return;
    }
    if (role & BDRV_CHILD_COW) {
        /*
         * Backing files are only read. A parent that tolerates changes of the overlay's contents
         * tolerates them here too.
         */
        *nperm = perm & BLK_PERM_CONSISTENT_READ;
        *nshared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
        if (shared & BLK_PERM_WRITE) {
            *nshared |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
        }
        return;
    }
    *nperm = perm & (BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED |
                     BLK_PERM_RESIZE);
    *nshared = shared;
    if (role & BDRV_CHILD_METADATA) {
        /*
         * Structures must be read whole and may be written (and the file grown) at any time while
         * open for writing.
         */
        *nperm |= BLK_PERM_CONSISTENT_READ;
        if (writable) {
            *nperm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
        }
        *nshared &= ~(uint64_t)(BLK_PERM_WRITE | BLK_PERM_RESIZE);
    } else {
        if (perm & BLK_PERM_WRITE) {
            *nperm |= BLK_PERM_RESIZE; /* data files grow by being written */
        }
        *nshared &= ~(uint64_t)BLK_PERM_RESIZE;
    }
}

static void propagate(BdrvPermTxn *txn, BlockDriverState *bs)
{
    Trial sum = sum_of_parents(txn, bs);
    BdrvChild *child;

    LIST_FOREACH(child, &bs->children, next) {
        Trial now = tried_on(txn, child);
        uint64_t nperm, nshared;

        if (!child->bs) {
            continue;
        }
        if (!bs->drv || (bs->open_flags & BDRV_O_INACTIVE)) {
            nperm = 0;
            nshared = BLK_PERM_ALL;
        } else if (bs->drv->bdrv_child_perm) {
            bs->drv->bdrv_child_perm(bs, child, child->role, sum.perm, sum.shared, &nperm,
                                     &nshared);
        } else {
            bdrv_default_perms(bs, child, child->role, sum.perm, sum.shared, &nperm, &nshared);
        }
        if (bs->force_share) {
            nshared = BLK_PERM_ALL;
        }
        if (nperm != now.perm || nshared != now.shared) {
            bdrv_perm_txn_set(txn, child, nperm, nshared);
        }
    }
}

static bool check_children_active(BlockDriverState *bs, GError **errp)
{
    BdrvChild *child;

    LIST_FOREACH(child, &bs->children, next) {
        if (!(bs->open_flags & BDRV_O_INACTIVE) && child->bs &&
            (child->bs->open_flags & BDRV_O_INACTIVE)) {
            error_setg(errp, "Inactive node '%s' can't be a '%s' child of active node '%s'",
                       child->bs->node_name, child->name, bs->node_name);
            return false;
        }
    }
    return true;
}

static bool check_node(const BdrvPermTxn *txn, BlockDriverState *bs, GError **errp)
{
    const uint64_t writes = BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE;
    Trial sum = sum_of_parents(txn, bs);

    if (!check_conflicts(txn, bs, errp)) {
        return false;
    }
    if ((sum.perm & writes) && bdrv_is_read_only(bs)) {
        error_setg(errp, "Block node '%s' is read-only", bs->node_name);
        return false;
    }
    if ((sum.perm & writes) && (bs->open_flags & BDRV_O_INACTIVE)) {
        error_setg(errp, "Block node '%s' is inactive: another process owns the image",
                   bs->node_name);
        return false;
    }
    if (!check_children_active(bs, errp)) {
        return false;
    }
    if (bs->force_share && (sum.perm & ~(uint64_t)BLK_PERM_CONSISTENT_READ)) {
        error_setg(errp, "Node '%s' was opened with force-share=on and can only be read",
                   bs->node_name);
        return false;
    }
    if (bs->drv && BDRV_OP(bs->drv, protocol, bdrv_check_perm)) {
        return bs->drv->protocol->bdrv_check_perm(bs, sum.perm, sum.shared, errp);
    }
    return true;
}

static void commit_edges(BdrvPermTxn *txn)
{
    GHashTableIter iter;
    gpointer child, value;

    g_hash_table_iter_init(&iter, txn->trials);
    while (g_hash_table_iter_next(&iter, &child, &value)) {
        BdrvChild *edge = child;
        const Trial *trial = value;

        __atomic_store_n(&edge->perm, trial->perm, __ATOMIC_RELAXED);
        __atomic_store_n(&edge->shared_perm, trial->shared, __ATOMIC_RELAXED);
    }
}

static void commit_node(BdrvPermTxn *txn, BlockDriverState *bs)
{
    Trial sum = sum_of_parents(txn, bs);

    bs->cumulative_perm = sum.perm;
    bs->cumulative_shared = sum.shared;
    if (bs->drv && BDRV_OP(bs->drv, protocol, bdrv_set_perm)) {
        bs->drv->protocol->bdrv_set_perm(bs, bs->cumulative_perm, bs->cumulative_shared);
    }
}

bool bdrv_perm_txn_run_on(BdrvPermTxn *txn, BlockDriverState **failed, GError **errp)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) order = g_ptr_array_new();
    guint checked = 0;
    bool ok = true;

    bdrv_assert_main_thread();
    for (guint i = 0; i < txn->roots->len; i++) {
        topological_visit(g_ptr_array_index(txn->roots, i), seen, order);
    }
    for (guint i = 0; i < order->len; i++) {
        propagate(txn, g_ptr_array_index(order, i));
    }
    for (; checked < order->len && ok; checked++) {
        *failed = g_ptr_array_index(order, checked);
        ok = check_node(txn, *failed, errp);
    }
    if (ok) {
        commit_edges(txn);
        for (guint i = 0; i < order->len; i++) {
            commit_node(txn, g_ptr_array_index(order, i));
        }
    } else {
        for (guint i = 0; i < checked; i++) {
            BlockDriverState *bs = g_ptr_array_index(order, i);

            if (bs->drv && BDRV_OP(bs->drv, protocol, bdrv_abort_perm_update)) {
                bs->drv->protocol->bdrv_abort_perm_update(bs);
            }
        }
    }
    bdrv_perm_txn_free(txn);
    return ok;
}

bool bdrv_perm_txn_run(BdrvPermTxn *txn, GError **errp)
{
    BlockDriverState *failed;

    return bdrv_perm_txn_run_on(txn, &failed, errp);
}

bool bdrv_refresh_perms(BlockDriverState *bs, GError **errp)
{
    BdrvPermTxn *txn = bdrv_perm_txn_new();

    bdrv_perm_txn_add(txn, bs);
    return bdrv_perm_txn_run(txn, errp);
}
