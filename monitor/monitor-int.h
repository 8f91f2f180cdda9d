/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of this folder share. */
#ifndef FERRY_MONITOR_MONITOR_INT_H
#define FERRY_MONITOR_MONITOR_INT_H

#include <json-c/json.h>
#include "monitor/monitor.h"
#include "util/queue.h"

/* Descriptors that arrived and that no command has taken yet; more are closed. */
#define MON_MSG_FDS_MAX 64

/* --- msg-fds.c: descriptors that come with messages --- */

typedef struct MsgFds MsgFds;

MsgFds *msg_fds_new(void);
void msg_fds_free(MsgFds *fds);
/* Takes over descriptors that came with bytes yet to be parsed. */
void msg_fds_add(MsgFds *fds, const int *fd, size_t n);
/*
 * All bytes are parsed: the descriptors belong to `message` (1...), the last complete one or the
 * one that has begun.
 */
void msg_fds_settle(MsgFds *fds, uint64_t message);
/* One that came with `message`, now the caller's, or -1. */
int msg_fds_take(MsgFds *fds, uint64_t message);
/* `message` is done: closes what came before it. */
void msg_fds_expire(MsgFds *fds, uint64_t message);

/* --- fds.c: named descriptors and fd sets --- */

typedef struct NamedFds NamedFds;

NamedFds *named_fds_new(void);
void named_fds_free(NamedFds *fds);
void fdsets_init(void);

/* --- qmp.c --- */

/*
 * The descriptors of the monitor whose command is running in this coroutine; NULL outside of one.
 */
NamedFds *qmp_current_named_fds(void);
/* Sends an event to every client that has negotiated. */
void qmp_broadcast(json_object *event);
void qmp_cleanup(void);

/* --- events.c --- */

void events_init(void);
void events_cleanup(void);

/* --- hmp.c, hmp-session.c --- */

void hmp_init(void);
void hmp_cleanup(void);
/* Runs a line and returns what it printed; the caller frees. */
char *coroutine_fn hmp_co_run_line(const char *line, bool may_wait);
/* The commands, or what follows "info" and "help", that the last word of `text` may become. */
GStrv hmp_complete(const char *text);

#endif
