/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Coroutines for x86-64 (System V ABI): the stack switch and the stacks.
 *
 * A coroutine that does not run has its callee-saved registers, MXCSR and x87 control word on its
 * own stack, and its stack pointer in Coroutine.sp. All other registers are dead across a call. A
 * coroutine that ended waits inside coroutine_main() for its next entry function, so taking it from
 * the pool prepares nothing.
 *
 * A coroutine may continue in another thread than the one it yielded in. So functions that read
 * thread-local variables are not inlined: no address of a variable is carried over a switch.
 */
#include "util/coroutine.h"

#include <errno.h>
#include <glib.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "util/aio.h"
#include "util/coroutine-int.h"
#include "util/coroutine-sanitizer.h"

#ifndef __x86_64__
#error "the coroutine switch is written for x86-64 only"
#endif

#if defined(CO_ASAN) || defined(CO_TSAN)
#define COROUTINE_STACK_BYTES (1024 * 1024)
#else
#define COROUTINE_STACK_BYTES (256 * 1024)
#endif

/* What a switch hands to the stack it goes to. */
typedef enum CoroutineAction {
    CO_ENTER,
    CO_YIELD,
    CO_ENDED,
} CoroutineAction;

typedef struct CoroutineThread {
    Coroutine leader; /* stands for the thread's own stack */
    Coroutine *current;
    AioContext *ctx;
    CoroutineCache cache;
} CoroutineThread;

static __thread CoroutineThread thread_state __attribute__((tls_model("initial-exec")));

static unsigned stacks_mapped; /* atomic */

/*
 * Saves the running stack in *save_sp and continues the one at load_sp, where `action` is the
 * result of the coroutine_switch() that left it. The stack pointer's target holds, upwards: MXCSR
 * and x87 control word, r15, r14, r13, r12, rbx, rbp, the address to continue at.
 *
 * It jumps instead of returning: the processor's return predictor would be wrong every time.
 */
CoroutineAction coroutine_switch(void **save_sp, void *load_sp, CoroutineAction action);
/*
 * Where a new stack continues: calls coroutine_main() with an aligned stack and no frame above it.
 */
void coroutine_start(void);
/* Called by coroutine_start() only. */
void coroutine_main(void) __attribute__((noreturn, used));

__asm__(".pushsection .text\n"
        ".p2align 4\n"
        ".globl coroutine_switch\n"
        ".hidden coroutine_switch\n"
        ".type coroutine_switch, @function\n"
        "coroutine_switch:\n"
        ".cfi_startproc\n"
        "    pushq %rbp\n"
        ".cfi_adjust_cfa_offset 8\n"
        "    pushq %rbx\n"
        ".cfi_adjust_cfa_offset 8\n"
        "    pushq %r12\n"
        ".cfi_adjust_cfa_offset 8\n"
        "    pushq %r13\n"
        ".cfi_adjust_cfa_offset 8\n"
        "    pushq %r14\n"
        ".cfi_adjust_cfa_offset 8\n"
        "    pushq %r15\n"
        ".cfi_adjust_cfa_offset 8\n"
        "    subq $8, %rsp\n"
        ".cfi_adjust_cfa_offset 8\n"
        "    stmxcsr (%rsp)\n"
        "    fnstcw 4(%rsp)\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    movl %edx, %eax\n"
        "    ldmxcsr (%rsp)\n"
        "    fldcw 4(%rsp)\n"
        "    addq $8, %rsp\n"
        ".cfi_adjust_cfa_offset -8\n"
        "    popq %r15\n"
        ".cfi_adjust_cfa_offset -8\n"
        "    popq %r14\n"
        ".cfi_adjust_cfa_offset -8\n"
        "    popq %r13\n"
        ".cfi_adjust_cfa_offset -8\n"
        "    popq %r12\n"
        ".cfi_adjust_cfa_offset -8\n"
        "    popq %rbx\n"
        ".cfi_adjust_cfa_offset -8\n"
        "    popq %rbp\n"
        ".cfi_adjust_cfa_offset -8\n"
        "    popq %rcx\n"
        ".cfi_adjust_cfa_offset -8\n"
        ".cfi_register %rip, %rcx\n"
        "    jmpq *%rcx\n"
        ".cfi_endproc\n"
        ".size coroutine_switch, . - coroutine_switch\n"
        "\n"
        ".p2align 4\n"
        ".globl coroutine_start\n"
        ".hidden coroutine_start\n"
        ".type coroutine_start, @function\n"
        "coroutine_start:\n"
        ".cfi_startproc\n"
        ".cfi_undefined %rip\n"
        "    xorl %ebp, %ebp\n"
        "    call coroutine_main\n"
        "    ud2\n"
        ".cfi_endproc\n"
        ".size coroutine_start, . - coroutine_start\n"
        ".popsection\n");

/* The first frame of a new stack, as coroutine_switch() pops it. */
typedef struct SwitchFrame {
    uint32_t mxcsr;
    uint32_t x87_cw;
    uint64_t r15_r14_r13_r12_rbx_rbp[6];
    void (*rip)(void);
    uint64_t pad; /* keeps the stack at a multiple of 16 when coroutine_start() is reached */
} SwitchFrame;

G_STATIC_ASSERT(sizeof(SwitchFrame) == 72 && offsetof(SwitchFrame, rip) == 56);

