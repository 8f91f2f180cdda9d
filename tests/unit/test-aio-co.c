/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Coroutines and the event loop, over each of its back ends: sleeping, waking, idle stacks. */
#include <string.h>
#include "tests/unit/aio-fixture.h"
#include "util/coroutine-int.h"

typedef struct Sleeper {
    QemuCoSleep sleep;
    bool done;
} Sleeper;

static void coroutine_fn sleeper_co_entry(void *opaque)
{
    Sleeper *s = opaque;

    qemu_co_sleep_ns_wakeable(&s->sleep, QEMU_CLOCK_REALTIME, 3600 * NANOSECONDS_PER_SECOND);
    s->done = true;
}

static void test_co_sleep_cut_short(Fixture *f, gconstpointer data)
{
    Sleeper s = {0};

    qemu_co_sleep_wake(&s.sleep);
    qemu_coroutine_enter(qemu_coroutine_create(sleeper_co_entry, &s));
    g_assert_false(s.done);
    qemu_co_sleep_wake(&s.sleep);
    qemu_co_sleep_wake(&s.sleep);
    g_assert_false(s.done); /* never inside the call */
    aio_poll(f->ctx, true);
    g_assert_true(s.done);
}

static void coroutine_fn sleep_co_entry(void *opaque)
{
    int64_t start = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 2 * SCALE_MS);
    g_assert_cmpint(qemu_clock_get_ns(QEMU_CLOCK_REALTIME), >=, start + 2 * SCALE_MS);
    qemu_co_sleep_ns(QEMU_CLOCK_VIRTUAL, 0);
    qemu_co_sleep_ns(QEMU_CLOCK_HOST, -1);
    *(bool *)opaque = true;
}

static void test_co_sleep(Fixture *f, gconstpointer data)
{
    bool done = false;

    aio_run_coroutine(sleep_co_entry, &done);
    g_assert_true(done);
}

static void coroutine_fn wait_co_entry(void *opaque)
{
    qemu_coroutine_yield();
    *(bool *)opaque = true;
}

static void test_co_schedule_twice_aborts(Fixture *f, gconstpointer data)
{
    if (g_test_subprocess()) {
        bool done = false;
        Coroutine *co = qemu_coroutine_create(wait_co_entry, &done);

        qemu_coroutine_enter(co);
        aio_co_wake(co);
        aio_co_wake(co);
        return;
    }
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
    g_test_trap_assert_failed();
}

static void coroutine_fn yield_to_loop_co_entry(void *opaque)
{
    int *n = opaque;

    for (int i = 0; i < 3; i++) {
        (*n)++;
        qemu_co_yield_to_loop();
    }
}

static void test_co_yield_to_loop(Fixture *f, gconstpointer data)
{
    int a = 0, b = 0;

    qemu_coroutine_enter(qemu_coroutine_create(yield_to_loop_co_entry, &a));
    aio_co_schedule(f->ctx, qemu_coroutine_create(yield_to_loop_co_entry, &b));
    for (int i = 2; i <= 3; i++) {
        aio_poll(f->ctx, true);
        g_assert_cmpint(a, ==, i);
        g_assert_cmpint(b, ==, i - 1);
    }
    aio_poll(f->ctx, true);
    g_assert_cmpint(b, ==, 3);
    aio_poll(f->ctx, true);
    g_assert_false(aio_poll(f->ctx, false)); /* both have ended */
}

static void *wake_from_thread(void *opaque)
{
    aio_co_wake(opaque);
    return NULL;
}

static void test_co_wake_from_other_thread(Fixture *f, gconstpointer data)
{
    for (int i = 0; i < 100; i++) {
        bool done = false;
        Coroutine *co = qemu_coroutine_create(wait_co_entry, &done);
        GThread *thread;

        qemu_coroutine_enter(co);
        g_assert_true(qemu_coroutine_get_aio_context(co) == f->ctx);
        thread = g_thread_new("wake", wake_from_thread, co);
        while (!done) {
            aio_poll(f->ctx, true);
        }
        g_thread_join(thread);
    }
}

/* Counts the mapped stacks by their guard pages: mappings without any access right. */
static int count_guard_pages(void)
{
    g_autofree char *maps = NULL;
    int n = 0;

    g_assert_true(g_file_get_contents("/proc/self/maps", &maps, NULL, NULL));
    for (const char *at = maps; (at = strstr(at, " ---p ")); at++) {
        n++;
    }
    return n;
}

