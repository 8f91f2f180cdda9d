/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blockdev-reopen: new options for nodes that stay where they are.
 *
 * All nodes are drained, every driver prepares, flags and edges change, permissions are checked,
 * then drivers commit. Anything that fails before the commit leaves all nodes as they were. Drivers
 * prepare, commit and abort in the graph's thread; the rest happens in the main thread.
 */
#include "block/graph/activate.h"
#include "block/graph/graph.h"

#include <string.h>
#include "qapi/qapi-commands.h"
#include "util/error.h"

typedef struct ReopenEntry {
    BDRVReopenState state;
    BlockdevOptions *new_options; /* owned until committed */
    int old_flags;
    BlockdevDetectZeroesOptions old_detect_zeroes;
    bool prepared;
    bool drained;
    BlockDriverState *old_backing, *old_file; /* referenced while edges may have to go back */
    bool backing_changed, file_changed;
    int64_t new_size; /* bytes, where the file is another one; -1: as it was */
} ReopenEntry;

/* The `file` member of filters and raw, as far as the schema's branches have one. */
static const BlockdevRef *file_option(const BlockdevOptions *o)
{
    switch (o->driver) {
    case BLOCKDEV_DRIVER_RAW:
        return o->u.raw.file;
    case BLOCKDEV_DRIVER_QCOW2:
        return o->u.qcow2.file;
    case BLOCKDEV_DRIVER_THROTTLE:
        return o->u.throttle.file;
    case BLOCKDEV_DRIVER_COPY_ON_READ:
        return o->u.copy_on_read.file;
    default:
        return NULL;
    }
}

static const BlockdevRefOrNull *backing_option(const BlockdevOptions *o)
{
    return o->driver == BLOCKDEV_DRIVER_QCOW2 ? o->u.qcow2.backing : NULL;
}

static bool generic_flags(ReopenEntry *e, GError **errp)
{
    const BlockdevOptions *o = e->state.options;
    int flags = BDRV_O_RDWR | (e->old_flags & (BDRV_O_INACTIVE | BDRV_O_NO_IO));

    if (o->has_read_only && o->read_only) {
        flags &= ~BDRV_O_RDWR;
    }
    if (o->has_auto_read_only && o->auto_read_only) {
        flags |= BDRV_O_AUTO_RDONLY;
    }
    if (o->has_discard && o->discard == BLOCKDEV_DISCARD_OPTIONS_UNMAP) {
        flags |= BDRV_O_UNMAP;
    }
    if (o->cache && o->cache->has_direct && o->cache->direct) {
        flags |= BDRV_O_NOCACHE;
    }
    if (o->cache && o->cache->has_no_flush && o->cache->no_flush) {
        flags |= BDRV_O_NO_FLUSH;
    }
    if (o->has_detect_zeroes && o->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP &&
        !(flags & BDRV_O_UNMAP)) {
        error_setg(errp, "setting detect-zeroes to unmap is not allowed without setting discard "
                         "operation to unmap");
        return false;
    }
    e->state.flags = flags;
    return true;
}

static bool entry_init(ReopenEntry *e, const BlockdevOptions *o, GError **errp)
{
    BlockDriverState *bs;

    if (!o->node_name) {
        error_setg(errp, "node-name not specified");
        return false;
    }
    bs = bdrv_find_node(o->node_name);
    if (!bs) {
        error_setg(errp, "Failed to find node with node-name='%s'", o->node_name);
        return false;
    }
    if (bdrv_driver_of(o->driver) != bs->drv) {
        error_setg(errp, "Cannot change the option 'driver'");
        return false;
    }
    bdrv_ref(bs);
    e->new_options = QAPI_CLONE(BlockdevOptions, o);
    e->state = (BDRVReopenState){.bs = bs, .options = e->new_options};
    e->new_size = -1;
    e->old_flags = bs->open_flags;
    if (o->has_active && o->active == bdrv_is_inactive(bs)) {
        error_setg(errp, "Cannot change the option 'active': blockdev-set-active does that");
        return false;
    }
    e->old_detect_zeroes = bs->detect_zeroes;
    return generic_flags(e, errp);
}

