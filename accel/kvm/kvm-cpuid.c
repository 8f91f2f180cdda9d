/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "accel/kvm/kvm-cpuid.h"

#include <errno.h>
#include <linux/kvm.h>
#include "util/error.h"

/* KVM says E2BIG while there is no room for all entries. */
#define FIRST_ROOM 64u
#define MOST_ROOM  4096u

#define LEAF_FEATURES            1u
#define LEAF_TOPOLOGY            0xbu
#define LEAF_TOPOLOGY_V2         0x1fu
#define FEATURE_ECX_TSC_DEADLINE (1u << 24)
#define FEATURE_ECX_HYPERVISOR   (1u << 31)

static struct kvm_cpuid2 *cpuid_new(unsigned room)
{
    struct kvm_cpuid2 *cpuid = g_malloc0(sizeof(*cpuid) + room * sizeof(cpuid->entries[0]));

    cpuid->nent = room;
    return cpuid;
}

static struct kvm_cpuid2 *get_supported(const KVMHost *host, GError **errp)
{
    for (unsigned room = FIRST_ROOM; room <= MOST_ROOM; room *= 2) {
        g_autofree struct kvm_cpuid2 *cpuid = cpuid_new(room);
        int ret = kvm_dev_ioctl(host, KVM_GET_SUPPORTED_CPUID, (uintptr_t)cpuid);

        if (ret == 0) {
            return g_steal_pointer(&cpuid);
        }
        if (ret != -E2BIG) {
            error_setg_errno(errp, -ret, "KVM does not say which processors it can show");
            return NULL;
        }
    }
    error_setg(errp, "KVM says more about processors than there is room for");
    return NULL;
}

/* Bits of the APIC id that count the CPUs of a package. */
static unsigned package_bits(unsigned n_cpus)
{
    unsigned bits = 0;

    while (1u << bits < n_cpus) {
        bits++;
    }
    return bits;
}

/* Level 0: threads, one a core; level 1: cores; then none. */
static void set_topology(struct kvm_cpuid_entry2 *entry, unsigned apic_id, unsigned n_cpus)
{
    static const uint32_t types[] = {1, 2};
    bool known = entry->index < G_N_ELEMENTS(types);

    entry->eax = entry->index == 1 ? package_bits(n_cpus) : 0;
    entry->ebx = known ? (entry->index == 1 ? n_cpus : 1) : 0;
    entry->ecx = entry->index | (known ? types[entry->index] << 8 : 0);
    entry->edx = apic_id;
}

static void make_own(struct kvm_cpuid_entry2 *entry, unsigned apic_id, unsigned n_cpus,
                     bool deadline_timer)
{
    switch (entry->function) {
    case LEAF_FEATURES:
        entry->ebx = (entry->ebx & 0xffff) | (n_cpus & 0xff) << 16 | apic_id << 24;
        entry->ecx |= FEATURE_ECX_HYPERVISOR | (deadline_timer ? FEATURE_ECX_TSC_DEADLINE : 0);
        break;
    case LEAF_TOPOLOGY:
    case LEAF_TOPOLOGY_V2:
        set_topology(entry, apic_id, n_cpus);
        break;
    default:
        break;
    }
}

bool kvm_cpuid_set(const KVMHost *host, int vcpu_fd, unsigned apic_id, unsigned n_cpus,
                   GError **errp)
{
    g_autofree struct kvm_cpuid2 *cpuid = get_supported(host, errp);
    bool deadline_timer = kvm_check_extension(host, KVM_CAP_TSC_DEADLINE_TIMER);
    int ret;

    if (!cpuid) {
        return false;
    }
    for (unsigned i = 0; i < cpuid->nent; i++) {
        make_own(&cpuid->entries[i], apic_id, n_cpus, deadline_timer);
    }
    ret = kvm_vcpu_ioctl(host, vcpu_fd, KVM_SET_CPUID2, cpuid);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "KVM refuses the features of vCPU %u", apic_id);
    }
    return ret >= 0;
}
