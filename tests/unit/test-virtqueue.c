/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Virtqueues: what a driver and a device exchange through both formats, and what a hostile driver does. */
#include <string.h>
#include <unistd.h>
#include "memory/dirty.h"
#include "tests/unit/virtio-rig.h"
#include "util/bql.h"

#define INDIRECT RIG_BIT(VIRTIO_F_INDIRECT_DESC)
#define EVENT    RIG_BIT(VIRTIO_F_EVENT_IDX)
#define SIZE     8

#define AVAIL_IDX  (RIG_DRIVER + 2)
#define AVAIL(n)   (RIG_DRIVER + 4 + 2 * (n))
#define USED_EVENT (RIG_DRIVER + 4 + 2 * SIZE)

static const RigPiece out_in[] = {{RIG_BUFFERS, 16, false}, {RIG_BUFFERS + 0x100, 32, true}};
static const RigPiece in_only[] = {{RIG_BUFFERS + 0x100, 32, true}};

static void breaks(VirtIORig *rig, const char *reason)
{
    unsigned before = rig->breaks;

    g_assert_null(virtqueue_pop(&rig->vq));
    g_assert_cmpstr(rig->reason, ==, reason);
    g_assert_cmpuint(rig->breaks, ==, before + 1);
    g_assert_null(virtqueue_pop(&rig->vq));
    g_assert_true(virtqueue_empty(&rig->vq));
    g_assert_cmpuint(rig->breaks, ==, before + 1);
    g_assert_cmpuint(rig->regs_accesses, ==, 0);
    rig_restart(rig);
    g_assert_cmpint(rig_add(rig, out_in, 2, false), >=, 0);
    virtqueue_push(&rig->vq, virtqueue_pop(&rig->vq), 0);
    rig_restart(rig);
}

/* --- what both formats promise --- */

static void test_a_request_has_the_pieces_that_the_driver_gave(gconstpointer packed)
{
    VirtIORig *rig = rig_new(packed, SIZE, INDIRECT);
    uint16_t id;
    uint32_t len;

    for (int indirect = 0; indirect < 2; indirect++) {
        int added = rig_add(rig, out_in, 2, indirect);
        VirtQueueElement *elem;

        g_assert_false(virtqueue_empty(&rig->vq));
        elem = virtqueue_pop(&rig->vq);
        g_assert_cmpuint(elem->out_num, ==, 1);
        g_assert_cmpuint(elem->in_num, ==, 1);
        g_assert_true(elem->out[0].iov_base == rig->mem + RIG_BUFFERS);
        g_assert_true(elem->in[0].iov_base == rig->mem + RIG_BUFFERS + 0x100);
        g_assert_cmpuint(elem->out_bytes, ==, 16);
        g_assert_cmpuint(elem->in_bytes, ==, 32);
        g_assert_false(rig_collect(rig, &id, &len));
        virtqueue_push(&rig->vq, elem, 7);
        g_assert_true(rig_collect(rig, &id, &len));
        g_assert_cmpint(id, ==, added);
        g_assert_cmpuint(len, ==, 7);
        g_assert_true(virtqueue_empty(&rig->vq));
    }
    rig_free(rig);
}

static void test_requests_start_in_order_and_end_in_any(gconstpointer packed)
{
    VirtIORig *rig = rig_new(packed, SIZE, 0);
    VirtQueueElement *elem[3];
    int added[3];
    uint16_t id;
    uint32_t len;

    for (int i = 0; i < 3; i++) {
        added[i] = rig_add(rig, out_in, 2, false);
    }
    for (int i = 0; i < 3; i++) {
        elem[i] = virtqueue_pop(&rig->vq);
        g_assert_cmpint(elem[i]->id, ==, added[i]);
    }
    for (int i = 2; i >= 0; i--) {
        virtqueue_push(&rig->vq, elem[i], 0);
        g_assert_true(rig_collect(rig, &id, &len));
        g_assert_cmpint(id, ==, added[i]);
        g_assert_cmpuint(len, ==, 0);
    }
    rig_free(rig);
}

static void test_several_requests_become_used_at_once(gconstpointer packed)
{
    VirtIORig *rig = rig_new(packed, SIZE, 0);
    VirtQueueElement *elems[2];
    uint16_t id;
    uint32_t len;

    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(rig_add(rig, in_only, 1, false), >=, 0);
    }
    for (int i = 0; i < 2; i++) {
        elems[i] = virtqueue_pop(&rig->vq);
    }
    virtqueue_push_many(&rig->vq, elems, (uint64_t[]){3, 999}, 2);
    g_assert_true(rig_collect(rig, &id, &len));
    g_assert_cmpuint(len, ==, 3);
    g_assert_true(rig_collect(rig, &id, &len));
    g_assert_cmpuint(len, ==, 32); /* never more than there was room for */
    g_assert_false(rig_collect(rig, &id, &len));
    rig_free(rig);
}

