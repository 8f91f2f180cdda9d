/* SPDX-License-Identifier: GPL-2.0-or-later */
/* KVM's memory slots and its log of writes, with a kernel that is played (kvm-fake.h). */
#include "accel/kvm/kvm-slots.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include "memory/flatview.h"
#include "tests/unit/kvm-fake.h"
#include "util/aio.h"
#include "util/bql.h"
#include "util/page-bitmap.h"

#define PAGE      ((uint64_t)TARGET_PAGE_SIZE)
#define RAM_PAGES 200u /* no multiple of 64: the last word of a log is not whole */
#define GPA_PAGES 300u
#define STEPS     20000u
#define SEED      83

/* --- the machine --- */

typedef struct World {
    KVMFake fake;
    KVMHost host;
    KVMSlots *slots;
    AddressSpace as;
    MemoryRegion root, ram, low, high, shadow, device, rom;
    RAMBlock *block;
    GString *failures;
} World;

static const MemoryRegionOps nothing = {.guest.max = 8};

static void slots_failed(void *opaque, const char *reason)
{
    g_string_append_printf(((World *)opaque)->failures, "%s\n", reason);
}

/* RAM in two windows, with a hole between them; a shadow, a device and a ROM can come over them. */
static void make_memory(World *w)
{
    g_autoptr(GError) err = NULL;

    memory_region_init(&w->root, NULL, "root", MEMORY_REGION_WHOLE);
    g_assert_true(memory_region_init_ram(&w->ram, NULL, "test.ram", RAM_PAGES * PAGE, &err));
    g_assert_true(memory_region_init_rom(&w->rom, NULL, "test.rom", 4 * PAGE, &err));
    w->block = memory_region_get_ram_block(&w->ram);
    memory_region_init_alias(&w->low, NULL, "low", &w->ram, 0, 120 * PAGE);
    memory_region_init_alias(&w->high, NULL, "high", &w->ram, 120 * PAGE, 80 * PAGE);
    memory_region_init_alias(&w->shadow, NULL, "shadow", &w->ram, 70 * PAGE, 20 * PAGE);
    memory_region_init_io(&w->device, NULL, &nothing, NULL, "device", 2 * PAGE);
    memory_region_add_subregion(&w->root, 0, &w->low);
    memory_region_add_subregion(&w->root, 150 * PAGE, &w->high);
    memory_region_add_subregion_overlap(&w->root, 12 * PAGE, &w->shadow, 1);
    memory_region_add_subregion_overlap(&w->root, 160 * PAGE, &w->device, 2);
    memory_region_add_subregion_overlap(&w->root, 290 * PAGE, &w->rom, 3);
    address_space_init(&w->as, &w->root, "kvm");
}

static void world_open(World *w, const KVMFake *kernel)
{
    g_autoptr(GError) err = NULL;

    *w = (World){.fake = *kernel, .failures = g_string_new(NULL)};
    if (!kvm_host_open(&w->host, &kvm_fake_ops, &w->fake, "/dev/kvm", &err)) {
        g_error("%s", err->message);
    }
    make_memory(w);
    w->slots = kvm_slots_new(&w->host, &w->as, 0, slots_failed, w);
}

static void world_close(World *w)
{
    MemoryRegion *parts[] = {&w->low, &w->high, &w->shadow, &w->device, &w->rom};

    kvm_slots_free(w->slots);
    for (hwaddr page = 0; page < GPA_PAGES; page++) {
        g_assert_null(kvm_fake_find(&w->fake, 0, page * PAGE));
    }
    address_space_destroy(&w->as);
    for (unsigned i = 0; i < G_N_ELEMENTS(parts); i++) {
        memory_region_del_subregion(&w->root, parts[i]);
        memory_region_destroy(parts[i]);
    }
    memory_region_destroy(&w->ram);
    memory_region_destroy(&w->root);
    kvm_host_close(&w->host);
    kvm_fake_destroy(&w->fake);
    g_string_free(w->failures, true);
}

static KVMFake kernel_of_today(void)
{
    KVMFake fake;

    kvm_fake_init(&fake);
    return fake;
}

