/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The time of a guest that has not set its clock. */
#include "hw/timer/rtc-base.h"

#include <glib.h>

static RTCBase current = {.clock = QEMU_CLOCK_HOST};

RTCBase rtc_base_utc(QEMUClockType clock)
{
    int64_t host_ns = qemu_clock_get_ns(QEMU_CLOCK_HOST);

    if (clock == QEMU_CLOCK_HOST) {
        return (RTCBase){.clock = clock};
    }
    return (RTCBase){.clock = clock,
                     .start_s = host_ns / NANOSECONDS_PER_SECOND,
                     .start_ns = qemu_clock_get_ns(clock) - host_ns % NANOSECONDS_PER_SECOND};
}

RTCBase rtc_base_localtime(QEMUClockType clock)
{
    RTCBase base = rtc_base_utc(clock);
    g_autoptr(GDateTime) now = g_date_time_new_now_local();

    base.start_s += g_date_time_get_utc_offset(now) / G_TIME_SPAN_SECOND;
    return base;
}

RTCBase rtc_base_date(QEMUClockType clock, int64_t seconds)
{
    return (RTCBase){.clock = clock, .start_s = seconds, .start_ns = qemu_clock_get_ns(clock)};
}

void rtc_base_set(const RTCBase *base)
{
    current = *base;
}

RTCBase rtc_base_get(void)
{
    return current;
}

int64_t rtc_base_seconds(const RTCBase *base, int64_t now_ns, int64_t *rest_ns)
{
    int64_t elapsed = now_ns - base->start_ns;
    int64_t rest = elapsed % NANOSECONDS_PER_SECOND;

    rest += rest < 0 ? NANOSECONDS_PER_SECOND : 0;
    *rest_ns = rest;
    return base->start_s + (elapsed - rest) / NANOSECONDS_PER_SECOND;
}
