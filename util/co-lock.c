/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks and queues between coroutines.
 *
 * A lock is handed over, not released and fought for. Unlocking makes the longest waiter the holder
 * and only then wakes it, so a waiter that resumes owns what it waited for. The waiter's record is
 * on its own stack: once it is woken it may be gone.
 */
#include "util/co-lock.h"

#include <glib.h>
#include "util/aio.h"

struct CoWaiter {
    Coroutine *co;
    bool writer; /* CoRwlock only */
    TAILQ_ENTRY(CoWaiter) link;
};

void qemu_co_mutex_init(CoMutex *mutex)
{
    pthread_mutex_init(&mutex->guard, NULL);
    mutex->holder = NULL;
    TAILQ_INIT(&mutex->waiters);
}

void qemu_co_mutex_destroy(CoMutex *mutex)
{
    g_assert(!mutex->holder && TAILQ_EMPTY(&mutex->waiters));
    pthread_mutex_destroy(&mutex->guard);
}

void coroutine_fn qemu_co_mutex_lock(CoMutex *mutex)
{
    Coroutine *self = qemu_coroutine_self();
    struct CoWaiter waiter = {.co = self};

    pthread_mutex_lock(&mutex->guard);
    g_assert(mutex->holder != self);
    if (!mutex->holder) {
        mutex->holder = self;
        pthread_mutex_unlock(&mutex->guard);
        return;
    }
    TAILQ_INSERT_TAIL(&mutex->waiters, &waiter, link);
    pthread_mutex_unlock(&mutex->guard);
    qemu_coroutine_yield();
}

void coroutine_fn qemu_co_mutex_unlock(CoMutex *mutex)
{
    struct CoWaiter *waiter;
    Coroutine *next = NULL;

    pthread_mutex_lock(&mutex->guard);
    g_assert(mutex->holder == qemu_coroutine_self());
    waiter = TAILQ_FIRST(&mutex->waiters);
    if (waiter) {
        TAILQ_REMOVE(&mutex->waiters, waiter, link);
        next = waiter->co;
    }
    mutex->holder = next;
    pthread_mutex_unlock(&mutex->guard);
    if (next) {
        aio_co_wake(next);
    }
}

void qemu_co_queue_init(CoQueue *queue)
{
    TAILQ_INIT(&queue->waiters);
}

bool qemu_co_queue_empty(const CoQueue *queue)
{
    return TAILQ_EMPTY(&queue->waiters);
}

void coroutine_fn qemu_co_queue_wait(CoQueue *queue, CoMutex *mutex)
{
    struct CoWaiter waiter = {.co = qemu_coroutine_self()};

    TAILQ_INSERT_TAIL(&queue->waiters, &waiter, link);
    if (mutex) {
        qemu_co_mutex_unlock(mutex);
    }
    qemu_coroutine_yield();
    if (mutex) {
        qemu_co_mutex_lock(mutex);
    }
}

void coroutine_fn qemu_co_queue_wait_guarded(CoQueue *queue, pthread_mutex_t *guard)
{
    struct CoWaiter waiter = {.co = qemu_coroutine_self()};

    TAILQ_INSERT_TAIL(&queue->waiters, &waiter, link);
    if (guard) {
        pthread_mutex_unlock(guard);
    }
    qemu_coroutine_yield();
    if (guard) {
        pthread_mutex_lock(guard);
    }
}

bool qemu_co_queue_next(CoQueue *queue)
{
    struct CoWaiter *waiter = TAILQ_FIRST(&queue->waiters);

    if (!waiter) {
        return false;
    }
    TAILQ_REMOVE(&queue->waiters, waiter, link);
    aio_co_wake(waiter->co);
    return true;
}

void qemu_co_queue_restart_all(CoQueue *queue)
{
    while (qemu_co_queue_next(queue)) {
    }
}

void qemu_co_rwlock_init(CoRwlock *lock)
{
    pthread_mutex_init(&lock->guard, NULL);
    TAILQ_INIT(&lock->waiters);
    lock->readers = 0;
    lock->writer = false;
}

void qemu_co_rwlock_destroy(CoRwlock *lock)
{
    g_assert(!lock->readers && !lock->writer && TAILQ_EMPTY(&lock->waiters));
    pthread_mutex_destroy(&lock->guard);
}

/* With the guard held, which it releases. */
static void coroutine_fn rwlock_co_wait(CoRwlock *lock, bool writer)
{
    struct CoWaiter waiter = {.co = qemu_coroutine_self(), .writer = writer};

    TAILQ_INSERT_TAIL(&lock->waiters, &waiter, link);
    pthread_mutex_unlock(&lock->guard);
    qemu_coroutine_yield();
}

void coroutine_fn qemu_co_rwlock_rdlock(CoRwlock *lock)
{
    pthread_mutex_lock(&lock->guard);
    if (lock->writer || !TAILQ_EMPTY(&lock->waiters)) {
        rwlock_co_wait(lock, false);
        return;
    }
    lock->readers++;
    pthread_mutex_unlock(&lock->guard);
}

void coroutine_fn qemu_co_rwlock_wrlock(CoRwlock *lock)
{
    pthread_mutex_lock(&lock->guard);
    if (lock->writer || lock->readers) {
        rwlock_co_wait(lock, true);
        return;
    }
    lock->writer = true;
    pthread_mutex_unlock(&lock->guard);
}

/* With the guard held: makes the longest waiter a holder if what is held allows it; NULL if not. */
static Coroutine *rwlock_grant(CoRwlock *lock)
{
    struct CoWaiter *waiter = TAILQ_FIRST(&lock->waiters);

    if (!waiter || lock->writer || (waiter->writer && lock->readers)) {
        return NULL;
    }
    TAILQ_REMOVE(&lock->waiters, waiter, link);
    if (waiter->writer) {
        lock->writer = true;
    } else {
        lock->readers++;
    }
    return waiter->co;
}

void coroutine_fn qemu_co_rwlock_unlock(CoRwlock *lock)
{
    Coroutine *next;

    pthread_mutex_lock(&lock->guard);
    if (lock->writer) {
        lock->writer = false;
    } else {
        g_assert(lock->readers);
        lock->readers--;
    }
    while ((next = rwlock_grant(lock))) {
        aio_co_wake(next);
    }
    pthread_mutex_unlock(&lock->guard);
}
