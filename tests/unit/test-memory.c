/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Accesses to address spaces, listeners, and views under threads. */
#include "memory/memory.h"

#include <string.h>
#include "memory/address-space.h"
#include "memory/listener.h"
#include "util/bql.h"

/* --- a space with one of everything --- */

#define PAGE 4096u

typedef struct Device {
    MemoryRegion mr;
    MemoryRegionOps ops;
    GString *calls; /* "r4@8 w1@0=ff " */
} Device;

static uint64_t device_read(void *opaque, hwaddr addr, unsigned size)
{
    Device *dev = opaque;

    g_assert_true(bql_locked());
    g_string_append_printf(dev->calls, "r%u@%x ", size, (unsigned)addr);
    return UINT64_C(0x8877665544332211) >> (8 * (addr & 7));
}

static void device_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    Device *dev = opaque;

    g_string_append_printf(dev->calls, "w%u@%x=%" G_GINT64_MODIFIER "x ", size, (unsigned)addr,
                           data);
}

static void device_init(Device *dev, const MemoryRegionOps *ops, uint64_t size)
{
    dev->ops = *ops;
    dev->ops.read = device_read;
    dev->ops.write = device_write;
    dev->calls = g_string_new(NULL);
    memory_region_init_io(&dev->mr, NULL, &dev->ops, dev, "device", size);
}

static void device_destroy(Device *dev)
{
    memory_region_destroy(&dev->mr);
    g_string_free(dev->calls, TRUE);
}

static void test_accesses_are_split_as_the_device_says(void)
{
    static const struct {
        MemoryRegionOps ops;
        bool write;
        hwaddr addr;
        unsigned len;
        const char *calls;
        MemTxResult result;
    } cases[] = {
        {{0}, false, 0, 4, "r4@0 ", MEMTX_OK},
        {{0}, false, 0, 8, "r4@0 r4@4 ", MEMTX_OK},
        {{0}, false, 1, 4, "r1@1 r2@2 r1@4 ", MEMTX_OK},
        {{.guest.unaligned = true, .device.unaligned = true}, false, 1, 4, "r4@1 ", MEMTX_OK},
        {{.guest.max = 8, .device.max = 8}, false, 8, 8, "r8@8 ", MEMTX_OK},
        {{.guest.max = 8}, false, 8, 8, "r4@8 r4@c ", MEMTX_OK},
        {{.device.max = 1}, true, 0, 2, "w1@0=34 w1@1=12 ", MEMTX_OK},
        {{.big_endian = true}, true, 0, 2, "w2@0=3412 ", MEMTX_OK},
        {{.device.min = 4}, false, 1, 1, "r4@0 ", MEMTX_OK},
        {{.guest.min = 4}, false, 0, 2, "", MEMTX_DECODE_ERROR},
        {{.guest.min = 4}, true, 0, 1, "", MEMTX_DECODE_ERROR},
        {{0}, false, 12, 8, "r4@c ", MEMTX_DECODE_ERROR}, /* past the end */
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint8_t buf[8] = {0x34, 0x12};
        Device dev;
        AddressSpace as;

        device_init(&dev, &cases[i].ops, 16);
        address_space_init(&as, &dev.mr, "test");
        g_assert_cmphex(address_space_rw(&as, cases[i].addr, MEMTXATTRS_UNSPECIFIED, buf,
                                         cases[i].len, cases[i].write),
                        ==, cases[i].result);
        g_assert_cmpstr(dev.calls->str, ==, cases[i].calls);
        address_space_destroy(&as);
        device_destroy(&dev);
    }
}

