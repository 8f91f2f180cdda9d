/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMState: versions, subsections, hooks, structs, lists, and the JSON about them. */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "tests/unit/vmstate-bytes.h"
#include "util/error.h"
#include "vmstate/vmstate-fields.h"
#include "vmstate/vmstate.h"

/* --- fw_cfg, as a stream of QEMU 10.0 has it --- */

typedef struct FWCfg {
    uint16_t cur_entry;
    uint32_t cur_offset;
    bool is_v1, dma_needed, acpi_needed;
    uint64_t dma_addr, table_mr_size, linker_mr_size, rsdp_mr_size;
    int loaded_version;
} FWCfg;

static bool fw_cfg_is_v1(void *opaque, int version_id)
{
    return version_id == 1;
}

static bool fw_cfg_dma_needed(void *opaque)
{
    return ((FWCfg *)opaque)->dma_needed;
}

static bool fw_cfg_acpi_needed(void *opaque)
{
    return ((FWCfg *)opaque)->acpi_needed;
}

static int fw_cfg_pre_load(void *opaque, GError **errp)
{
    FWCfg *s = opaque;

    s->dma_needed = s->acpi_needed = false;
    s->dma_addr = s->table_mr_size = 0;
    return 0;
}

static int fw_cfg_acpi_post_load(void *opaque, int version_id, GError **errp)
{
    FWCfg *s = opaque;

    g_assert_cmpint(s->loaded_version, ==, 0); /* before the parent's */
    s->acpi_needed = true;
    return 0;
}

static int fw_cfg_post_load(void *opaque, int version_id, GError **errp)
{
    FWCfg *s = opaque;

    s->loaded_version = version_id;
    if (s->cur_entry == 0xdead) {
        error_setg(errp, "entry 0xdead does not exist");
        return -ERANGE;
    }
    return s->cur_entry == 0xbeef ? -EBUSY : 0;
}

static const VMStateDescription vmstate_fw_cfg_dma = {
    .name = "fw_cfg/dma",
    .needed = fw_cfg_dma_needed,
    .fields = FIELDS(VMSTATE_UINT64(dma_addr, FWCfg)),
};

static const VMStateDescription vmstate_fw_cfg_acpi_mr = {
    .name = "fw_cfg/acpi_mr",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = fw_cfg_acpi_needed,
    .post_load = fw_cfg_acpi_post_load,
    .fields = FIELDS(VMSTATE_UINT64(table_mr_size, FWCfg), VMSTATE_UINT64(linker_mr_size, FWCfg),
                     VMSTATE_UINT64(rsdp_mr_size, FWCfg)),
};

static const VMStateDescription vmstate_fw_cfg = {
    .name = "fw_cfg",
    .version_id = 2,
    .minimum_version_id = 1,
    .pre_load = fw_cfg_pre_load,
    .post_load = fw_cfg_post_load,
    .fields = FIELDS(VMSTATE_UINT16(cur_entry, FWCfg),
                     {.name = "cur_offset",
                      .offset = offsetof(FWCfg, cur_offset),
                      .size = 4,
                      .info = &vmstate_info_uint16,
                      .field_exists = fw_cfg_is_v1},
                     VMSTATE_UINT32(cur_offset, FWCfg, VMS_SINCE(2))),
    .subsections = SUBSECTIONS(&vmstate_fw_cfg_dma, &vmstate_fw_cfg_acpi_mr),
};

#define FW_CFG_FIELDS "0025 0000003c "
#define FW_CFG_DMA    "05 0a 'fw_cfg/dma' 00000000 0000000000000000 "
#define FW_CFG_ACPI \
    "05 0e 'fw_cfg/acpi_mr' 00000001 0000000000020000 0000000000001000 0000000000000014 "

