/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operation accounting of a BlockBackend. */
#include "block/io/accounting.h"

#include <glib.h>
#include "util/timer.h"

void block_acct_init(BlockAcctStats *stats)
{
    *stats = (BlockAcctStats){.account_invalid = true, .account_failed = true};
}

void block_acct_cleanup(BlockAcctStats *stats)
{
    for (int i = 0; i < BLOCK_MAX_IOTYPE; i++) {
        g_free(stats->histogram[i].boundaries);
        g_free(stats->histogram[i].bins);
        stats->histogram[i] = (BlockLatencyHistogram){0};
    }
}

void block_acct_start(BlockAcctStats *stats, BlockAcctCookie *cookie, int64_t bytes,
                      BlockAcctType type)
{
    (void)stats;
    cookie->bytes = bytes;
    cookie->start_time_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    cookie->type = type;
}

static void histogram_count(BlockLatencyHistogram *hist, uint64_t latency_ns)
{
    int lo = 0, hi = hist->nbins - 1;

    if (!hist->bins) {
        return;
    }
    /* The first boundary above the latency is the end of its bin. */
    while (lo < hi) {
        int mid = (lo + hi) / 2;

        if (latency_ns < hist->boundaries[mid]) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    hist->bins[lo]++;
}

static void account(BlockAcctStats *stats, BlockAcctCookie *cookie, bool failed)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int64_t latency = now - cookie->start_time_ns;
    BlockAcctType type = cookie->type;

    if (type == BLOCK_ACCT_NONE) {
        return;
    }
    cookie->type = BLOCK_ACCT_NONE;
    if (failed) {
        stats->failed_ops[type]++;
    } else {
        stats->nr_bytes[type] += cookie->bytes;
        stats->nr_ops[type]++;
    }
    histogram_count(&stats->histogram[type], latency);
    if (!failed || stats->account_failed) {
        stats->total_time_ns[type] += latency;
        stats->last_access_time_ns = now;
    }
}

void block_acct_done(BlockAcctStats *stats, BlockAcctCookie *cookie)
{
    account(stats, cookie, false);
}

void block_acct_failed(BlockAcctStats *stats, BlockAcctCookie *cookie)
{
    account(stats, cookie, true);
}

void block_acct_invalid(BlockAcctStats *stats, BlockAcctType type)
{
    stats->invalid_ops[type]++;
    if (stats->account_invalid) {
        stats->last_access_time_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    }
}
