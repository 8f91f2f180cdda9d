/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Allocating writes: deciding where guest data goes, and linking it once it is there. See the life
 * of a write in qcow2.h.
 */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/cache.h"
#include "block/qcow2/l2.h"
#include "block/qcow2/alloc.h"
#include "block/qcow2/refcount.h"
#include "block/qcow2/free.h"
#include "block/qcow2/writeback.h"

#include <errno.h>

static Qcow2Alloc *find_overlap(BDRVQcow2State *s, uint64_t start, uint64_t end)
{
    Qcow2Alloc *a, *first = NULL;

    LIST_FOREACH(a, &s->allocs, list) {
        uint64_t a_end = a->start + ((uint64_t)a->nb_clusters << s->cluster_bits);
        if (a->start < end && start < a_end && (!first || a->start < first->start)) {
            first = a;
        }
    }
    return first;
}

void coroutine_fn qcow2_co_wait_allocs(BDRVQcow2State *s, uint64_t offset, uint64_t bytes)
{
    Qcow2Alloc *a;

    while ((a = find_overlap(s, qcow2_cluster_start(s, offset),
                             qcow2_cluster_end(s, offset + bytes)))) {
        qemu_co_queue_wait(&a->waiters, &s->lock);
    }
}

void qcow2_alloc_finish(BDRVQcow2State *s, Qcow2Alloc *alloc)
{
    LIST_REMOVE(alloc, list);
    qemu_co_queue_restart_all(&alloc->waiters);
}

static void alloc_begin(BDRVQcow2State *s, Qcow2Alloc *alloc)
{
    qemu_co_queue_init(&alloc->waiters);
    LIST_INSERT_HEAD(&s->allocs, alloc, list);
}

/* How a write has to treat a guest cluster. */
typedef enum Treatment {
    OVERWRITE, /* all of it that is written is NORMAL and ours alone */
    FILL,      /* the host cluster is ours alone, but (parts of) it are not NORMAL yet */
    REPLACE,   /* a new host cluster is needed */
} Treatment;

/* The subclusters of one cluster that [from, to) (bytes in the cluster) touches, as a mask. */
static uint32_t touched_mask(const BDRVQcow2State *s, uint64_t from, uint64_t to)
{
    unsigned first = from >> s->subcluster_bits,
             end = (to + s->subcluster_size - 1) >> s->subcluster_bits;
    uint64_t mask = (1ULL << end) - (1ULL << first);

    return mask;
}

static Treatment treat(const BDRVQcow2State *s, uint64_t entry, uint64_t bitmap, uint64_t from,
                       uint64_t to)
{
    if ((entry & QCOW2_OFLAG_COMPRESSED) || !(entry & QCOW2_OFLAG_COPIED) ||
        !qcow2_has_host_cluster(s, entry)) {
        return REPLACE;
    }
    if (!s->has_subclusters) {
        return entry & QCOW2_OFLAG_ZERO ? FILL : OVERWRITE;
    }
    return touched_mask(s, from, to) & ~(uint32_t)bitmap ? FILL : OVERWRITE;
}

/*
 * In a cluster that is replaced, the subclusters that hold data must be copied along: widens
 * [*from, *to) to take them in. In any case the ends are rounded to subclusters that are not
 * NORMAL.
 */
static void widen_fill(const BDRVQcow2State *s, uint64_t entry, uint64_t bitmap, Treatment t,
                       uint64_t *from, uint64_t *to)
{
    uint32_t keep = t == REPLACE ? (uint32_t)bitmap : 0;

    *from &= ~(s->subcluster_size - 1);
    *to = (*to + s->subcluster_size - 1) & ~(s->subcluster_size - 1);
    if (!s->has_subclusters) {
        return;
    }
    if (t == REPLACE && (entry & QCOW2_OFLAG_COMPRESSED)) {
        keep = UINT32_MAX;
    }
    if (keep) {
        *from = MIN(*from, (uint64_t)__builtin_ctz(keep) << s->subcluster_bits);
        *to = MAX(*to, (uint64_t)(32 - __builtin_clz(keep)) << s->subcluster_bits);
    }
}

typedef struct Scan {
    Treatment treatment;
    uint32_t nb_clusters;
    uint64_t bytes; /* of the request */
    uint64_t host;  /* cluster-aligned; OVERWRITE and FILL */
    uint64_t first_entry, first_bitmap, last_entry, last_bitmap;
} Scan;

