/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The parts of one qcow2 request run side by side. */
#include "block/block-backend.h"
#include "block/qcow2/image.h"
#include "tests/unit/qcow2-fixture.h"
#include "util/aio.h"

#define CLUSTER    65536
#define READ_WRITE (BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE)

/* A filter that sees how many reads, and writes of data, are under way at once. */
static int reads, most_reads, writes, most_writes;

static int coroutine_fn meter_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        QEMUIOVector *qiov, size_t qiov_offset,
                                        BdrvRequestFlags flags)
{
    int ret;

    reads++;
    most_reads = MAX(most_reads, reads);
    qemu_co_yield_to_loop();
    ret = bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
    reads--;
    return ret;
}

static int coroutine_fn meter_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         QEMUIOVector *qiov, size_t qiov_offset,
                                         BdrvRequestFlags flags)
{
    int ret;

    if (bytes < CLUSTER / 2) {
        return bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
    }
    writes++;
    most_writes = MAX(most_writes, writes);
    qemu_co_yield_to_loop();
    ret = bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
    writes--;
    return ret;
}

/* A flush that waits until the test lets it go. */
static bool hold_flushes;
static Coroutine *held_flush;

static int coroutine_fn meter_co_flush(BlockDriverState *bs)
{
    if (hold_flushes) {
        hold_flushes = false;
        held_flush = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    return 0;
}

static const BlockDriver bdrv_meter = {
    .format_name = "meter",
    .driver = BLOCKDEV_DRIVER__MAX,
    .is_filter = true,
    .bdrv_co_preadv = meter_co_preadv,
    .bdrv_co_pwritev = meter_co_pwritev,
    .bdrv_co_flush_to_disk = meter_co_flush,
};

static char *dir;

/* A qcow2 image of 1 MiB; the meter is below it, or is its backing node. */
static BlockBackend *coroutine_fn open_image(bool meter_backing)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *path = g_build_filename(dir, "image", NULL);
    g_autofree char *create = g_strdup_printf(
        "{'driver':'qcow2','file':{'driver':'file','filename':'%s'},'size':1048576}", path);
    g_autofree char *file =
        g_strdup_printf("{'driver':'file','filename':'%s','node-name':'file0'}", path);
    g_autofree char *backed = g_strdup_printf(
        "{'driver':'qcow2','file':{'driver':'file','filename':'%s'},'backing':'meter0'}", path);
    BlockDriverState *meter, *bs;
    BlockBackend *blk = blk_new(READ_WRITE, BLK_PERM_ALL);

    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    create_qcow2(create);
    meter = open_filter(
        &bdrv_meter, "meter0",
        open_node(meter_backing ? "{'driver':'null-co','size':1048576,'read-zeroes':true}" : file));
    meter->total_bytes = bdrv_getlength(meter->file->bs);
    bs = open_node(meter_backing ? backed : "{'driver':'qcow2','file':'meter0'}");
    g_assert_true(blk_insert_bs(blk, bs, &err));
    bdrv_co_unref(bs);
    bdrv_co_unref(meter);
    return blk;
}

static void coroutine_fn close_image(BlockBackend *blk)
{
    blk_unref(blk);
    bdrv_co_close_all();
}

/* Clusters written in the order 3, 1, 2, 0 lie apart in the file. */
static void coroutine_fn extents_co_entry(void *opaque)
{
    static const int order[] = {3, 1, 2, 0};
    g_autofree uint8_t *data = g_malloc(4 * CLUSTER), *back = g_malloc0(4 * CLUSTER);
    BlockBackend *blk = open_image(false);

    for (int i = 0; i < 4 * CLUSTER; i++) {
        data[i] = i / 256 + i / CLUSTER;
    }
    for (int i = 0; i < 4; i++) {
        int64_t at = (int64_t)order[i] * CLUSTER;

        g_assert_cmpint(blk_co_pwrite(blk, at, CLUSTER, data + at, 0), ==, 0);
    }
    reads = most_reads = 0;
    g_assert_cmpint(blk_co_pread(blk, 0, 4 * CLUSTER, back, 0), ==, 0);
    g_assert_cmpmem(data, 4 * CLUSTER, back, 4 * CLUSTER);
    g_assert_cmpint(most_reads, >=, 3);

    for (int i = 0; i < 4 * CLUSTER; i++) {
        data[i] ^= 0xff;
    }
    writes = most_writes = 0;
    g_assert_cmpint(blk_co_pwrite(blk, 0, 4 * CLUSTER, data, 0), ==, 0);
    g_assert_cmpint(most_writes, >=, 3);
    g_assert_cmpint(blk_co_pread(blk, 0, 4 * CLUSTER, back, 0), ==, 0);
    g_assert_cmpmem(data, 4 * CLUSTER, back, 4 * CLUSTER);
    close_image(blk);
}

