/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Dirty bitmaps of nodes: see block/dirty-bitmap.h. */
#include "block/dirty-bitmap.h"

#include <inttypes.h>
#include <string.h>
#include "block/graph/graph.h"
#include "util/error.h"
#include "util/queue.h"

#define BDRV_BITMAP_DEFAULT_GRANULARITY (64u << 10)
#define BDRV_BITMAP_MIN_GRANULARITY     512u
#define BDRV_BITMAP_MAX_GRANULARITY     (2u << 30)

/* A mark that is to be left out. */
typedef struct ExpectedMark {
    int64_t offset, bytes;
    bool came;
    LIST_ENTRY(ExpectedMark) next;
} ExpectedMark;

struct BdrvDirtyBitmap {
    BlockDriverState *bs;
    char *name; /* NULL: internal */
    HBitmap *hb;
    bool enabled, busy, persistent, inconsistent;
    void (*notify)(void *opaque);
    void *notify_opaque;
    LIST_HEAD(, ExpectedMark) expected;
    TAILQ_ENTRY(BdrvDirtyBitmap) next; /* bs->dirty_bitmaps */
};

BdrvDirtyBitmap *bdrv_create_dirty_bitmap(BlockDriverState *bs, uint32_t granularity,
                                          const char *name, GError **errp)
{
    int64_t size = bdrv_getlength(bs);
    BdrvDirtyBitmap *bitmap;

    if (!granularity) {
        granularity = BDRV_BITMAP_DEFAULT_GRANULARITY;
    }
    if (granularity < BDRV_BITMAP_MIN_GRANULARITY || granularity > BDRV_BITMAP_MAX_GRANULARITY ||
        (granularity & (granularity - 1))) {
        error_setg(errp, "Granularity %u is not a power of two from 512 to 2147483648",
                   granularity);
        return NULL;
    }
    if (name && strlen(name) > BDRV_BITMAP_NAME_MAX) {
        error_setg(errp, "Bitmap name too long: %zu bytes, at most %d are possible", strlen(name),
                   BDRV_BITMAP_NAME_MAX);
        return NULL;
    }
    if (name && bdrv_find_dirty_bitmap(bs, name)) {
        error_setg(errp, "Bitmap already exists: %s", name);
        return NULL;
    }
    if (size < 0) {
        error_setg_errno(errp, (int)-size, "Could not get the length of node '%s'",
                         bdrv_get_node_name(bs));
        return NULL;
    }
    bitmap = g_new0(BdrvDirtyBitmap, 1);
    bitmap->bs = bs;
    bitmap->name = g_strdup(name);
    bitmap->hb = hbitmap_new(size, granularity);
    bitmap->enabled = true;
    LIST_INIT(&bitmap->expected);
    bdrv_edges_lock();
    TAILQ_INSERT_TAIL(&bs->dirty_bitmaps, bitmap, next);
    bdrv_edges_unlock();
    bdrv_threads_check_above(bs);
    if (name) {
        if (!bs->named_bitmaps) {
            bs->named_bitmaps = g_hash_table_new(g_str_hash, g_str_equal);
        }
        g_hash_table_insert(bs->named_bitmaps, bitmap->name, bitmap);
    }
    return bitmap;
}

void bdrv_release_dirty_bitmap(BdrvDirtyBitmap *bitmap)
{
    ExpectedMark *mark, *next;
    BlockDriverState *bs;

    if (!bitmap) {
        return;
    }
    bs = bitmap->bs;
    LIST_FOREACH_SAFE(mark, &bitmap->expected, next, next) {
        g_free(mark);
    }
    bdrv_edges_lock();
    TAILQ_REMOVE(&bs->dirty_bitmaps, bitmap, next);
    bdrv_edges_unlock();
    bdrv_threads_bitmap_gone(bs);
    if (bitmap->name) {
        g_hash_table_remove(bs->named_bitmaps, bitmap->name);
    }
    hbitmap_free(bitmap->hb);
    g_free(bitmap->name);
    g_free(bitmap);
}

