/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "system/accel.h"

#include <string.h>
#include "accel/kvm/kvm.h"
#include "system/cmdline.h"
#include "util/error.h"

static bool no_work(GError **errp)
{
    return true;
}

static bool not_built(GError **errp)
{
    error_setg(errp, "TCG is not built: guests run under KVM");
    return false;
}

static const struct {
    const char *name;
    bool (*open)(GError **errp);
} accels[] = {
    {"qtest", no_work},
    {"kvm", kvm_open},
    {"tcg", not_built},
};

bool accel_is_known(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(accels); i++) {
        if (!strcmp(accels[i].name, name)) {
            return true;
        }
    }
    return false;
}

static bool open_accel(const char *name, GError **errp)
{
    for (size_t i = 0; i < G_N_ELEMENTS(accels); i++) {
        if (!strcmp(accels[i].name, name)) {
            return accels[i].open(errp);
        }
    }
    g_assert_not_reached();
}

/* Programs that probe give a list, and take what is there. */
static void warn_of_no_use(void)
{
    const char *name = start_config.accels ? g_ptr_array_index(start_config.accels, 0) : "qtest";

    if (strcmp(name, "qtest") != 0 && start_config.accels->len == 1) {
        warn_report("accelerator '%s' is accepted and does nothing: the machine '%s' has no CPU",
                    name, start_config.machine->name);
    }
}

bool accel_start(const MachineClass *machine, GError **errp)
{
    g_autoptr(GString) reasons = g_string_new(NULL);

    if (!machine->has_cpus) {
        warn_of_no_use();
        return true;
    }
    if (!start_config.accels) {
        return open_accel("kvm", errp);
    }
    for (guint i = 0; i < start_config.accels->len; i++) {
        const char *name = g_ptr_array_index(start_config.accels, i);
        g_autoptr(GError) err = NULL;

        if (open_accel(name, &err)) {
            start_config.accel_qtest = !strcmp(name, "qtest");
            return true;
        }
        g_string_append_printf(reasons, "%s%s", i ? "; " : "", err->message);
    }
    error_setg(errp, "%s", reasons->str);
    return false;
}
