/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 8259A interrupt controller. */
#include "hw/intc/i8259.h"

#include <errno.h>
#include "util/error.h"
#include "vmstate/vmstate-fields.h"

#define ICW1            0x10 /* in a write to port 0 */
#define ICW1_IC4        0x01
#define ICW1_SNGL       0x02
#define ICW1_LTIM       0x08
#define ICW2_BASE       0xf8
#define ICW4_AEOI       0x02
#define ICW4_SFNM       0x10
#define OCW3            0x08 /* in a write to port 0 that is no ICW1 */
#define OCW3_RIS        0x01
#define OCW3_RR         0x02
#define OCW3_POLL       0x04
#define OCW3_SMM        0x20
#define OCW3_ESMM       0x40
#define OCW2_LEVEL      0x07
#define POLL_REQUEST    0x80
#define SPURIOUS        (I8259_INPUTS - 1)
#define LOWEST_PRIORITY I8259_INPUTS

static uint8_t bit(unsigned n)
{
    return (uint8_t)(1u << n);
}

/* --- which request is the next --- */

/* 0 is the highest; LOWEST_PRIORITY: no input is in the set. */
static unsigned highest_priority(const I8259 *s, uint8_t set)
{
    for (unsigned priority = 0; priority < I8259_INPUTS; priority++) {
        if (set & bit((priority + s->priority_add) % I8259_INPUTS)) {
            return priority;
        }
    }
    return LOWEST_PRIORITY;
}

static unsigned input_of(const I8259 *s, unsigned priority)
{
    return (priority + s->priority_add) % I8259_INPUTS;
}

static bool has_slave(const I8259 *s)
{
    return s->master && !s->single_mode;
}

/* The inputs in service that hold back others: with the special mask, those that are masked do not. */
static uint8_t serving(const I8259 *s)
{
    return s->special_mask ? s->isr & (uint8_t)~s->imr : s->isr;
}

/* The input to be served; -1: none. */
static int pending(const I8259 *s)
{
    unsigned wanted = highest_priority(s, s->irr & (uint8_t)~s->imr);
    unsigned busy = highest_priority(s, serving(s));
    bool nested = s->special_fully_nested_mode && has_slave(s) && wanted == busy &&
                  input_of(s, wanted) == I8259_CASCADE;

    if (s->init_state != I8259_READY || wanted == LOWEST_PRIORITY) {
        return -1;
    }
    /* In the special fully nested mode the slave decides which of its inputs interrupt each other. */
    return wanted < busy || nested ? (int)input_of(s, wanted) : -1;
}

void i8259_update(I8259 *s)
{
    qemu_set_irq(s->int_out, pending(s) >= 0);
}

/* --- inputs --- */

static uint8_t level_inputs(const I8259 *s)
{
    return s->ltim ? 0xff : s->elcr;
}

void i8259_set_input(I8259 *s, unsigned n, bool level)
{
    if (level) {
        s->irr |= bit(n);
        s->last_irr |= bit(n);
    } else {
        s->irr &= (uint8_t) ~(bit(n) & level_inputs(s));
        s->last_irr &= (uint8_t)~bit(n);
    }
    i8259_update(s);
}

/* The trigger modes were `before`. Level-triggered inputs request what their lines say. */
static void trigger_modes_changed(I8259 *s, uint8_t before)
{
    uint8_t touched = before | level_inputs(s);

    s->irr = (s->irr & (uint8_t)~touched) | (s->last_irr & level_inputs(s));
    i8259_update(s);
}

/* --- acknowledge and end of interrupt --- */

static void rotate_below(I8259 *s, unsigned lowest)
{
    s->priority_add = (uint8_t)((lowest + 1) % I8259_INPUTS);
}

static void take_into_service(I8259 *s, unsigned n)
{
    if (!(level_inputs(s) & bit(n))) {
        s->irr &= (uint8_t)~bit(n);
    }
    if (!s->auto_eoi) {
        s->isr |= bit(n);
    } else if (s->rotate_on_auto_eoi) {
        rotate_below(s, n);
    }
    /* INT falls with each acknowledge, so that a master sees an edge for the next request as well. */
    qemu_irq_lower(s->int_out);
}

