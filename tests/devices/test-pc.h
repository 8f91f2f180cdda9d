/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The chips of a PC on the machine of the tests: the machine "ferry-test-pc". It is "ferry-test" whose ISA lines
 * lead to a pair of isa-i8259, with isa-pit on line 0 and mc146818rtc on line 8.
 *
 * In the place of a CPU stands a device, "/machine/cpu", whose input 0 is INT. Its ports:
 *   0x61    gate, output and refresh of the timer, as far as i8254.h has them
 *   0xae10  8 bits   a read acknowledges: the vector
 *   0xae11  8 bits   1: INT is high
 */
#ifndef FERRY_TESTS_DEVICES_TEST_PC_H
#define FERRY_TESTS_DEVICES_TEST_PC_H

#include "hw/core/machine.h"

/* After test_machine_register(). */
void test_pc_register(void);
bool coroutine_fn test_pc_co_init(const MachineClass *class, GError **errp);

#endif
