/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vCPUs of KVM: each is a thread that enters guest code with KVM_RUN and handles the exits
 * (kvm-exit.h). accel/cpus.h says when it may.
 *
 * A kick sets immediate_exit and sends a signal: the first ends the next KVM_RUN, the second the
 * present one. KVM finishes a port or memory access of the guest when KVM_RUN is called again. So a
 * vCPU that is to stand calls it once more, without executing an instruction of the guest.
 *
 * The gate holds vCPUs out of guest code while memory slots change. It does not wait for a vCPU that
 * is in user space: that one may wait for the big lock, which the holder of the gate has.
 *
 * Specification: Linux, Documentation/virt/kvm/api.rst, 4.10 (KVM_RUN) and 5 (the kvm_run structure).
 */
#ifndef FERRY_ACCEL_KVM_KVM_VCPU_H
#define FERRY_ACCEL_KVM_KVM_VCPU_H

#include <glib.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include "accel/cpus.h"
#include "accel/kvm/kvm-host.h"
#include "accel/x86/x86-registers.h"
#include "memory/address-space.h"

/* What vCPUs have in common. Constant while there are vCPUs, but for the gate. */
typedef struct KVMMachine {
    const KVMHost *host;
    AddressSpace *memory, *io; /* of the guest's accesses */

    /* The gate. */
    int shut; /* atomic */
    GMutex lock;
    GCond changed;    /* with lock: a vCPU has left guest code, or the gate is open again */
    GPtrArray *vcpus; /* KVMVcpu; lock */
} KVMMachine;

typedef struct KVMVcpu {
    CPUState cpu; /* first: CPUState is the handle that accel/cpus.h gives back */
    KVMMachine *machine;
    unsigned id; /* KVM's, which is the APIC id */
    int fd;
    struct kvm_run *run; /* shared with KVM; the thread's, but for immediate_exit (atomic) */
    GThread *thread;     /* NULL: not started. Big lock */
    pthread_t pthread;   /* of thread; valid while `started` */
    int started;         /* atomic */
    int in_guest;        /* atomic: may execute guest code */
    bool unfinished;     /* thread: KVM has an access to finish */
    X86Registers regs;   /* of the last fetch, or to be pushed. Big lock */
    /* The machine's: follows each reset of regs. NULL: nothing does. */
    void (*boot)(X86Registers *regs);
} KVMVcpu;

/* host and the spaces live longer. Main thread. */
void kvm_machine_init(KVMMachine *machine, const KVMHost *host, AddressSpace *memory,
                      AddressSpace *io);
/* No vCPU is left. */
void kvm_machine_destroy(KVMMachine *machine);

/*
 * A vCPU that stands, with its registers as after a reset: kvm_vcpu_start() begins its thread. They get into KVM by
 * cpus_push(). NULL and
 * errp: KVM makes none. Big lock.
 */
KVMVcpu *kvm_vcpu_new(KVMMachine *machine, unsigned id, GError **errp);
void kvm_vcpu_start(KVMVcpu *vcpu);
/* Ends its thread, if there is one. Main thread, which gives the big lock up meanwhile. */
void kvm_vcpu_free(KVMVcpu *vcpu);

/* The gate: on return of shut no vCPU executes guest code until open. Main thread; no nesting. */
void kvm_machine_shut(KVMMachine *machine);
void kvm_machine_open(KVMMachine *machine);

#endif
