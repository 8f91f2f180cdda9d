/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The big lock.
 *
 * A thread that finds it held spins for a short while, then sleeps in a queue. A release wakes the
 * first of the queue but does not give it the lock. Until the sleeper runs, the lock is free for
 * threads that run already, so no processor stands idle behind a free lock. A woken thread that
 * comes too late asks for the lock, and the next release hands it over. So the first of the queue
 * is passed by during one wake-up and one more hold at most.
 *
 * State word: transitions of BQL_HELD without sleepers are compare-and-swap by any thread. With
 * sleepers, all are made under queue.guard, apart from two: taking the lock while it is free, and
 * releasing it while the first sleeper is on its way. BQL_ASKED implies BQL_HELD.
 */
#include "util/bql.h"

#include <errno.h>
#include <glib.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "util/aio.h"
#include "util/queue.h"

enum {
    BQL_HELD = 1,
    BQL_SLEEPERS = 2, /* the queue is not empty */
    BQL_WAKING = 4,   /* its first was woken and has not looked at the lock yet */
    BQL_ASKED = 8,    /* its first came too late once: the next release hands the lock over */
};

/* Looks at a held lock before a thread sleeps. A look takes some 10 to 40 ns. */
#define SPIN_MIN 8
#define SPIN_MAX 256

typedef enum SleeperTurn {
    TURN_SLEEP,
    TURN_LOOK, /* the lock may be free */
    TURN_HAS,  /* the lock is this thread's */
} SleeperTurn;

/* On the stack of the thread that sleeps. */
typedef struct Sleeper {
    uint32_t turn; /* SleeperTurn, a futex */
    TAILQ_ENTRY(Sleeper) link;
} Sleeper;

static uint32_t state; /* BQL_* */
static struct {
    pthread_mutex_t guard; /* held for some instructions only */
    TAILQ_HEAD(, Sleeper) sleepers;
} queue = {
    .guard = PTHREAD_MUTEX_INITIALIZER,
    .sleepers = TAILQ_HEAD_INITIALIZER(queue.sleepers),
};
static unsigned spin_looks = SPIN_MAX; /* what has paid off lately; a hint, relaxed */
static unsigned sleeps;                /* statistics, relaxed */
static __thread bool locked;
static __thread bool is_main;

