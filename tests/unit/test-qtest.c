/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The virtual clock of qtest: it stands, and on its way fires each timer at its time. */
#include "accel/qtest/qtest.h"

#include "accel/vm-stop.h"
#include "util/aio.h"
#include "util/timer.h"

static GString *fired; /* "NAME@NOW " */

typedef struct Alarm {
    QEMUTimer *timer;
    const char *name;
    int64_t again_ns; /* it arms itself again after that; -1: it does not */
} Alarm;

static void alarm_cb(void *opaque)
{
    Alarm *alarm = opaque;
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);

    g_string_append_printf(fired, "%s@%d ", alarm->name, (int)now);
    if (alarm->again_ns >= 0) {
        timer_mod_ns(alarm->timer, now + alarm->again_ns);
    }
}

static void alarm_set(Alarm *alarm, const char *name, int64_t ns, int64_t again_ns)
{
    *alarm = (Alarm){.name = name, .again_ns = again_ns};
    alarm->timer = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_VIRTUAL, alarm_cb, alarm);
    timer_mod_ns(alarm->timer, ns);
}

static void expect(const char *line, const char *answer, const char *alarms)
{
    g_autofree char *copy = g_strdup(line);
    g_autoptr(GString) got = g_string_new(NULL);

    qtest_command(copy, strlen(copy), got);
    g_assert_cmpstr(got->str, ==, answer);
    g_assert_cmpstr(fired->str, ==, alarms);
    g_string_set_size(fired, 0);
}

static void test_timers_fire_in_order_at_their_times(void)
{
    Alarm late, early, repeated, far;

    g_assert_cmpint(qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL), ==, 0);
    alarm_set(&late, "late", 300, -1);
    alarm_set(&early, "early", 100, -1);
    alarm_set(&repeated, "repeated", 100, 90);
    alarm_set(&far, "far", 5000, -1);
    g_assert_cmpint(aio_timer_deadline_ns(qemu_get_aio_context(), QEMU_CLOCK_VIRTUAL), ==, 100);
    expect("clock_step 99", "OK 99\n", "");
    expect("clock_step", "OK 100\n", "early@100 repeated@100 ");
    expect("clock_step 250", "OK 350\n", "repeated@190 repeated@280 late@300 ");
    expect("clock_set 370", "OK 370\n", "repeated@370 ");
    expect("clock_set 369", "FAIL time does not go back\n", "");
    timer_del(repeated.timer);
    expect("clock_step", "OK 5000\n", "far@5000 ");
    expect("clock_step", "OK 5000\n", "");
    timer_free(late.timer);
    timer_free(early.timer);
    timer_free(repeated.timer);
    timer_free(far.timer);
}

/* A timer that is always due does not stop the clock. */
static void test_a_timer_that_never_rests_does_not_hang_the_step(void)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    Alarm restless;

    alarm_set(&restless, "x", now, 0);
    g_assert_true(qtest_clock_set_ns(now + 100));
    g_assert_cmpint(qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL), ==, now + 100);
    g_assert_cmpuint(fired->len, >, 0);
    g_string_set_size(fired, 0);
    timer_free(restless.timer);
}

/* Past times fire by themselves once the guest runs; a step fires them in any state. */
static void test_a_due_timer_waits_for_the_guest(void)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    Alarm due;

    alarm_set(&due, "due", now, -1);
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
    g_assert_cmpuint(fired->len, ==, 0);
    vm_start();
    while (fired->len == 0) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_string_set_size(fired, 0);
    timer_free(due.timer);
}

int main(int argc, char **argv)
{
    g_autoptr(GError) err = NULL;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(&err));
    qtest_clock_init();
    fired = g_string_new(NULL);
    g_test_add_func("/qtest/clock/order", test_timers_fire_in_order_at_their_times);
    g_test_add_func("/qtest/clock/restless", test_a_timer_that_never_rests_does_not_hang_the_step);
    g_test_add_func("/qtest/clock/waits-for-the-guest", test_a_due_timer_waits_for_the_guest);
    return g_test_run();
}
