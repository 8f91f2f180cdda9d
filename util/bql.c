/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The big lock: tickets, so that it goes round in order, and futexes that wake only whose turn it
 * is (each waiter listens to one bit of a mask, its ticket modulo 32).
 */
#include "util/bql.h"

#include <errno.h>
#include <glib.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "util/aio.h"

static uint32_t next_ticket;
static uint32_t now_serving; /* the futex */
static __thread bool locked;
static __thread bool is_main;

static void take(void)
{
    uint32_t ticket = __atomic_fetch_add(&next_ticket, 1, __ATOMIC_RELAXED);
    uint32_t serving = __atomic_load_n(&now_serving, __ATOMIC_ACQUIRE);

    g_assert(!locked);
    while (serving != ticket) {
        syscall(SYS_futex, &now_serving, FUTEX_WAIT_BITSET_PRIVATE, serving, NULL, NULL,
                1u << (ticket % 32));
        serving = __atomic_load_n(&now_serving, __ATOMIC_ACQUIRE);
    }
    locked = true;
}

static void give(void)
{
    uint32_t turn;

    g_assert(locked);
    locked = false;
    turn = __atomic_add_fetch(&now_serving, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&next_ticket, __ATOMIC_SEQ_CST) != turn) {
        syscall(SYS_futex, &now_serving, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, NULL, NULL,
                1u << (turn % 32));
    }
}

void bql_lock(void)
{
    take();
}

void bql_unlock(void)
{
    give();
}

bool bql_locked(void)
{
    return locked;
}

void bql_cond_wait(BQLCond *cond)
{
    uint32_t turn;

    g_assert(locked && !is_main);
    turn = __atomic_load_n(&cond->turn, __ATOMIC_RELAXED); /* changes under the lock only */
    give();
    /* A broadcast since then has changed the number, and the kernel does not let us sleep. */
    syscall(SYS_futex, &cond->turn, FUTEX_WAIT_PRIVATE, turn, NULL, NULL, 0);
    take();
}

void bql_cond_broadcast(BQLCond *cond)
{
    g_assert(locked);
    __atomic_add_fetch(&cond->turn, 1, __ATOMIC_RELAXED);
    syscall(SYS_futex, &cond->turn, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void bql_main_lock(void)
{
    is_main = true;
    take();
}

void bql_main_unlock(void)
{
    give();
}

/* --- calls into the main loop --- */

typedef struct MainCall {
    CoroutineEntry *entry;
    void *opaque;
    GMutex lock;
    GCond over;
    bool done;
} MainCall;

static void coroutine_fn main_call_co_entry(void *opaque)
{
    MainCall *call = opaque;

    call->entry(call->opaque);
    g_mutex_lock(&call->lock);
    call->done = true;
    g_cond_signal(&call->over);
    g_mutex_unlock(&call->lock);
}

void main_loop_run_co(CoroutineEntry *entry, void *opaque)
{
    MainCall call = {.entry = entry, .opaque = opaque};
    AioContext *ctx = qemu_get_aio_context();

    g_assert(!locked && !aio_context_in_own_thread(ctx));
    g_mutex_init(&call.lock);
    g_cond_init(&call.over);
    aio_co_schedule(ctx, qemu_coroutine_create(main_call_co_entry, &call));
    g_mutex_lock(&call.lock);
    while (!call.done) {
        g_cond_wait(&call.over, &call.lock);
    }
    g_mutex_unlock(&call.lock);
    g_mutex_clear(&call.lock);
    g_cond_clear(&call.over);
}
