/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NBD: names, and the client against the server in one process, over a unix socket. */
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "block/block-backend.h"
#include "block/block_int.h"
#include "block/export.h"
#include "block/nbd/client.h"
#include "block/nbd/server.h"
#include "util/error.h"
#include "util/iothread.h"

#define IMAGE_BYTES (8 * 1024 * 1024)

static char *dir;

/* --- names --- */

static void check_name(const char *name, SocketAddressType type, const char *where,
                       const char *export)
{
    g_autoptr(GError) err = NULL;
    BlockdevOptionsNbd *o = g_new0(BlockdevOptionsNbd, 1);

    g_assert_true(nbd_parse_filename(name, o, &err));
    g_assert_no_error(err);
    g_assert_cmpint(o->server->type, ==, type);
    if (type == SOCKET_ADDRESS_TYPE_UNIX) {
        g_assert_cmpstr(o->server->u.q_unix.path, ==, where);
    } else {
        g_autofree char *hp =
            g_strdup_printf("%s %s", o->server->u.inet.host, o->server->u.inet.port);

        g_assert_cmpstr(hp, ==, where);
    }
    g_assert_cmpstr(o->export, ==, export);
    qapi_free_BlockdevOptionsNbd(o);
}

static void test_names(void)
{
    check_name("nbd:localhost:10809", SOCKET_ADDRESS_TYPE_INET, "localhost 10809", NULL);
    check_name("nbd:h:1:exportname=a:b", SOCKET_ADDRESS_TYPE_INET, "h 1", "a:b");
    check_name("nbd:[::1]:2", SOCKET_ADDRESS_TYPE_INET, "::1 2", NULL);
    check_name("nbd:unix:/tmp/s", SOCKET_ADDRESS_TYPE_UNIX, "/tmp/s", NULL);
    check_name("nbd:unix:/tmp/s:exportname=x", SOCKET_ADDRESS_TYPE_UNIX, "/tmp/s", "x");
    check_name("nbd://host", SOCKET_ADDRESS_TYPE_INET, "host 10809", NULL);
    check_name("nbd://host:99/name", SOCKET_ADDRESS_TYPE_INET, "host 99", "name");
    check_name("nbd+tcp://[::1]:5/a%20b", SOCKET_ADDRESS_TYPE_INET, "::1 5", "a b");
    check_name("nbd+unix:///name?socket=/tmp/s", SOCKET_ADDRESS_TYPE_UNIX, "/tmp/s", "name");
    check_name("nbd+unix://?socket=/tmp/s", SOCKET_ADDRESS_TYPE_UNIX, "/tmp/s", NULL);
    check_name("nbd://h/..", SOCKET_ADDRESS_TYPE_INET, "h 10809", "..");
    check_name("nbd://h/.", SOCKET_ADDRESS_TYPE_INET, "h 10809", ".");
    check_name("nbd://h/%2e%2e/x", SOCKET_ADDRESS_TYPE_INET, "h 10809", "../x");
    check_name("nbd://h/a/./b/../c//d", SOCKET_ADDRESS_TYPE_INET, "h 10809", "a/./b/../c//d");
    check_name("nbd+unix:////../x?socket=/tmp/s", SOCKET_ADDRESS_TYPE_UNIX, "/tmp/s", "/../x");
}

static void test_bad_names(void)
{
    static const char *const names[] = {
        "nbd:",
        "nbd:host",
        "nbd:host:",
        "nbd:unix:",
        "nbd:[::1",
        "nbd+unix:///x",
        "nbd://h?socket=/s",
        "nbd+unix:///x?socket=/s&y=1",
        "nbd+xyz://h/",
        "nbd+unix://h/x?socket=/s",
        "nbd://h/%00",
        "nbd://h/%ff",
        "nbd://h/%zz",
        "nbd://h:65536/x",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autoptr(GError) err = NULL;
        BlockdevOptionsNbd *o = g_new0(BlockdevOptionsNbd, 1);

        g_test_message("%s", names[i]);
        g_assert_false(nbd_parse_filename(names[i], o, &err));
        g_assert_nonnull(err);
        qapi_free_BlockdevOptionsNbd(o);
    }
}

/* --- client and server --- */

typedef struct Setup {
    char *image, *sock;
    BlockDriverState *served; /* what the server exports */
    BlockDriverState *bs;     /* the client's node */
    BlockBackend *blk;
    int connections;
    int reconnect_delay; /* seconds */
} Setup;

