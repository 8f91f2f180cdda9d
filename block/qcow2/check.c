/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rebuilding refcounts of an image that was not closed properly: every reference in the image is
 * counted, and the refcount blocks are written anew from that. The dirty bit stays set until all is
 * durable, so that a crash in between repeats the work.
 *
 * Metadata that contradicts itself (tables unaligned or outside of the file) ends the repair with
 * an error and nothing written. An L2 table is read once, however many snapshots share it, so the
 * work is bounded by what the limits below let the image hold.
 */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/l2.h"
#include "block/qcow2/refcount.h"
#include "block/qcow2/writeback.h"
#include "block/qcow2/check.h"
#include "block/qcow2/image.h"

#include <errno.h>
#include "block/qcow2/bitmap.h"
#include "util/error.h"

/*
 * References may lie behind the end of the file by this much: clusters that were linked but not
 * filled.
 */
#define MAX_CLUSTERS_BEYOND_END 65536

/* L1 tables of the disk and all snapshots together; 65536 snapshots of a disk of 4 TiB. */
#define MAX_L1_BYTES (4ULL << 30)
/* L2 tables, each counted once: their number, and their bytes; 512 TiB in clusters of 64 KiB. */
#define MAX_L2_TABLES (8u << 20)
#define MAX_L2_BYTES  (64ULL << 30)

typedef struct RefMap {
    BlockDriverState *bs;
    GHashTable *l2_tables; /* cluster of each L2 table -> how often L1 tables refer to it */
    uint64_t l1_bytes;
    uint32_t *counts;
    uint64_t nb, limit; /* clusters counted so far; the most there may be */
    GError **errp;
} RefMap;

static bool map_grow(RefMap *map, uint64_t nb)
{
    uint32_t *counts;

    if (nb <= map->nb) {
        return true;
    }
    counts = nb <= map->limit ? g_try_realloc_n(map->counts, nb, sizeof(uint32_t)) : NULL;
    if (!counts) {
        error_setg(map->errp, nb > map->limit ? "a reference points behind the end of the file"
                                              : "not enough memory to count references");
        return false;
    }
    memset(counts + map->nb, 0, (nb - map->nb) * sizeof(uint32_t));
    map->counts = counts;
    map->nb = nb;
    return true;
}

/* `times` references to the clusters of a run. */
static bool map_add_times(RefMap *map, uint64_t host, uint64_t bytes, uint32_t times)
{
    BDRVQcow2State *s = map->bs->opaque;
    uint64_t first = host >> s->cluster_bits,
             end = (host + bytes + s->cluster_size - 1) >> s->cluster_bits;

    if (host >= QCOW2_HOST_LIMIT || bytes > QCOW2_HOST_LIMIT - host || !map_grow(map, end)) {
        return bytes == 0;
    }
    for (uint64_t c = first; c < end; c++) {
        map->counts[c] += MIN(times, UINT32_MAX - map->counts[c]);
    }
    return true;
}

static bool map_add(RefMap *map, uint64_t host, uint64_t bytes)
{
    return map_add_times(map, host, bytes, 1);
}

static void map_remove(RefMap *map, uint64_t host, uint64_t bytes)
{
    BDRVQcow2State *s = map->bs->opaque;

    for (uint64_t c = host >> s->cluster_bits; c < (host + bytes) >> s->cluster_bits; c++) {
        map->counts[c]--;
    }
}

static bool check_aligned(const RefMap *map, uint64_t host, const char *what)
{
    if (qcow2_in_cluster(map->bs->opaque, host)) {
        error_setg(map->errp, "%s at %#" G_GINT64_MODIFIER "x is not aligned to clusters", what,
                   host);
        return false;
    }
    return true;
}

static bool map_add_table(RefMap *map, uint64_t host, uint64_t bytes, const char *what)
{
    return check_aligned(map, host, what) && map_add(map, host, bytes);
}

/* What one L2 table, to which `times` L1 entries refer, refers to. */
static bool count_l2(RefMap *map, const uint8_t *table, uint32_t times)
{
    BDRVQcow2State *s = map->bs->opaque;

    for (unsigned i = 0; i < 1u << s->l2_bits; i++) {
        uint64_t entry = qcow2_l2_entry(s, table, i), host = entry & QCOW2_OFFSET_MASK, bytes;

        if (qcow2_has_data_file(s)) {
            continue;
        }
        if (entry & QCOW2_OFLAG_COMPRESSED) {
            qcow2_parse_compressed(s, entry, &host, &bytes);
            if (!map_add_times(map, host, bytes, times)) {
                return false;
            }
        } else if (host && (!check_aligned(map, host, "data cluster") ||
                            !map_add_times(map, host, s->cluster_size, times))) {
            return false;
        }
    }
    return true;
}

