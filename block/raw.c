/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The raw format: the bytes of its file as they are, or a window of them (offset, size).
 *
 * A raw image whose format was guessed refuses to have its first block turned into another format's
 * header: a guest could otherwise make the next start open a host file of its choice as a backing
 * file.
 */
#include "block/raw.h"

#include <errno.h>
#include <string.h>
#include "util/error.h"
#include "util/int-math.h"

/* What a probe looks at, of which a guest may write. */
#define PROBE_BYTES 512

typedef struct BDRVRawState {
    int64_t offset; /* start of the window in the file, bytes */
    int64_t size;   /* bytes; -1: up to the end of the file */
} BDRVRawState;

static bool coroutine_fn raw_co_open(BlockDriverState *bs, const BlockdevOptions *opts, int flags,
                                     GError **errp)
{
    const BlockdevOptionsRaw *o = &opts->u.raw;
    BDRVRawState *s = bs->opaque;
    int64_t file_size;
    int role = BDRV_CHILD_PRIMARY | BDRV_CHILD_DATA;

    if (!bdrv_co_open_child(bs, o->file, "file", role, errp)) {
        return false;
    }
    s->offset = o->has_offset ? o->offset : 0;
    s->size = o->has_size ? (int64_t)o->size : -1;
    file_size = bdrv_co_getlength(bs->file->bs);
    if (file_size < 0) {
        error_setg_errno(errp, -file_size, "Could not get the size of the file below node '%s'",
                         bs->node_name);
        return false;
    }
    if ((o->has_offset && o->offset > file_size) ||
        (o->has_size && (o->size < 0 || o->size > file_size - s->offset))) {
        error_setg(
            errp,
            "The sum of offset (%" PRId64 ") and size (%" PRId64
            ") has to be smaller or equal to the actual size of the containing file (%" PRId64 ")",
            s->offset, MAX(s->size, 0), file_size);
        return false;
    }
    bs->supported_read_flags = bs->file->bs->supported_read_flags;
    bs->supported_write_flags =
        BDRV_REQ_WRITE_UNCHANGED | (BDRV_REQ_FUA & bs->file->bs->supported_write_flags);
    bs->supported_zero_flags =
        BDRV_REQ_WRITE_UNCHANGED | ((BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK) &
                                    bs->file->bs->supported_zero_flags);
    return true;
}

static void raw_child_perm(BlockDriverState *bs, BdrvChild *child, int role, uint64_t perm,
                           uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    const BDRVRawState *s = bs->opaque;

    *nperm = perm;
    *nshared = shared;
    if (s->offset || s->size != -1) {
        /* The window must stay inside the file, and the file around it is not ours to resize. */
        *nperm &= ~(uint64_t)BLK_PERM_RESIZE;
        *nshared &= ~(uint64_t)BLK_PERM_RESIZE;
    }
}

/* Translates a request into the file's offsets; -EINVAL/-ENOSPC when it leaves the window. */
static int translate(const BDRVRawState *s, int64_t *offset, int64_t bytes, bool is_write)
{
    if (s->size != -1 && (*offset > s->size || bytes > s->size - *offset)) {
        return is_write ? -ENOSPC : -EINVAL;
    }
    if (*offset > INT64_MAX - s->offset) {
        return -EINVAL;
    }
    *offset += s->offset;
    return 0;
}

static int coroutine_fn raw_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags)
{
    int ret = translate(bs->opaque, &offset, bytes, false);

    if (ret < 0) {
        return ret;
    }
    BLKDBG_CO_EVENT(bs->file, BLKDBG_READ_AIO);
    return bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

/* -EPERM when the write would make the guessed-raw image look like something else. */
static int check_first_block(BlockDriverState *bs, int64_t offset, int64_t bytes,
                             const QEMUIOVector *qiov, size_t qiov_offset)
{
    uint8_t buf[PROBE_BYTES] = {0};

    if (!bs->probed_raw || offset >= PROBE_BYTES || bytes == 0) {
        return 0;
    }
    qemu_iovec_to_buf(qiov, qiov_offset, buf + offset, MIN(bytes, PROBE_BYTES - offset));
    for (int i = 0; bdrv_drivers[i]; i++) {
        const BlockDriver *drv = bdrv_drivers[i];

        if (drv->bdrv_probe && drv->bdrv_probe(buf, sizeof(buf), "") > 0) {
            return -EPERM;
        }
    }
    return 0;
}

static int coroutine_fn raw_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, size_t qiov_offset,
                                       BdrvRequestFlags flags)
{
    int ret = check_first_block(bs, offset, bytes, qiov, qiov_offset);

    ret = ret ? ret : translate(bs->opaque, &offset, bytes, true);
    if (ret < 0) {
        return ret;
    }
    BLKDBG_CO_EVENT(bs->file, BLKDBG_WRITE_AIO);
    return bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn raw_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             BdrvRequestFlags flags)
{
    int ret = translate(bs->opaque, &offset, bytes, true);

    return ret < 0 ? ret : bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
}

