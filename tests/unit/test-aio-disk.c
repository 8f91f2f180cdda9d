/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disk I/O of coroutines, over each back end of the event loop and each engine. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>
#include "tests/unit/aio-fixture.h"

typedef struct Disk {
    AioDiskEngine engine;
    int fd;
    bool done;
} Disk;

static void coroutine_fn disk_co_entry(void *opaque)
{
    Disk *d = opaque;
    char a[1000], b[3000], c[8000];
    struct iovec out[] = {{a, sizeof(a)}, {b, sizeof(b)}};
    struct iovec in = {c, sizeof(c)};
    int bad_fd;

    memset(a, 1, sizeof(a));
    memset(b, 2, sizeof(b));
    g_assert_cmpint(aio_co_pwritev(d->engine, d->fd, out, 2, 500, false), ==, 4000);
    g_assert_cmpint(aio_co_pwritev(d->engine, d->fd, &out[1], 1, 4500, true), ==, 3000);
    g_assert_cmpint(aio_co_fdatasync(d->engine, d->fd), ==, 0);
    memset(c, 3, sizeof(c));
    g_assert_cmpint(aio_co_preadv(d->engine, d->fd, &in, 1, 0), ==, 7500); /* short: end of file */
    g_assert_cmpint(c[0], ==, 0);
    g_assert_cmpint(c[499], ==, 0);
    g_assert_cmpint(c[500], ==, 1);
    g_assert_cmpint(c[1499], ==, 1);
    g_assert_cmpint(c[1500], ==, 2);
    g_assert_cmpint(c[7499], ==, 2);
    g_assert_cmpint(c[7500], ==, 3);
    g_assert_cmpint(aio_co_preadv(d->engine, d->fd, out, 2, 1499), ==, 4000);
    g_assert_cmpint(a[0], ==, 1);
    g_assert_cmpint(a[1], ==, 2);
    g_assert_cmpint(aio_co_preadv(d->engine, d->fd, &in, 1, 7500), ==, 0);
    g_assert_cmpint(aio_co_preadv(d->engine, d->fd, &in, 1, -1), ==, -EINVAL);
    g_assert_cmpint(aio_co_pwritev(d->engine, d->fd, &in, 1, -1, false), ==, -EINVAL);

    bad_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(aio_co_pwritev(d->engine, bad_fd, &in, 1, 0, true), ==, -EBADF);
    close(bad_fd);
    g_assert_cmpint(aio_co_preadv(d->engine, bad_fd, &in, 1, 0), ==, -EBADF);
    g_assert_cmpint(aio_co_fdatasync(d->engine, bad_fd), ==, -EBADF);
    d->done = true;
}

static void test_disk(Fixture *f, gconstpointer data)
{
    for (AioDiskEngine engine = AIO_DISK_IO_URING; engine <= AIO_DISK_THREADS; engine++) {
        g_autofree char *name = NULL;
        Disk d = {.engine = engine, .fd = g_file_open_tmp("ferry-aio-XXXXXX", &name, NULL)};

        g_assert_cmpint(d.fd, >=, 0);
        aio_run_coroutine(disk_co_entry, &d);
        g_assert_true(d.done);
        close(d.fd);
        g_unlink(name);
    }
}

typedef struct DiskMany {
    AioDiskEngine engine;
    int fd;
    int index;
    int *done;
} DiskMany;

static void coroutine_fn disk_many_co_entry(void *opaque)
{
    DiskMany *d = opaque;
    char out[512], in[512];
    struct iovec iov = {out, sizeof(out)};

    for (int i = 0; i < 4; i++) {
        memset(out, d->index + i, sizeof(out));
        iov.iov_base = out;
        g_assert_cmpint(aio_co_pwritev(d->engine, d->fd, &iov, 1, d->index * 512, false), ==, 512);
        iov.iov_base = in;
        g_assert_cmpint(aio_co_preadv(d->engine, d->fd, &iov, 1, d->index * 512), ==, 512);
        g_assert_cmpmem(in, 512, out, 512);
    }
    (*d->done)++;
}

/*
 * More requests at once than the submission queue, the completion queue and the worker threads
 * hold.
 */
static void test_disk_many_at_once(Fixture *f, gconstpointer data)
{
    enum {
        N = 1500,
    };
    for (AioDiskEngine engine = AIO_DISK_IO_URING; engine <= AIO_DISK_THREADS; engine++) {
        g_autofree char *name = NULL;
        g_autofree DiskMany *d = g_new0(DiskMany, N);
        int fd = g_file_open_tmp("ferry-aio-XXXXXX", &name, NULL);
        int done = 0;

        g_assert_cmpint(fd, >=, 0);
        for (int i = 0; i < N; i++) {
            d[i] = (DiskMany){.engine = engine, .fd = fd, .index = i, .done = &done};
            qemu_coroutine_enter(qemu_coroutine_create(disk_many_co_entry, &d[i]));
        }
        while (done < N) {
            aio_poll(f->ctx, true);
        }
        close(fd);
        g_unlink(name);
    }
}

static void add_tests(AioBackend backend, const char *name)
{
    ADD("disk/one", test_disk);
    ADD("disk/many-at-once", test_disk_many_at_once);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    return fixture_run(add_tests);
}
