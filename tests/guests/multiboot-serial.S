/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Prints "ready" on COM1, then answers each byte that it receives there with the next one ('a' with 'b'). 'Q'
 * ends it through port 0xf4. It polls: some KVMs cannot emulate the return from an interrupt.
 */
#include "tests/guests/multiboot.inc"

#define COM1  0x3f8

    .macro out8 port, value
    movb $\value, %al
    movw $\port, %dx
    outb %al, %dx
    .endm

    .text
    .globl _start
_start:
    movl $stack_top, %esp
    out8 COM1 + 3, 0x03             /* 8 bits, no parity */
    out8 COM1 + 2, 0x07             /* FIFOs, empty */
    movl $text, %esi
1:  lodsb
    testb %al, %al
    jz 2f
    call send
    jmp 1b
2:  movw $(COM1 + 5), %dx
    inb %dx, %al
    testb $1, %al
    jz 2b
    movw $COM1, %dx
    inb %dx, %al
    cmpb $'Q', %al
    je quit
    incb %al
    call send
    jmp 2b
quit:
    xorl %eax, %eax
    outb %al, $0xf4
    jmp .

/* AL, once the transmitter has room. */
send:
    movb %al, %ah
    movw $(COM1 + 5), %dx
1:  inb %dx, %al
    testb $0x20, %al
    jz 1b
    movb %ah, %al
    movw $COM1, %dx
    outb %al, %dx
    ret

    .data
text:
    .asciz "ready\n"

    .bss
    .skip 4096
stack_top:
