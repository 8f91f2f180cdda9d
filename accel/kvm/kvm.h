/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The accelerator KVM: the process's one virtual machine in the host's kernel, its interrupt
 * controllers, and its vCPUs. Main thread.
 *
 * Specification: Linux, Documentation/virt/kvm/api.rst.
 */
#ifndef FERRY_ACCEL_KVM_KVM_H
#define FERRY_ACCEL_KVM_KVM_H

#include <glib.h>
#include <stdbool.h>
#include "accel/x86/x86-registers.h"
#include "hw/core/irq.h"

/* Inputs of KVM's IOAPIC; the first 16 are those of its PICs as well. */
#define KVM_GSIS 24

/*
 * Opens /dev/kvm. False: the reason and the remedy are in errp. A second call does nothing.
 */
bool kvm_open(GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Whether kvm_open() has succeeded. */
bool kvm_enabled(void);

/*
 * The virtual machine gets the interrupt controllers of a PC (PICs, IOAPIC, local APICs), all in KVM, and the
 * guest's address spaces. Before the first vCPU. False and errp: KVM lacks something.
 */
bool kvm_machine_start(GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The lines of the interrupt controllers: an array of KVM_GSIS. */
IRQLine *kvm_gsi_lines(void);

/*
 * Adds `n` vCPUs with the APIC ids 0 to n - 1 and the features of the host's processor. Their threads
 * start, and stand until the guest runs. boot(opaque, regs), or NULL, follows each reset of the first
 * one. False and errp.
 */
typedef void KVMBoot(void *opaque, X86Registers *regs);
bool kvm_cpus_new(unsigned n, KVMBoot *boot, void *opaque, GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* The end of the process: vCPUs end, the machine goes. Does nothing when it is not open. */
void kvm_close(void);

#endif
