/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Completions of zero-copy sends. */
#include "io/zero-copy.h"
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <linux/errqueue.h>

/* Room for one completion: its extended error and the address that comes with it. */
#define ZERO_COPY_CONTROL_BYTES 256

void zero_copy_init(ZeroCopyQueue *q)
{
    g_mutex_init(&q->lock);
    q->sent = q->done = q->judged = 0;
    q->all_copied = true;
}

void zero_copy_destroy(ZeroCopyQueue *q)
{
    g_mutex_clear(&q->lock);
}

bool zero_copy_enable(int fd)
{
    int on = 1;

    return setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)) == 0;
}

void zero_copy_sent(ZeroCopyQueue *q)
{
    g_mutex_lock(&q->lock);
    q->sent++;
    g_mutex_unlock(&q->lock);
}

/* A message of the error queue; other errors than completions are left to the next send. */
static void note_completion(ZeroCopyQueue *q, struct msghdr *msg)
{
    for (struct cmsghdr *cm = CMSG_FIRSTHDR(msg); cm; cm = CMSG_NXTHDR(msg, cm)) {
        struct sock_extended_err ee;

        if (cm->cmsg_len < CMSG_LEN(sizeof(ee))) {
            continue;
        }
        memcpy(&ee, CMSG_DATA(cm), sizeof(ee));
        if (ee.ee_errno != 0 || ee.ee_origin != SO_EE_ORIGIN_ZEROCOPY) {
            continue;
        }
        q->done += ee.ee_data - ee.ee_info + 1; /* sends [ee_info, ee_data] */
        if (!(ee.ee_code & SO_EE_CODE_ZEROCOPY_COPIED)) {
            q->all_copied = false;
        }
    }
}

/* Takes all completions at hand. q->lock. 0 or -errno. */
static int take_completions(ZeroCopyQueue *q, int fd)
{
    while (q->done != q->sent) {
        char control[ZERO_COPY_CONTROL_BYTES];
        struct msghdr msg = {.msg_control = control, .msg_controllen = sizeof(control)};

        if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno == EAGAIN ? 0 : -errno;
        }
        note_completion(q, &msg);
    }
    return 0;
}

void zero_copy_tidy(ZeroCopyQueue *q, int fd)
{
    g_mutex_lock(&q->lock);
    if (!q->waiting) {
        (void)take_completions(q, fd);
    }
    g_mutex_unlock(&q->lock);
}

static int wait_with_lock(ZeroCopyQueue *q, int fd, bool all)
{
    struct pollfd pfd = {.fd = fd, .events = 0}; /* an error queue makes POLLERR */
    uint32_t before = q->done;

    if (q->done == q->sent) {
        return 1;
    }
    for (;;) {
        int ret = take_completions(q, fd);

        if (ret < 0) {
            return ret;
        }
        if (q->done == q->sent || (!all && q->done != before)) {
            return 0;
        }
        if (pfd.revents & (POLLHUP | POLLNVAL)) {
            return -EPIPE;
        }
        g_mutex_unlock(&q->lock);
        ret = poll(&pfd, 1, -1) < 0 && errno != EINTR ? -errno : 0;
        g_mutex_lock(&q->lock);
        if (ret < 0) {
            return ret;
        }
    }
}

int zero_copy_wait(ZeroCopyQueue *q, int fd, bool all)
{
    int ret;

    g_mutex_lock(&q->lock);
    q->waiting = true;
    ret = wait_with_lock(q, fd, all);
    q->waiting = false;
    g_mutex_unlock(&q->lock);
    return ret;
}

bool zero_copy_take_result(ZeroCopyQueue *q)
{
    bool copied;

    g_mutex_lock(&q->lock);
    copied = q->all_copied && q->judged != q->sent;
    q->all_copied = true;
    q->judged = q->sent;
    g_mutex_unlock(&q->lock);
    return copied;
}
