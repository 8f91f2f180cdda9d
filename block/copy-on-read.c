/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copy-on-read driver: what a read gets from a backing file is written into the image below, so
 * that the next read finds it there.
 *
 * A copy reads, looks whether the image still lacks the range, and writes. It holds the exclusive
 * side of a lock meanwhile, and every guest write takes the shared side. So a guest write comes
 * before the look or after the copy, and is never overwritten.
 */
#include "block/copy-on-read.h"

#include <errno.h>
#include <string.h>
#include "util/error.h"
#include "util/int-math.h"

/* A populated piece is at most this long, bytes. */
#define COR_MAX_BYTES (1024 * 1024)

typedef struct BDRVCorState {
    /* the last node to copy from, referenced; NULL: the end of the chain */
    BlockDriverState *bottom;
    CoRwlock lock; /* copies exclude writes (and each other) */
} BDRVCorState;

/* In the main thread. */
static bool take_bottom(BlockDriverState *bs, const char *name, GError **errp)
{
    BDRVCorState *s = bs->opaque;
    BlockDriverState *bottom = bdrv_lookup_bs(NULL, name, errp);

    if (!bottom) {
        g_prefix_error(errp, "Bottom node '%s' not found: ", name);
        return false;
    }
    if (!bdrv_chain_contains(bs->file->bs, bottom)) {
        error_setg(errp, "Node '%s' is not in a backing chain of '%s'", name, bs->node_name);
        return false;
    }
    if (bdrv_filter_bs(bottom)) {
        error_setg(errp, "Bottom node '%s' is a filter", name);
        return false;
    }
    bdrv_ref(bottom);
    s->bottom = bottom;
    return true;
}

static bool coroutine_fn populating_co_open(BlockDriverState *bs, const BlockdevOptions *opts,
                                            int flags, GError **errp)
{
    const BlockdevOptionsCor *o = &opts->u.copy_on_read;
    BDRVCorState *s = bs->opaque;

    if (!bdrv_co_open_child(bs, o->file, "file", BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, errp)) {
        return false;
    }
    if (o->bottom) {
        aio_co_reschedule_self(qemu_get_aio_context());
        if (!take_bottom(bs, o->bottom, errp)) {
            return false;
        }
        aio_co_reschedule_self(bdrv_get_aio_context(bs));
    }
    qemu_co_rwlock_init(&s->lock);
    bs->supported_read_flags = BDRV_REQ_PREFETCH;
    bdrv_promise_as_below(bs, bs->file->bs);
    return true;
}

static void coroutine_fn populating_co_close(BlockDriverState *bs)
{
    BDRVCorState *s = bs->opaque;

    qemu_co_rwlock_destroy(&s->lock);
    bdrv_unref_later(s->bottom);
}

static void populating_child_perm(BlockDriverState *bs, BdrvChild *child, int role, uint64_t perm,
                                  uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    *nperm = perm;
    *nshared = shared;
    if (!bdrv_is_read_only(bs) || (perm & BLK_PERM_CONSISTENT_READ)) {
        *nperm |= BLK_PERM_WRITE_UNCHANGED;
    }
}

/*
 * 1 when the contents come from above `bottom` and not from the image itself, 0 when there is
 * nothing to copy; *pnum as block status.
 */
static int coroutine_fn wants_copy(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                   int64_t *pnum)
{
    BDRVCorState *s = bs->opaque;
    BlockDriverState *image = bdrv_skip_filters(bs);
    BlockDriverState *below, *base = NULL;
    BdrvBlockStatus st;
    int ret = bdrv_co_is_allocated(image, offset, bytes, pnum);

    if (ret != 0 || *pnum == 0) {
        return ret < 0 ? ret : 0;
    }
    below = bdrv_cow_bs(image);
    if (!below) {
        return 0;
    }
    if (s->bottom) {
        base = bdrv_filter_bs(s->bottom) ? bdrv_filter_bs(s->bottom) : bdrv_cow_bs(s->bottom);
    }
    ret = bdrv_co_block_status_above(below, base, offset, *pnum, &st);
    if (ret < 0) {
        return ret;
    }
    if (st.pnum > 0) {
        *pnum = MIN(*pnum, st.pnum);
    }
    return !!(st.flags & BDRV_BLOCK_ALLOCATED);
}