static int coroutine_fn raw_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int ret = translate(bs->opaque, &offset, bytes, true);

    return ret < 0 ? ret : bdrv_co_pdiscard(bs->file, offset, bytes);
}

static int coroutine_fn raw_co_copy_range_from(BlockDriverState *bs, int64_t offset, BdrvChild *dst,
                                               int64_t dst_offset, int64_t bytes,
                                               BdrvRequestFlags write_flags)
{
    int ret = translate(bs->opaque, &offset, bytes, false);

    return ret < 0 ? ret
                   : bdrv_co_copy_range_from(bs->file, offset, dst, dst_offset, bytes, write_flags);
}

static int coroutine_fn raw_co_copy_range_to(BlockDriverState *bs, BdrvChild *src,
                                             int64_t src_offset, int64_t offset, int64_t bytes,
                                             BdrvRequestFlags write_flags)
{
    int ret;

    if (bs->probed_raw && offset < PROBE_BYTES) {
        return -ENOTSUP; /* the bytes must be looked at */
    }
    ret = translate(bs->opaque, &offset, bytes, true);
    return ret < 0 ? ret
                   : bdrv_co_copy_range_to(src, src_offset, bs->file, offset, bytes, write_flags);
}

static int coroutine_fn raw_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            BdrvBlockStatus *status)
{
    const BDRVRawState *s = bs->opaque;

    status->flags = BDRV_BLOCK_RAW;
    status->pnum = bytes;
    status->map = offset + s->offset;
    status->file = bs->file->bs;
    return 0;
}

static int64_t coroutine_fn raw_co_getlength(BlockDriverState *bs)
{
    const BDRVRawState *s = bs->opaque;
    int64_t len = bdrv_co_getlength(bs->file->bs);

    if (len < 0) {
        return len;
    }
    if (len < s->offset) {
        return 0;
    }
    len -= s->offset;
    return s->size == -1 ? len : MIN(len, s->size);
}

static bool coroutine_fn raw_co_truncate(BlockDriverState *bs, int64_t size, bool exact,
                                         PreallocMode prealloc, BdrvRequestFlags flags,
                                         GError **errp)
{
    const BDRVRawState *s = bs->opaque;

    if (s->size != -1) {
        error_setg(errp, "Cannot resize fixed-size raw disks");
        return false;
    }
    if (size > BDRV_MAX_LENGTH - s->offset) {
        error_setg(errp, "Disk size too large for the chosen offset");
        return false;
    }
    return bdrv_co_truncate(bs->file, size + s->offset, exact, prealloc, flags, errp);
}

static void raw_refresh_limits(BlockDriverState *bs)
{
    const BDRVRawState *s = bs->opaque;
    const BlockLimits *below = &bs->file->bs->bl;

    if (bs->probed_raw) {
        bs->bl.request_alignment = PROBE_BYTES;
    }
    if (s->offset == 0) {
        bs->bl.pwrite_zeroes_alignment = below->pwrite_zeroes_alignment;
        bs->bl.pdiscard_alignment = below->pdiscard_alignment;
    }
}

static bool raw_has_zero_init(BlockDriverState *bs)
{
    return bdrv_has_zero_init(bs->file->bs);
}

static void raw_refresh_filename(BlockDriverState *bs)
{
    const BDRVRawState *s = bs->opaque;

    g_free(bs->exact_filename);
    bs->exact_filename = s->offset || s->size != -1 ? NULL : g_strdup(bs->file->bs->exact_filename);
}

const BlockDriver bdrv_raw = {
    .format_name = "raw",
    .driver = BLOCKDEV_DRIVER_RAW,
    .instance_size = sizeof(BDRVRawState),
    .bdrv_co_open = raw_co_open,
    .bdrv_child_perm = raw_child_perm,
    .bdrv_co_preadv = raw_co_preadv,
    .bdrv_co_pwritev = raw_co_pwritev,
    .bdrv_co_pwrite_zeroes = raw_co_pwrite_zeroes,
    .bdrv_co_pdiscard = raw_co_pdiscard,
    .bdrv_co_copy_range_from = raw_co_copy_range_from,
    .bdrv_co_copy_range_to = raw_co_copy_range_to,
    .bdrv_co_block_status = raw_co_block_status,
    .bdrv_co_getlength = raw_co_getlength,
    .bdrv_co_truncate = raw_co_truncate,
    .bdrv_refresh_limits = raw_refresh_limits,
    .bdrv_has_zero_init = raw_has_zero_init,
    .bdrv_refresh_filename = raw_refresh_filename,
};
