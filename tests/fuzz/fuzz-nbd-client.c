/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD client against any server. The input is a sequence of pieces, each with its length in
 * front (16 bits, little-endian). A piece is sent when the client waits for one. The connection
 * ends after the last piece.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/block-backend.h"
#include "block/block.h"
#include "util/aio.h"
#include "util/sockets.h"

#define BUF_BYTES 8192
#define FD_NAME   "server"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int offered_fd = -1; /* what FD_NAME stands for; -1: it was taken */

static int give_fd(const char *name, GError **errp)
{
    g_assert_cmpstr(name, ==, FD_NAME);

    return g_steal_fd(&offered_fd);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    g_assert_true(qemu_init_main_loop(NULL));
    socket_set_fd_lookup(give_fd);
    return 0;
}

typedef struct Run {
    bool done;
    BlockDriverState *bs;
    BlockBackend *blk;
    unsigned running;
} Run;

static void coroutine_fn read_some(void *opaque)
{
    Run *run = opaque;
    g_autofree uint8_t *buf = g_malloc(BUF_BYTES);

    (void)blk_co_pread(run->blk, 0, BUF_BYTES, buf, 0);
    run->running--;
}

static void coroutine_fn write_some(void *opaque)
{
    Run *run = opaque;
    uint8_t buf[4096] = {0};

    (void)blk_co_pwrite(run->blk, 4096, sizeof(buf), buf, BDRV_REQ_FUA);
    (void)blk_co_flush(run->blk);
    run->running--;
}

static void coroutine_fn ask_status(void *opaque)
{
    Run *run = opaque;
    BdrvBlockStatus st;

    for (int64_t offset = 0; offset < blk_getlength(run->blk);) {
        if (bdrv_co_block_status(run->bs, offset, blk_getlength(run->blk) - offset, &st) < 0) {
            break;
        }
        g_assert_cmpint(st.pnum, >, 0);
        offset += MAX(st.pnum, blk_getlength(run->blk) / 4);
    }
    run->running--;
}

static void coroutine_fn zero_some(void *opaque)
{
    Run *run = opaque;

    (void)blk_co_pwrite_zeroes(run->blk, 8192, 4096, BDRV_REQ_MAY_UNMAP);
    (void)blk_co_pdiscard(run->blk, 16384, 4096);
    run->running--;
}

static void coroutine_fn use_node(Run *run)
{
    static CoroutineEntry *const users[] = {read_some, write_some, ask_status, zero_some};

    run->blk = blk_new(BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL);
    if (blk_insert_bs(run->blk, run->bs, NULL)) {
        run->running = G_N_ELEMENTS(users);
        for (unsigned i = 0; i < G_N_ELEMENTS(users); i++) {
            qemu_coroutine_enter(qemu_coroutine_create(users[i], run));
        }
        while (run->running) {
            qemu_co_yield_to_loop();
        }
    }
    blk_unref(run->blk);
    bdrv_co_unref(run->bs);
}

static void coroutine_fn client_run(void *opaque)
{
    Run *run = opaque;
    g_autoptr(BlockdevOptions) o = g_new0(BlockdevOptions, 1);

    o->driver = BLOCKDEV_DRIVER_NBD;
    o->u.nbd.server = g_new0(SocketAddress, 1);
    o->u.nbd.server->type = SOCKET_ADDRESS_TYPE_FD;
    o->u.nbd.server->u.fd.str = g_strdup(FD_NAME);
    o->u.nbd.has_connections = true;
    o->u.nbd.connections = 1;
    run->bs = bdrv_co_open(o, BDRV_O_RDWR, NULL);
    if (run->bs) {
        use_node(run);
    }
    run->done = true;
}

/* Sends the next piece. False: there is none. */
static bool feed(int fd, const uint8_t **data, size_t *size)
{
    size_t len;

    if (*size < 2) {
        return false;
    }
    len = (*data)[0] | (*data)[1] << 8;
    len = MIN(len, *size - 2);
    (void)!send(fd, *data + 2, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    *data += 2 + len;
    *size -= 2 + len;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char sink[1 << 16];
    AioContext *ctx = qemu_get_aio_context();
    Run run = {0};
    int fds[2];
    bool open = true;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    offered_fd = fds[0];
    qemu_coroutine_enter(qemu_coroutine_create(client_run, &run));
    while (!run.done) {
        for (unsigned i = 0; i < 8; i++) {
            aio_poll(ctx, false);
        }
        while (recv(fds[1], sink, sizeof(sink), MSG_DONTWAIT) > 0) {
        }
        if (open && !feed(fds[1], &data, &size)) {
            shutdown(fds[1], SHUT_RDWR);
            open = false;
        }
    }
    close(fds[1]);
    for (unsigned i = 0; i < 4; i++) {
        aio_poll(ctx, false); /* what was left to the loop */
    }
    g_assert_cmpint(offered_fd, ==, -1); /* the client has seen the input */
    g_assert_cmpint(fcntl(fds[0], F_GETFD), ==, -1);
    return 0;
}
