/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One disk, several iothreads: requests of all of them at once, while the disk is drained, filtered,
 * watched by a bitmap, limited, moved, resized and taken away.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "block/block-backend.h"
#include "block/dirty-bitmap.h"
#include "block/io/accounting.h"
#include "block/throttle/throttle-group.h"
#include "tests/devices/disk-load.h"
#include "tests/unit/block-fixture.h"
#include "tests/unit/disk-queues.h"
#include "util/hbitmap.h"

enum { QUEUES = 3, ROUNDS = 20, SOME = 8 };

static char *folder;

/* --- disks --- */

/* A file in memory, below the raw format. */
static BlockDriverState *coroutine_fn open_raw(void)
{
    static unsigned files;
    g_autofree char *path = g_strdup_printf("%s/disk%u", folder, files++);
    g_autofree char *zeroes = g_malloc0(LOAD_BYTES);
    g_autofree char *json =
        g_strdup_printf("{'driver': 'raw', 'node-name': 'disk', 'file': {'driver': 'file', "
                        "'node-name': 'file', 'filename': '%s', 'discard': 'unmap'}}",
                        path);

    g_assert_true(g_file_set_contents(path, zeroes, LOAD_BYTES, NULL));
    return open_node(json);
}

/* A disk that takes blocks of 4 KiB and lets others go first in each request. */
typedef struct Store {
    uint8_t bytes[LOAD_BYTES];
} Store;

static int coroutine_fn store_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        QEMUIOVector *qiov, size_t qiov_offset,
                                        BdrvRequestFlags flags)
{
    Store *s = bs->opaque;

    g_assert_true(((offset | bytes) & 4095) == 0);
    qemu_co_yield_to_loop();
    qemu_iovec_from_buf(qiov, qiov_offset, s->bytes + offset, bytes);
    return 0;
}

static int coroutine_fn store_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         QEMUIOVector *qiov, size_t qiov_offset,
                                         BdrvRequestFlags flags)
{
    Store *s = bs->opaque;

    g_assert_true(((offset | bytes) & 4095) == 0);
    qemu_co_yield_to_loop();
    qemu_iovec_to_buf(qiov, qiov_offset, s->bytes + offset, bytes);
    return 0;
}

static const BlockProtocolOps store_protocol = {.filename_prefixes = NULL};
static const BlockDriver store_driver = {
    .format_name = "test-store",
    .driver = BLOCKDEV_DRIVER__MAX,
    .instance_size = sizeof(Store),
    .protocol = &store_protocol,
    .multi_thread = true,
    .bdrv_co_preadv = store_co_preadv,
    .bdrv_co_pwritev = store_co_pwritev,
};

static BlockDriverState *coroutine_fn open_store(void)
{
    BlockDriverState *bs = bdrv_new_filter(&store_driver, "disk", BDRV_O_RDWR | BDRV_O_UNMAP, NULL);

    bs->total_bytes = LOAD_BYTES;
    bs->bl.request_alignment = 4096;
    bs->is_open = true;
    return bs;
}

/* A filter with one thread, which it checks. */
static int coroutine_fn shy_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, size_t qiov_offset,
                                       BdrvRequestFlags flags)
{
    g_assert_true(aio_context_in_own_thread(bdrv_get_aio_context(bs)));
    return bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn shy_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             BdrvRequestFlags flags)
{
    g_assert_true(aio_context_in_own_thread(bdrv_get_aio_context(bs)));
    return bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
}

static const BlockDriver shy_driver = {
    .format_name = "test-shy",
    .driver = BLOCKDEV_DRIVER__MAX,
    .is_filter = true,
    .bdrv_child_perm = bdrv_default_perms,
    .bdrv_co_preadv = filter_co_preadv,
    .bdrv_co_pwritev = shy_co_pwritev,
    .bdrv_co_pwrite_zeroes = shy_co_pwrite_zeroes,
};

/* Without a limit of its own: the test has one. */
static void coroutine_fn co_wait_direct(DiskQueues *d)
{
    while (!blk_is_direct(disk_queues_blk(d))) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
}

/* --- tests --- */

static void coroutine_fn data_co(void *opaque)
{
    BlockDriverState *(*open)(void) = opaque;
    DiskQueues *d = disk_queues_co_new(QUEUES, open());

    g_assert_true(blk_is_direct(disk_queues_blk(d)));
    disk_queues_start(d);
    disk_queues_co_progress(d, 500);
    disk_queues_co_stop(d);
    disk_queues_co_free(d);
}

static void test_all_queues_write_and_read_what_they_wrote(gconstpointer open)
{
    aio_run_coroutine(data_co, (void *)open);
}

