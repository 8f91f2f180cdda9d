/* SPDX-License-Identifier: GPL-2.0-or-later */
/* WakePoll: a descriptor and an event in one epoll set. */
#include "io/wake-poll.h"
#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "util/error.h"

bool wake_poll_init(WakePoll *wp, int fd, unsigned events, GError **errp)
{
    struct epoll_event ev = {.events = events}, wake = {.events = EPOLLIN};

    *wp = WAKE_POLL_INIT;
    wp->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (wp->epoll_fd < 0) {
        error_setg_errno(errp, errno, "Could not make a descriptor to wait with");
        return false;
    }
    if (epoll_ctl(wp->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
        bool always_ready = errno == EPERM;

        if (!always_ready) {
            error_setg_errno(errp, errno, "Could not wait for file descriptor %d", fd);
        }
        wake_poll_clear(wp);
        return always_ready;
    }
    wp->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wp->event_fd < 0 || epoll_ctl(wp->epoll_fd, EPOLL_CTL_ADD, wp->event_fd, &wake) < 0) {
        error_setg_errno(errp, errno, "Could not make a descriptor to wait with");
        wake_poll_clear(wp);
        return false;
    }
    return true;
}

void wake_poll_wake(WakePoll *wp)
{
    uint64_t one = 1;

    if (wp->event_fd >= 0 && write(wp->event_fd, &one, sizeof(one)) < 0) {
        /* the counter is at its limit, so it has been woken before */
    }
}

void wake_poll_clear(WakePoll *wp)
{
    if (wp->event_fd >= 0) {
        close(wp->event_fd);
    }
    if (wp->epoll_fd >= 0) {
        close(wp->epoll_fd);
    }
    *wp = WAKE_POLL_INIT;
}