uint8_t i8259_acknowledge(I8259 *s)
{
    int n = pending(s);

    if (n < 0) {
        return s->irq_base + SPURIOUS;
    }
    take_into_service(s, (unsigned)n);
    if (n == I8259_CASCADE && has_slave(s) && s->cascaded) {
        uint8_t vector = i8259_acknowledge(s->cascaded);

        i8259_update(s);
        return vector;
    }
    i8259_update(s);
    return s->irq_base + (uint8_t)n;
}

static uint8_t poll(I8259 *s)
{
    int n = pending(s);

    s->poll = 0;
    if (n < 0) {
        return 0;
    }
    take_into_service(s, (unsigned)n);
    i8259_update(s);
    return (uint8_t)(POLL_REQUEST | n);
}

/* The input in service that a non-specific EOI means; -1: none. */
static int in_service(const I8259 *s)
{
    unsigned priority = highest_priority(s, serving(s));

    return priority == LOWEST_PRIORITY ? -1 : (int)input_of(s, priority);
}

/* --- writes --- */

typedef enum OCW2Command {
    OCW2_ROTATE_AUTO_CLEAR,
    OCW2_EOI,
    OCW2_NOTHING,
    OCW2_SPECIFIC_EOI,
    OCW2_ROTATE_AUTO_SET,
    OCW2_ROTATE_EOI,
    OCW2_SET_PRIORITY,
    OCW2_ROTATE_SPECIFIC_EOI,
} OCW2Command;

static void write_ocw2(I8259 *s, uint8_t value)
{
    OCW2Command command = value >> 5;
    bool specific = command == OCW2_SPECIFIC_EOI || command == OCW2_ROTATE_SPECIFIC_EOI;
    int n = specific ? value & OCW2_LEVEL : in_service(s);

    switch (command) {
    case OCW2_ROTATE_AUTO_CLEAR:
    case OCW2_ROTATE_AUTO_SET:
        s->rotate_on_auto_eoi = command == OCW2_ROTATE_AUTO_SET;
        break;
    case OCW2_SET_PRIORITY:
        rotate_below(s, value & OCW2_LEVEL);
        break;
    case OCW2_NOTHING:
        break;
    default:
        if (n >= 0) {
            s->isr &= (uint8_t)~bit((unsigned)n);
            if (command == OCW2_ROTATE_EOI || command == OCW2_ROTATE_SPECIFIC_EOI) {
                rotate_below(s, (unsigned)n);
            }
        }
    }
    i8259_update(s);
}

static void write_ocw3(I8259 *s, uint8_t value)
{
    s->poll = (value & OCW3_POLL) != 0;
    if (!s->poll && (value & OCW3_RR)) {
        s->read_reg_select = value & OCW3_RIS;
    }
    if (value & OCW3_ESMM) {
        s->special_mask = (value & OCW3_SMM) != 0;
        i8259_update(s);
    }
}

/* Starts the chip anew; inputs that are high must fall and rise to request again. */
static void write_icw1(I8259 *s, uint8_t value)
{
    s->imr = s->isr = 0;
    s->priority_add = 0;
    s->read_reg_select = s->poll = s->special_mask = 0;
    s->auto_eoi = s->rotate_on_auto_eoi = s->special_fully_nested_mode = 0;
    s->init4 = value & ICW1_IC4;
    s->single_mode = (value & ICW1_SNGL) != 0;
    s->ltim = (value & ICW1_LTIM) != 0;
    s->init_state = I8259_EXPECTS_ICW2;
    trigger_modes_changed(s, 0xff);
}

static void written_0(void *state, const RegisterWrite *write)
{
    I8259 *s = state;
    uint8_t value = (uint8_t)write->data;

    if (value & ICW1) {
        write_icw1(s, value);
    } else if (value & OCW3) {
        write_ocw3(s, value);
    } else {
        write_ocw2(s, value);
    }
}

static void written_1(void *state, const RegisterWrite *write)
{
    I8259 *s = state;
    uint8_t value = (uint8_t)write->data;

    switch (s->init_state) {
    case I8259_READY:
        s->imr = value;
        break;
    case I8259_EXPECTS_ICW2:
        s->irq_base = value & ICW2_BASE;
        s->init_state = !s->single_mode ? I8259_EXPECTS_ICW3
                        : s->init4      ? I8259_EXPECTS_ICW4
                                        : I8259_READY;
        break;
    case I8259_EXPECTS_ICW3:
        s->init_state = s->init4 ? I8259_EXPECTS_ICW4 : I8259_READY;
        break;
    default:
        s->auto_eoi = (value & ICW4_AEOI) != 0;
        s->special_fully_nested_mode = (value & ICW4_SFNM) != 0;
        s->init_state = I8259_READY;
    }
    i8259_update(s);
}

