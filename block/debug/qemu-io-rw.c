/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-io: single requests: read, readv, write, writev, discard. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "block/debug/qemu-io-int.h"
#include "util/cutils.h"
#include "util/open.h"
#include "util/timer.h"

static int64_t now_ns(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

static void say_failed(QemuIO *io, const char *what, int ret)
{
    g_string_append_printf(io->out, "%s failed: %s\n", what, strerror(-ret));
}

static void report(QemuIO *io, const QemuIOArgs *args, const char *verb, int64_t offset,
                   int64_t bytes, int64_t start_ns)
{
    if (!args->has['q']) {
        qemuio_report(io->out, verb, offset, bytes, now_ns() - start_ns, args->has['C']);
    }
}

/* Offset and length of the commands that take one of each. */
static bool parse_range(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args, int64_t limit,
                        const char *limit_note, int64_t *offset, int64_t *bytes)
{
    if (args->n != 2) {
        qemuio_usage(io, cmd);
        return false;
    }
    if (!qemuio_parse_size(io, args->operands[0], offset) ||
        !qemuio_parse_size(io, args->operands[1], bytes)) {
        return false;
    }
    if (*bytes > limit) {
        g_string_append_printf(io->out, "length cannot exceed %" PRId64 "%s, given %s\n", limit,
                               limit_note, args->operands[1]);
        return false;
    }
    return true;
}

/* --- reads --- */

/* What of a read is compared with what. */
typedef struct Verify {
    int pattern;           /* -1: nothing */
    int64_t offset, bytes; /* within the read */
} Verify;

static bool parse_verify(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args,
                         int64_t bytes, Verify *v)
{
    *v = (Verify){.pattern = -1};
    if (!args->has['P']) {
        if (args->has['s'] || args->has['l']) {
            qemuio_usage(io, cmd);
            return false;
        }
        return true;
    }
    if (!qemuio_parse_pattern(io, args->value['P'], &v->pattern) ||
        (args->has['s'] && !qemuio_parse_size(io, args->value['s'], &v->offset))) {
        return false;
    }
    v->bytes = bytes - v->offset;
    if (args->has['l'] && !qemuio_parse_size(io, args->value['l'], &v->bytes)) {
        return false;
    }
    if (v->offset > bytes || v->bytes > bytes - v->offset) {
        g_string_append(io->out, "pattern verification range exceeds end of read data\n");
        return false;
    }
    return true;
}

static void coroutine_fn do_read(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args,
                                 int64_t offset, QemuIOBuffer *buf, const Verify *v)
{
    int64_t start = now_ns();
    int ret = args->has['b'] ? -ENOTSUP : blk_co_preadv(io->blk, offset, buf->bytes, &buf->qiov, 0);

    if (ret < 0) {
        say_failed(io, cmd->name, ret);
        return;
    }
    if (v->pattern >= 0) {
        qemuio_verify(io->out, buf->data + v->offset, offset + v->offset, v->bytes, v->pattern);
    }
    if (!args->has['q'] && args->has['v']) {
        qemu_hexdump(io->out, "", (uint64_t)offset, buf->data, (size_t)buf->bytes);
    }
    report(io, args, "read", offset, buf->bytes, start);
}

static void coroutine_fn run_read(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    g_auto(QemuIOBuffer) buf = {0};
    int64_t offset, bytes;
    Verify v;

    if (parse_range(io, cmd, args, BDRV_REQUEST_MAX_BYTES, "", &offset, &bytes) &&
        parse_verify(io, cmd, args, bytes, &v) &&
        qemuio_buffer_init(io, &buf, NULL, bytes, QEMUIO_FILL_READ)) {
        do_read(io, cmd, args, offset, &buf, &v);
    }
}

static void coroutine_fn run_readv(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    g_auto(QemuIOBuffer) buf = {0};
    g_autoptr(GArray) lengths = NULL;
    int64_t offset, bytes;
    Verify v;

    if (args->n < 2) {
        qemuio_usage(io, cmd);
        return;
    }
    if (qemuio_parse_size(io, args->operands[0], &offset) &&
        qemuio_parse_lengths(io, args->operands + 1, args->n - 1, &lengths, &bytes) &&
        parse_verify(io, cmd, args, bytes, &v) &&
        qemuio_buffer_init(io, &buf, lengths, bytes, QEMUIO_FILL_READ)) {
        do_read(io, cmd, args, offset, &buf, &v);
    }
}

/* --- writes --- */

static bool check_write_options(QemuIO *io, const QemuIOArgs *args)
{
    const char *mistake = NULL;

    if (args->has['b'] && args->has['c']) {
        mistake = "-b and -c cannot be specified at the same time";
    } else if (args->has['b'] && args->has['z']) {
        mistake = "-b and -z cannot be specified at the same time";
    } else if (args->has['f'] && (args->has['b'] || args->has['c'])) {
        mistake = "-f and -b or -c cannot be specified at the same time";
    } else if (args->has['n'] && !args->has['z']) {
        mistake = "-n requires -z to be specified";
    } else if (args->has['u'] && !args->has['z']) {
        mistake = "-u requires -z to be specified";
    } else if (args->has['z'] + args->has['P'] + args->has['s'] > 1) {
        mistake = "Only one of -z, -P, and -s can be specified at the same time";
    }
    if (mistake) {
        g_string_append_printf(io->out, "%s\n", mistake);
    }
    return !mistake;
}

/* Fills the buffer with the contents of a file, again and again. */
static bool fill_from_file(QemuIO *io, const char *path, uint8_t *data, int64_t bytes)
{
    int fd = qemu_open_at_once(path, O_RDONLY, 0);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "rb");
    size_t got = 0;

    if (!file) {
        g_string_append_printf(io->out, "%s: %s\n", path, strerror(fd < 0 ? -fd : errno));
        return false;
    }
    if (bytes > 0) {
        got = fread(data, 1, (size_t)bytes, file);
    }
    if (bytes > 0 && got == 0) {
        g_string_append_printf(io->out, "%s: %s\n", path,
                               ferror(file) ? "read error" : "file is empty");
    }
    fclose(file);
    for (size_t at = got; got && at < (size_t)bytes; at++) {
        data[at] = data[at - got];
    }
    return bytes == 0 || got > 0;
}

