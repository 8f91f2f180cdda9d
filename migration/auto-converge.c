/* SPDX-License-Identifier: GPL-2.0-or-later */
/* auto-converge: when the guest is slowed down, and by how much. */
#include "migration/auto-converge.h"

#include "accel/cpus.h"
#include "util/bql.h"
#include "util/timer.h"

#define PERIOD_NS NANOSECONDS_PER_SECOND
/* Periods in a row in which the guest is too fast, before it is slowed down (further). */
#define PATIENCE 2

static void set_percent(AutoConverge *ac, MigrationState *s, unsigned percent)
{
    bool locked = bql_locked(), slower;

    if (percent == ac->percent) {
        return;
    }
    ac->percent = percent;
    if (!locked) {
        bql_lock();
    }
    slower = cpus_throttle(percent);
    if (!locked) {
        bql_unlock();
    }
    if (slower || !percent) {
        stat64_set(&s->counters.throttle_percent, percent);
    }
}

unsigned auto_converge_decide(AutoConverge *ac, const MigrationThrottle *throttle,
                              const AutoConvergePeriod *period)
{
    double allowed = (double)period->sent_bytes * throttle->trigger_threshold / 100;
    double running = 100 - (double)ac->percent, step = throttle->increment;

    if ((double)period->dirty_bytes <= allowed) {
        ac->periods_too_fast = 0;
        return ac->percent;
    }
    if (++ac->periods_too_fast < PATIENCE) {
        return ac->percent;
    }
    ac->periods_too_fast = 0;
    if (!ac->percent) {
        return throttle->initial;
    }
    if (throttle->tailslow) {
        /* no more than would bring what is written down to what is allowed */
        step = MIN(step, running - running * allowed / (double)period->dirty_bytes);
    }
    return MIN(ac->percent + (unsigned)(step + 0.5), throttle->max);
}

void auto_converge_pass(AutoConverge *ac, MigrationState *s, int64_t now_ns, uint64_t dirty_bytes)
{
    MigrationThrottle throttle;
    AutoConvergePeriod period;
    uint64_t sent;

    ac->period_dirty += dirty_bytes;
    if (now_ns - ac->period_start_ns < PERIOD_NS) {
        return;
    }
    sent = migration_transferred_bytes(s);
    period.dirty_bytes = ac->period_dirty;
    period.sent_bytes = sent - ac->period_sent;
    if (migrate_auto_converge(s->settings)) {
        throttle = migrate_throttle();
        set_percent(ac, s, auto_converge_decide(ac, &throttle, &period));
    }
    ac->period_start_ns = now_ns;
    ac->period_sent = sent;
    ac->period_dirty = 0;
}

void auto_converge_end(AutoConverge *ac, MigrationState *s)
{
    set_percent(ac, s, 0);
}
