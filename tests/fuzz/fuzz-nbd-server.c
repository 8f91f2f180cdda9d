/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The NBD server against any client: the input is what the client sends, from its flags on. */
#include <errno.h>
#include <glib.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/block.h"
#include "block/export.h"
#include "block/nbd/server.h"
#include "util/aio.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void coroutine_fn start(void *opaque)
{
    g_autofree char *name = g_strdup_printf("ferry-fuzz-%d", getpid());
    SocketAddress addr = {.type = SOCKET_ADDRESS_TYPE_UNIX, .u.q_unix.path = name};
    NbdServerConfig config = {.addr = &addr};
    BlockExportOptions opts = {.type = BLOCK_EXPORT_TYPE_NBD, .node_name = (char *)"disk"};
    g_autoptr(BlockdevOptions) disk = g_new0(BlockdevOptions, 1);
    bool ok;

    disk->driver = BLOCKDEV_DRIVER_NULL_CO;
    disk->node_name = g_strdup("disk");
    disk->u.null_co.has_size = disk->u.null_co.has_read_zeroes = disk->u.null_co.read_zeroes = true;
    disk->u.null_co.size = 16 << 20;
    addr.u.q_unix.has_abstract = addr.u.q_unix.abstract = true;
    ok = bdrv_co_open(disk, BDRV_O_RDWR | BDRV_O_UNMAP, NULL) && nbd_server_co_start(&config, NULL);
    opts.id = (char *)"rw";
    opts.u.nbd.name = (char *)"";
    opts.has_writable = opts.writable = true;
    opts.u.nbd.has_allocation_depth = opts.u.nbd.allocation_depth = true;
    ok = ok && blk_exp_co_add(&opts, NULL);
    opts.id = opts.u.nbd.name = (char *)"ro";
    opts.writable = false;
    opts.u.nbd.description = (char *)"read-only";
    ok = ok && blk_exp_co_add(&opts, NULL);
    g_assert_true(ok);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    g_assert_true(qemu_init_main_loop(NULL));
    nbd_server_register();
    aio_run_coroutine(start, NULL);
    return 0;
}

/* The client: sends as fast as the server takes it, and reads over what it answers. */
static void feed(int fd, const uint8_t *data, size_t size)
{
    static char sink[1 << 16];
    bool sending = true;

    while (nbd_server_connections()) {
        ssize_t len = sending && size ? send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;

        if (len > 0) {
            data += len;
            size -= len;
        } else if (sending && (size == 0 || errno != EAGAIN)) {
            shutdown(fd, SHUT_WR);
            sending = false;
        }
        while (recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0) {
        }
        aio_poll(qemu_get_aio_context(), false);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fds[2];
    QIOChannelSocket *sioc;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    sioc = qio_channel_socket_new_fd(fds[0], NULL);
    g_assert_nonnull(sioc);
    nbd_server_take(sioc);
    feed(fds[1], data, size);
    close(fds[1]);
    return 0;
}
