/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process's worker threads.
 *
 * Calls stand in one queue. At most one worker at a time is on its way to the queue from sleep or
 * birth. When it arrives and finds more than it takes, it sends for the next one before it starts
 * to work. So few workers, which need no waking, serve a burst of short calls, and all soon serve a
 * burst of long ones. The caller pays for one wake-up at most. The worker that became idle last is
 * woken first: its caches are warm, and the others get to age and exit.
 *
 * A call that is about a file counts for the file. What goes past the file's limit waits in a queue of
 * the file, outside of the pool's queue, and follows when one of the file's calls has ended.
 *
 * Results return as posts to the caller's context: however many of them wait there, the loop is
 * woken once.
 */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
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
    int fd; /* the file it may wait for; -1: none */
    AioContext *ctx;
    Coroutine *co;
    TAILQ_ENTRY(ThreadPoolRequest) link; /* in pool.queue, or below a file */
} ThreadPoolRequest;

/* The calls of one file descriptor. */
typedef struct FileCalls {
    unsigned admitted; /* in pool.queue or in a worker's hands */
    TAILQ_HEAD(, ThreadPoolRequest) waiting;
} FileCalls;

typedef enum WorkerState {
    WORKER_NONE, /* no thread */
    WORKER_BUSY, /* or on its way to the queue */
    WORKER_IDLE, /* in pool.idle */
} WorkerState;

/* A place for a worker. Outlives its thread, so that it may be signalled without the lock. */
typedef struct Worker {
    pthread_cond_t wake;
    bool condition_made;
    WorkerState state;
    LIST_ENTRY(Worker) link; /* idle */
} Worker;

static struct {
    pthread_mutex_t lock; /* protects everything here */
    TAILQ_HEAD(, ThreadPoolRequest) queue;
    LIST_HEAD(, Worker) idle; /* the last to become idle first */
    Worker workers[AIO_THREAD_POOL_MAX];
    unsigned n_threads;
    bool coming;       /* a worker was woken or started and has not seen the queue yet */
    FileCalls **files; /* by descriptor; NULL: it had no call so far */
    int n_files;
} pool = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .queue = TAILQ_HEAD_INITIALIZER(pool.queue),
};

static void *worker_run(void *opaque);

static void request_done(AioPost *post)
{
    qemu_coroutine_enter(((ThreadPoolRequest *)post)->co);
}

/* --- files; with the lock held --- */

static FileCalls *file_calls(int fd)
{
    if (fd >= pool.n_files) {
        int n = MAX(fd + 1, 2 * pool.n_files);

        pool.files = g_renew(FileCalls *, pool.files, n);
        memset(pool.files + pool.n_files, 0, (n - pool.n_files) * sizeof(*pool.files));
        pool.n_files = n;
    }
    if (!pool.files[fd]) {
        pool.files[fd] = g_new0(FileCalls, 1);
        TAILQ_INIT(&pool.files[fd]->waiting);
    }
    return pool.files[fd];
}

/* Puts a request into the pool's queue, or into its file's when the file has its share. */
static void request_admit(ThreadPoolRequest *req)
{
    FileCalls *file = req->fd < 0 ? NULL : file_calls(req->fd);

    if (file && file->admitted == AIO_THREAD_POOL_FILE_MAX) {
        TAILQ_INSERT_TAIL(&file->waiting, req, link);
        return;
    }
    if (file) {
        file->admitted++;
    }
    TAILQ_INSERT_TAIL(&pool.queue, req, link);
}

/* A call of the file has ended: the next one that waits takes its place. */
static void file_call_ended(int fd)
{
    FileCalls *file = file_calls(fd);
    ThreadPoolRequest *next = TAILQ_FIRST(&file->waiting);

    file->admitted--;
    if (next) {
        TAILQ_REMOVE(&file->waiting, next, link);
        request_admit(next);
    }
}

/* --- */

/* Takes the lock at its end, and keeps it. */
static void request_run_and_lock(ThreadPoolRequest *req)
{
    int fd = req->fd;

    req->ret = req->func(req->arg);
    aio_context_post(req->ctx, &req->post); /* req may be gone now */
    pthread_mutex_lock(&pool.lock);
    if (fd >= 0) {
        file_call_ended(fd);
    }
}

/* With the lock held. */
static ThreadPoolRequest *queue_take(void)
{
    ThreadPoolRequest *req = TAILQ_FIRST(&pool.queue);

    if (req) {
        TAILQ_REMOVE(&pool.queue, req, link);
    }
    return req;
}

