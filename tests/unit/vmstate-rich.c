/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A state with a field of every kind, for tests and the fuzzer of VMState. */
#include "tests/unit/vmstate-rich.h"
#include <errno.h>
#include <string.h>
#include "util/error.h"
#include "vmstate/vmstate-fields.h"

#define RICH_REGS  8
#define RICH_POOL  16
#define RICH_QUEUE 40 /* bytes there is room for behind `queue` */
#define RICH_BLOB  300
#define RICH_BITS  130
#define CANARY     0x5ca1ab1e0ddba11ull

typedef struct RichPart {
    uint16_t a;
    uint32_t extra; /* in a subsection */
    bool has_extra;
} RichPart;

typedef struct RichNode {
    uint8_t kind;
    uint32_t value;
    uint8_t text_len;
    uint8_t *text; /* allocated */
    TAILQ_ENTRY(RichNode) next;
    LIST_ENTRY(RichNode) link;
} RichNode;

typedef struct RichKey {
    uint32_t low, high;
} RichKey;

struct RichState {
    uint64_t canary0;
    bool on;
    int8_t i8;
    int16_t i16;
    int32_t i32;
    int64_t i64;
    uint64_t u64;
    double real;
    uint32_t must_match;
    int32_t index; /* at most RICH_POOL when loading begins */
    uint8_t bytes[10];
    uint64_t canary1;
    uint32_t regs[RICH_REGS];
    uint64_t canary2;
    uint16_t grid[2][3];
    uint8_t pool_used;
    uint64_t pool[RICH_POOL];
    uint64_t canary3;
    int32_t queue_len;
    uint8_t *queue;
    uint32_t blob_len;
    uint8_t *blob;
    uint16_t parts_num;
    RichPart parts[4];
    uint64_t canary4;
    uint32_t heap_num, heap_room;
    RichPart *heap;
    uint32_t list_num;
    RichPart *list;
    RichPart *slots[3]; /* the middle one is NULL */
    RichPart *made[2];
    RichPart *pointee;
    int32_t bits;
    uint64_t *bitmap;
    uint32_t packed; /* travels as two halves */
    TAILQ_HEAD(, RichNode) tail;
    LIST_HEAD(, RichNode) chain;
    GTree *by_key;
    GTree *by_number;
    uint32_t newer;
    uint32_t mode;
    uint64_t canary5;
};

/* --- parts --- */

static bool rich_part_extra_needed(void *opaque)
{
    return ((RichPart *)opaque)->has_extra;
}

static const VMStateDescription vmstate_rich_part_extra = {
    .name = "rich-part/extra",
    .version_id = 1,
    .needed = rich_part_extra_needed,
    .fields = (const VMStateField[]){VMSTATE_UINT32(extra, RichPart), VMSTATE_END_OF_LIST()},
};

static int rich_part_pre_load(void *opaque, GError **errp)
{
    ((RichPart *)opaque)->has_extra = false;
    return 0;
}

static int rich_part_extra_post_load(void *opaque, int version_id, GError **errp)
{
    RichPart *p = opaque;

    p->has_extra = p->extra != 0;
    return 0;
}

static const VMStateDescription vmstate_rich_part = {
    .name = "rich-part",
    .version_id = 3,
    .minimum_version_id = 2,
    .pre_load = rich_part_pre_load,
    .post_load = rich_part_extra_post_load,
    .fields = (const VMStateField[]){VMSTATE_UINT16(a, RichPart), VMSTATE_END_OF_LIST()},
    .subsections = (const VMStateDescription *const[]){&vmstate_rich_part_extra, NULL},
};

static const VMStateDescription vmstate_rich_node = {
    .name = "rich-node",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]){VMSTATE_UINT8(kind, RichNode), VMSTATE_UINT32(value, RichNode),
                                     VMSTATE_UINT8(text_len, RichNode),
                                     VMS_VBUFFER(text, RichNode, 0, NULL, text_len, 1,
                                                 VMS_AT_MOST(200), VMS_ALLOC),
                                     VMSTATE_END_OF_LIST()},
};

static const VMStateDescription vmstate_rich_key = {
    .name = "rich-key",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]){VMSTATE_UINT32(low, RichKey), VMSTATE_UINT32(high, RichKey),
                                     VMSTATE_END_OF_LIST()},
};

typedef struct RichTmp {
    RichState *parent;
    uint16_t low, high;
} RichTmp;

static int rich_tmp_pre_save(void *opaque, GError **errp)
{
    RichTmp *t = opaque;

    t->low = t->parent->packed;
    t->high = t->parent->packed >> 16;
    return 0;
}

