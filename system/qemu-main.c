/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The process: start, serve, end. */
#include "system/qemu-main.h"

#include <stdlib.h>
#include "system/cmdline.h"
#include "accel/runstate.h"
#include "system/machine.h"
#include "system/shutdown.h"
#include "system/startup.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/inherited-fds.h"

static void coroutine_fn end_co(void *opaque)
{
    bool *done = opaque;

    shutdown_co_run();
    *done = true;
}

int qemu_main(int argc, char **argv)
{
    GError *err = NULL;
    bool done = false;

    /* First: a number that a user gives must not reach what this process opens itself. */
    inherited_fds_record();
    g_set_prgname(argv[0] ? argv[0] : "qemu-system-x86_64");
    machine_register_types();
    if (!cmdline_parse(argc, argv, &err) || !startup_run(&err)) {
        error_report_err(err);
        exit(1);
    }
    while (qemu_shutdown_cause() == SHUTDOWN_CAUSE_NONE) {
        aio_poll(qemu_get_aio_context(), true);
    }
    qemu_coroutine_enter(qemu_coroutine_create(end_co, &done));
    while (!done) {
        aio_poll(qemu_get_aio_context(), true);
    }
    /* What the last steps cancelled or deferred is given back here. */
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
    return qemu_system_exit_status();
}