/* Whether the guest finds at each page what the view has there. */
static void check_view(const World *w)
{
    g_autoptr(FlatView) view = address_space_get_flatview((AddressSpace *)&w->as);

    for (hwaddr addr = 0; addr < GPA_PAGES * PAGE; addr += PAGE) {
        const KVMFakeSlot *slot = kvm_fake_find(&w->fake, 0, addr);
        const FlatRange *range = flatview_find_from(view, addr);
        bool is_ram = range && range->first <= addr && range->block;

        g_assert_cmpint(slot != NULL, ==, is_ram);
        if (is_ram) {
            g_assert_true(slot->host + (addr - slot->addr) ==
                          range->block->host + range->offset + (addr - range->first));
            g_assert_cmpint(!!(slot->flags & KVM_MEM_READONLY), ==, range->readonly);
        }
    }
    g_assert_cmpstr(w->failures->str, ==, "");
}

/* --- opening --- */

static void open_fails(const KVMFake *kernel, const char *words)
{
    KVMFake fake = *kernel;
    g_autoptr(GError) err = NULL;
    KVMHost host;

    g_assert_false(kvm_host_open(&host, &kvm_fake_ops, &fake, "/dev/kvm", &err));
    g_assert_nonnull(strstr(err->message, words));
    kvm_fake_destroy(&fake);
}

static void test_a_host_without_kvm_is_told_why_and_what_helps(void)
{
    KVMFake fake = kernel_of_today();

    fake.open_error = ENOENT;
    open_fails(&fake, "No such file or directory: load the module");
    fake.open_error = EACCES;
    open_fails(&fake, "Permission denied: add this user to the group");
    fake.open_error = EIO;
    open_fails(&fake, "Input/output error");
    fake.open_error = 0;
    fake.version = 11;
    open_fails(&fake, "version 11, needed is 12");
    fake.version = 12;
    fake.fail_request = KVM_GET_API_VERSION;
    fake.fail_error = ENOTTY;
    open_fails(&fake, "does not answer as KVM does");
    fake.fail_request = KVM_CREATE_VM;
    fake.fail_error = ENOMEM;
    open_fails(&fake, "makes no virtual machine: Cannot allocate memory");
}

/* --- slots --- */

static void test_the_guest_finds_what_the_view_has(void)
{
    KVMFake fake = kernel_of_today();
    World w;

    fake.interrupts = true;
    world_open(&w, &fake);
    check_view(&w);
    memory_region_set_enabled(&w.device, false);
    check_view(&w);
    memory_region_set_address(&w.shadow, 100 * PAGE);
    check_view(&w);
    memory_region_set_readonly(&w.shadow, true);
    check_view(&w);
    world_close(&w);
}

static void test_slots_whose_memory_stays_are_left_alone(void)
{
    KVMFake fake = kernel_of_today();
    unsigned sets;
    World w;

    world_open(&w, &fake);
    sets = w.fake.sets;
    memory_region_set_address(&w.rom, 280 * PAGE);
    g_assert_cmpuint(w.fake.sets - sets, ==, 2); /* that ROM goes and comes */
    sets = w.fake.sets;
    memory_region_set_address(&w.device, 130 * PAGE); /* from RAM into the hole */
    g_assert_cmpuint(w.fake.sets - sets, ==, 3);      /* two pieces of RAM are one again */
    sets = w.fake.sets;
    memory_region_set_address(&w.device, 140 * PAGE);
    g_assert_cmpuint(w.fake.sets, ==, sets);
    check_view(&w);
    world_close(&w);
}

