/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-io: the image, its size and allocation, and blkdebug's breakpoints. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/debug/qemu-io-int.h"
#include "qapi/qapi-types-block-info.h"
#include "util/cutils.h"
#include "util/error.h"
#include "util/timer.h"

/* --- the image --- */

static void coroutine_fn run_flush(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    int ret = blk_co_flush(io->blk);

    (void)args;
    if (ret < 0) {
        g_string_append_printf(io->out, "%s failed: %s\n", cmd->name, strerror(-ret));
    }
}

static void coroutine_fn run_truncate(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    PreallocMode prealloc = PREALLOC_MODE_OFF;
    g_autoptr(GError) err = NULL;
    int64_t size;

    if (args->n != 1) {
        qemuio_usage(io, cmd);
        return;
    }
    if (args->has['m'] && !PreallocMode_parse(args->value['m'], &prealloc, NULL)) {
        g_string_append_printf(io->out, "Invalid preallocation mode '%s'\n", args->value['m']);
        return;
    }
    if (qemuio_parse_size(io, args->operands[0], &size) &&
        !blk_co_truncate(io->blk, size, false, prealloc, &err)) {
        g_string_append_printf(io->out, "%s\n", err->message);
    }
}

static void coroutine_fn run_length(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    int64_t size = bdrv_co_getlength(blk_bs(io->blk));

    (void)args;
    if (size < 0) {
        g_string_append_printf(io->out, "%s: %s\n", cmd->name, strerror((int)-size));
        return;
    }
    qemuio_append_size(io->out, (double)size);
    g_string_append_c(io->out, '\n');
}

static void say_status_failed(QemuIO *io, int ret)
{
    g_string_append_printf(io->out, "Failed to get allocation status: %s\n", strerror(-ret));
}

static void print_extent(QemuIO *io, bool is_allocated, int64_t offset, int64_t bytes)
{
    qemuio_append_size(io->out, (double)bytes);
    g_string_append_printf(io->out, " (0x%" PRIx64 ") bytes %s allocated at offset ", bytes,
                           is_allocated ? "   " : "not");
    qemuio_append_size(io->out, (double)offset);
    g_string_append_printf(io->out, " (0x%" PRIx64 ")\n", offset);
}

static void coroutine_fn run_map(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    BlockDriverState *bs = blk_bs(io->blk);
    int64_t size = bdrv_co_getlength(bs), start = 0, offset = 0;
    bool started = false, current = false;

    (void)cmd;
    (void)args;
    if (size < 0) {
        g_string_append_printf(io->out, "Failed to query image length: %s\n", strerror((int)-size));
        return;
    }
    while (offset < size) {
        int64_t pnum = 0;
        int ret = bdrv_co_is_allocated(bs, offset, size - offset, &pnum);

        if (ret < 0 || pnum <= 0) {
            say_status_failed(io, ret < 0 ? ret : -EIO);
            return;
        }
        if (started && current != (ret > 0)) {
            print_extent(io, current, start, offset - start);
            start = offset;
        }
        started = true;
        current = ret > 0;
        offset += pnum;
    }
    if (started) {
        print_extent(io, current, start, offset - start);
    }
}

static void coroutine_fn run_alloc(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    BlockDriverState *bs = blk_bs(io->blk);
    int64_t offset, count = BDRV_SECTOR_SIZE, size, at, sum = 0;

    (void)cmd;
    if (!qemuio_parse_size(io, args->operands[0], &offset) ||
        (args->n > 1 && !qemuio_parse_size(io, args->operands[1], &count))) {
        return;
    }
    size = bdrv_co_getlength(bs);
    if (size < 0) {
        say_status_failed(io, (int)size);
        return;
    }
    count = offset > size ? 0 : MIN(count, size - offset);
    for (at = 0; at < count;) {
        int64_t pnum = 0;
        int ret = bdrv_co_is_allocated(bs, offset + at, count - at, &pnum);

        if (ret < 0 || pnum <= 0) {
            say_status_failed(io, ret < 0 ? ret : -EIO);
            return;
        }
        sum += ret ? pnum : 0;
        at += pnum;
    }
    g_string_append_printf(io->out, "%" PRId64 "/%" PRId64 " bytes allocated at offset ", sum,
                           count);
    qemuio_append_size(io->out, (double)offset);
    g_string_append_c(io->out, '\n');
}

/* The driver's own facts, a member a line. */
static void append_specific(GString *out, json_object *facts)
{
    json_object_object_foreach(facts, key, value)
    {
        g_autofree char *name = g_strdelimit(g_strdup(key), "-", ' ');

        g_string_append_printf(out, "    %s: %s\n", name, json_object_get_string(value));
    }
}

