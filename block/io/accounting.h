/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operation accounting of a BlockBackend: counts, bytes, time, failures, latency histograms; shown
 * by query-blockstats. Graph thread; after block_acct_share() several.
 */
#ifndef FERRY_BLOCK_ACCOUNTING_H
#define FERRY_BLOCK_ACCOUNTING_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include "qapi/qapi-types.h"

typedef enum BlockAcctType {
    BLOCK_ACCT_NONE,
    BLOCK_ACCT_READ,
    BLOCK_ACCT_WRITE,
    BLOCK_ACCT_FLUSH,
    BLOCK_ACCT_UNMAP,
    BLOCK_MAX_IOTYPE,
} BlockAcctType;

/* Latencies in ns, counted into nbins = nboundaries + 1 bins. */
typedef struct BlockLatencyHistogram {
    int nbins;
    uint64_t *boundaries; /* nbins - 1, ascending, ns */
    uint64_t *bins;
} BlockLatencyHistogram;

/* What is known of the operations of one type. */
typedef struct BlockAcctTally {
    uint64_t ops, bytes;      /* that succeeded */
    uint64_t failed, invalid; /* operations */
    uint64_t time_ns;         /* sum over those that count */
    BlockLatencyHistogram latencies;
} BlockAcctTally;

typedef struct BlockAcctStats {
    bool shared; /* for ever: what follows is counted under the lock */
    pthread_mutex_t lock;
    BlockAcctTally of[BLOCK_MAX_IOTYPE];
    int64_t idle_since_ns;                /* QEMU_CLOCK_REALTIME; 0: never used */
    bool account_invalid, account_failed; /* such operations end the idle time (and take time) */
} BlockAcctStats;

typedef struct BlockAcctCookie {
    int64_t bytes;
    int64_t start_time_ns;
    BlockAcctType type;
} BlockAcctCookie;

/* Frees what it counts with; it counts nothing then. */
void block_latency_histogram_clear(BlockLatencyHistogram *hist);

void block_acct_init(BlockAcctStats *stats);
void block_acct_cleanup(BlockAcctStats *stats);
/* From now on operations may be counted in any thread. Main thread, before there is a second one. */
void block_acct_share(BlockAcctStats *stats);
/* Around looking at all figures together. */
void block_acct_lock(BlockAcctStats *stats);
void block_acct_unlock(BlockAcctStats *stats);
void block_acct_start(BlockAcctStats *stats, BlockAcctCookie *cookie, int64_t bytes,
                      BlockAcctType type);
void block_acct_done(BlockAcctStats *stats, BlockAcctCookie *cookie);
void block_acct_failed(BlockAcctStats *stats, BlockAcctCookie *cookie);
void block_acct_invalid(BlockAcctStats *stats, BlockAcctType type);

#endif