static void test_pages_that_are_no_whole_pages_get_no_slot(void)
{
    KVMFake fake = kernel_of_today();
    MemoryRegion odd;
    World w;

    world_open(&w, &fake);
    /* Bytes 0x200 to 0x21ff of the RAM at 0x200 of a page: page 1 of the three is whole. */
    memory_region_init_alias(&odd, NULL, "odd", &w.ram, 0x200, 2 * PAGE);
    memory_region_add_subregion(&w.root, 260 * PAGE + 0x200, &odd);
    g_assert_null(kvm_fake_find(&w.fake, 0, 260 * PAGE));
    g_assert_nonnull(kvm_fake_find(&w.fake, 0, 261 * PAGE));
    g_assert_true(kvm_fake_find(&w.fake, 0, 261 * PAGE)->host == w.block->host + PAGE);
    g_assert_null(kvm_fake_find(&w.fake, 0, 262 * PAGE));
    /* The host's pages lie elsewhere than the guest's. */
    memory_region_set_address(&odd, 260 * PAGE);
    for (hwaddr page = 260; page < 263; page++) {
        g_assert_null(kvm_fake_find(&w.fake, 0, page * PAGE));
    }
    memory_region_del_subregion(&w.root, &odd);
    memory_region_destroy(&odd);
    g_assert_cmpstr(w.failures->str, ==, "");
    world_close(&w);
}

static void test_a_rom_is_an_exit_where_kvm_has_no_readonly_slots(void)
{
    KVMFake fake = kernel_of_today();
    World w;

    fake.no_readonly = true;
    world_open(&w, &fake);
    g_assert_null(kvm_fake_find(&w.fake, 0, 290 * PAGE));
    g_assert_nonnull(kvm_fake_find(&w.fake, 0, 0));
    world_close(&w);
}

static void test_a_slot_that_kvm_refuses_is_reported_with_its_memory(void)
{
    KVMFake fake = kernel_of_today();
    World w;

    world_open(&w, &fake);
    w.fake.fail_request = KVM_SET_USER_MEMORY_REGION;
    w.fake.fail_error = ENOMEM;
    memory_region_set_enabled(&w.rom, false);
    g_assert_nonnull(strstr(w.failures->str, "does not remove the slot of test.rom at 0x122000"));
    g_string_set_size(w.failures, 0);
    memory_region_set_enabled(&w.device, false);
    g_assert_nonnull(strstr(w.failures->str, "does not make the slot of test.ram at 0x96000"));
    g_assert_nonnull(strstr(w.failures->str, "Cannot allocate memory"));
    w.fake.fail_error = 0;
    g_string_set_size(w.failures, 0);
    /* What KVM did not remove is in its way: that is said, too. */
    memory_region_set_enabled(&w.rom, true);
    g_assert_nonnull(strstr(w.failures->str, "File exists"));
    for (unsigned i = 0; i < KVM_FAKE_SLOTS; i++) {
        w.fake.slots[0][i].bytes = 0; /* the machine is at its end anyway */
    }
    world_close(&w);
}

static void test_more_pieces_than_slots_are_reported(void)
{
    KVMFake fake = kernel_of_today();
    MemoryRegion pieces[KVM_FAKE_SLOTS];
    World w;

    world_open(&w, &fake);
    for (unsigned i = 0; i < KVM_FAKE_SLOTS; i++) {
        memory_region_init_alias(&pieces[i], NULL, "piece", &w.ram, 0, PAGE);
        memory_region_add_subregion(&w.root, (240 + 2 * i) * PAGE, &pieces[i]);
    }
    g_assert_nonnull(strstr(w.failures->str, "no slot is left"));
    g_assert_cmpuint(kvm_slots_count(w.slots), >, KVM_FAKE_SLOTS);
    for (unsigned i = 0; i < KVM_FAKE_SLOTS; i++) {
        memory_region_del_subregion(&w.root, &pieces[i]);
        memory_region_destroy(&pieces[i]);
    }
    g_string_set_size(w.failures, 0);
    check_view(&w);
    world_close(&w);
}

/* --- the log --- */

typedef struct Copy {
    uint64_t left[(RAM_PAGES + 63) / 64];
    uint8_t bytes[RAM_PAGES * TARGET_PAGE_SIZE];
} Copy;

static void log_start(void)
{
    g_autoptr(GError) err = NULL;

    g_assert_true(memory_global_dirty_log_start(1u << DIRTY_MEMORY_MIGRATION, &err));
}

static void log_stop(void)
{
    memory_global_dirty_log_stop(1u << DIRTY_MEMORY_MIGRATION);
}

