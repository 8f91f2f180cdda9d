/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compressed clusters: packed and unpacked in worker threads. */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/l2.h"
#include "block/qcow2/alloc.h"
#include "block/qcow2/refcount.h"
#include "block/qcow2/free.h"
#include "block/qcow2/overlap.h"
#include "block/qcow2/data.h"
#include "block/qcow2/image.h"

#include <errno.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

/*
 * zlib's window as a power of two, stored raw (no header): what every reader of the format expects.
 */
#define DEFLATE_WINDOW_BITS (-12)

/* One cluster's way through a worker thread: all of src becomes (a part of) dst. */
typedef struct CodecJob {
    const void *src;
    void *dst;
    size_t src_bytes, dst_bytes;
} CodecJob;

/* --- deflate --- */

static z_stream zlib_stream_of(const CodecJob *job)
{
    return (z_stream){.next_in = (void *)job->src,
                      .avail_in = job->src_bytes,
                      .next_out = job->dst,
                      .avail_out = job->dst_bytes};
}

/* Bytes written to dst, -ENOMEM when they do not fit, -EIO. */
static int zlib_pack(void *opaque)
{
    const CodecJob *job = opaque;
    z_stream strm = zlib_stream_of(job);
    int end;

    if (deflateInit2(&strm, Z_DEFAULT_COMPRESSION, Z_DEFLATED, DEFLATE_WINDOW_BITS, MAX_MEM_LEVEL,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        return -EIO;
    }
    end = deflate(&strm, Z_FINISH);
    deflateEnd(&strm);
    if (end == Z_STREAM_END) {
        return strm.total_out;
    }
    return strm.avail_out == 0 ? -ENOMEM : -EIO;
}

/*
 * 0 when dst was filled, whether or not the stream ends there: the last sector of src may hold the
 * beginning of another cluster.
 */
static int zlib_unpack(void *opaque)
{
    const CodecJob *job = opaque;
    z_stream strm = zlib_stream_of(job);
    bool sound = inflateInit2(&strm, DEFLATE_WINDOW_BITS) == Z_OK;

    if (sound) {
        int end = inflate(&strm, Z_FINISH);

        sound = end == Z_STREAM_END || end == Z_BUF_ERROR;
        inflateEnd(&strm);
    }
    return sound && strm.avail_out == 0 ? 0 : -EIO;
}

/* --- zstd --- */

static int zstd_pack(void *opaque)
{
    const CodecJob *job = opaque;
    size_t packed =
        ZSTD_compress(job->dst, job->dst_bytes, job->src, job->src_bytes, ZSTD_CLEVEL_DEFAULT);

    if (!ZSTD_isError(packed)) {
        return packed;
    }
    return ZSTD_getErrorCode(packed) == ZSTD_error_dstSize_tooSmall ? -ENOMEM : -EIO;
}

/* A cluster is one frame; it is unpacked in place, so that no window has to be allocated. */
static int zstd_unpack(void *opaque)
{
    const CodecJob *job = opaque;
    size_t frame = ZSTD_findFrameCompressedSize(job->src, job->src_bytes);
    size_t got =
        ZSTD_isError(frame) ? frame : ZSTD_decompress(job->dst, job->dst_bytes, job->src, frame);

    return got == job->dst_bytes ? 0 : -EIO;
}

/* --- clusters --- */

typedef struct Codec {
    ThreadPoolFunc *pack;   /* bytes of dst in use, -ENOMEM: they do not fit, -EIO */
    ThreadPoolFunc *unpack; /* 0: dst is full, -EIO */
} Codec;

static const Codec *codec_of(const BDRVQcow2State *s)
{
    static const Codec zlib = {zlib_pack, zlib_unpack}, zstd = {zstd_pack, zstd_unpack};

    return s->header.compression_type == QCOW2_COMPRESSION_ZSTD ? &zstd : &zlib;
}

int coroutine_fn qcow2_co_read_compressed(BlockDriverState *bs, uint64_t entry, uint64_t in_cluster,
                                          uint64_t bytes, QEMUIOVector *qiov, size_t qiov_offset)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t offset, packed;
    g_autofree uint8_t *src = NULL, *dst = NULL;
    int ret;

    qcow2_parse_compressed(s, entry, &offset, &packed);
    src = g_try_malloc(packed);
    dst = g_try_malloc(s->cluster_size);
    if (!src || !dst) {
        return -ENOMEM;
    }
    BLKDBG_CO_EVENT(bs->file, BLKDBG_READ_COMPRESSED);
    ret = bdrv_co_pread(bs->file, offset, packed, src, 0);
    if (ret < 0) {
        return ret;
    }
    CodecJob job = {.src = src, .src_bytes = packed, .dst = dst, .dst_bytes = s->cluster_size};
    ret = thread_pool_submit_co(codec_of(s)->unpack, &job);
    if (ret < 0) {
        return ret;
    }
    qemu_iovec_from_buf(qiov, qiov_offset, dst + in_cluster, bytes);
    return 0;
}