static void test_values_come_in_the_right_order(void)
{
    const MemoryRegionOps little = {.guest.max = 8}, big = {.big_endian = true, .guest.max = 8},
                          wide = {.device.min = 4};
    static const MemTxAttrs attrs = {.unspecified = true};
    MemTxResult result = 99;
    Device dev;
    AddressSpace as;

    device_init(&dev, &little, 8);
    address_space_init(&as, &dev.mr, "little");
    g_assert_cmphex(address_space_ldq_le(&as, 0, attrs, &result), ==, 0x8877665544332211);
    g_assert_cmphex(result, ==, MEMTX_OK);
    g_assert_cmphex(address_space_ldl_be(&as, 4, attrs, NULL), ==, 0x55667788);
    g_assert_cmphex(address_space_ldw_le(&as, 7, attrs, &result), ==, 0x88);
    g_assert_cmphex(result, ==, MEMTX_DECODE_ERROR);
    address_space_destroy(&as);
    device_destroy(&dev);

    device_init(&dev, &big, 8);
    address_space_init(&as, &dev.mr, "big");
    g_assert_cmphex(address_space_ldl_le(&as, 0, attrs, NULL), ==, 0x11223344);
    g_assert_cmphex(address_space_ldw_be(&as, 0, attrs, NULL), ==, 0x2211);
    address_space_destroy(&as);
    device_destroy(&dev);

    /* A byte out of the middle of a word. */
    device_init(&dev, &wide, 8);
    address_space_init(&as, &dev.mr, "wide");
    g_assert_cmphex(address_space_ldb(&as, 2, attrs, NULL), ==, 0x33);
    g_assert_cmphex(address_space_ldw_le(&as, 6, attrs, NULL), ==, 0x8877);
    address_space_destroy(&as);
    device_destroy(&dev);
}

typedef struct Mixed {
    MemoryRegion root, ram, rom;
    Device dev;
    AddressSpace as;
} Mixed;

/* RAM at 0, a device in its second page, ROM behind it, and RAM that ends with the last address. */
static void mixed_init(Mixed *m)
{
    const MemoryRegionOps ops = {0};
    g_autoptr(GError) err = NULL;

    memory_region_init(&m->root, NULL, "root", MEMORY_REGION_WHOLE);
    g_assert_true(memory_region_init_ram(&m->ram, NULL, "t.ram", 4 * PAGE, &err));
    g_assert_true(memory_region_init_rom(&m->rom, NULL, "t.rom", PAGE, &err));
    device_init(&m->dev, &ops, 16);
    memory_region_transaction_begin();
    memory_region_add_subregion(&m->root, 0, &m->ram);
    memory_region_add_subregion_overlap(&m->root, PAGE, &m->dev.mr, 1);
    memory_region_add_subregion(&m->root, 4 * PAGE, &m->rom);
    memory_region_transaction_commit();
    address_space_init(&m->as, &m->root, "mixed");
}

/* Nothing is in front of the RAM, and nothing beside it. */
static void mixed_init_ram_alone(Mixed *m)
{
    mixed_init(m);
    memory_region_set_enabled(&m->dev.mr, false);
    memory_region_set_enabled(&m->rom, false);
}

static void mixed_destroy(Mixed *m)
{
    address_space_destroy(&m->as);
    memory_region_del_subregion(&m->root, &m->ram);
    memory_region_del_subregion(&m->root, &m->rom);
    memory_region_del_subregion(&m->root, &m->dev.mr);
    memory_region_destroy(&m->ram);
    memory_region_destroy(&m->rom);
    memory_region_destroy(&m->root);
    device_destroy(&m->dev);
}