/* One more L1 entry that refers to an L2 table. */
static bool note_l2(RefMap *map, uint64_t host)
{
    const BDRVQcow2State *s = map->bs->opaque;
    gpointer key = GSIZE_TO_POINTER(host >> s->cluster_bits);
    size_t times = GPOINTER_TO_SIZE(g_hash_table_lookup(map->l2_tables, key));
    guint tables;

    if (!check_aligned(map, host, "L2 table") || !map_add(map, host, s->cluster_size)) {
        return false;
    }
    g_hash_table_insert(map->l2_tables, key, GSIZE_TO_POINTER(MIN(times + 1, UINT32_MAX)));
    tables = g_hash_table_size(map->l2_tables);
    if (tables > MAX_L2_TABLES || (uint64_t)tables << s->cluster_bits > MAX_L2_BYTES) {
        error_setg(map->errp,
                   "it has more L2 tables than can be counted (%u, %" G_GUINT64_FORMAT " bytes)",
                   MAX_L2_TABLES, (uint64_t)MAX_L2_BYTES);
        return false;
    }
    return true;
}

/* An L1 table, and which L2 tables it refers to. */
static bool coroutine_fn co_count_l1(RefMap *map, uint64_t offset, uint32_t size)
{
    g_autofree uint64_t *l1 = g_try_new(uint64_t, MAX(size, 1));
    int ret = l1 ? 0 : -ENOMEM;

    map->l1_bytes += (uint64_t)size * 8;
    if (map->l1_bytes > MAX_L1_BYTES) {
        error_setg(map->errp,
                   "the L1 tables of its snapshots have more than %" G_GUINT64_FORMAT " bytes",
                   (uint64_t)MAX_L1_BYTES);
        return false;
    }
    if (!map_add_table(map, offset, (uint64_t)size * 8, "L1 table")) {
        return false;
    }
    if (ret == 0 && size) {
        ret = bdrv_co_pread(map->bs->file, offset, (uint64_t)size * 8, l1, 0);
    }
    for (uint32_t i = 0; ret >= 0 && i < size; i++) {
        uint64_t table = be64toh(l1[i]) & QCOW2_OFFSET_MASK;

        if (table && !note_l2(map, table)) {
            return false;
        }
    }
    if (ret < 0) {
        error_setg_errno(map->errp, -ret, "could not read an L1 table");
    }
    return ret >= 0;
}

/* What the L2 tables refer to. */
static bool coroutine_fn co_count_l2_tables(RefMap *map)
{
    BDRVQcow2State *s = map->bs->opaque;
    g_autofree uint8_t *l2 = g_try_malloc(s->cluster_size);
    int ret = l2 ? 0 : -ENOMEM;
    GHashTableIter iter;
    gpointer key, times;

    g_hash_table_iter_init(&iter, map->l2_tables);
    while (ret >= 0 && g_hash_table_iter_next(&iter, &key, &times)) {
        ret = bdrv_co_pread(map->bs->file, (int64_t)GPOINTER_TO_SIZE(key) << s->cluster_bits,
                            s->cluster_size, l2, 0);
        if (ret >= 0 && !count_l2(map, l2, GPOINTER_TO_SIZE(times))) {
            return false;
        }
    }
    if (ret < 0) {
        error_setg_errno(map->errp, -ret, "could not read an L2 table");
    }
    return ret >= 0;
}

static bool visit_bitmap(void *opaque, uint64_t host, uint64_t bytes)
{
    return map_add(opaque, host, bytes);
}

static bool coroutine_fn co_count_mapping(RefMap *map)
{
    BDRVQcow2State *s = map->bs->opaque;
    const Qcow2Header *h = &s->header;

    if (!map_add(map, 0, s->cluster_size) || !co_count_l1(map, h->l1_table_offset, h->l1_size)) {
        return false;
    }
    if (h->nb_snapshots &&
        !map_add_table(map, h->snapshots_offset, s->snapshots_bytes, "snapshot table")) {
        return false;
    }
    for (guint i = 0; s->snapshots && i < s->snapshots->len; i++) {
        const Qcow2Snapshot *sn = &g_array_index(s->snapshots, Qcow2Snapshot, i);
        if (!co_count_l1(map, sn->l1_table_offset, sn->l1_size)) {
            return false;
        }
    }
    return co_count_l2_tables(map) && qcow2_co_bitmaps_visit(map->bs, visit_bitmap, map, map->errp);
}

