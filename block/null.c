/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * null-co and null-aio: a disk that swallows writes and reads as one byte over and over, or as
 * zeroes; with a latency if asked for. Buffers are always filled: a reader must not see what was in
 * memory before.
 */
#include "block/null.h"

#include "util/error.h"

#define NULL_DEFAULT_BYTES (1ll << 30)
/* Not zero, so that it is copied as data is. */
#define NULL_PATTERN 0xa5

typedef struct BDRVNullState {
    int64_t size;       /* bytes */
    int64_t latency_ns; /* of every request */
    bool read_zeroes;
} BDRVNullState;

static bool coroutine_fn blank_co_open(BlockDriverState *bs, const BlockdevOptions *opts, int flags,
                                       GError **errp)
{
    const BlockdevOptionsNull *o =
        opts->driver == BLOCKDEV_DRIVER_NULL_CO ? &opts->u.null_co : &opts->u.null_aio;
    BDRVNullState *s = bs->opaque;

    s->size = o->has_size ? o->size : NULL_DEFAULT_BYTES;
    s->read_zeroes = o->has_read_zeroes && o->read_zeroes;
    if (s->size < 0 || s->size > BDRV_MAX_LENGTH) {
        error_setg(errp, "size %" PRId64 " is out of range", s->size);
        return false;
    }
    if (o->has_latency_ns && o->latency_ns > INT64_MAX / 2) {
        error_setg(errp, "latency-ns is invalid");
        return false;
    }
    s->latency_ns = o->has_latency_ns ? o->latency_ns : 0;
    bs->supported_write_flags = BDRV_REQ_FUA;
    bs->supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    return true;
}

static int coroutine_fn blank_co_wait(BlockDriverState *bs)
{
    BDRVNullState *s = bs->opaque;

    if (s->latency_ns) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, s->latency_ns);
    } else if (bs->drv == &bdrv_null_aio) {
        qemu_co_yield_to_loop(); /* as a device that answers later, if only a little */
    }
    return 0;
}

static int coroutine_fn blank_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        QEMUIOVector *qiov, size_t qiov_offset,
                                        BdrvRequestFlags flags)
{
    BDRVNullState *s = bs->opaque;

    qemu_iovec_memset(qiov, qiov_offset, s->read_zeroes ? 0 : NULL_PATTERN, bytes);
    return blank_co_wait(bs);
}

static int coroutine_fn blank_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         QEMUIOVector *qiov, size_t qiov_offset,
                                         BdrvRequestFlags flags)
{
    return blank_co_wait(bs);
}

static int coroutine_fn blank_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                               BdrvRequestFlags flags)
{
    return blank_co_wait(bs);
}

static int coroutine_fn blank_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return blank_co_wait(bs);
}

static int coroutine_fn blank_co_flush(BlockDriverState *bs)
{
    return blank_co_wait(bs);
}

static int coroutine_fn blank_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                              BdrvBlockStatus *status)
{
    BDRVNullState *s = bs->opaque;

    status->flags = BDRV_BLOCK_OFFSET_VALID | (s->read_zeroes ? BDRV_BLOCK_ZERO : BDRV_BLOCK_DATA);
    status->pnum = bytes;
    status->map = offset;
    status->file = bs;
    return 0;
}

static int64_t coroutine_fn blank_co_getlength(BlockDriverState *bs)
{
    BDRVNullState *s = bs->opaque;

    return s->size;
}

static int64_t coroutine_fn blank_co_get_allocated_file_size(BlockDriverState *bs)
{
    return 0;
}

static void blank_refresh_filename(BlockDriverState *bs)
{
    g_free(bs->exact_filename);
    bs->exact_filename = g_strdup_printf("%s://", bs->drv->format_name);
}

/* "null-co://": such names say nothing but the driver. */
static bool blank_parse_filename(const char *filename, BlockdevOptions *o, GError **errp)
{
    if (!g_str_has_suffix(filename, "://")) {
        error_setg(errp, "The only allowed filename for this driver is '%s://'",
                   BlockdevDriver_str(o->driver));
        return false;
    }
    return true;
}

#define NULL_DRIVER_COMMON                                                                       \
    .instance_size = sizeof(BDRVNullState), .multi_thread = true, .bdrv_co_open = blank_co_open, \
    .bdrv_co_preadv = blank_co_preadv, .bdrv_co_pwritev = blank_co_pwritev,                      \
    .bdrv_co_pwrite_zeroes = blank_co_pwrite_zeroes, .bdrv_co_pdiscard = blank_co_pdiscard,      \
    .bdrv_co_flush_to_disk = blank_co_flush, .bdrv_co_block_status = blank_co_block_status,      \
    .bdrv_co_getlength = blank_co_getlength,                                                     \
    .bdrv_co_get_allocated_file_size = blank_co_get_allocated_file_size,                         \
    .bdrv_refresh_filename = blank_refresh_filename

static const BlockProtocolOps null_co_protocol = {
    .filename_prefixes = (const char *const[]){"null-co:", NULL},
    .bdrv_parse_filename = blank_parse_filename,
};

const BlockDriver bdrv_null_co = {
    .format_name = "null-co",
    .protocol = &null_co_protocol,
    .driver = BLOCKDEV_DRIVER_NULL_CO,
    NULL_DRIVER_COMMON,
};

static const BlockProtocolOps null_aio_protocol = {
    .filename_prefixes = (const char *const[]){"null-aio:", NULL},
    .bdrv_parse_filename = blank_parse_filename,
};

const BlockDriver bdrv_null_aio = {
    .format_name = "null-aio",
    .protocol = &null_aio_protocol,
    .driver = BLOCKDEV_DRIVER_NULL_AIO,
    NULL_DRIVER_COMMON,
};
