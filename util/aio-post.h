/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AioPostList: work posted to an AioContext. Any thread pushes, the context's thread takes
 * everything at once and runs it in the order it was pushed. Lock free. Internal to the event loop.
 */
#ifndef FERRY_UTIL_AIO_POST_H
#define FERRY_UTIL_AIO_POST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct AioPost AioPost;

struct AioPost {
    AioPost *next;
    void (*run)(AioPost *post); /* in the context's thread; may free the post */
};

typedef struct AioPostList {
    AioPost *newest;
} AioPostList;

static inline void aio_post_push(AioPostList *list, AioPost *post)
{
    AioPost *newest = __atomic_load_n(&list->newest, __ATOMIC_RELAXED);

    do {
        post->next = newest;
    } while (!__atomic_compare_exchange_n(&list->newest, &newest, post, true, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED));
}

static inline bool aio_post_pending(const AioPostList *list)
{
    return __atomic_load_n(&list->newest, __ATOMIC_SEQ_CST) != NULL;
}

/* Empties the list; returns its posts, oldest first. */
static inline AioPost *aio_post_take(AioPostList *list)
{
    AioPost *post = __atomic_exchange_n(&list->newest, NULL, __ATOMIC_ACQUIRE);
    AioPost *oldest = NULL;

    while (post) {
        AioPost *next = post->next;

        post->next = oldest;
        oldest = post;
        post = next;
    }
    return oldest;
}

#endif
