/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A state with a field of every kind, for tests and the fuzzer of VMState. */
#ifndef FERRY_TESTS_UNIT_VMSTATE_RICH_H
#define FERRY_TESTS_UNIT_VMSTATE_RICH_H

#include <glib.h>
#include <stdbool.h>
#include "vmstate/vmstate.h"

typedef struct RichState RichState;

extern const VMStateDescription vmstate_rich;

/* As a device is before anything happens to it: what is allocated by loading is not there. */
RichState *rich_new(void);
/* Things happen to it, as the random numbers have it; all within what a load accepts. */
void rich_use(RichState *s, GRand *rand);
void rich_free(RichState *s);
/*
 * Every count within its array, every list linked both ways, nothing outside arrays written. What
 * must hold after any load, good or bad.
 */
void rich_check(const RichState *s);

#endif
