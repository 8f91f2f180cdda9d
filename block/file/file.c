/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file and host_device drivers: open, reads, writes, zeroes, discard, flush.
 *
 * Requests go to io_uring or to worker threads (option aio). After a failed flush every later flush
 * fails too: the kernel may have dropped the pages it could not write, so a later
 * success would prove nothing.
 */
#include "block/file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "trace/trace-block.h"
#include "util/error.h"
#include "util/int-math.h"
#include "util/open.h"

/* --- open and close --- */

static bool check_file_type(BlockDriverState *bs, int fd, GError **errp)
{
    BDRVFileState *s = bs->opaque;
    struct stat st;

    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "Could not stat '%s'", s->filename);
        return false;
    }
    s->is_device = S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode);
    if (bs->drv == &bdrv_file && !S_ISREG(st.st_mode)) {
        error_setg(errp, "'file' driver requires '%s' to be a regular file", s->filename);
        return false;
    }
    if (bs->drv == &bdrv_host_device && !s->is_device) {
        error_setg(errp,
                   "'host_device' driver requires '%s' to be either a character or block device",
                   s->filename);
        return false;
    }
    return true;
}

static bool setup_locking(BDRVFileState *s, const BlockdevOptionsFile *o, GError **errp)
{
    OnOffAuto locking = o->has_locking ? o->locking : ON_OFF_AUTO_AUTO;

    s->use_locks = locking != ON_OFF_AUTO_OFF && !s->is_device && file_lock_supported(s->fd);
    if (locking == ON_OFF_AUTO_ON && !s->use_locks) {
        error_setg(errp,
                   "'%s' cannot be locked: its file system has no open file description locks",
                   s->filename);
        return false;
    }
    return true;
}

void file_probe_abilities(BlockDriverState *bs)
{
    BDRVFileState *s = bs->opaque;

    s->has_write_zeroes = true;
    s->has_discard = true;
    s->has_seek_data = !s->is_device;
    file_probe_fs(s);
    file_probe_alignment(bs);
    s->small_reads_by_ring = s->engine == AIO_DISK_THREADS && !s->aio_chosen;
    s->small_inline = s->small_inline && s->small_reads_by_ring;
    /*
     * In the page cache, a write with RWF_DSYNC may answer with the error of an older write, which
     * the next fdatasync(2) then does not tell again. There a flush follows the write instead.
     */
    bs->supported_write_flags = (bs->open_flags & BDRV_O_NOCACHE) ? BDRV_REQ_FUA : 0;
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
}

static bool coroutine_fn file_co_open(BlockDriverState *bs, const BlockdevOptions *opts, int flags,
                                      GError **errp)
{
    const BlockdevOptionsFile *o = bs->drv == &bdrv_file ? &opts->u.file : &opts->u.host_device;
    BDRVFileState *s = bs->opaque;

    s->filename = g_strdup(o->filename);
    pthread_mutex_init(&s->copy_turn, NULL);
    sem_init(&s->copy_processors, 0, g_get_num_processors());
    file_large_init(&s->large);
    s->spare_fd = -1;
    s->fd = file_open_image(bs, errp);
    if (s->fd < 0) {
        goto fail;
    }
    s->engine = (bs->open_flags & BDRV_O_NOCACHE) ? AIO_DISK_IO_URING : AIO_DISK_THREADS;
    s->aio_chosen = o->has_aio;
    if (o->has_aio) {
        s->engine = o->aio == BLOCKDEV_AIO_OPTIONS_THREADS ? AIO_DISK_THREADS : AIO_DISK_IO_URING;
        if (o->aio == BLOCKDEV_AIO_OPTIONS_NATIVE && !(bs->open_flags & BDRV_O_NOCACHE)) {
            error_setg(errp,
                       "aio=native was specified, but it requires cache.direct=on, which was not "
                       "specified.");
            goto fail;
        }
    }
    if (!check_file_type(bs, s->fd, errp) || !setup_locking(s, o, errp)) {
        goto fail;
    }
    file_probe_abilities(bs);
    return true;

fail:
    if (s->fd >= 0) {
        qemu_close(s->fd);
    }
    g_free(s->filename);
    pthread_mutex_destroy(&s->copy_turn);
    sem_destroy(&s->copy_processors);
    file_large_destroy(&s->large);
    return false;
}

static void coroutine_fn file_co_close(BlockDriverState *bs)
{
    BDRVFileState *s = bs->opaque;

    qemu_close(s->fd); /* drops the locks */
    if (bs->open_flags & BDRV_O_TEMPORARY) {
        unlink(s->filename);
    }
    g_free(s->filename);
    pthread_mutex_destroy(&s->copy_turn);
    sem_destroy(&s->copy_processors);
    file_large_destroy(&s->large);
}

