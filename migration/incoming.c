/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The destination: waits for the channels, loads the guest in a thread of its own, and starts it.
 *
 *   none -> setup     listen_at(): connections are waited for
 *   setup -> active   start_loading(): all channels are there, the thread begins
 *   active            the thread: loads; main loop: prepare_co() takes the disks;
 *                     the thread: tells the source; main loop: settle_co()
 *   -> completed      settle(): the guest is here
 *   -> failed         fail(): from setup or active; setup may follow when exit-on-error is off
 *
 * The source lets go of the guest when it hears SHUT 0. So that is said only when nothing but the start
 * is left to do here, and if it cannot be said the guest does not start. The thread says it, without the
 * big lock: a source that does not read holds up no monitor.
 *
 * What a thread waits for is a channel or another thread that waits for one. cut_channels() ends all of
 * these waits; yank and the end of the process use it. Objects of the load go after the thread has ended.
 */
#include <errno.h>
#include <string.h>
#include "accel/runstate.h"
#include "accel/vm-stop.h"
#include "block/graph/activate.h"
#include "io/hangup-watch.h"
#include "migration/migration.h"
#include "migration/multifd.h"
#include "migration/savevm.h"
#include "net/announce.h"
#include "qapi/qapi-commands-migration.h"
#include "util/aio.h"
#include "util/bql.h"
#include "util/error.h"
#include "util/timer.h"

/* After a channel has hung up: how often, and how long, the other connections are looked at. */
#define LOOK_AGAIN_NS (20 * SCALE_MS)
#define LOOK_LIMIT_NS (2 * NANOSECONDS_PER_SECOND)

static MigrationIncomingState *incoming;

MigrationIncomingState *migration_incoming_get_current(void)
{
    return __atomic_load_n(&incoming, __ATOMIC_ACQUIRE);
}

static MigrationStatus incoming_status(MigrationIncomingState *mis)
{
    return (MigrationStatus)__atomic_load_n(&mis->status, __ATOMIC_ACQUIRE);
}

bool migration_incoming_check_not_loading(GError **errp)
{
    if (incoming && incoming_status(incoming) == MIGRATION_STATUS_ACTIVE) {
        error_setg(errp, "The guest is being loaded: its state is what the source says");
        return false;
    }
    return true;
}

/* --- the end --- */

static void announce_arrival(MigrationIncomingState *mis)
{
    const MigrationParams *p = &mis->settings->params;
    AnnounceParameters params = {
        .initial = (int64_t)p->announce_initial,
        .max = (int64_t)p->announce_max,
        .rounds = (int64_t)p->announce_rounds,
        .step = (int64_t)p->announce_step,
    };
    GError *err = NULL;

    if (!announce_start(&params, &err)) {
        warn_report("the guest's new place could not be announced: %s", err->message);
        g_error_free(err);
    }
}

/* In which state the guest goes on: the one it had, unless it was told to wait here. */
static RunState state_after_arrival(void)
{
    RunState state = RUN_STATE_RUNNING;

    if (!global_state_arrived(&state)) {
        return runstate_get_autostart() ? RUN_STATE_RUNNING : RUN_STATE_PAUSED;
    }
    if (state == RUN_STATE_RUNNING || state == RUN_STATE_SUSPENDED) {
        return runstate_get_autostart() ? RUN_STATE_RUNNING : RUN_STATE_PAUSED;
    }
    return runstate_may_become(state) ? state : RUN_STATE_PAUSED;
}

/* Threads that read, send or wait at a barrier return with an error. Any thread. */
static void cut_channels(MigrationIncomingState *mis)
{
    g_mutex_lock(&mis->channels_lock);
    if (mis->from_src) {
        qemu_file_shutdown(mis->from_src);
    }
    if (mis->multifd) {
        multifd_recv_shutdown(mis);
    }
    g_mutex_unlock(&mis->channels_lock);
}

/* No thread sends or reads any more. */
static void close_main_channel(MigrationIncomingState *mis)
{
    QEMUFile *from_src;

    qio_hangup_watch_free(g_steal_pointer(&mis->hangup));
    (void)qemu_fclose(g_steal_pointer(&mis->to_src));
    mis->return_path_open = false;
    g_mutex_lock(&mis->channels_lock);
    from_src = g_steal_pointer(&mis->from_src);
    g_mutex_unlock(&mis->channels_lock);
    (void)qemu_fclose(from_src);
}

