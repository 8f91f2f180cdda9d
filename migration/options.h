/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The settings of migrations: capabilities, parameters and compatibility switches.
 *
 * There is one present set, which clients change with migrate-set-capabilities and migrate-set-parameters and
 * the command line with -global migration.NAME=VALUE. A change makes a new set; a set itself never changes. So
 * a migration keeps a reference to the one it began with, and reads it in any thread without a lock. A few
 * values take effect in a running migration; those are read through the functions that take no set (see "live
 * values").
 *
 * Defaults stand in one table, options.c. The ones that shape the stream are such that QEMU 7.2, 10.0
 * and 11.1 all load what a default migration sends.
 */
#ifndef FERRY_MIGRATION_OPTIONS_H
#define FERRY_MIGRATION_OPTIONS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "qapi/qapi-types-migration.h"

/* Values of MigrationParameters; sizes in bytes, bandwidths in bytes a second, times in ms. */
typedef struct MigrationParams {
    uint64_t announce_initial, announce_max, announce_rounds, announce_step;
    uint8_t throttle_trigger_threshold;                                     /* percent */
    uint8_t cpu_throttle_initial, cpu_throttle_increment, max_cpu_throttle; /* percent */
    bool cpu_throttle_tailslow;
    char *tls_creds, *tls_hostname, *tls_authz; /* ids and a host; "": none; never NULL */
    uint64_t max_bandwidth;                     /* 0: no limit */
    uint64_t avail_switchover_bandwidth;        /* 0: what was measured */
    uint64_t downtime_limit;
    uint8_t multifd_channels;
    MultiFDCompression multifd_compression;
    uint8_t multifd_zlib_level, multifd_zstd_level;
    uint64_t xbzrle_cache_size; /* a power of two */
    ZeroPageDetection zero_page_detection;
    bool direct_io;
} MigrationParams;

/* What differs between versions of QEMU on the wire, and how: states.md of machine types. */
typedef struct MigrationCompat {
    bool send_configuration;    /* the configuration record: sent, and expected when loading */
    bool send_section_footer;   /* footers: sent, and expected when loading */
    bool store_global_state;    /* the section globalstate is sent */
    bool send_switchover_start; /* the command SWITCHOVER_START is sent; 9.2 and older die of it */
    bool multifd_flush_after_each_section; /* barriers at each EOS, as up to 8.0; off: at FLUSH */
    bool
        switchover_ack_legacy; /* a destination always acknowledges, as up to 11.0; off: if asked */
    bool multifd_clean_tls_termination; /* a channel that ends without close_notify is an error */
    uint8_t clear_bitmap_shift;         /* the dirty log is cleared in chunks of 2^this pages */
} MigrationCompat;

typedef struct MigrationSettings {
    /* Constant as soon as code outside of options.c sees the set. */
    bool caps[MIGRATION_CAPABILITY__MAX];
    MigrationParams params;
    MigrationCompat compat;
    int refcount; /* atomic */
} MigrationSettings;

/* A reference to the present set. Any thread. */
MigrationSettings *migration_settings_get(void) G_GNUC_WARN_UNUSED_RESULT;
/* Any thread. */
MigrationSettings *migration_settings_ref(MigrationSettings *settings);
void migration_settings_unref(MigrationSettings *settings); /* NULL is allowed */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MigrationSettings, migration_settings_unref)

/*
 * What -global migration.NAME=VALUE does. Names are stock's: "x-multifd", "multifd-channels",
 * "send-configuration". Start-up; combinations are checked by migration_settings_check_globals().
 */
bool migration_settings_set_global(const char *name, const char *value,
                                   GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * What a machine of that version does on the wire, where the user has not said otherwise by -global. A
 * machine without a version keeps the defaults, which every version from 7.2 on understands. Start-up,
 * after the last -global.
 */
void migration_settings_follow_machine(unsigned major, unsigned minor);
/* After the last -global: whether the capabilities and parameters go together. */
bool migration_settings_check_globals(GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/*
 * Registered by the engine: true while capabilities must not change, because a migration is under way
 * that goes by them. Without it they always may. Called in the main thread.
 */
void migration_settings_set_busy_func(bool (*busy)(void));

/*
 * Changes several values or, with an error, none. `check_busy` is as migrate-set-capabilities does it.
 * Main thread.
 */
bool migration_settings_change_caps(const MigrationCapabilityStatusList *list, bool check_busy,
                                    GError **errp) G_GNUC_WARN_UNUSED_RESULT;
bool migration_settings_change_params(const MigrationParameters *params,
                                      GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The other way round: every member is there. The caller frees. */
MigrationParameters *migration_settings_to_parameters(const MigrationSettings *settings);
/* The defaults again and no busy function: for tests. */
void migration_settings_reset(void);

/* --- one set's values; any thread --- */

static inline bool migrate_cap(const MigrationSettings *s, MigrationCapability cap)
{
    return s->caps[cap];
}

#define MIGRATE_CAP(name, CAP)                                    \
    static inline bool migrate_##name(const MigrationSettings *s) \
    {                                                             \
        return migrate_cap(s, MIGRATION_CAPABILITY_##CAP);        \
    }
MIGRATE_CAP(xbzrle, XBZRLE)
MIGRATE_CAP(auto_converge, AUTO_CONVERGE)
MIGRATE_CAP(events, EVENTS)
MIGRATE_CAP(return_path, RETURN_PATH)
MIGRATE_CAP(pause_before_switchover, PAUSE_BEFORE_SWITCHOVER)
MIGRATE_CAP(multifd, MULTIFD)
MIGRATE_CAP(late_block_activate, LATE_BLOCK_ACTIVATE)
MIGRATE_CAP(ignore_shared, X_IGNORE_SHARED)
MIGRATE_CAP(validate_uuid, VALIDATE_UUID)
MIGRATE_CAP(zero_copy_send, ZERO_COPY_SEND)
MIGRATE_CAP(switchover_ack, SWITCHOVER_ACK)
MIGRATE_CAP(mapped_ram, MAPPED_RAM)
#undef MIGRATE_CAP

static inline bool migrate_tls(const MigrationSettings *s)
{
    return s->params.tls_creds[0];
}

static inline unsigned migrate_multifd_channels(const MigrationSettings *s)
{
    return s->params.multifd_channels;
}

static inline MultiFDCompression migrate_multifd_compression(const MigrationSettings *s)
{
    return s->params.multifd_compression;
}

static inline ZeroPageDetection migrate_zero_page_detection(const MigrationSettings *s)
{
    return s->params.zero_page_detection;
}

static inline bool migrate_direct_io(const MigrationSettings *s)
{
    return s->params.direct_io;
}

/* --- live values: what is set now, also in the middle of a migration; any thread --- */

uint64_t migrate_max_bandwidth(void);              /* bytes a second; 0: no limit */
uint64_t migrate_avail_switchover_bandwidth(void); /* bytes a second; 0: what was measured */
uint64_t migrate_downtime_limit(void);             /* ms */
uint64_t migrate_xbzrle_cache_size(void);          /* bytes */

typedef struct MigrationThrottle {
    uint8_t trigger_threshold, initial, increment, max; /* percent */
    bool tailslow;
} MigrationThrottle;
MigrationThrottle migrate_throttle(void);

#endif
