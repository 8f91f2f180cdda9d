/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mirror job over real files, in one process: several writers change the source and remember
 * the writes that were acknowledged. Meanwhile the job is paused, resumed, limited in speed,
 * switched between copy modes, and ended one way or another. At its end source and copy are
 * compared with the writers' record, byte by byte.
 */
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "block/block-backend.h"
#include "block/block_int.h"
#include "block/job/job.h"
#include "block/mirror.h"
#include "qapi/event.h"
#include "util/error.h"
#include "util/iothread.h"

#define IMAGE_BYTES   (8 << 20)
#define WRITERS       4
#define MAX_REQUEST   (192 << 10)
#define READ_WRITE    (BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE)
#define SCHEDULES     60
#define SCHEDULES_FST 8

static char *dir;
static GString *told; /* names of the events since the last look */

static void record_event(const char *name, json_object *data)
{
    json_object *error;

    if (strcmp(name, "JOB_STATUS_CHANGE") != 0 && strcmp(name, "BLOCK_JOB_CONVERGING") != 0) {
        g_string_append_printf(told, "%s%s", told->len ? " " : "", name);
        if (json_object_object_get_ex(data, "error", &error)) {
            g_string_append_printf(told, "(%s)", json_object_get_string(error));
        }
    }
    json_object_put(data);
}

typedef struct World {
    GRand *rng;      /* the writers' */
    GRand *verbs;    /* the controller's */
    AioContext *ctx; /* where the disk lives */
    BlockDriverState *source, *target;
    BlockBackend *disk; /* what the writers use */
    char *source_path, *target_path;
    uint8_t *model;
    bool stop;
    int writers;
    int64_t writes;
    Job *job;
} World;

static char *image(const char *name, const uint8_t *data, int64_t data_bytes)
{
    char *path = g_build_filename(dir, name, NULL);
    FILE *f = fopen(path, "w");

    g_assert_nonnull(f);
    if (data_bytes) {
        g_assert_cmpint(fwrite(data, data_bytes, 1, f), ==, 1);
    }
    fflush(f);
    g_assert_cmpint(ftruncate(fileno(f), IMAGE_BYTES), ==, 0);
    fclose(f);
    return path;
}

static BlockDriverState *coroutine_fn open_raw(const char *path, const char *node)
{
    g_autoptr(GError) err = NULL;
    BlockDriverState *bs =
        bdrv_co_open_filename(path, "raw", node, BDRV_O_RDWR | BDRV_O_UNMAP, &err);

    g_assert_no_error(err);
    return bs;
}

static void fill_random(World *w, uint8_t *buf, int64_t bytes)
{
    for (int64_t i = 0; i + 4 <= bytes; i += 4) {
        uint32_t v = g_rand_int(w->rng);

        memcpy(buf + i, &v, 4);
    }
}

static World *coroutine_fn world_new(uint32_t seed, bool dirty_target, AioContext *ctx)
{
    World *w = g_new0(World, 1);
    GError *err = NULL;

    w->ctx = ctx;
    w->rng = g_rand_new_with_seed(seed);
    w->verbs = g_rand_new_with_seed(seed + 1000000);
    w->model = g_malloc0(IMAGE_BYTES);
    fill_random(w, w->model, IMAGE_BYTES / 2);
    w->source_path = image("source.raw", w->model, IMAGE_BYTES / 2);
    if (dirty_target) {
        g_autofree uint8_t *junk = g_malloc(IMAGE_BYTES);

        memset(junk, 0x55, IMAGE_BYTES);
        w->target_path = image("target.raw", junk, IMAGE_BYTES);
    } else {
        w->target_path = image("target.raw", NULL, 0);
    }
    w->source = open_raw(w->source_path, "source");
    w->target = open_raw(w->target_path, "target");
    w->disk = blk_new(READ_WRITE, BLK_PERM_ALL);
    g_assert_true(blk_insert_bs(w->disk, w->source, &err));
    g_assert_true(blk_co_bind_context(w->disk, ctx, true, &err));
    g_assert_true(bdrv_co_set_aio_context(w->target, ctx, &err));
    return w;
}

static void assert_file_is(const char *path, const uint8_t *model)
{
    g_autofree char *contents = NULL;
    gsize length;

    g_assert_true(g_file_get_contents(path, &contents, &length, NULL));
    g_assert_cmpint(length, ==, IMAGE_BYTES);
    for (int64_t i = 0; i < IMAGE_BYTES; i++) {
        if ((uint8_t)contents[i] != model[i]) {
            g_test_message("%s differs at %" PRId64, path, i);
            g_test_fail();
            g_assert_not_reached();
        }
    }
}

