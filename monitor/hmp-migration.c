/* SPDX-License-Identifier: GPL-2.0-or-later */
/* HMP: sending a guest away, taking one in, and what is known about it. */
#include <string.h>
#include "accel/runstate.h"
#include "migration/options.h"
#include "monitor/hmp-int.h"
#include "monitor/hmp.h"
#include "util/cutils.h"
#include "util/error.h"
#include "util/timer.h"

/* How often a command that waits for a migration looks at its state. */
#define MIGRATE_POLL_NS (100 * SCALE_MS)

static json_object *member(json_object *json, const char *name)
{
    json_object *value = NULL;

    return json_object_object_get_ex(json, name, &value) ? value : NULL;
}

static const char *text(json_object *json, const char *name)
{
    json_object *value = member(json, name);

    return value ? json_object_get_string(value) : "";
}

static bool usage(HMPOutput *out, const HMPCommand *cmd, bool ok)
{
    if (!ok) {
        hmp_printf(out, "Error: usage: %s %s\n", cmd->name, cmd->args);
    }
    return ok;
}

/* --- sending and taking in --- */

static bool status_is_final(const char *status)
{
    static const char *const final[] = {"", "none", "completed", "failed", "cancelled", NULL};

    return g_strv_contains(final, status);
}

/* Until the migration is over, or the process is to end. */
static void coroutine_fn wait_for_migration(HMPOutput *out)
{
    bool over = false;

    while (!over && qemu_shutdown_cause() == SHUTDOWN_CAUSE_NONE) {
        json_object *info = hmp_co_qmp(out, "query-migrate", NULL);

        over = !info || status_is_final(text(info, "status"));
        if (over && info && *text(info, "error-desc")) {
            hmp_printf(out, "Error: %s\n", text(info, "error-desc"));
        }
        json_object_put(info);
        if (!over) {
            qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, MIGRATE_POLL_NS);
        }
    }
}

static void coroutine_fn hmp_co_migrate(HMPOutput *out, const HMPCommand *cmd, int argc,
                                        char **argv)
{
    json_object *args, *result;
    bool detach = false, resume = false, ok = true;

    for (; argc && argv[0][0] == '-'; argc--, argv++) {
        detach |= !strcmp(argv[0], "-d");
        resume |= !strcmp(argv[0], "-r");
        ok &= !strcmp(argv[0], "-d") || !strcmp(argv[0], "-r");
    }
    if (!usage(out, cmd, ok && argc == 1)) {
        return;
    }
    args = json_object_new_object();
    json_object_object_add(args, "uri", json_object_new_string(argv[0]));
    json_object_object_add(args, "resume", json_object_new_boolean(resume));
    result = hmp_co_qmp(out, "migrate", args);
    if (result && !detach) {
        if (hmp_may_wait(out)) {
            wait_for_migration(out);
        } else {
            hmp_printf(out,
                       "this monitor does not wait: the migration goes on in the background\n");
        }
    }
    json_object_put(result);
}

/* Commands with one word that is one argument. */
static void coroutine_fn run_with_word(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv,
                                       const char *qmp, const char *name)
{
    json_object *args = NULL;

    if (!usage(out, cmd, argc == (name ? 1 : 0))) {
        return;
    }
    if (name) {
        args = json_object_new_object();
        json_object_object_add(args, name, json_object_new_string(argv[0]));
    }
    json_object_put(hmp_co_qmp(out, qmp, args));
}

static void coroutine_fn hmp_co_migrate_cancel(HMPOutput *out, const HMPCommand *cmd, int argc,
                                               char **argv)
{
    run_with_word(out, cmd, argc, argv, "migrate_cancel", NULL);
}

static void coroutine_fn hmp_co_migrate_continue(HMPOutput *out, const HMPCommand *cmd, int argc,
                                                 char **argv)
{
    run_with_word(out, cmd, argc, argv, "migrate-continue", "state");
}

static void coroutine_fn hmp_co_migrate_incoming(HMPOutput *out, const HMPCommand *cmd, int argc,
                                                 char **argv)
{
    run_with_word(out, cmd, argc, argv, "migrate-incoming", "uri");
}

/* --- settings --- */

static void coroutine_fn hmp_co_set_capability(HMPOutput *out, const HMPCommand *cmd, int argc,
                                               char **argv)
{
    json_object *args, *list, *item;
    bool on = false;
    GError *err = NULL;

    if (!usage(out, cmd, argc == 2)) {
        return;
    }
    if (!qemu_parse_bool("state", argv[1], &on, &err)) {
        hmp_error(out, err);
        return;
    }
    item = json_object_new_object();
    json_object_object_add(item, "capability", json_object_new_string(argv[0]));
    json_object_object_add(item, "state", json_object_new_boolean(on));
    list = json_object_new_array();
    json_object_array_add(list, item);
    args = json_object_new_object();
    json_object_object_add(args, "capabilities", list);
    json_object_put(hmp_co_qmp(out, "migrate-set-capabilities", args));
}