static void test_what_was_given_back_is_taken_again(gconstpointer packed)
{
    VirtIORig *rig = rig_new(packed, 3 + !packed, 0);

    for (int i = 0; i < 7; i++) { /* across the end of the ring */
        int added = rig_add(rig, out_in, 2, false);
        VirtQueueElement *elem = virtqueue_pop(&rig->vq);
        uint16_t id;
        uint32_t len;

        virtqueue_unpop(&rig->vq, elem);
        g_assert_false(virtqueue_empty(&rig->vq));
        elem = virtqueue_pop(&rig->vq);
        g_assert_cmpint(elem->id, ==, added);
        virtqueue_push(&rig->vq, elem, 1);
        g_assert_true(rig_collect(rig, &id, &len));
    }
    rig_free(rig);
}

static void test_a_reset_drops_what_is_in_flight(gconstpointer packed)
{
    VirtIORig *rig = rig_new(packed, SIZE, 0);
    VirtQueueElement *elem;
    uint16_t id;
    uint32_t len;

    g_assert_cmpint(rig_add(rig, out_in, 2, false), >=, 0);
    elem = virtqueue_pop(&rig->vq);
    virtqueue_stop(&rig->vq);
    g_assert_null(virtqueue_pop(&rig->vq));
    virtqueue_drop(&rig->vq, elem);
    rig_restart(rig);
    g_assert_false(rig_collect(rig, &id, &len));
    g_assert_true(virtqueue_empty(&rig->vq));
    rig_free(rig);
}

static void test_written_bytes_are_dirty_and_others_are_not(gconstpointer packed)
{
    static const RigPiece pieces[] = {{RIG_BUFFERS, 0x1000, false},
                                      {RIG_BUFFERS + 0x2000, 0x1000, true},
                                      {RIG_BUFFERS + 0x4000, 0x1000, true}};
    VirtIORig *rig = rig_new(packed, SIZE, 0);
    RAMBlock *block = memory_region_get_ram_block(&rig->ram);
    g_autofree uint8_t *before = NULL;

    memset(rig->mem + RIG_BUFFERS, 0x5a, 0x1000);
    before = g_memdup2(rig->mem + RIG_BUFFERS, 0x1000);
    g_assert_cmpint(rig_add(rig, pieces, 3, false), >=, 0);
    ram_block_log_start(block, DIRTY_MEMORY_MIGRATION);
    virtqueue_push(&rig->vq, virtqueue_pop(&rig->vq), 0x1000);
    /* "A device MUST NOT write to a device-readable buffer." */
    g_assert_cmpmem(before, 0x1000, rig->mem + RIG_BUFFERS, 0x1000);
    g_assert_false(ram_block_get_dirty(block, DIRTY_MEMORY_MIGRATION, RIG_BUFFERS, 0x1000));
    g_assert_true(ram_block_get_dirty(block, DIRTY_MEMORY_MIGRATION, pieces[1].addr, 0x1000));
    g_assert_false(ram_block_get_dirty(block, DIRTY_MEMORY_MIGRATION, pieces[2].addr, 0x1000));
    g_assert_true(
        ram_block_get_dirty(block, DIRTY_MEMORY_MIGRATION, packed ? RIG_DESC : RIG_DEVICE, 1));
    ram_block_log_stop(block, DIRTY_MEMORY_MIGRATION);
    rig_free(rig);
}

static void test_the_driver_kicks_when_it_is_asked(gconstpointer packed)
{
    for (int event = 0; event < 2; event++) {
        VirtIORig *rig = rig_new(packed, SIZE, event ? EVENT : 0);

        for (int i = 0; i < 20; i++) { /* NULL means that the driver was asked */
            uint16_t id;
            uint32_t len;

            g_assert_null(virtqueue_pop(&rig->vq));
            g_assert_cmpint(rig_add(rig, in_only, 1, false), >=, 0);
            g_assert_true(rig_would_kick(rig));
            virtqueue_push(&rig->vq, virtqueue_pop(&rig->vq), 0);
            g_assert_true(rig_collect(rig, &id, &len));
        }
        virtqueue_set_notification(&rig->vq, false);
        g_assert_cmpint(rig_add(rig, in_only, 1, false), >=, 0);
        g_assert_cmpint(rig_add(rig, in_only, 1, false), >=, 0);
        g_assert_false(rig_would_kick(rig));
        if (!packed && event) { /* "The device MUST set flags to 0" */
            g_assert_cmpuint(rig_load16(rig, RIG_DEVICE), ==, 0);
        }
        rig_free(rig);
    }
}

