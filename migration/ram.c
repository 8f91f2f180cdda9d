/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RAM's entry in the registry of what travels with the guest. */
#include "migration/ram.h"

#include "migration/ram-load.h"
#include "migration/ram-save.h"
#include "util/error.h"
#include "vmstate/register.h"

/* Each belongs to the thread of its direction while that runs. */
static struct {
    RAMSaveState *save;
    RAMLoadState *load;
} ram;

static int entry_save_setup(QEMUFile *f, void *opaque, GError **errp)
{
    ram.save = ram_save_state_new(migrate_get_current(), errp);
    return ram.save ? ram_save_setup(ram.save, f, errp) : -EINVAL;
}

static uint64_t entry_state_pending(void *opaque, bool exact)
{
    if (exact) {
        ram_sync_dirty_log(ram.save, ram.save->s->vm_stopped);
    }
    return ram.save->dirty_pages << TARGET_PAGE_BITS;
}

static int entry_save_iterate(QEMUFile *f, void *opaque, GError **errp)
{
    return ram_save_iterate(ram.save, f, errp);
}

static int entry_save_complete(QEMUFile *f, void *opaque, GError **errp)
{
    return ram_save_complete(ram.save, f, errp);
}

static void entry_save_cleanup(void *opaque)
{
    ram_save_state_free(g_steal_pointer(&ram.save));
}

static int entry_load_setup(void *opaque, GError **errp)
{
    ram.load = ram_load_new(migration_incoming_get_current(), errp);
    return ram.load ? 0 : -ENOMEM;
}

static int entry_load_state(QEMUFile *f, void *opaque, int version_id, GError **errp)
{
    return ram_load_section(ram.load, f, version_id, errp);
}

static void entry_load_cleanup(void *opaque)
{
    ram_load_free(g_steal_pointer(&ram.load));
}

static const SaveVMHandlers ram_handlers = {
    .save_setup = entry_save_setup,
    .state_pending = entry_state_pending,
    .save_live_iterate = entry_save_iterate,
    .save_live_complete_precopy = entry_save_complete,
    .save_cleanup = entry_save_cleanup,
    .load_setup = entry_load_setup,
    .load_state = entry_load_state,
    .load_cleanup = entry_load_cleanup,
};

void ram_mig_init(void)
{
    register_savevm_live("ram", 0, RAM_SAVE_VERSION, &ram_handlers, &ram);
}