static void coroutine_fn drains_co(void *opaque)
{
    DiskQueues *d = disk_queues_co_new(QUEUES, open_store());
    BlockDriverState *bs = blk_bs(disk_queues_blk(d));

    disk_queues_start(d);
    for (int i = 0; i < 10 * ROUNDS; i++) {
        bdrv_co_drained_begin(bs);
        g_assert_cmpint(__atomic_load_n(&bs->in_flight, __ATOMIC_SEQ_CST), ==, 0);
        qemu_co_yield_to_loop();
        g_assert_cmpint(__atomic_load_n(&bs->in_flight, __ATOMIC_SEQ_CST), ==, 0);
        bdrv_co_drained_end(bs);
        disk_queues_co_progress(d, 1);
    }
    disk_queues_co_stop(d);
    disk_queues_co_free(d);
}

static void test_drained_section_is_quiet_in_all_threads(void)
{
    aio_run_coroutine(drains_co, NULL);
}

static void coroutine_fn filter_co(void *opaque)
{
    DiskQueues *d = disk_queues_co_new(QUEUES, open_raw());
    BlockDriverState *bs = blk_bs(disk_queues_blk(d));

    bdrv_ref(bs);
    disk_queues_start(d);
    for (int i = 0; i < ROUNDS; i++) {
        BlockDriverState *filter = bdrv_new_filter(&shy_driver, NULL, BDRV_O_RDWR, NULL);

        g_assert_true(bdrv_co_set_aio_context(filter, bdrv_get_aio_context(bs), NULL));
        bdrv_co_drained_begin(bs);
        g_assert_true(bdrv_append_filter(filter, bs, NULL));
        g_assert_false(blk_is_direct(disk_queues_blk(d)));
        bdrv_co_drained_end(bs);
        disk_queues_co_progress(d, SOME);
        g_assert_false(blk_is_direct(disk_queues_blk(d)));

        bdrv_co_drained_begin(bs);
        g_assert_true(bdrv_replace_node(filter, bs, NULL));
        bdrv_co_drained_end(bs);
        bdrv_co_unref(filter);
        co_wait_direct(d);
        disk_queues_co_progress(d, SOME);
    }
    bdrv_co_unref(bs);
    disk_queues_co_stop(d);
    disk_queues_co_free(d);
}

static void test_filter_with_one_thread_serves_all_queues_while_it_is_there(void)
{
    aio_run_coroutine(filter_co, NULL);
}

static void coroutine_fn bitmap_co(void *opaque)
{
    DiskQueues *d = disk_queues_co_new(QUEUES, open_raw());
    BlockDriverState *bs = blk_bs(disk_queues_blk(d));
    g_autofree uint8_t *before = g_malloc(LOAD_BYTES), *after = g_malloc(LOAD_BYTES);

    for (int i = 0; i < SOME; i++) {
        BdrvDirtyBitmap *bitmap;
        AioContext *from;

        disk_queues_start(d);
        bdrv_co_drained_begin(bs);
        bitmap = bdrv_create_dirty_bitmap(bs, 512, NULL, NULL);
        g_assert_false(blk_is_direct(disk_queues_blk(d)));
        from = bdrv_co_enter_graph(bs);
        g_assert_cmpint(bdrv_co_pread(bs->file, 0, LOAD_BYTES, before, 0), ==, 0);
        bdrv_co_leave_graph(bs, from);
        bdrv_co_drained_end(bs);
        disk_queues_co_progress(d, 4 * SOME);
        disk_queues_co_stop(d);
        from = bdrv_co_enter_graph(bs);
        g_assert_cmpint(bdrv_co_pread(bs->file, 0, LOAD_BYTES, after, 0), ==, 0);
        bdrv_co_leave_graph(bs, from);
        for (int64_t at = 0; at < LOAD_BYTES; at += 512) {
            g_assert_true(!memcmp(before + at, after + at, 512) ||
                          hbitmap_get(bdrv_dirty_bitmap_hbitmap(bitmap), at));
        }
        bdrv_co_drained_begin(bs);
        bdrv_release_dirty_bitmap(bitmap);
        bdrv_co_drained_end(bs);
        co_wait_direct(d);
    }
    disk_queues_co_free(d);
}

static void test_bitmap_misses_no_write_of_any_queue(void)
{
    aio_run_coroutine(bitmap_co, NULL);
}

/* --- blocks that several threads share --- */

typedef struct Byte {
    BlockBackend *blk;
    int64_t at;
    AioContext *ctx;
    unsigned *running; /* main thread */
} Byte;

