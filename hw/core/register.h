/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Register tables: what a guest finds at each offset of a device's ports or memory, as data.
 *
 *     static const RegisterRow rows[] = {
 *         REGISTER(0x0, WatchState, control, "CONTROL", .writable = 0x3, .write = control_written),
 *         REGISTER(0x4, WatchState, status, "STATUS", .reset = 0x80, .clear_on_one = 0x1),
 *     };
 *     static const RegisterTable table = {"watch", rows, G_N_ELEMENTS(rows)};
 *
 * A bank puts a table over a device's state struct into a MemoryRegion. It takes accesses of 1, 2,
 * 4 and 8 bytes at every offset. Each register that an access touches is read or written once, in
 * order of offsets, with a mask of the accessed bits. Values are little endian. Offsets without a
 * register read as the table's filler and ignore writes. Bits outside of `writable` and
 * `clear_on_one` keep their value, whatever a guest writes.
 *
 * Hooks run under the big lock (util/bql.h). A hook may do anything but destroy its own bank.
 */
#ifndef FERRY_HW_CORE_REGISTER_H
#define FERRY_HW_CORE_REGISTER_H

#include <glib.h>
#include <stddef.h>
#include <stdint.h>
#include "memory/memory.h"

typedef struct RegisterRow RegisterRow;

/* A write to one register, after the masks were applied. Bits are counted within the register. */
typedef struct RegisterWrite {
    unsigned index; /* of an array */
    uint64_t data;  /* what the guest wrote; bits outside of `mask` are 0 */
    uint64_t mask;  /* the bits that it wrote */
    uint64_t old;   /* what the register held; without a field: 0 */
    uint64_t value; /* what it holds now; without a field: data */
} RegisterWrite;

struct RegisterRow {
    uint32_t offset;
    uint8_t size;          /* bytes: 1, 2, 4 or 8 */
    uint16_t count;        /* an array of so many registers, back to back; 0: one */
    uint32_t field;        /* where the value is in the state, or REGISTER_NO_FIELD */
    const char *name;      /* in the words of the device's specification */
    uint64_t reset;        /* value after a reset */
    uint64_t writable;     /* bits that a write changes */
    uint64_t clear_on_one; /* bits that a one clears and a zero leaves */
    /* The result of a read, where that is not the value of the field. `mask`: the accessed bits. */
    uint64_t (*read)(void *state, unsigned index, uint64_t stored, uint64_t mask);
    /* The side effect of a write. */
    void (*write)(void *state, const RegisterWrite *write);
};

#define REGISTER_NO_FIELD UINT32_MAX
/* All bits of a register of `bytes`. */
#define REGISTER_ALL(bytes) (UINT64_MAX >> (64 - 8 * (bytes)))

/* A register whose value is an unsigned member of the state, or all elements of an array. */
#define REGISTER(_offset, _state, _member, _name, ...)                   \
    {                                                                    \
        .offset = (_offset), .size = sizeof(((_state *)0)->_member),     \
        .field = offsetof(_state, _member), .name = (_name), __VA_ARGS__ \
    }
#define REGISTER_ARRAY(_offset, _state, _member, _name, ...)                         \
    {                                                                                \
        .offset = (_offset), .size = sizeof(((_state *)0)->_member[0]),              \
        .count = sizeof(((_state *)0)->_member) / sizeof(((_state *)0)->_member[0]), \
        .field = offsetof(_state, _member), .name = (_name), __VA_ARGS__             \
    }
/* A register that is its hooks alone. */
#define REGISTER_HOOKS(_offset, _size, _name, ...)                                         \
    {                                                                                      \
        .offset = (_offset), .size = (_size), .field = REGISTER_NO_FIELD, .name = (_name), \
        __VA_ARGS__                                                                        \
    }

typedef struct RegisterTable {
    const char *name;        /* of the region; shown by info mtree */
    const RegisterRow *rows; /* by ascending offset, without overlaps */
    unsigned n_rows;
    uint8_t filler; /* each byte without a register reads as this */
    /* Accesses of other sizes read as filler and are ignored. 0: 1 and 8. */
    uint8_t min_access, max_access;
} RegisterTable;

/* Sets every register to its reset value, without calling hooks. */
void register_table_reset(const RegisterTable *table, void *state);
/* One access of 1, 2, 4 or 8 bytes at any offset. */
uint64_t register_table_read(const RegisterTable *table, void *state, uint64_t offset,
                             unsigned size);
void register_table_write(const RegisterTable *table, void *state, uint64_t offset, uint64_t data,
                          unsigned size);
/* The row that covers an offset; NULL: none. */
const RegisterRow *register_table_find(const RegisterTable *table, uint64_t offset);
/* Stops the process where a table breaks its rules. */
void register_table_check(const RegisterTable *table);

/* Embedded in the device. */
typedef struct RegisterBank {
    const RegisterTable *table;
    void *state;
    MemoryRegion region;
} RegisterBank;

/*
 * Makes bank->region, `size` bytes; `owner` is the path of the device or NULL. The table may be shorter or
 * longer. The region goes with memory_region_destroy().
 */
void register_bank_init(RegisterBank *bank, const char *owner, const RegisterTable *table,
                        void *state, uint64_t size);

#endif
