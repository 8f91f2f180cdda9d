/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Says "up" on port 0xe9. Then counts at 0x200000 for ever; with '!' in its command line it has a triple fault instead. */
#include "tests/guests/multiboot.inc"

    .text
    .globl _start
_start:
    movb $'u', %al
    outb %al, $0xe9
    movb $'p', %al
    outb %al, $0xe9
    movb $10, %al
    outb %al, $0xe9
    movl 16(%ebx), %esi             /* cmdline */
1:  lodsb
    cmpb $'!', %al
    je fault
    testb %al, %al
    jnz 1b
2:  incl 0x200000
    jmp 2b

/* A segment outside of an empty table, without a table of interrupts. */
fault:
    lidt nothing
    lgdt nothing
    movl $0x18, %eax
    movl %eax, %ds
    jmp .

    .data
nothing:
    .skip 8
