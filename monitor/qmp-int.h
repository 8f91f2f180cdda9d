/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The two halves of QMP: sessions (qmp.c) and the meaning of a request (qmp-answer.c). */
#ifndef FERRY_MONITOR_QMP_INT_H
#define FERRY_MONITOR_QMP_INT_H

#include "monitor/monitor-int.h"

/* What a session has agreed on with its client; qmp_capabilities changes it. */
typedef struct QmpState {
    bool negotiated;
    bool oob; /* out-of-band execution */
} QmpState;

/* True for a request that asks for out-of-band execution. */
bool qmp_is_oob_request(json_object *request);
/*
 * Runs a request and makes the reply, with the request's id; NULL when none is due. May yield for
 * as long as the command does; what `state` points to stays valid meanwhile.
 */
json_object *coroutine_fn qmp_co_answer(QmpState *state, json_object *request);
/* {"error": ...}; id may be NULL, its reference stays the caller's. */
json_object *qmp_error_reply(json_object *id, const GError *error);
json_object *qmp_greeting(void);
/* The state of the session whose command runs in this coroutine, or NULL. */
QmpState *qmp_current_state(void);

#endif
