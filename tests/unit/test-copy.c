/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copy engine with an owner that is no mirror: a coroutine that pumps until source and target
 * are equal. It has the four callbacks, a bitmap and two nodes, and nothing else.
 */
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>
#include "block/copy/copy.h"
#include "block/graph/graph.h"
#include "util/error.h"

#define IMAGE_BYTES (6 << 20)
#define BUF_BYTES   (2 << 20)

static char *dir;

typedef struct TestCopy {
    CopyEngine copy;
    BlockBackend *disk; /* writes to the source, and is read through */
    char *source_path, *target_path;
    CopyWish wish;
    int64_t moved, charged;
    unsigned failures;
    int failed_with;
    BlockErrorAction action;
    int64_t most_held;
    Coroutine *waiting;
} TestCopy;

/* --- the callbacks --- */

static CopyWish test_wish(void *owner)
{
    return ((TestCopy *)owner)->wish;
}

static int64_t test_delay_ns(void *owner, int64_t bytes)
{
    ((TestCopy *)owner)->charged += bytes;
    return 0;
}

static BlockErrorAction coroutine_fn test_co_failed(void *owner, bool is_read, int error)
{
    TestCopy *t = owner;

    t->failures++;
    t->failed_with = error;
    return t->action;
}

static void test_moved(void *owner, int64_t bytes)
{
    TestCopy *t = owner;

    t->moved += bytes;
    t->most_held = MAX(t->most_held, copy_memory_held(&t->copy));
    if (t->waiting) {
        aio_co_wake(g_steal_pointer(&t->waiting));
    }
}

static const CopyOwner test_owner = {
    .wish = test_wish,
    .delay_ns = test_delay_ns,
    .co_failed = test_co_failed,
    .moved = test_moved,
};

/* --- the job --- */

/* Returns when there is nothing left to do, or nothing that may be done. */
static int coroutine_fn copy_all(TestCopy *t)
{
    while (t->copy.ret == 0 && t->wish == COPY_GO_ON && !copy_is_clean(&t->copy)) {
        int64_t wait = copy_pump(&t->copy, false);

        if (wait) {
            qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, wait);
        } else if (!copy_is_clean(&t->copy) && t->copy.in_flight) {
            t->waiting = qemu_coroutine_self();
            qemu_coroutine_yield();
        }
    }
    copy_co_wait_idle(&t->copy);
    return t->copy.ret;
}

static char *image(const char *name, const uint8_t *data)
{
    char *path = g_build_filename(dir, name, NULL);
    FILE *f = fopen(path, "w");

    g_assert_nonnull(f);
    for (int64_t at = 0; data && at < IMAGE_BYTES; at += 4096) {
        if (data[at]) { /* holes elsewhere */
            g_assert_cmpint(fseek(f, at, SEEK_SET), ==, 0);
            g_assert_cmpint(fwrite(data + at, 4096, 1, f), ==, 1);
        }
    }
    fflush(f);
    g_assert_cmpint(ftruncate(fileno(f), IMAGE_BYTES), ==, 0);
    fclose(f);
    return path;
}

static TestCopy *coroutine_fn test_new(const uint8_t *data)
{
    TestCopy *t = g_new0(TestCopy, 1);
    CopyOptions opts = {.granularity = 64 << 10,
                        .buf_size = BUF_BYTES,
                        .unmap = true,
                        .target_plain = true,
                        .callbacks = &test_owner,
                        .owner = t};
    GError *err = NULL;

    t->source_path = image("source", data);
    t->target_path = image("target", NULL);
    opts.source = bdrv_co_open_filename(t->source_path, "raw", "source", BDRV_O_RDWR, &err);
    g_assert_no_error(err);
    opts.target =
        bdrv_co_open_filename(t->target_path, "raw", "target", BDRV_O_RDWR | BDRV_O_UNMAP, &err);
    g_assert_no_error(err);
    copy_co_init(&t->copy, &opts);
    t->disk = blk_new(BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL);
    t->copy.target = blk_new(BLK_PERM_WRITE, BLK_PERM_ALL);
    g_assert_true(blk_insert_bs(t->disk, opts.source, &err));
    g_assert_true(blk_insert_bs(t->copy.target, opts.target, &err));
    t->copy.source_edge = blk_root(t->disk);
    t->copy.dirty = bdrv_create_dirty_bitmap(opts.source, opts.granularity, NULL, &err);
    g_assert_nonnull(t->copy.dirty);
    return t;
}

static void coroutine_fn test_free(TestCopy *t)
{
    copy_destroy(&t->copy);
    bdrv_release_dirty_bitmap(t->copy.dirty);
    blk_unref(t->disk);
    blk_unref(t->copy.target);
    bdrv_co_unref(t->copy.source);
    bdrv_co_unref(t->copy.target_bs);
    bdrv_co_close_all();
    g_free(t->source_path);
    g_free(t->target_path);
    g_free(t);
}

