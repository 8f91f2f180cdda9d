/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a vCPU does with each exit, and with a KVM that fails: the kernel is played (kvm-fake.h). */
#include "accel/kvm/kvm-vcpu.h"

#include <errno.h>
#include <string.h>
#include "accel/runstate.h"
#include "accel/vm-reset.h"
#include "accel/vm-stop.h"
#include "memory/address-space.h"
#include "tests/unit/kvm-fake.h"
#include "util/aio.h"
#include "util/bql.h"

typedef struct World {
    KVMFake fake;
    KVMHost host;
    KVMMachine machine;
    KVMVcpu *vcpu;
    AddressSpace memory, io;
    MemoryRegion memory_root, io_root, device;
    GString *accesses; /* of the device and the ports */
    /* The exit that is played once; then the vCPU is not entered again. */
    struct kvm_run exit;
    uint8_t data[16]; /* of a port access */
    int error;        /* KVM_RUN fails instead; 0: it does not */
    int runs;
    ShutdownCause reset;
} World;

static World *world; /* for the handler of resets */

static void reset_handler(ShutdownCause cause)
{
    world->reset = cause;
    vm_stop_request(RUN_STATE_PAUSED);
}

/* Gives the exit once; what is entered again after it spins until it is kicked. */
static int play(KVMFake *fake, struct kvm_run *run)
{
    World *w = fake->opaque;

    if (__atomic_fetch_add(&w->runs, 1, __ATOMIC_SEQ_CST) > 0) {
        g_thread_yield();
        return EINTR;
    }
    if (w->error) {
        return w->error;
    }
    run->exit_reason = w->exit.exit_reason;
    memcpy((uint8_t *)run + offsetof(struct kvm_run, io),
           (uint8_t *)&w->exit + offsetof(struct kvm_run, io),
           sizeof(*run) - offsetof(struct kvm_run, io));
    if (run->exit_reason == KVM_EXIT_IO) {
        run->io.data_offset = KVM_FAKE_RUN_BYTES / 2;
        memcpy((uint8_t *)run + run->io.data_offset, w->data, sizeof(w->data));
    }
    return 0;
}

static uint64_t device_read(void *opaque, hwaddr addr, unsigned size)
{
    g_string_append_printf(((World *)opaque)->accesses, "r%u@%x ", size, (unsigned)addr);
    return UINT64_C(0x8877665544332211);
}

static void device_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    g_string_append_printf(((World *)opaque)->accesses, "w%u@%x=%" G_GINT64_MODIFIER "x ", size,
                           (unsigned)addr, data);
    vm_stop_request(RUN_STATE_PAUSED);
}

static const MemoryRegionOps device_ops = {
    .read = device_read,
    .write = device_write,
    .guest = {.min = 1, .max = 8, .unaligned = true},
    .device = {.min = 1, .max = 8, .unaligned = true},
};

static void open_host(World *w)
{
    g_autoptr(GError) err = NULL;

    *w = (World){.accesses = g_string_new(NULL)};
    world = w;
    kvm_fake_init(&w->fake);
    w->fake.on_run = play;
    w->fake.opaque = w;
    g_assert_true(kvm_host_open(&w->host, &kvm_fake_ops, &w->fake, "/dev/kvm", &err));
    memory_region_init(&w->memory_root, NULL, "memory", MEMORY_REGION_WHOLE);
    memory_region_init(&w->io_root, NULL, "io", 65536);
    memory_region_init_io(&w->device, NULL, &device_ops, w, "device", 0x100);
    address_space_init(&w->memory, &w->memory_root, "memory");
    address_space_init(&w->io, &w->io_root, "io");
    kvm_machine_init(&w->machine, &w->host, &w->memory, &w->io);
    vm_set_reset_handler(reset_handler);
}

static void close_host(World *w)
{
    kvm_machine_destroy(&w->machine);
    address_space_destroy(&w->memory);
    address_space_destroy(&w->io);
    memory_region_destroy(&w->memory_root);
    memory_region_destroy(&w->io_root);
    memory_region_destroy(&w->device);
    kvm_host_close(&w->host);
    kvm_fake_destroy(&w->fake);
    g_string_free(w->accesses, TRUE);
}

/* The guest runs into the exit, and has stopped when this returns. */
static void run(World *w)
{
    g_autoptr(GError) err = NULL;

    w->vcpu = kvm_vcpu_new(&w->machine, 0, &err);
    g_assert_no_error(err);
    g_assert_true(cpus_push(&err));
    kvm_vcpu_start(w->vcpu);
    vm_start();
    while (runstate_is_running()) {
        aio_poll(qemu_get_aio_context(), true);
    }
    kvm_vcpu_free(w->vcpu);
}