static int rich_tmp_post_load(void *opaque, int version_id, GError **errp)
{
    RichTmp *t = opaque;

    t->parent->packed = (uint32_t)t->high << 16 | t->low;
    return 0;
}

static const VMStateDescription vmstate_rich_tmp = {
    .name = "rich-tmp",
    .pre_save = rich_tmp_pre_save,
    .post_load = rich_tmp_post_load,
    .fields = (const VMStateField[]){VMSTATE_UINT16(low, RichTmp), VMSTATE_UINT16(high, RichTmp),
                                     VMSTATE_END_OF_LIST()},
};

/* --- the whole --- */

static bool rich_is_valid(void *opaque, int version_id)
{
    return ((RichState *)opaque)->i8 >= -100;
}

static bool rich_mode_needed(void *opaque)
{
    return ((RichState *)opaque)->mode != 0;
}

static const VMStateDescription vmstate_rich_mode = {
    .name = "rich/mode",
    .version_id = 1,
    .needed = rich_mode_needed,
    .fields = (const VMStateField[]){VMSTATE_UINT32(mode, RichState), VMSTATE_END_OF_LIST()},
};

static void rich_free_text(RichNode *node)
{
    g_free(node->text);
    g_free(node);
}

static void rich_empty_lists(RichState *s)
{
    RichNode *node;

    while ((node = TAILQ_FIRST(&s->tail))) {
        TAILQ_REMOVE(&s->tail, node, next);
        rich_free_text(node);
    }
    while ((node = LIST_FIRST(&s->chain))) {
        LIST_REMOVE(node, link);
        rich_free_text(node);
    }
}

static int rich_pre_load(void *opaque, GError **errp)
{
    RichState *s = opaque;

    s->index = RICH_POOL;
    s->mode = 0;
    rich_empty_lists(s);
    return 0;
}

static int rich_post_load(void *opaque, int version_id, GError **errp)
{
    if (((RichState *)opaque)->mode > 1000) {
        error_setg(errp, "mode %u does not exist", ((RichState *)opaque)->mode);
        return -EINVAL;
    }
    return 0;
}

const VMStateDescription vmstate_rich = {
    .name = "rich",
    .version_id = 5,
    .minimum_version_id = 3,
    .pre_load = rich_pre_load,
    .post_load = rich_post_load,
    .fields =
        (const VMStateField[]){
            VMSTATE_BOOL(on, RichState),
            VMSTATE_INT8(i8, RichState),
            VMSTATE_VALIDATE("i8 is in range", rich_is_valid),
            VMSTATE_INT16(i16, RichState),
            VMSTATE_INT32(i32, RichState),
            VMSTATE_INT64(i64, RichState),
            VMSTATE_UINT64(u64, RichState),
            VMSTATE_CPU_DOUBLE(real, RichState),
            VMSTATE_UINT32_EQUAL(must_match, RichState, VMS_HINT("use the same machine")),
            VMSTATE_INT32_POSITIVE_LE(index, RichState),
            VMSTATE_BUFFER(bytes, RichState),
            VMSTATE_UINT32_ARRAY(regs, RichState, RICH_REGS),
            VMSTATE_UINT16_2DARRAY(grid, RichState, 2, 3),
            VMSTATE_UINT8(pool_used, RichState),
            VMSTATE_VARRAY_IN_PLACE(pool, RichState, pool_used, 0, vmstate_info_uint64, uint64_t),
            VMSTATE_INT32(queue_len, RichState),
            VMSTATE_VBUFFER(queue, RichState, 0, NULL, queue_len, VMS_AT_MOST(RICH_QUEUE)),
            VMSTATE_UINT32(blob_len, RichState),
            VMSTATE_VBUFFER_ALLOC(blob, RichState, 0, NULL, blob_len, VMS_AT_MOST(RICH_BLOB)),
            VMSTATE_UNUSED(7),
            VMSTATE_UINT16(parts_num, RichState),
            VMSTATE_STRUCT_VARRAY(parts, RichState, parts_num, 0, vmstate_rich_part, RichPart),
            VMSTATE_UINT32(heap_num, RichState),
            VMSTATE_STRUCT_VARRAY_POINTER(heap, RichState, heap_num,
                                          VMS_AT_MOST_FIELD(RichState, heap_room),
                                          vmstate_rich_part, RichPart),
            VMSTATE_UINT32(list_num, RichState),
            VMSTATE_STRUCT_VARRAY_ALLOC(list, RichState, list_num, VMS_AT_MOST(20), 0,
                                        vmstate_rich_part, RichPart),
            VMSTATE_ARRAY_OF_POINTER_TO_STRUCT(slots, RichState, 3, 0, vmstate_rich_part, RichPart),
            VMSTATE_ARRAY_OF_POINTER_TO_STRUCT_ALLOC(made, RichState, 2, 0, vmstate_rich_part,
                                                     RichPart),
            VMSTATE_STRUCT_ALLOC(pointee, RichState, 0, vmstate_rich_part, RichPart),
            VMSTATE_INT32(bits, RichState),
            VMSTATE_BITMAP(bitmap, RichState, 0, bits, VMS_AT_MOST(RICH_BITS)),
            VMSTATE_WITH_TMP(RichState, RichTmp, vmstate_rich_tmp),
            VMSTATE_QTAILQ_V(tail, RichState, 1, vmstate_rich_node, RichNode, next),
            VMSTATE_QLIST_V(chain, RichState, 1, vmstate_rich_node, RichNode, link),
            VMSTATE_GTREE_V(by_key, RichState, 1, vmstate_rich_key, RichKey, vmstate_rich_node,
                            RichNode),
            VMSTATE_GTREE_DIRECT_KEY_V(by_number, RichState, 1, vmstate_rich_node, RichNode),
            VMSTATE_UINT32(newer, RichState, VMS_SINCE(5)),
            VMSTATE_END_OF_LIST()},
    .subsections = (const VMStateDescription *const[]){&vmstate_rich_mode, NULL},
};