void bdrv_release_all_dirty_bitmaps(BlockDriverState *bs)
{
    while (!TAILQ_EMPTY(&bs->dirty_bitmaps)) {
        bdrv_release_dirty_bitmap(TAILQ_FIRST(&bs->dirty_bitmaps));
    }
    g_clear_pointer(&bs->named_bitmaps, g_hash_table_destroy);
}

BdrvDirtyBitmap *bdrv_find_dirty_bitmap(BlockDriverState *bs, const char *name)
{
    return bs->named_bitmaps ? g_hash_table_lookup(bs->named_bitmaps, name) : NULL;
}

BdrvDirtyBitmap *bdrv_dirty_bitmap_next(BlockDriverState *bs, BdrvDirtyBitmap *bitmap)
{
    return bitmap ? TAILQ_NEXT(bitmap, next) : TAILQ_FIRST(&bs->dirty_bitmaps);
}

const char *bdrv_dirty_bitmap_name(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->name;
}

BlockDriverState *bdrv_dirty_bitmap_bs(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->bs;
}

HBitmap *bdrv_dirty_bitmap_hbitmap(BdrvDirtyBitmap *bitmap)
{
    return bitmap->hb;
}

uint32_t bdrv_dirty_bitmap_granularity(const BdrvDirtyBitmap *bitmap)
{
    return hbitmap_granularity(bitmap->hb);
}

int64_t bdrv_get_dirty_count(const BdrvDirtyBitmap *bitmap)
{
    return (int64_t)hbitmap_count(bitmap->hb);
}

void bdrv_enable_dirty_bitmap(BdrvDirtyBitmap *bitmap)
{
    bitmap->enabled = true;
}

void bdrv_disable_dirty_bitmap(BdrvDirtyBitmap *bitmap)
{
    bitmap->enabled = false;
}

bool bdrv_dirty_bitmap_enabled(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->enabled;
}

void bdrv_dirty_bitmap_set_busy(BdrvDirtyBitmap *bitmap, bool busy)
{
    bitmap->busy = busy;
}

bool bdrv_dirty_bitmap_busy(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->busy;
}

void bdrv_dirty_bitmap_set_persistence(BdrvDirtyBitmap *bitmap, bool persistent)
{
    bitmap->persistent = persistent;
}

bool bdrv_dirty_bitmap_get_persistence(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->persistent;
}

void bdrv_dirty_bitmap_set_inconsistent(BdrvDirtyBitmap *bitmap)
{
    bitmap->inconsistent = true;
    bitmap->enabled = false;
}

bool bdrv_dirty_bitmap_inconsistent(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->inconsistent;
}

bool bdrv_dirty_bitmap_check(const BdrvDirtyBitmap *bitmap, uint32_t flags, GError **errp)
{
    if ((flags & BDRV_BITMAP_BUSY) && bitmap->busy) {
        error_setg(errp, "Bitmap '%s' is currently in use by another operation and cannot be used",
                   bitmap->name);
        return false;
    }
    if ((flags & BDRV_BITMAP_RO) && bitmap->persistent && bdrv_is_read_only(bitmap->bs)) {
        error_setg(errp, "Bitmap '%s' is readonly and cannot be modified", bitmap->name);
        return false;
    }
    if ((flags & BDRV_BITMAP_INCONSISTENT) && bitmap->inconsistent) {
        error_setg(errp,
                   "Bitmap '%s' is inconsistent and cannot be used: "
                   "block-dirty-bitmap-remove deletes it from the image",
                   bitmap->name);
        return false;
    }
    return true;
}

void bdrv_dirty_bitmap_set_notify(BdrvDirtyBitmap *bitmap, void (*fn)(void *opaque), void *opaque)
{
    bitmap->notify = fn;
    bitmap->notify_opaque = opaque;
}

void bdrv_dirty_bitmap_expect(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    ExpectedMark *mark = g_new(ExpectedMark, 1);

    *mark = (ExpectedMark){.offset = offset, .bytes = bytes};
    LIST_INSERT_HEAD(&bitmap->expected, mark, next);
}

