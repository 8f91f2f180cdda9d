/* SPDX-License-Identifier: GPL-2.0-or-later */
/* HMP: the tables of commands, and running a line. */
#include "monitor/hmp.h"

#include <stdarg.h>
#include <string.h>
#include "monitor/command-gate.h"
#include "monitor/hmp-int.h"
#include "monitor/monitor-int.h"
#include "qapi/dispatch.h"
#include "qapi/qapi-commands-misc.h"
#include "util/cutils.h"
#include "util/error.h"

struct HMPOutput {
    GString *text;
    bool may_wait;
};

static struct {
    GPtrArray *commands, *infos; /* const HMPCommand, by name */
} hmp;

/* --- tables --- */

static int by_name(gconstpointer a, gconstpointer b)
{
    return strcmp((*(const HMPCommand *const *)a)->name, (*(const HMPCommand *const *)b)->name);
}

static void add(GPtrArray **table, const HMPCommand *cmd)
{
    if (!*table) {
        *table = g_ptr_array_new();
    }
    g_ptr_array_add(*table, (gpointer)cmd);
}

void hmp_register_command(const HMPCommand *cmd)
{
    add(&hmp.commands, cmd);
}

void hmp_register_info(const HMPCommand *cmd)
{
    add(&hmp.infos, cmd);
}

static const HMPCommand *find(GPtrArray *table, const char *word)
{
    for (guint i = 0; table && *word && i < table->len; i++) {
        const HMPCommand *cmd = g_ptr_array_index(table, i);

        if (word_is_one_of(cmd->name, word)) {
            return cmd;
        }
    }
    return NULL;
}

/* --- output --- */

void hmp_printf(HMPOutput *out, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_string_append_vprintf(out->text, fmt, ap);
    va_end(ap);
}

bool hmp_may_wait(const HMPOutput *out)
{
    return out->may_wait;
}

void hmp_error(HMPOutput *out, GError *err)
{
    if (err) {
        hmp_printf(out, "Error: %s\n", err->message);
        g_error_free(err);
    }
}

json_object *coroutine_fn hmp_co_qmp(HMPOutput *out, const char *command, json_object *args)
{
    const QmpCommand *cmd = qmp_find_command(command);
    json_object *result = NULL;
    GError *err = NULL;

    if (!cmd) {
        hmp_printf(out, "Error: The command %s has not been found\n", command);
    } else if (!qmp_command_co_run(cmd, args, &result, &err)) {
        hmp_error(out, err);
        result = NULL;
    }
    json_object_put(args);
    return result;
}

/* --- words --- */

/* Whether the usage text has the option "-c". */
static bool has_option(const char *args, const char *option)
{
    g_autofree char *token = g_strdup_printf("[%s]", option);

    return strstr(args, token);
}

/* How many words the usage text has besides options. */
static int count_words(const char *args)
{
    g_auto(GStrv) tokens = g_strsplit(args, " ", -1);
    int n = 0;

    for (size_t i = 0; tokens[i]; i++) {
        n += *tokens[i] && !g_str_has_prefix(tokens[i], "[-");
    }
    return n;
}

/* Runs a command whose words fit its usage text; `prefix` is "" or "info ". */
static void coroutine_fn run_command(HMPOutput *out, const HMPCommand *cmd, const char *prefix,
                                     int argc, char **argv)
{
    int options = 0;
    const char *why = NULL;

    while (options < argc && argv[options][0] == '-' && g_ascii_isalpha(argv[options][1]) && !why) {
        if (has_option(cmd->args, argv[options])) {
            options++;
        } else {
            why = argv[options];
        }
    }
    if (why) {
        hmp_printf(out, "%s%s: unsupported option %s\n", prefix, cmd->name, why);
    } else if (argc - options > count_words(cmd->args)) {
        hmp_printf(out, "%s%s: extraneous characters at the end of line\n", prefix, cmd->name);
    } else {
        cmd->handler(out, cmd, argc, argv);
        return;
    }
    hmp_printf(out, "Try \"help %s%.*s\" for more information\n", prefix,
               (int)strcspn(cmd->name, "|"), cmd->name);
}

/* --- help --- */

/* `only` (NULL: all) must be the name of one. */
static void print_help(HMPOutput *out, GPtrArray *table, const char *prefix, const char *only)
{
    if (only && !find(table, only)) {
        hmp_printf(out, "unknown command: '%s%s'\n", prefix, only);
        return;
    }
    g_ptr_array_sort(table, by_name);
    for (guint i = 0; i < table->len; i++) {
        const HMPCommand *cmd = g_ptr_array_index(table, i);

        if (!only || word_is_one_of(cmd->name, only)) {
            hmp_printf(out, "%s%s%s%s -- %s\n", prefix, cmd->name, *cmd->args ? " " : "", cmd->args,
                       cmd->help);
        }
    }
}

