/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The settings of migrations: their defaults, the present set, and what changes it. */
#include "migration/options.h"

#include <stddef.h>
#include <string.h>
#include "migration/options-check.h"
#include "util/cutils.h"
#include "util/error.h"
#include "util/units.h"

/*
 * The defaults. Those that shape the stream are what a machine type of 7.2 uses in any version: the
 * machine "none" has no version that would tell what the peer understands.
 */
static const MigrationParams default_params = {
    .announce_initial = 50,
    .announce_max = 550,
    .announce_rounds = 5,
    .announce_step = 100,
    .throttle_trigger_threshold = 50,
    .cpu_throttle_initial = 20,
    .cpu_throttle_increment = 10,
    .max_cpu_throttle = 99,
    .max_bandwidth = 128 * MiB,
    .downtime_limit = 300,
    .multifd_channels = 2,
    .multifd_compression = MULTIFD_COMPRESSION_NONE,
    .multifd_zlib_level = 1,
    .multifd_zstd_level = 1,
    .xbzrle_cache_size = 64 * MiB,
    /* Zero pages in multifd packets are unknown to 7.2 and 8.2. */
    .zero_page_detection = ZERO_PAGE_DETECTION_LEGACY,
};

static const MigrationCompat default_compat = {
    .send_configuration = true,
    .send_section_footer = true,
    .store_global_state = true,
    /* 9.2 and older end when they meet SWITCHOVER_START. */
    .send_switchover_start = false,
    /* Up to 8.0 each EOS is a barrier; a newer destination is told so by its machine type. */
    .multifd_flush_after_each_section = true,
    /* Up to 11.0 every destination acknowledges; in 11.1 only for devices that want to delay. */
    .switchover_ack_legacy = true,
    /* 9.2 and older close TLS channels without saying so. */
    .multifd_clean_tls_termination = false,
    .clear_bitmap_shift = 18,
};

/* --- sets --- */

static void params_copy_strings(MigrationParams *params)
{
    params->tls_creds = g_strdup(params->tls_creds ?: "");
    params->tls_hostname = g_strdup(params->tls_hostname ?: "");
    params->tls_authz = g_strdup(params->tls_authz ?: "");
}

static MigrationSettings *settings_new_default(void)
{
    MigrationSettings *settings = g_new0(MigrationSettings, 1);

    settings->params = default_params;
    params_copy_strings(&settings->params);
    settings->compat = default_compat;
    settings->refcount = 1;
    return settings;
}

static MigrationSettings *settings_copy(const MigrationSettings *from)
{
    MigrationSettings *settings = g_new(MigrationSettings, 1);

    /* Not the whole: other threads count references to `from`. */
    memcpy(settings->caps, from->caps, sizeof(settings->caps));
    settings->params = from->params;
    settings->compat = from->compat;
    params_copy_strings(&settings->params);
    settings->refcount = 1;
    return settings;
}

MigrationSettings *migration_settings_ref(MigrationSettings *settings)
{
    __atomic_fetch_add(&settings->refcount, 1, __ATOMIC_RELAXED);
    return settings;
}

void migration_settings_unref(MigrationSettings *settings)
{
    if (settings && __atomic_fetch_sub(&settings->refcount, 1, __ATOMIC_ACQ_REL) == 1) {
        g_free(settings->params.tls_creds);
        g_free(settings->params.tls_hostname);
        g_free(settings->params.tls_authz);
        g_free(settings);
    }
}

/* --- the present set --- */

static struct {
    GMutex lock;
    MigrationSettings *settings; /* lock; NULL: not asked for yet */
    bool (*busy)(void);          /* main thread */
} present;

MigrationSettings *migration_settings_get(void)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = g_mutex_locker_new(&present.lock);

    if (!present.settings) {
        present.settings = settings_new_default();
    }
    return migration_settings_ref(present.settings);
}

/* Takes over `settings`, which all threads see from now on. */
static void publish(MigrationSettings *settings)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = g_mutex_locker_new(&present.lock);

    migration_settings_unref(present.settings);
    present.settings = settings;
}

uint64_t migrate_max_bandwidth(void)
{
    g_autoptr(MigrationSettings) settings = migration_settings_get();

    return settings->params.max_bandwidth;
}

