/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Objects that users make by name: `-object`, object-add, object-del. Main thread only.
 *
 * Each type registers a table of operations at start-up; the registry owns the objects and their
 * ids. A user of an object holds a reference, and an object in use cannot be deleted.
 */
#ifndef FERRY_QOM_USER_CREATABLE_H
#define FERRY_QOM_USER_CREATABLE_H

#include <glib.h>
#include <stdbool.h>
#include "qapi/qapi-types-qom.h"
#include "util/coroutine.h"

typedef struct UserCreatable UserCreatable;

typedef struct UserCreatableOps {
    ObjectType type;
    /* Makes the object's part of the subsystem from checked options (options->qom_type is `type`);
     * NULL and errp on failure.
     */
    void *coroutine_fn (*co_create)(const ObjectOptions *options, GError **errp);
    /* Destroys the object; no user holds a reference. */
    void (*destroy)(void *object);
    /* Optional: a veto beyond the use count, with the reason in errp. */
    bool (*can_be_deleted)(void *object, GError **errp);
    /*
     * Objects others refer to by name (secrets, iothreads) are made before chardevs and disks; the
     * others after them.
     */
    bool early;
    const char *parent; /* the type it is a kind of; NULL: object */
    /* Optional, as in QomType; without get the properties are what was given to co_create(). */
    const char *write_only;
    json_object *(*get)(void *object);
    bool (*set)(void *object, const char *property, json_object *value, GError **errp);
    /* Optional, JSON text: the defaults of properties, where these are not zero. */
    const char *defaults;
} UserCreatableOps;

/* `ops` lives on. Called once for each type by start-up. */
void user_creatable_register(const UserCreatableOps *ops);
/* NULL when the type is not registered. */
const UserCreatableOps *user_creatable_ops(ObjectType type);

bool coroutine_fn user_creatable_co_add(const ObjectOptions *options, GError **errp);
bool user_creatable_del(const char *id, GError **errp);
/* End of shutdown: destroys all that are not in use, the youngest first. */
void user_creatable_cleanup(void);

/* The object with that id and type; NULL and errp when there is none. Valid while referenced. */
UserCreatable *user_creatable_find(const char *id, ObjectType type, GError **errp);
/* What co_create() returned. */
void *user_creatable_get(UserCreatable *object);
const char *user_creatable_id(const UserCreatable *object);
/* Counted: while a user holds one the object cannot be deleted. */
void user_creatable_ref(UserCreatable *object);
void user_creatable_unref(UserCreatable *object);
/* Calls fn for each object of a type, in order of creation. */
void user_creatable_foreach(ObjectType type, void (*fn)(UserCreatable *object, void *opaque),
                            void *opaque);

#endif