/* Other channels may follow one that has hung up; now it does not matter any more. */
static void forget_hangup(MigrationIncomingState *mis)
{
    timer_free(g_steal_pointer(&mis->lost_timer));
    g_clear_error(&mis->lost);
}

static void close_channels(MigrationIncomingState *mis)
{
    forget_hangup(mis);
    multifd_recv_free(mis);
    close_main_channel(mis);
    mis->oldest_extra = 0;
}

void migrate_incoming_set_error(MigrationIncomingState *mis, GError *err)
{
    g_mutex_lock(&mis->lock);
    if (mis->error) {
        g_error_free(err); /* a consequence of the first */
    } else {
        mis->error = err;
    }
    g_mutex_unlock(&mis->lock);
}

static void forget_error(MigrationIncomingState *mis)
{
    g_mutex_lock(&mis->lock);
    g_clear_error(&mis->error);
    g_mutex_unlock(&mis->lock);
}

/* Takes over err. Every failure says one line, unless a user has ended the process. */
static void fail(MigrationIncomingState *mis, GError *err)
{
    MigrationStatus status = incoming_status(mis);

    migration_listener_stop(mis->listener);
    migrate_incoming_set_error(mis, err);
    g_mutex_lock(&mis->lock);
    g_prefix_error(&mis->error, "load of migration failed: ");
    if (!mis->ending) {
        error_report("%s", mis->error->message);
    }
    g_mutex_unlock(&mis->lock);
    if (status == MIGRATION_STATUS_SETUP || status == MIGRATION_STATUS_ACTIVE) {
        migrate_set_state(&mis->status, mis->settings, status, MIGRATION_STATUS_FAILED);
    }
    if (mis->ending) {
        return;
    }
    if (mis->exit_on_error) {
        qemu_system_set_exit_status(1);
        qemu_system_shutdown_request(SHUTDOWN_CAUSE_HOST_ERROR);
    } else {
        mis->started = false; /* it may be tried again */
    }
}

/*
 * --- a source that goes before all channels are there, when none is read yet ---
 *
 * A source without a return path may have sent everything and closed all its connections before this process
 * has looked at them. So a channel that hangs up means the end once no other connection has something to say.
 */

/* Takes over why. */
static void lost_early(MigrationIncomingState *mis, GError *why)
{
    if ((mis->from_src || mis->multifd) && incoming_status(mis) == MIGRATION_STATUS_SETUP) {
        close_channels(mis);
        fail(mis, why);
    } else {
        g_error_free(why);
    }
}

static void look_for_others(void *opaque)
{
    MigrationIncomingState *mis = opaque;
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    if (now < mis->lost_deadline_ns && migration_listener_hears(mis->listener)) {
        timer_mod_ns(mis->lost_timer, now + LOOK_AGAIN_NS);
    } else {
        lost_early(mis, g_steal_pointer(&mis->lost));
    }
}

/* Takes over why. */
static void hung_up_early(MigrationIncomingState *mis, GError *why)
{
    if (mis->lost || incoming_status(mis) != MIGRATION_STATUS_SETUP) {
        g_error_free(why);
        return;
    }
    mis->lost = why;
    mis->lost_deadline_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + LOOK_LIMIT_NS;
    mis->lost_timer =
        aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME, look_for_others, mis);
    look_for_others(mis);
}

static void main_channel_hung_up(void *opaque)
{
    MigrationIncomingState *mis = opaque;
    GError *err = NULL;

    qio_hangup_watch_free(g_steal_pointer(&mis->hangup));
    error_setg(&err,
               "the source closed the main channel before all channels of multifd were there");
    hung_up_early(mis, err);
}

/* While a thread loads it is that which sees it. */
static void channel_lost(MigrationIncomingState *mis, GError *hangup)
{
    GError *err = NULL;

    if (hangup) {
        hung_up_early(mis, hangup);
    } else {
        error_setg(&err, "the source closed a channel before all channels of multifd were there");
        lost_early(mis, err);
    }
}

/* --- yank --- */

static void yanked_early(void *opaque)
{
    GError *err = NULL;

    error_setg(&err, "the connection was cut by yank");
    lost_early(opaque, err);
}

static void incoming_yank(void *opaque)
{
    MigrationIncomingState *mis = opaque;
    bool connected;

    g_mutex_lock(&mis->channels_lock);
    connected = mis->from_src || mis->multifd;
    g_mutex_unlock(&mis->channels_lock);
    if (connected) {
        GError *err = NULL;

        error_setg(&err, "the connection was cut by yank");
        migrate_incoming_set_error(mis, err);
    }
    cut_channels(mis);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), yanked_early, mis);
}

