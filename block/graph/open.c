/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening nodes: from schema options, and from the names that command lines, images and
 * drive-mirror give.
 */
#include "block/graph/graph.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include "block/graph/activate.h"
#include "qapi/json.h"
#include "trace/trace-block.h"
#include "util/error.h"

/* What formats look at to recognise themselves. */
#define PROBE_BYTES 2048

const BlockDriver *bdrv_find_format(const char *format_name)
{
    for (int i = 0; bdrv_drivers[i]; i++) {
        if (!strcmp(bdrv_drivers[i]->format_name, format_name)) {
            return bdrv_drivers[i];
        }
    }
    return NULL;
}

const BlockDriver *bdrv_driver_of(BlockdevDriver driver)
{
    for (int i = 0; bdrv_drivers[i]; i++) {
        if (bdrv_drivers[i]->driver == driver) {
            return bdrv_drivers[i];
        }
    }
    return NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void bdrv_iterate_format(void (*fn)(const char *name, void *opaque), void *opaque)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();

    for (int i = 0; bdrv_drivers[i]; i++) {
        g_ptr_array_add(names, (void *)bdrv_drivers[i]->format_name);
    }
    g_ptr_array_sort(names, compare_names);
    for (guint i = 0; i < names->len; i++) {
        fn(g_ptr_array_index(names, i), opaque);
    }
}

/* --- limits --- */

static void merge_limits(BlockLimits *to, const BlockLimits *from)
{
    if (from->max_transfer && (!to->max_transfer || from->max_transfer < to->max_transfer)) {
        to->max_transfer = from->max_transfer;
    }
    if (from->max_iov && (!to->max_iov || from->max_iov < to->max_iov)) {
        to->max_iov = from->max_iov;
    }
    to->opt_transfer = MAX(to->opt_transfer, from->opt_transfer);
    to->min_mem_alignment = MAX(to->min_mem_alignment, from->min_mem_alignment);
}

void bdrv_refresh_limits(BlockDriverState *bs)
{
    BdrvChild *child;

    bs->bl = (BlockLimits){.request_alignment = 1, .min_mem_alignment = 1};
    if (!bs->drv) {
        return;
    }
    LIST_FOREACH(child, &bs->children, next) {
        if (child->bs && (child->role & (BDRV_CHILD_DATA | BDRV_CHILD_FILTERED | BDRV_CHILD_COW))) {
            merge_limits(&bs->bl, &child->bs->bl);
        }
    }
    if (bs->drv->is_filter && bs->file) {
        const BlockLimits *below = &bs->file->bs->bl;

        bs->bl.pwrite_zeroes_alignment = below->pwrite_zeroes_alignment;
        bs->bl.max_pwrite_zeroes = below->max_pwrite_zeroes;
        bs->bl.pdiscard_alignment = below->pdiscard_alignment;
        bs->bl.max_pdiscard = below->max_pdiscard;
    }
    if (bs->drv->bdrv_refresh_limits) {
        bs->drv->bdrv_refresh_limits(bs);
    }
}

bool bdrv_apply_auto_read_only(BlockDriverState *bs, const char *errmsg, GError **errp)
{
    if (!(bs->open_flags & BDRV_O_RDWR)) {
        return true;
    }
    if (!(bs->open_flags & BDRV_O_AUTO_RDONLY)) {
        error_setg(errp, "%s", errmsg ? errmsg : "Image is read-only");
        return false;
    }
    bs->open_flags &= ~BDRV_O_RDWR;
    return true;
}

/* --- from options --- */

