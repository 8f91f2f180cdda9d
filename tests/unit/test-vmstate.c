/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMState: the bytes of every kind of field, versions, subsections, hooks, the JSON. */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "util/aio.h"
#include "util/error.h"
#include "vmstate/vmstate-fields.h"
#include "vmstate/vmstate.h"

#define FIELDS(...)      ((const VMStateField[]){__VA_ARGS__, VMSTATE_END_OF_LIST()})
#define SUBSECTIONS(...) ((const VMStateDescription *const[]){__VA_ARGS__, NULL})

/* --- bytes as text --- */

/* Spaces are for the reader; 'text' stands for its characters. */
static GBytes *bytes_of(const char *hex)
{
    GByteArray *out = g_byte_array_new();

    while (*hex) {
        uint8_t byte;

        if (*hex == ' ') {
            hex++;
        } else if (*hex == '\'') {
            const char *end = strchr(++hex, '\'');

            g_byte_array_append(out, (const uint8_t *)hex, end - hex);
            hex = end + 1;
        } else {
            byte = g_ascii_xdigit_value(hex[0]) << 4 | g_ascii_xdigit_value(hex[1]);
            g_byte_array_append(out, &byte, 1);
            hex += 2;
        }
    }
    return g_byte_array_free_to_bytes(out);
}

static void assert_bytes(GBytes *got, const char *hex)
{
    g_autoptr(GBytes) expect = bytes_of(hex);

    g_assert_cmpmem(g_bytes_get_data(got, NULL), g_bytes_get_size(got),
                    g_bytes_get_data(expect, NULL), g_bytes_get_size(expect));
}

static GBytes *save_json(const VMStateDescription *vmsd, void *opaque, char **json, GError **errp)
{
    g_autoptr(QEMUFile) f = qemu_file_new_memory_output(1 << 20);
    g_autoptr(JSONWriter) w = json_writer_new(false);

    json_writer_start_object(w, NULL);
    if (vmstate_save_state(f, vmsd, opaque, w, errp) < 0) {
        return NULL;
    }
    json_writer_end_object(w);
    if (json) {
        *json = g_strdup(json_writer_get(w));
    }
    return qemu_file_memory_steal(f);
}

static void assert_saves(const VMStateDescription *vmsd, void *opaque, const char *hex)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(GBytes) got = save_json(vmsd, opaque, NULL, &err);

    g_assert_no_error(err);
    assert_bytes(got, hex);
}

static int load_version(const VMStateDescription *vmsd, void *opaque, const char *hex,
                        int version_id, GError **errp)
{
    g_autoptr(GBytes) bytes = bytes_of(hex);
    g_autoptr(QEMUFile) f = qemu_file_new_memory_input(bytes);
    int ret = vmstate_load_state(f, vmsd, opaque, version_id, errp);

    g_assert_true(ret < 0 || qemu_file_at_end(f));
    return ret;
}

static void assert_loads(const VMStateDescription *vmsd, void *opaque, const char *hex)
{
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(load_version(vmsd, opaque, hex, vmsd->version_id, &err), ==, 0);
    g_assert_no_error(err);
}

static void assert_refused(const VMStateDescription *vmsd, void *opaque, const char *hex, int ret,
                           const char *message)
{
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(load_version(vmsd, opaque, hex, vmsd->version_id, &err), ==, ret);
    g_assert_cmpstr(err ? err->message : NULL, ==, message);
}

static void assert_not_saved(const VMStateDescription *vmsd, void *opaque, const char *message)
{
    g_autoptr(GError) err = NULL;

    g_assert_null(save_json(vmsd, opaque, NULL, &err));
    g_assert_cmpstr(err->message, ==, message);
}

/* --- values --- */

typedef struct Values {
    bool on;
    int8_t i8;
    int16_t i16;
    int32_t i32;
    int64_t i64;
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
    double real;
    enum { KIND_A, KIND_B = 7 } kind;
    uint8_t bytes[6];
} Values;

static const VMStateDescription vmstate_values = {
    .name = "values",
    .version_id = 1,
    .fields = FIELDS(VMSTATE_BOOL(on, Values), VMSTATE_INT8(i8, Values), VMSTATE_INT16(i16, Values),
                     VMSTATE_INT32(i32, Values), VMSTATE_INT64(i64, Values),
                     VMSTATE_UINT8(u8, Values), VMSTATE_UINT16(u16, Values),
                     VMSTATE_UINT32(u32, Values), VMSTATE_UINT64(u64, Values),
                     VMSTATE_CPU_DOUBLE(real, Values), VMSTATE_ENUM(kind, Values),
                     VMSTATE_BUFFER(bytes, Values), VMSTATE_PARTIAL_BUFFER(bytes, Values, 2),
                     VMSTATE_BUFFER_START_MIDDLE(bytes, Values, 4), VMSTATE_UNUSED(3)),
};

