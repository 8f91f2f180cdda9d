/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IOThread: a named thread that runs an AioContext (`-object iothread,id=NAME`). Main thread only.
 */
#ifndef FERRY_UTIL_IOTHREAD_H
#define FERRY_UTIL_IOTHREAD_H

#include "util/aio.h"

typedef struct IOThread IOThread;

/* Starts the thread. NULL and errp when the thread or its context cannot be had. */
IOThread *iothread_new(const char *id, GError **errp);
/*
 * Stops the thread and frees it; the caller has made sure that nothing uses its context any more.
 */
void iothread_free(IOThread *iothread);
/* The iothread of that id, or NULL. */
IOThread *iothread_by_id(const char *id);
const char *iothread_get_id(const IOThread *iothread);
AioContext *iothread_get_aio_context(IOThread *iothread);
/* Kernel thread id, for query-iothreads. */
int iothread_get_thread_id(const IOThread *iothread);

#endif
