/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qcow2 over any image. The input is CONFIG_BYTES of how to open and what to do, then the image.
 * Its 512-byte blocks are laid out 2^spread bytes apart, so that small inputs reach images with
 * large clusters.
 *
 * Everything runs over disks in memory that answer now or after a turn of the loop, and fail when
 * told to: nothing depends on time, files or threads. Requests may fail; they may not crash, hang,
 * leak or be kept waiting for ever.
 */
#include <errno.h>
#include <glib.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "block/block-backend.h"
#include "block/block_int.h"
#include "block/qcow2/header.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/iov.h"

#define CONFIG_BYTES 8
#define DISK_MAX     (32 << 20) /* bytes that a disk in memory grows to */
#define REQUEST_MAX  (128 << 10)
#define REQUESTS     12 /* of each worker */
#define WORKERS      3

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* --- disks in memory --- */

enum { DISK_IMAGE, DISK_BACKING, DISK_DATA, DISKS };

typedef struct Disk {
    uint8_t *bytes; /* DISK_MAX, reserved once */
    int64_t size;
} Disk;

static Disk disks[DISKS];
static uint32_t noise;         /* of the disks' timing */
static unsigned fail_interval; /* every so many requests one fails; 0: none */
static unsigned requests;

typedef struct MemoryState {
    Disk *disk;
} MemoryState;

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

static int coroutine_fn memory_co_begin(void)
{
    if (next_random(&noise) % 4 == 0) {
        qemu_co_yield_to_loop();
    }
    return fail_interval && ++requests % fail_interval == 0 ? -EIO : 0;
}

static int coroutine_fn memory_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         QEMUIOVector *qiov, size_t qiov_offset,
                                         BdrvRequestFlags flags)
{
    MemoryState *s = bs->opaque;
    int ret = memory_co_begin();

    if (ret == 0) {
        int64_t there = CLAMP(s->disk->size - offset, 0, bytes);

        if (there) {
            qemu_iovec_from_buf(qiov, qiov_offset, s->disk->bytes + offset, there);
        }
        qemu_iovec_memset(qiov, qiov_offset + there, 0, bytes - there);
    }
    return ret;
}

static bool memory_reach(Disk *disk, int64_t offset, int64_t bytes)
{
    if (offset > DISK_MAX || bytes > DISK_MAX - offset) {
        return false;
    }
    disk->size = MAX(disk->size, offset + bytes);
    return true;
}

static int coroutine_fn memory_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          QEMUIOVector *qiov, size_t qiov_offset,
                                          BdrvRequestFlags flags)
{
    MemoryState *s = bs->opaque;
    int ret = memory_co_begin();

    if (ret == 0 && !memory_reach(s->disk, offset, bytes)) {
        return -ENOSPC;
    }
    if (ret == 0) {
        qemu_iovec_to_buf(qiov, qiov_offset, s->disk->bytes + offset, bytes);
    }
    return ret;
}

static int coroutine_fn memory_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                BdrvRequestFlags flags)
{
    MemoryState *s = bs->opaque;
    int ret = memory_co_begin();

    if (ret == 0 && !memory_reach(s->disk, offset, bytes)) {
        return -ENOSPC;
    }
    if (ret == 0) {
        memset(s->disk->bytes + offset, 0, bytes);
    }
    return ret;
}

static int coroutine_fn memory_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return memory_co_begin();
}

static int coroutine_fn memory_co_flush(BlockDriverState *bs)
{
    return memory_co_begin();
}

static int64_t coroutine_fn memory_co_getlength(BlockDriverState *bs)
{
    MemoryState *s = bs->opaque;

    return s->disk->size;
}

