/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a file is open: for reading or writing, and what it locks, as permissions and options ask.
 *
 * Locks follow the permissions of the node: check takes what is added, set drops what is gone, abort
 * restores.
 *
 * With auto-read-only the file is open for writing only while a parent may write. A change opens the
 * file anew (check) and gives the new open the number of the old one (set). The number never
 * changes, and the kernel swaps what it means in one step. So requests in flight in any thread go
 * on, each with the open that it began with.
 */
#include "block/file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "util/error.h"
#include "util/open.h"

#define WRITER_PERMS (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE)

static bool is_on_demand(int open_flags)
{
    return (open_flags & BDRV_O_RDWR) && (open_flags & BDRV_O_AUTO_RDONLY);
}

static int posix_flags(int open_flags, bool writable)
{
    int flags = writable ? O_RDWR : O_RDONLY;

    return (open_flags & BDRV_O_NOCACHE) ? flags | O_DIRECT : flags;
}

static int open_as(BDRVFileState *s, int open_flags, bool writable, GError **errp)
{
    int fd = qemu_open(s->filename, posix_flags(open_flags, writable), 0, errp);

    if (fd == -EINVAL && (open_flags & BDRV_O_NOCACHE)) {
        g_prefix_error(errp, "File system may not support O_DIRECT: ");
    }
    return fd;
}

int file_open_image(BlockDriverState *bs, GError **errp)
{
    BDRVFileState *s = bs->opaque;
    bool on_demand = is_on_demand(bs->open_flags);
    int fd;

    s->fd_writable = (bs->open_flags & BDRV_O_RDWR) && !on_demand;
    fd = open_as(s, bs->open_flags, s->fd_writable, on_demand ? NULL : errp);
    if (fd < 0 && on_demand) {
        /* It may be a descriptor passed in, good for writing only. */
        s->fd_writable = true;
        fd = open_as(s, bs->open_flags, true, errp);
    }
    return fd;
}

/* --- permissions --- */

static bool same_file(int a, int b)
{
    struct stat x, y;

    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static void drop_spare(BDRVFileState *s)
{
    if (s->spare_fd >= 0) {
        qemu_close(s->spare_fd);
        s->spare_fd = -1;
    }
}

/* Opens the file anew in s->spare_fd when perm asks for another mode. */
static bool open_spare(BlockDriverState *bs, uint64_t perm, GError **errp)
{
    BDRVFileState *s = bs->opaque;
    bool writable = perm & WRITER_PERMS;

    drop_spare(s);
    if (!is_on_demand(bs->open_flags) || writable == s->fd_writable) {
        return true;
    }
    s->spare_fd = open_as(s, bs->open_flags, writable, writable ? errp : NULL);
    if (s->spare_fd >= 0 && !same_file(s->spare_fd, s->fd)) {
        drop_spare(s);
        if (writable) {
            error_setg(errp, "'%s' is no longer the file that was opened", s->filename);
        }
    }
    /* Staying writable longer than needed does no harm. */
    return s->spare_fd >= 0 || !writable;
}

bool file_check_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared, GError **errp)
{
    BDRVFileState *s = bs->opaque;

    if (bs->open_flags & BDRV_O_INACTIVE) {
        return true;
    }
    if (!open_spare(bs, perm, errp)) {
        return false;
    }
    if (s->use_locks && !bs->force_share && !file_lock_apply(s, s->fd, perm, shared, errp)) {
        drop_spare(s);
        return false;
    }
    return true;
}

void file_set_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared)
{
    BDRVFileState *s = bs->opaque;

    if (s->spare_fd >= 0) {
        file_lock_move(s, s->spare_fd);
        /* Fails for no valid pair of descriptors; then the file stays as it is. */
        if (dup3(s->spare_fd, s->fd, O_CLOEXEC) >= 0) {
            s->fd_writable = perm & WRITER_PERMS;
        }
        drop_spare(s);
    }
    if (s->use_locks) {
        file_lock_trim(s, perm, shared);
    }
}

void file_abort_perm(BlockDriverState *bs)
{
    BDRVFileState *s = bs->opaque;

    drop_spare(s);
    if (s->use_locks) {
        file_lock_trim(s, bs->cumulative_perm, bs->cumulative_shared);
    }
}

/* --- another owner --- */

static int drop_page_cache(void *opaque)
{
    BDRVFileState *s = opaque;

    return -posix_fadvise(s->fd, 0, 0, POSIX_FADV_DONTNEED);
}

bool coroutine_fn file_co_invalidate_cache(BlockDriverState *bs, GError **errp)
{
    BDRVFileState *s = bs->opaque;

    file_extent_forget_all(bs);
    if (!(bs->open_flags & BDRV_O_NOCACHE)) {
        /* Advice; it matters where the other owner was on another host, and may be ignored. */
        (void)thread_pool_submit_file_co(s->fd, drop_page_cache, s);
    }
    return true;
}

/* --- reopen --- */

/* The file as the new flags want it; NULL in state->opaque when it need not be opened anew. */
typedef struct FileReopen {
    int fd;
    bool writable;
    bool direct_changes;
} FileReopen;

bool coroutine_fn file_co_reopen_prepare(BDRVReopenState *state, GError **errp)
{
    BDRVFileState *s = state->bs->opaque;
    bool writable = state->flags & BDRV_O_RDWR;
    bool direct_changes = (state->flags ^ state->bs->open_flags) & BDRV_O_NOCACHE;
    FileReopen *r;
    int fd;

    if (is_on_demand(state->flags)) {
        writable = s->fd_writable; /* permissions will say */
    }
    if (writable == s->fd_writable && !direct_changes) {
        return true;
    }
    fd = open_as(s, state->flags, writable, errp);
    if (fd >= 0 && !same_file(fd, s->fd)) {
        error_setg(errp, "'%s' is no longer the file that was opened", s->filename);
        qemu_close(fd);
        return false;
    }
    if (fd < 0) {
        return false;
    }
    r = state->opaque = g_new(FileReopen, 1);
    *r = (FileReopen){.fd = fd, .writable = writable, .direct_changes = direct_changes};
    return true;
}

void coroutine_fn file_co_reopen_commit(BDRVReopenState *state)
{
    BDRVFileState *s = state->bs->opaque;
    g_autofree FileReopen *r = state->opaque;

    if (!r) {
        return;
    }
    /* Permissions may have led to an open with the new flags since. */
    if (r->writable || !is_on_demand(state->flags) || !s->fd_writable) {
        file_lock_move(s, r->fd);
        if (dup3(r->fd, s->fd, O_CLOEXEC) >= 0) {
            s->fd_writable = r->writable;
        }
    }
    qemu_close(r->fd);
    if (r->direct_changes && !s->aio_chosen) {
        s->engine = (state->bs->open_flags & BDRV_O_NOCACHE) ? AIO_DISK_IO_URING : AIO_DISK_THREADS;
    }
    file_probe_abilities(state->bs);
}

void coroutine_fn file_co_reopen_abort(BDRVReopenState *state)
{
    g_autofree FileReopen *r = state->opaque;

    if (r) {
        qemu_close(r->fd);
    }
}