/* --- Used Buffer Notification Suppression --- */

static bool use_one(VirtIORig *rig)
{
    uint16_t id;
    uint32_t len;

    g_assert_cmpint(rig_add(rig, in_only, 1, false), >=, 0);
    virtqueue_push(&rig->vq, virtqueue_pop(&rig->vq), 0);
    g_assert_true(rig_collect(rig, &id, &len));
    return virtqueue_should_notify(&rig->vq);
}

static void test_split_flags_suppress_without_the_event_index(void)
{
    VirtIORig *rig = rig_new(false, SIZE, 0);

    rig_store16(rig, USED_EVENT, 0x1234);
    g_assert_true(use_one(rig));
    g_assert_false(virtqueue_should_notify(&rig->vq)); /* nothing new */
    rig_store16(rig, RIG_DRIVER, 1);
    g_assert_false(use_one(rig));
    rig_free(rig);
}

static void test_split_event_index_alone_counts_when_negotiated(void)
{
    VirtIORig *rig = rig_new(false, SIZE, EVENT);

    rig_store16(rig, RIG_DRIVER, 1); /* "The device MUST ignore the lower bit of flags." */
    rig_store16(rig, USED_EVENT, 0);
    g_assert_true(use_one(rig));
    for (unsigned used = 1; used < 70000; used++) {
        uint16_t event = (uint16_t)(used / 5 * 5);

        rig_store16(rig, USED_EVENT, event);
        g_assert_cmpint(use_one(rig), ==, (uint16_t)used == event);
    }
    rig_free(rig);
}

static void test_split_empty_queue_notifies_where_the_legacy_driver_asks(void)
{
    VirtIORig *rig = rig_new(false, SIZE, RIG_BIT(VIRTIO_F_NOTIFY_ON_EMPTY));

    rig_store16(rig, RIG_DRIVER, 1);
    g_assert_true(use_one(rig));
    g_assert_cmpint(rig_add(rig, in_only, 1, false), >=, 0);
    g_assert_false(use_one(rig)); /* one was left */
    rig_free(rig);
}

static void test_packed_event_suppression(void)
{
    VirtIORig *rig = rig_new(true, 5, EVENT);

    g_assert_true(use_one(rig));
    rig_store16(rig, RIG_DRIVER + 2, 1);
    g_assert_false(use_one(rig));
    rig_store16(rig, RIG_DRIVER + 2, 2);
    for (unsigned used = 2; used < 200; used++) { /* the third entry of each lap */
        bool wrap = !(used / 5 % 2);

        rig_store16(rig, RIG_DRIVER, (uint16_t)(3 | (wrap ? 0x8000 : 0)));
        g_assert_cmpint(use_one(rig), ==, used % 5 == 3);
    }
    rig_free(rig);
}

/* --- hostile rings, both formats --- */

static void test_a_buffer_that_is_not_ram_breaks_the_device(gconstpointer packed)
{
    static const struct {
        RigPiece piece;
        const char *reason;
    } cases[] = {
        {{RIG_BUFFERS, 0, true}, "a descriptor has no bytes"},
        {{UINT64_MAX - 3, 8, true}, "a buffer of 0x8 bytes at 0xfffffffffffffffc wraps"},
        {{UINT64_MAX - 3, 4, true}, "a buffer at 0xfffffffffffffffc is not RAM"},
        {{RIG_REGS, 4, false}, "a buffer at 0x100000 is not RAM"},
        {{RIG_REGS, 4, true}, "a buffer at 0x100000 is not RAM"},
        {{RIG_RAM - 4, 8, true}, "a buffer at 0x60000 is not RAM"},
        {{RIG_ROM, 4, true}, "a buffer at 0x200000 is not RAM"},
        {{0, UINT32_MAX, false}, "a buffer at 0x60000 is not RAM"},
    };
    VirtIORig *rig = rig_new(packed, SIZE, INDIRECT);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        for (int indirect = 0; indirect < 2; indirect++) {
            g_assert_cmpint(rig_add(rig, &cases[i].piece, 1, indirect), >=, 0);
            breaks(rig, cases[i].reason);
        }
    }
    rig_free(rig);
}

static void test_a_readable_piece_behind_a_writable_one_breaks_the_device(gconstpointer packed)
{
    const RigPiece pieces[] = {out_in[1], out_in[0]};
    VirtIORig *rig = rig_new(packed, SIZE, INDIRECT);

    for (int indirect = 0; indirect < 2; indirect++) {
        g_assert_cmpint(rig_add(rig, pieces, 2, indirect), >=, 0);
        breaks(rig, "a readable descriptor follows a writable one");
    }
    rig_free(rig);
}

