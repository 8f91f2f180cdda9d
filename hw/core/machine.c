/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Machine types and the rows that make their versions. */
#include "hw/core/machine.h"

#include <string.h>

MachineBoot machine_boot;

static GPtrArray *classes; /* const MachineClass */

const GPtrArray *machine_classes(void)
{
    if (!classes) {
        classes = g_ptr_array_new();
    }
    return classes;
}

void machine_class_register(const MachineClass *class)
{
    machine_classes();
    g_assert(!machine_class_find(class->name));
    g_ptr_array_add(classes, (gpointer) class);
}

const MachineClass *machine_class_find(const char *name)
{
    for (guint i = 0; i < machine_classes()->len; i++) {
        const MachineClass *class = g_ptr_array_index(classes, i);

        if (!strcmp(class->name, name) || !g_strcmp0(class->alias, name)) {
            return class;
        }
    }
    return NULL;
}

static gint newest_first(gconstpointer a, gconstpointer b)
{
    const VersionedRow *x = *(const VersionedRow *const *)a, *y = *(const VersionedRow *const *)b;

    if (x->version != y->version) {
        return x->version < y->version ? 1 : -1;
    }
    return x < y ? -1 : x > y; /* the order of the table */
}

void machine_apply_rows(const MachineClass *class)
{
    g_autoptr(GPtrArray) rows = g_ptr_array_new();

    for (unsigned i = 0; i < class->n_rows; i++) {
        if (class->rows[i].version >= class->version) {
            g_ptr_array_add(rows, (gpointer) & class->rows[i]);
        }
    }
    g_ptr_array_sort(rows, newest_first);
    for (guint i = 0; i < rows->len; i++) {
        const VersionedRow *row = g_ptr_array_index(rows, i);

        globals_add_row(&row->row);
    }
}
