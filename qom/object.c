/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The tree of objects: types, places, properties. */
#include "qom/object.h"

#include <string.h>
#include "util/error.h"
#include "util/queue.h"

struct QomObject {
    char *name;
    const QomType *type;
    void *opaque;
    QomObject *parent; /* NULL: the root, or one that has left the tree */
    unsigned refs;
    TAILQ_HEAD(, QomObject) children;
    TAILQ_ENTRY(QomObject) next;
};

static const QomType object_type = {.name = "object", .abstract = true};
static const QomType container_type = {.name = "container"};

static struct {
    GPtrArray *types; /* const QomType */
    QomObject *root;
} qom;

/* --- types --- */

static GPtrArray *types(void)
{
    if (!qom.types) {
        qom.types = g_ptr_array_new();
        g_ptr_array_add(qom.types, (gpointer)&object_type);
        g_ptr_array_add(qom.types, (gpointer)&container_type);
    }
    return qom.types;
}

void qom_type_register(const QomType *type)
{
    g_assert(!qom_type_find(type->name));
    g_ptr_array_add(types(), (gpointer)type);
}

const QomType *qom_type_find(const char *name)
{
    for (guint i = 0; i < types()->len; i++) {
        const QomType *type = g_ptr_array_index(types(), i);

        if (!strcmp(type->name, name)) {
            return type;
        }
    }
    return NULL;
}

const QomType *qom_type_parent(const QomType *type)
{
    if (type == &object_type) {
        return NULL;
    }
    return type->parent ? qom_type_find(type->parent) : &object_type;
}

bool qom_type_is(const QomType *type, const char *name)
{
    if (type->user_creatable && !strcmp(name, "user-creatable")) {
        return true;
    }
    while (type && strcmp(type->name, name) != 0) {
        type = qom_type_parent(type);
    }
    return type;
}

void qom_type_foreach(void (*fn)(const QomType *type, void *opaque), void *opaque)
{
    for (guint i = 0; i < types()->len; i++) {
        fn(g_ptr_array_index(types(), i), opaque);
    }
}

/* --- the tree --- */

static QomObject *make(QomObject *parent, const char *name, const QomType *type, void *opaque)
{
    QomObject *object = g_new0(QomObject, 1);

    object->name = g_strdup(name);
    object->type = type;
    object->opaque = opaque;
    object->parent = parent;
    object->refs = 1;
    TAILQ_INIT(&object->children);
    if (parent) {
        g_assert(!qom_object_child(parent, name));
        TAILQ_INSERT_TAIL(&parent->children, object, next);
    }
    return object;
}

static QomObject *root(void)
{
    if (!qom.root) {
        qom.root = make(NULL, "", &container_type, NULL);
    }
    return qom.root;
}

QomObject *qom_container(const char *name)
{
    QomObject *container = qom_object_child(root(), name);

    return container ? container : make(root(), name, &container_type, NULL);
}

QomObject *qom_object_new(QomObject *parent, const char *name, const QomType *type, void *opaque)
{
    return make(parent ? parent : root(), name, type, opaque);
}

QomObject *qom_object_ref(QomObject *object)
{
    object->refs++;
    return object;
}

void qom_object_unref(QomObject *object)
{
    g_assert(object->refs);
    if (--object->refs) {
        return;
    }
    g_assert(!object->parent && TAILQ_EMPTY(&object->children));
    if (object->type->finalize) {
        object->type->finalize(object->opaque);
    }
    g_free(object->name);
    g_free(object);
}

void qom_object_free(QomObject *object)
{
    QomObject *child;

    if (!object) {
        return;
    }
    while ((child = TAILQ_FIRST(&object->children))) {
        qom_object_free(child);
    }
    if (object->parent) {
        TAILQ_REMOVE(&object->parent->children, object, next);
        object->parent = NULL;
    }
    qom_object_unref(object);
}

bool qom_object_placed(const QomObject *object)
{
    return object->parent || object == qom.root;
}

char *qom_free_name(const QomObject *parent, const char *prefix)
{
    for (unsigned n = 0;; n++) {
        g_autofree char *name = g_strdup_printf("%s[%u]", prefix, n);

        if (!qom_object_child(parent, name)) {
            return g_steal_pointer(&name);
        }
    }
}

QomObject *qom_object_child(const QomObject *object, const char *name)
{
    QomObject *child;

    TAILQ_FOREACH(child, &object->children, next) {
        if (!strcmp(child->name, name)) {
            return child;
        }
    }
    return NULL;
}

void qom_object_foreach_child(QomObject *object, void (*fn)(QomObject *child, void *opaque),
                              void *opaque)
{
    QomObject *child;

    TAILQ_FOREACH(child, &object->children, next) {
        fn(child, opaque);
    }
}

const char *qom_object_name(const QomObject *object)
{
    return object->name;
}

void *qom_object_opaque(const QomObject *object)
{
    return object->opaque;
}

const QomType *qom_object_type(const QomObject *object)
{
    return object->type;
}

char *qom_object_path(const QomObject *object)
{
    g_autoptr(GString) path = g_string_new(NULL);

    for (; object->parent; object = object->parent) {
        g_string_prepend(path, object->name);
        g_string_prepend_c(path, '/');
    }
    return g_strdup(path->len ? path->str : "/");
}

/* --- paths --- */

