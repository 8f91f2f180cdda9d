/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening, configuring and closing a qcow2 node, and its header on disk. */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/cache.h"
#include "block/qcow2/refcount.h"
#include "block/qcow2/free.h"
#include "block/qcow2/writeback.h"
#include "block/qcow2/snapshot.h"
#include "block/qcow2/check.h"
#include "block/qcow2/image.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include "block/dirty-bitmap.h"
#include "block/qcow2/bitmap.h"
#include "block/qcow2/options.h"
#include "util/error.h"

/* --- the header on disk --- */

int coroutine_fn qcow2_co_update_header(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    uint8_t *buf = qemu_try_blockalign(bs->file->bs, s->cluster_size);
    int used, ret;

    if (!buf) {
        return -ENOMEM;
    }
    used = qcow2_header_serialize(&s->header, buf, NULL);
    ret = used < 0 ? -ENOSPC : 0;
    if (ret == 0) {
        /* Wipes what a longer header left behind. */
        ret = bdrv_co_pwrite_sync(bs->file, 0, MAX((size_t)used, s->header_bytes), buf, 0);
        s->header_bytes = ret == 0 ? (size_t)used : s->header_bytes;
    }
    qemu_vfree(buf);
    return ret;
}

/* Only the feature words. Durable on return. */
static int coroutine_fn co_write_features(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    uint8_t buf[24];

    stq_be_p(buf, s->header.incompatible_features);
    stq_be_p(buf + 8, s->header.compatible_features);
    stq_be_p(buf + 16, s->header.autoclear_features);
    return bdrv_co_pwrite_sync(bs->file, QCOW2_OFS_INCOMPATIBLE, sizeof(buf), buf, 0);
}

int coroutine_fn qcow2_co_mark_dirty(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (s->dirty_bit_set) {
        return 0;
    }
    s->header.incompatible_features |= QCOW2_INCOMPAT_DIRTY;
    ret = co_write_features(bs);
    if (ret < 0) {
        s->header.incompatible_features &= ~(uint64_t)QCOW2_INCOMPAT_DIRTY;
        return ret;
    }
    s->dirty_bit_set = true;
    return 0;
}

/* Refcounts on disk are right: takes the dirty bit away. */
static int coroutine_fn co_mark_clean(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (!s->dirty_bit_set || s->fatal) {
        return 0;
    }
    ret = bdrv_co_flush(bs->file->bs);
    if (ret < 0) {
        return ret;
    }
    s->header.incompatible_features &= ~(uint64_t)QCOW2_INCOMPAT_DIRTY;
    ret = co_write_features(bs);
    if (ret < 0) {
        s->header.incompatible_features |= QCOW2_INCOMPAT_DIRTY;
        return ret;
    }
    s->dirty_bit_set = false;
    return 0;
}

bool coroutine_fn qcow2_co_repair_dirty(BlockDriverState *bs, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (!s->needs_repair) {
        return true;
    }
    if (!qcow2_co_repair_refcounts(bs, errp)) {
        g_prefix_error(errp, "Could not repair dirty image: ");
        return false;
    }
    s->dirty_bit_set = true;
    ret = co_mark_clean(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not update the header of the repaired image");
        return false;
    }
    s->needs_repair = false;
    return true;
}