static void test_transfers_cross_everything(void)
{
    static const MemTxAttrs attrs = {.unspecified = true};
    uint8_t buf[6 * PAGE];
    Mixed m;
    uint8_t *ram, *rom;

    mixed_init(&m);
    ram = memory_region_get_ram_ptr(&m.ram);
    rom = memory_region_get_ram_ptr(&m.rom);
    memset(buf, 0x5a, sizeof(buf));
    g_assert_cmphex(address_space_write(&m.as, 0, attrs, buf, sizeof(buf)), ==, MEMTX_DECODE_ERROR);
    g_assert_cmpuint(ram[PAGE - 1], ==, 0x5a);
    g_assert_cmpuint(ram[PAGE], ==, 0); /* the device is in front */
    g_assert_cmpuint(ram[PAGE + 16], ==, 0x5a);
    g_assert_cmpuint(rom[0], ==, 0);
    g_assert_cmpstr(m.dev.calls->str, ==,
                    "w4@0=5a5a5a5a w4@4=5a5a5a5a w4@8=5a5a5a5a w4@c=5a5a5a5a ");
    g_assert_cmphex(address_space_write_rom(&m.as, 4 * PAGE, attrs, buf, PAGE), ==, MEMTX_OK);
    g_assert_cmpuint(rom[PAGE - 1], ==, 0x5a);
    g_assert_cmphex(address_space_read(&m.as, 0, attrs, buf, sizeof(buf)), ==, MEMTX_DECODE_ERROR);
    g_assert_cmpuint(buf[PAGE], ==, 0x11);
    g_assert_cmpuint(buf[5 * PAGE - 1], ==, 0x5a);
    g_assert_cmpuint(buf[5 * PAGE], ==, 0);
    g_assert_cmphex(address_space_set(&m.as, 2 * PAGE, 3, 2 * PAGE, attrs), ==, MEMTX_OK);
    g_assert_cmpuint(ram[4 * PAGE - 1], ==, 3);
    /* No address or length is too wild. */
    buf[0] = 1;
    g_assert_cmphex(address_space_read(&m.as, UINT64_MAX, attrs, buf, 2), ==, MEMTX_DECODE_ERROR);
    g_assert_cmpuint(buf[0], ==, 0);
    g_assert_cmphex(address_space_set(&m.as, 5 * PAGE, 3, UINT64_MAX, attrs), ==,
                    MEMTX_DECODE_ERROR);
    mixed_destroy(&m);
}

static void test_map_gives_ram_only(void)
{
    static const MemTxAttrs attrs = {.unspecified = true};
    uint64_t len = UINT64_MAX;
    Mixed m;
    uint8_t *host;

    mixed_init(&m);
    host = address_space_map(&m.as, 16, &len, true, attrs);
    g_assert_cmpuint(len, ==, PAGE - 16);
    g_assert_true(host == (uint8_t *)memory_region_get_ram_ptr(&m.ram) + 16);
    ram_block_log_start(m.ram.ram_block, DIRTY_MEMORY_MIGRATION);
    address_space_unmap(&m.as, host, len, true, 10);
    g_assert_true(ram_block_get_dirty(m.ram.ram_block, DIRTY_MEMORY_MIGRATION, 0, PAGE));
    g_assert_false(ram_block_get_dirty(m.ram.ram_block, DIRTY_MEMORY_MIGRATION, PAGE, PAGE));
    ram_block_log_stop(m.ram.ram_block, DIRTY_MEMORY_MIGRATION);
    len = 8;
    g_assert_null(address_space_map(&m.as, PAGE, &len, false, attrs));
    g_assert_cmpuint(len, ==, 0);
    len = 8;
    g_assert_null(address_space_map(&m.as, 4 * PAGE, &len, true, attrs)); /* ROM */
    len = 8;
    host = address_space_map(&m.as, 4 * PAGE, &len, false, attrs);
    g_assert_nonnull(host);
    address_space_unmap(&m.as, host, len, false, 0);
    len = 8;
    g_assert_null(address_space_map(&m.as, UINT64_MAX - 3, &len, false, attrs));
    g_assert_true(address_space_access_valid(&m.as, 2 * PAGE, 3 * PAGE, false));
    g_assert_false(address_space_access_valid(&m.as, 2 * PAGE, 3 * PAGE, true));
    g_assert_false(address_space_access_valid(&m.as, 0, 2 * PAGE, false));
    g_assert_false(address_space_access_valid(&m.as, 5 * PAGE - 1, UINT64_MAX, false));
    mixed_destroy(&m);
}

static bool take_dirty(const MemoryRegion *mr, unsigned page)
{
    return ram_block_test_and_clear_dirty(mr->ram_block, DIRTY_MEMORY_MIGRATION, page * PAGE, PAGE);
}