static void forget_yank(MigrationIncomingState *mis)
{
    if (mis->yank) {
        yank_unregister_function(mis->yank, incoming_yank, mis);
        yank_unregister_instance(g_steal_pointer(&mis->yank));
    }
}

/* --- the guest has arrived --- */

typedef struct Arrival {
    MigrationIncomingState *mis;
    GError *err;        /* NULL: nothing has failed so far */
    RunState state;     /* in which the guest goes on */
    bool disks_taken;   /* to be given back if it does not */
    uint64_t loaded_ns; /* when; QEMU_CLOCK_REALTIME */
} Arrival;

/* In the main loop, the stream being at its end: the disks are ours before the source lets go. */
static void coroutine_fn prepare_co(void *opaque)
{
    Arrival *arrival = opaque;
    MigrationIncomingState *mis = arrival->mis;

    if (mis->ending) {
        error_setg(&arrival->err, "the process ends");
        return;
    }
    arrival->state = state_after_arrival();
    /* A guest that waits here may leave them where they are until it is told to run. */
    if (arrival->state == RUN_STATE_RUNNING || !migrate_late_block_activate(mis->settings)) {
        arrival->disks_taken = bdrv_co_activate_all(&arrival->err);
    }
}

/* The source has them again. */
static void coroutine_fn leave_disks(void)
{
    GError *err = NULL;

    if (bdrv_co_inactivate_all(&err) < 0) {
        warn_report("the guest's disks could not be given back: %s", err->message);
        g_error_free(err);
    }
}

/* The verdict, in the incoming thread. */
static void tell_source(Arrival *arrival)
{
    MigrationIncomingState *mis = arrival->mis;

    if (!mis->to_src) {
        return;
    }
    if (arrival->err) {
        (void)migrate_send_rp_shut(mis, 1); /* one that is gone need not be told */
    } else if (migrate_send_rp_shut(mis, 0) < 0) {
        error_setg(&arrival->err, "the source went away before it could be told that its guest has "
                                  "arrived; the guest stays there");
    }
}

/* `cont` came when the disks had been left where they were. */
static void coroutine_fn start_late(void)
{
    GError *err = NULL;

    runstate_set(RUN_STATE_PAUSED);
    if (!vm_co_cont(&err)) {
        warn_report("the guest has arrived and stays paused: %s; 'cont' tries again", err->message);
        g_error_free(err);
    }
}

static void coroutine_fn start_guest(Arrival *arrival)
{
    MigrationIncomingState *mis = arrival->mis;
    RunState state = state_after_arrival(); /* `stop` or `cont` may have come meanwhile */

    if (state == RUN_STATE_RUNNING && arrival->state != state) {
        start_late();
    } else if (state == RUN_STATE_RUNNING) {
        vm_start();
        stat64_set(&mis->resume_ns,
                   (uint64_t)qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - arrival->loaded_ns);
    } else {
        runstate_set(state);
    }
    announce_arrival(mis);
}

static void coroutine_fn settle(Arrival *arrival)
{
    MigrationIncomingState *mis = arrival->mis;

    if (arrival->err) {
        if (arrival->disks_taken) {
            leave_disks();
        }
        close_channels(mis);
        fail(mis, arrival->err);
        return;
    }
    if (mis->multifd) {
        multifd_recv_finish(mis);
    }
    close_main_channel(mis);
    start_guest(arrival);
    migration_listener_free(g_steal_pointer(&mis->listener));
    forget_yank(mis);
    forget_error(mis); /* of a yank that came too late */
    migrate_set_state(&mis->status, mis->settings, MIGRATION_STATUS_ACTIVE,
                      MIGRATION_STATUS_COMPLETED);
}

static void coroutine_fn settle_co(void *opaque)
{
    Arrival *arrival = opaque;

    settle(arrival);
    if (arrival->mis->end_waiter) {
        aio_co_wake(g_steal_pointer(&arrival->mis->end_waiter));
    }
}

/* A reset that began before the load would undo what the stream says of a device. */
static void coroutine_fn await_changes_co(void *opaque)
{
    MigrationIncomingState *mis = opaque;

    vm_co_await_changes();
    if (mis->multifd) {
        multifd_recv_begin(mis); /* now that something reads: silence is a sign of the source's */
    }
}

