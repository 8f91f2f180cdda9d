/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The monitors' thread: an AioContext in which QMP sessions read, answer and send.
 *
 * It never takes the big lock, and waits for nothing but its descriptors. So a client is answered
 * while the main thread waits for a missing page of the guest.
 */
#include "monitor/monitor-int.h"
#include "util/iothread.h"

/* No object has such an id: users meet this thread in no list. */
#define THREAD_ID "#monitor"

static IOThread *thread; /* main thread */

AioContext *monitor_thread_start(GError **errp)
{
    if (!thread) {
        thread = iothread_new(THREAD_ID, errp);
    }
    return thread ? iothread_get_aio_context(thread) : NULL;
}

void monitor_thread_stop(void)
{
    g_clear_pointer(&thread, iothread_free);
}
