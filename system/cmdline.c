/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line: finding options, -help, -version. */
#include "system/cmdline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "util/cutils.h"
#include "util/error.h"
#include "util/version.h"

StartConfig start_config;

static const QemuOption *const tables[] = {machine_options, device_options, process_options};

static const char *const group_titles[GROUP_MAX] = {
    [GROUP_STANDARD] = "The machine", [GROUP_BLOCK] = "Disks",          [GROUP_CONTROL] = "Control",
    [GROUP_PROCESS] = "The process",  [GROUP_DEBUG] = "Looking inside",
};

static const QemuOption *find_option(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
        for (const QemuOption *opt = tables[i]; opt->name; opt++) {
            if (word_is_one_of(opt->name, name)) {
                return opt;
            }
        }
    }
    return NULL;
}

static void print_version(void)
{
    printf("QEMU emulator version %s (%s)\n", QEMU_VERSION, FERRY_PACKAGE);
}

static void print_option(const QemuOption *opt)
{
    g_auto(GStrv) names = g_strsplit(opt->name, "|", -1);
    g_autofree char *all = g_strjoinv(" or -", names);
    g_autofree char *head =
        g_strdup_printf("-%s%s%s", all, opt->arg ? " " : "", opt->arg ? opt->arg : "");

    if (strlen(head) < 24) {
        printf("  %-23s %s\n", head, opt->help);
    } else {
        printf("  %s\n  %-23s %s\n", head, "", opt->help);
    }
}

static void print_help(void)
{
    print_version();
    printf("usage: qemu-system-x86_64 [options]\n");
    for (int group = 0; group < GROUP_MAX; group++) {
        printf("\n%s:\n", group_titles[group]);
        for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
            for (const QemuOption *opt = tables[i]; opt->name; opt++) {
                if ((int)opt->group == group) {
                    print_option(opt);
                }
            }
        }
        if (group == GROUP_STANDARD) {
            printf("  %-23s %s\n  %-23s %s\n", "-h or -help", "print this and exit", "-version",
                   "print the version and exit");
        }
    }
    printf(
        "\n\"help\" as an argument lists what there is, where that makes sense: -machine help\n");
}

static void exit_if_informational(const char *name)
{
    if (!strcmp(name, "help") || !strcmp(name, "h")) {
        print_help();
    } else if (!strcmp(name, "version")) {
        print_version();
    } else {
        return;
    }
    fflush(stdout);
    exit(0);
}

/* One option with its argument; *index moves on to the last word used. */
static bool parse_option(int argc, char **argv, int *index, GError **errp)
{
    const char *word = argv[*index], *name = word + 1, *arg = NULL;
    const QemuOption *opt;
    GError *err = NULL;

    name += *name == '-';
    exit_if_informational(name);
    opt = find_option(name);
    if (!opt && option_is_of_stock(name)) {
        error_setg(errp,
                   "%s: Ferry does not have this option of QEMU (-help lists those that it has)",
                   word);
        return false;
    }
    if (!opt) {
        error_setg(errp, "%s: invalid option", word);
        return false;
    }
    if (opt->arg) {
        if (*index + 1 >= argc) {
            error_setg(errp, "%s: requires an argument", word);
            return false;
        }
        arg = argv[++*index];
    }
    if (!opt->handler(arg, &err)) {
        g_propagate_prefixed_error(errp, err, arg ? "%s %s: " : "%s: ", word, arg);
        return false;
    }
    return true;
}

bool cmdline_parse(int argc, char **argv, GError **errp)
{
    GArray **lists[] = {&start_config.objects,   &start_config.chardevs, &start_config.monitors,
                        &start_config.blockdevs, &start_config.drives,   &start_config.fds,
                        &start_config.traces,    &start_config.devices};

    for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
        *lists[i] = g_array_new(FALSE, FALSE, sizeof(DeferredOption));
    }
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-' || !argv[i][1]) {
            error_setg(errp, "%s: not an option; a disk is given with -drive file=%s or -blockdev",
                       argv[i], argv[i]);
            return false;
        }
        if (!parse_option(argc, argv, &i, errp)) {
            return false;
        }
    }
    return true;
}
