/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clocks and timers. Times are nanoseconds in int64_t.
 *
 * A timer belongs to one AioContext and its callback runs in that context's thread. Timers are made,
 * armed, disarmed and asked from any thread; only freeing one is for those that no callback of it can
 * surprise (below).
 */
#ifndef FERRY_UTIL_TIMER_H
#define FERRY_UTIL_TIMER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "util/coroutine.h"

#define NANOSECONDS_PER_SECOND 1000000000LL
#define SCALE_MS               1000000LL
#define SCALE_US               1000LL

typedef enum QEMUClockType {
    QEMU_CLOCK_REALTIME, /* CLOCK_MONOTONIC: runs always */
    /* guest time: it and its timers stand still while the guest does; stepped by qtest */
    QEMU_CLOCK_VIRTUAL,
    QEMU_CLOCK_HOST, /* wall-clock time since the epoch; may jump */
    QEMU_CLOCK_MAX,
} QEMUClockType;

int64_t qemu_clock_get_ns(QEMUClockType type); /* any thread */

typedef struct AioContext AioContext;
typedef struct QEMUTimer QEMUTimer;
typedef void QEMUTimerCB(void *opaque);

/* Makes a timer that is not armed. ctx lives longer than the timer. Any thread. */
QEMUTimer *aio_timer_new(AioContext *ctx, QEMUClockType type, QEMUTimerCB *cb, void *opaque);
/*
 * Disarms and frees; NULL is allowed. In ctx's thread, or under a lock that ctx's thread holds while it
 * calls callbacks (the big lock, for the main context): elsewhere the callback may be running.
 */
void timer_free(QEMUTimer *timer);
/*
 * Arms (or re-arms) for the time expire_ns of its clock; past times fire at the next turn of the
 * loop. Any thread; the last call decides.
 */
void timer_mod_ns(QEMUTimer *timer, int64_t expire_ns);
/*
 * Disarms. Any thread. In ctx's thread the callback is not called after this; another thread may find
 * that a call has begun already, and does not wait for it.
 */
void timer_del(QEMUTimer *timer);
/* Any thread; where others may arm it or where it may fire, the answer is only a hint. */
bool timer_pending(const QEMUTimer *timer);
/* When it fires, in ns of its clock; -1 when not armed. Any thread, as above. */
int64_t timer_expire_ns(const QEMUTimer *timer);

/*
 * The virtual clock of an accelerator. Without one the virtual clock is the real-time clock. All
 * members are called in any thread.
 */
typedef struct QEMUVirtualClock {
    int64_t (*get_ns)(void);
    bool (*running)(void); /* false: it does not advance by itself, no loop waits for its future */
    /*
     * false: the guest is stopped, and event loops fire no timer of this clock, not even one that
     * is due, until qemu_clock_notify_all(). The clock may be set and stepped meanwhile.
     */
    bool (*fires)(void);
} QEMUVirtualClock;

/*
 * Set before any virtual timer exists, in the main thread; `clock` lives on. NULL: the real-time
 * clock.
 */
void qemu_clock_set_virtual(const QEMUVirtualClock *clock);
/*
 * After the virtual clock was started or stepped: every context looks at its timers. Any thread.
 */
void qemu_clock_notify_all(void);

/*
 * For stepping the virtual clock from deadline to deadline. When the first armed timer of that clock
 * in ctx fires, in ns of the clock; -1: none is armed. Any thread.
 */
int64_t aio_timer_deadline_ns(AioContext *ctx, QEMUClockType type);
/*
 * Fires those that are due, by their times, also while the guest is stopped; true when there were
 * any. In ctx's thread.
 */
bool aio_timer_run(AioContext *ctx, QEMUClockType type);

/* Sleeps for ns of the clock, in the running coroutine's AioContext. */
void coroutine_fn qemu_co_sleep_ns(QEMUClockType type, int64_t ns);

/* A sleep that may be cut short. Zero-initialise; one sleeper at a time. */
typedef struct QemuCoSleep {
    Coroutine *to_wake;
} QemuCoSleep;

void coroutine_fn qemu_co_sleep_ns_wakeable(QemuCoSleep *w, QEMUClockType type, int64_t ns);
/*
 * Ends the sleep, if there is one, from the sleeper's thread. The sleeper runs from the event loop.
 */
void qemu_co_sleep_wake(QemuCoSleep *w);

/* Coroutines of one thread that wait for the same thing, each with a limit. Zero-initialise. */
typedef struct QemuCoSleepers {
    GPtrArray *sleeps; /* NULL: there was none yet */
} QemuCoSleepers;

/* Sleeps until the others wake it, for ns at most; it may wake for nothing. */
void coroutine_fn qemu_co_sleepers_wait(QemuCoSleepers *all, QEMUClockType type, int64_t ns);
/* Wakes all that sleep now. */
void qemu_co_sleepers_wake(QemuCoSleepers *all);

#endif
