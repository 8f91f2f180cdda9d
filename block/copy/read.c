/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is asked of a source behind a server, which may hang.
 *
 * Each question runs in a coroutine of its own. It reaches the source through a backend that it
 * holds, and owns the buffer of the answer as soon as the engine has left it. The engine, its owner
 * and the owner's edge may be gone when the answer arrives. Other sources are asked directly.
 */
#include "block/copy/copy.h"

#include <errno.h>
#include "block/graph/graph.h"

/* Referenced by its coroutine and by the one that waits for the answer. */
typedef struct CopyQuestion {
    int refcount;
    BlockBackend *reader;
    BlockDriverState *base;
    int64_t offset, bytes;
    bool is_read;
    QEMUIOVector qiov; /* of a read */
    BdrvBlockStatus status;
    int ret;
    bool done, left;
    Coroutine *waiter; /* NULL: has been woken */
    LIST_ENTRY(CopyQuestion) next;
} CopyQuestion;

static char *reader_get_desc(void *opaque)
{
    return g_strdup("a copy that reads it, or has been cancelled and waits for its last reads");
}

static const BlockDevOps reader_ops = {.get_desc = reader_get_desc};

static bool reaches_server(BlockDriverState *bs)
{
    BdrvChild *child;

    if (BDRV_OP(bs->drv, protocol, bdrv_cancel_in_flight)) {
        return true;
    }
    LIST_FOREACH(child, &bs->children, next) {
        if (reaches_server(child->bs)) {
            return true;
        }
    }
    return false;
}

bool copy_attach_reader(CopyEngine *s, GError **errp)
{
    if (!reaches_server(s->source)) {
        return true;
    }
    s->reader = blk_new(BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    blk_set_dev_ops(s->reader, &reader_ops, NULL);
    blk_set_stay_at_node(s->reader, true);
    blk_set_disable_request_queuing(s->reader, true); /* owners copy while the source is drained */
    return blk_insert_bs(s->reader, s->source, errp);
}

void copy_detach_reader(CopyEngine *s)
{
    g_clear_pointer(&s->reader, blk_unref);
}

static void question_unref(CopyQuestion *q)
{
    if (--q->refcount > 0) {
        return;
    }
    for (int i = 0; q->left && i < q->qiov.niov; i++) {
        qemu_vfree(q->qiov.iov[i].iov_base);
    }
    if (q->is_read) {
        qemu_iovec_destroy(&q->qiov);
    }
    g_free(q);
}

static void coroutine_fn question_co_entry(void *opaque)
{
    CopyQuestion *q = opaque;
    BlockBackend *reader = q->reader;

    blk_ref(reader);
    blk_inc_in_flight(reader);
    if (q->is_read) {
        q->ret = bdrv_co_preadv(blk_root(reader), q->offset, q->bytes, &q->qiov, 0);
    } else {
        q->ret =
            bdrv_co_block_status_above(blk_bs(reader), q->base, q->offset, q->bytes, &q->status);
    }
    blk_dec_in_flight(reader);
    blk_unref(reader);
    q->done = true;
    if (q->waiter) {
        aio_co_wake(g_steal_pointer(&q->waiter));
    }
    question_unref(q);
}

/* Returns the result; with -ECANCELED, whether the question is still under way is in q->left. */
static int coroutine_fn question_co_ask(CopyEngine *s, CopyQuestion *q)
{
    q->refcount = 2;
    q->reader = s->reader;
    qemu_coroutine_enter(qemu_coroutine_create(question_co_entry, q));
    if (q->done) {
        return q->ret;
    }
    LIST_INSERT_HEAD(&s->questions, q, next);
    q->waiter = qemu_coroutine_self();
    qemu_coroutine_yield();
    LIST_REMOVE(q, next);
    return q->left ? -ECANCELED : q->ret;
}

int coroutine_fn copy_co_read(CopyEngine *s, int64_t offset, QEMUIOVector *qiov)
{
    CopyQuestion *q;
    int ret;

    if (!s->reader) {
        return bdrv_co_preadv(s->source_edge, offset, (int64_t)qiov->size, qiov, 0);
    }
    if (s->no_questions) {
        return -ECANCELED;
    }
    q = g_new0(CopyQuestion, 1);
    q->is_read = true;
    q->offset = offset;
    q->bytes = (int64_t)qiov->size;
    qemu_iovec_init(&q->qiov, qiov->niov);
    for (int i = 0; i < qiov->niov; i++) {
        qemu_iovec_add(&q->qiov, qiov->iov[i].iov_base, qiov->iov[i].iov_len);
    }
    ret = question_co_ask(s, q);
    if (q->left) {
        s->nr_buffers -= qiov->niov;
        qemu_iovec_reset(qiov);
    }
    question_unref(q);
    return ret;
}

int coroutine_fn copy_co_source_status(CopyEngine *s, BlockDriverState *base, int64_t offset,
                                       int64_t bytes, BdrvBlockStatus *st)
{
    CopyQuestion *q;
    int ret;

    if (!s->reader) {
        return bdrv_co_block_status_above(s->source, base, offset, bytes, st);
    }
    if (s->no_questions) {
        return -ECANCELED;
    }
    q = g_new0(CopyQuestion, 1);
    q->base = base;
    q->offset = offset;
    q->bytes = bytes;
    ret = question_co_ask(s, q);
    if (ret >= 0) {
        *st = q->status;
    }
    question_unref(q);
    return ret;
}

void copy_leave_questions(CopyEngine *s)
{
    CopyQuestion *q;

    s->no_questions = true;
    LIST_FOREACH(q, &s->questions, next) {
        if (q->waiter) {
            q->left = true;
            s->left_questions = true;
            aio_co_wake(g_steal_pointer(&q->waiter));
        }
    }
}