static void test_writes_mark_pages_and_reads_do_not(void)
{
    static const MemTxAttrs attrs = {.unspecified = true};
    uint8_t buf[2 * PAGE] = {0};
    Mixed m;

    mixed_init(&m);
    ram_block_log_start(m.ram.ram_block, DIRTY_MEMORY_MIGRATION);
    ram_block_log_start(m.rom.ram_block, DIRTY_MEMORY_MIGRATION);
    address_space_write(&m.as, 3 * PAGE - 1, attrs, buf, 2);
    g_assert_true(!take_dirty(&m.ram, 1) && take_dirty(&m.ram, 2) && take_dirty(&m.ram, 3));
    address_space_set(&m.as, 3 * PAGE, 0, PAGE, attrs);
    g_assert_true(!take_dirty(&m.ram, 2) && take_dirty(&m.ram, 3));
    address_space_stb(&m.as, 2 * PAGE, 0, attrs, NULL);
    g_assert_true(take_dirty(&m.ram, 2) && !take_dirty(&m.ram, 3));
    address_space_read(&m.as, 2 * PAGE, attrs, buf, sizeof(buf));
    address_space_write(&m.as, 4 * PAGE, attrs, buf, PAGE); /* ROM */
    g_assert_true(!take_dirty(&m.ram, 2) && !take_dirty(&m.ram, 3) && !take_dirty(&m.rom, 0));
    address_space_write_rom(&m.as, 4 * PAGE, attrs, buf, 1);
    g_assert_true(take_dirty(&m.rom, 0));
    ram_block_log_stop(m.ram.ram_block, DIRTY_MEMORY_MIGRATION);
    ram_block_log_stop(m.rom.ram_block, DIRTY_MEMORY_MIGRATION);
    mixed_destroy(&m);
}

/* A mapping outlives the region it was made through. */
static void test_mapped_memory_stays_until_it_is_unmapped(void)
{
    static const MemTxAttrs attrs = {.unspecified = true};
    uint64_t len = PAGE;
    Mixed m;
    uint8_t *host;

    mixed_init(&m);
    host = address_space_map(&m.as, 0, &len, true, attrs);
    mixed_destroy(&m);
    memset(host, 1, len);
    address_space_unmap(NULL, host, len, true, len);
}

/* --- listeners and logging --- */

typedef struct Recorder {
    MemoryListener listener;
    GString *log;
    bool refuse;
} Recorder;

static void note(MemoryListener *l, const char *what, const MemoryRegionSection *s)
{
    GString *log = ((Recorder *)l)->log;

    g_string_append_printf(log, "%s:%s", l->name, what);
    if (s) {
        g_string_append_printf(log, "@%x+%x", (unsigned)s->offset_within_address_space,
                               (unsigned)s->size);
    }
    g_string_append_c(log, ' ');
}

static void note_begin(MemoryListener *l)
{
    note(l, "begin", NULL);
}

static void note_commit(MemoryListener *l)
{
    note(l, "commit", NULL);
}

/* "add", and which clients log the section, if any. */
static void note_add(MemoryListener *l, const MemoryRegionSection *s)
{
    g_autofree char *what = s->log_mask ? g_strdup_printf("add%x", s->log_mask) : g_strdup("add");

    note(l, what, s);
}

static void note_del(MemoryListener *l, const MemoryRegionSection *s)
{
    note(l, "del", s);
}

static void note_start(MemoryListener *l, const MemoryRegionSection *s, unsigned old, unsigned mask)
{
    g_autofree char *what = g_strdup_printf("start%x>%x", old, mask);

    note(l, what, s);
}

static void note_stop(MemoryListener *l, const MemoryRegionSection *s, unsigned old, unsigned mask)
{
    g_autofree char *what = g_strdup_printf("stop%x>%x", old, mask);

    note(l, what, s);
}

static void note_clear(MemoryListener *l, const MemoryRegionSection *s)
{
    note(l, "clear", s);
}

/* What it knows of: a write to the first page of each section. */
static void note_sync(MemoryListener *l, const MemoryRegionSection *s)
{
    const uint64_t first = 1;

    note(l, "sync", s);
    ram_block_set_dirty_bitmap(s->block, s->offset_within_region, &first, 1);
}

static bool note_global_start(MemoryListener *l, GError **errp)
{
    note(l, "global_start", NULL);
    if (((Recorder *)l)->refuse) {
        g_set_error_literal(errp, G_FILE_ERROR, 1, "refused");
    }
    return !((Recorder *)l)->refuse;
}

static void note_after_sync(MemoryListener *l)
{
    note(l, "after_sync", NULL);
}

static void note_global_stop(MemoryListener *l)
{
    note(l, "global_stop", NULL);
}

