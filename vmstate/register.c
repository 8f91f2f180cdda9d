/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The registry of what travels with the guest. */
#include "vmstate/register.h"

#include <string.h>
#include "util/error.h"

static struct {
    struct SaveStateList entries;
    uint32_t next_section_id;
} registry = {.entries = TAILQ_HEAD_INITIALIZER(registry.entries)};

SaveStateEntry *savevm_entry_ref(SaveStateEntry *se)
{
    __atomic_fetch_add(&se->refcount, 1, __ATOMIC_RELAXED);
    return se;
}

void savevm_entry_unref(SaveStateEntry *se)
{
    if (__atomic_sub_fetch(&se->refcount, 1, __ATOMIC_ACQ_REL) == 0) {
        g_free(se);
    }
}

struct SaveStateList *savevm_entries(void)
{
    return &registry.entries;
}

/* The smallest instance id above all that the name has, in its own form or in the older one. */
static uint32_t next_instance_id(const char *idstr, bool compat)
{
    SaveStateEntry *se;
    uint32_t next = 0;

    TAILQ_FOREACH(se, &registry.entries, next) {
        const char *name = compat ? se->compat_idstr : se->idstr;
        uint32_t id = compat ? se->compat_instance_id : se->instance_id;

        if (!strcmp(name, idstr) && id >= next) {
            next = id + 1;
        }
    }
    return next;
}

static void insert(SaveStateEntry *se)
{
    SaveStateEntry *other;

    se->section_id = registry.next_section_id++;
    TAILQ_FOREACH(other, &registry.entries, next) {
        if (other->priority < se->priority) {
            TAILQ_INSERT_BEFORE(other, se, next);
            return;
        }
    }
    TAILQ_INSERT_TAIL(&registry.entries, se, next);
}

static bool taken(const char *idstr, uint32_t instance_id)
{
    SaveStateEntry *se;

    TAILQ_FOREACH(se, &registry.entries, next) {
        if (!strcmp(se->idstr, idstr) && se->instance_id == instance_id) {
            return true;
        }
    }
    return false;
}

static SaveStateEntry *entry_new(const char *idstr, uint32_t instance_id, GError **errp)
{
    SaveStateEntry *se;

    if (strlen(idstr) > SAVEVM_IDSTR_MAX) {
        error_setg(errp, "the name '%s' of a part of the guest's state is too long", idstr);
        return NULL;
    }
    if (instance_id == VMSTATE_INSTANCE_ID_ANY) {
        instance_id = next_instance_id(idstr, false);
    } else if (taken(idstr, instance_id)) {
        error_setg(errp, "the guest has a '%s' with instance id %u already", idstr, instance_id);
        return NULL;
    }
    se = g_new0(SaveStateEntry, 1);
    se->refcount = 1;
    g_strlcpy(se->idstr, idstr, sizeof(se->idstr));
    se->instance_id = instance_id;
    se->alias_id = -1;
    return se;
}

/* With the words of a reason that users see in query-migrate. */
static bool add_blocker(SaveStateEntry *se, GError **errp)
{
    g_autofree char *reason =
        g_strdup_printf("the state of the device '%s' cannot be migrated", se->idstr);

    se->blocker = migrate_add_blocker(reason, errp);
    return se->blocker;
}

bool vmstate_register_full(const VMStateRegistration *reg, GError **errp)
{
    const VMStateDescription *vmsd = reg->vmsd;
    g_autofree char *idstr =
        reg->path ? g_strdup_printf("%s/%s", reg->path, vmsd->name) : g_strdup(vmsd->name);
    SaveStateEntry *se = entry_new(idstr, reg->path ? 0 : reg->instance_id, errp);

    if (!se) {
        return false;
    }
    if (vmsd->unmigratable && !add_blocker(se, errp)) {
        g_free(se);
        return false;
    }
    if (reg->path) {
        g_strlcpy(se->compat_idstr, vmsd->name, sizeof(se->compat_idstr));
        se->compat_instance_id = reg->instance_id == VMSTATE_INSTANCE_ID_ANY
                                     ? next_instance_id(vmsd->name, true)
                                     : reg->instance_id;
    }
    se->version_id = vmsd->version_id;
    se->alias_id = reg->alias_id;
    se->vmsd = vmsd;
    se->opaque = reg->opaque;
    se->priority = vmsd->priority;
    insert(se);
    return true;
}

void vmstate_register(uint32_t instance_id, const VMStateDescription *vmsd, void *opaque)
{
    VMStateRegistration reg = {
        .vmsd = vmsd, .opaque = opaque, .instance_id = instance_id, .alias_id = -1};
    bool ok = vmstate_register_full(&reg, NULL);

    g_assert(ok);
}

static void remove_entry(SaveStateEntry *se)
{
    TAILQ_REMOVE(&registry.entries, se, next);
    migrate_del_blocker(g_steal_pointer(&se->blocker));
    __atomic_store_n(&se->gone, true, __ATOMIC_RELEASE);
    savevm_entry_unref(se);
}

void vmstate_unregister(const VMStateDescription *vmsd, void *opaque)
{
    SaveStateEntry *se = TAILQ_FIRST(&registry.entries);

    while (se) {
        SaveStateEntry *next = TAILQ_NEXT(se, next);

        if (se->vmsd && (!vmsd || se->vmsd == vmsd) && se->opaque == opaque) {
            remove_entry(se);
        }
        se = next;
    }
}

void register_savevm_live(const char *idstr, uint32_t instance_id, int version_id,
                          const SaveVMHandlers *ops, void *opaque)
{
    SaveStateEntry *se = entry_new(idstr, instance_id, NULL);

    g_assert(se);
    se->version_id = version_id;
    se->ops = ops;
    se->opaque = opaque;
    insert(se);
}

void unregister_savevm(const char *idstr, void *opaque)
{
    SaveStateEntry *se = TAILQ_FIRST(&registry.entries);

    while (se) {
        SaveStateEntry *next = TAILQ_NEXT(se, next);

        if (se->ops && !strcmp(se->idstr, idstr) && se->opaque == opaque) {
            remove_entry(se);
        }
        se = next;
    }
}

bool savevm_entry_is_named(const SaveStateEntry *se, const char *idstr, uint32_t instance_id)
{
    const struct {
        const char *idstr; /* "": none */
        uint32_t instance_id;
    } names[] = {
        {se->idstr, se->instance_id},
        {se->compat_idstr, se->compat_instance_id},
    };
    bool by_alias = se->alias_id >= 0 && (uint32_t)se->alias_id == instance_id;

    for (size_t i = 0; *idstr && i < G_N_ELEMENTS(names); i++) {
        if (!strcmp(names[i].idstr, idstr)) {
            return by_alias || names[i].instance_id == instance_id;
        }
    }
    return false;
}

SaveStateEntry *savevm_find(const char *idstr, uint32_t instance_id)
{
    SaveStateEntry *se;

    TAILQ_FOREACH(se, &registry.entries, next) {
        if (savevm_entry_is_named(se, idstr, instance_id)) {
            break;
        }
    }
    return se;
}
