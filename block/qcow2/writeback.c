/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing dirty metadata to the file in an order that a crash cannot turn into corruption.
 *
 *   stage  writes                    relies on
 *   1      refcount blocks           nothing: they count too much at worst
 *   2      refcount table entries    1 being durable (new blocks)
 *   3      L2 slices                 1 and 2, and the data in new clusters, being durable
 *   4      L1 entries                3 being durable (new tables)
 *
 * All four are snapshots of one instant, taken without yielding: later changes wait for the next
 * writeback.
 */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/cache.h"
#include "block/qcow2/overlap.h"
#include "block/qcow2/writeback.h"

#include <errno.h>

typedef struct Snapshot {
    GPtrArray *refblocks, *l2;
    uint64_t *reft; /* big-endian copies of the dirty entries */
    uint64_t reft_start, reft_end;
    uint64_t *l1;
    uint32_t l1_start, l1_end;
} Snapshot;

int coroutine_fn qcow2_co_barrier(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t covered = s->ordered_writes;
    int ret;

    if (s->ordered_durable >= covered) {
        return 0;
    }
    ret = bdrv_co_flush(bs->file->bs);
    if (ret == 0 && s->data_file != bs->file) {
        ret = bdrv_co_flush(s->data_file->bs);
    }
    if (ret == 0) {
        s->ordered_durable = MAX(s->ordered_durable, covered);
    }
    return ret;
}

/* Copies table[start..end) big-endian, rounded out to 512-byte sectors. */
static uint64_t *copy_table(const uint64_t *table, uint64_t size, uint64_t *start, uint64_t *end)
{
    uint64_t *copy;

    *start &= ~63ULL;
    *end = MIN((*end + 63) & ~63ULL, size);
    copy = g_try_new(uint64_t, *end - *start);
    if (copy) {
        for (uint64_t i = *start; i < *end; i++) {
            copy[i - *start] = htobe64(table[i]);
        }
    }
    return copy;
}

static int snapshot_take(BDRVQcow2State *s, Snapshot *snap, bool with_refcounts)
{
    memset(snap, 0, sizeof(*snap));
    if (with_refcounts && s->reftable_dirty_start < s->reftable_dirty_end) {
        snap->reft_start = s->reftable_dirty_start;
        snap->reft_end = s->reftable_dirty_end;
        snap->reft = copy_table(s->reftable, s->reftable_size, &snap->reft_start, &snap->reft_end);
        if (!snap->reft) {
            return -ENOMEM;
        }
    }
    if (s->l1_dirty_start < s->l1_dirty_end) {
        uint64_t start = s->l1_dirty_start, end = s->l1_dirty_end;
        snap->l1 = copy_table(s->l1_table, s->header.l1_size, &start, &end);
        if (!snap->l1) {
            g_free(snap->reft);
            return -ENOMEM;
        }
        snap->l1_start = start;
        snap->l1_end = end;
    }
    if (with_refcounts) {
        s->reftable_dirty_start = s->reftable_dirty_end = 0;
        snap->refblocks = qcow2_cache_freeze(s->refblock_cache);
    }
    s->l1_dirty_start = s->l1_dirty_end = 0;
    snap->l2 = qcow2_cache_freeze(s->l2_cache);
    return 0;
}

/* What was not written is dirty again. */
static void snapshot_restore(BDRVQcow2State *s, Snapshot *snap)
{
    if (snap->refblocks) {
        qcow2_cache_unfreeze(s->refblock_cache, snap->refblocks);
    }
    if (snap->l2) {
        qcow2_cache_unfreeze(s->l2_cache, snap->l2);
    }
    if (snap->reft) {
        bool empty = s->reftable_dirty_start == s->reftable_dirty_end;
        s->reftable_dirty_start =
            empty ? snap->reft_start : MIN(snap->reft_start, s->reftable_dirty_start);
        s->reftable_dirty_end = MAX(snap->reft_end, s->reftable_dirty_end);
        g_free(snap->reft);
    }
    if (snap->l1) {
        bool empty = s->l1_dirty_start == s->l1_dirty_end;
        s->l1_dirty_start = empty ? snap->l1_start : MIN(snap->l1_start, s->l1_dirty_start);
        s->l1_dirty_end = MAX(snap->l1_end, s->l1_dirty_end);
        g_free(snap->l1);
    }
}

