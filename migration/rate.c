/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How fast the source may send, and how fast it does: windows of 100 ms. */
#include "migration/migration.h"
#include "util/timer.h"

#define WINDOW_NS (100 * SCALE_MS)
/* A first estimate may be made of less than a window. */
#define ESTIMATE_NS (5 * SCALE_MS)

static uint64_t pages_sent(MigrationState *s)
{
    return stat64_get(&s->counters.normal_pages) + stat64_get(&s->counters.zero_pages);
}

static void start_window(MigrationState *s, uint64_t now, uint64_t bytes)
{
    uint64_t bandwidth = migrate_max_bandwidth();

    s->rate.window_start_ns = now;
    s->rate.window_start_bytes = bytes;
    s->rate.window_start_pages = pages_sent(s);
    s->rate.window_limit =
        bandwidth ? MAX(bandwidth / (NANOSECONDS_PER_SECOND / WINDOW_NS), 1) : UINT64_MAX;
}

void migration_rate_start(MigrationState *s)
{
    s->rate.bytes_per_ms = 0;
    start_window(s, (uint64_t)qemu_clock_get_ns(QEMU_CLOCK_REALTIME),
                 migration_transferred_bytes(s));
}

bool migration_rate_exceeded(MigrationState *s)
{
    return !s->vm_stopped &&
           migration_transferred_bytes(s) - s->rate.window_start_bytes >= s->rate.window_limit;
}

void migration_rate_update(MigrationState *s)
{
    uint64_t now = (uint64_t)qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    uint64_t ns = now - s->rate.window_start_ns;
    uint64_t bytes = migration_transferred_bytes(s);
    double ms = (double)ns / SCALE_MS;

    if (ns >= ESTIMATE_NS && (ns >= WINDOW_NS || s->rate.bytes_per_ms == 0)) {
        uint64_t sent = bytes - s->rate.window_start_bytes;
        uint64_t pages = pages_sent(s) - s->rate.window_start_pages;

        if (sent > 0) { /* while there was nothing to send nothing was measured */
            s->rate.bytes_per_ms = (double)sent / ms;
        }
        stat64_set(&s->mbps_1000, (uint64_t)((double)sent * 8 / ms));
        stat64_set(&s->pages_per_second, (uint64_t)((double)pages * 1000 / ms));
        if (s->rate.bytes_per_ms > 0) {
            stat64_set(&s->expected_downtime_ns,
                       (uint64_t)((double)stat64_get(&s->counters.remaining_bytes) /
                                  s->rate.bytes_per_ms * SCALE_MS));
        }
    }
    if (ns >= WINDOW_NS) {
        start_window(s, now, bytes);
    }
}

void migration_rate_end(MigrationState *s)
{
    double ms = (double)(stat64_get(&s->end_ns) - s->start_ns) / SCALE_MS;

    if (ms > 0) {
        stat64_set(&s->mbps_1000, (uint64_t)((double)migration_transferred_bytes(s) * 8 / ms));
    }
}

void migration_rate_wait(MigrationState *s, const bool *flag)
{
    g_mutex_lock(&s->lock);
    while (!s->error && !s->cancel_wanted && !(flag && *flag)) {
        int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        int64_t left = (int64_t)s->rate.window_start_ns + WINDOW_NS - now;

        if (left <= 0 || !g_cond_wait_until(&s->changed, &s->lock,
                                            g_get_monotonic_time() + left / SCALE_US + 1)) {
            break;
        }
    }
    g_mutex_unlock(&s->lock);
}

uint64_t migration_downtime_bytes(MigrationState *s)
{
    uint64_t bandwidth = migrate_avail_switchover_bandwidth();
    double per_ms = bandwidth ? (double)bandwidth / 1000 : s->rate.bytes_per_ms;
    double bytes = per_ms * (double)migrate_downtime_limit();

    return bytes < (double)INT64_MAX ? (uint64_t)bytes : INT64_MAX; /* both may be anything */
}
