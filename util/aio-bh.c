/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bottom halves.
 *
 * A QEMUBH is in its context's post list while BH_POSTED is set. The thread that sets the bit
 * pushes the bottom half; the loop takes it off the list and clears the bit. Only the loop frees
 * one, and only off the list.
 */
#include <glib.h>
#include "util/aio-int.h"

enum {
    BH_POSTED = 1,
    BH_SCHEDULED = 2, /* the callback is to be called */
    BH_DELETED = 4,
};

struct QEMUBH {
    AioPost post;
    AioContext *ctx;
    QEMUBHFunc *cb;
    void *opaque;
    unsigned flags; /* BH_*, atomic */
};

typedef struct OneshotBH {
    AioPost post;
    QEMUBHFunc *cb;
    void *opaque;
} OneshotBH;

static void bh_run(AioPost *post)
{
    QEMUBH *bh = (QEMUBH *)post;
    unsigned flags = __atomic_fetch_and(&bh->flags, BH_DELETED, __ATOMIC_ACQ_REL);

    if (flags & BH_DELETED) {
        g_free(bh);
    } else if (flags & BH_SCHEDULED) {
        bh->cb(bh->opaque);
    }
}

static void oneshot_run(AioPost *post)
{
    OneshotBH *bh = (OneshotBH *)post;
    QEMUBHFunc *cb = bh->cb;
    void *opaque = bh->opaque;

    g_free(bh);
    cb(opaque);
}

static void bh_post(QEMUBH *bh, unsigned flag)
{
    if (!(__atomic_fetch_or(&bh->flags, BH_POSTED | flag, __ATOMIC_ACQ_REL) & BH_POSTED)) {
        aio_context_post(bh->ctx, &bh->post);
    }
}

QEMUBH *aio_bh_new(AioContext *ctx, QEMUBHFunc *cb, void *opaque)
{
    QEMUBH *bh = g_new(QEMUBH, 1);

    *bh = (QEMUBH){.post = {.run = bh_run}, .ctx = ctx, .cb = cb, .opaque = opaque};
    return bh;
}

void qemu_bh_schedule(QEMUBH *bh)
{
    bh_post(bh, BH_SCHEDULED);
}

void qemu_bh_cancel(QEMUBH *bh)
{
    __atomic_fetch_and(&bh->flags, ~BH_SCHEDULED, __ATOMIC_ACQ_REL);
}

void qemu_bh_delete(QEMUBH *bh)
{
    bh_post(bh, BH_DELETED);
}

void aio_bh_schedule_oneshot(AioContext *ctx, QEMUBHFunc *cb, void *opaque)
{
    OneshotBH *bh = g_new(OneshotBH, 1);

    *bh = (OneshotBH){.post = {.run = oneshot_run}, .cb = cb, .opaque = opaque};
    aio_context_post(ctx, &bh->post);
}

void aio_bh_discard(AioPostList *list)
{
    AioPost *post = aio_post_take(list);

    while (post) {
        AioPost *next = post->next;

        if (post->run == oneshot_run ||
            (post->run == bh_run && (((QEMUBH *)post)->flags & BH_DELETED))) {
            g_free(post);
        }
        post = next;
    }
}
