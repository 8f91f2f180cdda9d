/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The block graph over real files: requests of any alignment, status, permissions, drained
 * sections, filters.
 */
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "block/block-backend.h"
#include "block/block_int.h"
#include "util/error.h"

#define IMAGE_BYTES (4 * 1024 * 1024)

static char *dir;

static char *image(const char *name, int64_t size)
{
    char *path = g_build_filename(dir, name, NULL);
    FILE *f = fopen(path, "w");

    g_assert_nonnull(f);
    g_assert_cmpint(ftruncate(fileno(f), size), ==, 0);
    fclose(f);
    return path;
}

static BlockDriverState *coroutine_fn open_raw(const char *path, const char *node, int flags)
{
    g_autoptr(GError) err = NULL;
    BlockDriverState *bs = bdrv_co_open_filename(path, "raw", node, flags, &err);

    g_assert_no_error(err);
    g_assert_nonnull(bs);
    return bs;
}

static BlockBackend *backend(BlockDriverState *bs, uint64_t perm, uint64_t shared)
{
    g_autoptr(GError) err = NULL;
    BlockBackend *blk = blk_new(perm, shared);

    g_assert_true(blk_insert_bs(blk, bs, &err));
    g_assert_no_error(err);
    return blk;
}

#define READ_WRITE (BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE)

/* Random requests of any offset and length against a copy in memory. */
static void coroutine_fn random_requests(void *opaque)
{
    g_autofree char *path = image("random.raw", IMAGE_BYTES);
    BlockDriverState *bs =
        open_raw(path, "random", BDRV_O_RDWR | BDRV_O_UNMAP | GPOINTER_TO_INT(opaque));
    BlockBackend *blk = backend(bs, READ_WRITE, BLK_PERM_ALL);
    g_autofree uint8_t *model = g_malloc0(IMAGE_BYTES);
    g_autofree uint8_t *buf = g_malloc(256 * 1024);
    g_autoptr(GRand) rng = g_rand_new_with_seed(1);

    for (int i = 0; i < 400; i++) {
        int64_t len = g_rand_int_range(rng, 1, 200 * 1024);
        int64_t off = g_rand_int_range(rng, 0, IMAGE_BYTES - len);

        switch (g_rand_int_range(rng, 0, 4)) {
        case 0:
            for (int64_t j = 0; j < len; j++) {
                buf[j] = g_rand_int(rng);
            }
            g_assert_cmpint(blk_co_pwrite(blk, off, len, buf, i % 7 ? 0 : BDRV_REQ_FUA), ==, 0);
            memcpy(model + off, buf, len);
            break;
        case 1:
            g_assert_cmpint(blk_co_pwrite_zeroes(blk, off, len, i % 2 ? BDRV_REQ_MAY_UNMAP : 0), ==,
                            0);
            memset(model + off, 0, len);
            break;
        case 2: {
            BdrvBlockStatus st;

            g_assert_cmpint(bdrv_co_block_status(bs, off, len, &st), ==, 0);
            g_assert_cmpint(st.pnum, >, 0);
            if (st.flags & BDRV_BLOCK_ZERO) {
                for (int64_t j = 0; j < st.pnum; j++) {
                    g_assert_cmpint(model[off + j], ==, 0);
                }
            }
            break;
        }
        default:
            g_assert_cmpint(blk_co_pread(blk, off, len, buf, 0), ==, 0);
            g_assert_cmpint(memcmp(buf, model + off, len), ==, 0);
        }
    }
    g_assert_cmpint(blk_co_flush(blk), ==, 0);
    blk_unref(blk);
    bdrv_co_unref(bs);
    bdrv_co_close_all();
    g_autofree char *contents = NULL;
    gsize length;

    g_assert_true(g_file_get_contents(path, &contents, &length, NULL));
    g_assert_cmpmem(contents, length, model, IMAGE_BYTES);
}

static void test_random_requests(void)
{
    aio_run_coroutine(random_requests, GINT_TO_POINTER(0));
}

static void test_random_requests_direct(void)
{
    aio_run_coroutine(random_requests, GINT_TO_POINTER(BDRV_O_NOCACHE));
}

