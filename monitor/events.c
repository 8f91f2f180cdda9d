/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Events: from the thread that sends one to every QMP client, with the time at which it happened.
 *
 * Events that a guest or a failing disk can send at will are limited to one a second each. The
 * first is sent at once. Of those that follow within the second only the last is sent, at its end.
 */
#include <string.h>
#include <sys/time.h>
#include "monitor/monitor-int.h"
#include "qapi/event.h"
#include "util/aio.h"
#include "util/timer.h"

#define EVENT_LIMIT_NS NANOSECONDS_PER_SECOND

/* Which events are limited, and the member that tells two of them apart (NULL: the name alone). */
static const struct {
    const char *name, *key;
} limited_events[] = {
    {"BALLOON_CHANGE", NULL},
    {"BLOCK_IO_ERROR", "qom-path"},
    {"MEMORY_DEVICE_SIZE_CHANGE", "qom-path"},
    {"QUORUM_FAILURE", NULL},
    {"QUORUM_REPORT_BAD", "node-name"},
    {"RTC_CHANGE", NULL},
    {"VSERPORT_CHANGE", "id"},
    {"WATCHDOG", NULL},
};

/* An event that was sent less than a second ago. */
typedef struct LimitedEvent {
    json_object *waiting; /* the latest since, or NULL */
    QEMUTimer *timer;
    AioContext *ctx; /* of the timer */
    char *key;
} LimitedEvent;

static struct {
    GMutex
        lock; /* of all below; qmp_broadcast() is called under it, so that events keep their order */
    bool open;
    AioContext *ctx;
    GHashTable *limited; /* key: LimitedEvent; entries go in the thread of their timer */
} events;

static void limited_event_free(void *opaque)
{
    LimitedEvent *limit = opaque;

    json_object_put(limit->waiting);
    timer_free(limit->timer);
    aio_context_unref(limit->ctx);
    g_free(limit->key);
    g_free(limit);
}

static void limit_expired(void *opaque)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&events.lock);
    LimitedEvent *limit = opaque;
    json_object *event = limit->waiting;

    if (!event) {
        g_hash_table_remove(events.limited, limit->key);
        return;
    }
    limit->waiting = NULL;
    timer_mod_ns(limit->timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + EVENT_LIMIT_NS);
    qmp_broadcast(event);
    json_object_put(event);
}

/* The key under which the event is limited; NULL: it is not. The caller frees. */
static char *limit_key(json_object *event)
{
    const char *name = json_object_get_string(json_object_object_get(event, "event"));
    json_object *data = json_object_object_get(event, "data"), *value = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(limited_events); i++) {
        if (!strcmp(name, limited_events[i].name)) {
            if (limited_events[i].key && data) {
                value = json_object_object_get(data, limited_events[i].key);
            }
            return g_strdup_printf("%s %s", name, value ? json_object_get_string(value) : "");
        }
    }
    return NULL;
}

/* Takes over the event. Under the lock. */
static void deliver(json_object *event)
{
    g_autofree char *key = limit_key(event);
    LimitedEvent *limit = key ? g_hash_table_lookup(events.limited, key) : NULL;

    if (limit) {
        json_object_put(limit->waiting);
        limit->waiting = event;
        return;
    }
    if (key) {
        limit = g_new0(LimitedEvent, 1);
        limit->key = g_steal_pointer(&key);
        limit->ctx = aio_context_ref(events.ctx);
        limit->timer = aio_timer_new(limit->ctx, QEMU_CLOCK_REALTIME, limit_expired, limit);
        timer_mod_ns(limit->timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + EVENT_LIMIT_NS);
        g_hash_table_insert(events.limited, limit->key, limit);
    }
    qmp_broadcast(event);
    json_object_put(event);
}

/* The sink: any thread. */
static void event_sink(const char *name, json_object *data)
{
    json_object *event = json_object_new_object(), *timestamp = json_object_new_object();
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = NULL;
    struct timeval now;

    gettimeofday(&now, NULL);
    json_object_object_add(timestamp, "seconds", json_object_new_int64(now.tv_sec));
    json_object_object_add(timestamp, "microseconds", json_object_new_int64(now.tv_usec));
    json_object_object_add(event, "timestamp", timestamp);
    json_object_object_add(event, "event", json_object_new_string(name));
    if (data) {
        json_object_object_add(event, "data", data);
    }
    locker = g_mutex_locker_new(&events.lock);
    if (events.open) {
        deliver(event);
    } else {
        json_object_put(event);
    }
}

void events_init(void)
{
    events.limited = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, limited_event_free);
    events.ctx = aio_context_ref(qemu_get_aio_context());
    events.open = true;
    qapi_event_set_sink(event_sink);
}

void events_set_context(AioContext *ctx)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&events.lock);

    aio_context_unref(events.ctx);
    events.ctx = aio_context_ref(ctx);
}

static gboolean is_of_this_thread(gpointer key, gpointer value, gpointer opaque)
{
    return aio_context_in_own_thread(((LimitedEvent *)value)->ctx);
}

static void drop_limits(void)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&events.lock);

    events.open = false;
    g_hash_table_foreach_remove(events.limited, is_of_this_thread, NULL);
}

/* A timer goes in its own thread: elsewhere its callback might be about to run. */
void coroutine_fn events_co_cleanup(void)
{
    qapi_event_set_sink(NULL);
    drop_limits();
    aio_co_reschedule_self(events.ctx);
    drop_limits();
    aio_co_reschedule_self(qemu_get_aio_context());
    g_hash_table_unref(g_steal_pointer(&events.limited));
    g_clear_pointer(&events.ctx, aio_context_unref);
}
