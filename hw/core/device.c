/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a device.
 *
 *   phase         on a bus, in the tree   what may happen              next, by
 *   CREATED       yes                     properties are set           REALIZING: device_co_realize()
 *   REALIZING     yes                     its hooks run, may yield     REALIZED, or CREATED where one fails
 *   REALIZED      yes                     the guest uses it            UNREALIZING: device_co_destroy()
 *   UNREALIZING   yes                     requests end, hooks run      GONE
 *   GONE          no                      references are dropped       freed: the last device_unref()
 *
 * Invariants: a device in the tree has a phase before GONE. Only while it is REALIZING, REALIZED or
 * UNREALIZING, its section is registered and its interrupt lines and regions reach others.
 */
#include "hw/core/device.h"

#include <string.h>
#include "hw/core/bus.h"
#include "hw/core/device-int.h"
#include "hw/core/globals.h"
#include "hw/core/reset.h"
#include "util/bql.h"
#include "util/co-lock.h"
#include "util/error.h"
#include "vmstate/register.h"

static const QomType region_type = {.name = "memory-region"};

typedef struct Placement {
    MemoryRegion *container, *mr;
    hwaddr addr;
} Placement;

typedef struct Note {
    void (*fn)(void *opaque);
    void *opaque;
} Note;

/* Coroutines that wait for a device to leave REALIZING or UNREALIZING. */
static CoQueue phase_waiters = {TAILQ_HEAD_INITIALIZER(phase_waiters.waiters)};

static void set_phase(DeviceState *dev, DevicePhase phase)
{
    dev->phase = phase;
    qemu_co_queue_restart_all(&phase_waiters);
}

static void coroutine_fn co_wait_for_phase(void)
{
    qemu_co_queue_wait(&phase_waiters, NULL);
}

unsigned device_class_line(const DeviceClass *class, const DeviceClass *line[])
{
    unsigned n = 0;

    for (; class; class = device_class_parent(class)) {
        g_assert(n < DEVICE_CLASS_DEPTH_MAX);
        memmove(line + 1, line, n * sizeof(*line));
        line[0] = class;
        n++;
    }
    return n;
}

/* --- creating --- */

/* Where the device goes in the tree, and under which name (the caller frees). */
static QomObject *choose_place(const DeviceOptions *options, char **name)
{
    QomObject *machine = qom_container("machine");
    const char *part =
        options->user ? options->id ? "peripheral" : "peripheral-anon" : "unattached";
    QomObject *place = options->parent ? options->parent : qom_object_child(machine, part);

    if (!place) { /* unit tests make no machine */
        place = qom_object_new(machine, part, qom_type_find("container"), NULL);
    }
    if (options->parent) {
        *name = g_strdup(options->name);
    } else if (options->user && options->id) {
        *name = g_strdup(options->id);
    } else {
        *name = qom_free_name(place, "device");
    }
    return place;
}

static void set_default(const Property *prop, void *opaque)
{
    if (prop->kind->set_default) {
        prop->kind->set_default(prop, property_slot(opaque, prop));
    }
}

static void release_property(const Property *prop, void *opaque)
{
    if (prop->kind->release) {
        prop->kind->release(opaque, prop, property_slot(opaque, prop));
    }
}

static bool set_given(DeviceState *dev, const DeviceOptions *options, GError **errp)
{
    if (!options->values) {
        return true;
    }
    json_object_object_foreach(options->values, name, value)
    {
        const Property *prop = device_class_property(dev->class, name);

        if (prop) {
            if (!property_set(dev, prop, value, options->source, errp)) {
                return false;
            }
        } else {
            /* The object model has the words for a fixed property, and for one that does not exist. */
            return qom_object_set(dev->object, name, value, errp);
        }
    }
    return true;
}

DeviceState *device_create(const DeviceOptions *options, GError **errp)
{
    const DeviceClass *class = options->class, *line[DEVICE_CLASS_DEPTH_MAX];
    unsigned n = device_class_line(class, line);
    g_autofree char *name = NULL;
    QomObject *place = choose_place(options, &name);
    DeviceState *dev;

    g_assert(bql_locked() && !class->abstract);
    dev = g_malloc0(class->instance_size);
    dev->class = class;
    dev->id = g_strdup(options->id);
    dev->clock = device_clock_virtual();
    dev->notes = g_array_new(FALSE, FALSE, sizeof(Note));
    dev->placements = g_array_new(FALSE, FALSE, sizeof(Placement));
    TAILQ_INIT(&dev->buses);
    LIST_INIT(&dev->gpios);
    device_class_foreach_property(class, set_default, dev);
    dev->object = qom_object_new(place, name, device_class_type(class), dev);
    for (unsigned i = 0; i < n; i++) {
        if (line[i]->init) {
            line[i]->init(dev);
        }
    }
    if (!globals_apply(dev, errp) || !set_given(dev, options, errp) ||
        (options->bus && !bus_plug(options->bus, dev, errp))) {
        device_class_foreach_property(class, release_property, dev);
        dev->phase = DEVICE_GONE;
        qom_object_free(dev->object);
        return NULL;
    }
    return dev;
}