#define VALUES_HEX                                                          \
    " fe fffd fffffffc fffffffffffffffb aa bbbb cccccccc dddddddddddddddd " \
    "3ff8000000000000 00000007 'abcdef' 'ab' 'ef' "

static void test_values(void)
{
    Values v = {true, -2,     -3,      -4, -5, 0xaa, 0xbbbb, 0xcccccccc, 0xdddddddddddddddd,
                1.5,  KIND_B, "abcdef"};
    Values got = {0};

    assert_saves(&vmstate_values, &v, "01" VALUES_HEX "000000");
    assert_loads(&vmstate_values, &got, "01" VALUES_HEX "123456");
    g_assert_true(got.on && got.i8 == -2 && got.i16 == -3 && got.i32 == -4 && got.i64 == -5 &&
                  got.u8 == 0xaa && got.u16 == 0xbbbb && got.u32 == 0xcccccccc &&
                  got.u64 == 0xdddddddddddddddd && got.real == 1.5 && got.kind == KIND_B);
    g_assert_cmpmem(got.bytes, 6, "abcdef", 6);
    assert_loads(&vmstate_values, &got, "80" VALUES_HEX "000000");
    g_assert_cmpint(*(uint8_t *)&got.on, ==, 1);
}

typedef struct Checked {
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    int32_t i32, index;
    uint64_t u64;
} Checked;

static const VMStateDescription vmstate_checked = {
    .name = "checked",
    .fields =
        FIELDS(VMSTATE_UINT8_EQUAL(u8, Checked, NULL), VMSTATE_UINT16_EQUAL(u16, Checked, NULL),
               VMSTATE_UINT32_EQUAL(u32, Checked, "try another one"),
               VMSTATE_INT32_EQUAL(i32, Checked, NULL), VMSTATE_UINT64_EQUAL(u64, Checked, NULL),
               VMSTATE_INT32_POSITIVE_LE(index, Checked)),
};

static void test_values_that_must_suit(void)
{
    Checked c = {1, 2, 3, -4, 10, 5};

    assert_saves(&vmstate_checked, &c, "01 0002 00000003 fffffffc 0000000000000005 0000000a");
    assert_loads(&vmstate_checked, &c, "01 0002 00000003 fffffffc 0000000000000005 00000009");
    g_assert_cmpint(c.index, ==, 9);
    assert_refused(&vmstate_checked, &c, "02", -EINVAL,
                   "Failed to load checked:u8 at offset 0x1: 0x1 != 0x2");
    assert_refused(&vmstate_checked, &c, "01 0003", -EINVAL,
                   "Failed to load checked:u16 at offset 0x3: 0x2 != 0x3");
    assert_refused(&vmstate_checked, &c, "01 0002 80000003", -EINVAL,
                   "Failed to load checked:u32 at offset 0x7: 0x3 != 0x80000003: try another one");
    assert_refused(&vmstate_checked, &c, "01 0002 00000003 fffffffb", -EINVAL,
                   "Failed to load checked:i32 at offset 0xb: 0xfffffffc != 0xfffffffb");
    assert_refused(&vmstate_checked, &c, "01 0002 00000003 fffffffc 0000000000000006", -EINVAL,
                   "Failed to load checked:u64 at offset 0x13: 0x5 != 0x6");
    assert_refused(&vmstate_checked, &c, "01 0002 00000003 fffffffc 0000000000000005 0000000a",
                   -EINVAL,
                   "Failed to load checked:index at offset 0x17: 10 is not between 0 and 9");
    assert_refused(&vmstate_checked, &c, "01 0002 00000003 fffffffc 0000000000000005 ffffffff",
                   -EINVAL,
                   "Failed to load checked:index at offset 0x17: -1 is not between 0 and 9");
    g_assert_cmpint(c.index, ==, 9);
}

typedef struct Timers {
    QEMUTimer *idle, *armed;
} Timers;

static void timer_never(void *opaque)
{
    g_assert_not_reached();
}