uint64_t migrate_avail_switchover_bandwidth(void)
{
    g_autoptr(MigrationSettings) settings = migration_settings_get();

    return settings->params.avail_switchover_bandwidth;
}

uint64_t migrate_downtime_limit(void)
{
    g_autoptr(MigrationSettings) settings = migration_settings_get();

    return settings->params.downtime_limit;
}

uint64_t migrate_xbzrle_cache_size(void)
{
    g_autoptr(MigrationSettings) settings = migration_settings_get();

    return settings->params.xbzrle_cache_size;
}

MigrationThrottle migrate_throttle(void)
{
    g_autoptr(MigrationSettings) settings = migration_settings_get();
    const MigrationParams *params = &settings->params;

    return (MigrationThrottle){.trigger_threshold = params->throttle_trigger_threshold,
                               .initial = params->cpu_throttle_initial,
                               .increment = params->cpu_throttle_increment,
                               .max = params->max_cpu_throttle,
                               .tailslow = params->cpu_throttle_tailslow};
}

void migration_settings_set_busy_func(bool (*busy)(void))
{
    present.busy = busy;
}

/* Bit i: the user has set compat_rows[i]. Start-up. */
static unsigned compat_by_user;

void migration_settings_reset(void)
{
    compat_by_user = 0;
    present.busy = NULL;
    publish(settings_new_default());
}

/* --- changes --- */

bool migration_settings_change_caps(const MigrationCapabilityStatusList *list, bool check_busy,
                                    GError **errp)
{
    g_autoptr(MigrationSettings) old = migration_settings_get();
    g_autoptr(MigrationSettings) settings = settings_copy(old);

    if (check_busy && present.busy && present.busy()) {
        error_setg(errp, "There's a migration process in progress");
        return false;
    }
    for (; list; list = list->next) {
        settings->caps[list->value->capability] = list->value->state;
    }
    if (!migration_options_check_combination(settings, errp)) {
        return false;
    }
    publish(g_steal_pointer(&settings));
    return true;
}

bool migration_settings_change_params(const MigrationParameters *params, GError **errp)
{
    g_autoptr(MigrationSettings) old = migration_settings_get();
    g_autoptr(MigrationSettings) settings = settings_copy(old);

    migration_params_apply(&settings->params, params);
    if (!migration_options_check_params(&settings->params, errp) ||
        !migration_options_check_combination(settings, errp)) {
        return false;
    }
    publish(g_steal_pointer(&settings));
    return true;
}

/* --- the command line --- */

/* Parameters whose name on the command line begins with "x-", as in QEMU. */
static const char *const x_params[] = {
    "throttle-trigger-threshold",
    "cpu-throttle-initial",
    "cpu-throttle-increment",
    "cpu-throttle-tailslow",
    "max-bandwidth",
    "downtime-limit",
    NULL,
};

typedef struct CompatRow {
    const char *name;
    size_t offset; /* of a bool in MigrationCompat */
    /* Up to this version of a machine it is `old`, then the opposite; 0: it is no matter of versions. */
    unsigned until;
    bool old;
} CompatRow;

#define VERSION(major, minor) ((major)*1000u + (minor))

static const CompatRow compat_rows[] = {
    {"send-configuration", offsetof(MigrationCompat, send_configuration)},
    {"send-section-footer", offsetof(MigrationCompat, send_section_footer)},
    {"store-global-state", offsetof(MigrationCompat, store_global_state)},
    {"send-switchover-start", offsetof(MigrationCompat, send_switchover_start), VERSION(9, 2),
     false},
    {"multifd-flush-after-each-section",
     offsetof(MigrationCompat, multifd_flush_after_each_section), VERSION(8, 0), true},
    {"switchover-ack-legacy", offsetof(MigrationCompat, switchover_ack_legacy), VERSION(11, 0),
     true},
    {"multifd-clean-tls-termination", offsetof(MigrationCompat, multifd_clean_tls_termination),
     VERSION(9, 2), false},
};

static bool *compat_member(MigrationCompat *compat, const CompatRow *row)
{
    return (bool *)((char *)compat + row->offset);
}