/* People give these in MiB when they give no unit. */
static bool is_in_mib(const char *name)
{
    return !strcmp(name, "max-bandwidth") || !strcmp(name, "avail-switchover-bandwidth");
}

static void coroutine_fn hmp_co_set_parameter(HMPOutput *out, const HMPCommand *cmd, int argc,
                                              char **argv)
{
    g_autoptr(MigrationParameters) params = NULL;
    g_autofree char *value = NULL;
    json_object *json;
    GError *err = NULL;

    if (!usage(out, cmd, argc == 2)) {
        return;
    }
    value = is_in_mib(argv[0]) && *argv[1] && g_ascii_isdigit(argv[1][strlen(argv[1]) - 1])
                ? g_strconcat(argv[1], "M", NULL)
                : g_strdup(argv[1]);
    json = json_object_new_object();
    json_object_object_add(json, argv[0], json_object_new_string(value));
    params = MigrationParameters_from_json(json, QAPI_DECODE_KEYVAL | QAPI_DECODE_SUFFIXES, &err);
    json_object_put(json);
    if (!params) {
        hmp_error(out, err);
        return;
    }
    json_object_put(hmp_co_qmp(out, "migrate-set-parameters", MigrationParameters_to_json(params)));
}

static void coroutine_fn info_capabilities(HMPOutput *out, const HMPCommand *cmd, int argc,
                                           char **argv)
{
    json_object *list = hmp_co_qmp(out, "query-migrate-capabilities", NULL);

    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        json_object *item = json_object_array_get_idx(list, i);

        hmp_printf(out, "%s: %s\n", text(item, "capability"),
                   json_object_get_boolean(member(item, "state")) ? "on" : "off");
    }
    json_object_put(list);
}

static const char *parameter_unit(const char *name)
{
    static const struct {
        const char *name, *unit;
    } units[] = {
        {"announce-initial", " ms"},
        {"announce-max", " ms"},
        {"announce-step", " ms"},
        {"max-bandwidth", " bytes/second"},
        {"avail-switchover-bandwidth", " bytes/second"},
        {"downtime-limit", " ms"},
        {"xbzrle-cache-size", " bytes"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(units); i++) {
        if (!strcmp(name, units[i].name)) {
            return units[i].unit;
        }
    }
    return "";
}

static void coroutine_fn info_parameters(HMPOutput *out, const HMPCommand *cmd, int argc,
                                         char **argv)
{
    json_object *params = hmp_co_qmp(out, "query-migrate-parameters", NULL);

    if (params) {
        json_object_object_foreach(params, name, value)
        {
            const char *word = json_object_get_string(value);

            if (json_object_is_type(value, json_type_boolean)) {
                hmp_printf(out, "%s: %s\n", name, json_object_get_boolean(value) ? "on" : "off");
            } else if (g_str_has_prefix(name, "tls-")) {
                hmp_printf(out, "%s: '%s'\n", name, word);
            } else {
                hmp_printf(out, "%s: %s%s\n", name, word, parameter_unit(name));
            }
        }
    }
    json_object_put(params);
}

/* --- info migrate --- */

typedef struct InfoRow {
    const char *member, *label, *unit;
    int64_t divisor; /* 0: printed as it is */
} InfoRow;

static const InfoRow info_rows[] = {
    {"total-time", "total time", " ms", 0},
    {"expected-downtime", "expected downtime", " ms", 0},
    {"downtime", "downtime", " ms", 0},
    {"setup-time", "setup", " ms", 0},
    {"remaining", "remaining", " kbytes", 1024},
    {"cpu-throttle-percentage", "cpu throttle percentage", "", 0},
};

static const InfoRow ram_rows[] = {
    {"transferred", "transferred ram", " kbytes", 1024},
    {"mbps", "throughput", " mbps", 0},
    {"remaining", "remaining ram", " kbytes", 1024},
    {"total", "total ram", " kbytes", 1024},
    {"duplicate", "duplicate", " pages", 0},
    {"normal", "normal", " pages", 0},
    {"normal-bytes", "normal bytes", " kbytes", 1024},
    {"dirty-sync-count", "dirty sync count", "", 0},
    {"page-size", "page size", " kbytes", 1024},
    {"multifd-bytes", "multifd bytes", " kbytes", 1024},
    {"pages-per-second", "pages-per-second", "", 0},
    {"dirty-pages-rate", "dirty pages rate", " pages", 0},
    {"precopy-bytes", "precopy ram", " kbytes", 1024},
    {"downtime-bytes", "downtime ram", " kbytes", 1024},
    {"postcopy-requests", "postcopy request count", "", 0},
    {"dirty-sync-missed-zero-copy", "dirty sync missed zero copy", "", 0},
};

static const InfoRow xbzrle_rows[] = {
    {"cache-size", "cache size", " bytes", 0},
    {"bytes", "xbzrle transferred", " kbytes", 1024},
    {"pages", "xbzrle pages", " pages", 0},
    {"cache-miss", "xbzrle cache miss", " pages", 0},
    {"cache-miss-rate", "xbzrle cache miss rate", "", 0},
    {"encoding-rate", "xbzrle encoding rate", "", 0},
    {"overflow", "xbzrle overflow", "", 0},
};

static const InfoRow downtime_rows[] = {
    {"stop", "downtime: stop", " ms", 0},
    {"last-sync", "downtime: last sync", " ms", 0},
    {"last-pages", "downtime: last pages", " ms", 0},
    {"device-state", "downtime: device state", " ms", 0},
    {"peer-load", "downtime: load at the destination", " ms", 0},
    {"resume", "downtime: resume", " ms", 0},
};

static void print_rows(HMPOutput *out, json_object *json, const InfoRow *rows, size_t n)
{
    for (size_t i = 0; json && i < n; i++) {
        json_object *value = member(json, rows[i].member);

        if (!value) {
            continue;
        }
        if (json_object_is_type(value, json_type_double)) {
            hmp_printf(out, "%s: %.2f%s\n", rows[i].label, json_object_get_double(value),
                       rows[i].unit);
        } else {
            hmp_printf(out, "%s: %" G_GUINT64_FORMAT "%s\n", rows[i].label,
                       json_object_get_uint64(value) / (rows[i].divisor ? rows[i].divisor : 1),
                       rows[i].unit);
        }
    }
}

#define PRINT_ROWS(out, json, rows) print_rows(out, json, rows, G_N_ELEMENTS(rows))

static void print_list(HMPOutput *out, const char *title, json_object *list)
{
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        hmp_printf(out, "%s%s\n", i ? "" : title,
                   json_object_get_string(json_object_array_get_idx(list, i)));
    }
}

