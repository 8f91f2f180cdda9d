/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qemu-io: requests in the background.
 *
 * A request is submitted before its command returns, in the order of the commands. It holds its
 * BlockBackend until it has printed its result to standard output. Those on a named drive count in
 * its statistics.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/debug/qemu-io-int.h"
#include "util/co-lock.h"
#include "util/cutils.h"
#include "util/timer.h"

typedef struct AioRequest {
    BlockBackend *blk; /* referenced */
    QemuIOBuffer buf;
    int64_t offset, bytes;
    BdrvRequestFlags flags;
    bool is_write, zero;
    bool quiet, machine, dump; /* -q, -C, -v */
    int pattern;               /* compared with what was read; -1: not */
} AioRequest;

/* Main thread. */
static struct {
    unsigned pending;
    bool initialised;
    CoQueue idle; /* waits for pending == 0 */
} aio;

static void print_result(const AioRequest *req, int ret, int64_t elapsed_ns)
{
    g_autoptr(GString) out = g_string_new(NULL);

    if (ret < 0) {
        g_string_printf(out, "%s failed: %s\n", req->is_write ? "aio_write" : "readv",
                        strerror(-ret));
    } else {
        if (req->pattern >= 0) {
            qemuio_verify(out, req->buf.data, req->offset, req->bytes, req->pattern);
        }
        if (!req->quiet && req->dump) {
            qemu_hexdump(out, "", (uint64_t)req->offset, req->buf.data, (size_t)req->bytes);
        }
        if (!req->quiet) {
            qemuio_report(out, req->is_write ? "wrote" : "read", req->offset, req->bytes,
                          elapsed_ns, req->machine);
        }
    }
    fputs(out->str, stdout);
    fflush(stdout);
}

/* In the thread of the graph. */
static int coroutine_fn run_request(AioRequest *req, int64_t *elapsed_ns)
{
    BlockAcctStats *stats = blk_get_stats(req->blk);
    BlockAcctCookie cookie;
    int ret;

    block_acct_start(stats, &cookie, req->bytes,
                     req->is_write ? BLOCK_ACCT_WRITE : BLOCK_ACCT_READ);
    if (req->zero) {
        ret = blk_co_pwrite_zeroes(req->blk, req->offset, req->bytes, req->flags);
    } else if (req->is_write) {
        ret = blk_co_pwritev(req->blk, req->offset, req->bytes, &req->buf.qiov, req->flags);
    } else {
        ret = blk_co_preadv(req->blk, req->offset, req->bytes, &req->buf.qiov, 0);
    }
    *elapsed_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - cookie.start_time_ns;
    if (ret < 0) {
        block_acct_failed(stats, &cookie);
    } else {
        block_acct_done(stats, &cookie);
    }
    return ret;
}

static void coroutine_fn request_entry(void *opaque)
{
    AioRequest *req = opaque;
    AioContext *ctx = blk_get_aio_context(req->blk);
    int64_t elapsed_ns;
    int ret;

    if (ctx != qemu_get_aio_context()) {
        aio_co_reschedule_self(ctx);
    }
    ret = run_request(req, &elapsed_ns);
    if (qemu_get_current_aio_context() != qemu_get_aio_context()) {
        aio_co_reschedule_self(qemu_get_aio_context());
    }
    print_result(req, ret, elapsed_ns);
    qemuio_buffer_clear(&req->buf);
    blk_unref(req->blk);
    g_free(req);
    if (--aio.pending == 0) {
        qemu_co_queue_restart_all(&aio.idle);
    }
}

static void submit(QemuIO *io, const AioRequest *made)
{
    AioRequest *req = g_memdup2(made, sizeof(*made));

    if (!aio.initialised) {
        qemu_co_queue_init(&aio.idle);
        aio.initialised = true;
    }
    req->blk = io->blk;
    blk_ref(req->blk);
    aio.pending++;
    qemu_coroutine_enter(qemu_coroutine_create(request_entry, req));
}

