/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Coroutines: functions on stacks of their own that give up the CPU only where they say so.
 *
 * A coroutine runs in whichever thread enters it. Except for aio_co_reschedule_self(), it stays in
 * the AioContext it was first entered in. A function that may yield is marked coroutine_fn, carries
 * _co_ in its name, and is called from coroutines only.
 *
 * Stacks come from a pool for each thread with a guard page below each stack; with the address
 * sanitizer every switch is announced to it.
 */
#ifndef FERRY_UTIL_COROUTINE_H
#define FERRY_UTIL_COROUTINE_H

#include <stdbool.h>

/* Marks a function that may yield: callable from a coroutine only. */
#define coroutine_fn

typedef struct Coroutine Coroutine;
typedef void CoroutineEntry(void *opaque);

/*
 * Makes a coroutine that will run entry(opaque) when first entered. It frees itself when entry
 * returns.
 */
Coroutine *qemu_coroutine_create(CoroutineEntry *entry, void *opaque);

/*
 * Runs co until it yields or ends, then returns. May be called from inside another coroutine (which
 * resumes when co yields). co must not be running already.
 */
void qemu_coroutine_enter(Coroutine *co);

/*
 * Gives the CPU back to the caller that entered the running coroutine; returns when it is entered
 * again.
 */
void coroutine_fn qemu_coroutine_yield(void);

/* The running coroutine; the thread's own (not enterable) leader outside of one. */
Coroutine *qemu_coroutine_self(void);

/* True when called from a coroutine. */
bool qemu_in_coroutine(void);

/*
 * True from the first qemu_coroutine_enter() until the next yield or the end, nested entries
 * included.
 */
bool qemu_coroutine_entered(Coroutine *co);

#endif
