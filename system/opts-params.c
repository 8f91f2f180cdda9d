/* SPDX-License-Identifier: GPL-2.0-or-later */
/* query-command-line-options: which parameters the options take. */
#include <stdio.h>
#include <string.h>
#include "qapi/qapi-commands-misc.h"
#include "system/cmdline.h"
#include "util/error.h"

/* One list an option; "name:n" is a number, "b" on or off, "z" a size, "s" any text. */
static const struct {
    const char *option, *parameters;
} options[] = {
    {"accel", "accel:s"},
    {"action", "reboot:s shutdown:s panic:s watchdog:s"},
    {"add-fd", "fd:n set:n opaque:s"},
    {"blockdev", ""}, /* as blockdev-add */
    {"boot-opts", "order:s once:s menu:b splash:s splash-time:n reboot-timeout:n strict:b"},
    {"chardev", "backend:s path:s host:s port:s fd:s to:n ipv4:b ipv6:b numeric:b keep-alive:b "
                "server:b wait:b delay:b nodelay:b telnet:b websocket:b tls-creds:s tls-authz:s "
                "reconnect:n reconnect-ms:n abstract:b tight:b "
                "input-path:s append:b signal:b size:n logfile:s logappend:b mux:b chardev:s"},
    {"drive", "file:s format:s driver:s node-name:s if:s bus:n unit:n index:n media:s cache:s "
              "cache.direct:b cache.no-flush:b cache.writeback:b aio:s discard:s detect-zeroes:s "
              "read-only:b auto-read-only:b force-share:b snapshot:b copy-on-read:b rerror:s "
              "werror:s stats-account-invalid:b stats-account-failed:b throttling.group:s "
              "throttling.iops-size:n "
              "throttling.bps-total:n throttling.bps-read:n throttling.bps-write:n "
              "throttling.iops-total:n throttling.iops-read:n throttling.iops-write:n "
              "throttling.bps-total-max:n throttling.bps-read-max:n throttling.bps-write-max:n "
              "throttling.iops-total-max:n throttling.iops-read-max:n throttling.iops-write-max:n "
              "throttling.bps-total-max-length:n throttling.bps-read-max-length:n "
              "throttling.bps-write-max-length:n throttling.iops-total-max-length:n "
              "throttling.iops-read-max-length:n throttling.iops-write-max-length:n"},
    {"machine", "type:s accel:s memory-backend:s usb:b dump-guest-core:b mem-merge:b "
                "kernel-irqchip:b graphics:b vmport:b acpi:b"},
    {"memory", "size:z maxmem:s slots:n"},
    {"mon", "chardev:s mode:s pretty:b"},
    {"msg", "timestamp:b guest-name:b"},
    {"name", "guest:s process:s debug-threads:b"},
    {"object", ""}, /* as object-add */
    {"smp-opts", "cpus:n maxcpus:n sockets:n dies:n clusters:n modules:n cores:n threads:n"},
    {"trace", "enable:s events:s file:s"},
};

static CommandLineParameterType parameter_type(char letter)
{
    switch (letter) {
    case 'b':
        return COMMAND_LINE_PARAMETER_TYPE_BOOLEAN;
    case 'n':
        return COMMAND_LINE_PARAMETER_TYPE_NUMBER;
    case 'z':
        return COMMAND_LINE_PARAMETER_TYPE_SIZE;
    default:
        return COMMAND_LINE_PARAMETER_TYPE_STRING;
    }
}

static CommandLineOptionInfo *describe(size_t i)
{
    CommandLineOptionInfo *info = g_new0(CommandLineOptionInfo, 1);
    CommandLineParameterInfoList **tail = &info->parameters;
    g_auto(GStrv) words = g_strsplit(options[i].parameters, " ", -1);

    info->option = g_strdup(options[i].option);
    for (char **word = words; *word; word++) {
        CommandLineParameterInfo *parameter = g_new0(CommandLineParameterInfo, 1);
        const char *colon = strrchr(*word, ':');

        parameter->name = g_strndup(*word, (size_t)(colon - *word));
        parameter->type = parameter_type(colon[1]);
        QAPI_LIST_APPEND(tail, parameter);
    }
    return info;
}

void option_print_parameters(const char *option)
{
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        g_auto(GStrv) words = NULL;

        if (strcmp(options[i].option, option) != 0) {
            continue;
        }
        words = g_strsplit(options[i].parameters, " ", -1);
        printf("%s options:\n", option);
        for (char **word = words; *word; word++) {
            const char *colon = strrchr(*word, ':');

            printf("  %.*s=<%s>\n", (int)(colon - *word), *word,
                   CommandLineParameterType_str(parameter_type(colon[1])));
        }
    }
}

bool coroutine_fn qmp_query_command_line_options(const QueryCommandLineOptionsArg *arg,
                                                 CommandLineOptionInfoList **ret, GError **errp)
{
    CommandLineOptionInfoList **tail = ret;

    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        if (!arg->option || !strcmp(arg->option, options[i].option)) {
            QAPI_LIST_APPEND(tail, describe(i));
        }
    }
    if (arg->option && !*ret) {
        error_setg(errp, "invalid option name: %s", arg->option);
        return false;
    }
    return true;
}
