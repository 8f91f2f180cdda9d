/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * WakePoll: something to poll that becomes ready when a descriptor does, or when another thread
 * says so. A pipe cannot be shut down itself, so shutdown wakes a thread that waits for a pipe by
 * this.
 *
 * It is an epoll set of the descriptor and an event; both stay ready once woken.
 */
#ifndef FERRY_IO_WAKE_POLL_H
#define FERRY_IO_WAKE_POLL_H

#include <glib.h>
#include <stdbool.h>

typedef struct WakePoll {
    int epoll_fd; /* poll this for POLLIN; -1: the descriptor is always ready (a regular file) */
    int event_fd;
} WakePoll;

/* fd ready for `events` (EPOLLIN, EPOLLOUT). False and errp when the process has no descriptors. */
bool wake_poll_init(WakePoll *wp, int fd, unsigned events, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* For good. Any thread, until wake_poll_clear(). */
void wake_poll_wake(WakePoll *wp);
/* Does nothing the second time. Before the descriptor is closed. */
void wake_poll_clear(WakePoll *wp);

#define WAKE_POLL_INIT ((WakePoll){-1, -1})

#endif