/* Turns the generic members of the options into flags, on top of what the opener or parent set. */
static bool apply_generic_options(BlockDriverState *bs, const BlockdevOptions *o, int flags,
                                  GError **errp)
{
    if (o->has_read_only) {
        flags = o->read_only ? flags & ~BDRV_O_RDWR : flags | BDRV_O_RDWR;
    }
    if (o->has_auto_read_only) {
        flags = o->auto_read_only ? flags | BDRV_O_AUTO_RDONLY : flags & ~BDRV_O_AUTO_RDONLY;
    }
    if (o->has_discard) {
        flags = o->discard == BLOCKDEV_DISCARD_OPTIONS_UNMAP ? flags | BDRV_O_UNMAP
                                                             : flags & ~BDRV_O_UNMAP;
    }
    if (o->cache && o->cache->has_direct) {
        flags = o->cache->direct ? flags | BDRV_O_NOCACHE : flags & ~BDRV_O_NOCACHE;
    }
    if (o->cache && o->cache->has_no_flush) {
        flags = o->cache->no_flush ? flags | BDRV_O_NO_FLUSH : flags & ~BDRV_O_NO_FLUSH;
    }
    if (o->has_active) {
        flags = o->active ? flags & ~BDRV_O_INACTIVE : flags | BDRV_O_INACTIVE;
    }
    if (o->has_force_share) {
        bs->force_share = o->force_share;
    }
    if (bs->force_share && (flags & BDRV_O_RDWR)) {
        error_setg(errp, "force-share=on can only be used with read-only images");
        return false;
    }
    if (o->has_detect_zeroes) {
        bs->detect_zeroes = o->detect_zeroes;
        if (bs->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP && !(flags & BDRV_O_UNMAP)) {
            error_setg(errp,
                       "setting detect-zeroes to unmap is not allowed without setting discard "
                       "operation to unmap");
            return false;
        }
    }
    bs->open_flags = flags;
    return true;
}

/* Flags that a child opened inline gets from its parent. */
static int inherited_flags(BlockDriverState *parent, int role)
{
    int flags = parent->open_flags & ~(BDRV_O_TEMPORARY | BDRV_O_NO_BACKING);

    if (role & BDRV_CHILD_COW) {
        return flags & ~(BDRV_O_RDWR | BDRV_O_NO_FLUSH | BDRV_O_UNMAP);
    }
    /*
     * A parent passes down only what its own options let through, so what lies below may do
     * everything.
     */
    return (flags & ~BDRV_O_NO_FLUSH) | BDRV_O_UNMAP;
}

/*
 * A node that is being opened goes where its first child is: the driver has nothing there yet that
 * would have to move along. Further children follow it.
 */
static bool coroutine_fn meet_child(BlockDriverState *parent, BlockDriverState *child_bs,
                                    GError **errp)
{
    if (!parent->is_open && LIST_EMPTY(&parent->children)) {
        bdrv_adopt_context(parent, child_bs->aio_context);
        return true;
    }
    return bdrv_co_set_aio_context(child_bs, parent->aio_context, errp);
}

/* In the main thread. */
static BdrvChild *coroutine_fn open_child(BlockDriverState *parent, const BlockdevRef *ref,
                                          const char *name, int role, GError **errp)
{
    BlockDriverState *bs;

    if (!ref) {
        error_setg(errp, "A block device must be specified for \"%s\"", name);
        return NULL;
    }
    if (ref->type == json_type_string) {
        bs = bdrv_find_node(ref->u.reference);
        if (!bs) {
            /* Clients know the first half; a file in the place of a node is the usual mistake. */
            error_setg(errp,
                       "Cannot find device='' nor node-name='%s': '%s' takes the name of a node; a "
                       "file of "
                       "this host is %s.filename=%s",
                       ref->u.reference, name, name, ref->u.reference);
            return NULL;
        }
        bdrv_ref(bs);
    } else {
        bs = bdrv_co_open_inherit(&ref->u.definition, inherited_flags(parent, role),
                                  parent->force_share, errp);
        if (!bs) {
            return NULL;
        }
    }
    if (!meet_child(parent, bs, errp)) {
        bdrv_co_unref(bs);
        return NULL;
    }
    return bdrv_attach_child(parent, bs, name, role, errp);
}

BdrvChild *coroutine_fn bdrv_co_open_child(BlockDriverState *parent, const BlockdevRef *ref,
                                           const char *name, int role, GError **errp)
{
    BdrvChild *child;

    aio_co_reschedule_self(qemu_get_aio_context());
    child = open_child(parent, ref, name, role, errp);
    aio_co_reschedule_self(parent->aio_context);
    return child;
}

