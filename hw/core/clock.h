/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The clock that a device is given. Devices read time and make timers through it and through
 * nothing else, so that a test decides what time it is. A test uses qtest's clock
 * (accel/qtest/qtest.h), or in a unit test a clock of its own.
 */
#ifndef FERRY_HW_CORE_CLOCK_H
#define FERRY_HW_CORE_CLOCK_H

#include <stdint.h>
#include "util/aio.h"
#include "util/timer.h"

typedef struct DeviceClock {
    QEMUClockType type;
    AioContext *ctx; /* where timers fire; under the big lock in the main context */
} DeviceClock;

/* The guest's time, in the main context: the clock of devices that are given no other one. */
static inline DeviceClock device_clock_virtual(void)
{
    return (DeviceClock){QEMU_CLOCK_VIRTUAL, qemu_get_aio_context()};
}

static inline int64_t device_clock_ns(const DeviceClock *clock)
{
    return qemu_clock_get_ns(clock->type);
}

/* A timer that is not armed; timer_free() ends it. */
static inline QEMUTimer *device_clock_timer(const DeviceClock *clock, QEMUTimerCB *cb, void *opaque)
{
    return aio_timer_new(clock->ctx, clock->type, cb, opaque);
}

#endif
