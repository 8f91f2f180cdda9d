/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file and host_device drivers: a regular file or block device of the host. Shared by file.c
 * (open, requests), access.c, lock.c, extent.c, copy.c and create.c.
 */
#ifndef FERRY_BLOCK_FILE_H
#define FERRY_BLOCK_FILE_H

#include <pthread.h>
#include <semaphore.h>
#include "block/block_int.h"

/* What SEEK_DATA and SEEK_HOLE have said of a range. */
typedef struct FileExtent {
    int64_t start, end; /* start >= end: nothing known */
    bool is_data;
} FileExtent;

/* Answers that are remembered: one for each of several readers that go through the file. */
#define FILE_EXTENTS 16

/* Whether large pages are worth trying (large.c); any worker. */
typedef struct FileLargePages {
    pthread_mutex_t lock;
    int64_t small_ns, large_ns; /* to copy 1 MiB, of late: as usual, and with them */
    int64_t window;             /* bytes to try at once */
    unsigned skip;              /* large pages to copy as usual before the next attempt */
    unsigned next_skip;         /* ... should that be in vain */
} FileLargePages;

typedef struct BDRVFileState {
    int fd;
    bool fd_writable;
    int spare_fd; /* between check and set of permissions: the open that will replace fd; or -1 */
    char *filename;
    bool is_device;
    bool use_locks;
    AioDiskEngine engine;
    bool aio_chosen; /* the user said how requests are done */
    /* reads that the page cache may answer at once do not go through a worker */
    bool small_reads_by_ring;
    bool small_inline;     /* a file system in memory: small requests are done on the spot */
    bool has_write_zeroes; /* atomic: fallocate(ZERO_RANGE) not refused so far */
    bool has_discard;      /* atomic: fallocate(PUNCH_HOLE) not refused so far */
    bool has_seek_data;
    /*
     * -errno of a failed flush: the page cache can no longer be trusted to hold what is not on disk.
     * Flushes of the node come one after the other.
     */
    int flush_error;
    uint32_t request_align; /* of offsets and lengths of requests, bytes */
    uint32_t vector_align;  /* of addresses and lengths in their vectors; 1: any */
    size_t buf_align;       /* of buffers that are allocated for them */
    uint64_t locked_perm, locked_shared;
    /*
     * Held by the worker that writes when several copy to this file. They would take turns at the
     * kernel's lock of the file anyway, but spin for it.
     */
    pthread_mutex_t copy_turn;
    /* How many more workers may copy by pieces: as many as there are processors; more only spin. */
    sem_t copy_processors;
    bool fs_copies;    /* the file system has its own way to copy ranges */
    bool fs_in_memory; /* its files are pages of memory and nothing else */
    FileLargePages large;
    FileExtent extents[FILE_EXTENTS]; /* extent.c; under bdrv_lock(), with the next two */
    unsigned extent_oldest;
    LIST_HEAD(, ExtentQuery) extent_queries; /* under way */
} BDRVFileState;

extern const BlockDriver bdrv_file;
extern const BlockDriver bdrv_host_device;

/*
 * --- lock.c: byte-range locks (F_OFD_SETLK) that tell other processes what we do and tolerate
 * ---
 */

/*
 * Takes the locks for perm and the unshared part of ~shared on fd, besides those held already, and
 * checks that no other process holds a contrary one. On failure the locks are as before and errp
 * says which permission is missing.
 */
bool file_lock_apply(BDRVFileState *s, int fd, uint64_t perm, uint64_t shared, GError **errp);
/* Drops what is not needed for perm and shared. */
void file_lock_trim(BDRVFileState *s, uint64_t perm, uint64_t shared);
/*
 * Takes on fd, another open of the same file, the locks that s->fd holds; s->fd may then be closed.
 */
void file_lock_move(BDRVFileState *s, int fd);
/* Whether the host file system has such locks for fd. */
bool file_lock_supported(int fd);

/* --- access.c: BlockDriver members, and the first open --- */

/* The descriptor for bs->open_flags, or -errno; sets fd_writable. */
int file_open_image(BlockDriverState *bs, GError **errp);
bool file_check_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared, GError **errp);
void file_set_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared);
void file_abort_perm(BlockDriverState *bs);
/* What is remembered of the file, here and by the kernel, may be wrong: another host wrote to it. */
bool coroutine_fn file_co_invalidate_cache(BlockDriverState *bs, GError **errp);
bool coroutine_fn file_co_reopen_prepare(BDRVReopenState *state, GError **errp);
void coroutine_fn file_co_reopen_commit(BDRVReopenState *state);
void coroutine_fn file_co_reopen_abort(BDRVReopenState *state);

/* --- file.c --- */

/* What the file, as open now, can do. */
void file_probe_abilities(BlockDriverState *bs);

/* --- align.c --- */

/* Sets what requests must be aligned to, as the file is open now. After file_probe_fs(). */
void file_probe_alignment(BlockDriverState *bs);

/* --- extent.c --- */

int coroutine_fn file_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      BdrvBlockStatus *status);
/*
 * A request changes the range, or has changed it: makes_data, a write; else a discard, or zeroes that
 * may be holes. Called before the request and after it, in its thread.
 */
void file_extent_note(BlockDriverState *bs, int64_t offset, int64_t bytes, bool makes_data);
/* The file may have changed anywhere. */
void file_extent_forget_all(BlockDriverState *bs);

/* --- copy.c --- */

int coroutine_fn file_co_copy_range_from(BlockDriverState *bs, int64_t offset, BdrvChild *dst,
                                         int64_t dst_offset, int64_t bytes,
                                         BdrvRequestFlags write_flags);
int coroutine_fn file_co_copy_range_to(BlockDriverState *bs, BdrvChild *src, int64_t src_offset,
                                       int64_t offset, int64_t bytes, BdrvRequestFlags write_flags);

/* Finds out what the file system is good at: copying by itself, answering from memory. */
void file_probe_fs(BDRVFileState *s);

/* --- large.c --- */

void file_large_init(FileLargePages *l);
void file_large_destroy(FileLargePages *l);
/*
 * Copies whole large pages that are holes of out_fd, a file in memory, through at most
 * BDRV_COPY_RANGE_MAP of its pages mapped at a time. Returns how many bytes were copied, from the
 * start. In *others: how many of the bytes that follow are to be copied in another way before the
 * next call. One of the two is not 0. Worker thread.
 */
int64_t file_large_copy(FileLargePages *l, int in_fd, int64_t in_offset, int out_fd,
                        int64_t out_offset, int64_t bytes, int64_t *others);
/* What copying as usual took; both ways are compared. */
void file_large_note_small(FileLargePages *l, int64_t bytes, int64_t elapsed_ns);

/* --- create.c --- */

bool coroutine_fn file_co_create(const BlockdevCreateOptions *opts, GError **errp);
/* Sets the size of fd with the preallocation asked for; worker thread. */
bool file_resize_fd(int fd, const char *filename, int64_t old_size, int64_t size,
                    PreallocMode prealloc, GError **errp);
bool coroutine_fn file_co_truncate(BlockDriverState *bs, int64_t size, bool exact,
                                   PreallocMode prealloc, BdrvRequestFlags flags, GError **errp);

#endif
