/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The steps of start-up. What they make, system/shutdown.c takes back in reverse. */
#include "system/startup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include "accel/guest-clock.h"
#include "accel/qtest/qtest.h"
#include "accel/runstate.h"
#include "accel/vm-stop.h"
#include "block/error-policy.h"
#include "block/graph/activate.h"
#include "block/block.h"
#include "block/blockdev.h"
#include "chardev/char-opts.h"
#include "chardev/char.h"
#include "hw/core/device-add.h"
#include "hw/core/globals.h"
#include "memory/backend.h"
#include "migration/migration.h"
#include "migration/savevm.h"
#include "monitor/fds.h"
#include "monitor/monitor.h"
#include "qapi/keyval.h"
#include "qapi/qapi-commands-block-node.h"
#include "qom/user-creatable.h"
#include "system/cmdline.h"
#include "system/daemon.h"
#include "system/machine.h"
#include "system/objects.h"
#include "system/signals.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/id.h"
#include "util/inherited-fds.h"
#include "util/log.h"
#include "util/qemu-opts.h"
#include "util/trace.h"
#include "vmstate/vmstate.h"

/* Runs fn for each deferred option; an error names the option. */
static bool coroutine_fn for_each(GArray *list,
                                  bool coroutine_fn (*fn)(const DeferredOption *opt, GError **errp),
                                  GError **errp)
{
    for (guint i = 0; i < list->len; i++) {
        const DeferredOption *opt = &g_array_index(list, DeferredOption, i);
        GError *err = NULL;

        if (!fn(opt, &err)) {
            g_propagate_prefixed_error(errp, err, "-%s %s: ", opt->name, opt->arg);
            return false;
        }
    }
    return true;
}

/* --- log, process --- */

static bool start_trace(const DeferredOption *opt, GError **errp)
{
    bool help = false;

    if (!trace_opt_parse(opt->arg, &help, errp)) {
        return false;
    }
    if (help) {
        exit(0);
    }
    return true;
}

static bool coroutine_fn step_log(GError **errp)
{
    error_report_set_prefix(start_config.msg_timestamp,
                            start_config.msg_guest_name ? start_config.guest_name : NULL);
    if (start_config.process_name && prctl(PR_SET_NAME, start_config.process_name) < 0) {
        error_setg_errno(errp, errno, "could not change the process's name");
        return false;
    }
    return (!start_config.log_file || qemu_set_log_filename(start_config.log_file, errp)) &&
           (!start_config.log_items || qemu_set_log_items(start_config.log_items, errp)) &&
           for_each(start_config.traces, start_trace, errp);
}

static bool coroutine_fn step_dump_vmstate(GError **errp)
{
    g_autofree char *text = NULL;
    FILE *file;

    if (!start_config.dump_vmstate) {
        return true;
    }
    text = vmstate_dump_json(start_config.machine ? start_config.machine->name : "none");
    file = fopen(start_config.dump_vmstate, "w");
    if (file && fputs(text, file) >= 0 && fclose(file) == 0) {
        exit(0);
    }
    error_setg_errno(errp, errno, "Could not write '%s'", start_config.dump_vmstate);
    return false;
}

static bool coroutine_fn step_pidfile(GError **errp)
{
    return !start_config.pidfile || pidfile_create(start_config.pidfile, errp);
}

/* --- descriptors --- */

static bool coroutine_fn start_fd(const DeferredOption *opt, GError **errp)
{
    g_autoptr(QemuOpts) opts = qemu_opts_parse(opt->arg, NULL);
    bool has_fd, has_set;
    int64_t fd = -1, set = -1;
    const char *opaque = qemu_opts_get(opts, "opaque");
    g_autofree char *number = NULL;
    int dup_fd;

    if (!qemu_opts_get_int(opts, "fd", &has_fd, &fd, errp) ||
        !qemu_opts_get_int(opts, "set", &has_set, &set, errp) ||
        !qemu_opts_check_known(opts, errp)) {
        return false;
    }
    if (!has_fd || fd < 0 || fd > INT_MAX) {
        error_setg(errp, "fd option is required and must be non-negative");
        return false;
    }
    if (fd <= STDERR_FILENO) {
        error_setg(errp, "fd cannot be a standard I/O stream");
        return false;
    }
    if (!has_set || set < 0) {
        error_setg(errp, "set option is required and must be non-negative");
        return false;
    }
    number = g_strdup_printf("%d", (int)fd);
    dup_fd = inherited_fd_look(number, NULL) < 0 ? -1 : fcntl((int)fd, F_DUPFD_CLOEXEC, 3);
    if (dup_fd < 0) {
        error_setg(errp, "fd is not valid or already in use");
        return false;
    }
    monitor_fdset_add_fd(set, dup_fd, opaque);
    return true;
}

