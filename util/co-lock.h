/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks and queues between coroutines.
 *
 * CoMutex and CoRwlock may be shared by coroutines of several AioContexts (threads); CoQueue
 * belongs to the thread of the CoMutex that guards it, or to those that take its guard, or, without
 * either, to a single AioContext. All are fair: first come, first served. A waiter is resumed in the AioContext it waited in.
 */
#ifndef FERRY_UTIL_CO_LOCK_H
#define FERRY_UTIL_CO_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include "util/coroutine.h"
#include "util/queue.h"

typedef struct CoWaiter CoWaiter;
TAILQ_HEAD(CoWaiterList, CoWaiter);

typedef struct CoMutex {
    /* protects the members; held for a few instructions, never across a yield */
    pthread_mutex_t guard;
    Coroutine *holder;
    struct CoWaiterList waiters;
} CoMutex;

void qemu_co_mutex_init(CoMutex *mutex);
/* Not held, no waiter. */
void qemu_co_mutex_destroy(CoMutex *mutex);
void coroutine_fn qemu_co_mutex_lock(CoMutex *mutex);
/* By the coroutine that holds it. Hands the mutex to the longest waiter. */
void coroutine_fn qemu_co_mutex_unlock(CoMutex *mutex);

typedef struct CoQueue {
    struct CoWaiterList waiters;
} CoQueue;

void qemu_co_queue_init(CoQueue *queue);
bool qemu_co_queue_empty(const CoQueue *queue);
/*
 * Waits until woken. With a mutex: releases it while waiting and takes it again before returning.
 */
void coroutine_fn qemu_co_queue_wait(CoQueue *queue, CoMutex *mutex);
/*
 * The same for a queue that coroutines of several threads use: each holds `guard` when it calls a
 * function of the queue. NULL: the queue has one thread now.
 */
void coroutine_fn qemu_co_queue_wait_guarded(CoQueue *queue, pthread_mutex_t *guard);
/*
 * Wakes the longest waiter, or all; callable from coroutines and callbacks of the queue's thread.
 * The woken run from the event loop, not inside this call. qemu_co_queue_next() is false without a
 * waiter.
 */
bool qemu_co_queue_next(CoQueue *queue);
void qemu_co_queue_restart_all(CoQueue *queue);

typedef struct CoRwlock {
    /* protects the members; held for a few instructions, never across a yield */
    pthread_mutex_t guard;
    struct CoWaiterList waiters;
    unsigned readers;
    bool writer;
} CoRwlock;

void qemu_co_rwlock_init(CoRwlock *lock);
void qemu_co_rwlock_destroy(CoRwlock *lock);
void coroutine_fn qemu_co_rwlock_rdlock(CoRwlock *lock);
/* A waiting writer keeps new readers out, so a reader must not take the lock a second time. */
void coroutine_fn qemu_co_rwlock_wrlock(CoRwlock *lock);
void coroutine_fn qemu_co_rwlock_unlock(CoRwlock *lock);

#endif
