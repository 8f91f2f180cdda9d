/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Creating and resizing host files. */
#include "block/file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "util/error.h"
#include "util/open.h"

#define FULL_PREALLOC_BUFFER_BYTES (1024 * 1024)

static int write_zero_range(int fd, int64_t offset, int64_t end)
{
    g_autofree void *buf = g_malloc0(FULL_PREALLOC_BUFFER_BYTES);

    while (offset < end) {
        ssize_t n = pwrite(fd, buf, MIN(end - offset, FULL_PREALLOC_BUFFER_BYTES), offset);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -ENOSPC;
        }
        offset += n;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

static int preallocate(int fd, int64_t old_size, int64_t size, PreallocMode prealloc)
{
    if (prealloc == PREALLOC_MODE_FALLOC) {
        /* posix_fallocate() returns the error; it extends the file. */
        return size > old_size ? -posix_fallocate(fd, old_size, size - old_size) : 0;
    }
    if (prealloc == PREALLOC_MODE_FULL) {
        return write_zero_range(fd, old_size, size);
    }
    return 0;
}

bool file_resize_fd(int fd, const char *filename, int64_t old_size, int64_t size,
                    PreallocMode prealloc, GError **errp)
{
    int ret;

    if (prealloc == PREALLOC_MODE_METADATA) {
        error_setg(errp, "Unsupported preallocation mode '%s' for file '%s'",
                   PreallocMode_str(prealloc), filename);
        return false;
    }
    if (size < old_size && prealloc != PREALLOC_MODE_OFF) {
        error_setg(errp, "Preallocation can't be used for shrinking files");
        return false;
    }
    if (ftruncate(fd, size) < 0) {
        error_setg_errno(errp, errno, "Could not resize file '%s' to %" PRId64 " bytes", filename,
                         size);
        return false;
    }
    ret = preallocate(fd, old_size, size, prealloc);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not preallocate space for '%s'", filename);
        if (ftruncate(fd, old_size) < 0) {
            g_prefix_error(errp, "Could not shrink the file back (%s): ", strerror(errno));
        }
        return false;
    }
    return true;
}

typedef struct ResizeJob {
    int fd;
    const char *filename;
    int64_t old_size, size;
    PreallocMode prealloc;
    GError **errp;
} ResizeJob;

static int resize_worker(void *opaque)
{
    ResizeJob *job = opaque;

    return file_resize_fd(job->fd, job->filename, job->old_size, job->size, job->prealloc,
                          job->errp)
               ? 0
               : -EIO;
}

static bool coroutine_fn resize_device(BlockDriverState *bs, int64_t size, bool exact,
                                       GError **errp)
{
    int64_t now = bdrv_co_getlength(bs);

    if (now < 0) {
        error_setg_errno(errp, -now, "Could not get the size of the device");
        return false;
    }
    if (size > now) {
        error_setg(errp, "Cannot grow device files");
        return false;
    }
    if (exact && size != now) {
        error_setg(errp, "Cannot resize device files");
        return false;
    }
    return true;
}

bool coroutine_fn file_co_truncate(BlockDriverState *bs, int64_t size, bool exact,
                                   PreallocMode prealloc, BdrvRequestFlags flags, GError **errp)
{
    BDRVFileState *s = bs->opaque;
    ResizeJob job;
    int ret;

    if (s->is_device) {
        return resize_device(bs, size, exact, errp);
    }
    job = (ResizeJob){
        .fd = s->fd,
        .filename = s->filename,
        .old_size = bs->total_bytes,
        .size = size,
        .prealloc = prealloc,
        .errp = errp,
    };
    ret = thread_pool_submit_co(resize_worker, &job);
    file_extent_forget_all(bs);
    return ret == 0;
}

typedef struct CreateJob {
    const BlockdevCreateOptionsFile *o;
    GError **errp;
} CreateJob;

/*
 * Locks out all other processes before emptying the file, so that an image in use is never
 * truncated.
 */
static bool create_file(const BlockdevCreateOptionsFile *o, GError **errp)
{
    const uint64_t perm = BLK_PERM_WRITE | BLK_PERM_RESIZE;
    BDRVFileState lock = {.filename = o->filename};
    PreallocMode prealloc = o->has_preallocation ? o->preallocation : PREALLOC_MODE_OFF;
    bool ok = false;
    int fd = qemu_open(o->filename, O_RDWR | O_CREAT, 0644, errp);

    if (fd < 0) {
        return false;
    }
    lock.fd = fd;
    if (file_lock_supported(fd) && !file_lock_apply(&lock, fd, perm, 0, errp)) {
        goto out;
    }
    if (ftruncate(fd, 0) < 0) {
        error_setg_errno(errp, errno, "Could not clear '%s'", o->filename);
        goto out;
    }
    ok = file_resize_fd(fd, o->filename, 0, o->size, prealloc, errp);
out:
    qemu_close(fd);
    return ok;
}

static int create_worker(void *opaque)
{
    CreateJob *job = opaque;

    return create_file(job->o, job->errp) ? 0 : -EIO;
}

bool coroutine_fn file_co_create(const BlockdevCreateOptions *opts, GError **errp)
{
    CreateJob job = {.o = &opts->u.file, .errp = errp};

    if (opts->u.file.size > (uint64_t)BDRV_MAX_LENGTH) {
        error_setg(errp, "Image size must be at most %" PRId64 " bytes", BDRV_MAX_LENGTH);
        return false;
    }
    return thread_pool_submit_co(create_worker, &job) == 0;
}
