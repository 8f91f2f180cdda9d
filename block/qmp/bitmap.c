/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * block-dirty-bitmap-*: what users do with the dirty bitmaps of a node, each command a transaction
 * of one action.
 *
 * The node is drained from prepare to clean, so no write falls between the actions of one
 * transaction, and what an abort restores is what was there.
 */
#include "block/dirty-bitmap.h"

#include <errno.h>
#include <inttypes.h>
#include "block/graph/activate.h"
#include "block/block_int.h"
#include "block/qmp/transaction.h"
#include "qapi/qapi-commands-block-bitmap.h"
#include "util/error.h"

#define BITMAP_DEFAULT_MIN_GRANULARITY (4u << 10)
#define BITMAP_DEFAULT_MAX_GRANULARITY (64u << 10)

typedef struct BitmapStep {
    BlockDriverState *bs; /* referenced */
    bool drained;
    BdrvDirtyBitmap *bitmap;
    HBitmap *backup; /* contents before the action; NULL: unchanged */
    bool was_enabled;
    bool done; /* there is something to undo */
} BitmapStep;

/* --- what the actions share --- */

/* Finds and drains the node. The step's clean ends what this begins, also when it fails. */
static BitmapStep *coroutine_fn step_begin(TransactionStep *step, const char *node, GError **errp)
{
    BlockDriverState *bs = bdrv_lookup_bs(node, node, errp);
    BitmapStep *s;

    if (!bs) {
        return NULL;
    }
    s = step->opaque = g_new0(BitmapStep, 1);
    s->bs = bs;
    bdrv_ref(bs);
    s->drained = bdrv_co_drained_begin_within(bs, BDRV_DRAIN_COMMAND_NS, errp);
    return s->drained ? s : NULL;
}

static BdrvDirtyBitmap *find_bitmap(BlockDriverState *bs, const char *name, uint32_t check,
                                    GError **errp)
{
    BdrvDirtyBitmap *bitmap = bdrv_find_dirty_bitmap(bs, name);

    if (!bitmap) {
        error_setg(errp, "Dirty bitmap '%s' not found", name);
        return NULL;
    }
    return bdrv_dirty_bitmap_check(bitmap, check, errp) ? bitmap : NULL;
}

/* The same, and the bitmap that is there. */
static BitmapStep *coroutine_fn step_begin_bitmap(TransactionStep *step,
                                                  const BlockDirtyBitmap *arg, uint32_t check,
                                                  GError **errp)
{
    BitmapStep *s = step_begin(step, arg->node, errp);

    if (s) {
        s->bitmap = find_bitmap(s->bs, arg->name, check, errp);
    }
    return s && s->bitmap ? s : NULL;
}

static void coroutine_fn step_clean(TransactionStep *step)
{
    BitmapStep *s = step->opaque;

    if (s) {
        hbitmap_free(s->backup);
        if (s->drained) {
            bdrv_co_drained_end(s->bs);
        }
        bdrv_co_unref(s->bs);
        g_free(s);
    }
}

static void coroutine_fn contents_abort(TransactionStep *step)
{
    BitmapStep *s = step->opaque;

    if (s && s->done) {
        hbitmap_free(bdrv_dirty_bitmap_swap(s->bitmap, g_steal_pointer(&s->backup)));
    }
}

/* --- add --- */

/* The size of the image's clusters within bounds, as they are written whole or not at all. */
static uint32_t coroutine_fn default_granularity(BlockDriverState *bs)
{
    int64_t cluster_size = 0;
    bool dirty, known = false;

    if (bs->drv->bdrv_co_get_info) {
        AioContext *from = bdrv_co_enter_graph(bs);

        known = bs->drv->bdrv_co_get_info(bs, &cluster_size, &dirty);
        bdrv_co_leave_graph(bs, from);
    }
    if (!known || cluster_size <= 0) {
        return BITMAP_DEFAULT_MAX_GRANULARITY;
    }
    return (uint32_t)CLAMP(cluster_size, BITMAP_DEFAULT_MIN_GRANULARITY,
                           BITMAP_DEFAULT_MAX_GRANULARITY);
}

static bool coroutine_fn check_storable(BlockDriverState *bs, const char *name,
                                        uint32_t granularity, GError **errp)
{
    AioContext *from;
    bool ok;

    if (!BDRV_OP(bs->drv, format, bdrv_co_can_store_new_dirty_bitmap)) {
        error_setg(errp,
                   "Can't store persistent bitmaps to %s: driver '%s' cannot store dirty bitmaps",
                   bdrv_get_device_or_node_name(bs), bs->drv->format_name);
        return false;
    }
    if (!bdrv_check_active(bs, errp)) {
        return false;
    }
    if (bdrv_is_read_only(bs)) {
        error_setg(errp, "Can't store persistent bitmaps to %s: the node is read-only",
                   bdrv_get_device_or_node_name(bs));
        return false;
    }
    from = bdrv_co_enter_graph(bs);
    ok = bs->drv->format->bdrv_co_can_store_new_dirty_bitmap(bs, name, granularity, errp);
    bdrv_co_leave_graph(bs, from);
    return ok;
}