static void test_timers(void)
{
    const VMStateDescription vmsd = {
        .name = "timers",
        .fields = FIELDS(VMSTATE_TIMER_PTR(idle, Timers), VMSTATE_TIMER_PTR(armed, Timers)),
    };
    AioContext *ctx = aio_context_new(AIO_BACKEND_EPOLL, NULL);
    Timers t = {aio_timer_new(ctx, QEMU_CLOCK_REALTIME, timer_never, NULL),
                aio_timer_new(ctx, QEMU_CLOCK_REALTIME, timer_never, NULL)};
    Timers none = {0};

    aio_context_attach_thread(ctx);

    timer_mod_ns(t.armed, 1000000000);
    assert_saves(&vmsd, &t, "ffffffffffffffff 000000003b9aca00");
    assert_loads(&vmsd, &t, "7000000000000000 ffffffffffffffff");
    g_assert_false(timer_pending(t.armed));
    g_assert_cmphex(timer_expire_ns(t.idle), ==, 0x7000000000000000);
    assert_refused(&vmsd, &none, "7000000000000000", -EINVAL,
                   "Failed to load timers:idle at offset 0x8: the timer does not exist here");
    assert_not_saved(&vmsd, &none, "Failed to save timers:idle: the timer does not exist here");
    timer_free(t.idle);
    timer_free(t.armed);
    aio_context_unref(ctx);
}

static void test_descriptors_are_refused(void)
{
    const VMStateDescription vmsd = {.name = "d", .fields = FIELDS(VMSTATE_FD(i32, Values))};
    Values v = {.i32 = 3};

    assert_not_saved(&vmsd, &v,
                     "Failed to save d:i32: file descriptors do not travel in a migration stream");
    assert_refused(&vmsd, &v, "00", -ENOTSUP,
                   "Failed to load d:i32 at offset 0x0: "
                   "file descriptors do not travel in a migration stream");
}

/* --- arrays --- */

typedef struct Arrays {
    uint16_t fixed[3];
    uint8_t grid[2][2];
    uint32_t part[5];
    uint8_t n8;
    uint16_t n16;
    uint32_t n32;
    int32_t n;
    uint16_t some[4];
    uint32_t *there;
    uint16_t *made;
    uint8_t *bytes;
    uint8_t *made_bytes;
    uint64_t *bits;
    uint8_t *one;
    uint8_t *pointers[3];
    uint8_t **var_pointers;
} Arrays;

static void test_fixed_arrays(void)
{
    const VMStateDescription vmsd = {
        .name = "arrays",
        .fields = FIELDS(VMSTATE_UINT16_ARRAY(fixed, Arrays, 3),
                         VMSTATE_UINT8_2DARRAY(grid, Arrays, 2, 2),
                         VMSTATE_UINT32_SUB_ARRAY(part, Arrays, 1, 2)),
    };
    Arrays a = {.fixed = {1, 2, 3}, .grid = {{4, 5}, {6, 7}}, .part = {8, 9, 10, 11, 12}};
    Arrays b = {0};
    g_autofree char *json = NULL;

    g_bytes_unref(save_json(&vmsd, &a, &json, NULL));
    g_assert_cmpstr(json, ==,
                    "{\"vmsd_name\": \"arrays\", \"version\": 0, \"fields\": ["
                    "{\"name\": \"fixed\", \"array_len\": 3, \"type\": \"uint16\", \"size\": 2}, "
                    "{\"name\": \"grid\", \"array_len\": 4, \"type\": \"uint8\", \"size\": 1}, "
                    "{\"name\": \"part\", \"array_len\": 2, \"type\": \"uint32\", \"size\": 4}]}");
    assert_saves(&vmsd, &a, "0001 0002 0003 04 05 06 07 00000009 0000000a");
    assert_loads(&vmsd, &b, "0001 0002 0003 04 05 06 07 00000009 0000000a");
    g_assert_cmpmem(b.fixed, 6, a.fixed, 6);
    g_assert_cmpmem(b.grid, 4, a.grid, 4);
    g_assert_true(b.part[0] == 0 && b.part[1] == 9 && b.part[2] == 10 && b.part[3] == 0);
}