static void byte_done(void *opaque)
{
    Byte *b = opaque;

    --*b->running;
}

static void coroutine_fn byte_co_entry(void *opaque)
{
    Byte *b = opaque;

    for (int i = 1; i <= ROUNDS; i++) {
        uint8_t value = i, seen = 0;

        g_assert_cmpint(blk_co_pwrite(b->blk, b->at, 1, &value, 0), ==, 0);
        g_assert_cmpint(blk_co_pread(b->blk, b->at, 1, &seen, 0), ==, 0);
        g_assert_cmpint(seen, ==, value);
        g_assert_true(aio_context_in_own_thread(b->ctx));
    }
    aio_bh_schedule_oneshot(qemu_get_aio_context(), byte_done, b);
}

static void coroutine_fn shared_block_co(void *opaque)
{
    enum { BYTES = 24 };
    DiskQueues *d = disk_queues_co_new(QUEUES, open_store());
    Byte bytes[BYTES];
    unsigned running = BYTES;

    for (unsigned i = 0; i < BYTES; i++) {
        bytes[i] = (Byte){.blk = disk_queues_blk(d),
                          .at = i,
                          .ctx = disk_queues_ctx(d, i % QUEUES),
                          .running = &running};
        blk_co_spawn_in(bytes[i].blk, bytes[i].ctx, byte_co_entry, &bytes[i]);
    }
    while (running) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
    disk_queues_co_free(d);
}

static void test_unaligned_writes_of_several_threads_lose_no_byte_of_a_block(void)
{
    aio_run_coroutine(shared_block_co, NULL);
}

/* --- limits, figures --- */

static void coroutine_fn throttled_co(void *opaque)
{
    DiskQueues *d = disk_queues_co_new(QUEUES, open_raw());
    BlockBackend *blk = disk_queues_blk(d);
    BlockDriverState *bs = blk_bs(blk);
    ThrottleGroup *group = throttle_group_get("slow");
    ThrottleConfig cfg;

    throttle_config_init(&cfg);
    cfg.limits[THROTTLE_OPS_TOTAL].avg = 1; /* a request a second: only drains let them pass */
    throttle_group_set_config(group, &cfg);
    bdrv_co_drained_begin(bs);
    blk_set_throttle_group(blk, group);
    bdrv_co_drained_end(bs);
    disk_queues_start(d);
    for (int i = 0; i < ROUNDS; i++) {
        disk_queues_co_progress(d, 0);
        bdrv_co_drained_begin(bs); /* ends the waits in all threads */
        bdrv_co_drained_end(bs);
        qemu_co_yield_to_loop();
    }
    bdrv_co_drained_begin(bs);
    blk_set_throttle_group(blk, NULL);
    bdrv_co_drained_end(bs);
    disk_queues_co_progress(d, SOME);
    disk_queues_co_stop(d);
    disk_queues_co_free(d);
}

static void test_drain_ends_the_waits_for_limits_in_all_threads(void)
{
    aio_run_coroutine(throttled_co, NULL);
}

typedef struct Counted {
    BlockBackend *blk;
    unsigned *running; /* main thread */
} Counted;

static void counted_done(void *opaque)
{
    Counted *c = opaque;

    --*c->running;
}

static void coroutine_fn counted_co_entry(void *opaque)
{
    Counted *c = opaque;
    BlockAcctStats *stats = blk_get_stats(c->blk);

    for (int i = 0; i < 1000; i++) {
        BlockAcctCookie cookie;

        block_acct_start(stats, &cookie, 512, BLOCK_ACCT_READ);
        block_acct_done(stats, &cookie);
        block_acct_invalid(stats, BLOCK_ACCT_WRITE);
    }
    aio_bh_schedule_oneshot(qemu_get_aio_context(), counted_done, c);
}

static void coroutine_fn accounting_co(void *opaque)
{
    DiskQueues *d = disk_queues_co_new(QUEUES, open_store());
    unsigned running = QUEUES;
    Counted c = {.blk = disk_queues_blk(d), .running = &running};
    BlockAcctStats *stats = blk_get_stats(c.blk);

    for (unsigned i = 0; i < QUEUES; i++) {
        blk_co_spawn_in(c.blk, disk_queues_ctx(d, i), counted_co_entry, &c);
    }
    while (running) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
    g_assert_cmpint(stats->of[BLOCK_ACCT_READ].ops, ==, QUEUES * 1000);
    g_assert_cmpint(stats->of[BLOCK_ACCT_READ].bytes, ==, QUEUES * 512000);
    g_assert_cmpint(stats->of[BLOCK_ACCT_WRITE].invalid, ==, QUEUES * 1000);
    disk_queues_co_free(d);
}