static void coroutine_fn start_server(Setup *s)
{
    g_autoptr(GError) err = NULL;
    SocketAddress addr = {.type = SOCKET_ADDRESS_TYPE_UNIX, .u.q_unix.path = s->sock};
    NbdServerConfig config = {.addr = &addr, .max_connections = 20};
    BlockExportOptions opts = {
        .type = BLOCK_EXPORT_TYPE_NBD, .id = (char *)"e0", .node_name = (char *)"served"};

    g_assert_true(nbd_server_co_start(&config, &err));
    g_assert_no_error(err);
    opts.has_writable = opts.writable = true;
    opts.u.nbd.name = (char *)"disk";
    g_assert_nonnull(blk_exp_co_add(&opts, &err));
    g_assert_no_error(err);
}

static BlockDriverState *coroutine_fn open_client(Setup *s)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *json = g_strdup_printf("json:{\"driver\":\"nbd\",\"server\":{\"type\":"
                                            "\"unix\",\"path\":\"%s\"},\"export\":\"disk\","
                                            "\"connections\":%d,\"reconnect-delay\":5}",
                                            s->sock, s->connections);
    g_autoptr(BlockdevOptions) options = bdrv_filename_to_options(json, NULL, &err);
    BlockDriverState *bs;

    g_assert_no_error(err);
    bs = bdrv_co_open(options, BDRV_O_RDWR | BDRV_O_UNMAP, &err);
    g_assert_no_error(err);
    g_assert_nonnull(bs);
    return bs;
}

static void coroutine_fn set_up(Setup *s)
{
    g_autoptr(GError) err = NULL;
    FILE *f;

    s->image = g_build_filename(dir, "image.raw", NULL);
    s->sock = g_build_filename(dir, "sock", NULL);
    f = fopen(s->image, "w");
    g_assert_cmpint(ftruncate(fileno(f), IMAGE_BYTES), ==, 0);
    fclose(f);
    s->served = bdrv_co_open_filename(s->image, "raw", "served", BDRV_O_RDWR | BDRV_O_UNMAP, &err);
    g_assert_no_error(err);
    start_server(s);
    s->bs = open_client(s);
    s->blk = blk_new(BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL);
    g_assert_true(blk_insert_bs(s->blk, s->bs, &err));
}

static void coroutine_fn tear_down(Setup *s)
{
    blk_unref(s->blk);
    bdrv_co_unref(s->bs);
    nbd_server_co_stop();
    bdrv_co_unref(s->served);
    g_unlink(s->image);
    g_free(s->image);
    g_free(s->sock);
}

typedef struct Worker {
    Setup *s;
    uint8_t *model; /* of its part of the image */
    int64_t start, bytes;
    unsigned seed;
    unsigned *running;
    Coroutine *waiter;
} Worker;

/* Random requests in a part of the image that no other worker touches. */
static void coroutine_fn worker_run(void *opaque)
{
    Worker *w = opaque;
    g_autoptr(GRand) rng = g_rand_new_with_seed(w->seed);
    g_autofree uint8_t *buf = g_malloc(512 * 1024);

    for (int i = 0; i < 150; i++) {
        int64_t len = g_rand_int_range(rng, 1, 400 * 1024);
        int64_t off = g_rand_int_range(rng, 0, w->bytes - len);

        switch (g_rand_int_range(rng, 0, 6)) {
        case 0:
        case 1:
            memset(buf, g_rand_int_range(rng, 0, 255), len);
            buf[len / 2] ^= 1;
            g_assert_cmpint(
                blk_co_pwrite(w->s->blk, w->start + off, len, buf, i % 3 ? 0 : BDRV_REQ_FUA), ==,
                0);
            memcpy(w->model + off, buf, len);
            break;
        case 2:
            g_assert_cmpint(blk_co_pwrite_zeroes(w->s->blk, w->start + off, len,
                                                 i % 2 ? BDRV_REQ_MAY_UNMAP : 0),
                            ==, 0);
            memset(w->model + off, 0, len);
            break;
        case 3:
            g_assert_cmpint(blk_co_flush(w->s->blk), ==, 0);
            break;
        default:
            g_assert_cmpint(blk_co_pread(w->s->blk, w->start + off, len, buf, 0), ==, 0);
            g_assert_cmpmem(buf, len, w->model + off, len);
            break;
        }
    }
    if (--*w->running == 0 && w->waiter) {
        aio_co_wake(w->waiter);
    }
}

