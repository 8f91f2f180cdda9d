/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening files that a user named. */
#include "util/open.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "util/error.h"

#define FDSET_PREFIX "/dev/fdset/"

static const QemuFdsetOps *fdsets;

void qemu_register_fdsets(const QemuFdsetOps *ops)
{
    fdsets = ops;
}

bool qemu_is_fdset_path(const char *path, int64_t *fdset_id)
{
    const char *digits = path + strlen(FDSET_PREFIX);

    if (strncmp(path, FDSET_PREFIX, strlen(FDSET_PREFIX)) != 0) {
        return false;
    }
    return g_ascii_string_to_signed(digits, 10, 0, INT64_MAX, fdset_id, NULL);
}

static bool is_fifo(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISFIFO(st.st_mode);
}

int qemu_open_at_once(const char *path, int flags, mode_t mode)
{
    int nonblock = is_fifo(path) ? O_NONBLOCK : 0, fd;

    do {
        fd = open(path, flags | nonblock | O_CLOEXEC, mode);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        return -errno;
    }
    if (nonblock && !(flags & O_NONBLOCK)) {
        (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    }
    return fd;
}

int qemu_open(const char *path, int flags, mode_t mode, GError **errp)
{
    int64_t fdset_id;
    int fd;

    if (g_str_has_prefix(path, FDSET_PREFIX)) {
        if (!fdsets || !qemu_is_fdset_path(path, &fdset_id)) {
            error_setg(errp, "Could not open '%s': no such fd set", path);
            return -EINVAL;
        }
        return fdsets->dup(fdset_id, flags, errp);
    }
    fd = qemu_open_at_once(path, flags, mode);
    if (fd < 0) {
        error_setg_errno(errp, -fd, "Could not open '%s'", path);
    }
    return fd;
}

void qemu_close(int fd)
{
    if (fdsets) {
        fdsets->forget_dup(fd);
    }
    close(fd);
}
