/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How fast the guest changes its memory, in one of two ways: some pages are hashed twice, or the dirty
 * log is read after a while. One measurement at a time, a coroutine of the main loop; what takes long
 * runs in a worker.
 *
 *   unstarted --calc-dirty-rate--> measuring --time is over--> measured --calc-dirty-rate--> measuring
 *                                            --it fails--> unstarted
 */
#include "migration/dirtyrate.h"

#include <zlib.h>
#include "memory/dirty.h"
#include "memory/listener.h"
#include "memory/populated.h"
#include "memory/ram-block.h"
#include "qapi/qapi-commands-migration.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/int-math.h"
#include "util/timer.h"
#include "util/units.h"

#define PAGE_SIZE            4096u
#define CALC_TIME_MIN_MS     50
#define CALC_TIME_MAX_MS     60000
#define SAMPLE_PAGES_MIN     128
#define SAMPLE_PAGES_MAX     16384
#define SAMPLE_PAGES_DEFAULT 512

/* A page that is looked at twice. */
typedef struct Sample {
    uint64_t page; /* number in its block */
    uint32_t hash;
} Sample;

typedef struct SampledBlock {
    RAMBlock *block; /* of the list */
    uint64_t pages;
    size_t n;
    Sample *samples;
} SampledBlock;

/* The only one; main thread, and the worker while that runs. */
static struct {
    DirtyRateStatus status;
    DirtyRateMeasureMode mode;
    int64_t start_s, calc_ms;
    uint64_t sample_pages; /* a GiB */
    int64_t rate_mib;      /* a second, once measured */

    /* While measuring. */
    RAMBlockList *list;
    SampledBlock *blocks; /* list->n; page sampling */
    int64_t begin_ns;     /* QEMU_CLOCK_REALTIME */
    GError *error;
    QemuCoSleep sleep;
    bool stopping;
    Coroutine *stopper; /* waits for the end of the measurement */
} rate;

static uint64_t block_pages(const RAMBlock *block)
{
    return ram_block_is_migratable(block) ? ram_block_used_length(block) / PAGE_SIZE : 0;
}

static int64_t rate_of(double pages)
{
    int64_t ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - rate.begin_ns;

    return (int64_t)(pages * PAGE_SIZE / MiB * NANOSECONDS_PER_SECOND / MAX(ns, 1));
}

/* --- page sampling; in a worker --- */

/* Pages that were never touched are not touched by looking: they are zero. */
static uint32_t page_hash(const RAMBlock *block, const uint64_t *populated, uint64_t page)
{
    static const uint8_t zero[PAGE_SIZE];
    bool touched = populated[page / 64] >> page % 64 & 1;

    return crc32(0, touched ? block->host + page * PAGE_SIZE : zero, PAGE_SIZE);
}

/* NULL when there is no memory for it; the caller frees. */
static uint64_t *populated_map(const SampledBlock *sampled)
{
    size_t words = DIV_ROUND_UP(sampled->pages, 64);
    uint64_t *map = g_try_new(uint64_t, words);

    if (map) {
        (void)ram_block_populated(sampled->block, 0, sampled->pages * PAGE_SIZE, map);
    }
    return map;
}

static bool sample_block(SampledBlock *sampled, RAMBlock *block, GRand *rand)
{
    g_autofree uint64_t *map = NULL;

    sampled->block = block;
    sampled->pages = block_pages(block);
    if (!sampled->pages) {
        return true;
    }
    sampled->n = MAX(sampled->pages * PAGE_SIZE / MiB * rate.sample_pages / 1024, 1);
    sampled->n = MIN(sampled->n, sampled->pages);
    sampled->samples = g_try_new(Sample, sampled->n);
    map = populated_map(sampled);
    if (!sampled->samples || !map) {
        return false;
    }
    for (size_t i = 0; i < sampled->n; i++) {
        Sample *sample = &sampled->samples[i];

        sample->page = (uint64_t)(g_rand_double(rand) * sampled->pages);
        sample->hash = page_hash(block, map, sample->page);
    }
    return true;
}

static int sample_begin(void *opaque)
{
    g_autoptr(GRand) rand = g_rand_new();

    rate.blocks = g_new0(SampledBlock, rate.list->n);
    for (unsigned i = 0; i < rate.list->n; i++) {
        if (!sample_block(&rate.blocks[i], rate.list->blocks[i], rand)) {
            error_setg(&rate.error, "Not enough memory to sample pages");
            return -1;
        }
    }
    return 0;
}

static int sample_end(void *opaque)
{
    double pages = 0;

    for (unsigned i = 0; i < rate.list->n; i++) {
        const SampledBlock *sampled = &rate.blocks[i];
        g_autofree uint64_t *map = sampled->n ? populated_map(sampled) : NULL;
        size_t changed = 0;

        for (size_t j = 0; map && j < sampled->n; j++) {
            const Sample *sample = &sampled->samples[j];

            changed += page_hash(sampled->block, map, sample->page) != sample->hash;
        }
        if (sampled->n) {
            pages += (double)changed / sampled->n * sampled->pages;
        }
    }
    rate.rate_mib = rate_of(pages);
    return 0;
}

/* --- the dirty log; in a worker --- */

