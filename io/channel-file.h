/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QIOChannelFile: a channel over a file by path, or over any descriptor that takes read(2) and
 * write(2): a regular file, a pipe, a character device.
 *
 * Regular files are SEEKABLE and never say -EAGAIN: a call waits for the disk, so it belongs into a
 * thread of its own. Pipes and devices are switched to non-blocking and can be waited for like
 * sockets; shutdown wakes a thread or coroutine that waits. On a descriptor opened with O_DIRECT,
 * addresses, lengths and offsets must be aligned as its file system demands (-EINVAL).
 *
 * qio_channel_close() reports what the kernel still has to say (a full disk on network file
 * systems); it does not flush to the disk.
 */
#ifndef FERRY_IO_CHANNEL_FILE_H
#define FERRY_IO_CHANNEL_FILE_H

#include <sys/stat.h>
#include "io/channel.h"

typedef struct QIOChannelFile QIOChannelFile;

/*
 * Takes over fd, made close-on-exec and, where it is no regular file or block device, non-blocking.
 * NULL and errp on failure; the caller keeps fd then.
 */
QIOChannelFile *qio_channel_file_new_fd(int fd, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * open(2) with flags (O_RDWR, O_CREAT, O_TRUNC, O_DIRECT, ...); O_CLOEXEC is added. Path
 * "/dev/fdset/N" is a descriptor that was passed before.
 */
QIOChannelFile *qio_channel_file_new_path(const char *path, int flags, mode_t mode,
                                          GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* The descriptor, still the channel's; -1 when closed. */
int qio_channel_file_get_fd(const QIOChannelFile *fioc);
/*
 * Flushes a regular file's data to the disk (fdatasync). Waits for it. 0 or -errno; other
 * descriptors: 0.
 */
int qio_channel_file_sync(QIOChannelFile *fioc, GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
