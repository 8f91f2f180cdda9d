/* SPDX-License-Identifier: GPL-2.0-or-later */
/* LoadTable: an array with a reference to each entry. */
#include "vmstate/load-table.h"

#include "util/bql.h"

LoadTable *load_table_new(void)
{
    LoadTable *table;
    SaveStateEntry *se;
    unsigned n = 0;

    g_assert(bql_locked());
    TAILQ_FOREACH(se, savevm_entries(), next) {
        n++;
    }
    table = g_malloc0(sizeof(*table) + n * sizeof(table->items[0]));
    TAILQ_FOREACH(se, savevm_entries(), next) {
        table->items[table->n++].se = savevm_entry_ref(se);
    }
    return table;
}

void load_table_free(LoadTable *table)
{
    if (table) {
        for (unsigned i = 0; i < table->n; i++) {
            savevm_entry_unref(table->items[i].se);
        }
        g_free(table);
    }
}

LoadItem *load_table_find(LoadTable *table, const char *idstr, uint32_t instance_id)
{
    for (unsigned i = 0; i < table->n; i++) {
        if (savevm_entry_is_named(table->items[i].se, idstr, instance_id)) {
            return &table->items[i];
        }
    }
    return NULL;
}

LoadItem *load_table_find_started(LoadTable *table, uint32_t section_id)
{
    for (unsigned i = 0; i < table->n; i++) {
        if (table->items[i].started && table->items[i].section_id == section_id) {
            return &table->items[i];
        }
    }
    return NULL;
}
