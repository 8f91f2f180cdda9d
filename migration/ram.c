/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RAM's entry in the registry of what travels with the guest. */
#include "migration/ram.h"

#include "migration/ram-load.h"
#include "migration/ram-save.h"
#include "util/error.h"
#include "vmstate/register.h"

/* The entry's opaque. Each member belongs to the thread of its direction while that runs. */
typedef struct RAMEntry {
    RAMSaveState *save;
    RAMLoadState *load;
} RAMEntry;

static int entry_save_setup(QEMUFile *f, void *opaque, GError **errp)
{
    RAMEntry *entry = opaque;

    entry->save = ram_save_state_new(migrate_get_current(), errp);
    return entry->save ? ram_save_setup(entry->save, f, errp) : -EINVAL;
}

static void entry_state_pending(void *opaque, bool exact, SaveVMPending *pending)
{
    RAMEntry *entry = opaque;

    if (exact) {
        ram_sync_dirty_log(entry->save, entry->save->s->vm_stopped);
    }
    pending->can_postcopy += entry->save->dirty_pages << TARGET_PAGE_BITS;
}

static int entry_save_iterate(QEMUFile *f, void *opaque, GError **errp)
{
    RAMEntry *entry = opaque;

    return ram_save_iterate(entry->save, f, errp);
}

static int entry_save_complete(QEMUFile *f, void *opaque, GError **errp)
{
    RAMEntry *entry = opaque;

    return ram_save_complete(entry->save, f, errp);
}

static void entry_save_cleanup(void *opaque)
{
    RAMEntry *entry = opaque;

    ram_save_state_free(g_steal_pointer(&entry->save));
}

static int entry_load_setup(void *opaque, GError **errp)
{
    RAMEntry *entry = opaque;

    entry->load = ram_load_new(migration_incoming_get_current(), errp);
    return entry->load ? 0 : -ENOMEM;
}

static int entry_load_state(QEMUFile *f, void *opaque, int version_id, GError **errp)
{
    RAMEntry *entry = opaque;

    return ram_load_section(entry->load, f, version_id, errp);
}

static int entry_load_complete(void *opaque, GError **errp)
{
    RAMEntry *entry = opaque;

    return ram_load_complete(entry->load, errp);
}

static void entry_load_cleanup(void *opaque)
{
    RAMEntry *entry = opaque;

    ram_load_free(g_steal_pointer(&entry->load));
}

static const SaveVMHandlers ram_handlers = {
    .save_setup = entry_save_setup,
    .state_pending = entry_state_pending,
    .save_live_iterate = entry_save_iterate,
    .save_live_complete_precopy = entry_save_complete,
    .save_cleanup = entry_save_cleanup,
    .load_setup = entry_load_setup,
    .always_sent = true,
    .load_state = entry_load_state,
    .load_complete = entry_load_complete,
    .load_cleanup = entry_load_cleanup,
};

void ram_mig_init(void)
{
    static RAMEntry entry;

    register_savevm_live("ram", 0, RAM_SAVE_VERSION, &ram_handlers, &entry);
}
