/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Settings of migrations: ranges, exclusions, -global, and sets that do not change under a user. */
#include <glib.h>
#include <string.h>
#include "migration/options.h"
#include "util/migration-blocker.h"

static MigrationParameters *params_from(const char *name, const char *value)
{
    json_object *json = json_object_new_object();
    MigrationParameters *params;

    json_object_object_add(json, name, json_object_new_string(value));
    params = MigrationParameters_from_json(json, QAPI_DECODE_KEYVAL, NULL);
    json_object_put(json);
    return params;
}

/* NULL when the value was taken, else the error; the caller frees. */
static char *set(const char *name, const char *value)
{
    g_autoptr(MigrationParameters) params = params_from(name, value);
    g_autoptr(GError) err = NULL;

    g_assert_nonnull(params);
    return migration_settings_change_params(params, &err) ? NULL : g_strdup(err->message);
}

typedef struct RangeCase {
    const char *name, *low, *high, *below, *above; /* NULL: there is none */
    const char *phrase;
} RangeCase;

static const RangeCase ranges[] = {
    {"announce-initial", "0", "100000", NULL, "100001", "a value between 0 and 100000"},
    {"announce-max", "0", "100000", NULL, "100001", "a value between 0 and 100000"},
    {"announce-rounds", "0", "1000", NULL, "1001", "a value between 0 and 1000"},
    {"announce-step", "1", "10000", "0", "10001", "a value between 1 and 10000"},
    {"throttle-trigger-threshold", "1", "100", "0", "101", "an integer in the range of 1 to 100"},
    {"cpu-throttle-initial", "1", "99", "0", "100", "an integer in the range of 1 to 99"},
    {"cpu-throttle-increment", "1", "99", "0", "100", "an integer in the range of 1 to 99"},
    {"max-bandwidth", "0", "18446744073709551615", NULL, NULL, NULL},
    {"avail-switchover-bandwidth", "0", "18446744073709551615", NULL, NULL, NULL},
    {"downtime-limit", "0", "2000000", NULL, "2000001",
     "an integer in the range of 0 to (2000 * 1000) ms"},
    {"multifd-channels", "1", "255", "0", NULL, "a value between 1 and 255"},
    {"xbzrle-cache-size", "4096", "9223372036854775808", "4095", "9223372036854775809",
     "a power of two no less than the target page size"},
    {"xbzrle-cache-size", "8192", "65536", "2048", "12288",
     "a power of two no less than the target page size"},
    {"max-cpu-throttle", "20", "99", "19", "100",
     "an integer in the range of cpu-throttle-initial to 99"},
    {"multifd-zlib-level", "0", "9", NULL, "10", "a value between 0 and 9"},
    {"multifd-zstd-level", "0", "20", NULL, "21", "a value between 0 and 20"},
};

static void test_ranges(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(ranges); i++) {
        const RangeCase *c = &ranges[i];
        g_autofree char *expected = g_strdup_printf("Option %s expects %s", c->name, c->phrase);

        migration_settings_reset();
        g_assert_null(set(c->name, c->low));
        g_assert_null(set(c->name, c->high));
        if (c->below) {
            g_autofree char *error = set(c->name, c->below);

            g_assert_cmpstr(error, ==, expected);
        }
        if (c->above) {
            g_autofree char *error = set(c->name, c->above);

            g_assert_cmpstr(error, ==, expected);
        }
    }
    migration_settings_reset();
}

static void test_failed_change_changes_nothing(void)
{
    g_autoptr(MigrationSettings) before = NULL, after = NULL;
    MigrationParameters params = {.has_downtime_limit = true,
                                  .downtime_limit = 7,
                                  .has_multifd_channels = true,
                                  .multifd_channels = 0};

    migration_settings_reset();
    before = migration_settings_get();
    g_assert_false(migration_settings_change_params(&params, NULL));
    after = migration_settings_get();
    g_assert_true(before == after);
    g_assert_cmpuint(migrate_downtime_limit(), ==, 300);
}

