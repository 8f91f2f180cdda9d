/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a file has data and where holes: SEEK_DATA and SEEK_HOLE, asked in a worker thread and
 * remembered. The cost of a question may grow with the length of its answer: SEEK_HOLE walks the
 * pages of a file of tmpfs. So an answer is kept for all of its length until a request contradicts
 * it:
 *
 *   a write    takes its range out of holes; data stays data
 *   a discard  takes its range out of data; holes stay holes (write-zeroes is one of these)
 *
 * What changes while a question is under way is noted with the question and taken out of its answer.
 * With several threads, answers and questions are under the node's lock.
 */
#include "block/file/file.h"

#include <errno.h>
#include <unistd.h>

typedef struct ExtentQuery {
    int fd;
    int64_t offset;
    FileExtent extent;
    /* What changed meanwhile, by what it makes of the file; start >= end: nothing. */
    FileExtent written, discarded;
    LIST_ENTRY(ExtentQuery) next;
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

/* Takes [start, end) out of the extent: the longer rest stays. */
static void extent_cut(FileExtent *e, int64_t start, int64_t end)
{
    if (start >= end || end <= e->start || e->end <= start) {
        return;
    }
    if (start - e->start > e->end - end) {
        e->end = start;
    } else {
        e->start = MIN(end, e->end);
    }
}

static void range_grow(FileExtent *range, int64_t start, int64_t end)
{
    if (range->start >= range->end) {
        *range = (FileExtent){.start = start, .end = end};
    } else {
        range->start = MIN(range->start, start);
        range->end = MAX(range->end, end);
    }
}

void file_extent_note(BlockDriverState *bs, int64_t offset, int64_t bytes, bool makes_data)
{
    BDRVFileState *s = bs->opaque;
    bool locked = bdrv_lock(bs);
    int64_t end = offset + bytes;
    ExtentQuery *q;

    LIST_FOREACH(q, &s->extent_queries, next) {
        range_grow(makes_data ? &q->written : &q->discarded, offset, end);
    }
    for (int i = 0; i < FILE_EXTENTS; i++) {
        if (s->extents[i].is_data != makes_data) {
            extent_cut(&s->extents[i], offset, end);
        }
    }
    bdrv_unlock(bs, locked);
}

void file_extent_forget_all(BlockDriverState *bs)
{
    BDRVFileState *s = bs->opaque;
    bool locked = bdrv_lock(bs);
    ExtentQuery *q;

    LIST_FOREACH(q, &s->extent_queries, next) {
        q->written = q->discarded = (FileExtent){.start = 0, .end = INT64_MAX};
    }
    memset(s->extents, 0, sizeof(s->extents));
    bdrv_unlock(bs, locked);
}

/* Joins what is known, or takes the place of what was learned longest ago. */
static void extent_remember(BDRVFileState *s, const FileExtent *e)
{
    for (int i = 0; i < FILE_EXTENTS; i++) {
        FileExtent *known = &s->extents[i];

        if (known->start < known->end && known->is_data == e->is_data && e->start <= known->end &&
            known->start <= e->end) {
            known->start = MIN(known->start, e->start);
            known->end = MAX(known->end, e->end);
            return;
        }
    }
    s->extents[s->extent_oldest] = *e;
    s->extent_oldest = (s->extent_oldest + 1) % FILE_EXTENTS;
}

static bool extent_lookup(BlockDriverState *bs, int64_t offset, FileExtent *found)
{
    const BDRVFileState *s = bs->opaque;
    bool locked = bdrv_lock(bs), known = false;

    for (int i = 0; i < FILE_EXTENTS && !known; i++) {
        if (offset >= s->extents[i].start && offset < s->extents[i].end) {
            *found = s->extents[i];
            known = true;
        }
    }
    bdrv_unlock(bs, locked);
    return known;
}

/* What the file system says; kept as far as nothing changed meanwhile. */
static int coroutine_fn extent_co_ask(BlockDriverState *bs, int64_t offset, FileExtent *found)
{
    BDRVFileState *s = bs->opaque;
    ExtentQuery q = {.fd = s->fd, .offset = offset};
    const FileExtent *changed;
    bool locked = bdrv_lock(bs);
    int ret;

    LIST_INSERT_HEAD(&s->extent_queries, &q, next);
    bdrv_unlock(bs, locked);
    ret = thread_pool_submit_file_co(s->fd, find_extent, &q);
    locked = bdrv_lock(bs);
    LIST_REMOVE(&q, next);
    if (ret == 0) {
        *found = q.extent;
        changed = q.extent.is_data ? &q.discarded : &q.written;
        extent_cut(&q.extent, changed->start, changed->end);
        if (q.extent.start < q.extent.end) {
            extent_remember(s, &q.extent);
        }
    }
    bdrv_unlock(bs, locked);
    return ret;
}

/*
 * Direct I/O wants whole blocks: a hole or data run that ends inside one ends at the block's end as
 * data.
 */
static void end_at_block(const BDRVFileState *s, int64_t bytes, BdrvBlockStatus *status)
{
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

int coroutine_fn file_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      BdrvBlockStatus *status)
{
    BDRVFileState *s = bs->opaque;
    FileExtent found = {.start = 0};

    status->map = offset;
    status->file = bs;
    status->flags = BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
    status->pnum = bytes;
    if (!s->has_seek_data) {
        return 0;
    }
    if (!extent_lookup(bs, offset, &found)) {
        int ret = extent_co_ask(bs, offset, &found);

        if (ret < 0) {
            /* Cannot tell: it is data for all we know. */
            if (ret == -EINVAL || ret == -EOPNOTSUPP) {
                s->has_seek_data = false;
            }
            return 0;
        }
    }
    status->pnum = MIN(bytes, found.end - offset);
    if (!found.is_data) {
        status->flags = BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID;
    }
    if (s->request_align > 1 && (status->pnum & (s->request_align - 1))) {
        end_at_block(s, bytes, status);
    }
    return 0;
}
