/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Kinds of properties that need nothing but the value: switches, numbers, strings, enumerations. */
#include "hw/core/property.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "hw/core/device.h"
#include "util/cutils.h"
#include "util/error.h"

bool property_set(DeviceState *dev, const Property *prop, json_object *value, PropertySource source,
                  GError **errp)
{
    g_assert(dev->phase == DEVICE_CREATED);
    return prop->kind->set(dev, prop, property_slot(dev, prop), value, source, errp);
}

const char *property_owner(const DeviceState *dev, const Property *prop)
{
    return prop->part ? prop->part : dev->class->name;
}

bool property_refuse(DeviceState *dev, const Property *prop, const char *text, GError **errp)
{
    error_setg(errp, "Property '%s.%s' doesn't take value '%s'", property_owner(dev, prop),
               prop->name, text);
    return false;
}

const char *property_text(json_object *value)
{
    if (json_object_is_type(value, json_type_boolean)) {
        return json_object_get_boolean(value) ? "on" : "off";
    }
    return value ? json_object_get_string(value) : "";
}

static bool expects(const Property *prop, const char *what, GError **errp)
{
    error_setg(errp, "Parameter '%s' expects %s", prop->name, what);
    return false;
}

/* --- switches --- */

static bool decode_bool(const Property *prop, json_object *value, PropertySource source, bool *on,
                        GError **errp)
{
    if (json_object_is_type(value, json_type_boolean)) {
        *on = json_object_get_boolean(value);
        return true;
    }
    if (source == PROPERTY_FROM_JSON) {
        return expects(prop, "boolean", errp);
    }
    return qemu_parse_bool(prop->name, property_text(value), on, errp);
}

static bool set_bool(DeviceState *dev, const Property *prop, void *slot, json_object *value,
                     PropertySource source, GError **errp)
{
    return decode_bool(prop, value, source, slot, errp);
}

static json_object *get_bool(DeviceState *dev, const Property *prop, const void *slot)
{
    return json_object_new_boolean(*(const bool *)slot);
}

static char *print_truth(bool on)
{
    return g_strdup(on ? "true" : "false");
}

static char *print_bool(DeviceState *dev, const Property *prop, const void *slot)
{
    return print_truth(*(const bool *)slot);
}

static void default_bool(const Property *prop, void *slot)
{
    *(bool *)slot = prop->value.u != 0;
}

static json_object *show_default_bool(const Property *prop)
{
    return json_object_new_boolean(prop->value.u != 0);
}

const PropertyKind property_bool = {
    .name = "bool",
    .set = set_bool,
    .get = get_bool,
    .print = print_bool,
    .set_default = default_bool,
    .get_default = show_default_bool,
};

/* A bit of a uint32_t or a uint64_t. */
static void store_bit(const Property *prop, void *slot, bool on)
{
    uint64_t bit = UINT64_C(1) << prop->bit;

    if (prop->kind == &property_bit32) {
        uint32_t *word = slot;

        *word = on ? *word | (uint32_t)bit : *word & ~(uint32_t)bit;
    } else {
        uint64_t *word = slot;

        *word = on ? *word | bit : *word & ~bit;
    }
}

static bool load_bit(const Property *prop, const void *slot)
{
    uint64_t word =
        prop->kind == &property_bit32 ? *(const uint32_t *)slot : *(const uint64_t *)slot;

    return word >> prop->bit & 1;
}

static bool set_bit(DeviceState *dev, const Property *prop, void *slot, json_object *value,
                    PropertySource source, GError **errp)
{
    bool on;

    if (!decode_bool(prop, value, source, &on, errp)) {
        return false;
    }
    store_bit(prop, slot, on);
    return true;
}

static json_object *get_bit(DeviceState *dev, const Property *prop, const void *slot)
{
    return json_object_new_boolean(load_bit(prop, slot));
}

static char *print_bit(DeviceState *dev, const Property *prop, const void *slot)
{
    return print_truth(load_bit(prop, slot));
}

static void default_bit(const Property *prop, void *slot)
{
    store_bit(prop, slot, prop->value.u != 0);
}