static void *incoming_thread(void *opaque)
{
    MigrationIncomingState *mis = opaque;
    Arrival arrival = {.mis = mis};

    main_loop_run_co(await_changes_co, mis);
    (void)loadvm_state(mis, mis->from_src, &arrival.err);
    arrival.loaded_ns = (uint64_t)qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    if (!arrival.err) {
        main_loop_run_co(prepare_co, &arrival);
    }
    tell_source(&arrival);
    main_loop_run_co(settle_co, &arrival);
    return NULL;
}

/* --- the beginning --- */

static void start_loading(MigrationIncomingState *mis)
{
    migration_listener_stop(mis->listener);
    qio_hangup_watch_free(g_steal_pointer(&mis->hangup));
    forget_hangup(mis);
    migrate_set_state(&mis->status, mis->settings, MIGRATION_STATUS_SETUP, MIGRATION_STATUS_ACTIVE);
    if (mis->thread) {
        g_thread_join(mis->thread); /* of an attempt that failed */
    }
    global_state_forget();
    mis->thread = g_thread_new("mig/dst/main", incoming_thread, mis);
}

/* The main channel. False with an error; ioc stays the caller's. */
static bool take_main_channel(MigrationIncomingState *mis, QIOChannel *ioc,
                              const MigrationHello *hello, GError **errp)
{
    if (!qio_channel_set_blocking(ioc, true, errp)) {
        return false;
    }
    qio_channel_set_name(ioc, "migration-main-incoming");
    if (mis->multifd) {
        mis->hangup =
            qio_hangup_watch_new(ioc, qemu_get_aio_context(), main_channel_hung_up, mis, errp);
        if (!mis->hangup) {
            return false;
        }
    }
    g_mutex_lock(&mis->channels_lock);
    mis->from_src = qemu_file_new_input_behind(ioc, hello->bytes, hello->n);
    g_mutex_unlock(&mis->channels_lock);
    return true;
}

/* The source is there: what is set now is what holds for the migration. */
static void begin_with_first_channel(MigrationIncomingState *mis)
{
    migration_settings_unref(mis->settings);
    mis->settings = migration_settings_get();
    if (migrate_multifd(mis->settings) && !mis->from_file && !migrate_mapped_ram(mis->settings)) {
        MultiFDRecv *multifd = multifd_recv_new(mis);

        g_mutex_lock(&mis->channels_lock);
        mis->multifd = multifd;
        g_mutex_unlock(&mis->channels_lock);
        migration_listener_set_lenient(mis->listener);
    }
}

/* Known here already, or so far to the kernel alone: both ends may have come in one turn of the loop. */
static bool source_has_hung_up(MigrationIncomingState *mis)
{
    return mis->lost || qio_channel_has_hung_up(qemu_file_get_ioc(mis->from_src));
}

/*
 * What is here belongs to an attempt before that of this main channel: its own has hung up. Or it never came, and a
 * channel that is older than this one has hung up, though a source makes the main one first.
 */
static bool another_attempt_begins(MigrationIncomingState *mis, const MigrationHello *hello)
{
    if (mis->from_src) {
        return source_has_hung_up(mis);
    }
    return mis->oldest_extra && hello->serial > mis->oldest_extra &&
           (mis->lost || multifd_recv_has_hung_up(mis));
}

/* A channel of the source, in whichever order they come. False with an error. */
static bool take_channel(MigrationIncomingState *mis, QIOChannel *ioc, const MigrationHello *hello,
                         GError **errp)
{
    if (!mis->from_src && !mis->multifd) {
        begin_with_first_channel(mis);
    }
    if (hello->n == MIGRATION_HELLO_MAX) {
        if (!mis->multifd) {
            error_setg(errp, "Not a migration stream: the source uses multifd, which is off here");
            return false;
        }
        mis->oldest_extra = mis->oldest_extra ? mis->oldest_extra : hello->serial;
        return multifd_recv_take_channel(mis, ioc, hello->bytes, errp);
    }
    if (another_attempt_begins(mis, hello)) {
        close_channels(mis);
        forget_error(mis); /* of the threads that read */
        begin_with_first_channel(mis);
    }
    if (mis->from_src) {
        warn_report("incoming migration: a second main channel was turned away");
        return true;
    }
    return take_main_channel(mis, ioc, hello, errp);
}

