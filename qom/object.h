/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tree of objects and the types they have, as qom-list and its like show them. Main thread
 * only.
 *
 * An object here is the public face of something that its own subsystem owns: it has a name, a
 * place in the tree, a type, and the properties that the type describes. Children are properties
 * too, of type child<TYPE>.
 */
#ifndef FERRY_QOM_OBJECT_H
#define FERRY_QOM_OBJECT_H

#include <glib.h>
#include <stdbool.h>
#include "qapi/codec.h"

typedef struct QomObject QomObject;

typedef struct QomType {
    const char *name;
    const char *parent; /* its name; NULL: object */
    bool abstract;
    bool user_creatable;        /* object-add makes it */
    const QapiType *properties; /* a struct whose members are properties; NULL: none */
    const char *write_only;     /* the one that cannot be read: a secret; NULL: none */
    /*
     * The values of the properties as a JSON object, the caller's; one that is absent reads as
     * empty, zero or off. NULL: there are none.
     */
    json_object *(*get)(void *opaque);
    /* Changes one; its name is right, nothing else is checked. NULL: all are fixed. */
    bool (*set)(void *opaque, const char *name, json_object *value, GError **errp);
} QomType;

/* `type` and what it points to live on. */
void qom_type_register(const QomType *type);
/* NULL when there is none. */
const QomType *qom_type_find(const char *name);
/* True when `type` is called `name` or descends from it. */
bool qom_type_is(const QomType *type, const char *name);
/* Calls fn for each type, in order of registration. */
void qom_type_foreach(void (*fn)(const QomType *type, void *opaque), void *opaque);

/* The container /NAME, made when it is first asked for. */
QomObject *qom_container(const char *name);
/* Puts an object under a parent (NULL: the root). The name must be free there. */
QomObject *qom_object_new(QomObject *parent, const char *name, const QomType *type, void *opaque);
/* Takes it, and what is below it, out of the tree. NULL is allowed. */
void qom_object_free(QomObject *object);

/*
 * "/objects/iothread0", or a part of such a path that fits one object only. NULL and errp
 * (DeviceNotFound when nothing fits).
 */
QomObject *qom_resolve(const char *path, GError **errp);
const QomType *qom_object_type(const QomObject *object);
/* The path from the root; the caller frees. */
char *qom_object_path(const QomObject *object);
/* The child of that name, or NULL. */
QomObject *qom_object_child(const QomObject *object, const char *name);
void qom_object_foreach_child(QomObject *object, void (*fn)(QomObject *child, void *opaque),
                              void *opaque);
const char *qom_object_name(const QomObject *object);

/* One property's value, the caller's; it may be NULL, JSON's null. False and errp: none such. */
bool qom_object_get(QomObject *object, const char *property, json_object **value, GError **errp);
bool qom_object_set(QomObject *object, const char *property, json_object *value, GError **errp);

#endif
