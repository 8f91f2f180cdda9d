/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "accel/kvm/kvm-registers.h"

#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>
#include "util/error.h"

/* Where KVM has each general register. */
static const uint16_t gpr_places[X86_GPRS] = {
    [X86_RAX] = offsetof(struct kvm_regs, rax),    [X86_RCX] = offsetof(struct kvm_regs, rcx),
    [X86_RDX] = offsetof(struct kvm_regs, rdx),    [X86_RBX] = offsetof(struct kvm_regs, rbx),
    [X86_RSP] = offsetof(struct kvm_regs, rsp),    [X86_RBP] = offsetof(struct kvm_regs, rbp),
    [X86_RSI] = offsetof(struct kvm_regs, rsi),    [X86_RDI] = offsetof(struct kvm_regs, rdi),
    [X86_R8] = offsetof(struct kvm_regs, r8),      [X86_R8 + 1] = offsetof(struct kvm_regs, r9),
    [X86_R8 + 2] = offsetof(struct kvm_regs, r10), [X86_R8 + 3] = offsetof(struct kvm_regs, r11),
    [X86_R8 + 4] = offsetof(struct kvm_regs, r12), [X86_R8 + 5] = offsetof(struct kvm_regs, r13),
    [X86_R8 + 6] = offsetof(struct kvm_regs, r14), [X86_R15] = offsetof(struct kvm_regs, r15),
};

static const uint16_t segment_places[X86_SEGMENTS] = {
    [X86_ES] = offsetof(struct kvm_sregs, es),    [X86_CS] = offsetof(struct kvm_sregs, cs),
    [X86_SS] = offsetof(struct kvm_sregs, ss),    [X86_DS] = offsetof(struct kvm_sregs, ds),
    [X86_FS] = offsetof(struct kvm_sregs, fs),    [X86_GS] = offsetof(struct kvm_sregs, gs),
    [X86_LDTR] = offsetof(struct kvm_sregs, ldt), [X86_TR] = offsetof(struct kvm_sregs, tr),
};

static bool call(const KVMHost *host, int fd, unsigned long request, const char *name,
                 const void *arg, GError **errp)
{
    int ret = kvm_vcpu_ioctl(host, fd, request, arg);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "%s", name);
    }
    return ret >= 0;
}
#define CALL(request, arg) call(host, fd, request, #request, arg, errp)

/* --- segments --- */

static void segment_from_kvm(X86Segment *to, const struct kvm_segment *from)
{
    *to = (X86Segment){
        .base = from->base,
        .limit = from->limit,
        .selector = from->selector,
        .type = from->type,
        .dpl = from->dpl,
        .system = !from->s,
        .present = from->present && !from->unusable,
        .available = from->avl,
        .long_code = from->l,
        .big = from->db,
        .granular = from->g,
    };
}

static void segment_to_kvm(struct kvm_segment *to, const X86Segment *from)
{
    *to = (struct kvm_segment){
        .base = from->base,
        .limit = from->limit,
        .selector = from->selector,
        .type = from->type,
        .present = from->present,
        .dpl = from->dpl,
        .db = from->big,
        .s = !from->system,
        .l = from->long_code,
        .g = from->granular,
        .avl = from->available,
        .unusable = !from->present,
    };
}

/* --- groups --- */

static bool fetch_general(const KVMHost *host, int fd, X86Registers *regs, GError **errp)
{
    struct kvm_regs kvm = {0};

    if (!CALL(KVM_GET_REGS, &kvm)) {
        return false;
    }
    for (int i = 0; i < X86_GPRS; i++) {
        memcpy(&regs->gpr[i], (char *)&kvm + gpr_places[i], sizeof(regs->gpr[i]));
    }
    regs->rip = kvm.rip;
    regs->rflags = kvm.rflags;
    return true;
}

static bool push_general(const KVMHost *host, int fd, const X86Registers *regs, GError **errp)
{
    struct kvm_regs kvm = {.rip = regs->rip, .rflags = regs->rflags};

    for (int i = 0; i < X86_GPRS; i++) {
        memcpy((char *)&kvm + gpr_places[i], &regs->gpr[i], sizeof(regs->gpr[i]));
    }
    return CALL(KVM_SET_REGS, &kvm);
}