/* --- life --- */

static int rich_compare_keys(const void *pa, const void *pb, void *opaque)
{
    const RichKey *a = pa, *b = pb;

    return a->low != b->low ? (a->low < b->low ? -1 : 1)
                            : (a->high > b->high) - (a->high < b->high);
}

static int rich_compare_numbers(const void *a, const void *b, void *opaque)
{
    return a < b ? -1 : a > b;
}

RichState *rich_new(void)
{
    RichState *s = g_new0(RichState, 1);

    s->canary0 = s->canary1 = s->canary2 = s->canary3 = s->canary4 = s->canary5 = CANARY;
    s->must_match = 42;
    s->queue = g_malloc0(RICH_QUEUE);
    s->heap_room = 5;
    s->heap = g_new0(RichPart, s->heap_room);
    s->slots[0] = g_new0(RichPart, 1);
    s->slots[2] = g_new0(RichPart, 1);
    s->bitmap = g_new0(uint64_t, (RICH_BITS + 63) / 64);
    TAILQ_INIT(&s->tail);
    LIST_INIT(&s->chain);
    s->by_key = g_tree_new_full(rich_compare_keys, NULL, g_free, (GDestroyNotify)rich_free_text);
    s->by_number =
        g_tree_new_full(rich_compare_numbers, NULL, NULL, (GDestroyNotify)rich_free_text);
    return s;
}

static RichNode *rich_node_new(GRand *rand)
{
    RichNode *node = g_new0(RichNode, 1);

    node->kind = g_rand_int(rand);
    node->value = g_rand_int(rand);
    node->text_len = g_rand_int_range(rand, 0, 10);
    node->text = node->text_len ? g_malloc(node->text_len) : NULL;
    for (unsigned i = 0; i < node->text_len; i++) {
        node->text[i] = g_rand_int(rand);
    }
    return node;
}

static void rich_use_parts(RichPart *parts, size_t n, GRand *rand)
{
    for (size_t i = 0; i < n; i++) {
        parts[i].a = g_rand_int(rand);
        parts[i].has_extra = g_rand_boolean(rand);
        parts[i].extra = parts[i].has_extra ? g_rand_int_range(rand, 1, G_MAXINT32) : 0;
    }
}