/* How many clusters from offset on are to be treated alike. 0 or -EIO. */
static int coroutine_fn co_scan(BlockDriverState *bs, Qcow2CacheEntry *l2, uint64_t offset,
                                uint64_t bytes, Scan *scan)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned index = qcow2_slice_index(s, offset), end = 1u << s->slice_bits;
    uint64_t pos = offset, limit = offset + bytes,
             max_bytes = MAX(QCOW2_MAX_RUN_BYTES, s->cluster_size);

    memset(scan, 0, sizeof(*scan));
    for (; pos < limit && index < end; index++) {
        uint64_t entry = qcow2_l2_entry(s, l2->data, index),
                 bitmap = qcow2_l2_bitmap(s, l2->data, index);
        uint64_t cluster = qcow2_cluster_start(s, pos),
                 next = MIN(limit, cluster + s->cluster_size);
        Treatment t = treat(s, entry, bitmap, pos - cluster, next - cluster);
        uint64_t host = entry & QCOW2_OFFSET_MASK;

        if (scan->nb_clusters == 0) {
            scan->treatment = t;
            scan->host = host;
            scan->first_entry = entry;
            scan->first_bitmap = bitmap;
        } else if (t != scan->treatment || next - offset > max_bytes ||
                   (t != REPLACE &&
                    host != scan->host + ((uint64_t)scan->nb_clusters << s->cluster_bits))) {
            break;
        }
        if (!qcow2_co_entry_check(bs, pos, entry, bitmap)) {
            return -EIO;
        }
        scan->last_entry = entry;
        scan->last_bitmap = bitmap;
        scan->nb_clusters++;
        pos = next;
    }
    scan->bytes = pos - offset;
    return 0;
}

/* Cuts a scan to its first n clusters. */
static void cut_scan(const BDRVQcow2State *s, const uint8_t *slice, uint64_t offset, uint32_t n,
                     Scan *scan)
{
    unsigned last = qcow2_slice_index(s, offset) + n - 1;

    if (n == scan->nb_clusters) {
        return;
    }
    scan->nb_clusters = n;
    scan->bytes = qcow2_cluster_start(s, offset) + ((uint64_t)n << s->cluster_bits) - offset;
    scan->last_entry = qcow2_l2_entry(s, slice, last);
    scan->last_bitmap = qcow2_l2_bitmap(s, slice, last);
}

/* Host clusters for a scan whose treatment is REPLACE; *got may be fewer than asked for. */
static int coroutine_fn co_take_host(BlockDriverState *bs, uint64_t offset, const Scan *scan,
                                     uint64_t *host, uint32_t *got, bool *fresh)
{
    BDRVQcow2State *s = bs->opaque;

    if (qcow2_has_data_file(s)) {
        *host = qcow2_cluster_start(s, offset);
        *got = scan->nb_clusters;
        *fresh = false;
        return 0;
    }
    return qcow2_co_alloc_run(bs, scan->nb_clusters, host, got, fresh);
}

static void plan_fill(const BDRVQcow2State *s, uint64_t offset, const Scan *scan, Qcow2Alloc *alloc)
{
    uint64_t start = qcow2_cluster_start(s, offset), end = offset + scan->bytes;
    uint64_t last = qcow2_cluster_start(s, end - 1);
    uint64_t from = offset - start, to = scan->nb_clusters == 1 ? end - start : s->cluster_size;

    widen_fill(s, scan->first_entry, scan->first_bitmap, scan->treatment, &from, &to);
    alloc->start = start;
    alloc->nb_clusters = scan->nb_clusters;
    alloc->fill_start = start + from;
    if (scan->nb_clusters > 1) {
        from = 0;
        to = end - last;
        widen_fill(s, scan->last_entry, scan->last_bitmap, scan->treatment, &from, &to);
    }
    alloc->fill_end = last + to;
    if (scan->treatment == FILL && s->has_subclusters) {
        /* A NORMAL subcluster at either end is only overwritten: its other bytes stay in place. */
        unsigned sc = (offset - start) >> s->subcluster_bits;
        if (scan->first_bitmap >> sc & 1) {
            alloc->fill_start = offset;
        }
        sc = (end - 1 - last) >> s->subcluster_bits;
        if (scan->last_bitmap >> sc & 1) {
            alloc->fill_end = end;
        }
    }
}

static int coroutine_fn co_plan_locked(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                       Qcow2CacheEntry *l2, Qcow2WritePlan *plan)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t host;
    uint32_t got;
    Scan scan;
    int ret = co_scan(bs, l2, offset, bytes, &scan);

    if (ret < 0) {
        return ret;
    }
    plan->bytes = scan.bytes;
    plan->host_offset = scan.host + qcow2_in_cluster(s, offset);
    plan->allocating = scan.treatment != OVERWRITE;
    if (!plan->allocating) {
        return 0;
    }
    plan->alloc = (Qcow2Alloc){.in_place = scan.treatment == FILL, .host_offset = scan.host};
    if (scan.treatment == REPLACE) {
        ret = co_take_host(bs, offset, &scan, &host, &got, &plan->alloc.fresh);
        if (ret < 0) {
            return ret;
        }
        cut_scan(s, l2->data, offset, got, &scan);
        plan->bytes = scan.bytes;
        plan->host_offset = host + qcow2_in_cluster(s, offset);
        plan->alloc.host_offset = host;
    }
    plan_fill(s, offset, &scan, &plan->alloc);
    alloc_begin(s, &plan->alloc);
    return 0;
}