static bool fetch_special(const KVMHost *host, int fd, X86Registers *regs, GError **errp)
{
    struct kvm_sregs kvm = {0};

    if (!CALL(KVM_GET_SREGS, &kvm)) {
        return false;
    }
    for (int i = 0; i < X86_SEGMENTS; i++) {
        segment_from_kvm(&regs->segment[i],
                         (const struct kvm_segment *)((char *)&kvm + segment_places[i]));
    }
    regs->gdt = (X86Table){kvm.gdt.base, kvm.gdt.limit};
    regs->idt = (X86Table){kvm.idt.base, kvm.idt.limit};
    regs->cr0 = kvm.cr0;
    regs->cr2 = kvm.cr2;
    regs->cr3 = kvm.cr3;
    regs->cr4 = kvm.cr4;
    regs->cr8 = kvm.cr8;
    regs->efer = kvm.efer;
    regs->apic_base = kvm.apic_base;
    return true;
}

static bool push_special(const KVMHost *host, int fd, const X86Registers *regs, GError **errp)
{
    struct kvm_sregs kvm = {
        .gdt = {.base = regs->gdt.base, .limit = regs->gdt.limit},
        .idt = {.base = regs->idt.base, .limit = regs->idt.limit},
        .cr0 = regs->cr0,
        .cr2 = regs->cr2,
        .cr3 = regs->cr3,
        .cr4 = regs->cr4,
        .cr8 = regs->cr8,
        .efer = regs->efer,
        .apic_base = regs->apic_base,
    };

    for (int i = 0; i < X86_SEGMENTS; i++) {
        segment_to_kvm((struct kvm_segment *)((char *)&kvm + segment_places[i]), &regs->segment[i]);
    }
    return CALL(KVM_SET_SREGS, &kvm);
}

static bool fetch_debug(const KVMHost *host, int fd, X86Registers *regs, GError **errp)
{
    struct kvm_debugregs kvm = {0};

    if (!CALL(KVM_GET_DEBUGREGS, &kvm)) {
        return false;
    }
    G_STATIC_ASSERT(sizeof(kvm.db) == sizeof(regs->dr));
    memcpy(regs->dr, kvm.db, sizeof(regs->dr));
    regs->dr6 = kvm.dr6;
    regs->dr7 = kvm.dr7;
    return true;
}

static bool push_debug(const KVMHost *host, int fd, const X86Registers *regs, GError **errp)
{
    struct kvm_debugregs kvm = {.dr6 = regs->dr6, .dr7 = regs->dr7};

    memcpy(kvm.db, regs->dr, sizeof(regs->dr));
    return CALL(KVM_SET_DEBUGREGS, &kvm);
}

static bool fetch_activity(const KVMHost *host, int fd, X86Registers *regs, GError **errp)
{
    struct kvm_mp_state kvm = {0};
    bool ok = CALL(KVM_GET_MP_STATE, &kvm);

    regs->activity = ok ? kvm.mp_state : regs->activity;
    return ok;
}

static bool push_activity(const KVMHost *host, int fd, const X86Registers *regs, GError **errp)
{
    struct kvm_mp_state kvm = {.mp_state = regs->activity};

    return CALL(KVM_SET_MP_STATE, &kvm);
}

bool kvm_registers_fetch(const KVMHost *host, int vcpu_fd, X86Registers *regs, GError **errp)
{
    return fetch_general(host, vcpu_fd, regs, errp) && fetch_special(host, vcpu_fd, regs, errp) &&
           fetch_debug(host, vcpu_fd, regs, errp) && fetch_activity(host, vcpu_fd, regs, errp);
}

bool kvm_registers_push(const KVMHost *host, int vcpu_fd, const X86Registers *regs, GError **errp)
{
    return push_special(host, vcpu_fd, regs, errp) && push_general(host, vcpu_fd, regs, errp) &&
           push_debug(host, vcpu_fd, regs, errp) && push_activity(host, vcpu_fd, regs, errp);
}