static void coroutine_fn world_free(World *w)
{
    blk_co_unbind_context(w->disk);
    g_assert_true(bdrv_co_set_aio_context(w->target, qemu_get_aio_context(), NULL));
    blk_unref(w->disk);
    bdrv_co_unref(w->source);
    bdrv_co_unref(w->target);
    bdrv_co_close_all();
    g_rand_free(w->rng);
    g_rand_free(w->verbs);
    g_free(w->model);
    g_free(w->source_path);
    g_free(w->target_path);
    g_free(w);
}

/* --- writers --- */

typedef struct Writer {
    World *w;
    int64_t start, bytes; /* its part of the disk: what it was acknowledged is certain */
} Writer;

static void coroutine_fn write_once(Writer *self, uint8_t *buf)
{
    World *w = self->w;
    int64_t len = g_rand_int_range(w->rng, 1, MAX_REQUEST);
    int64_t off = self->start + g_rand_int_range(w->rng, 0, self->bytes - len);
    int kind = g_rand_int_range(w->rng, 0, 10);

    if (g_rand_boolean(w->rng)) {
        off &= ~511;
        len = MAX(512, len & ~511);
    }
    if (kind < 7) {
        fill_random(w, buf, len);
        g_assert_cmpint(blk_co_pwrite(w->disk, off, len, buf, kind == 6 ? BDRV_REQ_FUA : 0), ==, 0);
        memcpy(w->model + off, buf, len);
    } else if (kind < 9) {
        g_assert_cmpint(blk_co_pwrite_zeroes(w->disk, off, len, kind == 8 ? BDRV_REQ_MAY_UNMAP : 0),
                        ==, 0);
        memset(w->model + off, 0, len);
    } else {
        g_assert_cmpint(blk_co_flush(w->disk), ==, 0);
    }
    w->writes++;
}

static void coroutine_fn writer_entry(void *opaque)
{
    Writer *self = opaque;
    World *w = self->w;
    g_autofree uint8_t *buf = g_malloc(MAX_REQUEST);

    while (!__atomic_load_n(&w->stop, __ATOMIC_SEQ_CST)) {
        write_once(self, buf);
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, g_rand_int_range(w->rng, 0, 400) * SCALE_US);
    }
    __atomic_fetch_sub(&w->writers, 1, __ATOMIC_SEQ_CST);
    g_free(self);
}

static void start_writers(World *w)
{
    for (int i = 0; i < WRITERS; i++) {
        Writer *self = g_new(Writer, 1);

        *self = (Writer){
            .w = w, .start = (int64_t)i * (IMAGE_BYTES / WRITERS), .bytes = IMAGE_BYTES / WRITERS};
        __atomic_fetch_add(&w->writers, 1, __ATOMIC_SEQ_CST);
        aio_co_schedule(w->ctx, qemu_coroutine_create(writer_entry, self));
    }
}

static void coroutine_fn stop_writers(World *w)
{
    __atomic_store_n(&w->stop, true, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&w->writers, __ATOMIC_SEQ_CST)) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
}

/* --- the job --- */

static void coroutine_fn start_mirror(World *w, const MirrorOptions *opts)
{
    MirrorOptions o = *opts;
    GError *err = NULL;

    g_string_truncate(told, 0);
    o.job_id = "m";
    o.source = w->source;
    o.target = w->target;
    bool ok = mirror_co_start(&o, &err);

    g_assert_no_error(err);
    g_assert_true(ok);
    w->job = job_get("m");
    job_ref(w->job);
}

static void coroutine_fn wait_status(World *w, JobStatus status)
{
    while (w->job->status != status && w->job->status != JOB_STATUS_NULL) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
    g_assert_cmpstr(JobStatus_str(w->job->status), ==, JobStatus_str(status));
}

static void random_verb(World *w)
{
    BlockJobChangeOptions change = {.id = (char *)"m", .type = JOB_TYPE_MIRROR};

    switch (g_rand_int_range(w->verbs, 0, 6)) {
    case 0:
        (void)job_user_pause(w->job, NULL);
        break;
    case 1:
    case 2:
        (void)job_user_resume(w->job, NULL);
        break;
    case 3:
        change.u.mirror.copy_mode = g_rand_boolean(w->verbs) ? MIRROR_COPY_MODE_BACKGROUND
                                                             : MIRROR_COPY_MODE_WRITE_BLOCKING;
        (void)job_change(w->job, &change, NULL);
        break;
    case 4:
        (void)block_job_set_speed(block_job_of(w->job), g_rand_boolean(w->verbs) ? 0 : 16 << 20,
                                  NULL);
        break;
    default:
        qapi_free_BlockJobInfo(block_job_query(block_job_of(w->job)));
        break;
    }
}

