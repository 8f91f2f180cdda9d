/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What devices find in memory/: eventfds, ROM devices, lockless regions, DMA, rings, shared views. */
#include "memory/dma.h"

#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "memory/listener.h"
#include "memory/region-cache.h"
#include "util/bql.h"

#define PAGE ((uint64_t)TARGET_PAGE_SIZE)

static const MemTxAttrs attrs = {.unspecified = true};

/* --- a space: RAM at 0 (4 pages), registers at 0x10000 --- */

#define REGS 0x10000u

typedef struct World {
    MemoryRegion root, ram, regs;
    AddressSpace as;
    unsigned writes;
    uint64_t last; /* what was written to the registers */
    bool locked;   /* at the last write */
    bool delivered;
} World;

static uint64_t regs_read(void *opaque, hwaddr addr, unsigned size)
{
    return 0xab00 + addr;
}

static void regs_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    World *w = opaque;

    w->writes++;
    w->last = data;
    w->locked = bql_locked();
}

static const MemoryRegionOps regs_ops = {.read = regs_read, .write = regs_write};

static void make_ram(MemoryRegion *mr, const char *name, uint64_t pages)
{
    g_autoptr(GError) err = NULL;

    if (!memory_region_init_ram(mr, NULL, name, pages * PAGE, &err)) {
        g_error("%s", err->message);
    }
}

static void world_make(World *w, bool lockless)
{
    *w = (World){0};
    memory_region_init(&w->root, NULL, "root", MEMORY_REGION_WHOLE);
    make_ram(&w->ram, "w.ram", 4);
    memory_region_init_io(&w->regs, NULL, &regs_ops, w, "regs", 2 * PAGE);
    if (lockless) {
        memory_region_set_lockless(&w->regs);
    }
    memory_region_add_subregion(&w->root, 0, &w->ram);
    memory_region_add_subregion(&w->root, REGS, &w->regs);
    address_space_init(&w->as, &w->root, "world");
}

static void world_destroy(World *w)
{
    address_space_destroy(&w->as);
    memory_region_del_subregion(&w->root, &w->ram);
    memory_region_del_subregion(&w->root, &w->regs);
    memory_region_destroy(&w->ram);
    memory_region_destroy(&w->regs);
    memory_region_destroy(&w->root);
}

static uint64_t signals_of(int fd)
{
    uint64_t n = 0;

    return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

/* --- eventfds and collected writes --- */

typedef struct Events {
    MemoryListener listener;
    GString *log;
} Events;

static void log_event(MemoryListener *l, const char *what, hwaddr addr, uint64_t value)
{
    g_string_append_printf(((Events *)l)->log, "%s%x,%x ", what, (unsigned)addr, (unsigned)value);
}

static void eventfd_add(MemoryListener *l, hwaddr addr, const MemoryEventFd *event)
{
    g_assert_cmpint(event->fd, >=, 0);
    log_event(l, "+e", addr, event->data);
}

static void eventfd_del(MemoryListener *l, hwaddr addr, const MemoryEventFd *event)
{
    log_event(l, "-e", addr, event->data);
}

static void coalesced_add(MemoryListener *l, hwaddr addr, uint64_t size)
{
    log_event(l, "+c", addr, size);
}

static void coalesced_del(MemoryListener *l, hwaddr addr, uint64_t size)
{
    log_event(l, "-c", addr, size);
}

static void events_init(Events *e, AddressSpace *as)
{
    *e = (Events){.listener = {.name = "events",
                               .eventfd_add = eventfd_add,
                               .eventfd_del = eventfd_del,
                               .coalesced_add = coalesced_add,
                               .coalesced_del = coalesced_del},
                  .log = g_string_new(NULL)};
    memory_listener_register(&e->listener, as);
}

static void expect(Events *e, const char *text)
{
    g_assert_cmpstr(e->log->str, ==, text);
    g_string_set_size(e->log, 0);
}

static void add_eventfd(World *w, hwaddr addr, unsigned size, bool match, uint64_t data, int fd)
{
    g_autoptr(GError) err = NULL;

    if (!memory_region_add_eventfd(&w->regs, addr, size, match, data, fd, &err)) {
        g_error("%s", err->message);
    }
}

static void test_a_write_that_matches_signals_and_others_reach_the_device(void)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    World w;

    world_make(&w, false);
    add_eventfd(&w, 16, 2, true, 7, fd);
    address_space_stw_le(&w.as, REGS + 16, 7, attrs, NULL);
    g_assert_cmpuint(signals_of(fd), ==, 1);
    g_assert_cmpuint(w.writes, ==, 0);
    address_space_stw_le(&w.as, REGS + 16, 8, attrs, NULL);
    address_space_stl_le(&w.as, REGS + 16, 7, attrs, NULL);
    address_space_stw_le(&w.as, REGS + 18, 7, attrs, NULL);
    g_assert_cmpuint(signals_of(fd), ==, 0);
    g_assert_cmpuint(w.writes, ==, 3);
    /* Any size, any value; the owner closes its descriptor whenever it likes. */
    add_eventfd(&w, 32, 0, false, 0, fd);
    address_space_stb(&w.as, REGS + 32, 1, attrs, NULL);
    address_space_stl_le(&w.as, REGS + 32, 2, attrs, NULL);
    g_assert_cmpuint(signals_of(fd), ==, 2);
    memory_region_del_eventfd(&w.regs, 32, 0, false, 0);
    address_space_stb(&w.as, REGS + 32, 1, attrs, NULL);
    g_assert_cmpuint(w.writes, ==, 4);
    close(fd);
    address_space_stw_le(&w.as, REGS + 16, 7, attrs, NULL);
    g_assert_cmpuint(w.writes, ==, 4);
    world_destroy(&w);
}

