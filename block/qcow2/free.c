/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Freeing host clusters. A cluster that loses a reference passes through two lists before its
 * refcount is changed:
 *
 *   frees   the L2 (L1, header) change that dropped it may still be in memory only
 *   grace   the change is durable; requests that looked the cluster up before the change may still use it
 *
 * Until then it counts as used, so it is not given to another owner: neither a crash nor a request
 * in flight can meet another owner's data in it.
 */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/refcount.h"
#include "block/qcow2/free.h"
#include "block/qcow2/writeback.h"

#include <errno.h>

void qcow2_run_append(GArray *runs, uint64_t cluster, Qcow2DiscardReason reason)
{
    Qcow2PendingFree *last, f = {.first = cluster, .count = 1, .reason = reason};

    if (runs->len) {
        last = &g_array_index(runs, Qcow2PendingFree, runs->len - 1);
        if (last->first + last->count == cluster && last->count < UINT32_MAX &&
            last->reason == reason) {
            last->count++;
            return;
        }
    }
    g_array_append_val(runs, f);
}

void qcow2_free_later(BlockDriverState *bs, uint64_t host, uint64_t bytes,
                      Qcow2DiscardReason reason)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t first = host >> s->cluster_bits,
             end = (host + bytes + s->cluster_size - 1) >> s->cluster_bits;
    Qcow2PendingFree f = {.first = first, .count = end - first, .reason = reason};

    if (bytes == 0) {
        return;
    }
    s->frees_clusters += f.count;
    /* Entries below the seal belong to a flush under way: later changes must not hide in them. */
    if (s->frees_base + s->frees->len > s->frees_sealed) {
        Qcow2PendingFree *last = &g_array_index(s->frees, Qcow2PendingFree, s->frees->len - 1);
        if (last->first + last->count == first && last->reason == reason &&
            last->count < UINT32_MAX - f.count) {
            last->count += f.count;
            return;
        }
    }
    g_array_append_val(s->frees, f);
}

/* The first `count` frees are durable; they wait for the requests that are in flight. */
static void start_grace(BDRVQcow2State *s, guint count)
{
    for (guint i = 0; i < count; i++) {
        s->frees_clusters -= g_array_index(s->frees, Qcow2PendingFree, i).count;
    }
    g_array_append_vals(s->grace, s->frees->data, count);
    g_array_remove_range(s->frees, 0, count);
    s->frees_base += count;
    s->grace_epoch = s->epoch & 1;
    s->epoch++;
}

/*
 * Counts down every cluster that stays in use or need not be discarded. A cluster that loses its
 * only reference, and is to be discarded in the file, goes into `last` instead. It stays counted,
 * so that no request allocates it meanwhile.
 */
static int coroutine_fn co_count_down(BlockDriverState *bs, GArray *grace, GArray *last)
{
    BDRVQcow2State *s = bs->opaque;
    int result = 0;

    for (guint i = 0; i < grace->len; i++) {
        Qcow2PendingFree *f = &g_array_index(grace, Qcow2PendingFree, i);
        for (uint64_t c = f->first; c < f->first + f->count; c++) {
            uint64_t refcount = 0;
            int ret = s->discard_pass[f->reason] ? qcow2_co_get_refcount(bs, c, &refcount) : 0;
            if (ret == 0 && refcount == 1) {
                qcow2_run_append(last, c, f->reason);
                if (s->compressed_pos >> s->cluster_bits == c) {
                    s->compressed_pos = 0; /* no new compressed cluster may join */
                }
                continue;
            }
            ret = ret < 0 ? ret : qcow2_co_update_refcount(bs, c, 1, -1);
            result = result < 0 ? result : ret;
        }
    }
    return result;
}

