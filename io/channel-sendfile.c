/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sending part of a file over a socket channel: sendfile(2) in a worker thread. */
#include "io/channel-sendfile.h"

#include <errno.h>
#include <poll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include "util/error.h"

#define ZERO_BYTES 65536

typedef struct SendfileJob {
    int sock, fd;
    int64_t offset;
    size_t bytes;
} SendfileJob;

/* 0 when the socket takes more. */
static int wait_writable(const SendfileJob *job)
{
    struct pollfd pfd = {.fd = job->sock, .events = POLLOUT};

    for (;;) {
        int n = poll(&pfd, 1, -1);

        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n > 0) {
            return pfd.revents & (POLLERR | POLLHUP | POLLNVAL) ? -EPIPE : 0;
        }
    }
}

/* What lies behind the end of the file. */
static ssize_t send_zeroes(const SendfileJob *job)
{
    static const uint8_t zeroes[ZERO_BYTES];

    return send(job->sock, zeroes, MIN(job->bytes, sizeof(zeroes)), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int sendfile_worker(void *opaque)
{
    SendfileJob *job = opaque;

    while (job->bytes > 0) {
        off_t offset = job->offset;
        ssize_t n = sendfile(job->sock, job->fd, &offset, job->bytes);

        if (n == 0) {
            n = send_zeroes(job);
        }
        if (n < 0 && errno == EAGAIN) {
            int ret = wait_writable(job);

            if (ret < 0) {
                return ret;
            }
        } else if (n < 0 && errno != EINTR) {
            return -errno;
        } else if (n > 0) {
            job->offset += n;
            job->bytes -= n;
        }
    }
    return 0;
}

int coroutine_fn qio_channel_co_sendfile(QIOChannel *ioc, int fd, int64_t offset, size_t bytes,
                                         GError **errp)
{
    SendfileJob job = {.fd = fd, .offset = offset, .bytes = bytes};
    int ret;

    job.sock = ioc->klass->raw_socket(ioc);
    if (job.sock < 0) {
        error_setg(errp, "The channel is closed");
        return -EPIPE;
    }
    ret = thread_pool_submit_co(sendfile_worker, &job);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Unable to send from a file");
    }
    return ret;
}
