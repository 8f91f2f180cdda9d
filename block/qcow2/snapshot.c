/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of internal snapshots: read and checked, so that what they own is known and shown. */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/overlap.h"
#include "block/qcow2/snapshot.h"

#include <errno.h>
#include "util/error.h"

#define SNAPSHOT_ENTRY_BYTES 40
#define SNAPSHOT_MAX_EXTRA   1024
/*
 * Ids and names are 16-bit lengths, so this is the most a table of legal entries can need per
 * snapshot, and a cap on all.
 */
#define SNAPSHOT_MAX_TABLE_BYTES (64u << 20)
/* L2 tables of all snapshots together that writes can be checked against; 32 MiB of memory. */
#define SNAPSHOT_MAX_L2_TABLES (4 << 20)
/* What is read of their L1 tables for that: 16384 snapshots of a disk of 4 TiB. */
#define SNAPSHOT_MAX_L1_BYTES (1ULL << 30)

void qcow2_free_snapshots(BDRVQcow2State *s)
{
    for (guint i = 0; s->snapshots && i < s->snapshots->len; i++) {
        g_free(g_array_index(s->snapshots, Qcow2Snapshot, i).id);
        g_free(g_array_index(s->snapshots, Qcow2Snapshot, i).name);
    }
    if (s->snapshots) {
        g_array_free(s->snapshots, TRUE);
        s->snapshots = NULL;
    }
    g_clear_pointer(&s->inactive_l2, g_free);
    s->nb_inactive_l2 = 0;
}

static bool check_snapshot(const BDRVQcow2State *s, const Qcow2Snapshot *sn, guint i, GError **errp)
{
    uint64_t bytes = (uint64_t)sn->l1_size * 8;

    if (bytes > QCOW2_MAX_L1_BYTES) {
        error_setg(errp, "Snapshot %u has too large an L1 table", i);
        return false;
    }
    if (qcow2_in_cluster(s, sn->l1_table_offset) ||
        sn->l1_table_offset >= QCOW2_HOST_LIMIT - bytes) {
        error_setg(errp, "Snapshot %u has an invalid L1 table offset", i);
        return false;
    }
    return true;
}

