/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FdHalf: one direction of a descriptor that takes read(2) and write(2), for channels over files
 * and pipes. The descriptor is the owner's; SIGPIPE is ignored in the whole process.
 */
#ifndef FERRY_IO_FD_HALF_H
#define FERRY_IO_FD_HALF_H

#include "io/channel.h"
#include "io/wake-poll.h"

typedef struct FdHalf {
    int fd; /* -1: this direction is not there */
    QIOChannelDirection dir;
    WakePoll poll;
    const char *what; /* for errors: "file", "command" */
} FdHalf;

/* Makes fd non-blocking where that means anything. False and errp: nothing was kept. */
bool fd_half_init(FdHalf *half, int fd, QIOChannelDirection dir, const char *what,
                  GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Stops using the descriptor, which stays open; does nothing the second time. */
void fd_half_clear(FdHalf *half);

/* As QIOChannelClass has them, for channel ioc, whose shutdown they heed. */
ssize_t fd_half_readv(FdHalf *half, QIOChannel *ioc, const struct iovec *iov, size_t niov,
                      GError **errp);
ssize_t fd_half_writev(FdHalf *half, QIOChannel *ioc, const struct iovec *iov, size_t niov,
                       GError **errp);
int fd_half_poll_fd(FdHalf *half, short *events);
/* Wakes a thread that waits; later waits return at once. Any thread. */
void fd_half_wake(FdHalf *half);

#endif
