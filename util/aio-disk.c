/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk I/O of coroutines: by the running context's ring, or by preadv2() and pwritev2() in a worker
 * thread.
 */
#include <errno.h>
#include <glib.h>
#include <limits.h>
#include <sys/uio.h>
#include <unistd.h>
#include "util/aio-int.h"

typedef struct DiskThreadCall {
    const AioDiskRequest *req;
    ssize_t ret;
} DiskThreadCall;

static int disk_thread(void *arg)
{
    DiskThreadCall *call = arg;
    const AioDiskRequest *req = call->req;

    do {
        switch (req->op) {
        case AIO_DISK_READ:
            call->ret = preadv(req->fd, req->iov, req->niov, req->offset);
            break;
        case AIO_DISK_WRITE:
            call->ret =
                pwritev2(req->fd, req->iov, req->niov, req->offset, req->fua ? RWF_DSYNC : 0);
            break;
        case AIO_DISK_FDATASYNC:
            call->ret = fdatasync(req->fd);
            break;
        }
    } while (call->ret < 0 && errno == EINTR);
    if (call->ret < 0) {
        call->ret = -errno;
    }
    return 0;
}

ssize_t coroutine_fn aio_disk_co_thread(const AioDiskRequest *req)
{
    DiskThreadCall call = {.req = req};

    thread_pool_submit_file_co(req->fd, disk_thread, &call);
    return call.ret;
}

static ssize_t coroutine_fn disk_co_request(AioDiskEngine engine, const AioDiskRequest *req)
{
    AioContext *ctx = qemu_get_current_aio_context();
    ssize_t ret = -EAGAIN;

    g_assert(ctx); /* a thread that runs no context submits nothing: see aio.h */
    if (engine == AIO_DISK_IO_URING && ctx->ops->co_disk) {
        ret = ctx->ops->co_disk(ctx, req);
    }
    /* A file that cannot be served without blocking gets a thread that may block. */
    return ret == -EAGAIN ? aio_disk_co_thread(req) : ret;
}

/*
 * More elements than the kernel takes at once make a short transfer, which callers expect anyway.
 */
static int bounded_niov(int niov)
{
    return MIN(niov, IOV_MAX);
}

ssize_t coroutine_fn aio_co_preadv(AioDiskEngine engine, int fd, const struct iovec *iov, int niov,
                                   int64_t offset)
{
    AioDiskRequest req = {
        .op = AIO_DISK_READ,
        .fd = fd,
        .iov = iov,
        .niov = bounded_niov(niov),
        .offset = offset,
    };

    return offset < 0 ? -EINVAL : disk_co_request(engine, &req);
}

ssize_t coroutine_fn aio_co_pwritev(AioDiskEngine engine, int fd, const struct iovec *iov, int niov,
                                    int64_t offset, bool fua)
{
    AioDiskRequest req = {
        .op = AIO_DISK_WRITE,
        .fd = fd,
        .iov = iov,
        .niov = bounded_niov(niov),
        .offset = offset,
        .fua = fua,
    };
    ssize_t ret;

    if (offset < 0) {
        return -EINVAL;
    }
    ret = disk_co_request(engine, &req);
    if (ret == -EOPNOTSUPP && fua) {
        int flushed;

        req.fua = false;
        ret = disk_co_request(engine, &req);
        flushed = ret < 0 ? 0 : aio_co_fdatasync(engine, fd);
        ret = flushed < 0 ? flushed : ret;
    }
    return ret;
}

int coroutine_fn aio_co_fdatasync(AioDiskEngine engine, int fd)
{
    AioDiskRequest req = {.op = AIO_DISK_FDATASYNC, .fd = fd};

    return disk_co_request(engine, &req);
}