/* Finds room for a packed cluster and enters it into s->allocs. */
static int coroutine_fn co_place(BlockDriverState *bs, uint64_t offset, uint32_t packed,
                                 Qcow2Alloc *alloc, uint64_t *host)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t sectors;
    int ret;

    qemu_co_mutex_lock(&s->lock);
    qcow2_co_wait_allocs(s, offset, s->cluster_size);
    ret = qcow2_co_alloc_bytes(bs, packed, host);
    if (ret == 0) {
        sectors = ((*host + packed - 1) >> 9) - (*host >> 9);
        alloc->compressed = true;
        alloc->compressed_entry = QCOW2_OFLAG_COMPRESSED | sectors << s->compressed_shift | *host;
        alloc->start = offset;
        alloc->nb_clusters = 1;
        qemu_co_queue_init(&alloc->waiters);
        LIST_INSERT_HEAD(&s->allocs, alloc, list);
    }
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

static int coroutine_fn co_write_packed(BlockDriverState *bs, uint64_t offset, const uint8_t *data,
                                        uint32_t packed)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2WritePlan plan = {.allocating = true};
    unsigned epoch = qcow2_request_begin(s);
    uint64_t host;
    int ret = co_place(bs, offset, packed, &plan.alloc, &host);

    if (ret == 0) {
        ret = qcow2_co_check_overlap(bs, 0, host, packed);
        if (ret == 0) {
            BLKDBG_CO_EVENT(bs->file, BLKDBG_WRITE_COMPRESSED);
            ret = bdrv_co_pwrite(s->data_file, host, packed, data, 0);
        }
        ret = qcow2_co_finish_write(bs, &plan, ret);
    }
    qcow2_request_end(s, epoch);
    return ret;
}

static int coroutine_fn co_write_one(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                     QEMUIOVector *qiov, size_t qiov_offset, uint8_t *plain,
                                     uint8_t *packed)
{
    BDRVQcow2State *s = bs->opaque;
    CodecJob job = {.src = plain,
                    .src_bytes = s->cluster_size,
                    .dst = packed,
                    .dst_bytes = s->cluster_size - 1};
    int ret;

    qemu_iovec_to_buf(qiov, qiov_offset, plain, bytes);
    memset(plain + bytes, 0, s->cluster_size - bytes);
    ret = thread_pool_submit_co(codec_of(s)->pack, &job);
    if (ret > 0) {
        uint32_t packed_bytes = ret;

        ret = co_write_packed(bs, offset, packed, packed_bytes);
        if (ret == -ENOSPC && qcow2_co_reclaim(bs)) {
            ret = co_write_packed(bs, offset, packed, packed_bytes);
        }
        return ret;
    }
    if (ret == -ENOMEM) { /* does not get smaller */
        return qcow2_co_write(bs, offset, bytes, qiov, qiov_offset, 0);
    }
    return ret < 0 ? ret : -EIO;
}

int coroutine_fn qcow2_co_write_compressed(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           QEMUIOVector *qiov, size_t qiov_offset)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint8_t *plain = NULL, *packed = NULL;
    int ret;

    if (qcow2_has_data_file(s)) {
        return -ENOTSUP;
    }
    if (qcow2_in_cluster(s, offset) ||
        (qcow2_in_cluster(s, bytes) && offset + bytes != bs->total_bytes)) {
        return -EINVAL;
    }
    plain = g_try_malloc(s->cluster_size);
    packed = g_try_malloc(s->cluster_size);
    if (!plain || !packed) {
        return -ENOMEM;
    }
    ret = qcow2_co_prepare_write(bs);
    while (ret == 0 && bytes > 0) {
        uint64_t n = MIN((uint64_t)bytes, s->cluster_size);
        ret = co_write_one(bs, offset, n, qiov, qiov_offset, plain, packed);
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return ret < 0 ? ret : qcow2_co_throttle_frees(bs);
}
