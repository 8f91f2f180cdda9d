/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copying into holes of a file in memory with large pages: what is copied, what is left. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "block/file/file.h"

#define LARGE (2 << 20)
#define SIZE  (8 * LARGE)

typedef struct Fixture {
    FileLargePages large;
    int in, out;
    uint8_t *data; /* of the source */
} Fixture;

static void set_up(Fixture *f, gconstpointer unused)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);

    (void)unused;
    file_large_init(&f->large);
    f->in = memfd_create("in", MFD_CLOEXEC);
    f->out = memfd_create("out", MFD_CLOEXEC);
    f->data = g_malloc(SIZE);
    for (size_t i = 0; i < SIZE / sizeof(guint32); i++) {
        ((guint32 *)f->data)[i] = g_rand_int(rand);
    }
    g_assert_cmpint(pwrite(f->in, f->data, SIZE, 0), ==, SIZE);
    g_assert_cmpint(ftruncate(f->out, SIZE), ==, 0);
}

static void tear_down(Fixture *f, gconstpointer unused)
{
    (void)unused;
    file_large_destroy(&f->large);
    close(f->in);
    close(f->out);
    g_free(f->data);
}

static int64_t try_copy(Fixture *f, int64_t offset, int64_t bytes, int64_t *others)
{
    return file_large_copy(&f->large, f->in, offset, f->out, offset, bytes, others);
}

static void assert_same(Fixture *f, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *got = g_malloc(bytes);

    g_assert_cmpint(pread(f->out, got, bytes, offset), ==, bytes);
    g_assert_cmpmem(got, bytes, f->data + offset, bytes);
}

/* Ends of a range that are no whole large page. */
static void test_ends(Fixture *f, gconstpointer unused)
{
    int64_t others;

    (void)unused;
    g_assert_cmpint(try_copy(f, 4096, 8192, &others), ==, 0);
    g_assert_cmpint(others, ==, 8192);
    g_assert_cmpint(try_copy(f, LARGE - 4096, LARGE, &others), ==, 0);
    g_assert_cmpint(others, ==, LARGE);
    g_assert_cmpint(try_copy(f, LARGE - 4096, LARGE + 4096, &others), ==, 0);
    g_assert_cmpint(others, ==, 4096);
    g_assert_cmpint(try_copy(f, 0, LARGE - 1, &others), ==, 0);
    g_assert_cmpint(others, ==, LARGE - 1);
    g_assert_cmpint(lseek(f->out, 0, SEEK_DATA), ==, -1); /* nothing was allocated for that */
    g_assert_cmpint(errno, ==, ENXIO);
}

/* What holds data already is left to the caller, as it is. */
static void test_data(Fixture *f, gconstpointer unused)
{
    int64_t others;
    char byte = 0;

    (void)unused;
    g_assert_cmpint(pwrite(f->out, "x", 1, LARGE - 1), ==, 1);
    g_assert_cmpint(try_copy(f, 0, SIZE, &others), ==, 0);
    g_assert_cmpint(others, ==, LARGE);
    g_assert_cmpint(pread(f->out, &byte, 1, LARGE - 1), ==, 1);
    g_assert_cmpint(byte, ==, 'x');
}

/* A whole range, as a caller does it, into a file that is too short: the kernel may refuse. */
static void test_whole(Fixture *f, gconstpointer unused)
{
    const int64_t start = 12345, end = SIZE - 54321;
    int64_t by_large = 0, others = 0;

    (void)unused;
    g_assert_cmpint(ftruncate(f->out, 5 * LARGE), ==, 0);
    g_assert_cmpint(pwrite(f->out, "x", 1, 2 * LARGE + 77), ==, 1);
    for (int64_t at = start; at < end;) {
        int64_t n = try_copy(f, at, end - at, &others);

        g_assert_cmpint(n, >=, 0);
        g_assert_cmpint(n, <=, BDRV_COPY_RANGE_MAP);
        g_assert_cmpint(others, >=, 0);
        g_assert_cmpint(n + others, >, 0);
        g_assert_cmpint(n + others, <=, end - at);
        by_large += n;
        at += n;
        g_assert_cmpint(pwrite(f->out, f->data + at, others, at), ==, others);
        at += others;
    }
    assert_same(f, start, end - start);
    g_assert_cmpint(lseek(f->out, 0, SEEK_END), ==, end);
    g_test_message("%" PRId64 " bytes in large pages", by_large);
}

/* A source that ends early: the caller copies from where it ended. */
static void test_short_source(Fixture *f, gconstpointer unused)
{
    int64_t others, done;

    (void)unused;
    g_assert_cmpint(ftruncate(f->in, 5000), ==, 0);
    done = try_copy(f, 0, SIZE, &others);
    g_assert_true((done == 5000 && others == 0) || (done == 0 && others == LARGE));
    assert_same(f, 0, done);
}

/* What cannot be written is not tried again for a while, and ever more rarely. */
static void test_refused(Fixture *f, gconstpointer unused)
{
    g_autofree char *name = g_strdup_printf("/proc/self/fd/%d", f->out);
    int64_t others;
    int fd = open(name, O_RDONLY | O_CLOEXEC);

    (void)unused;
    g_assert_cmpint(fd, >=, 0);
    close(f->out);
    f->out = fd;
    for (int i = 1; i < 3; i++) {
        unsigned skip;

        g_assert_cmpint(f->large.skip, ==, 0);
        g_assert_cmpint(try_copy(f, 0, SIZE, &others), ==, 0);
        g_assert_cmpint(others, ==, LARGE);
        skip = f->large.skip;
        g_assert_cmpint(skip, >=, 4 * i);
        while (skip--) {
            g_assert_cmpint(try_copy(f, 0, SIZE, &others), ==, 0);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add("/file-large/ends", Fixture, NULL, set_up, test_ends, tear_down);
    g_test_add("/file-large/data", Fixture, NULL, set_up, test_data, tear_down);
    g_test_add("/file-large/whole", Fixture, NULL, set_up, test_whole, tear_down);
    g_test_add("/file-large/short-source", Fixture, NULL, set_up, test_short_source, tear_down);
    g_test_add("/file-large/refused", Fixture, NULL, set_up, test_refused, tear_down);
    return g_test_run();
}
