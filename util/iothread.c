/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IOThread: a named thread that runs an AioContext. */
#include "util/iothread.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include "util/error.h"
#include "util/queue.h"

struct IOThread {
    LIST_ENTRY(IOThread) next; /* main thread */
    char *id;
    AioContext *ctx;
    GPtrArray *users;   /* main thread: char *, in the order in which they came */
    AioPollParams poll; /* main thread */
    pthread_t thread;
    bool stopping; /* atomic: set by the main thread, read by the iothread */

    /* Filled by the iothread before iothread_new() returns. */
    pthread_mutex_t lock;
    pthread_cond_t started;
    int thread_id; /* protected by lock until started */
};

/* Main thread: all that run. */
static LIST_HEAD(, IOThread) iothreads = LIST_HEAD_INITIALIZER(iothreads);

static void *iothread_main(void *opaque)
{
    IOThread *iothread = opaque;
    g_autofree char *name = g_strdup_printf("IO %.12s", iothread->id);

    pthread_setname_np(pthread_self(), name);
    aio_context_attach_thread(iothread->ctx);
    pthread_mutex_lock(&iothread->lock);
    iothread->thread_id = gettid();
    pthread_cond_signal(&iothread->started);
    pthread_mutex_unlock(&iothread->lock);

    while (!__atomic_load_n(&iothread->stopping, __ATOMIC_ACQUIRE)) {
        aio_poll(iothread->ctx, true);
    }
    aio_poll(iothread->ctx, false); /* what was deleted or cancelled last is freed */
    return NULL;
}

static void iothread_destroy(IOThread *iothread)
{
    pthread_cond_destroy(&iothread->started);
    pthread_mutex_destroy(&iothread->lock);
    if (iothread->ctx) {
        aio_context_unref(iothread->ctx);
    }
    g_ptr_array_free(iothread->users, true);
    g_free(iothread->id);
    g_free(iothread);
}

/* Signals are the main thread's business. */
static int thread_create_without_signals(pthread_t *thread, void *(*run)(void *), void *opaque)
{
    sigset_t all, old;
    int ret;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    ret = pthread_create(thread, NULL, run, opaque);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return ret;
}

IOThread *iothread_new(const char *id, GError **errp)
{
    IOThread *iothread = g_new0(IOThread, 1);
    int ret;

    iothread->id = g_strdup(id);
    iothread->users = g_ptr_array_new_with_free_func(g_free);
    pthread_mutex_init(&iothread->lock, NULL);
    pthread_cond_init(&iothread->started, NULL);
    iothread->ctx = aio_context_new(AIO_BACKEND_AUTO, errp);
    if (!iothread->ctx) {
        iothread_destroy(iothread);
        return NULL;
    }
    iothread_set_poll_params(iothread, &(AioPollParams){.max_ns = AIO_POLL_DEFAULT_MAX_NS});
    ret = thread_create_without_signals(&iothread->thread, iothread_main, iothread);
    if (ret) {
        error_setg_errno(errp, ret, "Could not start the thread of iothread '%s'", id);
        iothread_destroy(iothread);
        return NULL;
    }
    pthread_mutex_lock(&iothread->lock);
    while (!iothread->thread_id) {
        pthread_cond_wait(&iothread->started, &iothread->lock);
    }
    pthread_mutex_unlock(&iothread->lock);
    LIST_INSERT_HEAD(&iothreads, iothread, next);
    return iothread;
}

IOThread *iothread_by_id(const char *id)
{
    IOThread *iothread;

    LIST_FOREACH(iothread, &iothreads, next) {
        if (!strcmp(iothread->id, id)) {
            return iothread;
        }
    }
    return NULL;
}

void iothread_free(IOThread *iothread)
{
    LIST_REMOVE(iothread, next);
    __atomic_store_n(&iothread->stopping, true, __ATOMIC_RELEASE);
    aio_notify(iothread->ctx);
    pthread_join(iothread->thread, NULL);
    iothread_destroy(iothread);
}

const char *iothread_get_id(const IOThread *iothread)
{
    return iothread->id;
}

AioContext *iothread_get_aio_context(IOThread *iothread)
{
    return iothread->ctx;
}

static IOThread *iothread_of_context(AioContext *ctx)
{
    IOThread *iothread;

    LIST_FOREACH(iothread, &iothreads, next) {
        if (iothread->ctx == ctx) {
            return iothread;
        }
    }
    return NULL;
}

void iothread_hold(AioContext *ctx, const char *user)
{
    IOThread *iothread = iothread_of_context(ctx);

    if (iothread) {
        g_ptr_array_add(iothread->users, g_strdup(user));
    }
}

void iothread_release(AioContext *ctx, const char *user)
{
    IOThread *iothread = iothread_of_context(ctx);
    guint index;

    if (iothread) {
        bool held = g_ptr_array_find_with_equal_func(iothread->users, user, g_str_equal, &index);

        g_assert(held);
        g_ptr_array_remove_index(iothread->users, index);
    }
}

char *iothread_users(const IOThread *iothread)
{
    GString *names = g_string_new(NULL);

    for (guint i = 0; i < iothread->users->len; i++) {
        g_string_append_printf(names, "%s%s", i ? ", " : "",
                               (char *)g_ptr_array_index(iothread->users, i));
    }
    return g_string_free(names, iothread->users->len == 0);
}

char *iothread_describe_context(AioContext *ctx)
{
    const IOThread *iothread = iothread_of_context(ctx);

    return iothread ? g_strdup_printf("iothread '%s'", iothread->id) : g_strdup("the main loop");
}

int iothread_get_thread_id(const IOThread *iothread)
{
    return iothread->thread_id;
}

void iothread_set_poll_params(IOThread *iothread, const AioPollParams *params)
{
    iothread->poll = *params;
    aio_context_set_poll_params(iothread->ctx, params);
}

const AioPollParams *iothread_get_poll_params(const IOThread *iothread)
{
    return &iothread->poll;
}
