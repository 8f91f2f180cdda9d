/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests a second of one node in an iothread, through a BlockBackend: the path of a virtio queue.
 *
 *   bench-block NODE DEPTH REQUESTS
 *
 * NODE is what blockdev-add takes, as JSON. Reads 4 KiB one after the other, DEPTH at a time, each in
 * a coroutine of its own, and prints requests a second.
 */
#include <glib.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include "block/block-backend.h"
#include "block/block_int.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/iothread.h"

#define BLOCK_BYTES 4096

typedef struct Load {
    BlockBackend *blk;
    int64_t size;
    int64_t offset;
    int64_t left;   /* requests to start */
    int64_t ending; /* requests under way or to start */
    int64_t start_ns, end_ns;
    bool done; /* atomic */
} Load;

typedef struct Slot {
    Load *load;
    void *buf;
} Slot;

static void coroutine_fn request_co_entry(void *opaque)
{
    Slot *slot = opaque;
    Load *load = slot->load;
    int64_t offset = load->offset;

    load->offset = offset + 2 * BLOCK_BYTES > load->size ? 0 : offset + BLOCK_BYTES;
    if (blk_co_pread(load->blk, offset, BLOCK_BYTES, slot->buf, 0) < 0) {
        fprintf(stderr, "a read failed\n");
        exit(1);
    }
    if (--load->ending == 0) {
        load->end_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        __atomic_store_n(&load->done, true, __ATOMIC_RELEASE);
        aio_notify(qemu_get_aio_context());
        return;
    }
    if (load->left > 0) {
        load->left--;
        aio_co_schedule(qemu_get_current_aio_context(),
                        qemu_coroutine_create(request_co_entry, slot));
    }
}

typedef struct Run {
    Load load;
    IOThread *iothread;
    const char *node;
    int depth;
} Run;

static void coroutine_fn open_co_entry(void *opaque)
{
    Run *run = opaque;
    g_autoptr(GError) err = NULL;
    json_object *obj = json_tokener_parse(run->node);
    g_autoptr(BlockdevOptions) o = BlockdevOptions_from_json(obj, QAPI_DECODE_JSON, &err);
    BlockDriverState *bs = o ? bdrv_co_open(o, 0, &err) : NULL;

    json_object_put(obj);
    run->load.blk = blk_new(BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    if (!bs || !blk_co_insert_bs(run->load.blk, bs, &err) ||
        !blk_co_bind_context(run->load.blk, iothread_get_aio_context(run->iothread), true, &err)) {
        fprintf(stderr, "%s\n", err->message);
        exit(1);
    }
}

static void coroutine_fn start_co_entry(void *opaque)
{
    Run *run = opaque;
    Load *load = &run->load;

    load->size = bdrv_getlength(blk_bs(load->blk));
    load->ending = load->left;
    load->start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    for (int i = 0; i < run->depth && load->left > 0; i++) {
        Slot *slot = g_new0(Slot, 1);

        *slot = (Slot){.load = load, .buf = g_aligned_alloc0(1, BLOCK_BYTES, BLOCK_BYTES)};
        load->left--;
        qemu_coroutine_enter(qemu_coroutine_create(request_co_entry, slot));
    }
}

int main(int argc, char **argv)
{
    static Run run;

    if (argc != 4) {
        fprintf(stderr, "usage: bench-block NODE DEPTH REQUESTS\n");
        return 1;
    }
    run.node = argv[1];
    run.depth = atoi(argv[2]);
    run.load.left = atoll(argv[3]);
    if (run.depth < 1 || run.load.left < 1 || !qemu_init_main_loop(NULL)) {
        return 1;
    }
    run.iothread = iothread_new("disk", NULL);
    if (!run.iothread) {
        return 1;
    }
    aio_run_coroutine(open_co_entry, &run);
    blk_co_spawn(run.load.blk, start_co_entry, &run);
    while (!__atomic_load_n(&run.load.done, __ATOMIC_ACQUIRE)) {
        aio_poll(qemu_get_aio_context(), true);
    }
    printf("%.0f\n", atoll(argv[3]) * 1e9 / (run.load.end_ns - run.load.start_ns));
    fflush(stdout);
    _exit(0); /* the figure is out; nothing was written */
}
