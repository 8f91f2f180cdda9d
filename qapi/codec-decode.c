/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QAPI values from JSON.
 *
 * The value under construction is always safe to free: memory starts as zero, and a discriminator
 * or alternate tag is set before what it selects is filled.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "qapi/codec-slot.h"
#include "util/cutils.h"
#include "util/error.h"

/* Where in the JSON value the decoder is: a chain of members and list indexes on the stack. */
typedef struct Path {
    const struct Path *parent;
    const char *name; /* NULL for a list element */
    size_t index;
} Path;

typedef struct Decoder {
    QapiDecodeFlags flags;
    GError **errp;
    int depth; /* of containers around the value at hand */
} Decoder;

static bool decode_slot(Decoder *dec, const QapiType *type, void *slot, json_object *json,
                        const Path *path);

static char *path_str(const Path *path)
{
    g_autofree char *parent = NULL;

    if (!path) {
        return g_strdup("");
    }
    parent = path_str(path->parent);
    if (!path->name) {
        return g_strdup_printf("%s[%zu]", parent, path->index);
    }
    return *parent ? g_strdup_printf("%s.%s", parent, path->name) : g_strdup(path->name);
}

/* The last member's name, as the reason for a refused value is given without its path. */
static const char *leaf_name(const Path *path)
{
    while (path && !path->name) {
        path = path->parent;
    }
    return path ? path->name : "value";
}

static const char *expected_name(const QapiType *type)
{
    switch (type->kind) {
    case QAPI_KIND_BOOL:
        return "boolean";
    case QAPI_KIND_INT:
    case QAPI_KIND_UINT:
    case QAPI_KIND_SIZE:
        return "integer";
    case QAPI_KIND_NUMBER:
        return "number";
    case QAPI_KIND_ENUM:
    case QAPI_KIND_STR:
        return "string";
    case QAPI_KIND_NULL:
        return "null";
    case QAPI_KIND_STRUCT:
        return "object";
    case QAPI_KIND_LIST:
        return "array";
    default:
        return type->name;
    }
}

static bool fail_type(Decoder *dec, const QapiType *type, const Path *path)
{
    g_autofree char *name = path_str(path);

    if (*name) {
        error_setg(dec->errp, "Invalid parameter type for '%s', expected: %s", name,
                   expected_name(type));
    } else {
        error_setg(dec->errp, "Invalid parameter type, expected: %s", expected_name(type));
    }
    return false;
}

static bool fail_value(Decoder *dec, const Path *path, const char *expects)
{
    g_autofree char *name = path_str(path);

    error_setg(dec->errp, "Parameter '%s' expects %s", name, expects);
    return false;
}

/* The text of a command line value, or NULL when `json` is none. */
static const char *keyval_text(const Decoder *dec, json_object *json)
{
    if (!(dec->flags & QAPI_DECODE_KEYVAL) || !json_object_is_type(json, json_type_string)) {
        return NULL;
    }
    return json_object_get_string(json);
}

/* ---- scalars */

/* The value of an integer with a size's suffix, where these are allowed. */
static bool parse_suffixed(const Decoder *dec, const char *text, uint64_t *value)
{
    return (dec->flags & QAPI_DECODE_SUFFIXES) && qemu_strtosz(text, NULL, value) == 0;
}

static bool parse_int(const Decoder *dec, const char *text, int64_t *value)
{
    uint64_t size;

    if (qemu_strtoi64(text, NULL, 0, value) == 0) {
        return true;
    }
    if (!parse_suffixed(dec, text, &size) || size > INT64_MAX) {
        return false;
    }
    *value = size;
    return true;
}

static bool parse_uint(const Decoder *dec, const char *text, uint64_t *value)
{
    return qemu_strtou64(text, NULL, 0, value) == 0 || parse_suffixed(dec, text, value);
}

