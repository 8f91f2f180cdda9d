/* SPDX-License-Identifier: GPL-2.0-or-later */
/* HMP commands that are QMP commands with their arguments in words: one row each. */
#include <string.h>
#include "chardev/char-opts.h"
#include "chardev/char.h"
#include "monitor/hmp-int.h"
#include "monitor/hmp.h"
#include "qapi/dispatch.h"
#include "qapi/keyval.h"
#include "qom/user-creatable.h"
#include "util/cutils.h"
#include "util/error.h"
#include "util/log.h"
#include "util/sockaddr.h"

typedef enum ArgKind {
    ARG_END,
    ARG_FLAG, /* "-f" for true; `flag` is the letter */
    ARG_STR,
    ARG_INT,
    ARG_SIZE,     /* bytes; M when there is no suffix */
    ARG_BOOL,     /* on or off */
    ARG_OPTIONAL, /* the next ones may be missing */
} ArgKind;

typedef struct ArgSpec {
    ArgKind kind;
    const char *member; /* of the QMP command's arguments */
    char flag;
} ArgSpec;

typedef struct QmpRow {
    HMPCommand cmd;
    const char *qmp;
    ArgSpec spec[8];
} QmpRow;

static HMPHandler run_row;

/* Names and words; the QMP command; what the words become. */
static const QmpRow rows[] = {
    {{"quit|q", "", "end the process", run_row, true}, "quit", {{ARG_END}}},
    {{"stop|s", "", "stop the guest", run_row, true}, "stop", {{ARG_END}}},
    {{"cont|c", "", "let the guest run", run_row}, "cont", {{ARG_END}}},
    {{"system_reset", "", "reset the guest", run_row}, "system_reset", {{ARG_END}}},
    {{"system_powerdown", "", "press the guest's power button", run_row},
     "system_powerdown",
     {{ARG_END}}},
    {{"memsave", "addr size file", "write a CPU's virtual memory to a file", run_row},
     "memsave",
     {{ARG_INT, "val"}, {ARG_INT, "size"}, {ARG_STR, "filename"}}},
    {{"pmemsave", "addr size file", "write physical memory to a file", run_row},
     "pmemsave",
     {{ARG_INT, "val"}, {ARG_INT, "size"}, {ARG_STR, "filename"}}},
    {{"block_job_cancel", "[-f] device",
      "end a job; -f: at once, without waiting for what it copies", run_row, true},
     "block-job-cancel",
     {{ARG_FLAG, "force", 'f'}, {ARG_STR, "device"}}},
    {{"block_job_complete", "device", "let a job that is ready finish", run_row},
     "block-job-complete",
     {{ARG_STR, "device"}}},
    {{"block_job_pause", "device", "pause a job", run_row},
     "block-job-pause",
     {{ARG_STR, "device"}}},
    {{"block_job_resume", "device", "let a paused job go on", run_row},
     "block-job-resume",
     {{ARG_STR, "device"}}},
    {{"block_job_set_speed", "device speed", "limit a job, in bytes a second", run_row},
     "block-job-set-speed",
     {{ARG_STR, "device"}, {ARG_SIZE, "speed"}}},
    {{"block_resize", "device size", "change the size of a disk", run_row},
     "block_resize",
     {{ARG_STR, "device"}, {ARG_SIZE, "size"}}},
    {{"block_set_io_throttle", "device bps bps_rd bps_wr iops iops_rd iops_wr",
      "limit a disk, in bytes and requests a second; 0: no limit", run_row},
     "block_set_io_throttle",
     {{ARG_STR, "device"},
      {ARG_INT, "bps"},
      {ARG_INT, "bps_rd"},
      {ARG_INT, "bps_wr"},
      {ARG_INT, "iops"},
      {ARG_INT, "iops_rd"},
      {ARG_INT, "iops_wr"}}},
    {{"block_stream", "device [speed [base]]", "copy from the backing files into a disk", run_row},
     "block-stream",
     {{ARG_STR, "device"}, {ARG_OPTIONAL}, {ARG_SIZE, "speed"}, {ARG_STR, "base"}}},
    {{"nbd_server_add", "[-w] device [name]", "export a disk; -w: writable", run_row},
     "nbd-server-add",
     {{ARG_FLAG, "writable", 'w'}, {ARG_STR, "device"}, {ARG_OPTIONAL}, {ARG_STR, "name"}}},
    {{"nbd_server_remove", "name", "end an export", run_row},
     "nbd-server-remove",
     {{ARG_STR, "name"}}},
    {{"nbd_server_stop", "", "end the NBD server", run_row}, "nbd-server-stop", {{ARG_END}}},
    {{"chardev-remove", "id", "remove a character device", run_row},
     "chardev-remove",
     {{ARG_STR, "id"}}},
    {{"object_del", "id", "destroy an object", run_row}, "object-del", {{ARG_STR, "id"}}},
    {{"closefd", "name", "close a descriptor passed with getfd", run_row},
     "closefd",
     {{ARG_STR, "fdname"}}},
    {{"trace-event", "name on|off", "switch trace events; name may be a pattern", run_row},
     "trace-event-set-state",
     {{ARG_STR, "name"}, {ARG_BOOL, "enable"}}},
    {{"change-backing-file", "device image-node-name backing-file",
      "rewrite an image's backing file name", run_row},
     "change-backing-file",
     {{ARG_STR, "device"}, {ARG_STR, "image-node-name"}, {ARG_STR, "backing-file"}}},
    {{"snapshot_blkdev", "device [new-image-file [format]]", "put a new image on top of a disk",
      run_row},
     "blockdev-snapshot-sync",
     {{ARG_STR, "device"}, {ARG_STR, "snapshot-file"}, {ARG_OPTIONAL}, {ARG_STR, "format"}}},
};

