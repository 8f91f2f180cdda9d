/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vCPUs: when they may run guest code, and the wait until all of them stand. */
#include "accel/cpus.h"

#include "util/aio.h"

TAILQ_HEAD(CPUList, CPUState);

static struct {
    struct CPUList list;
    bool may_run;
    unsigned throttle_percent;
    Coroutine *stopper; /* waits until all stand; NULL: none */
} cpus = {.list = TAILQ_HEAD_INITIALIZER(cpus.list)};

static __thread CPUState *own_cpu;

static void set_leave(CPUState *cpu, bool leave)
{
    __atomic_store_n(&cpu->leave, leave, __ATOMIC_SEQ_CST);
}

bool cpus_stand(void)
{
    CPUState *cpu;

    g_assert(bql_locked());
    TAILQ_FOREACH(cpu, &cpus.list, link) {
        if (!cpu->stands) {
            return false;
        }
    }
    return true;
}

static void tell_stopper(void)
{
    if (cpus.stopper && cpus_stand()) {
        aio_co_wake(g_steal_pointer(&cpus.stopper));
    }
}

void cpu_add(CPUState *cpu, const AccelCPUOps *ops)
{
    g_assert(bql_locked() && ops->kick);
    cpu->ops = ops;
    cpu->stands = true;
    cpu->ends = false;
    set_leave(cpu, !cpus.may_run);
    TAILQ_INSERT_TAIL(&cpus.list, cpu, link);
    if (cpus.throttle_percent && ops->throttle) {
        ops->throttle(cpu, cpus.throttle_percent);
    }
}

void cpu_remove(CPUState *cpu)
{
    g_assert(bql_locked());
    TAILQ_REMOVE(&cpus.list, cpu, link);
    tell_stopper();
}

void cpu_end(CPUState *cpu)
{
    g_assert(bql_locked());
    cpu->ends = true;
    set_leave(cpu, true);
    cpu->ops->kick(cpu);
    bql_cond_broadcast(&cpu->go);
}

bool cpu_wait_to_run(CPUState *cpu)
{
    g_assert(bql_locked());
    own_cpu = cpu;
    while (!cpu->ends && cpu_should_leave(cpu)) {
        cpu->stands = true;
        tell_stopper();
        bql_cond_wait(&cpu->go);
    }
    cpu->stands = cpu->ends;
    if (cpu->ends) {
        own_cpu = NULL;
        tell_stopper();
    }
    return !cpu->ends;
}

bool cpu_should_leave(const CPUState *cpu)
{
    return __atomic_load_n(&cpu->leave, __ATOMIC_SEQ_CST);
}

void cpu_leave_self(void)
{
    if (own_cpu) {
        set_leave(own_cpu, true);
    }
}

void cpus_start(void)
{
    CPUState *cpu;

    g_assert(bql_locked());
    cpus.may_run = true;
    TAILQ_FOREACH(cpu, &cpus.list, link) {
        set_leave(cpu, cpu->ends);
        bql_cond_broadcast(&cpu->go);
    }
}

void coroutine_fn cpus_co_stop(void)
{
    CPUState *cpu;

    g_assert(bql_locked() && !cpus.stopper);
    cpus.may_run = false;
    TAILQ_FOREACH(cpu, &cpus.list, link) {
        set_leave(cpu, true);
        cpu->ops->kick(cpu);
    }
    while (!cpus_stand()) {
        cpus.stopper = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
}

bool cpus_throttle(unsigned percent)
{
    bool any = false;
    CPUState *cpu;

    g_assert(bql_locked());
    cpus.throttle_percent = percent;
    TAILQ_FOREACH(cpu, &cpus.list, link) {
        if (cpu->ops->throttle) {
            cpu->ops->throttle(cpu, percent);
            any = true;
        }
    }
    return any;
}

void cpus_reset(void)
{
    CPUState *cpu;

    g_assert(cpus_stand());
    TAILQ_FOREACH(cpu, &cpus.list, link) {
        if (cpu->reset) {
            cpu->reset(cpu);
        }
    }
}

bool cpus_fetch(GError **errp)
{
    CPUState *cpu;

    g_assert(cpus_stand());
    TAILQ_FOREACH(cpu, &cpus.list, link) {
        if (cpu->ops->fetch && !cpu->ops->fetch(cpu, errp)) {
            return false;
        }
    }
    return true;
}

bool cpus_push(GError **errp)
{
    CPUState *cpu;

    g_assert(cpus_stand());
    TAILQ_FOREACH(cpu, &cpus.list, link) {
        if (cpu->ops->push && !cpu->ops->push(cpu, errp)) {
            return false;
        }
    }
    return true;
}
