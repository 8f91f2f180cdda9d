/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests on an edge of the graph.
 *
 * All are coroutine_fn, run in the thread of the graph's AioContext, and assert that: a coroutine of the main
 * thread goes there first, by bdrv_co_enter_graph() or blk_co_spawn(). They return 0 or -errno; a request
 * either succeeds whole or fails. Any byte offset and length inside the image is accepted. What a driver cannot
 * do the request path makes up for: read-modify-write under serialisation, bounce buffers, splitting at driver
 * limits. qiov may be NULL only where said.
 */
#ifndef FERRY_BLOCK_BLOCK_IO_H
#define FERRY_BLOCK_BLOCK_IO_H

#include "block/block.h"
#include "util/iov.h"

typedef enum BdrvRequestFlags {
    BDRV_REQ_FUA = 0x01,       /* durable on return */
    BDRV_REQ_MAY_UNMAP = 0x02, /* write-zeroes may deallocate */
    /* write-zeroes: -ENOTSUP rather than writing a buffer of zeroes */
    BDRV_REQ_NO_FALLBACK = 0x04,
    BDRV_REQ_ZERO_WRITE = 0x08,  /* internal: this write is write-zeroes */
    BDRV_REQ_SERIALISING = 0x10, /* no other request may overlap while it runs */
    BDRV_REQ_NO_WAIT = 0x20,     /* with SERIALISING: -EBUSY instead of waiting */
    /* readers see no change: needs only BLK_PERM_WRITE_UNCHANGED */
    BDRV_REQ_WRITE_UNCHANGED = 0x40,
    BDRV_REQ_WRITE_COMPRESSED = 0x80,
    BDRV_REQ_COPY_ON_READ = 0x100,
    BDRV_REQ_PREFETCH = 0x200, /* read for its side effect: qiov is NULL */
    BDRV_REQ_MAY_MAP = 0x800,  /* copy_range: besides its buffer, BDRV_COPY_RANGE_MAP is granted */
    BDRV_REQ_SKIP_ZEROES = 0x1000, /* copy_range: the target reads as zeroes there already */
} BdrvRequestFlags;

/* Largest single request, bytes; larger ones are -EIO. */
#define BDRV_REQUEST_MAX_BYTES ((int64_t)INT32_MAX & ~(int64_t)511)

int coroutine_fn bdrv_co_preadv(BdrvChild *child, int64_t offset, int64_t bytes, QEMUIOVector *qiov,
                                BdrvRequestFlags flags);
int coroutine_fn bdrv_co_preadv_part(BdrvChild *child, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, size_t qiov_offset,
                                     BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pwritev(BdrvChild *child, int64_t offset, int64_t bytes,
                                 QEMUIOVector *qiov, BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pwritev_part(BdrvChild *child, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags);
/* The same over one buffer: metadata accesses of drivers. */
int coroutine_fn bdrv_co_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
                               BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pwrite(BdrvChild *child, int64_t offset, int64_t bytes, const void *buf,
                                BdrvRequestFlags flags);
/* bdrv_co_pwrite() followed by a flush of the node. */
int coroutine_fn bdrv_co_pwrite_sync(BdrvChild *child, int64_t offset, int64_t bytes,
                                     const void *buf, BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pwrite_zeroes(BdrvChild *child, int64_t offset, int64_t bytes,
                                       BdrvRequestFlags flags);
/* A hint: parts that cannot be discarded are left as they are and that is success. */
int coroutine_fn bdrv_co_pdiscard(BdrvChild *child, int64_t offset, int64_t bytes);
/* Everything acknowledged before this call is durable when it returns 0. */
int coroutine_fn bdrv_co_flush(BlockDriverState *bs);

/*
 * Copies bytes between two edges without passing through the caller's memory. A worker thread
 * copies them, or the kernel or the file system where they can. -ENOTSUP when a driver on the way
 * cannot: nothing is written then. Both edges in the running context.
 */
int coroutine_fn bdrv_co_copy_range(BdrvChild *src, int64_t src_offset, BdrvChild *dst,
                                    int64_t dst_offset, int64_t bytes,
                                    BdrvRequestFlags write_flags);

/* Sets the size. exact: fail rather than leave it larger. Zeroes appear in what is added. */
bool coroutine_fn bdrv_co_truncate(BdrvChild *child, int64_t size, bool exact,
                                   PreallocMode prealloc, BdrvRequestFlags flags,
                                   GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Asks the driver for the size now; bytes or -errno. */
int64_t coroutine_fn bdrv_co_getlength(BlockDriverState *bs);
/* Bytes allocated on the host, -ENOTSUP when unknown. */
int64_t coroutine_fn bdrv_co_get_allocated_file_size(BlockDriverState *bs);

/* --- what is where --- */

enum {
    BDRV_BLOCK_DATA = 0x01,         /* the layer holds bytes here (may be zeroes all the same) */
    BDRV_BLOCK_ZERO = 0x02,         /* reads as zeroes */
    BDRV_BLOCK_OFFSET_VALID = 0x04, /* `map` in `file` holds the bytes as they are */
    BDRV_BLOCK_RAW = 0x08,          /* driver-internal: ask `file` at `map` instead */
    BDRV_BLOCK_ALLOCATED = 0x10,    /* this layer, and not its backing file, decides the contents */
    BDRV_BLOCK_EOF = 0x20,          /* the run ends at the end of the image */
    BDRV_BLOCK_RECURSE = 0x40,      /* driver-internal: `file` may know of zeroes inside DATA */
    BDRV_BLOCK_COMPRESSED = 0x80,
};

typedef struct BdrvBlockStatus {
    int flags; /* BDRV_BLOCK_* */
    /* bytes from the asked offset on that share these flags: > 0 unless at end of image */
    int64_t pnum;
    int64_t map;            /* with OFFSET_VALID: offset in `file` */
    BlockDriverState *file; /* with OFFSET_VALID: the node that holds the bytes; not referenced */
} BdrvBlockStatus;

/* Of one layer (filters are looked through). */
int coroutine_fn bdrv_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      BdrvBlockStatus *status);
/*
 * Of the chain from bs down to, not including, base (NULL: to the end): what a reader of bs sees.
 * Parts allocated nowhere in the chain have no ALLOCATED flag.
 */
int coroutine_fn bdrv_co_block_status_above(BlockDriverState *bs, BlockDriverState *base,
                                            int64_t offset, int64_t bytes, BdrvBlockStatus *status);
/* 1/0/-errno: whether the layer bs decides the contents; *pnum as above. */
int coroutine_fn bdrv_co_is_allocated(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      int64_t *pnum);
/* True when a new image of this driver reads as zeroes (and so needs no zeroing before a copy). */
bool bdrv_has_zero_init(BlockDriverState *bs);

#endif
