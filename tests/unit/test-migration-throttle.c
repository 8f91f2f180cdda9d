/* SPDX-License-Identifier: GPL-2.0-or-later */
/* auto-converge with an accelerator that slows vCPUs down: what it is told, and what query-migrate says. */
#include <glib.h>

#include "accel/cpus.h"
#include "migration/auto-converge.h"
#include "qapi/qapi-commands-migration.h"
#include "util/aio.h"
#include "util/timer.h"

static unsigned told; /* to the vCPUs */

static void kick(CPUState *cpu)
{
}

static void slow_down(CPUState *cpu, unsigned percent)
{
    told = percent;
}

static const AccelCPUOps can_throttle = {.kick = kick, .throttle = slow_down};
static const AccelCPUOps cannot = {.kick = kick};
static CPUState cpu;

static void coroutine_fn query_co(void *opaque)
{
    g_assert_true(qmp_query_migrate(opaque, NULL));
}

/* The member cpu-throttle-percentage; -1: it is not there. */
static int64_t shown(void)
{
    MigrationInfo *info = NULL;
    int64_t percent;

    aio_run_coroutine(query_co, &info);
    percent = info->has_cpu_throttle_percentage ? info->cpu_throttle_percentage : -1;
    qapi_free_MigrationInfo(info);
    return percent;
}

/* Seconds pass in which the guest writes a lot and nothing is sent. */
static void pass(AutoConverge *ac, MigrationState *s, unsigned seconds)
{
    for (unsigned i = 0; i < seconds; i++) {
        int64_t now = ac->period_start_ns + NANOSECONDS_PER_SECOND;

        auto_converge_pass(ac, s, now, 1 << 30);
    }
}

static MigrationState *begin(bool on, const AccelCPUOps *ops)
{
    MigrationCapabilityStatus cap = {.capability = MIGRATION_CAPABILITY_AUTO_CONVERGE, .state = on};
    MigrationCapabilityStatusList list = {.value = &cap};
    MigrationState *s = migrate_get_current();

    g_assert_true(migration_settings_change_caps(&list, false, NULL));
    s->settings = migration_settings_get();
    s->status = MIGRATION_STATUS_ACTIVE;
    s->start_ns = 1;
    told = 0;
    cpu_add(&cpu, ops);
    return s;
}

static void end(AutoConverge *ac, MigrationState *s)
{
    auto_converge_end(ac, s);
    g_assert_cmpuint(told, ==, 0);
    g_assert_cmpint(shown(), ==, -1);
    cpu_remove(&cpu);
    migration_settings_unref(g_steal_pointer(&s->settings));
    s->status = MIGRATION_STATUS_NONE;
}

static void test_percentage_is_told_and_shown(void)
{
    MigrationState *s = begin(true, &can_throttle);
    AutoConverge ac = {0};

    g_assert_cmpint(shown(), ==, -1);
    pass(&ac, s, 2);
    g_assert_cmpuint(told, ==, 20);
    g_assert_cmpint(shown(), ==, 20);
    pass(&ac, s, 2);
    g_assert_cmpuint(told, ==, 30);
    g_assert_cmpint(shown(), ==, 30);
    pass(&ac, s, 40);
    g_assert_cmpuint(told, ==, 99);
    g_assert_cmpint(shown(), ==, 99);
    end(&ac, s);
}

static void test_no_percentage_is_shown_when_no_vcpu_can_be_slowed_down(void)
{
    MigrationState *s = begin(true, &cannot);
    AutoConverge ac = {0};

    pass(&ac, s, 4);
    g_assert_cmpuint(ac.percent, >, 0);
    g_assert_cmpint(shown(), ==, -1);
    end(&ac, s);
}

static void test_a_vcpu_that_is_plugged_in_is_slowed_down_too(void)
{
    MigrationState *s = begin(true, &cannot);
    AutoConverge ac = {0};
    CPUState second = {0};

    pass(&ac, s, 2);
    g_assert_cmpuint(told, ==, 0);
    cpu_add(&second, &can_throttle);
    g_assert_cmpuint(told, ==, 20);
    pass(&ac, s, 2);
    g_assert_cmpuint(told, ==, 30);
    g_assert_cmpint(shown(), ==, 30);
    auto_converge_end(&ac, s);
    cpu_remove(&second);
    end(&ac, s);
}

static void test_without_the_capability_nothing_happens(void)
{
    MigrationState *s = begin(false, &can_throttle);
    AutoConverge ac = {0};

    pass(&ac, s, 4);
    g_assert_cmpuint(told, ==, 0);
    end(&ac, s);
}

static void test_parameters_of_a_running_migration(void)
{
    MigrationParameters params = {.has_cpu_throttle_initial = true,
                                  .cpu_throttle_initial = 40,
                                  .has_cpu_throttle_increment = true,
                                  .cpu_throttle_increment = 25,
                                  .has_max_cpu_throttle = true,
                                  .max_cpu_throttle = 70,
                                  .has_throttle_trigger_threshold = true,
                                  .throttle_trigger_threshold = 100};
    MigrationState *s = begin(true, &can_throttle);
    AutoConverge ac = {0};

    g_assert_true(migration_settings_change_params(&params, NULL));
    pass(&ac, s, 2);
    g_assert_cmpint(shown(), ==, 40);
    pass(&ac, s, 2);
    g_assert_cmpint(shown(), ==, 65);
    pass(&ac, s, 2);
    g_assert_cmpint(shown(), ==, 70);
    /* as much is sent as was written: within 100 % */
    s->counters.multifd_bytes = UINT64_C(1) << 40;
    pass(&ac, s, 4);
    g_assert_cmpint(shown(), ==, 70);
    end(&ac, s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    migration_init();
    g_test_add_func("/migration/throttle/shown", test_percentage_is_told_and_shown);
    g_test_add_func("/migration/throttle/none-acts",
                    test_no_percentage_is_shown_when_no_vcpu_can_be_slowed_down);
    g_test_add_func("/migration/throttle/plugged",
                    test_a_vcpu_that_is_plugged_in_is_slowed_down_too);
    g_test_add_func("/migration/throttle/off", test_without_the_capability_nothing_happens);
    g_test_add_func("/migration/throttle/live", test_parameters_of_a_running_migration);
    return g_test_run();
}