static void test_accesses_of_memory(void)
{
    World w;

    for (uint32_t len = 1; len <= 8; len *= 2) {
        g_autofree char *expected = g_strdup_printf("w%u@f1=%" G_GINT64_MODIFIER "x ", len,
                                                    UINT64_C(0x0807060504030201) >> (64 - 8 * len));

        open_host(&w);
        memory_region_add_subregion(&w.memory_root, 0x1000, &w.device);
        w.exit.exit_reason = KVM_EXIT_MMIO;
        w.exit.mmio.phys_addr = 0x10f1;
        w.exit.mmio.len = len;
        w.exit.mmio.is_write = true;
        for (int i = 0; i < 8; i++) {
            w.exit.mmio.data[i] = (uint8_t)(i + 1 + 8 - len);
        }
        run(&w);
        g_assert_cmpstr(w.accesses->str, ==, expected);
        /* The access is finished before the vCPU stands. */
        g_assert_cmpint(w.runs, ==, 1);
        memory_region_del_subregion(&w.memory_root, &w.device);
        close_host(&w);
    }
}

static void test_a_string_goes_through_one_port(void)
{
    World w;

    open_host(&w);
    memory_region_add_subregion(&w.io_root, 0x40, &w.device);
    w.exit.exit_reason = KVM_EXIT_IO;
    w.exit.io.direction = KVM_EXIT_IO_OUT;
    w.exit.io.size = 2;
    w.exit.io.port = 0x43;
    w.exit.io.count = 3;
    memcpy(w.data, "\x01\x02\x03\x04\x05\x06", 6);
    run(&w);
    g_assert_cmpstr(w.accesses->str, ==, "w2@3=201 w2@3=403 w2@3=605 ");
    memory_region_del_subregion(&w.io_root, &w.device);
    close_host(&w);
}

typedef struct Stop {
    const char *name, *says;
    uint32_t reason;
    int error;
    RunState state;
} Stop;

static const Stop stops[] = {
    {"emulation", "*an instruction cannot be emulated; data: 0x7; the guest is stopped*",
     KVM_EXIT_INTERNAL_ERROR, 0, RUN_STATE_INTERNAL_ERROR},
    {"fail-entry", "*the processor refuses to enter the guest: 0x*", KVM_EXIT_FAIL_ENTRY, 0,
     RUN_STATE_INTERNAL_ERROR},
    {"unknown", "*exit for an unknown reason: 0x*", KVM_EXIT_UNKNOWN, 0, RUN_STATE_INTERNAL_ERROR},
    {"new-exit", "*exit 200 is not known here*", 200, 0, RUN_STATE_INTERNAL_ERROR},
    {"run-fails", "*KVM_RUN: Bad address*", 0, EFAULT, RUN_STATE_INTERNAL_ERROR},
    {"run-is-not-there", "*KVM_RUN: Inappropriate ioctl*", 0, ENOTTY, RUN_STATE_INTERNAL_ERROR},
};

static void test_stops_with_an_internal_error(gconstpointer data)
{
    const Stop *stop = data;
    World w;

    if (g_test_subprocess()) {
        open_host(&w);
        w.exit.exit_reason = stop->reason;
        w.exit.internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
        w.exit.internal.ndata = 1;
        w.exit.internal.data[0] = 7;
        w.error = stop->error;
        run(&w);
        g_assert_true(runstate_check(stop->state));
        close_host(&w);
        return;
    }
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr(stop->says);
    g_test_trap_assert_stderr("*rip=000000000000fff0*");
}

/* KVM says how much data there is; the array has room for less. */
static void test_data_of_an_error_is_bounded(void)
{
    World w;

    open_host(&w);
    w.exit.exit_reason = KVM_EXIT_INTERNAL_ERROR;
    w.exit.internal.ndata = 0xffffffff;
    run(&w);
    g_assert_true(runstate_check(RUN_STATE_INTERNAL_ERROR));
    close_host(&w);
}

static void test_resets_are_asked_for(void)
{
    static const struct {
        uint32_t reason, event;
    } rows[] = {{KVM_EXIT_SHUTDOWN, 0}, {KVM_EXIT_SYSTEM_EVENT, KVM_SYSTEM_EVENT_RESET}};
    World w;

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        open_host(&w);
        w.exit.exit_reason = rows[i].reason;
        w.exit.system_event.type = rows[i].event;
        run(&w);
        g_assert_cmpint(w.reset, ==, SHUTDOWN_CAUSE_GUEST_RESET);
        g_assert_cmpint(w.runs, ==, 1); /* not an instruction more */
        close_host(&w);
    }
}

static void test_a_vcpu_that_cannot_be_made_leaves_nothing(void)
{
    g_autoptr(GError) err = NULL;
    World w;

    open_host(&w);
    w.fake.fail_request = KVM_CREATE_VCPU;
    w.fake.fail_error = EEXIST;
    g_assert_null(kvm_vcpu_new(&w.machine, 0, &err));
    g_assert_cmpstr(err->message, ==, "KVM makes no vCPU 0: File exists");
    g_clear_error(&err);
    w.fake.fail_error = 0;
    w.fake.no_run_memory = true;
    g_assert_null(kvm_vcpu_new(&w.machine, 3, &err));
    g_assert_cmpstr(err->message, ==,
                    "No memory to share with KVM for vCPU 3: Cannot allocate memory");
    close_host(&w);
}