/* Writing needs a file below that can be written; all flags are the new ones. */
static bool check_file_writable(ReopenEntry *e, GError **errp)
{
    BlockDriverState *bs = e->state.bs;

    if (!(e->old_flags & BDRV_O_RDWR) && (e->state.flags & BDRV_O_RDWR) && bs->file &&
        !bs->drv->protocol && bdrv_is_read_only(bs->file->bs)) {
        if (e->state.flags & BDRV_O_AUTO_RDONLY) {
            e->state.flags &= ~BDRV_O_RDWR;
            bs->open_flags = e->state.flags;
            return true;
        }
        error_setg(errp, "Cannot make node '%s' writable: its file node '%s' is read-only",
                   bs->node_name, bs->file->bs->node_name);
        return false;
    }
    return true;
}

static bool coroutine_fn entry_prepare(ReopenEntry *e, GError **errp)
{
    BlockDriverState *bs = e->state.bs;

    if (bs->drv->bdrv_co_reopen_prepare) {
        AioContext *from = bdrv_co_enter_graph(bs);
        bool ok = bs->drv->bdrv_co_reopen_prepare(&e->state, errp);

        bdrv_co_leave_graph(bs, from);
        if (!ok) {
            return false;
        }
    } else if (bs->drv->protocol &&
               ((e->old_flags ^ e->state.flags) & (BDRV_O_RDWR | BDRV_O_NOCACHE))) {
        error_setg(errp, "Block driver '%s' does not support reopening node '%s' this way",
                   bs->drv->format_name, bs->node_name);
        return false;
    }
    e->prepared = true;
    return true;
}

/* Points the edge `child` at what the option names. *old is the previous node, referenced. */
static bool coroutine_fn change_edge(BlockDriverState *bs, BdrvChild *child, const char *to_name,
                                     BlockDriverState **old, bool *changed, GError **errp)
{
    BlockDriverState *to = bdrv_lookup_bs(NULL, to_name, errp);

    if (!to) {
        return false;
    }
    if (child->bs == to) {
        return true;
    }
    if (child->frozen) {
        error_setg(errp, "Cannot change '%s' link of '%s': a job relies on it", child->name,
                   bs->node_name);
        return false;
    }
    if (bdrv_graph_contains(to, bs)) {
        error_setg(errp, "Making '%s' a %s child of '%s' would create a cycle", to_name,
                   child->name, bs->node_name);
        return false;
    }
    *old = child->bs;
    bdrv_ref(*old);
    bdrv_ref(to);
    /* Drained before it moves, so that it stays where it has been moved to. */
    if (bdrv_co_drained_begin_within(to, BDRV_DRAIN_COMMAND_NS, errp)) {
        *changed = bdrv_co_join_contexts(bs, to, errp) && bdrv_replace_child(child, to, errp);
        if (!*changed) {
            bdrv_settle_context_later(to);
        }
        bdrv_co_drained_end(to);
    }
    bdrv_co_unref(to);
    if (!*changed) {
        bdrv_unref_later(*old);
        *old = NULL;
    }
    return *changed;
}

/* The same for the backing file, which may be absent before; NULL to_name: and afterwards. */
static bool coroutine_fn change_backing(BlockDriverState *bs, const char *to_name, GError **errp)
{
    BlockDriverState *to;
    bool ok = false;

    if (!to_name) {
        return bdrv_set_backing_hd(bs, NULL, errp);
    }
    to = bdrv_lookup_bs(NULL, to_name, errp);
    if (!to) {
        return false;
    }
    if (bdrv_graph_contains(to, bs)) {
        error_setg(errp, "Making '%s' a backing child of '%s' would create a cycle", to_name,
                   bs->node_name);
        return false;
    }
    bdrv_ref(to);
    if (bdrv_co_drained_begin_within(to, BDRV_DRAIN_COMMAND_NS, errp)) {
        ok = bdrv_co_join_contexts(bs, to, errp) && bdrv_set_backing_hd(bs, to, errp);
        if (!ok) {
            bdrv_settle_context_later(to);
        }
        bdrv_co_drained_end(to);
    }
    bdrv_co_unref(to);
    return ok;
}

