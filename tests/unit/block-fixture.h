/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Graphs for tests: nodes from JSON, filters that watch what passes, and a folder for images. What
 * fails, fails the test.
 */
#ifndef FERRY_TESTS_UNIT_BLOCK_FIXTURE_H
#define FERRY_TESTS_UNIT_BLOCK_FIXTURE_H

#include <glib.h>

#include "block/block_int.h"
#include "util/error.h"

/* A node, writable, from the arguments of blockdev-add. */
static inline BlockDriverState *coroutine_fn open_node(const char *json)
{
    g_autoptr(GError) err = NULL;
    json_object *obj = json_tokener_parse(json);
    g_autoptr(BlockdevOptions) o = BlockdevOptions_from_json(obj, QAPI_DECODE_JSON, &err);
    BlockDriverState *bs;

    g_assert_no_error(err);
    json_object_put(obj);
    bs = bdrv_co_open(o, BDRV_O_RDWR | BDRV_O_UNMAP, &err);
    g_assert_no_error(err);
    return bs;
}

/* A filter of the test's own above bs, whose reference it takes. */
static inline BlockDriverState *coroutine_fn open_filter(const BlockDriver *drv, const char *name,
                                                         BlockDriverState *bs)
{
    g_autoptr(GError) err = NULL;
    BlockDriverState *filter = bdrv_new_filter(drv, name, BDRV_O_RDWR | BDRV_O_UNMAP, &err);

    g_assert_no_error(err);
    g_assert_nonnull(
        bdrv_attach_child(filter, bs, "file", BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, &err));
    filter->is_open = true;
    return filter;
}

/* Of filters that do not care what is read. */
static inline int coroutine_fn filter_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                QEMUIOVector *qiov, size_t qiov_offset,
                                                BdrvRequestFlags flags)
{
    return bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

/* A folder in memory where possible, as tests flush a lot; and its end. */
static inline char *image_folder_new(void)
{
    const char *in = g_file_test("/dev/shm", G_FILE_TEST_IS_DIR) ? "/dev/shm" : g_get_tmp_dir();
    char *dir = g_strdup_printf("%s/ferry-images-XXXXXX", in);

    g_assert_nonnull(g_mkdtemp(dir));
    return dir;
}

static inline void image_folder_remove(char *dir)
{
    g_autofree char *rm = g_strdup_printf("rm -rf %s", dir);

    if (!g_spawn_command_line_sync(rm, NULL, NULL, NULL, NULL)) {
        g_printerr("could not remove %s\n", dir);
    }
    g_free(dir);
}

#endif