#define KIND_BIT                                                                          \
    {                                                                                     \
        .name = "bool", .description = "on/off", .set = set_bit, .get = get_bit,          \
        .print = print_bit, .set_default = default_bit, .get_default = show_default_bool, \
    }
const PropertyKind property_bit32 = KIND_BIT;
const PropertyKind property_bit64 = KIND_BIT;

/* --- numbers --- */

/* A number as JSON or text has it: *negative tells how to read the bits. False: it is none. */
static bool decode_number(const Property *prop, json_object *value, PropertySource source,
                          const char *json_name, uint64_t *bits, bool *negative, GError **errp)
{
    const char *text;
    int64_t number;

    if (json_object_is_type(value, json_type_int)) {
        number = json_object_get_int64(value);
        *negative = number < 0;
        *bits = *negative ? (uint64_t)number : json_object_get_uint64(value);
        return true;
    }
    text = property_text(value);
    if (source == PROPERTY_FROM_JSON || !json_object_is_type(value, json_type_string)) {
        return expects(prop, json_name, errp);
    }
    *negative = text[strspn(text, " \t")] == '-';
    if (*negative ? qemu_strtoi64(text, NULL, 0, &number) < 0
                  : qemu_strtou64(text, NULL, 0, bits) < 0) {
        return expects(prop, source == PROPERTY_FROM_GLOBAL ? json_name : "integer", errp);
    }
    *bits = *negative ? (uint64_t)number : *bits;
    return true;
}

static bool range_ok(const Property *prop, uint64_t value, GError **errp)
{
    if (value < prop->min || (prop->max && value > prop->max)) {
        error_setg(errp,
                   "Property '%s' doesn't take value %" PRIu64 " (minimum: %" PRIu64
                   ", maximum: %" PRIu64 ")",
                   prop->name, value, prop->min, prop->max ? prop->max : UINT64_MAX);
        return false;
    }
    return !prop->check || prop->check(prop, value, errp);
}

/* The same for each width: `max` is what fits, TYPE_name what the error calls it. */
static bool decode_unsigned(const Property *prop, json_object *value, PropertySource source,
                            uint64_t max, const char *type, uint64_t *result, GError **errp)
{
    bool negative;

    if (!decode_number(prop, value, source, "uint64", result, &negative, errp)) {
        return false;
    }
    if (negative || *result > max) {
        return expects(prop, type, errp);
    }
    return range_ok(prop, *result, errp);
}

static bool decode_signed(const Property *prop, json_object *value, PropertySource source,
                          int64_t min, int64_t max, const char *type, int64_t *result,
                          GError **errp)
{
    uint64_t bits;
    bool negative;

    if (!decode_number(prop, value, source, "int64", &bits, &negative, errp)) {
        return false;
    }
    *result = (int64_t)bits;
    if ((!negative && bits > INT64_MAX) || *result < min || *result > max) {
        return expects(prop, type, errp);
    }
    return !prop->check || prop->check(prop, bits, errp);
}

static char *print_unsigned(uint64_t value)
{
    return g_strdup_printf("%" PRIu64 " (0x%" PRIx64 ")", value, value);
}

static json_object *show_default_unsigned(const Property *prop)
{
    return json_object_new_uint64(prop->value.u);
}

static json_object *show_default_signed(const Property *prop)
{
    return json_object_new_int64(prop->value.i);
}