static void recorder_init(Recorder *r, AddressSpace *as, const char *name, unsigned priority,
                          GString *log)
{
    *r = (Recorder){.listener = {.name = name,
                                 .priority = priority,
                                 .begin = note_begin,
                                 .commit = note_commit,
                                 .region_add = note_add,
                                 .region_del = note_del,
                                 .log_start = note_start,
                                 .log_stop = note_stop,
                                 .log_sync = note_sync,
                                 .log_clear = note_clear,
                                 .log_global_start = note_global_start,
                                 .log_global_stop = note_global_stop},
                    .log = log};
    memory_listener_register(&r->listener, as);
}

static void expect(GString *log, const char *text)
{
    g_assert_cmpstr(log->str, ==, text);
    g_string_set_size(log, 0);
}

static void test_listeners_are_called_in_order(void)
{
    GString *log = g_string_new(NULL);
    Recorder a, b;
    Mixed m;

    mixed_init_ram_alone(&m);
    recorder_init(&b, &m.as, "b", 2, log);
    expect(log, "b:begin b:add@0+4000 b:commit ");
    recorder_init(&a, &m.as, "a", 1, log);
    expect(log, "a:begin a:add@0+4000 a:commit ");
    memory_region_set_address(&m.ram, PAGE);
    expect(log, "a:begin b:begin b:del@0+4000 a:del@0+4000 a:add@1000+4000 b:add@1000+4000 "
                "a:commit b:commit ");
    memory_region_set_log(&m.ram, true, DIRTY_MEMORY_VGA);
    expect(log, "a:begin b:begin a:start0>1@1000+4000 b:start0>1@1000+4000 a:commit b:commit ");
    g_assert_true(memory_global_dirty_log_start(1u << DIRTY_MEMORY_MIGRATION, NULL));
    expect(log, "a:global_start a:start1>5@1000+4000 b:global_start b:start1>5@1000+4000 ");
    ram_block_clear_log(m.ram.ram_block, PAGE, PAGE);
    expect(log, "a:clear@2000+1000 b:clear@2000+1000 ");
    memory_global_dirty_log_stop(1u << DIRTY_MEMORY_MIGRATION);
    expect(log, "a:stop5>1@1000+4000 a:global_stop b:stop5>1@1000+4000 b:global_stop ");
    memory_region_set_log(&m.ram, false, DIRTY_MEMORY_VGA);
    expect(log, "a:begin b:begin a:stop1>0@1000+4000 b:stop1>0@1000+4000 a:commit b:commit ");
    /* A transaction without effect is none. */
    memory_region_transaction_begin();
    memory_region_set_enabled(&m.ram, false);
    memory_region_set_enabled(&m.ram, true);
    memory_region_transaction_commit();
    expect(log, "");
    memory_listener_unregister(&a.listener);
    memory_listener_unregister(&b.listener);
    expect(log, "a:begin a:del@1000+4000 a:commit b:begin b:del@1000+4000 b:commit ");
    mixed_destroy(&m);
    g_string_free(log, TRUE);
}

/*
 * A listener that is added while memory is logged is told so; before it goes it reports its log.
 */
static void test_a_listener_comes_and_goes_while_memory_is_logged(void)
{
    GString *log = g_string_new(NULL);
    Recorder a;
    Mixed m;

    mixed_init_ram_alone(&m);
    g_assert_true(memory_global_dirty_log_start(1u << DIRTY_MEMORY_MIGRATION, NULL));
    recorder_init(&a, &m.as, "a", 1, log);
    expect(log, "a:begin a:global_start a:add4@0+4000 a:commit ");
    a.listener.log_global_after_sync = note_after_sync;
    memory_global_dirty_log_sync(true);
    expect(log, "a:sync@0+4000 a:after_sync ");
    memory_listener_unregister(&a.listener);
    expect(log, "a:begin a:sync@0+4000 a:del@0+4000 a:commit ");
    memory_global_dirty_log_stop(1u << DIRTY_MEMORY_MIGRATION);
    expect(log, "");
    mixed_destroy(&m);
    g_string_free(log, TRUE);
}

/* Whether address 0 is RAM in the view that is in force, as listeners are called. */
static AddressSpace *watched;

