/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Properties of devices: what users may say about a device when they make it, described once, as data.
 *
 *     static const Property isa_debug_exit_properties[] = {
 *         DEFINE_PROP_UINT32("iobase", DebugExitState, iobase, 0x501),
 *         DEFINE_PROP_UINT32("iosize", DebugExitState, iosize, 2),
 *         {0},
 *     };
 *
 * This description is what -device, device_add, -global, machine types' rows, the help texts,
 * device-list-properties, qom-get and `info qtree` work from. A property gets its default, then the
 * values of the machine type's rows and of -global, then the user's (hw/core/globals.h). Each value
 * is decoded and checked once, by its kind. After the device is realized its properties are fixed.
 *
 * A kind is a table of functions. A folder that has a new one (PCI addresses, disks) defines it and
 * the macro for it. Under the big lock (util/bql.h).
 */
#ifndef FERRY_HW_CORE_PROPERTY_H
#define FERRY_HW_CORE_PROPERTY_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "block/block-backend.h"
#include "chardev/char.h"
#include "qapi/codec.h"
#include "qapi/qapi-types-common.h"
#include "qom/object.h"
#include "vmstate/vmstate-fields.h"

typedef struct DeviceState DeviceState;
typedef struct Property Property;

/* How a value was written. */
typedef enum PropertySource {
    PROPERTY_FROM_JSON,   /* types as JSON has them: -device '{...}' */
    PROPERTY_FROM_TEXT,   /* all are strings, or may be: key=value, device_add */
    PROPERTY_FROM_GLOBAL, /* -global, and rows of machine types */
} PropertySource;

typedef struct PropertyKind {
    const char *name;        /* as lists show it: "uint32" */
    const char *description; /* where the property has none; NULL: none */
    /* Checks `value` and stores it into the slot, which it replaces. False: the slot is as before. */
    bool (*set)(DeviceState *dev, const Property *prop, void *slot, json_object *value,
                PropertySource source, GError **errp);
    /* The caller's; NULL is null. */
    json_object *(*get)(DeviceState *dev, const Property *prop, const void *slot);
    /* As `info qtree` shows it; the caller frees. */
    char *(*print)(DeviceState *dev, const Property *prop, const void *slot);
    /* Stores the default. NULL: zero. */
    void (*set_default)(const Property *prop, void *slot);
    /* For lists, the caller's; NULL: there is none to show. */
    json_object *(*get_default)(const Property *prop);
    /* Kinds that hold a back end: its name, lent by it; NULL: the slot is empty. */
    const char *(*back_end)(const void *slot);
    /* Gives back what the slot holds. NULL: nothing. */
    void (*release)(DeviceState *dev, const Property *prop, void *slot);
} PropertyKind;

struct Property {
    const char *name; /* NULL ends a table */
    const PropertyKind *kind;
    size_t offset; /* of the slot in the device's struct */
    const char *description;
    bool has_default; /* lists show it */
    union {
        uint64_t u;
        int64_t i;
        const char *s;
    } value;                /* the default */
    uint64_t min, max;      /* unsigned kinds; max 0: as far as the type goes */
    uint8_t bit;            /* DEFINE_PROP_BIT */
    const QapiType *values; /* DEFINE_PROP_ENUM */
    const char *link;       /* DEFINE_PROP_LINK: type of the object */
    const char *part;       /* what errors call the property's owner; NULL: the class */
    bool required;          /* realizing without it is an error: "drive property not set" */
    /* Numbers: a check besides the kind's; NULL: none. */
    bool (*check)(const Property *prop, uint64_t value, GError **errp);
};

extern const PropertyKind property_bool;
extern const PropertyKind property_bit32; /* a bit of a uint32_t */
extern const PropertyKind property_bit64; /* a bit of a uint64_t */
extern const PropertyKind property_uint8;
extern const PropertyKind property_uint16;
extern const PropertyKind property_uint32;
extern const PropertyKind property_uint64;
extern const PropertyKind property_int32;
extern const PropertyKind property_size;   /* bytes, with suffixes */
extern const PropertyKind property_string; /* char *, NULL: not given */
extern const PropertyKind property_enum;   /* int; of a QAPI type */
extern const PropertyKind property_mac;    /* MACAddr */
extern const PropertyKind property_link;   /* QomObject *, referenced */
extern const PropertyKind
    property_chardev;                      /* CharFrontend; connected when the device is realized */
extern const PropertyKind property_drive;  /* BlockBackend *, referenced and of this device alone */
extern const PropertyKind property_netdev; /* void *, as the lookup below gave it */

typedef struct MACAddr {
    uint8_t a[6];
} MACAddr;

#define PROP_SLOT(_state, _field, _type) \
    (offsetof(_state, _field) +          \
     VMS_ASSERT(VMS_IS(_state, _field, _type), "the member has another type"))

#define DEFINE_PROP_UNSIGNED(_name, _kind, _state, _field, _type, _default, ...)       \
    {                                                                                  \
        .name = (_name), .kind = &(_kind), .offset = PROP_SLOT(_state, _field, _type), \
        .has_default = true, .value.u = (_default), __VA_ARGS__                        \
    }
#define DEFINE_PROP_SIGNED(_name, _kind, _state, _field, _type, _default, ...)         \
    {                                                                                  \
        .name = (_name), .kind = &(_kind), .offset = PROP_SLOT(_state, _field, _type), \
        .has_default = true, .value.i = (_default), __VA_ARGS__                        \
    }