static void elcr_written(void *state, const RegisterWrite *write)
{
    I8259 *s = state;
    uint8_t before = level_inputs(s);

    s->elcr = (uint8_t)write->data & s->elcr_mask;
    trigger_modes_changed(s, before);
}

/* --- reads --- */

static uint64_t read_0(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    I8259 *s = state;

    if (s->poll) {
        return poll(s);
    }
    return s->read_reg_select ? s->isr : s->irr;
}

static uint64_t read_1(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    I8259 *s = state;

    return s->poll ? poll(s) : s->imr;
}

static const RegisterRow port_rows[] = {
    REGISTER_HOOKS(0, 1, "A0=0", .read = read_0, .write = written_0),
    REGISTER_HOOKS(1, 1, "A0=1", .read = read_1, .write = written_1),
};
const RegisterTable i8259_ports = {"pic", port_rows, G_N_ELEMENTS(port_rows)};

static const RegisterRow elcr_rows[] = {
    REGISTER(0, I8259, elcr, "ELCR", .write = elcr_written),
};
const RegisterTable i8259_elcr_port = {"elcr", elcr_rows, G_N_ELEMENTS(elcr_rows)};

void i8259_reset(I8259 *s)
{
    s->irr = s->imr = s->isr = 0;
    s->priority_add = s->irq_base = 0;
    s->read_reg_select = s->poll = s->special_mask = 0;
    s->init_state = I8259_READY;
    s->auto_eoi = s->rotate_on_auto_eoi = s->special_fully_nested_mode = 0;
    s->init4 = s->single_mode = 0;
    s->elcr = s->ltim = 0;
}

/* --- state that travels --- */

static int before_load(void *opaque, GError **errp)
{
    ((I8259 *)opaque)->ltim = 0; /* its subsection is there only if not */
    return 0;
}

static int loaded(void *opaque, int version_id, GError **errp)
{
    I8259 *s = opaque;

    if (s->priority_add >= I8259_INPUTS || s->init_state > I8259_EXPECTS_ICW4 ||
        (s->irq_base & ~ICW2_BASE) || (s->elcr & ~s->elcr_mask)) {
        error_setg(errp,
                   "i8259: priority %u, initialization step %u, vector %#x or ELCR %#x are out of "
                   "range",
                   s->priority_add, s->init_state, s->irq_base, s->elcr);
        return -EINVAL;
    }
    irq_load_level(s->int_out, pending(s) >= 0);
    return 0;
}

static bool ltim_needed(void *opaque)
{
    return ((I8259 *)opaque)->ltim;
}

static const VMStateField ltim_fields[] = {VMSTATE_UINT8(ltim, I8259), VMSTATE_END_OF_LIST()};

/* The subsection comes before post_load of the section, which then knows it. */
static const VMStateDescription vmstate_ltim = {
    .name = "i8259/ltim",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = ltim_needed,
    .fields = ltim_fields,
};
static const VMStateDescription *const subsections[] = {&vmstate_ltim, NULL};

static const VMStateField fields[] = {VMSTATE_UINT8(last_irr, I8259),
                                      VMSTATE_UINT8(irr, I8259),
                                      VMSTATE_UINT8(imr, I8259),
                                      VMSTATE_UINT8(isr, I8259),
                                      VMSTATE_UINT8(priority_add, I8259),
                                      VMSTATE_UINT8(irq_base, I8259),
                                      VMSTATE_UINT8(read_reg_select, I8259),
                                      VMSTATE_UINT8(poll, I8259),
                                      VMSTATE_UINT8(special_mask, I8259),
                                      VMSTATE_UINT8(init_state, I8259),
                                      VMSTATE_UINT8(auto_eoi, I8259),
                                      VMSTATE_UINT8(rotate_on_auto_eoi, I8259),
                                      VMSTATE_UINT8(special_fully_nested_mode, I8259),
                                      VMSTATE_UINT8(init4, I8259),
                                      VMSTATE_UINT8(single_mode, I8259),
                                      VMSTATE_UINT8(elcr, I8259),
                                      VMSTATE_END_OF_LIST()};

const VMStateDescription vmstate_i8259 = {
    .name = "i8259",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_load = before_load,
    .post_load = loaded,
    .fields = fields,
    .subsections = subsections,
};
