/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A log of writes beside the processes' own marks, while the guest's memory is remapped.
 *
 * The accelerator is played: slots that must not overlap, each with its own log, which is lost with
 * the slot; or one ring whose entries name slots. A vCPU thread writes through the slots, a
 * migration thread takes dirty pages and copies them, and the main thread remaps.
 */
#include "memory/listener.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include "util/bql.h"
#include "util/page-bitmap.h"

#define PAGE      ((uint64_t)TARGET_PAGE_SIZE)
#define RAM_PAGES 64u
#define GPA_PAGES 80u /* where the guest writes: RAM, and some that is none */
#define SLOTS     16u
#define RING      24u
#define REMAPS    2500u
#define SEED      71

/* --- the machine --- */

static struct {
    AddressSpace as;
    MemoryRegion root, ram, low, high, shadow, device;
    RAMBlock *block;
} machine;

static uint64_t device_writes; /* under the big lock */

static void device_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    g_assert_true(bql_locked());
    device_writes++;
}

static const MemoryRegionOps device_ops = {.write = device_write, .guest.max = 8};

/* RAM in two windows; a third one (a shadow of other pages) and a device can come over them. */
static void machine_init(void)
{
    g_autoptr(GError) err = NULL;

    memory_region_init(&machine.root, NULL, "root", MEMORY_REGION_WHOLE);
    if (!memory_region_init_ram(&machine.ram, NULL, "log.ram", RAM_PAGES * PAGE, &err)) {
        g_error("%s", err->message);
    }
    machine.block = memory_region_get_ram_block(&machine.ram);
    memory_region_init_alias(&machine.low, NULL, "low", &machine.ram, 0, 32 * PAGE);
    memory_region_init_alias(&machine.high, NULL, "high", &machine.ram, 32 * PAGE, 32 * PAGE);
    memory_region_init_alias(&machine.shadow, NULL, "shadow", &machine.ram, 40 * PAGE, 8 * PAGE);
    memory_region_init_io(&machine.device, NULL, &device_ops, NULL, "device", 2 * PAGE);
    memory_region_add_subregion(&machine.root, 0, &machine.low);
    memory_region_add_subregion(&machine.root, 40 * PAGE, &machine.high);
    memory_region_add_subregion_overlap(&machine.root, 12 * PAGE, &machine.shadow, 1);
    memory_region_add_subregion_overlap(&machine.root, 44 * PAGE, &machine.device, 2);
    address_space_init(&machine.as, &machine.root, "log");
}

static void machine_destroy(void)
{
    MemoryRegion *parts[] = {&machine.low, &machine.high, &machine.shadow, &machine.device};

    address_space_destroy(&machine.as);
    for (unsigned i = 0; i < G_N_ELEMENTS(parts); i++) {
        memory_region_del_subregion(&machine.root, parts[i]);
        memory_region_destroy(parts[i]);
    }
    memory_region_destroy(&machine.ram);
    memory_region_destroy(&machine.root);
}

static void remap(GRand *rand)
{
    switch (g_rand_int_range(rand, 0, 6)) {
    case 0:
        memory_region_set_enabled(&machine.shadow, !machine.shadow.enabled);
        break;
    case 1:
        memory_region_set_alias_offset(&machine.shadow,
                                       (hwaddr)g_rand_int_range(rand, 0, 56) * PAGE);
        break;
    case 2:
        memory_region_set_address(&machine.shadow, (hwaddr)g_rand_int_range(rand, 0, 60) * PAGE);
        break;
    case 3:
        memory_region_set_enabled(&machine.device, !machine.device.enabled);
        break;
    case 4:
        memory_region_set_address(&machine.device, (hwaddr)g_rand_int_range(rand, 0, 70) * PAGE);
        break;
    default:
        memory_region_set_readonly(&machine.shadow, !machine.shadow.readonly);
        break;
    }
}

/* --- the accelerator --- */

typedef struct Slot {
    bool used, readonly, log;
    hwaddr first;
    uint64_t pages, offset;
    uint64_t written[2], told[2]; /* a bit for each page of the slot */
} Slot;

typedef struct RingEntry {
    unsigned slot;
    uint64_t page; /* of the slot */
} RingEntry;

static struct {
    MemoryListener listener;
    bool ring;
    pthread_rwlock_t guest; /* held for reading in guest mode */
    bool shut;              /* the main thread's */
    pthread_mutex_t lock;   /* of what follows; the kernel's, and the reaper's */
    Slot slots[SLOTS];
    RingEntry entries[RING];
    unsigned n_entries;
    unsigned removals; /* of slots with a log */
    uint64_t full;     /* how often the ring was */
} hw = {.guest = PTHREAD_RWLOCK_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER};