/* One entry at *pos of the table; moves *pos behind it. */
static bool coroutine_fn co_load_one(BlockDriverState *bs, uint64_t *pos, guint i, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint8_t fixed[SNAPSHOT_ENTRY_BYTES], extra[24] = {0};
    uint32_t extra_bytes, id_bytes, name_bytes;
    Qcow2Snapshot sn = {0};
    int ret = bdrv_co_pread(bs->file, *pos, sizeof(fixed), fixed, 0);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read snapshots");
        return false;
    }
    sn.l1_table_offset = ldq_be_p(fixed);
    sn.l1_size = ldul_be_p(fixed + 8);
    id_bytes = lduw_be_p(fixed + 12);
    name_bytes = lduw_be_p(fixed + 14);
    sn.date_sec = ldul_be_p(fixed + 16);
    sn.date_nsec = ldul_be_p(fixed + 20);
    sn.vm_clock_nsec = ldq_be_p(fixed + 24);
    sn.vm_state_size = ldul_be_p(fixed + 32);
    extra_bytes = ldul_be_p(fixed + 36);
    if (extra_bytes > SNAPSHOT_MAX_EXTRA) {
        error_setg(errp, "Too much extra metadata in snapshot table entry %u", i);
        return false;
    }
    *pos += sizeof(fixed);
    sn.id = g_malloc0(id_bytes + 1);
    sn.name = g_malloc0(name_bytes + 1);
    ret = bdrv_co_pread(bs->file, *pos, MIN(extra_bytes, sizeof(extra)), extra, 0);
    if (ret >= 0) {
        ret = bdrv_co_pread(bs->file, *pos + extra_bytes, id_bytes, sn.id, 0);
    }
    if (ret >= 0) {
        ret = bdrv_co_pread(bs->file, *pos + extra_bytes + id_bytes, name_bytes, sn.name, 0);
    }
    sn.vm_state_size = extra_bytes >= 8 ? ldq_be_p(extra) : sn.vm_state_size;
    sn.disk_size = extra_bytes >= 16 ? ldq_be_p(extra + 8) : s->header.size;
    sn.icount = extra_bytes >= 24 ? ldq_be_p(extra + 16) : UINT64_MAX;
    g_array_append_val(s->snapshots, sn);
    *pos += ((uint64_t)extra_bytes + id_bytes + name_bytes + 7) & ~7ULL;
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read snapshots");
        return false;
    }
    return check_snapshot(s, &sn, i, errp);
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Collects the L2 tables of all snapshots, for overlap checks. */
static bool coroutine_fn co_collect_inactive_l2(BlockDriverState *bs, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    GArray *all = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    uint64_t l1_bytes = 0;
    bool ok = true;

    for (guint i = 0; ok && i < s->snapshots->len; i++) {
        const Qcow2Snapshot *sn = &g_array_index(s->snapshots, Qcow2Snapshot, i);
        g_autofree uint64_t *l1 = g_try_new(uint64_t, MAX(sn->l1_size, 1));
        int ret;

        l1_bytes += (uint64_t)sn->l1_size * 8;
        if (l1_bytes > SNAPSHOT_MAX_L1_BYTES) {
            error_setg(errp,
                       "The L1 tables of the snapshots have more than %" G_GUINT64_FORMAT
                       " bytes, too many to check writes against; use another 'overlap-check'",
                       (uint64_t)SNAPSHOT_MAX_L1_BYTES);
            ok = false;
            break;
        }
        ret = l1 ? bdrv_co_pread(bs->file, sn->l1_table_offset, (uint64_t)sn->l1_size * 8, l1, 0)
                 : -ENOMEM;
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not read the L1 table of snapshot %u", i);
            ok = false;
        }
        for (uint32_t j = 0; ok && j < sn->l1_size; j++) {
            uint64_t offset = be64toh(l1[j]) & QCOW2_OFFSET_MASK;
            if (offset && all->len >= SNAPSHOT_MAX_L2_TABLES) {
                error_setg(errp,
                           "The snapshots have more than %d L2 tables, too many to check writes "
                           "against; use another 'overlap-check'",
                           SNAPSHOT_MAX_L2_TABLES);
                ok = false;
            } else if (offset) {
                g_array_append_val(all, offset);
            }
        }
    }
    if (all->len) {
        qsort(all->data, all->len, sizeof(uint64_t), compare_u64);
    }
    s->nb_inactive_l2 = all->len;
    s->inactive_l2 = (uint64_t *)g_array_free(all, FALSE);
    return ok;
}

bool coroutine_fn qcow2_co_load_snapshots(BlockDriverState *bs, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t pos = s->header.snapshots_offset;

    if (!s->header.nb_snapshots) {
        return true;
    }
    s->snapshots = g_array_new(FALSE, TRUE, sizeof(Qcow2Snapshot));
    for (guint i = 0; i < s->header.nb_snapshots; i++) {
        if (!co_load_one(bs, &pos, i, errp)) {
            return false;
        }
        if (pos - s->header.snapshots_offset > SNAPSHOT_MAX_TABLE_BYTES) {
            error_setg(errp, "Snapshot table is too big");
            return false;
        }
    }
    s->snapshots_bytes = pos - s->header.snapshots_offset;
    return !(s->overlap_check & QCOW2_OL_INACTIVE_L2) || co_collect_inactive_l2(bs, errp);
}

SnapshotInfoList *qcow2_snapshot_list(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    SnapshotInfoList *list = NULL, **tail = &list;

    for (guint i = 0; s->snapshots && i < s->snapshots->len; i++) {
        const Qcow2Snapshot *sn = &g_array_index(s->snapshots, Qcow2Snapshot, i);
        SnapshotInfo *info = g_new0(SnapshotInfo, 1);

        info->id = g_utf8_make_valid(sn->id, -1);
        info->name = g_utf8_make_valid(sn->name, -1);
        info->vm_state_size = (int64_t)MIN(sn->vm_state_size, (uint64_t)INT64_MAX);
        info->date_sec = sn->date_sec;
        info->date_nsec = sn->date_nsec;
        info->vm_clock_sec = (int64_t)(sn->vm_clock_nsec / NANOSECONDS_PER_SECOND);
        info->vm_clock_nsec = (int64_t)(sn->vm_clock_nsec % NANOSECONDS_PER_SECOND);
        info->has_icount = sn->icount <= INT64_MAX;
        info->icount = info->has_icount ? (int64_t)sn->icount : 0;
        QAPI_LIST_APPEND(tail, info);
    }
    return list;
}
