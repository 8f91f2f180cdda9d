/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VMSTATE_*: the macros that make the fields of a VMStateDescription.
 *
 * Common parameters: `_f` is a member of the struct `_s` (it may be a path: queue.rptr), and its
 * name in the stream's JSON. `_v` is the first version of the payload that has the field (0: all).
 * `_test` is a `bool (void *opaque, int version_id)` that decides alone whether the field is there.
 * A wrong type of the member stops the compiler.
 *
 * Where the number of elements stands in another member (_num: uint8_t, uint16_t, uint32_t or
 * int32_t), that member must travel earlier or be the same on both sides. A loader never exceeds
 * the room there is: of an array that is a member, the compiler knows it; for memory behind a
 * pointer the field says it, as _limit:
 *
 *     VMS_AT_MOST(n)               n elements
 *     VMS_AT_MOST_FIELD(_s, m)     as many as the uint32_t member m says, which does not travel
 */
#ifndef FERRY_VMSTATE_VMSTATE_FIELDS_H
#define FERRY_VMSTATE_VMSTATE_FIELDS_H

#include "util/queue.h"
#include "util/timer.h"
#include "vmstate/vmstate.h"

/* --- pieces --- */

/* Zero, or a compiler error. */
#define VMS_ASSERT(_cond, _text)       \
    (0 * sizeof(struct {               \
         _Static_assert(_cond, _text); \
         char vms_assert;              \
     }))
#define VMS_MEMBER(_s, _f) (((_s *)0)->_f)
#define VMS_IS(_s, _f, ...) \
    __builtin_types_compatible_p(__typeof__(VMS_MEMBER(_s, _f)), __VA_ARGS__)
#define VMS_LENGTH(_s, _f) (sizeof(VMS_MEMBER(_s, _f)) / sizeof(VMS_MEMBER(_s, _f)[0]))
#define VMS_ELEMENT_IS(_s, _f, _t) \
    __builtin_types_compatible_p(__typeof__(VMS_MEMBER(_s, _f)[0]), _t)
/* An array, not a pointer. */
#define VMS_IS_ARRAY(_s, _f)                                       \
    (!__builtin_types_compatible_p(__typeof__(VMS_MEMBER(_s, _f)), \
                                   __typeof__(&VMS_MEMBER(_s, _f)[0])))

#define VMS_OFFSET(_s, _f, ...) \
    (offsetof(_s, _f) + VMS_ASSERT(VMS_IS(_s, _f, __VA_ARGS__), "member has another type"))
#define VMS_OFFSET_ARRAY(_s, _f, _t) \
    (offsetof(_s, _f) +              \
     VMS_ASSERT(VMS_IS_ARRAY(_s, _f) && VMS_ELEMENT_IS(_s, _f, _t), "no array of this type"))

#define VMS_COUNT_IN(_s, _num)                                                              \
    .count_type = VMS_IS(_s, _num, uint8_t)    ? VMS_COUNT_UINT8                            \
                  : VMS_IS(_s, _num, uint16_t) ? VMS_COUNT_UINT16                           \
                  : VMS_IS(_s, _num, uint32_t) ? VMS_COUNT_UINT32                           \
                                               : VMS_COUNT_INT32,                           \
    .count_offset = offsetof(_s, _num) +                                                    \
                    VMS_ASSERT(VMS_IS(_s, _num, uint8_t) || VMS_IS(_s, _num, uint16_t) ||   \
                                   VMS_IS(_s, _num, uint32_t) || VMS_IS(_s, _num, int32_t), \
                               "no type for a count")

#define VMS_AT_MOST(_n)           .capacity = (_n)
#define VMS_AT_MOST_FIELD(_s, _m) .capacity = VMS_CAPACITY_AT | VMS_OFFSET(_s, _m, uint32_t)

#define VMSTATE_END_OF_LIST() \
    {                         \
        .flags = VMS_END      \
    }

/* --- what a field may add to its macro, where it ends in "..." --- */

/* In streams of this version of the description and newer ones. */
#define VMS_SINCE(_version) .version_id = (_version)
/* Only if _test(opaque, version) says so. */
#define VMS_WHEN(_test) .field_exists = (_test)
/* A value that is compared: what to do when it differs. */
#define VMS_HINT(_hint) .err_hint = (_hint)