static void count_invalid(QemuIO *io, const char *what, BlockAcctType type)
{
    g_string_append_printf(io->out, "injecting invalid %s request\n", what);
    block_acct_invalid(blk_get_stats(io->blk), type);
}

static void coroutine_fn run_aio_read(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    AioRequest req = {
        .quiet = args->has['q'],
        .machine = args->has['C'],
        .dump = args->has['v'],
        .pattern = -1,
    };
    g_autoptr(GArray) lengths = NULL;

    if (args->has['i']) {
        count_invalid(io, "read", BLOCK_ACCT_READ);
        return;
    }
    if (args->n < 2) {
        qemuio_usage(io, cmd);
        return;
    }
    if ((!args->has['P'] || qemuio_parse_pattern(io, args->value['P'], &req.pattern)) &&
        qemuio_parse_size(io, args->operands[0], &req.offset) &&
        qemuio_parse_lengths(io, args->operands + 1, args->n - 1, &lengths, &req.bytes) &&
        qemuio_buffer_init(io, &req.buf, lengths, req.bytes, QEMUIO_FILL_READ)) {
        submit(io, &req);
    }
}

static bool check_write_options(QemuIO *io, const QemuIOArgs *args)
{
    const char *mistake = NULL;

    if (args->has['u'] && !args->has['z']) {
        mistake = "-u requires -z to be specified";
    } else if (args->has['z'] && args->has['P']) {
        mistake = "-z and -P cannot be specified at the same time";
    } else if (args->has['z'] && args->n != 2) {
        mistake = "-z supports only a single length parameter";
    }
    if (mistake) {
        g_string_append_printf(io->out, "%s\n", mistake);
    }
    return !mistake;
}

static void coroutine_fn run_aio_write(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    AioRequest req = {
        .is_write = true,
        .zero = args->has['z'],
        .flags = (args->has['f'] ? BDRV_REQ_FUA : 0) | (args->has['u'] ? BDRV_REQ_MAY_UNMAP : 0),
        .quiet = args->has['q'],
        .machine = args->has['C'],
        .pattern = -1,
    };
    int pattern = QEMUIO_FILL_WRITE;
    g_autoptr(GArray) lengths = NULL;

    if (args->has['i']) {
        count_invalid(io, "write", BLOCK_ACCT_WRITE);
        return;
    }
    if (args->n < 2) {
        qemuio_usage(io, cmd);
        return;
    }
    if (!check_write_options(io, args) ||
        (args->has['P'] && !qemuio_parse_pattern(io, args->value['P'], &pattern)) ||
        !qemuio_parse_size(io, args->operands[0], &req.offset)) {
        return;
    }
    if (req.zero
            ? qemuio_parse_size(io, args->operands[1], &req.bytes)
            : qemuio_parse_lengths(io, args->operands + 1, args->n - 1, &lengths, &req.bytes) &&
                  qemuio_buffer_init(io, &req.buf, lengths, req.bytes, pattern)) {
        submit(io, &req);
    }
}

static void coroutine_fn run_aio_flush(QemuIO *io, const QemuIOCommand *cmd, const QemuIOArgs *args)
{
    (void)io;
    (void)cmd;
    (void)args;
    while (aio.pending) {
        qemu_co_queue_wait(&aio.idle, NULL);
    }
}

const QemuIOCommand qemuio_aio_commands[] = {
    {"aio_read", NULL, run_aio_read, "CiP:qv", 2, -1, 0, false, true,
     "[-Ciqv] [-P pattern] off len [len..]",
     "starts a read; its result is printed when it ends (-i: only counts an invalid request)"},
    {"aio_write", NULL, run_aio_write, "CfiP:quz", 2, -1, BLK_PERM_WRITE, false, true,
     "[-Cfiquz] [-P pattern] off len [len..]",
     "starts a write; its result is printed when it ends"},
    {"aio_flush", NULL, run_aio_flush, NULL, 0, 0, 0, false, false, "",
     "waits for all requests that were started"},
    {0},
};