static void make_available(VirtIORig *rig, VirtQueueDesc desc)
{
    if (rig->packed) {
        desc.flags |= rig_avail_flags(rig);
    }
    rig_set_desc(rig, RIG_DESC, 0, desc);
    if (!rig->packed) {
        rig_store16(rig, AVAIL_IDX, 1);
    }
}

static void test_an_indirect_table_of_a_bad_size_or_place_breaks_the_device(gconstpointer packed)
{
    static const struct {
        hwaddr addr;
        uint32_t len;
        const char *reason;
    } cases[] = {
        {RIG_TABLES, 0, "an indirect table of 0x0 bytes at 0x10000"},
        {RIG_TABLES, 15, "an indirect table of 0xf bytes at 0x10000"},
        {RIG_TABLES, 0x80010, "an indirect table of 0x80010 bytes at 0x10000"},
        {UINT64_MAX - 14, 16, "an indirect table of 0x10 bytes at 0xfffffffffffffff1"},
        {RIG_REGS, 16, "an indirect table at 0x100000 is not RAM"},
        {RIG_RAM - 8, 16, "an indirect table at 0x5fff8 is not RAM"},
    };
    VirtIORig *rig = rig_new(packed, SIZE, INDIRECT);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        make_available(rig, (VirtQueueDesc){.addr = cases[i].addr,
                                            .len = cases[i].len,
                                            .flags = VIRTQ_DESC_F_INDIRECT});
        breaks(rig, cases[i].reason);
    }
    rig->features &= ~INDIRECT;
    rig_restart(rig);
    make_available(rig,
                   (VirtQueueDesc){.addr = RIG_TABLES, .len = 16, .flags = VIRTQ_DESC_F_INDIRECT});
    g_assert_null(virtqueue_pop(&rig->vq));
    g_assert_cmpstr(rig->reason, ==, "an indirect table without VIRTIO_F_INDIRECT_DESC");
    rig_free(rig);
}

static void test_a_queue_that_cannot_be_does_not_start(gconstpointer packed)
{
    static const struct {
        uint16_t size;
        hwaddr desc, driver, device;
        bool split_only;
    } cases[] = {
        {0, RIG_DESC, RIG_DRIVER, RIG_DEVICE, false},
        {VIRTQUEUE_SIZE_MAX + 1, RIG_DESC, RIG_DRIVER, RIG_DEVICE, false},
        {UINT16_MAX, RIG_DESC, RIG_DRIVER, RIG_DEVICE, false},
        {3, RIG_DESC, RIG_DRIVER, RIG_DEVICE, true},
        {SIZE, UINT64_MAX - 8, RIG_DRIVER, RIG_DEVICE, false},
        {SIZE, RIG_DESC, UINT64_MAX - 2, RIG_DEVICE, false},
        {SIZE, RIG_DESC, RIG_DRIVER, UINT64_MAX - 2, false},
    };
    VirtIORig *rig = rig_new(packed, SIZE, 0);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        bool bad = !packed || !cases[i].split_only;

        virtqueue_stop(&rig->vq);
        rig->vq.size = cases[i].size;
        rig->vq.desc = cases[i].desc;
        rig->vq.driver = cases[i].driver;
        rig->vq.device = cases[i].device;
        g_assert_cmpint(virtqueue_start(&rig->vq, rig->features), ==, !bad);
        g_assert_cmpint(rig->host.broken, ==, bad);
        rig_restart(rig);
    }
    rig_free(rig);
}

/* QueueReady goes to 0 and to 1 again, without a reset of the device. */
static void test_a_queue_that_starts_again_keeps_within_its_ring(gconstpointer packed)
{
    VirtIORig *rig = rig_new(packed, SIZE, 0);
    VirtQueueElement *elem;

    for (int i = 0; i < SIZE - 1; i++) {
        g_assert_cmpint(rig_add(rig, in_only, 1, false), >=, 0);
        virtqueue_push(&rig->vq, virtqueue_pop(&rig->vq), 0);
    }
    virtqueue_stop(&rig->vq);
    rig->vq.size = SIZE / 2;
    if (packed) {
        g_assert_false(virtqueue_start(&rig->vq, rig->features));
        g_assert_cmpstr(rig->reason, ==, "a queue of 4 entries goes on at places 7 and 7");
    }
    rig_free(rig);

    rig = rig_new(packed, SIZE, 0);
    g_assert_cmpint(rig_add(rig, in_only, 1, false), >=, 0);
    elem = virtqueue_pop(&rig->vq);
    virtqueue_stop(&rig->vq);
    g_assert_false(virtqueue_start(&rig->vq, rig->features));
    g_assert_cmpstr(rig->reason, ==, "a queue starts again while requests are in flight");
    virtqueue_drop(&rig->vq, elem);
    rig_free(rig);
}

