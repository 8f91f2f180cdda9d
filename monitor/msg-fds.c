/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptors that a client sends along with its commands.
 *
 * The kernel hands them over with some bytes of the stream, which need not be where the client put
 * them. They may arrive with the end of the command before, or ahead of their own. So, once the
 * bytes are parsed, each descriptor gets the number of the message that was being received (or was
 * the last one complete). A command takes the newest descriptor whose number is not above its own.
 * What a command leaves is closed once a later one is done, so that a descriptor whose command
 * failed never turns up in another.
 */
#include <unistd.h>
#include "monitor/monitor-int.h"

/* Not parsed yet. */
#define MESSAGE_UNKNOWN UINT64_MAX

typedef struct MsgFd {
    uint64_t message;
    int fd;
} MsgFd;

struct MsgFds {
    GMutex lock;  /* handlers take descriptors in their own thread */
    GArray *list; /* MsgFd, in order of arrival; lock */
};

MsgFds *msg_fds_new(void)
{
    MsgFds *fds = g_new0(MsgFds, 1);

    g_mutex_init(&fds->lock);
    fds->list = g_array_new(FALSE, FALSE, sizeof(MsgFd));
    return fds;
}

void msg_fds_free(MsgFds *fds)
{
    msg_fds_settle(fds, 1);
    msg_fds_expire(fds, UINT64_MAX);
    g_array_unref(fds->list);
    g_mutex_clear(&fds->lock);
    g_free(fds);
}

void msg_fds_add(MsgFds *fds, const int *fd, size_t n)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fds->lock);

    for (size_t i = 0; i < n; i++) {
        MsgFd item = {.message = MESSAGE_UNKNOWN, .fd = fd[i]};

        if (fds->list->len < MON_MSG_FDS_MAX) {
            g_array_append_val(fds->list, item);
        } else {
            close(fd[i]);
        }
    }
}

void msg_fds_settle(MsgFds *fds, uint64_t message)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fds->lock);

    for (guint i = 0; i < fds->list->len; i++) {
        MsgFd *item = &g_array_index(fds->list, MsgFd, i);

        if (item->message == MESSAGE_UNKNOWN || item->message == MSG_FDS_ANY) {
            item->message = message;
        }
    }
}

int msg_fds_take(MsgFds *fds, uint64_t message)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fds->lock);
    const MsgFd *found = NULL;
    guint index = 0;
    int fd;

    /*
     * In order of arrival, so a later message number comes later; of several with the same the
     * first one is taken.
     */
    for (guint i = 0; i < fds->list->len; i++) {
        const MsgFd *item = &g_array_index(fds->list, MsgFd, i);

        if (item->message <= message && item->message != MESSAGE_UNKNOWN &&
            (!found || item->message != found->message)) {
            found = item;
            index = i;
        }
    }
    if (!found) {
        return -1;
    }
    fd = found->fd;
    g_array_remove_index(fds->list, index);
    return fd;
}

void msg_fds_expire(MsgFds *fds, uint64_t message)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fds->lock);

    for (guint i = 0; i < fds->list->len;) {
        const MsgFd *item = &g_array_index(fds->list, MsgFd, i);

        if (item->message != MSG_FDS_ANY && item->message < message) {
            close(item->fd);
            g_array_remove_index(fds->list, i);
        } else {
            i++;
        }
    }
}
