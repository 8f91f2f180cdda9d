/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The poll stage of the event loop, and how long it takes.
 *
 * A loop polls while it awaits what shows in memory: requests of its ring, calls of worker threads,
 * queues with a `ready` function. One that waits for sockets alone sleeps: it fetches their events by a
 * system call either way, and those that come during the sleep share that call.
 *
 * The time follows the waits: it grows when an event came soon after the loop had fallen asleep, and
 * shrinks when none came within the longest time allowed. A stage that found nothing, or during
 * which the thread lost its processor, also suspends polling for a number of waits that doubles each
 * time. So a machine with more runnable threads than processors gets its processor back.
 */
#include "util/aio-event.h"

#include <glib.h>
#include <unistd.h>
#include "util/aio-int.h"

/* The first time after nothing. */
#define POLL_START_NS 4000
#define POLL_GROW     2
/* Two looks that lie so far apart had another thread between them. */
#define POLL_LOST_PROCESSOR_NS (200 * SCALE_US)
#define POLL_SUSPENDED_MAX     1024
#define POLL_SUSPENDED_LOST    64
/* Looks between two looks at the clock. */
#define LOOKS_PER_CLOCK 16

static int64_t now_ns(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

/* --- how long --- */

void poll_tuner_found(PollTuner *t)
{
    t->penalty /= 2;
}

static void poll_tuner_suspend(PollTuner *t, unsigned least)
{
    t->penalty = CLAMP(2 * t->penalty, least, POLL_SUSPENDED_MAX);
    t->suspended = t->penalty;
}

void poll_tuner_lost_processor(PollTuner *t)
{
    t->ns = 0;
    poll_tuner_suspend(t, POLL_SUSPENDED_LOST);
}

void poll_tuner_slept(PollTuner *t, const AioPollParams *params, bool polled, int64_t waited_ns)
{
    if (waited_ns > params->max_ns) {
        t->ns = params->shrink ? t->ns / params->shrink : 0;
        if (polled) {
            poll_tuner_suspend(t, 1);
        }
    } else if (t->suspended) {
        t->suspended--;
    } else if (waited_ns > t->ns) {
        int64_t grow = params->grow ? params->grow : POLL_GROW;

        t->ns = !t->ns                          ? POLL_START_NS
                : t->ns > params->max_ns / grow ? params->max_ns
                                                : t->ns * grow;
    }
    t->ns = MIN(t->ns, params->max_ns);
}

static AioPollParams poll_params(AioContext *ctx)
{
    return (AioPollParams){
        .max_ns = __atomic_load_n(&ctx->poll_params.max_ns, __ATOMIC_RELAXED),
        .grow = __atomic_load_n(&ctx->poll_params.grow, __ATOMIC_RELAXED),
        .shrink = __atomic_load_n(&ctx->poll_params.shrink, __ATOMIC_RELAXED),
    };
}

void aio_context_set_poll_params(AioContext *ctx, const AioPollParams *params)
{
    g_assert(params->max_ns >= 0 && params->grow >= 0 && params->shrink >= 0);
    __atomic_store_n(&ctx->poll_params.max_ns, params->max_ns, __ATOMIC_RELAXED);
    __atomic_store_n(&ctx->poll_params.grow, params->grow, __ATOMIC_RELAXED);
    __atomic_store_n(&ctx->poll_params.shrink, params->shrink, __ATOMIC_RELAXED);
}

uint64_t aio_context_sleeps(AioContext *ctx)
{
    return __atomic_load_n(&ctx->sleeps, __ATOMIC_RELAXED);
}

/* --- the stage --- */

static bool look(AioContext *ctx)
{
    bool found = __atomic_load_n(&ctx->notified, __ATOMIC_RELAXED) ||
                 aio_post_pending(&ctx->posts) || ctx->ops->pending(ctx);
    AioWatch *watch;

    TAILQ_FOREACH(watch, &ctx->ready_watches, ready_link) {
        if (watch->io_ready(watch->opaque)) {
            watch->has_work = true;
            found = true;
        }
    }
    return found;
}

static bool poll_for(AioContext *ctx, int64_t start_ns, int64_t ns)
{
    int64_t last_ns = start_ns;

    ctx->ops->submit(ctx);
    for (;;) {
        int64_t clock_ns;

        for (unsigned i = 0; i < LOOKS_PER_CLOCK; i++) {
            if (look(ctx)) {
                poll_tuner_found(&ctx->poll_tuner);
                return true;
            }
            __builtin_ia32_pause();
        }
        clock_ns = now_ns();
        if (clock_ns - last_ns > POLL_LOST_PROCESSOR_NS) {
            poll_tuner_lost_processor(&ctx->poll_tuner);
            return false;
        }
        if (clock_ns - start_ns >= ns) {
            return false;
        }
        last_ns = clock_ns;
    }
}

bool aio_poll_stage(AioContext *ctx, AioPollWait *wait, int64_t timeout_ns)
{
    PollTuner *t = &ctx->poll_tuner;

    bool expects = ctx->awaited || !TAILQ_EMPTY(&ctx->ready_watches);

    *wait = (AioPollWait){.params = poll_params(ctx)};
    if (!expects || !wait->params.max_ns || !ctx->ops->pending) {
        return false;
    }
    wait->start_ns = now_ns();
    t->ns = MIN(t->ns, wait->params.max_ns);
    if (!t->ns || t->suspended) {
        return false;
    }
    wait->polled = true;
    return poll_for(ctx, wait->start_ns, timeout_ns < 0 ? t->ns : MIN(t->ns, timeout_ns));
}

void aio_poll_slept(AioContext *ctx, const AioPollWait *wait)
{
    __atomic_store_n(&ctx->sleeps, ctx->sleeps + 1, __ATOMIC_RELAXED);
    if (wait->start_ns) {
        poll_tuner_slept(&ctx->poll_tuner, &wait->params, wait->polled, now_ns() - wait->start_ns);
    }
}

bool aio_poll_dispatch(AioContext *ctx)
{
    bool progress = false;
    AioWatch *watch;

    do {
        TAILQ_FOREACH(watch, &ctx->ready_watches, ready_link) {
            if (watch->has_work) {
                break;
            }
        }
        if (watch) {
            watch->has_work = false;
            watch->io_read(watch->opaque); /* may forget any watch */
            progress = true;
        }
    } while (watch);
    return progress;
}
