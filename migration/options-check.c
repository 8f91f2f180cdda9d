/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The parameters in a table: their ranges, and the way from and to the schema's form. */
#include "migration/options-check.h"

#include <stddef.h>
#include <string.h>
#include "util/error.h"
#include "util/units.h"

typedef enum ParamKind {
    PARAM_U8,
    PARAM_U64,
    PARAM_BOOL,
    PARAM_ENUM,
    PARAM_STR,
} ParamKind;

typedef struct ParamRow {
    const char *name;
    ParamKind kind;
    size_t offset;                 /* in MigrationParams */
    size_t has_offset, arg_offset; /* in MigrationParameters; strings have no `has` */
    uint64_t min, max;             /* of numbers */
    const char *expects;           /* for the error; NULL: all values of the type are fine */
} ParamRow;

#define ROW(name, kind, member, ...)                                                            \
    {                                                                                           \
        name, kind, offsetof(MigrationParams, member),                                          \
            offsetof(MigrationParameters, has_##member), offsetof(MigrationParameters, member), \
            __VA_ARGS__                                                                         \
    }
#define STR(name, member)                                      \
    {                                                          \
        name, PARAM_STR, offsetof(MigrationParams, member), 0, \
            offsetof(MigrationParameters, member)              \
    }

G_STATIC_ASSERT(sizeof(MultiFDCompression) == sizeof(int));
G_STATIC_ASSERT(sizeof(ZeroPageDetection) == sizeof(int));

static const ParamRow rows[] = {
    ROW("announce-initial", PARAM_U64, announce_initial, 0, 100000, "a value between 0 and 100000"),
    ROW("announce-max", PARAM_U64, announce_max, 0, 100000, "a value between 0 and 100000"),
    ROW("announce-rounds", PARAM_U64, announce_rounds, 0, 1000, "a value between 0 and 1000"),
    ROW("announce-step", PARAM_U64, announce_step, 1, 10000, "a value between 1 and 10000"),
    ROW("throttle-trigger-threshold", PARAM_U8, throttle_trigger_threshold, 1, 100,
        "an integer in the range of 1 to 100"),
    ROW("cpu-throttle-initial", PARAM_U8, cpu_throttle_initial, 1, 99,
        "an integer in the range of 1 to 99"),
    ROW("cpu-throttle-increment", PARAM_U8, cpu_throttle_increment, 1, 99,
        "an integer in the range of 1 to 99"),
    ROW("cpu-throttle-tailslow", PARAM_BOOL, cpu_throttle_tailslow),
    STR("tls-creds", tls_creds),
    STR("tls-hostname", tls_hostname),
    STR("tls-authz", tls_authz),
    ROW("max-bandwidth", PARAM_U64, max_bandwidth),
    ROW("avail-switchover-bandwidth", PARAM_U64, avail_switchover_bandwidth),
    ROW("downtime-limit", PARAM_U64, downtime_limit, 0, 2000 * 1000,
        "an integer in the range of 0 to (2000 * 1000) ms"),
    ROW("multifd-channels", PARAM_U8, multifd_channels, 1, 255, "a value between 1 and 255"),
    ROW("xbzrle-cache-size", PARAM_U64, xbzrle_cache_size, 4 * KiB, UINT64_MAX,
        "a power of two no less than the target page size"),
    ROW("max-cpu-throttle", PARAM_U8, max_cpu_throttle, 1, 99,
        "an integer in the range of cpu-throttle-initial to 99"),
    ROW("multifd-compression", PARAM_ENUM, multifd_compression),
    ROW("multifd-zlib-level", PARAM_U8, multifd_zlib_level, 0, 9, "a value between 0 and 9"),
    ROW("multifd-zstd-level", PARAM_U8, multifd_zstd_level, 0, 20, "a value between 0 and 20"),
    ROW("zero-page-detection", PARAM_ENUM, zero_page_detection),
    ROW("direct-io", PARAM_BOOL, direct_io),
};

static bool arg_is_there(const ParamRow *row, const MigrationParameters *args)
{
    const char *base = (const char *)args;

    return row->kind == PARAM_STR ? *(StrOrNull *const *)(base + row->arg_offset) != NULL
                                  : *(const bool *)(base + row->has_offset);
}

/* The bytes of one value; strings apart. */
static size_t value_size(ParamKind kind)
{
    static const size_t sizes[] = {
        [PARAM_U8] = sizeof(uint8_t),
        [PARAM_U64] = sizeof(uint64_t),
        [PARAM_BOOL] = sizeof(bool),
        [PARAM_ENUM] = sizeof(int),
    };

    return sizes[kind];
}

void migration_params_apply(MigrationParams *params, const MigrationParameters *from)
{
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        const ParamRow *row = &rows[i];
        char *to = (char *)params + row->offset;
        const char *arg = (const char *)from + row->arg_offset;

        if (!arg_is_there(row, from)) {
            continue;
        }
        if (row->kind == PARAM_STR) {
            const StrOrNull *value = *(StrOrNull *const *)arg;

            g_free(*(char **)to);
            *(char **)to = g_strdup(value->type == json_type_string ? value->u.s : "");
        } else {
            memcpy(to, arg, value_size(row->kind));
        }
    }
}

