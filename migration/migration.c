/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The source: its life, and the commands that start, continue and cancel a migration. */
#include "migration/migration.h"

#include "accel/vm-stop.h"
#include "block/graph/activate.h"
#include "hw/core/device-add.h"
#include "migration/multifd.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "qapi/qapi-commands-migration.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/migration-blocker.h"
#include "util/timer.h"
#include "util/yank.h"

static MigrationState *current;

MigrationState *migrate_get_current(void)
{
    return current;
}

static bool source_is_busy(void)
{
    return migration_status_is_running(migrate_get_status(current));
}

/* What travels is listed when a migration begins, and what is loaded must not change. */
static bool check_plug(const char *command, GError **errp)
{
    if (source_is_busy()) {
        error_setg(errp, "%s not allowed while migrating", command);
        return false;
    }
    return migration_incoming_check_not_loading(errp);
}

void migration_init(void)
{
    current = g_new0(MigrationState, 1);
    g_mutex_init(&current->lock);
    g_cond_init(&current->changed);
    migration_settings_set_busy_func(source_is_busy);
    migrate_set_blocker_busy_func(source_is_busy);
    bdrv_set_activation_check(vm_check_not_taken);
    device_set_plug_check(check_plug);
    ram_mig_init();
    global_state_init();
}

/* --- errors and the wish to stop, from any thread --- */

bool migration_should_stop(MigrationState *s)
{
    bool stop;

    g_mutex_lock(&s->lock);
    stop = s->error || s->cancel_wanted;
    g_mutex_unlock(&s->lock);
    return stop;
}

void migrate_set_error(MigrationState *s, GError *err)
{
    g_mutex_lock(&s->lock);
    if (s->error || s->cancel_wanted) {
        g_error_free(err); /* what follows from the first one, or from being cancelled */
    } else {
        s->error = err;
    }
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
}

/* Reads from and writes to the channels return with an error. */
static void shut_channels_down(MigrationState *s)
{
    g_mutex_lock(&s->lock);
    if (s->to_dst) {
        qemu_file_shutdown(s->to_dst);
    }
    if (s->multifd) {
        multifd_send_shutdown(s);
    }
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
}

void migrate_fail(MigrationState *s, GError *err)
{
    migrate_set_error(s, err);
    if (s->connector) {
        migration_connector_cancel(s->connector); /* a channel may be in the making */
    }
    shut_channels_down(s);
}

uint64_t migration_transferred_bytes(MigrationState *s)
{
    uint64_t bytes;

    g_mutex_lock(&s->lock);
    bytes = s->to_dst ? qemu_file_transferred(s->to_dst) : s->bytes_sent;
    g_mutex_unlock(&s->lock);
    return bytes + stat64_get(&s->counters.multifd_bytes) + stat64_get(&s->counters.mapped_bytes);
}

void migration_end_phase(MigrationState *s, MigrationPhase phase, uint64_t *since)
{
    uint64_t now = (uint64_t)qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    stat64_set(&s->phase_ns[phase], now - *since);
    *since = now;
}

/* --- yank --- */

static void source_yank(void *opaque)
{
    MigrationState *s = opaque;
    GError *err = NULL;

    error_setg(&err, "the connection was cut by yank");
    migration_connector_cancel(s->connector);
    migrate_fail(s, err);
}

void migration_source_over(MigrationState *s)
{
    yank_unregister_function(s->yank, source_yank, s);
    yank_unregister_instance(g_steal_pointer(&s->yank));
    if (s->end_waiter) {
        aio_co_wake(g_steal_pointer(&s->end_waiter));
    }
}

/* --- start --- */

static void forget_last_migration(MigrationState *s)
{
    if (s->thread) {
        g_thread_join(g_steal_pointer(&s->thread)); /* it has nothing left to do */
    }
    migration_connector_unref(g_steal_pointer(&s->connector));
    g_mutex_lock(&migration_figures_lock);
    migration_settings_unref(g_steal_pointer(&s->settings));
    g_mutex_lock(&s->lock);
    g_clear_error(&s->error);
    g_mutex_unlock(&s->lock);
    s->cancel_wanted = s->continue_wanted = s->switchover_acked = s->pong_heard = false;
    s->vm_stopped = s->disks_inactive = s->handed_over = false;
    s->bytes_sent = 0;
    s->start_ns = s->setup_ns = s->end_ns = 0;
    s->verdict_ns = s->downtime_start_ns = s->downtime_ns = s->expected_downtime_ns = 0;
    s->mbps_1000 = s->pages_per_second = 0;
    memset(s->phase_ns, 0, sizeof(s->phase_ns));
    memset(&s->counters, 0, sizeof(s->counters));
    g_mutex_unlock(&migration_figures_lock);
}

