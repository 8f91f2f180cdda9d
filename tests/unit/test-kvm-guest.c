/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vCPUs of the host's KVM with guests of a few instructions. The guests run in flat 32-bit mode without
 * paging, which every KVM can do, nested and emulated ones too.
 */
#include "accel/kvm/kvm-vcpu.h"

#include <string.h>
#include "accel/kvm/kvm-slots.h"
#include "accel/runstate.h"
#include "accel/vm-reset.h"
#include "accel/vm-stop.h"
#include "memory/dirty.h"
#include "memory/listener.h"
#include "memory/ram-block.h"
#include "util/aio.h"
#include "util/bql.h"
#include "util/page-bitmap.h"

enum {
    RAM_BYTES = 64 * 1024,
    CODE = 0x1000, /* where a guest begins */
    COUNTER = 0x2000,
    RESULTS = 0x3000,
    MMIO = 0x100000,
    PORTS = 0x40, /* eight that remember what was written */
    END_PORT = 0xf4,
    ROUNDS = 50,
};

/* --- guests: position independent, entered at their first byte --- */

#define GUEST(name, code)                                                             \
    extern const char guest_##name[], guest_##name##_end[];                           \
    __asm__(".pushsection .rodata\n.code32\nguest_" #name ":\n" code "\nguest_" #name \
            "_end:\n.code64\n.popsection\n")

/* Each size to ports and back; a string through one port. */
GUEST(ports, "movb $0x12, %al\n outb %al, $0x40\n"
             "movw $0x3456, %ax\n outw %ax, $0x41\n"
             "movl $0x789abcde, %eax\n outl %eax, $0x44\n"
             "xorl %eax, %eax\n inb $0x40, %al\n movl %eax, 0x3000\n"
             "xorl %eax, %eax\n inw $0x41, %ax\n movl %eax, 0x3004\n"
             "inl $0x44, %eax\n movl %eax, 0x3008\n"
             "movl $0x3010, %esi\n movl $5, %ecx\n movw $0x60, %dx\n cld\n rep outsb\n"
             "outb %al, $0xf4\n 1: jmp 1b\n");
/* Each size of memory, at every place of the first sixteen bytes and across a page. */
GUEST(memory, "movl $0x11223344, 0x100000\n movw $0x5566, 0x100004\n movb $0x77, 0x100006\n"
              "movl $0x8899aabb, 0x100ffe\n"
              "movl 0x100000, %eax\n movl %eax, 0x3000\n"
              "movzwl 0x100004, %eax\n movl %eax, 0x3004\n"
              "movzbl 0x100006, %eax\n movl %eax, 0x3008\n"
              "movl 0x100ffe, %eax\n movl %eax, 0x300c\n"
              "movl 0x100003, %eax\n movl %eax, 0x3010\n"
              "outb %al, $0xf4\n 1: jmp 1b\n");
GUEST(count, "1: incl 0x2000\n jmp 1b\n");
/* Reads a register of the device for ever, and counts. */
GUEST(reads, "xorl %ecx, %ecx\n 1: movl 0x100000, %eax\n incl %ecx\n movl %ecx, 0x2000\n jmp 1b\n");
/* Counts in 512 pages, one after the other at random. */
GUEST(scribble, "xorl %ecx, %ecx\n 1: imull $1103515245, %ecx, %ecx\n addl $12345, %ecx\n"
                "movl %ecx, %edx\n shrl $12, %edx\n andl $0x1ff, %edx\n shll $12, %edx\n"
                "incl 0x200000(%edx)\n incl 0x2000\n jmp 1b\n");
/* A segment outside of an empty table, and no table of interrupts: a triple fault. */
GUEST(triple_fault, "movl $0x3100, %eax\n movl $0, (%eax)\n movl $0, 4(%eax)\n lidt (%eax)\n"
                    "lgdt (%eax)\n movl $0x18, %eax\n movl %eax, %ds\n 1: jmp 1b\n");

/* --- the machine --- */

