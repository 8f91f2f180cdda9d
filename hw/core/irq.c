/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interrupt lines. */
#include "hw/core/irq.h"

#include "util/bql.h"

void irq_line_init(IRQLine *line, qemu_irq_handler *handler, void *opaque, int n)
{
    *line = (IRQLine){.handler = handler, .opaque = opaque, .n = n};
}

static bool is_driven(const IRQLine *line)
{
    for (guint i = 0; line->sources && i < line->sources->len; i++) {
        const IRQLine *source = g_ptr_array_index(line->sources, i);

        if (source->level) {
            return true;
        }
    }
    return false;
}

/* What holds or drives the line may have changed. `quiet`: no handler is told. */
static void update(IRQLine *line, bool quiet)
{
    bool level = line->held || is_driven(line);

    if (level == line->level) {
        return;
    }
    line->level = level;
    if (line->handler && !quiet) {
        line->handler(line->opaque, line->n, level);
    }
    if (line->watch && !quiet) {
        line->watch(line->watch_opaque, line->n, level);
    }
    for (guint i = 0; line->sinks && i < line->sinks->len; i++) {
        update(g_ptr_array_index(line->sinks, i), quiet);
    }
}

static void set(qemu_irq line, bool held, bool quiet)
{
    if (line && line->held != held) {
        g_assert(bql_locked());
        line->held = held;
        update(line, quiet);
    }
}

void irq_connect(qemu_irq from, qemu_irq to)
{
    if (!from->sinks) {
        from->sinks = g_ptr_array_new();
    }
    if (!to->sources) {
        to->sources = g_ptr_array_new();
    }
    g_ptr_array_add(from->sinks, to);
    g_ptr_array_add(to->sources, from);
    update(to, false);
}

void irq_disconnect(qemu_irq from, qemu_irq to)
{
    if (from->sinks && g_ptr_array_remove(from->sinks, to)) {
        g_ptr_array_remove(to->sources, from);
        update(to, false);
    }
}

void irq_line_clear(IRQLine *line)
{
    line->handler = line->watch = NULL;
    line->held = false;
    while (line->sources && line->sources->len) {
        irq_disconnect(g_ptr_array_index(line->sources, 0), line);
    }
    update(line, false);
    while (line->sinks && line->sinks->len) {
        irq_disconnect(line, g_ptr_array_index(line->sinks, 0));
    }
    g_clear_pointer(&line->sources, g_ptr_array_unref);
    g_clear_pointer(&line->sinks, g_ptr_array_unref);
}

void qemu_set_irq(qemu_irq line, int level)
{
    set(line, level != 0, false);
}

void qemu_irq_raise(qemu_irq line)
{
    qemu_set_irq(line, 1);
}

void qemu_irq_lower(qemu_irq line)
{
    qemu_set_irq(line, 0);
}

void qemu_irq_pulse(qemu_irq line)
{
    qemu_irq_raise(line);
    qemu_irq_lower(line);
}

bool irq_level(const IRQLine *line)
{
    return line->level;
}

void irq_load_level(qemu_irq line, int level)
{
    set(line, level != 0, true);
}

void irq_watch(qemu_irq line, qemu_irq_handler *watch, void *opaque)
{
    line->watch = watch;
    line->watch_opaque = opaque;
}