/* Arguments after the default are further members of Property: .description, .min, .max, .check. */
#define DEFINE_PROP_BOOL(_n, _s, _f, _d, ...) \
    DEFINE_PROP_UNSIGNED(_n, property_bool, _s, _f, bool, _d, __VA_ARGS__)
#define DEFINE_PROP_BIT(_n, _s, _f, _bit, _d, ...) \
    DEFINE_PROP_UNSIGNED(_n, property_bit32, _s, _f, uint32_t, _d, .bit = (_bit), __VA_ARGS__)
#define DEFINE_PROP_BIT64(_n, _s, _f, _bit, _d, ...) \
    DEFINE_PROP_UNSIGNED(_n, property_bit64, _s, _f, uint64_t, _d, .bit = (_bit), __VA_ARGS__)
#define DEFINE_PROP_UINT8(_n, _s, _f, _d, ...) \
    DEFINE_PROP_UNSIGNED(_n, property_uint8, _s, _f, uint8_t, _d, __VA_ARGS__)
#define DEFINE_PROP_UINT16(_n, _s, _f, _d, ...) \
    DEFINE_PROP_UNSIGNED(_n, property_uint16, _s, _f, uint16_t, _d, __VA_ARGS__)
#define DEFINE_PROP_UINT32(_n, _s, _f, _d, ...) \
    DEFINE_PROP_UNSIGNED(_n, property_uint32, _s, _f, uint32_t, _d, __VA_ARGS__)
#define DEFINE_PROP_UINT64(_n, _s, _f, _d, ...) \
    DEFINE_PROP_UNSIGNED(_n, property_uint64, _s, _f, uint64_t, _d, __VA_ARGS__)
#define DEFINE_PROP_SIZE(_n, _s, _f, _d, ...) \
    DEFINE_PROP_UNSIGNED(_n, property_size, _s, _f, uint64_t, _d, __VA_ARGS__)
#define DEFINE_PROP_INT32(_n, _s, _f, _d, ...) \
    DEFINE_PROP_SIGNED(_n, property_int32, _s, _f, int32_t, _d, __VA_ARGS__)
/* X is the QAPI type, the default one of its constants. */
#define DEFINE_PROP_ENUM(_n, _s, _f, X, _d, ...) \
    DEFINE_PROP_SIGNED(_n, property_enum, _s, _f, X, _d, .values = &qapi_type_##X, __VA_ARGS__)
#define DEFINE_PROP_ON_OFF_AUTO(_n, _s, _f, _d, ...) \
    DEFINE_PROP_ENUM(_n, _s, _f, OnOffAuto, _d, .description = "on/off/auto", __VA_ARGS__)
#define DEFINE_PROP_OBJECT(_name, _kind, _state, _field, _type, ...)                               \
    {                                                                                              \
        .name = (_name), .kind = &(_kind), .offset = PROP_SLOT(_state, _field, _type), __VA_ARGS__ \
    }
#define DEFINE_PROP_STRING(_n, _s, _f, ...) \
    DEFINE_PROP_OBJECT(_n, property_string, _s, _f, char *, __VA_ARGS__)
#define DEFINE_PROP_MACADDR(_n, _s, _f, ...) \
    DEFINE_PROP_OBJECT(_n, property_mac, _s, _f, MACAddr, __VA_ARGS__)
#define DEFINE_PROP_LINK(_n, _s, _f, _t, ...) \
    DEFINE_PROP_OBJECT(_n, property_link, _s, _f, QomObject *, .link = (_t), __VA_ARGS__)
#define DEFINE_PROP_CHR(_n, _s, _f, ...) \
    DEFINE_PROP_OBJECT(_n, property_chardev, _s, _f, CharFrontend, __VA_ARGS__)
#define DEFINE_PROP_DRIVE(_n, _s, _f, ...) \
    DEFINE_PROP_OBJECT(_n, property_drive, _s, _f, BlockBackend *, __VA_ARGS__)
#define DEFINE_PROP_NETDEV(_n, _s, _f, ...) \
    DEFINE_PROP_OBJECT(_n, property_netdev, _s, _f, void *, __VA_ARGS__)

static inline void *property_slot(DeviceState *dev, const Property *prop)
{
    return (char *)dev + prop->offset;
}

/* Sets a value with all checks. The device is not realized. */
bool property_set(DeviceState *dev, const Property *prop, json_object *value, PropertySource source,
                  GError **errp);

/*
 * The realize hook of a device with a chardev: connects the front end that the property holds to the
 * device. One that has no chardev stays without.
 */
bool property_chardev_connect(CharFrontend *fe, const CharFrontendOps *ops, void *opaque,
                              size_t output_limit, GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* What errors call the owner of the property: its part, or else the class. */
const char *property_owner(const DeviceState *dev, const Property *prop);
/* "Property 'TYPE.NAME' doesn't take value 'TEXT'". False. */
bool property_refuse(DeviceState *dev, const Property *prop, const char *text, GError **errp);
/* A value as text, whatever it is in JSON; lent by it. */
const char *property_text(json_object *value);

/*
 * How netdevs are found and held; net/ registers it. `take` gives what devices store, or NULL with an
 * error; `id` is the netdev's.
 */
typedef struct NetdevLookup {
    void *(*take)(const char *id, GError **errp);
    void (*give_back)(void *netdev);
    const char *(*id)(void *netdev);
} NetdevLookup;
void property_set_netdev_lookup(const NetdevLookup *lookup);

#endif
