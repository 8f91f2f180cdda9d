/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory that the copy engine holds, all of it within buf_size.
 *
 * Two users share the bound. Reading and writing goes through pieces, which stay allocated while
 * the job runs; a copy that the nodes do by themselves is charged with what its worker holds
 * meanwhile. Either waits until there is room, and idle pieces make room for the other kind. One
 * that holds nothing may always go on, however small buf_size is.
 */
#include "block/copy/copy.h"

#include "trace/trace-block.h"
#include "util/int-math.h"

int64_t copy_memory_held(const CopyEngine *s)
{
    return (int64_t)s->nr_buffers * (int64_t)s->piece_bytes + s->memory_charged;
}

static bool memory_fits(const CopyEngine *s, int64_t bytes)
{
    int64_t held = copy_memory_held(s);

    return held == 0 || held + bytes + s->lent_bytes <= s->buf_size;
}

static void free_one_piece(CopyEngine *s)
{
    qemu_vfree(s->free_buffers->data);
    s->free_buffers = g_slist_delete_link(s->free_buffers, s->free_buffers);
    s->nr_buffers--;
}

void copy_free_buffers(CopyEngine *s)
{
    while (s->free_buffers) {
        free_one_piece(s);
    }
}

void coroutine_fn copy_co_charge_memory(CopyEngine *s, int64_t bytes)
{
    while (!memory_fits(s, bytes)) {
        if (s->free_buffers) {
            free_one_piece(s);
        } else {
            qemu_co_queue_wait(&s->memory_freed, NULL);
        }
    }
    s->memory_charged += bytes;
    trace_copy_memory(copy_memory_held(s), s->lent_bytes);
}

void copy_uncharge_memory(CopyEngine *s, int64_t bytes)
{
    s->memory_charged -= bytes;
    qemu_co_queue_restart_all(&s->memory_freed);
}

/* A piece that can be had now, or NULL. */
static void *take_piece(CopyEngine *s)
{
    void *piece;

    if (s->free_buffers) {
        piece = s->free_buffers->data;
        s->free_buffers = g_slist_delete_link(s->free_buffers, s->free_buffers);
        return piece;
    }
    if (!memory_fits(s, s->piece_bytes)) {
        return NULL;
    }
    piece = qemu_try_blockalign(s->source, s->piece_bytes);
    if (piece) {
        s->nr_buffers++;
        trace_copy_memory(copy_memory_held(s), s->lent_bytes);
    }
    return piece;
}

int64_t coroutine_fn copy_co_get_buffer(CopyEngine *s, int64_t bytes, QEMUIOVector *qiov)
{
    void *piece;

    while (!(piece = take_piece(s))) {
        if (copy_memory_held(s) == 0) {
            return 0; /* none is held that could be waited for */
        }
        qemu_co_queue_wait(&s->memory_freed, NULL);
    }
    qemu_iovec_init(qiov, (int)DIV_ROUND_UP(bytes, (int64_t)s->piece_bytes));
    do {
        qemu_iovec_add(qiov, piece, MIN((int64_t)s->piece_bytes, bytes - (int64_t)qiov->size));
    } while ((int64_t)qiov->size < bytes && (piece = take_piece(s)));
    return (int64_t)qiov->size;
}

void copy_put_buffer(CopyEngine *s, QEMUIOVector *qiov)
{
    for (int i = 0; i < qiov->niov; i++) {
        s->free_buffers = g_slist_prepend(s->free_buffers, qiov->iov[i].iov_base);
    }
    qemu_iovec_destroy(qiov);
    qemu_co_queue_restart_all(&s->memory_freed);
}
