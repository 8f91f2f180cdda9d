/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host's KVM: every system call that reaches it goes through one table, so that a test can play
 * the kernel: take capabilities away, interrupt and fail calls.
 *
 * Specification: Linux, Documentation/virt/kvm/api.rst; section numbers are those of Linux 6.1.
 */
#ifndef FERRY_ACCEL_KVM_KVM_HOST_H
#define FERRY_ACCEL_KVM_KVM_HOST_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As the system calls of these names: -1 and errno. Any thread. */
typedef struct KVMHostOps {
    int (*open)(void *opaque, const char *path);
    int (*ioctl)(void *opaque, int fd, unsigned long request, uintptr_t arg);
    int (*close)(void *opaque, int fd);
    /* Shared, readable and writable, from the beginning of what fd stands for; MAP_FAILED and errno. */
    void *(*mmap)(void *opaque, int fd, size_t bytes);
    int (*munmap)(void *opaque, void *map, size_t bytes);
} KVMHostOps;

/* Constant from kvm_host_open() to kvm_host_close(). */
typedef struct KVMHost {
    const KVMHostOps *ops;
    void *opaque;
    int dev_fd; /* -1: not open */
    int vm_fd;  /* -1: no machine */
    /*
     * KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE and KVM_DIRTY_LOG_INITIALLY_SET, as far as the machine
     * has them: the log forgets pages when it is told to, and starts with every page written.
     */
    uint64_t log_protect;
    unsigned slots;          /* memory slots of one address space */
    unsigned address_spaces; /* 2: one more for system management mode */
    bool readonly_slots;
    size_t run_bytes; /* of what each vCPU shares with its thread: struct kvm_run and behind it */
} KVMHost;

/* The kernel's. */
extern const KVMHostOps kvm_host_kernel;

/*
 * Opens `path` (/dev/kvm), looks at its version and makes a machine of the default type in it.
 * False: the reason and the remedy are in errp, nothing is open.
 */
bool kvm_host_open(KVMHost *host, const KVMHostOps *ops, void *opaque, const char *path,
                   GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Does nothing when it is not open. */
void kvm_host_close(KVMHost *host);

/*
 * ioctl() of the device and of the machine: what it returns, or -errno. A call that a signal
 * interrupts is made again.
 */
int kvm_dev_ioctl(const KVMHost *host, unsigned long request, uintptr_t arg);
int kvm_vm_ioctl(const KVMHost *host, unsigned long request, const void *arg);
/* The same of a vCPU; but KVM_RUN, which a signal is meant to end, is made once. */
int kvm_vcpu_ioctl(const KVMHost *host, int vcpu_fd, unsigned long request, const void *arg);
int kvm_vcpu_run(const KVMHost *host, int vcpu_fd);
/* What the machine says of a KVM_CAP_...; 0: KVM lacks it (4.4). */
unsigned kvm_check_extension(const KVMHost *host, unsigned capability);

#endif