static void note_view(MemoryListener *l, const char *what)
{
    g_autoptr(FlatView) view = address_space_get_flatview(watched);
    const FlatRange *range = flatview_find(view, 0);

    g_string_append_printf(((Recorder *)l)->log, "%s:%s ", what,
                           range && range->block ? "ram" : "none");
}

static void view_at_add(MemoryListener *l, const MemoryRegionSection *s)
{
    note_view(l, "add");
}

static void view_at_del(MemoryListener *l, const MemoryRegionSection *s)
{
    note_view(l, "del");
}

static void test_a_region_goes_before_the_view_and_comes_after_it(void)
{
    GString *log = g_string_new(NULL);
    Recorder a;
    Mixed m;

    mixed_init_ram_alone(&m);
    recorder_init(&a, &m.as, "a", 1, log);
    watched = &m.as;
    a.listener.begin = a.listener.commit = NULL;
    a.listener.region_add = view_at_add;
    a.listener.region_del = view_at_del;
    g_string_set_size(log, 0);
    memory_region_set_enabled(&m.ram, false);
    memory_region_set_enabled(&m.ram, true);
    expect(log, "del:ram add:ram ");
    memory_region_set_address(&m.ram, PAGE);
    expect(log, "del:ram add:none ");
    memory_listener_unregister(&a.listener);
    mixed_destroy(&m);
    g_string_free(log, TRUE);
}

static void test_a_refused_start_of_logging_leaves_nothing_on(void)
{
    GString *log = g_string_new(NULL);
    g_autoptr(GError) err = NULL;
    Recorder a, b;
    Mixed m;

    mixed_init(&m);
    recorder_init(&a, &m.as, "a", 1, log);
    recorder_init(&b, &m.as, "b", 2, log);
    b.refuse = true;
    g_string_set_size(log, 0);
    g_assert_false(memory_global_dirty_log_start(1u << DIRTY_MEMORY_MIGRATION, &err));
    g_assert_cmpstr(err->message, ==, "refused");
    g_assert_nonnull(strstr(log->str, "a:global_stop"));
    g_assert_null(strstr(log->str, "b:global_stop"));
    g_assert_cmphex(memory_global_dirty_log_clients(), ==, 0);
    g_assert_false(ram_block_is_logged(m.ram.ram_block, DIRTY_MEMORY_MIGRATION));
    b.refuse = false;
    g_assert_true(memory_global_dirty_log_start(1u << DIRTY_MEMORY_MIGRATION, NULL));
    memory_global_dirty_log_stop(1u << DIRTY_MEMORY_MIGRATION);
    memory_listener_unregister(&a.listener);
    memory_listener_unregister(&b.listener);
    mixed_destroy(&m);
    g_string_free(log, TRUE);
}

static void test_sync_collects_what_listeners_know(void)
{
    GString *log = g_string_new(NULL);
    RAMBlock *block;
    Recorder a;
    Mixed m;

    mixed_init(&m);
    recorder_init(&a, &m.as, "a", 1, log);
    block = m.ram.ram_block;
    g_assert_true(memory_global_dirty_log_start(1u << DIRTY_MEMORY_MIGRATION, NULL));
    g_assert_false(ram_block_get_dirty(block, DIRTY_MEMORY_MIGRATION, 0, 4 * PAGE));
    memory_global_dirty_log_sync(false);
    /* The device cuts the RAM in two sections, at 0 and at 0x1010. */
    g_assert_true(ram_block_get_dirty(block, DIRTY_MEMORY_MIGRATION, 0, 1));
    g_assert_true(ram_block_get_dirty(block, DIRTY_MEMORY_MIGRATION, PAGE, 1));
    g_assert_false(ram_block_get_dirty(block, DIRTY_MEMORY_MIGRATION, 2 * PAGE, 2 * PAGE));
    memory_global_dirty_log_stop(1u << DIRTY_MEMORY_MIGRATION);
    memory_listener_unregister(&a.listener);
    mixed_destroy(&m);
    g_string_free(log, TRUE);
}

/* --- views are read by other threads --- */

typedef struct Reader {
    Mixed *m;
    int stop; /* atomic */
    uint64_t reads;
} Reader;

