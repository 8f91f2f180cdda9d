/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening files that a user named: open(2), close-on-exec, and "/dev/fdset/N", which stands for a
 * duplicate of a descriptor that a management tool passed in.
 */
#ifndef FERRY_UTIL_OPEN_H
#define FERRY_UTIL_OPEN_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * As open(2) with O_CLOEXEC: a descriptor or -errno. A FIFO is opened without waiting for its other end, which open(2)
 * would do. With O_WRONLY that gives -ENXIO while no process reads it. Any thread.
 */
int qemu_open_at_once(const char *path, int flags, mode_t mode) G_GNUC_WARN_UNUSED_RESULT;
/*
 * As qemu_open_at_once(), and fdset names. A descriptor, or -errno with "Could not open 'PATH': ..." in errp. Any
 * thread, except for fdset names, which are looked up in the main thread only.
 */
int qemu_open(const char *path, int flags, mode_t mode, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* "/dev/fdset/N" gives true and N. */
bool qemu_is_fdset_path(const char *path, int64_t *fdset_id);
/* Closes what qemu_open() gave, and tells the fd set. Any thread for ordinary files. */
void qemu_close(int fd);

/* The owner of the fd sets registers this at start-up. */
typedef struct QemuFdsetOps {
    /*
     * A duplicate with the access mode of flags (O_RDONLY, O_WRONLY, O_RDWR), or -errno and errp.
     */
    int (*dup)(int64_t fdset_id, int flags, GError **errp);
    /* fd, a duplicate, is about to be closed. False: it is none of a set. */
    bool (*forget_dup)(int fd);
} QemuFdsetOps;
void qemu_register_fdsets(const QemuFdsetOps *ops);

#endif
