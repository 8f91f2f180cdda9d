/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of this folder share. */
#ifndef FERRY_MONITOR_MONITOR_INT_H
#define FERRY_MONITOR_MONITOR_INT_H

#include <json-c/json.h>
#include "monitor/monitor.h"
#include "util/queue.h"

/* Descriptors that arrived and that no command has taken yet; more are closed. */
#define MON_MSG_FDS_MAX 64

/* --- thread.c; main thread --- */

/* Starts the monitors' thread, unless it runs. Its context, or NULL and errp. */
AioContext *monitor_thread_start(GError **errp);
/* Ends it, if it runs; nothing uses its context any more. */
void monitor_thread_stop(void);

/* --- msg-fds.c: descriptors that come with messages; any thread --- */

typedef struct MsgFds MsgFds;

/* In place of a message: whichever command looks first may have the descriptor. */
#define MSG_FDS_ANY 0

MsgFds *msg_fds_new(void);
void msg_fds_free(MsgFds *fds);
/* Takes over descriptors that came with bytes yet to be parsed; no command finds them before that. */
void msg_fds_add(MsgFds *fds, const int *fd, size_t n);
/*
 * The bytes are parsed: the descriptors that came with them belong to `message` (1...), the last
 * complete one or the one that has begun; MSG_FDS_ANY: parsing goes on when a command has run.
 */
void msg_fds_settle(MsgFds *fds, uint64_t message);
/* One that came with `message`, now the caller's, or -1. */
int msg_fds_take(MsgFds *fds, uint64_t message);
/* `message` is done: closes what came before it. */
void msg_fds_expire(MsgFds *fds, uint64_t message);

/* --- fds.c: named descriptors and fd sets --- */

typedef struct NamedFds NamedFds;

/* Any thread. The last reference closes what is left. */
NamedFds *named_fds_new(void);
NamedFds *named_fds_ref(NamedFds *fds);
void named_fds_unref(NamedFds *fds);
void fdsets_init(void);

/* --- qmp.c --- */

/*
 * The descriptors of the monitor whose command is running in this coroutine; NULL outside of one.
 */
NamedFds *qmp_current_named_fds(void);
/*
 * Sends an event to every client that has negotiated, before any reply that is made later. Any
 * thread.
 */
void qmp_broadcast(json_object *event);
/* Ends all sessions and, if no command of them runs any more, the monitors' thread. */
void coroutine_fn qmp_co_cleanup(void);

/* --- events.c --- */

void events_init(void);
/* Where the timers of limited events run from now on: a thread that does not wait. Main thread. */
void events_set_context(AioContext *ctx);
/* Main thread. No event reaches a client after this. */
void coroutine_fn events_co_cleanup(void);

/* --- hmp.c, hmp-session.c --- */

void hmp_init(void);
void hmp_cleanup(void);
/* Runs a line and returns what it printed; the caller frees. */
char *coroutine_fn hmp_co_run_line(const char *line, bool may_wait);
/* The commands, or what follows "info" and "help", that the last word of `text` may become. */
GStrv hmp_complete(const char *text);

#endif
