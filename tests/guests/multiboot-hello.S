/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Prints what the boot loader told: the command line, then each module's first line, on port 0xe9.
 * Leaves through port 0xf4 with 0; with 1 if EAX is not Multiboot's number.
 */
#include "tests/guests/multiboot.inc"

    .text
    .globl _start
_start:
    movl $stack_top, %esp
    cmpl $0x2badb002, %eax
    jne fail
    movl 16(%ebx), %esi             /* cmdline */
    call print
    movl 20(%ebx), %ecx             /* modules */
    movl 24(%ebx), %edi
1:  jecxz 2f
    movl (%edi), %esi               /* start */
    call print
    addl $16, %edi
    decl %ecx
    jmp 1b
2:  xorl %eax, %eax
    outb %al, $0xf4
    jmp .
fail:
    movb $1, %al
    outb %al, $0xf4
    jmp .

/* The text at ESI up to a NUL or the end of a line, and the end of a line. */
print:
    lodsb
    testb %al, %al
    jz 1f
    cmpb $10, %al
    je 1f
    outb %al, $0xe9
    jmp print
1:  movb $10, %al
    outb %al, $0xe9
    ret

    .bss
    .skip 4096
stack_top:
