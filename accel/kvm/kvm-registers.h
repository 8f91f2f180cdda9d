/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Registers between KVM and the struct that travels.
 *
 * Specification: Linux, Documentation/virt/kvm/api.rst, 4.11 to 4.14 (KVM_GET_REGS to
 * KVM_SET_SREGS), 4.34 (debug registers), 4.38 (KVM_GET_MP_STATE).
 */
#ifndef FERRY_ACCEL_KVM_KVM_REGISTERS_H
#define FERRY_ACCEL_KVM_KVM_REGISTERS_H

#include "accel/kvm/kvm-host.h"
#include "accel/x86/x86-registers.h"

/* The vCPU stands. False and errp: the call that failed. Big lock. */
bool kvm_registers_fetch(const KVMHost *host, int vcpu_fd, X86Registers *regs,
                         GError **errp) G_GNUC_WARN_UNUSED_RESULT;
bool kvm_registers_push(const KVMHost *host, int vcpu_fd, const X86Registers *regs,
                        GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