static void file_refresh_limits(BlockDriverState *bs)
{
    BDRVFileState *s = bs->opaque;

    bs->bl.request_alignment = s->request_align;
    bs->bl.min_mem_alignment = s->buf_align;
}

static void file_refresh_filename(BlockDriverState *bs)
{
    BDRVFileState *s = bs->opaque;

    g_free(bs->exact_filename);
    bs->exact_filename = g_strdup(s->filename);
}

/* --- reads and writes --- */

static bool needs_bounce(BDRVFileState *s, const QEMUIOVector *qiov)
{
    return s->vector_align > 1 && !qemu_iovec_is_aligned(qiov, s->vector_align);
}

/*
 * Largest request whose copy to or from the page cache is done in the loop's thread. Waking a
 * worker would take longer, and the copy is too short to hold up the loop.
 */
#define SMALL_REQUEST_BYTES (64 * 1024)

/* One read, in the way that suits its size; bytes or -errno. */
static ssize_t coroutine_fn read_once(BDRVFileState *s, const struct iovec *iov, int niov,
                                      size_t bytes, int64_t offset)
{
    AioDiskEngine engine = s->engine;

    if (bytes <= SMALL_REQUEST_BYTES && s->small_inline) {
        ssize_t n = preadv(s->fd, iov, niov, offset);

        return n < 0 ? -errno : n;
    }
    if (bytes <= SMALL_REQUEST_BYTES && s->small_reads_by_ring) {
        engine = AIO_DISK_IO_URING;
    }
    return aio_co_preadv(engine, s->fd, iov, niov, offset);
}

static ssize_t coroutine_fn write_once(BDRVFileState *s, const struct iovec *iov, int niov,
                                       size_t bytes, int64_t offset, bool fua)
{
    if (bytes <= SMALL_REQUEST_BYTES && s->small_inline) {
        ssize_t n = pwritev(s->fd, iov, niov,
                            offset); /* nothing to make durable: the file lives in memory */

        return n < 0 ? -errno : n;
    }
    return aio_co_pwritev(s->engine, s->fd, iov, niov, offset, fua);
}

/* Reads all of the vector; what lies past the end of the file is zeroes. */
static int coroutine_fn read_whole(BDRVFileState *s, int64_t offset, QEMUIOVector *qiov)
{
    size_t done = 0;

    while (done < qiov->size) {
        QEMUIOVector rest;
        ssize_t n;

        if (done == 0) {
            n = read_once(s, qiov->iov, qiov->niov, qiov->size, offset);
        } else {
            qemu_iovec_init_slice(&rest, qiov, done, qiov->size - done);
            n = read_once(s, rest.iov, rest.niov, rest.size, offset + done);
            qemu_iovec_destroy(&rest);
        }
        if (n == -EINTR) {
            continue;
        }
        if (n < 0) {
            return n;
        }
        if (n == 0 || (s->request_align > 1 && (n & (s->request_align - 1)))) {
            qemu_iovec_memset(qiov, done + n, 0, qiov->size - done - n);
            return 0;
        }
        done += n;
    }
    return 0;
}

static int coroutine_fn write_whole(BDRVFileState *s, int64_t offset, QEMUIOVector *qiov, bool fua)
{
    size_t done = 0;

    while (done < qiov->size) {
        QEMUIOVector rest;
        ssize_t n;

        if (done == 0) {
            n = write_once(s, qiov->iov, qiov->niov, qiov->size, offset, fua);
        } else {
            qemu_iovec_init_slice(&rest, qiov, done, qiov->size - done);
            n = write_once(s, rest.iov, rest.niov, rest.size, offset + done, fua);
            qemu_iovec_destroy(&rest);
        }
        if (n == -EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? n : -ENOSPC;
        }
        done += n;
    }
    return 0;
}

/*
 * The vector for the request: the caller's own when it is exactly that, else a view of part of it.
 */
static QEMUIOVector *request_vector(QEMUIOVector *qiov, size_t qiov_offset, int64_t bytes,
                                    QEMUIOVector *slice)
{
    if (qiov_offset == 0 && qiov->size == (size_t)bytes) {
        return qiov;
    }
    qemu_iovec_init_slice(slice, qiov, qiov_offset, bytes);
    return slice;
}

