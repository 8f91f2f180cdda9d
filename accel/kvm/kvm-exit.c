/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "accel/kvm/kvm-exit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "accel/kvm/kvm-registers.h"
#include "accel/runstate.h"
#include "accel/vm-reset.h"
#include "accel/vm-stop.h"
#include "util/error.h"

/* --- accesses --- */

static void port_access(KVMVcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    bool is_write = run->io.direction == KVM_EXIT_IO_OUT;

    /* A string instruction moves `count` values through one port. */
    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        (void)address_space_rw(vcpu->machine->io, run->io.port, MEMTXATTRS_UNSPECIFIED, data,
                               run->io.size, is_write);
    }
    vcpu->unfinished = true;
}

static void memory_access(KVMVcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;

    (void)address_space_rw(vcpu->machine->memory, run->mmio.phys_addr, MEMTXATTRS_UNSPECIFIED,
                           run->mmio.data, run->mmio.len, run->mmio.is_write);
    vcpu->unfinished = true;
}

/* --- ends --- */

/* What the guest was doing, as far as KVM tells. */
static void dump_registers(const KVMVcpu *vcpu, FILE *out)
{
    static const char *const gprs[X86_GPRS] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                               "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                               "r12", "r13", "r14", "r15"};
    static const char *const segments[X86_SEGMENTS] = {"es", "cs", "ss",  "ds",
                                                       "fs", "gs", "ldt", "tr"};
    g_autoptr(GError) err = NULL;
    X86Registers r;

    if (!kvm_registers_fetch(vcpu->machine->host, vcpu->fd, &r, &err)) {
        fprintf(out, "no registers: %s\n", err->message);
        return;
    }
    for (int i = 0; i < X86_GPRS; i++) {
        fprintf(out, "%-3s=%016" PRIx64 "%c", gprs[i], r.gpr[i], i % 4 == 3 ? '\n' : ' ');
    }
    fprintf(out, "rip=%016" PRIx64 " rflags=%016" PRIx64 "\n", r.rip, r.rflags);
    for (int i = 0; i < X86_SEGMENTS; i++) {
        const X86Segment *s = &r.segment[i];

        fprintf(out, "%-3s=%04x base=%016" PRIx64 " limit=%08x type=%x dpl=%u%s%s%s\n", segments[i],
                s->selector, s->base, s->limit, s->type, s->dpl, s->present ? "" : " absent",
                s->long_code ? " 64-bit" : "", s->big ? " 32-bit" : "");
    }
    fprintf(out, "gdt=%016" PRIx64 " limit=%04x idt=%016" PRIx64 " limit=%04x\n", r.gdt.base,
            r.gdt.limit, r.idt.base, r.idt.limit);
    fprintf(out,
            "cr0=%016" PRIx64 " cr2=%016" PRIx64 " cr3=%016" PRIx64 " cr4=%016" PRIx64
            " efer=%016" PRIx64 "\n",
            r.cr0, r.cr2, r.cr3, r.cr4, r.efer);
}

static void G_GNUC_PRINTF(2, 3) internal_error(KVMVcpu *vcpu, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, fmt);
    text = g_strdup_vprintf(fmt, args);
    va_end(args);
    error_report("KVM: vCPU %u: %s; the guest is stopped", vcpu->id, text);
    dump_registers(vcpu, stderr);
    vm_stop_request(RUN_STATE_INTERNAL_ERROR);
}

static void kvm_internal_error(KVMVcpu *vcpu)
{
    const struct kvm_run *run = vcpu->run;
    g_autoptr(GString) data = g_string_new(NULL);
    unsigned n = MIN(run->internal.ndata, (unsigned)G_N_ELEMENTS(run->internal.data));

    for (unsigned i = 0; i < n; i++) {
        g_string_append_printf(data, " 0x%llx", run->internal.data[i]);
    }
    if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) {
        internal_error(vcpu, "an instruction cannot be emulated; data:%s", data->str);
    } else {
        internal_error(vcpu, "internal error %u; data:%s", run->internal.suberror, data->str);
    }
}

static void system_event(KVMVcpu *vcpu)
{
    switch (vcpu->run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        qemu_system_shutdown_request(SHUTDOWN_CAUSE_GUEST_SHUTDOWN);
        break;
    case KVM_SYSTEM_EVENT_RESET:
        vm_reset_request(SHUTDOWN_CAUSE_GUEST_RESET);
        break;
    default:
        internal_error(vcpu, "system event %u", vcpu->run->system_event.type);
        break;
    }
}

void kvm_exit_handle(KVMVcpu *vcpu)
{
    const struct kvm_run *run = vcpu->run;

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        port_access(vcpu);
        break;
    case KVM_EXIT_MMIO:
        memory_access(vcpu);
        break;
    case KVM_EXIT_INTR:
        break;
    case KVM_EXIT_SHUTDOWN: /* a triple fault */
        vm_reset_request(SHUTDOWN_CAUSE_GUEST_RESET);
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        system_event(vcpu);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        kvm_internal_error(vcpu);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        internal_error(vcpu, "the processor refuses to enter the guest: 0x%llx",
                       run->fail_entry.hardware_entry_failure_reason);
        break;
    case KVM_EXIT_UNKNOWN:
        internal_error(vcpu, "exit for an unknown reason: 0x%llx", run->hw.hardware_exit_reason);
        break;
    default:
        internal_error(vcpu, "exit %u is not known here", run->exit_reason);
        break;
    }
}

void kvm_exit_failed(KVMVcpu *vcpu, int error)
{
    internal_error(vcpu, "KVM_RUN: %s", g_strerror(error));
}