static void coroutine_fn run_schedule(uint32_t seed, AioContext *ctx)
{
    World *w = world_new(seed, seed % 3 == 0, ctx);
    MirrorOptions opts = {
        .sync = MIRROR_SYNC_MODE_FULL,
        .copy_mode = seed % 2 ? MIRROR_COPY_MODE_WRITE_BLOCKING : MIRROR_COPY_MODE_BACKGROUND,
        .granularity = 4096u << (seed % 6),
        .buf_size = seed % 5 ? 0 : 256 << 10,
        .unmap = seed % 4 != 0,
        .converge = seed % 3 != 1,
    };
    bool pivot = g_rand_boolean(w->verbs), force = g_rand_int_range(w->verbs, 0, 8) == 0;
    int steps = g_rand_int_range(w->verbs, 5, 40);

    start_writers(w);
    start_mirror(w, &opts);
    for (int i = 0; i < steps; i++) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, g_rand_int_range(w->verbs, 0, 3000) * SCALE_US);
        random_verb(w);
    }
    (void)job_user_resume(w->job, NULL);
    (void)block_job_set_speed(block_job_of(w->job), 0, NULL);
    if (force) {
        g_assert_true(job_user_cancel(w->job, true, NULL));
        wait_status(w, JOB_STATUS_NULL);
        g_assert_true(g_str_has_suffix(told->str, "BLOCK_JOB_CANCELLED"));
        stop_writers(w);
    } else {
        wait_status(w, JOB_STATUS_READY);
        if (pivot) {
            g_assert_true(job_complete(w->job, NULL));
            wait_status(w, JOB_STATUS_NULL);
            for (int i = 0; i < 20; i++) {
                qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
            }
            stop_writers(w);
            g_assert_true(blk_bs(w->disk) == w->target);
        } else {
            stop_writers(w);
            g_assert_true(job_user_cancel(w->job, false, NULL));
            wait_status(w, JOB_STATUS_NULL);
            g_assert_true(blk_bs(w->disk) == w->source);
        }
        g_assert_true(g_str_has_suffix(told->str, "BLOCK_JOB_COMPLETED"));
        assert_file_is(w->target_path, w->model);
    }
    if (force || !pivot) {
        assert_file_is(w->source_path, w->model);
    }
    job_unref(w->job);
    world_free(w);
}

static void coroutine_fn schedules_entry(void *opaque)
{
    int count = g_test_slow() ? SCHEDULES : SCHEDULES_FST;
    const char *only = g_getenv("MIRROR_SEED");

    for (uint32_t seed = only ? atoi(only) : 1; seed <= (uint32_t)(only ? atoi(only) : count);
         seed++) {
        g_test_message("seed %u", seed);
        run_schedule(seed, opaque);
    }
}

static void test_schedules(void)
{
    aio_run_coroutine(schedules_entry, qemu_get_aio_context());
}

static void test_schedules_iothread(void)
{
    IOThread *iothread = iothread_new("disk", NULL);

    g_assert_nonnull(iothread);
    aio_run_coroutine(schedules_entry, iothread_get_aio_context(iothread));
    iothread_free(iothread);
}

/* --- single promises --- */

static int64_t allocated(const char *path)
{
    struct stat st;

    g_assert_cmpint(stat(path, &st), ==, 0);
    return st.st_blocks * 512;
}

/*
 * Holes stay holes, whether the target was empty or full of other data, and small writes do not
 * grow the copy by granules.
 */
static void coroutine_fn thin_entry(void *opaque)
{
    for (int dirty = 0; dirty < 2; dirty++) {
        World *w = world_new(7, dirty, qemu_get_aio_context());
        MirrorOptions opts = {.sync = MIRROR_SYNC_MODE_FULL, .unmap = true};
        uint8_t page[4096];

        start_mirror(w, &opts);
        for (int i = 0; i < 8; i++) {
            int64_t off = IMAGE_BYTES / 2 + i * (256 << 10);

            fill_random(w, page, sizeof(page));
            g_assert_cmpint(blk_co_pwrite(w->disk, off, sizeof(page), page, 0), ==, 0);
            memcpy(w->model + off, page, sizeof(page));
        }
        wait_status(w, JOB_STATUS_READY);
        g_assert_true(job_user_cancel(w->job, false, NULL));
        wait_status(w, JOB_STATUS_NULL);
        assert_file_is(w->target_path, w->model);
        /* The file system's own blocks for extents count as well. */
        g_assert_cmpint(allocated(w->target_path), <=, allocated(w->source_path) + (32 << 10));
        job_unref(w->job);
        world_free(w);
    }
}

