/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a vCPU does when KVM_RUN has returned. */
#ifndef FERRY_ACCEL_KVM_KVM_EXIT_H
#define FERRY_ACCEL_KVM_KVM_EXIT_H

#include "accel/kvm/kvm-vcpu.h"

/*
 * Handles the exit in vcpu->run. A cause to stop is asked for (accel/vm-stop.h), which keeps the vCPU
 * from going on. The vCPU's thread, without the big lock.
 */
void kvm_exit_handle(KVMVcpu *vcpu);
/* KVM_RUN has failed with -error: the guest stops with an internal error. The same thread. */
void kvm_exit_failed(KVMVcpu *vcpu, int error);

#endif
