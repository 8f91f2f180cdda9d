/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Batches of work on their way from one thread, which fills them, to several, which empty them:
 *
 *   free -> filling (one, the owner's) -> ready (a queue) -> a worker -> free
 *
 * The owner waits when none is free, so it is never ahead by more than there are batches.
 *
 * The lock and the two conditions are the user's as well, for what else the owner and the workers tell
 * each other. All functions are called with the lock held, unless said otherwise.
 */
#ifndef FERRY_MIGRATION_BATCH_QUEUE_H
#define FERRY_MIGRATION_BATCH_QUEUE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include "util/queue.h"

/* The first member of the user's own batch. */
typedef struct Batch {
    TAILQ_ENTRY(Batch) next;
} Batch;

typedef struct BatchQueue {
    pthread_mutex_t lock;
    pthread_cond_t work; /* workers: a batch is ready, or something else is wanted of them */
    pthread_cond_t room; /* owner: a batch is free, or a worker has done something else */
    Batch *filling;      /* the owner's, without the lock; NULL: none */
    /* lock */
    TAILQ_HEAD(, Batch) free, ready;
    unsigned busy; /* batches that workers have in hand */
    bool failed;   /* the owner gets no batch any more */
} BatchQueue;

/* `batches` is an array of n elements of `stride` bytes, which lives longer. Without the lock. */
void batch_queue_init(BatchQueue *queue, void *batches, size_t stride, unsigned n);
/* Without the lock; the workers have ended. */
void batch_queue_destroy(BatchQueue *queue);

/* Waits for a free batch, which is queue->filling then. False: the queue has failed. The owner. */
bool batch_queue_begin(BatchQueue *queue);
/* What is being filled, if anything, is ready for a worker. The owner. */
void batch_queue_hand_over(BatchQueue *queue);
/* Wakes all threads; the owner gets no batch any more. Any thread. */
void batch_queue_fail(BatchQueue *queue);

/* The oldest batch that is ready, which is the worker's from now on; NULL: there is none. */
Batch *batch_queue_take(BatchQueue *queue);
/* The batch is empty. The worker. */
void batch_queue_give_back(BatchQueue *queue, Batch *batch);
/* Nothing is ready and no worker has a batch in hand. */
bool batch_queue_is_idle(const BatchQueue *queue);

#endif