/* Clusters 1 and 3 are there, 0, 2 and 4 are allocated by the write. */
static void coroutine_fn mixed_co_entry(void *opaque)
{
    g_autofree uint8_t *data = g_malloc(5 * CLUSTER), *back = g_malloc0(5 * CLUSTER);
    BlockBackend *blk = open_image(false);

    memset(data, 1, 5 * CLUSTER);
    g_assert_cmpint(blk_co_pwrite(blk, CLUSTER, CLUSTER, data, 0), ==, 0);
    g_assert_cmpint(blk_co_pwrite(blk, 3 * CLUSTER, CLUSTER, data, 0), ==, 0);
    for (int i = 0; i < 5 * CLUSTER; i++) {
        data[i] = i / 256 + i / CLUSTER;
    }
    writes = most_writes = 0;
    g_assert_cmpint(blk_co_pwrite(blk, 512, 5 * CLUSTER - 1024, data + 512, 0), ==, 0);
    g_assert_cmpint(most_writes, >=, 4);
    memset(data, 0, 512);
    memset(data + 5 * CLUSTER - 512, 0, 512);
    g_assert_cmpint(blk_co_pread(blk, 0, 5 * CLUSTER, back, 0), ==, 0);
    g_assert_cmpmem(data, 5 * CLUSTER, back, 5 * CLUSTER);
    close_image(blk);
}

static void coroutine_fn head_and_tail_co_entry(void *opaque)
{
    uint8_t data[512] = {1};
    BlockBackend *blk = open_image(true);

    reads = most_reads = 0;
    g_assert_cmpint(blk_co_pwrite(blk, 4096, sizeof(data), data, 0), ==, 0);
    g_assert_cmpint(most_reads, ==, 2);
    close_image(blk);
}
typedef struct Part {
    BlockBackend *blk;
    int (*co_run)(BlockDriverState *bs);
    int ret;
    bool over;
} Part;

static void coroutine_fn part_co_entry(void *opaque)
{
    Part *part = opaque;

    part->ret = part->co_run(blk_bs(part->blk));
    part->over = true;
}

/* A reopen and a close write everything back. A flush that frees clusters may be under way then. */
static void coroutine_fn sync_co_entry(void *opaque)
{
    g_autofree uint8_t *data = g_malloc0(4 * CLUSTER);
    BlockBackend *blk = open_image(false);
    Part flush = {.blk = blk, .co_run = bdrv_co_flush},
         sync = {.blk = blk, .co_run = qcow2_co_sync};

    memset(data, 1, 4 * CLUSTER);
    g_assert_cmpint(blk_co_pwrite(blk, 0, 4 * CLUSTER, data, 0), ==, 0);
    g_assert_cmpint(blk_co_flush(blk), ==, 0);
    g_assert_cmpint(blk_co_pdiscard(blk, 0, 4 * CLUSTER), ==, 0);
    hold_flushes = true;
    qemu_coroutine_enter(qemu_coroutine_create(part_co_entry, &flush));
    while (!held_flush) {
        qemu_co_yield_to_loop();
    }
    qemu_coroutine_enter(qemu_coroutine_create(part_co_entry, &sync));
    for (int i = 0; i < 100; i++) {
        qemu_co_yield_to_loop();
    }
    g_assert_true(!flush.over && !sync.over);
    aio_co_wake(held_flush);
    while (!flush.over || !sync.over) {
        qemu_co_yield_to_loop();
    }
    g_assert_cmpint(flush.ret, ==, 0);
    g_assert_cmpint(sync.ret, ==, 0);
    close_image(blk);
}

static void test_sync_waits_for_a_flush_that_frees(void)
{
    aio_run_coroutine(sync_co_entry, NULL);
}

static void test_extents(void)
{
    aio_run_coroutine(extents_co_entry, NULL);
}

static void test_mixed_write(void)
{
    aio_run_coroutine(mixed_co_entry, NULL);
}

static void test_head_and_tail(void)
{
    aio_run_coroutine(head_and_tail_co_entry, NULL);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    dir = image_folder_new();
    g_test_add_func("/qcow2-parts/extents-of-a-request-side-by-side", test_extents);
    g_test_add_func("/qcow2-parts/allocated-and-new-extents-of-a-write-side-by-side",
                    test_mixed_write);
    g_test_add_func("/qcow2-parts/head-and-tail-of-a-copy-on-write-side-by-side",
                    test_head_and_tail);
    g_test_add_func("/qcow2-parts/sync-waits-for-a-flush-that-frees",
                    test_sync_waits_for_a_flush_that_frees);
    ret = g_test_run();
    image_folder_remove(dir);
    return ret;
}