static void print_addresses(HMPOutput *out, json_object *list)
{
    hmp_printf(out, "socket address: [\n");
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        json_object *addr = json_object_array_get_idx(list, i);
        const char *type = text(addr, "type");

        if (!strcmp(type, "inet")) {
            hmp_printf(out, "\ttcp:%s:%s\n", text(addr, "host"), text(addr, "port"));
        } else if (!strcmp(type, "vsock")) {
            hmp_printf(out, "\tvsock:%s:%s\n", text(addr, "cid"), text(addr, "port"));
        } else {
            hmp_printf(out, "\t%s:%s\n", type, text(addr, strcmp(type, "fd") ? "path" : "str"));
        }
    }
    hmp_printf(out, "]\n");
}

static void coroutine_fn info_migrate(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    json_object *info = hmp_co_qmp(out, "query-migrate", NULL);

    if (!info) {
        return;
    }
    print_list(out, "Migration blocked reasons:\n", member(info, "blocked-reasons"));
    if (*text(info, "status")) {
        hmp_printf(out, "Migration status: %s", text(info, "status"));
        hmp_printf(out, *text(info, "error-desc") ? " (%s)\n" : "%s\n", text(info, "error-desc"));
    }
    PRINT_ROWS(out, info, info_rows);
    PRINT_ROWS(out, member(info, "ram"), ram_rows);
    PRINT_ROWS(out, member(info, "xbzrle-cache"), xbzrle_rows);
    PRINT_ROWS(out, member(info, "x-downtime"), downtime_rows);
    if (member(info, "socket-address")) {
        print_addresses(out, member(info, "socket-address"));
    }
    json_object_put(info);
}

/* --- how fast memory changes; announcements --- */

