/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The object type iothread, and query-iothreads. */
#include "qom/iothread.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>
#include "qapi/qapi-commands-misc.h"
#include "util/error.h"
#include "util/iothread.h"

typedef struct PollProperty {
    const char *name;
    size_t offset; /* of an int64_t in AioPollParams */
} PollProperty;

static const PollProperty poll_properties[] = {
    {"poll-max-ns", offsetof(AioPollParams, max_ns)},
    {"poll-grow", offsetof(AioPollParams, grow)},
    {"poll-shrink", offsetof(AioPollParams, shrink)},
};

static bool poll_property_set(AioPollParams *params, const char *name, int64_t value, GError **errp)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(poll_properties); i++) {
        if (strcmp(name, poll_properties[i].name) != 0) {
            continue;
        }
        if (value < 0) {
            error_setg(errp, "%s value must be in range [0, %" PRId64 "]", name, INT64_MAX);
            return false;
        }
        *(int64_t *)((char *)params + poll_properties[i].offset) = value;
        return true;
    }
    error_setg(errp, "Property '%s' cannot be changed any more", name);
    return false;
}

static void *coroutine_fn iothread_co_create(const ObjectOptions *options, GError **errp)
{
    const IOThreadProperties *given = &options->u.iothread;
    AioPollParams params = {.max_ns = AIO_POLL_DEFAULT_MAX_NS};
    IOThread *iothread;

    if ((given->has_poll_max_ns &&
         !poll_property_set(&params, "poll-max-ns", given->poll_max_ns, errp)) ||
        !poll_property_set(&params, "poll-grow", given->poll_grow, errp) ||
        !poll_property_set(&params, "poll-shrink", given->poll_shrink, errp)) {
        return NULL;
    }
    iothread = iothread_new(options->id, errp);
    if (iothread) {
        iothread_set_poll_params(iothread, &params);
    }
    return iothread;
}

static json_object *iothread_get(void *object)
{
    const AioPollParams *params = iothread_get_poll_params(object);
    json_object *all = json_object_new_object();

    for (unsigned i = 0; i < G_N_ELEMENTS(poll_properties); i++) {
        const int64_t *value = (const int64_t *)((const char *)params + poll_properties[i].offset);

        json_object_object_add(all, poll_properties[i].name, json_object_new_int64(*value));
    }
    return all;
}

static bool iothread_set(void *object, const char *property, json_object *value, GError **errp)
{
    AioPollParams params = *iothread_get_poll_params(object);

    if (!json_object_is_type(value, json_type_int)) {
        error_setg(errp, "Invalid parameter type for '%s', expected: integer", property);
        return false;
    }
    if (!poll_property_set(&params, property, json_object_get_int64(value), errp)) {
        return false;
    }
    iothread_set_poll_params(object, &params);
    return true;
}

static void iothread_destroy(void *object)
{
    iothread_free(object);
}

static bool iothread_can_be_deleted(void *object, GError **errp)
{
    g_autofree char *users = iothread_users(object);

    if (users) {
        error_setg(errp, "object '%s' is in use by %s, can not be deleted", iothread_get_id(object),
                   users);
        return false;
    }
    return true;
}

const UserCreatableOps iothread_object_ops = {
    .type = OBJECT_TYPE_IOTHREAD,
    .co_create = iothread_co_create,
    .destroy = iothread_destroy,
    .can_be_deleted = iothread_can_be_deleted,
    .early = true,
    .parent = "event-loop-base",
    .get = iothread_get,
    .set = iothread_set,
};

static void add_info(UserCreatable *object, void *opaque)
{
    IOThreadInfoList ***tail = opaque;
    IOThreadInfo *info = g_new0(IOThreadInfo, 1);
    const AioPollParams *poll = iothread_get_poll_params(user_creatable_get(object));

    info->id = g_strdup(user_creatable_id(object));
    info->poll_max_ns = poll->max_ns;
    info->poll_grow = poll->grow;
    info->poll_shrink = poll->shrink;
    info->thread_id = iothread_get_thread_id(user_creatable_get(object));
    QAPI_LIST_APPEND(*tail, info);
}

bool coroutine_fn qmp_query_iothreads(IOThreadInfoList **ret, GError **errp)
{
    user_creatable_foreach(OBJECT_TYPE_IOTHREAD, add_info, &ret);
    return true;
}
