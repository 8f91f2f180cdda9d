/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What CPUID tells the guest: the features of the host that KVM supports, with the vCPU's own
 * number.
 *
 * Specification: Linux, Documentation/virt/kvm/api.rst, 4.46 (KVM_GET_SUPPORTED_CPUID), 4.20
 * (KVM_SET_CPUID2); Intel SDM volume 2A, CPUID.
 */
#ifndef FERRY_ACCEL_KVM_KVM_CPUID_H
#define FERRY_ACCEL_KVM_KVM_CPUID_H

#include "accel/kvm/kvm-host.h"

/* For the vCPU with this APIC id, one of n_cpus in one package. Before its first KVM_RUN. */
bool kvm_cpuid_set(const KVMHost *host, int vcpu_fd, unsigned apic_id, unsigned n_cpus,
                   GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