typedef struct World {
    KVMHost host;
    KVMSlots *slots;
    KVMMachine machine;
    KVMVcpu *vcpu;
    AddressSpace memory, io;
    MemoryRegion memory_root, ram, device, over, io_root, ports, string_port, end_port;
    uint8_t port[8], string[16];
    uint8_t registers[0x2000];
    unsigned string_bytes;
    bool ended, stop_at_read;
    ShutdownCause reset;
} World;

static World *world; /* for handlers without an opaque */

static uint64_t bytes_read(void *opaque, hwaddr addr, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, (uint8_t *)opaque + addr, size);
    return value;
}

static void bytes_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    memcpy((uint8_t *)opaque + addr, &data, size);
}

static const MemoryRegionOps port_ops = {
    .read = bytes_read,
    .write = bytes_write,
    .guest = {.min = 1, .max = 4, .unaligned = true},
    .device = {.min = 1, .max = 4, .unaligned = true},
};

static uint64_t device_read(void *opaque, hwaddr addr, unsigned size)
{
    World *w = opaque;

    if (w->stop_at_read) {
        vm_stop_request(RUN_STATE_PAUSED);
    }
    return bytes_read(w->registers, addr, size);
}

static void device_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    bytes_write(((World *)opaque)->registers, addr, data, size);
}

static const MemoryRegionOps device_ops = {
    .read = device_read,
    .write = device_write,
    .guest = {.min = 1, .max = 8, .unaligned = true},
    .device = {.min = 1, .max = 8, .unaligned = true},
};

static void string_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    World *w = opaque;

    if (w->string_bytes < sizeof(w->string)) {
        w->string[w->string_bytes++] = (uint8_t)data;
    }
}

static const MemoryRegionOps string_ops = {.write = string_write, .guest.max = 1, .device.max = 1};

static void end_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    ((World *)opaque)->ended = true;
    vm_stop_request(RUN_STATE_PAUSED);
}

static const MemoryRegionOps end_ops = {.write = end_write, .guest.max = 1, .device.max = 1};

static void slots_failed(void *opaque, const char *reason)
{
    g_error("%s", reason);
}

static void shut(void *opaque)
{
    kvm_machine_shut(&((World *)opaque)->machine);
}

static void open_again(void *opaque)
{
    kvm_machine_open(&((World *)opaque)->machine);
}

static void reset_handler(ShutdownCause cause)
{
    world->reset = cause;
}

static void make_spaces(World *w)
{
    g_autoptr(GError) err = NULL;

    memory_region_init(&w->memory_root, NULL, "memory", MEMORY_REGION_WHOLE);
    g_assert_true(memory_region_init_ram(&w->ram, NULL, "guest.ram", RAM_BYTES, &err));
    memory_region_add_subregion(&w->memory_root, 0, &w->ram);
    memory_region_init_io(&w->device, NULL, &device_ops, w, "device", sizeof(w->registers));
    memory_region_add_subregion(&w->memory_root, MMIO, &w->device);
    address_space_init(&w->memory, &w->memory_root, "memory");

    memory_region_init(&w->io_root, NULL, "io", 65536);
    memory_region_init_io(&w->ports, NULL, &port_ops, w->port, "ports", sizeof(w->port));
    memory_region_add_subregion(&w->io_root, PORTS, &w->ports);
    memory_region_init_io(&w->string_port, NULL, &string_ops, w, "string", 1);
    memory_region_add_subregion(&w->io_root, 0x60, &w->string_port);
    memory_region_init_io(&w->end_port, NULL, &end_ops, w, "end", 1);
    memory_region_add_subregion(&w->io_root, END_PORT, &w->end_port);
    address_space_init(&w->io, &w->io_root, "io");
}

static uint32_t *word(World *w, hwaddr addr)
{
    uint8_t *ram = memory_region_get_ram_block(&w->ram)->host;

    return (uint32_t *)(ram + addr);
}