int coroutine_fn qcow2_co_prepare_write(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t keep = QCOW2_AUTOCLEAR_KNOWN;
    int ret = 0;

    if (s->fatal || s->corrupt || s->needs_repair) {
        return -EIO;
    }
    if (s->write_prepared) {
        return 0;
    }
    qemu_co_mutex_lock(&s->lock);
    if (!s->write_prepared && !s->bitmaps_kept) {
        ret = qcow2_co_bitmaps_mark_in_use(bs);
        s->bitmaps_kept = ret == 0;
    }
    if (ret == 0 && s->header.version >= 3 && (s->header.autoclear_features & ~keep)) {
        uint64_t before = s->header.autoclear_features;
        s->header.autoclear_features &= keep;
        ret = co_write_features(bs);
        if (ret < 0) {
            s->header.autoclear_features = before;
        }
    }
    s->write_prepared = ret == 0;
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

/* --- opening --- */

static void set_geometry(BDRVQcow2State *s)
{
    const Qcow2Header *h = &s->header;

    s->cluster_bits = h->cluster_bits;
    s->cluster_size = 1ULL << h->cluster_bits;
    s->has_subclusters = h->incompatible_features & QCOW2_INCOMPAT_EXTL2;
    s->subclusters = s->has_subclusters ? 32 : 1;
    s->subcluster_bits = s->cluster_bits - (s->has_subclusters ? 5 : 0);
    s->subcluster_size = 1ULL << s->subcluster_bits;
    s->l2_entry_bytes = s->has_subclusters ? 16 : 8;
    s->l2_bits = s->cluster_bits - (s->has_subclusters ? 4 : 3);
    s->refcount_bits = 1u << h->refcount_order;
    s->refblock_bits = s->cluster_bits + 3 - h->refcount_order;
    s->refcount_max = s->refcount_bits == 64 ? UINT64_MAX : (1ULL << s->refcount_bits) - 1;
    s->compressed_shift = 62 - (s->cluster_bits - 8);
    s->compressed_offset_mask = MIN(1ULL << s->compressed_shift, QCOW2_HOST_LIMIT) - 1;
}

static bool coroutine_fn co_read_header(BlockDriverState *bs, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t len = bdrv_co_getlength(bs->file->bs);
    uint8_t fixed[QCOW2_V3_HEADER_BYTES] = {0};
    g_autofree uint8_t *cluster = NULL;
    uint64_t size;
    int ret;

    if (len < 0) {
        error_setg_errno(errp, -len, "Could not determine the size of the image file");
        return false;
    }
    ret = bdrv_co_pread(bs->file, 0, MIN(len, (int64_t)sizeof(fixed)), fixed, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read qcow2 header");
        return false;
    }
    if (!qcow2_header_parse_fixed(fixed, MIN(len, (int64_t)sizeof(fixed)), &s->header, errp)) {
        return false;
    }
    size = 1ULL << s->header.cluster_bits;
    cluster = g_malloc0(size);
    ret = bdrv_co_pread(bs->file, 0, MIN(len, (int64_t)size), cluster, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read qcow2 header extensions");
        return false;
    }
    if (s->header.incompatible_features & ~(uint64_t)QCOW2_INCOMPAT_KNOWN) {
        g_autofree char *names = qcow2_header_unknown_features(cluster, &s->header);
        error_setg(errp, "Unsupported qcow2 feature(s): %s", names);
        return false;
    }
    s->header_bytes = size;
    return qcow2_header_parse_extensions(cluster, &s->header, errp);
}

/*
 * Where the image's own folder has a regular file of the name that the image gives for its data; NULL:
 * nothing that may be opened unasked. The name comes from the maker of the image: a name with a folder, a
 * protocol or a link in it could be any file that this process can reach.
 */
static char *find_data_file(BlockDriverState *bs)
{
    const BDRVQcow2State *s = bs->opaque;
    const BlockDriverState *file = bdrv_skip_filters(bs->file->bs);
    const char *name = s->header.data_file_name, *image = file->exact_filename;
    g_autofree char *dir = NULL, *path = NULL;
    struct stat data_st, image_st;

    if (file->drv->driver != BLOCKDEV_DRIVER_FILE || !image || !*image || !name || !*name ||
        strpbrk(name, "/:")) {
        return NULL;
    }
    dir = g_path_get_dirname(image);
    path = g_build_filename(dir, name, NULL);
    if (lstat(path, &data_st) < 0 || !S_ISREG(data_st.st_mode) || stat(image, &image_st) < 0 ||
        (data_st.st_dev == image_st.st_dev && data_st.st_ino == image_st.st_ino)) {
        return NULL;
    }
    return g_steal_pointer(&path);
}

static BdrvChild *coroutine_fn co_open_found_data_file(BlockDriverState *bs, GError **errp)
{
    const BDRVQcow2State *s = bs->opaque;
    const char *name = s->header.data_file_name;
    g_autofree char *path = find_data_file(bs);
    g_autoptr(BlockdevRef) ref = NULL;

    if (!path) {
        error_setg(errp,
                   "'data-file' is required for this image: its external data file%s%s%s is not "
                   "a regular file with a plain name in the folder of the image; name it with "
                   "data-file.driver=file,data-file.filename=...",
                   name && *name ? " ('" : "", name && *name ? name : "",
                   name && *name ? "')" : "");
        return NULL;
    }
    ref = g_new0(BlockdevRef, 1);
    ref->type = json_type_object;
    ref->u.definition.driver = BLOCKDEV_DRIVER_FILE;
    ref->u.definition.u.file.filename = g_steal_pointer(&path);
    return bdrv_co_open_child(bs, ref, "data-file", BDRV_CHILD_DATA, errp);
}

/* The external data file: what the option `data-file` grants, else what is found beside the image. */
static bool coroutine_fn co_open_data_file(BlockDriverState *bs, const BlockdevRef *ref,
                                           GError **errp)
{
    BDRVQcow2State *s = bs->opaque;

    s->data_file = bs->file;
    if (!qcow2_has_data_file(s)) {
        if (ref) {
            error_setg(errp, "'data-file' can only be set for images with an external data file");
            return false;
        }
        return true;
    }
    s->data_file = ref ? bdrv_co_open_child(bs, ref, "data-file", BDRV_CHILD_DATA, errp)
                       : co_open_found_data_file(bs, errp);
    if (!s->data_file) {
        return false;
    }
    bs->file->role = BDRV_CHILD_METADATA | BDRV_CHILD_PRIMARY;
    return true;
}

static bool coroutine_fn co_load_l1(BlockDriverState *bs, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t bytes = (uint64_t)s->header.l1_size * 8;
    int ret = 0;

    s->l1_table = g_try_malloc0(MAX(bytes, 8));
    if (!s->l1_table) {
        error_setg(errp, "Could not allocate %" G_GUINT64_FORMAT " bytes for the L1 table", bytes);
        return false;
    }
    if (bytes) {
        ret = bdrv_co_pread(bs->file, s->header.l1_table_offset, bytes, s->l1_table, 0);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read L1 table");
        return false;
    }
    s->l2_clusters = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    for (uint32_t i = 0; i < s->header.l1_size; i++) {
        uint64_t offset;
        s->l1_table[i] = be64toh(s->l1_table[i]);
        offset = s->l1_table[i] & QCOW2_OFFSET_MASK;
        if (offset) {
            g_hash_table_add(s->l2_clusters, g_memdup2(&offset, sizeof(offset)));
        }
    }
    return true;
}

/* Reading guests' data needs no bitmaps: those that are broken are left out until the image is written. */
static bool without_bitmaps(BlockDriverState *bs, GError **errp, GError *err)
{
    BDRVQcow2State *s = bs->opaque;

    if (bs->open_flags & BDRV_O_RDWR) {
        g_propagate_error(errp, err);
        return false;
    }
    warn_report("qcow2 image '%s' is read without its bitmaps: %s", bs->node_name, err->message);
    g_error_free(err);
    qcow2_bitmaps_free(s->bitmaps);
    s->bitmaps = NULL;
    s->bitmaps_broken = true;
    return true;
}

static bool coroutine_fn co_load_bitmap_directory(BlockDriverState *bs, GError **errp)
{
    GError *err = NULL;

    return qcow2_co_bitmaps_read_directory(bs, &err) || without_bitmaps(bs, errp, err);
}

static bool coroutine_fn co_load_tables(BlockDriverState *bs, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t len = bdrv_co_getlength(bs->file->bs);
    int ret;

    if (!co_load_l1(bs, errp)) {
        return false;
    }
    ret = qcow2_co_refcount_init(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not initialize refcount handling");
        return false;
    }
    s->fresh_offset =
        bdrv_has_zero_init(bs->file->bs) && len >= 0 ? qcow2_cluster_end(s, len) : UINT64_MAX;
    return qcow2_co_load_snapshots(bs, errp) && co_load_bitmap_directory(bs, errp);
}

static void init_state(BDRVQcow2State *s)
{
    qemu_co_mutex_init(&s->lock);
    qemu_co_mutex_init(&s->writeback_lock);
    LIST_INIT(&s->allocs);
    s->frees = g_array_new(FALSE, FALSE, sizeof(Qcow2PendingFree));
    s->grace = g_array_new(FALSE, FALSE, sizeof(Qcow2PendingFree));
    qemu_co_queue_init(&s->requests_ended);
    s->sparse_file = -1;
}

static void free_state(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    qcow2_clean_timer_stop(bs);
    qcow2_cache_free(s->l2_cache);
    qcow2_cache_free(s->refblock_cache);
    qcow2_refcount_close(bs);
    qcow2_free_snapshots(s);
    qcow2_bitmaps_free(s->bitmaps);
    g_clear_pointer(&s->l1_table, g_free);
    g_clear_pointer(&s->l2_clusters, g_hash_table_destroy);
    g_array_free(s->frees, TRUE);
    g_array_free(s->grace, TRUE);
    qcow2_header_clear(&s->header);
    qemu_co_mutex_destroy(&s->lock);
    qemu_co_mutex_destroy(&s->writeback_lock);
}

static bool coroutine_fn co_check_flags(BlockDriverState *bs, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    bool writable = bs->open_flags & BDRV_O_RDWR;

    if (s->header.incompatible_features & QCOW2_INCOMPAT_CORRUPT) {
        if (writable) {
            error_setg(errp, "qcow2: Image is corrupt; cannot be opened read/write");
            return false;
        }
        s->corrupt = true;
    }
    s->needs_repair = s->header.incompatible_features & QCOW2_INCOMPAT_DIRTY;
    return !writable || (bs->open_flags & BDRV_O_INACTIVE) || qcow2_co_repair_dirty(bs, errp);
}

/* Those that the image keeps. */
static void release_stored_bitmaps(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap, *next;

    for (bitmap = bdrv_dirty_bitmap_next(bs, NULL); bitmap; bitmap = next) {
        next = bdrv_dirty_bitmap_next(bs, bitmap);
        if (bdrv_dirty_bitmap_get_persistence(bitmap)) {
            bdrv_release_dirty_bitmap(bitmap);
        }
    }
}

/* Bitmaps of a writable image are tracked from now on and not valid on disk until it is closed. */
static bool coroutine_fn co_open_bitmaps(BlockDriverState *bs, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    GError *err = NULL;
    int ret;

    if (bs->open_flags & BDRV_O_INACTIVE) {
        return true;
    }
    if (!qcow2_co_bitmaps_load(bs, &err)) {
        release_stored_bitmaps(bs);
        return without_bitmaps(bs, errp, err);
    }
    if (!(bs->open_flags & BDRV_O_RDWR) || s->corrupt) {
        return true;
    }
    ret = qcow2_co_bitmaps_mark_in_use(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not mark the bitmaps as in use");
        return false;
    }
    s->bitmaps_kept = true;
    return true;
}

/* Names from the header, and what requests may carry. */
static void publish(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    bdrv_set_total_bytes(bs, s->header.size);
    g_free(bs->backing_file);
    g_free(bs->backing_format);
    bs->backing_file = g_strdup(s->header.backing_file ? s->header.backing_file : "");
    bs->backing_format = g_strdup(s->header.backing_format ? s->header.backing_format : "");
    bs->supported_zero_flags =
        s->header.version >= 3 ? BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK : BDRV_REQ_MAY_UNMAP;
    bs->supported_truncate_flags = BDRV_REQ_ZERO_WRITE;
}

bool coroutine_fn qcow2_co_open(BlockDriverState *bs, const BlockdevOptions *opts, int flags,
                                GError **errp)
{
    const BlockdevOptionsQcow2 *o = &opts->u.qcow2;
    BDRVQcow2State *s = bs->opaque;

    if (!bdrv_co_open_child(bs, o->file, "file", BDRV_CHILD_IMAGE, errp)) {
        return false;
    }
    if (bdrv_is_read_only(bs->file->bs) && (bs->open_flags & BDRV_O_RDWR) &&
        !bdrv_apply_auto_read_only(bs, "The file below is read-only", errp)) {
        return false;
    }
    init_state(s);
    if (!co_read_header(bs, errp)) {
        goto fail;
    }
    set_geometry(s);
    if (!co_open_data_file(bs, o->data_file, errp) || !qcow2_options_apply(bs, o, errp) ||
        !co_load_tables(bs, errp)) {
        goto fail;
    }
    publish(bs);
    if (!co_check_flags(bs, errp) || !co_open_bitmaps(bs, errp)) {
        goto fail;
    }
    qcow2_clean_timer_start(bs);
    return true;
fail:
    free_state(bs);
    return false;
}

/* --- closing --- */

/*
 * Everything in memory goes to the file, and the dirty bit away. Bitmaps that cannot be stored are an
 * error with `strict`; they are lost otherwise.
 */
static int coroutine_fn co_sync(BlockDriverState *bs, bool strict)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (s->fatal || s->corrupt) {
        return -EIO;
    }
    if (s->needs_repair) {
        return 0; /* nothing was written */
    }
    ret = qcow2_co_bitmaps_store(bs);
    if (ret < 0 && strict) {
        return ret;
    }
    if (ret < 0) {
        error_report("Could not store the bitmaps of qcow2 image '%s': %s", bs->node_name,
                     strerror(-ret));
    }
    s->bitmaps_kept = s->write_prepared = false;
    do {
        while (s->grace_busy) { /* a flush that frees is under way: it does that part of the work */
            qemu_co_queue_wait(&s->requests_ended, NULL);
        }
        ret = qcow2_co_flush_metadata(bs);
    } while (ret == 0 && (s->frees->len || s->grace->len) &&
             (s->grace->len == 0 || s->in_flight[s->grace_epoch] == 0));
    if (ret == 0) {
        ret = qcow2_co_writeback(bs, true);
    }
    return ret == 0 ? co_mark_clean(bs) : ret;
}

