/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a qcow2 node tells about itself, and the backing file name it records. */
#include "block/qcow2/bitmap.h"
#include "block/qcow2/image.h"

#include <errno.h>

ImageInfoSpecific *coroutine_fn qcow2_co_describe(BlockDriverState *bs, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    ImageInfoSpecific *info = g_new0(ImageInfoSpecific, 1);
    ImageInfoSpecificQCow2 *q = g_new0(ImageInfoSpecificQCow2, 1);

    info->type = IMAGE_INFO_SPECIFIC_KIND_QCOW2;
    info->u.qcow2.data = q;
    q->compat = g_strdup(s->header.version < 3 ? "0.10" : "1.1");
    q->refcount_bits = s->refcount_bits;
    q->compression_type = s->header.compression_type == QCOW2_COMPRESSION_ZSTD
                              ? QCOW2_COMPRESSION_TYPE_ZSTD
                              : QCOW2_COMPRESSION_TYPE_ZLIB;
    if (s->header.version >= 3) {
        q->has_lazy_refcounts = true;
        q->lazy_refcounts = s->header.compatible_features & QCOW2_COMPAT_LAZY_REFCOUNTS;
        q->has_corrupt = true;
        q->corrupt = s->header.incompatible_features & QCOW2_INCOMPAT_CORRUPT;
        q->has_extended_l2 = true;
        q->extended_l2 = s->has_subclusters;
        q->bitmaps = qcow2_bitmaps_info(bs);
        q->has_bitmaps = q->bitmaps != NULL;
        q->data_file = g_strdup(s->header.data_file_name);
        q->has_data_file_raw = qcow2_has_data_file(s);
        q->data_file_raw = qcow2_data_file_is_raw(s);
    }
    return info;
}

bool coroutine_fn qcow2_co_say_geometry(BlockDriverState *bs, int64_t *cluster_size, bool *is_dirty)
{
    BDRVQcow2State *s = bs->opaque;

    *cluster_size = s->cluster_size;
    *is_dirty = s->header.incompatible_features & QCOW2_INCOMPAT_DIRTY;
    return true;
}

int coroutine_fn qcow2_co_refer_to_backing(BlockDriverState *bs, const char *backing_file,
                                           const char *backing_fmt)
{
    BDRVQcow2State *s = bs->opaque;
    char *old_file = s->header.backing_file, *old_fmt = s->header.backing_format;
    int ret = s->fatal || s->corrupt ? -EIO : 0;

    if (ret == 0 && ((backing_file && strlen(backing_file) > QCOW2_MAX_BACKING_NAME) ||
                     (backing_fmt && strlen(backing_fmt) > QCOW2_MAX_FORMAT_NAME) ||
                     (backing_file && *backing_file && qcow2_data_file_is_raw(s)))) {
        ret = -EINVAL;
    }
    if (ret < 0) {
        return ret;
    }
    qemu_co_mutex_lock(&s->lock);
    s->header.backing_file = backing_file && *backing_file ? g_strdup(backing_file) : NULL;
    s->header.backing_format =
        s->header.backing_file && backing_fmt && *backing_fmt ? g_strdup(backing_fmt) : NULL;
    ret = qcow2_co_update_header(bs);
    if (ret < 0) {
        g_free(s->header.backing_file);
        g_free(s->header.backing_format);
        s->header.backing_file = old_file;
        s->header.backing_format = old_fmt;
    } else {
        g_free(old_file);
        g_free(old_fmt);
        g_free(bs->backing_file);
        g_free(bs->backing_format);
        bs->backing_file = g_strdup(s->header.backing_file ? s->header.backing_file : "");
        bs->backing_format = g_strdup(s->header.backing_format ? s->header.backing_format : "");
    }
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}