/* --- one value --- */

#define VMSTATE_SINGLE(_f, _s, _info, _t, ...)                                               \
    {                                                                                        \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, _t), .size = sizeof(_t), .info = &(_info), \
        __VA_ARGS__                                                                          \
    }
/* _w: the type without "_t", "uint32". */
#define VMS_NUMBER(_f, _s, _w, ...) VMSTATE_SINGLE(_f, _s, vmstate_info_##_w, _w##_t, __VA_ARGS__)
/* The value is not loaded but compared. */
#define VMS_NUMBER_EQUAL(_f, _s, _w, ...) \
    VMSTATE_SINGLE(_f, _s, vmstate_info_##_w##_equal, _w##_t, __VA_ARGS__)

#define VMSTATE_BOOL(_f, _s, ...)   VMSTATE_SINGLE(_f, _s, vmstate_info_bool, bool, __VA_ARGS__)
#define VMSTATE_INT8(_f, _s, ...)   VMS_NUMBER(_f, _s, int8, __VA_ARGS__)
#define VMSTATE_INT16(_f, _s, ...)  VMS_NUMBER(_f, _s, int16, __VA_ARGS__)
#define VMSTATE_INT32(_f, _s, ...)  VMS_NUMBER(_f, _s, int32, __VA_ARGS__)
#define VMSTATE_INT64(_f, _s, ...)  VMS_NUMBER(_f, _s, int64, __VA_ARGS__)
#define VMSTATE_UINT8(_f, _s, ...)  VMS_NUMBER(_f, _s, uint8, __VA_ARGS__)
#define VMSTATE_UINT16(_f, _s, ...) VMS_NUMBER(_f, _s, uint16, __VA_ARGS__)
#define VMSTATE_UINT32(_f, _s, ...) VMS_NUMBER(_f, _s, uint32, __VA_ARGS__)
#define VMSTATE_UINT64(_f, _s, ...) VMS_NUMBER(_f, _s, uint64, __VA_ARGS__)

#define VMSTATE_INT32_EQUAL(_f, _s, ...)  VMS_NUMBER_EQUAL(_f, _s, int32, __VA_ARGS__)
#define VMSTATE_UINT8_EQUAL(_f, _s, ...)  VMS_NUMBER_EQUAL(_f, _s, uint8, __VA_ARGS__)
#define VMSTATE_UINT16_EQUAL(_f, _s, ...) VMS_NUMBER_EQUAL(_f, _s, uint16, __VA_ARGS__)
#define VMSTATE_UINT32_EQUAL(_f, _s, ...) VMS_NUMBER_EQUAL(_f, _s, uint32, __VA_ARGS__)
#define VMSTATE_UINT64_EQUAL(_f, _s, ...) VMS_NUMBER_EQUAL(_f, _s, uint64, __VA_ARGS__)
/* The member holds the maximum that is accepted. */
#define VMSTATE_INT32_POSITIVE_LE(_f, _s, ...) \
    VMSTATE_SINGLE(_f, _s, vmstate_info_int32_le, int32_t, __VA_ARGS__)

/* An enum of four bytes, as uint32. post_load must check its range. */
#define VMSTATE_ENUM(_f, _s, ...)                                                           \
    {                                                                                       \
        .name = #_f,                                                                        \
        .offset = offsetof(_s, _f) + VMS_ASSERT(sizeof(VMS_MEMBER(_s, _f)) == 4, "no int"), \
        .size = 4, .info = &vmstate_info_uint32, __VA_ARGS__                                \
    }

#define VMSTATE_CPU_DOUBLE(_f, _s, ...) \
    VMSTATE_SINGLE(_f, _s, vmstate_info_cpudouble, double, __VA_ARGS__)

/* The member is a QEMUTimer *, made and freed by the device. */
#define VMSTATE_TIMER_PTR(_f, _s, ...) \
    VMSTATE_SINGLE(_f, _s, vmstate_info_timer, QEMUTimer *, __VA_ARGS__)

/* A pointer to one value. */
#define VMSTATE_POINTER(_f, _s, _v, _info, _t)                                                 \
    {                                                                                          \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, _t *), .size = sizeof(_t), .info = &(_info), \
        .flags = VMS_POINTER, .version_id = (_v)                                               \
    }
