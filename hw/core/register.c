/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Register tables. */
#include "hw/core/register.h"

#include <string.h>
#include "util/int-math.h"

static unsigned row_count(const RegisterRow *row)
{
    return row->count ? row->count : 1;
}

static uint64_t row_end(const RegisterRow *row)
{
    return (uint64_t)row->offset + (uint64_t)row->size * row_count(row);
}

/* --- values in the state --- */

static void *row_slot(const RegisterRow *row, void *state, unsigned index)
{
    return (char *)state + row->field + (size_t)index * row->size;
}

static uint64_t row_load(const RegisterRow *row, void *state, unsigned index)
{
    void *slot = row_slot(row, state, index);

    if (row->field == REGISTER_NO_FIELD) {
        return 0;
    }
    switch (row->size) {
    case 1:
        return *(uint8_t *)slot;
    case 2:
        return *(uint16_t *)slot;
    case 4:
        return *(uint32_t *)slot;
    default:
        return *(uint64_t *)slot;
    }
}

static void row_store(const RegisterRow *row, void *state, unsigned index, uint64_t value)
{
    void *slot = row_slot(row, state, index);

    if (row->field == REGISTER_NO_FIELD) {
        return;
    }
    switch (row->size) {
    case 1:
        *(uint8_t *)slot = (uint8_t)value;
        break;
    case 2:
        *(uint16_t *)slot = (uint16_t)value;
        break;
    case 4:
        *(uint32_t *)slot = (uint32_t)value;
        break;
    default:
        *(uint64_t *)slot = value;
    }
}

void register_table_reset(const RegisterTable *table, void *state)
{
    for (unsigned i = 0; i < table->n_rows; i++) {
        for (unsigned k = 0; k < row_count(&table->rows[i]); k++) {
            row_store(&table->rows[i], state, k, table->rows[i].reset);
        }
    }
}

/* --- rows under an access --- */

/* The first row that ends behind `offset`. */
static unsigned first_row(const RegisterTable *table, uint64_t offset)
{
    unsigned low = 0, high = table->n_rows;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (row_end(&table->rows[middle]) > offset) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

const RegisterRow *register_table_find(const RegisterTable *table, uint64_t offset)
{
    unsigned i = first_row(table, offset);

    return i < table->n_rows && table->rows[i].offset <= offset ? &table->rows[i] : NULL;
}

/* The part of an access that falls into one register. */
typedef struct RegisterPart {
    const RegisterRow *row; /* NULL: the byte at `at` has none */
    unsigned index;
    unsigned at; /* its first byte in the access */
    unsigned bytes;
    unsigned inside; /* its first byte in the register */
} RegisterPart;

static RegisterPart part_at(const RegisterTable *table, uint64_t offset, unsigned at, unsigned size)
{
    const RegisterRow *row = register_table_find(table, offset + at);
    RegisterPart part = {.row = row, .at = at, .bytes = 1};

    if (row) {
        uint64_t from = offset + at - row->offset;

        part.index = (unsigned)(from / row->size);
        part.inside = (unsigned)(from % row->size);
        part.bytes = MIN(row->size - part.inside, size - at);
    }
    return part;
}

static uint64_t part_mask(const RegisterPart *part)
{
    return REGISTER_ALL(part->bytes) << (8 * part->inside);
}

static bool size_accepted(const RegisterTable *table, uint64_t offset, unsigned size)
{
    unsigned max = table->max_access ? table->max_access : 8;

    return size >= table->min_access && size <= max && offset <= UINT64_MAX - size;
}

static uint64_t filler(const RegisterTable *table, unsigned bytes)
{
    return (table->filler * UINT64_C(0x0101010101010101)) & REGISTER_ALL(bytes);
}

uint64_t register_table_read(const RegisterTable *table, void *state, uint64_t offset,
                             unsigned size)
{
    uint64_t result = 0;

    if (!size_accepted(table, offset, size)) {
        return filler(table, size);
    }
    for (unsigned at = 0; at < size;) {
        RegisterPart part = part_at(table, offset, at, size);
        uint64_t value = filler(table, 1);

        if (part.row) {
            value = row_load(part.row, state, part.index);
            if (part.row->read) {
                value = part.row->read(state, part.index, value, part_mask(&part));
            }
            value = (value >> (8 * part.inside)) & REGISTER_ALL(part.bytes);
        }
        result |= value << (8 * at);
        at += part.bytes;
    }
    return result;
}

static void write_part(const RegisterPart *part, void *state, uint64_t data)
{
    const RegisterRow *row = part->row;
    RegisterWrite write = {.index = part->index, .mask = part_mask(part)};

    write.data = (data << (8 * part->inside)) & write.mask;
    write.old = row_load(row, state, part->index);
    if (row->field == REGISTER_NO_FIELD) {
        write.value = write.data;
    } else {
        uint64_t changed = row->writable & write.mask;

        write.value = (write.old & ~changed) | (write.data & changed);
        write.value &= ~(write.data & row->clear_on_one);
        row_store(row, state, part->index, write.value);
    }
    if (row->write) {
        row->write(state, &write);
    }
}

void register_table_write(const RegisterTable *table, void *state, uint64_t offset, uint64_t data,
                          unsigned size)
{
    if (!size_accepted(table, offset, size)) {
        return;
    }
    for (unsigned at = 0; at < size;) {
        RegisterPart part = part_at(table, offset, at, size);

        if (part.row) {
            write_part(&part, state, data >> (8 * at));
        }
        at += part.bytes;
    }
}

void register_table_check(const RegisterTable *table)
{
    uint64_t end = 0;

    for (unsigned i = 0; i < table->n_rows; i++) {
        const RegisterRow *row = &table->rows[i];

        g_assert(row->name && is_power_of_2(row->size) && row->size <= 8);
        g_assert(row->offset >= end);
        g_assert(!((row->reset | row->writable | row->clear_on_one) & ~REGISTER_ALL(row->size)));
        g_assert(!(row->writable & row->clear_on_one));
        end = row_end(row);
    }
}

/* --- banks --- */

static uint64_t bank_read(void *opaque, hwaddr addr, unsigned size)
{
    RegisterBank *bank = opaque;

    return register_table_read(bank->table, bank->state, addr, size);
}

static void bank_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    RegisterBank *bank = opaque;

    register_table_write(bank->table, bank->state, addr, data, size);
}

static const MemoryRegionOps bank_ops = {
    .read = bank_read,
    .write = bank_write,
    .guest = {.min = 1, .max = 8, .unaligned = true},
    .device = {.min = 1, .max = 8, .unaligned = true},
};

void register_bank_init(RegisterBank *bank, const char *owner, const RegisterTable *table,
                        void *state, uint64_t size)
{
    register_table_check(table);
    bank->table = table;
    bank->state = state;
    memory_region_init_io(&bank->region, owner, &bank_ops, bank, table->name, size);
}