static void coroutine_fn run_info(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    BlockDriverState *bs = blk_bs(io->blk);
    g_autoptr(ImageInfoSpecific) specific = NULL;
    int64_t cluster_size = 0;
    bool dirty;

    (void)cmd;
    (void)args;
    if (bs->drv->bdrv_co_get_info && !bs->drv->bdrv_co_get_info(bs, &cluster_size, &dirty)) {
        cluster_size = 0;
    }
    g_string_append_printf(io->out, "format name: %s\ncluster size: ", bdrv_get_format_name(bs));
    qemuio_append_size(io->out, (double)cluster_size);
    g_string_append_c(io->out, '\n');
    if (bs->drv->bdrv_co_get_specific_info) {
        specific = bs->drv->bdrv_co_get_specific_info(bs, NULL);
    }
    if (specific) {
        json_object *json = ImageInfoSpecific_to_json(specific), *data;

        g_string_append(io->out, "Format specific information:\n");
        if (json_object_object_get_ex(json, "data", &data)) {
            append_specific(io->out, data);
        }
        json_object_put(json);
    }
}

static void coroutine_fn run_sleep(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    int64_t ms;

    (void)cmd;
    if (qemu_strtoi64(args->operands[0], NULL, 0, &ms) < 0 || ms < 0 || ms > INT64_MAX / SCALE_MS) {
        g_string_append_printf(io->out, "%s is not a valid number\n", args->operands[0]);
        return;
    }
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, ms * SCALE_MS);
}

/* --- breakpoints --- */

/* The node of the file chain that has breakpoints, or NULL. */
static BlockDriverState *find_blkdebug(QemuIO *io)
{
    BlockDriverState *bs = blk_bs(io->blk);

    while (bs && !BDRV_OP(bs->drv, debug, bdrv_debug_breakpoint)) {
        bs = bs->file ? bs->file->bs : NULL;
    }
    return bs;
}

static void coroutine_fn run_break(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    BlockDriverState *bs = find_blkdebug(io);
    int ret = bs ? bs->drv->debug->bdrv_debug_breakpoint(bs, args->operands[0], args->operands[1])
                 : -ENOTSUP;

    (void)cmd;
    if (ret < 0) {
        g_string_append_printf(io->out, "Could not set breakpoint: %s\n", strerror(-ret));
    }
}

static void coroutine_fn run_remove_break(QemuIO *io, const QemuIOCommand *cmd,
                                          const QemuIOArgs *args)
{
    BlockDriverState *bs = find_blkdebug(io);
    int ret = bs ? bs->drv->debug->bdrv_debug_remove_breakpoint(bs, args->operands[0]) : -ENOTSUP;

    (void)cmd;
    if (ret < 0) {
        g_string_append_printf(io->out, "Could not remove breakpoint %s: %s\n", args->operands[0],
                               strerror(-ret));
    }
}

static void coroutine_fn run_resume(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    BlockDriverState *bs = find_blkdebug(io);
    int ret = bs ? bs->drv->debug->bdrv_debug_resume(bs, args->operands[0]) : -ENOTSUP;

    (void)cmd;
    if (ret < 0) {
        g_string_append_printf(io->out, "Could not resume request: %s\n", strerror(-ret));
    }
}

static void coroutine_fn run_wait_break(QemuIO *io, const QemuIOCommand *cmd,
                                        const QemuIOArgs *args)
{
    BlockDriverState *bs = find_blkdebug(io);
    int ret = bs ? bs->drv->debug->bdrv_co_debug_wait(bs, args->operands[0]) : -ENOTSUP;

    (void)cmd;
    if (ret < 0) {
        g_string_append_printf(io->out, "Could not wait for breakpoint %s: %s\n", args->operands[0],
                               strerror(-ret));
    }
}

const QemuIOCommand qemuio_node_commands[] = {
    {"flush", "f", run_flush, NULL, 0, 0, 0, true, false, "", "makes what was written durable"},
    {"truncate", "t", run_truncate, "m:", 1, 3, BLK_PERM_WRITE | BLK_PERM_RESIZE, true, false,
     "[-m prealloc_mode] off", "sets the size of the image"},
    {"length", "l", run_length, NULL, 0, 0, 0, true, false, "", "shows the size of the image"},
    {"map", NULL, run_map, NULL, 0, 0, 0, true, false, "",
     "shows which parts of the image are allocated"},
    {"alloc", "a", run_alloc, NULL, 1, 2, 0, true, false, "offset [count]",
     "shows how many bytes from an offset on are allocated"},
    {"info", "i", run_info, NULL, 0, 0, 0, true, false, "",
     "shows format and properties of the image"},
    {"sleep", NULL, run_sleep, NULL, 1, 1, 0, false, false, "milliseconds", "waits"},
    {"break", NULL, run_break, NULL, 2, 2, 0, true, false, "event tag",
     "stops the next request that comes by this event of blkdebug, under a name"},
    {"wait_break", NULL, run_wait_break, NULL, 1, 1, 0, true, false, "tag",
     "waits until a request has stopped"},
    {"resume", NULL, run_resume, NULL, 1, 1, 0, true, false, "tag", "lets a stopped request go on"},
    {"remove_break", NULL, run_remove_break, NULL, 1, 1, 0, true, false, "tag",
     "takes a breakpoint away and lets what it stopped go on"},
    {0},
};