#define VMSTATE_FD(_f, _s, ...) VMSTATE_SINGLE(_f, _s, vmstate_info_fd, int32_t, __VA_ARGS__)

/* No bytes: _test says whether the state is valid; a load or a save fails if not. */
#define VMSTATE_VALIDATE(_name, _test)                                  \
    {                                                                   \
        .name = (_name), .field_exists = (_test), .flags = VMS_VALIDATE \
    }

/* --- bytes --- */

#define VMS_BUFFER_OF(_s, _f, _start, _size)                                           \
    .offset = offsetof(_s, _f) + (_start) +                                            \
              VMS_ASSERT(VMS_IS_ARRAY(_s, _f) && sizeof(VMS_MEMBER(_s, _f)[0]) == 1 && \
                             (_start) + (_size) <= sizeof(VMS_MEMBER(_s, _f)),         \
                         "no such bytes"),                                             \
    .size = (_size), .flags = VMS_BUFFER, .info = &vmstate_info_buffer

/* The whole byte array, its first _size bytes, or what follows its first _start ones. */
#define VMSTATE_BUFFER_V(_f, _s, _v)                                                          \
    {                                                                                         \
        .name = #_f, VMS_BUFFER_OF(_s, _f, 0, sizeof(VMS_MEMBER(_s, _f))), .version_id = (_v) \
    }
#define VMSTATE_BUFFER(_f, _s) VMSTATE_BUFFER_V(_f, _s, 0)
#define VMSTATE_PARTIAL_BUFFER(_f, _s, _size)        \
    {                                                \
        .name = #_f, VMS_BUFFER_OF(_s, _f, 0, _size) \
    }
#define VMSTATE_BUFFER_START_MIDDLE_V(_f, _s, _start, _v)                                  \
    {                                                                                      \
        .name = #_f, VMS_BUFFER_OF(_s, _f, _start, sizeof(VMS_MEMBER(_s, _f)) - (_start)), \
        .version_id = (_v)                                                                 \
    }
#define VMSTATE_BUFFER_START_MIDDLE(_f, _s, _start) VMSTATE_BUFFER_START_MIDDLE_V(_f, _s, _start, 0)
/* _size bytes of a member of any type, which the device's own _info saves and loads. */
#define VMSTATE_BUFFER_UNSAFE_INFO_TEST(_f, _s, _test, _v, _info, _size)                           \
    {                                                                                              \
        .name = #_f,                                                                               \
        .offset =                                                                                  \
            offsetof(_s, _f) + VMS_ASSERT((_size) <= sizeof(VMS_MEMBER(_s, _f)), "no such bytes"), \
        .size = (_size), .flags = VMS_BUFFER, .info = &(_info), .version_id = (_v),                \
        .field_exists = (_test)                                                                    \
    }
#define VMSTATE_BUFFER_UNSAFE_INFO(_f, _s, _v, _info, _size) \
    VMSTATE_BUFFER_UNSAFE_INFO_TEST(_f, _s, NULL, _v, _info, _size)

/* As many bytes behind a pointer as the member _num says, times _mul. _limit is in bytes. */
#define VMS_VBUFFER(_f, _s, _v, _test, _num, _mul, _limit, _flags)                  \
    {                                                                               \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, uint8_t *), .size = 1,            \
        .flags = VMS_BUFFER | VMS_POINTER | (_flags), .info = &vmstate_info_buffer, \
        VMS_COUNT_IN(_s, _num), .multiplier = (_mul), _limit, .version_id = (_v),   \
        .field_exists = (_test)                                                     \
    }
#define VMSTATE_VBUFFER(_f, _s, _v, _test, _num, _limit) \
    VMS_VBUFFER(_f, _s, _v, _test, _num, 1, _limit, 0)
#define VMSTATE_VBUFFER_ALLOC(_f, _s, _v, _test, _num, _limit) \
    VMS_VBUFFER(_f, _s, _v, _test, _num, 1, _limit, VMS_ALLOC)

/* _size bytes that mean nothing (any more). */
#define VMSTATE_UNUSED_BUFFER(_test, _v, _size)                                          \
    {                                                                                    \
        .name = "unused", .size = (_size), .flags = VMS_BUFFER,                          \
        .info = &vmstate_info_unused_buffer, .version_id = (_v), .field_exists = (_test) \
    }
