/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "accel/kvm/kvm.h"

#include <errno.h>
#include <linux/kvm.h>
#include "accel/kvm/kvm-cpuid.h"
#include "accel/kvm/kvm-slots.h"
#include "accel/kvm/kvm-vcpu.h"
#include "accel/vm-stop.h"
#include "memory/listener.h"
#include "util/error.h"
#include "util/migration-blocker.h"

/*
 * Pages that KVM takes for itself on some processors, below the firmware and outside of all RAM
 * (4.43 KVM_SET_IDENTITY_MAP_ADDR, 4.42 KVM_SET_TSS_ADDR).
 */
#define IDENTITY_MAP_ADDR UINT64_C(0xfeffc000)
#define TSS_ADDR          UINT64_C(0xfeffd000)

static struct {
    bool open, started;
    KVMHost host;
    KVMMachine machine;
    KVMSlots *slots;
    IRQLine gsis[KVM_GSIS];
    KVMBoot *boot;
    void *boot_opaque;
    MigrationBlocker *blocker;
} kvm;

bool kvm_open(GError **errp)
{
    kvm.open = kvm.open || kvm_host_open(&kvm.host, &kvm_host_kernel, NULL, "/dev/kvm", errp);
    return kvm.open;
}

bool kvm_enabled(void)
{
    return kvm.open;
}

/* --- the machine --- */

static void slots_failed(void *opaque, const char *reason)
{
    error_report("%s", reason);
    vm_stop_request(RUN_STATE_INTERNAL_ERROR);
}

static void shut(void *opaque)
{
    kvm_machine_shut(&kvm.machine);
}

static void open_again(void *opaque)
{
    kvm_machine_open(&kvm.machine);
}

static void set_line(void *opaque, int n, int level)
{
    struct kvm_irq_level irq = {.irq = (uint32_t)n, .level = (uint32_t)level};
    int ret = kvm_vm_ioctl(&kvm.host, KVM_IRQ_LINE, &irq);

    if (ret < 0) {
        error_report("KVM: interrupt line %d cannot be set: %s", n, g_strerror(-ret));
    }
}

static bool set_up(unsigned long request, const void *arg, const char *what, GError **errp)
{
    int ret = kvm_vm_ioctl(&kvm.host, request, arg);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "KVM: %s", what);
    }
    return ret >= 0;
}

bool kvm_machine_start(GError **errp)
{
    static const MemoryAccelOps ops = {.shut = shut, .open = open_again};
    const uint64_t identity_map = IDENTITY_MAP_ADDR;
    /* Without the legacy speaker's timer KVM takes no ports for the PIT. */
    const struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};

    if (!set_up(KVM_SET_IDENTITY_MAP_ADDR, &identity_map, "no identity map", errp) ||
        !set_up(KVM_SET_TSS_ADDR, (const void *)(uintptr_t)TSS_ADDR, "no task state", errp) ||
        !set_up(KVM_CREATE_IRQCHIP, NULL, "no interrupt controllers", errp) ||
        !set_up(KVM_CREATE_PIT2, &pit, "no interval timer", errp)) {
        return false;
    }
    for (int i = 0; i < KVM_GSIS; i++) {
        irq_line_init(&kvm.gsis[i], set_line, NULL, i);
    }
    kvm.slots = kvm_slots_new(&kvm.host, get_address_space_memory(), 0, slots_failed, NULL);
    kvm_machine_init(&kvm.machine, &kvm.host, get_address_space_memory(), get_address_space_io());
    memory_set_accel_ops(&ops);
    kvm.started = true;
    return true;
}

IRQLine *kvm_gsi_lines(void)
{
    return kvm.gsis;
}

/* --- vCPUs --- */

static void boot_first(X86Registers *regs)
{
    kvm.boot(kvm.boot_opaque, regs);
}

bool kvm_cpus_new(unsigned n, KVMBoot *boot, void *opaque, GError **errp)
{
    kvm.boot = boot;
    kvm.boot_opaque = opaque;
    kvm.blocker = migrate_add_blocker("The registers of the guest's CPUs do not travel yet", errp);
    if (!kvm.blocker) {
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        KVMVcpu *vcpu = kvm_vcpu_new(&kvm.machine, i, errp);

        if (!vcpu || !kvm_cpuid_set(&kvm.host, vcpu->fd, i, n, errp)) {
            return false;
        }
        vcpu->boot = i == 0 && boot ? boot_first : NULL;
    }
    cpus_reset();
    if (!cpus_push(errp)) {
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        kvm_vcpu_start(g_ptr_array_index(kvm.machine.vcpus, i));
    }
    return true;
}

void kvm_close(void)
{
    if (kvm.started) {
        migrate_del_blocker(g_steal_pointer(&kvm.blocker));
        while (kvm.machine.vcpus->len) {
            kvm_vcpu_free(g_ptr_array_index(kvm.machine.vcpus, kvm.machine.vcpus->len - 1));
        }
        memory_set_accel_ops(NULL);
        kvm_machine_destroy(&kvm.machine);
        kvm_slots_free(kvm.slots);
        for (int i = 0; i < KVM_GSIS; i++) {
            irq_line_clear(&kvm.gsis[i]);
        }
        kvm.started = false;
    }
    if (kvm.open) {
        kvm_host_close(&kvm.host);
        kvm.open = false;
    }
}