static bool decode_bool(Decoder *dec, const QapiType *type, bool *slot, json_object *json,
                        const Path *path)
{
    const char *text = keyval_text(dec, json);

    if (text) {
        return qemu_parse_bool("", text, slot, NULL) || fail_value(dec, path, "'on' or 'off'");
    }
    if (!json_object_is_type(json, json_type_boolean)) {
        return fail_type(dec, type, path);
    }
    *slot = json_object_get_boolean(json);
    return true;
}

static void store_int(const QapiType *type, void *slot, int64_t value)
{
    switch (type->size) {
    case 1:
        *(int8_t *)slot = (int8_t)value;
        break;
    case 2:
        *(int16_t *)slot = (int16_t)value;
        break;
    case 4:
        *(int32_t *)slot = (int32_t)value;
        break;
    default:
        *(int64_t *)slot = value;
        break;
    }
}

static bool decode_int(Decoder *dec, const QapiType *type, void *slot, json_object *json,
                       const Path *path)
{
    int64_t max = INT64_MAX >> (64 - 8 * type->size);
    const char *text = keyval_text(dec, json);
    int64_t value;

    if (text ? !parse_int(dec, text, &value) : !json_object_is_type(json, json_type_int)) {
        return text ? fail_value(dec, path, "an integer") : fail_type(dec, type, path);
    }
    if (!text) {
        value = json_object_get_int64(json);
        if (value == INT64_MAX && json_object_get_uint64(json) > (uint64_t)INT64_MAX) {
            return fail_type(dec, type, path);
        }
    }
    if (value > max || value < -max - 1) {
        g_autofree char *range =
            g_strdup_printf("an integer between %" PRId64 " and %" PRId64, -max - 1, max);

        return fail_value(dec, path, range);
    }
    store_int(type, slot, value);
    return true;
}

static bool decode_uint(Decoder *dec, const QapiType *type, void *slot, json_object *json,
                        const Path *path)
{
    uint64_t max = UINT64_MAX >> (64 - 8 * type->size);
    const char *text = keyval_text(dec, json);
    bool is_size = type->kind == QAPI_KIND_SIZE;
    uint64_t value;

    if (text) {
        if (is_size ? qemu_strtosz(text, NULL, &value) < 0 : !parse_uint(dec, text, &value)) {
            return fail_value(dec, path, is_size ? "a size" : "a non-negative integer");
        }
    } else if (!json_object_is_type(json, json_type_int)) {
        return fail_type(dec, type, path);
    } else if (json_object_get_int64(json) < 0) {
        return fail_value(dec, path, "a non-negative integer");
    } else {
        value = json_object_get_uint64(json);
    }
    if (value > max) {
        g_autofree char *range = g_strdup_printf("an integer between 0 and %" PRIu64, max);

        return fail_value(dec, path, range);
    }
    store_int(type, slot, (int64_t)value);
    return true;
}

static bool parse_number(const char *text, double *value)
{
    char *end;

    errno = 0;
    *value = g_ascii_strtod(text, &end);
    return errno == 0 && end != text && *end == '\0' && isfinite(*value);
}

static bool decode_number(Decoder *dec, const QapiType *type, double *slot, json_object *json,
                          const Path *path)
{
    const char *text = keyval_text(dec, json);

    if (text) {
        return parse_number(text, slot) || fail_value(dec, path, "a number");
    }
    if (!json_object_is_type(json, json_type_int) && !json_object_is_type(json, json_type_double)) {
        return fail_type(dec, type, path);
    }
    *slot = json_object_get_double(json);
    return true;
}

/* The text of a JSON string, or NULL with the error set. */
static const char *string_of(Decoder *dec, const QapiType *type, json_object *json,
                             const Path *path)
{
    const char *text;

    if (!json_object_is_type(json, json_type_string)) {
        fail_type(dec, type, path);
        return NULL;
    }
    text = json_object_get_string(json);
    if (strlen(text) != (size_t)json_object_get_string_len(json)) {
        fail_value(dec, path, "a string without NUL characters");
        return NULL;
    }
    return text;
}