static void futex_wait(uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

/* The word may be gone already: then nothing, or a thread that looks again, is woken. */
static void futex_wake(uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static bool try_take(uint32_t *seen)
{
    *seen = __atomic_load_n(&state, __ATOMIC_RELAXED);
    return !(*seen & BQL_HELD) && __atomic_compare_exchange_n(&state, seen, *seen | BQL_HELD, false,
                                                              __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

/* The number of looks follows what they bring: a lock that is held for long is not looked at. */
static bool spin(void)
{
    unsigned limit = __atomic_load_n(&spin_looks, __ATOMIC_RELAXED);
    uint32_t seen;

    for (unsigned i = 0; i < limit; i++) {
        if (try_take(&seen)) {
            __atomic_store_n(&spin_looks, CLAMP(2 * i, limit, SPIN_MAX), __ATOMIC_RELAXED);
            return true;
        }
        if (seen & BQL_ASKED) {
            return false;
        }
        __builtin_ia32_pause();
    }
    __atomic_store_n(&spin_looks, MAX(limit - limit / 4, SPIN_MIN), __ATOMIC_RELAXED);
    return false;
}

/* With the guard held. */
static void queue_remove(Sleeper *self)
{
    TAILQ_REMOVE(&queue.sleepers, self, link);
    if (TAILQ_EMPTY(&queue.sleepers)) {
        __atomic_fetch_and(&state, ~BQL_SLEEPERS, __ATOMIC_RELAXED);
    }
}

/*
 * With the guard held: the first of the queue takes the lock, or says what is to happen at its
 * release. When it has just been queued, it is to be woken. When it was woken before, it is to be
 * given the lock.
 */
static bool first_takes(Sleeper *self, bool woken)
{
    uint32_t seen = __atomic_load_n(&state, __ATOMIC_RELAXED);
    uint32_t wanted;

    do {
        if (!(seen & BQL_HELD)) {
            wanted = (seen | BQL_HELD) & ~BQL_WAKING;
        } else {
            wanted = woken ? (seen & ~BQL_WAKING) | BQL_ASKED : seen;
        }
    } while (!__atomic_compare_exchange_n(&state, &seen, wanted, false, __ATOMIC_ACQUIRE,
                                          __ATOMIC_RELAXED));
    if (seen & BQL_HELD) {
        return false;
    }
    queue_remove(self);
    return true;
}

static void take_asleep(void)
{
    Sleeper self = {.turn = TURN_SLEEP};
    uint32_t turn = TURN_SLEEP;
    bool taken;

    pthread_mutex_lock(&queue.guard);
    TAILQ_INSERT_TAIL(&queue.sleepers, &self, link);
    __atomic_fetch_or(&state, BQL_SLEEPERS, __ATOMIC_SEQ_CST);
    taken = TAILQ_FIRST(&queue.sleepers) == &self && first_takes(&self, false);
    pthread_mutex_unlock(&queue.guard);
    while (!taken) {
        while ((turn = __atomic_load_n(&self.turn, __ATOMIC_ACQUIRE)) == TURN_SLEEP) {
            __atomic_fetch_add(&sleeps, 1, __ATOMIC_RELAXED);
            futex_wait(&self.turn, TURN_SLEEP);
        }
        if (turn == TURN_HAS) {
            return;
        }
        pthread_mutex_lock(&queue.guard);
        __atomic_store_n(&self.turn, TURN_SLEEP, __ATOMIC_RELAXED);
        taken = first_takes(&self, true);
        pthread_mutex_unlock(&queue.guard);
    }
}

static void take(void)
{
    uint32_t seen;

    g_assert(!locked);
    if (!try_take(&seen) && !spin()) {
        take_asleep();
    }
    locked = true;
}

/* There are sleepers. */
static void give_beside_sleepers(void)
{
    Sleeper *first;

    pthread_mutex_lock(&queue.guard);
    first = TAILQ_FIRST(&queue.sleepers);
    if (!first) {
        __atomic_fetch_and(&state, ~BQL_HELD, __ATOMIC_RELEASE);
    } else if (__atomic_load_n(&state, __ATOMIC_RELAXED) & BQL_ASKED) {
        queue_remove(first);
        __atomic_fetch_and(&state, ~BQL_ASKED, __ATOMIC_RELAXED);
        __atomic_store_n(&first->turn, TURN_HAS, __ATOMIC_RELEASE);
    } else {
        __atomic_fetch_or(&state, BQL_WAKING, __ATOMIC_RELAXED);
        __atomic_store_n(&first->turn, TURN_LOOK, __ATOMIC_RELEASE);
        __atomic_fetch_and(&state, ~BQL_HELD, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&queue.guard);
    if (first) {
        futex_wake(&first->turn);
    }
}

static void give(void)
{
    uint32_t seen = __atomic_load_n(&state, __ATOMIC_RELAXED);

    g_assert(locked);
    locked = false;
    do {
        bool first_must_act = (seen & BQL_SLEEPERS) && !(seen & BQL_WAKING);

        if (first_must_act) {
            give_beside_sleepers();
            return;
        }
    } while (!__atomic_compare_exchange_n(&state, &seen, seen & ~BQL_HELD, false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED));
}

bool bql_wanted(void)
{
    return __atomic_load_n(&state, __ATOMIC_RELAXED) & BQL_SLEEPERS;
}

unsigned bql_sleeps(void)
{
    return __atomic_load_n(&sleeps, __ATOMIC_RELAXED);
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
