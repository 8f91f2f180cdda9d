/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vCPUs and the stop of the guest. The vCPUs behave as real ones will. Each is a thread whose guest
 * code is a loop; it leaves the loop for MMIO under the big lock, and for kicks.
 */
#include "accel/cpus.h"

#include "accel/runstate.h"
#include "accel/vm-stop.h"
#include "util/aio.h"
#include "util/error.h"

enum { VCPUS = 4, ROUNDS = 50 };

typedef struct TestCPU {
    CPUState cpu; /* first */
    GThread *thread;
    int kicked;           /* atomic: kept until guest code is entered */
    uint64_t steps;       /* atomic: of guest code */
    int asks_for_a_panic; /* atomic: its next MMIO asks to stop the guest */
    int fetched, pushed;
    bool fails;
} TestCPU;

static TestCPU vcpus[VCPUS];
static uint64_t device; /* under the big lock: what MMIO changes */

static TestCPU *of(CPUState *cpu)
{
    return (TestCPU *)cpu;
}

static void kick(CPUState *cpu)
{
    __atomic_store_n(&of(cpu)->kicked, 1, __ATOMIC_SEQ_CST);
}

static bool fetch(CPUState *cpu, GError **errp)
{
    if (of(cpu)->fails) {
        error_setg(errp, "no registers");
        return false;
    }
    of(cpu)->fetched++;
    return true;
}

static bool push(CPUState *cpu, GError **errp)
{
    of(cpu)->pushed++;
    return true;
}

static const AccelCPUOps ops = {.kick = kick, .fetch = fetch, .push = push};

/* Some steps, then an exit; a kick ends it early. A guest that runs alone would go on for ever. */
static void guest_code(TestCPU *t)
{
    for (int i = 0; i < 1000; i++) {
        if (__atomic_exchange_n(&t->kicked, 0, __ATOMIC_SEQ_CST)) {
            return;
        }
        __atomic_add_fetch(&t->steps, 1, __ATOMIC_SEQ_CST);
    }
}

static void mmio(TestCPU *t)
{
    g_assert_true(runstate_is_running()); /* stopping waits for it */
    device++;
    if (__atomic_exchange_n(&t->asks_for_a_panic, 0, __ATOMIC_SEQ_CST)) {
        vm_stop_request(RUN_STATE_GUEST_PANICKED);
    }
}

static void *vcpu_thread(void *opaque)
{
    TestCPU *t = opaque;

    bql_lock();
    while (cpu_wait_to_run(&t->cpu)) {
        bql_unlock();
        if (!cpu_should_leave(&t->cpu)) {
            guest_code(t);
            bql_lock();
            mmio(t);
        } else {
            bql_lock();
        }
    }
    bql_unlock();
    return NULL;
}

static void plug(void)
{
    for (int i = 0; i < VCPUS; i++) {
        vcpus[i] = (TestCPU){0};
        cpu_add(&vcpus[i].cpu, &ops);
        vcpus[i].thread = g_thread_new("vcpu", vcpu_thread, &vcpus[i]);
    }
}

static void unplug_one(TestCPU *t)
{
    cpu_end(&t->cpu);
    bql_main_unlock();
    g_thread_join(t->thread);
    bql_main_lock();
    cpu_remove(&t->cpu);
}

static void unplug(void)
{
    for (int i = 0; i < VCPUS; i++) {
        unplug_one(&vcpus[i]);
    }
}

static uint64_t steps(void)
{
    uint64_t n = 0;

    for (int i = 0; i < VCPUS; i++) {
        n += __atomic_load_n(&vcpus[i].steps, __ATOMIC_SEQ_CST);
    }
    return n;
}

/* Until every vCPU has run guest code since it was looked at. */
static void run_for_a_while(void)
{
    for (int i = 0; i < VCPUS; i++) {
        uint64_t before = __atomic_load_n(&vcpus[i].steps, __ATOMIC_SEQ_CST);

        while (__atomic_load_n(&vcpus[i].steps, __ATOMIC_SEQ_CST) == before) {
            aio_poll(qemu_get_aio_context(), false);
        }
    }
}

static void assert_nothing_runs(void)
{
    uint64_t before = steps(), mmios = device;

    g_assert_true(cpus_stand());
    for (int i = 0; i < 20; i++) {
        bql_main_unlock(); /* a vCPU that wants the lock gets it */
        g_thread_yield();
        bql_main_lock();
    }
    g_assert_cmpuint(steps(), ==, before);
    g_assert_cmpuint(device, ==, mmios);
}

static void coroutine_fn stop_co(void *opaque)
{
    g_assert_cmpint(vm_co_stop(RUN_STATE_PAUSED), ==, 0);
    g_assert_true(cpus_stand());
}

static void stop(void)
{
    aio_run_coroutine(stop_co, NULL);
}

