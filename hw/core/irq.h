/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interrupt lines: wires with a level, from a device's output to other devices' inputs.
 *
 * A line drives any number of lines, and any number drive it. It is high while a device holds it
 * high, directly or through a line that drives it (a wired OR, as on a shared PCI interrupt pin).
 * The user of a line (an interrupt controller's pin) gives it a handler, which is called when the
 * level changes, and only then.
 *
 * Under the big lock (util/bql.h). A handler may set lines; it connects and clears none. A line is
 * embedded in its owner, and never shared by two devices.
 */
#ifndef FERRY_HW_CORE_IRQ_H
#define FERRY_HW_CORE_IRQ_H

#include <glib.h>
#include <stdbool.h>

typedef struct IRQLine IRQLine;
typedef IRQLine *qemu_irq;
/* Line `n` of its owner has changed to `level`, 0 or 1. May set other lines. */
typedef void qemu_irq_handler(void *opaque, int n, int level);

/* Members are irq.c's. */
struct IRQLine {
    qemu_irq_handler *handler; /* NULL: the line has no user of its own */
    void *opaque;
    int n;
    bool held;  /* what qemu_set_irq() said last */
    bool level; /* held, or high through a source */
    /* A test that listens (qtest); called after the handler. */
    qemu_irq_handler *watch;
    void *watch_opaque;
    GPtrArray *sinks, *sources; /* IRQLine; NULL: none yet */
};

/* A line that is low. handler NULL: an output, or a joint. */
void irq_line_init(IRQLine *line, qemu_irq_handler *handler, void *opaque, int n);
/* The owner gives it up: the line falls, and all its connections end. */
void irq_line_clear(IRQLine *line);

/* From now on `to` is high whenever `from` is. Circles are a bug. */
void irq_connect(qemu_irq from, qemu_irq to);
void irq_disconnect(qemu_irq from, qemu_irq to);

/* Holds the line high, or no longer. NULL is a line that leads nowhere. */
void qemu_set_irq(qemu_irq line, int level);
void qemu_irq_raise(qemu_irq line);
void qemu_irq_lower(qemu_irq line);
/* High and low again. */
void qemu_irq_pulse(qemu_irq line);
bool irq_level(const IRQLine *line);

/*
 * For the line's owner, after a load: sets the level that it holds without a call of the handler.
 * The device behind the handler has loaded its own view of the level.
 */
void irq_load_level(qemu_irq line, int level);

/* Calls watch(opaque, line->n, level) at each change, besides the handler. NULL: no longer. */
void irq_watch(qemu_irq line, qemu_irq_handler *watch, void *opaque);

#endif