static void test_subsections(void)
{
    FWCfg s = {.cur_entry = 0x25,
               .cur_offset = 0x3c,
               .dma_needed = true,
               .acpi_needed = true,
               .table_mr_size = 0x20000,
               .linker_mr_size = 0x1000,
               .rsdp_mr_size = 0x14};
    FWCfg got = {.dma_addr = 1};
    g_autoptr(GBytes) bytes = NULL;
    g_autofree char *json = NULL;

    bytes = save_json(&vmstate_fw_cfg, &s, &json, NULL);
    assert_bytes(bytes, FW_CFG_FIELDS FW_CFG_DMA FW_CFG_ACPI);
    g_assert_cmpint(g_bytes_get_size(bytes), ==, 74);
    g_assert_cmpstr(
        json, ==,
        "{\"vmsd_name\": \"fw_cfg\", \"version\": 2, \"fields\": ["
        "{\"name\": \"cur_entry\", \"type\": \"uint16\", \"size\": 2}, "
        "{\"name\": \"cur_offset[1]\", \"type\": \"uint32\", \"size\": 4}], \"subsections\": ["
        "{\"vmsd_name\": \"fw_cfg/dma\", \"version\": 0, \"fields\": ["
        "{\"name\": \"dma_addr\", \"type\": \"uint64\", \"size\": 8}]}, "
        "{\"vmsd_name\": \"fw_cfg/acpi_mr\", \"version\": 1, \"fields\": ["
        "{\"name\": \"table_mr_size\", \"type\": \"uint64\", \"size\": 8}, "
        "{\"name\": \"linker_mr_size\", \"type\": \"uint64\", \"size\": 8}, "
        "{\"name\": \"rsdp_mr_size\", \"type\": \"uint64\", \"size\": 8}]}]}");

    assert_loads(&vmstate_fw_cfg, &got, FW_CFG_FIELDS FW_CFG_ACPI FW_CFG_DMA);
    g_assert_true(got.acpi_needed && got.table_mr_size == 0x20000 && got.dma_addr == 0);
    got.loaded_version = 0;
    assert_loads(&vmstate_fw_cfg, &got, FW_CFG_FIELDS);
    g_assert_false(got.acpi_needed);
    g_assert_cmpint(got.table_mr_size, ==, 0);
    s.dma_needed = false;
    assert_saves(&vmstate_fw_cfg, &s, FW_CFG_FIELDS FW_CFG_ACPI);
}

static void test_versions(void)
{
    FWCfg s = {0};
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(load_version(&vmstate_fw_cfg, &s, "0025 003c", 1, NULL), ==, 0);
    g_assert_cmpint(s.cur_offset, ==, 0x3c);
    g_assert_cmpint(s.loaded_version, ==, 1);
    g_assert_cmpint(load_version(&vmstate_fw_cfg, &s, FW_CFG_FIELDS, 3, &err), ==, -EINVAL);
    g_assert_cmpstr(err->message, ==,
                    "Failed to load fw_cfg at offset 0x0: "
                    "fw_cfg: incoming version_id 3 is too new for local version_id 2");
    g_clear_error(&err);
    g_assert_cmpint(load_version(&vmstate_fw_cfg, &s, FW_CFG_FIELDS, 0, &err), ==, -EINVAL);
    g_assert_cmpstr(err->message, ==,
                    "Failed to load fw_cfg at offset 0x0: "
                    "fw_cfg: incoming version_id 0 is too old for local minimum version_id 1");
    s.loaded_version = 0;
    assert_refused(&vmstate_fw_cfg, &s, FW_CFG_FIELDS "05 0e 'fw_cfg/acpi_mr' 00000000", -EINVAL,
                   "Failed to load fw_cfg/acpi_mr: Failed to load fw_cfg/acpi_mr at offset 0x1a: "
                   "fw_cfg/acpi_mr: incoming version_id 0 is too old for "
                   "local minimum version_id 1");
    assert_refused(&vmstate_fw_cfg, &s, FW_CFG_FIELDS "05 0a 'fw_cfg/dma' 80000000", -EINVAL,
                   "Failed to load fw_cfg/dma at offset 0x16: its version is 0x80000000");
}

static void test_unknown_subsections_are_refused(void)
{
    FWCfg s = {0};

    assert_refused(&vmstate_fw_cfg, &s, FW_CFG_FIELDS "05 08 'fw_cfg/x' 00000000", -ENOENT,
                   "Failed to load fw_cfg at offset 0x6: "
                   "the subsection 'fw_cfg/x' is not known here");
    assert_refused(&vmstate_fw_cfg, &s, FW_CFG_FIELDS "05 08 'fw_cfg' 0001 00000000", -ENOENT,
                   "Failed to load fw_cfg at offset 0x6: "
                   "the subsection 'fw_cfg' is not known here");
}