/* False: there is no KVM here, and the test is skipped. */
static bool world_open(World *w, const char *code, const char *code_end)
{
    static MemoryAccelOps accel_ops;
    g_autoptr(GError) err = NULL;

    *w = (World){.string_bytes = 0};
    world = w;
    if (!kvm_host_open(&w->host, &kvm_host_kernel, NULL, "/dev/kvm", &err)) {
        g_test_skip(err->message);
        return false;
    }
    make_spaces(w);
    w->slots = kvm_slots_new(&w->host, &w->memory, 0, slots_failed, w);
    kvm_machine_init(&w->machine, &w->host, &w->memory, &w->io);
    accel_ops = (MemoryAccelOps){.shut = shut, .open = open_again, .opaque = w};
    memory_set_accel_ops(&accel_ops);
    vm_set_reset_handler(reset_handler);

    memcpy(word(w, CODE), code, (size_t)(code_end - code));
    w->vcpu = kvm_vcpu_new(&w->machine, 0, &err);
    g_assert_no_error(err);
    x86_registers_enter_flat(&w->vcpu->regs, CODE);
    g_assert_true(cpus_push(&err));
    kvm_vcpu_start(w->vcpu);
    return true;
}
#define WORLD_OPEN(w, name) world_open(w, guest_##name, guest_##name##_end)

static void world_close(World *w)
{
    MemoryRegion *in_memory[] = {&w->ram, &w->device};
    MemoryRegion *in_io[] = {&w->ports, &w->string_port, &w->end_port};

    kvm_vcpu_free(w->vcpu);
    memory_set_accel_ops(NULL);
    kvm_machine_destroy(&w->machine);
    kvm_slots_free(w->slots);
    address_space_destroy(&w->memory);
    address_space_destroy(&w->io);
    for (size_t i = 0; i < G_N_ELEMENTS(in_memory); i++) {
        memory_region_del_subregion(&w->memory_root, in_memory[i]);
        memory_region_destroy(in_memory[i]);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(in_io); i++) {
        memory_region_del_subregion(&w->io_root, in_io[i]);
        memory_region_destroy(in_io[i]);
    }
    memory_region_destroy(&w->memory_root);
    memory_region_destroy(&w->io_root);
    kvm_host_close(&w->host);
}

