/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The registry of what travels with the guest: devices with a description of their state, and live
 * parts (RAM). These bring their own functions, because they are sent while the guest runs.
 *
 * Entries are kept in the order in which they are saved: by descending priority, then by
 * registration. A name (idstr) and an instance id identify an entry on both sides; section ids are
 * numbers of the sender, handed out at registration.
 *
 * Threads: entries come and go, and are walked, under the big lock (util/bql.h). A load takes a table of
 * them with references once (load-table.h) and needs the lock only to touch a device. A live part stays
 * registered while a migration or a load uses it.
 */
#ifndef FERRY_VMSTATE_REGISTER_H
#define FERRY_VMSTATE_REGISTER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include "util/migration-blocker.h"
#include "vmstate/qemu-file.h"
#include "vmstate/vmstate.h"

/* Longest name of an entry, bytes. */
#define SAVEVM_IDSTR_MAX 255
/* "The next free instance of that name." */
#define VMSTATE_INSTANCE_ID_ANY UINT32_MAX

/* Bytes that a live part has left, by the phase in which they must be sent. */
typedef struct SaveVMPending {
    uint64_t must_precopy; /* before the guest runs at the destination */
    uint64_t can_postcopy; /* afterwards, too */
} SaveVMPending;

/*
 * How a live part is saved and loaded. The functions run in the migration's own threads, without the
 * big lock unless it is said; 0 or -errno with an error. NULL members are skipped.
 */
typedef struct SaveVMHandlers {
    /* False: the present migration leaves this part out. NULL: it does not. */
    bool (*is_active)(void *opaque);

    /*
     * Early set-up, before a byte of the stream has left: resources are taken, and a migration that cannot
     * be is refused while it costs nothing.
     */
    int (*save_prepare)(void *opaque, GError **errp);
    /*
     * Start of a migration: the contents of the START section. Takes the big lock as it needs. Without it
     * this part is not sent at all.
     */
    int (*save_setup)(QEMUFile *f, void *opaque, GError **errp);
    /* Adds what would have to be sent if the guest stopped now; exact: after a look at the log. */
    void (*state_pending)(void *opaque, bool exact, SaveVMPending *pending);
    /*
     * The contents of a PART section: sends until the rate or its time slice is used up. 1: this
     * pass has nothing more; 0: it has.
     */
    int (*save_live_iterate)(QEMUFile *f, void *opaque, GError **errp);
    /* The contents of the END section: all that is left. The guest is stopped. */
    int (*save_live_complete_precopy)(QEMUFile *f, void *opaque, GError **errp);
    /*
     * The same in a postcopy migration, in which the guest runs at the destination by now. A part that
     * has it sends nothing at the switchover. A part with neither of the two has no END section.
     */
    int (*save_live_complete_postcopy)(QEMUFile *f, void *opaque, GError **errp);
    /*
     * A postcopy migration goes on over new channels: learns what the destination has, and marks the rest
     * as to be sent.
     */
    int (*resume_prepare)(void *opaque, GError **errp);
    /*
     * After success, failure or cancellation, in the source's thread, if save_prepare or save_setup was
     * called.
     */
    void (*save_cleanup)(void *opaque);

    /* Before the first section is loaded. */
    int (*load_setup)(void *opaque, GError **errp);
    /* A stream without this part is not whole. */
    bool always_sent;
    /* The contents of any section of this part. */
    int (*load_state)(QEMUFile *f, void *opaque, int version_id, GError **errp);
    /*
     * The END section has been read, and the data of other channels has arrived. Finishes the work
     * that must be done before devices are loaded, which may look at guest memory.
     */
    int (*load_complete)(void *opaque, GError **errp);
    /* After success or failure, if load_setup was called. */
    void (*load_cleanup)(void *opaque);
    /*
     * At the destination, before load_setup: the guest may not be stopped at the source before this
     * part agrees (loadvm_approve_switchover()).
     */
    bool (*switchover_ack_needed)(void *opaque);
} SaveVMHandlers;

/* An END section belongs to what this part sends. */
static inline bool savevm_handlers_send_end(const SaveVMHandlers *ops)
{
    return ops->save_live_complete_precopy || ops->save_live_complete_postcopy;
}

typedef struct SaveStateEntry {
    char idstr[SAVEVM_IDSTR_MAX + 1];
    uint32_t instance_id;
    int version_id;
    uint32_t section_id;
    /* An older name under which a stream may bring it: the bare name of a device that has a path. */
    char compat_idstr[SAVEVM_IDSTR_MAX + 1]; /* "": none */
    uint32_t compat_instance_id;
    int alias_id; /* another instance id that stands for it; -1: none */
    /* Exactly one of the two. */
    const VMStateDescription *vmsd;
    const SaveVMHandlers *ops;
    void *opaque;
    MigrationPriority priority;
    MigrationBlocker *blocker; /* it cannot be migrated; NULL: it can */

    unsigned refcount; /* atomic: the registry's, and those of loads that may meet it */
    bool gone;         /* atomic: it was taken out of the registry; opaque is not valid then */

    TAILQ_ENTRY(SaveStateEntry) next;
} SaveStateEntry;

TAILQ_HEAD(SaveStateList, SaveStateEntry);
/* In the order in which they are saved. */
struct SaveStateList *savevm_entries(void);

typedef struct VMStateRegistration {
    const VMStateDescription *vmsd;
    void *opaque;
    const char *path;     /* of the device on its buses ("0000:00:02.0"); NULL: none */
    uint32_t instance_id; /* or VMSTATE_INSTANCE_ID_ANY */
    int alias_id;         /* -1: none */
} VMStateRegistration;

/*
 * Adds a device's state. False, with an error: it cannot be migrated where only migratable devices are
 * allowed (-only-migratable) or a migration is under way, or the name is taken or too long.
 */
bool vmstate_register_full(const VMStateRegistration *reg, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The same for a state without a path, which cannot fail: a failure is a bug of ours. */
void vmstate_register(uint32_t instance_id, const VMStateDescription *vmsd, void *opaque);
/* Takes away what was registered with this description (NULL: any) and this opaque. */
void vmstate_unregister(const VMStateDescription *vmsd, void *opaque);

/* Adds a live part; `ops` and `opaque` live until it is taken away. */
void register_savevm_live(const char *idstr, uint32_t instance_id, int version_id,
                          const SaveVMHandlers *ops, void *opaque);
void unregister_savevm(const char *idstr, void *opaque);

/* Any thread, with the big lock or a reference. */
SaveStateEntry *savevm_entry_ref(SaveStateEntry *se);
void savevm_entry_unref(SaveStateEntry *se);
/* It was taken out of the registry. The answer holds as long as the big lock is held. */
static inline bool savevm_entry_is_gone(const SaveStateEntry *se)
{
    return __atomic_load_n(&se->gone, __ATOMIC_ACQUIRE);
}
/* This name and instance stand for the entry in a stream: its own, its older name, or its alias. */
bool savevm_entry_is_named(const SaveStateEntry *se, const char *idstr, uint32_t instance_id);
/* The entry that a stream means; NULL: none. */
SaveStateEntry *savevm_find(const char *idstr, uint32_t instance_id);

#endif
