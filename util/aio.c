/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AioContext: life cycle, the turn of the loop, wake-ups from other threads, and watches of file
 * descriptors.
 *
 * Sleep and wake. Before it waits, the loop sets `sleeping` and then looks for posts; a poster
 * pushes first and then clears `sleeping`. Both are sequentially consistent, so either the loop
 * sees the post or the poster sees it asleep; only the one that clears the flag writes to wake_fd.
 * A busy loop costs no system call.
 */
#include "util/aio.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "util/aio-int.h"
#include "util/coroutine-int.h"
#include "util/error.h"

/*
 * Waiters of a lock wake each other in turn. So many of these rounds belong to one turn of the
 * loop, and the requests that they make reach the kernel together. The bound lets descriptors and
 * timers have their turn beside coroutines that wake each other for ever.
 */
#define HAND_OVER_ROUNDS 64

static bool backend_from_environment(AioBackend *backend, GError **errp)
{
    const char *name = g_getenv("FERRY_AIO");

    if (!name || !strcmp(name, "") || !strcmp(name, "auto")) {
        return true;
    }
    if (!strcmp(name, "epoll")) {
        *backend = AIO_BACKEND_EPOLL;
    } else if (!strcmp(name, "io_uring")) {
        *backend = AIO_BACKEND_IO_URING;
    } else {
        error_setg(errp, "FERRY_AIO is '%s', expected 'epoll', 'io_uring' or 'auto'", name);
        return false;
    }
    return true;
}

static bool backend_init(AioContext *ctx, AioBackend backend, GError **errp)
{
    if (backend != AIO_BACKEND_EPOLL) {
#ifdef CONFIG_LINUX_IO_URING
        ctx->ops = &aio_uring_ops;
        if (ctx->ops->init(ctx, backend == AIO_BACKEND_AUTO ? NULL : errp)) {
            return true;
        }
#else
        if (backend == AIO_BACKEND_IO_URING) {
            error_setg(errp, "This build has no io_uring");
        }
#endif
        if (backend == AIO_BACKEND_IO_URING) {
            return false;
        }
    }
    ctx->ops = &aio_epoll_ops;
    return ctx->ops->init(ctx, errp);
}

AioContext *aio_context_new(AioBackend backend, GError **errp)
{
    AioContext *ctx;

    if (backend == AIO_BACKEND_AUTO && !backend_from_environment(&backend, errp)) {
        return NULL;
    }
    ctx = g_new0(AioContext, 1);
    ctx->refs = 1;
    TAILQ_INIT(&ctx->ready_watches);
    ctx->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (ctx->wake_fd < 0) {
        error_setg_errno(errp, errno, "Could not create the event descriptor of an event loop");
        g_free(ctx);
        return NULL;
    }
    if (!backend_init(ctx, backend, errp)) {
        close(ctx->wake_fd);
        g_free(ctx);
        return NULL;
    }
    timer_list_init(&ctx->timers);
    return ctx;
}

AioContext *aio_context_ref(AioContext *ctx)
{
    __atomic_fetch_add(&ctx->refs, 1, __ATOMIC_RELAXED);
    return ctx;
}

