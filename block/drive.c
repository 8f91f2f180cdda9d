/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -drive: the short form of a node and a device in one.
 *
 * Members that belong to the device or are shorthands are taken out of the option string here.
 * Everything left goes to the node as with -blockdev: driver, node-name, file.*, cache.*, qcow2's
 * own options.
 */
#include "block/blockdev.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "block/graph/activate.h"
#include "block/block-backend.h"
#include "block/graph/graph.h"
#include "block/io/limits.h"
#include "qapi/keyval.h"
#include "util/cutils.h"
#include "util/error.h"

/* The keys that the name of the file and the cache mode have within this file. */
#define FILE_NAME_KEY  "x-file-name"
#define CACHE_MODE_KEY "x-cache-mode"
/* More buses and units than any machine has. */
#define DRIVE_PLACE_MAX 1024

/* What QEMU knows as if=, and how many disks a bus of it takes (0: there are no buses). */
static const struct {
    const char *name;
    int units;
    bool error_policies;
} interfaces[] = {
    {"none", 0, true},    {"ide", 2, true},     {"scsi", 7, true},
    {"floppy", 0, false}, {"pflash", 0, false}, {"mtd", 0, false},
    {"sd", 0, false},     {"virtio", 0, true},  {"xen", 0, false},
};

/* Where a machine finds the drive. */
typedef struct DrivePlace {
    size_t interface; /* index into interfaces[]; 0: any device that names it */
    int bus, unit;
} DrivePlace;

typedef struct Drive {
    BlockBackend *blk;
    DrivePlace place;
    char *text; /* the option, for messages */
} Drive;

/* What a -drive says: the node's options, the other members, and what follows from these. */
typedef struct DriveOptions {
    json_object *rest;   /* owned: the node's options */
    DriveMembers *given; /* owned */
    DrivePlace place;
    bool cdrom, writethrough, copy_on_read;
    int flags; /* BDRV_O_* */
    BlockdevDetectZeroesOptions detect_zeroes;
    BlockdevOnError rerror, werror;
    ThrottleConfig limits;
    char *throttle_group; /* NULL: one of its own */
} DriveOptions;

/* Drive, in order of creation. */
static GArray *drives;

