/* SPDX-License-Identifier: GPL-2.0-or-later */
/* block-latency-histogram-set: how often requests of a drive take how long. */
#include "block/io/accounting.h"

#include "block/block-backend.h"
#include "qapi/qapi-commands-block-info.h"
#include "util/error.h"

/* More would cost more than they tell. */
#define LATENCY_BOUNDARIES_MAX 1024

void block_latency_histogram_clear(BlockLatencyHistogram *hist)
{
    g_free(hist->boundaries);
    g_free(hist->bins);
    *hist = (BlockLatencyHistogram){0};
}

static bool histogram_init(BlockLatencyHistogram *hist, const uint64List *list, const char *device,
                           const char *what, GError **errp)
{
    const uint64List *it;
    uint64_t last = 0;
    int n = 0;

    QAPI_LIST_FOREACH(it, list) {
        if (it->value <= last || ++n > LATENCY_BOUNDARIES_MAX) {
            error_setg(errp,
                       "Device '%s' set %s boundaries fail: at most %d are possible, and each is "
                       "larger than the one "
                       "before, the first larger than 0",
                       device, what, LATENCY_BOUNDARIES_MAX);
            return false;
        }
        last = it->value;
    }
    hist->nbins = n + 1;
    hist->boundaries = g_new(uint64_t, n);
    hist->bins = g_new0(uint64_t, n + 1);
    n = 0;
    QAPI_LIST_FOREACH(it, list) {
        hist->boundaries[n++] = it->value;
    }
    return true;
}

bool coroutine_fn qmp_block_latency_histogram_set(const BlockLatencyHistogramSetArg *arg,
                                                  GError **errp)
{
    const struct {
        BlockAcctType type;
        const char *name;
        bool given;
        const uint64List *list;
    } kinds[] = {
        {BLOCK_ACCT_READ, "read", arg->has_boundaries_read, arg->boundaries_read},
        {BLOCK_ACCT_WRITE, "write", arg->has_boundaries_write, arg->boundaries_write},
        {BLOCK_ACCT_FLUSH, "flush", arg->has_boundaries_flush, arg->boundaries_flush},
    };
    bool none = !arg->has_boundaries && !arg->has_boundaries_read && !arg->has_boundaries_write &&
                !arg->has_boundaries_flush;
    BlockLatencyHistogram made[G_N_ELEMENTS(kinds)] = {0};
    BlockBackend *blk = blk_by_name(arg->id);
    BlockDriverState *bs = blk ? blk_bs(blk) : NULL;
    BlockAcctStats *stats;
    bool ok = true, drained = false;

    if (!blk) {
        error_set_class(errp, FERRY_ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", arg->id);
        return false;
    }
    for (size_t i = 0; ok && i < G_N_ELEMENTS(kinds); i++) {
        if (kinds[i].given || arg->has_boundaries) {
            ok = histogram_init(&made[i], kinds[i].given ? kinds[i].list : arg->boundaries, arg->id,
                                kinds[i].name, errp);
        }
    }
    blk_ref(blk);
    if (bs) {
        bdrv_ref(bs);
        /* the thread of the graph counts into them */
        drained = ok && bdrv_co_drained_begin_within(bs, BDRV_DRAIN_COMMAND_NS, errp);
        ok = drained;
    }
    stats = blk_get_stats(blk);
    block_acct_lock(stats);
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        if (ok && (none || made[i].bins)) {
            block_latency_histogram_clear(&stats->of[kinds[i].type].latencies);
            stats->of[kinds[i].type].latencies = made[i];
        } else {
            block_latency_histogram_clear(&made[i]);
        }
    }
    block_acct_unlock(stats);
    if (drained) {
        bdrv_co_drained_end(bs);
    }
    if (bs) {
        bdrv_co_unref(bs);
    }
    blk_unref(blk);
    return ok;
}