/* Switches all capabilities of a bit mask on and all others off; the error, which the caller frees. */
static char *set_caps(unsigned mask)
{
    MigrationCapabilityStatusList list[MIGRATION_CAPABILITY__MAX];
    MigrationCapabilityStatus values[MIGRATION_CAPABILITY__MAX];
    g_autoptr(GError) err = NULL;

    for (int i = 0; i < MIGRATION_CAPABILITY__MAX; i++) {
        values[i] = (MigrationCapabilityStatus){.capability = i, .state = mask >> i & 1};
        list[i].value = &values[i];
        list[i].next = i + 1 < MIGRATION_CAPABILITY__MAX ? &list[i + 1] : NULL;
    }
    return migration_settings_change_caps(list, true, &err) ? NULL : g_strdup(err->message);
}

#define CAP(name) (1u << MIGRATION_CAPABILITY_##name)

typedef struct CapsCase {
    unsigned mask;
    const char *error; /* NULL: goes together */
} CapsCase;

#define ZERO_COPY_ERROR "Zero copy only available for non-compressed non-TLS multifd migration"

static const CapsCase caps_cases[] = {
    {0, NULL},
    {CAP(XBZRLE) | CAP(AUTO_CONVERGE) | CAP(EVENTS) | CAP(RETURN_PATH) |
         CAP(PAUSE_BEFORE_SWITCHOVER) | CAP(LATE_BLOCK_ACTIVATE) | CAP(X_IGNORE_SHARED) |
         CAP(VALIDATE_UUID) | CAP(SWITCHOVER_ACK),
     NULL},
    {CAP(MULTIFD) | CAP(ZERO_COPY_SEND), NULL},
    {CAP(MULTIFD) | CAP(MAPPED_RAM), NULL},
    {CAP(XBZRLE) | CAP(MULTIFD), "Multifd is not compatible with xbzrle"},
    {CAP(ZERO_COPY_SEND), ZERO_COPY_ERROR},
    {CAP(ZERO_COPY_SEND) | CAP(MULTIFD) | CAP(XBZRLE), ZERO_COPY_ERROR},
    {CAP(MAPPED_RAM) | CAP(XBZRLE), "Mapped-ram migration is incompatible with xbzrle"},
    {CAP(SWITCHOVER_ACK), "Capability 'switchover-ack' requires capability 'return-path'"},
};

static void test_exclusions(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(caps_cases); i++) {
        g_autofree char *error = NULL;
        g_autoptr(MigrationSettings) settings = NULL;

        migration_settings_reset();
        error = set_caps(caps_cases[i].mask);
        g_assert_cmpstr(error, ==, caps_cases[i].error);
        settings = migration_settings_get();
        for (int cap = 0; cap < MIGRATION_CAPABILITY__MAX; cap++) {
            g_assert_cmpint(settings->caps[cap], ==, !error && (caps_cases[i].mask >> cap & 1));
        }
    }
}

/* Parameters that a capability excludes are refused as well, in either order. */
static void test_exclusions_of_parameters(void)
{
    static const char *const bad[][2] = {
        {"multifd-compression", "zlib"}, {"multifd-compression", "zstd"}, {"tls-creds", "t"}};

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *first = NULL, *second = NULL;

        migration_settings_reset();
        g_assert_null(set_caps(CAP(MULTIFD) | CAP(ZERO_COPY_SEND)));
        first = set(bad[i][0], bad[i][1]);
        g_assert_cmpstr(first, ==, ZERO_COPY_ERROR);

        migration_settings_reset();
        g_assert_null(set(bad[i][0], bad[i][1]));
        second = set_caps(CAP(MULTIFD) | CAP(ZERO_COPY_SEND));
        g_assert_cmpstr(second, ==, ZERO_COPY_ERROR);
    }
    migration_settings_reset();
}

static bool busy(void)
{
    return true;
}

static void test_busy(void)
{
    g_autofree char *error = NULL;

    migration_settings_reset();
    migration_settings_set_busy_func(busy);
    error = set_caps(CAP(EVENTS));
    g_assert_cmpstr(error, ==, "There's a migration process in progress");
    g_assert_null(set("downtime-limit", "5"));
    migration_settings_reset();
}