/* The bytes that follow belong to another struct, whatever they look like. */
static void test_subsections_of_others_are_left_alone(void)
{
    static const char *const cases[] = {
        "05",    "05 06 'fw_cfg'",     "05 05 'fw_cf'", "05 ff 'fw_cfg/dma'", "05 09 'other/dma'",
        "05 00", "06 0a 'fw_cfg/dma'",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *hex = g_strconcat(FW_CFG_FIELDS, cases[i], NULL);
        g_autoptr(GBytes) bytes = bytes_of(hex);
        g_autoptr(QEMUFile) f = qemu_file_new_memory_input(bytes);
        FWCfg s = {0};

        g_assert_cmpint(vmstate_load_state(f, &vmstate_fw_cfg, &s, 2, NULL), ==, 0);
        g_assert_cmpint(qemu_file_transferred(f), ==, 6);
        g_assert_cmpint(qemu_file_get_error(f), ==, 0);
    }
}

static void test_post_load_refuses(void)
{
    FWCfg s = {0};

    assert_refused(&vmstate_fw_cfg, &s, "dead 00000000", -ERANGE,
                   "Failed to load fw_cfg at offset 0x6: entry 0xdead does not exist");
    assert_refused(&vmstate_fw_cfg, &s, "beef 00000000", -EBUSY,
                   "Failed to load fw_cfg at offset 0x6: Device or resource busy");
}

static void test_errors_name_device_path_and_offset(void)
{
    g_autoptr(GBytes) bytes = bytes_of("0025 00");
    g_autoptr(QEMUFile) f = qemu_file_new_memory_input(bytes);
    g_autoptr(GError) err = NULL;
    FWCfg s = {0};

    g_assert_cmpint(vmstate_load_device(f, "0000:00:03.0/fw_cfg", 1, &vmstate_fw_cfg, &s, 2, &err),
                    ==, -EIO);
    g_assert_cmpstr(err->message, ==,
                    "error while loading state for instance 0x1 of device '0000:00:03.0/fw_cfg': "
                    "Failed to load fw_cfg:cur_offset: "
                    "Unexpected end of the migration stream at offset 0x3");
}

/* --- nested structs --- */

typedef struct Inner {
    uint8_t a, b, c;
} Inner;

typedef struct Outer {
    Inner one, pair[2], *far, *made, *slots[3], *list;
    uint8_t n, kind;
    unsigned saves;
} Outer;

static bool inner_c_needed(void *opaque)
{
    return ((Inner *)opaque)->c != 0;
}

static const VMStateDescription vmstate_inner_c = {
    .name = "inner/c",
    .version_id = 1,
    .needed = inner_c_needed,
    .fields = FIELDS(VMSTATE_UINT8(c, Inner)),
};

static const VMStateDescription vmstate_inner = {
    .name = "inner",
    .version_id = 2,
    .minimum_version_id = 1,
    .fields = FIELDS(VMSTATE_UINT8(a, Inner), VMSTATE_UINT8(b, Inner, VMS_SINCE(2))),
    .subsections = SUBSECTIONS(&vmstate_inner_c),
};

static const VMStateDescription vmstate_plain = {
    .name = "plain",
    .fields = FIELDS(VMSTATE_UINT8(a, Inner), VMSTATE_UINT8(b, Inner)),
};

