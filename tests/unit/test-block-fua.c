/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A write with FUA to a driver that does not know FUA is followed by a flush that reaches the disk,
 * whatever was flushed before.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "block/block-backend.h"
#include "tests/unit/block-fixture.h"

static unsigned writes, flushed_writes;

static int coroutine_fn counting_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            QEMUIOVector *qiov, size_t qiov_offset,
                                            BdrvRequestFlags flags)
{
    writes++;
    return bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn counting_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, BdrvRequestFlags flags)
{
    if (offset >= 1 << 20) {
        return -ENOTSUP; /* zeroes are written as data there */
    }
    writes++;
    return bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
}

static int coroutine_fn counting_co_flush(BlockDriverState *bs)
{
    unsigned covered = writes;

    (void)bs;
    qemu_co_yield_to_loop();
    flushed_writes = covered;
    return 0;
}

static const BlockDriver bdrv_counting = {
    .format_name = "counting",
    .driver = BLOCKDEV_DRIVER__MAX,
    .is_filter = true,
    .bdrv_co_preadv = filter_co_preadv,
    .bdrv_co_pwritev = counting_co_pwritev,
    .bdrv_co_pwrite_zeroes = counting_co_pwrite_zeroes,
    .bdrv_co_flush_to_disk = counting_co_flush,
};

static void coroutine_fn fua_co(void *opaque)
{
    const uint64_t perm = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE;
    g_autoptr(GError) err = NULL;
    BlockDriverState *bs;
    BlockBackend *blk = blk_new(perm, BLK_PERM_ALL);
    uint8_t buf[512] = {1};

    (void)opaque;
    bs = open_filter(
        &bdrv_counting, "counting0",
        open_node("{'driver':'null-co','node-name':'null0','size':2097152,'read-zeroes':true}"));
    g_assert_cmpint(bdrv_co_getlength(bs), ==, 2 << 20);
    g_assert_true(blk_insert_bs(blk, bs, &err));
    for (int i = 0; i < 12; i++) {
        int64_t offset = (i % 2) * (1 << 20);

        if (i % 3 == 0) {
            g_assert_cmpint(blk_co_pwrite(blk, offset, sizeof(buf), buf, BDRV_REQ_FUA), ==, 0);
        } else if (i % 3 == 1) {
            g_assert_cmpint(blk_co_pwrite_zeroes(blk, offset, 4096, BDRV_REQ_FUA), ==, 0);
        } else {
            g_assert_cmpint(blk_co_pwrite_zeroes(blk, offset + 100, 4096, BDRV_REQ_FUA), ==, 0);
        }
        g_assert_cmpuint(writes, >, 0);
        g_assert_cmpuint(flushed_writes, ==, writes);
        if (i == 5) {
            g_assert_cmpint(blk_co_flush(blk), ==, 0);
        }
    }
    blk_unref(blk);
    bdrv_co_unref(bs);
    bdrv_co_close_all();
}

static void test_fua(void)
{
    aio_run_coroutine(fua_co, NULL);
}

int main(int argc, char **argv)
{
    g_autoptr(GError) err = NULL;

    g_test_init(&argc, &argv, NULL);
    if (!qemu_init_main_loop(&err)) {
        g_error("%s", err->message);
    }
    g_test_add_func("/block/fua/emulated", test_fua);
    return g_test_run();
}
