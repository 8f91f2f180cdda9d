/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Load on a disk with several queues: see disk-load.h. */
#include "tests/devices/disk-load.h"

#include <string.h>
#include "util/aio.h"
#include "vmstate/vmstate-fields.h"

typedef struct Worker {
    DiskLoad *load;
    unsigned queue;
    int64_t start; /* of its area, bytes */
    uint32_t *number;
} Worker;

struct DiskLoad {
    BlockBackend *blk;
    const DiskLoadOps *ops;
    void *opaque;
    unsigned n;
    AioContext *ctxs[LOAD_QUEUES_MAX];
    Worker workers[LOAD_QUEUES_MAX][LOAD_WORKERS];
    DiskLoadState state;
    unsigned ended[LOAD_QUEUES_MAX]; /* atomic */
    unsigned bad;                    /* atomic */
    unsigned running;                /* main thread: workers */
};

static unsigned pick(Worker *w, unsigned below)
{
    *w->number = *w->number * 1103515245 + 12345;
    return (*w->number >> 8) % below;
}

static bool coroutine_fn worker_co_compares(Worker *w)
{
    g_autofree uint8_t *buf = g_malloc(LOAD_AREA_BYTES);

    return blk_co_pread(w->load->blk, w->start, LOAD_AREA_BYTES, buf, 0) == 0 &&
           !memcmp(buf, w->load->state.contents + w->start, LOAD_AREA_BYTES);
}

/* False: it went wrong. */
static bool coroutine_fn worker_co_request(Worker *w)
{
    unsigned offset = pick(w, LOAD_AREA_BYTES), bytes = 1 + pick(w, LOAD_AREA_BYTES - offset);
    uint8_t *mine = w->load->state.contents + w->start + offset;
    unsigned what = pick(w, 16);

    if (what == 0) {
        return blk_co_flush(w->load->blk) == 0;
    }
    if (what < 4) {
        return worker_co_compares(w);
    }
    if (what < 6) {
        memset(mine, 0, bytes);
        return blk_co_pwrite_zeroes(w->load->blk, w->start + offset, bytes, BDRV_REQ_MAY_UNMAP) ==
               0;
    }
    memset(mine, 1 + pick(w, 255), bytes);
    return blk_co_pwrite(w->load->blk, w->start + offset, bytes, mine, 0) == 0;
}

static void worker_gone(void *opaque)
{
    DiskLoad *load = opaque;

    if (--load->running == 0) {
        load->ops->gone(load->opaque);
    }
}

static void coroutine_fn worker_co_entry(void *opaque)
{
    Worker *w = opaque;
    DiskLoad *load = w->load;

    while (load->ops->may_go_on(load->opaque)) {
        bool good = worker_co_request(w);

        good = good && aio_context_in_own_thread(load->ctxs[w->queue]);
        __atomic_add_fetch(&load->bad, !good, __ATOMIC_RELAXED);
        __atomic_add_fetch(&load->ended[w->queue], 1, __ATOMIC_RELAXED);
        qemu_co_yield_to_loop();
    }
    aio_bh_schedule_oneshot(qemu_get_aio_context(), worker_gone, load);
}

DiskLoad *disk_load_new(BlockBackend *blk, AioContext *const *ctxs, unsigned n,
                        const DiskLoadOps *ops, void *opaque)
{
    DiskLoad *load = g_new0(DiskLoad, 1);

    load->blk = blk;
    load->ops = ops;
    load->opaque = opaque;
    load->n = n;
    for (unsigned i = 0; i < n; i++) {
        load->ctxs[i] = ctxs[i];
        for (unsigned j = 0; j < LOAD_WORKERS; j++) {
            unsigned number = i * LOAD_WORKERS + j;

            load->state.numbers[number] = number;
            load->workers[i][j] = (Worker){.load = load,
                                           .queue = i,
                                           .start = number * LOAD_AREA_BYTES,
                                           .number = &load->state.numbers[number]};
        }
    }
    return load;
}

void disk_load_free(DiskLoad *load)
{
    g_assert(!load->running);
    g_free(load);
}

void disk_load_start(DiskLoad *load)
{
    for (unsigned i = 0; i < load->n; i++) {
        for (unsigned j = 0; j < LOAD_WORKERS; j++) {
            load->running++;
            blk_co_spawn_in(load->blk, load->ctxs[i], worker_co_entry, &load->workers[i][j]);
        }
    }
}

bool disk_load_is_running(const DiskLoad *load)
{
    return load->running;
}

unsigned disk_load_ended(const DiskLoad *load, unsigned queue)
{
    return __atomic_load_n(&load->ended[queue], __ATOMIC_RELAXED);
}

unsigned disk_load_ended_in_each(const DiskLoad *load)
{
    unsigned least = disk_load_ended(load, 0);

    for (unsigned i = 1; i < load->n; i++) {
        least = MIN(least, disk_load_ended(load, i));
    }
    return least;
}

unsigned disk_load_bad(const DiskLoad *load)
{
    return __atomic_load_n(&load->bad, __ATOMIC_RELAXED);
}

DiskLoadState *disk_load_state(DiskLoad *load)
{
    return &load->state;
}

static const VMStateField load_fields[] = {
    VMSTATE_BUFFER(contents, DiskLoadState),
    VMSTATE_UINT32_ARRAY(numbers, DiskLoadState, LOAD_QUEUES_MAX *LOAD_WORKERS),
    VMSTATE_END_OF_LIST()};

const VMStateDescription vmstate_disk_load = {
    .name = "disk-load",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = load_fields,
};
