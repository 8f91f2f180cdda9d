/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QIOChannelCommand: a program's standard streams. */
#include "io/channel-command.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include "io/child.h"
#include "io/fd-half.h"
#include "util/error.h"

/* What a pipe to or from a program should hold, in bytes; the kernel may give less. */
#define COMMAND_PIPE_BYTES (1 << 20)
/* A program that has closed its input mostly ends at once; how it ends is worth waiting that many ms. */
#define COMMAND_END_MS 1000

struct QIOChannelCommand {
    QIOChannel parent;
    GMutex lock; /* keeps what shutdown touches while another thread closes */
    int fd[2];   /* by direction; -1: not there */
    FdHalf half[2];
    int kill_fd; /* an eventfd, readable once both directions were shut down */
    pid_t pid;   /* 0: its end has been told */
    bool ended;  /* it has been waited for */
    int status;  /* once it has ended: as of waitpid(2) */
};

static QIOChannelCommand *cioc_of(QIOChannel *ioc)
{
    return (QIOChannelCommand *)ioc;
}

static ssize_t command_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                             QIOChannelFds *fds, int flags, GError **errp)
{
    return fd_half_readv(&cioc_of(ioc)->half[QIO_CHANNEL_READ], ioc, iov, niov, errp);
}

/*
 * The program reads no more. If it has ended, the error says how, which tells more than "broken
 * pipe".
 */
static void command_error_add_end(QIOChannelCommand *cioc, GError **errp)
{
    g_autofree char *how = NULL;

    if (!cioc->ended && cioc->pid) {
        cioc->ended = child_wait_ms(cioc->pid, cioc->kill_fd, COMMAND_END_MS, &cioc->status) == 1;
    }
    if (cioc->ended) {
        how = child_status_text(cioc->status);
        g_prefix_error(errp, "Command %s: ", how);
    }
}

static ssize_t command_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                              const QIOChannelFds *fds, int flags, GError **errp)
{
    QIOChannelCommand *cioc = cioc_of(ioc);
    ssize_t ret = fd_half_writev(&cioc->half[QIO_CHANNEL_WRITE], ioc, iov, niov, errp);

    if (ret == -EPIPE && !qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_WRITE)) {
        command_error_add_end(cioc, errp);
    }
    return ret;
}

static int command_poll_fd(QIOChannel *ioc, QIOChannelDirection dir, short *events)
{
    return fd_half_poll_fd(&cioc_of(ioc)->half[dir], events);
}

static int command_shutdown(QIOChannel *ioc, QIOChannelShutdown how)
{
    QIOChannelCommand *cioc = cioc_of(ioc);
    uint64_t one = 1;

    g_mutex_lock(&cioc->lock);
    if (how & QIO_CHANNEL_SHUTDOWN_READ) {
        fd_half_wake(&cioc->half[QIO_CHANNEL_READ]);
    }
    if (how & QIO_CHANNEL_SHUTDOWN_WRITE) {
        fd_half_wake(&cioc->half[QIO_CHANNEL_WRITE]);
    }
    if (qio_channel_is_shut_down(ioc) && write(cioc->kill_fd, &one, sizeof(one)) < 0) {
        /* the counter is at its limit, so it is readable */
    }
    g_mutex_unlock(&cioc->lock);
    return 0;
}

static void command_close_pipes(QIOChannelCommand *cioc)
{
    g_mutex_lock(&cioc->lock);
    for (int dir = QIO_CHANNEL_READ; dir <= QIO_CHANNEL_WRITE; dir++) {
        fd_half_clear(&cioc->half[dir]);
        if (cioc->fd[dir] >= 0) {
            close(cioc->fd[dir]);
            cioc->fd[dir] = -1;
        }
    }
    g_mutex_unlock(&cioc->lock);
}