static bool coroutine_fn step_fds(GError **errp)
{
    return for_each(start_config.fds, start_fd, errp);
}

/* --- objects --- */

static bool add_object(const DeferredOption *opt, bool early, GError **errp)
{
    g_autoptr(ObjectOptions) options = NULL;
    QapiDecodeFlags flags = QAPI_DECODE_JSON;
    json_object *json = keyval_parse_or_json(opt->arg, "qom-type", NULL, &flags, errp);
    const UserCreatableOps *ops;

    if (!json) {
        return false;
    }
    host_memory_expand_nodes(json);
    options = ObjectOptions_from_json(json, flags, errp);
    json_object_put(json);
    if (!options) {
        return false;
    }
    ops = user_creatable_ops(options->qom_type);
    return (ops && ops->early) != early || user_creatable_co_add(options, errp);
}

static bool coroutine_fn add_early_object(const DeferredOption *opt, GError **errp)
{
    return add_object(opt, true, errp);
}

static bool coroutine_fn add_late_object(const DeferredOption *opt, GError **errp)
{
    return add_object(opt, false, errp);
}

static bool coroutine_fn step_early_objects(GError **errp)
{
    return for_each(start_config.objects, add_early_object, errp);
}

static bool coroutine_fn step_late_objects(GError **errp)
{
    return for_each(start_config.objects, add_late_object, errp);
}

/* --- character devices and monitors --- */

static bool coroutine_fn start_chardev(const DeferredOption *opt, GError **errp)
{
    g_autofree char *id = NULL;
    bool shared;
    g_autoptr(ChardevBackend) backend = chardev_parse_option(opt->arg, &id, &shared, errp);
    Chardev *chr;

    if (!backend || !qemu_id_check(id, errp)) {
        return false;
    }
    if (qemu_chr_find(id)) {
        error_setg(errp, "Duplicate ID '%s' for chardev", id);
        return false;
    }
    chr = (shared ? qemu_chr_co_new_shared : qemu_chr_co_new)(id, backend, errp);
    if (chr && qemu_chr_pty(chr)) {
        info_report("char device redirected to %s (label %s)", qemu_chr_pty(chr), id);
    }
    return chr;
}

static bool coroutine_fn step_chardevs(GError **errp)
{
    return for_each(start_config.chardevs, start_chardev, errp);
}

/* -mon chardev=ID,mode=readline|control */
static bool coroutine_fn start_mon(const char *arg, GError **errp)
{
    g_autoptr(QemuOpts) opts = qemu_opts_parse(arg, "chardev");
    const char *id = qemu_opts_get(opts, "chardev"), *mode = qemu_opts_get(opts, "mode");
    bool has_pretty, pretty = false;
    Chardev *chr;

    (void)qemu_opts_get(opts, "id");
    if (!qemu_opts_get_bool(opts, "pretty", &has_pretty, &pretty, errp) ||
        !qemu_opts_check_known(opts, errp)) {
        return false;
    }
    if (mode && strcmp(mode, "readline") != 0 && strcmp(mode, "control") != 0) {
        error_setg(errp, "Parameter 'mode' does not accept value '%s'", mode);
        return false;
    }
    chr = id ? qemu_chr_find(id) : NULL;
    if (!chr) {
        error_setg(errp, "chardev \"%s\" not found", id ? id : "");
        return false;
    }
    if (mode && !strcmp(mode, "control")) {
        return monitor_co_new_qmp(chr, pretty, errp);
    }
    if (has_pretty) {
        error_setg(errp, "'pretty' is not compatible with HMP monitors");
        return false;
    }
    return monitor_new_hmp(chr, true, errp);
}

