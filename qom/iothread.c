/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The object type iothread, and query-iothreads. */
#include "qom/iothread.h"

#include "qapi/qapi-commands-misc.h"
#include "util/error.h"
#include "util/iothread.h"

static void *coroutine_fn iothread_co_create(const ObjectOptions *options, GError **errp)
{
    return iothread_new(options->id, errp);
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
};

static void add_info(UserCreatable *object, void *opaque)
{
    IOThreadInfoList ***tail = opaque;
    IOThreadInfo *info = g_new0(IOThreadInfo, 1);

    info->id = g_strdup(user_creatable_id(object));
    info->thread_id = iothread_get_thread_id(user_creatable_get(object));
    QAPI_LIST_APPEND(*tail, info);
}

bool coroutine_fn qmp_query_iothreads(IOThreadInfoList **ret, GError **errp)
{
    user_creatable_foreach(OBJECT_TYPE_IOTHREAD, add_info, &ret);
    return true;
}
