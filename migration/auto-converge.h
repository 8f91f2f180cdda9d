/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * auto-converge: slows the guest down while it writes memory faster than a part of what the stream
 * takes, in steps, until the migration keeps up.
 */
#ifndef FERRY_MIGRATION_AUTO_CONVERGE_H
#define FERRY_MIGRATION_AUTO_CONVERGE_H

#include "migration/migration.h"
#include "migration/options.h"

/* One migration's; the source's thread's. Zeroes and period_start_ns are its start. */
typedef struct AutoConverge {
    int64_t period_start_ns;   /* QEMU_CLOCK_REALTIME */
    uint64_t period_sent;      /* migration_transferred_bytes() then */
    uint64_t period_dirty;     /* bytes that were written since */
    unsigned periods_too_fast; /* in a row */
    unsigned percent;          /* as it is now */
} AutoConverge;

/* What became known about one period; for the decision alone. */
typedef struct AutoConvergePeriod {
    uint64_t dirty_bytes, sent_bytes;
} AutoConvergePeriod;

/* A pass has found that `dirty_bytes` were written; may change the throttle, under the big lock. */
void auto_converge_pass(AutoConverge *ac, MigrationState *s, int64_t now_ns, uint64_t dirty_bytes);
/* The decision: the percentage that follows from a period. */
unsigned auto_converge_decide(AutoConverge *ac, const MigrationThrottle *throttle,
                              const AutoConvergePeriod *period);
/* The guest runs freely again. */
void auto_converge_end(AutoConverge *ac, MigrationState *s);

#endif
