/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The qcow2 driver over real files: random requests from several coroutines against a model in
 * memory, for many shapes of images. After each, stock qemu-img (where installed) checks the image
 * and converts it, and the result is compared with the model. FERRY_SLOW=1 in the environment: the
 * full number of requests.
 */
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "block/block-backend.h"
#include "block/block_int.h"
#include "block/qcow2/qcow2.h"
#include "util/error.h"
#include "tests/unit/qcow2-fixture.h"

#define READ_WRITE (BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE)
#define WORKERS    4

typedef struct Shape {
    const char *name;
    const char *create;  /* JSON members for blockdev-create, each followed by a comma */
    const char *options; /* JSON members for blockdev-add, the same */
    int64_t size;
    int ops;
    bool backing, compress, data_file;
    int snapshots; /* internal ones, made by qemu-img before */
} Shape;

typedef struct Run {
    const Shape *shape;
    BlockDriverState *bs;
    BlockBackend *blk;
    uint8_t *model;
    int running;
    unsigned seed;
} Run;

static char *dir;
static bool have_qemu_img;

/* How many of n requests are made. */
static int scaled(int n)
{
    return g_getenv("FERRY_SLOW") ? n : n * 2 / 5;
}

static char *in_dir(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static void touch(const char *path)
{
    g_assert_true(g_file_set_contents(path, "", 0, NULL));
}

static void run_command(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
static void run_command(const char *fmt, ...)
{
    g_autofree char *cmd = NULL, *out = NULL, *errors = NULL;
    int status = -1;
    va_list ap;

    va_start(ap, fmt);
    cmd = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_assert_true(g_spawn_command_line_sync(cmd, &out, &errors, &status, NULL));
    if (status != 0) {
        g_error("%s: status %d\n%s%s", cmd, status, out, errors);
    }
}

static void coroutine_fn create_image(const Shape *shape, const char *path)
{
    g_autofree char *data = g_strdup_printf("%s.data", path), *json = NULL, *data_json = NULL;

    touch(path);
    if (shape->data_file) {
        touch(data);
        data_json = g_strdup_printf("'data-file':{'driver':'file','filename':'%s'},", data);
    }
    json = g_strdup_printf("{'driver':'qcow2','file':{'driver':'file','filename':'%s'},%s%s%s"
                           "'size':%" G_GINT64_FORMAT "}",
                           path, data_json ? data_json : "", shape->create,
                           shape->backing ? "'backing-file':'base.raw','backing-fmt':'raw'," : "",
                           shape->size);
    create_qcow2(json);
}

static BlockDriverState *coroutine_fn open_image(const Shape *shape, const char *path)
{
    g_autofree char *data =
        shape->data_file
            ? g_strdup_printf("'data-file':{'driver':'file','filename':'%s.data'},", path)
            : g_strdup("");
    g_autofree char *json = g_strdup_printf("{'driver':'qcow2','node-name':'q','discard':'unmap',%"
                                            "s%s'file':{'driver':'file','filename':'%s'}}",
                                            shape->options, data, path);

    return open_node(json);
}

/*
 * The bytes of worker w: stripes that are not aligned to anything, so that workers meet in
 * clusters.
 */
#define STRIPE 3333

static void random_range(GRand *rng, const Run *run, int w, int64_t *offset, int64_t *bytes)
{
    int64_t stripes = run->shape->size / (STRIPE * WORKERS);
    int64_t start = ((int64_t)g_rand_int_range(rng, 0, stripes) * WORKERS + w) * STRIPE;

    *offset = start + (g_rand_int_range(rng, 0, 3) ? g_rand_int_range(rng, 0, STRIPE - 1) : 0);
    *bytes = g_rand_int_range(rng, 1, start + STRIPE - *offset + 1);
}

static void fill_random(GRand *rng, uint8_t *buf, int64_t bytes)
{
    uint8_t byte = g_rand_int(rng) | 1;

    /* Runs of one byte, so that it compresses, with some noise. */
    memset(buf, byte, bytes);
    for (int64_t i = 0; i < bytes; i += 97) {
        buf[i] = g_rand_int(rng);
    }
}

static void coroutine_fn one_op(Run *run, GRand *rng, uint8_t *buf, int w)
{
    int64_t offset, bytes;

    random_range(rng, run, w, &offset, &bytes);
    switch (g_rand_int_range(rng, 0, 10)) {
    case 0 ... 4:
        fill_random(rng, buf, bytes);
        g_assert_cmpint(blk_co_pwrite(run->blk, offset, bytes, buf, 0), ==, 0);
        memcpy(run->model + offset, buf, bytes);
        break;
    case 5:
        g_assert_cmpint(blk_co_pwrite_zeroes(run->blk, offset, bytes,
                                             g_rand_boolean(rng) ? BDRV_REQ_MAY_UNMAP : 0),
                        ==, 0);
        memset(run->model + offset, 0, bytes);
        break;
    case 6:
        if (g_rand_int_range(rng, 0, 8) == 0) {
            g_assert_cmpint(blk_co_flush(run->blk), ==, 0);
        }
        break;
    default:
        g_assert_cmpint(blk_co_pread(run->blk, offset, bytes, buf, 0), ==, 0);
        g_assert_cmpmem(buf, bytes, run->model + offset, bytes);
    }
}

typedef struct Worker {
    Run *run;
    int index;
} Worker;

static void coroutine_fn worker_co(void *opaque)
{
    Worker *worker = opaque;
    Run *run = worker->run;
    g_autoptr(GRand) rng = g_rand_new_with_seed(run->seed + worker->index);
    g_autofree uint8_t *buf = g_malloc(STRIPE);

    for (int i = 0; i < scaled(run->shape->ops); i++) {
        one_op(run, rng, buf, worker->index);
    }
    run->running--;
    g_free(worker);
}

/* Large requests over whole clusters, one after the other. */
static void coroutine_fn large_ops(Run *run, GRand *rng)
{
    int64_t size = run->shape->size, max = MIN(size, 3 << 20);
    g_autofree uint8_t *buf = g_malloc(max);

    for (int i = 0; i < scaled(40); i++) {
        int64_t bytes = g_rand_int_range(rng, 1, max),
                offset = g_rand_int_range(rng, 0, size - bytes + 1);
        int op = g_rand_int_range(rng, 0, 6);
        BDRVQcow2State *s = run->bs->opaque;

        switch (op) {
        case 0:
        case 1:
            fill_random(rng, buf, bytes);
            g_assert_cmpint(blk_co_pwrite(run->blk, offset, bytes, buf, 0), ==, 0);
            memcpy(run->model + offset, buf, bytes);
            break;
        case 2:
            g_assert_cmpint(blk_co_pwrite_zeroes(run->blk, offset, bytes, BDRV_REQ_MAY_UNMAP), ==,
                            0);
            memset(run->model + offset, 0, bytes);
            break;
        case 3: /* what is discarded may read as zeroes or as before: make it known again */
            g_assert_cmpint(blk_co_pdiscard(run->blk, offset, bytes), ==, 0);
            g_assert_cmpint(blk_co_pread(run->blk, offset, bytes, run->model + offset, 0), ==, 0);
            break;
        case 4:
            if (run->shape->compress) {
                offset = qcow2_cluster_start(s, offset);
                bytes = MIN(qcow2_cluster_end(s, bytes), (uint64_t)(size - offset));
                bytes = MIN(bytes, max & ~(int64_t)(s->cluster_size - 1));
                fill_random(rng, buf, bytes);
                g_assert_cmpint(
                    blk_co_pwrite(run->blk, offset, bytes, buf, BDRV_REQ_WRITE_COMPRESSED), ==, 0);
                memcpy(run->model + offset, buf, bytes);
            }
            break;
        default:
            g_assert_cmpint(blk_co_pread(run->blk, offset, bytes, buf, 0), ==, 0);
            g_assert_cmpmem(buf, bytes, run->model + offset, bytes);
        }
    }
}

static void coroutine_fn verify_all(BlockBackend *blk, const uint8_t *model, int64_t size)
{
    g_autofree uint8_t *buf = g_malloc(1 << 20);

    for (int64_t pos = 0; pos < size; pos += 1 << 20) {
        int64_t n = MIN(size - pos, 1 << 20);
        g_assert_cmpint(blk_co_pread(blk, pos, n, buf, 0), ==, 0);
        g_assert_cmpmem(buf, n, model + pos, n);
    }
}

static void coroutine_fn verify_status(Run *run)
{
    int64_t pos = 0;

    while (pos < run->shape->size) {
        BdrvBlockStatus st;
        g_assert_cmpint(bdrv_co_block_status_above(run->bs, NULL, pos, run->shape->size - pos, &st),
                        ==, 0);
        g_assert_cmpint(st.pnum, >, 0);
        if (st.flags & BDRV_BLOCK_ZERO) {
            for (int64_t i = 0; i < st.pnum; i++) {
                g_assert_cmpint(run->model[pos + i], ==, 0);
            }
        }
        pos += st.pnum;
    }
}

static void verify_with_qemu_img(const Shape *shape, const char *path, const uint8_t *model)
{
    g_autofree char *raw = in_dir("converted.raw"), *contents = NULL;
    gsize length;

    if (!have_qemu_img) {
        return;
    }
    run_command("qemu-img check %s", path);
    run_command("qemu-img convert -O raw %s %s", path, raw);
    g_assert_true(g_file_get_contents(raw, &contents, &length, NULL));
    g_assert_cmpmem(contents, length, model, shape->size);
    g_unlink(raw);
}

static void coroutine_fn attach(Run *run, const char *path)
{
    g_autoptr(GError) err = NULL;

    run->bs = open_image(run->shape, path);
    run->blk = blk_new(READ_WRITE, BLK_PERM_ALL);
    g_assert_true(blk_insert_bs(run->blk, run->bs, &err));
}

static void coroutine_fn detach(Run *run)
{
    blk_unref(run->blk);
    bdrv_co_unref(run->bs);
    bdrv_co_close_all();
}

static void coroutine_fn workers_round(Run *run)
{
    run->running = WORKERS;
    for (int i = 0; i < WORKERS; i++) {
        Worker *w = g_new(Worker, 1);
        *w = (Worker){run, i};
        qemu_coroutine_enter(qemu_coroutine_create(worker_co, w));
    }
    while (run->running) {
        qemu_co_yield_to_loop();
    }
    run->seed += WORKERS;
}

/* Another process reads the image while it is ours no longer. */
static void coroutine_fn hand_over_and_back(Run *run, const char *path)
{
    g_autoptr(GError) err = NULL;

    bdrv_co_drained_begin(run->bs);
    g_assert_cmpint(bdrv_qcow2.bdrv_co_inactivate(run->bs), ==, 0);
    if (have_qemu_img) {
        run_command("qemu-img check -U %s", path);
    }
    g_assert_true(bdrv_qcow2.bdrv_co_invalidate_cache(run->bs, &err));
    g_assert_no_error(err);
    bdrv_co_drained_end(run->bs);
    verify_all(run->blk, run->model, run->shape->size);
}

static void coroutine_fn shape_co(void *opaque)
{
    const Shape *shape = opaque;
    Run run = {.shape = shape, .model = g_malloc0(shape->size), .seed = 1000};
    g_autofree char *path = in_dir("test.qcow2"), *base = in_dir("base.raw");
    g_autoptr(GRand) rng = g_rand_new_with_seed(7);

    if (shape->backing) {
        fill_random(rng, run.model, shape->size * 2 / 3 + 777);
        g_assert_true(
            g_file_set_contents(base, (char *)run.model, shape->size * 2 / 3 + 777, NULL));
        /*
         * The end of a raw file is rounded up to a sector by readers; it reads as zeroes from
         * there.
         */
    }
    create_image(shape, path);
    verify_with_qemu_img(shape, path, run.model);
    for (int round = 0; round < 2; round++) {
        if (shape->snapshots > round && have_qemu_img) {
            run_command("qemu-img snapshot -c s%d %s", round, path);
        }
        attach(&run, path);
        verify_all(run.blk, run.model, shape->size);
        workers_round(&run);
        large_ops(&run, rng);
        hand_over_and_back(&run, path);
        workers_round(&run);
        verify_all(run.blk, run.model, shape->size);
        verify_status(&run);
        detach(&run);
        verify_with_qemu_img(shape, path, run.model);
    }
    g_free(run.model);
    g_unlink(path);
    g_unlink(base);
}

static void test_shape(gconstpointer data)
{
    aio_run_coroutine(shape_co, (void *)data);
}

static const Shape shapes[] = {
    {.name = "default", .create = "", .options = "", .size = 20 << 20, .ops = 400},
    {.name = "v2",
     .create = "'version':'v2',",
     .options = "",
     .size = 8 << 20,
     .ops = 300,
     .compress = true},
    {.name = "v2-backing",
     .create = "'version':'v2',",
     .options = "",
     .size = 8 << 20,
     .ops = 300,
     .backing = true},
    {.name = "backing",
     .create = "",
     .options = "",
     .size = 10 << 20,
     .ops = 300,
     .backing = true,
     .compress = true},
    {.name = "c512",
     .create = "'cluster-size':512,",
     .options = "",
     .size = 5 << 20,
     .ops = 300,
     .compress = true},
    {.name = "c512-r64",
     .create = "'cluster-size':512,'refcount-bits':64,",
     .options = "",
     .size = 5 << 20,
     .ops = 300},
    {.name = "c512-r1",
     .create = "'cluster-size':512,'refcount-bits':1,",
     .options = "",
     .size = 5 << 20,
     .ops = 300,
     .compress = true},
    {.name = "c2m",
     .create = "'cluster-size':2097152,",
     .options = "",
     .size = 24 << 20,
     .ops = 200,
     .compress = true},
    {.name = "c4k-small-caches",
     .create = "'cluster-size':4096,",
     .options = "'l2-cache-size':4096,'l2-cache-entry-size':512,'refcount-cache-size':16384,",
     .size = 12 << 20,
     .ops = 300},
    {.name = "r2",
     .create = "'refcount-bits':2,",
     .options = "",
     .size = 8 << 20,
     .ops = 300,
     .compress = true},
    {.name = "zstd",
     .create = "'compression-type':'zstd',",
     .options = "",
     .size = 8 << 20,
     .ops = 300,
     .compress = true},
    {.name = "lazy",
     .create = "'lazy-refcounts':true,",
     .options = "",
     .size = 8 << 20,
     .ops = 300},
    {.name = "extl2",
     .create = "'extended-l2':true,",
     .options = "",
     .size = 8 << 20,
     .ops = 400,
     .compress = true},
    {.name = "extl2-backing",
     .create = "'extended-l2':true,'cluster-size':16384,",
     .options = "",
     .size = 8 << 20,
     .ops = 400,
     .backing = true,
     .compress = true},
    {.name = "slices",
     .create = "'cluster-size':65536,",
     .options = "'l2-cache-size':2048,'l2-cache-entry-size':512,",
     .size = 64 << 20,
     .ops = 400},
    {.name = "snapshots",
     .create = "",
     .options = "",
     .size = 8 << 20,
     .ops = 200,
     .compress = true,
     .snapshots = 2},
    {.name = "snapshots-extl2",
     .create = "'extended-l2':true,",
     .options = "'overlap-check':'all',",
     .size = 8 << 20,
     .ops = 200,
     .compress = true,
     .snapshots = 2},
    {.name = "data-file",
     .create = "",
     .options = "",
     .size = 8 << 20,
     .ops = 300,
     .data_file = true},
    {.name = "data-file-raw",
     .create = "'data-file-raw':true,",
     .options = "",
     .size = 8 << 20,
     .ops = 300,
     .data_file = true},
    {.name = "prealloc",
     .create = "'preallocation':'metadata',",
     .options = "",
     .size = 8 << 20,
     .ops = 200},
    {.name = "prealloc-full",
     .create = "'preallocation':'full',",
     .options = "",
     .size = 4 << 20,
     .ops = 100},
    {.name = "prealloc-extl2",
     .create = "'preallocation':'falloc','extended-l2':true,",
     .options = "",
     .size = 4 << 20,
     .ops = 100,
     .backing = true},
    {.name = "no-unref",
     .create = "",
     .options = "'discard-no-unref':true,",
     .size = 8 << 20,
     .ops = 300},
};

int main(int argc, char **argv)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *found = NULL;
    int ret;

    g_test_init(&argc, &argv, NULL);
    if (!qemu_init_main_loop(&err)) {
        g_error("%s", err->message);
    }
    dir = image_folder_new();
    found = g_find_program_in_path("qemu-img");
    have_qemu_img = found != NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++) {
        g_autofree char *name = g_strdup_printf("/qcow2/shape/%s", shapes[i].name);
        g_test_add_data_func(name, &shapes[i], test_shape);
    }
    ret = g_test_run();
    image_folder_remove(dir);
    return ret;
}
