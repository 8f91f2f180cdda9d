/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Image locking.
 *
 * Two byte ranges of the file stand for permissions, one byte each: from 100 on what a process
 * does, from 200 on what it does not let others do. A process holds shared locks on its bytes and
 * then looks whether those of another process contradict. A permission that it uses may be
 * forbidden by another, or one that it forbids may be used. Bit n of BLK_PERM_* is byte n. These
 * are the offsets that qemu-img and other users of the same scheme look at.
 */
#include "block/file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "util/error.h"

#define LOCK_PERM_BASE   100
#define LOCK_SHARED_BASE 200
#define LOCK_BITS        4

static int lock_op(int fd, int cmd, int type, off_t start, struct flock *fl)
{
    *fl = (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 1};
    return fcntl(fd, cmd, fl) < 0 ? -errno : 0;
}

static int lock_byte(int fd, off_t byte)
{
    struct flock fl;

    return lock_op(fd, F_OFD_SETLK, F_RDLCK, byte, &fl);
}

static void unlock_byte(int fd, off_t byte)
{
    struct flock fl;

    /* Unlocking what we hold cannot fail but for a closed descriptor. */
    (void)lock_op(fd, F_OFD_SETLK, F_UNLCK, byte, &fl);
}

/* True when another process holds the byte. */
static bool byte_held_elsewhere(int fd, off_t byte)
{
    struct flock fl;

    return lock_op(fd, F_OFD_GETLK, F_WRLCK, byte, &fl) < 0 || fl.l_type != F_UNLCK;
}

bool file_lock_supported(int fd)
{
    struct flock fl;

    return lock_op(fd, F_OFD_GETLK, F_WRLCK, 0, &fl) == 0;
}

void file_lock_trim(BDRVFileState *s, uint64_t perm, uint64_t shared)
{
    uint64_t unshared = ~shared & BLK_PERM_ALL;

    for (int i = 0; i < LOCK_BITS; i++) {
        uint64_t bit = 1ull << i;

        if ((s->locked_perm & bit) && !(perm & bit)) {
            unlock_byte(s->fd, LOCK_PERM_BASE + i);
            s->locked_perm &= ~bit;
        }
        if ((s->locked_shared & bit) && !(unshared & bit)) {
            unlock_byte(s->fd, LOCK_SHARED_BASE + i);
            s->locked_shared &= ~bit;
        }
    }
}

/* Takes the missing locks of one range; records them in *held. */
static bool take_locks(int fd, uint64_t bits, off_t base, uint64_t *held, const char *filename,
                       GError **errp)
{
    for (int i = 0; i < LOCK_BITS; i++) {
        uint64_t bit = 1ull << i;
        int ret;

        if (!(bits & bit) || (*held & bit)) {
            continue;
        }
        ret = lock_byte(fd, base + i);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Failed to lock byte %d of '%s'", (int)base + i, filename);
            return false;
        }
        *held |= bit;
    }
    return true;
}

static bool check_others(int fd, uint64_t perm, uint64_t unshared, const char *filename,
                         GError **errp)
{
    for (int i = 0; i < LOCK_BITS; i++) {
        uint64_t bit = 1ull << i;

        if ((perm & bit) && byte_held_elsewhere(fd, LOCK_SHARED_BASE + i)) {
            g_autofree char *name = bdrv_perm_names(bit);

            error_setg(errp,
                       "Failed to get \"%s\" lock on '%s': Is another process using the image?",
                       name, filename);
            return false;
        }
        if ((unshared & bit) && byte_held_elsewhere(fd, LOCK_PERM_BASE + i)) {
            g_autofree char *name = bdrv_perm_names(bit);

            error_setg(
                errp,
                "Failed to get shared \"%s\" lock on '%s': Is another process using the image?",
                name, filename);
            return false;
        }
    }
    return true;
}

void file_lock_move(BDRVFileState *s, int fd)
{
    uint64_t perm = s->locked_perm, unshared = s->locked_shared;

    s->locked_perm = s->locked_shared = 0;
    /*
     * They are held on the old descriptor, so no other process holds a contrary one. Only a full
     * kernel table could refuse.
     */
    (void)take_locks(fd, perm, LOCK_PERM_BASE, &s->locked_perm, s->filename, NULL);
    (void)take_locks(fd, unshared, LOCK_SHARED_BASE, &s->locked_shared, s->filename, NULL);
}

bool file_lock_apply(BDRVFileState *s, int fd, uint64_t perm, uint64_t shared, GError **errp)
{
    uint64_t unshared = ~shared & BLK_PERM_ALL;
    uint64_t had_perm = s->locked_perm, had_shared = s->locked_shared;

    if (take_locks(fd, perm, LOCK_PERM_BASE, &s->locked_perm, s->filename, errp) &&
        take_locks(fd, unshared, LOCK_SHARED_BASE, &s->locked_shared, s->filename, errp) &&
        check_others(fd, perm, unshared, s->filename, errp)) {
        return true;
    }
    file_lock_trim(s, had_perm, ~had_shared);
    return false;
}