/* The connection failed, or was cancelled: nothing was taken from the guest yet. */
static void connect_failed(MigrationState *s, GError *err)
{
    stat64_set(&s->end_ns, (uint64_t)qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
    if (migrate_get_status(s) == MIGRATION_STATUS_CANCELLING) {
        g_error_free(err);
        migrate_set_state(&s->status, s->settings, MIGRATION_STATUS_CANCELLING,
                          MIGRATION_STATUS_CANCELLED);
        migration_source_over(s);
        return;
    }
    error_report("migration failed: %s", err->message);
    migrate_set_error(s, err);
    migrate_set_state(&s->status, s->settings, MIGRATION_STATUS_SETUP, MIGRATION_STATUS_FAILING);
    migrate_set_state(&s->status, s->settings, MIGRATION_STATUS_FAILING, MIGRATION_STATUS_FAILED);
    migration_source_over(s);
}

static void coroutine_fn connect_co(void *opaque)
{
    MigrationState *s = opaque;
    GError *err = NULL;
    QIOChannel *ioc = migration_connector_co_connect(s->connector, &err);

    if (ioc && (migration_should_stop(s) || !qio_channel_set_blocking(ioc, true, &err))) {
        g_clear_pointer(&ioc, qio_channel_unref);
        if (!err) {
            error_setg(&err, "cancelled");
        }
    }
    if (!ioc) {
        connect_failed(s, err);
        return;
    }
    qio_channel_set_name(ioc, "migration-main-outgoing");
    g_mutex_lock(&s->lock);
    s->to_dst = qemu_file_new_output(ioc);
    g_mutex_unlock(&s->lock);
    qio_channel_unref(ioc);
    migration_source_start(s);
}

/* Run states without a guest that could leave, and why. */
static const char *const nothing_to_move[RUN_STATE__MAX] = {
    [RUN_STATE_INMIGRATE] = "Guest is waiting for an incoming migration",
    [RUN_STATE_POSTMIGRATE] = "Can't migrate the vm that was paused due to previous migration",
};

/* The source is free, there is a guest that nothing else has taken, and nothing keeps it here. */
static bool guest_can_leave(GError **errp)
{
    const char *why = source_is_busy() ? "There's a migration process in progress"
                                       : nothing_to_move[runstate_get()];

    if (qemu_shutdown_cause() != SHUTDOWN_CAUSE_NONE) {
        why = "The process is ending"; /* migrations have been told to end: this one would not be */
    } else if (!why && device_plug_under_way()) {
        why = "A device is being plugged; the guest can be migrated when device_add has returned";
    }
    if (why) {
        error_setg(errp, "%s", why);
        return false;
    }
    return vm_check_not_taken(errp) && migrate_check_blockers(errp);
}

bool coroutine_fn qmp_migrate(const MigrateArg *arg, GError **errp)
{
    MigrationState *s = current;
    g_autoptr(MigrationAddress) addr = NULL;
    g_autoptr(MigrationSettings) settings = NULL;
    g_autoptr(MigrationConnector) connector = NULL;
    Yankable *yank;

    if (arg->has_resume && arg->resume) {
        error_setg(errp, "Cannot resume if there is no paused migration");
        return false;
    }
    if (!guest_can_leave(errp)) {
        return false;
    }
    addr = migration_args_to_address(arg->uri, arg->has_channels, arg->channels, "migrate", errp);
    if (!addr) {
        return false;
    }
    settings = migration_settings_get();
    connector = migration_connector_new(addr, settings, errp);
    if (!connector) {
        return false;
    }
    yank = yank_register_instance(YANK_MIGRATION, "", errp);
    if (!yank) {
        return false;
    }
    forget_last_migration(s);
    s->yank = yank;
    g_mutex_lock(&migration_figures_lock);
    s->settings = g_steal_pointer(&settings);
    s->start_ns = (uint64_t)qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    g_mutex_unlock(&migration_figures_lock);
    s->connector = g_steal_pointer(&connector);
    yank_register_function(s->yank, source_yank, s);
    migrate_set_state(&s->status, s->settings, migrate_get_status(s), MIGRATION_STATUS_SETUP);
    /* The command is answered now; what becomes of it is in query-migrate and in events. */
    aio_co_schedule(qemu_get_aio_context(), qemu_coroutine_create(connect_co, s));
    return true;
}

/* --- continue, cancel --- */

bool coroutine_fn qmp_migrate_continue(const MigrateContinueArg *arg, GError **errp)
{
    MigrationState *s = current;
    MigrationStatus status = migrate_get_status(s);

    if (status != arg->state) {
        error_setg(errp, "Migration not in expected state: %s", MigrationStatus_str(status));
        return false;
    }
    if (status == MIGRATION_STATUS_PRE_SWITCHOVER) {
        g_mutex_lock(&s->lock);
        s->continue_wanted = true;
        g_cond_broadcast(&s->changed);
        g_mutex_unlock(&s->lock);
    }
    return true;
}

static void cancel(MigrationState *s)
{
    MigrationStatus status;

    do {
        status = migrate_get_status(s);
        if (!migration_status_may_become(status, MIGRATION_STATUS_CANCELLING)) {
            return; /* none, over, or ending anyway */
        }
    } while (!migrate_set_state(&s->status, s->settings, status, MIGRATION_STATUS_CANCELLING));
    g_mutex_lock(&s->lock);
    s->cancel_wanted = true;
    g_mutex_unlock(&s->lock);
    migration_connector_cancel(s->connector);
    shut_channels_down(s);
}

bool coroutine_fn qmp_migrate_cancel(GError **errp)
{
    cancel(current);
    return true;
}

void coroutine_fn migration_co_shutdown(void)
{
    MigrationState *s = current;

    cancel(s);
    if (source_is_busy()) {
        s->end_waiter = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    forget_last_migration(s);
}
