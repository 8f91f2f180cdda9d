/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IOThread: a named thread that runs an AioContext (`-object iothread,id=NAME`). Main thread only.
 */
#ifndef FERRY_UTIL_IOTHREAD_H
#define FERRY_UTIL_IOTHREAD_H

#include "util/aio-event.h"
#include "util/aio.h"

typedef struct IOThread IOThread;

/* Starts the thread, which polls with the default parameters. NULL and errp when the thread or its context cannot be had. */
IOThread *iothread_new(const char *id, GError **errp);
/*
 * Stops the thread and frees it; the caller has made sure that nothing uses its context any more.
 */
void iothread_free(IOThread *iothread);
/* The iothread of that id, or NULL. */
IOThread *iothread_by_id(const char *id);
const char *iothread_get_id(const IOThread *iothread);
AioContext *iothread_get_aio_context(IOThread *iothread);
/*
 * A user that is bound to an iothread's context holds it, under a name for error messages ("export
 * 'e0'"), and releases it by the same name. Contexts of other threads are never freed: nothing is
 * counted for them.
 */
void iothread_hold(AioContext *ctx, const char *user);
void iothread_release(AioContext *ctx, const char *user);
/* "export 'e0', node 'disk'"; NULL when there are none. The caller frees. */
char *iothread_users(const IOThread *iothread);
/* "iothread 'io0'", or "the main loop"; the caller frees. */
char *iothread_describe_context(AioContext *ctx);
/* Of a range that aio_context_set_poll_params() takes. */
void iothread_set_poll_params(IOThread *iothread, const AioPollParams *params);
const AioPollParams *iothread_get_poll_params(const IOThread *iothread);
/* Kernel thread id, for query-iothreads. */
int iothread_get_thread_id(const IOThread *iothread);

#endif
