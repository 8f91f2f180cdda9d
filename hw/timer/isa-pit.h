/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * isa-pit: an I8254 on the ISA bus. Its unnamed output is OUT of counter 0; the board connects it to line 0, or
 * to what stands before that line. Its unnamed input disables the output while it is low again after having
 * been high: the HPET takes the line over. Under the big lock (util/bql.h).
 */
#ifndef FERRY_HW_TIMER_ISA_PIT_H
#define FERRY_HW_TIMER_ISA_PIT_H

#include "hw/core/device.h"
#include "hw/timer/i8254.h"

/* The chip of an isa-pit, for the speaker. */
I8254 *isa_pit_chip(DeviceState *dev);

#endif
