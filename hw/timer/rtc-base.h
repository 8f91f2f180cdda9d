/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's time before it sets its clock. A clock of the host or of the guest drives it, and a time belongs
 * to that clock's reading at the start. -rtc base=...,clock=... sets both. Real-time clocks look at them when
 * they are made.
 *
 * Main thread or another holder of the big lock (util/bql.h).
 */
#ifndef FERRY_HW_TIMER_RTC_BASE_H
#define FERRY_HW_TIMER_RTC_BASE_H

#include <stdint.h>
#include "util/timer.h"

/* Seconds are since 1970-01-01 00:00:00 of what the clock shows, which may be local time. */
typedef struct RTCBase {
    QEMUClockType clock; /* drives it: HOST (clock=host), VIRTUAL (vm) or REALTIME (rt) */
    int64_t start_s;     /* what it shows ... */
    int64_t start_ns;    /* ... when `clock` reads so */
} RTCBase;

/* A base that begins now: the host's time as UTC, or as local time; another date. */
RTCBase rtc_base_utc(QEMUClockType clock);
RTCBase rtc_base_localtime(QEMUClockType clock);
RTCBase rtc_base_date(QEMUClockType clock, int64_t seconds);

/* For clocks that are made from now on. The default is UTC, driven by the host's clock. */
void rtc_base_set(const RTCBase *base);
RTCBase rtc_base_get(void);

/* What the base shows when `clock` reads now_ns; *rest_ns, 0 to 999999999: ns since that second began. */
int64_t rtc_base_seconds(const RTCBase *base, int64_t now_ns, int64_t *rest_ns);

#endif
