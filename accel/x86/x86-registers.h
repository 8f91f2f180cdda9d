/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The registers of an x86 processor, as an accelerator fetches and pushes them and a machine sets
 * them before the first instruction.
 *
 * Specification: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3A. Its table
 * "Processor States Following Power-up, Reset, or INIT" has the values after a reset.
 */
#ifndef FERRY_ACCEL_X86_X86_REGISTERS_H
#define FERRY_ACCEL_X86_X86_REGISTERS_H

#include <stdbool.h>
#include <stdint.h>

/* In the order of the instruction set's encoding. */
typedef enum X86Gpr {
    X86_RAX,
    X86_RCX,
    X86_RDX,
    X86_RBX,
    X86_RSP,
    X86_RBP,
    X86_RSI,
    X86_RDI,
    X86_R8,
    X86_R15 = X86_R8 + 7,
    X86_GPRS,
} X86Gpr;

typedef enum X86SegmentName {
    X86_ES,
    X86_CS,
    X86_SS,
    X86_DS,
    X86_FS,
    X86_GS,
    X86_LDTR,
    X86_TR,
    X86_SEGMENTS,
} X86SegmentName;

/* A segment register with its hidden part. */
typedef struct X86Segment {
    uint64_t base;
    uint32_t limit; /* in bytes, whatever `granular` says */
    uint16_t selector;
    uint8_t type; /* bits 3..0 of the descriptor's type */
    uint8_t dpl;
    bool system; /* not code or data */
    bool present, available, long_code, big, granular;
} X86Segment;

typedef struct X86Table {
    uint64_t base;
    uint16_t limit;
} X86Table;

/* Linux's KVM_MP_STATE_...; what a processor does when it is let run. */
typedef enum X86Activity {
    X86_RUNNABLE = 0,
    X86_UNINITIALIZED = 1, /* waits for INIT */
} X86Activity;

typedef struct X86Registers {
    uint64_t gpr[X86_GPRS];
    uint64_t rip, rflags;
    X86Segment segment[X86_SEGMENTS];
    X86Table gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8;
    uint64_t efer, apic_base;
    uint64_t dr[4], dr6, dr7;
    uint32_t activity; /* X86Activity, or another value of the accelerator's */
} X86Registers;

/* What the processor with this APIC id has after a reset; 0 is the one that starts. */
void x86_registers_reset(X86Registers *regs, unsigned apic_id);
/*
 * 32-bit protected mode without paging, with flat segments and interrupts off: the state in which
 * Multiboot (0.6.96, 3.2) and PVH start a kernel.
 */
void x86_registers_enter_flat(X86Registers *regs, uint32_t eip);

#endif