static void test_listeners_hear_of_events_as_they_come_and_go_in_the_view(void)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    MemoryRegion window;
    Events e;
    World w;

    world_make(&w, false);
    events_init(&e, &w.as);
    add_eventfd(&w, PAGE + 4, 2, true, 1, fd);
    add_eventfd(&w, PAGE, 2, true, 5, fd);
    expect(&e, "+e11004,1 +e11000,5 ");
    memory_region_add_coalescing(&w.regs, PAGE - 8, 16);
    expect(&e, "+c10ff8,10 ");
    /* A window shows the second page once more. */
    memory_region_init_alias(&window, NULL, "window", &w.regs, PAGE, PAGE);
    memory_region_add_subregion(&w.root, 0x20000, &window);
    expect(&e, "+e20000,5 +e20004,1 +c20000,8 ");
    memory_region_set_enabled(&w.regs, false);
    expect(&e, "-e11000,5 -e11004,1 -e20000,5 -e20004,1 -c10ff8,10 -c20000,8 ");
    memory_region_set_enabled(&w.regs, true);
    g_string_set_size(e.log, 0);
    memory_region_transaction_begin();
    memory_region_del_eventfd(&w.regs, PAGE + 4, 2, true, 1);
    memory_region_clear_coalescing(&w.regs);
    memory_region_del_subregion(&w.root, &window);
    memory_region_transaction_commit();
    expect(&e, "-e11004,1 -e20000,5 -e20004,1 -c10ff8,10 -c20000,8 ");
    memory_listener_unregister(&e.listener);
    expect(&e, "-e11000,5 ");
    memory_region_destroy(&window);
    g_string_free(e.log, TRUE);
    close(fd);
    world_destroy(&w);
}

/* Two writes that were collected by the accelerator, and are delivered once. */
static void deliver(void *opaque)
{
    World *w = opaque;

    if (!w->delivered) {
        w->delivered = true;
        address_space_stl_le(&w->as, REGS, 1, attrs, NULL);
        address_space_stl_le(&w->as, REGS, 2, attrs, NULL);
    }
}

static void nothing(void *opaque)
{
}