static int coroutine_fn file_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, size_t qiov_offset,
                                       BdrvRequestFlags flags)
{
    BDRVFileState *s = bs->opaque;
    QEMUIOVector slice, flat, *vec = request_vector(qiov, qiov_offset, bytes, &slice);
    int ret;

    if (needs_bounce(s, vec)) {
        void *buf = qemu_try_blockalign(bs, bytes);

        ret = -ENOMEM;
        if (buf) {
            qemu_iovec_init_buf(&flat, buf, bytes);
            ret = read_whole(s, offset, &flat);
            if (ret == 0) {
                qemu_iovec_from_buf(vec, 0, buf, bytes);
            }
            qemu_vfree(buf);
        }
    } else {
        ret = read_whole(s, offset, vec);
    }
    if (vec == &slice) {
        qemu_iovec_destroy(&slice);
    }
    return ret;
}

static int coroutine_fn file_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        QEMUIOVector *qiov, size_t qiov_offset,
                                        BdrvRequestFlags flags)
{
    BDRVFileState *s = bs->opaque;
    QEMUIOVector slice, flat, *vec = request_vector(qiov, qiov_offset, bytes, &slice);
    bool fua = (flags & BDRV_REQ_FUA) && !(bs->open_flags & BDRV_O_NO_FLUSH);
    int ret;

    file_extent_note(bs, offset, bytes, true);
    if (needs_bounce(s, vec)) {
        void *buf = qemu_try_blockalign(bs, bytes);

        ret = -ENOMEM;
        if (buf) {
            qemu_iovec_to_buf(vec, 0, buf, bytes);
            qemu_iovec_init_buf(&flat, buf, bytes);
            ret = write_whole(s, offset, &flat, fua);
            qemu_vfree(buf);
        }
    } else {
        ret = write_whole(s, offset, vec, fua);
    }
    file_extent_note(bs, offset, bytes, true);
    if (vec == &slice) {
        qemu_iovec_destroy(&slice);
    }
    return ret;
}

/* --- zeroes and discard --- */

typedef struct RangeJob {
    BDRVFileState *s;
    int64_t offset, bytes;
    bool may_unmap;
} RangeJob;

/* An ability that workers look at, and of which one of them may find that it is lacking. */
static bool is_able(const bool *ability)
{
    return __atomic_load_n(ability, __ATOMIC_RELAXED);
}

static void now_unable(bool *ability)
{
    __atomic_store_n(ability, false, __ATOMIC_RELAXED);
}

static int fallocate_once(int fd, int mode, int64_t offset, int64_t bytes)
{
    int ret;

    do {
        ret = fallocate(fd, mode, offset, bytes);
    } while (ret < 0 && errno == EINTR);
    if (ret == 0) {
        return 0;
    }
    return errno == EOPNOTSUPP || errno == ENOSYS || errno == ENODEV || errno == EINVAL ? -ENOTSUP
                                                                                        : -errno;
}

static int punch_hole(BDRVFileState *s, int64_t offset, int64_t bytes)
{
    int ret = -ENOTSUP;

    if (is_able(&s->has_discard)) {
        ret = fallocate_once(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
        if (ret == -ENOTSUP) {
            now_unable(&s->has_discard);
        }
    }
    return ret;
}

/*
 * Makes a file as long as the range needs, as a hole at its end is to be one. Other requests make it
 * longer at the same time, so its size is not set: a block at the end of the range is allocated.
 */
static int grow_for(const RangeJob *job)
{
    int64_t end = job->offset + job->bytes;
    struct stat st;

    if (job->s->is_device) {
        return 0;
    }
    if (fstat(job->s->fd, &st) < 0) {
        return -errno;
    }
    return end <= st.st_size ? 0 : fallocate_once(job->s->fd, 0, end - 1, 1);
}

static int write_zeroes_worker(void *opaque)
{
    RangeJob *job = opaque;
    BDRVFileState *s = job->s;
    int ret;

    if (job->may_unmap) {
        ret = grow_for(job);
        ret = ret < 0 ? ret : punch_hole(s, job->offset, job->bytes);
        if (ret != -ENOTSUP) {
            return ret;
        }
    }
    if (is_able(&s->has_write_zeroes)) {
        ret = fallocate_once(s->fd, FALLOC_FL_ZERO_RANGE, job->offset, job->bytes);
        if (ret != -ENOTSUP) {
            return ret;
        }
        now_unable(&s->has_write_zeroes);
    }
    if (s->is_device) {
        return -ENOTSUP;
    }
    /* Allocated zeroes in two steps where the file system knows only these. */
    ret = punch_hole(s, job->offset, job->bytes);
    if (ret == 0) {
        ret = fallocate_once(s->fd, 0, job->offset, job->bytes);
    }
    return ret;
}

static int discard_worker(void *opaque)
{
    RangeJob *job = opaque;

    return punch_hole(job->s, job->offset, job->bytes);
}

static int coroutine_fn range_job_co(BlockDriverState *bs, ThreadPoolFunc *func, int64_t offset,
                                     int64_t bytes, bool may_unmap)
{
    BDRVFileState *s = bs->opaque;
    RangeJob job = {.s = s, .offset = offset, .bytes = bytes, .may_unmap = may_unmap};
    int ret;

    file_extent_note(bs, offset, bytes, false);
    ret = thread_pool_submit_file_co(s->fd, func, &job);
    file_extent_note(bs, offset, bytes, false);
    return ret;
}

static int coroutine_fn file_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                              BdrvRequestFlags flags)
{
    return range_job_co(bs, write_zeroes_worker, offset, bytes, flags & BDRV_REQ_MAY_UNMAP);
}