static void test_counted_arrays(void)
{
    const VMStateDescription vmsd = {
        .name = "arrays",
        .fields =
            FIELDS(VMSTATE_UINT8(n8, Arrays), VMSTATE_UINT16(n16, Arrays),
                   VMSTATE_UINT32(n32, Arrays), VMSTATE_INT32(n, Arrays),
                   VMSTATE_VARRAY_MULTIPLY(some, Arrays, n8, 2, vmstate_info_uint16, uint16_t),
                   VMSTATE_VARRAY_UINT16(there, Arrays, n16, VMS_AT_MOST(3), 0, vmstate_info_uint32,
                                         uint32_t),
                   VMSTATE_VARRAY_UINT32_ALLOC(made, Arrays, n32, VMS_AT_MOST(1000), 0,
                                               vmstate_info_uint16, uint16_t),
                   VMSTATE_VBUFFER(bytes, Arrays, 0, NULL, n, VMS_AT_MOST_FIELD(Arrays, part[0]))),
    };
    uint32_t there[3] = {1, 2, 3}, there2[3] = {0};
    uint16_t made[1] = {4};
    uint8_t bytes[2] = "xy", bytes2[4] = "....";
    Arrays a = {.n8 = 2,
                .n16 = 1,
                .n32 = 1,
                .n = 2,
                .some = {5, 6, 7, 8},
                .part = {2},
                .there = there,
                .made = made,
                .bytes = bytes};
    Arrays b = {.there = there2, .bytes = bytes2, .part = {3}};
#define HEAD "02 0001 00000001 00000002 "

    assert_saves(&vmsd, &a, HEAD "0005 0006 0007 0008 00000001 0004 'xy'");
    assert_loads(&vmsd, &b, HEAD "0005 0006 0007 0008 00000001 0004 'xy'");
    g_assert_cmpmem(b.some, 8, a.some, 8);
    g_assert_true(there2[0] == 1 && there2[1] == 0 && b.made[0] == 4);
    g_assert_cmpmem(bytes2, 4, "xy..", 4);
    /* no elements, no bytes; what was allocated is gone */
    assert_loads(&vmsd, &b, "00 0000 00000000 00000000");
    g_assert_null(b.made);
    assert_refused(&vmsd, &b, "03 0000 00000000 00000000", -EINVAL,
                   "Failed to load arrays:some at offset 0xb: "
                   "its count is 6, but there is room for 4");
    assert_refused(&vmsd, &b, "00 0004 00000000 00000000", -EINVAL,
                   "Failed to load arrays:there at offset 0xb: "
                   "its count is 4, but there is room for 3");
    assert_refused(&vmsd, &b, "00 0000 000003e9 00000000", -EINVAL,
                   "Failed to load arrays:made at offset 0xb: "
                   "its count is 1001, but there is room for 1000");
    assert_refused(&vmsd, &b, "00 0000 00000000 00000004", -EINVAL,
                   "Failed to load arrays:bytes at offset 0xb: "
                   "its count is 4, but there is room for 3");
    assert_refused(&vmsd, &b, "00 0000 00000000 ffffffff", -EINVAL,
                   "Failed to load arrays:bytes at offset 0xb: its count is -1");
    b.bytes = NULL;
    assert_refused(&vmsd, &b, "00 0000 00000000 00000001", -EINVAL,
                   "Failed to load arrays:bytes at offset 0xb: it does not exist here");
    a.n16 = 4;
    assert_not_saved(&vmsd, &a,
                     "Failed to save arrays:there: its count is 4, but there is room for 3");
#undef HEAD
}

static void test_bitmaps(void)
{
    const VMStateDescription vmsd = {
        .name = "b",
        .fields =
            FIELDS(VMSTATE_INT32(n, Arrays), VMSTATE_BITMAP(bits, Arrays, 0, n, VMS_AT_MOST(128))),
    };
    uint64_t bits[2] = {0x8000000000000001, 0x3}, bits2[2] = {0};
    Arrays a = {.n = 66, .bits = bits}, b = {.bits = bits2};

    assert_saves(&vmsd, &a, "00000042 8000000000000001 0000000000000003");
    assert_loads(&vmsd, &b, "00000042 8000000000000001 ffffffffffffffff");
    g_assert_cmphex(bits2[0], ==, bits[0]);
    g_assert_cmphex(bits2[1], ==, 3); /* bits that do not exist stay clear */
    assert_refused(
        &vmsd, &b, "00000081", -EINVAL,
        "Failed to load b:bits at offset 0x4: its count is 129, but there is room for 128");
}

