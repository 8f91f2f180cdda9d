/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A state with a field of every kind, for tests and the fuzzer of VMState. */
#ifndef FERRY_TESTS_UNIT_VMSTATE_RICH_H
#define FERRY_TESTS_UNIT_VMSTATE_RICH_H

#include <glib.h>
#include <stdbool.h>
#include "vmstate/vmstate.h"

typedef struct RichState RichState;

extern const VMStateDescription vmstate_rich;

/* A new device, without the memory that a load allocates. */
RichState *rich_new(void);
/* Changes its state at random; every state is one that a load accepts. */
void rich_use(RichState *s, GRand *rand);
void rich_free(RichState *s);
/*
 * Every count within its array, every list linked both ways, nothing outside arrays written. What
 * must hold after any load, good or bad.
 */
void rich_check(const RichState *s);

#endif
