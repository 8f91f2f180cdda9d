/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The big lock: the thread that holds it may look at and change the guest's devices and
 * configuration.
 *
 * The main thread holds it whenever its event loop does not wait, so code that runs in the main
 * loop never takes it. Other threads (vCPUs, migration) take it for as long as they touch devices,
 * and never across I/O on a channel or a disk. A thread that sleeps for it gets it after the sleepers
 * before it; others pass it by only while it wakes up, and for one hold more. So a busy main loop
 * cannot starve the others.  It does not nest, and it protects no block graph: those
 * belong to their AioContext (block/block.h).
 *
 * Lock order: the big lock before any other lock. A thread that holds it must not wait for another
 * thread that may want it.
 */
#ifndef FERRY_UTIL_BQL_H
#define FERRY_UTIL_BQL_H

#include <stdbool.h>
#include <stdint.h>
#include "util/coroutine.h"

/* Any thread but the main thread, which has it. */
void bql_lock(void);
void bql_unlock(void);
/* Whether the calling thread holds it. */
bool bql_locked(void);
/* Whether a thread sleeps for it. Any thread; the answer is a hint. */
bool bql_wanted(void);
/* How often a thread has slept for it so far. Any thread. */
unsigned bql_sleeps(void);

/*
 * A condition that changes under the big lock. Zero-initialise. A waiter gives the lock up, has it
 * again afterwards, and looks at what it waits for in a loop. Any thread but the main thread.
 */
typedef struct BQLCond {
    uint32_t turn; /* a futex */
} BQLCond;

void bql_cond_wait(BQLCond *cond);
/* Wakes all waiters. The holder of the big lock, the main thread as well. */
void bql_cond_broadcast(BQLCond *cond);

/* For main() and the wait of the main loop; the main thread takes it at the first call. */
void bql_main_lock(void);
void bql_main_unlock(void);

/*
 * Runs entry(opaque) as a coroutine in the main thread's loop and waits until it returns. Any
 * thread but the main thread, without the big lock.
 */
void main_loop_run_co(CoroutineEntry *entry, void *opaque);

#endif
