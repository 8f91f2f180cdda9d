/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operation accounting of a BlockBackend: counts, bytes, time, failures, latency histograms; shown
 * by query-blockstats. Graph thread.
 */
#ifndef FERRY_BLOCK_ACCOUNTING_H
#define FERRY_BLOCK_ACCOUNTING_H

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

typedef struct BlockAcctStats {
    uint64_t nr_bytes[BLOCK_MAX_IOTYPE];
    uint64_t nr_ops[BLOCK_MAX_IOTYPE];
    uint64_t invalid_ops[BLOCK_MAX_IOTYPE];
    uint64_t failed_ops[BLOCK_MAX_IOTYPE];
    uint64_t total_time_ns[BLOCK_MAX_IOTYPE];
    uint64_t merged[BLOCK_MAX_IOTYPE];
    int64_t last_access_time_ns; /* QEMU_CLOCK_REALTIME; 0: never */
    bool account_invalid, account_failed;
    BlockLatencyHistogram histogram[BLOCK_MAX_IOTYPE];
} BlockAcctStats;

typedef struct BlockAcctCookie {
    int64_t bytes;
    int64_t start_time_ns;
    BlockAcctType type;
} BlockAcctCookie;

void block_acct_init(BlockAcctStats *stats);
void block_acct_cleanup(BlockAcctStats *stats);
void block_acct_start(BlockAcctStats *stats, BlockAcctCookie *cookie, int64_t bytes,
                      BlockAcctType type);
void block_acct_done(BlockAcctStats *stats, BlockAcctCookie *cookie);
void block_acct_failed(BlockAcctStats *stats, BlockAcctCookie *cookie);
void block_acct_invalid(BlockAcctStats *stats, BlockAcctType type);

#endif
