/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RateLimit: holds a job to a speed. One owner thread.
 *
 * The job charges what it has moved, or is about to, and waits as long as it is told before it goes
 * on. Up to one slice's worth may run ahead of the speed, so that requests need not be evenly
 * spaced. In any time t no more than speed * (t + slice) plus the last request is let through. Idle
 * time is not saved up.
 */
#ifndef FERRY_UTIL_RATELIMIT_H
#define FERRY_UTIL_RATELIMIT_H

#include <stdint.h>

typedef struct RateLimit {
    uint64_t speed;    /* bytes a second; 0: unlimited */
    uint64_t slice_ns; /* how far charges may run ahead of the clock */
    int64_t paid_ns;   /* when all that was charged is paid for, at this speed */
} RateLimit;

/*
 * Changes the speed, at any time; what is still owed is kept in bytes, so that a job held at a
 * crawl reacts to its new speed at once. Zero-initialise a RateLimit before the first call.
 * bytes_per_sec 0 lifts the limit.
 */
void ratelimit_set_speed(RateLimit *limit, uint64_t bytes_per_sec, uint64_t slice_ns);

/*
 * Charges bytes; returns how many ns to wait before the next charge (0: go on). bytes 0 only asks.
 */
int64_t ratelimit_calculate_delay(RateLimit *limit, uint64_t bytes);

/* The same at a given time (ns of a monotonic clock). */
void ratelimit_set_speed_at(RateLimit *limit, uint64_t bytes_per_sec, uint64_t slice_ns,
                            int64_t now_ns);
int64_t ratelimit_calculate_delay_at(RateLimit *limit, uint64_t bytes, int64_t now_ns);

#endif