static void test_collected_writes_come_before_other_accesses_and_before_a_move(void)
{
    World w;
    const MemoryAccelOps accel = {
        .shut = nothing, .open = nothing, .flush_coalesced = deliver, .opaque = &w};

    world_make(&w, false);
    memory_region_add_coalescing(&w.regs, 0, 16);
    memory_set_accel_ops(&accel);
    address_space_stl_le(&w.as, REGS + 64, 3, attrs, NULL);
    g_assert_cmpuint(w.writes, ==, 3);
    g_assert_cmpuint(w.last, ==, 3);
    w.delivered = false;
    memory_region_set_address(&w.regs, 2 * REGS);
    g_assert_cmpuint(w.writes, ==, 5);
    g_assert_cmpuint(w.last, ==, 2);
    memory_set_accel_ops(NULL);
    world_destroy(&w);
}

/* --- ROM devices --- */

static void test_a_rom_device_reads_as_memory_and_writes_to_its_operations(void)
{
    MemoryRegion flash;
    g_autoptr(GError) err = NULL;
    uint64_t len = 8;
    uint8_t *host;
    World w;

    world_make(&w, false);
    if (!memory_region_init_rom_device(&flash, NULL, &regs_ops, &w, "w.flash", PAGE, &err)) {
        g_error("%s", err->message);
    }
    host = memory_region_get_ram_ptr(&flash);
    host[4] = 0x5a;
    memory_region_add_subregion(&w.root, 0x30000, &flash);
    g_assert_cmpstr(memory_region_kind(&flash), ==, "romd");
    g_assert_cmphex(address_space_ldb(&w.as, 0x30004, attrs, NULL), ==, 0x5a);
    address_space_stb(&w.as, 0x30004, 0x90, attrs, NULL);
    g_assert_cmpuint(w.writes, ==, 1);
    g_assert_cmphex(w.last, ==, 0x90);
    g_assert_cmphex(host[4], ==, 0x5a);
    g_assert_null(address_space_map(&w.as, 0x30000, &len, true, attrs));
    memory_region_rom_device_set_romd(&flash, false);
    g_assert_cmphex(address_space_ldb(&w.as, 0x30004, attrs, NULL), ==, 0x04);
    address_space_stb(&w.as, 0x30004, 0xff, attrs, NULL);
    g_assert_cmpuint(w.writes, ==, 2);
    memory_region_rom_device_set_romd(&flash, true);
    g_assert_cmphex(address_space_ldb(&w.as, 0x30004, attrs, NULL), ==, 0x5a);
    address_space_write_rom(&w.as, 0x30004, attrs, "\x11", 1); /* firmware is loaded */
    g_assert_cmphex(host[4], ==, 0x11);
    memory_region_del_subregion(&w.root, &flash);
    memory_region_destroy(&flash);
    world_destroy(&w);
}

/* --- locks --- */

static void *write_from_a_thread(void *opaque)
{
    World *w = opaque;

    address_space_stl_le(&w->as, REGS, 1, attrs, NULL);
    return NULL;
}

static void test_registers_run_under_the_big_lock_unless_they_need_none(void)
{
    GThread *thread;
    World w;

    world_make(&w, false);
    thread = g_thread_new("vcpu", write_from_a_thread, &w);
    bql_main_unlock();
    g_thread_join(thread);
    bql_main_lock();
    g_assert_true(w.writes == 1 && w.locked);
    world_destroy(&w);
    /* The main thread keeps the lock for all of this. */
    world_make(&w, true);
    thread = g_thread_new("vcpu", write_from_a_thread, &w);
    g_thread_join(thread);
    g_assert_true(w.writes == 1 && !w.locked);
    world_destroy(&w);
}

#define LIVES 2000

typedef struct Hammer {
    AddressSpace *as;
    int stop;         /* atomic */
    int alive[LIVES]; /* atomic: the region of that number was not destroyed yet */
    int calls;        /* atomic */
} Hammer;

static Hammer hammer;

static void hammer_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    int *alive = opaque;

    for (unsigned i = 0; i < 20; i++) {
        g_assert_true(__atomic_load_n(alive, __ATOMIC_ACQUIRE));
        g_thread_yield();
    }
    __atomic_fetch_add(&hammer.calls, 1, __ATOMIC_RELAXED);
}

