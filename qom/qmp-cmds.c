/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP commands about objects. */
#include "qapi/qapi-commands-qom.h"
#include "qom/user-creatable.h"

bool coroutine_fn qmp_object_add(const ObjectOptions *arg, GError **errp)
{
    return user_creatable_co_add(arg, errp);
}

bool coroutine_fn qmp_object_del(const ObjectDelArg *arg, GError **errp)
{
    return user_creatable_del(arg->id, errp);
}