static void hw_shut(void *opaque)
{
    pthread_rwlock_wrlock(&hw.guest);
    hw.shut = true;
}

static void hw_open(void *opaque)
{
    hw.shut = false;
    pthread_rwlock_unlock(&hw.guest);
}

static const MemoryAccelOps accel = {.shut = hw_shut, .open = hw_open};

static Slot *slot_at(hwaddr addr)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        Slot *slot = &hw.slots[i];

        if (slot->used && addr >= slot->first && addr - slot->first < slot->pages * PAGE) {
            return slot;
        }
    }
    return NULL;
}

static void slot_add(MemoryListener *l, const MemoryRegionSection *s)
{
    Slot *slot = hw.slots;

    if (!s->block) {
        return;
    }
    pthread_mutex_lock(&hw.lock);
    for (hwaddr at = 0; at < s->size; at += PAGE) {
        g_assert_null(slot_at(s->offset_within_address_space + at));
    }
    while (slot->used) {
        g_assert_true(++slot < hw.slots + SLOTS);
    }
    *slot = (Slot){.used = true,
                   .readonly = s->readonly,
                   .log = s->log_mask,
                   .first = s->offset_within_address_space,
                   .pages = s->size / PAGE,
                   .offset = s->offset_within_region};
    pthread_mutex_unlock(&hw.lock);
}

/* With the slot goes all that its log knows. */
static void slot_del(MemoryListener *l, const MemoryRegionSection *s)
{
    Slot *slot;

    if (!s->block) {
        return;
    }
    pthread_mutex_lock(&hw.lock);
    slot = slot_at(s->offset_within_address_space);
    g_assert_nonnull(slot);
    /* No vCPU can write between the sync of the log and this. */
    g_assert_true(!slot->log || hw.shut);
    hw.removals += slot->log;
    *slot = (Slot){0};
    pthread_mutex_unlock(&hw.lock);
}

static void slot_log(MemoryListener *l, const MemoryRegionSection *s, unsigned old, unsigned mask)
{
    pthread_mutex_lock(&hw.lock);
    slot_at(s->offset_within_address_space)->log = mask;
    pthread_mutex_unlock(&hw.lock);
}

static void slot_sync(MemoryListener *l, const MemoryRegionSection *s)
{
    Slot *slot;

    pthread_mutex_lock(&hw.lock);
    slot = slot_at(s->offset_within_address_space);
    memcpy(slot->told, slot->written, sizeof(slot->told));
    ram_block_set_dirty_bitmap(s->block, slot->offset, slot->told, slot->pages);
    pthread_mutex_unlock(&hw.lock);
}

static void slot_clear(MemoryListener *l, const MemoryRegionSection *s)
{
    Slot *slot;
    uint64_t first;

    pthread_mutex_lock(&hw.lock);
    slot = slot_at(s->offset_within_address_space);
    first = (s->offset_within_address_space - slot->first) / PAGE;
    for (uint64_t page = first; page < first + s->size / PAGE; page++) {
        if (page_bitmap_test(slot->told, page)) {
            page_bitmap_clear(slot->written, page, page + 1);
            page_bitmap_clear(slot->told, page, page + 1);
        }
    }
    pthread_mutex_unlock(&hw.lock);
}

/* Under hw.lock. An entry whose slot has gone says nothing. */
static void reap(void)
{
    for (unsigned i = 0; i < hw.n_entries; i++) {
        const Slot *slot = &hw.slots[hw.entries[i].slot];

        if (slot->used && hw.entries[i].page < slot->pages) {
            ram_block_set_dirty(machine.block, slot->offset + hw.entries[i].page * PAGE, 1);
        }
    }
    hw.n_entries = 0;
}

/* The vCPU leaves guest mode once, so that the hardware tells what it has; no more is waited for. */
static void ring_sync(MemoryListener *l, bool last_stage)
{
    if (!hw.shut) {
        pthread_rwlock_wrlock(&hw.guest);
        pthread_rwlock_unlock(&hw.guest);
    }
    pthread_mutex_lock(&hw.lock);
    reap();
    pthread_mutex_unlock(&hw.lock);
}

static void hw_init(bool ring)
{
    memset(hw.slots, 0, sizeof(hw.slots));
    hw.ring = ring;
    hw.n_entries = hw.removals = 0;
    hw.full = 0;
    hw.listener = (MemoryListener){.name = "hw",
                                   .runs_vcpus = true,
                                   .region_add = slot_add,
                                   .region_del = slot_del,
                                   .log_start = slot_log,
                                   .log_stop = slot_log};
    if (ring) {
        hw.listener.log_sync_global = ring_sync;
    } else {
        hw.listener.log_sync = slot_sync;
        hw.listener.log_clear = slot_clear;
    }
    memory_set_accel_ops(&accel);
    memory_listener_register(&hw.listener, &machine.as);
}

