/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "accel/kvm/kvm-host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "util/error.h"

/* The one version since Linux 2.6.22 (4.1). */
#define API_VERSION 12
/* 4.3: what a kernel without KVM_CAP_NR_MEMSLOTS has. */
#define SLOTS_DEFAULT 32

/* --- the kernel --- */

static int kernel_open(void *opaque, const char *path)
{
    return open(path, O_RDWR | O_CLOEXEC);
}

static int kernel_ioctl(void *opaque, int fd, unsigned long request, uintptr_t arg)
{
    return ioctl(fd, request, arg);
}

static int kernel_close(void *opaque, int fd)
{
    return close(fd);
}

static void *kernel_mmap(void *opaque, int fd, size_t bytes)
{
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

static int kernel_munmap(void *opaque, void *map, size_t bytes)
{
    return munmap(map, bytes);
}

const KVMHostOps kvm_host_kernel = {
    .open = kernel_open,
    .ioctl = kernel_ioctl,
    .close = kernel_close,
    .mmap = kernel_mmap,
    .munmap = kernel_munmap,
};

/* --- calls --- */

static int call(const KVMHost *host, int fd, unsigned long request, uintptr_t arg)
{
    int ret;

    do {
        ret = host->ops->ioctl(host->opaque, fd, request, arg);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ret;
}

int kvm_dev_ioctl(const KVMHost *host, unsigned long request, uintptr_t arg)
{
    return call(host, host->dev_fd, request, arg);
}

int kvm_vm_ioctl(const KVMHost *host, unsigned long request, const void *arg)
{
    return call(host, host->vm_fd, request, (uintptr_t)arg);
}

int kvm_vcpu_ioctl(const KVMHost *host, int vcpu_fd, unsigned long request, const void *arg)
{
    return call(host, vcpu_fd, request, (uintptr_t)arg);
}

int kvm_vcpu_run(const KVMHost *host, int vcpu_fd)
{
    int ret = host->ops->ioctl(host->opaque, vcpu_fd, KVM_RUN, 0);

    return ret < 0 ? -errno : ret;
}

unsigned kvm_check_extension(const KVMHost *host, unsigned capability)
{
    int ret = kvm_dev_ioctl(host, KVM_CHECK_EXTENSION, capability);

    return ret > 0 ? (unsigned)ret : 0;
}

/* --- opening --- */

static bool open_device(KVMHost *host, const char *path, GError **errp)
{
    static const struct {
        int error;
        const char *remedy;
    } remedies[] = {
        {ENOENT, "load the module kvm_intel or kvm_amd"},
        {EACCES, "add this user to the group that owns it"},
        {ENODEV, "the processor or the firmware does not offer virtualization"},
        {EBUSY, "another hypervisor uses the processor"},
    };
    int version;

    host->dev_fd = host->ops->open(host->opaque, path);
    if (host->dev_fd < 0) {
        int error = errno;
        const char *remedy = NULL;

        for (size_t i = 0; i < G_N_ELEMENTS(remedies); i++) {
            remedy = remedies[i].error == error ? remedies[i].remedy : remedy;
        }
        error_setg(errp, "Could not access KVM kernel module: %s: %s%s%s", path, strerror(error),
                   remedy ? ": " : "", remedy ? remedy : "");
        return false;
    }
    version = kvm_dev_ioctl(host, KVM_GET_API_VERSION, 0);
    if (version < 0) {
        error_setg_errno(errp, -version, "%s does not answer as KVM does", path);
    } else if (version != API_VERSION) {
        error_setg(errp, "%s: KVM's interface has version %d, needed is %d", path, version,
                   API_VERSION);
    }
    return version == API_VERSION;
}

/* The flags of manual protection that the kernel has are switched on (7.18). */
static uint64_t enable_log_protect(const KVMHost *host)
{
    const unsigned wanted = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
    struct kvm_enable_cap cap = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2};

    cap.args[0] = kvm_check_extension(host, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) & wanted;
    if (!(cap.args[0] & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) ||
        kvm_vm_ioctl(host, KVM_ENABLE_CAP, &cap) < 0) {
        return 0;
    }
    return cap.args[0];
}

bool kvm_host_open(KVMHost *host, const KVMHostOps *ops, void *opaque, const char *path,
                   GError **errp)
{
    int vm, size;

    *host = (KVMHost){.ops = ops, .opaque = opaque, .dev_fd = -1, .vm_fd = -1};
    if (!open_device(host, path, errp)) {
        kvm_host_close(host);
        return false;
    }
    vm = kvm_dev_ioctl(host, KVM_CREATE_VM, 0);
    if (vm < 0) {
        error_setg_errno(errp, -vm, "%s: KVM makes no virtual machine", path);
        kvm_host_close(host);
        return false;
    }
    host->vm_fd = vm;
    size = kvm_dev_ioctl(host, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run)) {
        error_setg(errp, "%s: KVM does not say what a vCPU shares with its thread", path);
        kvm_host_close(host);
        return false;
    }
    host->run_bytes = (size_t)size;
    host->slots = kvm_check_extension(host, KVM_CAP_NR_MEMSLOTS);
    host->slots = host->slots ? host->slots : SLOTS_DEFAULT;
    host->address_spaces = MAX(1, kvm_check_extension(host, KVM_CAP_MULTI_ADDRESS_SPACE));
    host->readonly_slots = kvm_check_extension(host, KVM_CAP_READONLY_MEM);
    host->log_protect = enable_log_protect(host);
    return true;
}

static void close_fd(KVMHost *host, int *fd)
{
    if (*fd >= 0) {
        (void)host->ops->close(host->opaque, *fd);
    }
    *fd = -1;
}

void kvm_host_close(KVMHost *host)
{
    close_fd(host, &host->vm_fd);
    close_fd(host, &host->dev_fd);
}