/* Ends the life of the clusters on the grace list. */
static int coroutine_fn co_end_grace(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    GArray *last = g_array_new(FALSE, FALSE, sizeof(Qcow2PendingFree)), *grace = s->grace;
    int result;

    s->grace = g_array_new(FALSE, FALSE, sizeof(Qcow2PendingFree));
    qemu_co_mutex_lock(&s->lock);
    BLKDBG_CO_EVENT(bs->file, BLKDBG_CLUSTER_FREE);
    result = co_count_down(bs, grace, last);
    qemu_co_mutex_unlock(&s->lock);

    for (guint i = 0; i < last->len; i++) {
        Qcow2PendingFree *f = &g_array_index(last, Qcow2PendingFree, i);
        /* A hint: what cannot be discarded stays allocated in the file. */
        (void)bdrv_co_pdiscard(bs->file, f->first << s->cluster_bits,
                               (int64_t)f->count << s->cluster_bits);
    }
    qemu_co_mutex_lock(&s->lock);
    for (guint i = 0; i < last->len; i++) {
        Qcow2PendingFree *f = &g_array_index(last, Qcow2PendingFree, i);
        int ret = qcow2_co_update_refcount(bs, f->first, f->count, -1);
        result = result < 0 ? result : ret;
    }
    qemu_co_mutex_unlock(&s->lock);
    g_array_free(last, TRUE);
    g_array_free(grace, TRUE);
    return result;
}

/*
 * Frees what may be freed, given that everything up to `mark` (counted from the beginning) was
 * written back.
 */
static int coroutine_fn co_process_frees(BlockDriverState *bs, uint64_t mark)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    if (s->grace->len && s->in_flight[s->grace_epoch] == 0) {
        ret = co_end_grace(bs);
    }
    if (ret == 0 && s->grace->len == 0 && mark > s->frees_base) {
        qcow2_note_ordered(s); /* the L2 tables just written must be durable */
        ret = qcow2_co_barrier(bs);
        if (ret == 0) {
            start_grace(s, mark - s->frees_base);
            if (s->in_flight[s->grace_epoch] == 0) {
                ret = co_end_grace(bs);
            }
        }
    }
    return ret;
}

int coroutine_fn qcow2_co_flush_metadata(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t mark = s->frees_base + s->frees->len;
    int ret;

    s->frees_sealed = mark;
    ret = qcow2_co_writeback(bs, false);
    if (ret < 0 || s->grace_busy || (mark <= s->frees_base && s->grace->len == 0)) {
        return ret;
    }
    s->grace_busy = true;
    ret = co_process_frees(bs, mark);
    s->grace_busy = false;
    qemu_co_queue_restart_all(&s->requests_ended);
    return ret < 0 ? ret : qcow2_co_writeback(bs, false);
}

/* So much waits that the file would grow for nothing. */
static bool too_much_waits(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t bytes = s->frees_clusters << s->cluster_bits;
    uint64_t file = (uint64_t)MAX(bs->file->bs->total_bytes, 0);
    bool grown = bs->file->bs->total_bytes > s->frees_file_bytes;

    s->frees_file_bytes = bs->file->bs->total_bytes;
    return (grown && bytes >= MAX(QCOW2_PENDING_FREE_GROWN_BYTES, file / 32)) ||
           s->frees->len > QCOW2_MAX_PENDING_FREES ||
           bytes >= MAX(QCOW2_PENDING_FREE_BYTES, file / 8);
}

int coroutine_fn qcow2_co_throttle_frees(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    bool grace_over = s->grace->len && s->in_flight[s->grace_epoch] == 0;

    if (s->grace_busy || !too_much_waits(bs)) {
        return 0;
    }
    /* What is in its grace goes first; without that a flush brings nothing back. */
    return s->grace->len == 0 || grace_over ? qcow2_co_flush_metadata(bs) : 0;
}

bool coroutine_fn qcow2_co_reclaim(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t mark = s->frees_base + s->frees->len;
    bool waits = s->frees->len || s->grace->len;

    while (s->frees_base < mark || s->grace->len) {
        if (s->grace_busy || (s->grace->len && s->in_flight[s->grace_epoch])) {
            qemu_co_queue_wait(&s->requests_ended, NULL);
        } else if (qcow2_co_flush_metadata(bs) < 0) {
            break;
        }
    }
    return waits;
}