static bool coroutine_fn memory_co_truncate(BlockDriverState *bs, int64_t size, bool exact,
                                            PreallocMode prealloc, BdrvRequestFlags flags,
                                            GError **errp)
{
    MemoryState *s = bs->opaque;

    if (memory_co_begin() < 0 || size > DISK_MAX) {
        error_setg(errp, "The disk cannot be resized");
        return false;
    }
    if (size < s->disk->size) {
        memset(s->disk->bytes + size, 0, s->disk->size - size);
    }
    s->disk->size = size;
    return true;
}

static bool memory_has_zero_init(BlockDriverState *bs)
{
    return true;
}

static const BlockDriver bdrv_memory = {
    .format_name = "memory",
    .instance_size = sizeof(MemoryState),
    .protocol = &(const BlockProtocolOps){0},
    .bdrv_co_preadv = memory_co_preadv,
    .bdrv_co_pwritev = memory_co_pwritev,
    .bdrv_co_pwrite_zeroes = memory_co_pwrite_zeroes,
    .bdrv_co_pdiscard = memory_co_pdiscard,
    .bdrv_co_flush_to_disk = memory_co_flush,
    .bdrv_co_getlength = memory_co_getlength,
    .bdrv_co_truncate = memory_co_truncate,
    .bdrv_has_zero_init = memory_has_zero_init,
};

static BlockDriverState *memory_node(unsigned number, const char *name)
{
    BlockDriverState *bs = bdrv_new_filter(&bdrv_memory, name, BDRV_O_RDWR | BDRV_O_UNMAP, NULL);
    MemoryState *s = bs->opaque;

    s->disk = &disks[number];
    bs->total_bytes = s->disk->size;
    return bs;
}

/* --- what the input asks for --- */

enum {
    CONFIG_WRITE = 1 << 0,
    CONFIG_LAZY = 1 << 1,
    CONFIG_SMALL_CACHE = 1 << 2,
    CONFIG_CHECK_ALL = 1 << 3,
    CONFIG_CHECK_NONE = 1 << 4,
    CONFIG_NO_UNREF = 1 << 5,
    CONFIG_BACKING = 1 << 6,
    CONFIG_REOPEN = 1 << 7, /* once more, read-only, after everything */
};

typedef struct Run {
    uint8_t config;
    uint32_t seed;
    BlockDriverState *bs;
    BlockBackend *blk;
    unsigned running;
} Run;

static char *open_options(const Run *run, bool data_file)
{
    GString *json =
        g_string_new("{'driver':'qcow2','node-name':'q','file':'image','discard':'unmap'");

    g_string_append_printf(json, ",'backing':%s",
                           run->config & CONFIG_BACKING ? "'backing'" : "null");
    if (data_file) {
        g_string_append(json, ",'data-file':'data'");
    }
    if (run->config & CONFIG_LAZY) {
        g_string_append(json, ",'lazy-refcounts':true");
    }
    if (run->config & CONFIG_SMALL_CACHE) {
        g_string_append(json, ",'l2-cache-entry-size':512,'l2-cache-size':1024,"
                              "'refcount-cache-size':512,'cache-clean-interval':0");
    }
    if (run->config & (CONFIG_CHECK_ALL | CONFIG_CHECK_NONE)) {
        g_string_append_printf(json, ",'overlap-check':'%s'",
                               run->config & CONFIG_CHECK_ALL ? "all" : "none");
    }
    if (run->config & CONFIG_NO_UNREF) {
        g_string_append(json, ",'discard-no-unref':true");
    }
    g_string_append(json, "}");
    return g_string_free(json, FALSE);
}

static BlockDriverState *coroutine_fn open_image(const Run *run, int flags)
{
    const uint8_t *header = disks[DISK_IMAGE].bytes;
    bool data_file = ldul_be_p(header + QCOW2_OFS_VERSION) >= 3 &&
                     (ldq_be_p(header + QCOW2_OFS_INCOMPATIBLE) & QCOW2_INCOMPAT_DATA_FILE);
    g_autofree char *json = open_options(run, data_file);
    json_object *obj = json_tokener_parse(json);
    g_autoptr(BlockdevOptions) options = BlockdevOptions_from_json(obj, QAPI_DECODE_JSON, NULL);

    g_assert_nonnull(options);
    json_object_put(obj);
    return bdrv_co_open(options, flags | BDRV_O_UNMAP, NULL);
}