#define VMSTATE_UNUSED_V(_v, _size) VMSTATE_UNUSED_BUFFER(NULL, _v, _size)
#define VMSTATE_UNUSED(_size)       VMSTATE_UNUSED_V(0, _size)

/* A pointer to uint64_t words with as many bits as the member _bits says. _limit is in bits. */
#define VMSTATE_BITMAP_TEST(_f, _s, _test, _v, _bits, _limit)                                     \
    {                                                                                             \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, uint64_t *), .size = 1,                         \
        .flags = VMS_BUFFER | VMS_POINTER, .info = &vmstate_info_bitmap, VMS_COUNT_IN(_s, _bits), \
        _limit, .version_id = (_v), .field_exists = (_test)                                       \
    }
#define VMSTATE_BITMAP(_f, _s, _v, _bits, _limit) \
    VMSTATE_BITMAP_TEST(_f, _s, NULL, _v, _bits, _limit)

/* --- arrays of values --- */

/* _n elements, of which all are saved. */
#define VMSTATE_ARRAY(_f, _s, _n, _info, _t, ...)                                                  \
    {                                                                                              \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, _t[_n]), .size = sizeof(_t), .flags = VMS_ARRAY, \
        .num = (_n), .info = &(_info), __VA_ARGS__                                                 \
    }
/* _rows times _columns elements. */
#define VMSTATE_GRID(_f, _s, _rows, _columns, _info, _t, ...)                               \
    {                                                                                       \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, _t[_rows][_columns]), .size = sizeof(_t), \
        .flags = VMS_ARRAY, .num = (_rows) * (_columns), .info = &(_info), __VA_ARGS__      \
    }
/* Elements _start .. _start + _n - 1 of an array. */
#define VMSTATE_SUB_ARRAY(_f, _s, _start, _n, _info, _t, ...)                              \
    {                                                                                      \
        .name = #_f,                                                                       \
        .offset = VMS_OFFSET_ARRAY(_s, _f, _t) + (_start) * sizeof(_t) +                   \
                  VMS_ASSERT((_start) + (_n) <= VMS_LENGTH(_s, _f), "no such elements"),   \
        .size = sizeof(_t), .flags = VMS_ARRAY, .num = (_n), .info = &(_info), __VA_ARGS__ \
    }

