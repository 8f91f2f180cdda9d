/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * isa-i8259: an I8259 on the ISA bus; a PC has a pair of them. The device has 8 unnamed inputs and one unnamed
 * output, INT. Under the big lock (util/bql.h).
 */
#ifndef FERRY_HW_INTC_ISA_I8259_H
#define FERRY_HW_INTC_ISA_I8259_H

#include "hw/isa/isa.h"

typedef struct I8259Pair {
    DeviceState *master, *slave;
} I8259Pair;

/*
 * Makes the two of a PC (ports 0x20, 0xa0, 0x4d0, 0x4d1), wires the slave to the master, and the master to `cpu`
 * (NULL: to nothing). False and errp: what was made stays for the end of the machine.
 */
bool coroutine_fn isa_i8259_co_new_pair(ISABus *bus, qemu_irq cpu, I8259Pair *pair, GError **errp);
/* The inputs of a pair as lines of the ISA bus. */
void isa_i8259_pair_inputs(const I8259Pair *pair, qemu_irq inputs[ISA_NUM_IRQS]);
/* A CPU that sees INT of the master acknowledges: the vector. */
uint8_t pic_read_irq(DeviceState *master);

#endif
