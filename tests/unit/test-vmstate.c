/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMState: the bytes of values and arrays. */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "tests/unit/vmstate-bytes.h"
#include "util/aio.h"
#include "util/error.h"
#include "vmstate/vmstate-fields.h"
#include "vmstate/vmstate.h"

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
    .fields = FIELDS(VMSTATE_UINT8_EQUAL(u8, Checked), VMSTATE_UINT16_EQUAL(u16, Checked),
                     VMSTATE_UINT32_EQUAL(u32, Checked, VMS_HINT("try another one")),
                     VMSTATE_INT32_EQUAL(i32, Checked), VMSTATE_UINT64_EQUAL(u64, Checked),
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
                         VMSTATE_SUB_ARRAY(part, Arrays, 1, 2, vmstate_info_uint32, uint32_t)),
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
        .fields = FIELDS(
            VMSTATE_UINT8(n8, Arrays), VMSTATE_UINT16(n16, Arrays), VMSTATE_UINT32(n32, Arrays),
            VMSTATE_INT32(n, Arrays),
            VMSTATE_VARRAY_MULTIPLY(some, Arrays, n8, 2, vmstate_info_uint16, uint16_t),
            VMSTATE_VARRAY(there, Arrays, n16, VMS_AT_MOST(3), 0, vmstate_info_uint32, uint32_t),
            VMSTATE_VARRAY_ALLOC(made, Arrays, n32, VMS_AT_MOST(1000), 0, vmstate_info_uint16,
                                 uint16_t),
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
                   VMSTATE_VARRAY_OF_POINTER(var_pointers, Arrays, n32, VMS_AT_MOST(2), 0,
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
    return g_test_run();
}