/* A migration keeps what it began with; the live values follow. */
static void test_sets_do_not_change(void)
{
    g_autoptr(MigrationSettings) old = NULL;

    migration_settings_reset();
    g_assert_null(set("tls-hostname", "first"));
    old = migration_settings_get();
    g_assert_null(set("tls-hostname", "second"));
    g_assert_null(set("max-bandwidth", "42"));
    g_assert_null(set("cpu-throttle-initial", "33"));
    g_assert_null(set_caps(CAP(EVENTS)));
    g_assert_cmpstr(old->params.tls_hostname, ==, "first");
    g_assert_false(migrate_events(old));
    g_assert_cmpuint(old->params.max_bandwidth, ==, 128 << 20);
    g_assert_cmpuint(migrate_max_bandwidth(), ==, 42);
    g_assert_cmpuint(migrate_throttle().initial, ==, 33);
    migration_settings_reset();
}

static void test_null_resets_strings(void)
{
    StrOrNull none = {.type = json_type_null};
    MigrationParameters params = {.tls_creds = &none};
    g_autoptr(MigrationSettings) settings = NULL;

    migration_settings_reset();
    g_assert_null(set("tls-creds", "x"));
    g_assert_true(migration_settings_change_params(&params, NULL));
    settings = migration_settings_get();
    g_assert_false(migrate_tls(settings));
}

typedef struct GlobalCase {
    const char *name, *value;
    bool ok;
} GlobalCase;

static const GlobalCase globals[] = {
    {"x-multifd", "on", true},
    {"multifd", "on", false},
    {"mapped-ram", "on", true},
    {"x-mapped-ram", "on", false},
    {"x-ignore-shared", "on", true},
    {"x-x-ignore-shared", "on", false},
    {"x-events", "maybe", false},
    {"multifd-channels", "4", true},
    {"x-multifd-channels", "4", false},
    {"multifd-channels", "300", false},
    {"x-max-bandwidth", "1M", true},
    {"max-bandwidth", "1M", false},
    {"multifd-compression", "zstd", true},
    {"multifd-compression", "lz4", false},
    {"tls-creds", "t", true},
    {"zero-page-detection", "multifd", true},
    {"send-configuration", "off", true},
    {"send-section-footer", "off", true},
    {"store-global-state", "off", true},
    {"store-global-state", "1", false},
    {"send-switchover-start", "on", true},
    {"multifd-flush-after-each-section", "off", true},
    {"switchover-ack-legacy", "off", true},
    {"multifd-clean-tls-termination", "on", true},
    {"x-preempt-pre-7-2", "on", true},
    {"x-preempt-pre-7-2", "7", false},
    {"x-clear-bitmap-shift", "10", true},
    {"x-clear-bitmap-shift", "1000", false},
    {"", "on", false},
    {"help", "on", false},
};

static void test_globals(void)
{
    g_autoptr(MigrationSettings) settings = NULL;

    migration_settings_reset();
    for (size_t i = 0; i < G_N_ELEMENTS(globals); i++) {
        g_autoptr(GError) err = NULL;
        bool ok = migration_settings_set_global(globals[i].name, globals[i].value, &err);

        g_test_message("%s=%s: %s", globals[i].name, globals[i].value, err ? err->message : "ok");
        g_assert_cmpint(ok, ==, globals[i].ok);
        g_assert_cmpint(!err, ==, ok);
    }
    settings = migration_settings_get();
    g_assert_true(migrate_multifd(settings));
    g_assert_true(migrate_mapped_ram(settings));
    g_assert_cmpuint(settings->params.max_bandwidth, ==, 1 << 20);
    g_assert_cmpuint(migrate_max_bandwidth(), ==, 1 << 20);
    g_assert_false(settings->compat.send_configuration);
    g_assert_true(settings->compat.send_switchover_start);
    g_assert_false(settings->compat.multifd_flush_after_each_section);
    g_assert_false(settings->compat.switchover_ack_legacy);
    g_assert_cmpuint(settings->compat.clear_bitmap_shift, ==, 10);
    g_assert_true(migration_settings_check_globals(NULL));
    g_assert_true(migration_settings_set_global("x-xbzrle", "on", NULL));
    g_assert_false(migration_settings_check_globals(NULL));
    migration_settings_reset();
}