static void test_a_ring_that_is_not_ram_breaks_the_device(gconstpointer packed)
{
    VirtIORig *rig = rig_new(packed, SIZE, 0);

    for (int area = 0; area < 3; area++) {
        virtqueue_stop(&rig->vq);
        *(area == 0 ? &rig->vq.desc : area == 1 ? &rig->vq.driver : &rig->vq.device) = RIG_REGS;
        g_assert_true(virtqueue_start(&rig->vq, rig->features));
        breaks(rig, "a ring is not RAM");
    }
    rig_free(rig);
}

/* --- hostile rings, split --- */

static void test_split_available_index_that_jumps_breaks_the_device(void)
{
    VirtIORig *rig = rig_new(false, SIZE, 0);

    rig_store16(rig, AVAIL_IDX, SIZE + 1);
    breaks(rig, "the available index went from 0 to 9 in a queue of 8");
    rig_store16(rig, AVAIL_IDX, UINT16_MAX);
    breaks(rig, "the available index went from 0 to 65535 in a queue of 8");
    rig_free(rig);
}

static void test_split_descriptors_outside_of_their_table_break_the_device(void)
{
    VirtIORig *rig = rig_new(false, SIZE, INDIRECT);
    VirtQueueDesc desc = {.addr = RIG_BUFFERS, .len = 1, .flags = VIRTQ_DESC_F_NEXT, .extra = SIZE};

    rig_store16(rig, AVAIL(0), SIZE);
    rig_store16(rig, AVAIL_IDX, 1);
    breaks(rig, "descriptor 8 is not in the table");
    make_available(rig, desc);
    breaks(rig, "descriptor 8 is not in the table");
    desc.extra = 2;
    rig_set_desc(rig, RIG_TABLES, 0, desc);
    make_available(rig,
                   (VirtQueueDesc){.addr = RIG_TABLES, .len = 32, .flags = VIRTQ_DESC_F_INDIRECT});
    breaks(rig, "descriptor 2 is not in the table");
    rig_free(rig);
}

static void test_split_loops_end(void)
{
    VirtIORig *rig = rig_new(false, SIZE, INDIRECT);
    VirtQueueDesc desc = {.addr = RIG_BUFFERS, .len = 1, .flags = VIRTQ_DESC_F_NEXT};

    make_available(rig, desc);
    breaks(rig, "a chain is longer than its table");
    rig_set_desc(rig, RIG_TABLES, 0, desc);
    make_available(rig,
                   (VirtQueueDesc){.addr = RIG_TABLES, .len = 64, .flags = VIRTQ_DESC_F_INDIRECT});
    breaks(rig, "a chain is longer than its table");
    rig_free(rig);
}

static void test_split_tables_in_tables_and_chains_behind_them_break_the_device(void)
{
    VirtIORig *rig = rig_new(false, SIZE, INDIRECT);
    VirtQueueDesc table = {.addr = RIG_TABLES, .len = 16, .flags = VIRTQ_DESC_F_INDIRECT};

    rig_set_desc(rig, RIG_TABLES, 0, table);
    make_available(rig, table);
    breaks(rig, "an indirect table refers to another");
    table.flags |= VIRTQ_DESC_F_NEXT;
    make_available(rig, table);
    breaks(rig, "a chain goes on behind an indirect table");
    rig_free(rig);
}

/* "The device MUST handle the case of zero or more normal chained descriptors followed by" a table, and "MUST ignore
 * the write-only flag" of the descriptor that refers to it. */
static void test_split_a_table_may_end_a_chain(void)
{
    VirtIORig *rig = rig_new(false, SIZE, INDIRECT);
    VirtQueueElement *elem;

    make_available(rig, (VirtQueueDesc){
                            .addr = RIG_BUFFERS, .len = 1, .flags = VIRTQ_DESC_F_NEXT, .extra = 1});
    rig_set_desc(rig, RIG_DESC, 1,
                 (VirtQueueDesc){.addr = RIG_TABLES,
                                 .len = 32,
                                 .flags = VIRTQ_DESC_F_INDIRECT | VIRTQ_DESC_F_WRITE});
    rig_set_desc(
        rig, RIG_TABLES, 0,
        (VirtQueueDesc){.addr = RIG_BUFFERS, .len = 2, .flags = VIRTQ_DESC_F_NEXT, .extra = 1});
    rig_set_desc(rig, RIG_TABLES, 1,
                 (VirtQueueDesc){.addr = RIG_BUFFERS, .len = 4, .flags = VIRTQ_DESC_F_WRITE});
    elem = virtqueue_pop(&rig->vq);
    g_assert_cmpuint(elem->out_bytes, ==, 3);
    g_assert_cmpuint(elem->in_bytes, ==, 4);
    virtqueue_push(&rig->vq, elem, 4);
    rig_free(rig);
}