/* --- the vCPU --- */

enum { DONE, EXIT_MMIO, EXIT_RING_FULL };

/* One write in guest mode. */
static int guest_store(hwaddr addr, uint64_t value)
{
    int how = EXIT_MMIO;
    Slot *slot;

    pthread_rwlock_rdlock(&hw.guest);
    pthread_mutex_lock(&hw.lock);
    slot = slot_at(addr);
    if (slot && !slot->readonly && hw.ring && hw.n_entries == RING) {
        how = EXIT_RING_FULL;
    } else if (slot && !slot->readonly) {
        uint64_t page = (addr - slot->first) / PAGE;
        uint8_t *host = machine.block->host + slot->offset + (addr - slot->first);

        __atomic_store_n((uint64_t *)host, value, __ATOMIC_RELAXED);
        if (slot->log && hw.ring) {
            hw.entries[hw.n_entries++] = (RingEntry){(unsigned)(slot - hw.slots), page};
        } else if (slot->log) {
            page_bitmap_set(slot->written, page, page + 1);
        }
        how = DONE;
    }
    pthread_mutex_unlock(&hw.lock);
    pthread_rwlock_unlock(&hw.guest);
    return how;
}

static int stop; /* atomic */

static void *vcpu(void *opaque)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(SEED);
    uint64_t value = 0;

    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        hwaddr addr = (hwaddr)g_rand_int_range(rand, 0, GPA_PAGES) * PAGE + 8 * (value % 512);

        switch (guest_store(addr, ++value)) {
        case EXIT_MMIO:
            address_space_stq_le(&machine.as, addr, value, MEMTXATTRS_UNSPECIFIED, NULL);
            break;
        case EXIT_RING_FULL:
            /* In user space: no lock but the reaper's is needed. */
            pthread_mutex_lock(&hw.lock);
            hw.full++;
            reap();
            pthread_mutex_unlock(&hw.lock);
            break;
        }
    }
    return NULL;
}

/* --- the migration --- */

typedef struct Copy {
    uint64_t left[RAM_PAGES / 64]; /* pages to copy */
    uint64_t bytes[RAM_PAGES * TARGET_PAGE_SIZE / 8];
    int done; /* atomic: the main thread wants no more rounds */
} Copy;

static void copy_round(Copy *copy, bool last)
{
    const uint64_t *ram = (const uint64_t *)machine.block->host;
    const uint64_t words = PAGE / 8;

    memory_global_dirty_log_sync(last);
    (void)ram_block_dirty_sync_and_clear(machine.block, DIRTY_MEMORY_MIGRATION, copy->left, 0,
                                         RAM_PAGES);
    for (uint64_t page = 0; page < RAM_PAGES; page++) {
        if (page % 16 == 0) {
            ram_block_clear_log(machine.block, page * PAGE, 16 * PAGE);
        }
        if (page_bitmap_test(copy->left, page)) {
            page_bitmap_clear(copy->left, page, page + 1);
            for (uint64_t i = page * words; i < (page + 1) * words; i++) {
                copy->bytes[i] = __atomic_load_n(&ram[i], __ATOMIC_RELAXED);
            }
        }
    }
}

static void *migrate(void *opaque)
{
    Copy *copy = opaque;

    do {
        copy_round(copy, false);
    } while (!__atomic_load_n(&copy->done, __ATOMIC_ACQUIRE));
    return NULL;
}

static bool ring_was_full(void)
{
    bool full;

    pthread_mutex_lock(&hw.lock);
    full = hw.full > 0;
    pthread_mutex_unlock(&hw.lock);
    return full;
}

static void remap_while_the_guest_is_copied(bool ring)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(SEED + 1);
    Copy *copy = g_new0(Copy, 1);
    g_autoptr(GError) err = NULL;
    GThread *threads[2];

    machine_init();
    hw_init(ring);
    if (!memory_global_dirty_log_start(1u << DIRTY_MEMORY_MIGRATION, &err)) {
        g_error("%s", err->message);
    }
    page_bitmap_set(copy->left, 0, RAM_PAGES);
    __atomic_store_n(&stop, 0, __ATOMIC_RELEASE);
    threads[0] = g_thread_new("vcpu", vcpu, NULL);
    threads[1] = g_thread_new("migration", migrate, copy);
    for (unsigned i = 0; i < REMAPS || (ring && !ring_was_full()); i++) {
        remap(rand);
        bql_main_unlock(); /* for exits of the vCPU that meet the device */
        bql_main_lock();
    }
    bql_main_unlock();
    __atomic_store_n(&copy->done, 1, __ATOMIC_RELEASE);
    g_thread_join(threads[1]);
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    g_thread_join(threads[0]);
    bql_main_lock();
    copy_round(copy, true);
    g_assert_cmpuint(hw.removals, >, REMAPS / 8);
    g_assert_cmpmem(copy->bytes, RAM_PAGES * PAGE, machine.block->host, RAM_PAGES * PAGE);
    memory_global_dirty_log_stop(1u << DIRTY_MEMORY_MIGRATION);
    memory_listener_unregister(&hw.listener);
    memory_set_accel_ops(NULL);
    machine_destroy();
    g_free(copy);
}

