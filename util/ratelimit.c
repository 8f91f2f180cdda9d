/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RateLimit: one instant says all, the time at which what was charged is paid for. */
#include "util/ratelimit.h"

#include "util/int-math.h"
#include "util/timer.h"

/* Debts beyond this are cut, which bounds every sum of times below. */
#define MAX_DEBT_NS (INT64_MAX / 8)

static int64_t cost_ns(uint64_t bytes, uint64_t speed)
{
    uint64_t ns = muldiv64(bytes, NANOSECONDS_PER_SECOND, speed);

    /* Rounded up, or a stream of tiny charges would be free. */
    if (bytes > 0 && ns < MAX_DEBT_NS && muldiv64(ns, speed, NANOSECONDS_PER_SECOND) < bytes) {
        ns++;
    }
    return MIN(ns, (uint64_t)MAX_DEBT_NS);
}

static int64_t debt_ns(const RateLimit *limit, int64_t now_ns)
{
    return MAX(limit->paid_ns - now_ns, 0);
}

void ratelimit_set_speed_at(RateLimit *limit, uint64_t bytes_per_sec, uint64_t slice_ns,
                            int64_t now_ns)
{
    uint64_t owed = muldiv64(debt_ns(limit, now_ns), limit->speed, NANOSECONDS_PER_SECOND);

    limit->paid_ns = now_ns;
    if (limit->speed > 0 && bytes_per_sec > 0) {
        limit->paid_ns += cost_ns(owed, bytes_per_sec);
    }
    limit->speed = bytes_per_sec;
    limit->slice_ns = MIN(slice_ns, (uint64_t)MAX_DEBT_NS);
}

int64_t ratelimit_calculate_delay_at(RateLimit *limit, uint64_t bytes, int64_t now_ns)
{
    int64_t debt;

    if (limit->speed == 0) {
        return 0;
    }
    debt = MIN(debt_ns(limit, now_ns) + cost_ns(bytes, limit->speed), MAX_DEBT_NS);
    limit->paid_ns = now_ns + debt;
    return MAX(debt - (int64_t)limit->slice_ns, 0);
}

void ratelimit_set_speed(RateLimit *limit, uint64_t bytes_per_sec, uint64_t slice_ns)
{
    ratelimit_set_speed_at(limit, bytes_per_sec, slice_ns, qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
}

int64_t ratelimit_calculate_delay(RateLimit *limit, uint64_t bytes)
{
    return ratelimit_calculate_delay_at(limit, bytes, qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
}