static void test_split_more_requests_than_entries_break_the_device(void)
{
    VirtIORig *rig = rig_new(false, 2, 0);
    VirtQueueElement *elem[2];

    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(rig_add(rig, in_only, 1, false), >=, 0);
        elem[i] = virtqueue_pop(&rig->vq);
    }
    rig_store16(rig, AVAIL_IDX, 3);
    g_assert_null(virtqueue_pop(&rig->vq));
    g_assert_cmpstr(rig->reason, ==, "more than 2 requests are in flight");
    virtqueue_push(&rig->vq, elem[0], 0); /* a broken device tells the driver nothing */
    g_assert_cmpuint(rig_load16(rig, RIG_DEVICE + 2), ==, 0);
    virtqueue_drop(&rig->vq, elem[1]);
    rig_free(rig);
}

static void test_split_more_pieces_than_a_request_has_break_the_device(void)
{
    VirtIORig *rig = rig_new(false, SIZE, INDIRECT);

    for (unsigned i = 0; i <= VIRTQUEUE_PIECES_MAX; i++) {
        rig_set_desc(rig, RIG_TABLES, i,
                     (VirtQueueDesc){.addr = RIG_BUFFERS,
                                     .len = 1,
                                     .flags = VIRTQ_DESC_F_NEXT,
                                     .extra = (uint16_t)(i + 1)});
    }
    make_available(rig, (VirtQueueDesc){.addr = RIG_TABLES,
                                        .len = 16 * (VIRTQUEUE_PIECES_MAX + 1),
                                        .flags = VIRTQ_DESC_F_INDIRECT});
    breaks(rig, "a request has more than 1024 pieces");
    rig_free(rig);
}

/* --- hostile rings, packed --- */

static void test_packed_bad_ids_and_chains_break_the_device(void)
{
    VirtIORig *rig = rig_new(true, SIZE, INDIRECT);
    VirtQueueDesc desc = {.addr = RIG_BUFFERS, .len = 1, .extra = SIZE};

    make_available(rig, desc);
    breaks(rig, "buffer id 8 in a queue of 8");
    desc.extra = UINT16_MAX;
    make_available(rig, desc);
    breaks(rig, "buffer id 65535 in a queue of 8");
    desc.flags = VIRTQ_DESC_F_NEXT | rig_avail_flags(rig);
    for (unsigned i = 0; i < SIZE; i++) {
        rig_set_desc(rig, RIG_DESC, i, desc);
    }
    breaks(rig, "more than 8 descriptors are in flight");
    make_available(rig, (VirtQueueDesc){.addr = RIG_TABLES,
                                        .len = 16,
                                        .flags = VIRTQ_DESC_F_INDIRECT | VIRTQ_DESC_F_NEXT});
    breaks(rig, "a chain has an indirect table");
    rig_free(rig);
}

/* "A device MUST NOT use a descriptor unless it observes the VIRTQ_DESC_F_AVAIL bit ... being changed". */
static void test_packed_descriptors_that_are_not_available_are_not_taken(void)
{
    static const uint16_t flags[] = {0, 0x8080, 0x8000};
    VirtIORig *rig = rig_new(true, SIZE, 0);

    for (size_t i = 0; i < G_N_ELEMENTS(flags); i++) {
        rig_set_desc(rig, RIG_DESC, 0,
                     (VirtQueueDesc){.addr = RIG_BUFFERS, .len = 1, .flags = flags[i]});
        g_assert_true(virtqueue_empty(&rig->vq));
        g_assert_null(virtqueue_pop(&rig->vq));
        g_assert_null(rig->reason);
    }
    rig_free(rig);
}

/* "The VIRTQ_DESC_F_WRITE flags bit is the only valid flag ... Others are reserved and are ignored by the device." */
static void test_packed_other_flags_in_a_table_are_ignored(void)
{
    VirtIORig *rig = rig_new(true, SIZE, INDIRECT);
    VirtQueueElement *elem;

    rig_set_desc(
        rig, RIG_TABLES, 0,
        (VirtQueueDesc){
            .addr = RIG_BUFFERS, .len = 4, .flags = (uint16_t)~VIRTQ_DESC_F_WRITE, .extra = 999});
    make_available(rig,
                   (VirtQueueDesc){.addr = RIG_TABLES, .len = 16, .flags = VIRTQ_DESC_F_INDIRECT});
    elem = virtqueue_pop(&rig->vq);
    g_assert_cmpuint(elem->out_bytes, ==, 4);
    virtqueue_push(&rig->vq, elem, 0);
    rig_free(rig);
}

