/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's clock (QEMU_CLOCK_VIRTUAL), unless a test runs it. It advances while the guest runs.
 * At the destination of a migration it goes on from the source's value (the entry "timer").
 */
#ifndef FERRY_ACCEL_GUEST_CLOCK_H
#define FERRY_ACCEL_GUEST_CLOCK_H

#include <stdbool.h>

/*
 * Once, in the main thread, before any virtual timer exists. `stepped`: a test runs the clock (qtest);
 * then only its time travels.
 */
void guest_clock_init(bool stepped);

#endif