static void test_accounting_counts_the_requests_of_all_threads(void)
{
    aio_run_coroutine(accounting_co, NULL);
}

/* --- contexts --- */

static void coroutine_fn moves_co(void *opaque)
{
    DiskQueues *d = disk_queues_co_new(QUEUES, open_raw());
    BlockBackend *blk = disk_queues_blk(d);
    AioContext *ctxs[QUEUES];

    disk_queues_start(d);
    for (int i = 0; i < ROUNDS; i++) {
        unsigned first = i % QUEUES;

        /* The same threads; the graph goes to another one of them each time. */
        for (unsigned j = 0; j < QUEUES; j++) {
            ctxs[j] = disk_queues_ctx(d, (first + j) % QUEUES);
        }
        g_assert_true(blk_co_bind_contexts(blk, ctxs, QUEUES, true, NULL));
        g_assert_true(blk_get_aio_context(blk) == ctxs[0] && blk_is_direct(blk));
        disk_queues_co_progress(d, SOME);
    }
    disk_queues_co_stop(d);
    disk_queues_co_free(d);
}

static void test_graph_moves_between_the_threads_of_its_disk(void)
{
    aio_run_coroutine(moves_co, NULL);
}

static void coroutine_fn medium_co(void *opaque)
{
    DiskQueues *d = disk_queues_co_new(QUEUES, NULL);
    BlockBackend *blk = disk_queues_blk(d);

    for (int i = 0; i < SOME; i++) {
        BlockDriverState *bs = open_raw();

        g_assert_false(blk_is_direct(blk));
        g_assert_true(blk_co_insert_bs(blk, bs, NULL));
        g_assert_true(blk_is_direct(blk));
        if (i == 0) {
            disk_queues_start(d);
            disk_queues_co_progress(d, SOME);
            disk_queues_co_stop(d);
        }
        blk_remove_bs(blk);
        bdrv_co_unref(bs);
        bdrv_co_close_all();
    }
    disk_queues_co_free(d);
}

static void test_medium_that_comes_later_is_served_in_all_threads(void)
{
    aio_run_coroutine(medium_co, NULL);
}

typedef struct Late {
    BlockBackend *blk;
    AioContext *done_in;
    bool done; /* main thread */
} Late;

static void late_done(void *opaque)
{
    Late *late = opaque;

    late->done = true;
}

static void coroutine_fn late_co_entry(void *opaque)
{
    Late *late = opaque;
    uint8_t buf[512] = {0};

    g_assert_cmpint(blk_co_pwrite(late->blk, 0, sizeof(buf), buf, 0), ==, 0);
    late->done_in = qemu_get_current_aio_context();
    aio_bh_schedule_oneshot(qemu_get_aio_context(), late_done, late);
}

static void coroutine_fn unbound_co(void *opaque)
{
    DiskQueues *d = disk_queues_co_new(QUEUES, open_store());
    BlockBackend *blk = disk_queues_blk(d);
    BlockDriverState *bs = blk_bs(blk);
    AioContext *ctxs[] = {disk_queues_ctx(d, 0), disk_queues_ctx(d, 1)};

    for (int i = 0; i < ROUNDS; i++) {
        Late stays = {.blk = blk}, goes = {.blk = blk};

        /* They wait at the gate, or have not got there. */
        bdrv_co_drained_begin(bs);
        blk_co_spawn_in(blk, disk_queues_ctx(d, 1), late_co_entry, &stays);
        blk_co_spawn_in(blk, disk_queues_ctx(d, 2), late_co_entry, &goes);
        g_assert_true(blk_co_bind_contexts(blk, ctxs, 2, true, NULL));
        bdrv_co_drained_end(bs);
        while (!stays.done || !goes.done) {
            qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
        }
        g_assert_true(stays.done_in == ctxs[1]);
        g_assert_true(goes.done_in == ctxs[0]);
        g_assert_true(blk_co_bind_contexts(
            blk, (AioContext *[]){ctxs[0], ctxs[1], disk_queues_ctx(d, 2)}, 3, true, NULL));
    }
    disk_queues_co_free(d);
}

static void test_request_of_a_thread_that_is_unbound_goes_on_in_the_graphs(void)
{
    aio_run_coroutine(unbound_co, NULL);
}

/* --- at the same time --- */

typedef struct Binder {
    BlockBackend *blk;
    AioContext *ctxs[2];
    unsigned n; /* 0: it unbinds */
    unsigned *running;
} Binder;