static void coroutine_fn conflicts_co(void *opaque)
{
    g_autofree char *path = image("locked.raw", IMAGE_BYTES);
    g_autoptr(GError) err = NULL;
    BlockDriverState *bs = open_raw(path, "locked", BDRV_O_RDWR);
    BlockBackend *writer = backend(bs, READ_WRITE, BLK_PERM_CONSISTENT_READ);
    BlockBackend *other = blk_new(BLK_PERM_WRITE, BLK_PERM_ALL);
    BlockDriverState *again;

    (void)opaque;
    /* Inside the process the graph knows: both users are named. */
    g_assert_false(blk_insert_bs(other, bs, &err));
    g_assert_nonnull(strstr(err->message, "Permission conflict on node 'locked'"));
    g_clear_error(&err);
    blk_unref(other);

    /* Another open of the file, as another process would do it, meets the locks. */
    again = bdrv_co_open_filename(path, "raw", "again", BDRV_O_RDWR, &err);
    if (again) {
        other = blk_new(BLK_PERM_WRITE, BLK_PERM_ALL);
        g_assert_false(blk_insert_bs(other, again, &err));
        blk_unref(other);
        bdrv_co_unref(again);
    }
    g_assert_nonnull(err);
    g_assert_nonnull(strstr(err->message, "Is another process using the image?"));
    blk_unref(writer);
    bdrv_co_unref(bs);
    bdrv_co_close_all();
}

static void test_conflicts(void)
{
    aio_run_coroutine(conflicts_co, NULL);
}

typedef struct Writer {
    BlockBackend *blk;
    bool done;
} Writer;

static void coroutine_fn write_once(void *opaque)
{
    Writer *w = opaque;
    uint8_t buf[512] = {1};

    g_assert_cmpint(blk_co_pwrite(w->blk, 0, sizeof(buf), buf, 0), ==, 0);
    w->done = true;
}

static void coroutine_fn drain_co(void *opaque)
{
    g_autofree char *path = image("drain.raw", IMAGE_BYTES);
    BlockDriverState *bs = open_raw(path, "drain", BDRV_O_RDWR);
    Writer w = {.blk = backend(bs, READ_WRITE, BLK_PERM_ALL)};

    (void)opaque;
    bdrv_co_drained_begin(bs);
    qemu_coroutine_enter(qemu_coroutine_create(write_once, &w));
    bdrv_co_drained_begin(bs);
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 1000000);
    g_assert_false(w.done); /* held back by the gate */
    bdrv_co_drained_end(bs);
    g_assert_false(w.done);
    bdrv_co_drained_end(bs);
    bdrv_co_drained_begin(bs); /* waits for the request that was let go, if it has started */
    bdrv_co_drained_end(bs);
    while (!w.done) {
        qemu_co_yield_to_loop();
    }
    blk_unref(w.blk);
    bdrv_co_unref(bs);
    bdrv_co_close_all();
}

/* A command that waits for a request that hangs gives up, says why, and leaves everything at work. */
static void coroutine_fn drain_within_co(void *opaque)
{
    g_autofree char *path = image("drain.raw", IMAGE_BYTES);
    BlockDriverState *bs = open_raw(path, "drain", BDRV_O_RDWR);
    Writer w = {.blk = backend(bs, READ_WRITE, BLK_PERM_ALL)};
    GError *err = NULL;

    (void)opaque;
    bdrv_inc_in_flight(bs);
    g_assert_false(bdrv_co_drained_begin_within(bs, SCALE_MS, &err));
    g_assert_nonnull(strstr(err->message, "still waiting for: node 'drain'"));
    g_clear_error(&err);
    qemu_coroutine_enter(qemu_coroutine_create(write_once, &w));
    while (!w.done) {
        qemu_co_yield_to_loop();
    }
    bdrv_dec_in_flight(bs);
    g_assert_true(bdrv_co_drained_begin_within(bs, SCALE_MS, &err));
    bdrv_co_drained_end(bs);
    blk_unref(w.blk);
    bdrv_co_unref(bs);
    bdrv_co_close_all();
}

static void test_drain_within(void)
{
    aio_run_coroutine(drain_within_co, NULL);
}

static void test_drain(void)
{
    aio_run_coroutine(drain_co, NULL);
}

