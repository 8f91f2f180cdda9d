/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The registry of what travels with the guest: order, names and instance ids, what cannot travel. */
#include <glib.h>
#include <string.h>

#include "util/migration-blocker.h"
#include "vmstate/register.h"

static const VMStateDescription low = {.name = "low", .version_id = 1},
                                bus = {.name = "bus", .version_id = 1, .priority = MIG_PRI_PCI_BUS},
                                iommu = {.name = "iommu",
                                         .version_id = 1,
                                         .priority = MIG_PRI_IOMMU},
                                stuck = {.name = "stuck", .version_id = 1, .unmigratable = true};
static const SaveVMHandlers live_ops;

/* "NAME/INSTANCE ..." as they are saved. */
static char *order(void)
{
    GString *text = g_string_new("");
    SaveStateEntry *se;

    TAILQ_FOREACH(se, savevm_entries(), next) {
        g_string_append_printf(text, "%s/%u ", se->idstr, se->instance_id);
    }
    return g_string_free(text, FALSE);
}

static void expect_order(const char *expected)
{
    g_autofree char *text = order();

    g_assert_cmpstr(text, ==, expected);
}

static bool add(const VMStateDescription *vmsd, void *opaque, const char *path, uint32_t id,
                int alias, GError **errp)
{
    const VMStateRegistration reg = {
        .vmsd = vmsd, .opaque = opaque, .path = path, .instance_id = id, .alias_id = alias};

    return vmstate_register_full(&reg, errp);
}

static void add_any(const VMStateDescription *vmsd, void *opaque, const char *path)
{
    g_autoptr(GError) err = NULL;
    bool ok = add(vmsd, opaque, path, VMSTATE_INSTANCE_ID_ANY, -1, &err);

    g_assert_no_error(err);
    g_assert_true(ok);
}

static void test_priority_then_registration(void)
{
    int self;

    vmstate_register(0, &low, &self);
    register_savevm_live("live", 0, 4, &live_ops, &self);
    vmstate_register(0, &iommu, &self);
    vmstate_register(0, &bus, &self);
    vmstate_register(1, &low, &self);
    vmstate_register(1, &bus, &self);
    expect_order("bus/0 bus/1 iommu/0 low/0 live/0 low/1 ");
    unregister_savevm("live", &self);
    vmstate_unregister(&low, &self);
    expect_order("bus/0 bus/1 iommu/0 ");
    vmstate_unregister(NULL, &self);
    expect_order("");
}

static void test_instances_are_numbered(void)
{
    int a, b, c;

    add_any(&low, &a, NULL);
    g_assert_true(add(&low, &b, NULL, 7, -1, NULL));
    add_any(&low, &c, NULL);
    expect_order("low/0 low/7 low/8 ");
    vmstate_unregister(&low, &c);
    add_any(&low, &c, NULL);
    expect_order("low/0 low/7 low/8 ");
    g_assert_true(savevm_find("low", 7)->opaque == &b);
    g_assert_null(savevm_find("low", 1));
    g_assert_null(savevm_find("lo", 0));
    vmstate_unregister(&low, &a);
    vmstate_unregister(&low, &b);
    vmstate_unregister(&low, &c);
}

/* A device on a bus is called by its path; older streams bring it under its bare name. */
static void test_a_path_and_the_older_name(void)
{
    int a, b;

    add_any(&low, &a, "0000:00:02.0");
    add_any(&low, &b, "0000:00:03.0");
    expect_order("0000:00:02.0/low/0 0000:00:03.0/low/0 ");
    g_assert_true(savevm_find("0000:00:03.0/low", 0)->opaque == &b);
    g_assert_true(savevm_find("low", 0)->opaque == &a);
    g_assert_true(savevm_find("low", 1)->opaque == &b);
    g_assert_null(savevm_find("low", 2));
    vmstate_unregister(&low, &a);
    vmstate_unregister(&low, &b);
}

static void test_another_number_stands_for_it(void)
{
    int self;

    g_assert_true(add(&low, &self, NULL, 3, 9, NULL));
    g_assert_true(savevm_find("low", 9) == savevm_find("low", 3));
    g_assert_nonnull(savevm_find("low", 9));
    g_assert_null(savevm_find("low", 4));
    vmstate_unregister(&low, &self);
}

static void test_names_that_are_refused(void)
{
    g_autofree char *path = g_strnfill(SAVEVM_IDSTR_MAX - strlen("/low") + 1, 'p');
    g_autoptr(GError) taken = NULL, too_long = NULL;
    int self;

    vmstate_register(0, &low, &self);
    g_assert_false(add(&low, &self, NULL, 0, -1, &taken));
    g_assert_nonnull(strstr(taken->message, "'low' with instance id 0 already"));
    g_assert_false(add(&low, &self, path, 0, -1, &too_long));
    g_assert_nonnull(strstr(too_long->message, "too long"));
    path[strlen(path) - 1] = '\0';
    g_assert_true(add(&low, &self, path, 0, -1, NULL));
    vmstate_unregister(NULL, &self);
    expect_order("");
}

static void test_what_cannot_travel_keeps_the_guest(void)
{
    g_autoptr(GError) blocked = NULL, refused = NULL;
    int self;

    g_assert_true(migrate_check_blockers(NULL));
    vmstate_register(0, &stuck, &self);
    g_assert_false(migrate_check_blockers(&blocked));
    g_assert_cmpstr(blocked->message, ==, "the state of the device 'stuck' cannot be migrated");
    vmstate_unregister(&stuck, &self);
    g_assert_true(migrate_check_blockers(NULL));

    migrate_set_only_migratable(true);
    g_assert_false(add(&stuck, &self, NULL, 0, -1, &refused));
    g_assert_nonnull(strstr(refused->message, "'stuck'"));
    migrate_set_only_migratable(false);
    expect_order("");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vmstate/register/order", test_priority_then_registration);
    g_test_add_func("/vmstate/register/instances", test_instances_are_numbered);
    g_test_add_func("/vmstate/register/path", test_a_path_and_the_older_name);
    g_test_add_func("/vmstate/register/alias", test_another_number_stands_for_it);
    g_test_add_func("/vmstate/register/refused", test_names_that_are_refused);
    g_test_add_func("/vmstate/register/unmigratable", test_what_cannot_travel_keeps_the_guest);
    return g_test_run();
}