/* The value of a word, or NULL and errp. */
static json_object *convert(const ArgSpec *spec, const char *word, GError **errp)
{
    uint64_t size;
    int64_t number;
    bool on;

    switch (spec->kind) {
    case ARG_INT:
        if (qemu_strtoi64(word, NULL, 0, &number) < 0) {
            error_setg(errp, "'%s' is not a number", word);
            return NULL;
        }
        return json_object_new_int64(number);
    case ARG_SIZE:
        if (qemu_strtosz_MiB(word, NULL, &size) < 0 || size > INT64_MAX) {
            error_setg(errp, "'%s' is not a size", word);
            return NULL;
        }
        return json_object_new_int64((int64_t)size);
    case ARG_BOOL:
        if (!qemu_parse_bool(spec->member, word, &on, errp)) {
            return NULL;
        }
        return json_object_new_boolean(on);
    default:
        return json_object_new_string(word);
    }
}

/* Takes "-f" and the like from the front of the words. */
static bool take_flags(const ArgSpec *spec, json_object *args, int *argc, char ***argv,
                       GError **errp)
{
    for (; *argc && (*argv)[0][0] == '-' && (*argv)[0][1]; (*argc)--, (*argv)++) {
        const ArgSpec *found = NULL;

        for (size_t i = 0; spec[i].kind != ARG_END; i++) {
            if (spec[i].kind == ARG_FLAG && (*argv)[0][1] == spec[i].flag && !(*argv)[0][2]) {
                found = &spec[i];
            }
        }
        if (!found) {
            error_setg(errp, "unsupported option %s", (*argv)[0]);
            return false;
        }
        json_object_object_add(args, found->member, json_object_new_boolean(true));
    }
    return true;
}

static bool fill_args(const QmpRow *row, json_object *args, int argc, char **argv, GError **errp)
{
    bool optional = false;

    if (!take_flags(row->spec, args, &argc, &argv, errp)) {
        return false;
    }
    for (const ArgSpec *spec = row->spec; spec->kind != ARG_END; spec++) {
        json_object *value;

        optional |= spec->kind == ARG_OPTIONAL;
        if (spec->kind == ARG_OPTIONAL || spec->kind == ARG_FLAG) {
            continue;
        }
        if (!argc) {
            if (!optional) {
                error_setg(errp, "%s: too few arguments; usage: %s %s", row->cmd.name,
                           row->cmd.name, row->cmd.args);
            }
            return optional;
        }
        value = convert(spec, argv[0], errp);
        if (!value) {
            return false;
        }
        json_object_object_add(args, spec->member, value);
        argc--;
        argv++;
    }
    return true;
}

static void coroutine_fn run_row(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    const QmpRow *row = (const QmpRow *)cmd;
    json_object *args = json_object_new_object();
    GError *err = NULL;

    if (!fill_args(row, args, argc, argv, &err)) {
        hmp_error(out, err);
        json_object_put(args);
        return;
    }
    if (!json_object_object_length(args)) {
        json_object_put(args);
        args = NULL;
    }
    json_object_put(hmp_co_qmp(out, row->qmp, args));
}

/* --- commands whose words need more than a row --- */

static void coroutine_fn hmp_co_drive_mirror(HMPOutput *out, const HMPCommand *cmd, int argc,
                                             char **argv)
{
    json_object *args = json_object_new_object();
    bool reuse = false, full = false;

    for (; argc && argv[0][0] == '-'; argc--, argv++) {
        reuse |= !strcmp(argv[0], "-n");
        full |= !strcmp(argv[0], "-f");
    }
    if (argc < 2 || argc > 3) {
        hmp_printf(out, "Error: usage: %s %s\n", cmd->name, cmd->args);
        json_object_put(args);
        return;
    }
    json_object_object_add(args, "device", json_object_new_string(argv[0]));
    json_object_object_add(args, "target", json_object_new_string(argv[1]));
    if (argc == 3) {
        json_object_object_add(args, "format", json_object_new_string(argv[2]));
    }
    json_object_object_add(args, "sync", json_object_new_string(full ? "full" : "top"));
    json_object_object_add(args, "mode",
                           json_object_new_string(reuse ? "existing" : "absolute-paths"));
    json_object_put(hmp_co_qmp(out, "drive-mirror", args));
}

