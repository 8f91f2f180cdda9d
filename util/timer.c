/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Clocks and timers: a heap for each clock of an AioContext, and coroutines that sleep. */
#include "util/timer.h"

#include <stddef.h>
#include <time.h>
#include "util/aio-int.h"

enum {
    TIMER_IDLE = -1,   /* not armed */
    TIMER_FIRING = -2, /* in TimerList.firing */
};

struct QEMUTimer {
    /* Constant. */
    AioContext *ctx;
    QEMUClockType type;
    QEMUTimerCB *cb;
    void *opaque;

    /* Under the lock of ctx->timers. */
    int64_t expire_ns;
    uint64_t sequence;
    int index; /* in the heap, or TIMER_* */
    TAILQ_ENTRY(QEMUTimer) link;
};

static const QEMUVirtualClock *virtual_clock;

/* The list of every context: a clock that starts to go wakes them all. */
static pthread_mutex_t lists_lock = PTHREAD_MUTEX_INITIALIZER;
static TAILQ_HEAD(, TimerList) lists = TAILQ_HEAD_INITIALIZER(lists);

void qemu_clock_set_virtual(const QEMUVirtualClock *clock)
{
    __atomic_store_n(&virtual_clock, clock, __ATOMIC_RELEASE);
}

void qemu_clock_notify_all(void)
{
    TimerList *list;

    pthread_mutex_lock(&lists_lock);
    TAILQ_FOREACH(list, &lists, link) {
        aio_notify((AioContext *)((char *)list - offsetof(AioContext, timers)));
    }
    pthread_mutex_unlock(&lists_lock);
}

static int64_t clock_read_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return ts.tv_sec * NANOSECONDS_PER_SECOND + ts.tv_nsec;
}

int64_t qemu_clock_get_ns(QEMUClockType type)
{
    const QEMUVirtualClock *v;

    if (type == QEMU_CLOCK_HOST) {
        return clock_read_ns(CLOCK_REALTIME);
    }
    v = type == QEMU_CLOCK_VIRTUAL ? __atomic_load_n(&virtual_clock, __ATOMIC_ACQUIRE) : NULL;
    return v ? v->get_ns() : clock_read_ns(CLOCK_MONOTONIC);
}

static bool clock_running(QEMUClockType type)
{
    const QEMUVirtualClock *v = __atomic_load_n(&virtual_clock, __ATOMIC_ACQUIRE);

    return type != QEMU_CLOCK_VIRTUAL || !v || v->running();
}

/* Whether event loops fire the timers of a clock now. */
static bool clock_fires(QEMUClockType type)
{
    const QEMUVirtualClock *v = __atomic_load_n(&virtual_clock, __ATOMIC_ACQUIRE);

    return type != QEMU_CLOCK_VIRTUAL || !v || v->fires();
}

static bool timer_before(const QEMUTimer *a, const QEMUTimer *b)
{
    return a->expire_ns != b->expire_ns ? a->expire_ns < b->expire_ns : a->sequence < b->sequence;
}

static void heap_set(TimerHeap *heap, unsigned index, QEMUTimer *timer)
{
    heap->timers[index] = timer;
    timer->index = index;
}

/* Places timer at index or above, moving later ones down. */
static void heap_rise(TimerHeap *heap, unsigned index, QEMUTimer *timer)
{
    while (index > 0) {
        unsigned parent = (index - 1) / 2;

        if (!timer_before(timer, heap->timers[parent])) {
            break;
        }
        heap_set(heap, index, heap->timers[parent]);
        index = parent;
    }
    heap_set(heap, index, timer);
}

/* Places timer at index or below, moving sooner ones up. */
static void heap_sink(TimerHeap *heap, unsigned index, QEMUTimer *timer)
{
    for (;;) {
        unsigned child = 2 * index + 1;

        if (child >= heap->size) {
            break;
        }
        if (child + 1 < heap->size && timer_before(heap->timers[child + 1], heap->timers[child])) {
            child++;
        }
        if (!timer_before(heap->timers[child], timer)) {
            break;
        }
        heap_set(heap, index, heap->timers[child]);
        index = child;
    }
    heap_set(heap, index, timer);
}

static void heap_insert(TimerHeap *heap, QEMUTimer *timer)
{
    if (heap->size == heap->capacity) {
        heap->capacity = MAX(8, heap->capacity * 2);
        heap->timers = g_renew(QEMUTimer *, heap->timers, heap->capacity);
    }
    heap_rise(heap, heap->size++, timer);
}

static void heap_remove(TimerHeap *heap, QEMUTimer *timer)
{
    unsigned index = timer->index;
    QEMUTimer *last = heap->timers[--heap->size];

    if (last != timer) {
        if (timer_before(last, timer)) {
            heap_rise(heap, index, last);
        } else {
            heap_sink(heap, index, last);
        }
    }
    timer->index = TIMER_IDLE;
}