/* A node that is there already and becomes the backing file: bs goes where that one is. */
static BdrvChild *coroutine_fn refer_to_backing(BlockDriverState *bs, const char *node_name,
                                                GError **errp)
{
    BlockDriverState *backing = bdrv_lookup_bs(NULL, node_name, errp);

    if (!backing) {
        return NULL;
    }
    bdrv_ref(backing);
    if (!bdrv_co_join_contexts(backing, bs, errp)) {
        bdrv_co_unref(backing);
        return NULL;
    }
    return bdrv_attach_child(bs, backing, "backing", BDRV_CHILD_COW, errp);
}

/* The backing file: as the options say, else as the image says. */
static bool coroutine_fn open_backing(BlockDriverState *bs, const BlockdevRefOrNull *ref,
                                      GError **errp)
{
    BlockDriverState *backing;
    g_autofree char *path = NULL;

    if (!bdrv_driver_has_backing(bs->drv) || (ref && ref->type == json_type_null)) {
        return true;
    }
    if (ref) {
        BlockdevRef child = {.type = ref->type, .u.definition = ref->u.definition};

        if (ref->type == json_type_string) {
            return refer_to_backing(bs, ref->u.reference, errp) != NULL;
        }
        return open_child(bs, &child, "backing", BDRV_CHILD_COW, errp) != NULL;
    }
    if ((bs->open_flags & BDRV_O_NO_BACKING) || !bs->backing_file || !bs->backing_file[0]) {
        return true;
    }
    path = bdrv_backing_path(bs, errp);
    if (!path) {
        return false;
    }
    backing = bdrv_co_open_filename(
        path, bs->backing_format && bs->backing_format[0] ? bs->backing_format : NULL, NULL,
        inherited_flags(bs, BDRV_CHILD_COW), errp);
    if (!backing) {
        g_prefix_error(errp, "Could not open backing file: ");
        return false;
    }
    if (!meet_child(bs, backing, errp)) {
        bdrv_co_unref(backing);
        return false;
    }
    return bdrv_attach_child(bs, backing, "backing", BDRV_CHILD_COW, errp) != NULL;
}

char *bdrv_backing_path(BlockDriverState *bs, GError **errp)
{
    const char *name = bs->backing_file;
    g_autofree char *dir = NULL;

    if (g_path_is_absolute(name) || strstr(name, ":")) {
        return g_strdup(name);
    }
    if (!bs->exact_filename || !bs->exact_filename[0] || strstr(bs->exact_filename, ":")) {
        error_setg(errp,
                   "Cannot tell where the relative backing file name '%s' of node '%s' starts",
                   name, bs->node_name);
        return NULL;
    }
    dir = g_path_get_dirname(bs->exact_filename);
    return g_build_filename(dir, name, NULL);
}

/* The generated union keeps each format's backing member under its own branch. */
static const BlockdevRefOrNull *backing_option(const BlockdevOptions *o)
{
    return o->driver == BLOCKDEV_DRIVER_QCOW2 ? o->u.qcow2.backing : NULL;
}

/* Undoes a failed open: children first lose their edge, then the node goes. */
static void coroutine_fn open_failed(BlockDriverState *bs, bool driver_open)
{
    if (!driver_open) {
        bs->drv = NULL;
    }
    bdrv_co_unref(bs);
}

static bool check_may_open(const BlockDriverState *bs, GError **errp)
{
    if (block_graph()->no_opening) {
        error_setg(errp, "Node '%s' is not opened any more: the process is ending", bs->node_name);
        return false;
    }
    return true;
}