/*
 * A character device in short form, or one that exists, "chardev:ID". "mon:" and a short form: a
 * human monitor shares it.
 */
static Chardev *coroutine_fn short_chardev(const char *arg, const char *label, GError **errp)
{
    g_autoptr(ChardevBackend) backend = NULL;
    bool shared;
    Chardev *chr;

    if (g_str_has_prefix(arg, "chardev:")) {
        chr = qemu_chr_find(arg + strlen("chardev:"));
        if (!chr) {
            error_setg(errp, "chardev \"%s\" not found", arg + strlen("chardev:"));
        }
        return chr;
    }
    backend = chardev_parse_short(arg, &shared, errp);
    if (!backend) {
        return NULL;
    }
    chr = (shared ? qemu_chr_co_new_shared : qemu_chr_co_new)(label, backend, errp);
    if (chr && qemu_chr_pty(chr)) {
        info_report("char device redirected to %s (label %s)", qemu_chr_pty(chr), label);
    }
    if (chr && g_str_has_prefix(arg, "mon:") && !monitor_new_hmp(chr, true, errp)) {
        return NULL;
    }
    return chr;
}

static bool coroutine_fn start_monitor(const DeferredOption *opt, GError **errp)
{
    static unsigned count;
    g_autofree char *label = NULL;
    Chardev *chr;
    bool qmp = strcmp(opt->name, "monitor") != 0;

    if (!strcmp(opt->name, "mon")) {
        return start_mon(opt->arg, errp);
    }
    if (!strcmp(opt->arg, "none")) {
        return true;
    }
    label = g_strdup_printf("compat_monitor%u", count);
    count += !g_str_has_prefix(opt->arg, "chardev:");
    chr = short_chardev(opt->arg, label, errp);
    if (!chr) {
        return false;
    }
    if (qmp) {
        return monitor_co_new_qmp(chr, !strcmp(opt->name, "qmp-pretty"), errp);
    }
    return g_str_has_prefix(opt->arg, "mon:") || monitor_new_hmp(chr, true, errp);
}

/* Before monitors: no client sees a machine that its test can't reach. */
static bool coroutine_fn step_qtest(GError **errp)
{
    Chardev *chr;

    if (!start_config.qtest) {
        return true;
    }
    chr = short_chardev(start_config.qtest, "qtest", errp);
    return chr && qtest_server_start(chr, start_config.qtest_log, errp);
}

static bool coroutine_fn step_monitors(GError **errp)
{
    if (start_config.nographic && !start_config.no_defaults && !start_config.monitors->len) {
        DeferredOption opt = {.name = "monitor", .arg = "stdio"};

        g_array_append_val(start_config.monitors, opt);
    }
    return for_each(start_config.monitors, start_monitor, errp);
}

/* --- disks --- */

static bool coroutine_fn start_blockdev(const DeferredOption *opt, GError **errp)
{
    g_autoptr(BlockdevOptions) options = NULL;
    QapiDecodeFlags flags = QAPI_DECODE_JSON;
    json_object *json = keyval_parse_or_json(opt->arg, "driver", NULL, &flags, errp);

    if (!json) {
        return false;
    }
    options = BlockdevOptions_from_json(json, flags, errp);
    json_object_put(json);
    return options && qmp_blockdev_add(options, errp);
}

static bool coroutine_fn start_drive(const DeferredOption *opt, GError **errp)
{
    g_autofree char *temporary =
        start_config.snapshot ? g_strconcat("snapshot=on,", opt->arg, NULL) : NULL;

    return drive_co_new(temporary ? temporary : opt->arg, errp);
}

static bool coroutine_fn step_blockdevs(GError **errp)
{
    return for_each(start_config.blockdevs, start_blockdev, errp);
}

static bool coroutine_fn step_drives(GError **errp)
{
    return for_each(start_config.drives, start_drive, errp);
}

/* --- machine --- */

static bool coroutine_fn step_machine(GError **errp)
{
    if (!start_config.machine) {
        error_setg(errp, "No machine specified, and there is no default; use -machine none "
                         "(-machine help lists machines)");
        return false;
    }
    if (!migration_settings_check_globals(errp)) {
        return false;
    }
    machine_make();
    return machine_co_init(errp) && drive_check_places(errp);
}

