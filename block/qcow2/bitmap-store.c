/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Storing and removing persistent dirty bitmaps. Everything is written to new clusters; the header
 * then switches to the new directory in one write, and the old clusters are freed. A failure or
 * crash before that leaves the old bitmaps, marked as in use.
 */
#include "block/dirty-bitmap.h"
#include "block/qcow2/refcount.h"
#include "block/qcow2/free.h"
#include "block/qcow2/overlap.h"
#include "block/qcow2/writeback.h"
#include "block/qcow2/image.h"
#include "block/qcow2/bitmap-int.h"

#include <errno.h>
#include "util/bufferiszero.h"
#include "util/error.h"

typedef struct Store {
    BlockDriverState *bs;
    GArray *bitmaps; /* of Qcow2Bitmap: the new directory */
    GArray *taken;   /* of Qcow2PendingFree: clusters of ours, to give back on failure */
} Store;

static int coroutine_fn co_take(Store *st, uint64_t bytes, uint64_t *host)
{
    BDRVQcow2State *s = st->bs->opaque;
    Qcow2PendingFree run = {.count = qcow2_cluster_end(s, bytes) >> s->cluster_bits};
    int ret;

    qemu_co_mutex_lock(&s->lock);
    ret = qcow2_co_alloc_contiguous(st->bs, run.count, host);
    qemu_co_mutex_unlock(&s->lock);
    if (ret < 0) {
        return ret;
    }
    run.first = *host >> s->cluster_bits;
    g_array_append_val(st->taken, run);
    return qcow2_co_check_overlap(st->bs, 0, *host, bytes);
}

/* Writes bytes to new clusters. */
static int coroutine_fn co_write_new(Store *st, const void *data, uint64_t bytes, uint64_t *host)
{
    int ret = co_take(st, bytes, host);

    return ret < 0 ? ret : MIN(bdrv_co_pwrite(st->bs->file, *host, bytes, data, 0), 0);
}

/* The data of a bitmap, and its table (big-endian) in `table`. */
static int coroutine_fn co_store_data(Store *st, const HBitmap *hb, uint32_t granularity,
                                      uint64_t *table, uint32_t table_size)
{
    BDRVQcow2State *s = st->bs->opaque;
    uint64_t per_cluster = s->cluster_size * 8 * granularity, size = hbitmap_size(hb), host;
    g_autofree uint8_t *buf = g_try_malloc(s->cluster_size);
    int ret = buf ? 0 : -ENOMEM;

    for (uint64_t i = 0, offset = 0; ret == 0 && i < table_size; i++, offset += per_cluster) {
        memset(buf, 0, s->cluster_size);
        hbitmap_serialize_part(hb, buf, offset, MIN(per_cluster, size - offset));
        if (buffer_is_zero(buf, s->cluster_size)) {
            table[i] = 0;
            continue;
        }
        ret = co_write_new(st, buf, s->cluster_size, &host);
        table[i] = htobe64(host);
    }
    return ret;
}

static int coroutine_fn co_store_one(Store *st, BdrvDirtyBitmap *bitmap)
{
    BDRVQcow2State *s = st->bs->opaque;
    const HBitmap *hb = bdrv_dirty_bitmap_hbitmap(bitmap);
    uint32_t granularity = bdrv_dirty_bitmap_granularity(bitmap);
    uint64_t per_cluster = s->cluster_size * 8 * granularity;
    uint64_t entries = hbitmap_size(hb) / per_cluster + !!(hbitmap_size(hb) % per_cluster);
    g_autofree uint64_t *table = NULL;
    Qcow2Bitmap b = {
        .table_size = entries,
        .flags = bdrv_dirty_bitmap_enabled(bitmap) ? QCOW2_BITMAP_AUTO : 0,
        .granularity_bits = __builtin_ctz(granularity),
        .loaded = true,
    };
    int ret;

    if (entries << s->cluster_bits > QCOW2_MAX_BITMAP_BYTES) {
        return -EFBIG;
    }
    table = g_try_new0(uint64_t, MAX(entries, 1));
    ret = table ? co_store_data(st, hb, granularity, table, entries) : -ENOMEM;
    if (ret == 0) {
        ret = co_write_new(st, table, MAX(entries, 1) * 8, &b.table_offset);
    }
    if (ret == 0) {
        b.name = g_strdup(bdrv_dirty_bitmap_name(bitmap));
        g_array_append_val(st->bitmaps, b);
    }
    return ret;
}

