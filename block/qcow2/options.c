/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Run-time options of a qcow2 node. */
#include "block/qcow2/options.h"
#include "block/qcow2/cache.h"
#include "block/qcow2/overlap.h"
#include "block/qcow2/writeback.h"

#include "util/error.h"

typedef struct CacheSizes {
    uint64_t l2_bytes, l2_entry_bytes, refcount_bytes;
} CacheSizes;

static bool check_not_negative(const char *name, bool has, int64_t value, GError **errp)
{
    if (has && value < 0) {
        error_setg(errp, "%s must not be negative", name);
        return false;
    }
    return true;
}

/* How much L2 cache covers the whole disk. */
static uint64_t l2_bytes_needed(const BDRVQcow2State *s)
{
    uint64_t clusters = (s->header.size >> s->cluster_bits) + 1;

    return ((clusters * s->l2_entry_bytes) | (s->cluster_size - 1)) + 1;
}

static bool split_sizes(const BDRVQcow2State *s, const BlockdevOptionsQcow2 *o, CacheSizes *c,
                        GError **errp)
{
    uint64_t min_refcount = QCOW2_MIN_REFBLOCK_CACHE_ENTRIES * s->cluster_size;

    if (!check_not_negative("cache-size", o->has_cache_size, o->cache_size, errp) ||
        !check_not_negative("l2-cache-size", o->has_l2_cache_size, o->l2_cache_size, errp) ||
        !check_not_negative("refcount-cache-size", o->has_refcount_cache_size,
                            o->refcount_cache_size, errp)) {
        return false;
    }
    c->l2_bytes = o->has_l2_cache_size ? (uint64_t)o->l2_cache_size : QCOW2_DEFAULT_L2_CACHE_BYTES;
    c->refcount_bytes =
        o->has_refcount_cache_size ? (uint64_t)o->refcount_cache_size : min_refcount;
    if (!o->has_cache_size) {
        return true;
    }
    if (o->has_l2_cache_size && o->has_refcount_cache_size) {
        error_setg(
            errp,
            "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
        return false;
    }
    if (o->has_l2_cache_size && o->l2_cache_size > o->cache_size) {
        error_setg(errp, "l2-cache-size may not exceed cache-size");
        return false;
    }
    if (o->has_refcount_cache_size && o->refcount_cache_size > o->cache_size) {
        error_setg(errp, "refcount-cache-size may not exceed cache-size");
        return false;
    }
    if (o->has_l2_cache_size) {
        c->refcount_bytes = o->cache_size - o->l2_cache_size;
    } else if (o->has_refcount_cache_size) {
        c->l2_bytes = o->cache_size - o->refcount_cache_size;
    } else {
        c->refcount_bytes = MIN((uint64_t)o->cache_size, min_refcount);
        c->l2_bytes = o->cache_size - c->refcount_bytes;
    }
    return true;
}

static bool cache_sizes(const BDRVQcow2State *s, const BlockdevOptionsQcow2 *o, CacheSizes *c,
                        GError **errp)
{
    uint64_t entry =
        o->has_l2_cache_entry_size ? (uint64_t)o->l2_cache_entry_size : MIN(s->cluster_size, 65536);

    if (entry < 512 || entry > s->cluster_size || (entry & (entry - 1))) {
        error_setg(errp,
                   "L2 cache entry size must be a power of two between 512 and the cluster size "
                   "(%" G_GUINT64_FORMAT ")",
                   s->cluster_size);
        return false;
    }
    if (!split_sizes(s, o, c, errp)) {
        return false;
    }
    c->l2_entry_bytes = entry;
    c->l2_bytes = MIN(c->l2_bytes, l2_bytes_needed(s));
    c->l2_bytes = MAX(c->l2_bytes, QCOW2_MIN_L2_CACHE_ENTRIES * entry);
    c->refcount_bytes = MAX(c->refcount_bytes, QCOW2_MIN_REFBLOCK_CACHE_ENTRIES * s->cluster_size);
    if (c->refcount_bytes / s->cluster_size > INT_MAX) {
        error_setg(errp, "Refcount cache size too big");
        return false;
    }
    return true;
}

static int mode_mask(Qcow2OverlapCheckMode mode)
{
    switch (mode) {
    case QCOW2_OVERLAP_CHECK_MODE_NONE:
        return QCOW2_OL_NONE;
    case QCOW2_OVERLAP_CHECK_MODE_CONSTANT:
        return QCOW2_OL_CONSTANT;
    case QCOW2_OVERLAP_CHECK_MODE_ALL:
        return QCOW2_OL_ALL;
    default:
        return QCOW2_OL_CACHED;
    }
}

static void apply_flag(int *mask, bool has, bool value, int bit)
{
    if (has) {
        *mask = value ? *mask | bit : *mask & ~bit;
    }
}

static int overlap_mask(const Qcow2OverlapChecks *o)
{
    const Qcow2OverlapCheckFlags *f;
    int mask;

    if (!o || o->type != json_type_object) {
        return mode_mask(o ? o->u.mode : QCOW2_OVERLAP_CHECK_MODE_CACHED);
    }
    f = &o->u.flags;
    mask = mode_mask(f->has_template ? f->template : QCOW2_OVERLAP_CHECK_MODE_CACHED);
    apply_flag(&mask, f->has_main_header, f->main_header, QCOW2_OL_MAIN_HEADER);
    apply_flag(&mask, f->has_active_l1, f->active_l1, QCOW2_OL_ACTIVE_L1);
    apply_flag(&mask, f->has_active_l2, f->active_l2, QCOW2_OL_ACTIVE_L2);
    apply_flag(&mask, f->has_refcount_table, f->refcount_table, QCOW2_OL_REFCOUNT_TABLE);
    apply_flag(&mask, f->has_refcount_block, f->refcount_block, QCOW2_OL_REFCOUNT_BLOCK);
    apply_flag(&mask, f->has_snapshot_table, f->snapshot_table, QCOW2_OL_SNAPSHOT_TABLE);
    apply_flag(&mask, f->has_inactive_l1, f->inactive_l1, QCOW2_OL_INACTIVE_L1);
    apply_flag(&mask, f->has_inactive_l2, f->inactive_l2, QCOW2_OL_INACTIVE_L2);
    apply_flag(&mask, f->has_bitmap_directory, f->bitmap_directory, QCOW2_OL_BITMAP_DIRECTORY);
    return mask;
}

static bool check_others(const BDRVQcow2State *s, const BlockdevOptionsQcow2 *o, GError **errp)
{
    if (o->has_lazy_refcounts && o->lazy_refcounts && s->header.version < 3) {
        error_setg(
            errp,
            "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level");
        return false;
    }
    if (o->has_discard_no_unref && o->discard_no_unref && s->header.version < 3) {
        error_setg(errp, "discard-no-unref is only supported since qcow2 version 3");
        return false;
    }
    if (o->has_cache_clean_interval &&
        (o->cache_clean_interval < 0 || o->cache_clean_interval > UINT32_MAX)) {
        error_setg(errp, "Cache clean interval too big");
        return false;
    }
    return true;
}

bool qcow2_options_check(BlockDriverState *bs, const BlockdevOptionsQcow2 *o, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    CacheSizes sizes;

    return cache_sizes(s, o, &sizes, errp) && check_others(s, o, errp);
}

static int coroutine_fn co_clean_caches(BlockDriverState *bs)
{
    return qcow2_co_writeback(bs, true);
}

bool qcow2_options_apply(BlockDriverState *bs, const BlockdevOptionsQcow2 *o, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    CacheSizes sizes;

    if (!cache_sizes(s, o, &sizes, errp) || !check_others(s, o, errp)) {
        return false;
    }
    s->lazy_refcounts = o->has_lazy_refcounts
                            ? o->lazy_refcounts
                            : !!(s->header.compatible_features & QCOW2_COMPAT_LAZY_REFCOUNTS);
    s->discard_pass[QCOW2_DISCARD_NEVER] = false;
    s->discard_pass[QCOW2_DISCARD_REQUEST] =
        o->has_pass_discard_request ? o->pass_discard_request : !!(bs->open_flags & BDRV_O_UNMAP);
    s->discard_pass[QCOW2_DISCARD_SNAPSHOT] =
        o->has_pass_discard_snapshot ? o->pass_discard_snapshot : true;
    s->discard_pass[QCOW2_DISCARD_OTHER] =
        o->has_pass_discard_other ? o->pass_discard_other : false;
    s->discard_no_unref = o->has_discard_no_unref && o->discard_no_unref;
    s->overlap_check = overlap_mask(o->overlap_check);
    s->cache_clean_interval = o->has_cache_clean_interval ? (uint64_t)o->cache_clean_interval
                                                          : QCOW2_DEFAULT_CACHE_CLEAN_INTERVAL;
    qcow2_cache_free(s->l2_cache);
    qcow2_cache_free(s->refblock_cache);
    s->slice_bytes = sizes.l2_entry_bytes;
    s->slice_bits = __builtin_ctzll(sizes.l2_entry_bytes / s->l2_entry_bytes);
    s->l2_cache = qcow2_cache_new(bs, sizes.l2_entry_bytes, sizes.l2_bytes / sizes.l2_entry_bytes,
                                  BLKDBG_L2_LOAD, co_clean_caches);
    s->refblock_cache = qcow2_cache_new(bs, s->cluster_size, sizes.refcount_bytes / s->cluster_size,
                                        BLKDBG_REFBLOCK_LOAD, co_clean_caches);
    return true;
}
