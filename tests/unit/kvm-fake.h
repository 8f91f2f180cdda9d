/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A kernel with KVM, as far as memory goes: slots with their rules, and their logs. Capabilities
 * can be taken away, and calls fail or get interrupted.
 */
#ifndef FERRY_TESTS_UNIT_KVM_FAKE_H
#define FERRY_TESTS_UNIT_KVM_FAKE_H

#include "accel/kvm/kvm-host.h"
#include "memory/hwaddr.h"

#define KVM_FAKE_SLOTS  24u
#define KVM_FAKE_SPACES 2u

typedef struct KVMFakeSlot {
    uint32_t flags;
    hwaddr addr;
    uint64_t bytes; /* 0: the id is free */
    uint8_t *host;
    uint64_t *log; /* a bit for each page written; NULL: not logged */
} KVMFakeSlot;

typedef struct KVMFake {
    /* Set by the test. */
    int open_error;
    int version;
    uint64_t log_protect;       /* what KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 says */
    bool no_readonly;           /* KVM_CAP_READONLY_MEM is missing */
    bool interrupts;            /* every second call ends with EINTR first */
    unsigned long fail_request; /* this call fails ... */
    int fail_error;             /* ... with this error; 0: it does not */
    /* Read by the test. */
    unsigned sets, gets, clears; /* calls */
    unsigned open_fds;
    KVMFakeSlot slots[KVM_FAKE_SPACES][KVM_FAKE_SLOTS];
    /* Its own. */
    uint64_t protect; /* what was enabled */
    bool interrupted;
} KVMFake;

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
