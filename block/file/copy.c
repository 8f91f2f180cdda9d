/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying between two host files in worker threads.
 *
 * Where the file system shares blocks or copies by itself, copy_file_range(2) does it. Elsewhere a
 * worker reads and writes through a buffer of its own, with no wait for the event loop between the
 * two. Workers that copy to the same file write by turns: one reads while another writes. Holes of
 * a file in memory are filled with large pages (file-large.c).
 */
#include "block/file/file.h"

#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "trace/trace-block.h"
#include "util/bufferiszero.h"
#include "util/timer.h"

/* Long enough that taking turns at the target costs little. */
#define COPY_BUFFER_BYTES BDRV_COPY_RANGE_BUFFER
/* Buffers that stay allocated while no copy runs. */
#define COPY_BUFFERS_KEPT 2
/* What file systems allocate at least, bytes: a hole of that size is worth keeping. */
#define COPY_PAGE_BYTES 4096

typedef struct CopyJob {
    int in_fd, out_fd;
    pthread_mutex_t *turn; /* of those that write to out_fd */
    sem_t *processors;     /* ... and of those that read and write by pieces */
    int64_t in_offset, out_offset, bytes;
    bool offload;          /* try copy_file_range first */
    bool skip_zeroes;      /* the target reads as zeroes: only what is not zero is written */
    FileLargePages *large; /* of out_fd; NULL: not to be tried */
    int64_t by_large;      /* bytes, of those copied */
} CopyJob;

static int copy_by_kernel(CopyJob *job)
{
    while (job->bytes > 0) {
        loff_t in = job->in_offset, out = job->out_offset;
        ssize_t n = copy_file_range(job->in_fd, &in, job->out_fd, &out, job->bytes, 0);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -ENOTSUP;
        }
        job->in_offset += n;
        job->out_offset += n;
        job->bytes -= n;
    }
    return 0;
}

static int write_all(int fd, const uint8_t *buf, size_t bytes, int64_t offset)
{
    while (bytes > 0) {
        ssize_t n = pwrite(fd, buf, bytes, offset);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -ENOSPC;
        }
        buf += n;
        offset += n;
        bytes -= n;
    }
    return 0;
}

/* The runs of whole pages that are not zero; what is between them stays a hole. */
static int write_nonzero(int fd, const uint8_t *buf, int64_t bytes, int64_t offset)
{
    int ret = 0;

    for (int64_t done = 0, end; ret == 0 && done < bytes; done = end) {
        int64_t page = COPY_PAGE_BYTES - ((offset + done) & (COPY_PAGE_BYTES - 1));
        bool zero;

        end = MIN(done + page, bytes);
        zero = buffer_is_zero(buf + done, end - done);
        while (end < bytes &&
               buffer_is_zero(buf + end, MIN(COPY_PAGE_BYTES, bytes - end)) == zero) {
            end = MIN(end + COPY_PAGE_BYTES, bytes);
        }
        if (!zero) {
            ret = write_all(fd, buf + done, end - done, offset + done);
        }
    }
    return ret;
}

/*
 * Buffers that are not in use. A few are kept, so that small copies one after the other do not
 * fault them in again. No more are kept: the memory limit of the caller does not cover them.
 */
static struct {
    pthread_mutex_t lock;
    void *kept[COPY_BUFFERS_KEPT];
    unsigned n;
} buffers = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Mapped by itself, so that freeing it gives it back to the system. */
static void *buffer_get(void)
{
    void *buf = NULL;

    pthread_mutex_lock(&buffers.lock);
    if (buffers.n) {
        buf = buffers.kept[--buffers.n];
    }
    pthread_mutex_unlock(&buffers.lock);
    if (!buf) {
        buf = mmap(NULL, COPY_BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                   0);
    }
    return buf == MAP_FAILED ? NULL : buf;
}

static void buffer_put(void *buf)
{
    pthread_mutex_lock(&buffers.lock);
    if (buffers.n < COPY_BUFFERS_KEPT) {
        buffers.kept[buffers.n++] = buf;
        buf = NULL;
    }
    pthread_mutex_unlock(&buffers.lock);
    if (buf) {
        munmap(buf, COPY_BUFFER_BYTES);
    }
}

static void copy_advance(CopyJob *job, int64_t bytes)
{
    job->in_offset += bytes;
    job->out_offset += bytes;
    job->bytes -= bytes;
}

