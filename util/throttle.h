/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Throttling by leaky buckets: limits on bytes and operations a second, each for all, reads and
 * writes, with bursts. There is no clock and no lock here. The caller passes the time as ns of a
 * monotonic clock, the result is how long to wait, and the owner (a throttle group) serialises.
 *
 * A bucket fills with what is done and leaks at `avg` a second. Without `max`, it holds a tenth of
 * a second's worth. With `max`, it holds burst_length seconds at `max`. While burst_length > 1 a
 * second bucket that leaks at `max` keeps the burst itself to that rate. A request may start while
 * no bucket that counts it is over-full; it may then fill the bucket beyond its rim, which the next
 * one pays for.
 */
#ifndef FERRY_UTIL_THROTTLE_H
#define FERRY_UTIL_THROTTLE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum ThrottleBucket {
    THROTTLE_BPS_TOTAL,
    THROTTLE_BPS_READ,
    THROTTLE_BPS_WRITE,
    THROTTLE_OPS_TOTAL,
    THROTTLE_OPS_READ,
    THROTTLE_OPS_WRITE,
    THROTTLE_BUCKETS,
} ThrottleBucket;

/* The largest avg, max, and max times burst_length. */
#define THROTTLE_VALUE_MAX 1000000000000000LL

typedef struct ThrottleLimit {
    int64_t avg;          /* units (bytes or operations) a second; 0: no limit */
    int64_t max;          /* units a second in a burst; 0: no bursts */
    int64_t burst_length; /* seconds that a burst at max may last; 1 when not given */
} ThrottleLimit;

typedef struct ThrottleConfig {
    ThrottleLimit limits[THROTTLE_BUCKETS];
    int64_t
        op_size; /* bytes that count as one operation (iops-size); 0: any request counts as one */
} ThrottleConfig;

typedef struct ThrottleState {
    ThrottleConfig cfg;
    double level[THROTTLE_BUCKETS];
    double burst_level[THROTTLE_BUCKETS];
    int64_t leaked_ns; /* when the levels were last brought up to date */
} ThrottleState;

/* No limits. */
void throttle_config_init(ThrottleConfig *cfg);
/* The numbers are in range and make sense together; all of them may come from outside. */
G_GNUC_WARN_UNUSED_RESULT bool throttle_config_is_valid(const ThrottleConfig *cfg, GError **errp);
/* True when there is a limit at all. */
bool throttle_enabled(const ThrottleConfig *cfg);

/* Starts with empty buckets. cfg is valid. */
void throttle_init(ThrottleState *ts, const ThrottleConfig *cfg, int64_t now_ns);
/* Changes the limits; the buckets start empty. cfg is valid. */
void throttle_set_config(ThrottleState *ts, const ThrottleConfig *cfg, int64_t now_ns);

/* How long a read (or write) must still wait at now_ns, in ns; 0: it may start. */
int64_t throttle_compute_wait(ThrottleState *ts, bool is_write, int64_t now_ns);
/* Counts a request that starts. */
void throttle_account(ThrottleState *ts, bool is_write, uint64_t bytes);

#endif
