/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Persistent dirty bitmaps: reading them, and marking them as in use. */
#include "block/qcow2/bitmap.h"
#include "block/qcow2/overlap.h"

#include <errno.h>
#include "block/dirty-bitmap.h"
#include "block/qcow2/bitmap-int.h"
#include "util/error.h"

#define TABLE_ENTRY_ALL_ONES 1ULL
#define TABLE_RESERVED       0xff000000000001feULL

void qcow2_bitmaps_free(GArray *bitmaps)
{
    if (!bitmaps) {
        return;
    }
    for (guint i = 0; i < bitmaps->len; i++) {
        Qcow2Bitmap *b = &g_array_index(bitmaps, Qcow2Bitmap, i);
        g_free(b->name);
        g_clear_pointer(&b->extra, g_bytes_unref);
    }
    g_array_free(bitmaps, TRUE);
}

/* --- the directory --- */

static bool check_entry(const BDRVQcow2State *s, const Qcow2Bitmap *b, GError **errp)
{
    uint64_t bits, needed;

    if ((b->flags & ~(uint32_t)QCOW2_BITMAP_FLAGS_KNOWN) ||
        b->granularity_bits < QCOW2_MIN_BITMAP_GRANULARITY_BITS ||
        b->granularity_bits > QCOW2_MAX_BITMAP_GRANULARITY_BITS) {
        error_setg(errp, "bitmap '%s' has unknown flags or an unsupported granularity", b->name);
        return false;
    }
    if (qcow2_in_cluster(s, b->table_offset) || b->table_offset == 0 ||
        b->table_offset >= QCOW2_HOST_LIMIT ||
        (uint64_t)b->table_size << s->cluster_bits > QCOW2_MAX_BITMAP_BYTES) {
        error_setg(errp, "bitmap '%s' has an invalid bitmap table", b->name);
        return false;
    }
    bits = ((s->header.size - !!s->header.size) >> b->granularity_bits) + !!s->header.size;
    needed = (bits + 7) / 8;
    if (!(b->flags & QCOW2_BITMAP_IN_USE) && needed > (uint64_t)b->table_size << s->cluster_bits) {
        error_setg(errp, "bitmap '%s' is smaller than the disk", b->name);
        return false;
    }
    return true;
}

/*
 * Parses the entry at buf[*pos] into s->bitmaps, which owns what it gets even on failure. names are
 * those of the entries before.
 */
static bool parse_entry(const BDRVQcow2State *s, const uint8_t *buf, uint64_t bytes, uint64_t *pos,
                        GHashTable *names, GError **errp)
{
    const uint8_t *p = buf + *pos;
    uint64_t left = bytes - *pos, need;
    uint32_t name_bytes, extra_bytes;
    Qcow2Bitmap b = {0};

    if (left < QCOW2_BITMAP_ENTRY_BYTES) {
        error_setg(errp, "the bitmap directory ends inside an entry");
        return false;
    }
    b.table_offset = ldq_be_p(p);
    b.table_size = ldul_be_p(p + 8);
    b.flags = ldul_be_p(p + 12);
    b.granularity_bits = p[17];
    name_bytes = lduw_be_p(p + 18);
    extra_bytes = ldul_be_p(p + 20);
    need = QCOW2_BITMAP_ENTRY_BYTES + (uint64_t)name_bytes + extra_bytes;
    if (p[16] != 1 || name_bytes == 0 || name_bytes > BDRV_BITMAP_NAME_MAX || need > left) {
        error_setg(errp, "the bitmap directory has an invalid entry");
        return false;
    }
    b.extra = extra_bytes ? g_bytes_new(p + QCOW2_BITMAP_ENTRY_BYTES, extra_bytes) : NULL;
    b.name = g_strndup((const char *)p + QCOW2_BITMAP_ENTRY_BYTES + extra_bytes, name_bytes);
    *pos += (need + 7) & ~7ULL;
    g_array_append_val(s->bitmaps, b);
    if (!g_hash_table_add(names, b.name)) {
        error_setg(errp, "two bitmaps are named '%s'", b.name);
        return false;
    }
    return check_entry(s, &b, errp);
}

bool coroutine_fn qcow2_co_bitmaps_read_directory(BlockDriverState *bs, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t bytes = s->header.bitmap_directory_size, pos = 0;
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    g_autofree uint8_t *buf = NULL;
    int ret;

    if (!s->header.has_bitmaps_ext) {
        return true;
    }
    buf = g_try_malloc(bytes);
    ret = buf ? bdrv_co_pread(bs->file, s->header.bitmap_directory_offset, bytes, buf, 0) : -ENOMEM;
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the bitmap directory");
        return false;
    }
    s->bitmaps = g_array_new(FALSE, TRUE, sizeof(Qcow2Bitmap));
    while (pos < bytes) {
        if (!parse_entry(s, buf, bytes, &pos, names, errp)) {
            g_prefix_error(errp, "Could not read the bitmap directory: ");
            return false;
        }
    }
    if (s->bitmaps->len != s->header.nb_bitmaps) {
        error_setg(errp, "Could not read the bitmap directory: %u entries where the header says %u",
                   s->bitmaps->len, s->header.nb_bitmaps);
        return false;
    }
    return true;
}

