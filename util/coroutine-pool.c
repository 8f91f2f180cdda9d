/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stacks of coroutines that have ended.
 *
 * A thread keeps up to two bundles for itself, `loaded` and `spare`, and takes and puts stacks there
 * without a lock. It exchanges whole bundles with the shared pool. So a thread whose coroutines end
 * in other threads finds their stacks there (the magazines of Bonwick and Adams, "Magazines and
 * Vmem", USENIX 2001).
 *
 * No number bounds the shared pool. It follows the depth of the requests. A stack that has stayed
 * in the pool for a whole period was not needed at that period's deepest point. It goes back to the
 * system at the period's end.
 */
#include <glib.h>
#include <pthread.h>
#include <time.h>
#include "util/coroutine-int.h"
#include "util/timer.h"

#define BUNDLE_STACKS 32
/* Stacks that a thread keeps for itself however long it is idle. */
#define IDLE_STACKS 8
#define PERIOD_NS   (500 * SCALE_MS)
/* Stacks that one call gives back: each costs the loop some microseconds. */
#define TRIM_STACKS 256

static struct {
    pthread_mutex_t lock;
    Coroutine *bundles;  /* first stack of each bundle, linked by next_bundle */
    unsigned n_stacks;   /* changes under the lock, read by any thread */
    unsigned low_stacks; /* least n_stacks in this period */
    int64_t period_ends_ns;
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

static pthread_key_t cache_key;
static pthread_once_t cache_key_once = PTHREAD_ONCE_INIT;

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return ts.tv_sec * NANOSECONDS_PER_SECOND + ts.tv_nsec;
}

static Coroutine *bundle_pop(CoroutineBundle *bundle)
{
    Coroutine *co = bundle->first;

    if (co) {
        bundle->first = co->pool_next;
        bundle->n--;
    }
    return co;
}

static unsigned cache_stacks(const CoroutineCache *cache)
{
    return cache->loaded.n + cache->spare.n;
}

/* --- the shared pool --- */

static void shared_put(CoroutineBundle *bundle)
{
    Coroutine *first = bundle->first;

    if (!first) {
        return;
    }
    first->bundle_stacks = bundle->n;
    pthread_mutex_lock(&shared.lock);
    first->next_bundle = shared.bundles;
    shared.bundles = first;
    __atomic_store_n(&shared.n_stacks, shared.n_stacks + bundle->n, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&shared.lock);
    *bundle = (CoroutineBundle){.first = NULL};
}

/* With the lock held. An empty bundle when there is none. */
static CoroutineBundle shared_take(void)
{
    Coroutine *first = shared.bundles;

    if (!first) {
        return (CoroutineBundle){.first = NULL};
    }
    shared.bundles = first->next_bundle;
    __atomic_store_n(&shared.n_stacks, shared.n_stacks - first->bundle_stacks, __ATOMIC_RELAXED);
    return (CoroutineBundle){.first = first, .n = first->bundle_stacks};
}

static unsigned shared_stacks(void)
{
    return __atomic_load_n(&shared.n_stacks, __ATOMIC_RELAXED);
}

static void bundle_free(CoroutineBundle *bundle)
{
    Coroutine *co;

    while ((co = bundle_pop(bundle))) {
        coroutine_free(co);
    }
}

/* Frees what was not needed in a period that has ended. Bundles are freed whole. */
static void shared_trim(int64_t now)
{
    CoroutineBundle surplus[TRIM_STACKS / BUNDLE_STACKS];
    unsigned n = 0;

    pthread_mutex_lock(&shared.lock);
    if (now >= shared.period_ends_ns) {
        unsigned unused = shared.low_stacks;

        while (n < G_N_ELEMENTS(surplus) && shared.bundles &&
               shared.bundles->bundle_stacks <= unused) {
            unused -= shared.bundles->bundle_stacks;
            surplus[n++] = shared_take();
        }
        shared.low_stacks = shared.n_stacks;
        shared.period_ends_ns = now + PERIOD_NS;
    }
    pthread_mutex_unlock(&shared.lock);
    while (n > 0) {
        bundle_free(&surplus[--n]);
    }
}

/* --- the thread's own --- */

/* The thread ends: other threads get its stacks. */
static void cache_destroy(void *opaque)
{
    CoroutineCache *cache = opaque;

    shared_put(&cache->loaded);
    shared_put(&cache->spare);
    cache->has_destructor = false;
}

static void cache_key_create(void)
{
    if (pthread_key_create(&cache_key, cache_destroy) != 0) {
        g_error("no thread-specific key for the coroutine pool");
    }
}

/* The thread is about to keep stacks: they are handed on when it ends. */
static void cache_watch_thread(CoroutineCache *cache)
{
    if (G_UNLIKELY(!cache->has_destructor)) {
        pthread_once(&cache_key_once, cache_key_create);
        pthread_setspecific(cache_key, cache);
        cache->has_destructor = true;
    }
}

Coroutine *coroutine_pool_get(CoroutineCache *cache)
{
    Coroutine *co;

    if (G_UNLIKELY(!cache->loaded.first)) {
        cache->loaded = cache->spare;
        cache->spare = (CoroutineBundle){.first = NULL};
        if (!cache->loaded.first && shared_stacks()) {
            cache_watch_thread(cache);
            pthread_mutex_lock(&shared.lock);
            cache->loaded = shared_take();
            shared.low_stacks = MIN(shared.low_stacks, shared.n_stacks);
            pthread_mutex_unlock(&shared.lock);
        }
    }
    co = bundle_pop(&cache->loaded);
    cache->low_stacks = MIN(cache->low_stacks, cache_stacks(cache));
    return co;
}

void coroutine_pool_put(CoroutineCache *cache, Coroutine *co)
{
    cache_watch_thread(cache);
    if (G_UNLIKELY(cache->loaded.n == BUNDLE_STACKS)) {
        shared_put(&cache->spare);
        cache->spare = cache->loaded;
        cache->loaded = (CoroutineBundle){.first = NULL};
    }
    co->pool_next = cache->loaded.first;
    cache->loaded.first = co;
    cache->loaded.n++;
}

int64_t coroutine_pool_trim(CoroutineCache *cache)
{
    int64_t now;

    if (cache_stacks(cache) <= IDLE_STACKS && !shared_stacks()) {
        return -1;
    }
    now = now_ns();
    if (now >= cache->period_ends_ns) {
        unsigned unused = cache->low_stacks;

        while (unused-- && cache_stacks(cache) > IDLE_STACKS) {
            Coroutine *co = bundle_pop(cache->spare.first ? &cache->spare : &cache->loaded);

            coroutine_free(co);
        }
        cache->low_stacks = cache_stacks(cache);
        cache->period_ends_ns = now + PERIOD_NS;
        shared_trim(now);
    }
    return cache->period_ends_ns - now;
}