static void *hammer_thread(void *opaque)
{
    while (!__atomic_load_n(&hammer.stop, __ATOMIC_ACQUIRE)) {
        address_space_stl_le(hammer.as, REGS, 1, attrs, NULL);
    }
    return NULL;
}

static void test_no_operation_runs_after_a_lockless_region_was_destroyed(void)
{
    static const MemoryRegionOps ops = {.write = hammer_write};
    MemoryRegion root;
    AddressSpace as;
    GThread *thread;

    memory_region_init(&root, NULL, "root", MEMORY_REGION_WHOLE);
    address_space_init(&as, &root, "hammer");
    hammer.as = &as;
    thread = g_thread_new("vcpu", hammer_thread, NULL);
    for (unsigned i = 0; i < LIVES; i++) {
        MemoryRegion *mr = g_new0(MemoryRegion, 1);

        __atomic_store_n(&hammer.alive[i], 1, __ATOMIC_RELEASE);
        memory_region_init_io(mr, NULL, &ops, &hammer.alive[i], "hammer", PAGE);
        memory_region_set_lockless(mr);
        memory_region_add_subregion(&root, REGS, mr);
        do {
            g_thread_yield();
        } while (!__atomic_load_n(&hammer.calls, __ATOMIC_RELAXED));
        memory_region_del_subregion(&root, mr);
        memory_region_destroy(mr);
        __atomic_store_n(&hammer.alive[i], 0, __ATOMIC_RELEASE);
        g_free(mr);
    }
    __atomic_store_n(&hammer.stop, 1, __ATOMIC_RELEASE);
    g_thread_join(thread);
    address_space_destroy(&as);
    memory_region_destroy(&root);
}

static MemTxResult circle_access(void *opaque, MemoryTransaction *t)
{
    World *w = opaque;

    w->writes++;
    return address_space_rw(&w->as, REGS, t->attrs, &t->data, 4, t->is_write);
}

static void test_lockless_devices_that_access_each_other_in_a_circle_get_an_error(void)
{
    static const MemoryRegionOps ops = {.transact = circle_access};
    MemTxResult result;
    World w;

    world_make(&w, true);
    w.regs.ops = &ops;
    address_space_stl_le(&w.as, REGS, 1, attrs, &result);
    g_assert_cmphex(result, ==, MEMTX_ACCESS_ERROR);
    g_assert_cmpuint(w.writes, >, 0);
    g_assert_cmpuint(w.writes, <, 16);
    world_destroy(&w);
}

/* --- DMA --- */

static void count_call(void *opaque)
{
    (*(unsigned *)opaque)++;
}

static void test_dma_reaches_registers_through_bounded_buffers(void)
{
    DMAMapping maps[DMA_BOUNCE_BYTES_MAX / DMA_BOUNCE_PIECE_MAX], map;
    unsigned calls = 0;
    DMARetry retry = {.fn = count_call, .opaque = &calls}, other = retry;
    World w;

    world_make(&w, false);
    for (unsigned i = 0; i < G_N_ELEMENTS(maps); i++) {
        g_assert_true(dma_map(&maps[i], &w.as, REGS, 3 * PAGE, DMA_DIRECTION_TO_DEVICE, attrs));
        g_assert_cmpuint(maps[i].len, ==, DMA_BOUNCE_PIECE_MAX);
        g_assert_cmphex(*(uint8_t *)maps[i].host, ==, 0x00);
        g_assert_cmphex(((uint8_t *)maps[i].host)[4], ==, 0x04);
    }
    g_assert_false(dma_map(&map, &w.as, REGS, 1, DMA_DIRECTION_FROM_DEVICE, attrs));
    /* RAM needs none. */
    g_assert_true(dma_map(&map, &w.as, PAGE, 8 * PAGE, DMA_DIRECTION_FROM_DEVICE, attrs));
    g_assert_cmpuint(map.len, ==, 3 * PAGE);
    g_assert_true(map.host == (uint8_t *)memory_region_get_ram_ptr(&w.ram) + PAGE);
    g_assert_cmphex(dma_unmap(&map, 0), ==, MEMTX_OK);
    dma_retry_later(&w.as, &retry);
    dma_retry_later(&w.as, &other);
    dma_retry_cancel(&w.as, &other);
    g_assert_cmpuint(calls, ==, 0);
    (void)dma_unmap(&maps[0], 0);
    g_assert_cmpuint(calls, ==, 1);
    (void)dma_unmap(&maps[1], 0);
    g_assert_cmpuint(calls, ==, 1);
    dma_retry_later(&w.as, &retry); /* one is free: at once */
    g_assert_cmpuint(calls, ==, 2);
    for (unsigned i = 2; i < G_N_ELEMENTS(maps); i++) {
        (void)dma_unmap(&maps[i], 0);
    }
    world_destroy(&w);
}

