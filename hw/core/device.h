/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices: a descriptor for each kind (DeviceClass) and a struct for each one that exists
 * (DeviceState). docs/devices.md shows how to write one.
 *
 * A class has a line of parents ("isa-debug-exit", "isa-device", "device"). Where a class of the line
 * has a hook it runs: from the base to the leaf for init, co_realize and reset, from the leaf to the
 * base for co_unrealize. A hook calls no hook of another class.
 *
 * Life: created -> realizing -> realized -> unrealizing -> gone (device.c has the table). From its
 * creation a device has its place in the object tree and on its bus, so ids and addresses cannot be
 * taken twice while a hook yields. For each thing that a hook makes, it notes an undo function with
 * device_on_unrealize(). These run in reverse when the device goes, and when a later step of
 * realizing fails. So a hook that fails need not undo what it has noted.
 *
 * All functions: main thread or another holder of the big lock (util/bql.h), unless said otherwise.
 */
#ifndef FERRY_HW_CORE_DEVICE_H
#define FERRY_HW_CORE_DEVICE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "hw/core/clock.h"
#include "hw/core/irq.h"
#include "hw/core/property.h"
#include "hw/core/register.h"
#include "memory/memory.h"
#include "qom/object.h"
#include "util/coroutine.h"
#include "util/queue.h"
#include "vmstate/vmstate.h"

typedef struct BusState BusState;
typedef struct BusClass BusClass;
typedef struct DeviceClass DeviceClass;
typedef struct HotplugHandler HotplugHandler;

/* The headings of -device help, in its order. */
typedef enum DeviceCategory {
    DEVICE_CATEGORY_NONE, /* the last one: "Uncategorized" */
    DEVICE_CATEGORY_BRIDGE,
    DEVICE_CATEGORY_USB,
    DEVICE_CATEGORY_STORAGE,
    DEVICE_CATEGORY_NETWORK,
    DEVICE_CATEGORY_INPUT,
    DEVICE_CATEGORY_DISPLAY,
    DEVICE_CATEGORY_SOUND,
    DEVICE_CATEGORY_MISC,
    DEVICE_CATEGORY_CPU,
    DEVICE_CATEGORY_WATCHDOG,
    DEVICE_CATEGORY_MAX,
} DeviceCategory;

/*
 * Made by DEFINE_DEVICE() below, registered by device_class_register(). Hooks may be NULL.
 */
struct DeviceClass {
    const char *name;
    const char *parent; /* NULL: "device" */
    const char *alias;  /* another name for -device; NULL: none */
    const char *desc;   /* for -device help; NULL: none */
    DeviceCategory category;
    const char *bus; /* type of bus that it plugs into; NULL: the parent's */
    bool abstract;   /* others descend from it */
    bool internal;   /* machines make it, users cannot */
    bool stays;      /* is never plugged or unplugged while the machine runs */
    size_t instance_size;
    const Property *properties; /* ended by {0}; NULL: none of its own */
    /*
     * What travels with the guest, or NO_VMSTATE: stock QEMU has no section for this device, and one of ours
     * would break migrations with it.
     */
    const VMStateDescription *vmstate;
    size_t vmstate_at; /* where in the device's struct that is: an embedded chip; 0: the struct */
    const void *bus_info; /* what its kind of bus must know: PCIDeviceInfo */

    /* Prepares the zeroed struct: lines, children. Properties are not set yet. Cannot fail. */
    void (*init)(DeviceState *dev);
    /*
     * Makes the device work as its properties say: regions, lines, back ends. May yield; nothing
     * reaches the device before it has succeeded. Its reset follows.
     */
    bool coroutine_fn (*co_realize)(DeviceState *dev, GError **errp);
    /*
     * Before the noted functions run. Nothing reaches the device any more, and no request is in
     * flight.
     */
    void coroutine_fn (*co_unrealize)(DeviceState *dev);
    /* Frees what init made; after the last reference. */
    void (*finalize)(DeviceState *dev);
    /*
     * Reset, hw/core/reset.h: reset_enter puts the state to its reset values and touches nothing
     * outside the device. reset_exit runs when no request from before the reset is in flight; it
     * handles lines, timers and back ends.
     */
    void (*reset_enter)(DeviceState *dev);
    void (*reset_exit)(DeviceState *dev);
    /* The guest starts to run, or has stopped. */
    void (*run_state_changed)(DeviceState *dev, bool running);
};

extern const VMStateDescription device_no_section;
#define NO_VMSTATE (&device_no_section)
/*
 * A descriptor. `_vmstate` is &a_description or NO_VMSTATE; without either it does not compile. `_state` is the
 * device's struct, whose first member is its parent's struct.
 */
#define DEFINE_DEVICE(_symbol, _state, _vmstate, ...)                                           \
    const DeviceClass _symbol = {                                                               \
        .instance_size =                                                                        \
            sizeof(_state) + VMS_ASSERT(sizeof(_state) >= sizeof(DeviceState), "not a device"), \
        .vmstate = (_vmstate),                                                                  \
        __VA_ARGS__,                                                                            \
    }
/* A class that others descend from; each of them says what travels. */
#define DEFINE_ABSTRACT_DEVICE(_symbol, _state, ...) \
    const DeviceClass _symbol = {                    \
        .instance_size = sizeof(_state),             \
        .abstract = true,                            \
        __VA_ARGS__,                                 \
    }

typedef enum DevicePhase {
    DEVICE_CREATED,
    DEVICE_REALIZING,
    DEVICE_REALIZED,
    DEVICE_UNREALIZING,
    DEVICE_GONE,
} DevicePhase;