void timer_list_init(TimerList *list)
{
    pthread_mutex_init(&list->lock, NULL);
    TAILQ_INIT(&list->firing);
    pthread_mutex_lock(&lists_lock);
    TAILQ_INSERT_TAIL(&lists, list, link);
    pthread_mutex_unlock(&lists_lock);
}

void timer_list_destroy(TimerList *list)
{
    pthread_mutex_lock(&lists_lock);
    TAILQ_REMOVE(&lists, list, link);
    pthread_mutex_unlock(&lists_lock);
    for (int type = 0; type < QEMU_CLOCK_MAX; type++) {
        g_assert(!list->heaps[type].size);
        g_free(list->heaps[type].timers);
    }
    pthread_mutex_destroy(&list->lock);
}

/* When the first timer of a clock expires; -1: it has none. */
static int64_t first_expire_ns(TimerList *list, QEMUClockType type)
{
    const TimerHeap *heap = &list->heaps[type];
    int64_t expire_ns;

    pthread_mutex_lock(&list->lock);
    expire_ns = heap->size ? heap->timers[0]->expire_ns : -1;
    pthread_mutex_unlock(&list->lock);
    return expire_ns;
}

int64_t timer_list_timeout_ns(TimerList *list)
{
    int64_t timeout_ns = -1;

    for (int type = 0; type < QEMU_CLOCK_MAX; type++) {
        int64_t expire_ns = first_expire_ns(list, type);
        int64_t now_ns, left_ns;

        if (expire_ns < 0 || !clock_fires(type)) {
            continue;
        }
        now_ns = qemu_clock_get_ns(type);
        left_ns = expire_ns > now_ns ? expire_ns - now_ns : 0;
        if (left_ns && !clock_running(type)) {
            continue;
        }
        timeout_ns = timeout_ns < 0 ? left_ns : MIN(timeout_ns, left_ns);
    }
    return timeout_ns;
}

/* Takes timer out of where it is, if it is anywhere. The list is locked. */
static void disarm(TimerList *list, QEMUTimer *timer)
{
    if (timer->index == TIMER_FIRING) {
        TAILQ_REMOVE(&list->firing, timer, link);
        timer->index = TIMER_IDLE;
    } else if (timer->index != TIMER_IDLE) {
        heap_remove(&list->heaps[timer->type], timer);
    }
}

/* Moves what is due on one clock to list->firing. */
static void collect_due(TimerList *list, QEMUClockType type)
{
    TimerHeap *heap = &list->heaps[type];
    int64_t now_ns;

    if (first_expire_ns(list, type) < 0) {
        return;
    }
    now_ns = qemu_clock_get_ns(type);
    pthread_mutex_lock(&list->lock);
    while (heap->size && heap->timers[0]->expire_ns <= now_ns) {
        QEMUTimer *timer = heap->timers[0];

        heap_remove(heap, timer);
        timer->index = TIMER_FIRING;
        TAILQ_INSERT_TAIL(&list->firing, timer, link);
    }
    pthread_mutex_unlock(&list->lock);
}

/* The clock stopped after the timer was collected: it fires when the clock goes on. Locked. */
static void put_back(TimerList *list, QEMUTimer *timer)
{
    disarm(list, timer);
    heap_insert(&list->heaps[timer->type], timer);
}

/*
 * Calls the first callback of list->firing; false when there is none. `stepped`: a test moves the
 * virtual clock, whose timers fire in any state of the guest.
 */
static bool fire_one(TimerList *list, bool stepped)
{
    bool virtual_too = stepped || clock_fires(QEMU_CLOCK_VIRTUAL);
    QEMUTimerCB *cb;
    QEMUTimer *timer;
    void *opaque;

    pthread_mutex_lock(&list->lock);
    while ((timer = TAILQ_FIRST(&list->firing)) && timer->type == QEMU_CLOCK_VIRTUAL &&
           !virtual_too) {
        put_back(list, timer);
    }
    if (!timer) {
        pthread_mutex_unlock(&list->lock);
        return false;
    }
    disarm(list, timer);
    cb = timer->cb;
    opaque = timer->opaque;
    pthread_mutex_unlock(&list->lock);
    cb(opaque); /* which may free the timer */
    return true;
}

static bool fire(TimerList *list, bool stepped)
{
    bool progress = false;

    while (fire_one(list, stepped)) {
        progress = true;
    }
    return progress;
}

bool timer_list_run(TimerList *list)
{
    for (int type = 0; type < QEMU_CLOCK_MAX; type++) {
        if (clock_fires(type)) {
            collect_due(list, type);
        }
    }
    return fire(list, false);
}

