/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Migration blockers: the list of reasons. */
#include "util/migration-blocker.h"

#include "util/error.h"
#include "util/queue.h"

struct MigrationBlocker {
    char *reason;
    TAILQ_ENTRY(MigrationBlocker) next;
};

/* The main thread changes the list; other threads read it under the lock. */
static GMutex lock;
static TAILQ_HEAD(, MigrationBlocker) blockers = TAILQ_HEAD_INITIALIZER(blockers);
static bool only_migratable;
static bool (*is_busy)(void);

MigrationBlocker *migrate_add_blocker(const char *reason, GError **errp)
{
    MigrationBlocker *blocker;

    if (only_migratable) {
        error_setg(errp, "disallowing migration blocker (--only-migratable) for: %s", reason);
        return NULL;
    }
    if (is_busy && is_busy()) {
        error_setg(errp, "disallowing migration blocker (migration in progress) for: %s", reason);
        return NULL;
    }
    blocker = g_new0(MigrationBlocker, 1);
    blocker->reason = g_strdup(reason);
    g_mutex_lock(&lock);
    TAILQ_INSERT_TAIL(&blockers, blocker, next);
    g_mutex_unlock(&lock);
    return blocker;
}

void migrate_del_blocker(MigrationBlocker *blocker)
{
    if (!blocker) {
        return;
    }
    g_mutex_lock(&lock);
    TAILQ_REMOVE(&blockers, blocker, next);
    g_mutex_unlock(&lock);
    g_free(blocker->reason);
    g_free(blocker);
}

GPtrArray *migrate_blocker_reasons(void)
{
    GPtrArray *reasons = g_ptr_array_new_with_free_func(g_free);
    MigrationBlocker *blocker;

    g_mutex_lock(&lock);
    TAILQ_FOREACH(blocker, &blockers, next) {
        g_ptr_array_add(reasons, g_strdup(blocker->reason));
    }
    g_mutex_unlock(&lock);
    return reasons;
}

bool migrate_check_blockers(GError **errp)
{
    const MigrationBlocker *first = TAILQ_FIRST(&blockers);

    if (first) {
        error_setg(errp, "%s", first->reason);
    }
    return !first;
}

void migrate_set_only_migratable(bool on)
{
    only_migratable = on;
}

void migrate_set_blocker_busy_func(bool (*busy)(void))
{
    is_busy = busy;
}
