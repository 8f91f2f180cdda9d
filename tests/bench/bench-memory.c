/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What guest memory costs: ns of CPU time for each of its basic operations, one line each. */
#include <glib.h>
#include <stdio.h>
#include <time.h>
#include "memory/address-space.h"
#ifndef BENCH_MEMORY_BASIC /* the first half compiles with older trees as well */
#include "memory/dma.h"
#include "memory/region-cache.h"
#endif
#include "util/bql.h"

#define PAGE    4096u
#define SPACES  40 /* PCI functions, each with a space of its own, besides memory and I/O */
#define DEVICES 24 /* regions that the memory shows */

static const MemTxAttrs attrs = {.unspecified = true};

/* The thread's own time: other work on the machine counts little. */
static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void report(const char *what, int64_t start_ns, int64_t operations)
{
    printf("%-56s %10.1f ns\n", what, (double)(now() - start_ns) / (double)operations);
}

static struct {
    MemoryRegion ram, devices[DEVICES], masters[SPACES], windows[SPACES];
    AddressSpace spaces[SPACES];
} machine;

static const MemoryRegionOps no_ops = {0};

static void make_machine(void)
{
    MemoryRegion *memory = get_system_memory();
    g_autoptr(GError) err = NULL;

    if (!memory_region_init_ram(&machine.ram, NULL, "ram", 256 * PAGE, &err)) {
        g_error("%s", err->message);
    }
    memory_region_add_subregion(memory, 0, &machine.ram);
    for (unsigned i = 0; i < DEVICES; i++) {
        memory_region_init_io(&machine.devices[i], NULL, &no_ops, NULL, "device", PAGE);
        memory_region_add_subregion_overlap(memory, (256 + 2 * i) * PAGE, &machine.devices[i], 1);
    }
    for (unsigned i = 0; i < SPACES; i++) {
        memory_region_init(&machine.masters[i], NULL, "master", MEMORY_REGION_WHOLE);
        memory_region_init_alias(&machine.windows[i], NULL, "window", memory, 0,
                                 MEMORY_REGION_WHOLE);
        memory_region_add_subregion(&machine.masters[i], 0, &machine.windows[i]);
        address_space_init(&machine.spaces[i], &machine.masters[i], "function");
    }
}

static void bench_commits(void)
{
    enum {
        N = 4000,
    };
    int64_t start = now();

    for (unsigned i = 0; i < N; i++) {
        memory_region_set_enabled(&machine.devices[3], i & 1);
    }
    report("commit that changes memory (42 spaces)", start, N);
    start = now();
    for (unsigned i = 0; i < N; i++) {
        memory_region_set_enabled(&machine.windows[3], i & 1);
    }
    report("commit that changes one function's space", start, N);
    memory_region_set_enabled(&machine.windows[3], true);
}

static void bench_values(void)
{
    enum {
        N = 20000000,
    };
    AddressSpace *as = get_address_space_memory();
    uint64_t sum = 0;
    int64_t start = now();

    for (unsigned i = 0; i < N; i++) {
        sum += address_space_ldq_le(as, 8 * (i % 512), attrs, NULL);
    }
    report("load of 8 bytes", start, N);
    start = now();
    for (unsigned i = 0; i < N; i++) {
        address_space_stq_le(as, 8 * (i % 512), sum, attrs, NULL);
    }
    report("store of 8 bytes, not logged", start, N);
}

static void *load_for_long(void *opaque)
{
    bench_values();
    return NULL;
}

static void bench_two_threads(void)
{
    GThread *thread = g_thread_new("load", load_for_long, NULL);

    printf("two threads at a time:\n");
    bench_values();
    g_thread_join(thread);
}

static void bench_device(void)
{
    enum {
        N = 5000000,
    };
    int64_t start = now();

    for (unsigned i = 0; i < N; i++) {
        address_space_stl_le(get_address_space_memory(), 256 * PAGE, i, attrs, NULL);
    }
    report("store to a register, big lock held", start, N);
}

#ifndef BENCH_MEMORY_BASIC

static void bench_ring(void)
{
    enum {
        N = 50000000,
    };
    MemoryRegionCache ring;
    uint64_t sum = 0;
    int64_t start;

    address_space_cache_init(&ring, get_address_space_memory(), PAGE, PAGE, true);
    start = now();
    for (unsigned i = 0; i < N; i++) {
        sum += address_space_lduw_le_cached(&ring, 2 * (i % 512));
    }
    report("load of 2 bytes from a cached ring", start, N);
    start = now();
    for (unsigned i = 0; i < N; i++) {
        address_space_stw_le_cached(&ring, 2 * (i % 512), (uint16_t)sum);
    }
    report("store of 2 bytes to a cached ring, not logged", start, N);
    address_space_cache_destroy(&ring);
}

static void bench_dma(void)
{
    enum {
        N = 5000000,
    };
    DMAMapping map;
    int64_t start = now();

    for (unsigned i = 0; i < N; i++) {
        if (dma_map(&map, get_address_space_memory(), (i % 256) * PAGE, PAGE,
                    DMA_DIRECTION_FROM_DEVICE, attrs)) {
            (void)dma_unmap(&map, PAGE);
        }
    }
    report("dma_map and dma_unmap of a page", start, N);
}

#endif

int main(void)
{
    bql_main_lock();
    make_machine();
    bench_commits();
    bench_values();
    bench_two_threads();
    bench_device();
#ifndef BENCH_MEMORY_BASIC
    bench_ring();
    bench_dma();
#endif
    return 0;
}