static bool decode_enum(Decoder *dec, const QapiType *type, int *slot, json_object *json,
                        const Path *path)
{
    const char *text = string_of(dec, type, json, path);

    if (!text) {
        return false;
    }
    if (!qapi_enum_parse(type, text, slot, NULL)) {
        error_setg(dec->errp, "Parameter '%s' does not accept value '%s'", leaf_name(path), text);
        return false;
    }
    return true;
}

static bool decode_str(Decoder *dec, const QapiType *type, char **slot, json_object *json,
                       const Path *path)
{
    const char *text = string_of(dec, type, json, path);

    *slot = g_strdup(text);
    return text != NULL;
}

/* ---- structs */

/* True when `name` is a member of the struct or of the branch its discriminator has selected. */
static bool knows_member(const QapiType *type, const char *obj, const char *name)
{
    while (type) {
        const QapiType *branch = qapi_union_branch(type, obj);

        for (int i = 0; i < type->count; i++) {
            if (strcmp(type->members[i].name, name) == 0) {
                return true;
            }
        }
        obj += type->u_offset;
        type = branch;
    }
    return false;
}

static bool decode_member(Decoder *dec, const QapiMember *member, char *obj, json_object *json,
                          const Path *parent, size_t *used)
{
    Path path = {.parent = parent, .name = member->name};
    json_object *value;

    if (!json_object_object_get_ex(json, member->name, &value)) {
        g_autofree char *name = NULL;

        if (member->optional) {
            return true;
        }
        name = path_str(&path);
        error_setg(dec->errp, "Parameter '%s' is missing", name);
        return false;
    }
    ++*used;
    if (member->has_offset != QAPI_NO_HAS) {
        *(bool *)(obj + member->has_offset) = true;
    }
    return decode_slot(dec, member->type, obj + member->offset, value, &path);
}

/*
 * The members of a struct and, as they share one JSON object, of its branch. Counts them in *used.
 */
static bool decode_members(Decoder *dec, const QapiType *type, char *obj, json_object *json,
                           const Path *path, size_t *used)
{
    const QapiType *branch;

    for (int i = 0; i < type->count; i++) {
        if (!decode_member(dec, &type->members[i], obj, json, path, used)) {
            return false;
        }
    }
    branch = qapi_union_branch(type, obj);
    return !branch || decode_members(dec, branch, obj + type->u_offset, json, path, used);
}

static bool decode_struct(Decoder *dec, const QapiType *type, char *obj, json_object *json,
                          const Path *parent)
{
    size_t used = 0;

    if (!json_object_is_type(json, json_type_object)) {
        return fail_type(dec, type, parent);
    }
    if (!decode_members(dec, type, obj, json, parent, &used)) {
        return false;
    }
    if (used == (size_t)json_object_object_length(json)) {
        return true;
    }
    json_object_object_foreach(json, key, value)
    {
        if (!knows_member(type, obj, key)) {
            Path path = {.parent = parent, .name = key};
            g_autofree char *name = path_str(&path);

            error_setg(dec->errp, "Parameter '%s' is unexpected", name);
            return false;
        }
    }
    return true;
}

/* ---- alternates and lists */

static bool decode_alternate(Decoder *dec, const QapiType *type, char *obj, json_object *json,
                             const Path *path)
{
    json_type tag = json_object_get_type(json);
    const QapiMember *branch = qapi_alternate_branch(type, tag);

    /* A command line writes every scalar as a string, so the one scalar there is must be meant. */
    if (!branch && keyval_text(dec, json)) {
        static const json_type scalars[] = {json_type_boolean, json_type_int, json_type_double,
                                            json_type_null};

        for (size_t i = 0; !branch && i < G_N_ELEMENTS(scalars); i++) {
            tag = scalars[i];
            branch = qapi_alternate_branch(type, tag);
        }
    }
    if (!branch) {
        return fail_type(dec, type, path);
    }
    *(json_type *)obj = tag;
    if (branch->type->kind == QAPI_KIND_STRUCT) {
        return decode_struct(dec, branch->type, obj + branch->offset, json, path);
    }
    return decode_slot(dec, branch->type, obj + branch->offset, json, path);
}

