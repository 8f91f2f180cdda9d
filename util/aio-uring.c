/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AioContext's io_uring back end: polling and disk I/O through one ring.
 *
 * Each side of a watch (read, write) is a poll request of its own, one shot, armed again after its
 * handler has run. The kernel looks at the state of the file when it arms, which makes the handlers
 * level triggered. A side that is dropped stays armed until it fires and is ignored, so that
 * toggling a side costs nothing. Forgetting a watch cancels both, because an armed poll keeps the
 * file open.
 *
 * An event descriptor is read through the ring instead of polled: one request then waits for the event
 * and takes its count.
 *
 * Requests are queued during a turn and handed to the kernel by the system call that waits for the
 * next one. Disk requests live on the stacks of their coroutines, poll requests in their watch,
 * whose reference each armed or queued poll holds.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "util/aio-int.h"
#include "util/error.h"
#include "util/queue.h"

#define URING_SQ_ENTRIES 128
#define URING_CQ_ENTRIES 1024
/* When the kernel has no memory for requests: how long until they are offered again. */
#define URING_RETRY_NS SCALE_MS

/* What user_data points to; 0 is a request whose result is of no interest. */
typedef struct UringOp UringOp;
struct UringOp {
    void (*done)(AioContext *ctx, UringOp *op, int res);
};

typedef struct UringPoll {
    UringOp op;
    AioWatch *watch;
    unsigned side; /* AIO_WATCH_READ or AIO_WATCH_WRITE */
    bool armed;    /* the kernel has it; in UringState.armed */
    bool reads;    /* armed: it is a read of the event descriptor's count, no poll */
    bool no_reads; /* the kernel refuses such a read at once (O_NONBLOCK): poll */
    uint64_t count;
    bool queued; /* in UringState.polls: to be armed, or cancelled if the watch is deleted */
    TAILQ_ENTRY(UringPoll) link;
    TAILQ_ENTRY(UringPoll) armed_link;
} UringPoll;

typedef struct UringWatch {
    UringPoll sides[2];
} UringWatch;

typedef struct UringDisk {
    UringOp op;
    const AioDiskRequest *req;
    Coroutine *co;
    int res;
    TAILQ_ENTRY(UringDisk) link;
} UringDisk;

typedef struct UringState {
    struct io_uring ring;
    pid_t
        /* thread that enabled the ring, which accepts requests of no other; 0: not enabled yet */
        thread_id;
    UringOp wake_op; /* a read of ctx->wake_fd that is always in flight */
    uint64_t wake_value;
    bool wake_armed;
    bool progress; /* a handler or coroutine has run in this dispatch */
    unsigned disk_in_flight;
    TAILQ_HEAD(, UringPoll) polls;
    TAILQ_HEAD(, UringPoll) armed; /* the only reference to those of forgotten watches */
    TAILQ_HEAD(, UringDisk) disks; /* found no room in the submission queue */
} UringState;

/* --- life cycle --- */

static int uring_setup(struct io_uring *ring)
{
    /* Best first; older kernels say EINVAL to flags they do not know. */
    static const unsigned flags[] = {
        IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
            IORING_SETUP_TASKRUN_FLAG,
        IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        0,
    };
    int ret = -EINVAL;

    for (unsigned i = 0; i < G_N_ELEMENTS(flags) && ret == -EINVAL; i++) {
        /* Disabled: the single issuer is the thread that enables it, not the one that makes it. */
        struct io_uring_params params = {
            .flags = flags[i] | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE,
            .cq_entries = URING_CQ_ENTRIES,
        };

        ret = io_uring_queue_init_params(URING_SQ_ENTRIES, ring, &params);
    }
    return ret;
}

static void uring_poll_done(AioContext *ctx, UringOp *op, int res);

static void uring_wake_done(AioContext *ctx, UringOp *op, int res)
{
    UringState *s = ctx->state;

    (void)op;
    (void)res;
    s->wake_armed = false;
}