/* Each call of a group may fail; the error says which. */
static void test_registers_that_fail_are_named(void)
{
    static const struct {
        unsigned long request;
        const char *name;
        bool push;
    } rows[] = {
        {KVM_GET_REGS, "KVM_GET_REGS", false},
        {KVM_SET_REGS, "KVM_SET_REGS", true},
        {KVM_GET_SREGS, "KVM_GET_SREGS", false},
        {KVM_SET_SREGS, "KVM_SET_SREGS", true},
        {KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS", false},
        {KVM_SET_DEBUGREGS, "KVM_SET_DEBUGREGS", true},
        {KVM_GET_MP_STATE, "KVM_GET_MP_STATE", false},
        {KVM_SET_MP_STATE, "KVM_SET_MP_STATE", true},
    };
    World w;

    open_host(&w);
    w.vcpu = kvm_vcpu_new(&w.machine, 0, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *expected = g_strdup_printf("%s: Invalid argument", rows[i].name);
        g_autoptr(GError) err = NULL;

        w.fake.fail_request = rows[i].request;
        w.fake.fail_error = EINVAL;
        g_assert_false(rows[i].push ? cpus_push(&err) : cpus_fetch(&err));
        g_assert_cmpstr(err->message, ==, expected);
    }
    w.fake.fail_error = 0;
    kvm_vcpu_free(w.vcpu);
    close_host(&w);
}

/* What was pushed comes back, though every second call is interrupted first. */
static void test_registers_come_back_as_they_were(void)
{
    g_autoptr(GError) err = NULL;
    X86Registers pushed;
    World w;

    open_host(&w);
    w.fake.interrupts = true;
    w.vcpu = kvm_vcpu_new(&w.machine, 1, &err);
    g_assert_no_error(err);
    for (int i = 0; i < X86_GPRS; i++) {
        w.vcpu->regs.gpr[i] = UINT64_C(0x1111111111111111) * (unsigned)i;
    }
    for (int i = 0; i < X86_SEGMENTS; i++) {
        w.vcpu->regs.segment[i].base = 0x1000u * (unsigned)i;
        w.vcpu->regs.segment[i].selector = (uint16_t)(8 * i);
    }
    w.vcpu->regs.dr[2] = 77;
    w.vcpu->regs.segment[X86_FS].present = false;
    pushed = w.vcpu->regs;
    g_assert_true(cpus_push(&err));
    w.vcpu->regs = (X86Registers){0};
    g_assert_true(cpus_fetch(&err));
    g_assert_cmpmem(&w.vcpu->regs.gpr, sizeof(pushed.gpr), &pushed.gpr, sizeof(pushed.gpr));
    for (int i = 0; i < X86_SEGMENTS; i++) {
        const X86Segment *a = &w.vcpu->regs.segment[i], *b = &pushed.segment[i];

        g_assert_true(a->base == b->base && a->limit == b->limit && a->selector == b->selector &&
                      a->type == b->type && a->system == b->system && a->present == b->present);
    }
    g_assert_cmpuint(w.vcpu->regs.dr[2], ==, 77);
    g_assert_cmpuint(w.vcpu->regs.apic_base, ==, 0xfee00800); /* not the first processor */
    g_assert_cmpuint(w.vcpu->regs.activity, ==, X86_UNINITIALIZED);
    kvm_vcpu_free(w.vcpu);
    close_host(&w);
}

int main(int argc, char **argv)
{
    GError *err = NULL;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(&err));
    g_test_add_func("/kvm/vcpu/memory", test_accesses_of_memory);
    g_test_add_func("/kvm/vcpu/string", test_a_string_goes_through_one_port);
    for (size_t i = 0; i < G_N_ELEMENTS(stops); i++) {
        g_autofree char *name = g_strdup_printf("/kvm/vcpu/stops/%s", stops[i].name);

        g_test_add_data_func(name, &stops[i], test_stops_with_an_internal_error);
    }
    g_test_add_func("/kvm/vcpu/bounded-data", test_data_of_an_error_is_bounded);
    g_test_add_func("/kvm/vcpu/resets", test_resets_are_asked_for);
    g_test_add_func("/kvm/vcpu/not-made", test_a_vcpu_that_cannot_be_made_leaves_nothing);
    g_test_add_func("/kvm/vcpu/registers/fail", test_registers_that_fail_are_named);
    g_test_add_func("/kvm/vcpu/registers/stay", test_registers_come_back_as_they_were);
    return g_test_run();
}