static bool decode_list(Decoder *dec, const QapiType *type, char **list, json_object *json,
                        const Path *parent)
{
    char **tail = list;
    size_t count;

    if (!json_object_is_type(json, json_type_array)) {
        return fail_type(dec, type, parent);
    }
    count = json_object_array_length(json);
    for (size_t i = 0; i < count; i++) {
        Path path = {.parent = parent, .index = i};
        char *node = g_malloc0(type->size);

        *tail = node;
        tail = (char **)node;
        if (!decode_slot(dec, type->element, node + type->value_offset,
                         json_object_array_get_idx(json, i), &path)) {
            return false;
        }
    }
    return true;
}

static bool decode_null(Decoder *dec, const QapiType *type, json_object *json, const Path *path)
{
    const char *text = keyval_text(dec, json);

    return json == NULL || (text && !*text) || fail_type(dec, type, path);
}

static bool decode_container(Decoder *dec, const QapiType *type, char **slot, json_object *json,
                             const Path *path)
{
    bool ok;

    if (dec->depth == QAPI_DECODE_MAX_DEPTH) {
        error_setg(dec->errp, "Parameter '%s' is nested more than %d levels deep", leaf_name(path),
                   QAPI_DECODE_MAX_DEPTH);
        return false;
    }
    dec->depth++;
    if (type->kind == QAPI_KIND_LIST) {
        ok = decode_list(dec, type, slot, json, path);
    } else {
        *slot = g_malloc0(type->size);
        ok = type->kind == QAPI_KIND_STRUCT ? decode_struct(dec, type, *slot, json, path)
                                            : decode_alternate(dec, type, *slot, json, path);
    }
    dec->depth--;
    return ok;
}

static bool decode_slot(Decoder *dec, const QapiType *type, void *slot, json_object *json,
                        const Path *path)
{
    switch (type->kind) {
    case QAPI_KIND_BOOL:
        return decode_bool(dec, type, slot, json, path);
    case QAPI_KIND_INT:
        return decode_int(dec, type, slot, json, path);
    case QAPI_KIND_UINT:
    case QAPI_KIND_SIZE:
        return decode_uint(dec, type, slot, json, path);
    case QAPI_KIND_NUMBER:
        return decode_number(dec, type, slot, json, path);
    case QAPI_KIND_ENUM:
        return decode_enum(dec, type, slot, json, path);
    case QAPI_KIND_STR:
        return decode_str(dec, type, slot, json, path);
    case QAPI_KIND_NULL:
        return decode_null(dec, type, json, path);
    case QAPI_KIND_ANY:
        *(json_object **)slot = json_object_get(json);
        return true;
    case QAPI_KIND_STRUCT:
    case QAPI_KIND_ALTERNATE:
    case QAPI_KIND_LIST:
        return decode_container(dec, type, slot, json, path);
    }
    g_assert_not_reached();
}

bool qapi_decode_to(const QapiType *type, json_object *json, QapiDecodeFlags flags, void **ret,
                    GError **errp)
{
    Decoder dec = {.flags = flags, .errp = errp};

    *ret = NULL;
    if (!decode_slot(&dec, type, ret, json, NULL)) {
        qapi_slot_clear(type, ret);
        return false;
    }
    return true;
}

void *qapi_decode(const QapiType *type, json_object *json, QapiDecodeFlags flags, GError **errp)
{
    void *value;

    return qapi_decode_to(type, json, flags, &value, errp) ? value : NULL;
}
