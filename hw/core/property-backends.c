/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kinds of properties that name something that exists outside of the device: character devices, disks,
 * netdevs, objects. Each is held from the moment when the property is set until the device goes.
 */
#include <string.h>
#include "block/block-backend.h"
#include "chardev/char.h"
#include "hw/core/device.h"
#include "hw/core/property.h"
#include "qom/user-creatable.h"
#include "util/error.h"

static bool not_found(DeviceState *dev, const Property *prop, const char *name, GError **errp)
{
    error_setg(errp, "Property '%s.%s' can't find value '%s'", property_owner(dev, prop),
               prop->name, name);
    return false;
}

static json_object *get_name(DeviceState *dev, const Property *prop, const void *slot)
{
    const char *name = prop->kind->back_end(slot);

    return json_object_new_string(name ? name : "");
}

static char *print_name(DeviceState *dev, const Property *prop, const void *slot)
{
    const char *name = prop->kind->back_end(slot);

    return g_strdup_printf("\"%s\"", name ? name : "");
}

/* --- character devices --- */

/* The front end is taken before the device is realized: input waits until then. */
static size_t takes_nothing(void *opaque)
{
    return 0;
}

static void reads_nothing(void *opaque, const uint8_t *buf, size_t len)
{
}

static const CharFrontendOps waiting_ops = {.can_read = takes_nothing, .read = reads_nothing};

static bool set_chardev(DeviceState *dev, const Property *prop, void *slot, json_object *value,
                        PropertySource source, GError **errp)
{
    const char *name = property_text(value);
    CharFrontend *fe = slot, taken = {0};
    g_autoptr(GError) err = NULL;
    Chardev *chr;

    if (!*name) {
        if (fe->chr) {
            qemu_chr_fe_deinit(fe);
        }
        return true;
    }
    chr = qemu_chr_find(name);
    if (!chr) {
        return not_found(dev, prop, name, errp);
    }
    if (fe->chr == chr) {
        return true;
    }
    /* Tried on another front end first: the one in the slot stays where this fails. */
    if (!qemu_chr_fe_init(&taken, chr, &waiting_ops, NULL, 0, &err)) {
        error_setg(errp, "Property '%s.%s' can't take value '%s': %s", property_owner(dev, prop),
                   prop->name, name, err->message);
        return false;
    }
    qemu_chr_fe_deinit(&taken);
    if (fe->chr) {
        qemu_chr_fe_deinit(fe);
    }
    return qemu_chr_fe_init(fe, chr, &waiting_ops, NULL, 0, errp);
}

bool property_chardev_connect(CharFrontend *fe, const CharFrontendOps *ops, void *opaque,
                              size_t output_limit, GError **errp)
{
    Chardev *chr = fe->chr;

    if (!chr) {
        return true;
    }
    qemu_chr_fe_deinit(fe);
    return qemu_chr_fe_init(fe, chr, ops, opaque, output_limit, errp);
}

static const char *chardev_name(const void *slot)
{
    const CharFrontend *fe = slot;

    return fe->chr ? qemu_chr_label(fe->chr) : NULL;
}

static void release_chardev(DeviceState *dev, const Property *prop, void *slot)
{
    CharFrontend *fe = slot;

    if (fe->chr) {
        qemu_chr_fe_deinit(fe);
    }
}

const PropertyKind property_chardev = {
    .name = "str",
    .description = "ID of a chardev to use as a backend",
    .set = set_chardev,
    .back_end = chardev_name,
    .get = get_name,
    .print = print_name,
    .release = release_chardev,
};

/* --- disks --- */

static GHashTable *drive_users; /* BlockBackend -> DeviceState */

/* The disk that -drive named so, or a new backend on the node; a reference. */
static BlockBackend *take_drive(DeviceState *dev, const Property *prop, const char *name,
                                GError **errp)
{
    BlockBackend *blk = blk_by_name(name);
    BlockDriverState *bs = blk ? NULL : bdrv_find_node(name);

    if (blk) {
        if (drive_users && g_hash_table_contains(drive_users, blk)) {
            error_setg(errp, "Drive '%s' is already in use by another device", name);
            return NULL;
        }
        blk_ref(blk);
        return blk;
    }
    if (!bs) {
        not_found(dev, prop, name, errp);
        return NULL;
    }
    /* What the device does with it is for its realize hook to say, with blk_set_perm(). */
    blk = blk_new(0, BLK_PERM_ALL);
    if (!blk_insert_bs(blk, bs, errp)) {
        blk_unref(blk);
        return NULL;
    }
    return blk;
}

