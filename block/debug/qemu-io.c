/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The qemu-io language: taking lines apart, running commands, and how results look. */
#include "block/debug/qemu-io.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "block/debug/qemu-io-int.h"
#include "util/cutils.h"
#include "util/error.h"
#include "util/timer.h"

/* --- arguments --- */

void qemuio_usage(QemuIO *io, const QemuIOCommand *cmd)
{
    g_string_append_printf(io->out, "%s %s -- %s\n", cmd->name, cmd->args, cmd->help);
}

bool qemuio_parse_size(QemuIO *io, const char *text, int64_t *value)
{
    uint64_t size = 0;
    int ret = text[0] == '-' ? -EINVAL : qemu_strtosz(text, NULL, &size);

    if (ret == 0 && size > INT64_MAX) {
        ret = -ERANGE;
    }
    if (ret < 0) {
        g_string_append_printf(io->out, "Parsing error: %s -- %s\n",
                               ret == -ERANGE
                                   ? "argument too large"
                                   : "non-numeric argument, or extraneous/unrecognized suffix",
                               text);
        return false;
    }
    *value = (int64_t)size;
    return true;
}

bool qemuio_parse_pattern(QemuIO *io, const char *text, int *pattern)
{
    uint64_t value;

    if (qemu_strtou64(text, NULL, 0, &value) < 0 || value > UINT8_MAX) {
        g_string_append_printf(io->out, "%s is not a valid pattern byte\n", text);
        return false;
    }
    *pattern = (int)value;
    return true;
}

bool qemuio_parse_lengths(QemuIO *io, char **texts, int n, GArray **lengths, int64_t *total)
{
    g_autoptr(GArray) array = g_array_sized_new(false, false, sizeof(int64_t), (guint)n);

    *total = 0;
    for (int i = 0; i < n; i++) {
        int64_t length;

        if (!qemuio_parse_size(io, texts[i], &length)) {
            return false;
        }
        if (length > BDRV_REQUEST_MAX_BYTES) {
            g_string_append_printf(io->out, "Argument '%s' exceeds maximum size %" PRId64 "\n",
                                   texts[i], BDRV_REQUEST_MAX_BYTES);
            return false;
        }
        if (*total > BDRV_REQUEST_MAX_BYTES - length) {
            g_string_append_printf(
                io->out, "The total number of bytes exceed the maximum size %" PRId64 "\n",
                BDRV_REQUEST_MAX_BYTES);
            return false;
        }
        *total += length;
        g_array_append_val(array, length);
    }
    *lengths = g_steal_pointer(&array);
    return true;
}

/*
 * One word of letters, "-qP3"; `next` is the word behind it. *took_next: it was the value of the
 * last letter.
 */
static bool parse_option_word(QemuIO *io, const QemuIOCommand *cmd, const char *word,
                              const char *next, QemuIOArgs *args, bool *took_next)
{
    for (const char *p = word + 1; *p; p++) {
        unsigned char letter = (unsigned char)*p;
        const char *spec =
            letter != ':' && letter < QEMUIO_OPTIONS ? strchr(cmd->options, letter) : NULL;

        if (!spec) {
            g_string_append_printf(io->out, "%s: invalid option -- '%c'\n", cmd->name, letter);
            return false;
        }
        args->has[letter] = true;
        if (spec[1] != ':') {
            continue;
        }
        *took_next = !p[1];
        args->value[letter] = p[1] ? p + 1 : next;
        if (!args->value[letter]) {
            g_string_append_printf(io->out, "%s: option requires an argument -- '%c'\n", cmd->name,
                                   letter);
            return false;
        }
        return true;
    }
    return true;
}

/* Options may stand anywhere; "--" ends them. Operands are moved to the front of words. */
static bool parse_args(QemuIO *io, const QemuIOCommand *cmd, char **words, int n, QemuIOArgs *args)
{
    bool options = cmd->options != NULL;

    args->operands = words;
    for (int i = 0; i < n; i++) {
        char *word = words[i];
        bool took_next = false;

        if (!options || word[0] != '-' || !word[1]) {
            words[args->n++] = word;
            continue;
        }
        if (!strcmp(word, "--")) {
            options = false;
            continue;
        }
        if (!parse_option_word(io, cmd, word, i + 1 < n ? words[i + 1] : NULL, args, &took_next)) {
            qemuio_usage(io, cmd);
            return false;
        }
        i += took_next;
    }
    words[args->n] = NULL;
    return true;
}