static bool is_stored_anew(const BdrvDirtyBitmap *bitmap)
{
    return bdrv_dirty_bitmap_get_persistence(bitmap) && !bdrv_dirty_bitmap_inconsistent(bitmap);
}

/*
 * Whether an old entry stays as it is: bitmaps that cannot be used, and those marked as
 * inconsistent.
 */
static bool is_kept(BlockDriverState *bs, const Qcow2Bitmap *old)
{
    BdrvDirtyBitmap *bitmap = bdrv_find_dirty_bitmap(bs, old->name);

    return !old->loaded || (bitmap && bdrv_dirty_bitmap_inconsistent(bitmap));
}

static void append_copy(GArray *bitmaps, const Qcow2Bitmap *old)
{
    Qcow2Bitmap b = *old;

    b.name = g_strdup(old->name);
    b.extra = old->extra ? g_bytes_ref(old->extra) : NULL;
    g_array_append_val(bitmaps, b);
}

static int coroutine_fn co_collect(Store *st)
{
    BDRVQcow2State *s = st->bs->opaque;
    BdrvDirtyBitmap *bitmap = NULL;
    int ret = 0;

    for (guint i = 0; s->bitmaps && i < s->bitmaps->len; i++) {
        const Qcow2Bitmap *old = &g_array_index(s->bitmaps, Qcow2Bitmap, i);
        if (is_kept(st->bs, old)) {
            append_copy(st->bitmaps, old);
        }
    }
    while (ret == 0 && (bitmap = bdrv_dirty_bitmap_next(st->bs, bitmap))) {
        if (is_stored_anew(bitmap)) {
            ret = co_store_one(st, bitmap);
        }
    }
    return ret;
}

/* Frees the old directory and the old bitmaps whose tables the new directory does not have. */
static void coroutine_fn co_free_old(Store *st, uint64_t dir_offset, uint64_t dir_bytes)
{
    BlockDriverState *bs = st->bs;
    BDRVQcow2State *s = bs->opaque;
    g_autoptr(GHashTable) kept = g_hash_table_new(g_int64_hash, g_int64_equal);

    for (guint i = 0; i < st->bitmaps->len; i++) {
        g_hash_table_add(kept, &g_array_index(st->bitmaps, Qcow2Bitmap, i).table_offset);
    }
    qcow2_free_later(bs, dir_offset, dir_bytes, QCOW2_DISCARD_OTHER);
    for (guint i = 0; s->bitmaps && i < s->bitmaps->len; i++) {
        const Qcow2Bitmap *b = &g_array_index(s->bitmaps, Qcow2Bitmap, i);
        g_autofree uint64_t *table = g_hash_table_contains(kept, &b->table_offset)
                                         ? NULL
                                         : qcow2_co_bitmap_read_table(bs, b, NULL);

        for (uint32_t j = 0; table && j < b->table_size; j++) {
            if (table[j] & QCOW2_OFFSET_MASK) {
                qcow2_free_later(bs, table[j] & QCOW2_OFFSET_MASK, s->cluster_size,
                                 QCOW2_DISCARD_OTHER);
            }
        }
        if (table) {
            qcow2_free_later(bs, b->table_offset, MAX((uint64_t)b->table_size, 1) * 8,
                             QCOW2_DISCARD_OTHER);
        }
    }
}

