/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Permissions: what each edge does to its node and lets others do.
 *
 * A change recomputes the edges of every node at or below the changed ones, from parents to
 * children, and only then checks: first that no two parents of a node conflict, then that each
 * driver agrees (image locks, read-only files). A failure restores all edges.
 */
#include "block/graph/graph.h"

#include <string.h>
#include "util/error.h"

typedef struct SavedEdge {
    BdrvChild *child;
    uint64_t perm, shared;
} SavedEdge;

struct BdrvPermTxn {
    GPtrArray *roots; /* BlockDriverState *, where recomputation starts */
    GArray *saved;    /* SavedEdge, in the order of change */
};

char *bdrv_perm_names(uint64_t perm)
{
    static const struct {
        uint64_t perm;
        const char *name;
    } names[] = {
        {BLK_PERM_CONSISTENT_READ, "consistent read"},
        {BLK_PERM_WRITE, "write"},
        {BLK_PERM_WRITE_UNCHANGED, "write unchanged"},
        {BLK_PERM_RESIZE, "resize"},
    };
    GString *s = g_string_new(NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        if (perm & names[i].perm) {
            g_string_append_printf(s, "%s%s", s->len ? ", " : "", names[i].name);
        }
    }
    return g_string_free(s, false);
}

BdrvPermTxn *bdrv_perm_txn_new(void)
{
    BdrvPermTxn *txn = g_new0(BdrvPermTxn, 1);

    txn->roots = g_ptr_array_new();
    txn->saved = g_array_new(false, false, sizeof(SavedEdge));
    return txn;
}

void bdrv_perm_txn_free(BdrvPermTxn *txn)
{
    g_ptr_array_free(txn->roots, true);
    g_array_free(txn->saved, true);
    g_free(txn);
}

void bdrv_perm_txn_add(BdrvPermTxn *txn, BlockDriverState *bs)
{
    g_ptr_array_add(txn->roots, bs);
}

void bdrv_perm_txn_set(BdrvPermTxn *txn, BdrvChild *child, uint64_t perm, uint64_t shared)
{
    SavedEdge saved = {.child = child, .perm = child->perm, .shared = child->shared_perm};

    g_array_append_val(txn->saved, saved);
    child->perm = perm;
    child->shared_perm = shared;
}

static void cumulative_perms(BlockDriverState *bs, uint64_t *perm, uint64_t *shared)
{
    BdrvChild *parent;

    *perm = 0;
    *shared = BLK_PERM_ALL;
    LIST_FOREACH(parent, &bs->parents, next_parent) {
        *perm |= parent->perm;
        *shared &= parent->shared_perm;
    }
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

static bool check_conflicts(BlockDriverState *bs, GError **errp)
{
    BdrvChild *user, *other;

    LIST_FOREACH(user, &bs->parents, next_parent) {
        LIST_FOREACH(other, &bs->parents, next_parent) {
            uint64_t clash = user->perm & ~other->shared_perm;

            if (user != other && clash) {
                g_autofree char *perms = bdrv_perm_names(clash);
                g_autofree char *a = parent_desc(user);
                g_autofree char *b = parent_desc(other);

                error_setg(
                    errp,
                    "Permission conflict on node '%s': permissions '%s' are both required by %s "
                    "(uses node '%s' as '%s' child) and unshared by %s (uses node '%s' as '%s' "
                    "child)",
                    bs->node_name, perms, a, bs->node_name, user->name, b, bs->node_name,
                    other->name);
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
         * Backing files are only read; whoever tolerates changes of the overlay's contents
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
    uint64_t perm, shared;
    BdrvChild *child;

    cumulative_perms(bs, &perm, &shared);
    LIST_FOREACH(child, &bs->children, next) {
        uint64_t nperm, nshared;

        if (!child->bs) {
            continue;
        }
        if (!bs->drv || (bs->open_flags & BDRV_O_INACTIVE)) {
            nperm = 0;
            nshared = BLK_PERM_ALL;
        } else if (bs->drv->bdrv_child_perm) {
            bs->drv->bdrv_child_perm(bs, child, child->role, perm, shared, &nperm, &nshared);
        } else {
            bdrv_default_perms(bs, child, child->role, perm, shared, &nperm, &nshared);
        }
        if (bs->force_share) {
            nshared = BLK_PERM_ALL;
        }
        if (nperm != child->perm || nshared != child->shared_perm) {
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

static bool check_node(BlockDriverState *bs, GError **errp)
{
    const uint64_t writes = BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE;
    uint64_t perm, shared;

    if (!check_conflicts(bs, errp)) {
        return false;
    }
    cumulative_perms(bs, &perm, &shared);
    if ((perm & writes) && bdrv_is_read_only(bs)) {
        error_setg(errp, "Block node '%s' is read-only", bs->node_name);
        return false;
    }
    if ((perm & writes) && (bs->open_flags & BDRV_O_INACTIVE)) {
        error_setg(errp, "Block node '%s' is inactive: another process owns the image",
                   bs->node_name);
        return false;
    }
    if (!check_children_active(bs, errp)) {
        return false;
    }
    if (bs->force_share && (perm & ~(uint64_t)BLK_PERM_CONSISTENT_READ)) {
        error_setg(errp, "Node '%s' was opened with force-share=on and can only be read",
                   bs->node_name);
        return false;
    }
    if (bs->drv && bs->drv->bdrv_check_perm) {
        return bs->drv->bdrv_check_perm(bs, perm, shared, errp);
    }
    return true;
}

static void commit_node(BlockDriverState *bs)
{
    cumulative_perms(bs, &bs->cumulative_perm, &bs->cumulative_shared);
    if (bs->drv && bs->drv->bdrv_set_perm) {
        bs->drv->bdrv_set_perm(bs, bs->cumulative_perm, bs->cumulative_shared);
    }
}

bool bdrv_perm_txn_run_on(BdrvPermTxn *txn, BlockDriverState **failed, GError **errp)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) order = g_ptr_array_new();
    guint checked = 0;
    bool ok = true;

    for (guint i = 0; i < txn->roots->len; i++) {
        topological_visit(g_ptr_array_index(txn->roots, i), seen, order);
    }
    for (guint i = 0; i < order->len; i++) {
        propagate(txn, g_ptr_array_index(order, i));
    }
    for (; checked < order->len && ok; checked++) {
        *failed = g_ptr_array_index(order, checked);
        ok = check_node(*failed, errp);
    }
    if (ok) {
        for (guint i = 0; i < order->len; i++) {
            commit_node(g_ptr_array_index(order, i));
        }
    } else {
        for (guint i = txn->saved->len; i-- > 0;) {
            SavedEdge *saved = &g_array_index(txn->saved, SavedEdge, i);

            saved->child->perm = saved->perm;
            saved->child->shared_perm = saved->shared;
        }
        for (guint i = 0; i < checked; i++) {
            BlockDriverState *bs = g_ptr_array_index(order, i);

            if (bs->drv && bs->drv->bdrv_abort_perm_update) {
                bs->drv->bdrv_abort_perm_update(bs);
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