static bool uring_init(AioContext *ctx, GError **errp)
{
    const unsigned needed = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_SUBMIT_STABLE;
    UringState *s = g_new0(UringState, 1);
    int ret = uring_setup(&s->ring);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not set up io_uring for an event loop");
        g_free(s);
        return false;
    }
    if ((s->ring.features & needed) != needed) {
        error_setg(errp, "Could not set up io_uring for an event loop: the kernel is too old");
        io_uring_queue_exit(&s->ring);
        g_free(s);
        return false;
    }
    s->wake_op.done = uring_wake_done;
    TAILQ_INIT(&s->polls);
    TAILQ_INIT(&s->armed);
    TAILQ_INIT(&s->disks);
    ctx->state = s;
    return true;
}

static void uring_cleanup(AioContext *ctx)
{
    UringState *s = ctx->state;
    UringPoll *poll;

    g_assert(!s->disk_in_flight);
    io_uring_queue_exit(&s->ring);
    /* Polls that were cancelled hold their watches until their completions are read. */
    while ((poll = TAILQ_FIRST(&s->armed))) {
        TAILQ_REMOVE(&s->armed, poll, armed_link);
        aio_watch_unref(poll->watch);
    }
    while ((poll = TAILQ_FIRST(&s->polls))) {
        TAILQ_REMOVE(&s->polls, poll, link);
        aio_watch_unref(poll->watch);
    }
    g_free(s);
}

static void uring_attach(AioContext *ctx)
{
    UringState *s = ctx->state;

    if (s->thread_id) {
        g_assert(s->thread_id == gettid());
        return;
    }
    if (syscall(__NR_io_uring_register, s->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) <
        0) {
        g_error("io_uring cannot be enabled: %s", g_strerror(errno));
    }
    s->thread_id = gettid();
}

/* --- submission --- */

/* Hands what is queued to the kernel; what it has no room for stays queued. */
static void uring_submit(UringState *s)
{
    int ret = io_uring_submit_and_get_events(&s->ring);

    if (ret < 0 && ret != -EAGAIN && ret != -EBUSY && ret != -EINTR) {
        g_error("io_uring refuses requests: %s", g_strerror(-ret));
    }
}

/* NULL when the submission queue is full and stays so for now. */
static struct io_uring_sqe *uring_get_sqe(UringState *s)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&s->ring);

    if (!sqe) {
        uring_submit(s);
        sqe = io_uring_get_sqe(&s->ring);
    }
    return sqe;
}

static void uring_prep_disk(struct io_uring_sqe *sqe, UringDisk *disk)
{
    const AioDiskRequest *req = disk->req;
    bool single = req->niov == 1 && req->iov[0].iov_len <= G_MAXINT;

    switch (req->op) {
    case AIO_DISK_READ:
        if (single) {
            io_uring_prep_read(sqe, req->fd, req->iov[0].iov_base, req->iov[0].iov_len,
                               req->offset);
        } else {
            io_uring_prep_readv(sqe, req->fd, req->iov, req->niov, req->offset);
        }
        break;
    case AIO_DISK_WRITE:
        if (single) {
            io_uring_prep_write(sqe, req->fd, req->iov[0].iov_base, req->iov[0].iov_len,
                                req->offset);
        } else {
            io_uring_prep_writev(sqe, req->fd, req->iov, req->niov, req->offset);
        }
        sqe->rw_flags = req->fua ? RWF_DSYNC : 0;
        break;
    case AIO_DISK_FDATASYNC:
        io_uring_prep_fsync(sqe, req->fd, IORING_FSYNC_DATASYNC);
        break;
    }
    io_uring_sqe_set_data(sqe, &disk->op);
}

/* Arms, or cancels, one poll. False when there is no room. */
static bool uring_flush_poll(UringState *s, UringPoll *poll)
{
    bool wanted = aio_watch_events(poll->watch) & poll->side;
    struct io_uring_sqe *sqe;

    if (poll->watch->deleted ? !poll->armed : (poll->armed || !wanted)) {
        return true;
    }
    sqe = uring_get_sqe(s);
    if (!sqe) {
        return false;
    }
    if (poll->watch->deleted) {
        if (poll->reads) {
            io_uring_prep_cancel64(sqe, (uintptr_t)&poll->op, 0);
        } else {
            io_uring_prep_poll_remove(sqe, (uintptr_t)&poll->op);
        }
        io_uring_sqe_set_data(sqe, NULL);
    } else {
        poll->reads = poll->watch->event && !poll->no_reads;
        if (poll->reads) {
            io_uring_prep_read(sqe, poll->watch->fd, &poll->count, sizeof(poll->count), 0);
        } else {
            io_uring_prep_poll_add(sqe, poll->watch->fd,
                                   poll->side == AIO_WATCH_READ ? POLLIN : POLLOUT);
        }
        io_uring_sqe_set_data(sqe, &poll->op);
        poll->armed = true;
        TAILQ_INSERT_TAIL(&s->armed, poll, armed_link);
        aio_watch_ref(poll->watch);
    }
    return true;
}