static void take_dirty(World *w, Copy *copy)
{
    memory_global_dirty_log_sync(false);
    (void)ram_block_dirty_sync_and_clear(w->block, DIRTY_MEMORY_MIGRATION, copy->left, 0,
                                         RAM_PAGES);
}

/* Clears and copies some pages; the guest writes between the two. */
static void copy_some(World *w, Copy *copy, GRand *rand, unsigned pages)
{
    uint64_t first = (uint64_t)g_rand_int_range(rand, 0, RAM_PAGES);
    uint64_t end = MIN(first + pages, RAM_PAGES);

    ram_block_clear_log(w->block, first * PAGE, (end - first) * PAGE);
    for (uint64_t page = first; page < end; page++) {
        (void)kvm_fake_store(&w->fake, 0, (hwaddr)g_rand_int_range(rand, 0, GPA_PAGES) * PAGE,
                             g_rand_int(rand));
        if (page_bitmap_test(copy->left, page)) {
            page_bitmap_clear(copy->left, page, page + 1);
            memcpy(copy->bytes + page * PAGE, w->block->host + page * PAGE, PAGE);
        }
    }
}

static void remap(World *w, GRand *rand)
{
    switch (g_rand_int_range(rand, 0, 5)) {
    case 0:
        memory_region_set_enabled(&w->shadow, !w->shadow.enabled);
        break;
    case 1:
        memory_region_set_address(&w->shadow, (hwaddr)g_rand_int_range(rand, 0, 280) * PAGE);
        break;
    case 2:
        memory_region_set_alias_offset(&w->shadow, (hwaddr)g_rand_int_range(rand, 0, 180) * PAGE);
        break;
    case 3:
        memory_region_set_address(&w->device, (hwaddr)g_rand_int_range(rand, 0, 280) * PAGE);
        break;
    default:
        memory_region_set_readonly(&w->shadow, !w->shadow.readonly);
    }
}

static void nothing_is_lost(gconstpointer data)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(SEED);
    KVMFake fake = kernel_of_today();
    Copy *copy = g_new0(Copy, 1);
    World w;

    fake.log_protect = *(const uint64_t *)data;
    fake.interrupts = true;
    g_test_message("seed %d", SEED);
    world_open(&w, &fake);
    log_start();
    page_bitmap_set(copy->left, 0, RAM_PAGES);
    for (unsigned i = 0; i < STEPS; i++) {
        int what = g_rand_int_range(rand, 0, 40);

        if (what == 0) {
            remap(&w, rand);
            check_view(&w);
        } else if (what == 1) {
            take_dirty(&w, copy);
        } else if (what < 6) {
            copy_some(&w, copy, rand, (unsigned)g_rand_int_range(rand, 1, 90));
        } else {
            hwaddr page = (hwaddr)g_rand_int_range(rand, 0, GPA_PAGES);

            (void)kvm_fake_store(&w.fake, 0, page * PAGE + 8 * (i % 512), i);
        }
    }
    take_dirty(&w, copy);
    for (uint64_t page = 0; page < RAM_PAGES; page++) {
        if (page_bitmap_test(copy->left, page)) {
            memcpy(copy->bytes + page * PAGE, w.block->host + page * PAGE, PAGE);
        }
    }
    g_assert_cmpmem(copy->bytes, RAM_PAGES * PAGE, w.block->host, RAM_PAGES * PAGE);
    g_assert_cmpint(w.fake.clears > 0, ==, fake.log_protect != 0);
    log_stop();
    world_close(&w);
    g_free(copy);
}

