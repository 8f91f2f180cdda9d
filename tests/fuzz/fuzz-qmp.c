/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer: bytes of a QMP client, from the JSON stream over the session's queue to dispatch, the
 * handlers and the reply.
 *
 * The first byte says in pieces of what size the rest arrives. Its highest bit asks for a session
 * that has negotiated and has some disks, so that a short input reaches handlers. The handlers run
 * only if every request of the input stays within the process: graphs over null disks, jobs and
 * bitmaps on them, objects without files. Otherwise the requests are parsed and their arguments
 * decoded, and that is all. After each input everything is taken back, and nothing may be left.
 */
#include <glib.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "block/block.h"
#include "block/graph/graph.h"
#include "block/job/job.h"
#include "chardev/char-int.h"
#include "monitor/monitor.h"
#include "qapi/dispatch.h"
#include "qapi/json.h"
#include "qom/user-creatable.h"
#include "system/objects.h"
#include "util/aio.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Larger inputs find nothing that smaller ones do not. */
#define INPUT_MAX 65536
/* Longest that a disk of the input may hold up a request, in nanoseconds. */
#define DELAY_MAX 1000000
/* Piece size in bits 0 to 6 of the first byte. */
#define FIRST_PREPARED 0x80

static const char prologue[] =
    "{'execute':'qmp_capabilities'}"
    "{'execute':'object-add','arguments':{'qom-type':'throttle-group','id':'g'}}"
    "{'execute':'blockdev-add','arguments':{'driver':'null-co','node-name':'a','size':4194304}}"
    "{'execute':'blockdev-add','arguments':{'driver':'null-aio','node-name':'b','size':4194304}}"
    "{'execute':'blockdev-add','arguments':{'driver':'null-co','node-name':'z','size':4194304,"
    "'read-zeroes':true}}"
    "{'execute':'block-dirty-bitmap-add','arguments':{'node':'a','name':'m'}}";

static bool disconnected;

static void fuzz_close(Chardev *chr)
{
}

static void fuzz_write(Chardev *chr, const uint8_t *buf, size_t len)
{
    g_assert(!disconnected);
}

/* The session asks for that when the input is over and no command runs any more. */
static void fuzz_disconnect(Chardev *chr, bool at_once)
{
    disconnected = true;
}

static const ChardevClass fuzz_class = {
    .name = "fuzz",
    .instance_size = sizeof(Chardev),
    .close = fuzz_close,
    .write = fuzz_write,
    .disconnect = fuzz_disconnect,
};

static Chardev chr = {.klass = &fuzz_class, .label = (char *)"fuzz", .log_fd = -1};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    if (!qemu_init_main_loop(NULL)) {
        abort();
    }
    chr.ctx = qemu_get_aio_context();
    objects_register_types();
    monitor_init();
    if (!monitor_new_qmp(&chr, false, NULL)) {
        abort();
    }
    return 0;
}

/* --- what may run --- */

static bool is_one_of(const char *name, const char *const *list)
{
    return name && g_strv_contains(list, name);
}

/* Commands that change nothing but what reset_co() takes back, given harmless arguments. */
static bool is_harmless(const char *name)
{
    static const char *const names[] = {
        "add-fd",
        "block-dirty-bitmap-add",
        "block-dirty-bitmap-clear",
        "block-dirty-bitmap-disable",
        "block-dirty-bitmap-enable",
        "block-dirty-bitmap-merge",
        "block-dirty-bitmap-remove",
        "block-job-cancel",
        "block-job-change",
        "block-job-complete",
        "block-job-dismiss",
        "block-job-finalize",
        "block-job-pause",
        "block-job-resume",
        "block-job-set-speed",
        "block-latency-histogram-set",
        "block-set-write-threshold",
        "block_resize",
        "block_set_io_throttle",
        "blockdev-add",
        "blockdev-create",
        "blockdev-del",
        "blockdev-mirror",
        "blockdev-reopen",
        "blockdev-snapshot",
        "change-backing-file",
        "closefd",
        "device-list-properties",
        "getfd",
        "job-cancel",
        "job-complete",
        "job-dismiss",
        "job-finalize",
        "job-pause",
        "job-resume",
        "object-add",
        "object-del",
        "qmp_capabilities",
        "qom-get",
        "qom-list",
        "qom-list-get",
        "qom-list-properties",
        "qom-list-types",
        "qom-set",
        "ringbuf-read",
        "ringbuf-write",
        "trace-event-get-state",
        "transaction",
        "x-debug-query-block-graph",
        "yank",
        NULL,
    };

    return g_str_has_prefix(name, "query-") || is_one_of(name, names);
}