/* --- random --- */

static void serve_one(VirtIORig *rig, GRand *rand, GPtrArray *out)
{
    VirtQueueElement *elem = virtqueue_pop(&rig->vq);

    if (elem) {
        g_ptr_array_add(out, elem);
    }
    while (out->len && (!elem || g_rand_boolean(rand))) {
        VirtQueueElement *done =
            g_ptr_array_remove_index_fast(out, (guint)g_rand_int_range(rand, 0, (gint)out->len));
        uint64_t written = MIN(done->out_bytes, done->in_bytes);

        /* The device copies what it reads, inverted, to what it writes. */
        for (uint64_t i = 0, o = 0, k = 0, in = 0, ik = 0; i < written; i++) {
            ((uint8_t *)done->in[in].iov_base)[ik] =
                (uint8_t) ~((uint8_t *)done->out[o].iov_base)[k];
            if (++k == done->out[o].iov_len) {
                o++;
                k = 0;
            }
            if (++ik == done->in[in].iov_len) {
                in++;
                ik = 0;
            }
        }
        virtqueue_push(&rig->vq, done, written);
        elem = done;
    }
}

#define BUFFER_BYTES 0x400u

static void check_one(VirtIORig *rig, uint16_t id, uint32_t len, uint32_t expected, uint8_t pattern)
{
    const uint8_t *in = rig->mem + RIG_BUFFERS + id * 2 * BUFFER_BYTES + BUFFER_BYTES;

    g_assert_cmpuint(len, ==, expected);
    for (uint32_t i = 0; i < len; i++) {
        g_assert_cmphex(in[i], ==, (uint8_t) ~(uint8_t)(pattern + i));
    }
}

static unsigned cut(GRand *rand, RigPiece *pieces, hwaddr addr, uint32_t bytes, bool writable)
{
    unsigned n = 0;

    while (bytes) {
        uint32_t len = n == 2 ? bytes : (uint32_t)g_rand_int_range(rand, 1, (gint)bytes + 1);

        pieces[n++] = (RigPiece){addr, len, writable};
        addr += len;
        bytes -= len;
    }
    return n;
}

static void test_what_went_in_comes_out(gconstpointer packed)
{
    GRand *rand = g_rand_new_with_seed(packed ? 11 : 7);
    VirtIORig *rig = rig_new(packed, packed ? 13 : 16, INDIRECT | EVENT);
    g_autoptr(GPtrArray) out = g_ptr_array_new();
    uint32_t expected[16] = {0};
    uint8_t pattern[16] = {0};
    unsigned added = 0, collected = 0;

    for (unsigned round = 0; round < 20000; round++) {
        RigPiece pieces[8];
        uint32_t out_bytes = (uint32_t)g_rand_int_range(rand, 1, BUFFER_BYTES + 1);
        uint32_t in_bytes = (uint32_t)g_rand_int_range(rand, 1, BUFFER_BYTES + 1);
        unsigned first = 0;
        uint16_t id;
        uint32_t len;

        while (first < rig->size && rig->busy[first]) { /* the id that the driver takes next */
            first++;
        }
        if (first < rig->size) {
            hwaddr at = RIG_BUFFERS + first * 2 * BUFFER_BYTES;
            unsigned n = cut(rand, pieces, at, out_bytes, false);

            n += cut(rand, pieces + n, at + BUFFER_BYTES, in_bytes, true);
            if (rig_add(rig, pieces, n, g_rand_boolean(rand)) >= 0) {
                added++;
                expected[first] = MIN(out_bytes, in_bytes);
                pattern[first] = (uint8_t)g_rand_int(rand);
                for (uint32_t i = 0; i < out_bytes; i++) {
                    rig->mem[at + i] = (uint8_t)(pattern[first] + i);
                }
            }
        }
        serve_one(rig, rand, out);
        while (rig_collect(rig, &id, &len)) {
            check_one(rig, id, len, expected[id], pattern[id]);
            collected++;
        }
        g_assert_null(rig->reason);
    }
    g_assert_cmpuint(added, >, 5000);
    g_assert_cmpuint(collected, >, 5000);
    while (out->len) {
        virtqueue_drop(&rig->vq, g_ptr_array_remove_index_fast(out, 0));
    }
    rig_free(rig);
    g_rand_free(rand);
}