static bool coroutine_fn add_prepare(TransactionStep *step, GError **errp)
{
    const BlockDirtyBitmapAdd *arg = step->action->u.block_dirty_bitmap_add.data;
    bool persistent = arg->has_persistent && arg->persistent;
    uint32_t granularity = arg->granularity;
    BitmapStep *s;

    if (!arg->name[0]) {
        error_setg(errp, "Bitmap name cannot be empty");
        return false;
    }
    if (arg->has_granularity &&
        (granularity < BDRV_SECTOR_SIZE || (granularity & (granularity - 1)))) {
        error_setg(errp, "Granularity must be power of 2 and at least %d", BDRV_SECTOR_SIZE);
        return false;
    }
    s = step_begin(step, arg->node, errp);
    if (!s) {
        return false;
    }
    if (!arg->has_granularity) {
        granularity = default_granularity(s->bs);
    }
    if (persistent && !check_storable(s->bs, arg->name, granularity, errp)) {
        return false;
    }
    s->bitmap = bdrv_create_dirty_bitmap(s->bs, granularity, arg->name, errp);
    if (!s->bitmap) {
        return false;
    }
    bdrv_dirty_bitmap_set_persistence(s->bitmap, persistent);
    if (arg->has_disabled && arg->disabled) {
        bdrv_disable_dirty_bitmap(s->bitmap);
    }
    return true;
}

static void coroutine_fn add_abort(TransactionStep *step)
{
    BitmapStep *s = step->opaque;

    if (s) {
        bdrv_release_dirty_bitmap(s->bitmap);
    }
}

const TransactionActionOps transaction_bitmap_add = {
    .prepare = add_prepare,
    .abort = add_abort,
    .clean = step_clean,
};

/* --- remove --- */

/*
 * What the image has is removed here, where it can fail: when the transaction is aborted, the
 * bitmap in memory is stored again as any other. Until the commit the bitmap is busy, so that no
 * other action takes it or its name.
 */
static bool coroutine_fn remove_prepare(TransactionStep *step, GError **errp)
{
    const BlockDirtyBitmap *arg = step->action->u.block_dirty_bitmap_remove.data;
    BitmapStep *s = step_begin_bitmap(step, arg, BDRV_BITMAP_BUSY | BDRV_BITMAP_RO, errp);

    if (!s) {
        return false;
    }
    if (bdrv_dirty_bitmap_get_persistence(s->bitmap) &&
        BDRV_OP(s->bs->drv, format, bdrv_co_remove_persistent_dirty_bitmap)) {
        AioContext *from = bdrv_co_enter_graph(s->bs);
        bool ok =
            s->bs->drv->format->bdrv_co_remove_persistent_dirty_bitmap(s->bs, arg->name, errp);

        bdrv_co_leave_graph(s->bs, from);
        if (!ok) {
            return false;
        }
    }
    bdrv_dirty_bitmap_set_busy(s->bitmap, true);
    s->done = true;
    return true;
}

static void coroutine_fn remove_commit(TransactionStep *step)
{
    bdrv_release_dirty_bitmap(((BitmapStep *)step->opaque)->bitmap);
}

static void coroutine_fn remove_abort(TransactionStep *step)
{
    BitmapStep *s = step->opaque;

    if (s && s->done) {
        bdrv_dirty_bitmap_set_busy(s->bitmap, false);
    }
}

const TransactionActionOps transaction_bitmap_remove = {
    .prepare = remove_prepare,
    .commit = remove_commit,
    .abort = remove_abort,
    .clean = step_clean,
};

/* --- clear --- */

static bool coroutine_fn clear_prepare(TransactionStep *step, GError **errp)
{
    BitmapStep *s = step_begin_bitmap(step, step->action->u.block_dirty_bitmap_clear.data,
                                      BDRV_BITMAP_DEFAULT, errp);
    HBitmap *hb;

    if (!s) {
        return false;
    }
    hb = bdrv_dirty_bitmap_hbitmap(s->bitmap);
    s->backup =
        bdrv_dirty_bitmap_swap(s->bitmap, hbitmap_new(hbitmap_size(hb), hbitmap_granularity(hb)));
    s->done = true;
    return true;
}

const TransactionActionOps transaction_bitmap_clear = {
    .prepare = clear_prepare,
    .abort = contents_abort,
    .clean = step_clean,
};

/* --- enable, disable --- */

static bool coroutine_fn record_prepare(TransactionStep *step, const BlockDirtyBitmap *arg,
                                        bool enable, GError **errp)
{
    BitmapStep *s = step_begin_bitmap(step, arg, BDRV_BITMAP_BUSY | BDRV_BITMAP_INCONSISTENT, errp);

    if (!s) {
        return false;
    }
    s->was_enabled = bdrv_dirty_bitmap_enabled(s->bitmap);
    s->done = true;
    (enable ? bdrv_enable_dirty_bitmap : bdrv_disable_dirty_bitmap)(s->bitmap);
    return true;
}