/*
 * Fills the submission queue with everything that waits for it. False when something found no room.
 */
static bool uring_flush(AioContext *ctx)
{
    UringState *s = ctx->state;
    UringPoll *poll;
    UringDisk *disk;

    while ((poll = TAILQ_FIRST(&s->polls))) {
        if (!uring_flush_poll(s, poll)) {
            return false;
        }
        TAILQ_REMOVE(&s->polls, poll, link);
        poll->queued = false;
        aio_watch_unref(poll->watch);
    }
    while ((disk = TAILQ_FIRST(&s->disks))) {
        struct io_uring_sqe *sqe = uring_get_sqe(s);

        if (!sqe) {
            return false;
        }
        TAILQ_REMOVE(&s->disks, disk, link);
        uring_prep_disk(sqe, disk);
    }
    if (!s->wake_armed) {
        struct io_uring_sqe *sqe = uring_get_sqe(s);

        if (!sqe) {
            return false;
        }
        io_uring_prep_read(sqe, ctx->wake_fd, &s->wake_value, sizeof(s->wake_value), 0);
        io_uring_sqe_set_data(sqe, &s->wake_op);
        s->wake_armed = true;
    }
    return true;
}

/* --- polling --- */

static void uring_queue_poll(UringState *s, UringPoll *poll)
{
    if (!poll->queued) {
        poll->queued = true;
        aio_watch_ref(poll->watch);
        TAILQ_INSERT_TAIL(&s->polls, poll, link);
    }
}

static void uring_poll_done(AioContext *ctx, UringOp *op, int res)
{
    UringState *s = ctx->state;
    UringPoll *poll = (UringPoll *)op;
    AioWatch *watch = poll->watch;

    poll->armed = false;
    TAILQ_REMOVE(&s->armed, poll, armed_link);
    if (poll->reads && res != sizeof(poll->count)) {
        poll->no_reads = res != -ECANCELED && res != -EINTR;
        res = 0;
    }
    watch->count_taken = poll->reads;
    if (!watch->deleted) {
        /*
         * An error of the poll itself counts as ready: the handler's own call reports what is
         * wrong.
         */
        if (res != -ECANCELED && res != 0) {
            s->progress |= aio_watch_dispatch(watch, poll->side);
        }
        if (!watch->deleted && (aio_watch_events(watch) & poll->side)) {
            uring_queue_poll(s, poll);
        }
    }
    aio_watch_unref(watch); /* what arming took */
}

