/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP events: the way from their senders to the monitors. */
#include "qapi/event.h"

static QapiEventSink *event_sink; /* atomic */

void qapi_event_set_sink(QapiEventSink *sink)
{
    __atomic_store_n(&event_sink, sink, __ATOMIC_RELEASE);
}

void qapi_event_emit(const char *name, json_object *data)
{
    QapiEventSink *sink = __atomic_load_n(&event_sink, __ATOMIC_ACQUIRE);

    if (sink) {
        sink(name, data);
    } else {
        json_object_put(data);
    }
}
