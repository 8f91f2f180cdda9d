/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of the qcow2 driver, and its small members. */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/free.h"
#include "block/qcow2/data.h"
#include "block/qcow2/snapshot.h"
#include "block/qcow2/check.h"
#include "block/qcow2/size.h"
#include "block/qcow2/image.h"

#include <errno.h>
#include "block/qcow2/bitmap.h"
#include "block/qcow2/options.h"
#include "util/error.h"

static int qcow2_recognise(const uint8_t *buf, size_t bytes, const char *filename)
{
    if (bytes < QCOW2_V2_HEADER_BYTES || ldul_be_p(buf) != QCOW2_MAGIC) {
        return 0;
    }
    return ldul_be_p(buf + QCOW2_OFS_VERSION) >= 2 ? 100 : 0;
}

static int64_t coroutine_fn qcow2_co_disk_bytes(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    return s->header.size;
}

static int coroutine_fn qcow2_co_empty_caches(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    if (s->fatal) {
        return -EIO;
    }
    return qcow2_co_flush_metadata(bs);
}

static void qcow2_say_limits(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    bs->bl.pwrite_zeroes_alignment = s->subcluster_size;
    bs->bl.pdiscard_alignment = s->cluster_size;
}

static bool qcow2_starts_as_zeroes(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    /* A preallocated image shows what its data file holds. */
    return s->l2_clusters && g_hash_table_size(s->l2_clusters) == 0
               ? true
               : bdrv_has_zero_init(s->data_file->bs);
}

static bool coroutine_fn qcow2_co_try_reopen(BDRVReopenState *state, GError **errp)
{
    BlockDriverState *bs = state->bs;
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (!qcow2_options_check(bs, &state->options->u.qcow2, errp)) {
        return false;
    }
    if ((state->flags & BDRV_O_RDWR) && s->corrupt) {
        error_setg(errp, "qcow2: Image is corrupt; cannot be opened read/write");
        return false;
    }
    if ((state->flags & BDRV_O_RDWR) && s->bitmaps_broken) {
        error_setg(errp, "Node '%s' cannot be written: the bitmaps of its image are broken",
                   bs->node_name);
        return false;
    }
    if ((bs->open_flags & BDRV_O_RDWR) && !(bs->open_flags & BDRV_O_INACTIVE)) {
        ret = qcow2_co_sync(bs);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not write the metadata of node '%s'",
                             bs->node_name);
            return false;
        }
    }
    return true;
}

static void coroutine_fn qcow2_co_settle_reopen(BDRVReopenState *state)
{
    BlockDriverState *bs = state->bs;
    g_autoptr(GError) err = NULL;

    qcow2_clean_timer_stop(bs);
    if (!qcow2_options_apply(bs, &state->options->u.qcow2, &err)) {
        error_report("%s", err->message); /* was checked in prepare */
        g_clear_error(&err);
    }
    qcow2_clean_timer_start(bs);
    /* The file below is writable from the commit on and no earlier. */
    if ((state->flags & BDRV_O_RDWR) && !(state->flags & BDRV_O_INACTIVE) &&
        !qcow2_co_repair_dirty(bs, &err)) {
        error_report("Node '%s' takes no writes: %s", bs->node_name, err->message);
    }
}

static void qcow2_leave_context(BlockDriverState *bs)
{
    qcow2_clean_timer_stop(bs);
}

static void qcow2_enter_context(BlockDriverState *bs, AioContext *ctx)
{
    qcow2_clean_timer_start(bs);
}

static void qcow2_say_filename(BlockDriverState *bs)
{
    g_free(bs->exact_filename);
    bs->exact_filename = g_strdup(bs->file->bs->exact_filename);
}

static const BlockFormatOps qcow2_format = {
    .supports_backing = true,
    .bdrv_probe = qcow2_recognise,
    .bdrv_co_pwritev_compressed = qcow2_co_write_compressed,
    .bdrv_co_flush_to_os = qcow2_co_empty_caches,
    .bdrv_co_can_store_new_dirty_bitmap = qcow2_co_can_store_new_bitmap,
    .bdrv_co_remove_persistent_dirty_bitmap = qcow2_co_remove_stored_bitmap,
    .bdrv_co_change_backing_file = qcow2_co_refer_to_backing,
    .bdrv_snapshot_list = qcow2_snapshot_list,
};

const BlockDriver bdrv_qcow2 = {
    .format_name = "qcow2",
    .driver = BLOCKDEV_DRIVER_QCOW2,
    .instance_size = sizeof(BDRVQcow2State),
    .format = &qcow2_format,
    .bdrv_co_open = qcow2_co_open,
    .bdrv_co_close = qcow2_co_close,
    .bdrv_co_reopen_prepare = qcow2_co_try_reopen,
    .bdrv_co_reopen_commit = qcow2_co_settle_reopen,
    .bdrv_co_preadv = qcow2_co_read,
    .bdrv_co_pwritev = qcow2_co_write,
    .bdrv_co_pwrite_zeroes = qcow2_co_zero,
    .bdrv_co_pdiscard = qcow2_co_discard,
    .bdrv_co_copy_range_from = qcow2_co_copy_out,
    .bdrv_co_copy_range_to = qcow2_co_copy_in,
    .bdrv_co_block_status = qcow2_co_status,
    .bdrv_co_getlength = qcow2_co_disk_bytes,
    .bdrv_co_truncate = qcow2_co_resize,
    .bdrv_refresh_limits = qcow2_say_limits,
    .bdrv_has_zero_init = qcow2_starts_as_zeroes,
    .bdrv_co_create = qcow2_co_format,
    .bdrv_detach_aio_context = qcow2_leave_context,
    .bdrv_attach_aio_context = qcow2_enter_context,
    .bdrv_co_inactivate = qcow2_co_hand_over,
    .bdrv_co_invalidate_cache = qcow2_co_take_over,
    .bdrv_co_get_specific_info = qcow2_co_describe,
    .bdrv_co_get_info = qcow2_co_say_geometry,
    .bdrv_refresh_filename = qcow2_say_filename,
};
