/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Starting and ending child processes. */
#include "io/child.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "util/error.h"

/* How long a child may take to end after SIGTERM. */
#define CHILD_TERM_MS 1000
/* How often it is looked at where the kernel has no descriptors for processes. */
#define CHILD_LOOK_MS 20

/* --- starting --- */

static int add_stream(posix_spawn_file_actions_t *fa, int fd, int target)
{
    if (fd < 0) {
        return posix_spawn_file_actions_addopen(fa, target, "/dev/null",
                                                target == STDIN_FILENO ? O_RDONLY : O_WRONLY, 0);
    }
    return posix_spawn_file_actions_adddup2(fa, fd, target);
}

static int set_signals(posix_spawnattr_t *attr)
{
    sigset_t none, all;
    int ret;

    sigemptyset(&none);
    sigfillset(&all);
    ret = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    ret = ret ? ret : posix_spawnattr_setsigmask(attr, &none);
    return ret ? ret : posix_spawnattr_setsigdefault(attr, &all);
}

bool child_spawn(const char *const argv[], int in, int out, pid_t *pid, GError **errp)
{
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t attr;
    int ret;

    posix_spawn_file_actions_init(&fa);
    posix_spawnattr_init(&attr);
    ret = add_stream(&fa, in, STDIN_FILENO);
    ret = ret ? ret : add_stream(&fa, out, STDOUT_FILENO);
    ret = ret ? ret : posix_spawn_file_actions_addclosefrom_np(&fa, STDERR_FILENO + 1);
    ret = ret ? ret : set_signals(&attr);
    ret = ret ? ret : posix_spawn(pid, argv[0], &fa, &attr, (char *const *)argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&fa);
    if (ret) {
        error_setg_errno(errp, ret, "Unable to start '%s'", argv[0]);
        return false;
    }
    return true;
}

/* --- waiting --- */

/* 1: it has ended; 0: not yet; -errno. */
static int reap(pid_t pid, int *status)
{
    pid_t ret;

    do {
        ret = waitpid(pid, status, WNOHANG);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ret == pid;
}

int child_wait_ms(pid_t pid, int wake_fd, int ms, int *status)
{
    int pidfd = syscall(SYS_pidfd_open, pid, 0);
    gint64 end = g_get_monotonic_time() + (gint64)ms * 1000;
    struct pollfd pfd[2] = {{.fd = pidfd, .events = POLLIN}, {.fd = wake_fd, .events = POLLIN}};
    int ret;

    while ((ret = reap(pid, status)) == 0) {
        int left = ms < 0 ? -1 : (int)MAX((end - g_get_monotonic_time() + 999) / 1000, 0);

        if (left == 0 || (pfd[1].revents & POLLIN)) {
            break;
        }
        if (pidfd < 0) {
            left = left < 0 ? CHILD_LOOK_MS : MIN(left, CHILD_LOOK_MS);
        }
        if (poll(pfd, 2, left) < 0 && errno != EINTR) {
            ret = -errno;
            break;
        }
    }
    if (pidfd >= 0) {
        close(pidfd);
    }
    return ret;
}

int child_wait(pid_t pid, int wake_fd, int *status)
{
    return child_wait_ms(pid, wake_fd, -1, status);
}

int child_terminate(pid_t pid, int *status)
{
    int ret;

    (void)kill(pid, SIGTERM);
    ret = child_wait_ms(pid, -1, CHILD_TERM_MS, status);
    if (ret == 0) {
        (void)kill(pid, SIGKILL);
        ret = child_wait_ms(pid, -1, -1, status);
    }
    return ret;
}

static void *terminate_thread(void *opaque)
{
    int status;

    (void)child_terminate(GPOINTER_TO_INT(opaque), &status);
    return NULL;
}

void child_terminate_in_background(pid_t pid)
{
    int status;

    if (reap(pid, &status) == 0) {
        g_thread_unref(g_thread_new("child", terminate_thread, GINT_TO_POINTER(pid)));
    }
}

char *child_status_text(int status)
{
    if (WIFSIGNALED(status)) {
        return g_strdup_printf("was killed by signal %d (%s)", WTERMSIG(status),
                               strsignal(WTERMSIG(status)));
    }
    return g_strdup_printf("exited with status %d", WEXITSTATUS(status));
}