/* The header takes the new directory. */
static int coroutine_fn co_switch(Store *st)
{
    BDRVQcow2State *s = st->bs->opaque;
    Qcow2Header *h = &s->header;
    uint64_t old_offset = h->bitmap_directory_offset,
             old_bytes = h->has_bitmaps_ext ? h->bitmap_directory_size : 0;
    uint64_t old_autoclear = h->autoclear_features, bytes, host = 0;
    uint32_t old_nb = h->nb_bitmaps;
    bool had = h->has_bitmaps_ext;
    g_autofree uint8_t *dir = qcow2_bitmaps_serialize(st->bitmaps, &bytes);
    int ret = 0;

    if (st->bitmaps->len > QCOW2_MAX_BITMAPS || bytes > QCOW2_MAX_BITMAP_DIR_BYTES) {
        return -EFBIG;
    }
    if (bytes) {
        ret = co_write_new(st, dir, bytes, &host);
    }
    if (ret == 0) {
        ret = qcow2_co_writeback(st->bs, true); /* counted before the header refers to it */
    }
    if (ret == 0) {
        ret = bdrv_co_flush(st->bs->file->bs);
    }
    if (ret < 0) {
        return ret;
    }
    h->has_bitmaps_ext = st->bitmaps->len > 0;
    h->nb_bitmaps = st->bitmaps->len;
    h->bitmap_directory_offset = host;
    h->bitmap_directory_size = bytes;
    h->autoclear_features &= ~(uint64_t)QCOW2_AUTOCLEAR_BITMAPS;
    h->autoclear_features |= h->has_bitmaps_ext ? QCOW2_AUTOCLEAR_BITMAPS : 0;
    ret = qcow2_co_update_header(st->bs);
    if (ret < 0) {
        h->has_bitmaps_ext = had;
        h->nb_bitmaps = old_nb;
        h->bitmap_directory_offset = old_offset;
        h->bitmap_directory_size = old_bytes;
        h->autoclear_features = old_autoclear;
        return ret;
    }
    co_free_old(st, old_offset, old_bytes);
    return 0;
}

static bool nothing_to_do(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    BdrvDirtyBitmap *bitmap = NULL;
    bool any = false;

    while ((bitmap = bdrv_dirty_bitmap_next(bs, bitmap))) {
        any |= is_stored_anew(bitmap);
    }
    for (guint i = 0; s->bitmaps && i < s->bitmaps->len; i++) {
        any |= !is_kept(bs, &g_array_index(s->bitmaps, Qcow2Bitmap, i));
    }
    return !any;
}

static Store *store_new(BlockDriverState *bs)
{
    Store *st = g_new0(Store, 1);

    st->bs = bs;
    st->bitmaps = g_array_new(FALSE, TRUE, sizeof(Qcow2Bitmap));
    st->taken = g_array_new(FALSE, FALSE, sizeof(Qcow2PendingFree));
    return st;
}

/* Switches to the new directory if all went well so far, else gives back what was taken. */
static int coroutine_fn co_finish(Store *st, int ret)
{
    BDRVQcow2State *s = st->bs->opaque;

    if (ret == 0) {
        ret = co_switch(st);
    }
    if (ret == 0) {
        qcow2_bitmaps_free(s->bitmaps);
        s->bitmaps = g_steal_pointer(&st->bitmaps);
    } else {
        qemu_co_mutex_lock(&s->lock);
        for (guint i = 0; i < st->taken->len; i++) {
            const Qcow2PendingFree *run = &g_array_index(st->taken, Qcow2PendingFree, i);
            qcow2_co_unalloc(st->bs, run->first << s->cluster_bits,
                             (uint64_t)run->count << s->cluster_bits);
        }
        qemu_co_mutex_unlock(&s->lock);
    }
    qcow2_bitmaps_free(st->bitmaps);
    g_array_free(st->taken, TRUE);
    g_free(st);
    return ret;
}

int coroutine_fn qcow2_co_bitmaps_store(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    Store *st;

    if (nothing_to_do(bs)) {
        return 0;
    }
    if (s->header.version < 3) {
        return -ENOTSUP;
    }
    st = store_new(bs);
    return co_finish(st, co_collect(st));
}