static void run_until_stopped(void)
{
    vm_start();
    while (runstate_is_running()) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

static void coroutine_fn stop_co(void *opaque)
{
    vm_co_pause(RUN_STATE_PAUSED);
}

static void stop(void)
{
    aio_run_coroutine(stop_co, NULL);
}

static uint32_t counter(World *w)
{
    return __atomic_load_n(word(w, COUNTER), __ATOMIC_SEQ_CST);
}

static void run_for_a_while(World *w)
{
    uint32_t before = counter(w);

    while (counter(w) == before) {
        aio_poll(qemu_get_aio_context(), false);
    }
}

static void assert_stands_still(World *w)
{
    uint32_t before = counter(w);

    for (int i = 0; i < 20; i++) {
        bql_main_unlock();
        g_thread_yield();
        bql_main_lock();
    }
    g_assert_cmpuint(counter(w), ==, before);
}

/* --- tests --- */

static void test_ports(void)
{
    World w;

    if (!WORLD_OPEN(&w, ports)) {
        return;
    }
    memcpy(word(&w, RESULTS + 0x10), "hello", 5);
    run_until_stopped();
    g_assert_true(w.ended);
    g_assert_cmphex(word(&w, RESULTS)[0], ==, 0x12);
    g_assert_cmphex(word(&w, RESULTS)[1], ==, 0x3456);
    g_assert_cmphex(word(&w, RESULTS)[2], ==, 0x789abcde);
    g_assert_cmpmem(w.port, 8, "\x12\x56\x34\0\xde\xbc\x9a\x78", 8);
    g_assert_cmpmem(w.string, w.string_bytes, "hello", 5);
    world_close(&w);
}

static void test_memory(void)
{
    World w;

    if (!WORLD_OPEN(&w, memory)) {
        return;
    }
    run_until_stopped();
    g_assert_true(w.ended);
    g_assert_cmphex(word(&w, RESULTS)[0], ==, 0x11223344);
    g_assert_cmphex(word(&w, RESULTS)[1], ==, 0x5566);
    g_assert_cmphex(word(&w, RESULTS)[2], ==, 0x77);
    g_assert_cmphex(word(&w, RESULTS)[3], ==, 0x8899aabb);
    g_assert_cmphex(word(&w, RESULTS)[4], ==, 0x77556611);
    g_assert_cmpmem(w.registers, 7, "\x44\x33\x22\x11\x66\x55\x77", 7);
    g_assert_cmpmem(w.registers + 0xffe, 4, "\xbb\xaa\x99\x88", 4);
    world_close(&w);
}

static void test_a_stopped_guest_executes_nothing(void)
{
    g_autoptr(GError) err = NULL;
    World w;

    if (!WORLD_OPEN(&w, count)) {
        return;
    }
    for (int i = 0; i < ROUNDS; i++) {
        vm_start();
        if (i % 2) {
            run_for_a_while(&w);
        }
        stop();
        assert_stands_still(&w);
        g_assert_true(cpus_fetch(&err) && cpus_push(&err));
    }
    world_close(&w);
}

static void test_the_gate_holds_a_running_guest(void)
{
    World w;

    if (!WORLD_OPEN(&w, count)) {
        return;
    }
    vm_start();
    for (int i = 0; i < ROUNDS; i++) {
        if (i % 2) {
            run_for_a_while(&w);
        }
        kvm_machine_shut(&w.machine);
        assert_stands_still(&w);
        kvm_machine_open(&w.machine);
    }
    run_for_a_while(&w);
    stop();
    world_close(&w);
}

/* The instruction that reads a device is over when the guest stands: its result is in the registers. */
static void test_a_stop_inside_of_an_access_lets_it_end(void)
{
    g_autoptr(GError) err = NULL;
    World w;

    if (!WORLD_OPEN(&w, reads)) {
        return;
    }
    w.stop_at_read = true;
    for (uint32_t i = 1; i < ROUNDS; i++) {
        memcpy(w.registers, &i, sizeof(i));
        run_until_stopped();
        g_assert_true(cpus_fetch(&err));
        g_assert_cmpuint(w.vcpu->regs.gpr[X86_RAX], ==, i);
        g_assert_cmpuint(w.vcpu->regs.gpr[X86_RCX], ==, i - 1);
        g_assert_cmphex(w.vcpu->regs.rip, ==, CODE + 7);
        g_assert_cmpuint(counter(&w), ==, i - 1);
        /* What was fetched is what goes on. */
        w.vcpu->regs.gpr[X86_RBX] = i;
        g_assert_true(cpus_push(&err));
        g_assert_true(cpus_fetch(&err));
        g_assert_cmpuint(w.vcpu->regs.gpr[X86_RBX], ==, i);
    }
    world_close(&w);
}

static void test_a_triple_fault_asks_for_a_reset(void)
{
    World w;

    if (!WORLD_OPEN(&w, triple_fault)) {
        return;
    }
    vm_start();
    while (w.reset == SHUTDOWN_CAUSE_NONE) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_cmpint(w.reset, ==, SHUTDOWN_CAUSE_GUEST_RESET);
    stop();
    world_close(&w);
}

/* Slots change while the guest counts in memory beside them. */
static void test_memory_changes_under_a_running_guest(void)
{
    MemoryRegion more;
    g_autoptr(GError) err = NULL;
    World w;

    if (!WORLD_OPEN(&w, count)) {
        return;
    }
    g_assert_true(memory_region_init_ram(&more, NULL, "more.ram", RAM_BYTES, &err));
    vm_start();
    for (int i = 0; i < ROUNDS; i++) {
        memory_region_add_subregion(&w.memory_root, RAM_BYTES, &more);
        run_for_a_while(&w);
        memory_region_del_subregion(&w.memory_root, &more);
        run_for_a_while(&w);
    }
    stop();
    memory_region_destroy(&more);
    world_close(&w);
}

/* --- the log --- */

enum { PAGE = 4096, LOGGED_PAGES = 512, LOGGED_ADDR = 0x200000 };

typedef struct Copy {
    MemoryRegion ram;
    RAMBlock *block;
    uint8_t *bytes;                    /* as a destination of a migration would have it */
    uint64_t dirty[LOGGED_PAGES / 64]; /* pages to copy */
    uint64_t copied;                   /* pages, so far */
} Copy;

/* A pass: what was written since the one before, each page once its log was cleared. */
static void copy_dirty_pages(Copy *c)
{
    memory_global_dirty_log_sync(false);
    ram_block_dirty_sync_and_clear(c->block, DIRTY_MEMORY_MIGRATION, c->dirty, 0, LOGGED_PAGES);
    for (uint64_t page = 0; page < LOGGED_PAGES; page++) {
        if (page_bitmap_test(c->dirty, page)) {
            page_bitmap_clear(c->dirty, page, page + 1);
            ram_block_clear_log(c->block, page * PAGE, PAGE);
            memcpy(c->bytes + page * PAGE, c->block->host + page * PAGE, PAGE);
            c->copied++;
        }
    }
}

/* Memory is remapped under the running guest: a device comes over a part of it and goes. */
static void remap(World *w, int round)
{
    if (round % 2 == 0) {
        memory_region_add_subregion_overlap(&w->memory_root, LOGGED_ADDR + 0x40000, &w->over, 1);
    } else {
        memory_region_del_subregion(&w->memory_root, &w->over);
    }
}

static void test_no_write_is_missing_in_the_log(void)
{
    g_autoptr(GError) err = NULL;
    g_autofree uint8_t *bytes = g_malloc(LOGGED_PAGES * PAGE);
    Copy c = {.bytes = bytes};
    World w;

    if (!WORLD_OPEN(&w, scribble)) {
        return;
    }
    g_assert_true(memory_region_init_ram(&c.ram, NULL, "logged.ram", LOGGED_PAGES * PAGE, &err));
    c.block = memory_region_get_ram_block(&c.ram);
    memory_region_add_subregion(&w.memory_root, LOGGED_ADDR, &c.ram);
    memory_region_init_io(&w.over, NULL, &device_ops, &w, "over", sizeof(w.registers));
    memset(bytes, 0xaa, LOGGED_PAGES * PAGE);
    vm_start();
    run_for_a_while(&w);
    g_assert_true(memory_global_dirty_log_start(1u << DIRTY_MEMORY_MIGRATION, &err));
    memcpy(bytes, c.block->host, LOGGED_PAGES * PAGE); /* from here on the log tells */
    for (int i = 0; i < 4 * ROUNDS; i++) {
        vm_start();
        run_for_a_while(&w);
        copy_dirty_pages(&c);
        remap(&w, i);
        /* At once, as a later write to a page would hide that one is missing. */
        stop();
        copy_dirty_pages(&c);
        g_assert_cmpmem(bytes, LOGGED_PAGES * PAGE, c.block->host, LOGGED_PAGES * PAGE);
    }
    g_assert_cmpuint(c.copied, >, 0);
    memory_global_dirty_log_stop(1u << DIRTY_MEMORY_MIGRATION);
    memory_region_del_subregion(&w.memory_root, &c.ram);
    memory_region_destroy(&c.ram);
    memory_region_destroy(&w.over);
    world_close(&w);
}

int main(int argc, char **argv)
{
    GError *err = NULL;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(&err));
    g_test_add_func("/kvm/guest/ports", test_ports);
    g_test_add_func("/kvm/guest/memory", test_memory);
    g_test_add_func("/kvm/guest/stopped", test_a_stopped_guest_executes_nothing);
    g_test_add_func("/kvm/guest/gate", test_the_gate_holds_a_running_guest);
    g_test_add_func("/kvm/guest/stop-in-access", test_a_stop_inside_of_an_access_lets_it_end);
    g_test_add_func("/kvm/guest/triple-fault", test_a_triple_fault_asks_for_a_reset);
    g_test_add_func("/kvm/guest/slots", test_memory_changes_under_a_running_guest);
    g_test_add_func("/kvm/guest/log", test_no_write_is_missing_in_the_log);
    return g_test_run();
}
