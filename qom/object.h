/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tree of objects and the types they have, as qom-list and its like show them. Under the big
 * lock (util/bql.h).
 *
 * An object here is the public face of a part that a subsystem owns. It has a name, a place in the
 * tree, a type, and the properties that the type describes. Children are properties too, of type
 * child<TYPE>.
 *
 * Lifetime: an object is counted. The tree holds one reference for as long as the object has a
 * place there. Code that keeps a pointer over a yield holds another. When the last one is dropped,
 * the type's finalize() frees the part behind the object.
 */
#ifndef FERRY_QOM_OBJECT_H
#define FERRY_QOM_OBJECT_H

#include <glib.h>
#include <stdbool.h>
#include "qapi/codec.h"

typedef struct QomObject QomObject;
typedef struct QomType QomType;

/* A property, as lists of properties show it. Strings and the value are lent for the call. */
typedef struct QomProperty {
    const char *name;
    const char *type; /* "bool", "uint32", "link<bus>" */
    const char *description;
    json_object *default_value; /* NULL: none */
    bool status;                /* users cannot give it at creation: it tells how the object is */
} QomProperty;

typedef void QomPropertyFn(const QomProperty *property, void *opaque);

struct QomType {
    const char *name;
    const char *parent; /* its name; NULL: object */
    bool abstract;
    bool user_creatable; /* object-add makes it */
    void *opaque;        /* the registering subsystem's */

    /* Properties are described in one of two ways. Either as members of a QAPI struct: */
    const QapiType *properties;
    const char *write_only; /* the one that cannot be read: a secret; NULL: none */
    /*
     * The values as a JSON object, the caller's; one that is absent reads as empty, zero or off.
     * NULL: there are none.
     */
    json_object *(*get)(void *opaque);

    /* or by these two: */
    /* Calls fn for each property that objects of the type have, in the order for people. */
    void (*foreach_property)(const QomType *type, QomPropertyFn *fn, void *opaque);
    /* *value is the caller's, NULL for null. The name is one that foreach_property() gave. */
    bool (*get_one)(void *object, const char *name, json_object **value, GError **errp);

    /* In both: changes one; its name is right, nothing else is checked. NULL: all are fixed. */
    bool (*set)(void *opaque, const char *name, json_object *value, GError **errp);
    /* The last reference was dropped. NULL: objects do not own their opaque. */
    void (*finalize)(void *opaque);
};

/* `type` and what it points to live on. */
void qom_type_register(const QomType *type);
/* NULL when there is none. */
const QomType *qom_type_find(const char *name);
/* True when `type` is called `name` or descends from it. */
bool qom_type_is(const QomType *type, const char *name);
/* The parent; NULL for "object". */
const QomType *qom_type_parent(const QomType *type);
/* Calls fn for each type, in order of registration. */
void qom_type_foreach(void (*fn)(const QomType *type, void *opaque), void *opaque);
/* Calls fn for each property that the type describes; children and "type" are not among them. */
void qom_type_foreach_property(const QomType *type, QomPropertyFn *fn, void *opaque);

/* The container /NAME, made when it is first asked for. */
QomObject *qom_container(const char *name);
/*
 * Puts an object under a parent (NULL: the root), which holds the only reference. The name must be
 * free there.
 */
QomObject *qom_object_new(QomObject *parent, const char *name, const QomType *type, void *opaque);
QomObject *qom_object_ref(QomObject *object);
void qom_object_unref(QomObject *object);
/* Takes it, and what is below it, out of the tree, and drops the tree's references. NULL is allowed. */
void qom_object_free(QomObject *object);
/* Whether it is still in the tree. The root is. */
bool qom_object_placed(const QomObject *object);

/*
 * "/objects/iothread0", or a part of such a path that fits one object only. NULL and errp
 * (DeviceNotFound when nothing fits).
 */
QomObject *qom_resolve(const char *path, GError **errp);
const QomType *qom_object_type(const QomObject *object);
/* What qom_object_new() was given. */
void *qom_object_opaque(const QomObject *object);
/* The path from the root; the caller frees. */
char *qom_object_path(const QomObject *object);
/* The child of that name, or NULL. */
QomObject *qom_object_child(const QomObject *object, const char *name);
/* The first free name of the form "PREFIX[N]" under `parent`; the caller frees. */
char *qom_free_name(const QomObject *parent, const char *prefix);
void qom_object_foreach_child(QomObject *object, void (*fn)(QomObject *child, void *opaque),
                              void *opaque);
const char *qom_object_name(const QomObject *object);

/* One property's value, the caller's; it may be NULL, JSON's null. False and errp: none such. */
bool qom_object_get(QomObject *object, const char *property, json_object **value, GError **errp);
bool qom_object_set(QomObject *object, const char *property, json_object *value, GError **errp);

#endif
