/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * I8259: an 8259A interrupt controller, without a bus. Intel 8259A data sheet (231468); the ELCR, which
 * makes single inputs level-triggered, is that of the 82371 (PIIX) data sheet.
 *
 * A PC has two. The INT output of the slave leads to input 2 of the master, whose INT output leads to the CPU:
 *
 *     irq_connect(&int_of_slave, input 2 of the master)
 *     master.cascaded = &slave
 *     the CPU sees INT high -> i8259_acknowledge(&master) gives the vector
 *
 * Differences from the data sheet:
 *  - An edge stays requested until it is acknowledged, also when its line falls before. Devices pulse their
 *    lines, and such a pulse is over before a CPU can look.
 *  - The slave is at input 2, whatever ICW3 says; MCS-80/85 mode and buffered mode are accepted and ignored.
 *  - Between ICW1 and the last of its words INT is low.
 *
 * Under the big lock (util/bql.h).
 */
#ifndef FERRY_HW_INTC_I8259_H
#define FERRY_HW_INTC_I8259_H

#include <stdbool.h>
#include <stdint.h>
#include "hw/core/irq.h"
#include "hw/core/register.h"
#include "vmstate/vmstate.h"

#define I8259_INPUTS  8
#define I8259_CASCADE 2 /* the master's input for the slave */

typedef struct I8259 I8259;
struct I8259 {
    /* What travels, in the words of the section "i8259". */
    uint8_t last_irr; /* levels of the inputs */
    uint8_t irr, imr, isr;
    uint8_t priority_add;    /* the input of the highest priority */
    uint8_t irq_base;        /* vector of input 0 */
    uint8_t read_reg_select; /* a read of port 0 gives 0: IRR, 1: ISR */
    uint8_t poll;            /* the next read is an acknowledge */
    uint8_t special_mask;
    uint8_t init_state; /* I8259Init */
    uint8_t auto_eoi, rotate_on_auto_eoi, special_fully_nested_mode;
    uint8_t init4;       /* ICW4 follows */
    uint8_t single_mode; /* there is no slave */
    uint8_t elcr;        /* inputs that are level-triggered */
    uint8_t ltim;        /* all are */

    /* The owner's, before the first use. */
    bool master;
    uint8_t elcr_mask; /* bits of the ELCR that can be set */
    qemu_irq int_out;
    I8259 *cascaded; /* the slave of a master; NULL: there is none */
};

/* What the next write to port 1 is. */
typedef enum I8259Init {
    I8259_READY, /* OCW1 */
    I8259_EXPECTS_ICW2,
    I8259_EXPECTS_ICW3,
    I8259_EXPECTS_ICW4,
} I8259Init;

/* Two ports of a byte; the state is the I8259. */
extern const RegisterTable i8259_ports;
/* The port of the ELCR. */
extern const RegisterTable i8259_elcr_port;
extern const VMStateDescription vmstate_i8259;

/* The state after power-on, except the levels of the inputs. Drives nothing: i8259_update() follows. */
void i8259_reset(I8259 *s);
/* Drives INT as the state says. */
void i8259_update(I8259 *s);
/* An input has another level. */
void i8259_set_input(I8259 *s, unsigned n, bool level);
/*
 * The CPU acknowledges. Returns the vector of the request with the highest priority, which is in service
 * from now on. Where there is none any more it is the vector of input 7 (a spurious interrupt). s is the
 * master.
 */
uint8_t i8259_acknowledge(I8259 *s);

#endif