/* Keeps the refcount blocks that lie where nothing else is; the others are forgotten. */
static bool count_blocks(RefMap *map, uint64_t *table, uint64_t size)
{
    BDRVQcow2State *s = map->bs->opaque;

    for (uint64_t i = 0; i < size; i++) {
        uint64_t c = table[i] >> s->cluster_bits;

        if (!table[i]) {
            continue;
        }
        if (qcow2_in_cluster(s, table[i]) || c >= map->limit || (c < map->nb && map->counts[c])) {
            table[i] = 0;
        } else if (!map_add(map, table[i], s->cluster_size)) {
            return false;
        }
    }
    return true;
}

static uint64_t blocks_needed(const RefMap *map)
{
    const BDRVQcow2State *s = map->bs->opaque;

    return (map->nb + (1ULL << s->refblock_bits) - 1) >> s->refblock_bits;
}

/*
 * Places for missing refcount blocks and, when it is too small, for a new table: behind everything
 * else.
 */
static bool place_missing(RefMap *map, uint64_t **table, uint64_t *size, uint64_t *table_offset)
{
    BDRVQcow2State *s = map->bs->opaque;
    uint64_t old_size = *size;

    map->limit = QCOW2_HOST_LIMIT >> s->cluster_bits;
    for (;;) {
        uint64_t needed = blocks_needed(map), i;

        if (needed > *size) {
            uint64_t bytes = qcow2_cluster_end(s, (needed + needed / 8 + 1) * 8);
            if (bytes > QCOW2_MAX_REFTABLE_BYTES) {
                error_setg(map->errp, "the image is too large for its refcount table");
                return false;
            }
            *table = g_realloc(*table, bytes);
            memset(*table + *size, 0, bytes - *size * 8);
            *size = bytes / 8;
            continue;
        }
        for (i = 0; i < needed && (*table)[i]; i++) {
        }
        if (i == needed) {
            break;
        }
        (*table)[i] = map->nb << s->cluster_bits;
        if (!map_add(map, (*table)[i], s->cluster_size)) {
            return false;
        }
    }
    if (*size != old_size) {
        *table_offset = map->nb << s->cluster_bits;
        /* May need one more block, which the caller asks for by coming again. */
        return map_add(map, *table_offset, *size * 8);
    }
    return true;
}

static int coroutine_fn co_write_blocks(RefMap *map, const uint64_t *table)
{
    BDRVQcow2State *s = map->bs->opaque;
    uint64_t entries = 1ULL << s->refblock_bits;
    g_autofree uint8_t *block = g_try_malloc(s->cluster_size);
    int ret = block ? 0 : -ENOMEM;

    for (uint64_t i = 0; ret >= 0 && i < blocks_needed(map); i++) {
        memset(block, 0, s->cluster_size);
        for (uint64_t j = 0; j < entries && (i << s->refblock_bits) + j < map->nb; j++) {
            uint64_t count = map->counts[(i << s->refblock_bits) + j];
            if (count > s->refcount_max) {
                error_setg(map->errp,
                           "a cluster has more references than refcounts of %u bits can tell",
                           s->refcount_bits);
                return -EINVAL;
            }
            qcow2_refcount_store(block, s->header.refcount_order, j, count);
        }
        ret = bdrv_co_pwrite(map->bs->file, table[i], s->cluster_size, block, 0);
    }
    return ret < 0 ? ret : bdrv_co_flush(map->bs->file->bs);
}

/* Writes the table and makes it the one in use. */
static int coroutine_fn co_switch_table(RefMap *map, const uint64_t *table, uint64_t size,
                                        uint64_t offset)
{
    BDRVQcow2State *s = map->bs->opaque;
    g_autofree uint64_t *disk = g_try_new(uint64_t, size);
    int ret;

    if (!disk) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < size; i++) {
        disk[i] = htobe64(table[i]);
    }
    ret = bdrv_co_pwrite_sync(map->bs->file, offset, size * 8, disk, 0);
    if (ret < 0) {
        return ret;
    }
    if (offset != s->header.refcount_table_offset) {
        s->header.refcount_table_offset = offset;
        s->header.refcount_table_clusters = size * 8 >> s->cluster_bits;
        return qcow2_co_update_header(map->bs);
    }
    return 0;
}

/* Bit 63 of active L1 and L2 entries says whether the refcount is exactly one. */
static bool fix_copied(const RefMap *map, uint64_t *entry)
{
    const BDRVQcow2State *s = map->bs->opaque;
    uint64_t host = *entry & QCOW2_OFFSET_MASK, fixed = *entry & ~QCOW2_OFLAG_COPIED;
    bool changed;

    /*
     * A table that lay where the repair has written holds other entries now than those that were
     * counted.
     */
    if (!host || (*entry & QCOW2_OFLAG_COMPRESSED) || host >> s->cluster_bits >= map->nb) {
        return false;
    }
    if (map->counts[host >> s->cluster_bits] == 1) {
        fixed |= QCOW2_OFLAG_COPIED;
    }
    changed = fixed != *entry;
    *entry = fixed;
    return changed;
}

