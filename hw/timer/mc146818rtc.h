/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MC146818: a real-time clock with 128 bytes of CMOS memory, without a bus. Motorola MC146818A data sheet.
 *
 * Nothing ticks: the time is a number of seconds that was right at a reading of the clock. The bytes of the
 * time are made when they are read, and flags when register C is read. Timers wait only for what interrupts.
 *
 * Differences from the data sheet:
 *  - An update takes no time: UIP is set for 244 us, and the update is at the end of them.
 *  - All time bases count as the one of 32768 Hz. Daylight saving and the square wave are not made.
 *  - The day of the week follows from the date. Writes of other days are lost with the next update.
 *  - The century is in byte 0x32, and byte 0x37 is another name of it.
 *
 * Under the big lock (util/bql.h).
 */
#ifndef FERRY_HW_TIMER_MC146818RTC_H
#define FERRY_HW_TIMER_MC146818RTC_H

#include <stdbool.h>
#include <stdint.h>
#include "hw/core/clock.h"
#include "hw/core/irq.h"
#include "hw/core/register.h"
#include "hw/timer/rtc-base.h"
#include "vmstate/vmstate.h"

#define RTC_CMOS_BYTES 128

/* Bytes of the chip; the others are memory. */
enum {
    RTC_SECONDS,
    RTC_SECONDS_ALARM,
    RTC_MINUTES,
    RTC_MINUTES_ALARM,
    RTC_HOURS,
    RTC_HOURS_ALARM,
    RTC_DAY_OF_WEEK, /* 1: Sunday */
    RTC_DAY_OF_MONTH,
    RTC_MONTH,
    RTC_YEAR,
    RTC_REG_A,
    RTC_REG_B,
    RTC_REG_C,
    RTC_REG_D,
    RTC_CENTURY = 0x32,
    RTC_CENTURY_PS2 = 0x37,
};

#define RTC_A_UIP  0x80 /* an update is near; read-only */
#define RTC_A_DV   0x70 /* the divider chain */
#define RTC_A_RS   0x0f /* the periodic rate */
#define RTC_B_SET  0x80 /* no updates: the time is being set */
#define RTC_B_PIE  0x40
#define RTC_B_AIE  0x20
#define RTC_B_UIE  0x10
#define RTC_B_SQWE 0x08
#define RTC_B_DM   0x04 /* binary, not BCD */
#define RTC_B_24H  0x02
#define RTC_C_IRQF 0x80
#define RTC_C_PF   0x40
#define RTC_C_AF   0x20
#define RTC_C_UF   0x10
#define RTC_D_VRT  0x80 /* the battery is good */

/* How long before an update UIP is set. */
#define RTC_UIP_NS 244141
/* Lost periodic interrupts that one period makes up for at most. */
#define RTC_REINJECT_MAX 20

typedef struct MC146818 {
    /* What travels, in the words of the section "mc146818rtc". Times are ns of the driving clock. */
    uint8_t cmos_data[RTC_CMOS_BYTES];
    uint8_t cmos_index;
    int64_t next_periodic_time;
    uint32_t irq_coalesced;         /* periodic interrupts to be made up for */
    uint32_t period;                /* ticks of 32768 Hz; 0: none */
    uint64_t base_rtc, last_update; /* seconds since the epoch (signed) at that time, ... */
    int64_t offset;                 /* ... and so many ns */
    QEMUTimer *periodic_timer, *update_timer;
    uint64_t next_alarm_time;
    uint16_t irq_reinject_on_ack_count; /* made up for in this period */

    /* What does not. */
    int64_t seen_s; /* UF and AF tell updates up to this second */
    bool stands;    /* the guest does: no interrupt comes */

    /* The owner's, before mc146818_init(). */
    RTCBase base;
    int32_t base_year; /* the year whose byte reads 0, with the century 0 */
    bool slew;         /* periodic interrupts that the guest was late for are made up for */
    qemu_irq irq;
    /*
     * The guest has set the time: so many seconds ahead of the base. NULL: that is not told. May do anything but
     * call the chip.
     */
    void (*changed)(void *opaque, int64_t offset_s);
    void *opaque;
    DeviceClock clock;
} MC146818;

/* Two ports, the index and the data; the state is the MC146818. */
extern const RegisterTable mc146818_ports;
extern const VMStateDescription vmstate_mc146818;

/* Sets the time of the base, as after power-on; timers run in ctx. */
void mc146818_init(MC146818 *s, AioContext *ctx);
void mc146818_end(MC146818 *s);
/* The RESET pin: interrupts are off. Time and memory stay. Drives nothing: mc146818_update() follows. */
void mc146818_reset(MC146818 *s);
/* Drives the line and sets the timers as the state says. */
void mc146818_update(MC146818 *s);

/*
 * The guest begins to run, or stands. The clock that drives the chip may go on meanwhile. Then one interrupt of
 * each kind is due when the guest runs again; a guest that stood was not late for the others.
 */
void mc146818_guest_runs(MC146818 *s, bool runs);

/* A byte of memory (from 0x0e on), for the machine that leaves words for its firmware there. */
void mc146818_set_byte(MC146818 *s, unsigned index, uint8_t value);
uint8_t mc146818_get_byte(const MC146818 *s, unsigned index);

#endif
