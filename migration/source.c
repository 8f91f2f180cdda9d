/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The source's thread: the whole life of a migration from the first byte to the verdict.
 *
 * The stages of send_guest() below are in the order of the stream. Any of them may fail, and a client may
 * cancel: then the main loop (source-guest.c) gives back what was taken from the guest. The exception is
 * a guest that may already run elsewhere. Once the end of the stream has left, it stays stopped here
 * until the destination says that it failed.
 */
#include <errno.h>
#include "accel/runstate.h"
#include "migration/migration.h"
#include "migration/multifd.h"
#include "migration/return-path.h"
#include "migration/savevm.h"
#include "migration/source-guest.h"
#include "trace/trace-migration.h"
#include "util/bql.h"
#include "util/error.h"
#include "util/timer.h"

/* Longest time from one look at the log to the next while auto-converge is on. */
#define CONVERGE_SYNC_NS (2 * NANOSECONDS_PER_SECOND)

static uint64_t now_ns(void)
{
    return (uint64_t)qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

/* --- the stages --- */

static int send_beginning(MigrationState *s, SaveVMState **sv, GError **errp)
{
    int ret;

    *sv = savevm_prepare(s->settings, errp);
    if (!*sv) {
        return -EIO;
    }
    ret = savevm_send_header(s->to_dst, s->settings, errp);
    if (ret < 0) {
        return ret;
    }
    if (migrate_return_path(s->settings)) {
        s->return_path = return_path_open(s, errp);
        if (!s->return_path) {
            return -EINVAL;
        }
        savevm_send_command(s->to_dst, MIG_CMD_OPEN_RETURN_PATH, NULL, 0);
        savevm_send_ping(s->to_dst, 1);
    }
    /* The destination tells channels by their order, so this one speaks before others connect. */
    ret = qemu_fflush(s->to_dst);
    if (ret < 0) {
        return qemu_file_get_error_obj(s->to_dst, errp);
    }
    /* the channels of a file are ram-mapped-io.c's */
    if (migrate_multifd(s->settings) && !migrate_mapped_ram(s->settings) &&
        !multifd_send_setup(s, errp)) {
        return -EIO;
    }
    ret = savevm_setup(*sv, s->to_dst, errp);
    if (ret < 0) {
        return ret;
    }
    ret = qemu_fflush(s->to_dst);
    return ret < 0 ? qemu_file_get_error_obj(s->to_dst, errp) : 0;
}

static bool heard(MigrationState *s, const bool *flag)
{
    bool is_set;

    g_mutex_lock(&s->lock);
    is_set = *flag;
    g_mutex_unlock(&s->lock);
    return is_set;
}

static bool guest_runs(void)
{
    bool runs;

    bql_lock();
    runs = runstate_is_running();
    bql_unlock();
    return runs;
}

/*
 * What has to happen (a flag under s->lock) before the guest may leave; NULL: nothing.
 *
 * Disks are written back once while the guest runs, so that its pause holds only what is new.
 *
 * A destination that refuses the guest before the return path is open, because its machine differs
 * for one, can only hang up. That does no harm as long as the guest is here. With switchover-ack
 * the destination has a say in when a running guest stops. By the rules of 11.1 it speaks for
 * devices that delay the switchover, and there are no such devices.
 */
static const bool *switchover_awaits(MigrationState *s)
{
    if (s->return_path && !heard(s, &s->pong_heard)) {
        return &s->pong_heard;
    }
    if (!s->flush_ahead) {
        s->flush_ahead = flush_ahead_start(s);
    }
    if (!heard(s, &s->flush_ahead->done)) {
        return &s->flush_ahead->done;
    }
    if (migrate_switchover_ack(s->settings) && s->settings->compat.switchover_ack_legacy &&
        !heard(s, &s->switchover_acked) && guest_runs()) {
        return &s->switchover_acked;
    }
    return NULL;
}

/*
 * Bytes that are left. With auto-converge the log is also read now and then within a pass. Its bits
 * decide by how much the guest is slowed down, and a pass of a large guest takes minutes.
 */
static uint64_t pending_bytes(MigrationState *s, SaveVMState *sv, uint64_t *synced_ns)
{
    uint64_t now = now_ns();
    bool due = migrate_auto_converge(s->settings) && now - *synced_ns >= CONVERGE_SYNC_NS;

    if (due) {
        *synced_ns = now;
    }
    return savevm_pending(sv, due);
}

/* Until the next window, unless the flag is set first. A channel that is idle may have broken meanwhile. */
static int wait_a_window(MigrationState *s, const bool *awaited, GError **errp)
{
    migration_rate_wait(s, awaited);
    migration_rate_update(s);
    return s->multifd ? multifd_send_check(s, errp) : 0;
}

/* Sends what changes until the rest fits into the downtime. */
static int send_while_it_runs(MigrationState *s, SaveVMState *sv, GError **errp)
{
    uint64_t synced_ns = now_ns();

    migration_rate_start(s);
    while (!migration_should_stop(s)) {
        uint64_t limit = migration_downtime_bytes(s);
        uint64_t pending = pending_bytes(s, sv, &synced_ns);
        const bool *awaited = NULL;
        int ret;

        if (pending <= limit) {
            pending = savevm_pending(sv, true);
            synced_ns = now_ns();
            awaited = switchover_awaits(s);
            if (pending <= limit && !awaited) {
                trace_migration_switchover(pending, limit);
                return s->multifd ? multifd_send_check(s, errp) : 0;
            }
        }
        /* Nothing to send, and the guest may not leave yet; or the first answer is on its way. */
        if (pending == 0 || awaited == &s->pong_heard) {
            ret = wait_a_window(s, awaited, errp);
            if (ret < 0) {
                return ret;
            }
            continue;
        }
        ret = savevm_iterate(sv, s->to_dst, errp);
        if (ret < 0 || (ret = qemu_fflush(s->to_dst)) < 0) {
            return ret;
        }
        migration_rate_update(s);
        /* While the guest may not leave, the log is read once a window. */
        if (awaited || migration_rate_exceeded(s)) {
            ret = wait_a_window(s, awaited, errp);
            if (ret < 0) {
                return ret;
            }
        }
    }
    return -ECANCELED;
}

/* With pause-before-switchover a client finishes something before the guest leaves. */
static int enter_device_state(MigrationState *s)
{
    MigrationStatus from = MIGRATION_STATUS_ACTIVE;

    if (migrate_pause_before_switchover(s->settings)) {
        from = MIGRATION_STATUS_PRE_SWITCHOVER;
        if (!migrate_set_state(&s->status, s->settings, MIGRATION_STATUS_ACTIVE, from)) {
            return -ECANCELED;
        }
        g_mutex_lock(&s->lock);
        while (!s->continue_wanted && !s->cancel_wanted && !s->error) {
            g_cond_wait(&s->changed, &s->lock);
        }
        g_mutex_unlock(&s->lock);
        if (migration_should_stop(s)) {
            return -ECANCELED;
        }
    }
    return migrate_set_state(&s->status, s->settings, from, MIGRATION_STATUS_DEVICE) ? 0
                                                                                     : -ECANCELED;
}

/* Whether the guest may start elsewhere when the stream ends: programs and pipes may lead there. */
static bool leaves_for_a_peer(MigrationState *s)
{
    return !qio_channel_has_feature(qemu_file_get_ioc(s->to_dst), QIO_CHANNEL_FEATURE_SEEKABLE);
}

/* The devices, and the end of the stream. */
static int send_devices(MigrationState *s, GError **errp)
{
    size_t eof = 0;
    g_autoptr(GBytes) devices = savevm_save_devices(s->settings, &eof, errp);
    uint64_t end;
    int ret;

    if (!devices) {
        return -EIO;
    }
    ret = qemu_fflush(s->to_dst);
    if (ret < 0 || migration_should_stop(s)) {
        return -EIO;
    }
    end = qemu_file_transferred(s->to_dst) + eof;
    __atomic_store_n(&s->handed_over, leaves_for_a_peer(s), __ATOMIC_SEQ_CST);
    qemu_put_buffer(s->to_dst, g_bytes_get_data(devices, NULL), g_bytes_get_size(devices));
    ret = qemu_fflush(s->to_dst);
    if (ret < 0 && qemu_file_moved(s->to_dst) <= end) {
        __atomic_store_n(&s->handed_over, false, __ATOMIC_SEQ_CST);
    }
    return ret;
}

/* The guest stops, and its disks have no owner until the destination takes them. */
static int stop_and_let_go(MigrationState *s, GError **errp)
{
    int ret = source_guest_stop(s, errp);
    uint64_t stopped = now_ns() - s->downtime_start_ns, since;

    if (ret == 0) {
        ret = enter_device_state(s); /* how long a client thinks there is not counted as a phase */
    }
    since = now_ns();
    if (ret == 0) {
        ret = source_guest_give_disks(s, errp);
    }
    if (ret == 0 && leaves_for_a_peer(s)) {
        source_guest_watch_peer(s);
    }
    stat64_set(&s->phase_ns[MIGRATION_PHASE_STOP], stopped + now_ns() - since);
    return ret;
}

static int send_the_rest(MigrationState *s, SaveVMState *sv, GError **errp)
{
    int ret = stop_and_let_go(s, errp);
    uint64_t since;

    if (ret == 0 && s->settings->compat.send_switchover_start) {
        savevm_send_command(s->to_dst, MIG_CMD_SWITCHOVER_START, NULL, 0);
    }
    if (ret == 0) {
        ret = savevm_complete_live(sv, s->to_dst, false, errp); /* RAM notes its own two phases */
    }
    since = now_ns();
    if (ret == 0) {
        ret = send_devices(s, errp);
        migration_end_phase(s, MIGRATION_PHASE_DEVICES, &since);
    }
    return ret;
}

/*
 * What a file or a program says at its end, and the destination after it has loaded. What the
 * destination says counts more than @ret, the result of sending. It may answer the end of the
 * stream, and hang up, before the description behind that end has left.
 */
static int hear_the_verdict(MigrationState *s, int ret, GError **errp)
{
    QIOChannel *ioc = qemu_file_get_ioc(s->to_dst);
    uint64_t since = now_ns();

    if (s->return_path && s->handed_over) {
        if (!return_path_wait(s->return_path)) {
            if (return_path_refused(s->return_path)) {
                __atomic_store_n(&s->handed_over, false, __ATOMIC_SEQ_CST);
            }
            return -EIO;
        }
        migration_end_phase(s, MIGRATION_PHASE_PEER_LOAD, &since);
        return 0;
    }
    if (ret < 0) {
        return ret;
    }
    if (qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_SHUTDOWN)) {
        return 0;
    }
    return migration_connector_file_remains(s->connector, ioc, errp) ? qio_channel_close(ioc, errp)
                                                                     : -ENOENT;
}