static void coroutine_fn random_requests(void *opaque)
{
    Setup s = {.connections = GPOINTER_TO_INT(opaque)};
    unsigned running = 8;
    Worker w[8];
    g_autofree uint8_t *model = g_malloc0(IMAGE_BYTES);
    g_autofree uint8_t *all = g_malloc(IMAGE_BYTES);

    set_up(&s);
    for (int i = 0; i < 8; i++) {
        w[i] = (Worker){
            &s,       model + i * (IMAGE_BYTES / 8), i * (IMAGE_BYTES / 8), IMAGE_BYTES / 8, i + 1,
            &running, qemu_coroutine_self()};
        qemu_coroutine_enter(qemu_coroutine_create(worker_run, &w[i]));
    }
    if (running) {
        qemu_coroutine_yield();
    }
    g_assert_cmpint(blk_co_pread(s.blk, 0, IMAGE_BYTES, all, 0), ==, 0);
    g_assert_cmpmem(all, IMAGE_BYTES, model, IMAGE_BYTES);
    tear_down(&s);
}

static void test_random(gconstpointer connections)
{
    aio_run_coroutine(random_requests, (void *)connections);
}

static void coroutine_fn status(void *opaque)
{
    Setup s = {.connections = 1};
    BdrvBlockStatus st;
    uint8_t buf[65536];

    set_up(&s);
    memset(buf, 7, sizeof(buf));
    g_assert_cmpint(blk_co_pwrite(s.blk, 1 << 20, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmpint(bdrv_co_block_status(s.bs, 0, IMAGE_BYTES, &st), ==, 0);
    g_assert_true(st.flags & BDRV_BLOCK_ZERO);
    g_assert_cmpint(st.pnum, ==, 1 << 20);
    g_assert_cmpint(bdrv_co_block_status(s.bs, 1 << 20, IMAGE_BYTES - (1 << 20), &st), ==, 0);
    g_assert_true(st.flags & BDRV_BLOCK_DATA);
    g_assert_false(st.flags & BDRV_BLOCK_ZERO);
    g_assert_cmpint(st.pnum, ==, 65536);
    tear_down(&s);
}

static void test_status(void)
{
    aio_run_coroutine(status, NULL);
}

/*
 * Requests that lie in wait while the exported node is drained, and then moves to another thread
 * and back.
 */
static void coroutine_fn drain_and_move(void *opaque)
{
    g_autoptr(GError) err = NULL;
    Setup s = {.connections = 2};
    IOThread *iothread = iothread_new("io0", &err);
    unsigned running = 4;
    Worker w[4];
    g_autofree uint8_t *model = g_malloc0(IMAGE_BYTES);

    set_up(&s);
    for (int i = 0; i < 4; i++) {
        w[i] = (Worker){&s,
                        model + i * (IMAGE_BYTES / 8),
                        i * (IMAGE_BYTES / 8),
                        IMAGE_BYTES / 8,
                        i + 1,
                        &running,
                        NULL};
        qemu_coroutine_enter(qemu_coroutine_create(worker_run, &w[i]));
    }
    for (int i = 0;; i++) {
        if (!running) {
            break;
        }
        if (i % 4 == 0) {
            g_assert_true(bdrv_co_set_aio_context(
                s.served, i % 8 ? qemu_get_aio_context() : iothread_get_aio_context(iothread),
                &err));
        } else {
            bdrv_co_drained_begin(s.served);
            bdrv_co_drained_end(s.served);
        }
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS / 4);
    }
    g_assert_true(bdrv_co_set_aio_context(s.served, qemu_get_aio_context(), &err));
    tear_down(&s);
    iothread_free(iothread);
}

static void test_drain_and_move(void)
{
    aio_run_coroutine(drain_and_move, NULL);
}

/* The server goes and comes back, five times: with reconnect-delay no request notices. */
static void coroutine_fn reconnect(void *opaque)
{
    Setup s = {.connections = GPOINTER_TO_INT(opaque), .reconnect_delay = 30};
    unsigned running = 4;
    Worker w[4];
    g_autofree uint8_t *model = g_malloc0(IMAGE_BYTES);
    g_autofree uint8_t *all = g_malloc(IMAGE_BYTES);

    set_up(&s);
    for (int i = 0; i < 4; i++) {
        w[i] = (Worker){&s,
                        model + i * (IMAGE_BYTES / 4),
                        i * (IMAGE_BYTES / 4),
                        IMAGE_BYTES / 4,
                        i + 1,
                        &running,
                        NULL};
        qemu_coroutine_enter(qemu_coroutine_create(worker_run, &w[i]));
    }
    for (int i = 0; i < 5; i++) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 3 * SCALE_MS);
        nbd_server_co_stop();
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 3 * SCALE_MS);
        start_server(&s);
    }
    while (running) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
    g_assert_cmpint(blk_co_pread(s.blk, 0, IMAGE_BYTES, all, 0), ==, 0);
    g_assert_cmpmem(all, IMAGE_BYTES, model, IMAGE_BYTES);
    tear_down(&s);
}