/* Follows the words of a path down from `object`; NULL when one leads nowhere. */
static QomObject *walk(QomObject *object, char *const *words)
{
    for (; object && *words; words++) {
        if (**words) { /* more slashes than one mean one */
            object = qom_object_child(object, *words);
        }
    }
    return object;
}

/* How many objects at or below `object` the words lead to; *found is one of them. */
static unsigned search(QomObject *object, char *const *words, QomObject **found)
{
    QomObject *here = walk(object, words), *child;
    unsigned n = here != NULL;

    if (here) {
        *found = here;
    }
    TAILQ_FOREACH(child, &object->children, next) {
        n += search(child, words, found);
    }
    return n;
}

QomObject *qom_resolve(const char *path, GError **errp)
{
    g_auto(GStrv) words = g_strsplit(path, "/", -1);
    QomObject *found = NULL;
    unsigned n = 1;

    if (*path == '/') {
        found = walk(root(), words);
    } else {
        n = search(root(), words, &found);
    }
    if (n > 1) {
        error_setg(errp, "Path '%s' is ambiguous", path);
        return NULL;
    }
    if (!found) {
        error_set_class(errp, FERRY_ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", path);
    }
    return found;
}

/* --- properties --- */

/* What QEMU calls the type of a property. */
static const char *property_type(const QapiType *type)
{
    switch (type->kind) {
    case QAPI_KIND_BOOL:
        return "bool";
    case QAPI_KIND_INT:
    case QAPI_KIND_UINT:
        return "int";
    case QAPI_KIND_SIZE:
        return "size";
    case QAPI_KIND_STR:
        return "string";
    case QAPI_KIND_LIST:
        return type->element->name;
    default:
        return type->name;
    }
}

void qom_type_foreach_property(const QomType *type, QomPropertyFn *fn, void *opaque)
{
    if (type->foreach_property) {
        type->foreach_property(type, fn, opaque);
        return;
    }
    for (uint16_t i = 0; type->properties && i < type->properties->count; i++) {
        const QapiMember *member = &type->properties->members[i];
        QomProperty property = {.name = member->name, .type = property_type(member->type)};

        fn(&property, opaque);
    }
}

typedef struct NameSearch {
    const char *name;
    bool found;
} NameSearch;

static void compare_name(const QomProperty *property, void *opaque)
{
    NameSearch *search = opaque;

    search->found |= !strcmp(property->name, search->name);
}

static bool has_property(const QomType *type, const char *name)
{
    NameSearch search = {.name = name};

    qom_type_foreach_property(type, compare_name, &search);
    return search.found;
}

static const QapiMember *find_member(const QomType *type, const char *name)
{
    for (uint16_t i = 0; type->properties && i < type->properties->count; i++) {
        if (!strcmp(type->properties->members[i].name, name)) {
            return &type->properties->members[i];
        }
    }
    return NULL;
}

/* What a property reads as that was never given a value. */
static json_object *empty_value(const QapiType *type)
{
    switch (type->kind) {
    case QAPI_KIND_BOOL:
        return json_object_new_boolean(false);
    case QAPI_KIND_INT:
    case QAPI_KIND_UINT:
    case QAPI_KIND_SIZE:
        return json_object_new_int(0);
    case QAPI_KIND_NUMBER:
        return json_object_new_double(0);
    case QAPI_KIND_ENUM:
        return json_object_new_string(type->values[0]);
    case QAPI_KIND_STR:
        return json_object_new_string("");
    case QAPI_KIND_LIST:
        return json_object_new_array();
    default:
        return NULL;
    }
}

static bool get_member(QomObject *object, const QapiMember *member, json_object **value,
                       GError **errp)
{
    json_object *all, *one;

    if (!g_strcmp0(object->type->write_only, member->name)) {
        error_setg(errp, "Property '%s.%s' is not readable", object->type->name, member->name);
        return false;
    }
    all = object->type->get ? object->type->get(object->opaque) : NULL;
    if (all && json_object_object_get_ex(all, member->name, &one)) {
        *value = json_object_get(one);
    } else {
        *value = empty_value(member->type);
    }
    json_object_put(all);
    return true;
}

static void property_not_found(const QomObject *object, const char *property, GError **errp)
{
    error_setg(errp, "Property '%s.%s' not found", object->type->name, property);
}

bool qom_object_get(QomObject *object, const char *property, json_object **value, GError **errp)
{
    const QapiMember *member = find_member(object->type, property);
    QomObject *child = qom_object_child(object, property);

    if (!strcmp(property, "type")) {
        *value = json_object_new_string(object->type->name);
    } else if (child) {
        g_autofree char *path = qom_object_path(child);

        *value = json_object_new_string(path);
    } else if (object->type->get_one && has_property(object->type, property)) {
        return object->type->get_one(object->opaque, property, value, errp);
    } else if (member) {
        return get_member(object, member, value, errp);
    } else {
        property_not_found(object, property, errp);
        return false;
    }
    return true;
}

bool qom_object_set(QomObject *object, const char *property, json_object *value, GError **errp)
{
    if (has_property(object->type, property) && object->type->set) {
        return object->type->set(object->opaque, property, value, errp);
    }
    if (!strcmp(property, "type") || has_property(object->type, property) ||
        qom_object_child(object, property)) {
        error_setg(errp, "Property '%s.%s' is not writable", object->type->name, property);
    } else {
        property_not_found(object, property, errp);
    }
    return false;
}