static void coroutine_fn binder_co_entry(void *opaque)
{
    Binder *b = opaque;
    int refused = 0;

    for (int i = 0; i < ROUNDS; i++) {
        if (b->n) {
            refused += !blk_co_bind_contexts(b->blk, b->ctxs, b->n, i & 1, NULL);
        } else {
            blk_co_unbind_context(b->blk);
        }
        qemu_co_yield_to_loop();
    }
    g_test_message("%d of %d refused", refused, ROUNDS);
    --*b->running;
}

static void coroutine_fn binders_co(void *opaque)
{
    DiskQueues *d = disk_queues_co_new(QUEUES, open_store());
    AioContext *ctx[] = {disk_queues_ctx(d, 0), disk_queues_ctx(d, 1), disk_queues_ctx(d, 2)};
    BlockBackend *blk = disk_queues_blk(d), *other = blk_new(0, BLK_PERM_ALL);
    unsigned running = 5;
    Binder binders[] = {
        {blk, {ctx[0], ctx[1]}, 2, &running}, {blk, {ctx[2]}, 1, &running},
        {blk, {NULL}, 0, &running},           {other, {ctx[1], ctx[2]}, 2, &running},
        {other, {NULL}, 0, &running},
    };

    g_assert_true(blk_insert_bs(other, blk_bs(blk), NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(binders); i++) {
        qemu_coroutine_enter(qemu_coroutine_create(binder_co_entry, &binders[i]));
    }
    while (running) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
    blk_co_unbind_context(other);
    blk_co_unbind_context(blk);
    g_assert_true(blk_get_aio_context(blk) == qemu_get_aio_context() && !blk_is_direct(blk));
    g_assert_true(blk_co_bind_contexts(blk, ctx, 3, true, NULL));
    g_assert_true(blk_is_direct(blk));
    disk_queues_start(d);
    disk_queues_co_progress(d, SOME);
    disk_queues_co_stop(d);
    blk_unref(other);
    disk_queues_co_free(d);
}

static void test_binds_and_unbinds_at_once_leave_what_the_last_one_wished(void)
{
    aio_run_coroutine(binders_co, NULL);
}

static void coroutine_fn fixed_co(void *opaque)
{
    DiskQueues *d = disk_queues_co_new(QUEUES, open_store());
    BlockBackend *other = blk_new(0, BLK_PERM_ALL);
    g_autoptr(GError) err = NULL;

    g_assert_true(blk_insert_bs(other, blk_bs(disk_queues_blk(d)), NULL));
    g_assert_false(blk_co_bind_context(other, disk_queues_ctx(d, 1), true, &err));
    g_assert_nonnull(strstr(err->message, "keeps it in iothread 'q0'"));
    g_assert_true(blk_is_direct(disk_queues_blk(d)));
    disk_queues_start(d);
    disk_queues_co_progress(d, SOME);
    disk_queues_co_stop(d);
    blk_unref(other);
    disk_queues_co_free(d);
}

static void test_refused_user_changes_nothing_for_the_queues(void)
{
    aio_run_coroutine(fixed_co, NULL);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    folder = image_folder_new();
    g_test_add_data_func("/block-queues/data/raw", (gconstpointer)open_raw,
                         test_all_queues_write_and_read_what_they_wrote);
    g_test_add_data_func("/block-queues/data/store", (gconstpointer)open_store,
                         test_all_queues_write_and_read_what_they_wrote);
    g_test_add_func("/block-queues/drains", test_drained_section_is_quiet_in_all_threads);
    g_test_add_func("/block-queues/filter",
                    test_filter_with_one_thread_serves_all_queues_while_it_is_there);
    g_test_add_func("/block-queues/bitmap", test_bitmap_misses_no_write_of_any_queue);
    g_test_add_func("/block-queues/shared-block",
                    test_unaligned_writes_of_several_threads_lose_no_byte_of_a_block);
    g_test_add_func("/block-queues/throttled", test_drain_ends_the_waits_for_limits_in_all_threads);
    g_test_add_func("/block-queues/accounting", test_accounting_counts_the_requests_of_all_threads);
    g_test_add_func("/block-queues/moves", test_graph_moves_between_the_threads_of_its_disk);
    g_test_add_func("/block-queues/medium", test_medium_that_comes_later_is_served_in_all_threads);
    g_test_add_func("/block-queues/unbound",
                    test_request_of_a_thread_that_is_unbound_goes_on_in_the_graphs);
    g_test_add_func("/block-queues/binders",
                    test_binds_and_unbinds_at_once_leave_what_the_last_one_wished);
    g_test_add_func("/block-queues/fixed", test_refused_user_changes_nothing_for_the_queues);
    ret = g_test_run();
    image_folder_remove(folder);
    return ret;
}