MigrationParameters *migration_settings_to_parameters(const MigrationSettings *settings)
{
    MigrationParameters *params = g_new0(MigrationParameters, 1);

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        const ParamRow *row = &rows[i];
        const char *from = (const char *)&settings->params + row->offset;
        char *arg = (char *)params + row->arg_offset;

        if (row->kind == PARAM_STR) {
            StrOrNull *value = g_new0(StrOrNull, 1);

            value->type = json_type_string;
            value->u.s = g_strdup(*(char *const *)from);
            *(StrOrNull **)arg = value;
        } else {
            *(bool *)((char *)params + row->has_offset) = true;
            memcpy(arg, from, value_size(row->kind));
        }
    }
    return params;
}

bool migration_param_exists(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (!strcmp(rows[i].name, name)) {
            return true;
        }
    }
    return false;
}

bool migration_options_check_params(const MigrationParams *params, GError **errp)
{
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        const ParamRow *row = &rows[i];
        const char *from = (const char *)params + row->offset;
        uint64_t value, min = row->min;
        bool fine = true;

        if (!row->expects) {
            continue;
        }
        value = row->kind == PARAM_U8 ? *(const uint8_t *)from : *(const uint64_t *)from;
        if (row->offset == offsetof(MigrationParams, max_cpu_throttle)) {
            min = params->cpu_throttle_initial;
        } else if (row->offset == offsetof(MigrationParams, xbzrle_cache_size)) {
            fine = (value & (value - 1)) == 0;
        }
        if (!fine || value < min || value > row->max) {
            error_setg(errp, "Option %s expects %s", row->name, row->expects);
            return false;
        }
    }
    return true;
}

bool migration_options_check_combination(const MigrationSettings *s, GError **errp)
{
    if (migrate_zero_copy_send(s) && (!migrate_multifd(s) || migrate_xbzrle(s) || migrate_tls(s) ||
                                      migrate_multifd_compression(s) != MULTIFD_COMPRESSION_NONE)) {
        error_setg(errp, "Zero copy only available for non-compressed non-TLS multifd migration");
        return false;
    }
    if (migrate_xbzrle(s) && migrate_multifd(s)) {
        error_setg(errp, "Multifd is not compatible with xbzrle");
        return false;
    }
    if (migrate_mapped_ram(s) && migrate_xbzrle(s)) {
        error_setg(errp, "Mapped-ram migration is incompatible with xbzrle");
        return false;
    }
    if (migrate_switchover_ack(s) && !migrate_return_path(s)) {
        error_setg(errp, "Capability 'switchover-ack' requires capability 'return-path'");
        return false;
    }
    return true;
}
