/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TimerList: the timers of one AioContext, for the files of the event loop only. */
#ifndef FERRY_UTIL_TIMER_INT_H
#define FERRY_UTIL_TIMER_INT_H

#include <pthread.h>
#include "util/queue.h"
#include "util/timer.h"

/* A binary heap, soonest first; timers of the same time in the order they were armed. */
typedef struct TimerHeap {
    QEMUTimer **timers;
    unsigned size;
    unsigned capacity;
} TimerHeap;

/*
 * Everything below is protected by `lock`, as are the timers themselves: any thread arms and disarms
 * them. No callback and no clock is called with it held.
 */
typedef struct TimerList {
    pthread_mutex_t lock;
    TimerHeap heaps[QEMU_CLOCK_MAX];
    TAILQ_HEAD(, QEMUTimer) firing; /* expired in this turn, callback still to be called */
    uint64_t next_sequence;
    TAILQ_ENTRY(TimerList) link; /* of all lists; under a lock of timer.c */
} TimerList;

void timer_list_init(TimerList *list);
void timer_list_destroy(TimerList *list);
/* ns until the first timer expires; -1: none, 0: now. */
int64_t timer_list_timeout_ns(TimerList *list);
/*
 * Calls what has expired; timers armed meanwhile wait for the next turn. True when there was any.
 */
bool timer_list_run(TimerList *list);

#endif