/* Reads a piece through the chain and writes it into the image; `buf` holds it on return. */
static int coroutine_fn populate(BlockDriverState *bs, int64_t offset, int64_t bytes, void *buf)
{
    BDRVCorState *s = bs->opaque;
    int64_t pnum;
    int ret;

    qemu_co_rwlock_wrlock(&s->lock);
    ret = bdrv_co_pread(bs->file, offset, bytes, buf, 0);
    if (ret == 0) {
        ret = wants_copy(bs, offset, bytes, &pnum);
        if (ret > 0) {
            BLKDBG_CO_EVENT(bs->file, BLKDBG_COR_WRITE);
            ret = bdrv_co_pwrite(bs->file, offset, MIN(bytes, pnum), buf, BDRV_REQ_WRITE_UNCHANGED);
        }
    }
    qemu_co_rwlock_unlock(&s->lock);
    return ret;
}

static int coroutine_fn copy_piece(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                   QEMUIOVector *qiov, size_t qiov_offset)
{
    void *buf = qemu_try_blockalign(bs, bytes);
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    ret = populate(bs, offset, bytes, buf);
    if (ret == 0 && qiov) {
        qemu_iovec_from_buf(qiov, qiov_offset, buf, bytes);
    }
    qemu_vfree(buf);
    return ret;
}

static int coroutine_fn populating_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             QEMUIOVector *qiov, size_t qiov_offset,
                                             BdrvRequestFlags flags)
{
    while (bytes > 0) {
        int64_t n = bytes;
        int ret = bdrv_is_read_only(bs) ? 0 : wants_copy(bs, offset, bytes, &n);

        if (ret > 0) {
            n = MIN(n, COR_MAX_BYTES);
            ret = copy_piece(bs, offset, n, qiov, qiov_offset);
        } else if (ret == 0) {
            n = n ? MIN(n, bytes) : bytes;
            ret = qiov ? bdrv_co_preadv_part(bs->file, offset, n, qiov, qiov_offset, 0) : 0;
        }
        if (ret < 0) {
            return ret;
        }
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return 0;
}

static int coroutine_fn populating_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                              QEMUIOVector *qiov, size_t qiov_offset,
                                              BdrvRequestFlags flags)
{
    BDRVCorState *s = bs->opaque;
    int ret;

    qemu_co_rwlock_rdlock(&s->lock);
    ret = bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
    qemu_co_rwlock_unlock(&s->lock);
    return ret;
}

static int coroutine_fn populating_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                    int64_t bytes, BdrvRequestFlags flags)
{
    BDRVCorState *s = bs->opaque;
    int ret;

    qemu_co_rwlock_rdlock(&s->lock);
    ret = bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
    qemu_co_rwlock_unlock(&s->lock);
    return ret;
}

static int coroutine_fn populating_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVCorState *s = bs->opaque;
    int ret;

    qemu_co_rwlock_rdlock(&s->lock);
    ret = bdrv_co_pdiscard(bs->file, offset, bytes);
    qemu_co_rwlock_unlock(&s->lock);
    return ret;
}

const BlockDriver bdrv_copy_on_read = {
    .format_name = "copy-on-read",
    .driver = BLOCKDEV_DRIVER_COPY_ON_READ,
    .instance_size = sizeof(BDRVCorState),
    .is_filter = true,
    .bdrv_co_open = populating_co_open,
    .bdrv_co_close = populating_co_close,
    .bdrv_child_perm = populating_child_perm,
    .bdrv_co_preadv = populating_co_preadv,
    .bdrv_co_pwritev = populating_co_pwritev,
    .bdrv_co_pwrite_zeroes = populating_co_pwrite_zeroes,
    .bdrv_co_pdiscard = populating_co_pdiscard,
};