/* Takes what is in the log; the pages. */
static uint64_t log_take(void)
{
    uint64_t pages = 0;

    memory_global_dirty_log_sync(false);
    for (unsigned i = 0; i < rate.list->n; i++) {
        RAMBlock *block = rate.list->blocks[i];
        uint64_t n = block_pages(block);
        g_autofree uint64_t *map = n ? g_try_new0(uint64_t, DIV_ROUND_UP(n, 64)) : NULL;

        if (map) {
            pages += ram_block_dirty_sync_and_clear(block, DIRTY_MEMORY_RATE, map, 0, n);
            ram_block_clear_log(block, 0, n * PAGE_SIZE);
        }
    }
    return pages;
}

static int log_begin(void *opaque)
{
    if (!memory_global_dirty_log_start(1u << DIRTY_MEMORY_RATE, &rate.error)) {
        return -1;
    }
    (void)log_take();
    return 0;
}

static int log_end(void *opaque)
{
    rate.rate_mib = rate_of(log_take());
    memory_global_dirty_log_stop(1u << DIRTY_MEMORY_RATE);
    return 0;
}

/* --- a measurement --- */

static void clear_measurement(void)
{
    for (unsigned i = 0; rate.blocks && i < rate.list->n; i++) {
        g_free(rate.blocks[i].samples);
    }
    g_clear_pointer(&rate.blocks, g_free);
    g_clear_pointer(&rate.list, ram_block_list_unref);
}

static void coroutine_fn measure_co_entry(void *opaque)
{
    bool sampling = rate.mode == DIRTY_RATE_MEASURE_MODE_PAGE_SAMPLING;
    bool ok;

    rate.list = ram_block_list_get();
    ok = thread_pool_submit_co(sampling ? sample_begin : log_begin, NULL) == 0;
    if (ok) {
        rate.begin_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        if (!rate.stopping) {
            qemu_co_sleep_ns_wakeable(&rate.sleep, QEMU_CLOCK_REALTIME, rate.calc_ms * SCALE_MS);
        }
        thread_pool_submit_co(sampling ? sample_end : log_end, NULL);
    } else {
        g_prefix_error(&rate.error, "calc-dirty-rate: ");
        error_report_err(g_steal_pointer(&rate.error));
    }
    clear_measurement();
    rate.status = ok ? DIRTY_RATE_STATUS_MEASURED : DIRTY_RATE_STATUS_UNSTARTED;
    if (rate.stopper) {
        aio_co_wake(g_steal_pointer(&rate.stopper));
    }
}

void coroutine_fn dirty_rate_co_shutdown(void)
{
    if (rate.status == DIRTY_RATE_STATUS_MEASURING) {
        rate.stopping = true;
        rate.stopper = qemu_coroutine_self();
        qemu_co_sleep_wake(&rate.sleep);
        qemu_coroutine_yield();
    }
}

bool coroutine_fn qmp_calc_dirty_rate(const CalcDirtyRateArg *arg, GError **errp)
{
    bool in_ms = arg->has_calc_time_unit && arg->calc_time_unit == TIME_UNIT_MILLISECOND;
    int64_t max = in_ms ? CALC_TIME_MAX_MS : CALC_TIME_MAX_MS / 1000;
    DirtyRateMeasureMode mode = arg->has_mode ? arg->mode : DIRTY_RATE_MEASURE_MODE_PAGE_SAMPLING;

    if (rate.stopping) {
        error_setg(errp, "The process is about to end");
        return false;
    }
    if (rate.status == DIRTY_RATE_STATUS_MEASURING) {
        error_setg(errp, "The dirty rate is being measured already");
        return false;
    }
    if (arg->calc_time < (in_ms ? CALC_TIME_MIN_MS : 1) || arg->calc_time > max) {
        error_setg(errp, "Calculation time is out of range [%dms, %dms]", CALC_TIME_MIN_MS,
                   CALC_TIME_MAX_MS);
        return false;
    }
    if (arg->has_sample_pages && mode != DIRTY_RATE_MEASURE_MODE_PAGE_SAMPLING) {
        error_setg(errp, "sample-pages is used only in page-sampling mode");
        return false;
    }
    if (arg->has_sample_pages &&
        (arg->sample_pages < SAMPLE_PAGES_MIN || arg->sample_pages > SAMPLE_PAGES_MAX)) {
        error_setg(errp, "sample-pages is out of range[%d, %d]", SAMPLE_PAGES_MIN,
                   SAMPLE_PAGES_MAX);
        return false;
    }
    rate.status = DIRTY_RATE_STATUS_MEASURING;
    rate.mode = mode;
    rate.calc_ms = in_ms ? arg->calc_time : arg->calc_time * 1000;
    rate.sample_pages = arg->has_sample_pages ? (uint64_t)arg->sample_pages : SAMPLE_PAGES_DEFAULT;
    rate.start_s = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) / NANOSECONDS_PER_SECOND;
    qemu_coroutine_enter(qemu_coroutine_create(measure_co_entry, NULL));
    return true;
}

bool coroutine_fn qmp_query_dirty_rate(const QueryDirtyRateArg *arg, DirtyRateInfo **ret,
                                       GError **errp)
{
    DirtyRateInfo *info = g_new0(DirtyRateInfo, 1);

    info->status = rate.status;
    info->has_dirty_rate = rate.status == DIRTY_RATE_STATUS_MEASURED;
    info->dirty_rate = rate.rate_mib;
    info->start_time = rate.start_s;
    info->calc_time_unit = arg->has_calc_time_unit ? arg->calc_time_unit : TIME_UNIT_SECOND;
    info->calc_time =
        info->calc_time_unit == TIME_UNIT_MILLISECOND ? rate.calc_ms : rate.calc_ms / 1000;
    info->sample_pages = rate.sample_pages;
    info->mode = rate.mode;
    *ret = info;
    return true;
}