static void drive_options_clear(DriveOptions *d)
{
    json_object_put(d->rest);
    qapi_free_DriveMembers(d->given);
    g_free(d->throttle_group);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(DriveOptions, drive_options_clear)

/* Takes the members of DriveMembers out of the options; decodes and checks them. */
static bool take_members(DriveOptions *d, GError **errp)
{
    json_object *own = json_object_new_object(), *value;

    for (size_t i = 0; i < qapi_type_DriveMembers.count; i++) {
        const char *name = qapi_type_DriveMembers.members[i].name;

        if (json_object_object_get_ex(d->rest, name, &value)) {
            json_object_object_add(own, name, json_object_get(value));
            json_object_object_del(d->rest, name);
        }
    }
    d->given = DriveMembers_from_json(own, QAPI_DECODE_KEYVAL, errp);
    json_object_put(own);
    return d->given;
}

static const struct {
    const char *name;
    int flags;
    bool writethrough;
} cache_modes[] = {
    {"none", BDRV_O_NOCACHE, false},
    {"off", BDRV_O_NOCACHE, false},
    {"writeback", 0, false},
    {"writethrough", 0, true},
    {"directsync", BDRV_O_NOCACHE, true},
    {"unsafe", BDRV_O_NO_FLUSH, false},
};

/* cache.writeback; the other members of `cache` are the node's. */
static bool take_writeback(json_object *options, bool *writeback, GError **errp)
{
    json_object *members, *value;

    if (!json_object_object_get_ex(options, "cache", &members) ||
        !json_object_is_type(members, json_type_object) ||
        !json_object_object_get_ex(members, "writeback", &value)) {
        return true;
    }
    if (!qemu_parse_bool("cache.writeback", json_object_get_string(value), writeback, errp)) {
        return false;
    }
    json_object_object_del(members, "writeback");
    if (!json_object_object_length(members)) {
        json_object_object_del(options, "cache");
    }
    return true;
}

static bool take_cache(DriveOptions *d, GError **errp)
{
    const char *mode = d->given->x_cache_mode;
    bool writeback;

    for (size_t i = 0; mode && i < G_N_ELEMENTS(cache_modes); i++) {
        if (!strcmp(mode, cache_modes[i].name)) {
            d->flags |= cache_modes[i].flags;
            d->writethrough = cache_modes[i].writethrough;
            mode = NULL;
        }
    }
    if (mode) {
        error_setg(errp, "invalid cache option '%s'", mode);
        return false;
    }
    writeback = !d->writethrough;
    if (!take_writeback(d->rest, &writeback, errp)) {
        return false;
    }
    d->writethrough = !writeback;
    return true;
}

static bool take_discard(DriveOptions *d, GError **errp)
{
    const char *mode = d->given->discard;

    if (!mode) {
        return true;
    }
    if (!strcmp(mode, "unmap") || !strcmp(mode, "on")) {
        d->flags |= BDRV_O_UNMAP;
    } else if (strcmp(mode, "ignore") && strcmp(mode, "off")) {
        error_setg(errp, "invalid discard option '%s'", mode);
        return false;
    }
    return true;
}

static bool take_on_error(DriveOptions *d, const char *text, bool is_read, BlockdevOnError *value,
                          GError **errp)
{
    if (!text) {
        return true;
    }
    if (!interfaces[d->place.interface].error_policies) {
        error_setg(errp, "%s is not supported by this bus type", is_read ? "rerror" : "werror");
        return false;
    }
    if (!BlockdevOnError_parse(text, value, NULL) || *value == BLOCKDEV_ON_ERROR_AUTO ||
        (is_read && *value == BLOCKDEV_ON_ERROR_ENOSPC)) {
        error_setg(errp, "'%s' invalid %s error action", text, is_read ? "read" : "write");
        return false;
    }
    return true;
}

static bool take_detect_zeroes(DriveOptions *d, GError **errp)
{
    const char *text = d->given->detect_zeroes;

    return !text || BlockdevDetectZeroesOptions_parse(text, &d->detect_zeroes, errp);
}

/* --- where the drive is --- */

static bool take_interface(DriveOptions *d, GError **errp)
{
    const char *name = d->given->q_if;

    for (size_t i = 0; name && i < G_N_ELEMENTS(interfaces); i++) {
        if (!strcmp(name, interfaces[i].name)) {
            d->place.interface = i;
            return true;
        }
    }
    if (name) {
        error_setg(errp, "unsupported bus type '%s'", name);
    }
    return !name;
}

/* *value is -1 when the option is not given. */
static bool take_number(const char *key, bool given, int64_t number, int *value, GError **errp)
{
    *value = given ? (int)number : -1;
    if (given && (number < 0 || number >= DRIVE_PLACE_MAX)) {
        error_setg(errp, "Parameter '%s' expects a number below %d", key, DRIVE_PLACE_MAX);
        return false;
    }
    return true;
}

static const Drive *drive_at(const DrivePlace *place)
{
    for (guint i = 0; drives && i < drives->len; i++) {
        const Drive *drive = &g_array_index(drives, Drive, i);

        if (drive->place.interface == place->interface && drive->place.bus == place->bus &&
            drive->place.unit == place->unit) {
            return drive;
        }
    }
    return NULL;
}

/* The first free place on the bus, or on those behind it. */
static void find_place(DrivePlace *place)
{
    int units = interfaces[place->interface].units;

    place->unit = 0;
    while (drive_at(place)) {
        place->unit++;
        if (units && place->unit >= units) {
            place->unit = 0;
            place->bus++;
        }
    }
}

static bool take_place(DriveOptions *d, GError **errp)
{
    const DriveMembers *given = d->given;
    DrivePlace *place = &d->place;
    int index, units;

    if (!take_interface(d, errp) ||
        !take_number("bus", given->has_bus, given->bus, &place->bus, errp) ||
        !take_number("unit", given->has_unit, given->unit, &place->unit, errp) ||
        !take_number("index", given->has_index, given->index, &index, errp)) {
        return false;
    }
    units = interfaces[place->interface].units;
    if (index >= 0) {
        if (place->bus >= 0 || place->unit >= 0) {
            error_setg(errp, "index cannot be used with bus and unit");
            return false;
        }
        place->bus = units ? index / units : 0;
        place->unit = units ? index % units : index;
    }
    place->bus = MAX(place->bus, 0);
    if (place->unit < 0) {
        find_place(place);
    }
    if (units && place->unit >= units) {
        error_setg(errp, "unit %d too big (max is %d)", place->unit, units - 1);
        return false;
    }
    if (drive_at(place)) {
        error_setg(errp, "drive with bus=%d, unit=%d (index=%d) exists", place->bus, place->unit,
                   units ? place->bus * units + place->unit : place->unit);
        return false;
    }
    return true;
}

/* "virtio0", "ide1-cd0": the name of a drive that was given none; the caller frees. */
static char *name_of_place(const DriveOptions *d)
{
    const char *interface = interfaces[d->place.interface].name;

    return interfaces[d->place.interface].units
               ? g_strdup_printf("%s%d-%s%d", interface, d->place.bus, d->cdrom ? "cd" : "hd",
                                 d->place.unit)
               : g_strdup_printf("%s%d", interface, d->place.unit);
}

static bool take_media(DriveOptions *d, bool *read_only, GError **errp)
{
    const char *media = d->given->media;

    if (media && strcmp(media, "disk") && strcmp(media, "cdrom")) {
        error_setg(errp, "'%s' invalid media", media);
        return false;
    }
    d->cdrom = media && !strcmp(media, "cdrom");
    *read_only |= d->cdrom || (d->given->has_readonly && d->given->readonly) ||
                  (d->given->has_read_only && d->given->read_only);
    return true;
}

static bool check_aio(const char *aio, GError **errp)
{
    if (aio && !BlockdevAioOptions_parse(aio, &(BlockdevAioOptions){0}, NULL)) {
        error_setg(errp, "invalid aio option '%s'", aio);
        return false;
    }
    return true;
}

/* file.filename=... without file.driver: a file of this host. */
static void default_drivers(json_object *options)
{
    json_object_object_foreach(options, key, value)
    {
        (void)key;
        if (json_object_is_type(value, json_type_object)) {
            default_drivers(value);
            if (json_object_object_get_ex(value, "filename", NULL) &&
                !json_object_object_get_ex(value, "driver", NULL)) {
                json_object_object_add(value, "driver", json_object_new_string("file"));
            }
        }
    }
}

static bool take_options(DriveOptions *d, GError **errp)
{
    bool read_only = false;

    d->flags = BDRV_O_RDWR | BDRV_O_AUTO_RDONLY | bdrv_default_open_flags();
    d->rerror = BLOCKDEV_ON_ERROR_REPORT;
    d->werror = BLOCKDEV_ON_ERROR_ENOSPC;
    if (!take_members(d, errp) || !take_place(d, errp) || !take_cache(d, errp) ||
        !take_discard(d, errp) || !take_detect_zeroes(d, errp) || !check_aio(d->given->aio, errp) ||
        !take_media(d, &read_only, errp) ||
        !take_on_error(d, d->given->rerror, true, &d->rerror, errp) ||
        !take_on_error(d, d->given->werror, false, &d->werror, errp) ||
        !io_limits_take_options(d->rest, &d->limits, &d->throttle_group, errp)) {
        return false;
    }
    if (!d->throttle_group) {
        d->throttle_group = g_strdup(d->given->group); /* its older name */
    }
    if (read_only) {
        d->flags &= ~BDRV_O_RDWR;
    }
    d->copy_on_read = d->given->has_copy_on_read && d->given->copy_on_read;
    if (read_only && d->copy_on_read) {
        warn_report("disabling copy-on-read on read-only drive");
        d->copy_on_read = false;
    }
    return true;
}

/* Puts the aio engine into the options of the file, which a plain name does not mention. */
static char *name_with_aio(const char *file, const char *aio, GError **errp)
{
    g_autoptr(BlockdevOptions) o = bdrv_filename_to_options(file, NULL, errp);
    json_object *obj;
    char *name;

    if (!o) {
        return NULL;
    }
    if (o->driver != BLOCKDEV_DRIVER_FILE && o->driver != BLOCKDEV_DRIVER_HOST_DEVICE) {
        error_setg(errp, "aio=%s needs a file of this host", aio);
        return NULL;
    }
    obj = BlockdevOptions_to_json(o);
    json_object_object_add(obj, "aio", json_object_new_string(aio));
    name = g_strdup_printf("json:%s",
                           json_object_to_json_string_ext(obj, JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(obj);
    return name;
}

static BlockDriverState *coroutine_fn open_by_name(DriveOptions *d, GError **errp)
{
    const DriveMembers *given = d->given;
    g_autofree char *name = NULL, *format = g_strdup(given->format);
    json_object *driver;

    if (json_object_object_get_ex(d->rest, "driver", &driver)) {
        if (format) {
            error_setg(errp, "Cannot specify both 'driver' and 'format'");
            return NULL;
        }
        format = g_strdup(json_object_get_string(driver));
        json_object_object_del(d->rest, "driver");
    }
    name = given->aio ? name_with_aio(given->x_file_name, given->aio, errp)
                      : g_strdup(given->x_file_name);
    return name ? bdrv_co_open_filename_with(name, format, d->rest, d->flags, errp) : NULL;
}

static BlockDriverState *coroutine_fn open_by_options(DriveOptions *d, GError **errp)
{
    g_autoptr(BlockdevOptions) o = NULL;

    default_drivers(d->rest);
    if (d->given->format) {
        json_object_object_add(d->rest, "driver", json_object_new_string(d->given->format));
    }
    o = BlockdevOptions_from_json(d->rest, QAPI_DECODE_KEYVAL | QAPI_DECODE_SUFFIXES, errp);
    return o ? bdrv_co_open(o, d->flags, errp) : NULL;
}

/* snapshot=on: writes go to a temporary overlay that vanishes with the process. */
static BlockDriverState *coroutine_fn add_temporary_overlay(BlockDriverState *bs, GError **errp)
{
    const char *dir = g_getenv("TMPDIR");
    g_autofree char *path = g_strdup_printf("%s/ferry-overlay.XXXXXX", dir ? dir : "/var/tmp");
    BlockDriverState *overlay = NULL;
    int fd = mkstemp(path);

    if (fd < 0) {
        error_setg_errno(errp, errno, "Could not create a temporary file in '%s'",
                         dir ? dir : "/var/tmp");
        return NULL;
    }
    close(fd);
    if (bdrv_co_img_create(path, "qcow2", bs->total_bytes, NULL, NULL, errp)) {
        overlay = bdrv_co_open_filename(path, "qcow2", NULL,
                                        BDRV_O_RDWR | BDRV_O_NO_FLUSH | BDRV_O_UNMAP |
                                            (bs->open_flags & BDRV_O_INACTIVE),
                                        errp);
    }
    unlink(path);
    if (overlay && !bdrv_set_backing_hd(overlay, bs, errp)) {
        bdrv_co_unref(overlay);
        overlay = NULL;
    }
    return overlay;
}

/* copy-on-read=on: a filter above the disk. */
static BlockDriverState *coroutine_fn add_copy_on_read(BlockDriverState *bs, GError **errp)
{
    g_autoptr(BlockdevOptions) o = NULL;
    json_object *json = json_object_new_object();

    json_object_object_add(json, "driver", json_object_new_string("copy-on-read"));
    json_object_object_add(json, "file", json_object_new_string(bs->node_name));
    o = BlockdevOptions_from_json(json, QAPI_DECODE_JSON, errp);
    json_object_put(json);
    return o ? bdrv_co_open(o, BDRV_O_RDWR | (bs->open_flags & BDRV_O_INACTIVE), errp) : NULL;
}

/* Puts what the options ask for above the disk; consumes bs. */
static BlockDriverState *coroutine_fn add_layers(const DriveOptions *d, BlockDriverState *bs,
                                                 GError **errp)
{
    if (d->given->has_snapshot && d->given->snapshot) {
        BlockDriverState *overlay = add_temporary_overlay(bs, errp);

        bdrv_co_unref(bs);
        bs = overlay;
    }
    if (bs && d->copy_on_read) {
        BlockDriverState *filter = add_copy_on_read(bs, errp);

        bdrv_co_unref(bs);
        bs = filter;
    }
    return bs;
}

static bool coroutine_fn make_device(DriveOptions *d, const char *text, BlockDriverState *bs,
                                     GError **errp)
{
    uint64_t perm = BLK_PERM_CONSISTENT_READ;
    BlockBackend *blk;
    g_autofree char *name = NULL;
    Drive drive = {.place = d->place};

    if (bs && !bdrv_is_read_only(bs)) {
        perm |= BLK_PERM_WRITE;
    }
    blk = blk_new(perm, BLK_PERM_ALL);
    name = d->given->id ? g_strdup(d->given->id) : name_of_place(d);
    if (!blk_set_name(blk, name, errp) || (bs && !blk_insert_bs(blk, bs, errp))) {
        blk_unref(blk);
        return false;
    }
    blk_set_enable_write_cache(blk, !d->writethrough);
    blk_set_on_error(blk, d->rerror, d->werror);
    if (!io_limits_co_apply(blk, &d->limits, d->throttle_group, errp)) {
        blk_unref(blk);
        return false;
    }
    blk_get_stats(blk)->account_invalid =
        !d->given->has_stats_account_invalid || d->given->stats_account_invalid;
    blk_get_stats(blk)->account_failed =
        !d->given->has_stats_account_failed || d->given->stats_account_failed;
    if (!drives) {
        drives = g_array_new(FALSE, FALSE, sizeof(Drive));
    }
    drive.blk = blk;
    drive.text = g_strdup(text);
    g_array_append_val(drives, drive);
    return true;
}

static void print_name(const char *name, void *opaque)
{
    (void)opaque;
    printf(" %s", name);
}

/*
 * Options may have both a name and members of the file (file=disk.raw,file.locking=off), and both a
 * mode and members of the cache. No tree can hold both, so name and mode get keys of their own. The
 * caller frees.
 */
static char *rename_keys(const char *text)
{
    GString *out = g_string_new(NULL);

    while (*text) {
        if (g_str_has_prefix(text, "file=")) {
            g_string_append(out, FILE_NAME_KEY);
            text += strlen("file");
        } else if (g_str_has_prefix(text, "cache=")) {
            g_string_append(out, CACHE_MODE_KEY);
            text += strlen("cache");
        }
        while (*text && (text[0] != ',' || text[1] == ',')) {
            size_t len = text[0] == ',' ? 2 : 1; /* a doubled comma belongs to the value */

            g_string_append_len(out, text, len);
            text += len;
        }
        if (*text) {
            g_string_append_c(out, *text++);
        }
    }
    return g_string_free(out, FALSE);
}

bool coroutine_fn drive_co_new(const char *text, GError **errp)
{
    g_autofree char *renamed = rename_keys(text);
    g_auto(DriveOptions) d = {0};
    const DriveMembers *given;
    BlockDriverState *bs = NULL;
    bool ok;

    d.rest = keyval_parse(renamed, NULL, NULL, errp);
    if (!d.rest || !take_options(&d, errp)) {
        return false;
    }
    given = d.given;
    if (given->format && (!strcmp(given->format, "help") || !strcmp(given->format, "?"))) {
        printf("Supported formats:");
        bdrv_iterate_format(print_name, NULL);
        printf("\n");
        exit(0);
    }
    if ((given->x_file_name && !given->x_file_name[0]) ||
        (given->format && !given->x_file_name && json_object_object_length(d.rest) == 0)) {
        error_setg(errp, "A block device must be specified for \"file\"");
        return false;
    }
    if (given->x_file_name || json_object_object_length(d.rest) > 0) {
        bs = given->x_file_name ? open_by_name(&d, errp) : open_by_options(&d, errp);
        if (!bs) {
            return false;
        }
        bs->detect_zeroes = d.detect_zeroes;
    }
    if (bs) {
        bs = add_layers(&d, bs, errp);
        if (!bs) {
            return false;
        }
    }
    ok = make_device(&d, text, bs, errp);
    bdrv_co_unref(bs);
    return ok;
}

bool drive_check_places(GError **errp)
{
    for (guint i = 0; drives && i < drives->len; i++) {
        const Drive *drive = &g_array_index(drives, Drive, i);

        if (drive->place.interface) {
            error_setg(errp, "-drive %s: machine type does not support if=%s,bus=%d,unit=%d",
                       drive->text, interfaces[drive->place.interface].name, drive->place.bus,
                       drive->place.unit);
            return false;
        }
    }
    return true;
}

void coroutine_fn drive_co_close_all(void)
{
    for (guint i = 0; drives && i < drives->len; i++) {
        const Drive *drive = &g_array_index(drives, Drive, i);

        blk_unref(drive->blk);
        g_free(drive->text);
    }
    g_clear_pointer(&drives, g_array_unref);
}
