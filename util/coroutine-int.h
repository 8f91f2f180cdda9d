/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Coroutine: its representation, shared by coroutine.c and the event loop. */
#ifndef FERRY_UTIL_COROUTINE_INT_H
#define FERRY_UTIL_COROUTINE_INT_H

#include <stddef.h>
#include <stdint.h>
#include "util/aio-post.h"
#include "util/coroutine.h"

typedef struct AioContext AioContext;

struct Coroutine {
    void *sp;          /* saved stack pointer while it does not run */
    Coroutine *caller; /* the one that entered it; NULL while it does not run. Atomic: see below */
    CoroutineEntry *entry; /* NULL: it has ended, or is a thread's leader */
    void *opaque;

    /* Read and written by any thread, atomically. */
    AioContext *ctx; /* where it was last entered */
    bool scheduled;  /* `post` is in the list of a context */
    AioPost post;

    AioContext *move_to;    /* where to schedule it once it has yielded; NULL: nowhere */
    Coroutine *pool_next;   /* in a bundle of the pool */
    Coroutine *next_bundle; /* first of a bundle in the shared pool */
    unsigned bundle_stacks; /* the same: what the bundle holds */
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

/* --- the pool of stacks (coroutine-pool.c) --- */

typedef struct CoroutineBundle {
    Coroutine *first;
    unsigned n;
} CoroutineBundle;

/* What a thread keeps for itself. Starts zeroed; its owner alone uses it. */
typedef struct CoroutineCache {
    CoroutineBundle loaded; /* taken from and put to */
    CoroutineBundle spare;  /* full or empty */
    unsigned low_stacks;    /* least number of stacks in this period */
    int64_t period_ends_ns;
    bool has_destructor;
} CoroutineCache;

/* A coroutine that has ended; NULL when the pool is empty. */
Coroutine *coroutine_pool_get(CoroutineCache *cache);
void coroutine_pool_put(CoroutineCache *cache, Coroutine *co);
/*
 * Gives stacks that were not needed for a period back to the system. Returns how long (ns) the calling
 * thread may sleep before it calls this again; -1: for ever, there is nothing to give back.
 */
int64_t coroutine_pool_trim(CoroutineCache *cache);
/* The same for the calling thread. */
int64_t coroutine_thread_trim(void);

/* Unmaps the stack of a coroutine that has ended. */
void coroutine_free(Coroutine *co);
/* Stacks that the process has mapped so far, whether they are still there or not. Any thread. */
unsigned coroutine_stacks_mapped(void);

#endif