static void coroutine_fn hmp_co_calc_dirty_rate(HMPOutput *out, const HMPCommand *cmd, int argc,
                                                char **argv)
{
    json_object *args, *result;
    bool bitmap = false, ok = true;
    int64_t seconds = 0, pages = 0;

    for (; argc && argv[0][0] == '-'; argc--, argv++) {
        ok &= !strcmp(argv[0], "-b");
        bitmap = true;
    }
    ok &= argc >= 1 && argc <= 2 && qemu_strtoi64(argv[0], NULL, 10, &seconds) == 0 &&
          (argc < 2 || qemu_strtoi64(argv[1], NULL, 10, &pages) == 0);
    if (!usage(out, cmd, ok)) {
        return;
    }
    args = json_object_new_object();
    json_object_object_add(args, "calc-time", json_object_new_int64(seconds));
    if (argc == 2) {
        json_object_object_add(args, "sample-pages", json_object_new_int64(pages));
    }
    if (bitmap) {
        json_object_object_add(args, "mode", json_object_new_string("dirty-bitmap"));
    }
    result = hmp_co_qmp(out, "calc-dirty-rate", args);
    if (result) {
        hmp_printf(out,
                   "Starting dirty rate measurement with period %s seconds\n"
                   "[Please use 'info dirty_rate' to check results]\n",
                   argv[0]);
    }
    json_object_put(result);
}

static void coroutine_fn info_dirty_rate(HMPOutput *out, const HMPCommand *cmd, int argc,
                                         char **argv)
{
    json_object *info = hmp_co_qmp(out, "query-dirty-rate", NULL);

    if (info) {
        hmp_printf(out, "Status: %s\nStart Time: %s (ms)\n", text(info, "status"),
                   text(info, "start-time"));
        hmp_printf(out, "Sample Pages: %s (per GB)\nPeriod: %s (sec)\nMode: %s\n",
                   text(info, "sample-pages"), text(info, "calc-time"), text(info, "mode"));
        hmp_printf(out, member(info, "dirty-rate") ? "Dirty rate: %s (MB/s)\n" : "Dirty rate: %s\n",
                   member(info, "dirty-rate") ? text(info, "dirty-rate") : "(not ready)");
    }
    json_object_put(info);
}

/* "announce_self [interfaces [id]]", with interfaces as a list with commas. */
static void coroutine_fn hmp_co_announce_self(HMPOutput *out, const HMPCommand *cmd, int argc,
                                              char **argv)
{
    static const char *const times[] = {"initial", "max", "rounds", "step"};
    json_object *args, *params;

    if (!usage(out, cmd, argc <= 2)) {
        return;
    }
    params = hmp_co_qmp(out, "query-migrate-parameters", NULL);
    if (!params) {
        return;
    }
    args = json_object_new_object();
    for (size_t i = 0; i < G_N_ELEMENTS(times); i++) {
        g_autofree char *name = g_strconcat("announce-", times[i], NULL);

        json_object_object_add(args, times[i], json_object_get(member(params, name)));
    }
    json_object_put(params);
    if (argc && *argv[0]) {
        g_auto(GStrv) names = g_strsplit(argv[0], ",", -1);
        json_object *list = json_object_new_array();

        for (char **name = names; *name; name++) {
            json_object_array_add(list, json_object_new_string(*name));
        }
        json_object_object_add(args, "interfaces", list);
    }
    if (argc == 2) {
        json_object_object_add(args, "id", json_object_new_string(argv[1]));
    }
    json_object_put(hmp_co_qmp(out, "announce-self", args));
}

void hmp_register_migration_commands(void)
{
    static const HMPCommand commands[] = {
        {"migrate", "[-d] [-r] uri",
         "send the guest away; -d: do not wait until it has arrived, -r: go on after a lost "
         "connection",
         hmp_co_migrate},
        {"migrate_cancel", "", "keep the guest here", hmp_co_migrate_cancel, true},
        {"migrate_continue", "state", "go on with a migration that waits in a state",
         hmp_co_migrate_continue},
        {"migrate_incoming", "uri", "wait for a guest, after -incoming defer",
         hmp_co_migrate_incoming},
        {"migrate_set_capability", "capability on|off", "switch a capability of migrations",
         hmp_co_set_capability},
        {"migrate_set_parameter", "parameter value", "set a parameter of migrations",
         hmp_co_set_parameter},
        {"calc_dirty_rate", "[-b] second [sample_pages_per_GB]",
         "measure how fast memory changes; -b: by the dirty log", hmp_co_calc_dirty_rate},
        {"announce_self", "[interfaces [id]]", "tell the network where the guest's cards are",
         hmp_co_announce_self},
    };
    static const HMPCommand infos[] = {
        {"migrate", "", "the present or last migration", info_migrate},
        {"migrate_capabilities", "", "capabilities of migrations", info_capabilities},
        {"migrate_parameters", "", "parameters of migrations", info_parameters},
        {"dirty_rate", "", "how fast memory changes", info_dirty_rate},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        hmp_register_command(&commands[i]);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(infos); i++) {
        hmp_register_info(&infos[i]);
    }
}