static void test_thin(void)
{
    aio_run_coroutine(thin_entry, NULL);
}

/*
 * With manual finalize guests go on writing while the copy waits; it is equal at the pivot all the
 * same.
 */
static void coroutine_fn finalize_entry(void *opaque)
{
    World *w = world_new(11, false, qemu_get_aio_context());
    MirrorOptions opts = {
        .sync = MIRROR_SYNC_MODE_FULL, .unmap = true, .flags = JOB_MANUAL_FINALIZE};

    start_writers(w);
    start_mirror(w, &opts);
    wait_status(w, JOB_STATUS_READY);
    g_assert_true(job_complete(w->job, NULL));
    wait_status(w, JOB_STATUS_PENDING);
    int64_t before = w->writes;
    while (w->writes < before + 50) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
    g_assert_true(job_finalize(w->job, NULL));
    wait_status(w, JOB_STATUS_NULL);
    g_assert_cmpstr(told->str, ==, "BLOCK_JOB_READY BLOCK_JOB_PENDING BLOCK_JOB_COMPLETED");
    g_assert_true(blk_bs(w->disk) == w->target);
    stop_writers(w);
    assert_file_is(w->target_path, w->model);
    job_unref(w->job);
    world_free(w);
}

static void test_finalize(void)
{
    aio_run_coroutine(finalize_entry, NULL);
}

/* sync=none copies what is written from now on, and only that. */
static void coroutine_fn none_entry(void *opaque)
{
    World *w = world_new(13, false, qemu_get_aio_context());
    MirrorOptions opts = {.sync = MIRROR_SYNC_MODE_NONE, .unmap = true};
    g_autofree uint8_t *expected = g_malloc0(IMAGE_BYTES);
    uint8_t block[65536];

    start_mirror(w, &opts);
    wait_status(w, JOB_STATUS_READY);
    fill_random(w, block, sizeof(block));
    g_assert_cmpint(blk_co_pwrite(w->disk, 1 << 20, sizeof(block), block, 0), ==, 0);
    memcpy(expected + (1 << 20), block, sizeof(block));
    g_assert_true(job_user_cancel(w->job, false, NULL));
    wait_status(w, JOB_STATUS_NULL);
    assert_file_is(w->target_path, expected);
    job_unref(w->job);
    world_free(w);
}

/* One parent that may not move: then all stay, and guests go on with the source. */
static void coroutine_fn refused_pivot_entry(void *opaque)
{
    World *w = world_new(17, false, qemu_get_aio_context());
    MirrorOptions opts = {.sync = MIRROR_SYNC_MODE_FULL, .unmap = true};
    BlockBackend *joined = blk_new(BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);

    start_writers(w);
    start_mirror(w, &opts);
    g_assert_true(blk_insert_bs(joined, w->source, NULL)); /* below the filter */
    blk_root(joined)->frozen = true;
    wait_status(w, JOB_STATUS_READY);
    g_assert_true(job_complete(w->job, NULL));
    wait_status(w, JOB_STATUS_NULL);
    g_assert_cmpint(w->job->ret, ==, -EPERM);
    g_assert_true(blk_bs(w->disk) == w->source);
    g_assert_true(blk_bs(joined) == w->source);
    stop_writers(w);
    assert_file_is(w->source_path, w->model);
    blk_root(joined)->frozen = false;
    blk_unref(joined);
    job_unref(w->job);
    world_free(w);
}

static void test_refused_pivot(void)
{
    aio_run_coroutine(refused_pivot_entry, NULL);
}

static void test_none(void)
{
    aio_run_coroutine(none_entry, NULL);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    told = g_string_new(NULL);
    qapi_event_set_sink(record_event);
    dir = g_dir_make_tmp("test-mirror-XXXXXX", NULL);
    g_assert_nonnull(dir);

    g_test_add_func("/mirror/none", test_none);
    g_test_add_func("/mirror/thin", test_thin);
    g_test_add_func("/mirror/finalize", test_finalize);
    g_test_add_func("/mirror/refused-pivot", test_refused_pivot);
    g_test_add_func("/mirror/schedules/main", test_schedules);
    g_test_add_func("/mirror/schedules/iothread", test_schedules_iothread);
    ret = g_test_run();

    g_autofree char *source = g_build_filename(dir, "source.raw", NULL);
    g_autofree char *target = g_build_filename(dir, "target.raw", NULL);

    unlink(source);
    unlink(target);
    rmdir(dir);
    return ret;
}
