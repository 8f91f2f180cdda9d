/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A limit in time for a coroutine that waits for a channel several times: a handshake. */
#ifndef FERRY_IO_CHANNEL_DEADLINE_H
#define FERRY_IO_CHANNEL_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>
#include "io/channel.h"
#include "util/timer.h"

/* Members are channel-deadline.c's. In the coroutine's AioContext from start to stop. */
typedef struct QIOChannelDeadline {
    QIOChannel *ioc;
    QEMUTimer *timer; /* NULL: no limit */
    bool over;
} QIOChannelDeadline;

/* timeout_ns: from now; 0: no limit, the caller ends the wait by shutting the channel down. */
void coroutine_fn qio_channel_deadline_start(QIOChannelDeadline *deadline, QIOChannel *ioc,
                                             int64_t timeout_ns);
/*
 * As qio_channel_co_wait(): 0; -ETIMEDOUT when the time is over; -ECANCELED when another coroutine
 * or thread interrupted it.
 */
int coroutine_fn qio_channel_deadline_co_wait(QIOChannelDeadline *deadline,
                                              QIOChannelDirection dir);
void qio_channel_deadline_stop(QIOChannelDeadline *deadline);

#endif
