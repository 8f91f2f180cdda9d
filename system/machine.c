/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine "none", and the object of every machine: what QMP asks about it, and the buttons on its front. */
#include "system/machine.h"

#include "accel/kvm/kvm.h"
#include "accel/runstate.h"
#include "hw/core/device-add.h"
#include "hw/core/machine.h"
#include "hw/core/reset.h"
#include "hw/types.h"
#include "memory/address-space.h"
#include "memory/machine-ram.h"
#include "migration/migration.h"
#include "qapi/qapi-commands-machine.h"
#include "qapi/qapi-commands-run-state.h"
#include "qapi/qapi-events-run-state.h"
#include "qom/object.h"
#include "system/accel.h"
#include "system/cmdline.h"
#include "system/reset.h"
#include "util/error.h"

static const QomType base_type = {.name = "machine", .abstract = true};

static const MachineClass none_class = {
    .name = "none",
    .desc = "empty machine",
    .max_cpus = 1,
    .default_ram_id = "ram",
    .version = MACHINE_NEWEST,
};

void machine_register_types(void)
{
    static bool registered;

    if (!registered) {
        registered = true;
        qom_type_register(&base_type);
        machine_class_register(&none_class);
        hw_register_types();
    }
}

/* The type of the object /machine: "none-machine". */
static const QomType *object_type(const MachineClass *class)
{
    g_autofree char *name = g_strconcat(class->name, "-machine", NULL);
    const QomType *found = qom_type_find(name);
    QomType *type;

    if (found) {
        return found;
    }
    type = g_new0(QomType, 1);
    *type = (QomType){.name = g_steal_pointer(&name), .parent = base_type.name};
    qom_type_register(type);
    return type;
}

static void run_state_changed(void *opaque, bool running, RunState state)
{
    devices_run_state_changed(running);
}

void machine_make(void)
{
    static const char *const parts[] = {"peripheral", "peripheral-anon", "unattached"};
    const QomType *container = qom_type_find("container");
    QomObject *machine =
        qom_object_new(NULL, "machine", object_type(start_config.machine), &start_config);

    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        qom_object_new(machine, parts[i], container, NULL);
    }
    machine_apply_rows(start_config.machine);
    if (start_config.machine->version != MACHINE_NEWEST) {
        migration_settings_follow_machine(start_config.machine->version / 1000,
                                          start_config.machine->version % 1000);
    }
    qemu_add_vm_change_state_handler(run_state_changed, NULL);
    system_reset_init();
    qtest_irq_init();
}

static bool set_boot(MemoryRegion *ram, GError **errp)
{
    const MachineClass *class = start_config.machine;

    machine_boot = (MachineBoot){
        .cpus = MAX(1, start_config.cpus),
        .ram = ram,
        .ram_bytes = ram ? memory_region_size(ram) : 0,
        .runs_code = class->has_cpus && !start_config.accel_qtest,
        .kernel = start_config.kernel,
        .initrd = start_config.initrd,
        .append = start_config.append ? start_config.append : "",
    };
    if (machine_boot.cpus > class->max_cpus) {
        error_setg(errp, "Invalid SMP CPUs %u. The max CPUs supported by machine '%s' is %u",
                   machine_boot.cpus, class->name, class->max_cpus);
        return false;
    }
    if (!class->has_cpus && start_config.kernel) {
        error_setg(errp, "-kernel: the machine '%s' has no CPU that could run it", class->name);
        return false;
    }
    if (!start_config.kernel && (start_config.initrd || start_config.append)) {
        error_setg(errp, "%s only allowed with -kernel option",
                   start_config.append ? "-append" : "-initrd");
        return false;
    }
    return true;
}

bool coroutine_fn machine_co_init(GError **errp)
{
    const MachineClass *class = start_config.machine;
    const MachineRAMOptions options = {
        .default_id = class->default_ram_id,
        .has_size = start_config.has_ram_size,
        .size = start_config.ram_size,
        .backend = start_config.memory_backend,
        .mem_path = start_config.mem_path,
        .prealloc = start_config.mem_prealloc,
    };
    MemoryRegion *ram, *system_memory = get_system_memory(); /* there without RAM as well */

    if (!accel_start(class, errp) || !machine_ram_co_init(&options, &ram, errp) ||
        !set_boot(ram, errp)) {
        return false;
    }
    if (ram && !class->places_ram) {
        memory_region_add_subregion(system_memory, 0, ram);
    }
    return !class->co_init || class->co_init(class, errp);
}

/* --- queries --- */

bool coroutine_fn qmp_query_target(TargetInfo **ret, GError **errp)
{
    *ret = g_new0(TargetInfo, 1);
    (*ret)->arch = SYS_EMU_TARGET_X86_64;
    return true;
}

bool coroutine_fn qmp_query_kvm(KvmInfo **ret, GError **errp)
{
    *ret = g_new0(KvmInfo, 1);
    (*ret)->present = true;
    (*ret)->enabled = kvm_enabled();
    return true;
}

bool coroutine_fn qmp_query_accelerators(AcceleratorInfo **ret, GError **errp)
{
    AcceleratorList **tail;

    *ret = g_new0(AcceleratorInfo, 1);
    (*ret)->enabled = kvm_enabled() ? ACCELERATOR_KVM : ACCELERATOR_QTEST;
    tail = &(*ret)->present;
    QAPI_LIST_APPEND(tail, ACCELERATOR_QTEST);
    QAPI_LIST_APPEND(tail, ACCELERATOR_KVM);
    return true;
}

bool coroutine_fn qmp_query_machines(MachineInfoList **ret, GError **errp)
{
    MachineInfoList **tail = ret;
    const GPtrArray *classes = machine_classes();

    for (guint i = 0; i < classes->len; i++) {
        const MachineClass *class = g_ptr_array_index(classes, i);
        MachineInfo *info;

        if (class->hidden) {
            continue;
        }
        info = g_new0(MachineInfo, 1);
        info->name = g_strdup(class->name);
        info->alias = g_strdup(class->alias);
        info->has_is_default = info->is_default = class->is_default;
        info->cpu_max = class->max_cpus;
        info->acpi = class->acpi;
        info->default_ram_id = g_strdup(class->default_ram_id);
        QAPI_LIST_APPEND(tail, info);
    }
    return true;
}

bool coroutine_fn qmp_query_current_machine(CurrentMachineParams **ret, GError **errp)
{
    *ret = g_new0(CurrentMachineParams, 1);
    return true;
}

/* --- buttons --- */

bool coroutine_fn qmp_system_powerdown(GError **errp)
{
    qapi_event_send_powerdown();
    return true;
}

bool coroutine_fn qmp_system_wakeup(GError **errp)
{
    error_setg(errp, "wake-up from suspend is not supported by this guest");
    return false;
}

bool coroutine_fn qmp_set_action(const SetActionArg *arg, GError **errp)
{
    if (arg->has_reboot) {
        start_config.reboot_ends = arg->reboot == REBOOT_ACTION_SHUTDOWN;
    }
    if (arg->has_shutdown) {
        start_config.shutdown_pauses = arg->shutdown == SHUTDOWN_ACTION_PAUSE;
    }
    return true;
}
