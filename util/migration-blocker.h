/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Migration blockers: why the guest cannot be migrated at present. A part whose state does not
 * travel (a device, a disk whose format caches what another process may change) adds one and takes
 * it back when that is over. Main thread.
 */
#ifndef FERRY_UTIL_MIGRATION_BLOCKER_H
#define FERRY_UTIL_MIGRATION_BLOCKER_H

#include <glib.h>
#include <stdbool.h>

typedef struct MigrationBlocker MigrationBlocker;

/*
 * reason is a sentence for users: "The qcow2 format used by node 'x' does not support live
 * migration". NULL with an error when none may be added: with -only-migratable, or while a migration
 * is under way.
 */
MigrationBlocker *migrate_add_blocker(const char *reason, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* NULL is allowed. */
void migrate_del_blocker(MigrationBlocker *blocker);

/* Copies of the reasons, oldest first; the caller's, with g_ptr_array_unref(). Any thread. */
GPtrArray *migrate_blocker_reasons(void);
/* False with the first reason as the error when there is any. */
bool migrate_check_blockers(GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* -only-migratable: adding a blocker is an error. Start-up. */
void migrate_set_only_migratable(bool on);
/* Registered by the engine: true while a migration is under way. Without it there is none. */
void migrate_set_blocker_busy_func(bool (*busy)(void));

#endif
