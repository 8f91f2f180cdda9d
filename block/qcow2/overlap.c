/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guarding the image: reporting contradictions in its metadata, and refusing writes that would hit
 * metadata.
 */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/overlap.h"

#include <errno.h>
#include "qapi/qapi-events.h"
#include "util/error.h"

void coroutine_fn qcow2_co_signal_corruption(BlockDriverState *bs, bool fatal, int64_t offset,
                                             int64_t size, const char *fmt, ...)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree char *msg = NULL;
    va_list ap;

    fatal = fatal && !bdrv_is_read_only(bs);
    if (s->corruption_signalled && (!fatal || s->fatal)) {
        return;
    }
    s->corruption_signalled = true;
    va_start(ap, fmt);
    msg = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    error_report("qcow2: %s: %s; further %scorruption events will be suppressed",
                 fatal ? "Marking image as corrupt" : "Image is corrupt", msg,
                 fatal ? "" : "non-fatal ");
    BlockImageCorruptedData event = {
        .device = (char *)bdrv_get_device_name(bs),
        .node_name = bs->node_name[0] ? bs->node_name : NULL,
        .msg = msg,
        .has_offset = offset >= 0,
        .offset = offset,
        .has_size = size >= 0,
        .size = size,
        .fatal = fatal,
    };
    qapi_event_send_block_image_corrupted(&event);
    if (fatal) {
        s->fatal = true;
        s->corrupt = true;
        if (s->header.version >= 3) {
            uint8_t field[8];
            s->header.incompatible_features |= QCOW2_INCOMPAT_CORRUPT;
            stq_be_p(field, s->header.incompatible_features);
            if (bdrv_co_pwrite_sync(bs->file, QCOW2_OFS_INCOMPATIBLE, sizeof(field), field, 0) <
                0) {
                error_report("qcow2: could not mark the image as corrupt");
            }
        }
    }
}

static bool ranges_overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a_bytes && b_bytes && a < b + b_bytes && b < a + a_bytes;
}

/*
 * Whether a cluster of [offset, offset + bytes) is in the set of host offsets; walks the smaller of
 * the two.
 */
static bool set_overlaps(const BDRVQcow2State *s, GHashTable *set, uint64_t offset, uint64_t bytes)
{
    uint64_t start = qcow2_cluster_start(s, offset),
             clusters = (offset + bytes - start - 1) / s->cluster_size + 1;
    GHashTableIter iter;
    gpointer key;

    if (clusters <= g_hash_table_size(set)) {
        for (uint64_t pos = start; pos < offset + bytes; pos += s->cluster_size) {
            if (g_hash_table_contains(set, &pos)) {
                return true;
            }
        }
        return false;
    }
    g_hash_table_iter_init(&iter, set);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        if (ranges_overlap(*(uint64_t *)key, s->cluster_size, offset, bytes)) {
            return true;
        }
    }
    return false;
}

static bool inactive_l1_overlaps(const BDRVQcow2State *s, uint64_t offset, uint64_t bytes)
{
    for (guint i = 0; s->snapshots && i < s->snapshots->len; i++) {
        const Qcow2Snapshot *sn = &g_array_index(s->snapshots, Qcow2Snapshot, i);
        if (ranges_overlap(sn->l1_table_offset, (uint64_t)sn->l1_size * 8, offset, bytes)) {
            return true;
        }
    }
    return false;
}

static bool inactive_l2_overlaps(const BDRVQcow2State *s, uint64_t offset, uint64_t bytes)
{
    size_t lo = 0, hi = s->nb_inactive_l2;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (s->inactive_l2[mid] + s->cluster_size <= offset) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < s->nb_inactive_l2 &&
           ranges_overlap(s->inactive_l2[lo], s->cluster_size, offset, bytes);
}

/* The first kind of metadata in `kinds` that the range meets, as its bit; 0: none. */
static int find_overlap(const BDRVQcow2State *s, int kinds, uint64_t offset, uint64_t bytes)
{
    const Qcow2Header *h = &s->header;

    if ((kinds & QCOW2_OL_MAIN_HEADER) && offset < s->cluster_size) {
        return QCOW2_OL_MAIN_HEADER;
    }
    if ((kinds & QCOW2_OL_ACTIVE_L1) &&
        ranges_overlap(h->l1_table_offset, (uint64_t)h->l1_size * 8, offset, bytes)) {
        return QCOW2_OL_ACTIVE_L1;
    }
    if ((kinds & QCOW2_OL_ACTIVE_L2) && set_overlaps(s, s->l2_clusters, offset, bytes)) {
        return QCOW2_OL_ACTIVE_L2;
    }
    if ((kinds & QCOW2_OL_REFCOUNT_TABLE) &&
        ranges_overlap(h->refcount_table_offset, s->reftable_size * 8, offset, bytes)) {
        return QCOW2_OL_REFCOUNT_TABLE;
    }
    if ((kinds & QCOW2_OL_REFCOUNT_BLOCK) && set_overlaps(s, s->refblock_clusters, offset, bytes)) {
        return QCOW2_OL_REFCOUNT_BLOCK;
    }
    if ((kinds & QCOW2_OL_SNAPSHOT_TABLE) && h->nb_snapshots &&
        ranges_overlap(h->snapshots_offset, s->snapshots_bytes, offset, bytes)) {
        return QCOW2_OL_SNAPSHOT_TABLE;
    }
    if ((kinds & QCOW2_OL_INACTIVE_L1) && inactive_l1_overlaps(s, offset, bytes)) {
        return QCOW2_OL_INACTIVE_L1;
    }
    if ((kinds & QCOW2_OL_INACTIVE_L2) && inactive_l2_overlaps(s, offset, bytes)) {
        return QCOW2_OL_INACTIVE_L2;
    }
    if ((kinds & QCOW2_OL_BITMAP_DIRECTORY) && h->has_bitmaps_ext &&
        ranges_overlap(h->bitmap_directory_offset, h->bitmap_directory_size, offset, bytes)) {
        return QCOW2_OL_BITMAP_DIRECTORY;
    }
    return 0;
}

static const char *overlap_name(int kind)
{
    switch (kind) {
    case QCOW2_OL_MAIN_HEADER:
        return "qcow2_header";
    case QCOW2_OL_ACTIVE_L1:
        return "active L1 table";
    case QCOW2_OL_ACTIVE_L2:
        return "active L2 table";
    case QCOW2_OL_REFCOUNT_BLOCK:
        return "refcount block";
    case QCOW2_OL_REFCOUNT_TABLE:
        return "refcount table";
    case QCOW2_OL_SNAPSHOT_TABLE:
        return "snapshot table";
    case QCOW2_OL_INACTIVE_L1:
        return "inactive L1 table";
    case QCOW2_OL_INACTIVE_L2:
        return "inactive L2 table";
    default:
        return "bitmap directory";
    }
}

int coroutine_fn qcow2_co_check_overlap(BlockDriverState *bs, int ignore, uint64_t offset,
                                        uint64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    int kind;

    if (bytes == 0 || s->overlap_check == 0) {
        return 0;
    }
    kind = find_overlap(s, s->overlap_check & ~ignore, offset, bytes);
    if (!kind) {
        return 0;
    }
    qcow2_co_signal_corruption(bs, true, offset, bytes,
                               "Preventing invalid write on metadata (overlaps with %s)",
                               overlap_name(kind));
    return -EIO;
}
