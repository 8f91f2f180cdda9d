/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The status of a migration: the table of its changes, and the one function that makes them. */
#include "migration/migration.h"
#include "trace/trace-migration.h"
#include "qapi/qapi-events-migration.h"

#define S(status) (1u << MIGRATION_STATUS_##status)

/* What may end a migration at any moment at which it could go on. */
#define ENDS (S(CANCELLING) | S(FAILING) | S(FAILED))

/* Nothing is under way: not yet, or not any more. */
#define FINAL (S(NONE) | S(COMPLETED) | S(FAILED) | S(CANCELLED))

/*
 * from: the statuses that may follow.
 *
 *   source       none -> setup -> active [-> pre-switchover] -> device -> completed
 *                anywhere: -> failing -> failed, -> cancelling -> cancelled
 *   destination  none -> setup -> active -> completed, or failed
 */
static const unsigned transitions[MIGRATION_STATUS__MAX] = {
    [MIGRATION_STATUS_NONE] = S(SETUP),
    [MIGRATION_STATUS_SETUP] = S(ACTIVE) | ENDS,
    [MIGRATION_STATUS_ACTIVE] = S(PRE_SWITCHOVER) | S(DEVICE) | S(COMPLETED) | ENDS,
    [MIGRATION_STATUS_PRE_SWITCHOVER] = S(DEVICE) | ENDS,
    [MIGRATION_STATUS_DEVICE] = S(COMPLETED) | ENDS,
    [MIGRATION_STATUS_CANCELLING] = S(CANCELLED),
    [MIGRATION_STATUS_FAILING] = S(FAILED),
    [MIGRATION_STATUS_COMPLETED] = S(SETUP),
    [MIGRATION_STATUS_CANCELLED] = S(SETUP),
    [MIGRATION_STATUS_FAILED] = S(SETUP),
};

bool migration_status_may_become(MigrationStatus from, MigrationStatus to)
{
    return transitions[from] & 1u << to;
}

bool migration_status_is_running(MigrationStatus status)
{
    return !(FINAL & 1u << status);
}

bool migrate_set_state(int *status, const MigrationSettings *settings, MigrationStatus from,
                       MigrationStatus to)
{
    int expected = from;

    g_assert(migration_status_may_become(from, to));
    if (!__atomic_compare_exchange_n(status, &expected, (int)to, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        return false;
    }
    trace_migrate_set_state(MigrationStatus_str(to));
    if (settings && migrate_events(settings)) {
        qapi_event_send_migration(to);
    }
    return true;
}
