/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer: bytes of a QMP client, from the JSON stream over the session's queue to dispatch and the
 * reply.
 *
 * The first byte says in pieces of what size the rest arrives. Handlers run only if every request
 * of the input asks for a command that changes nothing; otherwise the requests are parsed and their
 * arguments decoded, and that is all.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "chardev/char-int.h"
#include "monitor/monitor.h"
#include "qapi/dispatch.h"
#include "qapi/json.h"
#include "util/aio.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Larger inputs find nothing that smaller ones do not. */
#define INPUT_MAX 65536

static Chardev *chr;

static void coroutine_fn setup_co(void *opaque)
{
    ChardevCommon common = {0};
    ChardevBackend backend = {.type = CHARDEV_BACKEND_KIND_NULL, .u.null.data = &common};

    chr = qemu_chr_co_new("fuzz", &backend, NULL);
    if (!chr || !monitor_new_qmp(chr, false, NULL)) {
        abort();
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    if (!qemu_init_main_loop(NULL)) {
        abort();
    }
    monitor_init();
    aio_run_coroutine(setup_co, NULL);
    return 0;
}

static bool is_harmless(const char *name)
{
    return g_str_has_prefix(name, "query-") || !strcmp(name, "qmp_capabilities") ||
           !strcmp(name, "trace-event-get-state") || !strcmp(name, "closefd") ||
           !strcmp(name, "getfd") || !strcmp(name, "add-fd") || !strcmp(name, "object-del");
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
            *harmless &= is_harmless(cmd->name);
            json_object_object_get_ex(value, "arguments", &args);
            decode(cmd, json_object_is_type(args, json_type_object) ? args : NULL);
        }
    }
    json_object_put(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool harmless = true;
    JsonStream *stream;
    size_t piece;

    if (size < 2 || size > INPUT_MAX) {
        return 0;
    }
    piece = 1 + data[0] * 8;
    data++;
    size--;
    stream = json_stream_new(judge, &harmless);
    json_stream_feed(stream, (const char *)data, size);
    json_stream_end(stream);
    json_stream_free(stream);
    if (!harmless) {
        return 0;
    }
    qemu_chr_be_opened(chr);
    while (size) {
        size_t n = MIN(MIN(size, piece), qemu_chr_be_can_read(chr));

        if (n) {
            qemu_chr_be_read(chr, data, n, NULL, 0);
            data += n;
            size -= n;
        }
        while (aio_poll(qemu_get_aio_context(), false)) {
        }
    }
    qemu_chr_be_eof(chr);
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
    qemu_chr_be_closed(chr);
    return 0;
}