int coroutine_fn qcow2_co_plan_write(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                     Qcow2WritePlan *plan)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2CacheEntry *l2;
    Qcow2Alloc *other;
    int ret;

    for (;;) {
        ret = qcow2_co_l2_get_writable(bs, offset, &l2);
        if (ret < 0) {
            return ret;
        }
        other =
            find_overlap(s, qcow2_cluster_start(s, offset), qcow2_cluster_end(s, offset + bytes));
        if (other && other->start > offset) {
            bytes = other->start - offset;
            other = NULL;
        }
        if (!other) {
            break;
        }
        qcow2_cache_put(s->l2_cache, l2);
        qemu_co_queue_wait(&other->waiters, &s->lock);
    }
    ret = co_plan_locked(bs, offset, bytes, l2, plan);
    qcow2_cache_put(s->l2_cache, l2);
    return ret;
}

void qcow2_free_entry(BlockDriverState *bs, uint64_t entry, Qcow2DiscardReason reason)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t offset, bytes;

    if (qcow2_has_data_file(s)) {
        return;
    }
    if (entry & QCOW2_OFLAG_COMPRESSED) {
        qcow2_parse_compressed(s, entry, &offset, &bytes);
        qcow2_free_later(bs, offset, bytes, reason);
    } else if (entry & QCOW2_OFFSET_MASK) {
        qcow2_free_later(bs, entry & QCOW2_OFFSET_MASK, s->cluster_size, reason);
    }
}

/* The bitmap of cluster `start` after its part of [fill_start, fill_end) became NORMAL. */
static uint64_t filled_bitmap(const BDRVQcow2State *s, const Qcow2Alloc *alloc, uint64_t start,
                              uint64_t entry, uint64_t bitmap)
{
    uint64_t from = MAX(alloc->fill_start, start),
             to = MIN(alloc->fill_end, start + s->cluster_size);
    uint32_t mask = from < to ? touched_mask(s, from - start, to - start) : 0;
    uint32_t allocated = alloc->in_place ? (uint32_t)bitmap : 0, zero = bitmap >> 32;

    if (entry & QCOW2_OFLAG_COMPRESSED) {
        zero = 0;
    }
    allocated |= mask;
    zero &= ~mask;
    return (uint64_t)zero << 32 | allocated;
}

/* Enters the clusters of an allocation into the slice that has them all. */
static void link_clusters(BlockDriverState *bs, const Qcow2Alloc *alloc, uint8_t *slice)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned index = qcow2_slice_index(s, alloc->start);

    for (uint32_t i = 0; i < alloc->nb_clusters; i++, index++) {
        uint64_t start = alloc->start + ((uint64_t)i << s->cluster_bits);
        uint8_t *p = slice + (size_t)index * s->l2_entry_bytes;
        uint64_t old = qcow2_l2_entry(s, slice, index), bitmap = qcow2_l2_bitmap(s, slice, index),
                 new;

        new = alloc->compressed
                  ? alloc->compressed_entry
                  : (alloc->host_offset + ((uint64_t)i << s->cluster_bits)) | QCOW2_OFLAG_COPIED;
        stq_be_p(p, new);
        if (s->has_subclusters) {
            stq_be_p(p + 8, alloc->compressed ? 0 : filled_bitmap(s, alloc, start, old, bitmap));
        }
        if (!alloc->in_place) {
            qcow2_free_entry(bs, old, QCOW2_DISCARD_OTHER);
        }
    }
}

int coroutine_fn qcow2_co_alloc_link(BlockDriverState *bs, Qcow2Alloc *alloc)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2CacheEntry *l2;
    int ret;

    /* A plan ends with its slice, so all clusters are linked or none: a caller may free them. */
    g_assert(qcow2_slice_index(s, alloc->start) + alloc->nb_clusters <= 1u << s->slice_bits);
    /*
     * An L2 entry that is durable before the data shows what a former owner left in the host
     * cluster.
     */
    qcow2_note_ordered(s);
    ret = qcow2_co_l2_get_writable(bs, alloc->start, &l2);
    if (ret < 0) {
        return ret;
    }
    link_clusters(bs, alloc, qcow2_cache_writable(s->l2_cache, l2));
    qcow2_cache_put(s->l2_cache, l2);
    return 0;
}

void coroutine_fn qcow2_co_alloc_abort(BlockDriverState *bs, Qcow2Alloc *alloc)
{
    BDRVQcow2State *s = bs->opaque;

    if (alloc->in_place || qcow2_has_data_file(s)) {
        return;
    }
    if (alloc->compressed) {
        uint64_t offset, bytes;
        qcow2_parse_compressed(s, alloc->compressed_entry, &offset, &bytes);
        qcow2_co_unalloc(bs, offset, bytes);
    } else {
        qcow2_co_unalloc(bs, alloc->host_offset, (uint64_t)alloc->nb_clusters << s->cluster_bits);
    }
}