/* What a stream looks like by default must be what QEMU 7.2 loads. */
static void test_defaults_of_the_wire(void)
{
    g_autoptr(MigrationSettings) settings = NULL;

    migration_settings_reset();
    settings = migration_settings_get();
    g_assert_false(settings->compat.send_switchover_start);
    g_assert_true(settings->compat.multifd_flush_after_each_section);
    g_assert_cmpint(migrate_zero_page_detection(settings), ==, ZERO_PAGE_DETECTION_LEGACY);
}

static void test_blockers(void)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(GPtrArray) reasons = NULL;
    MigrationBlocker *first = migrate_add_blocker("first", NULL),
                     *second = migrate_add_blocker("second", NULL);

    reasons = migrate_blocker_reasons();
    g_assert_cmpuint(reasons->len, ==, 2);
    g_assert_cmpstr(reasons->pdata[0], ==, "first");
    g_assert_false(migrate_check_blockers(&err));
    g_assert_cmpstr(err->message, ==, "first");
    migrate_del_blocker(first);
    migrate_del_blocker(second);
    migrate_del_blocker(NULL);
    g_assert_true(migrate_check_blockers(NULL));

    migrate_set_only_migratable(true);
    g_clear_error(&err);
    g_assert_null(migrate_add_blocker("third", &err));
    g_assert_nonnull(strstr(err->message, "--only-migratable"));
    g_assert_nonnull(strstr(err->message, "third"));
    migrate_set_only_migratable(false);
    migrate_set_blocker_busy_func(busy);
    g_assert_null(migrate_add_blocker("fourth", NULL));
    migrate_set_blocker_busy_func(NULL);
    g_assert_true(migrate_check_blockers(NULL));
}

/* Barriers at each EOS, SWITCHOVER_START, acknowledgements and the end of TLS as that version has them. */
static void check_version(unsigned major, unsigned minor, bool flush, bool start, bool ack,
                          bool tls)
{
    g_autoptr(MigrationSettings) settings = NULL;

    migration_settings_follow_machine(major, minor);
    settings = migration_settings_get();
    g_assert_cmpint(settings->compat.multifd_flush_after_each_section, ==, flush);
    g_assert_cmpint(settings->compat.send_switchover_start, ==, start);
    g_assert_cmpint(settings->compat.switchover_ack_legacy, ==, ack);
    g_assert_cmpint(settings->compat.multifd_clean_tls_termination, ==, tls);
}

static void test_the_wire_is_that_of_the_machines_version_unless_the_user_says(void)
{
    migration_settings_reset();
    check_version(7, 2, true, false, true, false);
    check_version(8, 0, true, false, true, false);
    check_version(8, 1, false, false, true, false);
    check_version(9, 2, false, false, true, false);
    check_version(10, 0, false, true, true, true);
    check_version(11, 1, false, true, false, true);
    g_assert_true(migration_settings_set_global("multifd-flush-after-each-section", "on", NULL));
    check_version(11, 1, true, true, false, true);
    migration_settings_reset();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migration-options/ranges", test_ranges);
    g_test_add_func("/migration-options/failed-change-changes-nothing",
                    test_failed_change_changes_nothing);
    g_test_add_func("/migration-options/exclusions", test_exclusions);
    g_test_add_func("/migration-options/exclusions-of-parameters", test_exclusions_of_parameters);
    g_test_add_func("/migration-options/busy", test_busy);
    g_test_add_func("/migration-options/sets-do-not-change", test_sets_do_not_change);
    g_test_add_func("/migration-options/null-resets-strings", test_null_resets_strings);
    g_test_add_func("/migration-options/globals", test_globals);
    g_test_add_func("/migration-options/defaults-of-the-wire", test_defaults_of_the_wire);
    g_test_add_func("/migration-options/version",
                    test_the_wire_is_that_of_the_machines_version_unless_the_user_says);
    g_test_add_func("/migration-options/blockers", test_blockers);
    return g_test_run();
}
