/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QAPI values: encoding, freeing, cloning and the descriptions of builtin types. */
#include "qapi/codec.h"

#include <string.h>

#include "qapi/codec-slot.h"
#include "util/error.h"

#define BUILTIN(NAME, CTYPE, KIND)                                                          \
    const QapiType qapi_type_##NAME = {.name = #NAME, .kind = KIND, .size = sizeof(CTYPE)}; \
    const QapiType qapi_type_##NAME##List = {                                               \
        .name = #NAME "List",                                                               \
        .kind = QAPI_KIND_LIST,                                                             \
        .size = sizeof(NAME##List),                                                         \
        .value_offset = offsetof(NAME##List, value),                                        \
        .element = &qapi_type_##NAME,                                                       \
    };                                                                                      \
    void qapi_free_##NAME##List(NAME##List *list)                                           \
    {                                                                                       \
        qapi_free(&qapi_type_##NAME##List, list);                                           \
    }

BUILTIN(str, char *, QAPI_KIND_STR)
BUILTIN(bool, bool, QAPI_KIND_BOOL)
BUILTIN(int, int64_t, QAPI_KIND_INT)
BUILTIN(int8, int8_t, QAPI_KIND_INT)
BUILTIN(int16, int16_t, QAPI_KIND_INT)
BUILTIN(int32, int32_t, QAPI_KIND_INT)
BUILTIN(int64, int64_t, QAPI_KIND_INT)
BUILTIN(uint8, uint8_t, QAPI_KIND_UINT)
BUILTIN(uint16, uint16_t, QAPI_KIND_UINT)
BUILTIN(uint32, uint32_t, QAPI_KIND_UINT)
BUILTIN(uint64, uint64_t, QAPI_KIND_UINT)
BUILTIN(size, uint64_t, QAPI_KIND_SIZE)
BUILTIN(number, double, QAPI_KIND_NUMBER)
BUILTIN(any, json_object *, QAPI_KIND_ANY)
const QapiType qapi_type_null = {.name = "null", .kind = QAPI_KIND_NULL};

const char *qapi_enum_str(const QapiType *type, int value)
{
    return value >= 0 && value < type->count ? type->values[value] : NULL;
}

bool qapi_enum_parse(const QapiType *type, const char *name, int *value, GError **errp)
{
    for (int i = 0; i < type->count; i++) {
        if (strcmp(type->values[i], name) == 0) {
            *value = i;
            return true;
        }
    }
    error_setg(errp, "invalid parameter value: %s", name);
    return false;
}

/* ---- the parts of a value */

int64_t qapi_load_int(const QapiType *type, const void *slot)
{
    switch (type->size) {
    case 1:
        return *(const int8_t *)slot;
    case 2:
        return *(const int16_t *)slot;
    case 4:
        return *(const int32_t *)slot;
    default:
        return *(const int64_t *)slot;
    }
}

static uint64_t load_uint(const QapiType *type, const void *slot)
{
    switch (type->size) {
    case 1:
        return *(const uint8_t *)slot;
    case 2:
        return *(const uint16_t *)slot;
    case 4:
        return *(const uint32_t *)slot;
    default:
        return *(const uint64_t *)slot;
    }
}

const QapiType *qapi_union_branch(const QapiType *type, const void *obj)
{
    int tag;

    if (!type->branches) {
        return NULL;
    }
    tag = *(const int *)((const char *)obj + type->tag_offset);
    /* The table ends with NULL, at the place of the tag's __MAX. */
    return tag >= 0 ? type->branches[tag] : NULL;
}

bool qapi_json_matches(const QapiType *type, json_type json)
{
    switch (type->kind) {
    case QAPI_KIND_BOOL:
        return json == json_type_boolean;
    case QAPI_KIND_INT:
    case QAPI_KIND_UINT:
    case QAPI_KIND_SIZE:
        return json == json_type_int;
    case QAPI_KIND_NUMBER:
        return json == json_type_int || json == json_type_double;
    case QAPI_KIND_ENUM:
    case QAPI_KIND_STR:
        return json == json_type_string;
    case QAPI_KIND_NULL:
        return json == json_type_null;
    case QAPI_KIND_STRUCT:
        return json == json_type_object;
    case QAPI_KIND_LIST:
        return json == json_type_array;
    case QAPI_KIND_ANY:
        return true;
    case QAPI_KIND_ALTERNATE:
        break;
    }
    for (int i = 0; i < type->count; i++) {
        if (qapi_json_matches(type->members[i].type, json)) {
            return true;
        }
    }
    return false;
}

const QapiMember *qapi_alternate_branch(const QapiType *type, json_type json)
{
    for (int i = 0; i < type->count; i++) {
        if (qapi_json_matches(type->members[i].type, json)) {
            return &type->members[i];
        }
    }
    return NULL;
}

static json_type alternate_tag(const void *obj)
{
    return *(const json_type *)obj; /* `type` comes first in every alternate */
}

static bool member_is_present(const QapiMember *member, const void *obj)
{
    const char *base = obj;

    if (!member->optional) {
        return true;
    }
    if (member->has_offset != QAPI_NO_HAS && *(const bool *)(base + member->has_offset)) {
        return true;
    }
    /* Pointers are their own flag. */
    return (member->has_offset == QAPI_NO_HAS || member->type->kind == QAPI_KIND_LIST) &&
           *(void *const *)(base + member->offset) != NULL;
}

/* ---- encoding */

static void encode_members(const QapiType *type, const char *obj, json_object *json)
{
    const QapiType *branch = qapi_union_branch(type, obj);

    for (int i = 0; i < type->count; i++) {
        const QapiMember *member = &type->members[i];

        if (member_is_present(member, obj)) {
            json_object_object_add(json, member->name,
                                   qapi_slot_encode(member->type, obj + member->offset));
        }
    }
    if (branch) {
        encode_members(branch, obj + type->u_offset, json);
    }
}

static json_object *encode_list(const QapiType *type, const char *node)
{
    json_object *array = json_object_new_array();

    for (; node; node = *(const char *const *)node) { /* `next` comes first in every node */
        json_object_array_add(array, qapi_slot_encode(type->element, node + type->value_offset));
    }
    return array;
}

static json_object *encode_alternate(const QapiType *type, const char *obj)
{
    const QapiMember *branch = qapi_alternate_branch(type, alternate_tag(obj));

    if (!branch) {
        return NULL;
    }
    if (branch->type->kind == QAPI_KIND_STRUCT) {
        return qapi_encode(branch->type, obj + branch->offset);
    }
    return qapi_slot_encode(branch->type, obj + branch->offset);
}

json_object *qapi_encode(const QapiType *type, const void *value)
{
    json_object *json;

    switch (type->kind) {
    case QAPI_KIND_LIST:
        return encode_list(type, value);
    case QAPI_KIND_ALTERNATE:
        return value ? encode_alternate(type, value) : NULL;
    case QAPI_KIND_STRUCT:
        json = json_object_new_object();
        if (value) {
            encode_members(type, value, json);
        }
        return json;
    default:
        g_assert_not_reached();
    }
}

json_object *qapi_slot_encode(const QapiType *type, const void *slot)
{
    const char *text;

    switch (type->kind) {
    case QAPI_KIND_BOOL:
        return json_object_new_boolean(*(const bool *)slot);
    case QAPI_KIND_INT:
        return json_object_new_int64(qapi_load_int(type, slot));
    case QAPI_KIND_UINT:
    case QAPI_KIND_SIZE:
        return json_object_new_uint64(load_uint(type, slot));
    case QAPI_KIND_NUMBER:
        return json_object_new_double(*(const double *)slot);
    case QAPI_KIND_ENUM:
        text = qapi_enum_str(type, *(const int *)slot);
        g_assert(text);
        return json_object_new_string(text);
    case QAPI_KIND_STR:
        text = *(const char *const *)slot;
        return json_object_new_string(text ? text : "");
    case QAPI_KIND_NULL:
        return NULL;
    case QAPI_KIND_ANY:
        return json_object_get(*(json_object *const *)slot);
    default:
        return qapi_encode(type, *(const void *const *)slot);
    }
}

/* ---- freeing */

static void clear_members(const QapiType *type, char *obj)
{
    const QapiType *branch = qapi_union_branch(type, obj);

    for (int i = 0; i < type->count; i++) {
        qapi_slot_clear(type->members[i].type, obj + type->members[i].offset);
    }
    if (branch) {
        clear_members(branch, obj + type->u_offset);
    }
}

static void clear_alternate(const QapiType *type, char *obj)
{
    const QapiMember *branch = qapi_alternate_branch(type, alternate_tag(obj));

    if (!branch) {
        return;
    }
    if (branch->type->kind == QAPI_KIND_STRUCT) {
        clear_members(branch->type, obj + branch->offset);
    } else {
        qapi_slot_clear(branch->type, obj + branch->offset);
    }
}

void qapi_free(const QapiType *type, void *value)
{
    if (!value) {
        return;
    }
    if (type->kind == QAPI_KIND_LIST) {
        char *node = value;

        while (node) {
            char *next = *(char **)node;

            qapi_slot_clear(type->element, node + type->value_offset);
            g_free(node);
            node = next;
        }
        return;
    }
    if (type->kind == QAPI_KIND_ALTERNATE) {
        clear_alternate(type, value);
    } else {
        clear_members(type, value);
    }
    g_free(value);
}

void qapi_slot_clear(const QapiType *type, void *slot)
{
    switch (type->kind) {
    case QAPI_KIND_STR:
        g_free(*(char **)slot);
        break;
    case QAPI_KIND_ANY:
        json_object_put(*(json_object **)slot);
        break;
    case QAPI_KIND_STRUCT:
    case QAPI_KIND_ALTERNATE:
    case QAPI_KIND_LIST:
        qapi_free(type, *(void **)slot);
        break;
    default:
        memset(slot, 0, type->size);
        return;
    }
    *(void **)slot = NULL;
}

/*
 * ---- cloning: a flat copy first, then each pointer in it is replaced by a copy of what it points
 * to
 */

static void own_slot(const QapiType *type, void *slot)
{
    if (type->kind == QAPI_KIND_STR) {
        *(char **)slot = g_strdup(*(char **)slot);
    } else if (type->kind == QAPI_KIND_ANY) {
        json_object *copy = NULL;

        /* Values that came from JSON may be changed by their owner, so they are copied too. */
        if (json_object_deep_copy(*(json_object **)slot, &copy, NULL) == 0) {
            *(json_object **)slot = copy;
        } else {
            *(json_object **)slot = NULL;
        }
    } else if (type->kind == QAPI_KIND_STRUCT || type->kind == QAPI_KIND_ALTERNATE ||
               type->kind == QAPI_KIND_LIST) {
        *(void **)slot = qapi_clone(type, *(void **)slot);
    }
}

static void own_members(const QapiType *type, char *obj)
{
    const QapiType *branch = qapi_union_branch(type, obj);

    for (int i = 0; i < type->count; i++) {
        own_slot(type->members[i].type, obj + type->members[i].offset);
    }
    if (branch) {
        own_members(branch, obj + type->u_offset);
    }
}

static void *clone_list(const QapiType *type, const char *node)
{
    char *first = NULL, **tail = &first;

    for (; node; node = *(const char *const *)node) {
        char *copy = g_memdup2(node, type->size);

        own_slot(type->element, copy + type->value_offset);
        *(char **)copy = NULL;
        *tail = copy;
        tail = (char **)copy;
    }
    return first;
}

void *qapi_clone(const QapiType *type, const void *value)
{
    const QapiMember *branch;
    char *copy;

    if (!value) {
        return NULL;
    }
    if (type->kind == QAPI_KIND_LIST) {
        return clone_list(type, value);
    }
    copy = g_memdup2(value, type->size);
    if (type->kind == QAPI_KIND_STRUCT) {
        own_members(type, copy);
        return copy;
    }
    branch = qapi_alternate_branch(type, alternate_tag(copy));
    if (branch && branch->type->kind == QAPI_KIND_STRUCT) {
        own_members(branch->type, copy + branch->offset);
    } else if (branch) {
        own_slot(branch->type, copy + branch->offset);
    }
    return copy;
}