/* --- results --- */

void qemuio_append_size(GString *out, double bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    char number[G_ASCII_DTOSTR_BUF_SIZE];
    size_t unit = 0;
    char *point;

    while (bytes >= 1024 && unit + 1 < G_N_ELEMENTS(units)) {
        bytes /= 1024;
        unit++;
    }
    g_snprintf(number, sizeof(number), unit ? "%.3f" : "%.6f", bytes);
    point = strchr(number, '.');
    if (point && strspn(point + 1, "0") == strlen(point + 1)) {
        *point = 0;
    }
    g_string_append_printf(out, "%s %s", number, units[unit]);
}

static void append_time(GString *out, int64_t ns, bool always_hours)
{
    uint64_t hundredths = (uint64_t)ns / 10000000, seconds = hundredths / 100;

    if (always_hours || seconds >= 60) {
        g_string_append_printf(out, "%" PRIu64 ":%02u:%02u.%02u", seconds / 3600,
                               (unsigned)(seconds / 60 % 60), (unsigned)(seconds % 60),
                               (unsigned)(hundredths % 100));
    } else {
        g_string_append_printf(out, "%02u.%02u sec", (unsigned)seconds,
                               (unsigned)(hundredths % 100));
    }
}

void qemuio_report(GString *out, const char *verb, int64_t offset, int64_t bytes,
                   int64_t elapsed_ns, bool machine)
{
    double seconds = (double)MAX(elapsed_ns, 1) / NANOSECONDS_PER_SECOND;

    if (machine) {
        g_string_append_printf(out, "%" PRId64 ",1,", bytes);
        append_time(out, elapsed_ns, true);
        g_string_append_printf(out, ",%.3f,%.3f\n", (double)bytes / seconds, 1 / seconds);
        return;
    }
    g_string_append_printf(out, "%s %" PRId64 "/%" PRId64 " bytes at offset %" PRId64 "\n", verb,
                           bytes, bytes, offset);
    qemuio_append_size(out, (double)bytes);
    g_string_append(out, ", 1 ops; ");
    append_time(out, elapsed_ns, false);
    g_string_append(out, " (");
    qemuio_append_size(out, (double)bytes / seconds);
    g_string_append_printf(out, "/sec and %.4f ops/sec)\n", 1 / seconds);
}

void qemuio_verify(GString *out, const uint8_t *data, int64_t offset, int64_t bytes, int pattern)
{
    for (int64_t i = 0; i < bytes; i++) {
        if (data[i] != pattern) {
            g_string_append_printf(
                out, "Pattern verification failed at offset %" PRId64 ", %" PRId64 " bytes\n",
                offset, bytes);
            return;
        }
    }
}

bool qemuio_buffer_init(QemuIO *io, QemuIOBuffer *buf, const GArray *lengths, int64_t bytes,
                        int fill)
{
    uint8_t *at;

    buf->data = qemu_try_blockalign(blk_bs(io->blk), (size_t)MAX(bytes, 1));
    if (!buf->data) {
        g_string_append_printf(io->out, "Not enough memory for %" PRId64 " bytes\n", bytes);
        return false;
    }
    memset(buf->data, fill, (size_t)bytes);
    buf->bytes = bytes;
    qemu_iovec_init(&buf->qiov, lengths ? (int)lengths->len : 1);
    if (!lengths) {
        qemu_iovec_add(&buf->qiov, buf->data, (size_t)bytes);
        return true;
    }
    at = buf->data;
    for (guint i = 0; i < lengths->len; i++) {
        int64_t length = g_array_index(lengths, int64_t, i);

        qemu_iovec_add(&buf->qiov, at, (size_t)length);
        at += length;
    }
    return true;
}

void qemuio_buffer_clear(QemuIOBuffer *buf)
{
    if (buf->data) {
        qemu_iovec_destroy(&buf->qiov);
        qemu_vfree(buf->data);
        buf->data = NULL;
    }
}