static void rich_use_arrays(RichState *s, GRand *rand)
{
    s->pool_used = g_rand_int_range(rand, 0, RICH_POOL + 1);
    for (unsigned i = 0; i < s->pool_used; i++) {
        s->pool[i] = g_rand_int(rand);
    }
    s->queue_len = g_rand_int_range(rand, 0, RICH_QUEUE + 1);
    memset(s->queue, g_rand_int(rand), s->queue_len);
    s->blob_len = g_rand_int_range(rand, 1, RICH_BLOB + 1);
    s->blob = g_realloc(s->blob, s->blob_len);
    memset(s->blob, g_rand_int(rand), s->blob_len);
    s->parts_num = g_rand_int_range(rand, 0, 5);
    rich_use_parts(s->parts, s->parts_num, rand);
    s->heap_num = g_rand_int_range(rand, 0, s->heap_room + 1);
    rich_use_parts(s->heap, s->heap_num, rand);
    s->list_num = g_rand_int_range(rand, 1, 21);
    s->list = g_renew(RichPart, s->list, s->list_num);
    rich_use_parts(s->list, s->list_num, rand);
    rich_use_parts(s->slots[0], 1, rand);
    rich_use_parts(s->slots[2], 1, rand);
    for (int i = 0; i < 2; i++) {
        s->made[i] = g_renew(RichPart, s->made[i], 1);
        rich_use_parts(s->made[i], 1, rand);
    }
    s->pointee = g_renew(RichPart, s->pointee, 1);
    rich_use_parts(s->pointee, 1, rand);
}

static void rich_use_lists(RichState *s, GRand *rand)
{
    for (int n = g_rand_int_range(rand, 0, 4); n > 0; n--) {
        RichNode *node = rich_node_new(rand);
        RichKey *key = g_new(RichKey, 1);

        TAILQ_INSERT_TAIL(&s->tail, node, next);
        node = rich_node_new(rand);
        LIST_INSERT_HEAD(&s->chain, node, link);
        key->low = g_rand_int(rand);
        key->high = g_rand_int(rand);
        g_tree_insert(s->by_key, key, rich_node_new(rand));
        g_tree_insert(s->by_number, GSIZE_TO_POINTER(g_rand_int(rand)), rich_node_new(rand));
    }
}

void rich_use(RichState *s, GRand *rand)
{
    s->on = g_rand_boolean(rand);
    s->i8 = g_rand_int_range(rand, -100, 128);
    s->i16 = g_rand_int(rand);
    s->i32 = g_rand_int(rand);
    s->i64 = (int64_t)((uint64_t)g_rand_int(rand) << 32);
    s->u64 = g_rand_int(rand);
    s->real = g_rand_double(rand);
    s->index = g_rand_int_range(rand, 0, RICH_POOL + 1);
    for (size_t i = 0; i < sizeof(s->bytes); i++) {
        s->bytes[i] = g_rand_int(rand);
    }
    for (size_t i = 0; i < RICH_REGS; i++) {
        s->regs[i] = g_rand_int(rand);
        s->grid[i % 2][i % 3] = g_rand_int(rand);
    }
    s->bits = g_rand_int_range(rand, 0, RICH_BITS + 1);
    for (int i = 0; i < s->bits; i++) {
        s->bitmap[i / 64] |= (uint64_t)g_rand_boolean(rand) << i % 64;
    }
    s->packed = g_rand_int(rand);
    s->newer = g_rand_int(rand);
    s->mode = g_rand_int_range(rand, 0, 3);
    rich_use_arrays(s, rand);
    rich_use_lists(s, rand);
}

void rich_free(RichState *s)
{
    rich_empty_lists(s);
    g_tree_unref(s->by_key);
    g_tree_unref(s->by_number);
    g_free(s->queue);
    g_free(s->blob);
    g_free(s->heap);
    g_free(s->list);
    for (int i = 0; i < 3; i++) {
        g_free(s->slots[i]);
    }
    g_free(s->made[0]);
    g_free(s->made[1]);
    g_free(s->pointee);
    g_free(s->bitmap);
    g_free(s);
}

void rich_check(const RichState *s)
{
    const RichNode *node;
    RichNode *const *back = &s->tail.tqh_first;

    g_assert_cmphex(s->canary0, ==, CANARY);
    g_assert_cmphex(s->canary1, ==, CANARY);
    g_assert_cmphex(s->canary2, ==, CANARY);
    g_assert_cmphex(s->canary3, ==, CANARY);
    g_assert_cmphex(s->canary4, ==, CANARY);
    g_assert_cmphex(s->canary5, ==, CANARY);
    g_assert_cmpint(s->must_match, ==, 42);
    g_assert_cmpint(s->heap_room, ==, 5);
    g_assert_null(s->slots[1]);
    TAILQ_FOREACH(node, &s->tail, next) {
        g_assert_true(node->next.tqe_prev == back);
        back = &node->next.tqe_next;
    }
    g_assert_true(s->tail.tqh_last == back);
    back = &s->chain.lh_first;
    LIST_FOREACH(node, &s->chain, link) {
        g_assert_true(node->link.le_prev == back);
        back = &node->link.le_next;
    }
}