static bool coroutine_fn entry_change_edges(ReopenEntry *e, GError **errp)
{
    BlockDriverState *bs = e->state.bs;
    const BlockdevRefOrNull *backing = backing_option(e->state.options);
    const BlockdevRef *file = file_option(e->state.options);

    if (file && file->type == json_type_string &&
        !change_edge(bs, bs->file, file->u.reference, &e->old_file, &e->file_changed, errp)) {
        return false;
    }
    if (!backing) {
        return true;
    }
    if (backing->type == json_type_object) {
        error_setg(errp, "Node '%s': reopen takes the backing file as a node name or null",
                   bs->node_name);
        return false;
    }
    if (bs->backing) {
        e->old_backing = bs->backing->bs;
    }
    if (backing->type == json_type_null
            ? !e->old_backing
            : e->old_backing && !strcmp(e->old_backing->node_name, backing->u.reference)) {
        e->old_backing = NULL;
        return true;
    }
    if (e->old_backing) {
        bdrv_ref(e->old_backing);
    }
    e->backing_changed = true;
    return change_backing(bs, backing->type == json_type_null ? NULL : backing->u.reference, errp);
}

static bool can_ask_size(const BlockDriver *drv)
{
    return drv->is_filter || drv->driver == BLOCKDEV_DRIVER_RAW;
}

/*
 * A user above that has told its clients the size, or relies on it, does not share resizing. Nodes
 * without metadata show their file's new size to their own users.
 */
static BdrvChild *find_bound_to_size(BlockDriverState *bs)
{
    BdrvChild *edge, *found;

    LIST_FOREACH(edge, &bs->parents, next_parent) {
        if (!(edge->shared_perm & BLK_PERM_RESIZE)) {
            return edge;
        }
        if (edge->klass->parent_is_bds && (edge->role & BDRV_CHILD_FILTERED)) {
            found = find_bound_to_size(edge->opaque);
            if (found) {
                return found;
            }
        }
    }
    return NULL;
}

/* The size that a node over another file will have. Users must be able to live with it. */
static bool coroutine_fn entry_ask_size(ReopenEntry *e, GError **errp)
{
    BlockDriverState *bs = e->state.bs;
    g_autofree char *desc = NULL;
    AioContext *from;
    BdrvChild *bound;
    int64_t len;

    if (!e->file_changed) {
        return true;
    }
    from = bdrv_co_enter_graph(bs);
    len = can_ask_size(bs->drv) && bs->drv->bdrv_co_getlength ? bs->drv->bdrv_co_getlength(bs)
                                                              : bdrv_co_getlength(bs->file->bs);
    bdrv_co_leave_graph(bs, from);
    if (len < 0) {
        error_setg_errno(errp, -len, "Could not get the size of node '%s'",
                         bs->file->bs->node_name);
        return false;
    }
    if (!can_ask_size(bs->drv) || len == bs->total_bytes) {
        return true; /* formats have the size in their metadata */
    }
    bound = find_bound_to_size(bs);
    if (bound) {
        desc = bound->klass->get_parent_desc ? bound->klass->get_parent_desc(bound) : NULL;
        error_setg(errp,
                   "Node '%s' cannot change its size from %" PRId64 " to %" PRId64
                   " bytes: it is in use by %s",
                   bs->node_name, bs->total_bytes, len, desc ? desc : "another user");
        return false;
    }
    e->new_size = len;
    return true;
}

/* Puts edges back; they were there before, so permissions fit. */
static void entry_restore_edges(ReopenEntry *e)
{
    BlockDriverState *bs = e->state.bs;

    if (e->backing_changed) {
        (void)bdrv_set_backing_hd(bs, e->old_backing, NULL);
    }
    if (e->file_changed) {
        (void)bdrv_replace_child(bs->file, e->old_file, NULL);
    }
}

static void coroutine_fn entry_commit(ReopenEntry *e)
{
    BlockDriverState *bs = e->state.bs;

    AioContext *from = bdrv_co_enter_graph(bs);

    if (bs->drv->bdrv_co_reopen_commit) {
        bs->drv->bdrv_co_reopen_commit(&e->state);
    }
    if (e->new_size >= 0) {
        bdrv_set_total_bytes(bs, e->new_size);
    }
    bdrv_co_leave_graph(bs, from);
    qapi_free_BlockdevOptions(bs->options);
    bs->options = g_steal_pointer(&e->new_options);
    bdrv_refresh_limits(bs);
    bdrv_refresh_filename(bs);
}