static void test_structs(void)
{
    const VMStateDescription vmsd = {
        .name = "outer",
        .fields = FIELDS(
            VMSTATE_STRUCT(one, Outer, 0, vmstate_inner, Inner),
            VMSTATE_VSTRUCT(one, Outer, vmstate_inner, Inner, 1),
            VMSTATE_STRUCT_ARRAY(pair, Outer, 2, 0, vmstate_inner, Inner),
            VMSTATE_STRUCT_ARRAY(pair, Outer, 2, 0, vmstate_plain, Inner),
            VMSTATE_STRUCT_POINTER(far, Outer, vmstate_plain, Inner),
            VMSTATE_STRUCT_ALLOC(made, Outer, 0, vmstate_plain, Inner),
            VMSTATE_ARRAY_OF_POINTER_TO_STRUCT(slots, Outer, 3, 0, vmstate_plain, Inner),
            VMSTATE_UINT8(n, Outer),
            VMSTATE_STRUCT_VARRAY_ALLOC(list, Outer, n, VMS_AT_MOST(9), 0, vmstate_plain, Inner)),
    };
    Inner far = {7, 8, 0}, far2 = {0}, slot = {1, 1, 0}, slot2 = {0}, list[2] = {{5, 5}, {6, 6}};
    Outer o = {.one = {1, 2, 3},
               .pair = {{4, 5, 0}, {6, 7, 8}},
               .far = &far,
               .made = &far,
               .slots = {NULL, &slot, NULL},
               .n = 2,
               .list = list};
    Outer got = {.far = &far2, .slots = {NULL, &slot2, NULL}};
    const char *hex = "01 02 05 07 'inner/c' 00000001 03 "
                      "01    05 07 'inner/c' 00000001 03 "
                      "04 05 06 07 05 07 'inner/c' 00000001 08 "
                      "04 05 06 07  07 08  07 08  30 01 01 30  02 05 05 06 06";
    g_autofree char *json = NULL;

    assert_saves(&vmsd, &o, hex);
    assert_loads(&vmsd, &got, hex);
    g_assert_cmpmem(got.pair, sizeof(got.pair), o.pair, sizeof(o.pair));
    g_assert_cmpmem(got.made, sizeof(far), &far, sizeof(far));
    g_assert_cmpmem(got.list, sizeof(list), list, sizeof(list));
    g_assert_true(got.one.b == 2 && got.one.c == 3 && far2.a == 7 && slot2.b == 1);
    g_free(got.made);
    g_free(got.list);
    g_bytes_unref(save_json(&vmsd, &o, &json, NULL));
#define PLAIN                                                  \
    "{\"vmsd_name\": \"plain\", \"version\": 0, \"fields\": [" \
    "{\"name\": \"a\", \"type\": \"uint8\", \"size\": 1}, "    \
    "{\"name\": \"b\", \"type\": \"uint8\", \"size\": 1}]}"
    g_assert_nonnull(strstr(json, "{\"name\": \"pair[1]\", \"array_len\": 2, \"type\": \"struct\", "
                                  "\"struct\": " PLAIN ", \"size\": 2}"));
    g_assert_nonnull(strstr(json, "{\"name\": \"pair[0]\", \"type\": \"struct\", \"struct\": "
                                  "{\"vmsd_name\": \"inner\", \"version\": 2, "));
    g_assert_nonnull(strstr(json, "{\"name\": \"one[1]\", \"type\": \"vstruct\", \"vmsd_name\": "
                                  "\"inner\", \"version\": 1, \"fields\": ["
                                  "{\"name\": \"a\", \"type\": \"uint8\", \"size\": 1}], "
                                  "\"subsections\": ["));
    g_assert_nonnull(strstr(json, "{\"name\": \"slots\", \"type\": \"nullptr\", \"size\": 1}, "
                                  "{\"name\": \"slots\", \"type\": \"struct\", \"struct\": " PLAIN
                                  ", \"size\": 2}, "
                                  "{\"name\": \"slots\", \"type\": \"nullptr\", \"size\": 1}"));
}

static int outer_pre_save(void *opaque, GError **errp)
{
    Outer *o = opaque;

    o->saves++;
    if (o->kind == 9) {
        error_setg(errp, "kind 9 cannot be saved");
        return -ENOTSUP;
    }
    return 0;
}

static void outer_post_save(void *opaque)
{
    ((Outer *)opaque)->saves--;
}

static bool outer_is_valid(void *opaque, int version_id)
{
    return ((Outer *)opaque)->n < 5;
}

static void test_hooks_and_validation(void)
{
    const VMStateDescription vmsd = {
        .name = "hooks",
        .pre_save = outer_pre_save,
        .post_save = outer_post_save,
        .fields = FIELDS(VMSTATE_UINT8(n, Outer), VMSTATE_VALIDATE("n is small", outer_is_valid),
                         VMSTATE_STRUCT_POINTER(far, Outer, vmstate_plain, Inner)),
    };
    Inner far = {1, 2, 3};
    Outer o = {.n = 4, .far = &far};

    assert_saves(&vmsd, &o, "04 01 02");
    g_assert_cmpint(o.saves, ==, 0);
    assert_refused(&vmsd, &o, "05 01 02", -EINVAL,
                   "Failed to load hooks:n is small at offset 0x1: "
                   "Input validation failed: hooks/n is small");
    assert_not_saved(&vmsd, &o, "Output state validation failed: hooks/n is small");
    g_assert_cmpint(o.saves, ==, 0);
    o.n = 1;
    o.far = NULL;
    assert_not_saved(&vmsd, &o, "Failed to save hooks:far: it does not exist here");
    g_assert_cmpint(o.saves, ==, 0);
    o.kind = 9;
    assert_not_saved(
        &vmsd, &o, "the state of hooks could not be prepared to be saved: kind 9 cannot be saved");
}