uint64_t qcow2_bitmap_entry_bytes(const Qcow2Bitmap *b)
{
    return (QCOW2_BITMAP_ENTRY_BYTES + strlen(b->name) +
            (b->extra ? g_bytes_get_size(b->extra) : 0) + 7) &
           ~7ULL;
}

uint8_t *qcow2_bitmaps_serialize(const GArray *bitmaps, uint64_t *bytes)
{
    uint8_t *buf, *p;

    *bytes = 0;
    for (guint i = 0; i < bitmaps->len; i++) {
        *bytes += qcow2_bitmap_entry_bytes(&g_array_index(bitmaps, Qcow2Bitmap, i));
    }
    p = buf = g_malloc0(MAX(*bytes, 1));
    for (guint i = 0; i < bitmaps->len; i++) {
        const Qcow2Bitmap *b = &g_array_index(bitmaps, Qcow2Bitmap, i);
        gsize extra_bytes = 0;
        const void *extra = b->extra ? g_bytes_get_data(b->extra, &extra_bytes) : NULL;

        stq_be_p(p, b->table_offset);
        stl_be_p(p + 8, b->table_size);
        stl_be_p(p + 12, b->flags);
        p[16] = 1;
        p[17] = b->granularity_bits;
        stw_be_p(p + 18, strlen(b->name));
        stl_be_p(p + 20, extra_bytes);
        if (extra_bytes) {
            memcpy(p + QCOW2_BITMAP_ENTRY_BYTES, extra, extra_bytes);
        }
        memcpy(p + QCOW2_BITMAP_ENTRY_BYTES + extra_bytes, b->name, strlen(b->name));
        p += qcow2_bitmap_entry_bytes(b);
    }
    return buf;
}

int coroutine_fn qcow2_co_bitmaps_mark_in_use(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint8_t *buf = NULL;
    uint64_t bytes;
    bool changed = false;
    int ret;

    for (guint i = 0; s->bitmaps && i < s->bitmaps->len; i++) {
        Qcow2Bitmap *b = &g_array_index(s->bitmaps, Qcow2Bitmap, i);
        changed |= !(b->flags & QCOW2_BITMAP_IN_USE);
        b->flags |= QCOW2_BITMAP_IN_USE;
    }
    if (!changed) {
        return 0;
    }
    /*
     * Same entries, same length: written over the old directory. Each flag word changes at once or
     * not at all.
     */
    buf = qcow2_bitmaps_serialize(s->bitmaps, &bytes);
    if (bytes != s->header.bitmap_directory_size) {
        return -EIO;
    }
    ret = qcow2_co_check_overlap(bs, QCOW2_OL_BITMAP_DIRECTORY, s->header.bitmap_directory_offset,
                                 bytes);
    if (ret < 0) {
        return ret;
    }
    return bdrv_co_pwrite_sync(bs->file, s->header.bitmap_directory_offset, bytes, buf, 0);
}

/* --- tables and data --- */

uint64_t *coroutine_fn qcow2_co_bitmap_read_table(BlockDriverState *bs, const Qcow2Bitmap *b,
                                                  GError **errp)
{
    uint64_t *table = g_try_new0(uint64_t, MAX(b->table_size, 1));
    int ret = table ? 0 : -ENOMEM;

    if (ret == 0 && b->table_size) {
        ret = bdrv_co_pread(bs->file, b->table_offset, (uint64_t)b->table_size * 8, table, 0);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the table of bitmap '%s'", b->name);
        g_free(table);
        return NULL;
    }
    for (uint32_t i = 0; i < b->table_size; i++) {
        table[i] = be64toh(table[i]);
    }
    return table;
}

/* One cluster of bitmap data into the bitmap: bytes [offset, offset + bytes) of the disk. */
static int coroutine_fn co_load_cluster(BlockDriverState *bs, HBitmap *hb, uint64_t entry,
                                        uint64_t offset, uint64_t bytes, uint8_t *buf)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t host = entry & QCOW2_OFFSET_MASK;
    int ret;

    if ((entry & TABLE_RESERVED) || qcow2_in_cluster(s, host) ||
        (host && (entry & TABLE_ENTRY_ALL_ONES))) {
        return -EINVAL;
    }
    if (!host) {
        if (entry & TABLE_ENTRY_ALL_ONES) {
            hbitmap_set(hb, offset, bytes);
        }
        return 0;
    }
    ret = bdrv_co_pread(bs->file, host, s->cluster_size, buf, 0);
    if (ret >= 0) {
        hbitmap_deserialize_part(hb, buf, offset, bytes);
    }
    return MIN(ret, 0);
}