static void new_channel(QIOChannel *ioc, const MigrationHello *hello, GError *err, void *opaque)
{
    MigrationIncomingState *mis = opaque;
    bool wanted = ioc && incoming_status(mis) == MIGRATION_STATUS_SETUP;

    if (wanted && take_channel(mis, ioc, hello, &err) && mis->from_src &&
        (!mis->multifd || multifd_recv_all_channels_created(mis))) {
        start_loading(mis);
    }
    qio_channel_unref(ioc); /* NULL, used by others as well, or one too many */
    if (err) {
        close_channels(mis);
        fail(mis, err);
    }
}

static bool register_yank(MigrationIncomingState *mis, GError **errp)
{
    if (!mis->yank) {
        mis->yank = yank_register_instance(YANK_MIGRATION, "", errp);
        if (!mis->yank) {
            return false;
        }
        yank_register_function(mis->yank, incoming_yank, mis);
    }
    return true;
}

static bool coroutine_fn listen_at(MigrationIncomingState *mis, const MigrationAddress *addr,
                                   GError **errp)
{
    if (mis->ending) {
        error_setg(errp, "the process ends");
        return false;
    }
    mis->started = true; /* while a name is looked up, another client may ask for the same */
    migration_listener_free(g_steal_pointer(&mis->listener));
    g_mutex_lock(&mis->lock);
    g_clear_error(&mis->error);
    g_clear_pointer(&mis->addresses, qapi_free_SocketAddressList);
    g_mutex_unlock(&mis->lock);
    migration_settings_unref(mis->settings);
    mis->settings = migration_settings_get();
    mis->from_file = migration_address_is_seekable(addr);
    mis->listener = migration_listener_co_new(addr, new_channel, mis, errp);
    if (mis->listener && mis->ending) {
        migration_listener_free(g_steal_pointer(&mis->listener));
        error_setg(errp, "the process ends");
    }
    if (!mis->listener || !register_yank(mis, errp)) {
        mis->started = false;
        return false;
    }
    g_mutex_lock(&mis->lock);
    mis->addresses = migration_listener_addresses(mis->listener);
    g_mutex_unlock(&mis->lock);
    migrate_set_state(&mis->status, mis->settings, incoming_status(mis), MIGRATION_STATUS_SETUP);
    return true;
}

bool coroutine_fn migration_incoming_co_start(const char *arg, GError **errp)
{
    MigrationIncomingState *mis = g_new0(MigrationIncomingState, 1);
    g_autoptr(MigrationAddress) addr = NULL;

    g_mutex_init(&mis->lock);
    g_mutex_init(&mis->channels_lock);
    g_mutex_init(&mis->send_lock);
    mis->channel_lost = channel_lost;
    mis->exit_on_error = true;
    __atomic_store_n(&incoming, mis, __ATOMIC_RELEASE);
    if (!strcmp(arg, "defer")) {
        return true;
    }
    addr = migration_incoming_arg_parse(arg, errp);
    return addr && listen_at(mis, addr, errp);
}

bool coroutine_fn qmp_migrate_incoming(const MigrateIncomingArg *arg, GError **errp)
{
    MigrationIncomingState *mis = incoming;
    g_autoptr(MigrationAddress) addr = NULL;

    if (!mis) {
        error_setg(errp, "'-incoming' was not specified on the command line");
        return false;
    }
    if (qemu_shutdown_cause() != SHUTDOWN_CAUSE_NONE) {
        error_setg(errp, "The process is ending");
        return false;
    }
    if (mis->started || !runstate_check(RUN_STATE_INMIGRATE)) {
        error_setg(errp, "The incoming migration has already been started");
        return false;
    }
    addr = migration_args_to_address(arg->uri, arg->has_channels, arg->channels, "migrate-incoming",
                                     errp);
    if (!addr) {
        return false;
    }
    mis->exit_on_error = !arg->has_exit_on_error || arg->exit_on_error;
    return listen_at(mis, addr, errp);
}

void coroutine_fn migration_incoming_co_shutdown(void)
{
    MigrationIncomingState *mis = incoming;

    if (!mis) {
        return;
    }
    mis->ending = true;
    migration_listener_stop(mis->listener);
    if (incoming_status(mis) == MIGRATION_STATUS_ACTIVE) {
        cut_channels(mis);
        mis->end_waiter = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    if (mis->thread) {
        g_thread_join(g_steal_pointer(&mis->thread));
    }
    close_channels(mis);
    forget_yank(mis);
    migration_listener_free(g_steal_pointer(&mis->listener)); /* the thread reads from its file */
}
