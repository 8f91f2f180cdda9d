/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The raw format: the bytes of its file as they are, or a window of them (offset, size).
 *
 * A raw image whose format was guessed refuses writes that turn its first block into another
 * format's header. A guest could otherwise make the next start open a host file of its choice as a
 * backing file.
 */
#include "block/raw.h"

#include <errno.h>
#include <string.h>
#include "util/error.h"
#include "util/int-math.h"

/* What a probe looks at, of which a guest may write. */
#define PROBE_BYTES 512

/*
 * The image is a window onto its file: the bytes [start, end) of it. A window with an open end shows
 * all that the file has from start on, and grows and shrinks with it.
 */
typedef struct Window {
    int64_t start, end; /* offsets in the file, bytes */
} Window;

#define OPEN_END INT64_MAX

/* It shows the file from end to end: offsets here and there are the same. */
static bool window_shows_all(const Window *w)
{
    return w->start == 0 && w->end == OPEN_END;
}

/* How much of a file of that length is to be seen. */
static int64_t window_bytes(const Window *w, int64_t file_bytes)
{
    return MAX(MIN(file_bytes, w->end), w->start) - w->start;
}

/* Where in the file byte `offset` of the image lies; -1 when the piece is not all in the window. */
static int64_t window_place(const Window *w, int64_t offset, int64_t bytes)
{
    int64_t room = w->end - w->start;

    return offset <= room && bytes <= room - offset ? w->start + offset : -1;
}

/* --- open --- */

static bool window_init(Window *w, const BlockdevOptionsRaw *o, int64_t file_bytes, GError **errp)
{
    int64_t start = o->has_offset ? o->offset : 0;
    int64_t size = o->has_size ? o->size : 0;

    if (start < 0 || start > file_bytes || size < 0 || size > file_bytes - start) {
        error_setg(
            errp,
            "The sum of offset (%" PRId64 ") and size (%" PRId64
            ") has to be smaller or equal to the actual size of the containing file (%" PRId64 ")",
            start, size, file_bytes);
        return false;
    }
    *w = (Window){.start = start, .end = o->has_size ? start + size : OPEN_END};
    return true;
}

static bool coroutine_fn window_co_open(BlockDriverState *bs, const BlockdevOptions *opts,
                                        int flags, GError **errp)
{
    int64_t file_bytes;

    if (!bdrv_co_open_child(bs, opts->u.raw.file, "file", BDRV_CHILD_PRIMARY | BDRV_CHILD_DATA,
                            errp)) {
        return false;
    }
    file_bytes = bdrv_co_getlength(bs->file->bs);
    if (file_bytes < 0) {
        error_setg_errno(errp, -file_bytes, "Could not get the size of the file below node '%s'",
                         bs->node_name);
        return false;
    }
    bs->supported_read_flags = bs->file->bs->supported_read_flags;
    bdrv_promise_as_below(bs, bs->file->bs);
    return window_init(bs->opaque, &opts->u.raw, file_bytes, errp);
}

static void window_child_perm(BlockDriverState *bs, BdrvChild *child, int role, uint64_t perm,
                              uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    /* A window must stay inside its file: neither this node nor another user resizes the file. */
    uint64_t passed = window_shows_all(bs->opaque) ? BLK_PERM_ALL : BLK_PERM_ALL & ~BLK_PERM_RESIZE;

    *nperm = perm & passed;
    *nshared = shared & passed;
}

/* --- requests --- */

static int coroutine_fn window_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         QEMUIOVector *qiov, size_t qiov_offset,
                                         BdrvRequestFlags flags)
{
    int64_t place = window_place(bs->opaque, offset, bytes);

    if (place < 0) {
        return -EINVAL;
    }
    BLKDBG_CO_EVENT(bs->file, BLKDBG_READ_AIO);
    return bdrv_co_preadv_part(bs->file, place, bytes, qiov, qiov_offset, flags);
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

        if (BDRV_OP(drv, format, bdrv_probe) && drv->format->bdrv_probe(buf, sizeof(buf), "") > 0) {
            return -EPERM;
        }
    }
    return 0;
}

static int coroutine_fn window_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          QEMUIOVector *qiov, size_t qiov_offset,
                                          BdrvRequestFlags flags)
{
    int64_t place = window_place(bs->opaque, offset, bytes);
    int ret = check_first_block(bs, offset, bytes, qiov, qiov_offset);

    if (ret < 0 || place < 0) {
        return ret < 0 ? ret : -ENOSPC;
    }
    BLKDBG_CO_EVENT(bs->file, BLKDBG_WRITE_AIO);
    return bdrv_co_pwritev_part(bs->file, place, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn window_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                BdrvRequestFlags flags)
{
    int64_t place = window_place(bs->opaque, offset, bytes);

    return place < 0 ? -ENOSPC : bdrv_co_pwrite_zeroes(bs->file, place, bytes, flags);
}

static int coroutine_fn window_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t place = window_place(bs->opaque, offset, bytes);

    return place < 0 ? -ENOSPC : bdrv_co_pdiscard(bs->file, place, bytes);
}

