/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * I8254: the interval timer of a PC, three 16-bit counters that count a clock of 1193182 Hz, without a bus.
 * Intel 8254 data sheet (231164). Counter 0 interrupts, counter 1 refreshes memory, counter 2 is the speaker's.
 *
 * Nothing ticks: the state is when a counter was loaded with what, and values follow from the time. The one
 * timer waits for the next change of OUT of counter 0.
 *
 * Differences from the data sheet:
 *  - A count is in the counter from the moment of its write; the CLK pulse that loads it is left out.
 *  - Periods shorter than I8254_FASTEST_NS are reported as one edge in that time.
 *
 * Under the big lock (util/bql.h).
 */
#ifndef FERRY_HW_TIMER_I8254_H
#define FERRY_HW_TIMER_I8254_H

#include <stdbool.h>
#include <stdint.h>
#include "hw/core/clock.h"
#include "hw/core/irq.h"
#include "hw/core/register.h"
#include "vmstate/vmstate.h"

#define I8254_HZ       1193182
#define I8254_COUNTERS 3
/* Counter 0 interrupts at most so often: a guest that asks for more cannot occupy the main loop. */
#define I8254_FASTEST_NS 20000

/* What a counter that counts no tick waits for. It does not travel. */
typedef enum I8254Wait {
    I8254_COUNTS,
    I8254_AWAITS_COUNT,   /* after a control word */
    I8254_AWAITS_TRIGGER, /* modes 1 and 5: a rising edge of GATE */
} I8254Wait;

typedef struct I8254Counter {
    /* What travels, in the words of the section "i8254". */
    int32_t count; /* the initial count, 1 to 0x10000 */
    uint16_t latched_count;
    uint8_t count_latched; /* I8254Access of the next byte of latched_count; 0: none is latched */
    uint8_t status_latched, status;
    uint8_t read_state, write_state; /* I8254Access */
    uint8_t write_latch;             /* the low byte of a count whose high byte follows */
    uint8_t rw_mode;                 /* as in the control word */
    uint8_t mode, bcd, gate;
    int64_t count_load_time; /* ns: 0 ticks have passed since then */
    int64_t next_transition_time;
    uint32_t irq_disabled; /* of counter 0: its timer does not run, because the HPET has its line */

    /* What does not. */
    I8254Wait wait;
    int32_t next_count; /* written, and taken at the end of the period or with a trigger; 0: none */
    int64_t next_count_at;  /* when it is taken, if no trigger comes before */
    int64_t next_load_time; /* count_load_time from then on */
    bool stopped;           /* by GATE, or by the first of two bytes in mode 0 */
    int64_t stopped_at;
} I8254Counter;

/* Which byte of a count is next. */
typedef enum I8254Access {
    I8254_LOW = 1,
    I8254_HIGH,
    I8254_WORD_LOW,  /* the low one, then the high one */
    I8254_WORD_HIGH, /* the high one of both */
} I8254Access;

typedef struct I8254 {
    I8254Counter channels[I8254_COUNTERS];

    DeviceClock clock; /* the owner's */
    qemu_irq out;      /* OUT of counter 0 */
    QEMUTimer *timer;
    int64_t told_ns; /* `out` has told all edges up to here */
    I8254Counter before_save[I8254_COUNTERS];
} I8254;

/* Four ports of a byte; the state is the I8254. */
extern const RegisterTable i8254_ports;
extern const VMStateDescription vmstate_i8254;

void i8254_init(I8254 *s, DeviceClock clock, qemu_irq out);
void i8254_end(I8254 *s);
/*
 * The state after power-on: mode 3 with the longest period, the speaker's GATE low. Drives nothing:
 * i8254_update() follows.
 */
void i8254_reset(I8254 *s);
/* Drives the line and sets the timer as the state says. */
void i8254_update(I8254 *s);
/* The HPET takes over (or gives back) the line of counter 0. */
void i8254_enable_irq(I8254 *s, bool enable);

/* GATE and OUT of a counter (0 to 2), and the initial count in use. */
void i8254_set_gate(I8254 *s, unsigned n, bool level);
bool i8254_gate(const I8254 *s, unsigned n);
bool i8254_out(I8254 *s, unsigned n);
unsigned i8254_initial_count(I8254 *s, unsigned n);

/* Port 0x61 as far as counter 2 and the refresh of memory go; the speaker has the other bits. */
#define I8254_PORT_B_GATE    0x01
#define I8254_PORT_B_REFRESH 0x10 /* changes with each refresh, every 15 us */
#define I8254_PORT_B_OUT     0x20
uint8_t i8254_port_b_read(I8254 *s);
void i8254_port_b_write(I8254 *s, uint8_t value);

#endif
