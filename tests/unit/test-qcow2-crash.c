/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qcow2 images after a crash. A filter below the image keeps a journal of all that is written and
 * flushed, while several coroutines write, zero, discard and flush. Then images are made as power
 * failures at random moments could leave them. The image has what was flushed by then, and any part
 * of what was written after (in pieces of 4 KiB). Each must have no corruption (leaks are allowed),
 * hold what was flushed, and elsewhere only what was ever written there. FERRY_SLOW=1 in the
 * environment: more crashes of each load.
 */
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/block-backend.h"
#include "block/block_int.h"
#include "block/qcow2/qcow2.h"
#include "util/error.h"
#include "tests/unit/qcow2-fixture.h"

#define READ_WRITE   (BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE)
#define SECTOR       512
#define WORKERS      4
#define GROUP        13 /* sectors in a row that one worker owns */
#define PIECE        4096
#define CRASHES      9
#define CRASHES_SLOW 40

typedef struct Shape {
    const char *name, *create, *options;
    int64_t size;
    int ops;
    bool backing, snapshot;
} Shape;

/* What reached the file: data at an offset, or (data NULL) a flush of all before it. */
typedef struct Record {
    int64_t offset, bytes;
    uint8_t *data;
} Record;

typedef enum OpKind { OP_WRITE, OP_DISCARD } OpKind;

/* An operation of a worker on whole sectors. Positions are lengths of the journal. */
typedef struct Op {
    OpKind kind;
    int64_t first, count;
    uint32_t value;
    guint started_at;
    uint64_t acked_seq; /* 0: never */
} Op;

typedef struct FlushOp {
    uint64_t started_seq;
    guint acked_at;
} FlushOp;

static GArray *journal; /* of Record */
static GArray *ops;     /* of Op */
static GArray *flushes; /* of FlushOp */
static uint64_t seq;
static uint32_t next_value;
static int running;
static char *dir;
static enum { HOLD_NONE, HOLD_NEXT, HOLDING } hold; /* of the next write to the file */

/* --- the filter --- */

static void journal_add(int64_t offset, int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset)
{
    Record r = {.offset = offset, .bytes = bytes, .data = g_malloc0(MAX(bytes, 1))};

    if (qiov) {
        qemu_iovec_to_buf(qiov, qiov_offset, r.data, bytes);
    }
    g_array_append_val(journal, r);
}

static int coroutine_fn journal_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           QEMUIOVector *qiov, size_t qiov_offset,
                                           BdrvRequestFlags flags)
{
    int ret = bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);

    if (hold == HOLD_NEXT) {
        hold = HOLDING;
        while (hold == HOLDING) {
            qemu_co_yield_to_loop();
        }
    }
    qemu_co_yield_to_loop(); /* others get between a write and its completion */
    journal_add(offset, bytes, qiov, qiov_offset);
    return ret;
}

static int coroutine_fn journal_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                 int64_t bytes, BdrvRequestFlags flags)
{
    int ret = bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);

    journal_add(offset, bytes, NULL, 0);
    return ret;
}

static int coroutine_fn journal_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int ret = bdrv_co_pdiscard(bs->file, offset, bytes);

    journal_add(offset, bytes, NULL, 0);
    return ret;
}

static int coroutine_fn journal_co_flush(BlockDriverState *bs)
{
    Record r = {0};

    (void)bs;
    g_array_append_val(journal, r);
    qemu_co_yield_to_loop();
    return 0;
}

static bool journal_has_zero_init(BlockDriverState *bs)
{
    return bdrv_has_zero_init(bs->file->bs);
}

static const BlockDriver bdrv_journal = {
    .format_name = "journal",
    .driver = BLOCKDEV_DRIVER__MAX,
    .is_filter = true,
    .bdrv_co_preadv = filter_co_preadv,
    .bdrv_co_pwritev = journal_co_pwritev,
    .bdrv_co_pwrite_zeroes = journal_co_pwrite_zeroes,
    .bdrv_co_pdiscard = journal_co_pdiscard,
    .bdrv_co_flush_to_disk = journal_co_flush,
    .bdrv_has_zero_init = journal_has_zero_init,
};