typedef struct Scalars {
    uint8_t u8;
    int64_t i64;
} Scalars;

static int deep_get(QEMUFile *f, void *pv, size_t size, const VMStateField *field, GError **errp);

static int deep_put(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                    JSONWriter *vmdesc, GError **errp)
{
    return 0;
}

static const VMStateInfo vmstate_info_deep = {"deep", deep_get, deep_put};

static const VMStateDescription vmstate_deep = {
    .name = "deep",
    .fields = FIELDS(VMSTATE_SINGLE(u8, Scalars, vmstate_info_deep, uint8_t)),
};

static int deep_get(QEMUFile *f, void *pv, size_t size, const VMStateField *field, GError **errp)
{
    Scalars v;

    return qemu_get_byte(f) ? vmstate_load_state(f, &vmstate_deep, &v, 0, errp) : 0;
}

static void test_nesting_is_bounded(void)
{
    g_autofree char *hex = g_strnfill(200000, '1');
    g_autoptr(GError) err = NULL;
    Scalars v = {0};

    g_assert_cmpint(load_version(&vmstate_deep, &v, hex, 0, &err), ==, -ELOOP);
    g_assert_true(g_str_has_suffix(err->message, "deep is nested more than 64 deep"));
    assert_loads(&vmstate_deep, &v, "01 01 01 01 01 01 00");
}

/* --- lists and trees --- */

typedef struct Node {
    uint16_t value;
    TAILQ_ENTRY(Node) next;
    LIST_ENTRY(Node) link;
} Node;

typedef struct Lists {
    TAILQ_HEAD(, Node) tail;
    LIST_HEAD(, Node) chain;
    GTree *tree, *direct;
} Lists;

static const VMStateDescription vmstate_node = {
    .name = "node",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = FIELDS(VMSTATE_UINT16(value, Node)),
};

static const VMStateDescription vmstate_tail = {
    .name = "lists",
    .fields = FIELDS(VMSTATE_QTAILQ_V(tail, Lists, 1, vmstate_node, Node, next)),
    .version_id = 1,
};

static const VMStateDescription vmstate_chain = {
    .name = "lists",
    .fields = FIELDS(VMSTATE_QLIST_V(chain, Lists, 1, vmstate_node, Node, link)),
    .version_id = 1,
};

static void test_lists(void)
{
    Lists l = {.tail = TAILQ_HEAD_INITIALIZER(l.tail)};
    Node *node, *tmp;
    g_autofree char *json = NULL;

    assert_saves(&vmstate_tail, &l, "00");
    assert_saves(&vmstate_chain, &l, "00");
    assert_loads(&vmstate_tail, &l, "01 0001 01 0002 00");
    assert_loads(&vmstate_tail, &l, "01 0003 00");
    assert_saves(&vmstate_tail, &l, "01 0001 01 0002 01 0003 00");
    assert_loads(&vmstate_chain, &l, "01 0004 01 0005 00");
    assert_loads(&vmstate_chain, &l, "01 0006 00");
    assert_saves(&vmstate_chain, &l, "01 0004 01 0005 01 0006 00");
    assert_refused(&vmstate_tail, &l, "02", -EINVAL,
                   "Failed to load lists:tail at offset 0x1: "
                   "0x02 neither starts an element nor ends the list");
    assert_refused(&vmstate_chain, &l, "01 0007 01 00", -EIO,
                   "Failed to load lists:chain: Failed to load node:value: "
                   "Unexpected end of the migration stream at offset 0x5");
    assert_saves(&vmstate_chain, &l, "01 0004 01 0005 01 0006 01 0007 01 0000 00");
    g_bytes_unref(save_json(&vmstate_tail, &l, &json, NULL));
    g_assert_nonnull(strstr(json, "{\"name\": \"tail\", \"type\": \"qtailq\", \"vmsd_name\": "
                                  "\"node\", \"version\": 1, "));
    g_assert_nonnull(strstr(json, "\"size\": 10}]}"));
    TAILQ_FOREACH_SAFE(node, &l.tail, next, tmp) {
        TAILQ_REMOVE(&l.tail, node, next);
        g_free(node);
    }
    LIST_FOREACH_SAFE(node, &l.chain, link, tmp) {
        LIST_REMOVE(node, link);
        g_free(node);
    }
}

