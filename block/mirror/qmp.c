/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP: drive-mirror and blockdev-mirror. Both ends are checked here, before anything changes; an
 * error says what to do about it.
 */
#include "block/mirror.h"

#include <inttypes.h>
#include <string.h>
#include "block/block_int.h"
#include "block/create.h"
#include "block/job/job.h"
#include "qapi/qapi-commands-block-job.h"
#include "util/error.h"
#include "util/int-math.h"

/* --- what both commands share --- */

static bool check_numbers(bool has_granularity, uint32_t granularity, int64_t buf_size,
                          int64_t speed, GError **errp)
{
    if (has_granularity && granularity != 0) {
        if (granularity < MIRROR_MIN_GRANULARITY || granularity > MIRROR_MAX_GRANULARITY) {
            error_setg(errp, "Parameter 'granularity' expects a value in range [512B, 64MB]");
            return false;
        }
        if (granularity & (granularity - 1)) {
            error_setg(errp, "Parameter 'granularity' expects a power of 2");
            return false;
        }
    }
    if (buf_size < 0) {
        error_setg(errp, "Parameter 'buf-size' expects a non-negative value: 0 or no buf-size is "
                         "the default of 16 MiB");
        return false;
    }
    if (speed < 0) {
        error_setg(errp, "Parameter 'speed' expects a non-negative value: 0 is no limit");
        return false;
    }
    return true;
}

static bool check_source(const char *job_id, BlockDriverState *bs, GError **errp)
{
    if (!block_job_check_id(job_id, bs, errp)) {
        return false;
    }
    if (!bdrv_is_inserted(bs)) {
        error_setg(errp, "Device '%s' has no medium", bdrv_get_device_or_node_name(bs));
        return false;
    }
    return !bdrv_op_is_blocked(bs, BLOCK_OP_TYPE_MIRROR_SOURCE, errp);
}

static bool check_replaces(const MirrorOptions *opts, GError **errp)
{
    BlockDriverState *bs = bdrv_find_node(opts->replaces), *shown;

    if (!bs) {
        error_setg(errp, "Failed to find node with node-name='%s', which 'replaces' names",
                   opts->replaces);
        return false;
    }
    if (bdrv_op_is_blocked(bs, BLOCK_OP_TYPE_REPLACE, errp)) {
        return false;
    }
    if (bdrv_getlength(bs) != bdrv_getlength(opts->source)) {
        error_setg(errp,
                   "Cannot replace node '%s' (%" PRId64 " bytes) by a copy of node '%s' (%" PRId64
                   " bytes): sizes differ",
                   opts->replaces, bdrv_getlength(bs), bdrv_get_node_name(opts->source),
                   bdrv_getlength(opts->source));
        return false;
    }
    /*
     * Only what shows the source's data can give way to a copy of it: the source, or what it
     * filters.
     */
    for (shown = opts->source; shown && shown != bs; shown = bdrv_filter_bs(shown)) {
    }
    if (!shown) {
        error_setg(errp,
                   "Node '%s' cannot give way to a copy of node '%s': it does not show that node's "
                   "data, and its users would suddenly see other contents",
                   opts->replaces, bdrv_get_node_name(opts->source));
        return false;
    }
    return true;
}

/*
 * Both are sized, and equally so, or else the copy would not be one. A disk may end within a
 * sector; many targets cannot.
 */
static bool check_sizes(BlockDriverState *source, BlockDriverState *target, GError **errp)
{
    int64_t from = bdrv_getlength(source), to = bdrv_getlength(target);

    if (from < 0 || to < 0) {
        BlockDriverState *bad = from < 0 ? source : target;

        error_setg_errno(errp, (int)-MIN(from, to), "Could not get the length of node '%s'",
                         bdrv_get_node_name(bad));
        return false;
    }
    if (to < from || to > ROUND_UP(from, BDRV_SECTOR_SIZE)) {
        error_setg(errp,
                   "Source and target image have different sizes: node '%s' has %" PRId64
                   " bytes, target '%s' has "
                   "%" PRId64 "; make the target exactly as large",
                   bdrv_get_node_name(source), from, bdrv_get_node_name(target), to);
        return false;
    }
    return true;
}

static bool check_target(const MirrorOptions *opts, GError **errp)
{
    BlockDriverState *source = opts->source, *target = opts->target;

    if (source == target) {
        error_setg(errp, "Can't mirror node into itself: source and target are both node '%s'",
                   bdrv_get_node_name(source));
        return false;
    }
    if (bdrv_graph_contains(source, target) || bdrv_graph_contains(target, source)) {
        error_setg(errp, "Can't mirror node '%s' into '%s': one is part of the other",
                   bdrv_get_node_name(source), bdrv_get_node_name(target));
        return false;
    }
    if (bdrv_op_is_blocked(target, BLOCK_OP_TYPE_MIRROR_TARGET, errp)) {
        return false;
    }
    if (bdrv_is_read_only(target)) {
        error_setg(errp, "Block node is read-only: target '%s' must be opened with read-only=off",
                   bdrv_get_node_name(target));
        return false;
    }
    return check_sizes(source, target, errp);
}

