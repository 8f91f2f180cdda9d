/* SPDX-License-Identifier: GPL-2.0-or-later */
/* -daemonize and -pidfile. */
#include "system/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "util/error.h"

/* The write end of the pipe on which the parent waits; -1: no daemon. */
static int ready_fd = -1;

static struct {
    char *path;
    pid_t owner; /* a forked child must not remove the file */
    int fd;
} pidfile;

/* The parent: waits for one byte from the child. */
static void G_GNUC_NORETURN wait_for_child(int fd)
{
    char byte;
    ssize_t n;

    do {
        n = read(fd, &byte, 1);
    } while (n < 0 && errno == EINTR);
    _exit(n == 1 ? 0 : 1);
}

bool daemon_fork(GError **errp)
{
    int fds[2];
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0) {
        error_setg_errno(errp, errno, "Could not daemonize");
        return false;
    }
    fflush(NULL);
    pid = fork();
    if (pid < 0) {
        error_setg_errno(errp, errno, "Could not daemonize");
        close(fds[0]);
        close(fds[1]);
        return false;
    }
    if (pid > 0) {
        close(fds[1]);
        wait_for_child(fds[0]);
    }
    close(fds[0]);
    ready_fd = fds[1];
    setsid();
    /* Forking once more: a process that leads no session never gets a controlling terminal. */
    pid = fork();
    if (pid != 0) {
        _exit(pid < 0 ? 1 : 0);
    }
    umask(027);
    return true;
}

bool daemon_ready(GError **errp)
{
    int null_fd;
    ssize_t n;

    if (ready_fd < 0) {
        return true;
    }
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0 || chdir("/") < 0) {
        error_setg_errno(errp, errno, "Could not daemonize");
        return false;
    }
    /* The process that reads our stderr must see its end. */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (dup2(null_fd, fd) < 0) {
            error_setg_errno(errp, errno, "Could not daemonize");
            return false;
        }
    }
    close(null_fd);
    do {
        n = write(ready_fd, "", 1);
    } while (n < 0 && errno == EINTR);
    close(ready_fd);
    ready_fd = -1;
    return true;
}

static void pidfile_remove(void)
{
    if (pidfile.path && pidfile.owner == getpid()) {
        unlink(pidfile.path);
        g_clear_pointer(&pidfile.path, g_free);
    }
}

bool pidfile_create(const char *path, GError **errp)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char text[32];
    int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot create PID file: Could not create '%s'", path);
        return false;
    }
    if (fcntl(fd, F_SETLK, &lock) < 0) {
        error_setg(errp, "cannot create PID file: Could not lock '%s': another process has it",
                   path);
        close(fd);
        return false;
    }
    if (ftruncate(fd, 0) < 0 || write(fd, text, (size_t)len) != len) {
        error_setg_errno(errp, errno, "cannot create PID file: Could not write '%s'", path);
        close(fd);
        return false;
    }
    /* Kept open: closing would drop the lock. */
    pidfile.fd = fd;
    pidfile.owner = getpid();
    pidfile.path = g_canonicalize_filename(path, NULL);
    atexit(pidfile_remove);
    at_quick_exit(pidfile_remove);
    return true;
}
