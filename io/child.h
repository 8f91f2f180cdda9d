/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Child processes: started with two descriptors, and waited for without signals. Any thread. */
#ifndef FERRY_IO_CHILD_H
#define FERRY_IO_CHILD_H

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

/*
 * Starts argv[0] with in and out as its standard input and output (-1: /dev/null) and our standard
 * error. It gets no other descriptors, default signal handling and an empty signal mask. Both in
 * and out are above 2. False and errp.
 */
bool child_spawn(const char *const argv[], int in, int out, pid_t *pid,
                 GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/*
 * Waits for the child until wake_fd becomes readable (-1: whatever happens). 1: it has ended, and
 * *status is as waitpid(2) has it; 0: woken; -errno.
 */
int child_wait(pid_t pid, int wake_fd, int *status) G_GNUC_WARN_UNUSED_RESULT;
/* The same for at most `ms` milliseconds (-1: no limit), after which it is 0. */
int child_wait_ms(pid_t pid, int wake_fd, int ms, int *status) G_GNUC_WARN_UNUSED_RESULT;
/* Ends the child, with force after a second, and waits for that. */
int child_terminate(pid_t pid, int *status);
/* The same in a thread of its own. */
void child_terminate_in_background(pid_t pid);

/* "exited with status 3", "was killed by signal 9 (Killed)"; the caller frees. */
char *child_status_text(int status);

#endif
