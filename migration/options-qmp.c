/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: migrate-set-capabilities, migrate-set-parameters and their queries. */
#include "migration/options.h"
#include "qapi/qapi-commands-migration.h"

bool coroutine_fn qmp_migrate_set_capabilities(const MigrateSetCapabilitiesArg *arg, GError **errp)
{
    return migration_settings_change_caps(arg->capabilities, true, errp);
}

bool coroutine_fn qmp_query_migrate_capabilities(MigrationCapabilityStatusList **ret, GError **errp)
{
    g_autoptr(MigrationSettings) settings = migration_settings_get();
    MigrationCapabilityStatusList **tail = ret;

    for (int cap = 0; cap < MIGRATION_CAPABILITY__MAX; cap++) {
        MigrationCapabilityStatus *value = g_new0(MigrationCapabilityStatus, 1);

        value->capability = cap;
        value->state = settings->caps[cap];
        *tail = g_new0(MigrationCapabilityStatusList, 1);
        (*tail)->value = value;
        tail = &(*tail)->next;
    }
    return true;
}

bool coroutine_fn qmp_migrate_set_parameters(const MigrationParameters *arg, GError **errp)
{
    return migration_settings_change_params(arg, errp);
}

bool coroutine_fn qmp_query_migrate_parameters(MigrationParameters **ret, GError **errp)
{
    g_autoptr(MigrationSettings) settings = migration_settings_get();

    *ret = migration_settings_to_parameters(settings);
    return true;
}