static int coroutine_fn file_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVFileState *s = bs->opaque;

    if (!is_able(&s->has_discard)) {
        return -ENOTSUP;
    }
    return range_job_co(bs, discard_worker, offset, bytes, true);
}

/* --- flush and size --- */

static int coroutine_fn file_co_flush_to_disk(BlockDriverState *bs)
{
    BDRVFileState *s = bs->opaque;
    int ret;

    if (s->flush_error) {
        return s->flush_error;
    }
    ret = aio_co_fdatasync(AIO_DISK_THREADS, s->fd);
    if (ret < 0) {
        trace_file_flush_failed(s->filename, ret);
        if (!(bs->open_flags & BDRV_O_NOCACHE)) {
            s->flush_error = ret;
        }
    }
    return ret;
}

static int64_t coroutine_fn file_co_getlength(BlockDriverState *bs)
{
    BDRVFileState *s = bs->opaque;
    struct stat st;
    uint64_t bytes;

    if (s->is_device && ioctl(s->fd, BLKGETSIZE64, &bytes) == 0) {
        return bytes > INT64_MAX ? -EFBIG : (int64_t)bytes;
    }
    if (fstat(s->fd, &st) < 0) {
        return -errno;
    }
    return st.st_size;
}

static int64_t coroutine_fn file_co_get_allocated_file_size(BlockDriverState *bs)
{
    BDRVFileState *s = bs->opaque;
    struct stat st;

    if (fstat(s->fd, &st) < 0) {
        return -errno;
    }
    return (int64_t)st.st_blocks * 512;
}

static int file_get_read_fd(BlockDriverState *bs)
{
    BDRVFileState *s = bs->opaque;

    return (bs->open_flags & BDRV_O_NOCACHE) ? -1 : s->fd;
}

static bool file_has_zero_init(BlockDriverState *bs)
{
    const BDRVFileState *s = bs->opaque;

    return !s->is_device;
}

/* --- the tables --- */

static const BlockProtocolOps file_protocol = {
    .bdrv_check_perm = file_check_perm,
    .bdrv_set_perm = file_set_perm,
    .bdrv_abort_perm_update = file_abort_perm,
    .bdrv_get_read_fd = file_get_read_fd,
};

#define FILE_DRIVER_COMMON                                                                        \
    .instance_size = sizeof(BDRVFileState), .protocol = &file_protocol, .multi_thread = true,     \
    .bdrv_co_open = file_co_open, .bdrv_co_close = file_co_close,                                 \
    .bdrv_refresh_limits = file_refresh_limits, .bdrv_co_reopen_prepare = file_co_reopen_prepare, \
    .bdrv_co_reopen_commit = file_co_reopen_commit, .bdrv_co_reopen_abort = file_co_reopen_abort, \
    .bdrv_refresh_filename = file_refresh_filename, .bdrv_co_preadv = file_co_preadv,             \
    .bdrv_co_pwritev = file_co_pwritev, .bdrv_co_pwrite_zeroes = file_co_pwrite_zeroes,           \
    .bdrv_co_pdiscard = file_co_pdiscard, .bdrv_co_flush_to_disk = file_co_flush_to_disk,         \
    .bdrv_co_copy_range_from = file_co_copy_range_from,                                           \
    .bdrv_co_copy_range_to = file_co_copy_range_to, .bdrv_co_block_status = file_co_block_status, \
    .bdrv_co_getlength = file_co_getlength,                                                       \
    .bdrv_co_get_allocated_file_size = file_co_get_allocated_file_size,                           \
    .bdrv_co_invalidate_cache = file_co_invalidate_cache, .bdrv_co_truncate = file_co_truncate,   \
    .bdrv_has_zero_init = file_has_zero_init

const BlockDriver bdrv_file = {
    .format_name = "file",
    .driver = BLOCKDEV_DRIVER_FILE,
    .bdrv_co_create = file_co_create,
    FILE_DRIVER_COMMON,
};

const BlockDriver bdrv_host_device = {
    .format_name = "host_device",
    .driver = BLOCKDEV_DRIVER_HOST_DEVICE,
    FILE_DRIVER_COMMON,
};
