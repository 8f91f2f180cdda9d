/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QIOChannelDeadline: a timer that interrupts a wait for a channel. */
#include "io/channel-deadline.h"
#include <errno.h>

static void deadline_over(void *opaque)
{
    QIOChannelDeadline *deadline = opaque;

    deadline->over = true;
    qio_channel_interrupt(deadline->ioc);
}

void coroutine_fn qio_channel_deadline_start(QIOChannelDeadline *deadline, QIOChannel *ioc,
                                             int64_t timeout_ns)
{
    *deadline = (QIOChannelDeadline){.ioc = ioc};
    if (timeout_ns) {
        deadline->timer = aio_timer_new(qemu_get_current_aio_context(), QEMU_CLOCK_REALTIME,
                                        deadline_over, deadline);
        timer_mod_ns(deadline->timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + timeout_ns);
    }
}

int coroutine_fn qio_channel_deadline_co_wait(QIOChannelDeadline *deadline, QIOChannelDirection dir)
{
    int ret = qio_channel_co_wait(deadline->ioc, dir);

    if (deadline->over) {
        return -ETIMEDOUT;
    }
    return ret < 0 ? -ECANCELED : 0;
}

void qio_channel_deadline_stop(QIOChannelDeadline *deadline)
{
    timer_free(deadline->timer);
    deadline->timer = NULL;
}