static int compare_values(const void *a, const void *b, void *opaque)
{
    return ((const Node *)a)->value - ((const Node *)b)->value;
}

static int compare_pointers(const void *a, const void *b, void *opaque)
{
    return a < b ? -1 : a > b;
}

static void test_trees(void)
{
    const VMStateDescription keyed = {
        .name = "trees",
        .version_id = 1,
        .fields = FIELDS(VMSTATE_GTREE_V(tree, Lists, 1, vmstate_node, Node, vmstate_node, Node)),
    };
    const VMStateDescription direct = {
        .name = "trees",
        .version_id = 1,
        .fields = FIELDS(VMSTATE_GTREE_DIRECT_KEY_V(direct, Lists, 1, vmstate_node, Node)),
    };
    Lists l = {.tree = g_tree_new_full(compare_values, NULL, g_free, g_free),
               .direct = g_tree_new_full(compare_pointers, NULL, NULL, g_free)};

    assert_loads(&keyed, &l, "00000002 01 0002 0022 01 0001 0011 00");
    assert_saves(&keyed, &l, "00000002 01 0001 0011 01 0002 0022 00");
    assert_refused(&keyed, &l, "00000001 01 0001 0099 00", -EINVAL,
                   "Failed to load trees:tree at offset 0x7: a key is there twice");
    assert_refused(
        &keyed, &l, "00000001 00", -EINVAL,
        "Failed to load trees:tree at offset 0x5: 1 nodes are announced, but fewer come");
    assert_refused(&keyed, &l, "00000000 01", -EINVAL,
                   "Failed to load trees:tree at offset 0x5: 0 nodes are announced, but more come");
    assert_refused(&keyed, &l, "ffffffff", -ENOMEM,
                   "Failed to load trees:tree at offset 0x4: "
                   "its 4294967295 nodes take more than 67108864 bytes");
    assert_loads(&direct, &l, "00000001 01 1122334455667788 0007 00");
    assert_saves(&direct, &l, "00000001 01 1122334455667788 0007 00");
    g_tree_unref(l.tree);
    g_tree_unref(l.direct);
}

/* --- temporary structs --- */

typedef struct Clock {
    uint64_t ns;
} Clock;

typedef struct ClockTmp {
    Clock *parent;
    uint32_t s;
} ClockTmp;

static int clock_tmp_pre_save(void *opaque, GError **errp)
{
    ClockTmp *t = opaque;

    t->s = t->parent->ns / 1000000000;
    return 0;
}

static int clock_tmp_post_load(void *opaque, int version_id, GError **errp)
{
    ClockTmp *t = opaque;

    t->parent->ns = t->s * UINT64_C(1000000000);
    return 0;
}

static void test_temporary_structs(void)
{
    const VMStateDescription tmp = {
        .name = "clock-tmp",
        .pre_save = clock_tmp_pre_save,
        .post_load = clock_tmp_post_load,
        .fields = FIELDS(VMSTATE_UINT32(s, ClockTmp)),
    };
    const VMStateDescription vmsd = {
        .name = "clock",
        .fields = FIELDS(VMSTATE_WITH_TMP(Clock, ClockTmp, tmp)),
    };
    Clock c = {5000000000}, got = {0};
    g_autofree char *json = NULL;

    assert_saves(&vmsd, &c, "00000005");
    assert_loads(&vmsd, &got, "00000005");
    g_assert_cmpint(got.ns, ==, 5000000000);
    g_bytes_unref(save_json(&vmsd, &c, &json, NULL));
    g_assert_cmpstr(json, ==,
                    "{\"vmsd_name\": \"clock\", \"version\": 0, \"fields\": ["
                    "{\"name\": \"tmp\", \"type\": \"tmp\", \"vmsd_name\": \"clock-tmp\", "
                    "\"version\": 0, \"fields\": ["
                    "{\"name\": \"s\", \"type\": \"uint32\", \"size\": 4}], \"size\": 4}]}");
}