static void assert_copied(TestCopy *t)
{
    g_autofree char *source = NULL, *target = NULL;
    gsize n = 0, m = 0;

    g_assert_true(g_file_get_contents(t->source_path, &source, &n, NULL));
    g_assert_true(g_file_get_contents(t->target_path, &target, &m, NULL));
    g_assert_cmpmem(source, n, target, m);
}

/* --- tests --- */

static uint8_t *some_data(void)
{
    uint8_t *data = g_malloc0(IMAGE_BYTES);

    for (int64_t at = 0; at < IMAGE_BYTES; at += 4096) {
        /* Long data, pieces of 4 KiB, and a hole. */
        if (at < (2 << 20) || (at < (4 << 20) && (at >> 12) % 2)) {
            memset(data + at, 1 + (int)(at >> 12) % 200, 4096);
        }
    }
    return data;
}

static void coroutine_fn test_copies(void)
{
    g_autofree uint8_t *data = some_data();
    uint8_t more[8192];
    TestCopy *t = test_new(data);
    GStatBuf source, target;

    g_assert_cmpint(copy_all(t), ==, 0);
    assert_copied(t);
    g_assert_cmpint(t->moved, ==, IMAGE_BYTES);
    g_assert_cmpint(copy_bytes_left(&t->copy), ==, 0);
    g_assert_cmpint(t->most_held, <=, BUF_BYTES);
    g_assert_cmpint(t->failures, ==, 0);
    g_assert_cmpint(g_stat(t->source_path, &source), ==, 0);
    g_assert_cmpint(g_stat(t->target_path, &target), ==, 0);
    g_assert_cmpint(target.st_blocks, <=, source.st_blocks);

    /* What is written afterwards is copied by the next round, and nothing else. */
    memset(more, 0xab, sizeof(more));
    g_assert_cmpint(blk_co_pwrite(t->disk, 5 << 20, sizeof(more), more, 0), ==, 0);
    g_assert_cmpint(blk_co_pwrite_zeroes(t->disk, 1 << 20, 128 << 10, BDRV_REQ_MAY_UNMAP), ==, 0);
    g_assert_false(copy_is_clean(&t->copy));
    t->moved = 0;
    g_assert_cmpint(copy_all(t), ==, 0);
    assert_copied(t);
    g_assert_cmpint(t->moved, ==, 3 * (64 << 10));
    g_assert_cmpint(copy_co_flush_target(&t->copy), ==, 0);
    test_free(t);
}

static void coroutine_fn test_wishes(void)
{
    g_autofree uint8_t *data = some_data();
    TestCopy *t = test_new(data);

    t->wish = COPY_PAUSE;
    g_assert_cmpint(copy_pump(&t->copy, false), ==, 0);
    g_assert_cmpint(t->copy.in_flight, ==, 0);
    t->wish = COPY_GO_ON;
    (void)copy_pump(&t->copy, false);
    t->wish = COPY_CANCEL;
    copy_co_wait_idle(&t->copy);
    g_assert_false(copy_is_clean(&t->copy));
    test_free(t);
}

/* A range of the owner's own keeps the engine out; dirty bits stay until it ends. */
static void coroutine_fn test_owned_range(void)
{
    g_autofree uint8_t *data = some_data();
    TestCopy *t = test_new(data);
    CopyOp op;

    g_assert_cmpint(copy_all(t), ==, 0);
    bdrv_set_dirty_bitmap(t->copy.dirty, 0, 1 << 20);
    copy_op_begin(&t->copy, &op, 0, 1 << 20);
    (void)copy_pump(&t->copy, false);
    g_assert_cmpint(t->copy.in_flight, ==, 0);
    g_assert_false(copy_is_clean(&t->copy));
    copy_op_end(&t->copy, &op);
    g_assert_cmpint(copy_all(t), ==, 0);
    g_assert_true(copy_is_clean(&t->copy));
    test_free(t);
}

/* --- main --- */

typedef struct Run {
    void coroutine_fn (*co_test)(void);
    bool done;
} Run;

static void coroutine_fn run_entry(void *opaque)
{
    Run *run = opaque;

    run->co_test();
    run->done = true;
}

static void run_test(gconstpointer co_test)
{
    Run run = {.co_test = *(void coroutine_fn (*const *)(void))co_test};

    qemu_coroutine_enter(qemu_coroutine_create(run_entry, &run));
    while (!run.done) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

int main(int argc, char **argv)
{
    static void coroutine_fn (*const tests[])(void) = {test_copies, test_wishes, test_owned_range};
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    dir = g_dir_make_tmp("test-copy-XXXXXX", NULL);
    g_test_add_data_func("/copy/copies", &tests[0], run_test);
    g_test_add_data_func("/copy/wishes", &tests[1], run_test);
    g_test_add_data_func("/copy/owned-range", &tests[2], run_test);
    ret = g_test_run();
    for (int i = 0; i < 2; i++) {
        g_autofree char *path = g_build_filename(dir, i ? "target" : "source", NULL);

        (void)g_unlink(path);
    }
    (void)g_rmdir(dir);
    return ret;
}