static BdrvRequestFlags write_flags(const QemuIOArgs *args)
{
    return (args->has['f'] ? BDRV_REQ_FUA : 0) | (args->has['u'] ? BDRV_REQ_MAY_UNMAP : 0) |
           (args->has['n'] ? BDRV_REQ_NO_FALLBACK : 0) |
           (args->has['c'] && !args->has['z'] ? BDRV_REQ_WRITE_COMPRESSED : 0);
}

static void coroutine_fn do_write(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args,
                                  int64_t offset, int64_t bytes, QemuIOBuffer *buf)
{
    int64_t start = now_ns();
    int ret;

    if (args->has['z']) {
        ret = blk_co_pwrite_zeroes(io->blk, offset, bytes, write_flags(args));
    } else if (args->has['b']) {
        ret = -ENOTSUP;
    } else {
        ret = blk_co_pwritev(io->blk, offset, bytes, &buf->qiov, write_flags(args));
    }
    if (ret < 0) {
        say_failed(io, cmd->name, ret);
        return;
    }
    report(io, args, "wrote", offset, bytes, start);
}

static void coroutine_fn run_write(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    bool unlimited = args->has['z'] && args->has['n'];
    int pattern = QEMUIO_FILL_WRITE;
    g_auto(QemuIOBuffer) buf = {0};
    int64_t offset, bytes;

    if (!check_write_options(io, args) ||
        (args->has['P'] && !qemuio_parse_pattern(io, args->value['P'], &pattern)) ||
        !parse_range(io, cmd, args, unlimited ? INT64_MAX : BDRV_REQUEST_MAX_BYTES, " without -n",
                     &offset, &bytes)) {
        return;
    }
    if (!args->has['z'] && !qemuio_buffer_init(io, &buf, NULL, bytes, pattern)) {
        return;
    }
    if (args->has['s'] && !fill_from_file(io, args->value['s'], buf.data, bytes)) {
        return;
    }
    do_write(io, cmd, args, offset, bytes, &buf);
}

static void coroutine_fn run_writev(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    int pattern = QEMUIO_FILL_WRITE;
    g_auto(QemuIOBuffer) buf = {0};
    g_autoptr(GArray) lengths = NULL;
    int64_t offset, bytes;

    if (args->n < 2) {
        qemuio_usage(io, cmd);
        return;
    }
    if ((!args->has['P'] || qemuio_parse_pattern(io, args->value['P'], &pattern)) &&
        qemuio_parse_size(io, args->operands[0], &offset) &&
        qemuio_parse_lengths(io, args->operands + 1, args->n - 1, &lengths, &bytes) &&
        qemuio_buffer_init(io, &buf, lengths, bytes, pattern)) {
        do_write(io, cmd, args, offset, bytes, &buf);
    }
}

static void coroutine_fn run_discard(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    int64_t offset, bytes, start;
    int ret;

    if (!parse_range(io, cmd, args, BDRV_REQUEST_MAX_BYTES, "", &offset, &bytes)) {
        return;
    }
    start = now_ns();
    ret = blk_co_pdiscard(io->blk, offset, bytes);
    if (ret < 0) {
        say_failed(io, cmd->name, ret);
        return;
    }
    report(io, args, "discard", offset, bytes, start);
}

const QemuIOCommand qemuio_rw_commands[] = {
    {"read", "r", run_read, "abCl:pP:qs:v", 2, -1, 0, true, false,
     "[-abCqv] [-P pattern [-s off] [-l len]] off len",
     "reads bytes; -P compares them with a pattern byte, -v shows them, -q is silent"},
    {"readv", "rv", run_readv, "CP:qv", 2, -1, 0, true, false,
     "[-Cqv] [-P pattern] off len [len..]", "reads bytes into several buffers"},
    {"write", "w", run_write, "bcCfnpP:qs:uz", 2, -1, BLK_PERM_WRITE, true, false,
     "[-bcCfnquz] [-P pattern | -s source_file] off len",
     "writes a pattern byte or a file's contents; -z zeroes (-u: may unmap, -n: only if that is "
     "fast), -c compressed, "
     "-f through to the disk"},
    {"writev", "wv", run_writev, "CfP:pq", 2, -1, BLK_PERM_WRITE, true, false,
     "[-Cfq] [-P pattern] off len [len..]", "writes bytes from several buffers"},
    {"discard", "d", run_discard, "Cq", 2, -1, BLK_PERM_WRITE, true, false, "[-Cq] off len",
     "discards bytes"},
    {0},
};