static BlockDriverState *coroutine_fn open_node(const BlockdevOptions *options, int flags,
                                                bool force_share, GError **errp)
{
    const BlockDriver *drv = bdrv_driver_of(options->driver);
    BlockDriverState *bs;
    AioContext *from;
    int64_t len;
    bool ok;

    if (!drv) {
        error_setg(errp, "Unknown driver '%s'", BlockdevDriver_str(options->driver));
        return NULL;
    }
    bs = bdrv_new();
    bs->force_share = force_share;
    if (!bdrv_assign_node_name(bs, options->node_name, errp) ||
        !apply_generic_options(bs, options, flags, errp) || !check_may_open(bs, errp)) {
        open_failed(bs, false);
        return NULL;
    }
    bs->options = QAPI_CLONE(BlockdevOptions, options);
    bs->drv = drv;
    bs->opaque = g_malloc0(MAX(drv->instance_size, 1));
    ok = drv->bdrv_co_open(bs, options, bs->open_flags, errp);
    aio_co_reschedule_self(qemu_get_aio_context());
    if (!ok) {
        open_failed(bs, false);
        return NULL;
    }
    bdrv_refresh_limits(bs);
    from = bdrv_co_enter_graph(bs);
    len = bdrv_co_getlength(bs);
    bdrv_co_leave_graph(bs, from);
    if (len < 0) {
        error_setg_errno(errp, -len, "Could not get the size of node '%s'", bs->node_name);
        open_failed(bs, true);
        return NULL;
    }
    bdrv_refresh_filename(bs);
    if (!open_backing(bs, backing_option(options), errp) || !bdrv_refresh_perms(bs, errp) ||
        !check_may_open(bs, errp)) {
        open_failed(bs, true);
        return NULL;
    }
    bdrv_refresh_limits(bs);
    bs->is_open = true;
    trace_bdrv_open(bs->node_name, drv->format_name, bs->open_flags);
    return bs;
}

BlockDriverState *coroutine_fn bdrv_co_open_inherit(const BlockdevOptions *options, int flags,
                                                    bool force_share, GError **errp)
{
    BlockDriverState *bs;

    block_graph()->opening++;
    bs = open_node(options, flags, force_share, errp);
    block_graph()->opening--;
    return bs;
}

BlockDriverState *coroutine_fn bdrv_co_open(const BlockdevOptions *options, int flags,
                                            GError **errp)
{
    return bdrv_co_open_inherit(options, flags, false, errp);
}

/* --- from names --- */

const BlockDriver *bdrv_find_protocol(const char *filename)
{
    for (int i = 0; bdrv_drivers[i]; i++) {
        const char *const *prefix = BDRV_OP(bdrv_drivers[i], protocol, filename_prefixes);

        for (; prefix && *prefix; prefix++) {
            if (g_str_has_prefix(filename, *prefix)) {
                return bdrv_drivers[i];
            }
        }
    }
    return NULL;
}

/* A name that a protocol driver understands, as JSON options. */
static json_object *parse_by_driver(const BlockDriver *drv, const char *filename, GError **errp)
{
    g_autoptr(BlockdevOptions) o = g_new0(BlockdevOptions, 1);

    o->driver = drv->driver;
    return drv->protocol->bdrv_parse_filename(filename, o, errp) ? BlockdevOptions_to_json(o)
                                                                 : NULL;
}

/* The protocol part of a name as JSON options, or NULL. */
static json_object *protocol_options(const char *filename, GError **errp)
{
    const BlockDriver *drv = bdrv_find_protocol(filename);
    json_object *obj;
    struct stat st;
    const char *driver = "file";

    if (drv) {
        return parse_by_driver(drv, filename, errp);
    }
    if (g_str_has_prefix(filename, "file:")) {
        filename += strlen("file:");
    } else {
        const char *colon = strchr(filename, ':');
        const char *slash = strchr(filename, '/');

        if (colon && (!slash || colon < slash)) {
            g_autofree char *scheme = g_strndup(filename, colon - filename);

            error_setg(errp, "Unknown protocol '%s'", scheme);
            return NULL;
        }
    }
    if (stat(filename, &st) == 0 && (S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode))) {
        driver = "host_device";
    }
    obj = json_object_new_object();
    json_object_object_add(obj, "driver", json_object_new_string(driver));
    json_object_object_add(obj, "filename", json_object_new_string(filename));
    return obj;
}

/* The "json:" form, or the protocol's options, with the driver of the upper node known or not. */
static json_object *name_to_json(const char *filename, GError **errp)
{
    json_object *obj;

    if (!g_str_has_prefix(filename, "json:")) {
        return protocol_options(filename, errp);
    }
    if (!json_parse_text(filename + strlen("json:"), strlen(filename + strlen("json:")), &obj,
                         errp)) {
        g_prefix_error(errp, "Could not parse the JSON options: ");
        return NULL;
    }
    if (!json_object_is_type(obj, json_type_object)) {
        error_setg(errp, "Invalid JSON object given");
        json_object_put(obj);
        return NULL;
    }
    return obj;
}

