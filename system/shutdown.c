/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The orderly end of the process. */
#include "system/shutdown.h"

#include <glib.h>
#include "block/block.h"
#include "block/blockdev.h"
#include "block/export.h"
#include "block/graph/give-up.h"
#include "block/io/limits.h"
#include "block/job/job.h"
#include "block/nbd/server.h"
#include "chardev/char.h"
#include "hw/core/bus.h"
#include "hw/core/reset.h"
#include "memory/machine-ram.h"
#include "migration/dirtyrate.h"
#include "migration/migration.h"
#include "monitor/command-gate.h"
#include "monitor/monitor.h"
#include "net/announce.h"
#include "qapi/qapi-events-run-state.h"
#include "qom/user-creatable.h"
#include "accel/kvm/kvm.h"
#include "accel/qtest/qtest.h"
#include "accel/runstate.h"
#include "accel/vm-stop.h"
#include "util/error.h"

/*
 * A server that keeps the end waiting for so long without an answer is given up. Longer than a disk
 * array takes for a flush. A user that cannot wait so long sends a second signal.
 */
#define SHUTDOWN_SILENCE_NS (20 * NANOSECONDS_PER_SECOND)

/* A command that waits for such a server ends a moment after the server was given up. */
#define COMMANDS_WAIT_NS (SHUTDOWN_SILENCE_NS + 5 * NANOSECONDS_PER_SECOND)

/* Disks have answered by then; what is left for a device to do takes a turn of a loop or two. */
#define DEVICES_WAIT_NS (5 * NANOSECONDS_PER_SECOND)

static const char *current_step = "the shutdown to begin";

static void coroutine_fn step_co_stop_guest(void)
{
    ShutdownCause cause = qemu_shutdown_cause();
    bool by_guest = cause == SHUTDOWN_CAUSE_GUEST_SHUTDOWN || cause == SHUTDOWN_CAUSE_GUEST_RESET ||
                    cause == SHUTDOWN_CAUSE_GUEST_PANIC;

    qapi_event_send_shutdown(by_guest, cause);
    /* No STOP: it would tell clients that the guest may be continued. */
    vm_co_halt();
    announce_stop_all();
    dirty_rate_co_shutdown();
}

static void coroutine_fn step_co_limits(void)
{
    io_limits_lift_all();
}

static void coroutine_fn step_co_migration(void)
{
    migration_co_shutdown();
    migration_incoming_co_shutdown();
}

static void coroutine_fn step_co_exports(void)
{
    nbd_server_co_stop();
    blk_exp_co_close_all(BLOCK_EXPORT_TYPE__MAX);
}

static void coroutine_fn step_co_jobs(void)
{
    job_co_cancel_sync_all();
}

static void coroutine_fn step_co_opening(void)
{
    bdrv_co_abandon_opening(SHUTDOWN_SILENCE_NS);
}

/* A command that had passed the gate may have begun any of these since. */
static void coroutine_fn step_co_commands(void)
{
    qemu_chr_abandon_opening();
    if (!command_gate_co_wait(COMMANDS_WAIT_NS)) {
        error_report("not waiting any longer for commands that have begun");
    }
    step_co_jobs();
    step_co_exports();
    step_co_opening();
}

static void coroutine_fn step_co_flush(void)
{
    bdrv_co_drain_all();
}

static void count_requests(DeviceState *dev, void *opaque)
{
    unsigned *n = opaque;

    if (device_requests(dev)) {
        error_report("%s: %u requests have not ended", device_label(dev), device_requests(dev));
    }
    *n += device_requests(dev);
}

/*
 * Buses go with their devices. Disks have been drained: a request that does not end soon will not end, and the
 * devices are left as they are.
 */
static void coroutine_fn step_co_devices(void)
{
    BusState *bus = sysbus_get_default();
    DeviceState *dev;
    unsigned requests = 0;

    if (!devices_co_settle(DEVICES_WAIT_NS, NULL)) {
        bus_foreach_device(bus, count_requests, &requests);
    }
    if (requests) {
        return;
    }
    while ((dev = TAILQ_FIRST(&bus->devices))) {
        device_co_destroy(dev);
    }
}

static void coroutine_fn step_co_disks(void)
{
    drive_co_close_all();
    bdrv_co_close_all();
}

static void coroutine_fn step_co_monitors(void)
{
    qtest_server_stop();
    monitor_co_cleanup();
}

static void coroutine_fn step_co_chardevs(void)
{
    qemu_chr_cleanup();
}

static void coroutine_fn step_co_accel(void)
{
    kvm_close();
}

static void coroutine_fn step_co_memory(void)
{
    machine_ram_cleanup();
}

static void coroutine_fn step_co_objects(void)
{
    user_creatable_cleanup();
}

/* In this order, because: */
static const struct {
    const char *name;
    void coroutine_fn (*co_run)(void);
} steps[] = {
    {"limits to be lifted", step_co_limits},  /* requests that all others wait for may be large */
    {"migrations to end", step_co_migration}, /* the guest is here or there, not in between */
    {"the guest to stop",
     step_co_stop_guest},          /* it must not write while disks go; clients learn of the end */
    {"jobs to end", step_co_jobs}, /* first: one that hangs may hold up the requests of clients */
    {"clients of exports to leave", step_co_exports},
    {"disks that are being opened", step_co_opening}, /* nothing is in them that could be lost */
    {"commands that have begun", step_co_commands},
    {"disks to be flushed", step_co_flush},
    {"devices", step_co_devices}, /* nothing of theirs is in flight any more */
    {"disks to be closed", step_co_disks},
    {"monitors and tests", step_co_monitors}, /* they tell of everything above */
    {"character devices", step_co_chardevs},  /* they carry the monitors */
    {"vCPUs", step_co_accel},                 /* they run in the guest's memory */
    {"the guest's memory", step_co_memory},   /* shows what objects hold */
    {"objects", step_co_objects},             /* disks and chardevs use them */
};

const char *shutdown_waits_for(void)
{
    return current_step;
}

void coroutine_fn shutdown_co_run(void)
{
    command_gate_close();
    bdrv_give_up_watch_begin(SHUTDOWN_SILENCE_NS);
    for (size_t i = 0; i < G_N_ELEMENTS(steps); i++) {
        current_step = steps[i].name;
        steps[i].co_run();
    }
    bdrv_give_up_watch_end();
}
