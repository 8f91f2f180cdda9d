/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a file has data and where holes: SEEK_DATA and SEEK_HOLE, asked in a worker thread and
 * remembered.
 */
#include "block/file/file.h"

#include <errno.h>
#include <unistd.h>

typedef struct ExtentQuery {
    int fd;
    int64_t offset;
    FileExtent extent;
} ExtentQuery;

/* lseek(2): ENXIO from SEEK_DATA means a hole up to the end of the file. */
static int find_extent(void *opaque)
{
    ExtentQuery *q = opaque;
    off_t data = lseek(q->fd, q->offset, SEEK_DATA);

    if (data < 0 && errno == ENXIO) {
        off_t end = lseek(q->fd, 0, SEEK_END);

        if (end < 0) {
            return -errno;
        }
        q->extent = (FileExtent){.start = q->offset, .end = end, .is_data = false};
        return end > q->offset ? 0 : -ENXIO;
    }
    if (data < 0) {
        return -errno;
    }
    if (data > q->offset) {
        q->extent = (FileExtent){.start = q->offset, .end = data, .is_data = false};
        return 0;
    }
    data = lseek(q->fd, q->offset, SEEK_HOLE);
    if (data < 0) {
        return -errno;
    }
    if (data <= q->offset) {
        return -EIO; /* the file changed between the two questions */
    }
    q->extent = (FileExtent){.start = q->offset, .end = data, .is_data = true};
    return 0;
}

void file_extent_forget(BDRVFileState *s, int64_t offset, int64_t bytes)
{
    s->extent_generation++;
    if (offset < s->extent.end && s->extent.start < offset + bytes) {
        s->extent.end = s->extent.start;
    }
}

int coroutine_fn file_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      BdrvBlockStatus *status)
{
    BDRVFileState *s = bs->opaque;
    FileExtent found = s->extent;

    status->map = offset;
    status->file = bs;
    status->flags = BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
    status->pnum = bytes;
    if (!s->has_seek_data) {
        return 0;
    }
    if (offset < found.start || offset >= found.end) {
        ExtentQuery q = {.fd = s->fd, .offset = offset};
        uint64_t generation = s->extent_generation;
        int ret = thread_pool_submit_file_co(s->fd, find_extent, &q);

        if (ret < 0) {
            /* Cannot tell: it is data for all we know. */
            if (ret == -EINVAL || ret == -EOPNOTSUPP) {
                s->has_seek_data = false;
            }
            return 0;
        }
        found = q.extent;
        if (generation == s->extent_generation) {
            s->extent = found; /* nothing was written meanwhile */
        }
    }
    status->pnum = MIN(bytes, found.end - offset);
    if (!found.is_data) {
        status->flags = BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID;
    }
    /*
     * Direct I/O wants whole blocks: a hole or data run that ends inside one ends at the block's
     * end as data.
     */
    if (s->request_align > 1 && (status->pnum & (s->request_align - 1))) {
        int64_t whole = status->pnum & ~(int64_t)(s->request_align - 1);

        if (status->flags & BDRV_BLOCK_DATA) {
            status->pnum = MIN(bytes, whole + (int64_t)s->request_align);
        } else if (whole) {
            status->pnum = whole;
        } else {
            status->flags = BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
            status->pnum = MIN(bytes, (int64_t)s->request_align);
        }
    }
    return 0;
}
