/* SPDX-License-Identifier: GPL-2.0-or-later */
/* AioContext: its representation and its back ends, for the files of the event loop only. */
#ifndef FERRY_UTIL_AIO_INT_H
#define FERRY_UTIL_AIO_INT_H

#include "config-host.h"
#include "util/aio-event.h"
#include "util/aio-post.h"
#include "util/aio.h"
#include "util/queue.h"
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
     * Optional, together: hands queued work to the kernel; and looks, without a system call, whether
     * wait() would find events.
     */
    void (*submit)(AioContext *ctx);
    bool (*pending)(AioContext *ctx);
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
    bool event;             /* an eventfd whose count is taken before io_read is called */
    bool count_taken;       /* the back end has done so */
    AioReadyFunc *io_ready; /* NULL, or in ready_watches of the context */
    bool has_work;          /* io_ready has said so */
    TAILQ_ENTRY(AioWatch) ready_link;
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

/* How long the poll stage takes, from wait to wait. */
typedef struct PollTuner {
    int64_t ns;         /* 0: not at all */
    unsigned suspended; /* short waits until polling may start again */
    unsigned penalty;   /* what `suspended` was set to last; halved by each event that is found */
} PollTuner;

/* Polling has found an event. */
void poll_tuner_found(PollTuner *t);
/* The thread did not run for a while during the stage. */
void poll_tuner_lost_processor(PollTuner *t);
/* The loop slept; the time includes the poll stage before, if there was one. */
void poll_tuner_slept(PollTuner *t, const AioPollParams *params, bool polled, int64_t waited_ns);

/* From a poll stage to the end of the sleep after it. */
typedef struct AioPollWait {
    AioPollParams params;
    int64_t start_ns;
    bool polled;
} AioPollWait;

/* Before a wait: polls if that is worth it; true when there is work and the loop need not sleep. */
bool aio_poll_stage(AioContext *ctx, AioPollWait *wait, int64_t timeout_ns);
/* After a sleep. */
void aio_poll_slept(AioContext *ctx, const AioPollWait *wait);
/* Runs the handlers of what was found in memory; true when there were any. */
bool aio_poll_dispatch(AioContext *ctx);

struct AioContext {
    /* Any thread, atomically. */
    int refs;
    bool sleeping; /* the loop waits, or is about to; a thread that clears it writes to wake_fd */
    bool notified; /* the next wait returns at once */
    AioPostList posts;
    int wake_fd; /* constant */
    AioPollParams poll_params;
    uint64_t sleeps; /* written by the context's thread */

    /* The thread that runs the context. */
    const AioBackendOps *ops;
    void *state; /* the back end's */
    AioWatch **watches;
    unsigned n_watches;                   /* size of watches[], indexed by fd */
    TAILQ_HEAD(, AioWatch) ready_watches; /* those with io_ready */
    unsigned awaited; /* requests of the ring and calls of workers: their end shows in memory */
    PollTuner poll_tuner;
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
