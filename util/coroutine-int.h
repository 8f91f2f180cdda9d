/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Coroutine: its representation, shared by coroutine.c and the event loop. */
#ifndef FERRY_UTIL_COROUTINE_INT_H
#define FERRY_UTIL_COROUTINE_INT_H

#include <stddef.h>
#include "util/aio-post.h"
#include "util/coroutine.h"

typedef struct AioContext AioContext;

struct Coroutine {
    void *sp;          /* saved stack pointer while it does not run */
    Coroutine *caller; /* who entered it; NULL while it does not run. Atomic: see below */
    CoroutineEntry *entry;
    void *opaque;

    /* Read and written by any thread, atomically. */
    AioContext *ctx; /* where it was last entered */
    bool scheduled;  /* `post` is in the list of a context */
    AioPost post;

    AioContext *move_to; /* where to schedule it once it has yielded; NULL: nowhere */
    Coroutine *pool_next;
    void *stack; /* lowest usable byte, above the guard page; NULL for a thread's leader */
    size_t stack_bytes;
    void *fake_stack; /* address sanitizer's shadow stack */
    void *fiber;      /* thread sanitizer's fiber */
};

/*
 * True while co's registers are not saved yet. A coroutine that was scheduled into another thread's
 * context before it yielded must not be entered until this is false.
 */
static inline bool coroutine_running(const Coroutine *co)
{
    return __atomic_load_n(&co->caller, __ATOMIC_ACQUIRE) != NULL;
}

/* Names the context that coroutines entered by the calling thread belong to. */
void coroutine_set_thread_context(AioContext *ctx);
AioContext *coroutine_get_thread_context(void);

/*
 * Ended coroutines that wait in the calling thread's pool; the pool gives stacks back until `keep`
 * are left.
 */
unsigned coroutine_pool_size(void);
void coroutine_pool_trim(unsigned keep);

#endif
