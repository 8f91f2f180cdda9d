/* SPDX-License-Identifier: GPL-2.0-or-later */
/* AioContext: its representation and its back ends, for the files of the event loop only. */
#ifndef FERRY_UTIL_AIO_INT_H
#define FERRY_UTIL_AIO_INT_H

#include "config-host.h"
#include "util/aio-post.h"
#include "util/aio.h"
#include "util/timer-int.h"

typedef struct AioWatch AioWatch;
typedef struct AioDiskRequest AioDiskRequest;

/* How a context waits. All but init and cleanup are called in the context's own thread. */
typedef struct AioBackendOps {
    const char *name;
    /* Makes ctx->state and arranges for ctx->wake_fd to end a wait. */
    bool (*init)(AioContext *ctx, GError **errp);
    /* Frees ctx->state. Any thread; nothing is in flight. */
    void (*cleanup)(AioContext *ctx);
    /* The calling thread will run ctx. */
    void (*attach)(AioContext *ctx);
    /* watch's handlers changed; it may be new. `events` is what its handlers want, never 0. */
    void (*watch_update)(AioContext *ctx, AioWatch *watch, unsigned events);
    /* fd is about to be closed: the kernel's interest in it ends before this returns. */
    void (*watch_forget)(AioContext *ctx, AioWatch *watch);
    /*
     * Hands queued work to the kernel; waits up to timeout_ns for events (-1: for ever, 0: not at
     * all).
     */
    void (*wait)(AioContext *ctx, int64_t timeout_ns);
    /* Runs the handlers of what wait() found; true when there were any. */
    bool (*dispatch)(AioContext *ctx);
    /*
     * Performs req and yields; returns bytes or -errno. NULL when the back end has no disk I/O of
     * its own.
     */
    ssize_t coroutine_fn (*co_disk)(AioContext *ctx, const AioDiskRequest *req);
} AioBackendOps;

#ifdef CONFIG_LINUX_IO_URING
extern const AioBackendOps aio_uring_ops;
#endif
extern const AioBackendOps aio_epoll_ops;

enum {
    AIO_WATCH_READ = 1,
    AIO_WATCH_WRITE = 2,
};

/*
 * Interest in a file descriptor. Freed with its last reference: a stale kernel event finds it
 * deleted.
 */
struct AioWatch {
    int fd;
    unsigned refs;
    bool deleted;
    IOHandler *io_read;
    IOHandler *io_write;
    void *opaque;
    void *backend; /* the back end's part, g_malloc()ed by it, freed with the watch */
};

static inline AioWatch *aio_watch_ref(AioWatch *watch)
{
    watch->refs++;
    return watch;
}

void aio_watch_unref(AioWatch *watch);
/* AIO_WATCH_* bits that the handlers want. */
unsigned aio_watch_events(const AioWatch *watch);
/*
 * Calls the handlers that are still there for `ready` (AIO_WATCH_* bits). The caller holds a
 * reference.
 */
bool aio_watch_dispatch(AioWatch *watch, unsigned ready);

typedef enum AioDiskOp {
    AIO_DISK_READ,
    AIO_DISK_WRITE,
    AIO_DISK_FDATASYNC,
} AioDiskOp;

struct AioDiskRequest {
    AioDiskOp op;
    int fd;
    const struct iovec *iov;
    int niov;
    int64_t offset;
    bool fua;
};

/* Called around the waits of the context that has them. */
typedef struct AioWaitHooks {
    bool (*needed)(void); /* whether a turn that does not wait calls the others as well */
    void (*before)(void);
    void (*after)(void);
} AioWaitHooks;

struct AioContext {
    /* Any thread, atomically. */
    int refs;
    bool sleeping; /* the loop waits, or is about to; a thread that clears it writes to wake_fd */
    bool notified; /* the next wait returns at once */
    AioPostList posts;
    int wake_fd; /* constant */

    /* The thread that runs the context. */
    const AioBackendOps *ops;
    void *state; /* the back end's */
    AioWatch **watches;
    unsigned n_watches; /* size of watches[], indexed by fd */
    TimerList timers;
    bool polling;
    bool handed_over;               /* a coroutine of this context was woken in its own thread */
    const AioWaitHooks *wait_hooks; /* NULL: none */
};

/* Runs `post` in ctx's thread at its next turn. Any thread. */
void aio_context_post(AioContext *ctx, AioPost *post);

/* Frees the bottom halves in a list that will not run. */
void aio_bh_discard(AioPostList *list);

/* Performs req in a worker thread. */
ssize_t coroutine_fn aio_disk_co_thread(const AioDiskRequest *req);

#endif
