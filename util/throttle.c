/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Throttling: the arithmetic of the leaky buckets. */
#include "util/throttle.h"

#include <math.h>

#include "util/error.h"
#include "util/timer.h"

/*
 * A bucket without bursts holds this part of a second's worth, and so does the burst's own bucket.
 */
#define RIM_SECONDS 0.1

typedef struct ThrottleKind {
    bool is_ops;
    bool reads;
    bool writes;
} ThrottleKind;

static const ThrottleKind kinds[THROTTLE_BUCKETS] = {
    [THROTTLE_BPS_TOTAL] = {.is_ops = false, .reads = true, .writes = true},
    [THROTTLE_BPS_READ] = {.is_ops = false, .reads = true},
    [THROTTLE_BPS_WRITE] = {.is_ops = false, .writes = true},
    [THROTTLE_OPS_TOTAL] = {.is_ops = true, .reads = true, .writes = true},
    [THROTTLE_OPS_READ] = {.is_ops = true, .reads = true},
    [THROTTLE_OPS_WRITE] = {.is_ops = true, .writes = true},
};

static bool counts(ThrottleBucket b, bool is_write)
{
    return is_write ? kinds[b].writes : kinds[b].reads;
}

void throttle_config_init(ThrottleConfig *cfg)
{
    *cfg = (ThrottleConfig){0};
    for (int b = 0; b < THROTTLE_BUCKETS; b++) {
        cfg->limits[b].burst_length = 1;
    }
}

/*
 * Whether one of the three buckets of a kind limits everything while another limits one direction.
 */
static bool total_conflicts(const ThrottleLimit *total)
{
    return (total[0].avg && (total[1].avg || total[2].avg)) ||
           (total[0].max && (total[1].max || total[2].max));
}

static bool limit_is_valid(const ThrottleLimit *l, GError **errp)
{
    if (l->avg < 0 || l->max < 0 || l->avg > THROTTLE_VALUE_MAX || l->max > THROTTLE_VALUE_MAX) {
        error_setg(errp, "bps/iops/max values must be within [0, %lld]", THROTTLE_VALUE_MAX);
        return false;
    }
    if (l->burst_length < 1) {
        error_setg(errp, "the burst length must be at least 1 second");
        return false;
    }
    if (l->burst_length > 1 && l->max == 0) {
        error_setg(errp, "burst length set without burst rate");
        return false;
    }
    if (l->max > 0 && l->burst_length > THROTTLE_VALUE_MAX / l->max) {
        error_setg(errp, "burst length too high for this burst rate");
        return false;
    }
    if (l->max > 0 && l->avg == 0) {
        error_setg(errp, "bps_max/iops_max require corresponding bps/iops values");
        return false;
    }
    if (l->max > 0 && l->max < l->avg) {
        error_setg(errp, "bps_max/iops_max cannot be lower than bps/iops");
        return false;
    }
    return true;
}

bool throttle_config_is_valid(const ThrottleConfig *cfg, GError **errp)
{
    const ThrottleLimit *l = cfg->limits;

    for (int b = 0; b < THROTTLE_BUCKETS; b++) {
        if (!limit_is_valid(&l[b], errp)) {
            return false;
        }
    }
    if (total_conflicts(&l[THROTTLE_BPS_TOTAL]) || total_conflicts(&l[THROTTLE_OPS_TOTAL])) {
        error_setg(errp, "bps/iops/max total values and read/write values cannot be used at the "
                         "same time");
        return false;
    }
    if (cfg->op_size < 0 || cfg->op_size > THROTTLE_VALUE_MAX) {
        error_setg(errp, "iops size must be within [0, %lld]", THROTTLE_VALUE_MAX);
        return false;
    }
    if (cfg->op_size > 0 && !l[THROTTLE_OPS_TOTAL].avg && !l[THROTTLE_OPS_READ].avg &&
        !l[THROTTLE_OPS_WRITE].avg) {
        error_setg(errp, "iops size requires an iops value to be set");
        return false;
    }
    return true;
}

bool throttle_enabled(const ThrottleConfig *cfg)
{
    for (int b = 0; b < THROTTLE_BUCKETS; b++) {
        if (cfg->limits[b].avg > 0) {
            return true;
        }
    }
    return false;
}

void throttle_init(ThrottleState *ts, const ThrottleConfig *cfg, int64_t now_ns)
{
    *ts = (ThrottleState){.cfg = *cfg, .leaked_ns = now_ns};
}

void throttle_set_config(ThrottleState *ts, const ThrottleConfig *cfg, int64_t now_ns)
{
    throttle_init(ts, cfg, now_ns);
}

static void leak(ThrottleState *ts, int64_t now_ns)
{
    double seconds = (double)(now_ns - ts->leaked_ns) / NANOSECONDS_PER_SECOND;

    if (seconds <= 0) {
        return;
    }
    ts->leaked_ns = now_ns;
    for (int b = 0; b < THROTTLE_BUCKETS; b++) {
        const ThrottleLimit *l = &ts->cfg.limits[b];

        ts->level[b] = MAX(ts->level[b] - l->avg * seconds, 0);
        ts->burst_level[b] = MAX(ts->burst_level[b] - l->max * seconds, 0);
    }
}

/* Seconds until what is above the rim has leaked away at `rate`. */
static double overflow_seconds(double level, double rim, double rate)
{
    return level > rim ? (level - rim) / rate : 0;
}

static double bucket_wait_seconds(const ThrottleState *ts, ThrottleBucket b)
{
    const ThrottleLimit *l = &ts->cfg.limits[b];
    double rim, wait;

    if (l->avg == 0) {
        return 0;
    }
    rim = l->max > 0 ? (double)l->max * l->burst_length : l->avg * RIM_SECONDS;
    wait = overflow_seconds(ts->level[b], rim, l->avg);
    if (l->max > 0 && l->burst_length > 1) {
        double burst = overflow_seconds(ts->burst_level[b], l->max * RIM_SECONDS, l->max);

        wait = MAX(wait, burst);
    }
    return wait;
}

int64_t throttle_compute_wait(ThrottleState *ts, bool is_write, int64_t now_ns)
{
    double wait = 0;

    leak(ts, now_ns);
    for (int b = 0; b < THROTTLE_BUCKETS; b++) {
        if (counts(b, is_write)) {
            double seconds = bucket_wait_seconds(ts, b);

            wait = MAX(wait, seconds);
        }
    }
    /*
     * A level is at most the sum of sizes of requests that started: cut what no clock could reach.
     */
    wait = MIN(ceil(wait * NANOSECONDS_PER_SECOND), (double)(INT64_MAX / 4));
    return (int64_t)wait;
}

void throttle_account(ThrottleState *ts, bool is_write, uint64_t bytes)
{
    double ops = 1;

    if (ts->cfg.op_size > 0 && bytes > (uint64_t)ts->cfg.op_size) {
        ops = (double)bytes / ts->cfg.op_size;
    }
    for (int b = 0; b < THROTTLE_BUCKETS; b++) {
        if (counts(b, is_write)) {
            double units = kinds[b].is_ops ? ops : bytes;

            ts->level[b] += units;
            ts->burst_level[b] += units;
        }
    }
}