static void test_reconnect(gconstpointer connections)
{
    aio_run_coroutine(reconnect, (void *)connections);
}

/*
 * Without reconnect-delay requests fail at once while the server is away, and work again when it is
 * back.
 */
static void coroutine_fn fail_while_away(void *opaque)
{
    Setup s = {.connections = 1};
    uint8_t buf[512];

    set_up(&s);
    g_assert_cmpint(blk_co_pread(s.blk, 0, sizeof(buf), buf, 0), ==, 0);
    nbd_server_co_stop();
    g_assert_cmpint(blk_co_pread(s.blk, 0, sizeof(buf), buf, 0), ==, -EIO);
    start_server(&s);
    while (blk_co_pread(s.blk, 0, sizeof(buf), buf, 0) != 0) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
    tear_down(&s);
}

static void test_fail_while_away(void)
{
    aio_run_coroutine(fail_while_away, NULL);
}

static void coroutine_fn read_that_hangs(void *opaque)
{
    Worker *w = opaque;
    uint8_t buf[512];

    g_assert_cmpint(blk_co_pread(w->s->blk, 0, sizeof(buf), buf, 0), ==, -EIO);
    --*w->running;
}

/*
 * A server that does not answer holds up no request after bdrv_cancel_in_flight(), reconnect-delay
 * or not.
 */
static void coroutine_fn cancel_in_flight(void *opaque)
{
    Setup s = {.connections = 1, .reconnect_delay = GPOINTER_TO_INT(opaque)};
    unsigned running = 3;
    Worker w = {.s = &s, .running = &running};

    set_up(&s);
    bdrv_co_drained_begin(s.served); /* the server takes requests and does nothing */
    for (unsigned i = 0; i < 3; i++) {
        qemu_coroutine_enter(qemu_coroutine_create(read_that_hangs, &w));
    }
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 5 * SCALE_MS);
    g_assert_cmpint(running, ==, 3);
    s.bs->drv->protocol->bdrv_cancel_in_flight(s.bs);
    while (running) {
        qemu_co_yield_to_loop();
    }
    bdrv_co_drained_end(s.served);
    tear_down(&s);
}

static void test_cancel_in_flight(gconstpointer delay)
{
    aio_run_coroutine(cancel_in_flight, (void *)delay);
}

/*
 * A drained section of a node whose server is gone ends, also while a request waits for the server.
 */
static void coroutine_fn drain_without_server(void *opaque)
{
    Setup s = {.connections = 1, .reconnect_delay = 1};
    unsigned running = 1;
    Worker w = {.s = &s, .running = &running};

    set_up(&s);
    nbd_server_co_stop();
    bdrv_co_drained_begin(s.bs);
    bdrv_co_drained_end(s.bs);
    qemu_coroutine_enter(qemu_coroutine_create(read_that_hangs, &w));
    bdrv_co_drained_begin(s.bs);
    g_assert_cmpint(running, ==, 0);
    bdrv_co_drained_end(s.bs);
    tear_down(&s);
}

static void test_drain_without_server(void)
{
    aio_run_coroutine(drain_without_server, NULL);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    nbd_server_register();
    dir = g_dir_make_tmp("ferry-nbd-XXXXXX", NULL);
    g_test_add_func("/nbd/names", test_names);
    g_test_add_func("/nbd/bad-names", test_bad_names);
    g_test_add_data_func("/nbd/random/1", GINT_TO_POINTER(1), test_random);
    g_test_add_data_func("/nbd/random/4", GINT_TO_POINTER(4), test_random);
    g_test_add_func("/nbd/status", test_status);
    g_test_add_func("/nbd/drain-and-move", test_drain_and_move);
    g_test_add_data_func("/nbd/reconnect/1", GINT_TO_POINTER(1), test_reconnect);
    g_test_add_data_func("/nbd/reconnect/4", GINT_TO_POINTER(4), test_reconnect);
    g_test_add_func("/nbd/fail-while-away", test_fail_while_away);
    g_test_add_data_func("/nbd/cancel-in-flight/0", GINT_TO_POINTER(0), test_cancel_in_flight);
    g_test_add_data_func("/nbd/cancel-in-flight/30", GINT_TO_POINTER(30), test_cancel_in_flight);
    g_test_add_func("/nbd/drain-without-server", test_drain_without_server);
    ret = g_test_run();
    g_rmdir(dir);
    g_free(dir);
    return ret;
}