static bool coroutine_fn start_device(const DeferredOption *opt, GError **errp)
{
    QapiDecodeFlags flags = QAPI_DECODE_JSON;
    json_object *json = keyval_parse_or_json(opt->arg, "driver", NULL, &flags, errp);
    bool ok;

    if (!json) {
        return false;
    }
    ok = device_co_add(json, flags & QAPI_DECODE_KEYVAL ? PROPERTY_FROM_TEXT : PROPERTY_FROM_JSON,
                       false, errp);
    json_object_put(json);
    return ok;
}

static bool coroutine_fn step_devices(GError **errp)
{
    globals_check();
    return for_each(start_config.devices, start_device, errp);
}

/* Disks are not this process's, and the guest does not run, until it has arrived. */
static bool coroutine_fn step_run_state(GError **errp)
{
    runstate_set_autostart(!start_config.stopped);
    if (start_config.incoming) {
        runstate_set(RUN_STATE_INMIGRATE);
        bdrv_set_default_inactive(true);
    }
    return true;
}

/* After the machine's devices are registered. */
static bool coroutine_fn step_migration(GError **errp)
{
    MigrationIdentity identity = {.machine = start_config.machine->name,
                                  .has_uuid = start_config.have_uuid};

    memcpy(identity.uuid, start_config.uuid, sizeof(identity.uuid));
    migration_set_identity(&identity);
    migration_init();
    return true;
}

/* A destination listens before a client can ask whether it does, or send a source there. */
static bool coroutine_fn step_guest(GError **errp)
{
    if (start_config.incoming) {
        return migration_incoming_co_start(start_config.incoming, errp);
    }
    if (!start_config.stopped) {
        vm_start();
    }
    return true;
}

static bool coroutine_fn step_ready(GError **errp)
{
    signals_set_loop_running();
    return daemon_ready(errp);
}

/* In this order, because: */
static bool coroutine_fn (*const steps[])(GError **errp) = {
    step_log,                         /* what follows may have something to say */
    step_dump_vmstate,                /* nothing else is wanted then */
    step_pidfile,                     /* a second instance stops here, before it touches anything */
    step_run_state,                   /* disks open by it */
    step_fds,                         /* chardevs and disks open /dev/fdset/N */
    step_early_objects,               /* chardevs and disks use secrets and iothreads */
    step_chardevs,                    /* monitors and later objects use them */
    step_late_objects,                /* objects that need chardevs; disks need throttle groups */
    step_blockdevs,                   /* drives may refer to nodes */
    step_drives,        step_machine, /* its devices use all of the above */
    step_devices,                     /* the machine has the buses */
    step_migration,                   /* the sections of all of them are known */
    step_qtest,         step_guest,
    step_monitors, /* a client that connects finds everything in place */
    step_ready,    /* -daemonize: the parent may go; after this nothing can fail */
};

typedef struct StartupRun {
    GError **errp;
    bool ok;
} StartupRun;

static void coroutine_fn startup_co_run(void *opaque)
{
    StartupRun *run = opaque;

    run->ok = true;
    for (size_t i = 0; i < G_N_ELEMENTS(steps) && run->ok; i++) {
        run->ok = steps[i](run->errp);
    }
}

bool startup_run(GError **errp)
{
    StartupRun run = {.errp = errp};

    /* Before anything that a fork would not survive. */
    if (start_config.daemonize && !daemon_fork(errp)) {
        return false;
    }
    if (!qemu_init_main_loop(errp) || !signals_init(errp)) {
        return false;
    }
    if (start_config.accel_qtest) {
        qtest_clock_init();
    }
    guest_clock_init(start_config.accel_qtest);
    blk_set_guest_stopper(vm_stop_request);
    host_memory_backend_set_defaults(!start_config.no_mem_merge, !start_config.no_dump_guest_core);
    objects_register_types();
    monitor_init();
    if (start_config.daemonize) {
        qemu_chr_forbid_stdio("-daemonize");
    }
    aio_run_coroutine(startup_co_run, &run);
    return run.ok;
}
