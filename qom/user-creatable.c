/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Objects that users make by name. */
#include "qom/user-creatable.h"

#include <string.h>
#include "qom/object.h"
#include "util/error.h"
#include "util/id.h"
#include "util/queue.h"

struct UserCreatable {
    const UserCreatableOps *ops;
    char *id;
    void *object;
    json_object *given; /* the options it was made of */
    QomObject *face;
    unsigned users;
    TAILQ_ENTRY(UserCreatable) next;
};

TAILQ_HEAD(UserCreatableList, UserCreatable);

static struct {
    const UserCreatableOps *ops[OBJECT_TYPE__MAX];
    QomType types[OBJECT_TYPE__MAX];
    struct UserCreatableList objects;
} registry = {.objects = TAILQ_HEAD_INITIALIZER(registry.objects)};

/* --- how qom-list and its like see them --- */

static json_object *get_properties(void *opaque)
{
    UserCreatable *uc = opaque;
    json_object *all;

    if (uc->ops->get) {
        return uc->ops->get(uc->object);
    }
    all = uc->ops->defaults ? json_tokener_parse(uc->ops->defaults) : json_object_new_object();
    json_object_object_foreach(uc->given, key, value)
    {
        json_object_object_add(all, key, json_object_get(value));
    }
    return all;
}

static bool set_property(void *opaque, const char *property, json_object *value, GError **errp)
{
    UserCreatable *uc = opaque;

    return uc->ops->set(uc->object, property, value, errp);
}

static void register_parent(const char *name)
{
    if (name && !qom_type_find(name)) {
        QomType *type = g_new0(QomType, 1); /* types stay */

        type->name = name;
        type->abstract = true;
        qom_type_register(type);
    }
}

void user_creatable_register(const UserCreatableOps *ops)
{
    QomType *type = &registry.types[ops->type];

    registry.ops[ops->type] = ops;
    register_parent(ops->parent);
    *type = (QomType){
        .name = ObjectType_str(ops->type),
        .parent = ops->parent,
        .user_creatable = true,
        .properties = qapi_type_ObjectOptions.branches[ops->type],
        .write_only = ops->write_only,
        .get = get_properties,
        .set = ops->set ? set_property : NULL,
    };
    qom_type_register(type);
}

static void show(UserCreatable *uc, const ObjectOptions *options)
{
    uc->given = ObjectOptions_to_json(options);
    if (uc->ops->write_only) {
        json_object_object_del(uc->given, uc->ops->write_only);
    }
    uc->face = qom_object_new(qom_container("objects"), uc->id, &registry.types[uc->ops->type], uc);
}

const UserCreatableOps *user_creatable_ops(ObjectType type)
{
    return registry.ops[type];
}

static UserCreatable *find_any(const char *id)
{
    UserCreatable *uc;

    TAILQ_FOREACH(uc, &registry.objects, next) {
        if (!strcmp(uc->id, id)) {
            return uc;
        }
    }
    return NULL;
}

bool coroutine_fn user_creatable_co_add(const ObjectOptions *options, GError **errp)
{
    const UserCreatableOps *ops = registry.ops[options->qom_type];
    UserCreatable *uc;
    void *object;

    if (!ops) {
        error_setg(errp, "object type '%s' is not supported", ObjectType_str(options->qom_type));
        return false;
    }
    if (!qemu_id_check(options->id, errp)) {
        return false;
    }
    if (find_any(options->id)) {
        error_setg(errp, "attempt to add duplicate property '%s' to object (type 'container')",
                   options->id);
        return false;
    }
    object = ops->co_create(options, errp);
    if (!object) {
        return false;
    }
    /* Creating may have waited: the name may be taken by now. */
    if (find_any(options->id)) {
        error_setg(errp, "attempt to add duplicate property '%s' to object (type 'container')",
                   options->id);
        ops->destroy(object);
        return false;
    }
    uc = g_new0(UserCreatable, 1);
    uc->ops = ops;
    uc->id = g_strdup(options->id);
    uc->object = object;
    TAILQ_INSERT_TAIL(&registry.objects, uc, next);
    show(uc, options);
    return true;
}

static void destroy(UserCreatable *uc)
{
    TAILQ_REMOVE(&registry.objects, uc, next);
    qom_object_free(uc->face);
    json_object_put(uc->given);
    uc->ops->destroy(uc->object);
    g_free(uc->id);
    g_free(uc);
}

bool user_creatable_del(const char *id, GError **errp)
{
    UserCreatable *uc = find_any(id);

    if (!uc) {
        error_setg(errp, "object '%s' not found", id);
        return false;
    }
    if (uc->users) {
        error_setg(errp, "object '%s' is in use, can not be deleted", id);
        return false;
    }
    if (uc->ops->can_be_deleted && !uc->ops->can_be_deleted(uc->object, errp)) {
        return false;
    }
    destroy(uc);
    return true;
}

void user_creatable_cleanup(void)
{
    UserCreatable *uc, *before;

    for (uc = TAILQ_LAST(&registry.objects, UserCreatableList); uc; uc = before) {
        before = TAILQ_PREV(uc, UserCreatableList, next);
        if (!uc->users && (!uc->ops->can_be_deleted || uc->ops->can_be_deleted(uc->object, NULL))) {
            destroy(uc);
        }
    }
}

UserCreatable *user_creatable_find(const char *id, ObjectType type, GError **errp)
{
    UserCreatable *uc = find_any(id);

    if (!uc) {
        error_setg(errp, "No object with id '%s'", id);
        return NULL;
    }
    if (uc->ops->type != type) {
        error_setg(errp, "Object with id '%s' is not of type '%s'", id, ObjectType_str(type));
        return NULL;
    }
    return uc;
}

void *user_creatable_get(UserCreatable *object)
{
    return object->object;
}

const char *user_creatable_id(const UserCreatable *object)
{
    return object->id;
}

void user_creatable_ref(UserCreatable *object)
{
    object->users++;
}

void user_creatable_unref(UserCreatable *object)
{
    g_assert(object->users);
    object->users--;
}

void user_creatable_foreach(ObjectType type, void (*fn)(UserCreatable *object, void *opaque),
                            void *opaque)
{
    UserCreatable *uc;

    TAILQ_FOREACH(uc, &registry.objects, next) {
        if (uc->ops->type == type) {
            fn(uc, opaque);
        }
    }
}