int64_t aio_timer_deadline_ns(AioContext *ctx, QEMUClockType type)
{
    return first_expire_ns(&ctx->timers, type);
}

bool aio_timer_run(AioContext *ctx, QEMUClockType type)
{
    collect_due(&ctx->timers, type);
    return fire(&ctx->timers, true);
}

static void timer_init(QEMUTimer *timer, AioContext *ctx, QEMUClockType type, QEMUTimerCB *cb,
                       void *opaque)
{
    *timer = (QEMUTimer){
        .ctx = ctx,
        .type = type,
        .cb = cb,
        .opaque = opaque,
        .index = TIMER_IDLE,
    };
}

QEMUTimer *aio_timer_new(AioContext *ctx, QEMUClockType type, QEMUTimerCB *cb, void *opaque)
{
    QEMUTimer *timer = g_new(QEMUTimer, 1);

    timer_init(timer, ctx, type, cb, opaque);
    return timer;
}

void timer_free(QEMUTimer *timer)
{
    if (timer) {
        timer_del(timer);
        g_free(timer);
    }
}

void timer_mod_ns(QEMUTimer *timer, int64_t expire_ns)
{
    AioContext *ctx = timer->ctx;
    TimerList *list = &ctx->timers;
    bool notify;

    pthread_mutex_lock(&list->lock);
    disarm(list, timer);
    timer->expire_ns = MAX(expire_ns, 0);
    timer->sequence = list->next_sequence++;
    heap_insert(&list->heaps[timer->type], timer);
    /* A loop that waits for a later time, or for ever, has to look again. */
    notify = timer->index == 0 && !aio_context_in_own_thread(ctx);
    if (notify) {
        /* Once unlocked, the timer may fire and drop what protected ctx from being freed. */
        aio_context_ref(ctx);
    }
    pthread_mutex_unlock(&list->lock);
    if (notify) {
        aio_notify(ctx);
        aio_context_unref(ctx);
    }
}

void timer_del(QEMUTimer *timer)
{
    TimerList *list = &timer->ctx->timers;

    pthread_mutex_lock(&list->lock);
    disarm(list, timer);
    pthread_mutex_unlock(&list->lock);
}

bool timer_pending(const QEMUTimer *timer)
{
    return timer_expire_ns(timer) >= 0;
}

int64_t timer_expire_ns(const QEMUTimer *timer)
{
    TimerList *list = &timer->ctx->timers;
    int64_t expire_ns;

    pthread_mutex_lock(&list->lock);
    expire_ns = timer->index == TIMER_IDLE ? -1 : timer->expire_ns;
    pthread_mutex_unlock(&list->lock);
    return expire_ns;
}

static void co_sleep_expired(void *opaque)
{
    qemu_co_sleep_wake(opaque);
}

void coroutine_fn qemu_co_sleep_ns_wakeable(QemuCoSleep *w, QEMUClockType type, int64_t ns)
{
    int64_t expire_ns;
    QEMUTimer timer;

    g_assert(!w->to_wake);
    if (__builtin_add_overflow(qemu_clock_get_ns(type), ns, &expire_ns)) {
        expire_ns = ns > 0 ? INT64_MAX : 0;
    }
    timer_init(&timer, qemu_get_current_aio_context(), type, co_sleep_expired, w);
    timer_mod_ns(&timer, expire_ns);
    w->to_wake = qemu_coroutine_self();
    qemu_coroutine_yield();
    g_assert(!w->to_wake);
    timer_del(&timer);
}

void coroutine_fn qemu_co_sleep_ns(QEMUClockType type, int64_t ns)
{
    QemuCoSleep w = {0};

    qemu_co_sleep_ns_wakeable(&w, type, ns);
}

void qemu_co_sleep_wake(QemuCoSleep *w)
{
    Coroutine *co = w->to_wake;

    if (co) {
        w->to_wake = NULL;
        aio_co_wake(co);
    }
}

void coroutine_fn qemu_co_sleepers_wait(QemuCoSleepers *all, QEMUClockType type, int64_t ns)
{
    QemuCoSleep sleep = {0};

    if (!all->sleeps) {
        all->sleeps = g_ptr_array_new();
    }
    g_ptr_array_add(all->sleeps, &sleep);
    qemu_co_sleep_ns_wakeable(&sleep, type, ns);
    g_ptr_array_remove(all->sleeps, &sleep);
}

void qemu_co_sleepers_wake(QemuCoSleepers *all)
{
    for (guint i = 0; all->sleeps && i < all->sleeps->len; i++) {
        qemu_co_sleep_wake(g_ptr_array_index(all->sleeps, i));
    }
}