static int command_close(QIOChannel *ioc, GError **errp)
{
    QIOChannelCommand *cioc = cioc_of(ioc);
    g_autofree char *how = NULL;
    bool ended_by_us = false;
    int ret = 1;

    command_close_pipes(cioc);
    if (!cioc->pid) {
        return 0;
    }
    if (!cioc->ended) {
        ret = child_wait(cioc->pid, cioc->kill_fd, &cioc->status);
    }
    if (ret == 0) {
        ended_by_us = true;
        ret = child_terminate(cioc->pid, &cioc->status);
    }
    cioc->ended = true;
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Unable to wait for command (process %d)", (int)cioc->pid);
        cioc->pid = 0;
        return ret;
    }
    cioc->pid = 0;
    if (ended_by_us) {
        error_setg(errp, "Command was ended before it was done");
        return -ECANCELED;
    }
    if (cioc->status != 0) {
        how = child_status_text(cioc->status);
        error_setg(errp, "Command %s", how);
        return -EIO;
    }
    return 0;
}

static void command_finalize(QIOChannel *ioc)
{
    QIOChannelCommand *cioc = cioc_of(ioc);

    command_close_pipes(cioc);
    if (cioc->pid && !cioc->ended) {
        child_terminate_in_background(cioc->pid);
    }
    if (cioc->kill_fd >= 0) {
        close(cioc->kill_fd);
    }
    g_mutex_clear(&cioc->lock);
}

static const QIOChannelClass qio_channel_command_class = {
    .name = "command",
    .instance_size = sizeof(QIOChannelCommand),
    .readv = command_readv,
    .writev = command_writev,
    .poll_fd = command_poll_fd,
    .shutdown = command_shutdown,
    .close = command_close,
    .finalize = command_finalize,
};

/* --- starting --- */

/* A pipe for one direction: our end into the channel, the program's into *theirs. */
static bool command_make_pipe(QIOChannelCommand *cioc, QIOChannelDirection dir, int *theirs,
                              GError **errp)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0) {
        error_setg_errno(errp, errno, "Unable to make a pipe");
        return false;
    }
    (void)fcntl(fds[0], F_SETPIPE_SZ, COMMAND_PIPE_BYTES);
    cioc->fd[dir] = dir == QIO_CHANNEL_READ ? fds[0] : fds[1];
    *theirs = dir == QIO_CHANNEL_READ ? fds[1] : fds[0];
    return fd_half_init(&cioc->half[dir], cioc->fd[dir], dir, "command", errp);
}

static bool command_start(QIOChannelCommand *cioc, const char *const argv[], int mode,
                          GError **errp)
{
    int theirs[2] = {-1, -1};
    bool ok;

    ok = (mode == O_WRONLY ||
          command_make_pipe(cioc, QIO_CHANNEL_READ, &theirs[QIO_CHANNEL_READ], errp)) &&
         (mode == O_RDONLY ||
          command_make_pipe(cioc, QIO_CHANNEL_WRITE, &theirs[QIO_CHANNEL_WRITE], errp)) &&
         child_spawn(argv, theirs[QIO_CHANNEL_WRITE], theirs[QIO_CHANNEL_READ], &cioc->pid, errp);
    for (int dir = QIO_CHANNEL_READ; dir <= QIO_CHANNEL_WRITE; dir++) {
        if (theirs[dir] >= 0) {
            close(theirs[dir]);
        }
    }
    return ok;
}

QIOChannelCommand *qio_channel_command_new_spawn(const char *const argv[], int flags, GError **errp)
{
    QIOChannelCommand *cioc = cioc_of(qio_channel_alloc(&qio_channel_command_class, NULL));

    g_mutex_init(&cioc->lock);
    for (int dir = QIO_CHANNEL_READ; dir <= QIO_CHANNEL_WRITE; dir++) {
        cioc->fd[dir] = -1;
        cioc->half[dir] = (FdHalf){.fd = -1, .dir = dir, .poll = WAKE_POLL_INIT, .what = "command"};
    }
    cioc->kill_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (cioc->kill_fd < 0) {
        error_setg_errno(errp, errno, "Unable to start '%s'", argv[0]);
    } else if (command_start(cioc, argv, flags & O_ACCMODE, errp)) {
        return cioc;
    }
    qio_channel_unref(&cioc->parent);
    return NULL;
}

QIOChannelCommand *qio_channel_command_new_shell(const char *command, int flags, GError **errp)
{
    const char *const argv[] = {"/bin/sh", "-c", command, NULL};

    return qio_channel_command_new_spawn(argv, flags, errp);
}

pid_t qio_channel_command_get_pid(const QIOChannelCommand *cioc)
{
    return cioc->pid;
}