#define VMS_NUMBERS(_f, _s, _n, _w, ...) \
    VMSTATE_ARRAY(_f, _s, _n, vmstate_info_##_w, _w##_t, __VA_ARGS__)
#define VMS_NUMBER_GRID(_f, _s, _rows, _columns, _w, ...) \
    VMSTATE_GRID(_f, _s, _rows, _columns, vmstate_info_##_w, _w##_t, __VA_ARGS__)

#define VMSTATE_INT32_ARRAY(_f, _s, _n, ...)  VMS_NUMBERS(_f, _s, _n, int32, __VA_ARGS__)
#define VMSTATE_UINT8_ARRAY(_f, _s, _n, ...)  VMS_NUMBERS(_f, _s, _n, uint8, __VA_ARGS__)
#define VMSTATE_UINT16_ARRAY(_f, _s, _n, ...) VMS_NUMBERS(_f, _s, _n, uint16, __VA_ARGS__)
#define VMSTATE_UINT32_ARRAY(_f, _s, _n, ...) VMS_NUMBERS(_f, _s, _n, uint32, __VA_ARGS__)
#define VMSTATE_UINT64_ARRAY(_f, _s, _n, ...) VMS_NUMBERS(_f, _s, _n, uint64, __VA_ARGS__)
#define VMSTATE_UINT8_2DARRAY(_f, _s, _rows, _columns, ...) \
    VMS_NUMBER_GRID(_f, _s, _rows, _columns, uint8, __VA_ARGS__)
#define VMSTATE_UINT16_2DARRAY(_f, _s, _rows, _columns, ...) \
    VMS_NUMBER_GRID(_f, _s, _rows, _columns, uint16, __VA_ARGS__)

/* The first _num elements of an array that is a member; VARRAY_MULTIPLY: _num * _mul. */
#define VMSTATE_VARRAY_MULTIPLY(_f, _s, _num, _mul, _info, _t)                   \
    {                                                                            \
        .name = #_f, .offset = VMS_OFFSET_ARRAY(_s, _f, _t), .size = sizeof(_t), \
        .flags = VMS_ARRAY, VMS_COUNT_IN(_s, _num), .multiplier = (_mul),        \
        .capacity = VMS_LENGTH(_s, _f), .info = &(_info)                         \
    }
#define VMSTATE_VARRAY_IN_PLACE(_f, _s, _num, _v, _info, _t)                        \
    {                                                                               \
        .name = #_f, .offset = VMS_OFFSET_ARRAY(_s, _f, _t), .size = sizeof(_t),    \
        .flags = VMS_ARRAY, VMS_COUNT_IN(_s, _num), .capacity = VMS_LENGTH(_s, _f), \
        .info = &(_info), .version_id = (_v)                                        \
    }
/* _num elements behind a pointer; _ALLOC: loading allocates them. */
#define VMS_VARRAY_POINTER(_f, _s, _num, _limit, _v, _info, _t, _flags)              \
    {                                                                                \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, _t *), .size = sizeof(_t),         \
        .flags = VMS_ARRAY | VMS_POINTER | (_flags), VMS_COUNT_IN(_s, _num), _limit, \
        .info = &(_info), .version_id = (_v)                                         \
    }
#define VMSTATE_VARRAY(_f, _s, _num, _limit, _v, _info, _t) \
    VMS_VARRAY_POINTER(_f, _s, _num, _limit, _v, _info, _t, 0)
#define VMSTATE_VARRAY_ALLOC(_f, _s, _num, _limit, _v, _info, _t) \
    VMS_VARRAY_POINTER(_f, _s, _num, _limit, _v, _info, _t, VMS_ALLOC)

/* An array of pointers to values, which may be NULL (on both sides). */
#define VMSTATE_ARRAY_OF_POINTER(_f, _s, _n, _v, _info, _t)                       \
    {                                                                             \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, _t *[_n]), .size = sizeof(_t),  \
        .flags = VMS_ARRAY | VMS_ARRAY_OF_POINTER, .num = (_n), .info = &(_info), \
        .version_id = (_v)                                                        \
    }

/* --- structs --- */

#define VMSTATE_STRUCT_TEST(_f, _s, _test, _v, _vmsd, _t)                                       \
    {                                                                                           \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, _t), .size = sizeof(_t), .flags = VMS_STRUCT, \
        .vmsd = &(_vmsd), .version_id = (_v), .field_exists = (_test)                           \
    }
#define VMSTATE_STRUCT(_f, _s, _v, _vmsd, _t) VMSTATE_STRUCT_TEST(_f, _s, NULL, _v, _vmsd, _t)
/* In version _struct_version, whatever the current one is. */
#define VMSTATE_VSTRUCT_TEST(_f, _s, _test, _v, _vmsd, _t, _struct_version)      \
    {                                                                            \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, _t), .size = sizeof(_t),       \
        .flags = VMS_STRUCT | VMS_VSTRUCT, .vmsd = &(_vmsd), .version_id = (_v), \
        .struct_version_id = (_struct_version), .field_exists = (_test)          \
    }
#define VMSTATE_VSTRUCT_V(_f, _s, _v, _vmsd, _t, _struct_version) \
    VMSTATE_VSTRUCT_TEST(_f, _s, NULL, _v, _vmsd, _t, _struct_version)
#define VMSTATE_VSTRUCT(_f, _s, _vmsd, _t, _struct_version) \
    VMSTATE_VSTRUCT_V(_f, _s, 0, _vmsd, _t, _struct_version)

/* The member points to the struct; _ALLOC: loading allocates it. */
#define VMS_STRUCT_POINTER(_f, _s, _test, _v, _vmsd, _t, _flags)                            \
    {                                                                                       \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, _t *), .size = sizeof(_t),                \
        .flags = VMS_STRUCT | VMS_POINTER | (_flags), .vmsd = &(_vmsd), .version_id = (_v), \
        .field_exists = (_test)                                                             \
    }
