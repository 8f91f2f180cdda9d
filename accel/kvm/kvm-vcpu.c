/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "accel/kvm/kvm-vcpu.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include "accel/kvm/kvm-exit.h"
#include "accel/kvm/kvm-registers.h"
#include "util/bql.h"
#include "util/error.h"

/* Sent to threads of vCPUs alone, and only to end a KVM_RUN. */
#define KICK_SIGNAL SIGUSR1

/* --- the gate --- */

void kvm_machine_init(KVMMachine *machine, const KVMHost *host, AddressSpace *memory,
                      AddressSpace *io)
{
    *machine = (KVMMachine){.host = host, .memory = memory, .io = io};
    g_mutex_init(&machine->lock);
    g_cond_init(&machine->changed);
    machine->vcpus = g_ptr_array_new();
}

void kvm_machine_destroy(KVMMachine *machine)
{
    g_assert(!machine->vcpus->len);
    g_ptr_array_unref(machine->vcpus);
    g_cond_clear(&machine->changed);
    g_mutex_clear(&machine->lock);
}

static bool is_shut(const KVMMachine *machine)
{
    return __atomic_load_n(&machine->shut, __ATOMIC_SEQ_CST);
}

static bool in_guest(const KVMVcpu *vcpu)
{
    return __atomic_load_n(&vcpu->in_guest, __ATOMIC_SEQ_CST);
}

/* The vCPU shows that it is on its way into the guest, then looks at the gate; shutting does both the other way round. */
static bool enter_guest(KVMVcpu *vcpu)
{
    __atomic_store_n(&vcpu->in_guest, 1, __ATOMIC_SEQ_CST);
    return !is_shut(vcpu->machine);
}

static void leave_guest(KVMVcpu *vcpu)
{
    KVMMachine *machine = vcpu->machine;

    __atomic_store_n(&vcpu->in_guest, 0, __ATOMIC_SEQ_CST);
    if (G_UNLIKELY(is_shut(machine))) {
        g_mutex_lock(&machine->lock);
        g_cond_broadcast(&machine->changed);
        while (is_shut(machine)) {
            g_cond_wait(&machine->changed, &machine->lock);
        }
        g_mutex_unlock(&machine->lock);
    }
}

static void kick(CPUState *cpu);

void kvm_machine_shut(KVMMachine *machine)
{
    g_mutex_lock(&machine->lock);
    g_assert(!is_shut(machine));
    __atomic_store_n(&machine->shut, 1, __ATOMIC_SEQ_CST);
    for (guint i = 0; i < machine->vcpus->len; i++) {
        KVMVcpu *vcpu = g_ptr_array_index(machine->vcpus, i);

        if (in_guest(vcpu)) {
            kick(&vcpu->cpu);
        }
        while (in_guest(vcpu)) {
            g_cond_wait(&machine->changed, &machine->lock);
        }
    }
    g_mutex_unlock(&machine->lock);
}

void kvm_machine_open(KVMMachine *machine)
{
    g_mutex_lock(&machine->lock);
    __atomic_store_n(&machine->shut, 0, __ATOMIC_SEQ_CST);
    g_cond_broadcast(&machine->changed);
    g_mutex_unlock(&machine->lock);
}

/* --- kicks --- */

static void set_immediate_exit(KVMVcpu *vcpu, uint8_t value)
{
    __atomic_store_n(&vcpu->run->immediate_exit, value, __ATOMIC_SEQ_CST);
}

static void kick(CPUState *cpu)
{
    KVMVcpu *vcpu = (KVMVcpu *)cpu;

    set_immediate_exit(vcpu, 1);
    if (__atomic_load_n(&vcpu->started, __ATOMIC_ACQUIRE)) {
        pthread_kill(vcpu->pthread, KICK_SIGNAL);
    }
}

/* That it arrives is enough. */
static void on_kick(int number)
{
}

static void catch_kicks(void)
{
    struct sigaction action = {.sa_handler = on_kick}; /* without SA_RESTART: KVM_RUN ends */

    sigemptyset(&action.sa_mask);
    sigaction(KICK_SIGNAL, &action, NULL);
}