/* Copies `want` bytes, as many as the buffer holds at most, or fewer. */
static int copy_piece(CopyJob *job, uint8_t *buf, size_t want)
{
    ssize_t n = pread(job->in_fd, buf, want, job->in_offset);
    int ret;

    if (n < 0) {
        return errno == EINTR ? 0 : -errno;
    }
    if (n == 0) {
        /* Past the end of the source, which reads as zeroes. */
        memset(buf, 0, want);
        n = want;
    }
    pthread_mutex_lock(job->turn);
    ret = job->skip_zeroes ? write_nonzero(job->out_fd, buf, n, job->out_offset)
                           : write_all(job->out_fd, buf, n, job->out_offset);
    pthread_mutex_unlock(job->turn);
    if (ret == 0) {
        copy_advance(job, n);
    }
    return ret;
}

/* So many bytes by pieces, on as many processors at once as there are. */
static int copy_by_pieces(CopyJob *job, uint8_t *buf, int64_t bytes)
{
    int64_t start, end = job->bytes - bytes;
    int ret = 0;

    while (sem_wait(job->processors) < 0) {
        /* a signal */
    }
    start = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    while (ret == 0 && job->bytes > end) {
        ret = copy_piece(job, buf, MIN(job->bytes - end, COPY_BUFFER_BYTES));
    }
    if (job->large && ret == 0) {
        file_large_note_small(job->large, bytes, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start);
    }
    sem_post(job->processors);
    return ret;
}

static int copy_through(CopyJob *job, uint8_t *buf)
{
    int ret = 0;

    while (ret == 0 && job->bytes > 0) {
        int64_t by_pieces = job->bytes, n;

        if (job->large) {
            n = file_large_copy(job->large, job->in_fd, job->in_offset, job->out_fd,
                                job->out_offset, job->bytes, &by_pieces);
            job->by_large += n;
            copy_advance(job, n);
        }
        if (by_pieces) {
            ret = copy_by_pieces(job, buf, by_pieces);
        }
    }
    return ret;
}

static int copy_by_hand(CopyJob *job)
{
    void *buf = buffer_get();
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    ret = copy_through(job, buf);
    buffer_put(buf);
    return ret;
}

static int copy_worker(void *opaque)
{
    CopyJob *job = opaque;

    if (job->offload && copy_by_kernel(job) == 0) {
        return 0;
    }
    return copy_by_hand(job); /* takes up where the kernel stopped, whatever its reason */
}

void file_probe_fs(BDRVFileState *s)
{
    struct statfs fs;

    s->fs_copies = s->fs_in_memory = s->small_inline = false;
    if (s->is_device || fstatfs(s->fd, &fs) < 0) {
        return;
    }
    switch ((unsigned long)fs.f_type) {
    case BTRFS_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case NFS_SUPER_MAGIC:
        /* They copy by sharing blocks or on the server: no copy of ours is as quick. */
        s->fs_copies = true;
        break;
    case TMPFS_MAGIC:
        s->fs_in_memory = s->small_inline = true;
        break;
    default:
        break;
    }
}

int coroutine_fn file_co_copy_range_from(BlockDriverState *bs, int64_t offset, BdrvChild *dst,
                                         int64_t dst_offset, int64_t bytes,
                                         BdrvRequestFlags write_flags)
{
    BdrvChild self = {.bs = bs};

    return bdrv_co_copy_range_to(&self, offset, dst, dst_offset, bytes, write_flags);
}

int coroutine_fn file_co_copy_range_to(BlockDriverState *bs, BdrvChild *src, int64_t src_offset,
                                       int64_t offset, int64_t bytes, BdrvRequestFlags write_flags)
{
    BDRVFileState *s = bs->opaque;
    BDRVFileState *from;
    CopyJob job;
    int ret;

    if (src->bs->drv->bdrv_co_copy_range_from != file_co_copy_range_from ||
        (write_flags & BDRV_REQ_FUA)) {
        return -ENOTSUP;
    }
    from = src->bs->opaque;
    if ((src->bs->open_flags | bs->open_flags) & BDRV_O_NOCACHE) {
        /*
         * Direct I/O is bound by the disk: many requests in flight beat a thread that waits for
         * each.
         */
        return -ENOTSUP;
    }
    job = (CopyJob){
        .in_fd = from->fd,
        .out_fd = s->fd,
        .turn = &s->copy_turn,
        .processors = &s->copy_processors,
        .in_offset = src_offset,
        .out_offset = offset,
        .bytes = bytes,
        .offload = s->fs_copies && from->fs_copies,
        .skip_zeroes = write_flags & BDRV_REQ_SKIP_ZEROES,
        .large = s->fs_in_memory && (write_flags & BDRV_REQ_MAY_MAP) ? &s->large : NULL,
    };
    file_extent_note(bs, offset, bytes, true);
    ret = thread_pool_submit_file_co(s->fd, copy_worker, &job);
    trace_file_copied(s->filename, offset, bytes, job.by_large, ret);
    file_extent_note(bs, offset, bytes, true);
    return ret;
}
