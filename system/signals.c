/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Signals that end the process, read from a descriptor in the main loop. */
#include "system/signals.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "accel/runstate.h"
#include "system/shutdown.h"
#include "util/aio.h"
#include "util/error.h"

static struct {
    int fd;
    bool loop_running;
    int64_t first_ns; /* when the first one came; 0: none did */
} signals;

static void report(const struct signalfd_siginfo *info, const char *more)
{
    g_autofree char *link = g_strdup_printf("/proc/%u/exe", info->ssi_pid);
    g_autofree char *program = info->ssi_code <= 0 ? g_file_read_link(link, NULL) : NULL;

    if (info->ssi_code <= 0) {
        error_report("terminating on signal %u from pid %u (%s)%s", info->ssi_signo, info->ssi_pid,
                     program ? program : "<unknown process>", more);
    } else {
        error_report("terminating on signal %u%s", info->ssi_signo, more);
    }
}

/*
 * Ends in the middle of things: what others can see (pid file, terminal) is put in order, memory in
 * use is not given back.
 */
static void G_GNUC_NORETURN end_now(void)
{
    fflush(NULL);
    quick_exit(1);
}

static void signal_arrived(void *opaque)
{
    struct signalfd_siginfo info;
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    if (read(signals.fd, &info, sizeof(info)) != sizeof(info)) {
        return;
    }
    if (!signals.loop_running) {
        report(&info, "");
        end_now();
    }
    if (!signals.first_ns) {
        signals.first_ns = now;
        report(&info, "");
        qemu_system_shutdown_request(SHUTDOWN_CAUSE_HOST_SIGNAL);
    } else if (now - signals.first_ns >= SIGNAL_IMPATIENT_NS) {
        g_autofree char *more = g_strdup_printf(" while waiting for: %s", shutdown_waits_for());

        report(&info, more);
        end_now();
    }
}

bool signals_init(GError **errp)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0) {
        error_setg(errp, "Could not block signals");
        return false;
    }
    signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals.fd < 0) {
        error_setg_errno(errp, errno, "Could not watch for signals");
        return false;
    }
    aio_set_fd_handler(qemu_get_aio_context(), signals.fd, signal_arrived, NULL, NULL);
    return true;
}

void signals_set_loop_running(void)
{
    signals.loop_running = true;
}