static void take_kicks(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* --- the thread --- */

/* Calls KVM_RUN once, unless the gate is shut, and handles what it returns. */
static void run_once(KVMVcpu *vcpu)
{
    bool entered = enter_guest(vcpu);
    int ret = entered ? kvm_vcpu_run(vcpu->machine->host, vcpu->fd) : -EINTR;

    leave_guest(vcpu);
    if (entered) {
        vcpu->unfinished = false;
    }
    if (ret >= 0) {
        kvm_exit_handle(vcpu);
    } else if (ret != -EINTR && ret != -EAGAIN) {
        kvm_exit_failed(vcpu, -ret);
    }
}

/*
 * KVM finishes the guest's last access. An access that crosses pages has a part for each, and each
 * is an exit.
 */
static void finish_access(KVMVcpu *vcpu)
{
    while (vcpu->unfinished) {
        set_immediate_exit(vcpu, 1);
        run_once(vcpu);
    }
}

static void run_guest(KVMVcpu *vcpu)
{
    while (!cpu_should_leave(&vcpu->cpu)) {
        run_once(vcpu);
        /* A kick sets `leave` first. If it comes after this line it ends the next KVM_RUN. */
        set_immediate_exit(vcpu, 0);
    }
    finish_access(vcpu);
}

static void *vcpu_thread(void *opaque)
{
    KVMVcpu *vcpu = opaque;

    vcpu->pthread = pthread_self();
    __atomic_store_n(&vcpu->started, 1, __ATOMIC_RELEASE);
    take_kicks();
    bql_lock();
    while (cpu_wait_to_run(&vcpu->cpu)) {
        bql_unlock();
        run_guest(vcpu);
        bql_lock();
    }
    __atomic_store_n(&vcpu->started, 0, __ATOMIC_RELEASE);
    bql_unlock();
    return NULL;
}

static bool fetch(CPUState *cpu, GError **errp)
{
    KVMVcpu *vcpu = (KVMVcpu *)cpu;

    return kvm_registers_fetch(vcpu->machine->host, vcpu->fd, &vcpu->regs, errp);
}

static bool push(CPUState *cpu, GError **errp)
{
    KVMVcpu *vcpu = (KVMVcpu *)cpu;

    return kvm_registers_push(vcpu->machine->host, vcpu->fd, &vcpu->regs, errp);
}

static const AccelCPUOps cpu_ops = {.kick = kick, .fetch = fetch, .push = push};

static void reset(CPUState *cpu)
{
    KVMVcpu *vcpu = (KVMVcpu *)cpu;

    x86_registers_reset(&vcpu->regs, vcpu->id);
    if (vcpu->boot) {
        vcpu->boot(&vcpu->regs);
    }
}

KVMVcpu *kvm_vcpu_new(KVMMachine *machine, unsigned id, GError **errp)
{
    const KVMHost *host = machine->host;
    int fd = kvm_vm_ioctl(host, KVM_CREATE_VCPU, (void *)(uintptr_t)id);
    void *run;
    KVMVcpu *vcpu;

    if (fd < 0) {
        error_setg_errno(errp, -fd, "KVM makes no vCPU %u", id);
        return NULL;
    }
    run = host->ops->mmap(host->opaque, fd, host->run_bytes);
    if (run == MAP_FAILED) {
        error_setg_errno(errp, errno, "No memory to share with KVM for vCPU %u", id);
        (void)host->ops->close(host->opaque, fd);
        return NULL;
    }
    vcpu = g_new0(KVMVcpu, 1);
    vcpu->machine = machine;
    vcpu->id = id;
    vcpu->fd = fd;
    vcpu->run = run;
    g_mutex_lock(&machine->lock);
    g_ptr_array_add(machine->vcpus, vcpu);
    g_mutex_unlock(&machine->lock);
    vcpu->cpu.reset = reset;
    reset(&vcpu->cpu);
    cpu_add(&vcpu->cpu, &cpu_ops);
    return vcpu;
}

void kvm_vcpu_start(KVMVcpu *vcpu)
{
    g_autofree char *name = g_strdup_printf("CPU %u/KVM", vcpu->id);

    catch_kicks();
    vcpu->thread = g_thread_new(name, vcpu_thread, vcpu);
}

void kvm_vcpu_free(KVMVcpu *vcpu)
{
    KVMMachine *machine = vcpu->machine;
    const KVMHost *host = machine->host;

    if (vcpu->thread) {
        cpu_end(&vcpu->cpu);
        bql_main_unlock();
        g_thread_join(vcpu->thread);
        bql_main_lock();
    }
    cpu_remove(&vcpu->cpu);
    g_mutex_lock(&machine->lock);
    g_ptr_array_remove(machine->vcpus, vcpu);
    g_mutex_unlock(&machine->lock);
    (void)host->ops->munmap(host->opaque, vcpu->run, host->run_bytes);
    (void)host->ops->close(host->opaque, vcpu->fd);
    g_free(vcpu);
}