static bool coroutine_fn enable_prepare(TransactionStep *step, GError **errp)
{
    return record_prepare(step, step->action->u.block_dirty_bitmap_enable.data, true, errp);
}

static bool coroutine_fn disable_prepare(TransactionStep *step, GError **errp)
{
    return record_prepare(step, step->action->u.block_dirty_bitmap_disable.data, false, errp);
}

static void coroutine_fn record_abort(TransactionStep *step)
{
    BitmapStep *s = step->opaque;

    if (s && s->done) {
        (s->was_enabled ? bdrv_enable_dirty_bitmap : bdrv_disable_dirty_bitmap)(s->bitmap);
    }
}

const TransactionActionOps transaction_bitmap_enable = {
    .prepare = enable_prepare,
    .abort = record_abort,
    .clean = step_clean,
};

const TransactionActionOps transaction_bitmap_disable = {
    .prepare = disable_prepare,
    .abort = record_abort,
    .clean = step_clean,
};

/* --- merge --- */

/* Adds a bitmap of bs, which is drained, to sum. */
static bool add_source(HBitmap *sum, BlockDriverState *bs, const char *name, GError **errp)
{
    BdrvDirtyBitmap *source =
        find_bitmap(bs, name, BDRV_BITMAP_BUSY | BDRV_BITMAP_INCONSISTENT, errp);
    const HBitmap *hb;

    if (!source) {
        return false;
    }
    hb = bdrv_dirty_bitmap_hbitmap(source);
    if (hbitmap_size(hb) != hbitmap_size(sum)) {
        error_setg(errp,
                   "Bitmaps are of different sizes (destination size is %" PRIu64
                   ", source size is %" PRIu64 ") and can't be merged",
                   hbitmap_size(sum), hbitmap_size(hb));
        return false;
    }
    hbitmap_merge(sum, hb);
    return true;
}

static bool coroutine_fn add_external_source(HBitmap *sum, const BlockDirtyBitmap *arg,
                                             GError **errp)
{
    BlockDriverState *bs = bdrv_lookup_bs(arg->node, arg->node, errp);
    bool ok;

    if (!bs) {
        return false;
    }
    bdrv_ref(bs);
    ok = bdrv_co_drained_begin_within(bs, BDRV_DRAIN_COMMAND_NS, errp);
    if (ok) {
        ok = add_source(sum, bs, arg->name, errp);
        bdrv_co_drained_end(bs);
    }
    bdrv_co_unref(bs);
    return ok;
}

static bool coroutine_fn merge_prepare(TransactionStep *step, GError **errp)
{
    const BlockDirtyBitmapMerge *arg = step->action->u.block_dirty_bitmap_merge.data;
    const BlockDirtyBitmap target = {.node = arg->node, .name = arg->target};
    BitmapStep *s = step_begin_bitmap(step, &target, BDRV_BITMAP_DEFAULT, errp);
    g_autoptr(HBitmap) sum = NULL;
    const BlockDirtyBitmapOrStrList *it;

    if (!s) {
        return false;
    }
    sum = hbitmap_clone(bdrv_dirty_bitmap_hbitmap(s->bitmap));
    QAPI_LIST_FOREACH(it, arg->bitmaps) {
        const BlockDirtyBitmapOrStr *source = it->value;

        if (!(source->type == json_type_string
                  ? add_source(sum, s->bs, source->u.local, errp)
                  : add_external_source(sum, &source->u.external, errp))) {
            return false;
        }
    }
    s->backup = bdrv_dirty_bitmap_swap(s->bitmap, g_steal_pointer(&sum));
    s->done = true;
    return true;
}

const TransactionActionOps transaction_bitmap_merge = {
    .prepare = merge_prepare,
    .abort = contents_abort,
    .clean = step_clean,
};

/* --- commands --- */

TRANSACTION_COMMAND(BLOCK_DIRTY_BITMAP_ADD, block_dirty_bitmap_add, BlockDirtyBitmapAdd)
TRANSACTION_COMMAND(BLOCK_DIRTY_BITMAP_REMOVE, block_dirty_bitmap_remove, BlockDirtyBitmap)
TRANSACTION_COMMAND(BLOCK_DIRTY_BITMAP_CLEAR, block_dirty_bitmap_clear, BlockDirtyBitmap)
TRANSACTION_COMMAND(BLOCK_DIRTY_BITMAP_ENABLE, block_dirty_bitmap_enable, BlockDirtyBitmap)
TRANSACTION_COMMAND(BLOCK_DIRTY_BITMAP_DISABLE, block_dirty_bitmap_disable, BlockDirtyBitmap)
TRANSACTION_COMMAND(BLOCK_DIRTY_BITMAP_MERGE, block_dirty_bitmap_merge, BlockDirtyBitmapMerge)
