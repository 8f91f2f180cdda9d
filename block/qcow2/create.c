/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making a new, empty qcow2 image: header, refcounts and an L1 table, written in one go with the
 * header last.
 */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/refcount.h"
#include "block/qcow2/size.h"
#include "block/qcow2/image.h"

#include <errno.h>
#include "block/block-backend.h"
#include "util/error.h"

#define DEFAULT_CLUSTER_SIZE  65536u
#define DEFAULT_REFCOUNT_BITS 16

static bool check_old_version(const Qcow2Header *h, GError **errp)
{
    const struct {
        uint64_t wanted;
        const char *what;
    } features[] = {
        {h->incompatible_features & QCOW2_INCOMPAT_EXTL2, "Extended L2 entries are only"},
        {h->incompatible_features & QCOW2_INCOMPAT_DATA_FILE, "External data files are only"},
        {h->compatible_features & QCOW2_COMPAT_LAZY_REFCOUNTS, "Lazy refcounts only"},
        {h->incompatible_features & QCOW2_INCOMPAT_COMPRESSION,
         "Non-zlib compression type is only"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(features); i++) {
        if (features[i].wanted) {
            error_setg(errp,
                       "%s supported with compatibility level 1.1 and above (use version=v3 or "
                       "greater)",
                       features[i].what);
            return false;
        }
    }
    return true;
}

static bool fill_features(const BlockdevCreateOptionsQcow2 *o, Qcow2Header *h, GError **errp)
{
    if (o->has_lazy_refcounts && o->lazy_refcounts) {
        h->compatible_features |= QCOW2_COMPAT_LAZY_REFCOUNTS;
    }
    if (o->has_extended_l2 && o->extended_l2) {
        h->incompatible_features |= QCOW2_INCOMPAT_EXTL2;
    }
    if (o->data_file) {
        h->incompatible_features |= QCOW2_INCOMPAT_DATA_FILE;
    }
    if (o->has_data_file_raw && o->data_file_raw) {
        if (!o->data_file) {
            error_setg(errp, "data-file-raw requires data-file");
            return false;
        }
        if (o->backing_file) {
            error_setg(errp, "Backing file and data-file-raw cannot be used at the same time");
            return false;
        }
        h->autoclear_features |= QCOW2_AUTOCLEAR_DATA_FILE_RAW;
    }
    if (o->has_compression_type && o->compression_type == QCOW2_COMPRESSION_TYPE_ZSTD) {
        h->compression_type = QCOW2_COMPRESSION_ZSTD;
        h->incompatible_features |= QCOW2_INCOMPAT_COMPRESSION;
    }
    return h->version >= 3 || check_old_version(h, errp);
}

static bool fill_geometry(const BlockdevCreateOptionsQcow2 *o, Qcow2Header *h, GError **errp)
{
    uint64_t cluster_size = o->has_cluster_size ? o->cluster_size : DEFAULT_CLUSTER_SIZE;
    int64_t bits = o->has_refcount_bits ? o->refcount_bits : DEFAULT_REFCOUNT_BITS;

    if (cluster_size < 1u << QCOW2_MIN_CLUSTER_BITS ||
        cluster_size > 1u << QCOW2_MAX_CLUSTER_BITS || (cluster_size & (cluster_size - 1))) {
        error_setg(errp, "Cluster size must be a power of two between %u and %uk",
                   1u << QCOW2_MIN_CLUSTER_BITS, 1u << (QCOW2_MAX_CLUSTER_BITS - 10));
        return false;
    }
    if ((h->incompatible_features & QCOW2_INCOMPAT_EXTL2) &&
        cluster_size < 1u << QCOW2_MIN_EXT_CLUSTER_BITS) {
        error_setg(errp,
                   "Extended L2 entries are only supported with cluster sizes of at least %u bytes",
                   1u << QCOW2_MIN_EXT_CLUSTER_BITS);
        return false;
    }
    if (bits < 1 || bits > 64 || (bits & (bits - 1))) {
        error_setg(errp, "Refcount width must be a power of two and may not exceed 64 bits");
        return false;
    }
    if (h->version < 3 && bits != 16) {
        error_setg(errp,
                   "Different refcount widths than 16 bits require compatibility level 1.1 or "
                   "above (use version=v3 or greater)");
        return false;
    }
    h->cluster_bits = __builtin_ctzll(cluster_size);
    h->refcount_order = __builtin_ctzll(bits);
    h->header_length = h->version < 3 ? QCOW2_V2_HEADER_BYTES : QCOW2_V3_HEADER_BYTES;
    return true;
}

static bool fill_backing(const BlockdevCreateOptionsQcow2 *o, Qcow2Header *h, GError **errp)
{
    PreallocMode prealloc = o->has_preallocation ? o->preallocation : PREALLOC_MODE_OFF;

    if (!o->backing_file) {
        if (o->has_backing_fmt) {
            error_setg(errp, "Backing format cannot be used without backing file");
            return false;
        }
        return true;
    }
    if (prealloc != PREALLOC_MODE_OFF && !(h->incompatible_features & QCOW2_INCOMPAT_EXTL2)) {
        error_setg(
            errp,
            "Backing file and preallocation can only be used at the same time if extended_l2 is "
            "on");
        return false;
    }
    if (strlen(o->backing_file) > QCOW2_MAX_BACKING_NAME) {
        error_setg(errp, "Backing file name too long: at most %u bytes", QCOW2_MAX_BACKING_NAME);
        return false;
    }
    h->backing_file = *o->backing_file ? g_strdup(o->backing_file) : NULL;
    h->backing_format = o->has_backing_fmt ? g_strdup(BlockdevDriver_str(o->backing_fmt)) : NULL;
    return true;
}

/*
 * Where everything goes: header, refcount table, refcount blocks, L1 table, in whole clusters from
 * 0 on.
 */
typedef struct Layout {
    uint64_t cluster_size;
    uint64_t table_clusters, blocks, l1_clusters, total;
} Layout;

static bool make_layout(const BlockdevCreateOptionsQcow2 *o, Qcow2Header *h, Layout *l,
                        GError **errp)
{
    bool ext = h->incompatible_features & QCOW2_INCOMPAT_EXTL2;
    unsigned shift = h->cluster_bits * 2 - (ext ? 4 : 3),
             block_bits = h->cluster_bits + 3 - h->refcount_order;
    uint64_t entries;

    if (o->size > BDRV_MAX_LENGTH - BDRV_SECTOR_SIZE) {
        error_setg(errp, "Image size too large");
        return false;
    }
    h->size = (o->size + BDRV_SECTOR_SIZE - 1) & ~(uint64_t)(BDRV_SECTOR_SIZE - 1);
    entries = (h->size >> shift) + !!(h->size & ((1ULL << shift) - 1));
    if (entries * 8 > QCOW2_MAX_L1_BYTES) {
        error_setg(errp,
                   "Image size too large for a cluster size of %u bytes: at most %" G_GUINT64_FORMAT
                   " bytes",
                   1u << h->cluster_bits, (uint64_t)(QCOW2_MAX_L1_BYTES / 8) << shift);
        return false;
    }
    l->cluster_size = 1ULL << h->cluster_bits;
    l->l1_clusters = MAX((entries * 8 + l->cluster_size - 1) >> h->cluster_bits, 1);
    l->blocks = 1;
    for (;;) {
        l->table_clusters = (l->blocks * 8 + l->cluster_size - 1) >> h->cluster_bits;
        l->total = 1 + l->table_clusters + l->blocks + l->l1_clusters;
        if (l->total <= l->blocks << block_bits) {
            break;
        }
        l->blocks++;
    }
    h->refcount_table_offset = l->cluster_size;
    h->refcount_table_clusters = l->table_clusters;
    h->l1_size = entries;
    h->l1_table_offset = (1 + l->table_clusters + l->blocks) << h->cluster_bits;
    return true;
}

static BlockDriverState *coroutine_fn co_open_ref(const BlockdevRef *ref, const char *name,
                                                  GError **errp)
{
    BlockDriverState *bs;

    if (!ref) {
        error_setg(errp, "Parameter '%s' is missing", name);
        return NULL;
    }
    if (ref->type == json_type_string) {
        bs = bdrv_lookup_bs(NULL, ref->u.reference, errp);
        if (bs) {
            bdrv_ref(bs);
        }
        return bs;
    }
    return bdrv_co_open(&ref->u.definition, BDRV_O_RDWR | BDRV_O_UNMAP, errp);
}

/* The only user of bs: what others read or write there is about to go. */
static BlockBackend *open_backend(BlockDriverState *bs, GError **errp)
{
    BlockBackend *blk = blk_new(BLK_PERM_WRITE | BLK_PERM_RESIZE, 0);

    if (!blk_insert_bs(blk, bs, errp)) {
        blk_unref(blk);
        return NULL;
    }
    blk_set_allow_write_beyond_eof(blk, true);
    return blk;
}

static int coroutine_fn co_write_tables(BlockBackend *blk, const Qcow2Header *h, const Layout *l)
{
    uint64_t bytes = (l->table_clusters + l->blocks) * l->cluster_size;
    g_autofree uint8_t *buf = g_try_malloc0(bytes);
    uint8_t *blocks;
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    blocks = buf + l->table_clusters * l->cluster_size;
    for (uint64_t i = 0; i < l->blocks; i++) {
        stq_be_p(buf + i * 8, (1 + l->table_clusters + i) * l->cluster_size);
    }
    for (uint64_t i = 0; i < l->total; i++) {
        qcow2_refcount_store(blocks, h->refcount_order, i, 1);
    }
    ret = blk_co_pwrite(blk, l->cluster_size, bytes, buf, 0);
    if (ret >= 0) {
        ret = blk_co_pwrite_zeroes(blk, h->l1_table_offset, l->l1_clusters * l->cluster_size, 0);
    }
    return ret < 0 ? ret : blk_co_flush(blk);
}

static bool coroutine_fn co_write_image(BlockBackend *blk, const Qcow2Header *h, const Layout *l,
                                        GError **errp)
{
    g_autofree uint8_t *header = g_malloc0(l->cluster_size);
    int64_t len = blk_getlength(blk);
    int ret;

    if (qcow2_header_serialize(h, header, errp) < 0) {
        return false;
    }
    /* Gives back what the file held before; a device keeps its size. */
    if (len > 0 && !blk_co_truncate(blk, 0, false, PREALLOC_MODE_OFF, errp)) {
        return false;
    }
    ret = co_write_tables(blk, h, l);
    if (ret >= 0) {
        ret = blk_co_pwrite(blk, 0, l->cluster_size, header, 0);
    }
    if (ret >= 0) {
        ret = blk_co_flush(blk);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write qcow2 header");
        return false;
    }
    return true;
}

static bool coroutine_fn co_preallocate_new(BlockDriverState *file, BlockDriverState *data,
                                            const BlockdevCreateOptionsQcow2 *o, GError **errp)
{
    BlockdevRef file_ref = {.type = json_type_string, .u.reference = file->node_name};
    BlockdevRef data_ref = {.type = json_type_string, .u.reference = data ? data->node_name : NULL};
    BlockdevOptions options = {
        .driver = BLOCKDEV_DRIVER_QCOW2,
        .u.qcow2 = {.file = &file_ref, .data_file = data ? &data_ref : NULL},
    };
    BlockDriverState *bs = bdrv_co_open(&options, BDRV_O_RDWR | BDRV_O_NO_BACKING, errp);
    BlockBackend *blk = bs ? open_backend(bs, errp) : NULL;
    bool ok = blk && qcow2_co_preallocate(bs, 0, bs->total_bytes, o->preallocation, errp);

    if (blk) {
        blk_unref(blk);
    }
    if (bs) {
        bdrv_co_unref(bs);
    }
    return ok;
}

static bool coroutine_fn co_create_in(BlockDriverState *file, BlockDriverState *data,
                                      Qcow2Header *h, const BlockdevCreateOptionsQcow2 *o,
                                      GError **errp)
{
    BlockBackend *blk, *data_blk;
    Layout layout;
    bool ok;

    if (!make_layout(o, h, &layout, errp)) {
        return false;
    }
    blk = open_backend(file, errp);
    if (!blk) {
        return false;
    }
    ok = co_write_image(blk, h, &layout, errp);
    blk_unref(blk);
    if (ok && data) {
        data_blk = open_backend(data, errp);
        ok = data_blk && blk_co_truncate(data_blk, h->size, false, PREALLOC_MODE_OFF, errp);
        if (data_blk) {
            blk_unref(data_blk);
        }
    }
    if (ok && o->has_preallocation && o->preallocation != PREALLOC_MODE_OFF) {
        ok = co_preallocate_new(file, data, o, errp);
    }
    return ok;
}

bool coroutine_fn qcow2_co_format(const BlockdevCreateOptions *options, GError **errp)
{
    const BlockdevCreateOptionsQcow2 *o = &options->u.qcow2;
    g_auto(Qcow2Header)
        h = {.version = o->has_version && o->version == BLOCKDEV_QCOW2_VERSION_V2 ? 2 : 3};
    BlockDriverState *file, *data = NULL;
    bool ok = false;

    if (!fill_features(o, &h, errp) || !fill_geometry(o, &h, errp) || !fill_backing(o, &h, errp)) {
        return false;
    }
    file = co_open_ref(o->file, "file", errp);
    if (!file) {
        return false;
    }
    if (o->data_file) {
        data = co_open_ref(o->data_file, "data-file", errp);
        if (data && data->exact_filename && *data->exact_filename) {
            h.data_file_name = g_strdup(data->exact_filename);
        }
    }
    if (!o->data_file || data) {
        ok = co_create_in(file, data, &h, o, errp);
    }
    if (data) {
        bdrv_co_unref(data);
    }
    bdrv_co_unref(file);
    return ok;
}