void coroutine_free(Coroutine *co)
{
    size_t guard = getpagesize();

    sanitizer_coroutine_free(co);
    munmap((char *)co->stack - guard, co->stack_bytes + guard);
    g_free(co);
}

unsigned coroutine_stacks_mapped(void)
{
    return __atomic_load_n(&stacks_mapped, __ATOMIC_RELAXED);
}

static Coroutine *coroutine_new(void)
{
    size_t guard = getpagesize();
    Coroutine *co = g_new0(Coroutine, 1);
    SwitchFrame *frame;
    char *map = mmap(NULL, COROUTINE_STACK_BYTES + guard, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

    if (map == MAP_FAILED || mprotect(map, guard, PROT_NONE) != 0) {
        g_error("no memory for the stack of a coroutine: %s", g_strerror(errno));
    }
    __atomic_fetch_add(&stacks_mapped, 1, __ATOMIC_RELAXED);
    co->stack = map + guard;
    co->stack_bytes = COROUTINE_STACK_BYTES;
    sanitizer_coroutine_new(co);

    frame = (SwitchFrame *)((char *)co->stack + co->stack_bytes - 128);
    memset(frame, 0, sizeof(*frame));
    /* Rounding modes and exception masks are the creator's, then what the coroutine before left. */
    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(frame->mxcsr), "=m"(frame->x87_cw));
    frame->rip = coroutine_start;
    co->sp = frame;
    return co;
}

static __attribute__((noinline)) CoroutineThread *coroutine_thread(void)
{
    __asm__ volatile("");
    return &thread_state;
}

static inline Coroutine *current_or_leader(CoroutineThread *t)
{
    if (G_UNLIKELY(!t->current)) {
        t->current = &t->leader;
        sanitizer_leader_init(&t->leader);
    }
    return t->current;
}

Coroutine *qemu_coroutine_create(CoroutineEntry *entry, void *opaque)
{
    CoroutineThread *t = coroutine_thread();
    Coroutine *co = coroutine_pool_get(&t->cache);

    if (G_UNLIKELY(!co)) {
        co = coroutine_new();
    }
    sanitizer_coroutine_reuse(co);
    co->entry = entry;
    co->opaque = opaque;
    __atomic_store_n(&co->ctx, NULL, __ATOMIC_RELAXED);
    return co;
}

/*
 * Leaves the running coroutine for the one that entered it. Nothing thread-local is used after the
 * switch.
 */
static inline void coroutine_leave(Coroutine *self, CoroutineThread *t, CoroutineAction action)
{
    Coroutine *caller = self->caller;

    t->current = caller;
    sanitizer_switch_start(self, caller);
    coroutine_switch(&self->sp, caller->sp, action);
    sanitizer_switch_finish(self);
}

void coroutine_main(void)
{
    Coroutine *self = coroutine_thread()->current;

    sanitizer_switch_finish(self);
    for (;;) {
        self->entry(self->opaque);
        coroutine_leave(self, coroutine_thread(), CO_ENDED);
    }
}

void qemu_coroutine_enter(Coroutine *co)
{
    CoroutineThread *t = coroutine_thread();
    Coroutine *self = current_or_leader(t);
    CoroutineAction action;

    g_assert(!co->caller && co->entry && co != &t->leader);
    g_assert(!__atomic_load_n(&co->scheduled, __ATOMIC_RELAXED));
    __atomic_store_n(&co->caller, self, __ATOMIC_RELAXED);
    __atomic_store_n(&co->ctx, t->ctx, __ATOMIC_RELAXED);
    t->current = co;

    sanitizer_switch_start(self, co);
    action = coroutine_switch(&self->sp, co->sp, CO_ENTER);
    sanitizer_switch_finish(self);

    if (action == CO_ENDED) {
        co->caller = NULL;
        co->entry = NULL;
        sanitizer_coroutine_ended(co);
        coroutine_pool_put(&t->cache, co);
    } else {
        AioContext *move_to = co->move_to;

        co->move_to = NULL;
        /*
         * From here on another thread may run co, or have freed it, unless it is to be moved by us.
         */
        __atomic_store_n(&co->caller, NULL, __ATOMIC_RELEASE);
        if (move_to) {
            aio_co_schedule(move_to, co);
        }
    }
}

void coroutine_fn qemu_coroutine_yield(void)
{
    CoroutineThread *t = coroutine_thread();
    Coroutine *self = t->current;

    g_assert(self && self->caller);
    coroutine_leave(self, t, CO_YIELD);
}

__attribute__((noinline)) Coroutine *qemu_coroutine_self(void)
{
    return current_or_leader(coroutine_thread());
}

__attribute__((noinline)) bool qemu_in_coroutine(void)
{
    Coroutine *self = coroutine_thread()->current;

    return self && self->caller;
}

bool qemu_coroutine_entered(Coroutine *co)
{
    return coroutine_running(co);
}

void coroutine_set_thread_context(AioContext *ctx)
{
    coroutine_thread()->ctx = ctx;
}

__attribute__((noinline)) AioContext *coroutine_get_thread_context(void)
{
    return coroutine_thread()->ctx;
}

int64_t coroutine_thread_trim(void)
{
    return coroutine_pool_trim(&coroutine_thread()->cache);
}
