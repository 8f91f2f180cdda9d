/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's clock (QEMU_CLOCK_VIRTUAL) where nobody else runs it: it goes while the guest runs, and
 * it goes on at the destination of a migration where it stood at the source (the entry "timer").
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