static bool coroutine_fn co_load_data(BlockDriverState *bs, const Qcow2Bitmap *b, HBitmap *hb,
                                      GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint64_t *table = qcow2_co_bitmap_read_table(bs, b, errp);
    g_autofree uint8_t *buf = g_try_malloc(s->cluster_size);
    uint64_t per_cluster = (s->cluster_size * 8) << b->granularity_bits, size = s->header.size;
    int ret = buf ? 0 : -ENOMEM;

    if (!table) {
        return false;
    }
    for (uint64_t i = 0, offset = 0; ret == 0 && i < b->table_size && offset < size;
         i++, offset += per_cluster) {
        ret = co_load_cluster(bs, hb, table[i], offset, MIN(per_cluster, size - offset), buf);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read bitmap '%s'", b->name);
    }
    return ret == 0;
}

static bool coroutine_fn co_load_one(BlockDriverState *bs, Qcow2Bitmap *b, GError **errp)
{
    BdrvDirtyBitmap *bitmap;

    if (b->extra && !(b->flags & QCOW2_BITMAP_EXTRA_COMPATIBLE)) {
        return true; /* not to be used, and left as it is */
    }
    if (bdrv_find_dirty_bitmap(bs, b->name)) {
        b->loaded = true;
        return true;
    }
    bitmap = bdrv_create_dirty_bitmap(bs, 1u << b->granularity_bits, b->name, errp);
    if (!bitmap) {
        return false;
    }
    bdrv_dirty_bitmap_set_persistence(bitmap, true);
    b->loaded = true;
    if (b->flags & QCOW2_BITMAP_IN_USE) {
        bdrv_dirty_bitmap_set_inconsistent(bitmap);
        return true;
    }
    if (!(b->flags & QCOW2_BITMAP_AUTO)) {
        bdrv_disable_dirty_bitmap(bitmap);
    }
    return co_load_data(bs, b, bdrv_dirty_bitmap_hbitmap(bitmap), errp);
}

bool coroutine_fn qcow2_co_bitmaps_load(BlockDriverState *bs, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;

    for (guint i = 0; s->bitmaps && i < s->bitmaps->len; i++) {
        if (!co_load_one(bs, &g_array_index(s->bitmaps, Qcow2Bitmap, i), errp)) {
            return false;
        }
    }
    return true;
}

bool coroutine_fn qcow2_co_bitmaps_visit(BlockDriverState *bs, Qcow2VisitClusters *visit,
                                         void *opaque, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;

    if (!s->header.has_bitmaps_ext) {
        return true;
    }
    if (!visit(opaque, s->header.bitmap_directory_offset, s->header.bitmap_directory_size)) {
        return false;
    }
    for (guint i = 0; s->bitmaps && i < s->bitmaps->len; i++) {
        const Qcow2Bitmap *b = &g_array_index(s->bitmaps, Qcow2Bitmap, i);
        g_autofree uint64_t *table = qcow2_co_bitmap_read_table(bs, b, errp);

        if (!table || !visit(opaque, b->table_offset, (uint64_t)b->table_size * 8)) {
            return false;
        }
        for (uint32_t j = 0; j < b->table_size; j++) {
            uint64_t host = table[j] & QCOW2_OFFSET_MASK;
            if (host && !visit(opaque, host, s->cluster_size)) {
                return false;
            }
        }
    }
    return true;
}

Qcow2BitmapInfoList *qcow2_bitmaps_info(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2BitmapInfoList *list = NULL, **tail = &list;

    for (guint i = 0; s->bitmaps && i < s->bitmaps->len; i++) {
        const Qcow2Bitmap *b = &g_array_index(s->bitmaps, Qcow2Bitmap, i);
        Qcow2BitmapInfo *info = g_new0(Qcow2BitmapInfo, 1);
        Qcow2BitmapInfoFlagsList **flags = &info->flags;
        static const struct {
            uint32_t bit;
            Qcow2BitmapInfoFlags flag;
        } names[] = {{QCOW2_BITMAP_IN_USE, QCOW2_BITMAP_INFO_FLAGS_IN_USE},
                     {QCOW2_BITMAP_AUTO, QCOW2_BITMAP_INFO_FLAGS_AUTO}};

        info->name = g_strdup(b->name);
        info->granularity = 1u << b->granularity_bits;
        for (size_t j = 0; j < G_N_ELEMENTS(names); j++) {
            if (b->flags & names[j].bit) {
                *flags = g_new0(Qcow2BitmapInfoFlagsList, 1);
                (*flags)->value = names[j].flag;
                flags = &(*flags)->next;
            }
        }
        *tail = g_new0(Qcow2BitmapInfoList, 1);
        (*tail)->value = info;
        tail = &(*tail)->next;
    }
    return list;
}
