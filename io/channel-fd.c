/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which kind of channel a descriptor wants. */
#include "io/channel-fd.h"
#include <errno.h>
#include "io/channel-file.h"
#include "io/channel-socket.h"
#include "util/error.h"

QIOChannel *qio_channel_new_fd(int fd, GError **errp)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "Unable to use file descriptor %d", fd);
        return NULL;
    }
    if (S_ISSOCK(st.st_mode)) {
        return QIO_CHANNEL(qio_channel_socket_new_fd(fd, errp));
    }
    return QIO_CHANNEL(qio_channel_file_new_fd(fd, errp));
}
