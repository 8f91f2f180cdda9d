/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "accel/x86/x86-registers.h"

#include <string.h>

#define RFLAGS_FIXED UINT64_C(2)
#define CR0_PE       UINT64_C(1)
#define CR0_RESET    UINT64_C(0x60000010) /* CD, NW, ET */
#define APIC_ENABLED UINT64_C(0xfee00800)
#define APIC_IS_BSP  UINT64_C(0x100)
#define DR6_RESET    UINT64_C(0xffff0ff0)
#define DR7_RESET    UINT64_C(0x400)

enum {
    TYPE_LDT = 2,
    TYPE_TSS_BUSY = 11,
    TYPE_DATA = 3,  /* writable, accessed */
    TYPE_CODE = 11, /* readable, accessed */
};

void x86_registers_reset(X86Registers *regs, unsigned apic_id)
{
    const X86Segment data = {.limit = 0xffff, .type = TYPE_DATA, .present = true};

    memset(regs, 0, sizeof(*regs));
    regs->rip = 0xfff0;
    regs->rflags = RFLAGS_FIXED;
    regs->gpr[X86_RDX] = 0x600; /* family 6: what software reads before CPUID */
    for (int i = 0; i < X86_LDTR; i++) {
        regs->segment[i] = data;
    }
    regs->segment[X86_CS].selector = 0xf000;
    regs->segment[X86_CS].base = 0xffff0000;
    regs->segment[X86_CS].type = TYPE_CODE;
    regs->segment[X86_LDTR] =
        (X86Segment){.limit = 0xffff, .type = TYPE_LDT, .system = true, .present = true};
    regs->segment[X86_TR] =
        (X86Segment){.limit = 0xffff, .type = TYPE_TSS_BUSY, .system = true, .present = true};
    regs->gdt.limit = regs->idt.limit = 0xffff;
    regs->cr0 = CR0_RESET;
    regs->apic_base = APIC_ENABLED | (apic_id == 0 ? APIC_IS_BSP : 0);
    regs->dr6 = DR6_RESET;
    regs->dr7 = DR7_RESET;
    regs->activity = apic_id == 0 ? X86_RUNNABLE : X86_UNINITIALIZED;
}

void x86_registers_enter_flat(X86Registers *regs, uint32_t eip)
{
    X86Segment flat = {.limit = UINT32_MAX,
                       .selector = 0x10,
                       .type = TYPE_DATA,
                       .present = true,
                       .big = true,
                       .granular = true};

    regs->rip = eip;
    regs->rflags = RFLAGS_FIXED;
    regs->cr0 = (regs->cr0 & ~UINT64_C(0x60000000)) | CR0_PE;
    for (int i = 0; i < X86_LDTR; i++) {
        regs->segment[i] = flat;
    }
    regs->segment[X86_CS].selector = 0x08;
    regs->segment[X86_CS].type = TYPE_CODE;
}