static void release_drive(DeviceState *dev, const Property *prop, void *slot)
{
    BlockBackend **blk = slot;

    if (*blk) {
        g_hash_table_remove(drive_users, *blk);
        blk_set_dev_ops(*blk, NULL, NULL);
        blk_unref(*blk);
        *blk = NULL;
    }
}

static bool set_drive(DeviceState *dev, const Property *prop, void *slot, json_object *value,
                      PropertySource source, GError **errp)
{
    const char *name = property_text(value);
    BlockBackend *blk = NULL;

    if (*name) {
        blk = take_drive(dev, prop, name, errp);
        if (!blk) {
            return false;
        }
    }
    release_drive(dev, prop, slot);
    if (blk) {
        if (!drive_users) {
            drive_users = g_hash_table_new(NULL, NULL);
        }
        g_hash_table_insert(drive_users, blk, dev);
    }
    *(BlockBackend **)slot = blk;
    return true;
}

static const char *drive_name(const void *slot)
{
    BlockBackend *blk = *(BlockBackend *const *)slot;
    const char *name = blk ? blk_name(blk) : NULL;

    if (name && *name) {
        return name;
    }
    return blk && blk_bs(blk) ? bdrv_get_node_name(blk_bs(blk)) : NULL;
}

const PropertyKind property_drive = {
    .name = "str",
    .description = "Node name or ID of a block device to use as a backend",
    .set = set_drive,
    .back_end = drive_name,
    .get = get_name,
    .print = print_name,
    .release = release_drive,
};

/* --- netdevs --- */

static const NetdevLookup *netdevs;

void property_set_netdev_lookup(const NetdevLookup *lookup)
{
    netdevs = lookup;
}

static void release_netdev(DeviceState *dev, const Property *prop, void *slot)
{
    void **netdev = slot;

    if (*netdev) {
        netdevs->give_back(*netdev);
        *netdev = NULL;
    }
}

static bool set_netdev(DeviceState *dev, const Property *prop, void *slot, json_object *value,
                       PropertySource source, GError **errp)
{
    const char *name = property_text(value);
    g_autoptr(GError) err = NULL;
    void *netdev = netdevs ? netdevs->take(name, &err) : NULL;

    if (!netdev) {
        if (!err) {
            return not_found(dev, prop, name, errp);
        }
        error_setg(errp, "Property '%s.%s' can't take value '%s', %s", property_owner(dev, prop),
                   prop->name, name, err->message);
        return false;
    }
    release_netdev(dev, prop, slot);
    *(void **)slot = netdev;
    return true;
}

static const char *netdev_name(const void *slot)
{
    void *netdev = *(void *const *)slot;

    return netdev ? netdevs->id(netdev) : NULL;
}

const PropertyKind property_netdev = {
    .name = "str",
    .description = "ID of a netdev to use as a backend",
    .set = set_netdev,
    .back_end = netdev_name,
    .get = get_name,
    .print = print_name,
    .release = release_netdev,
};

/* --- objects --- */

static void release_link(DeviceState *dev, const Property *prop, void *slot)
{
    QomObject **object = slot;

    if (*object) {
        if (qom_object_type(*object)->user_creatable) {
            user_creatable_unref(qom_object_opaque(*object));
        }
        qom_object_unref(*object);
        *object = NULL;
    }
}

static bool set_link(DeviceState *dev, const Property *prop, void *slot, json_object *value,
                     PropertySource source, GError **errp)
{
    const char *path = property_text(value);
    QomObject *object = NULL;

    if (*path) {
        object = qom_resolve(path, errp);
        if (!object) {
            return false;
        }
        if (!qom_type_is(qom_object_type(object), prop->link)) {
            error_setg(errp, "Invalid parameter type for '%s', expected: %s", prop->name,
                       prop->link);
            return false;
        }
        qom_object_ref(object);
        if (qom_object_type(object)->user_creatable) {
            user_creatable_ref(qom_object_opaque(object)); /* object-del is refused from now on */
        }
    }
    release_link(dev, prop, slot);
    *(QomObject **)slot = object;
    return true;
}

/* The caller frees. */
static char *link_path(const void *slot)
{
    const QomObject *object = *(QomObject *const *)slot;

    return object ? qom_object_path(object) : g_strdup("");
}

static json_object *get_link(DeviceState *dev, const Property *prop, const void *slot)
{
    g_autofree char *path = link_path(slot);

    return json_object_new_string(path);
}

static char *print_link(DeviceState *dev, const Property *prop, const void *slot)
{
    g_autofree char *path = link_path(slot);

    return g_strdup_printf("\"%s\"", path);
}

/* Lists show "link<TYPE>" in place of the name. */
const PropertyKind property_link = {
    .name = "link",
    .set = set_link,
    .get = get_link,
    .print = print_link,
    .release = release_link,
};