/* --- descriptions as text --- */

static void test_devices_in_json(void)
{
    const VMStateDescription vmsd = {
        .name = "timer",
        .version_id = 2,
        .fields = FIELDS(VMSTATE_INT64(i64, Scalars), VMSTATE_UNUSED(8),
                         VMSTATE_INT64(i64, Scalars, VMS_SINCE(2))),
    };
    g_autoptr(JSONWriter) w = json_writer_new(false);
    g_autoptr(QEMUFile) f = qemu_file_new_memory_output(1000);
    Scalars v = {0};

    json_writer_start_array(w, NULL);
    g_assert_cmpint(vmstate_save_device(f, "timer", 0, &vmsd, &v, w, NULL), ==, 0);
    vmstate_describe_opaque_device(w, "blob\n\xc3\xa4\xff", 3, 99);
    json_writer_end_array(w);
    g_assert_cmpstr(
        json_writer_get(w), ==,
        "[{\"name\": \"timer\", \"instance_id\": 0, \"vmsd_name\": \"timer\", \"version\": 2, "
        "\"fields\": [{\"name\": \"i64[0]\", \"type\": \"int64\", \"size\": 8}, "
        "{\"name\": \"unused\", \"type\": \"unused_buffer\", \"size\": 8}, "
        "{\"name\": \"i64[1]\", \"type\": \"int64\", \"size\": 8}]}, "
        "{\"name\": \"blob\\u000a\\u00e4\\ufffd\", \"instance_id\": 3, \"size\": 99, "
        "\"fields\": [{\"name\": \"data\", \"size\": 99, \"type\": \"buffer\"}]}]");
}

static void test_dump(void)
{
    g_autofree char *text = NULL;

    vmstate_register_class_description("test-fw_cfg", &vmstate_fw_cfg);
    vmstate_register_class_description("test-node", &vmstate_node);
    text = vmstate_dump_json("none");
    g_assert_true(
        g_str_has_prefix(text, "{\n  \"vmschkmachine\": {\n    \"Name\": \"none\"\n  },\n"));
    g_assert_nonnull(strstr(text, "\n  \"test-node\": {\n"
                                  "    \"Name\": \"test-node\",\n"
                                  "    \"version_id\": 1,\n"
                                  "    \"minimum_version_id\": 1,\n"
                                  "    \"Description\": {\n"
                                  "      \"name\": \"node\",\n"
                                  "      \"version_id\": 1,\n"
                                  "      \"minimum_version_id\": 1,\n"
                                  "      \"Fields\": [\n"
                                  "        {\n"
                                  "          \"field\": \"value\",\n"
                                  "          \"version_id\": 0,\n"
                                  "          \"field_exists\": false,\n"
                                  "          \"size\": 2\n"
                                  "        }\n"
                                  "      ]\n"
                                  "    }\n"
                                  "  }\n"));
    g_assert_nonnull(strstr(text, "\"field_exists\": true"));
    g_assert_nonnull(strstr(text, "      \"Subsections\": [\n"
                                  "        {\n"
                                  "          \"name\": \"fw_cfg/dma\",\n"
                                  "          \"version_id\": 0,\n"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vmstate/subsections", test_subsections);
    g_test_add_func("/vmstate/versions", test_versions);
    g_test_add_func("/vmstate/unknown-subsections", test_unknown_subsections_are_refused);
    g_test_add_func("/vmstate/subsections-of-others-are-left-alone",
                    test_subsections_of_others_are_left_alone);
    g_test_add_func("/vmstate/post-load-refuses", test_post_load_refuses);
    g_test_add_func("/vmstate/errors-name-device-path-and-offset",
                    test_errors_name_device_path_and_offset);
    g_test_add_func("/vmstate/structs", test_structs);
    g_test_add_func("/vmstate/hooks-and-validation", test_hooks_and_validation);
    g_test_add_func("/vmstate/nesting-is-bounded", test_nesting_is_bounded);
    g_test_add_func("/vmstate/lists", test_lists);
    g_test_add_func("/vmstate/trees", test_trees);
    g_test_add_func("/vmstate/temporary-structs", test_temporary_structs);
    g_test_add_func("/vmstate/devices-in-json", test_devices_in_json);
    g_test_add_func("/vmstate/dump", test_dump);
    return g_test_run();
}