static int coroutine_fn co_write_table(BlockDriverState *bs, uint64_t offset, const uint64_t *data,
                                       uint64_t start, uint64_t end, int ignore_overlap)
{
    int ret = qcow2_co_check_overlap(bs, ignore_overlap, offset + start * 8, (end - start) * 8);

    return ret < 0 ? ret : bdrv_co_pwrite(bs->file, offset + start * 8, (end - start) * 8, data, 0);
}

static int coroutine_fn co_write_refcounts(BlockDriverState *bs, Snapshot *snap)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    if (snap->refblocks && snap->refblocks->len) {
        ret = qcow2_cache_co_write_frozen(s->refblock_cache, g_steal_pointer(&snap->refblocks),
                                          BLKDBG_REFBLOCK_UPDATE, QCOW2_OL_REFCOUNT_BLOCK);
        qcow2_note_ordered(s);
    }
    if (ret == 0 && snap->reft) {
        ret = qcow2_co_barrier(bs);
        if (ret == 0) {
            BLKDBG_CO_EVENT(bs->file, BLKDBG_REFTABLE_UPDATE);
            ret = co_write_table(bs, s->header.refcount_table_offset, snap->reft, snap->reft_start,
                                 snap->reft_end, QCOW2_OL_REFCOUNT_TABLE);
            qcow2_note_ordered(s);
        }
        if (ret == 0) {
            g_clear_pointer(&snap->reft, g_free);
        }
    }
    return ret;
}

static int coroutine_fn co_write_mapping(BlockDriverState *bs, Snapshot *snap)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (snap->l2->len == 0 && !snap->l1) {
        return 0;
    }
    ret = qcow2_co_barrier(bs);
    if (ret == 0 && snap->l2->len) {
        ret = qcow2_cache_co_write_frozen(s->l2_cache, g_steal_pointer(&snap->l2), BLKDBG_L2_UPDATE,
                                          QCOW2_OL_ACTIVE_L2);
        if (snap->l1) {
            qcow2_note_ordered(s); /* new tables */
        }
    }
    if (ret == 0 && snap->l1) {
        ret = qcow2_co_barrier(bs);
        if (ret == 0) {
            BLKDBG_CO_EVENT(bs->file, BLKDBG_L1_UPDATE);
            ret = co_write_table(bs, s->header.l1_table_offset, snap->l1, snap->l1_start,
                                 snap->l1_end, QCOW2_OL_ACTIVE_L1);
        }
        if (ret == 0) {
            g_clear_pointer(&snap->l1, g_free);
        }
    }
    return ret;
}

static bool nothing_dirty(const BDRVQcow2State *s, bool with_refcounts)
{
    return !qcow2_cache_is_dirty(s->l2_cache) && s->l1_dirty_start == s->l1_dirty_end &&
           (!with_refcounts || (!qcow2_cache_is_dirty(s->refblock_cache) &&
                                s->reftable_dirty_start == s->reftable_dirty_end));
}

int coroutine_fn qcow2_co_writeback(BlockDriverState *bs, bool final)
{
    BDRVQcow2State *s = bs->opaque;
    bool with_refcounts = final || !s->lazy_refcounts;
    Snapshot snap;
    int ret;

    qemu_co_mutex_lock(&s->writeback_lock);
    ret = s->fatal ? -EIO : 0;
    if (ret == 0 && !nothing_dirty(s, with_refcounts)) {
        ret = snapshot_take(s, &snap, with_refcounts);
        if (ret == 0) {
            ret = co_write_refcounts(bs, &snap);
            if (ret == 0) {
                ret = co_write_mapping(bs, &snap);
            }
            snapshot_restore(s, &snap);
        }
    }
    qemu_co_mutex_unlock(&s->writeback_lock);
    return ret;
}