static void test_no_write_is_lost_when_slots_go_and_come(void)
{
    remap_while_the_guest_is_copied(false);
}

static void test_no_write_is_lost_when_slots_of_a_ring_go_and_come(void)
{
    remap_while_the_guest_is_copied(true);
    g_assert_cmpuint(hw.full, >, 0);
}

/* --- a ring is reaped while its vCPU waits --- */

static int waiting; /* atomic */

/* In user space with a write in the ring, for as long as the main thread keeps the big lock. */
static void *vcpu_that_waits(void *opaque)
{
    g_assert_cmpint(guest_store(PAGE, 1), ==, DONE);
    __atomic_store_n(&waiting, 1, __ATOMIC_RELEASE);
    bql_lock();
    bql_unlock();
    return NULL;
}

static void *migration_that_syncs(void *opaque)
{
    memory_global_dirty_log_sync(false);
    return NULL;
}

static void test_a_ring_is_reaped_while_its_vcpu_waits_for_the_big_lock(void)
{
    g_autoptr(GError) err = NULL;
    GThread *thread, *migration;

    machine_init();
    hw_init(true);
    if (!memory_global_dirty_log_start(1u << DIRTY_MEMORY_MIGRATION, &err)) {
        g_error("%s", err->message);
    }
    thread = g_thread_new("vcpu", vcpu_that_waits, NULL);
    while (!__atomic_load_n(&waiting, __ATOMIC_ACQUIRE)) {
        g_thread_yield();
    }
    /* In all three ways: another thread's sync, one with the big lock, and a commit. */
    migration = g_thread_new("migration", migration_that_syncs, NULL);
    g_thread_join(migration);
    g_assert_true(ram_block_test_and_clear_dirty(machine.block, DIRTY_MEMORY_MIGRATION, PAGE, 1));
    memory_global_dirty_log_sync(false);
    memory_region_set_enabled(&machine.low, false);
    bql_main_unlock();
    g_thread_join(thread);
    bql_main_lock();
    memory_global_dirty_log_stop(1u << DIRTY_MEMORY_MIGRATION);
    memory_listener_unregister(&hw.listener);
    memory_set_accel_ops(NULL);
    machine_destroy();
}

/* --- clearing a large block --- */

static uint64_t cleared, largest;

static void count_clear(MemoryListener *l, const MemoryRegionSection *s)
{
    cleared += s->size;
    largest = MAX(largest, s->size);
}

static void test_the_log_of_a_large_block_is_cleared_in_pieces(void)
{
    const uint64_t size = 4 * MEMORY_CLEAR_BYTES;
    MemoryListener listener = {.name = "counts", .log_clear = count_clear};
    g_autoptr(GError) err = NULL;
    MemoryRegion mr;
    AddressSpace as;

    if (!memory_region_init_ram(&mr, NULL, "large.ram", size, &err)) {
        g_error("%s", err->message);
    }
    address_space_init(&as, &mr, "large");
    memory_listener_register(&listener, &as);
    ram_block_clear_log(memory_region_get_ram_block(&mr), PAGE, size - PAGE);
    g_assert_cmpuint(cleared, ==, size - PAGE);
    g_assert_cmpuint(largest, ==, MEMORY_CLEAR_BYTES);
    memory_listener_unregister(&listener);
    address_space_destroy(&as);
    memory_region_destroy(&mr);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    alarm(240); /* a hang guard: nothing here waits for long */
    bql_main_lock();
    g_test_add_func("/memory-log/slots", test_no_write_is_lost_when_slots_go_and_come);
    g_test_add_func("/memory-log/ring", test_no_write_is_lost_when_slots_of_a_ring_go_and_come);
    g_test_add_func("/memory-log/ring-waits",
                    test_a_ring_is_reaped_while_its_vcpu_waits_for_the_big_lock);
    g_test_add_func("/memory-log/pieces", test_the_log_of_a_large_block_is_cleared_in_pieces);
    return g_test_run();
}
