/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A copy engine's beginning and end. */
#include "block/copy/copy.h"

#include "block/graph/graph.h"

/* One buffer. */
#define PIECE_BYTES     (1 << 20)
#define MIN_PIECE_BYTES (64 << 10)
/* File systems allocate blocks of this size. */
#define ZERO_UNIT_BYTES 4096
/* A write request costs about as much as so many bytes of it. */
#define ZERO_RUN_BYTES (16 << 10)

/* The driver that the chain of primary children ends in. */
static const BlockDriver *lowest_driver(BlockDriverState *bs)
{
    while (bs->file) {
        bs = bs->file->bs;
    }
    return bs->drv;
}

/*
 * How finely zeroes are kept out of the target: by what it allocates, as long as a request for each
 * piece costs no more than it spares.
 */
static void coroutine_fn choose_zero_unit(CopyEngine *s)
{
    BlockDriverState *bs = bdrv_skip_filters(s->target_bs);
    int64_t cluster = 0;
    bool is_dirty;

    s->zero_unit = ZERO_UNIT_BYTES;
    s->zero_run = ZERO_RUN_BYTES;
    if (bs->drv->bdrv_co_get_info && bs->drv->bdrv_co_get_info(bs, &cluster, &is_dirty) &&
        cluster > s->zero_unit) {
        s->zero_unit = MIN(cluster, COPY_MIXED_UNIT);
    } else if (s->host_target && !(bs->open_flags & BDRV_O_NOCACHE)) {
        s->zero_run = s->zero_unit;
        s->fine_target = true;
    }
    s->zero_unit = MAX(s->zero_unit, (int64_t)s->target_bs->bl.request_alignment);
}

void coroutine_fn copy_co_init(CopyEngine *s, const CopyOptions *opts)
{
    s->callbacks = opts->callbacks;
    s->owner = opts->owner;
    s->speed = opts->speed;
    s->source = opts->source;
    s->base = opts->base;
    __atomic_store_n(&s->target_bs, opts->target, __ATOMIC_RELAXED);
    s->unmap = opts->unmap;
    s->target_plain = opts->target_plain;
    s->size = bdrv_getlength(opts->source);
    s->granularity = opts->granularity;
    s->buf_size = opts->buf_size;
    s->piece_bytes = PIECE_BYTES;
    while (s->piece_bytes > MIN_PIECE_BYTES && (int64_t)s->piece_bytes * 2 > s->buf_size) {
        s->piece_bytes /= 2;
    }
    copy_pace_init(s);
    s->host_target = BDRV_OP(lowest_driver(s->target_bs), protocol, bdrv_get_read_fd);
    s->server_target = BDRV_OP(lowest_driver(s->target_bs), protocol, bdrv_cancel_in_flight);
    LIST_INIT(&s->ops);
    LIST_INIT(&s->questions);
    qemu_co_queue_init(&s->op_ended);
    qemu_co_queue_init(&s->idle);
    qemu_co_queue_init(&s->memory_freed);
    copy_map_init(&s->map, s->size, s->granularity, opts->target_is_zero);
    s->max_transfer = s->target_bs->bl.max_transfer;
    choose_zero_unit(s);
}

void copy_destroy(CopyEngine *s)
{
    g_assert(s->in_flight == 0 && LIST_EMPTY(&s->ops));
    copy_detach_reader(s);
    copy_free_buffers(s);
    copy_map_destroy(&s->map);
}
