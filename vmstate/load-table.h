/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * LoadTable: the registry as a load sees it, taken once when the load begins, and what the stream has said
 * of each entry.
 *
 * The thread that reads section headers finds entries here without any lock. In postcopy a device
 * that is being loaded holds the big lock while it waits for a page that this thread brings. An
 * entry that is unplugged meanwhile stays in the table, marked as gone; one that is plugged in is
 * not added.
 *
 * Made under the big lock (util/bql.h); then one thread's, which needs no lock.
 */
#ifndef FERRY_VMSTATE_LOAD_TABLE_H
#define FERRY_VMSTATE_LOAD_TABLE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "vmstate/register.h"

typedef struct LoadItem {
    SaveStateEntry *se;  /* referenced */
    bool started;        /* a START or FULL section of it came */
    bool ended;          /* an END section of it came */
    uint32_t section_id; /* the sender's number, once it has started */
    int version_id;      /* of the state, once it has started */
} LoadItem;

typedef struct LoadTable {
    unsigned n;
    LoadItem items[]; /* in the order of the registry */
} LoadTable;

LoadTable *load_table_new(void);
/* NULL is allowed. */
void load_table_free(LoadTable *table);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(LoadTable, load_table_free)

/* What a START or FULL section means by this name; NULL: the guest had no such part. */
LoadItem *load_table_find(LoadTable *table, const char *idstr, uint32_t instance_id);
/* What started with that number; NULL: nothing. */
LoadItem *load_table_find_started(LoadTable *table, uint32_t section_id);

#endif
