/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tells the address and thread sanitizers about stack switches; nothing at all in a build without
 * them.
 */
#ifndef FERRY_UTIL_COROUTINE_SANITIZER_H
#define FERRY_UTIL_COROUTINE_SANITIZER_H

#include <pthread.h>
#include "util/coroutine-int.h"

#if defined(__SANITIZE_ADDRESS__)
#define CO_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CO_ASAN 1
#endif
#endif

#if defined(__SANITIZE_THREAD__)
#define CO_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CO_TSAN 1
#endif
#endif

#ifdef CO_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef CO_TSAN
#include <sanitizer/tsan_interface.h>
#endif

static inline void sanitizer_coroutine_new(Coroutine *co)
{
#ifdef CO_TSAN
    co->fiber = __tsan_create_fiber(0);
#endif
    (void)co;
}

static inline void sanitizer_coroutine_free(Coroutine *co)
{
#ifdef CO_ASAN
    /* The frames that never return (the coroutine's main function) left their red zones behind. */
    ASAN_UNPOISON_MEMORY_REGION(co->stack, co->stack_bytes);
#endif
#ifdef CO_TSAN
    __tsan_destroy_fiber(co->fiber);
#endif
    (void)co;
}

#ifdef CO_ASAN
/* Bytes below the stack pointer that are poisoned: to poison the whole stack takes too long. */
#define SANITIZER_DEAD_STACK ((size_t)64 * 1024)

static inline size_t sanitizer_dead_bytes(const Coroutine *co)
{
    size_t below = (size_t)((char *)co->sp - (char *)co->stack);

    return below < SANITIZER_DEAD_STACK ? below : SANITIZER_DEAD_STACK;
}
#endif

/* The pool gets the stack: a pointer into the frames of a function that has ended is reported. */
static inline void sanitizer_coroutine_ended(Coroutine *co)
{
#ifdef CO_ASAN
    size_t dead = sanitizer_dead_bytes(co);

    ASAN_POISON_MEMORY_REGION((char *)co->sp - dead, dead);
#endif
    (void)co;
}

/* The stack leaves the pool, or is a new one. */
static inline void sanitizer_coroutine_reuse(Coroutine *co)
{
#ifdef CO_ASAN
    size_t dead = sanitizer_dead_bytes(co);

    ASAN_UNPOISON_MEMORY_REGION((char *)co->sp - dead, dead);
#endif
    (void)co;
}

/* Learns what a thread's own stack is, before it is left for the first time. */
static inline void sanitizer_leader_init(Coroutine *leader)
{
#ifdef CO_ASAN
    pthread_attr_t attr;

    if (!leader->stack && pthread_getattr_np(pthread_self(), &attr) == 0) {
        pthread_attr_getstack(&attr, &leader->stack, &leader->stack_bytes);
        pthread_attr_destroy(&attr);
    }
#endif
#ifdef CO_TSAN
    if (!leader->fiber) {
        leader->fiber = __tsan_get_current_fiber();
    }
#endif
    (void)leader;
}

/* On from's stack, just before the switch. */
static inline void sanitizer_switch_start(Coroutine *from, Coroutine *to)
{
#ifdef CO_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#endif
#ifdef CO_TSAN
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
    (void)from;
    (void)to;
}

/* On self's stack, just after the switch; its fake stack is NULL the first time. */
static inline void sanitizer_switch_finish(Coroutine *self)
{
#ifdef CO_ASAN
    __sanitizer_finish_switch_fiber(self->fake_stack, NULL, NULL);
#endif
    (void)self;
}

#endif
