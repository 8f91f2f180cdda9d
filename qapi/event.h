/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP events.
 *
 * For every event the generated "qapi/qapi-events-NAME.h" (or all of them, "qapi/qapi-events.h")
 * has
 *
 *   void qapi_event_send_NAME(...)
 *
 * with the data's members as parameters (has_X before an optional scalar X, NULL for an absent
 * pointer). When that would make more than six parameters, it takes a pointer to the data struct.
 * The caller keeps what it passes.
 */
#ifndef FERRY_QAPI_EVENT_H
#define FERRY_QAPI_EVENT_H

#include "qapi/codec.h"

/* Takes over `data`, which is NULL for an event without data. Called in the thread that sends. */
typedef void QapiEventSink(const char *name, json_object *data);

/* Where events go from now on; NULL (as at start) drops them. Any thread. */
void qapi_event_set_sink(QapiEventSink *sink);

/* What the generated senders call; takes over `data`. Any thread. */
void qapi_event_emit(const char *name, json_object *data);

#endif