static void uring_watch_update(AioContext *ctx, AioWatch *watch, unsigned events)
{
    UringState *s = ctx->state;
    UringWatch *uw = watch->backend;

    if (!uw) {
        uw = watch->backend = g_new0(UringWatch, 1);
        for (unsigned i = 0; i < 2; i++) {
            uw->sides[i].op.done = uring_poll_done;
            uw->sides[i].watch = watch;
            uw->sides[i].side = i ? AIO_WATCH_WRITE : AIO_WATCH_READ;
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        if ((events & uw->sides[i].side) && !uw->sides[i].armed) {
            uring_queue_poll(s, &uw->sides[i]);
        }
    }
}

static void uring_watch_forget(AioContext *ctx, AioWatch *watch)
{
    UringState *s = ctx->state;
    UringWatch *uw = watch->backend;
    bool armed = false;

    for (unsigned i = 0; i < 2; i++) {
        if (uw->sides[i].armed) {
            uring_queue_poll(s, &uw->sides[i]);
            armed = true;
        }
    }
    if (armed) {
        /* Now and not at the end of the turn: the caller closes fd and relies on what that does. */
        uring_flush(ctx);
        uring_submit(s);
    }
}

/* --- disk I/O --- */

static void uring_disk_done(AioContext *ctx, UringOp *op, int res)
{
    UringState *s = ctx->state;
    UringDisk *disk = (UringDisk *)op;

    s->progress = true;
    s->disk_in_flight--;
    ctx->awaited--;
    disk->res = res;
    qemu_coroutine_enter(disk->co);
}

static ssize_t coroutine_fn uring_co_disk(AioContext *ctx, const AioDiskRequest *req)
{
    UringState *s = ctx->state;
    UringDisk disk = {
        .op = {.done = uring_disk_done},
        .req = req,
        .co = qemu_coroutine_self(),
    };

    do {
        struct io_uring_sqe *sqe = TAILQ_EMPTY(&s->disks) ? uring_get_sqe(s) : NULL;

        if (sqe) {
            uring_prep_disk(sqe, &disk);
        } else {
            TAILQ_INSERT_TAIL(&s->disks, &disk, link);
        }
        s->disk_in_flight++;
        ctx->awaited++;
        qemu_coroutine_yield();
    } while (disk.res == -EINTR);
    return disk.res;
}

/* --- the turn --- */

/* Completions that the kernel has ready but not written to the completion queue yet. */
static bool uring_kernel_has_more(UringState *s)
{
    return __atomic_load_n(s->ring.sq.kflags, __ATOMIC_RELAXED) &
           (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN);
}

static void uring_submit_queued(AioContext *ctx)
{
    UringState *s = ctx->state;

    uring_flush(ctx);
    if (io_uring_sq_ready(&s->ring)) {
        uring_submit(s);
    }
}

static bool uring_pending(AioContext *ctx)
{
    UringState *s = ctx->state;

    return io_uring_cq_ready(&s->ring) || uring_kernel_has_more(s);
}

static void uring_wait(AioContext *ctx, int64_t timeout_ns)
{
    UringState *s = ctx->state;
    struct __kernel_timespec ts;
    struct io_uring_cqe *cqe;
    int ret;

    if (!uring_flush(ctx) && (timeout_ns < 0 || timeout_ns > URING_RETRY_NS)) {
        timeout_ns = URING_RETRY_NS;
    }
    if (timeout_ns == 0 || io_uring_cq_ready(&s->ring)) {
        if (io_uring_sq_ready(&s->ring) || uring_kernel_has_more(s)) {
            uring_submit(s);
        }
        return;
    }
    ts.tv_sec = timeout_ns / NANOSECONDS_PER_SECOND;
    ts.tv_nsec = timeout_ns % NANOSECONDS_PER_SECOND;
    ret = io_uring_submit_and_wait_timeout(&s->ring, &cqe, 1, timeout_ns < 0 ? NULL : &ts, NULL);
    if (ret == -EAGAIN || ret == -EBUSY) {
        /*
         * Not submitted: wait for what is in flight, which frees what is lacking, but not for long.
         */
        ts = (struct __kernel_timespec){.tv_nsec = URING_RETRY_NS};
        io_uring_wait_cqe_timeout(&s->ring, &cqe, &ts);
    } else if (ret < 0 && ret != -EINTR && ret != -ETIME) {
        g_error("io_uring cannot wait: %s", g_strerror(-ret));
    }
}

static bool uring_dispatch(AioContext *ctx)
{
    UringState *s = ctx->state;
    struct io_uring_cqe *cqe;

    s->progress = false;
    /* Only what is there now: timers and bottom halves get their turn in between. */
    for (unsigned n = io_uring_cq_ready(&s->ring); n > 0; n--) {
        UringOp *op;
        int res;

        if (io_uring_peek_cqe(&s->ring, &cqe) != 0) {
            break;
        }
        op = io_uring_cqe_get_data(cqe);
        res = cqe->res;
        io_uring_cqe_seen(&s->ring, cqe);
        if (op) {
            op->done(ctx, op, res);
        }
    }
    return s->progress;
}

const AioBackendOps aio_uring_ops = {
    .name = "io_uring",
    .init = uring_init,
    .cleanup = uring_cleanup,
    .attach = uring_attach,
    .watch_update = uring_watch_update,
    .watch_forget = uring_watch_forget,
    .wait = uring_wait,
    .dispatch = uring_dispatch,
    .submit = uring_submit_queued,
    .pending = uring_pending,
    .co_disk = uring_co_disk,
};