static int coroutine_fn window_co_copy_range_from(BlockDriverState *bs, int64_t offset,
                                                  BdrvChild *dst, int64_t dst_offset, int64_t bytes,
                                                  BdrvRequestFlags write_flags)
{
    int64_t place = window_place(bs->opaque, offset, bytes);

    if (place < 0) {
        return -EINVAL;
    }
    return bdrv_co_copy_range_from(bs->file, place, dst, dst_offset, bytes, write_flags);
}

static int coroutine_fn window_co_copy_range_to(BlockDriverState *bs, BdrvChild *src,
                                                int64_t src_offset, int64_t offset, int64_t bytes,
                                                BdrvRequestFlags write_flags)
{
    int64_t place = window_place(bs->opaque, offset, bytes);

    if (place < 0) {
        return -ENOSPC;
    }
    if (bs->probed_raw && offset < PROBE_BYTES) {
        return -ENOTSUP; /* the bytes must be looked at */
    }
    return bdrv_co_copy_range_to(src, src_offset, bs->file, place, bytes, write_flags);
}

static int coroutine_fn window_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                               BdrvBlockStatus *status)
{
    const Window *w = bs->opaque;

    *status = (BdrvBlockStatus){
        .flags = BDRV_BLOCK_RAW, .file = bs->file->bs, .map = w->start + offset, .pnum = bytes};
    return 0;
}

/* --- size and limits --- */

static int64_t coroutine_fn window_co_getlength(BlockDriverState *bs)
{
    int64_t file_bytes = bdrv_co_getlength(bs->file->bs);

    return file_bytes < 0 ? file_bytes : window_bytes(bs->opaque, file_bytes);
}

static bool coroutine_fn window_co_truncate(BlockDriverState *bs, int64_t size, bool exact,
                                            PreallocMode prealloc, BdrvRequestFlags flags,
                                            GError **errp)
{
    const Window *w = bs->opaque;
    int64_t file_bytes;

    if (w->end != OPEN_END) {
        error_setg(errp, "Cannot resize fixed-size raw disks");
    } else if (!add_i64(size, w->start, &file_bytes) || file_bytes > BDRV_MAX_LENGTH) {
        error_setg(errp, "Disk size too large for the chosen offset");
    } else {
        return bdrv_co_truncate(bs->file, file_bytes, exact, prealloc, flags, errp);
    }
    return false;
}

static void window_refresh_limits(BlockDriverState *bs)
{
    const Window *w = bs->opaque;

    if (w->start == 0) {
        /* The file's units begin where the image's do. */
        bs->bl.pdiscard_alignment = bs->file->bs->bl.pdiscard_alignment;
        bs->bl.pwrite_zeroes_alignment = bs->file->bs->bl.pwrite_zeroes_alignment;
    }
    if (bs->probed_raw) {
        bs->bl.request_alignment = PROBE_BYTES;
    }
}

static bool window_has_zero_init(BlockDriverState *bs)
{
    return bdrv_has_zero_init(bs->file->bs);
}

/* A path alone says all about an image that is its whole file. */
static void window_refresh_filename(BlockDriverState *bs)
{
    const char *path = window_shows_all(bs->opaque) ? bs->file->bs->exact_filename : NULL;

    g_free(bs->exact_filename);
    bs->exact_filename = g_strdup(path);
}

const BlockDriver bdrv_raw = {
    .format_name = "raw",
    .driver = BLOCKDEV_DRIVER_RAW,
    .instance_size = sizeof(Window),
    .multi_thread = true,
    .bdrv_co_open = window_co_open,
    .bdrv_child_perm = window_child_perm,
    .bdrv_co_preadv = window_co_preadv,
    .bdrv_co_pwritev = window_co_pwritev,
    .bdrv_co_pwrite_zeroes = window_co_pwrite_zeroes,
    .bdrv_co_pdiscard = window_co_pdiscard,
    .bdrv_co_copy_range_from = window_co_copy_range_from,
    .bdrv_co_copy_range_to = window_co_copy_range_to,
    .bdrv_co_block_status = window_co_block_status,
    .bdrv_co_getlength = window_co_getlength,
    .bdrv_co_truncate = window_co_truncate,
    .bdrv_refresh_limits = window_refresh_limits,
    .bdrv_has_zero_init = window_has_zero_init,
    .bdrv_refresh_filename = window_refresh_filename,
};
