/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Polling: before a loop sleeps it looks for work in memory for a short while, if that has paid off
 * lately; and event descriptors, which the loop itself reads.
 */
#ifndef FERRY_UTIL_AIO_EVENT_H
#define FERRY_UTIL_AIO_EVENT_H

#include <stdbool.h>
#include <stdint.h>

typedef struct AioContext AioContext;

/* Of an iothread; the main loop does not poll. */
#define AIO_POLL_DEFAULT_MAX_NS 32768

typedef struct AioPollParams {
    int64_t max_ns; /* longest time to poll before a sleep; 0: never */
    int64_t grow;   /* factor, when polling a little longer would have helped; 0: 2 */
    int64_t shrink; /* divisor, when an event was further away than max_ns; 0: back to nothing */
} AioPollParams;

/*
 * Any thread; holds from one of the next turns on. The values are not negative. A loop polls while it
 * awaits a disk request, a worker, or a queue with a `ready` function. It does so only over io_uring,
 * which shows its events in memory.
 */
void aio_context_set_poll_params(AioContext *ctx, const AioPollParams *params);
/* How often the loop has slept so far. Any thread. */
uint64_t aio_context_sleeps(AioContext *ctx);

/* Looks in memory whether the handler has work, and changes nothing. In the context's thread. */
typedef bool AioReadyFunc(void *opaque);

/*
 * Calls handler(opaque) after the eventfd `fd` was written to; the loop has taken its count then, and
 * no other thread reads it. `ready` may be NULL; a loop that polls asks it as well, and calls the
 * handler without a write when it says true. A handler of NULL forgets fd.
 *
 * The loop may take a count without calling the handler when fd is forgotten meanwhile: the next user
 * of fd looks for work once by itself. The context's own thread.
 */
void aio_set_event_handler(AioContext *ctx, int fd, void (*handler)(void *opaque),
                           AioReadyFunc *ready, void *opaque);

#endif