static void coroutine_fn sparse_co(void *opaque)
{
    const int64_t size = 1ll << 40;
    g_autofree char *path = image("sparse.raw", size);
    BlockDriverState *bs = open_raw(path, "sparse", BDRV_O_RDWR);
    BlockBackend *blk = backend(bs, READ_WRITE, BLK_PERM_ALL);
    uint8_t buf[65536];
    BdrvBlockStatus st;

    (void)opaque;
    memset(buf, 7, sizeof(buf));
    g_assert_cmpint(blk_co_pwrite(blk, size / 2, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmpint(bdrv_co_block_status_above(bs, NULL, 0, size, &st), ==, 0);
    g_assert_true(st.flags & BDRV_BLOCK_ZERO);
    g_assert_cmpint(st.pnum, ==, size / 2);
    g_assert_cmpint(bdrv_co_block_status_above(bs, NULL, size / 2, size, &st), ==, 0);
    g_assert_true(st.flags & BDRV_BLOCK_DATA);
    g_assert_cmpint(st.pnum, ==, sizeof(buf));
    blk_unref(blk);
    bdrv_co_unref(bs);
    bdrv_co_close_all();
}

static void test_sparse(void)
{
    aio_run_coroutine(sparse_co, NULL);
}

static void coroutine_fn copy_co(void *opaque)
{
    g_autofree char *a = image("copy-a.raw", IMAGE_BYTES), *b = image("copy-b.raw", IMAGE_BYTES);
    BlockDriverState *src = open_raw(a, "a", BDRV_O_RDWR), *dst = open_raw(b, "b", BDRV_O_RDWR);
    BlockBackend *s = backend(src, READ_WRITE, BLK_PERM_ALL),
                 *d = backend(dst, READ_WRITE, BLK_PERM_ALL);
    g_autofree uint8_t *buf = g_malloc(1 << 20), *got = g_malloc(1 << 20);

    (void)opaque;
    for (int i = 0; i < 1 << 20; i++) {
        buf[i] = i * 31 + (i >> 8);
    }
    g_assert_cmpint(blk_co_pwrite(s, 4096, 1 << 20, buf, 0), ==, 0);
    g_assert_cmpint(blk_co_copy_range(s, 4096, d, 8192, 1 << 20, 0), ==, 0);
    g_assert_cmpint(blk_co_pread(d, 8192, 1 << 20, got, 0), ==, 0);
    g_assert_cmpmem(got, 1 << 20, buf, 1 << 20);
    blk_unref(s);
    blk_unref(d);
    bdrv_co_unref(src);
    bdrv_co_unref(dst);
    bdrv_co_close_all();
}

static void test_copy_range(void)
{
    aio_run_coroutine(copy_co, NULL);
}

static void coroutine_fn bad_names_co(void *opaque)
{
    static const char *const names[] = {"json:{",
                                        "json:[]",
                                        "json:{\"driver\":\"nope\"}",
                                        "nosuch:x",
                                        "json:{\"driver\":\"raw\"}",
                                        "/does/not/exist"};

    (void)opaque;
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autoptr(GError) err = NULL;

        g_assert_null(bdrv_co_open_filename(names[i], NULL, NULL, BDRV_O_RDWR, &err));
        g_assert_nonnull(err);
    }
    bdrv_co_close_all();
    g_assert_null(bdrv_next_node(NULL));
}

static void test_bad_names(void)
{
    aio_run_coroutine(bad_names_co, NULL);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    dir = g_dir_make_tmp("test-block-XXXXXX", NULL);
    g_test_add_func("/block/random-requests", test_random_requests);
    g_test_add_func("/block/random-requests-direct", test_random_requests_direct);
    g_test_add_func("/block/conflicts", test_conflicts);
    g_test_add_func("/block/drain", test_drain);
    g_test_add_func("/block/drain-within", test_drain_within);
    g_test_add_func("/block/sparse", test_sparse);
    g_test_add_func("/block/copy-range", test_copy_range);
    g_test_add_func("/block/bad-names", test_bad_names);
    ret = g_test_run();
    g_autofree char *cmd = g_strdup_printf("rm -r '%s'", dir);

    return system(cmd) || ret;
}