static void test_dma_writes_what_was_accessed_and_marks_it(void)
{
    DMAMapping map;
    World w;
    RAMBlock *block;

    world_make(&w, false);
    block = memory_region_get_ram_block(&w.ram);
    ram_block_log_start(block, DIRTY_MEMORY_MIGRATION);
    g_assert_true(dma_map(&map, &w.as, PAGE - 1, 3 * PAGE, DMA_DIRECTION_FROM_DEVICE, attrs));
    memset(map.host, 1, map.len);
    g_assert_cmphex(dma_unmap(&map, 2), ==, MEMTX_OK);
    g_assert_true(ram_block_get_dirty(block, DIRTY_MEMORY_MIGRATION, 0, 1));
    g_assert_true(ram_block_get_dirty(block, DIRTY_MEMORY_MIGRATION, PAGE, 1));
    g_assert_false(ram_block_get_dirty(block, DIRTY_MEMORY_MIGRATION, 2 * PAGE, 1));
    ram_block_log_stop(block, DIRTY_MEMORY_MIGRATION);

    g_assert_true(dma_map(&map, &w.as, REGS, 64, DMA_DIRECTION_FROM_DEVICE, attrs));
    memset(map.host, 3, map.len);
    g_assert_cmphex(dma_unmap(&map, 8), ==, MEMTX_OK);
    g_assert_cmpuint(w.writes, ==, 2);
    g_assert_cmphex(w.last, ==, 0x03030303);
    /* Nothing is there: the device reads zero bytes and hears of it. */
    g_assert_true(dma_map(&map, &w.as, 8 * PAGE, 64, DMA_DIRECTION_TO_DEVICE, attrs));
    g_assert_cmphex(map.result, ==, MEMTX_DECODE_ERROR);
    g_assert_cmphex(*(uint8_t *)map.host, ==, 0);
    (void)dma_unmap(&map, 0);
    g_assert_true(dma_map(&map, &w.as, UINT64_MAX, 64, DMA_DIRECTION_FROM_DEVICE, attrs));
    g_assert_cmphex(dma_unmap(&map, 64), ==, MEMTX_DECODE_ERROR);
    world_destroy(&w);
}

/* --- rings --- */

static void test_a_ring_follows_its_address_when_memory_is_remapped(void)
{
    MemoryRegion other;
    MemoryRegionCache ring;
    World w;
    RAMBlock *block;

    world_make(&w, false);
    make_ram(&other, "w.other", 1);
    address_space_cache_init(&ring, &w.as, PAGE, 256, true);
    address_space_stw_le_cached(&ring, 2, 0x1234);
    g_assert_cmphex(address_space_ldl_be(&w.as, PAGE, attrs, NULL), ==, 0x3412);
    memory_region_add_subregion_overlap(&w.root, PAGE, &other, 1);
    g_assert_cmphex(address_space_lduw_le_cached(&ring, 2), ==, 0);
    address_space_stq_le_cached(&ring, 8, 5);
    g_assert_cmphex(*((uint8_t *)memory_region_get_ram_ptr(&other) + 8), ==, 5);
    block = memory_region_get_ram_block(&other);
    ram_block_log_start(block, DIRTY_MEMORY_MIGRATION);
    address_space_stb_cached(&ring, 255, 1);
    g_assert_true(ram_block_get_dirty(block, DIRTY_MEMORY_MIGRATION, 0, 1));
    ram_block_log_stop(block, DIRTY_MEMORY_MIGRATION);
    memory_region_del_subregion(&w.root, &other);
    memory_region_destroy(&other);
    g_assert_cmphex(address_space_lduw_le_cached(&ring, 2), ==, 0x1234);
    g_assert_cmphex(address_space_lduw_be_cached(&ring, 2), ==, 0x3412);
    address_space_cache_destroy(&ring);
    world_destroy(&w);
}