static void coroutine_fn hmp_co_object_add(HMPOutput *out, const HMPCommand *cmd, int argc,
                                           char **argv)
{
    g_autoptr(ObjectOptions) options = NULL;
    QapiDecodeFlags flags = QAPI_DECODE_JSON;
    json_object *json;
    GError *err = NULL;

    if (argc != 1) {
        hmp_printf(out, "Error: usage: %s %s\n", cmd->name, cmd->args);
        return;
    }
    json = keyval_parse_or_json(argv[0], "qom-type", NULL, &flags, &err);
    options = json ? ObjectOptions_from_json(json, flags, &err) : NULL;
    json_object_put(json);
    if (!options || !user_creatable_co_add(options, &err)) {
        hmp_error(out, err);
    }
}

static void coroutine_fn hmp_co_chardev_add(HMPOutput *out, const HMPCommand *cmd, int argc,
                                            char **argv)
{
    g_autoptr(ChardevBackend) backend = NULL;
    g_autofree char *id = NULL;
    GError *err = NULL;
    bool shared;

    if (argc != 1) {
        hmp_printf(out, "Error: usage: %s %s\n", cmd->name, cmd->args);
        return;
    }
    backend = chardev_parse_option(argv[0], &id, &shared, &err);
    if (!backend || !(shared ? qemu_chr_co_new_shared : qemu_chr_co_new)(id, backend, &err)) {
        hmp_error(out, err);
    }
}

static void coroutine_fn hmp_co_log(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    GError *err = NULL;

    if (argc != 1) {
        hmp_printf(out, "Error: usage: %s %s\n", cmd->name, cmd->args);
    } else if (!qemu_set_log_items(argv[0], &err)) {
        hmp_error(out, err);
    }
}

/* The SocketAddressLegacy of an address. */
static json_object *legacy_address_json(const FerrySockAddr *addr)
{
    json_object *json = json_object_new_object(), *data = json_object_new_object();
    bool inet = addr->type == FERRY_SOCK_INET;

    if (inet) {
        json_object_object_add(data, "host", json_object_new_string(addr->inet.host));
        json_object_object_add(data, "port", json_object_new_string(addr->inet.port));
    } else {
        json_object_object_add(data, "path", json_object_new_string(addr->un.path));
    }
    json_object_object_add(json, "type", json_object_new_string(inet ? "inet" : "unix"));
    json_object_object_add(json, "data", data);
    return json;
}

static void coroutine_fn hmp_co_nbd_server_start(HMPOutput *out, const HMPCommand *cmd, int argc,
                                                 char **argv)
{
    bool all = false, writable = false;
    json_object *args, *blocks;
    g_autoptr(FerrySockAddr) addr = NULL;
    GError *err = NULL;

    for (; argc && argv[0][0] == '-'; argc--, argv++) {
        all |= !strcmp(argv[0], "-a");
        writable |= !strcmp(argv[0], "-w");
    }
    if (argc != 1 || (writable && !all)) {
        hmp_printf(out, "Error: usage: %s %s (-w only with -a)\n", cmd->name, cmd->args);
        return;
    }
    addr = ferry_sockaddr_parse(argv[0], &err);
    if (addr && addr->type != FERRY_SOCK_INET && addr->type != FERRY_SOCK_UNIX) {
        error_setg(&err, "expected HOST:PORT or unix:PATH");
    }
    if (!addr || err) {
        hmp_error(out, err);
        return;
    }
    args = json_object_new_object();
    json_object_object_add(args, "addr", legacy_address_json(addr));
    args = hmp_co_qmp(out, "nbd-server-start", args);
    if (!args || !all) {
        json_object_put(args);
        return;
    }
    json_object_put(args);
    blocks = hmp_co_qmp(out, "query-block", NULL);
    for (size_t i = 0; blocks && i < json_object_array_length(blocks); i++) {
        json_object *block = json_object_array_get_idx(blocks, i), *device;

        if (!json_object_object_get_ex(block, "inserted", NULL) ||
            !json_object_object_get_ex(block, "device", &device)) {
            continue;
        }
        args = json_object_new_object();
        json_object_object_add(args, "device", json_object_get(device));
        json_object_object_add(args, "writable", json_object_new_boolean(writable));
        json_object_put(hmp_co_qmp(out, "nbd-server-add", args));
    }
    json_object_put(blocks);
}

void hmp_register_qmp_commands(void)
{
    static const HMPCommand others[] = {
        {"drive_mirror", "[-n] [-f] device target [format]",
         "copy a disk to a new file while it is in use; -f: with its backing files, -n: the target "
         "exists",
         hmp_co_drive_mirror},
        {"nbd_server_start", "[-a] [-w] host:port|unix:path",
         "start the NBD server; -a: export all disks, -w: writable", hmp_co_nbd_server_start},
        {"object_add", "qom-type=type,id=id[,key=value...]", "make an object", hmp_co_object_add},
        {"chardev-add", "type,id=id[,key=value...]", "make a character device", hmp_co_chardev_add},
        {"log", "item[,...]|none", "choose what goes to the log", hmp_co_log},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (qmp_find_command(rows[i].qmp)) {
            hmp_register_command(&rows[i].cmd);
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
        hmp_register_command(&others[i]);
    }
}
