/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Monitors: the parts together. */
#include "monitor/monitor.h"

#include "monitor/monitor-int.h"
#include "util/sockets.h"

void monitor_init(void)
{
    fdsets_init();
    events_init();
    hmp_init();
    socket_set_fd_lookup(monitor_get_fd);
}

void monitor_cleanup(void)
{
    events_cleanup();
    qmp_cleanup();
    hmp_cleanup();
}
