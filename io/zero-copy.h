/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Zero-copy sending on a socket: counts the sends and takes their completions from the socket's
 * error queue (Linux, Documentation/networking/msg_zerocopy.rst).
 *
 * Sends and waits are the writer's; a reader of the same socket may take completions, too.
 */
#ifndef FERRY_IO_ZERO_COPY_H
#define FERRY_IO_ZERO_COPY_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ZeroCopyQueue {
    GMutex lock;
    uint32_t sent;   /* the kernel's number of the next send */
    uint32_t done;   /* completions seen */
    uint32_t judged; /* sends before this have been told of by zero_copy_take_result() */
    bool all_copied; /* of the completions since then */
    bool waiting;    /* the writer waits for completions and will take them itself */
} ZeroCopyQueue;

void zero_copy_init(ZeroCopyQueue *q);
void zero_copy_destroy(ZeroCopyQueue *q);
/* True when the socket can do it; tells the kernel that completions will be taken. */
bool zero_copy_enable(int fd);
/* A send with MSG_ZEROCOPY took bytes. */
void zero_copy_sent(ZeroCopyQueue *q);
/* Reader: takes what has piled up, as it makes the descriptor look ready. */
void zero_copy_tidy(ZeroCopyQueue *q, int fd);
/*
 * Writer: waits for one more completion (all: for every send's). 0; 1 when none is outstanding;
 * -EPIPE when the socket was shut down before that; -errno.
 */
int zero_copy_wait(ZeroCopyQueue *q, int fd, bool all);
/* Whether the kernel copied each of the sends since the last call (false where there was none). */
bool zero_copy_take_result(ZeroCopyQueue *q);

#endif