static void test_idle_loop_gives_stacks_back(Fixture *f, gconstpointer data)
{
    enum {
        N = 100,
    };
    Coroutine *co[N];
    bool done;
    int before;

    for (int i = 0; i < N; i++) {
        co[i] = qemu_coroutine_create(wait_co_entry, &done);
        qemu_coroutine_enter(co[i]);
    }
    before = count_guard_pages();
    for (int i = 0; i < N; i++) {
        qemu_coroutine_enter(co[i]);
    }
    /* Each turn would be for ever, were there nothing to give back. */
    while (count_guard_pages() > before - N / 2) {
        g_assert_false(aio_poll(f->ctx, true));
    }
}

/* Bursts that are deeper than a thread's own pool, with turns without work in between. */
static void test_bursts_map_no_stack_twice(Fixture *f, gconstpointer data)
{
    enum {
        N = 256,
    };
    Coroutine *co[N];
    unsigned mapped = 0;
    bool done;

    for (int burst = 0; burst < 20; burst++) {
        for (int i = 0; i < N; i++) {
            co[i] = qemu_coroutine_create(wait_co_entry, &done);
            qemu_coroutine_enter(co[i]);
        }
        for (int i = 0; i < N; i++) {
            qemu_coroutine_enter(co[i]);
        }
        aio_notify(f->ctx);
        g_assert_false(aio_poll(f->ctx, true));
        if (burst == 0) {
            mapped = coroutine_stacks_mapped();
        }
    }
    /* A host that stops the test for longer than a period may cost a few bursts. */
    g_assert_cmpuint(coroutine_stacks_mapped() - mapped, <=, 2 * N);
}

typedef struct Herd {
    Coroutine *co[32];
    int n;
} Herd;

static void *create_thread(void *opaque)
{
    Herd *herd = opaque;
    static bool done;

    for (int i = 0; i < herd->n; i++) {
        herd->co[i] = qemu_coroutine_create(wait_co_entry, &done);
        qemu_coroutine_enter(herd->co[i]);
    }
    return NULL;
}

/* A vCPU's threads make coroutines that end in an iothread. */
static void test_stacks_return_to_a_thread_that_only_creates(Fixture *f, gconstpointer data)
{
    unsigned mapped = coroutine_stacks_mapped();
    Herd herd = {.n = G_N_ELEMENTS(herd.co)};

    for (int round = 0; round < 50; round++) {
        g_thread_join(g_thread_new("vcpu", create_thread, &herd));
        for (int i = 0; i < herd.n; i++) {
            qemu_coroutine_enter(herd.co[i]);
        }
    }
    g_assert_cmpuint(coroutine_stacks_mapped() - mapped, <=, 50 * herd.n / 4);
}

/* Stacks that the thread has taken from the shared pool and not used. */
static void test_a_thread_that_ends_hands_its_stacks_on(Fixture *f, gconstpointer data)
{
    Herd herd = {.n = G_N_ELEMENTS(herd.co)}, one = {.n = 1};
    Coroutine *many[96];
    static bool done;
    unsigned mapped;

    for (unsigned i = 0; i < G_N_ELEMENTS(many); i++) {
        many[i] = qemu_coroutine_create(wait_co_entry, &done);
        qemu_coroutine_enter(many[i]);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(many); i++) {
        qemu_coroutine_enter(many[i]);
    }
    mapped = coroutine_stacks_mapped();
    /* Each takes a bundle for the one stack that it uses: all of the pool, if none came back. */
    for (int i = 0; i < 100; i++) {
        g_thread_join(g_thread_new("creator", create_thread, &one));
        qemu_coroutine_enter(one.co[0]);
    }
    g_thread_join(g_thread_new("creator", create_thread, &herd));
    for (int i = 0; i < herd.n; i++) {
        qemu_coroutine_enter(herd.co[i]);
    }
    g_assert_cmpuint(coroutine_stacks_mapped(), ==, mapped);
}

static void add_tests(AioBackend backend, const char *name)
{
    ADD("co/sleep-cut-short", test_co_sleep_cut_short);
    ADD("co/sleep", test_co_sleep);
    ADD("co/schedule-twice-aborts", test_co_schedule_twice_aborts);
    ADD("co/yield-to-loop", test_co_yield_to_loop);
    ADD("co/wake-from-other-thread", test_co_wake_from_other_thread);
    ADD("co/idle-loop-gives-stacks-back", test_idle_loop_gives_stacks_back);
    ADD("co/bursts-map-no-stack-twice", test_bursts_map_no_stack_twice);
    ADD("co/stacks-return-to-a-thread-that-only-creates",
        test_stacks_return_to_a_thread_that_only_creates);
    ADD("co/a-thread-that-ends-hands-its-stacks-on", test_a_thread_that_ends_hands_its_stacks_on);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    return fixture_run(add_tests);
}