static int send_guest(MigrationState *s, SaveVMState **sv, GError **errp)
{
    int ret = send_beginning(s, sv, errp);

    if (ret < 0) {
        return ret;
    }
    stat64_set(&s->setup_ns, now_ns() - s->start_ns);
    if (!migrate_set_state(&s->status, s->settings, MIGRATION_STATUS_SETUP,
                           MIGRATION_STATUS_ACTIVE)) {
        return -ECANCELED;
    }
    ret = send_while_it_runs(s, *sv, errp);
    if (ret == 0) {
        ret = send_the_rest(s, *sv, errp);
    }
    if (ret == 0 && s->multifd) {
        multifd_send_cleanup(s); /* in order: what the channels have to say at their end is said */
    }
    return hear_the_verdict(s, ret, errp);
}

static void close_channels(MigrationState *s)
{
    QEMUFile *f = s->to_dst;

    if (s->multifd) {
        multifd_send_shutdown(s);
        multifd_send_cleanup(s);
    }
    return_path_free(g_steal_pointer(&s->return_path));
    g_mutex_lock(&s->lock);
    s->bytes_sent = qemu_file_transferred(f);
    s->to_dst = NULL;
    g_mutex_unlock(&s->lock);
    (void)qemu_fclose(f); /* its error is known by now */
}