/* Random bits in the rings, of which many make sense: the queue gives requests in RAM, or breaks. */
static void test_random_rings_break_nothing_but_the_device(gconstpointer packed)
{
    GRand *rand = g_rand_new_with_seed(packed ? 5 : 3);
    VirtIORig *rig = rig_new(packed, SIZE, INDIRECT | EVENT);
    unsigned served = 0, broken = 0, notified = 0;

    for (unsigned round = 0; round < 30000; round++) {
        VirtQueueElement *elem;

        for (unsigned i = 0; i < SIZE; i++) {
            VirtQueueDesc desc = {
                .addr = g_rand_int_range(rand, 0, 8) ? RIG_TABLES + (g_rand_int(rand) & 0xfff0)
                                                     : (uint64_t)g_rand_int(rand) << 12,
                .len = g_rand_int(rand) & (g_rand_boolean(rand) ? 0x70 : 0xffff),
                .flags = (uint16_t)(g_rand_int(rand) & (g_rand_boolean(rand) ? 0x8082 : 0x8087)),
                .extra = (uint16_t)g_rand_int_range(rand, 0, SIZE + 1)};

            rig_set_desc(rig, g_rand_boolean(rand) ? RIG_DESC : RIG_TABLES, i, desc);
        }
        if (!packed) {
            rig_store16(rig, AVAIL((unsigned)g_rand_int_range(rand, 0, SIZE)),
                        (uint16_t)g_rand_int_range(rand, 0, SIZE + 1));
            rig_store16(rig, AVAIL_IDX,
                        (uint16_t)(rig->vq.next_avail + g_rand_int_range(rand, 0, SIZE + 2)));
        }
        while ((elem = virtqueue_pop(&rig->vq))) {
            for (unsigned i = 0; i < elem->in_num; i++) {
                memset(elem->in[i].iov_base, 0, MIN(elem->in[i].iov_len, 16));
            }
            virtqueue_push(&rig->vq, elem, elem->in_bytes);
            notified += virtqueue_should_notify(&rig->vq);
            served++;
            if (rig->vq.in_flight) {
                break;
            }
        }
        if (rig->host.broken) {
            broken++;
            rig_restart(rig);
        }
        g_assert_cmpuint(rig->vq.in_flight, ==, 0);
    }
    g_assert_cmpuint(served, >, 1000);
    g_assert_cmpuint(broken, >, 1000);
    g_assert_cmpuint(notified, >, 0);
    g_assert_cmpuint(rig->regs_accesses, ==, 0);
    rig_free(rig);
    g_rand_free(rand);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    alarm(240); /* a hang guard */
    bql_main_lock();
#define BOTH(name)                                                                        \
    g_test_add_data_func("/virtqueue/split/" #name, GINT_TO_POINTER(false), test_##name); \
    g_test_add_data_func("/virtqueue/packed/" #name, GINT_TO_POINTER(true), test_##name)
#define ONE(name) g_test_add_func("/virtqueue/" #name, test_##name)
    BOTH(a_request_has_the_pieces_that_the_driver_gave);
    BOTH(requests_start_in_order_and_end_in_any);
    BOTH(several_requests_become_used_at_once);
    BOTH(what_was_given_back_is_taken_again);
    BOTH(a_reset_drops_what_is_in_flight);
    BOTH(a_queue_that_starts_again_keeps_within_its_ring);
    BOTH(written_bytes_are_dirty_and_others_are_not);
    BOTH(the_driver_kicks_when_it_is_asked);
    ONE(split_flags_suppress_without_the_event_index);
    ONE(split_event_index_alone_counts_when_negotiated);
    ONE(split_empty_queue_notifies_where_the_legacy_driver_asks);
    ONE(packed_event_suppression);
    BOTH(a_buffer_that_is_not_ram_breaks_the_device);
    BOTH(a_readable_piece_behind_a_writable_one_breaks_the_device);
    BOTH(an_indirect_table_of_a_bad_size_or_place_breaks_the_device);
    BOTH(a_queue_that_cannot_be_does_not_start);
    BOTH(a_ring_that_is_not_ram_breaks_the_device);
    ONE(split_available_index_that_jumps_breaks_the_device);
    ONE(split_descriptors_outside_of_their_table_break_the_device);
    ONE(split_loops_end);
    ONE(split_tables_in_tables_and_chains_behind_them_break_the_device);
    ONE(split_a_table_may_end_a_chain);
    ONE(split_more_requests_than_entries_break_the_device);
    ONE(split_more_pieces_than_a_request_has_break_the_device);
    ONE(packed_bad_ids_and_chains_break_the_device);
    ONE(packed_descriptors_that_are_not_available_are_not_taken);
    ONE(packed_other_flags_in_a_table_are_ignored);
    BOTH(what_went_in_comes_out);
    BOTH(random_rings_break_nothing_but_the_device);
    return g_test_run();
}