void aio_context_unref(AioContext *ctx)
{
    if (__atomic_sub_fetch(&ctx->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    /* What is left are bottom halves that were deleted, or whose time never came. */
    aio_bh_discard(&ctx->posts);
    for (unsigned fd = 0; fd < ctx->n_watches; fd++) {
        g_assert(!ctx->watches[fd]);
    }
    ctx->ops->cleanup(ctx);
    timer_list_destroy(&ctx->timers);
    if (coroutine_get_thread_context() == ctx) {
        coroutine_set_thread_context(NULL);
    }
    close(ctx->wake_fd);
    g_free(ctx->watches);
    g_free(ctx);
}

const char *aio_context_backend_name(AioContext *ctx)
{
    return ctx->ops->name;
}

void aio_context_attach_thread(AioContext *ctx)
{
    coroutine_set_thread_context(ctx);
    ctx->ops->attach(ctx);
}

bool aio_context_in_own_thread(AioContext *ctx)
{
    return coroutine_get_thread_context() == ctx;
}

/* After something was made visible that the loop should look at. */
static void aio_wake(AioContext *ctx)
{
    static const uint64_t one = 1;

    if (__atomic_load_n(&ctx->sleeping, __ATOMIC_SEQ_CST) &&
        __atomic_exchange_n(&ctx->sleeping, false, __ATOMIC_SEQ_CST)) {
        while (write(ctx->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
        }
    }
}

void aio_notify(AioContext *ctx)
{
    __atomic_store_n(&ctx->notified, true, __ATOMIC_SEQ_CST);
    aio_wake(ctx);
}

void aio_context_post(AioContext *ctx, AioPost *post)
{
    if (aio_context_in_own_thread(ctx)) {
        aio_post_push(&ctx->posts, post);
        return;
    }
    /*
     * Once pushed, the post may run and drop the last reference that protected ctx from being
     * freed.
     */
    aio_context_ref(ctx);
    aio_post_push(&ctx->posts, post);
    aio_wake(ctx);
    aio_context_unref(ctx);
}

static bool run_posts(AioContext *ctx)
{
    bool progress = false;

    for (unsigned round = 0; round < HAND_OVER_ROUNDS; round++) {
        AioPost *post = aio_post_take(&ctx->posts);

        ctx->handed_over = false;
        progress |= post != NULL;
        while (post) {
            AioPost *next = post->next;

            post->run(post);
            post = next;
        }
        if (!ctx->handed_over) {
            break;
        }
    }
    return progress;
}

/* Waits if blocking is true, no longer than limit_ns unless that is negative. */
static void aio_wait(AioContext *ctx, bool blocking, int64_t limit_ns)
{
    int64_t timeout_ns = 0;
    AioPollWait wait;

    if (blocking) {
        timeout_ns = timer_list_timeout_ns(&ctx->timers);
        if (limit_ns >= 0 && (timeout_ns < 0 || timeout_ns > limit_ns)) {
            timeout_ns = limit_ns;
        }
    }
    if (timeout_ns != 0 && aio_poll_stage(ctx, &wait, timeout_ns)) {
        timeout_ns = 0;
    }
    if (timeout_ns != 0) {
        __atomic_store_n(&ctx->sleeping, true, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&ctx->notified, __ATOMIC_SEQ_CST) || aio_post_pending(&ctx->posts)) {
            timeout_ns = 0;
        }
    }
    if (ctx->wait_hooks && (timeout_ns != 0 || ctx->wait_hooks->needed())) {
        ctx->wait_hooks->before();
        ctx->ops->wait(ctx, timeout_ns);
        ctx->wait_hooks->after();
    } else {
        ctx->ops->wait(ctx, timeout_ns);
    }
    if (timeout_ns != 0) {
        aio_poll_slept(ctx, &wait);
    }
    if (__atomic_load_n(&ctx->sleeping, __ATOMIC_RELAXED)) {
        __atomic_store_n(&ctx->sleeping, false, __ATOMIC_RELAXED);
    }
    /*
     * The exchange reads what was notified about; a notification that comes later ends the next
     * wait.
     */
    if (__atomic_load_n(&ctx->notified, __ATOMIC_RELAXED)) {
        (void)__atomic_exchange_n(&ctx->notified, false, __ATOMIC_ACQ_REL);
    }
}

bool aio_poll(AioContext *ctx, bool blocking)
{
    bool progress;

    g_assert(aio_context_in_own_thread(ctx));
    g_assert(!ctx->polling); /* a nested loop */
    ctx->polling = true;
    aio_wait(ctx, blocking, blocking ? coroutine_thread_trim() : -1);
    progress = ctx->ops->dispatch(ctx);
    progress |= aio_poll_dispatch(ctx);
    progress |= timer_list_run(&ctx->timers);
    progress |= run_posts(ctx);
    ctx->polling = false;
    return progress;
}

/* --- watches --- */

void aio_watch_unref(AioWatch *watch)
{
    if (--watch->refs == 0) {
        g_free(watch->backend);
        g_free(watch);
    }
}

unsigned aio_watch_events(const AioWatch *watch)
{
    return (watch->io_read ? AIO_WATCH_READ : 0) | (watch->io_write ? AIO_WATCH_WRITE : 0);
}

bool aio_watch_dispatch(AioWatch *watch, unsigned ready)
{
    bool progress = false;

    if ((ready & AIO_WATCH_READ) && watch->io_read) {
        uint64_t count;

        /* Fails when the descriptor's count was taken already; there may be work all the same. */
        if (watch->event && !watch->count_taken && read(watch->fd, &count, sizeof(count)) < 0) {
            count = 0;
        }
        watch->count_taken = false;
        watch->has_work = false;
        watch->io_read(watch->opaque);
        progress = true;
    }
    /* The read handler may have changed everything. */
    if ((ready & AIO_WATCH_WRITE) && watch->io_write) {
        watch->io_write(watch->opaque);
        progress = true;
    }
    return progress;
}

static AioWatch *watch_new(AioContext *ctx, int fd)
{
    AioWatch *watch = g_new0(AioWatch, 1);

    if ((unsigned)fd >= ctx->n_watches) {
        unsigned size = MAX(2 * ctx->n_watches, ((unsigned)fd + 64) & ~63u);

        ctx->watches = g_renew(AioWatch *, ctx->watches, size);
        memset(ctx->watches + ctx->n_watches, 0, (size - ctx->n_watches) * sizeof(AioWatch *));
        ctx->n_watches = size;
    }
    watch->fd = fd;
    watch->refs = 1;
    ctx->watches[fd] = watch;
    return watch;
}

static void watch_set_ready(AioContext *ctx, AioWatch *watch, AioReadyFunc *ready)
{
    if (watch->io_ready && !ready) {
        TAILQ_REMOVE(&ctx->ready_watches, watch, ready_link);
    } else if (!watch->io_ready && ready) {
        TAILQ_INSERT_TAIL(&ctx->ready_watches, watch, ready_link);
    }
    watch->io_ready = ready;
    watch->has_work = false;
}

static void set_handler(AioContext *ctx, int fd, IOHandler *io_read, IOHandler *io_write,
                        void *opaque)
{
    AioWatch *watch;

    watch = (unsigned)fd < ctx->n_watches ? ctx->watches[fd] : NULL;
    if (!watch) {
        if (!io_read && !io_write) {
            return;
        }
        watch = watch_new(ctx, fd);
    }
    watch->io_read = io_read;
    watch->io_write = io_write;
    watch->opaque = opaque;
    if (io_read || io_write) {
        ctx->ops->watch_update(ctx, watch, aio_watch_events(watch));
        return;
    }
    watch->deleted = true;
    watch_set_ready(ctx, watch, NULL);
    ctx->watches[fd] = NULL;
    ctx->ops->watch_forget(ctx, watch);
    aio_watch_unref(watch);
}

void aio_set_event_handler(AioContext *ctx, int fd, IOHandler *handler, AioReadyFunc *ready,
                           void *opaque)
{
    AioWatch *watch;

    g_assert(fd >= 0 && aio_context_in_own_thread(ctx));
    if (!handler) {
        set_handler(ctx, fd, NULL, NULL, NULL);
        return;
    }
    watch = (unsigned)fd < ctx->n_watches ? ctx->watches[fd] : NULL;
    g_assert(!watch || watch->event);
    if (!watch) {
        watch = watch_new(ctx, fd);
        watch->event = true;
    }
    watch->io_read = handler;
    watch->opaque = opaque;
    watch_set_ready(ctx, watch, ready);
    ctx->ops->watch_update(ctx, watch, AIO_WATCH_READ);
}

/* What another thread asks for, on its way to the thread of the context. */
typedef struct HandlerChange {
    AioContext *ctx;
    int fd;
    IOHandler *io_read, *io_write;
    void *opaque;
} HandlerChange;

static void change_handler_bh(void *opaque)
{
    HandlerChange *change = opaque;

    set_handler(change->ctx, change->fd, change->io_read, change->io_write, change->opaque);
    g_free(change);
}

void aio_set_fd_handler(AioContext *ctx, int fd, IOHandler *io_read, IOHandler *io_write,
                        void *opaque)
{
    HandlerChange *change;

    g_assert(fd >= 0);
    if (aio_context_in_own_thread(ctx)) {
        set_handler(ctx, fd, io_read, io_write, opaque);
        return;
    }
    change = g_new(HandlerChange, 1);
    *change = (HandlerChange){
        .ctx = ctx,
        .fd = fd,
        .io_read = io_read,
        .io_write = io_write,
        .opaque = opaque,
    };
    aio_bh_schedule_oneshot(ctx, change_handler_bh, change);
}