static void coroutine_fn hmp_co_help(HMPOutput *out, const HMPCommand *self, int argc, char **argv)
{
    if (argc && !strcmp(argv[0], "info")) {
        print_help(out, hmp.infos, "info ", argc > 1 ? argv[1] : NULL);
    } else {
        print_help(out, hmp.commands, "", argc ? argv[0] : NULL);
    }
}

static void coroutine_fn hmp_co_info(HMPOutput *out, const HMPCommand *self, int argc, char **argv)
{
    const HMPCommand *cmd = argc ? find(hmp.infos, argv[0]) : NULL;

    if (!argc) {
        print_help(out, hmp.infos, "info ", NULL);
    } else if (!cmd) {
        hmp_printf(out, "unknown command: 'info %s'\n", argv[0]);
    } else {
        run_command(out, cmd, "info ", argc - 1, argv + 1);
    }
}

/* --- completion --- */

/* Adds the names of a table's commands that begin with `prefix`, the aliases left out. */
static void add_matches(GPtrArray *matches, GPtrArray *table, const char *prefix)
{
    g_ptr_array_sort(table, by_name);
    for (guint i = 0; i < table->len; i++) {
        const HMPCommand *cmd = g_ptr_array_index(table, i);
        size_t len = strcspn(cmd->name, "|");

        if (g_str_has_prefix(cmd->name, prefix) && strlen(prefix) <= len) {
            g_ptr_array_add(matches, g_strndup(cmd->name, len));
        }
    }
}

GStrv hmp_complete(const char *text)
{
    g_auto(GStrv) words = g_strsplit(text, " ", -1);
    GPtrArray *matches = g_ptr_array_new();
    guint n = g_strv_length(words);

    if (n <= 1) {
        add_matches(matches, hmp.commands, n ? words[0] : "");
    } else if (n == 2 && (!strcmp(words[0], "help") || !strcmp(words[0], "?"))) {
        add_matches(matches, hmp.commands, words[1]);
    } else if ((n == 2 || (n == 3 && !strcmp(words[0], "help"))) && !strcmp(words[n - 2], "info")) {
        add_matches(matches, hmp.infos, words[n - 1]);
    }
    g_ptr_array_add(matches, NULL);
    return (GStrv)g_ptr_array_free(matches, FALSE);
}

/* --- running a line --- */

static void coroutine_fn run_words(HMPOutput *out, int argc, char **argv)
{
    const HMPCommand *cmd = find(hmp.commands, argv[0]);
    GError *err = NULL;

    if (!cmd) {
        hmp_printf(out, "unknown command: '%s'\n", argv[0]);
    } else if (cmd->handler == hmp_co_info) {
        hmp_co_info(out, cmd, argc - 1, argv + 1); /* its words are those of what it leads to */
    } else if (cmd->any_time) {
        run_command(out, cmd, "", argc - 1, argv + 1);
    } else if (command_gate_enter(&err)) {
        run_command(out, cmd, "", argc - 1, argv + 1);
        command_gate_leave();
    } else {
        hmp_error(out, err);
    }
}

char *coroutine_fn hmp_co_run_line(const char *line, bool may_wait)
{
    HMPOutput out = {.text = g_string_new(NULL), .may_wait = may_wait};
    g_auto(GStrv) argv = NULL;
    g_autoptr(GError) err = NULL;
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    int argc;

    while (g_ascii_isspace(*line)) {
        line++;
    }
    if (*line && *line != '#') {
        if (g_shell_parse_argv(line, &argc, &argv, &err)) {
            run_words(&out, argc, argv);
        } else {
            hmp_printf(&out, "%s\n", err->message);
        }
    }
    /*
     * Terminals want both characters, and programs that read human-monitor-command have come to
     * expect them.
     */
    text = g_string_free(out.text, FALSE);
    lines = g_strsplit(text, "\n", -1);
    return g_strjoinv("\r\n", lines);
}

bool coroutine_fn qmp_human_monitor_command(const HumanMonitorCommandArg *arg, char **ret,
                                            GError **errp)
{
    *ret = hmp_co_run_line(arg->command_line, false);
    return true;
}

void hmp_init(void)
{
    static const HMPCommand builtin[] = {
        {"help|?", "[command [subcommand]]", "show the commands, or one of them", hmp_co_help,
         true},
        {"info", "[subcommand]", "show what is known about something", hmp_co_info},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(builtin); i++) {
        hmp_register_command(&builtin[i]);
    }
    hmp_register_qmp_commands();
    hmp_register_block_commands();
    hmp_register_memory_commands();
    hmp_register_migration_commands();
    hmp_register_snapshot_commands();
    hmp_register_device_commands();
    hmp_register_infos();
}