#define UNSIGNED_KIND(bits)                                                                      \
    static bool set_uint##bits(DeviceState *dev, const Property *prop, void *slot,               \
                               json_object *value, PropertySource source, GError **errp)         \
    {                                                                                            \
        uint64_t number;                                                                         \
                                                                                                 \
        if (!decode_unsigned(prop, value, source, UINT##bits##_MAX, "uint" #bits "_t", &number,  \
                             errp)) {                                                            \
            return false;                                                                        \
        }                                                                                        \
        *(uint##bits##_t *)slot = (uint##bits##_t)number;                                        \
        return true;                                                                             \
    }                                                                                            \
    static json_object *get_uint##bits(DeviceState *dev, const Property *prop, const void *slot) \
    {                                                                                            \
        return json_object_new_uint64(*(const uint##bits##_t *)slot);                            \
    }                                                                                            \
    static char *print_uint##bits(DeviceState *dev, const Property *prop, const void *slot)      \
    {                                                                                            \
        return print_unsigned(*(const uint##bits##_t *)slot);                                    \
    }                                                                                            \
    static void default_uint##bits(const Property *prop, void *slot)                             \
    {                                                                                            \
        *(uint##bits##_t *)slot = (uint##bits##_t)prop->value.u;                                 \
    }                                                                                            \
    const PropertyKind property_uint##bits = {                                                   \
        .name = "uint" #bits,                                                                    \
        .set = set_uint##bits,                                                                   \
        .get = get_uint##bits,                                                                   \
        .print = print_uint##bits,                                                               \
        .set_default = default_uint##bits,                                                       \
        .get_default = show_default_unsigned,                                                    \
    };
UNSIGNED_KIND(8)
UNSIGNED_KIND(16)
UNSIGNED_KIND(32)
UNSIGNED_KIND(64)

#define SIGNED_KIND(bits)                                                                       \
    static bool set_int##bits(DeviceState *dev, const Property *prop, void *slot,               \
                              json_object *value, PropertySource source, GError **errp)         \
    {                                                                                           \
        int64_t number;                                                                         \
                                                                                                \
        if (!decode_signed(prop, value, source, INT##bits##_MIN, INT##bits##_MAX,               \
                           "int" #bits "_t", &number, errp)) {                                  \
            return false;                                                                       \
        }                                                                                       \
        *(int##bits##_t *)slot = (int##bits##_t)number;                                         \
        return true;                                                                            \
    }                                                                                           \
    static json_object *get_int##bits(DeviceState *dev, const Property *prop, const void *slot) \
    {                                                                                           \
        return json_object_new_int64(*(const int##bits##_t *)slot);                             \
    }                                                                                           \
    static char *print_int##bits(DeviceState *dev, const Property *prop, const void *slot)      \
    {                                                                                           \
        int##bits##_t value = *(const int##bits##_t *)slot;                                     \
                                                                                                \
        return g_strdup_printf("%" PRId64 " (0x%" PRIx64 ")", (int64_t)value,                   \
                               (uint64_t)(uint##bits##_t)value);                                \
    }                                                                                           \
    static void default_int##bits(const Property *prop, void *slot)                             \
    {                                                                                           \
        *(int##bits##_t *)slot = (int##bits##_t)prop->value.i;                                  \
    }                                                                                           \
    const PropertyKind property_int##bits = {                                                   \
        .name = "int" #bits,                                                                    \
        .set = set_int##bits,                                                                   \
        .get = get_int##bits,                                                                   \
        .print = print_int##bits,                                                               \
        .set_default = default_int##bits,                                                       \
        .get_default = show_default_signed,                                                     \
    };
SIGNED_KIND(32)

static bool set_size(DeviceState *dev, const Property *prop, void *slot, json_object *value,
                     PropertySource source, GError **errp)
{
    uint64_t number;

    if (source != PROPERTY_FROM_JSON && json_object_is_type(value, json_type_string)) {
        if (qemu_strtosz(property_text(value), NULL, &number) < 0) {
            return expects(prop, "size", errp);
        }
    } else if (!decode_unsigned(prop, value, source, UINT64_MAX, "size", &number, errp)) {
        return false;
    }
    if (!range_ok(prop, number, errp)) {
        return false;
    }
    *(uint64_t *)slot = number;
    return true;
}

static char *print_size(DeviceState *dev, const Property *prop, const void *slot)
{
    uint64_t value = *(const uint64_t *)slot;
    g_autofree char *text = size_to_str(value);

    return g_strdup_printf("%" PRIu64 " (%s)", value, text);
}

const PropertyKind property_size = {
    .name = "size",
    .set = set_size,
    .get = get_uint64,
    .print = print_size,
    .set_default = default_uint64,
    .get_default = show_default_unsigned,
};

/* --- enumerations --- */

static bool set_enum(DeviceState *dev, const Property *prop, void *slot, json_object *value,
                     PropertySource source, GError **errp)
{
    int number;

    if (!json_object_is_type(value, json_type_string) && source == PROPERTY_FROM_JSON) {
        return expects(prop, "string", errp);
    }
    if (!qapi_enum_parse(prop->values, property_text(value), &number, NULL)) {
        error_setg(errp, "Parameter '%s' does not accept value '%s'", prop->name,
                   property_text(value));
        return false;
    }
    *(int *)slot = number;
    return true;
}

static json_object *get_enum(DeviceState *dev, const Property *prop, const void *slot)
{
    return json_object_new_string(qapi_enum_str(prop->values, *(const int *)slot));
}

static char *print_enum(DeviceState *dev, const Property *prop, const void *slot)
{
    return g_strdup_printf("\"%s\"", qapi_enum_str(prop->values, *(const int *)slot));
}

static void default_enum(const Property *prop, void *slot)
{
    *(int *)slot = (int)prop->value.i;
}

static json_object *show_default_enum(const Property *prop)
{
    return json_object_new_string(qapi_enum_str(prop->values, (int)prop->value.i));
}

/* Lists show the name of the enumeration in place of this one. */
const PropertyKind property_enum = {
    .name = "enum",
    .set = set_enum,
    .get = get_enum,
    .print = print_enum,
    .set_default = default_enum,
    .get_default = show_default_enum,
};

/* --- strings --- */

static bool set_string(DeviceState *dev, const Property *prop, void *slot, json_object *value,
                       PropertySource source, GError **errp)
{
    char **text = slot;

    if (!json_object_is_type(value, json_type_string) && source == PROPERTY_FROM_JSON) {
        return expects(prop, "string", errp);
    }
    g_free(*text);
    *text = g_strdup(property_text(value));
    return true;
}

static json_object *get_string(DeviceState *dev, const Property *prop, const void *slot)
{
    char *const *text = slot;

    return json_object_new_string(*text ? *text : "");
}

static char *print_string(DeviceState *dev, const Property *prop, const void *slot)
{
    char *const *text = slot;

    return *text ? g_strdup_printf("\"%s\"", *text) : g_strdup("\"\"");
}

static void release_string(DeviceState *dev, const Property *prop, void *slot)
{
    g_clear_pointer((char **)slot, g_free);
}

const PropertyKind property_string = {
    .name = "str",
    .set = set_string,
    .get = get_string,
    .print = print_string,
    .release = release_string,
};

/* --- addresses of network cards --- */

static bool set_mac(DeviceState *dev, const Property *prop, void *slot, json_object *value,
                    PropertySource source, GError **errp)
{
    const char *text = property_text(value);
    MACAddr mac;

    for (int i = 0; i < 6; i++) {
        bool last = i == 5;

        if (!g_ascii_isxdigit(text[0]) || !g_ascii_isxdigit(text[1]) ||
            (last ? text[2] != '\0' : text[2] != ':' && text[2] != '-')) {
            return property_refuse(dev, prop, property_text(value), errp);
        }
        mac.a[i] = (uint8_t)(g_ascii_xdigit_value(text[0]) << 4 | g_ascii_xdigit_value(text[1]));
        text += last ? 2 : 3;
    }
    *(MACAddr *)slot = mac;
    return true;
}

static json_object *get_mac(DeviceState *dev, const Property *prop, const void *slot)
{
    const MACAddr *mac = slot;
    char text[18];

    snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac->a[0], mac->a[1], mac->a[2],
             mac->a[3], mac->a[4], mac->a[5]);
    return json_object_new_string(text);
}

static char *print_mac(DeviceState *dev, const Property *prop, const void *slot)
{
    json_object *text = get_mac(dev, prop, slot);
    char *result = g_strdup_printf("\"%s\"", json_object_get_string(text));

    json_object_put(text);
    return result;
}

const PropertyKind property_mac = {
    .name = "str",
    .description = "Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56",
    .set = set_mac,
    .get = get_mac,
    .print = print_mac,
};