int coroutine_fn qcow2_co_sync(BlockDriverState *bs)
{
    return co_sync(bs, false);
}

void coroutine_fn qcow2_co_close(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    if ((bs->open_flags & BDRV_O_RDWR) && !(bs->open_flags & BDRV_O_INACTIVE) && !s->fatal &&
        !s->corrupt) {
        int ret = qcow2_co_sync(bs);
        if (ret < 0) {
            error_report("Could not write the metadata of qcow2 image '%s': %s", bs->node_name,
                         strerror(-ret));
        }
    }
    free_state(bs);
}

/* --- handing the image to another process and back --- */

int coroutine_fn qcow2_co_hand_over(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = bdrv_is_read_only(bs) || s->corrupt ? 0 : co_sync(bs, true);

    if (ret == 0) {
        qcow2_clean_timer_stop(bs);
        /* They are in the image now, where the other process takes them up. */
        release_stored_bitmaps(bs);
    }
    return ret;
}

/* Into bs->opaque, a state that is new. */
static bool coroutine_fn co_load_anew(BlockDriverState *bs, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;

    if (!co_read_header(bs, errp)) {
        return false;
    }
    if (qcow2_has_data_file(s) != (s->data_file != bs->file)) {
        error_setg(errp, "The image has changed to or from an external data file");
        return false;
    }
    set_geometry(s);
    if (!qcow2_options_apply(bs, &bs->options->u.qcow2, errp) || !co_load_tables(bs, errp)) {
        return false;
    }
    publish(bs);
    return co_check_flags(bs, errp) && co_open_bitmaps(bs, errp);
}

/* The node has the state `drop` no longer. */
static void forget_state(BlockDriverState *bs, BDRVQcow2State *keep, BDRVQcow2State *drop)
{
    bs->opaque = drop;
    free_state(bs);
    g_free(drop);
    bs->opaque = keep;
}

bool coroutine_fn qcow2_co_take_over(BlockDriverState *bs, GError **errp)
{
    BDRVQcow2State *old = bs->opaque, *s = g_new0(BDRVQcow2State, 1);

    qcow2_clean_timer_stop(bs);
    bs->opaque = s;
    init_state(s);
    s->data_file = old->data_file;
    if (co_load_anew(bs, errp)) {
        forget_state(bs, s, old);
        qcow2_clean_timer_start(bs);
        return true;
    }
    release_stored_bitmaps(bs);
    forget_state(bs, old, s);
    publish(bs);
    return false;
}
