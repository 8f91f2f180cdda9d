/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process's worker threads.
 *
 * A call goes to the worker that became idle last (its caches are warm, and the others get to age and exit),
 * else to a new thread, else, when AIO_THREAD_POOL_MAX run, to the end of a queue that workers serve before
 * they become idle. Results return as posts to the caller's context: however many of them wait there, the
 * loop is woken once.
 */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include "util/aio-int.h"
#include "util/queue.h"

#define WORKER_IDLE_SECONDS 10

/* On the stack of the waiting coroutine. */
typedef struct ThreadPoolRequest {
    AioPost post;
    ThreadPoolFunc *func;
    void *arg;
    int ret;
    AioContext *ctx;
    Coroutine *co;
    TAILQ_ENTRY(ThreadPoolRequest) link;
} ThreadPoolRequest;

/* On the worker's stack. */
typedef struct Worker {
    pthread_cond_t wake;
    ThreadPoolRequest *req; /* handed over by who took it off `idle` */
    LIST_ENTRY(Worker) link;
} Worker;

static struct {
    pthread_mutex_t lock; /* protects everything here and Worker.req */
    LIST_HEAD(, Worker) idle;
    TAILQ_HEAD(, ThreadPoolRequest) queue;
    unsigned n_threads;
} pool = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .queue = TAILQ_HEAD_INITIALIZER(pool.queue),
};

static void request_done(AioPost *post)
{
    qemu_coroutine_enter(((ThreadPoolRequest *)post)->co);
}

/* With the lock held: waits for a request; NULL when none came for a long time. */
static ThreadPoolRequest *worker_wait(Worker *self)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += WORKER_IDLE_SECONDS;
    self->req = NULL;
    LIST_INSERT_HEAD(&pool.idle, self, link);
    while (!self->req) {
        if (pthread_cond_timedwait(&self->wake, &pool.lock, &until) == ETIMEDOUT && !self->req) {
            LIST_REMOVE(self, link);
            break;
        }
    }
    return self->req;
}

static void *worker_run(void *opaque)
{
    ThreadPoolRequest *req = opaque;
    pthread_condattr_t attr;
    Worker self;

    pthread_setname_np(pthread_self(), "worker");
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&self.wake, &attr);
    pthread_condattr_destroy(&attr);

    while (req) {
        req->ret = req->func(req->arg);
        aio_context_post(req->ctx, &req->post);

        pthread_mutex_lock(&pool.lock);
        req = TAILQ_FIRST(&pool.queue);
        if (req) {
            TAILQ_REMOVE(&pool.queue, req, link);
        } else {
            req = worker_wait(&self);
        }
        if (!req) {
            pool.n_threads--;
        }
        pthread_mutex_unlock(&pool.lock);
    }
    pthread_cond_destroy(&self.wake);
    return NULL;
}

static bool worker_start(ThreadPoolRequest *req)
{
    pthread_attr_t attr;
    sigset_t all, old;
    pthread_t thread;
    int ret;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    ret = pthread_create(&thread, &attr, worker_run, req);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return ret == 0;
}

/* The system refuses threads. Others may serve the queue; if there are none, req is done here and now. */
static void request_without_new_thread(ThreadPoolRequest *req)
{
    bool others;

    pthread_mutex_lock(&pool.lock);
    pool.n_threads--;
    others = pool.n_threads > 0;
    if (others) {
        TAILQ_INSERT_TAIL(&pool.queue, req, link);
    }
    pthread_mutex_unlock(&pool.lock);
    if (!others) {
        req->ret = req->func(req->arg);
        aio_context_post(req->ctx, &req->post);
    }
}

static void request_submit(ThreadPoolRequest *req)
{
    Worker *worker;
    bool start = false;

    pthread_mutex_lock(&pool.lock);
    worker = LIST_FIRST(&pool.idle);
    if (worker) {
        LIST_REMOVE(worker, link);
        worker->req = req;
        pthread_cond_signal(&worker->wake);
    } else if (pool.n_threads < AIO_THREAD_POOL_MAX) {
        pool.n_threads++;
        start = true;
    } else {
        TAILQ_INSERT_TAIL(&pool.queue, req, link);
    }
    pthread_mutex_unlock(&pool.lock);
    if (start && !worker_start(req)) {
        request_without_new_thread(req);
    }
}

int coroutine_fn thread_pool_submit_co(ThreadPoolFunc *func, void *arg)
{
    ThreadPoolRequest req = {
        .post = {.run = request_done},
        .func = func,
        .arg = arg,
        .ctx = qemu_get_current_aio_context(),
        .co = qemu_coroutine_self(),
    };

    request_submit(&req);
    qemu_coroutine_yield();
    return req.ret;
}