/* A guest may place a ring anywhere. */
static void test_a_ring_that_is_not_ram_is_accessed_like_any_address(void)
{
    MemoryRegionCache ring;
    World w;

    world_make(&w, false);
    address_space_cache_init(&ring, &w.as, 4 * PAGE - 8, 16, true); /* RAM, then nothing */
    address_space_stq_le_cached(&ring, 0, 7);
    address_space_stq_le_cached(&ring, 8, 7);
    g_assert_cmpuint(address_space_ldq_le_cached(&ring, 0), ==, 7);
    g_assert_cmpuint(address_space_ldq_le_cached(&ring, 8), ==, 0);
    address_space_cache_destroy(&ring);
    address_space_cache_init(&ring, &w.as, REGS, 16, true);
    g_assert_cmphex(address_space_lduw_le_cached(&ring, 4), ==, 0xab04);
    address_space_cache_destroy(&ring);
    address_space_cache_init(&ring, &w.as, UINT64_MAX - 3, 4, false);
    g_assert_cmphex(address_space_ldq_le_cached(&ring, 0), ==, 0);
    g_assert_null(address_space_cache_host(&ring, UINT64_MAX, 2));
    address_space_cache_destroy(&ring);
    world_destroy(&w);
}

typedef struct Torn {
    World *w;
    int stop; /* atomic */
} Torn;

static void *store_halves(void *opaque)
{
    Torn *torn = opaque;

    while (!__atomic_load_n(&torn->stop, __ATOMIC_ACQUIRE)) {
        address_space_stq_le(&torn->w->as, PAGE, 0, attrs, NULL);
        address_space_stq_le(&torn->w->as, PAGE, UINT64_MAX, attrs, NULL);
    }
    return NULL;
}

static void test_aligned_values_are_never_seen_in_part(void)
{
    Torn torn = {0};
    MemoryRegionCache ring;
    GThread *thread;
    World w;

    world_make(&w, false);
    torn.w = &w;
    address_space_cache_init(&ring, &w.as, PAGE, 64, false);
    thread = g_thread_new("writer", store_halves, &torn);
    for (unsigned i = 0; i < 200000; i++) {
        uint64_t a = address_space_ldq_be(&w.as, PAGE, attrs, NULL);
        uint64_t b = address_space_ldq_le_cached(&ring, 0);

        g_assert_true((a == 0 || a == UINT64_MAX) && (b == 0 || b == UINT64_MAX));
    }
    __atomic_store_n(&torn.stop, 1, __ATOMIC_RELEASE);
    g_thread_join(thread);
    address_space_cache_destroy(&ring);
    world_destroy(&w);
}

/* --- shared views --- */

#define FUNCTIONS 8