/* --- realizing --- */

void device_on_unrealize(DeviceState *dev, void (*fn)(void *opaque), void *opaque)
{
    Note note = {.fn = fn, .opaque = opaque};

    g_assert(dev->phase == DEVICE_REALIZING || dev->phase == DEVICE_REALIZED);
    g_array_append_val(dev->notes, note);
}

static void run_notes(DeviceState *dev)
{
    while (dev->notes->len) {
        Note note = g_array_index(dev->notes, Note, dev->notes->len - 1);

        g_array_set_size(dev->notes, dev->notes->len - 1);
        note.fn(note.opaque);
    }
}

typedef struct RequiredCheck {
    DeviceState *dev;
    const Property *missing;
} RequiredCheck;

static void check_required(const Property *prop, void *opaque)
{
    RequiredCheck *check = opaque;

    /* Kinds that can be required hold a pointer, and NULL is "not given". */
    if (prop->required && !check->missing && !*(void **)property_slot(check->dev, prop)) {
        check->missing = prop;
    }
}

static void *section_state(DeviceState *dev)
{
    return (char *)dev + dev->class->vmstate_at;
}

static void forget_section(void *opaque)
{
    DeviceState *dev = opaque;

    vmstate_unregister(dev->class->vmstate, section_state(dev));
}

static bool register_section(DeviceState *dev, GError **errp)
{
    const BusClass *bus = dev->parent_bus ? dev->parent_bus->class : NULL;
    g_autofree char *path = bus && bus->section_path ? bus->section_path(dev) : NULL;
    VMStateRegistration reg = {
        .vmsd = dev->class->vmstate,
        .opaque = section_state(dev),
        .path = path,
        .instance_id = VMSTATE_INSTANCE_ID_ANY,
        .alias_id = -1,
    };

    if (dev->class->vmstate == NO_VMSTATE) {
        return true;
    }
    if (!vmstate_register_full(&reg, errp)) {
        return false;
    }
    device_on_unrealize(dev, forget_section, dev);
    return true;
}

static bool coroutine_fn co_run_hooks(DeviceState *dev, GError **errp)
{
    const DeviceClass *line[DEVICE_CLASS_DEPTH_MAX];
    unsigned n = device_class_line(dev->class, line);
    RequiredCheck check = {.dev = dev};

    device_class_foreach_property(dev->class, check_required, &check);
    if (check.missing) {
        error_setg(errp, "%s property not set", check.missing->name);
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        if (line[i]->co_realize && !line[i]->co_realize(dev, errp)) {
            return false;
        }
    }
    return register_section(dev, errp);
}

/* From here on the guest finds the device. */
static void place_regions(DeviceState *dev)
{
    memory_region_transaction_begin();
    for (guint i = 0; i < dev->placements->len; i++) {
        const Placement *at = &g_array_index(dev->placements, Placement, i);

        memory_region_add_subregion(at->container, at->addr, at->mr);
    }
    memory_region_transaction_commit();
    g_array_set_size(dev->placements, 0);
}

bool coroutine_fn device_co_realize(DeviceState *dev, GError **errp)
{
    g_assert(bql_locked() && dev->phase == DEVICE_CREATED);
    dev->phase = DEVICE_REALIZING;
    device_ref(dev);
    if (!co_run_hooks(dev, errp)) {
        run_notes(dev);
        g_array_set_size(dev->placements, 0);
        set_phase(dev, DEVICE_CREATED);
        device_unref(dev);
        return false;
    }
    set_phase(dev, DEVICE_REALIZED);
    device_reset(dev);
    place_regions(dev);
    device_unref(dev);
    return true;
}

DeviceState *coroutine_fn device_co_new(const DeviceOptions *options, GError **errp)
{
    DeviceState *dev = device_create(options, errp);

    if (dev && !device_co_realize(dev, errp)) {
        device_co_destroy(dev);
        return NULL;
    }
    return dev;
}