void migration_settings_follow_machine(unsigned major, unsigned minor)
{
    g_autoptr(MigrationSettings) old = migration_settings_get();
    g_autoptr(MigrationSettings) settings = settings_copy(old);

    for (size_t i = 0; i < G_N_ELEMENTS(compat_rows); i++) {
        const CompatRow *row = &compat_rows[i];

        if (row->until && !(compat_by_user & 1u << i)) {
            *compat_member(&settings->compat, row) =
                VERSION(major, minor) <= row->until ? row->old : !row->old;
        }
    }
    publish(g_steal_pointer(&settings));
}

/* 1: set, 0: it has no such name, -1: an error. */
static int set_compat(MigrationCompat *compat, const char *name, const char *value, GError **errp)
{
    bool inert;

    for (size_t i = 0; i < G_N_ELEMENTS(compat_rows); i++) {
        if (!strcmp(name, compat_rows[i].name)) {
            compat_by_user |= 1u << i;
            return qemu_parse_bool(name, value, compat_member(compat, &compat_rows[i]), errp) ? 1
                                                                                              : -1;
        }
    }
    if (!strcmp(name, "x-preempt-pre-7-2")) {
        /* How the channel of postcopy-preempt is made, which there is not. */
        return qemu_parse_bool(name, value, &inert, errp) ? 1 : -1;
    }
    if (!strcmp(name, "x-clear-bitmap-shift")) {
        uint64_t shift;

        if (qemu_strtou64(value, NULL, 0, &shift) < 0 || shift > UINT8_MAX) {
            error_setg(errp, "Parameter '%s' expects uint8_t", name);
            return -1;
        }
        /* Chunks below 64 pages would not be whole words of the log; QEMU's upper end is 31. */
        compat->clear_bitmap_shift = CLAMP(shift, 6, 31);
        return 1;
    }
    return 0;
}

static int set_cap(MigrationSettings *settings, const char *name, const char *value, GError **errp)
{
    /* QEMU has "mapped-ram", and "x-" before all others. */
    for (int cap = 0; cap < MIGRATION_CAPABILITY__MAX; cap++) {
        const char *cap_name = MigrationCapability_str(cap);
        bool as_it_is = cap == MIGRATION_CAPABILITY_MAPPED_RAM || g_str_has_prefix(cap_name, "x-");
        g_autofree char *global = g_strconcat(as_it_is ? "" : "x-", cap_name, NULL);

        if (!strcmp(global, name)) {
            return qemu_parse_bool(name, value, &settings->caps[cap], errp) ? 1 : -1;
        }
    }
    return 0;
}

static int set_param(MigrationSettings *settings, const char *name, const char *value,
                     GError **errp)
{
    const char *plain = g_str_has_prefix(name, "x-") ? name + 2 : name;
    g_autoptr(MigrationParameters) params = NULL;
    json_object *json;

    if (!migration_param_exists(plain) || g_strv_contains(x_params, plain) != (plain != name)) {
        return 0;
    }
    json = json_object_new_object();
    json_object_object_add(json, plain, json_object_new_string(value));
    params = MigrationParameters_from_json(json, QAPI_DECODE_KEYVAL | QAPI_DECODE_SUFFIXES, errp);
    json_object_put(json);
    if (!params) {
        return -1;
    }
    migration_params_apply(&settings->params, params);
    return 1;
}

bool migration_settings_set_global(const char *name, const char *value, GError **errp)
{
    g_autoptr(MigrationSettings) old = migration_settings_get();
    g_autoptr(MigrationSettings) settings = settings_copy(old);
    int result = set_compat(&settings->compat, name, value, errp);

    if (!result) {
        result = set_cap(settings, name, value, errp);
    }
    if (!result) {
        result = set_param(settings, name, value, errp);
    }
    if (!result) {
        error_setg(errp, "Property 'migration.%s' not found", name);
    }
    if (result <= 0) {
        return false;
    }
    publish(g_steal_pointer(&settings));
    return true;
}

bool migration_settings_check_globals(GError **errp)
{
    g_autoptr(MigrationSettings) settings = migration_settings_get();

    return migration_options_check_params(&settings->params, errp) &&
           migration_options_check_combination(settings, errp);
}