static void test_spaces_that_show_the_same_share_a_view(void)
{
    MemoryRegion master[FUNCTIONS], window[FUNCTIONS];
    AddressSpace as[FUNCTIONS];
    World w;

    world_make(&w, false);
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        memory_region_init(&master[i], NULL, "master", MEMORY_REGION_WHOLE);
        memory_region_init_alias(&window[i], NULL, "window", &w.root, 0, MEMORY_REGION_WHOLE);
        memory_region_set_enabled(&window[i], false);
        memory_region_add_subregion(&master[i], 0, &window[i]);
        address_space_init(&as[i], &master[i], "function");
    }
    g_assert_true(as[0].current == as[1].current);
    g_assert_false(address_space_access_valid(&as[0], 0, 1, false));
    memory_region_set_enabled(&window[0], true);
    g_assert_true(as[0].current == w.as.current);
    g_assert_true(as[0].current != as[1].current);
    for (unsigned i = 1; i < FUNCTIONS; i++) {
        memory_region_set_enabled(&window[i], true);
        g_assert_true(as[i].current == w.as.current);
    }
    memory_region_set_readonly(&w.ram, true);
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        g_assert_true(as[i].current == w.as.current);
        g_assert_false(address_space_access_valid(&as[i], 0, 1, true));
    }
    /* A change elsewhere keeps it; a function that sees less has its own. */
    memory_region_set_size(&window[3], PAGE);
    g_assert_true(as[3].current != w.as.current && as[4].current == w.as.current);
    g_assert_false(address_space_access_valid(&as[3], PAGE, 1, false));
    memory_region_set_readonly(&w.ram, false);
    g_assert_true(address_space_access_valid(&as[3], 0, 1, true));
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        address_space_destroy(&as[i]);
        memory_region_del_subregion(&master[i], &window[i]);
        memory_region_destroy(&window[i]);
        memory_region_destroy(&master[i]);
    }
    world_destroy(&w);
}

/* --- ports --- */

static void test_ports_without_a_device_read_as_ones(void)
{
    AddressSpace *io = get_address_space_io();
    MemoryRegion port;
    World w = {0};

    g_assert_cmphex(address_space_ldb(io, 0x80, attrs, NULL), ==, 0xff);
    g_assert_cmphex(address_space_ldl_le(io, 0x81, attrs, NULL), ==, UINT32_MAX);
    memory_region_init_io(&port, NULL, &regs_ops, &w, "port", 2);
    memory_region_add_subregion_overlap(get_system_io(), 0x80, &port, 1);
    address_space_stb(io, 0x81, 5, attrs, NULL);
    address_space_stb(io, 0x82, 6, attrs, NULL);
    g_assert_cmpuint(w.writes, ==, 1);
    g_assert_cmphex(address_space_ldw_le(io, 0x81, attrs, NULL), ==, 0xff01);
    memory_region_del_subregion(get_system_io(), &port);
    memory_region_destroy(&port);
    g_assert_cmphex(address_space_ldb(io, 0x81, attrs, NULL), ==, 0xff);
    g_assert_cmphex(address_space_ldw_le(io, 0xffff, attrs, NULL), ==, 0xff); /* the last port */
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    alarm(240); /* a hang guard */
    bql_main_lock();
    g_test_add_func("/memory-device/eventfd/match",
                    test_a_write_that_matches_signals_and_others_reach_the_device);
    g_test_add_func("/memory-device/eventfd/listeners",
                    test_listeners_hear_of_events_as_they_come_and_go_in_the_view);
    g_test_add_func("/memory-device/coalesced",
                    test_collected_writes_come_before_other_accesses_and_before_a_move);
    g_test_add_func("/memory-device/romd",
                    test_a_rom_device_reads_as_memory_and_writes_to_its_operations);
    g_test_add_func("/memory-device/lock",
                    test_registers_run_under_the_big_lock_unless_they_need_none);
    g_test_add_func("/memory-device/lockless/destroy",
                    test_no_operation_runs_after_a_lockless_region_was_destroyed);
    g_test_add_func("/memory-device/lockless/circle",
                    test_lockless_devices_that_access_each_other_in_a_circle_get_an_error);
    g_test_add_func("/memory-device/dma/bounce",
                    test_dma_reaches_registers_through_bounded_buffers);
    g_test_add_func("/memory-device/dma/write", test_dma_writes_what_was_accessed_and_marks_it);
    g_test_add_func("/memory-device/ring/remap",
                    test_a_ring_follows_its_address_when_memory_is_remapped);
    g_test_add_func("/memory-device/ring/anywhere",
                    test_a_ring_that_is_not_ram_is_accessed_like_any_address);
    g_test_add_func("/memory-device/values", test_aligned_values_are_never_seen_in_part);
    g_test_add_func("/memory-device/shared", test_spaces_that_show_the_same_share_a_view);
    g_test_add_func("/memory-device/ports", test_ports_without_a_device_read_as_ones);
    return g_test_run();
}