/*
 * Wraps protocol options into those of a format, unless obj (a json: name) names that format
 * itself.
 */
static json_object *wrap_in_format(json_object *obj, const char *format)
{
    json_object *driver, *outer;

    if (json_object_object_get_ex(obj, "driver", &driver)) {
        const BlockDriver *drv = bdrv_find_format(json_object_get_string(driver));

        if ((drv && !drv->protocol) || !strcmp(json_object_get_string(driver), format)) {
            return obj;
        }
    } else if (json_object_object_get_ex(obj, "file", NULL)) {
        json_object_object_add(obj, "driver", json_object_new_string(format));
        return obj;
    }
    outer = json_object_new_object();
    json_object_object_add(outer, "driver", json_object_new_string(format));
    json_object_object_add(outer, "file", obj);
    return outer;
}

/* Names may have numbers as text, with suffixes. */
static BlockdevOptions *decode_name(json_object *obj, GError **errp)
{
    return BlockdevOptions_from_json(obj, QAPI_DECODE_KEYVAL | QAPI_DECODE_SUFFIXES, errp);
}

/* What the name says, within a format's options if `format` is one. */
static json_object *name_in_format(const char *filename, const char *format, GError **errp)
{
    json_object *obj = name_to_json(filename, errp);
    const BlockDriver *drv = format ? bdrv_find_format(format) : NULL;

    if (obj && format && !drv) {
        error_setg(errp, "Unknown driver '%s'", format);
        json_object_put(obj);
        return NULL;
    }
    return obj && drv && !drv->protocol ? wrap_in_format(obj, format) : obj;
}

BlockdevOptions *bdrv_filename_to_options(const char *filename, const char *format, GError **errp)
{
    json_object *obj = name_in_format(filename, format, errp);
    BlockdevOptions *options = obj ? decode_name(obj, errp) : NULL;

    json_object_put(obj);
    return options;
}

/* Adds the members of `from` to those of `to`; the container "file" is not one of them. */
static void add_members(json_object *to, json_object *from)
{
    json_object_object_foreach(from, key, value)
    {
        if (strcmp(key, "file") || !json_object_is_type(value, json_type_object)) {
            json_object_object_add(to, key, json_object_get(value));
        }
    }
}

static bool names_format(json_object *members)
{
    json_object *driver;
    const BlockDriver *drv = NULL;

    if (json_object_object_get_ex(members, "driver", &driver)) {
        drv = bdrv_find_format(json_object_get_string(driver));
    }
    return drv && !drv->protocol;
}

/*
 * Adds members of the container "file" of `extra` to the options of the protocol. Where they name a format, that
 * is a layer of its own above the protocol: the name of the image is always the innermost file's. Takes the
 * reference to `protocol`, returns one to the upper layer.
 */
static json_object *add_file_members(json_object *protocol, json_object *extra)
{
    json_object *members, *layer;

    if (!json_object_object_get_ex(extra, "file", &members) ||
        !json_object_is_type(members, json_type_object)) {
        return protocol;
    }
    if (!names_format(members)) {
        add_members(protocol, members);
        return protocol;
    }
    layer = json_object_new_object();
    add_members(layer, members);
    json_object_object_add(layer, "file", add_file_members(protocol, members));
    return layer;
}

static char *probe_get_desc(BdrvChild *child)
{
    (void)child;
    return g_strdup("the search for its format");
}

static const BdrvChildClass child_of_probe = {.get_parent_desc = probe_get_desc};

static const BlockDriver *coroutine_fn probe(BlockDriverState *file, GError **errp)
{
    const BlockDriver *best = bdrv_driver_of(BLOCKDEV_DRIVER_RAW);
    g_autofree uint8_t *buf = g_malloc0(PROBE_BYTES);
    int64_t len = MIN(file->total_bytes, PROBE_BYTES);
    int best_score = 0, ret = 0;
    BdrvChild *edge;

    bdrv_ref(file);
    edge = bdrv_root_attach_child(file, "probe", &child_of_probe, 0,
                                  bdrv_is_inactive(file) ? 0 : BLK_PERM_CONSISTENT_READ,
                                  BLK_PERM_ALL, NULL, errp);
    if (!edge) {
        return NULL;
    }
    if (len > 0) {
        ret = bdrv_co_pread(edge, 0, len, buf, 0); /* it may be inactive */
    }
    bdrv_root_unref_child(edge);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read image for determining its format");
        return NULL;
    }
    for (int i = 0; bdrv_drivers[i]; i++) {
        const BlockDriver *drv = bdrv_drivers[i];
        int score = BDRV_OP(drv, format, bdrv_probe)
                        ? drv->format->bdrv_probe(buf, len, file->filename)
                        : 0;

        if (score > best_score) {
            best = drv;
            best_score = score;
        }
    }
    return best;
}

