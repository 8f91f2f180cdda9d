/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * KVM's memory slots follow an address space, and KVM's log of writes gets into the bitmaps of RAM
 * blocks.
 *
 * Slots change at the commit of a view, and only those whose section changed. A commit removes
 * slots before it adds others, as KVM refuses overlaps; memory/listener.h says when vCPUs are held
 * out meanwhile. Pages that a section has only in part, and memory whose host address does not
 * fit, get no slot: the guest's accesses to them are exits.
 *
 * Specification: Linux, Documentation/virt/kvm/api.rst, 4.35 (KVM_SET_USER_MEMORY_REGION), 4.8
 * (KVM_GET_DIRTY_LOG), 4.117 (KVM_CLEAR_DIRTY_LOG), 7.18.
 */
#ifndef FERRY_ACCEL_KVM_KVM_SLOTS_H
#define FERRY_ACCEL_KVM_KVM_SLOTS_H

#include "accel/kvm/kvm-host.h"
#include "memory/listener.h"

typedef struct KVMSlots KVMSlots;

/*
 * KVM refused a slot: the guest must not run on what there is. The reason names the memory. With
 * the big lock, during a commit: it may ask for a stop, not wait.
 */
typedef void KVMSlotsFailed(void *opaque, const char *reason);

/*
 * Slots of KVM's address space `as_id` (0; 1: of system management mode) for `as`, whose present
 * view they show when this returns. host and as live longer. Main thread.
 */
KVMSlots *kvm_slots_new(const KVMHost *host, AddressSpace *as, unsigned as_id,
                        KVMSlotsFailed *failed, void *opaque);
/* All slots go. Main thread; no vCPU runs. */
void kvm_slots_free(KVMSlots *slots);

/* For tests and for people. Main thread. */
unsigned kvm_slots_count(const KVMSlots *slots);

#endif