typedef struct GPIOList GPIOList;
LIST_HEAD(GPIOLists, GPIOList);
TAILQ_HEAD(BusList, BusState);
TAILQ_HEAD(DeviceList, DeviceState);

/* The first member of every device's struct. Members are those of hw/core. */
struct DeviceState {
    const DeviceClass *class;
    QomObject *object;
    char *id; /* the user's; NULL: none */
    DevicePhase phase;
    bool hotplugged;      /* made after the machine was */
    bool unplug_asked;    /* device_del waits for the guest, or is under way */
    bool ending;          /* device_co_destroy() has begun */
    BusState *parent_bus; /* NULL: on none */
    TAILQ_ENTRY(DeviceState) sibling;
    struct BusList buses;
    struct GPIOLists gpios;
    GArray *notes;      /* of device_on_unrealize() */
    GArray *placements; /* of device_map_region(), until the device is realized */
    DeviceClock clock;

    /* hw/core/reset.c */
    uint64_t activity; /* atomic, any thread: resetting, generation, requests in flight */
    unsigned reset_holds;
    bool reset_entered; /* reset_exit is due */
};

/* --- classes --- */

/* Start-up, parents first; `class` lives on. */
void device_class_register(const DeviceClass *class);
/* By name or alias; NULL: none. */
const DeviceClass *device_class_find(const char *name);
const DeviceClass *device_class_parent(const DeviceClass *class);
bool device_class_is(const DeviceClass *class, const char *name);
/* Type of bus that devices of the class plug into; NULL: none. */
const char *device_class_bus(const DeviceClass *class);
/* The property of that name of the class or a parent; NULL: none. */
const Property *device_class_property(const DeviceClass *class, const char *name);
/* fn for each: those of the leaf first. */
void device_class_foreach_property(const DeviceClass *class,
                                   void (*fn)(const Property *prop, void *opaque), void *opaque);
/* All, in order of registration. */
const GPtrArray *device_classes(void);

/* --- making and ending --- */

typedef struct DeviceOptions {
    const DeviceClass *class;
    const char *id;      /* NULL: none; free, and well formed */
    BusState *bus;       /* NULL: none; it fits the class */
    json_object *values; /* properties as a user gave them; NULL: none */
    PropertySource source;
    bool user; /* below /machine/peripheral(-anon); else a part of the machine, below unattached */
    QomObject *parent; /* a part of the machine with a place of its own; NULL: unattached */
    const char *name;  /* its name there */
} DeviceOptions;

/*
 * Creates a device, gives it its properties and a place on its bus. The tree holds the only reference.
 * NULL and errp: nothing is left.
 */
DeviceState *device_create(const DeviceOptions *options, GError **errp);
/* Realizes the device. False and errp: it is as it was after device_create(), and only
 * device_co_destroy() is left for it.
 */
bool coroutine_fn device_co_realize(DeviceState *dev, GError **errp);
/* Both, and device_co_destroy() where realizing fails. */
DeviceState *coroutine_fn device_co_new(const DeviceOptions *options, GError **errp);
/* Ends the device and those on its buses, in whatever phase they are: unrealizes each, and takes it
 * from its bus and out of the tree. Yields until no request is in flight.
 */
void coroutine_fn device_co_destroy(DeviceState *dev);
/* Calls fn(opaque) when the device goes or realizing fails; last noted, first called. */
void device_on_unrealize(DeviceState *dev, void (*fn)(void *opaque), void *opaque);

DeviceState *device_ref(DeviceState *dev);
void device_unref(DeviceState *dev);
/* The path in the object tree; the caller frees. */
char *device_path(const DeviceState *dev);
/* Its id, or else the name of its class: for messages. */
const char *device_label(const DeviceState *dev);
bool device_is_realized(const DeviceState *dev);
/* The device with that id of a user's; NULL: none. */
DeviceState *device_find(const char *id);

/* --- regions --- */

/*
 * Places a region of the device in a container (priority 0) once the device is realized, until it goes, and shows
 * it in the tree. The region is destroyed after that.
 */
void device_map_region(DeviceState *dev, MemoryRegion *container, hwaddr addr, MemoryRegion *mr);
/* The same without a place: the device, or its bus, places it. */
void device_own_region(DeviceState *dev, MemoryRegion *mr);

/* --- interrupt lines (hw/core/gpio.c) --- */

/* `n` inputs, whose handler gets the device as its opaque. name NULL: the unnamed ones. */
void qdev_init_gpio_in_named(DeviceState *dev, qemu_irq_handler *handler, const char *name,
                             unsigned n);
/* `n` outputs: an array that the device drives with qemu_set_irq(). It lives as long as the device. */
IRQLine *qdev_init_gpio_out_named(DeviceState *dev, const char *name, unsigned n);
/* An input; NULL: there is none. */
qemu_irq qdev_get_gpio_in_named(DeviceState *dev, const char *name, unsigned n);
/* An output; NULL: there is none. */
qemu_irq qdev_get_gpio_out_named(DeviceState *dev, const char *name, unsigned n);
/* Wires an output to a line. */
void qdev_connect_gpio_out_named(DeviceState *dev, const char *name, unsigned n, qemu_irq to);
/* fn for each group, in order of creation. */
void qdev_foreach_gpio(DeviceState *dev,
                       void (*fn)(const char *name, bool input, unsigned n, void *opaque),
                       void *opaque);
void gpio_lists_free(DeviceState *dev); /* device.c's */

#endif
