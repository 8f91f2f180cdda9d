/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AioContext: the event loop. One thread runs it; it dispatches file descriptors, timers, bottom
 * halves, coroutines, disk I/O and the results of worker threads.
 *
 * Back ends: io_uring (polling and disk I/O through one ring) and epoll with a thread pool, chosen
 * when the context is made. A kernel or a sandbox that refuses io_uring gets epoll without a
 * message.
 *
 * Thread rules: a function below is called in the context's own thread unless it says "any thread".
 *
 * A vCPU that holds the big lock runs no context. It may schedule bottom halves and coroutines
 * ("any thread"), and set handlers of file descriptors. It does no I/O on disks: so every ring is
 * filled and submitted by its own thread, and no request waits until the big lock is dropped.
 */
#ifndef FERRY_UTIL_AIO_H
#define FERRY_UTIL_AIO_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "util/coroutine.h"
#include "util/timer.h"

typedef enum AioBackend {
    AIO_BACKEND_AUTO, /* io_uring where it works, else epoll; FERRY_AIO=epoll|io_uring overrides */
    AIO_BACKEND_IO_URING,
    AIO_BACKEND_EPOLL,
} AioBackend;

/*
 * Makes a context that no thread runs yet; the caller owns one reference. NULL and errp when it
 * cannot be had.
 */
AioContext *aio_context_new(AioBackend backend, GError **errp);
AioContext *aio_context_ref(AioContext *ctx); /* any thread */
/* any thread; the last one frees, when nothing is in flight */
void aio_context_unref(AioContext *ctx);
const char *aio_context_backend_name(AioContext *ctx);

/* Makes the main thread's context; called once by main() (and by each unit test). */
bool qemu_init_main_loop(GError **errp);
/* The main thread's context. Any thread. */
AioContext *qemu_get_aio_context(void);
/*
 * The context the calling thread runs; the main context in the main thread; NULL in a thread that
 * runs none.
 */
AioContext *qemu_get_current_aio_context(void);
/* True when the calling thread is the one that runs ctx. Any thread. */
bool aio_context_in_own_thread(AioContext *ctx);
/*
 * Declares the calling thread to be the one that runs ctx (used by iothreads and tests), now and
 * for ever. A ring takes requests of one thread only. A process that forks does so before it makes
 * its first context.
 */
void aio_context_attach_thread(AioContext *ctx);

/*
 * One turn of the loop: waits for something to happen (if blocking), dispatches it. True when
 * anything was dispatched; a blocking turn may also end without that. Only the thread's outermost
 * loop calls this, start-up code and tools apart: never from a callback or a coroutine.
 */
bool aio_poll(AioContext *ctx, bool blocking);

/*
 * Start-up and tools only: runs entry(opaque) as a coroutine in the calling thread's context to its
 * end.
 */
void aio_run_coroutine(CoroutineEntry *entry, void *opaque);

/* Makes a blocked aio_poll() return. Any thread. */
void aio_notify(AioContext *ctx);

/* --- bottom halves: callbacks deferred to the next turn of the loop --- */

typedef struct QEMUBH QEMUBH;
typedef void QEMUBHFunc(void *opaque);

QEMUBH *aio_bh_new(AioContext *ctx, QEMUBHFunc *cb, void *opaque); /* any thread */
/*
 * Runs the callback once at the next turn, however often it was scheduled before that. Any thread.
 */
void qemu_bh_schedule(QEMUBH *bh);
/*
 * Takes back a schedule that has not run. Any thread; one other than ctx's may find that the call has
 * begun already.
 */
void qemu_bh_cancel(QEMUBH *bh);
/*
 * Never runs again; freed by the loop. Any thread; one other than ctx's may find that a last call has
 * begun already.
 */
void qemu_bh_delete(QEMUBH *bh);
/* Runs cb(opaque) once in ctx's thread. Any thread. */
void aio_bh_schedule_oneshot(AioContext *ctx, QEMUBHFunc *cb, void *opaque);

/* --- file descriptors --- */

typedef void IOHandler(void *opaque);

/*
 * Calls io_read(opaque) when fd is readable (or at end of file, or in error), io_write(opaque) when
 * it is writable (or in error); level triggered. NULL drops that side; both NULL forgets fd, which
 * must be done before it is closed. After this returns the old handlers are not called again. A
 * handler may find that another reader has taken what was ready, so fd should not block.
 *
 * Another thread may call it, a vCPU that sets an ioeventfd for example. The call takes effect at
 * ctx's next turn, in the order of the calls and of other work posted to ctx. The caller keeps fd
 * open and opaque valid until a bottom half that it schedules afterwards has run.
 */
void aio_set_fd_handler(AioContext *ctx, int fd, IOHandler *io_read, IOHandler *io_write,
                        void *opaque);

/* --- coroutines --- */

/* Enters co in ctx's thread at its next turn. Any thread; co must have yielded, or be about to. */
void aio_co_schedule(AioContext *ctx, Coroutine *co);
/*
 * Resumes a coroutine that yielded in wait for this call, in the context where it yielded: from the
 * loop, never inside this call. Any thread.
 */
void aio_co_wake(Coroutine *co);
/* Moves the running coroutine to ctx: returns in ctx's thread. */
void coroutine_fn aio_co_reschedule_self(AioContext *ctx);
/* The context that co last ran in. */
AioContext *qemu_coroutine_get_aio_context(Coroutine *co);
/* Lets everything else that is ready run first. */
void coroutine_fn qemu_co_yield_to_loop(void);

/* --- disk I/O: -errno or the bytes moved, which may be fewer than asked --- */

typedef enum AioDiskEngine {
    AIO_DISK_IO_URING, /* ring of the running context; falls back to THREADS when it has none */
    AIO_DISK_THREADS,
} AioDiskEngine;

/*
 * Read or write at offset (bytes), in the running coroutine's context. fd stays open until they
 * return.
 */
ssize_t coroutine_fn aio_co_preadv(AioDiskEngine engine, int fd, const struct iovec *iov, int niov,
                                   int64_t offset);
/* fua: the data is durable when this returns (RWF_DSYNC). */
ssize_t coroutine_fn aio_co_pwritev(AioDiskEngine engine, int fd, const struct iovec *iov, int niov,
                                    int64_t offset, bool fua);
/* fdatasync(). */
int coroutine_fn aio_co_fdatasync(AioDiskEngine engine, int fd);

/* --- worker threads --- */

typedef int ThreadPoolFunc(void *arg);

/*
 * Runs func(arg) in a worker thread while the running coroutine waits; returns what func returned.
 * Up to AIO_THREAD_POOL_MAX calls run at once in the process, the others wait their turn in order.
 */
int coroutine_fn thread_pool_submit_co(ThreadPoolFunc *func, void *arg);
/*
 * The same for a call that may wait for the file fd, which stays open until it returns. Up to
 * AIO_THREAD_POOL_FILE_MAX of these run at once for each descriptor, so that a file that hangs
 * leaves workers for the others.
 */
int coroutine_fn thread_pool_submit_file_co(int fd, ThreadPoolFunc *func, void *arg);
#define AIO_THREAD_POOL_MAX      256
#define AIO_THREAD_POOL_FILE_MAX 64

#endif