static void test_a_stopped_guest_executes_nothing(void)
{
    plug();
    assert_nothing_runs(); /* the guest was not started */
    for (int i = 0; i < ROUNDS; i++) {
        vm_start();
        if (i % 2) {
            run_for_a_while();
        }
        stop();
        g_assert_true(runstate_check(RUN_STATE_PAUSED));
        assert_nothing_runs();
    }
    unplug();
}

static void check_handler(void *opaque, bool running, RunState state)
{
    int *calls = opaque;

    g_assert_true(cpus_stand());
    ++*calls;
}

static void test_handlers_run_while_every_vcpu_stands(void)
{
    int calls = 0;
    VMChangeStateEntry *entry = qemu_add_vm_change_state_handler(check_handler, &calls);

    plug();
    for (int i = 0; i < ROUNDS; i++) {
        vm_start();
        stop();
    }
    g_assert_cmpint(calls, ==, 2 * ROUNDS);
    qemu_del_vm_change_state_handler(entry);
    unplug();
}

static void test_a_vcpu_that_asks_for_a_stop_executes_nothing_more(void)
{
    plug();
    for (int i = 0; i < ROUNDS; i++) {
        TestCPU *t = &vcpus[i % VCPUS];
        uint64_t then;

        vm_start();
        run_for_a_while();
        __atomic_store_n(&t->asks_for_a_panic, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&t->asks_for_a_panic, __ATOMIC_SEQ_CST)) {
            bql_main_unlock();
            g_thread_yield();
            bql_main_lock();
        }
        then = __atomic_load_n(&t->steps, __ATOMIC_SEQ_CST);
        while (runstate_is_running()) {
            aio_poll(qemu_get_aio_context(), true);
        }
        g_assert_true(runstate_check(RUN_STATE_GUEST_PANICKED));
        g_assert_cmpuint(__atomic_load_n(&t->steps, __ATOMIC_SEQ_CST), ==, then);
        assert_nothing_runs();
    }
    unplug();
}

static void coroutine_fn pause_co(void *opaque)
{
    vm_co_pause(RUN_STATE_WATCHDOG);
    ++*(int *)opaque;
}

static void coroutine_fn cont_co(void *opaque)
{
    GError *err = NULL;

    g_assert_true(vm_co_cont(&err));
    ++*(int *)opaque;
}

/* Two stops, and a start while they wait for vCPUs: each is carried out in its turn. */
static void test_commands_that_meet_a_stop_wait_for_their_turn(void)
{
    AioContext *ctx = qemu_get_aio_context();
    int over = 0;

    plug();
    for (int i = 0; i < ROUNDS; i++) {
        vm_start();
        over = 0;
        aio_co_schedule(ctx, qemu_coroutine_create(pause_co, &over));
        aio_co_schedule(ctx, qemu_coroutine_create(pause_co, &over));
        aio_co_schedule(ctx, qemu_coroutine_create(cont_co, &over));
        while (over < 3) {
            aio_poll(ctx, true);
        }
        g_assert_true(runstate_is_running());
        run_for_a_while();
        stop();
    }
    unplug();
}

static void test_a_vcpu_that_goes_is_not_waited_for(void)
{
    plug();
    vm_start();
    run_for_a_while();
    unplug_one(&vcpus[0]);
    stop();
    assert_nothing_runs();
    for (int i = 1; i < VCPUS; i++) {
        unplug_one(&vcpus[i]);
    }
}

static void test_registers_are_fetched_and_pushed_while_all_stand(void)
{
    GError *err = NULL;

    plug();
    vm_start();
    stop();
    g_assert_true(cpus_fetch(&err));
    g_assert_true(cpus_push(&err));
    for (int i = 0; i < VCPUS; i++) {
        g_assert_cmpint(vcpus[i].fetched, ==, 1);
        g_assert_cmpint(vcpus[i].pushed, ==, 1);
    }
    vcpus[2].fails = true;
    g_assert_false(cpus_fetch(&err));
    g_assert_cmpstr(err->message, ==, "no registers");
    g_error_free(err);
    unplug();
}

int main(int argc, char **argv)
{
    GError *err = NULL;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(&err));
    g_test_add_func("/cpus/stopped", test_a_stopped_guest_executes_nothing);
    g_test_add_func("/cpus/handlers", test_handlers_run_while_every_vcpu_stands);
    g_test_add_func("/cpus/request", test_a_vcpu_that_asks_for_a_stop_executes_nothing_more);
    g_test_add_func("/cpus/turns", test_commands_that_meet_a_stop_wait_for_their_turn);
    g_test_add_func("/cpus/unplug", test_a_vcpu_that_goes_is_not_waited_for);
    g_test_add_func("/cpus/registers", test_registers_are_fetched_and_pushed_while_all_stand);
    return g_test_run();
}
