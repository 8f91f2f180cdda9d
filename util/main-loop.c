/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The main thread's event loop, and coroutines run to their end before that loop starts. */
#include "util/aio-int.h"
#include "util/bql.h"
#include "util/coroutine-int.h"

static AioContext *main_context;

/*
 * The main thread has the big lock whenever it does not wait. A turn that does not wait keeps it,
 * unless a thread sleeps for it.
 */
static const AioWaitHooks big_lock_hooks = {
    .needed = bql_wanted,
    .before = bql_main_unlock,
    .after = bql_main_lock,
};

bool qemu_init_main_loop(GError **errp)
{
    g_assert(!main_context);
    main_context = aio_context_new(AIO_BACKEND_AUTO, errp);
    if (!main_context) {
        return false;
    }
    aio_context_attach_thread(main_context);
    main_context->wait_hooks = &big_lock_hooks;
    bql_main_lock();
    return true;
}

AioContext *qemu_get_aio_context(void)
{
    return main_context;
}

AioContext *qemu_get_current_aio_context(void)
{
    return coroutine_get_thread_context();
}

typedef struct RunToEnd {
    CoroutineEntry *entry;
    void *opaque;
    bool done;
} RunToEnd;

static void coroutine_fn run_to_end_co_entry(void *opaque)
{
    RunToEnd *run = opaque;

    run->entry(run->opaque);
    run->done = true;
}

void aio_run_coroutine(CoroutineEntry *entry, void *opaque)
{
    AioContext *ctx = qemu_get_current_aio_context();
    RunToEnd run = {.entry = entry, .opaque = opaque};

    g_assert(!qemu_in_coroutine());
    qemu_coroutine_enter(qemu_coroutine_create(run_to_end_co_entry, &run));
    while (!run.done) {
        aio_poll(ctx, true);
    }
}
