/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Options about the process, its log and its traces. */
#include <stdlib.h>
#include "system/cmdline.h"
#include "util/error.h"
#include "util/log.h"
#include "util/qemu-opts.h"

static bool handle_daemonize(const char *arg, GError **errp)
{
    start_config.daemonize = true;
    return true;
}

static bool handle_pidfile(const char *arg, GError **errp)
{
    start_config.pidfile = arg;
    return true;
}

static bool handle_add_fd(const char *arg, GError **errp)
{
    DeferredOption opt = {.name = "add-fd", .arg = arg};

    g_array_append_val(start_config.fds, opt);
    return true;
}

static bool handle_msg(const char *arg, GError **errp)
{
    g_autoptr(QemuOpts) opts = qemu_opts_parse(arg, NULL);
    bool has;

    return qemu_opts_get_bool(opts, "timestamp", &has, &start_config.msg_timestamp, errp) &&
           qemu_opts_get_bool(opts, "guest-name", &has, &start_config.msg_guest_name, errp) &&
           qemu_opts_check_known(opts, errp);
}

static bool handle_dump_vmstate(const char *arg, GError **errp)
{
    start_config.dump_vmstate = arg;
    return true;
}

static bool handle_log_items(const char *arg, GError **errp)
{
    if (!g_strcmp0(arg, "help")) {
        qemu_print_log_items();
        exit(0);
    }
    start_config.log_items = arg;
    return true;
}

static bool handle_log_file(const char *arg, GError **errp)
{
    start_config.log_file = arg;
    return true;
}

static bool handle_trace(const char *arg, GError **errp)
{
    DeferredOption opt = {.name = "trace", .arg = arg};

    g_array_append_val(start_config.traces, opt);
    return true;
}

static bool handle_unsupported(const char *arg, GError **errp)
{
    error_setg(errp, "not supported; start the process as the user and in the place it is to be");
    return false;
}

const QemuOption process_options[] = {
    {"daemonize", GROUP_PROCESS, NULL, "go to the background once everything is set up",
     handle_daemonize},
    {"pidfile", GROUP_PROCESS, "file", "write the process id to a file", handle_pidfile},
    {"add-fd", GROUP_PROCESS, "fd=fd,set=set[,opaque=text]",
     "put an inherited descriptor into /dev/fdset/SET", handle_add_fd},
    {"msg", GROUP_PROCESS, "[timestamp=on|off][,guest-name=on|off]", "prefixes of error messages",
     handle_msg},
    {"runas", GROUP_PROCESS, "user", "not supported", handle_unsupported},
    {"chroot", GROUP_PROCESS, "dir", "not supported", handle_unsupported},
    {"trace", GROUP_DEBUG, "[enable=]pattern[,events=file][,file=file]",
     "switch on trace events; \"help\" lists them", handle_trace},
    {"d", GROUP_DEBUG, "item[,...]", "items of the log; \"help\" lists them", handle_log_items},
    {"dump-vmstate", GROUP_DEBUG, "file",
     "write what the devices' states look like in a migration stream, as JSON, and end",
     handle_dump_vmstate},
    {"D", GROUP_DEBUG, "file", "the log goes to this file instead of stderr", handle_log_file},
    {NULL},
};