static int coroutine_fn co_fix_copied_l2(const RefMap *map, uint64_t host, uint8_t *table)
{
    BDRVQcow2State *s = map->bs->opaque;
    bool changed = false;
    int ret = bdrv_co_pread(map->bs->file, host, s->cluster_size, table, 0);

    for (unsigned i = 0; ret >= 0 && i < 1u << s->l2_bits; i++) {
        uint64_t entry = qcow2_l2_entry(s, table, i);
        if (fix_copied(map, &entry)) {
            stq_be_p(table + (size_t)i * s->l2_entry_bytes, entry);
            changed = true;
        }
    }
    return ret < 0 || !changed ? ret
                               : bdrv_co_pwrite(map->bs->file, host, s->cluster_size, table, 0);
}

static int coroutine_fn co_fix_copied(const RefMap *map)
{
    BDRVQcow2State *s = map->bs->opaque;
    g_autofree uint8_t *table = g_try_malloc(s->cluster_size);
    int ret = table ? 0 : -ENOMEM;

    if (qcow2_has_data_file(s)) {
        return ret;
    }
    for (uint32_t i = 0; ret >= 0 && i < s->header.l1_size; i++) {
        uint64_t host = s->l1_table[i] & QCOW2_OFFSET_MASK, entry = s->l1_table[i];

        if (host) {
            ret = co_fix_copied_l2(map, host, table);
        }
        if (fix_copied(map, &entry)) {
            qcow2_l1_set(s, i, entry); /* written with the next writeback */
        }
    }
    return MIN(ret, 0);
}

static int coroutine_fn co_rebuild(RefMap *map, uint64_t **table, uint64_t *size)
{
    BDRVQcow2State *s = map->bs->opaque;
    uint64_t offset = s->header.refcount_table_offset, before;
    int ret;

    do {
        before = map->nb;
        if (!place_missing(map, table, size, &offset)) {
            return -EINVAL;
        }
    } while (map->nb != before);
    if (offset != s->header.refcount_table_offset) {
        map_remove(map, s->header.refcount_table_offset,
                   (uint64_t)s->header.refcount_table_clusters << s->cluster_bits);
    }
    ret = co_write_blocks(map, *table);
    if (ret >= 0) {
        ret = co_switch_table(map, *table, *size, offset);
    }
    return ret < 0 ? ret : co_fix_copied(map);
}

/* The rebuilt table replaces the one in memory. */
static void adopt_table(BlockDriverState *bs, uint64_t *table, uint64_t size)
{
    BDRVQcow2State *s = bs->opaque;

    g_free(s->reftable);
    s->reftable = table;
    s->reftable_size = size;
    s->free_hint = 0;
    g_hash_table_remove_all(s->refblock_clusters);
    for (uint64_t i = 0; i < size; i++) {
        if (table[i]) {
            g_hash_table_add(s->refblock_clusters, g_memdup2(&table[i], sizeof(table[i])));
        }
    }
}

bool coroutine_fn qcow2_co_repair_refcounts(BlockDriverState *bs, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t len = bdrv_co_getlength(bs->file->bs);
    g_autoptr(GError) err = NULL;
    RefMap map = {.bs = bs, .errp = &err, .l2_tables = g_hash_table_new(NULL, NULL)};
    uint64_t *table, size = s->reftable_size;
    int ret = -EINVAL;

    if (len < 0) {
        error_setg_errno(errp, -len, "could not get the size of the file");
        g_hash_table_destroy(map.l2_tables);
        return false;
    }
    map.limit = (qcow2_cluster_end(s, len) >> s->cluster_bits) + MAX_CLUSTERS_BEYOND_END;
    table = g_memdup2(s->reftable, MAX(size, 1) * 8);
    if (map_grow(&map, qcow2_cluster_end(s, len) >> s->cluster_bits) && co_count_mapping(&map) &&
        map_add_table(&map, s->header.refcount_table_offset, size * 8, "refcount table") &&
        count_blocks(&map, table, size)) {
        ret = co_rebuild(&map, &table, &size);
    }
    g_free(map.counts);
    g_hash_table_destroy(map.l2_tables);
    if (ret < 0) {
        g_free(table);
        if (err) {
            g_propagate_error(errp, g_steal_pointer(&err));
        } else {
            error_setg_errno(errp, -ret, "could not write refcounts");
        }
        return false;
    }
    adopt_table(bs, table, size);
    ret = qcow2_co_writeback(bs, true);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not write the L1 table");
    }
    return ret == 0;
}