static void test_what_was_not_told_is_not_forgotten(void)
{
    KVMFake fake = kernel_of_today();
    Copy *copy = g_new0(Copy, 1);
    World w;

    fake.log_protect = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
    world_open(&w, &fake);
    log_start();
    take_dirty(&w, copy);
    g_assert_true(kvm_fake_store(&w.fake, 0, 3 * PAGE, 1));
    ram_block_clear_log(w.block, 0, RAM_PAGES * PAGE); /* nothing was told of */
    g_assert_cmpuint(w.fake.clears, ==, 0);
    take_dirty(&w, copy);
    g_assert_true(page_bitmap_test(copy->left, 3));
    /* One page is forgotten, its neighbours of the same word are not. */
    g_assert_true(kvm_fake_store(&w.fake, 0, 2 * PAGE, 1));
    g_assert_true(kvm_fake_store(&w.fake, 0, 4 * PAGE, 1));
    take_dirty(&w, copy);
    ram_block_clear_log(w.block, 3 * PAGE, PAGE);
    g_assert_cmpuint(w.fake.clears, ==, 1);
    memset(copy->left, 0, sizeof(copy->left));
    take_dirty(&w, copy);
    g_assert_true(page_bitmap_test(copy->left, 2));
    g_assert_false(page_bitmap_test(copy->left, 3));
    g_assert_true(page_bitmap_test(copy->left, 4));
    log_stop();
    world_close(&w);
    g_free(copy);
}

static void test_a_log_that_cannot_be_read_means_everything(void)
{
    KVMFake fake = kernel_of_today();
    Copy *copy = g_new0(Copy, 1);
    World w;

    world_open(&w, &fake);
    log_start();
    w.fake.fail_request = KVM_GET_DIRTY_LOG;
    w.fake.fail_error = EIO;
    take_dirty(&w, copy);
    for (uint64_t page = 0; page < 12; page++) {
        g_assert_true(page_bitmap_test(copy->left, page));
    }
    w.fake.fail_request = KVM_CLEAR_DIRTY_LOG;
    take_dirty(&w, copy);
    ram_block_clear_log(w.block, 0, RAM_PAGES * PAGE);
    memset(copy->left, 0, sizeof(copy->left));
    take_dirty(&w, copy);
    g_assert_true(page_bitmap_test(copy->left, 5)); /* it was not forgotten */
    log_stop();
    world_close(&w);
    g_free(copy);
}

static void test_slots_log_while_a_client_does(void)
{
    KVMFake fake = kernel_of_today();
    World w;

    world_open(&w, &fake);
    g_assert_null(kvm_fake_find(&w.fake, 0, 0)->log);
    log_start();
    g_assert_nonnull(kvm_fake_find(&w.fake, 0, 0)->log);
    memory_region_set_address(&w.shadow, 20 * PAGE); /* new slots log from the beginning */
    g_assert_nonnull(kvm_fake_find(&w.fake, 0, 20 * PAGE)->log);
    log_stop();
    g_assert_null(kvm_fake_find(&w.fake, 0, 0)->log);
    g_assert_null(kvm_fake_find(&w.fake, 0, 20 * PAGE)->log);
    world_close(&w);
}

int main(int argc, char **argv)
{
    static const uint64_t protects[] = {KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE |
                                            KVM_DIRTY_LOG_INITIALLY_SET,
                                        KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, 0};

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    g_test_add_func("/kvm/host/errors", test_a_host_without_kvm_is_told_why_and_what_helps);
    g_test_add_func("/kvm/slots/view", test_the_guest_finds_what_the_view_has);
    g_test_add_func("/kvm/slots/least", test_slots_whose_memory_stays_are_left_alone);
    g_test_add_func("/kvm/slots/odd", test_pages_that_are_no_whole_pages_get_no_slot);
    g_test_add_func("/kvm/slots/rom", test_a_rom_is_an_exit_where_kvm_has_no_readonly_slots);
    g_test_add_func("/kvm/slots/refused", test_a_slot_that_kvm_refuses_is_reported_with_its_memory);
    g_test_add_func("/kvm/slots/none-left", test_more_pieces_than_slots_are_reported);
    g_test_add_func("/kvm/log/follows", test_slots_log_while_a_client_does);
    g_test_add_func("/kvm/log/told", test_what_was_not_told_is_not_forgotten);
    g_test_add_func("/kvm/log/unreadable", test_a_log_that_cannot_be_read_means_everything);
    g_test_add_data_func("/kvm/log/random/initially-set", &protects[0], nothing_is_lost);
    g_test_add_data_func("/kvm/log/random/manual", &protects[1], nothing_is_lost);
    g_test_add_data_func("/kvm/log/random/at-once", &protects[2], nothing_is_lost);
    return g_test_run();
}
