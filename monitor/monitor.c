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

bool coroutine_fn monitor_co_new_qmp(Chardev *chr, bool pretty, GError **errp)
{
    AioContext *home = qemu_get_current_aio_context(), *ctx = home;
    bool ok;

    if (!qemu_chr_is_shared(chr) && !qemu_chr_has_frontend(chr)) {
        ctx = monitor_thread_start(errp);
        if (!ctx) {
            return false;
        }
        events_set_context(ctx);
        (void)qemu_chr_co_move(chr, ctx, false);
    }
    aio_co_reschedule_self(ctx);
    ok = monitor_new_qmp(chr, pretty, errp);
    aio_co_reschedule_self(home);
    return ok;
}

void coroutine_fn monitor_co_cleanup(void)
{
    events_co_cleanup();
    qmp_co_cleanup();
    hmp_cleanup();
}