static void test_arrays_of_pointers(void)
{
    const VMStateDescription vmsd = {
        .name = "p",
        .fields =
            FIELDS(VMSTATE_POINTER(one, Arrays, 0, vmstate_info_uint8, uint8_t),
                   VMSTATE_ARRAY_OF_POINTER(pointers, Arrays, 3, 0, vmstate_info_uint8, uint8_t),
                   VMSTATE_VARRAY_OF_POINTER_UINT32(var_pointers, Arrays, n32, VMS_AT_MOST(2), 0,
                                                    vmstate_info_uint8, uint8_t)),
    };
    uint8_t v[4] = {1, 2, 3, 4}, w[4] = {0};
    uint8_t *var[2] = {&v[1], &v[2]}, *var2[2] = {&w[1], &w[2]};
    Arrays a = {.n32 = 2, .one = v, .pointers = {&v[3], NULL, NULL}, .var_pointers = var};
    Arrays b = {.n32 = 2, .one = w, .pointers = {&w[3], NULL, NULL}, .var_pointers = var2};
    g_autofree char *json = NULL;

    assert_saves(&vmsd, &a, "01 04 30 30 02 03");
    assert_loads(&vmsd, &b, "01 04 30 30 02 03");
    g_assert_cmpmem(v, 4, w, 4);
    assert_refused(&vmsd, &b, "01 04 30 31", -EINVAL,
                   "Failed to load p:pointers[2] at offset 0x4: "
                   "the element does not exist here, but in the stream (byte 0x31)");
    g_bytes_unref(save_json(&vmsd, &a, &json, NULL));
    g_assert_cmpstr(
        json, ==,
        "{\"vmsd_name\": \"p\", \"version\": 0, \"fields\": ["
        "{\"name\": \"one\", \"type\": \"uint8\", \"size\": 1}, "
        "{\"name\": \"pointers\", \"type\": \"uint8\", \"size\": 1}, "
        "{\"name\": \"pointers\", \"array_len\": 2, \"type\": \"nullptr\", \"size\": 1}, "
        "{\"name\": \"var_pointers\", \"array_len\": 2, \"type\": \"uint8\", \"size\": 1}]}");
}

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
                     VMSTATE_UINT32_V(cur_offset, FWCfg, 2)),
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

static void test_subsections_nobody_knows(void)
{
    FWCfg s = {0};

    assert_refused(&vmstate_fw_cfg, &s, FW_CFG_FIELDS "05 08 'fw_cfg/x' 00000000", -ENOENT,
                   "Failed to load fw_cfg at offset 0x6: "
                   "the subsection 'fw_cfg/x' is not known here");
    assert_refused(&vmstate_fw_cfg, &s, FW_CFG_FIELDS "05 08 'fw_cfg' 0001 00000000", -ENOENT,
                   "Failed to load fw_cfg at offset 0x6: "
                   "the subsection 'fw_cfg' is not known here");
}

/* What follows belongs to somebody else, whatever it looks like. */
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
    .fields = FIELDS(VMSTATE_UINT8(a, Inner), VMSTATE_UINT8_V(b, Inner, 2)),
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
    assert_not_saved(&vmsd, &o, "pre-save failed: hooks: kind 9 cannot be saved");
}

static int deep_get(QEMUFile *f, void *pv, size_t size, const VMStateField *field, GError **errp);

static int deep_put(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                    JSONWriter *vmdesc, GError **errp)
{
    return 0;
}

static const VMStateInfo vmstate_info_deep = {"deep", deep_get, deep_put};

static const VMStateDescription vmstate_deep = {
    .name = "deep",
    .fields = FIELDS(VMSTATE_SINGLE(u8, Values, 0, vmstate_info_deep, uint8_t)),
};

static int deep_get(QEMUFile *f, void *pv, size_t size, const VMStateField *field, GError **errp)
{
    Values v;

    return qemu_get_byte(f) ? vmstate_load_state(f, &vmstate_deep, &v, 0, errp) : 0;
}

static void test_nesting_is_bounded(void)
{
    g_autofree char *hex = g_strnfill(200000, '1');
    g_autoptr(GError) err = NULL;
    Values v = {0};

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
        .fields =
            FIELDS(VMSTATE_INT64(i64, Values), VMSTATE_UNUSED(8), VMSTATE_INT64_V(i64, Values, 2)),
    };
    g_autoptr(JSONWriter) w = json_writer_new(false);
    g_autoptr(QEMUFile) f = qemu_file_new_memory_output(1000);
    Values v = {0};

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
    g_test_add_func("/vmstate/values", test_values);
    g_test_add_func("/vmstate/values-that-must-suit", test_values_that_must_suit);
    g_test_add_func("/vmstate/timers", test_timers);
    g_test_add_func("/vmstate/descriptors-are-refused", test_descriptors_are_refused);
    g_test_add_func("/vmstate/fixed-arrays", test_fixed_arrays);
    g_test_add_func("/vmstate/counted-arrays", test_counted_arrays);
    g_test_add_func("/vmstate/bitmaps", test_bitmaps);
    g_test_add_func("/vmstate/arrays-of-pointers", test_arrays_of_pointers);
    g_test_add_func("/vmstate/subsections", test_subsections);
    g_test_add_func("/vmstate/versions", test_versions);
    g_test_add_func("/vmstate/subsections-nobody-knows", test_subsections_nobody_knows);
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
