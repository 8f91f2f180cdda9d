/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QAPI values in C: how schema types become structs, and JSON becomes them and back.
 *
 * For every type X of qapi/NAME.json the generated header "qapi/qapi-types-NAME.h" (or all of them,
 * "qapi/qapi-types.h") has:
 *
 *   enum       constants X_VALUE, the count X__MAX, const char *X_str(X) and
 *              bool X_parse(const char *, X *, GError **).
 *   struct     members in snake_case, those of the base first. Structs, strings, lists and alternates
 *              are pointers and owned by the struct. An optional pointer is NULL when absent; an
 *              optional scalar, enum or list NAME has `bool has_NAME` before it (for a list,
 *              because NULL is the empty list; when encoding, a list that is not NULL counts as
 *              present).
 *   union      a struct whose discriminator selects the member of `u` that holds the rest: u.qcow2.
 *              Branches without members of their own have no member in u.
 *   alternate  `json_type type` (json-c's) tells which member of `u` is set; a null has none.
 *   list       XList {next, value}; the value is a pointer for structs, strings and alternates.
 *
 *   X *X_from_json(json_object *, QapiDecodeFlags, GError **)   a value the caller owns, or NULL
 *   json_object *X_to_json(const X *)                           a reference the caller owns
 *   void qapi_free_X(X *)                                       NULL is fine; also g_autoptr(X)
 *   QAPI_CLONE(X, src)                                          a deep copy
 *
 * The same exists for each XList. Values have no owner thread and no locks: the thread that holds
 * the pointer may use it. Names that C reserves (default, static, errno, unix, ...) get the prefix
 * q_.
 *
 * Decoding checks everything the schema says: types, integer ranges, enum values, required members,
 * and that there are no others. Strings with an embedded NUL are refused. The error names the
 * member by its path ("file.server.port", "actions[2].type").
 */
#ifndef FERRY_QAPI_CODEC_H
#define FERRY_QAPI_CODEC_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The depth of containers within each other that are decoded; more would be too much for a
 * coroutine's stack.
 */
#define QAPI_DECODE_MAX_DEPTH 100

typedef enum QapiDecodeFlags {
    /* Values have the JSON type of the schema. */
    QAPI_DECODE_JSON = 0,
    /*
     * Values may also be strings, as command lines have them. A bool is on/off, yes/no, true/false
     * or y/n. Integers are decimal, hexadecimal (0x) or octal (0). Sizes may have a suffix k, M, G,
     * T, P or E (powers of 1024). The empty string is null.
     */
    QAPI_DECODE_KEYVAL = 1 << 0,
    /* With KEYVAL: any integer may have a size's suffix, as -drive and file names have them. */
    QAPI_DECODE_SUFFIXES = 1 << 1,
} QapiDecodeFlags;

typedef enum QapiKind {
    QAPI_KIND_BOOL,
    QAPI_KIND_INT,  /* signed, of `size` bytes */
    QAPI_KIND_UINT, /* unsigned, of `size` bytes */
    QAPI_KIND_SIZE, /* uint64_t, may have a size suffix in KEYVAL mode */
    QAPI_KIND_NUMBER,
    QAPI_KIND_ENUM,
    QAPI_KIND_STR,
    QAPI_KIND_NULL,
    QAPI_KIND_ANY,    /* json_object *, a reference */
    QAPI_KIND_STRUCT, /* union too */
    QAPI_KIND_ALTERNATE,
    QAPI_KIND_LIST,
} QapiKind;

typedef struct QapiType QapiType;

#define QAPI_NO_HAS UINT16_MAX

/* A member of a struct, or a branch of an alternate. */
typedef struct QapiMember {
    const char *name;
    const QapiType *type;
    uint16_t offset;
    uint16_t has_offset; /* of has_NAME, or QAPI_NO_HAS */
    bool optional;
} QapiMember;

/* The description of a type; generated, constant. */
struct QapiType {
    const char *name;
    QapiKind kind;
    uint32_t size;                   /* of the C type; of a list, its node */
    uint16_t count;                  /* of members, values or branches */
    uint16_t value_offset;           /* of a list: `value` in its node */
    uint16_t u_offset;               /* of a union or alternate: `u` */
    uint16_t tag_offset;             /* of a union: its discriminator */
    const QapiMember *members;       /* of a struct or alternate; those of bases included */
    const char *const *values;       /* of an enum */
    const QapiType *element;         /* of a list */
    const QapiType *const *branches; /* of a union: by tag value, NULL for none; else NULL */
};

/* The generic functions under the generated ones. `type` is a struct, alternate or list. */
void *qapi_decode(const QapiType *type, json_object *json, QapiDecodeFlags flags,
                  GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* As qapi_decode() where NULL is a value (the empty list): the result tells success. */
bool qapi_decode_to(const QapiType *type, json_object *json, QapiDecodeFlags flags, void **ret,
                    GError **errp) G_GNUC_WARN_UNUSED_RESULT;
json_object *qapi_encode(const QapiType *type, const void *value);
void qapi_free(const QapiType *type, void *value);
void *qapi_clone(const QapiType *type, const void *value);

/*
 * The same for a variable of any type: `slot` points to the bool, int64_t, enum, char *, X *, XList
 * *... qapi_slot_clear() leaves zero.
 */
json_object *qapi_slot_encode(const QapiType *type, const void *slot);
void qapi_slot_clear(const QapiType *type, void *slot);

/* The name of an enum value, or NULL when it is out of range. */
const char *qapi_enum_str(const QapiType *type, int value);
/* False, with an error that names no parameter, when `name` is no value of the type. */
bool qapi_enum_parse(const QapiType *type, const char *name, int *value, GError **errp);

/* A deep copy of a value of type X (or XList); NULL gives NULL. */
#define QAPI_CLONE(X, src) ((X *)qapi_clone(&qapi_type_##X, (const X *)(src)))

#define QAPI_LIST_FOREACH(it, list) for ((it) = (list); (it); (it) = (it)->next)

/* Puts `val` first. `list` is the variable that holds the list. */
#define QAPI_LIST_PREPEND(list, val)                        \
    do {                                                    \
        __typeof__(list) node_ = g_malloc0(sizeof(*node_)); \
        node_->value = (val);                               \
        node_->next = (list);                               \
        (list) = node_;                                     \
    } while (0)

/* Puts `val` last. `tail` is an XList ** that starts as &list and moves along. */
#define QAPI_LIST_APPEND(tail, val)                            \
    do {                                                       \
        __typeof__(*(tail)) node_ = g_malloc0(sizeof(*node_)); \
        node_->value = (val);                                  \
        *(tail) = node_;                                       \
        (tail) = &node_->next;                                 \
    } while (0)

/* Lists of builtin types. */
#define QAPI_BUILTIN_LIST(NAME, CTYPE)             \
    typedef struct NAME##List NAME##List;          \
    struct NAME##List {                            \
        NAME##List *next;                          \
        CTYPE value;                               \
    };                                             \
    extern const QapiType qapi_type_##NAME;        \
    extern const QapiType qapi_type_##NAME##List;  \
    void qapi_free_##NAME##List(NAME##List *list); \
    G_DEFINE_AUTOPTR_CLEANUP_FUNC(NAME##List, qapi_free_##NAME##List)

QAPI_BUILTIN_LIST(str, char *)
QAPI_BUILTIN_LIST(bool, bool)
QAPI_BUILTIN_LIST(int, int64_t)
QAPI_BUILTIN_LIST(int8, int8_t)
QAPI_BUILTIN_LIST(int16, int16_t)
QAPI_BUILTIN_LIST(int32, int32_t)
QAPI_BUILTIN_LIST(int64, int64_t)
QAPI_BUILTIN_LIST(uint8, uint8_t)
QAPI_BUILTIN_LIST(uint16, uint16_t)
QAPI_BUILTIN_LIST(uint32, uint32_t)
QAPI_BUILTIN_LIST(uint64, uint64_t)
QAPI_BUILTIN_LIST(size, uint64_t)
QAPI_BUILTIN_LIST(number, double)
QAPI_BUILTIN_LIST(any, json_object *)
extern const QapiType qapi_type_null;

#endif
