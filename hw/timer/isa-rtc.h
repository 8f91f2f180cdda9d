/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mc146818rtc: an MC146818 on the ISA bus. Under the big lock (util/bql.h). */
#ifndef FERRY_HW_TIMER_ISA_RTC_H
#define FERRY_HW_TIMER_ISA_RTC_H

#include "hw/core/device.h"
#include "hw/timer/mc146818rtc.h"

/* The chip of an mc146818rtc, for a machine that leaves words in its memory. */
MC146818 *isa_rtc_chip(DeviceState *dev);

#endif