/* --- ending --- */

static void hide_region(QomObject *child, void *opaque)
{
    if (qom_object_type(child) == &region_type) {
        memory_region_set_enabled(qom_object_opaque(child), false);
    }
}

/* The guest finds nothing of it any more before its hooks run. */
static void coroutine_fn co_unrealize(DeviceState *dev)
{
    const DeviceClass *line[DEVICE_CLASS_DEPTH_MAX];
    unsigned n = device_class_line(dev->class, line);

    set_phase(dev, DEVICE_UNREALIZING);
    memory_region_transaction_begin();
    qom_object_foreach_child(dev->object, hide_region, NULL);
    memory_region_transaction_commit();
    device_reset_hold(dev);
    device_co_settle(dev);
    while (n--) {
        if (line[n]->co_unrealize) {
            line[n]->co_unrealize(dev);
        }
    }
    run_notes(dev);
}

void coroutine_fn device_co_destroy(DeviceState *dev)
{
    BusState *bus;

    g_assert(bql_locked());
    device_ref(dev);
    while (dev->phase == DEVICE_REALIZING || dev->phase == DEVICE_UNREALIZING) {
        co_wait_for_phase();
    }
    if (dev->phase == DEVICE_GONE) {
        device_unref(dev);
        return;
    }
    dev->ending = true;
    while ((bus = TAILQ_FIRST(&dev->buses))) {
        DeviceState *child;

        while ((child = TAILQ_FIRST(&bus->devices))) {
            device_co_destroy(child);
        }
        bus_free(bus);
    }
    if (dev->phase == DEVICE_REALIZED) {
        co_unrealize(dev);
    }
    set_phase(dev, DEVICE_GONE);
    gpio_lists_free(dev);
    if (dev->parent_bus) {
        bus_unplug(dev->parent_bus, dev);
    }
    device_class_foreach_property(dev->class, release_property, dev);
    qom_object_free(dev->object);
    device_unref(dev);
}

void device_finalize(void *opaque)
{
    DeviceState *dev = opaque;
    const DeviceClass *line[DEVICE_CLASS_DEPTH_MAX];
    unsigned n = device_class_line(dev->class, line);

    g_assert(dev->phase == DEVICE_GONE);
    while (n--) {
        if (line[n]->finalize) {
            line[n]->finalize(dev);
        }
    }
    gpio_lists_free(dev);
    g_array_unref(dev->notes);
    g_array_unref(dev->placements);
    g_free(dev->id);
    g_free(dev);
}

/* --- asking --- */

DeviceState *device_ref(DeviceState *dev)
{
    qom_object_ref(dev->object);
    return dev;
}

void device_unref(DeviceState *dev)
{
    qom_object_unref(dev->object);
}

char *device_path(const DeviceState *dev)
{
    return qom_object_path(dev->object);
}

const char *device_label(const DeviceState *dev)
{
    return dev->id ? dev->id : dev->class->name;
}

bool device_is_realized(const DeviceState *dev)
{
    return dev->phase == DEVICE_REALIZED;
}

DeviceState *device_find(const char *id)
{
    QomObject *users = qom_object_child(qom_container("machine"), "peripheral");
    QomObject *object = users ? qom_object_child(users, id) : NULL;

    return object ? qom_object_opaque(object) : NULL;
}

/* --- regions --- */

static void give_region_back(void *opaque)
{
    MemoryRegion *mr = opaque;

    if (mr->container) {
        memory_region_del_subregion(mr->container, mr);
    }
    memory_region_destroy(mr);
}

void device_own_region(DeviceState *dev, MemoryRegion *mr)
{
    g_autofree char *name = qom_free_name(dev->object, memory_region_name(mr));

    if (!qom_type_find(region_type.name)) {
        qom_type_register(&region_type);
    }
    device_on_unrealize(dev, give_region_back, mr);
    device_on_unrealize(dev, (void (*)(void *))qom_object_free,
                        qom_object_new(dev->object, name, &region_type, mr));
}

void device_map_region(DeviceState *dev, MemoryRegion *container, hwaddr addr, MemoryRegion *mr)
{
    Placement at = {.container = container, .mr = mr, .addr = addr};

    g_assert(dev->phase == DEVICE_REALIZING);
    device_own_region(dev, mr);
    g_array_append_val(dev->placements, at);
}