#define VMSTATE_STRUCT_POINTER(_f, _s, _vmsd, _t) VMS_STRUCT_POINTER(_f, _s, NULL, 0, _vmsd, _t, 0)
#define VMSTATE_STRUCT_ALLOC(_f, _s, _v, _vmsd, _t) \
    VMS_STRUCT_POINTER(_f, _s, NULL, _v, _vmsd, _t, VMS_ALLOC)

#define VMSTATE_STRUCT_ARRAY_TEST(_f, _s, _n, _test, _v, _vmsd, _t)                         \
    {                                                                                       \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, _t[_n]), .size = sizeof(_t),              \
        .flags = VMS_STRUCT | VMS_ARRAY, .num = (_n), .vmsd = &(_vmsd), .version_id = (_v), \
        .field_exists = (_test)                                                             \
    }
#define VMSTATE_STRUCT_ARRAY(_f, _s, _n, _v, _vmsd, _t) \
    VMSTATE_STRUCT_ARRAY_TEST(_f, _s, _n, NULL, _v, _vmsd, _t)
#define VMSTATE_STRUCT_SUB_ARRAY(_f, _s, _start, _n, _v, _vmsd, _t)                         \
    {                                                                                       \
        .name = #_f,                                                                        \
        .offset = VMS_OFFSET_ARRAY(_s, _f, _t) + (_start) * sizeof(_t) +                    \
                  VMS_ASSERT((_start) + (_n) <= VMS_LENGTH(_s, _f), "no such elements"),    \
        .size = sizeof(_t), .flags = VMS_STRUCT | VMS_ARRAY, .num = (_n), .vmsd = &(_vmsd), \
        .version_id = (_v)                                                                  \
    }

/* The first _num elements of an array that is a member. */
#define VMSTATE_STRUCT_VARRAY(_f, _s, _num, _v, _vmsd, _t)                                       \
    {                                                                                            \
        .name = #_f, .offset = VMS_OFFSET_ARRAY(_s, _f, _t), .size = sizeof(_t),                 \
        .flags = VMS_STRUCT | VMS_ARRAY, VMS_COUNT_IN(_s, _num), .capacity = VMS_LENGTH(_s, _f), \
        .vmsd = &(_vmsd), .version_id = (_v)                                                     \
    }
/* _num elements behind a pointer; _ALLOC: loading allocates them. */
#define VMS_STRUCT_VARRAY_POINTER(_f, _s, _num, _limit, _v, _vmsd, _t, _flags)                    \
    {                                                                                             \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, _t *), .size = sizeof(_t),                      \
        .flags = VMS_STRUCT | VMS_ARRAY | VMS_POINTER | (_flags), VMS_COUNT_IN(_s, _num), _limit, \
        .vmsd = &(_vmsd), .version_id = (_v)                                                      \
    }
#define VMSTATE_STRUCT_VARRAY_POINTER(_f, _s, _num, _limit, _vmsd, _t) \
    VMS_STRUCT_VARRAY_POINTER(_f, _s, _num, _limit, 0, _vmsd, _t, 0)
#define VMSTATE_STRUCT_VARRAY_ALLOC(_f, _s, _num, _limit, _v, _vmsd, _t) \
    VMS_STRUCT_VARRAY_POINTER(_f, _s, _num, _limit, _v, _vmsd, _t, VMS_ALLOC)

/* An array of pointers to structs, which may be NULL (on both sides). */
#define VMS_POINTERS_TO_STRUCT(_f, _s, _n, _v, _vmsd, _t, _flags)                       \
    {                                                                                   \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, _t *[_n]), .size = sizeof(_t),        \
        .flags = VMS_STRUCT | VMS_ARRAY | VMS_ARRAY_OF_POINTER | (_flags), .num = (_n), \
        .vmsd = &(_vmsd), .version_id = (_v)                                            \
    }
#define VMSTATE_ARRAY_OF_POINTER_TO_STRUCT(_f, _s, _n, _v, _vmsd, _t) \
    VMS_POINTERS_TO_STRUCT(_f, _s, _n, _v, _vmsd, _t, 0)
/* None is NULL; loading allocates them. */
#define VMSTATE_ARRAY_OF_POINTER_TO_STRUCT_ALLOC(_f, _s, _n, _v, _vmsd, _t) \
    VMS_POINTERS_TO_STRUCT(_f, _s, _n, _v, _vmsd, _t, VMS_ALLOC_ELEMENTS)