/* False for a member that names a file or a host, or makes requests wait for long. */
static bool member_stays_inside(const char *name, json_object *value)
{
    static const char *const drivers[] = {"null-co",  "null-aio", "raw",          "blkdebug",
                                          "throttle", "qcow2",    "copy-on-read", NULL};
    static const char *const objects[] = {"throttle-group", "authz-list", "authz-simple", NULL};
    static const char *const files[] = {"config", "filename", "snapshot-file", NULL};
    static const char *const delays[] = {"latency-ns", "delay-ns", NULL};
    const char *text =
        json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;

    if (!strcmp(name, "driver")) {
        return is_one_of(text, drivers);
    }
    if (!strcmp(name, "qom-type")) {
        return is_one_of(text, objects);
    }
    return !is_one_of(name, files) && g_strcmp0(text, "blockdev-snapshot-sync") &&
           (!is_one_of(name, delays) || json_object_get_int64(value) <= DELAY_MAX);
}

static bool stays_inside(json_object *value)
{
    if (json_object_is_type(value, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(value); i++) {
            if (!stays_inside(json_object_array_get_idx(value, i))) {
                return false;
            }
        }
    }
    if (json_object_is_type(value, json_type_object)) {
        json_object_object_foreach(value, name, member)
        {
            if (!member_stays_inside(name, member) || !stays_inside(member)) {
                return false;
            }
        }
    }
    return true;
}

/* Decodes the arguments as dispatch would. */
static void decode(const QmpCommand *cmd, json_object *args)
{
    json_object *empty = args ? NULL : json_object_new_object();
    void *arg;

    if (cmd->arg && qapi_decode_to(cmd->arg, args ? args : empty, QAPI_DECODE_JSON, &arg, NULL)) {
        json_object_put(qapi_encode(cmd->arg, arg));
        qapi_free(cmd->arg, arg);
    }
    json_object_put(empty);
}

static void judge(void *opaque, json_object *value, const GError *err)
{
    static const char *const members[] = {"execute", "exec-oob"};
    bool *harmless = opaque;

    for (size_t i = 0; i < G_N_ELEMENTS(members) && json_object_is_type(value, json_type_object);
         i++) {
        json_object *name, *args = NULL;
        const QmpCommand *cmd;

        if (!json_object_object_get_ex(value, members[i], &name) ||
            !json_object_is_type(name, json_type_string)) {
            continue;
        }
        cmd = qmp_find_command(json_object_get_string(name));
        if (cmd) {
            json_object_object_get_ex(value, "arguments", &args);
            *harmless &= is_harmless(cmd->name) && stays_inside(args);
            decode(cmd, json_object_is_type(args, json_type_object) ? args : NULL);
        }
    }
    json_object_put(value);
}

/* --- a session --- */

static void feed(const uint8_t *data, size_t size, size_t piece)
{
    while (size && !disconnected) {
        size_t n = MIN(MIN(size, piece), qemu_chr_be_can_read(&chr));

        if (n) {
            qemu_chr_be_read(&chr, data, n, NULL, 0);
            data += n;
            size -= n;
        }
        /* without room there is a command that runs: it ends some time */
        aio_poll(qemu_get_aio_context(), n == 0);
    }
}

static void take_id(UserCreatable *object, void *opaque)
{
    *(const char **)opaque = user_creatable_id(object);
}

static void delete_objects(void)
{
    for (ObjectType type = 0; type < OBJECT_TYPE__MAX; type++) {
        const char *id;

        do {
            g_autofree char *copy = NULL;

            id = NULL;
            if (user_creatable_ops(type)) {
                user_creatable_foreach(type, take_id, &id);
            }
            copy = g_strdup(id);
            g_assert(!copy || user_creatable_del(copy, NULL));
        } while (id);
    }
}

/* Everything is taken back: what stays behind is held by a command that forgot it. */
static void coroutine_fn reset_co(void *opaque)
{
    bool *done = opaque;
    Job *job;

    job_co_cancel_sync_all();
    while ((job = job_next(NULL))) {
        g_assert(job_dismiss(job, NULL));
    }
    bdrv_co_close_all();
    g_assert(TAILQ_EMPTY(&block_graph()->nodes));
    delete_objects();
    *done = true;
}

static void run_session(const uint8_t *data, size_t size, size_t piece, bool prepared)
{
    bool done = false;

    disconnected = false;
    qemu_chr_be_opened(&chr);
    if (prepared) {
        feed((const uint8_t *)prologue, strlen(prologue), strlen(prologue));
    }
    feed(data, size, piece);
    qemu_chr_be_eof(&chr);
    while (!disconnected) {
        aio_poll(qemu_get_aio_context(), true);
    }
    qemu_chr_be_closed(&chr);
    qemu_coroutine_enter(qemu_coroutine_create(reset_co, &done));
    while (!done) {
        aio_poll(qemu_get_aio_context(), true);
    }
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool harmless = true;
    JsonStream *stream;
    uint8_t first;

    if (size < 2 || size > INPUT_MAX) {
        return 0;
    }
    first = data[0];
    data++;
    size--;
    stream = json_stream_new(judge, &harmless);
    json_stream_feed(stream, (const char *)data, size);
    json_stream_end(stream);
    json_stream_free(stream);
    if (harmless) {
        run_session(data, size, 1 + (first & ~FIRST_PREPARED) * 8, first & FIRST_PREPARED);
    }
    return 0;
}