/* Nothing leaves any more, so whether the destination may have the guest is settled. */
static void cut_channels(MigrationState *s)
{
    qemu_file_shutdown(s->to_dst);
    if (s->multifd) {
        multifd_send_shutdown(s);
    }
}

static void *source_thread(void *opaque)
{
    MigrationState *s = opaque;
    SaveVMState *sv = NULL;
    GError *err = NULL;
    int ret = send_guest(s, &sv, &err);

    stat64_set(&s->verdict_ns, now_ns());
    if (ret < 0 && !err && !migration_should_stop(s)) {
        /* the file has the reason of what failed above it */
        if (qemu_file_get_error_obj(s->to_dst, &err) == 0) {
            error_setg_errno(&err, -ret, "the migration could not go on");
        }
    }
    if (err) {
        migrate_fail(s, err);
    }
    if (ret < 0) {
        cut_channels(s);
        /* The guest does not wait until threads have ended and the log is off. */
        source_guest_give_back(s);
    }
    close_channels(s);
    savevm_cleanup(sv);
    flush_ahead_unref(g_steal_pointer(&s->flush_ahead));
    source_guest_settle(s);
    return NULL;
}

void migration_source_start(MigrationState *s)
{
    s->thread = g_thread_new("mig/src/main", source_thread, s);
}