/* Nodes before those above them, which may want to write to them. */
static void coroutine_fn commit_all(GArray *entries)
{
    g_autofree bool *done = g_new0(bool, entries->len);

    for (guint left = entries->len; left > 0;) {
        for (guint i = 0; i < entries->len; i++) {
            ReopenEntry *e = &g_array_index(entries, ReopenEntry, i);
            bool ready = !done[i];

            for (guint j = 0; ready && j < entries->len; j++) {
                ready = done[j] || j == i ||
                        !bdrv_graph_contains(e->state.bs,
                                             g_array_index(entries, ReopenEntry, j).state.bs);
            }
            if (ready) {
                entry_commit(e);
                done[i] = true;
                left--;
            }
        }
    }
}

static void coroutine_fn entry_abort(ReopenEntry *e)
{
    BlockDriverState *bs = e->state.bs;

    entry_restore_edges(e);
    if (e->prepared && bs->drv->bdrv_co_reopen_abort) {
        AioContext *from = bdrv_co_enter_graph(bs);

        bs->drv->bdrv_co_reopen_abort(&e->state);
        bdrv_co_leave_graph(bs, from);
    }
    bs->open_flags = e->old_flags;
    bs->detect_zeroes = e->old_detect_zeroes;
}

static void coroutine_fn entry_clear(ReopenEntry *e)
{
    if (e->drained) {
        bdrv_co_drained_end(e->state.bs);
    }
    qapi_free_BlockdevOptions(e->new_options);
    bdrv_unref_later(e->old_backing);
    bdrv_unref_later(e->old_file);
    bdrv_co_unref(e->state.bs);
}

static bool coroutine_fn reopen_all(GArray *entries, GError **errp)
{
    BdrvPermTxn *txn;

    for (guint i = 0; i < entries->len; i++) {
        if (!entry_prepare(&g_array_index(entries, ReopenEntry, i), errp)) {
            return false;
        }
    }
    for (guint i = 0; i < entries->len; i++) {
        ReopenEntry *e = &g_array_index(entries, ReopenEntry, i);
        const BlockdevOptions *o = e->state.options;

        e->state.bs->open_flags = e->state.flags;
        e->state.bs->detect_zeroes =
            o->has_detect_zeroes ? o->detect_zeroes : BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF;
    }
    for (guint i = 0; i < entries->len; i++) {
        ReopenEntry *e = &g_array_index(entries, ReopenEntry, i);

        if (!entry_change_edges(e, errp) || !check_file_writable(e, errp) ||
            !entry_ask_size(e, errp)) {
            return false;
        }
    }
    txn = bdrv_perm_txn_new();
    for (guint i = 0; i < entries->len; i++) {
        bdrv_perm_txn_add(txn, g_array_index(entries, ReopenEntry, i).state.bs);
    }
    return bdrv_perm_txn_run(txn, errp);
}

static bool check_once(const GArray *entries, const ReopenEntry *e, GError **errp)
{
    for (guint i = 0; i < entries->len; i++) {
        if (g_array_index(entries, ReopenEntry, i).state.bs == e->state.bs) {
            error_setg(errp, "Node '%s' is to be reopened twice", e->state.bs->node_name);
            return false;
        }
    }
    return true;
}

bool coroutine_fn qmp_blockdev_reopen(const BlockdevReopenArg *arg, GError **errp)
{
    g_autoptr(GArray) entries = g_array_new(false, true, sizeof(ReopenEntry));
    BlockdevOptionsList *it;
    bool ok = true;

    QAPI_LIST_FOREACH(it, arg->options) {
        ReopenEntry e = {0};

        ok = entry_init(&e, it->value, errp) && check_once(entries, &e, errp) &&
             bdrv_co_drained_begin_within(e.state.bs, BDRV_DRAIN_COMMAND_NS, errp);
        if (!ok) {
            qapi_free_BlockdevOptions(e.new_options);
            bdrv_co_unref(e.state.bs);
            break;
        }
        e.drained = true;
        g_array_append_val(entries, e);
    }
    ok = ok && reopen_all(entries, errp);
    if (ok) {
        commit_all(entries);
    } else {
        for (guint i = entries->len; i-- > 0;) {
            entry_abort(&g_array_index(entries, ReopenEntry, i));
        }
        for (guint i = 0; i < entries->len; i++) {
            (void)bdrv_refresh_perms(g_array_index(entries, ReopenEntry, i).state.bs, NULL);
        }
    }
    for (guint i = 0; i < entries->len; i++) {
        entry_clear(&g_array_index(entries, ReopenEntry, i));
    }
    return ok;
}
