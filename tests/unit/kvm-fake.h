/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A kernel with KVM: slots with their rules, and their logs; one vCPU, whose exits the test plays.
 * Capabilities can be taken away, and calls fail or get interrupted.
 */
#ifndef FERRY_TESTS_UNIT_KVM_FAKE_H
#define FERRY_TESTS_UNIT_KVM_FAKE_H

#include <linux/kvm.h>
#include "accel/kvm/kvm-host.h"
#include "memory/hwaddr.h"

#define KVM_FAKE_SLOTS  24u
#define KVM_FAKE_SPACES 2u
/* What the vCPU shares with its thread: data of ports lies in the second half. */
#define KVM_FAKE_RUN_BYTES 8192u

typedef struct KVMFakeSlot {
    uint32_t flags;
    hwaddr addr;
    uint64_t bytes; /* 0: the id is free */
    uint8_t *host;
    uint64_t *log; /* a bit for each page written; NULL: not logged */
} KVMFakeSlot;

typedef struct KVMFake KVMFake;
struct KVMFake {
    /* Set by the test. */
    int open_error;
    int version;
    uint64_t log_protect;       /* what KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 says */
    bool no_readonly;           /* KVM_CAP_READONLY_MEM is missing */
    bool interrupts;            /* every second call ends with EINTR first */
    unsigned long fail_request; /* this call fails ... */
    int fail_error;             /* ... with this error; 0: it does not */
    bool no_run_memory;         /* mmap() of the vCPU fails */
    /*
     * The vCPU runs: fills in the exit and returns 0, or an errno. In the vCPU's thread. Not called
     * when immediate_exit is set: KVM_RUN fails with EINTR then.
     */
    int (*on_run)(KVMFake *fake, struct kvm_run *run);
    void *opaque;
    /* Read by the test. */
    unsigned sets, gets, clears; /* calls */
    unsigned open_fds;
    KVMFakeSlot slots[KVM_FAKE_SPACES][KVM_FAKE_SLOTS];
    /* Its own. */
    uint64_t protect; /* what was enabled */
    bool interrupted;
    struct kvm_run *run; /* NULL: not mapped */
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_debugregs debugregs;
    struct kvm_mp_state mp_state;
};

extern const KVMHostOps kvm_fake_ops;

/* All there is, in a kernel of today. */
void kvm_fake_init(KVMFake *fake);
/* Fails the test if a descriptor is open. */
void kvm_fake_destroy(KVMFake *fake);
/* The slot in which the guest finds addr; NULL: an exit. */
const KVMFakeSlot *kvm_fake_find(const KVMFake *fake, unsigned as_id, hwaddr addr);
/* The guest writes 8 bytes at a multiple of 8. False: that is an exit. */
bool kvm_fake_store(KVMFake *fake, unsigned as_id, hwaddr addr, uint64_t value);

#endif
