/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The threads of a mapped-ram file: everything is moved once, errors are reported, no thread runs
 * far ahead.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/channel-file.h"
#include "migration/ram-mapped-io.h"
#include "util/error.h"

#define PAGES   100000
#define SCRATCH 10000

enum {
    SLOW_BEGUN = 1,
    SLOW_DONE,
};

typedef struct World {
    QIOChannel *stream;
    unsigned opened, failures;
    unsigned char moved[PAGES]; /* atomic: how often */
    uint64_t submitted, begun;  /* atomic: pages */
    uint64_t ahead;             /* atomic: the largest difference of both */
    uint64_t bad;               /* the page that can't be moved; UINT64_MAX: none */
    uint64_t slow;              /* one that is being moved when that shows; UINT64_MAX: none */
    int slow_state;             /* atomic */
    bool no_more;               /* further descriptors fail */
} World;

static World world;

static int open_null(void *opaque, bool direct, GError **errp)
{
    g_assert_true(opaque == &world);
    if (world.no_more && world.opened) {
        error_setg(errp, "no more");
        return -1;
    }
    world.opened++;
    return open("/dev/null", O_RDWR | O_CLOEXEC);
}

/* What was submitted is looked at first: what others begin until the second look only makes it less. */
static void note_ahead(uint64_t n)
{
    uint64_t submitted = __atomic_load_n(&world.submitted, __ATOMIC_SEQ_CST);
    uint64_t begun = __atomic_fetch_add(&world.begun, n, __ATOMIC_SEQ_CST);
    uint64_t ahead = submitted > begun ? submitted - begun : 0;
    uint64_t most = __atomic_load_n(&world.ahead, __ATOMIC_RELAXED);

    while (ahead > most && !__atomic_compare_exchange_n(&world.ahead, &most, ahead, true,
                                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

/* Is in the middle when the other page fails, and some time after. */
static void move_slowly(void)
{
    __atomic_store_n(&world.slow_state, SLOW_BEGUN, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&world.failures, __ATOMIC_SEQ_CST)) {
        g_thread_yield();
    }
    g_usleep(50 * 1000);
    __atomic_store_n(&world.slow_state, SLOW_DONE, __ATOMIC_SEQ_CST);
}

static int move(void *opaque, QIOChannel *file, void *scratch, const MappedRange *range,
                GError **errp)
{
    g_assert_true(opaque == &world);
    g_assert_true(range->block == &world.moved);
    g_assert_true((uintptr_t)scratch % 4096 == 0);
    memset(scratch, 1, SCRATCH);
    note_ahead(range->n);
    for (uint64_t page = range->first; page < range->first + range->n; page++) {
        if (page == world.slow) {
            move_slowly();
        }
        if (page == world.bad) {
            while (world.slow < PAGES && !__atomic_load_n(&world.slow_state, __ATOMIC_SEQ_CST)) {
                g_thread_yield();
            }
            error_setg(errp, "page %u cannot be moved", (unsigned)page);
            return -EIO;
        }
        __atomic_fetch_add(&world.moved[page], 1, __ATOMIC_RELAXED);
    }
    return 0;
}

static void note_failure(void *opaque, GError *err)
{
    __atomic_fetch_add(&world.failures, 1, __ATOMIC_SEQ_CST);
    g_error_free(err);
}

static MappedIO *begin(unsigned threads, bool direct, GError **errp)
{
    const MappedIOOptions options = {.threads = threads,
                                     .thread_name = "mover",
                                     .direct = direct,
                                     .scratch_bytes = SCRATCH,
                                     .stream = world.stream,
                                     .opaque = &world,
                                     .open = open_null,
                                     .move = move,
                                     .failed = note_failure};
    QIOChannel *stream = world.stream;

    memset(&world, 0, sizeof(world));
    world.stream = stream;
    world.bad = world.slow = UINT64_MAX;
    return mapped_io_new(&options, errp);
}

/* Ranges of `n` pages with as many between them. 0 or -errno. */
static int submit_all(MappedIO *io, uint64_t n, GError **errp)
{
    int ret = 0;

    for (uint64_t page = 0; page + n <= PAGES && ret == 0; page += 2 * n) {
        const MappedRange range = {&world.moved, page, n};

        __atomic_fetch_add(&world.submitted, n, __ATOMIC_SEQ_CST);
        ret = mapped_io_submit(io, &range, errp);
    }
    return ret;
}

static void check_moved(uint64_t n)
{
    for (uint64_t page = 0; page + n <= PAGES; page++) {
        g_assert_cmpuint(world.moved[page], ==, page / n % 2 == 0);
    }
}

static void test_everything_once(void)
{
    static const uint64_t lengths[] = {1, 5, 100, 256, 1000};

    for (unsigned threads = 0; threads <= 5; threads++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(lengths); i++) {
            g_autoptr(GError) err = NULL;
            MappedIO *io = begin(threads, threads % 2, &err);

            g_assert_no_error(err);
            g_assert_cmpint(submit_all(io, lengths[i], &err), ==, 0);
            g_assert_cmpint(mapped_io_wait(io, &err), ==, 0);
            check_moved(lengths[i]);
            g_assert_cmpint(mapped_io_finish(io, &err), ==, 0);
            g_assert_no_error(err);
            g_assert_cmpuint(world.opened, ==, threads);
            mapped_io_free(io);
        }
    }
}

static void test_no_thread_runs_ahead(void)
{
    for (unsigned threads = 1; threads <= 4; threads++) {
        MappedIO *io = begin(threads, false, NULL);

        g_assert_cmpint(submit_all(io, 16, NULL), ==, 0);
        g_assert_cmpint(mapped_io_wait(io, NULL), ==, 0);
        /* what each has in hand and next, what is being gathered, and the range at the gate */
        g_assert_cmpuint(world.ahead, <=, (2 * threads + 1) * 256 + 16);
        mapped_io_free(io);
    }
}

static void test_first_error_stays(void)
{
    for (unsigned threads = 1; threads <= 4; threads++) {
        g_autoptr(GError) err = NULL, again = NULL, third = NULL;
        MappedIO *io = begin(threads, false, NULL);

        world.bad = 64 * 500;
        (void)submit_all(io, 64, NULL);
        g_assert_cmpint(mapped_io_wait(io, &err), ==, -EIO);
        g_assert_cmpstr(err->message, ==, "page 32000 cannot be moved");
        g_assert_cmpint(submit_all(io, 64, &again), ==, -EIO);
        g_assert_cmpstr(again->message, ==, err->message);
        g_assert_cmpint(mapped_io_finish(io, &third), ==, -EIO);
        g_assert_cmpuint(world.failures, ==, 1);
        mapped_io_free(io);
    }
}

/* After a wait that has failed no thread uses the owner's memory any more, not even a slow one. */
static void test_waits_for_those_that_work(void)
{
    MappedIO *io = begin(2, false, NULL);

    world.bad = 4;
    world.slow = 200;
    (void)submit_all(io, 1, NULL);
    g_assert_cmpint(mapped_io_wait(io, NULL), ==, -EIO);
    g_assert_cmpint(__atomic_load_n(&world.slow_state, __ATOMIC_SEQ_CST), ==, SLOW_DONE);
    mapped_io_free(io);
}

static void test_no_descriptor(void)
{
    g_autoptr(GError) err = NULL;
    const MappedIOOptions options = {.threads = 4,
                                     .thread_name = "mover",
                                     .stream = world.stream,
                                     .opaque = &world,
                                     .open = open_null,
                                     .move = move};

    mapped_io_free(begin(0, false, NULL));
    world.no_more = true;
    g_assert_null(mapped_io_new(&options, &err));
    g_assert_cmpstr(err->message, ==, "no more");
    mapped_io_free(NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    world.stream = QIO_CHANNEL(qio_channel_file_new_path("/dev/null", O_RDWR, 0, NULL));
    g_test_add_func("/migration/mapped-io/everything-once", test_everything_once);
    g_test_add_func("/migration/mapped-io/no-thread-runs-ahead", test_no_thread_runs_ahead);
    g_test_add_func("/migration/mapped-io/first-error-stays", test_first_error_stays);
    g_test_add_func("/migration/mapped-io/waits-for-those-that-work",
                    test_waits_for_those_that_work);
    g_test_add_func("/migration/mapped-io/no-descriptor", test_no_descriptor);
    return g_test_run();
}