/* Once before any wait, and again after the last: other monitors change the graph meanwhile. */
static bool check_ends(const MirrorOptions *opts, GError **errp)
{
    return check_source(opts->job_id, opts->source, errp) && check_target(opts, errp) &&
           (!opts->replaces || check_replaces(opts, errp));
}

static bool coroutine_fn check_and_start_held(MirrorOptions *opts, GError **errp)
{
    if (opts->sync == MIRROR_SYNC_MODE_TOP && !bdrv_cow_bs(opts->source)) {
        opts->sync = MIRROR_SYNC_MODE_FULL;
    }
    opts->check = check_ends;
    if (!check_ends(opts, errp)) {
        return false;
    }
    /* The graph of the target follows the source to its thread. */
    if (bdrv_get_aio_context(opts->target) != bdrv_get_aio_context(opts->source) &&
        !bdrv_co_set_aio_context(opts->target, bdrv_get_aio_context(opts->source), errp)) {
        return false;
    }
    return mirror_co_start(opts, errp);
}

/* Starting waits for requests to end, and other monitors may delete nodes meanwhile. */
static bool coroutine_fn check_and_start(MirrorOptions *opts, GError **errp)
{
    BlockDriverState *source = opts->source, *target = opts->target;
    bool ok;

    bdrv_ref(source);
    bdrv_ref(target);
    ok = check_and_start_held(opts, errp);
    bdrv_co_unref(target);
    bdrv_co_unref(source);
    return ok;
}

static int job_flags(bool has_finalize, bool auto_finalize, bool has_dismiss, bool auto_dismiss)
{
    return (has_finalize && !auto_finalize ? JOB_MANUAL_FINALIZE : 0) |
           (has_dismiss && !auto_dismiss ? JOB_MANUAL_DISMISS : 0);
}

/* The members of MirrorOptions that both commands fill in the same way. */
#define COMMON_OPTIONS(arg)                                                                     \
    .job_id = (arg)->job_id, .replaces = (arg)->replaces, .sync = (arg)->sync,                  \
    .copy_mode = (arg)->has_copy_mode ? (arg)->copy_mode : MIRROR_COPY_MODE_BACKGROUND,         \
    .speed = (arg)->has_speed ? (arg)->speed : 0,                                               \
    .granularity = (arg)->has_granularity ? (arg)->granularity : 0,                             \
    .buf_size = (arg)->has_buf_size ? (arg)->buf_size : 0,                                      \
    .on_source_error =                                                                          \
        (arg)->has_on_source_error ? (arg)->on_source_error : BLOCKDEV_ON_ERROR_REPORT,         \
    .on_target_error =                                                                          \
        (arg)->has_on_target_error ? (arg)->on_target_error : BLOCKDEV_ON_ERROR_REPORT,         \
    .converge = (arg)->has_x_converge ? (arg)->x_converge : true,                               \
    .flags = job_flags((arg)->has_auto_finalize, (arg)->auto_finalize, (arg)->has_auto_dismiss, \
                       (arg)->auto_dismiss)

/* --- blockdev-mirror --- */

bool coroutine_fn qmp_blockdev_mirror(const BlockdevMirror *arg, GError **errp)
{
    MirrorOptions opts = {
        COMMON_OPTIONS(arg),
        .filter_node_name = arg->filter_node_name,
        .unmap = true,
        .target_is_zero = arg->has_target_is_zero && arg->target_is_zero,
        .backing_mode = MIRROR_LEAVE_BACKING,
    };

    if (!check_numbers(arg->has_granularity, opts.granularity, opts.buf_size, opts.speed, errp)) {
        return false;
    }
    opts.source = bdrv_lookup_bs(arg->device, arg->device, errp);
    if (!opts.source || !check_source(arg->job_id, opts.source, errp)) {
        return false;
    }
    opts.target = bdrv_lookup_bs(arg->target, arg->target, errp);
    return opts.target && check_and_start(&opts, errp);
}

/* --- drive-mirror --- */

/* The format of the new image: as asked, else the source's; an existing one is probed. */
static const char *target_format(const DriveMirror *arg, BlockDriverState *source, bool existing)
{
    if (arg->format || existing) {
        return arg->format;
    }
    return bdrv_get_format_name(bdrv_skip_filters(source));
}