/* The member points to an array of _num pointers to values. */
#define VMSTATE_VARRAY_OF_POINTER(_f, _s, _num, _limit, _v, _info, _t)                           \
    {                                                                                            \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, _t **), .size = sizeof(_t),                    \
        .flags = VMS_ARRAY | VMS_POINTER | VMS_ARRAY_OF_POINTER, VMS_COUNT_IN(_s, _num), _limit, \
        .info = &(_info), .version_id = (_v)                                                     \
    }

/*
 * A struct `_tmp` that exists only while it is saved or loaded, for state that the device keeps in
 * another form. Its first member is `_s *parent`. Its description's pre_save fills it in from the
 * parent; post_load writes the parent from it.
 */
#define VMSTATE_WITH_TMP_TEST(_s, _test, _tmp, _vmsd)                                            \
    {                                                                                            \
        .name = "tmp", .info = &vmstate_info_tmp, .vmsd = &(_vmsd), .field_exists = (_test),     \
        .size =                                                                                  \
            sizeof(_tmp) + VMS_ASSERT(offsetof(_tmp, parent) == 0 && VMS_IS(_tmp, parent, _s *), \
                                      "parent is not the first member")                          \
    }
#define VMSTATE_WITH_TMP(_s, _tmp, _vmsd) VMSTATE_WITH_TMP_TEST(_s, NULL, _tmp, _vmsd)

/* --- lists and trees --- */

/*
 * A TAILQ_HEAD or LIST_HEAD of <sys/queue.h>, whose elements of type _t are linked by their member
 * _next. Loading appends elements, allocated with g_malloc0(); pre_load empties the list if it may
 * hold some. An element is linked before it is loaded: after a failed load the owner finds all of
 * them.
 */
#define VMSTATE_QTAILQ_V(_f, _s, _v, _vmsd, _t, _next)                                           \
    {                                                                                            \
        .name = #_f, .vmsd = &(_vmsd), .info = &vmstate_info_qtailq, .version_id = (_v),         \
        .offset = offsetof(_s, _f) +                                                             \
                  VMS_ASSERT(VMS_IS(_s, _f.tqh_first, _t *), "no TAILQ of this type"),           \
        .size = sizeof(_t),                                                                      \
        .link_offset =                                                                           \
            offsetof(_t, _next) + VMS_ASSERT(VMS_IS(_t, _next.tqe_next, _t *), "no TAILQ_ENTRY") \
    }
#define VMSTATE_QLIST_V(_f, _s, _v, _vmsd, _t, _next)                                             \
    {                                                                                             \
        .name = #_f, .vmsd = &(_vmsd), .info = &vmstate_info_qlist, .version_id = (_v),           \
        .offset =                                                                                 \
            offsetof(_s, _f) + VMS_ASSERT(VMS_IS(_s, _f.lh_first, _t *), "no LIST of this type"), \
        .size = sizeof(_t),                                                                       \
        .link_offset =                                                                            \
            offsetof(_t, _next) + VMS_ASSERT(VMS_IS(_t, _next.le_next, _t *), "no LIST_ENTRY")    \
    }
/*
 * A GTree * (g_tree_new_full() with functions that free). Keys and values are structs allocated
 * with g_malloc0(), or the keys are integers up to 64 bits (GSIZE_TO_POINTER()).
 */
#define VMSTATE_GTREE_V(_f, _s, _v, _key_vmsd, _key_t, _vmsd, _t)                                 \
    {                                                                                             \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, GTree *), .size = sizeof(_t), .vmsd = &(_vmsd), \
        .key_vmsd = &(_key_vmsd), .key_size = sizeof(_key_t), .info = &vmstate_info_gtree,        \
        .version_id = (_v)                                                                        \
    }
#define VMSTATE_GTREE_DIRECT_KEY_V(_f, _s, _v, _vmsd, _t)                                         \
    {                                                                                             \
        .name = #_f, .offset = VMS_OFFSET(_s, _f, GTree *), .size = sizeof(_t), .vmsd = &(_vmsd), \
        .info = &vmstate_info_gtree, .version_id = (_v)                                           \
    }

#endif