static void *reader(void *opaque)
{
    static const MemTxAttrs attrs = {.unspecified = true};
    Reader *r = opaque;

    while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
        uint64_t a = address_space_ldq_le(&r->m->as, 3 * PAGE, attrs, NULL), len = 8;
        void *host = address_space_map(&r->m->as, 3 * PAGE, &len, false, attrs);

        g_assert_true(a == 0 || a == 0x1234);
        if (host) {
            address_space_unmap(&r->m->as, host, len, false, 0);
        }
        r->reads++;
    }
    return NULL;
}

static void test_other_threads_read_while_the_space_changes(void)
{
    static const MemTxAttrs attrs = {.unspecified = true};
    GThread *threads[2];
    Reader readers[2];
    Mixed m;

    mixed_init(&m);
    address_space_stq_le(&m.as, 3 * PAGE, 0x1234, attrs, NULL);
    for (unsigned i = 0; i < 2; i++) {
        readers[i] = (Reader){.m = &m};
        threads[i] = g_thread_new("reader", reader, &readers[i]);
    }
    for (unsigned i = 0; i < 2000; i++) {
        MemoryRegion extra;
        g_autoptr(GError) err = NULL;

        g_assert_true(memory_region_init_ram(&extra, NULL, "extra", PAGE, &err));
        memory_region_add_subregion_overlap(&m.root, 3 * PAGE, &extra, 5);
        memory_region_del_subregion(&m.root, &extra);
        memory_region_destroy(&extra);
        memory_region_set_enabled(&m.ram, i & 1);
    }
    for (unsigned i = 0; i < 2; i++) {
        __atomic_store_n(&readers[i].stop, 1, __ATOMIC_RELEASE);
        g_thread_join(threads[i]);
    }
    mixed_destroy(&m);
}

static void resized(void *opaque, uint64_t length, void *host)
{
    *(uint64_t *)opaque = length;
}

static void test_a_resized_block_changes_the_view(void)
{
    static const MemTxAttrs attrs = {.unspecified = true};
    uint64_t told = 0;
    g_autoptr(GError) err = NULL;
    MemoryRegion root, mr;
    AddressSpace as;

    memory_region_init(&root, NULL, "root", MEMORY_REGION_WHOLE);
    g_assert_true(memory_region_init_resizeable_ram(&mr, NULL, "/rom@t", PAGE, 8 * PAGE, resized,
                                                    &told, &err));
    memory_region_add_subregion(&root, 0, &mr);
    address_space_init(&as, &root, "test");
    g_assert_false(address_space_access_valid(&as, 0, 2 * PAGE, false));
    g_assert_true(ram_block_resize(mr.ram_block, 3 * PAGE, &err));
    g_assert_cmpuint(told, ==, 3 * PAGE);
    g_assert_true(address_space_access_valid(&as, 0, 3 * PAGE, false));
    g_assert_cmphex(address_space_set(&as, 0, 1, 4 * PAGE, attrs), ==, MEMTX_DECODE_ERROR);
    address_space_destroy(&as);
    memory_region_del_subregion(&root, &mr);
    memory_region_destroy(&mr);
    memory_region_destroy(&root);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/memory/access/split", test_accesses_are_split_as_the_device_says);
    g_test_add_func("/memory/access/order", test_values_come_in_the_right_order);
    g_test_add_func("/memory/access/mixed", test_transfers_cross_everything);
    g_test_add_func("/memory/access/map", test_map_gives_ram_only);
    g_test_add_func("/memory/access/dirty", test_writes_mark_pages_and_reads_do_not);
    g_test_add_func("/memory/access/unmap_late", test_mapped_memory_stays_until_it_is_unmapped);
    g_test_add_func("/memory/listener/order", test_listeners_are_called_in_order);
    g_test_add_func("/memory/listener/while-logging",
                    test_a_listener_comes_and_goes_while_memory_is_logged);
    g_test_add_func("/memory/listener/view", test_a_region_goes_before_the_view_and_comes_after_it);
    g_test_add_func("/memory/listener/refusal", test_a_refused_start_of_logging_leaves_nothing_on);
    g_test_add_func("/memory/listener/sync", test_sync_collects_what_listeners_know);
    g_test_add_func("/memory/threads", test_other_threads_read_while_the_space_changes);
    g_test_add_func("/memory/resize", test_a_resized_block_changes_the_view);
    return g_test_run();
}
