/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operation accounting of a BlockBackend. */
#include "block/io/accounting.h"

#include <glib.h>
#include <string.h>
#include "util/int-math.h"
#include "util/timer.h"

void block_acct_init(BlockAcctStats *stats)
{
    memset(stats, 0, sizeof(*stats));
    stats->account_failed = stats->account_invalid = true;
    pthread_mutex_init(&stats->lock, NULL);
}

void block_acct_cleanup(BlockAcctStats *stats)
{
    for (int i = 0; i < BLOCK_MAX_IOTYPE; i++) {
        block_latency_histogram_clear(&stats->of[i].latencies);
    }
    pthread_mutex_destroy(&stats->lock);
}

void block_acct_share(BlockAcctStats *stats)
{
    stats->shared = true;
}

void block_acct_lock(BlockAcctStats *stats)
{
    if (stats->shared) {
        pthread_mutex_lock(&stats->lock);
    }
}

void block_acct_unlock(BlockAcctStats *stats)
{
    if (stats->shared) {
        pthread_mutex_unlock(&stats->lock);
    }
}

void block_acct_start(BlockAcctStats *stats, BlockAcctCookie *cookie, int64_t bytes,
                      BlockAcctType type)
{
    (void)stats;
    *cookie = (BlockAcctCookie){
        .type = type, .bytes = bytes, .start_time_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME)};
}

/* The number of a latency's bin: how many boundaries it has reached. */
static size_t bin_of(const BlockLatencyHistogram *hist, uint64_t latency_ns)
{
    size_t boundaries = hist->nbins - 1, reached = 0;

    for (size_t step = pow2floor(boundaries); step > 0; step /= 2) {
        size_t tried = reached + step;

        if (tried <= boundaries && hist->boundaries[tried - 1] <= latency_ns) {
            reached = tried;
        }
    }
    return reached;
}

/* The operation is over; where it counts, its time does too. */
static void take_time(BlockAcctStats *stats, const BlockAcctCookie *cookie, bool counts)
{
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int64_t latency_ns = now_ns - cookie->start_time_ns;
    BlockAcctTally *tally = &stats->of[cookie->type];

    if (tally->latencies.bins) {
        tally->latencies.bins[bin_of(&tally->latencies, latency_ns)]++;
    }
    if (counts) {
        stats->idle_since_ns = now_ns;
        tally->time_ns += latency_ns;
    }
}

void block_acct_done(BlockAcctStats *stats, BlockAcctCookie *cookie)
{
    if (cookie->type != BLOCK_ACCT_NONE) {
        block_acct_lock(stats);
        stats->of[cookie->type].ops++;
        stats->of[cookie->type].bytes += cookie->bytes;
        take_time(stats, cookie, true);
        block_acct_unlock(stats);
        cookie->type = BLOCK_ACCT_NONE;
    }
}

void block_acct_failed(BlockAcctStats *stats, BlockAcctCookie *cookie)
{
    if (cookie->type != BLOCK_ACCT_NONE) {
        block_acct_lock(stats);
        stats->of[cookie->type].failed++;
        take_time(stats, cookie, stats->account_failed);
        block_acct_unlock(stats);
        cookie->type = BLOCK_ACCT_NONE;
    }
}

void block_acct_invalid(BlockAcctStats *stats, BlockAcctType type)
{
    block_acct_lock(stats);
    if (stats->account_invalid) {
        stats->idle_since_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    }
    stats->of[type].invalid++;
    block_acct_unlock(stats);
}
