/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What values the settings may have, one by one and together. Any thread. */
#ifndef FERRY_MIGRATION_OPTIONS_CHECK_H
#define FERRY_MIGRATION_OPTIONS_CHECK_H

#include "migration/options.h"

/* Sets the values that `from` has; strings are copied, the old ones freed. */
void migration_params_apply(MigrationParams *params, const MigrationParameters *from);
/* Whether there is a parameter "multifd-channels". */
bool migration_param_exists(const char *name);
/* Each value within its range. */
bool migration_options_check_params(const MigrationParams *params,
                                    GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Capabilities and parameters that exclude or need each other. */
bool migration_options_check_combination(const MigrationSettings *settings,
                                         GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