bool bdrv_dirty_bitmap_unexpect(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    ExpectedMark *mark, *found = NULL;
    bool came;

    /* Equal expectations stand for each other: one that was met goes first. */
    LIST_FOREACH(mark, &bitmap->expected, next) {
        if (mark->offset == offset && mark->bytes == bytes && (!found || mark->came)) {
            found = mark;
        }
    }
    if (!found) {
        return false;
    }
    came = found->came;
    LIST_REMOVE(found, next);
    g_free(found);
    return came;
}

static bool mark_was_expected(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    ExpectedMark *mark;

    LIST_FOREACH(mark, &bitmap->expected, next) {
        if (mark->offset == offset && mark->bytes == bytes && !mark->came) {
            mark->came = true;
            return true;
        }
    }
    return false;
}

/* Limits [*offset, *offset + *bytes) to the bitmap; false when nothing is left. */
static bool clip(const BdrvDirtyBitmap *bitmap, int64_t *offset, int64_t *bytes)
{
    int64_t size = (int64_t)hbitmap_size(bitmap->hb);

    if (*bytes <= 0 || *offset < 0 || *offset >= size) {
        return false;
    }
    *bytes = MIN(*bytes, size - *offset);
    return true;
}

void bdrv_set_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    if (clip(bitmap, &offset, &bytes)) {
        hbitmap_set(bitmap->hb, offset, bytes);
    }
}

void bdrv_reset_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    if (clip(bitmap, &offset, &bytes)) {
        hbitmap_reset(bitmap->hb, offset, bytes);
    }
}

HBitmap *bdrv_dirty_bitmap_swap(BdrvDirtyBitmap *bitmap, HBitmap *contents)
{
    HBitmap *old = bitmap->hb;

    g_assert(hbitmap_size(old) == hbitmap_size(contents));
    bitmap->hb = contents;
    return old;
}

void bdrv_set_dirty(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BdrvDirtyBitmap *bitmap;

    TAILQ_FOREACH(bitmap, &bs->dirty_bitmaps, next) {
        int64_t at = offset, len = bytes;
        bool was_clean;

        if (!bitmap->enabled || !clip(bitmap, &at, &len) ||
            mark_was_expected(bitmap, offset, bytes)) {
            continue;
        }
        was_clean = hbitmap_empty(bitmap->hb);
        hbitmap_set(bitmap->hb, at, len);
        if (was_clean && bitmap->notify) {
            bitmap->notify(bitmap->notify_opaque);
        }
    }
}

static BlockDirtyInfo *describe_bitmap(const BdrvDirtyBitmap *bitmap)
{
    BlockDirtyInfo info = {
        .name = g_strdup(bitmap->name),
        .granularity = bdrv_dirty_bitmap_granularity(bitmap),
        .count = bdrv_get_dirty_count(bitmap),
        .persistent = bitmap->persistent,
        .recording = bitmap->enabled,
        .busy = bitmap->busy,
        .has_inconsistent = bitmap->inconsistent, /* shown only where it is true */
        .inconsistent = bitmap->inconsistent,
    };

    return g_memdup2(&info, sizeof(info));
}

BlockDirtyInfoList *bdrv_query_dirty_bitmaps(BlockDriverState *bs)
{
    BlockDirtyInfoList *list = NULL, **tail = &list;
    const BdrvDirtyBitmap *bitmap;

    assert_graph_thread(bs);
    bdrv_edges_lock(); /* a visit does not wait for a drained section, in which bitmaps come and go */
    TAILQ_FOREACH(bitmap, &bs->dirty_bitmaps, next) {
        QAPI_LIST_APPEND(tail, describe_bitmap(bitmap));
    }
    bdrv_edges_unlock();
    return list;
}

void bdrv_dirty_bitmap_truncate(BlockDriverState *bs, int64_t bytes)
{
    BdrvDirtyBitmap *bitmap;

    TAILQ_FOREACH(bitmap, &bs->dirty_bitmaps, next) {
        hbitmap_truncate(bitmap->hb, bytes);
    }
}