/* --- using the node --- */

/* Somewhere in the image: the ends and the first clusters more often than the rest. */
static void choose_range(uint32_t *rng, int64_t length, int64_t *offset, int64_t *bytes)
{
    uint32_t how = next_random(rng) % 4;
    uint64_t where = (uint64_t)next_random(rng) << 32 | next_random(rng) << 12 | how;
    int64_t span = how == 0 ? length : MIN(length, 1 << (12 + how * 3));

    *offset = how == 3 ? length - span : 0;
    *offset += where % span;
    if (how & 1) {
        *offset &= ~(int64_t)511;
    }
    *bytes = 1 + next_random(rng) % MIN(length - *offset, REQUEST_MAX);
}

static void coroutine_fn one_request(Run *run, uint32_t *rng, uint8_t *buf)
{
    int64_t length = blk_getlength(run->blk), offset, bytes;
    uint32_t op = next_random(rng) % (run->config & CONFIG_WRITE ? 12 : 3);
    BdrvBlockStatus status;

    if (length <= 0) {
        return;
    }
    choose_range(rng, length, &offset, &bytes);
    switch (op) {
    case 0:
    case 1:
        (void)blk_co_pread(run->blk, offset, bytes, buf, 0);
        break;
    case 2:
        if (bdrv_co_block_status(run->bs, offset, length - offset, &status) == 0) {
            g_assert_cmpint(status.pnum, >, 0);
        }
        break;
    case 3:
    case 4:
    case 5:
        (void)blk_co_pwrite(run->blk, offset, bytes, buf, op == 3 ? BDRV_REQ_FUA : 0);
        break;
    case 6:
        (void)blk_co_pwrite_zeroes(run->blk, offset, bytes, BDRV_REQ_MAY_UNMAP);
        break;
    case 7:
        (void)blk_co_pwrite_zeroes(run->blk, offset, MIN(length - offset, 64 << 20), 0);
        break;
    case 8:
        (void)blk_co_pdiscard(run->blk, offset, bytes);
        break;
    case 9:
        (void)blk_co_flush(run->blk);
        break;
    case 10:
        (void)blk_co_pwrite(run->blk, offset, bytes, buf, BDRV_REQ_WRITE_COMPRESSED);
        break;
    default:
        (void)blk_co_truncate(run->blk, offset & ~(int64_t)511, true, PREALLOC_MODE_OFF, NULL);
        break;
    }
}

static void coroutine_fn worker(void *opaque)
{
    Run *run = opaque;
    uint32_t rng = run->seed;
    g_autofree uint8_t *buf = g_malloc(REQUEST_MAX);

    memset(buf, (int)rng | 1, REQUEST_MAX);
    for (unsigned i = 0; i < REQUESTS; i++) {
        one_request(run, &rng, buf);
    }
    run->running--;
}

/* What is where, from end to end as far as some steps lead. */
static void coroutine_fn walk(Run *run)
{
    int64_t length = blk_getlength(run->blk), offset = 0;
    g_autofree uint8_t *buf = g_malloc(REQUEST_MAX);
    BdrvBlockStatus status;

    for (unsigned i = 0; i < 64 && offset < length; i++) {
        if (bdrv_co_block_status_above(run->bs, NULL, offset, length - offset, &status) < 0) {
            break;
        }
        g_assert_cmpint(status.pnum, >, 0);
        g_assert_cmpint(status.pnum, <=, length - offset);
        (void)blk_co_pread(run->blk, offset, MIN(status.pnum, REQUEST_MAX), buf, 0);
        offset += status.pnum;
    }
}

