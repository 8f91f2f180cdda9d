/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The source's work in the main loop: the guest and its disks are taken, and given back or let go.
 *
 *   the thread                      the guest                          the disks
 *   flush_ahead_start()             runs                               ours, written back
 *   source_guest_stop()             taken: finish-migrate              ours, quiet, written back
 *   source_guest_give_disks()       taken                              inactive
 *   (last bytes leave)              handed over: may run elsewhere     inactive
 *   source_guest_give_back()        goes on here in the wished state   ours
 *     or, once handed over          postmigrate, `cont` takes it back  inactive
 *   source_guest_settle()           postmigrate, if all went well      inactive
 */
#include "migration/source-guest.h"

#include <errno.h>
#include "accel/vm-stop.h"
#include "block/block.h"
#include "block/graph/activate.h"
#include "util/aio.h"
#include "util/bql.h"
#include "util/error.h"
#include "util/timer.h"

#define REFUSAL                                                                               \
    "Migration is not finalized yet: the guest may leave at any moment; migrate_cancel ends " \
    "the migration"

typedef struct MainStep {
    MigrationState *s;
    GError *err;
} MainStep;

static uint64_t clock_ns(void)
{
    return (uint64_t)qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

static int in_main_loop(MigrationState *s, CoroutineEntry *entry, GError **errp)
{
    MainStep step = {.s = s};

    main_loop_run_co(entry, &step);
    if (step.err) {
        g_propagate_error(errp, step.err);
        return -EIO;
    }
    return 0;
}

/* --- flush ahead: what takes long and can be done while the guest runs --- */

void flush_ahead_unref(FlushAhead *flush)
{
    if (flush && __atomic_sub_fetch(&flush->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        g_free(flush);
    }
}

static void coroutine_fn flush_ahead_co(void *opaque)
{
    FlushAhead *flush = opaque;
    MigrationState *s = flush->s;
    GError *err = NULL;
    bool wanted;

    vm_co_await_changes(); /* a take waits for them as well, but with the guest stopped */
    (void)bdrv_co_flush_all(&err);
    wanted = __atomic_load_n(&flush->refs, __ATOMIC_ACQUIRE) > 1;
    if (err && wanted) {
        migrate_set_error(s, err);
    } else {
        g_clear_error(&err);
    }
    g_mutex_lock(&s->lock);
    flush->done = true;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
    flush_ahead_unref(flush);
}

FlushAhead *flush_ahead_start(MigrationState *s)
{
    FlushAhead *flush = g_new(FlushAhead, 1);

    *flush = (FlushAhead){.s = s, .refs = 2};
    aio_co_schedule(qemu_get_aio_context(), qemu_coroutine_create(flush_ahead_co, flush));
    return flush;
}

/* --- taking --- */

static void coroutine_fn stop_co(void *opaque)
{
    MainStep *step = opaque;
    MigrationState *s = step->s;

    if (migration_should_stop(s)) {
        error_setg(&step->err, "cancelled");
        return;
    }
    stat64_set(&s->downtime_start_ns, clock_ns());
    s->vm_stopped = vm_co_take(RUN_STATE_FINISH_MIGRATE, REFUSAL, &step->err);
    if (!s->vm_stopped) {
        return;
    }
    /* A job's target that hangs holds up the guest no longer than a command may. */
    (void)vm_co_quiesce(BDRV_DRAIN_COMMAND_NS, &step->err);
}

int source_guest_stop(MigrationState *s, GError **errp)
{
    return in_main_loop(s, stop_co, errp);
}

static void coroutine_fn give_disks_co(void *opaque)
{
    MainStep *step = opaque;

    step->s->disks_inactive = bdrv_co_inactivate_all(&step->err) == 0;
}

int source_guest_give_disks(MigrationState *s, GError **errp)
{
    return in_main_loop(s, give_disks_co, errp);
}

/* --- a peer that takes nothing --- */

/* Of the one source; the main loop's. */
static struct {
    QEMUTimer *timer; /* NULL: nothing is watched */
    uint64_t bytes;   /* that had been taken at the last look */
    unsigned silent_s;
} watch;

static uint64_t bytes_taken(MigrationState *s)
{
    uint64_t bytes;

    g_mutex_lock(&s->lock);
    bytes = s->to_dst ? qemu_file_moved(s->to_dst) : 0;
    g_mutex_unlock(&s->lock);
    return bytes + stat64_get(&s->counters.multifd_bytes);
}

static void peer_is_silent(MigrationState *s)
{
    GError *err = NULL;

    if (__atomic_load_n(&s->handed_over, __ATOMIC_SEQ_CST)) {
        warn_report("the destination has the whole guest and has said nothing for %d s; the guest "
                    "may run there. Look at the destination: if the guest is lost there, "
                    "migrate_cancel and then 'cont' take it back here",
                    MIGRATION_SILENCE_S);
        return;
    }
    error_setg(&err, "the destination took nothing for %d s while the guest was stopped",
               MIGRATION_SILENCE_S);
    migrate_fail(s, err);
}

static void watch_peer(void *opaque)
{
    MigrationState *s = opaque;
    uint64_t bytes = bytes_taken(s);

    watch.silent_s = bytes == watch.bytes ? watch.silent_s + 1 : 0;
    watch.bytes = bytes;
    if (watch.silent_s == MIGRATION_SILENCE_S) {
        peer_is_silent(s);
    }
    timer_mod_ns(watch.timer, (int64_t)clock_ns() + NANOSECONDS_PER_SECOND);
}

static void coroutine_fn watch_peer_co(void *opaque)
{
    MainStep *step = opaque;

    watch.timer = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME, watch_peer, step->s);
    watch.bytes = bytes_taken(step->s);
    watch.silent_s = 0;
    timer_mod_ns(watch.timer, (int64_t)clock_ns() + NANOSECONDS_PER_SECOND);
}

void source_guest_watch_peer(MigrationState *s)
{
    MainStep step = {.s = s};

    main_loop_run_co(watch_peer_co, &step);
}

static void stop_watching(void)
{
    timer_free(g_steal_pointer(&watch.timer));
}

/* --- giving back --- */

/* False: they stay where they are, which has been said. */
static bool coroutine_fn take_disks_back(MigrationState *s)
{
    GError *err = NULL;

    if (!s->disks_inactive || bdrv_co_activate_all(&err)) {
        s->disks_inactive = false;
        return true;
    }
    error_report(
        "the guest stays stopped, its disks could not be taken back: %s; 'cont' tries again",
        err->message);
    g_error_free(err);
    return false;
}

static void coroutine_fn give_back(MigrationState *s)
{
    MigrationStatus status = migrate_get_status(s);

    stop_watching();
    if (status != MIGRATION_STATUS_CANCELLING && status != MIGRATION_STATUS_FAILING) {
        /* A cancel that comes in between is the other one of the two. */
        migrate_set_state(&s->status, s->settings, status, MIGRATION_STATUS_FAILING);
    }
    if (!s->vm_stopped) {
        return;
    }
    if (s->handed_over) {
        warn_report("the guest stays stopped: the destination may have it; if it has not, 'cont' "
                    "takes it back");
        vm_settle(RUN_STATE_POSTMIGRATE);
    } else if (take_disks_back(s)) {
        vm_give_back();
    } else {
        vm_settle(RUN_STATE_PAUSED);
    }
    s->vm_stopped = false;
}

static void coroutine_fn give_back_co(void *opaque)
{
    MainStep *step = opaque;

    give_back(step->s);
}

void source_guest_give_back(MigrationState *s)
{
    MainStep step = {.s = s};

    main_loop_run_co(give_back_co, &step);
}

/* --- the final status --- */

/* False: it was cancelled just now. */
static bool complete(MigrationState *s)
{
    stat64_set(&s->end_ns, clock_ns());
    migration_rate_end(s);
    stat64_set(&s->downtime_ns, s->verdict_ns - s->downtime_start_ns);
    vm_settle(RUN_STATE_POSTMIGRATE);
    s->vm_stopped = false;
    return migrate_set_state(&s->status, s->settings, MIGRATION_STATUS_DEVICE,
                             MIGRATION_STATUS_COMPLETED);
}

static void coroutine_fn settle(MigrationState *s)
{
    bool ok = !migration_should_stop(s);

    stop_watching();
    if (ok && complete(s)) {
        return;
    }
    give_back(s);
    stat64_set(&s->end_ns, clock_ns());
    if (migrate_get_status(s) == MIGRATION_STATUS_CANCELLING) {
        migrate_set_state(&s->status, s->settings, MIGRATION_STATUS_CANCELLING,
                          MIGRATION_STATUS_CANCELLED);
        return;
    }
    error_report("migration failed: %s", s->error->message);
    migrate_set_state(&s->status, s->settings, MIGRATION_STATUS_FAILING, MIGRATION_STATUS_FAILED);
}

static void coroutine_fn settle_co(void *opaque)
{
    MainStep *step = opaque;

    settle(step->s);
    migration_source_over(step->s);
}

void source_guest_settle(MigrationState *s)
{
    MainStep step = {.s = s};

    main_loop_run_co(settle_co, &step);
}