static bool coroutine_fn create_target(const DriveMirror *arg, const MirrorOptions *opts,
                                       const char *format, GError **errp)
{
    BlockDriverState *backing = NULL;
    int64_t size = bdrv_getlength(opts->source);
    g_autofree char *name = NULL;

    if (size < 0) {
        error_setg_errno(errp, (int)-size, "Could not get the length of node '%s'",
                         bdrv_get_node_name(opts->source));
        return false;
    }
    if (opts->sync == MIRROR_SYNC_MODE_TOP) {
        backing = bdrv_cow_bs(opts->source);
    } else if (opts->sync == MIRROR_SYNC_MODE_NONE) {
        backing = opts->source;
    }
    if (!backing) {
        return bdrv_co_img_create(arg->target, format, size, NULL, NULL, errp);
    }
    backing = bdrv_skip_filters(backing);
    name = bdrv_name_for_overlay(backing, arg->target, errp);
    return name &&
           bdrv_co_img_create(arg->target, format, size, name, bdrv_get_format_name(backing), errp);
}

/* True when the target is the file (or whatever) that the source, or something below it, is. */
static bool names_source(const char *target, BlockDriverState *source)
{
    for (BlockDriverState *bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        if (bdrv_graph_contains(source, bs) && strcmp(bdrv_get_filename(bs), target) == 0) {
            return true;
        }
    }
    return false;
}

static bool check_drive_mirror(const DriveMirror *arg, const MirrorOptions *opts,
                               const char *format, GError **errp)
{
    if (format && !bdrv_find_format(format)) {
        error_setg(errp, "Unknown file format '%s'", format);
        return false;
    }
    if (arg->node_name && bdrv_node_name_in_use(arg->node_name)) {
        error_setg(errp, "Duplicate nodes with node-name='%s': choose another name for the target",
                   arg->node_name);
        return false;
    }
    if (arg->replaces && !arg->node_name) {
        error_setg(errp, "A node-name must be provided when using 'replaces'");
        return false;
    }
    if (names_source(arg->target, opts->source)) {
        error_setg(errp, "Can't mirror node '%s' into itself: '%s' is its own image",
                   bdrv_get_node_name(opts->source), arg->target);
        return false;
    }
    return true;
}

static MirrorBackingMode backing_mode(NewImageMode mode)
{
    return mode == NEW_IMAGE_MODE_EXISTING ? MIRROR_OPEN_BACKING : MIRROR_SOURCE_BACKING;
}

static bool coroutine_fn drive_mirror_co(const DriveMirror *arg, MirrorOptions *opts, GError **errp)
{
    bool existing = arg->has_mode && arg->mode == NEW_IMAGE_MODE_EXISTING;
    const char *format = target_format(arg, opts->source, existing);
    int flags = BDRV_O_RDWR | BDRV_O_NO_BACKING |
                (opts->source->open_flags & (BDRV_O_NOCACHE | BDRV_O_NO_FLUSH)) |
                (opts->unmap ? BDRV_O_UNMAP : 0);
    bool ok;

    if (opts->sync == MIRROR_SYNC_MODE_TOP && !bdrv_cow_bs(opts->source)) {
        opts->sync = MIRROR_SYNC_MODE_FULL;
    }
    if (!check_drive_mirror(arg, opts, format, errp)) {
        return false;
    }
    opts->backing_mode =
        backing_mode(existing ? NEW_IMAGE_MODE_EXISTING : NEW_IMAGE_MODE_ABSOLUTE_PATHS);
    if (!existing && !create_target(arg, opts, format, errp)) {
        return false;
    }
    opts->target = bdrv_co_open_filename(arg->target, format, arg->node_name, flags, errp);
    if (!opts->target) {
        return false;
    }
    opts->target_is_zero = !existing && bdrv_has_zero_init(opts->target);
    ok = check_and_start(opts, errp);
    bdrv_co_unref(opts->target);
    return ok;
}

bool coroutine_fn qmp_drive_mirror(const DriveMirror *arg, GError **errp)
{
    MirrorOptions opts = {
        COMMON_OPTIONS(arg),
        .unmap = arg->has_unmap ? arg->unmap : true,
    };
    bool ok;

    if (!check_numbers(arg->has_granularity, opts.granularity, opts.buf_size, opts.speed, errp)) {
        return false;
    }
    opts.source = bdrv_lookup_bs(arg->device, arg->device, errp);
    if (!opts.source || !check_source(arg->job_id, opts.source, errp)) {
        return false;
    }
    bdrv_ref(opts.source); /* opening and creating the target yields */
    ok = drive_mirror_co(arg, &opts, errp);
    bdrv_co_unref(opts.source);
    return ok;
}