static void worker_make_condition(Worker *worker)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&worker->wake, &attr);
    pthread_condattr_destroy(&attr);
    worker->condition_made = true;
}

/* With the lock held: a place without a thread. There is one. */
static Worker *worker_place(void)
{
    Worker *worker = pool.workers;

    while (worker->state != WORKER_NONE) {
        worker++;
    }
    if (!worker->condition_made) {
        worker_make_condition(worker);
    }
    return worker;
}

static bool worker_start(Worker *worker)
{
    pthread_attr_t attr;
    sigset_t all, old;
    pthread_t thread;
    int ret;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    ret = pthread_create(&thread, &attr, worker_run, worker);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return ret == 0;
}

/*
 * With the lock held: the worker to signal after it is released, if the queue needs a worker and
 * none is on its way.
 */
static Worker *pool_call_idle(void)
{
    Worker *worker = LIST_FIRST(&pool.idle);

    if (!worker || pool.coming || TAILQ_EMPTY(&pool.queue)) {
        return NULL;
    }
    LIST_REMOVE(worker, link);
    worker->state = WORKER_BUSY;
    pool.coming = true;
    return worker;
}

/*
 * The system refuses threads. The others serve the queue, one of which may have become idle because
 * this one was said to be coming; if there are none, it is served here and now.
 */
static void worker_start_failed(Worker *worker)
{
    ThreadPoolRequest *req;
    Worker *idle;

    pthread_mutex_lock(&pool.lock);
    worker->state = WORKER_NONE;
    pool.coming = false;
    pool.n_threads--;
    while (!pool.n_threads && (req = queue_take())) {
        pthread_mutex_unlock(&pool.lock);
        request_run_and_lock(req);
    }
    idle = pool_call_idle();
    pthread_mutex_unlock(&pool.lock);
    if (idle) {
        pthread_cond_signal(&idle->wake);
    }
}

/* With the lock held, which it releases: sends for a worker, old or new, if the queue needs one. */
static void pool_call_worker_and_unlock(void)
{
    Worker *idle = pool_call_idle();
    Worker *fresh = NULL;

    if (!TAILQ_EMPTY(&pool.queue) && !pool.coming && pool.n_threads < AIO_THREAD_POOL_MAX) {
        fresh = worker_place();
        fresh->state = WORKER_BUSY;
        pool.n_threads++;
        pool.coming = true;
    }
    pthread_mutex_unlock(&pool.lock);
    if (idle) {
        pthread_cond_signal(&idle->wake);
    } else if (fresh && !worker_start(fresh)) {
        worker_start_failed(fresh);
    }
}

/* With the lock held: sleeps until called; false when no call was made for a long time. */
static bool worker_wait(Worker *self)
{
    struct timespec until;
    int ret = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += WORKER_IDLE_SECONDS;
    self->state = WORKER_IDLE;
    LIST_INSERT_HEAD(&pool.idle, self, link);
    while (self->state == WORKER_IDLE && ret != ETIMEDOUT) {
        ret = pthread_cond_timedwait(&self->wake, &pool.lock, &until);
    }
    if (self->state == WORKER_BUSY) {
        return true;
    }
    LIST_REMOVE(self, link);
    return false;
}

static void *worker_run(void *opaque)
{
    Worker *self = opaque;

    pthread_setname_np(pthread_self(), "worker");
    pthread_mutex_lock(&pool.lock);
    do {
        ThreadPoolRequest *req;

        pool.coming = false; /* it was this one */
        while ((req = queue_take())) {
            pool_call_worker_and_unlock();
            request_run_and_lock(req);
        }
    } while (worker_wait(self));
    self->state = WORKER_NONE;
    pool.n_threads--;
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

int coroutine_fn thread_pool_submit_co(ThreadPoolFunc *func, void *arg)
{
    return thread_pool_submit_file_co(-1, func, arg);
}

int coroutine_fn thread_pool_submit_file_co(int fd, ThreadPoolFunc *func, void *arg)
{
    ThreadPoolRequest req = {
        .post = {.run = request_done},
        .func = func,
        .arg = arg,
        .fd = fd,
        .ctx = qemu_get_current_aio_context(),
        .co = qemu_coroutine_self(),
    };

    pthread_mutex_lock(&pool.lock);
    request_admit(&req);
    pool_call_worker_and_unlock();
    req.ctx->awaited++;
    qemu_coroutine_yield();
    req.ctx->awaited--;
    return req.ret;
}