/* --- commands --- */

static QemuIOHandler run_help;

static const QemuIOCommand help_commands[] = {
    {"help", "?", run_help, NULL, 0, 1, 0, false, false, "[command]",
     "shows the commands, or one of them"},
    {0},
};

static const QemuIOCommand *const tables[] = {
    help_commands,
    qemuio_rw_commands,
    qemuio_aio_commands,
    qemuio_node_commands,
};

static const QemuIOCommand *find_command(const char *name)
{
    for (size_t t = 0; t < G_N_ELEMENTS(tables); t++) {
        for (const QemuIOCommand *cmd = tables[t]; cmd->name; cmd++) {
            if (!strcmp(name, cmd->name) || (cmd->short_name && !strcmp(name, cmd->short_name))) {
                return cmd;
            }
        }
    }
    return NULL;
}

static void coroutine_fn run_help(QemuIO *io, const QemuIOCommand *self, const QemuIOArgs *args)
{
    const QemuIOCommand *cmd;

    (void)self;
    if (args->n) {
        cmd = find_command(args->operands[0]);
        if (cmd) {
            qemuio_usage(io, cmd);
        } else {
            g_string_append_printf(io->out, "command %s not found\n", args->operands[0]);
        }
        return;
    }
    for (size_t t = 0; t < G_N_ELEMENTS(tables); t++) {
        for (cmd = tables[t]; cmd->name; cmd++) {
            qemuio_usage(io, cmd);
        }
    }
}

static bool check_count(QemuIO *io, const QemuIOCommand *cmd, int n)
{
    if (n >= cmd->min_words && (cmd->max_words < 0 || n <= cmd->max_words)) {
        return true;
    }
    g_string_append_printf(io->out, "bad argument count %d to %s, expected ", n, cmd->name);
    if (cmd->max_words < 0) {
        g_string_append_printf(io->out, "at least %d arguments\n", cmd->min_words);
    } else if (cmd->min_words == cmd->max_words) {
        g_string_append_printf(io->out, "%d arguments\n", cmd->min_words);
    } else {
        g_string_append_printf(io->out, "between %d and %d arguments\n", cmd->min_words,
                               cmd->max_words);
    }
    return false;
}

static void coroutine_fn run_in_its_thread(QemuIO *io, const QemuIOCommand *cmd,
                                           const QemuIOArgs *args)
{
    AioContext *ctx = blk_get_aio_context(io->blk);
    bool move = cmd->in_graph && ctx != qemu_get_aio_context();

    if (move) {
        aio_co_reschedule_self(ctx);
    }
    cmd->run(io, cmd, args);
    if (move) {
        aio_co_reschedule_self(qemu_get_aio_context());
    }
}

bool coroutine_fn qemuio_co_command(BlockBackend *blk, const char *line, GString *out,
                                    GError **errp)
{
    QemuIO io = {.blk = blk, .out = out};
    g_auto(GStrv) split = g_strsplit_set(line, " \t\n", -1);
    g_autofree char **words = g_new0(char *, g_strv_length(split) + 1);
    g_autofree QemuIOArgs *args = g_new0(QemuIOArgs, 1);
    uint64_t perm = bdrv_child_perm(blk_root(blk)), shared = blk_root(blk)->shared_perm;
    const QemuIOCommand *cmd;
    int n = 0;

    for (char **word = split; *word; word++) {
        if (**word) {
            words[n++] = *word;
        }
    }
    if (!n) {
        return true;
    }
    cmd = find_command(words[0]);
    if (!cmd) {
        g_string_append_printf(out, "command \"%s\" not found\n", words[0]);
        return true;
    }
    if (!check_count(&io, cmd, n - 1)) {
        return true;
    }
    if (!parse_args(&io, cmd, words + 1, n - 1, args)) {
        return true;
    }
    if (!blk_set_perm(blk, perm | cmd->perm, shared, errp)) {
        return false;
    }
    run_in_its_thread(&io, cmd, args);
    /* Giving permissions back cannot conflict with another parent. */
    return cmd->background || !blk_bs(blk) || blk_set_perm(blk, perm, shared, errp);
}
