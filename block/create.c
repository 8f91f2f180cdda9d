/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Creating images by name, as qemu-img create would: what drive-mirror and snapshots do for their
 * targets.
 */
#include "block/create.h"

#include <string.h>
#include <sys/stat.h>
#include "block/graph/graph.h"
#include "util/error.h"

/* A plain path, with "file:" taken off; NULL for names of other protocols. */
static const char *plain_path(const char *filename)
{
    if (g_str_has_prefix(filename, "file:")) {
        return filename + strlen("file:");
    }
    if (g_str_has_prefix(filename, "json:") || bdrv_find_protocol(filename)) {
        return NULL;
    }
    return filename;
}

static bool coroutine_fn create_with(json_object *obj, GError **errp)
{
    g_autoptr(BlockdevCreateOptions) opts =
        BlockdevCreateOptions_from_json(obj, QAPI_DECODE_JSON, errp);
    const BlockDriver *drv;

    json_object_put(obj);
    if (!opts) {
        return false;
    }
    drv = bdrv_driver_of(opts->driver);
    if (!drv || !drv->bdrv_co_create) {
        error_setg(errp, "Driver does not support blockdev-create");
        return false;
    }
    return drv->bdrv_co_create(opts, errp);
}

static bool coroutine_fn create_file(const char *path, int64_t size, GError **errp)
{
    json_object *obj;
    struct stat st;

    if (stat(path, &st) == 0 && S_ISBLK(st.st_mode)) {
        return true; /* devices exist; whether they are large enough shows when they are opened */
    }
    obj = json_object_new_object();
    json_object_object_add(obj, "driver", json_object_new_string("file"));
    json_object_object_add(obj, "filename", json_object_new_string(path));
    json_object_object_add(obj, "size", json_object_new_int64(size));
    return create_with(obj, errp);
}

/* A file of this host, whatever formats and filters stand above it. */
static bool is_host_file(const BlockDriverState *bs)
{
    while (bs->file) {
        bs = bs->file->bs;
    }
    return bs->drv->driver == BLOCKDEV_DRIVER_FILE ||
           bs->drv->driver == BLOCKDEV_DRIVER_HOST_DEVICE;
}

static bool same_file(const char *a, const char *b)
{
    struct stat a_st, b_st;

    return stat(a, &a_st) == 0 && stat(b, &b_st) == 0 && a_st.st_dev == b_st.st_dev &&
           a_st.st_ino == b_st.st_ino;
}

char *bdrv_name_for_overlay(BlockDriverState *bs, const char *overlay, GError **errp)
{
    const char *name = bdrv_get_filename(bs), *path = plain_path(overlay);
    g_autofree char *dir = NULL, *from_overlay = NULL, *absolute = NULL;

    if (!is_host_file(bs) || g_path_is_absolute(name) || g_str_has_prefix(name, "json:")) {
        return g_strdup(name);
    }
    if (path && !strchr(name, ':')) {
        dir = g_path_get_dirname(path);
        from_overlay = g_build_filename(dir, name, NULL);
        if (same_file(from_overlay, name)) {
            return g_strdup(name);
        }
    }
    g_clear_pointer(&dir, g_free);
    dir = g_get_current_dir();
    absolute = g_build_filename(dir, name, NULL);
    if (!same_file(absolute, name)) {
        error_setg(errp,
                   "Cannot record '%s', the image of node '%s', in '%s': it is not found at '%s'; "
                   "create the overlay yourself and use mode=existing",
                   name, bdrv_get_node_name(bs), overlay, absolute);
        return NULL;
    }
    return g_steal_pointer(&absolute);
}

/* The size of the image that will be the backing file. */
static int64_t coroutine_fn backing_size(const char *backing_filename, const char *backing_format,
                                         GError **errp)
{
    BlockDriverState *bs =
        bdrv_co_open_filename(backing_filename, backing_format, NULL, BDRV_O_NO_BACKING, errp);
    int64_t size;

    if (!bs) {
        return -1;
    }
    size = bs->total_bytes;
    bdrv_co_unref(bs);
    return size;
}

bool coroutine_fn bdrv_co_img_create(const char *filename, const char *format, int64_t size,
                                     const char *backing_filename, const char *backing_format,
                                     GError **errp)
{
    const BlockDriver *drv = bdrv_find_format(format);
    const char *path = plain_path(filename);
    g_autoptr(BlockdevOptions) file_options = NULL;
    BlockDriverState *file;
    json_object *obj;
    bool ok;

    if (!drv) {
        error_setg(errp, "Unknown file format '%s'", format);
        return false;
    }
    if (backing_filename && !bdrv_driver_has_backing(drv)) {
        error_setg(errp, "Backing file not supported for file format '%s'", format);
        return false;
    }
    if (size < 0) {
        size = backing_size(backing_filename, backing_format, errp);
        if (size < 0) {
            return false;
        }
    }
    if (path && !create_file(path, drv->bdrv_co_create && !drv->protocol ? 0 : size, errp)) {
        return false;
    }
    if (!drv->bdrv_co_create || drv->protocol) {
        return true;
    }
    file_options = bdrv_filename_to_options(filename, NULL, errp);
    if (!file_options) {
        return false;
    }
    file = bdrv_co_open(file_options, BDRV_O_RDWR | BDRV_O_UNMAP, errp);
    if (!file) {
        return false;
    }
    obj = json_object_new_object();
    json_object_object_add(obj, "driver", json_object_new_string(format));
    json_object_object_add(obj, "file", json_object_new_string(file->node_name));
    json_object_object_add(obj, "size", json_object_new_int64(size));
    if (backing_filename) {
        json_object_object_add(obj, "backing-file", json_object_new_string(backing_filename));
        if (backing_format) {
            json_object_object_add(obj, "backing-fmt", json_object_new_string(backing_format));
        }
    }
    ok = create_with(obj, errp);
    bdrv_co_unref(file);
    return ok;
}