/* --- what commands ask for --- */

static const Qcow2Bitmap *find_stored(BDRVQcow2State *s, const char *name)
{
    for (guint i = 0; s->bitmaps && i < s->bitmaps->len; i++) {
        const Qcow2Bitmap *b = &g_array_index(s->bitmaps, Qcow2Bitmap, i);

        if (strcmp(b->name, name) == 0) {
            return b;
        }
    }
    return NULL;
}

/* The directory that would be stored now: bitmaps and bytes. */
static void count_future(BlockDriverState *bs, uint64_t *count, uint64_t *bytes)
{
    BDRVQcow2State *s = bs->opaque;
    BdrvDirtyBitmap *bitmap = NULL;

    *count = *bytes = 0;
    for (guint i = 0; s->bitmaps && i < s->bitmaps->len; i++) {
        const Qcow2Bitmap *b = &g_array_index(s->bitmaps, Qcow2Bitmap, i);

        if (is_kept(bs, b)) {
            *count += 1;
            *bytes += qcow2_bitmap_entry_bytes(b);
        }
    }
    while ((bitmap = bdrv_dirty_bitmap_next(bs, bitmap))) {
        if (is_stored_anew(bitmap)) {
            const Qcow2Bitmap b = {.name = (char *)bdrv_dirty_bitmap_name(bitmap)};

            *count += 1;
            *bytes += qcow2_bitmap_entry_bytes(&b);
        }
    }
}

static bool check_room(BlockDriverState *bs, const char *name, uint32_t granularity, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    const Qcow2Bitmap b = {.name = (char *)name};
    uint64_t per_cluster = s->cluster_size * 8 * granularity, count, bytes;
    uint64_t clusters = s->header.size / per_cluster + !!(s->header.size % per_cluster);

    if (clusters << s->cluster_bits > QCOW2_MAX_BITMAP_BYTES) {
        error_setg(errp, "Too much space will be occupied by the bitmap. Use larger granularity");
        return false;
    }
    count_future(bs, &count, &bytes);
    if (count >= QCOW2_MAX_BITMAPS) {
        error_setg(errp, "Maximum number of persistent bitmaps (%u) is already reached",
                   (unsigned)QCOW2_MAX_BITMAPS);
        return false;
    }
    if (bytes + qcow2_bitmap_entry_bytes(&b) > QCOW2_MAX_BITMAP_DIR_BYTES) {
        error_setg(errp, "Not enough space in the bitmap directory");
        return false;
    }
    return true;
}

bool coroutine_fn qcow2_co_can_store_new_bitmap(BlockDriverState *bs, const char *name,
                                                uint32_t granularity, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    const Qcow2Bitmap *same = find_stored(s, name);
    bool ok = false;

    if (s->header.version < 3) {
        error_setg(errp, "Cannot store dirty bitmaps in qcow2 v2 files");
    } else if (same && is_kept(bs, same)) {
        error_setg(errp, "Bitmap with the same name is already stored");
    } else {
        ok = check_room(bs, name, granularity, errp);
    }
    if (!ok) {
        g_prefix_error(errp, "Can't make bitmap '%s' persistent in '%s': ", name,
                       bdrv_get_device_or_node_name(bs));
    }
    return ok;
}

bool coroutine_fn qcow2_co_remove_stored_bitmap(BlockDriverState *bs, const char *name,
                                                GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    const Qcow2Bitmap *victim = find_stored(s, name);
    Store *st;
    int ret;

    if (!victim) {
        return true;
    }
    st = store_new(bs);
    for (guint i = 0; i < s->bitmaps->len; i++) {
        const Qcow2Bitmap *b = &g_array_index(s->bitmaps, Qcow2Bitmap, i);

        if (b != victim) {
            append_copy(st->bitmaps, b);
        }
    }
    ret = co_finish(st, qcow2_co_prepare_write(bs));
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to remove bitmap '%s' from file", name);
    }
    return ret == 0;
}