static void coroutine_fn ask(BlockDriverState *bs)
{
    int64_t cluster_size;
    bool dirty;

    qapi_free_ImageInfoSpecific(bs->drv->bdrv_co_get_specific_info(bs, NULL));
    (void)bs->drv->bdrv_co_get_info(bs, &cluster_size, &dirty);
}

static void coroutine_fn use_image(Run *run)
{
    uint64_t perm = BLK_PERM_CONSISTENT_READ;

    if (!bdrv_is_read_only(run->bs)) {
        perm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
    } else {
        run->config &= ~CONFIG_WRITE;
    }
    run->blk = blk_new(perm, BLK_PERM_ALL);
    if (blk_insert_bs(run->blk, run->bs, NULL)) {
        ask(run->bs);
        walk(run);
        run->running = WORKERS;
        for (unsigned i = 0; i < WORKERS; i++) {
            run->seed = run->seed * 31 + i;
            qemu_coroutine_enter(qemu_coroutine_create(worker, run));
        }
        while (run->running) {
            qemu_co_yield_to_loop();
        }
    }
    blk_unref(run->blk);
}

static void coroutine_fn run_image(void *opaque)
{
    static const char *const names[DISKS] = {"image", "backing", "data"};
    BlockDriverState *nodes[DISKS];
    Run *run = opaque;

    for (unsigned i = 0; i < DISKS; i++) {
        nodes[i] = memory_node(i, names[i]);
    }
    run->bs = open_image(run, run->config & CONFIG_WRITE ? BDRV_O_RDWR : 0);
    if (run->bs) {
        use_image(run);
        bdrv_co_unref(run->bs);
    }
    if (run->config & CONFIG_REOPEN) {
        fail_interval = 0;
        run->config &= ~CONFIG_WRITE;
        run->bs = open_image(run, 0);
        if (run->bs) {
            use_image(run);
            bdrv_co_unref(run->bs);
        }
    }
    for (unsigned i = 0; i < DISKS; i++) {
        bdrv_co_unref(nodes[i]);
    }
}

/* --- the target --- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    for (unsigned i = 0; i < DISKS; i++) {
        disks[i].bytes = mmap(NULL, DISK_MAX, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        g_assert(disks[i].bytes != MAP_FAILED);
    }
    /*
     * Reports about broken images would drown everything else; sanitizers and libFuzzer have their
     * own way out.
     */
    stderr = fopen("/dev/null", "w");
    g_assert_true(qemu_init_main_loop(NULL));
    return 0;
}

static void lay_out_disks(const uint8_t *image, size_t size, unsigned spread)
{
    for (unsigned i = 0; i < DISKS; i++) {
        madvise(disks[i].bytes, DISK_MAX, MADV_DONTNEED);
        disks[i].size = 0;
    }
    for (uint64_t at = 0; at < size; at += 512) {
        uint64_t offset = (at / 512) << spread;
        size_t len = MIN(size - at, 512);

        if (offset + len > DISK_MAX) {
            break;
        }
        memcpy(disks[DISK_IMAGE].bytes + offset, image + at, len);
        disks[DISK_IMAGE].size = offset + len;
    }
    memset(disks[DISK_BACKING].bytes, 0xba, 70000);
    disks[DISK_BACKING].size = 70000;
    memset(disks[DISK_DATA].bytes, 0xda, 4096);
    disks[DISK_DATA].size = 4096;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AioContext *ctx = qemu_get_aio_context();
    Run run = {0};

    if (size < CONFIG_BYTES + 104) {
        return -1;
    }
    run.config = data[0];
    run.seed = noise = ldul_be_p(data + 4);
    requests = 0;
    fail_interval = data[2] < 128 ? 0 : data[2] - 120;
    lay_out_disks(data + CONFIG_BYTES, size - CONFIG_BYTES, 9 + data[1] % 13);
    aio_run_coroutine(run_image, &run);
    while (aio_poll(ctx, false)) {
    }
    g_assert_null(bdrv_next_node(NULL));
    return 0;
}
