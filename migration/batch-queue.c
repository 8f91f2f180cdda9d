/* SPDX-License-Identifier: GPL-2.0-or-later */
/* BatchQueue: two lists under one lock. */
#include "migration/batch-queue.h"

#include <stdint.h>

void batch_queue_init(BatchQueue *queue, void *batches, size_t stride, unsigned n)
{
    *queue = (BatchQueue){0};
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->work, NULL);
    pthread_cond_init(&queue->room, NULL);
    TAILQ_INIT(&queue->free);
    TAILQ_INIT(&queue->ready);
    for (unsigned i = 0; i < n; i++) {
        TAILQ_INSERT_TAIL(&queue->free, (Batch *)((uint8_t *)batches + i * stride), next);
    }
}

void batch_queue_destroy(BatchQueue *queue)
{
    pthread_cond_destroy(&queue->room);
    pthread_cond_destroy(&queue->work);
    pthread_mutex_destroy(&queue->lock);
}

bool batch_queue_begin(BatchQueue *queue)
{
    while (TAILQ_EMPTY(&queue->free) && !queue->failed) {
        pthread_cond_wait(&queue->room, &queue->lock);
    }
    if (queue->failed) {
        return false;
    }
    queue->filling = TAILQ_FIRST(&queue->free);
    TAILQ_REMOVE(&queue->free, queue->filling, next);
    return true;
}

void batch_queue_hand_over(BatchQueue *queue)
{
    if (queue->filling) {
        TAILQ_INSERT_TAIL(&queue->ready, queue->filling, next);
        queue->filling = NULL;
        pthread_cond_signal(&queue->work);
    }
}

void batch_queue_fail(BatchQueue *queue)
{
    queue->failed = true;
    pthread_cond_broadcast(&queue->work);
    pthread_cond_broadcast(&queue->room);
}

Batch *batch_queue_take(BatchQueue *queue)
{
    Batch *batch = TAILQ_FIRST(&queue->ready);

    if (batch) {
        TAILQ_REMOVE(&queue->ready, batch, next);
        queue->busy++;
    }
    return batch;
}

void batch_queue_give_back(BatchQueue *queue, Batch *batch)
{
    queue->busy--;
    TAILQ_INSERT_HEAD(&queue->free, batch, next); /* the one whose memory is in a cache */
    pthread_cond_signal(&queue->room);
}

bool batch_queue_is_idle(const BatchQueue *queue)
{
    return TAILQ_EMPTY(&queue->ready) && !queue->busy;
}