/* Opens the protocol, looks at the first bytes, and opens the format over it. */
static BlockDriverState *coroutine_fn open_probing(json_object *obj, json_object *extra, int flags,
                                                   GError **errp)
{
    g_autoptr(BlockdevOptions) protocol = NULL;
    BlockDriverState *file, *bs = NULL;
    const BlockDriver *drv;

    add_file_members(obj, extra);
    protocol = decode_name(obj, errp);
    if (!protocol) {
        return NULL;
    }
    file = bdrv_co_open_inherit(protocol, flags | BDRV_O_UNMAP | BDRV_O_AUTO_RDONLY, false, errp);
    if (!file) {
        return NULL;
    }
    drv = probe(file, errp);
    if (drv) {
        json_object *outer = json_object_new_object();
        g_autoptr(BlockdevOptions) options = NULL;

        add_members(outer, extra);
        json_object_object_add(outer, "driver", json_object_new_string(drv->format_name));
        json_object_object_add(outer, "file", json_object_new_string(file->node_name));
        options = decode_name(outer, errp);
        json_object_put(outer);
        bs = options ? bdrv_co_open_inherit(options, flags, false, errp) : NULL;
    }
    if (bs && bs->options->driver == BLOCKDEV_DRIVER_RAW) {
        bs->probed_raw = true;
        bdrv_refresh_limits(bs); /* smaller writes are widened to what the check looks at */
        warn_report("The format of '%s' was not given and was guessed as raw. A write that would "
                    "make its first sector look like another format is refused; format=raw lifts "
                    "that.",
                    bdrv_get_filename(file));
    }
    bdrv_co_unref(file);
    return bs;
}

/* Whether the options name only a protocol, so that the format must be guessed. */
static bool is_protocol_only(json_object *obj)
{
    const BlockDriver *drv = NULL;
    json_object *driver;

    if (json_object_object_get_ex(obj, "driver", &driver)) {
        drv = bdrv_find_format(json_object_get_string(driver));
    }
    return drv && drv->protocol;
}

BlockDriverState *coroutine_fn bdrv_co_open_filename_with(const char *filename, const char *format,
                                                          json_object *extra, int flags,
                                                          GError **errp)
{
    json_object *obj = name_in_format(filename, format, errp), *file;
    g_autoptr(BlockdevOptions) options = NULL;
    BlockDriverState *bs = NULL;

    if (!obj) {
        return NULL;
    }
    if (!format && is_protocol_only(obj)) {
        bs = open_probing(obj, extra, flags, errp);
        json_object_put(obj);
        return bs;
    }
    add_members(obj, extra);
    if (json_object_object_get_ex(obj, "file", &file) &&
        json_object_is_type(file, json_type_object)) {
        json_object_object_add(obj, "file", add_file_members(json_object_get(file), extra));
    } else if (json_object_object_get_ex(extra, "file", NULL)) {
        error_setg(errp, "Options of 'file' were given, but '%s' has no such file", filename);
        json_object_put(obj);
        return NULL;
    }
    options = decode_name(obj, errp);
    json_object_put(obj);
    return options ? bdrv_co_open_inherit(options, flags, false, errp) : NULL;
}

BlockDriverState *coroutine_fn bdrv_co_open_filename(const char *filename, const char *format,
                                                     const char *node_name, int flags,
                                                     GError **errp)
{
    json_object *extra = json_object_new_object();
    BlockDriverState *bs;

    if (node_name) {
        json_object_object_add(extra, "node-name", json_object_new_string(node_name));
    }
    bs = bdrv_co_open_filename_with(filename, format, extra, flags, errp);
    json_object_put(extra);
    return bs;
}