/* --- making images --- */

static char *in_dir(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static int run_status(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
static int run_status(const char *fmt, ...)
{
    g_autofree char *cmd = NULL, *out = NULL, *errors = NULL;
    int status = -1;
    va_list ap;

    va_start(ap, fmt);
    cmd = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_assert_true(g_spawn_command_line_sync(cmd, &out, &errors, &status, NULL));
    if (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 3) {
        g_error("%s: status %d\n%s%s", cmd, WEXITSTATUS(status), out, errors);
    }
    return WEXITSTATUS(status);
}

static BlockDriverState *coroutine_fn open_json(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
static BlockDriverState *coroutine_fn open_json(const char *fmt, ...)
{
    g_autofree char *json = NULL;
    va_list ap;

    va_start(ap, fmt);
    json = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    return open_node(json);
}

static void coroutine_fn create_image(const Shape *shape, const char *path)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver':'qcow2','file':{'driver':'file','filename':'%s'},%s%s'size':%" G_GINT64_FORMAT
        "}",
        path, shape->create, shape->backing ? "'backing-file':'base.raw','backing-fmt':'raw'," : "",
        shape->size);

    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    create_qcow2(json);
}

static uint32_t base_value(const Shape *shape, int64_t sector)
{
    return shape->backing && sector * SECTOR < shape->size / 2 ? 0xb0000000 + sector : 0;
}

static void fill_sectors(uint8_t *buf, int64_t count, uint32_t value)
{
    for (int64_t i = 0; i < count * SECTOR; i += 4) {
        memcpy(buf + i, &value, 4);
    }
}

/* --- the load --- */

static void coroutine_fn one_op(BlockBackend *blk, const Shape *shape, GRand *rng, int w)
{
    int64_t groups = shape->size / SECTOR / GROUP / WORKERS;
    int64_t start = ((int64_t)g_rand_int_range(rng, 0, groups) * WORKERS + w) * GROUP;
    int64_t skip = g_rand_int_range(rng, 0, GROUP), index = ops->len;
    Op op = {.first = start + skip,
             .count = g_rand_int_range(rng, 1, GROUP - skip + 1),
             .started_at = journal->len};
    g_autofree uint8_t *buf = g_malloc(GROUP * SECTOR);
    int what = g_rand_int_range(rng, 0, 12), ret;

    if (what == 0) {
        FlushOp f = {.started_seq = ++seq};
        g_assert_cmpint(blk_co_flush(blk), ==, 0);
        f.acked_at = journal->len;
        g_array_append_val(flushes, f);
        return;
    }
    op.kind = what == 1 ? OP_DISCARD : OP_WRITE;
    op.value = what <= 3 ? 0 : ++next_value;
    g_array_append_val(ops, op);
    if (what == 1) {
        /* A whole cluster would be others' data as well; what is left of the range is a hint. */
        ret = blk_co_pdiscard(blk, op.first * SECTOR, op.count * SECTOR);
    } else if (what <= 3) {
        ret = blk_co_pwrite_zeroes(blk, op.first * SECTOR, op.count * SECTOR,
                                   what == 2 ? BDRV_REQ_MAY_UNMAP : 0);
    } else {
        fill_sectors(buf, op.count, op.value);
        ret = blk_co_pwrite(blk, op.first * SECTOR, op.count * SECTOR, buf, 0);
    }
    g_assert_cmpint(ret, ==, 0);
    g_array_index(ops, Op, index).acked_seq = ++seq;
}

typedef struct Worker {
    BlockBackend *blk;
    const Shape *shape;
    int index;
} Worker;

static void coroutine_fn worker_co(void *opaque)
{
    Worker *worker = opaque;
    g_autoptr(GRand) rng = g_rand_new_with_seed(worker->index + 100);

    for (int i = 0; i < worker->shape->ops; i++) {
        one_op(worker->blk, worker->shape, rng, worker->index);
    }
    running--;
    g_free(worker);
}

/* One worker alone: ranges of many clusters, over the sectors of all workers. */
static void coroutine_fn large_ops(BlockBackend *blk, const Shape *shape, GRand *rng)
{
    int64_t sectors = shape->size / SECTOR;
    g_autofree uint8_t *buf = g_malloc(shape->size / 4);

    for (int i = 0; i < 12; i++) {
        Op op = {.count = g_rand_int_range(rng, 1, sectors / 4), .started_at = journal->len};
        int what = g_rand_int_range(rng, 0, 4), ret;

        op.first = g_rand_int_range(rng, 0, sectors - op.count);
        op.kind = what == 0 ? OP_DISCARD : OP_WRITE;
        op.value = what <= 1 ? 0 : ++next_value;
        g_array_append_val(ops, op);
        if (what == 0) {
            ret = blk_co_pdiscard(blk, op.first * SECTOR, op.count * SECTOR);
        } else if (what == 1) {
            ret =
                blk_co_pwrite_zeroes(blk, op.first * SECTOR, op.count * SECTOR, BDRV_REQ_MAY_UNMAP);
        } else {
            fill_sectors(buf, op.count, op.value);
            ret = blk_co_pwrite(blk, op.first * SECTOR, op.count * SECTOR, buf, 0);
        }
        g_assert_cmpint(ret, ==, 0);
        g_array_index(ops, Op, ops->len - 1).acked_seq = ++seq;
        if (i % 4 == 3) {
            FlushOp f = {.started_seq = ++seq};
            g_assert_cmpint(blk_co_flush(blk), ==, 0);
            f.acked_at = journal->len;
            g_array_append_val(flushes, f);
        }
    }
}

/* The image at path, with the journal below it; close_journaled() ends it. */
static BlockBackend *coroutine_fn open_journaled(const Shape *shape, const char *path)
{
    g_autoptr(GError) err = NULL;
    BlockDriverState *file, *filter, *bs;
    BlockBackend *blk = blk_new(READ_WRITE, BLK_PERM_ALL);

    file =
        open_json("{'driver':'file','filename':'%s','node-name':'file0','discard':'unmap'}", path);
    filter = open_filter(&bdrv_journal, "journal0", file);
    bs = open_json("{'driver':'qcow2',%s'discard':'unmap','file':'journal0'%s}", shape->options,
                   shape->backing ? ",'backing':{'driver':'null-co'}" : "");
    g_assert_true(blk_insert_bs(blk, bs, &err));
    bdrv_co_unref(bs);
    bdrv_co_unref(filter);
    return blk;
}

static void coroutine_fn close_journaled(BlockBackend *blk)
{
    blk_unref(blk);
    bdrv_co_close_all();
}

static void coroutine_fn run_load(const Shape *shape, const char *path)
{
    g_autoptr(GRand) rng = g_rand_new_with_seed(5);
    BlockBackend *blk = open_journaled(shape, path);

    for (int round = 0; round < 2; round++) {
        running = WORKERS;
        for (int i = 0; i < WORKERS; i++) {
            Worker *w = g_new(Worker, 1);
            *w = (Worker){blk, shape, i};
            qemu_coroutine_enter(qemu_coroutine_create(worker_co, w));
        }
        while (running) {
            qemu_co_yield_to_loop();
        }
        large_ops(blk, shape, rng);
    }
    close_journaled(blk);
}

/* --- crashes --- */

/* The file as a power failure after the first `end` records may leave it. */
static void write_crashed(const char *start, gsize start_bytes, guint end, GRand *rng, bool lose,
                          const char *path)
{
    GByteArray *file = g_byte_array_new();
    guint durable = 0;

    g_byte_array_append(file, (const guint8 *)start, start_bytes);
    for (guint i = 0; i < end; i++) {
        durable = g_array_index(journal, Record, i).data ? durable : i;
    }
    for (guint i = 0; i < end; i++) {
        Record *r = &g_array_index(journal, Record, i);
        for (int64_t pos = 0, n; r->data && pos < r->bytes; pos += n) {
            int64_t at = r->offset + pos;
            n = MIN(r->bytes - pos, PIECE - at % PIECE);
            if (lose && i >= durable && g_rand_boolean(rng)) {
                continue;
            }
            if (file->len < at + n) {
                guint old = file->len;
                g_byte_array_set_size(file, at + n);
                memset(file->data + old, 0, at + n - old);
            }
            memcpy(file->data + at, r->data + pos, n);
        }
    }
    g_assert_true(g_file_set_contents(path, (char *)file->data, file->len, NULL));
    g_byte_array_free(file, TRUE);
}

/* Marks for every sector which of its values are allowed; a value not seen here is a fault. */
static void verify_sectors(const Shape *shape, guint end, const uint8_t *contents)
{
    int64_t sectors = shape->size / SECTOR;
    GArray **allowed = g_new0(GArray *, sectors);
    uint64_t durable_seq = 0;

    for (guint i = 0; i < flushes->len; i++) {
        FlushOp *f = &g_array_index(flushes, FlushOp, i);
        if (f->acked_at <= end) {
            durable_seq = MAX(durable_seq, f->started_seq);
        }
    }
    for (int64_t i = 0; i < sectors; i++) {
        uint32_t v = base_value(shape, i);
        allowed[i] = g_array_new(FALSE, FALSE, sizeof(uint32_t));
        g_array_append_val(allowed[i], v);
    }
    for (guint i = 0; i < ops->len; i++) {
        Op *op = &g_array_index(ops, Op, i);
        bool durable = op->acked_seq && op->acked_seq < durable_seq;
        for (int64_t j = op->first; op->started_at <= end && j < op->first + op->count; j++) {
            if (durable && op->kind == OP_WRITE) {
                g_array_set_size(allowed[j], 0);
            }
            g_array_append_val(allowed[j], op->value);
        }
    }
    for (int64_t i = 0; i < sectors; i++) {
        uint32_t v;
        bool found = false;
        memcpy(&v, contents + i * SECTOR, 4);
        for (guint j = 0; j < allowed[i]->len; j++) {
            found |= g_array_index(allowed[i], uint32_t, j) == v;
        }
        if (!found) {
            g_error("%s: sector %" G_GINT64_FORMAT
                    " holds %#x, which it must not after a crash at record %u",
                    shape->name, i, v, end);
        }
        g_array_free(allowed[i], TRUE);
    }
    g_free(allowed);
}

static void coroutine_fn verify_crashed(const Shape *shape, const char *path, guint end)
{
    g_autofree char *raw = in_dir("converted.raw"), *contents = NULL;
    gsize length;

    if (strstr(shape->create, "lazy")) {
        /* Opening it for writing repairs it. */
        BlockDriverState *bs =
            open_json("{'driver':'qcow2','file':{'driver':'file','filename':'%s'}}", path);
        bdrv_co_unref(bs);
        bdrv_co_close_all();
        g_assert_cmpint(run_status("qemu-img check %s", path), ==, 0);
    } else {
        run_status("qemu-img check %s", path);
    }
    run_status("qemu-img convert -O raw %s %s", path, raw);
    g_assert_true(g_file_get_contents(raw, &contents, &length, NULL));
    g_assert_cmpint(length, ==, shape->size);
    verify_sectors(shape, end, (uint8_t *)contents);
}

static void reset_logs(void)
{
    for (guint i = 0; journal && i < journal->len; i++) {
        g_free(g_array_index(journal, Record, i).data);
    }
    g_clear_pointer(&journal, g_array_unref);
    g_clear_pointer(&ops, g_array_unref);
    g_clear_pointer(&flushes, g_array_unref);
    journal = g_array_new(FALSE, FALSE, sizeof(Record));
    ops = g_array_new(FALSE, FALSE, sizeof(Op));
    flushes = g_array_new(FALSE, FALSE, sizeof(FlushOp));
    seq = next_value = 0;
}

static void make_base(const Shape *shape)
{
    g_autofree char *base = in_dir("base.raw");
    g_autofree uint8_t *buf = g_malloc0(shape->size / 2);

    for (int64_t i = 0; i < shape->size / 2 / SECTOR; i++) {
        fill_sectors(buf + i * SECTOR, 1, base_value(shape, i));
    }
    g_assert_true(g_file_set_contents(base, (char *)buf, shape->size / 2, NULL));
}

static void coroutine_fn shape_co(void *opaque)
{
    const Shape *shape = opaque;
    g_autofree char *path = in_dir("test.qcow2"), *crashed = in_dir("crashed.qcow2"), *start = NULL;
    g_autoptr(GRand) rng = g_rand_new_with_seed(11);
    gsize start_bytes;
    int crashes = g_getenv("FERRY_SLOW") ? CRASHES_SLOW : CRASHES;

    reset_logs();
    if (shape->backing) {
        make_base(shape);
    }
    create_image(shape, path);
    if (shape->snapshot) {
        run_status("qemu-io -f qcow2 -c 'write -z 0 1M' -c 'write -P 0 1M 1M' %s", path);
        run_status("qemu-img snapshot -c before %s", path);
    }
    g_assert_true(g_file_get_contents(path, &start, &start_bytes, NULL));
    run_load(shape, path);
    g_test_message("%u records, %u operations, %u flushes", journal->len, ops->len, flushes->len);
    for (int i = 0; i < crashes; i++) {
        guint end = i == 0 ? journal->len : (guint)g_rand_int_range(rng, 0, journal->len + 1);
        write_crashed(start, start_bytes, end, rng, i % 3 != 2, crashed);
        verify_crashed(shape, crashed, end);
    }
    g_unlink(path);
    g_unlink(crashed);
}

/* --- what L2 entries rely on is durable before they are written --- */

typedef struct OrderCase {
    const char *name;
    Shape shape;
    int64_t skip, bytes; /* of the write, in its cluster */
    bool flush_meanwhile;
} OrderCase;

typedef struct HeldWrite {
    BlockBackend *blk;
    int64_t offset, bytes;
    bool done;
} HeldWrite;

static void coroutine_fn held_write_co(void *opaque)
{
    HeldWrite *w = opaque;
    g_autofree uint8_t *buf = g_malloc(w->bytes);

    memset(buf, 0x77, w->bytes);
    g_assert_cmpint(blk_co_pwrite(w->blk, w->offset, w->bytes, buf, 0), ==, 0);
    w->done = true;
}

static void coroutine_fn write_cluster(BlockBackend *blk, int64_t index, int byte)
{
    uint8_t buf[4096];

    memset(buf, byte, sizeof(buf));
    g_assert_cmpint(blk_co_pwrite(blk, index * 4096, 4096, buf, 0), ==, 0);
}

/*
 * A write into a host cluster that still holds old data of another cluster; a flush begins and ends
 * while it is in flight.
 */
static void coroutine_fn order_co(void *opaque)
{
    const OrderCase *c = opaque;
    g_autofree char *path = in_dir("order.qcow2");
    HeldWrite w = {.offset = c->skip, .bytes = c->bytes};
    bool flushed = false;
    guint i;

    reset_logs();
    create_image(&c->shape, path);
    w.blk = open_journaled(&c->shape, path);
    write_cluster(w.blk, 0, 0x55);
    g_assert_cmpint(blk_co_pdiscard(w.blk, 0, 4096), ==, 0);
    for (i = 0; i < 3; i++) { /* until the host cluster is free again */
        g_assert_cmpint(blk_co_flush(w.blk), ==, 0);
    }
    hold = c->flush_meanwhile ? HOLD_NEXT : HOLD_NONE;
    qemu_coroutine_enter(qemu_coroutine_create(held_write_co, &w));
    while (hold == HOLD_NEXT) {
        qemu_co_yield_to_loop();
    }
    if (c->flush_meanwhile) {
        write_cluster(w.blk, 2, 0x66); /* something to write back */
        g_assert_cmpint(blk_co_flush(w.blk), ==, 0);
        hold = HOLD_NONE;
    }
    while (!w.done) {
        qemu_co_yield_to_loop();
    }
    i = journal->len; /* behind the data */
    g_assert_cmpint(g_array_index(journal, Record, i - 1).data[c->skip ? 512 : 0], ==, 0x77);
    g_assert_cmpint(blk_co_flush(w.blk), ==, 0);
    for (; i < journal->len && !g_array_index(journal, Record, i).data; i++) {
        flushed = true;
    }
    g_assert_cmpuint(i, <, journal->len);
    g_assert_true(flushed);
    close_journaled(w.blk);
    g_unlink(path);
}

static void test_order(gconstpointer data)
{
    aio_run_coroutine(order_co, (void *)data);
}

#define ORDER_SHAPE(more)                                                     \
    {                                                                         \
        .create = "'cluster-size':4096," more, .options = "", .size = 1 << 20 \
    }

static const OrderCase order_cases[] = {
    {"part-in-flight", ORDER_SHAPE(""), 512, 512, true},
    {"whole-in-flight", ORDER_SHAPE(""), 0, 4096, true},
    {"lazy-part-in-flight", ORDER_SHAPE("'lazy-refcounts':true,"), 512, 512, true},
    {"lazy-part", ORDER_SHAPE("'lazy-refcounts':true,"), 512, 512, false},
    {"lazy-whole", ORDER_SHAPE("'lazy-refcounts':true,"), 0, 4096, false},
};

static void test_shape(gconstpointer data)
{
    aio_run_coroutine(shape_co, (void *)data);
}

static const Shape shapes[] = {
    {.name = "default", .create = "", .options = "", .size = 8 << 20, .ops = 150},
    {.name = "c4k", .create = "'cluster-size':4096,", .options = "", .size = 4 << 20, .ops = 150},
    {.name = "c512",
     .create = "'cluster-size':512,'refcount-bits':64,",
     .options = "",
     .size = 1 << 20,
     .ops = 150},
    {.name = "small-caches",
     .create = "'cluster-size':1024,",
     .options = "'l2-cache-size':1024,'l2-cache-entry-size':512,'refcount-cache-size':4096,",
     .size = 4 << 20,
     .ops = 120},
    {.name = "extl2",
     .create = "'extended-l2':true,'cluster-size':16384,",
     .options = "",
     .size = 4 << 20,
     .ops = 150},
    {.name = "v2", .create = "'version':'v2',", .options = "", .size = 4 << 20, .ops = 150},
    {.name = "snapshot",
     .create = "'cluster-size':4096,",
     .options = "",
     .size = 4 << 20,
     .ops = 120,
     .snapshot = true},
    {.name = "lazy",
     .create = "'lazy-refcounts':true,'cluster-size':4096,",
     .options = "",
     .size = 4 << 20,
     .ops = 120},
    {.name = "lazy-c512",
     .create = "'lazy-refcounts':true,'cluster-size':512,'refcount-bits':32,",
     .options = "",
     .size = 2 << 20,
     .ops = 120},
};

int main(int argc, char **argv)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *found = g_find_program_in_path("qemu-img");
    int ret;

    g_test_init(&argc, &argv, NULL);
    if (!found) {
        g_print("1..0 # SKIP qemu-img is not installed\n");
        return 0;
    }
    if (!qemu_init_main_loop(&err)) {
        g_error("%s", err->message);
    }
    dir = image_folder_new();
    for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++) {
        g_autofree char *name = g_strdup_printf("/qcow2/crash/%s", shapes[i].name);
        g_test_add_data_func(name, &shapes[i], test_shape);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(order_cases); i++) {
        g_autofree char *name = g_strdup_printf("/qcow2/order/%s", order_cases[i].name);
        g_test_add_data_func(name, &order_cases[i], test_order);
    }
    ret = g_test_run();
    image_folder_remove(dir);
    return ret;
}
