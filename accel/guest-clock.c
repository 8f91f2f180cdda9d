/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's clock: an offset while it stands, an offset to the host's clock while it goes. */
#include "accel/guest-clock.h"

#include <errno.h>
#include <stdint.h>
#include "accel/qtest/qtest.h"
#include "accel/runstate.h"
#include "util/error.h"
#include "util/timer.h"
#include "vmstate/register.h"
#include "vmstate/vmstate-fields.h"

typedef struct GuestClock {
    bool stepped;
    /* Written by the main thread between two steps of `seq`, which is odd meanwhile; all atomic. */
    unsigned seq;
    bool running;
    int64_t ns; /* while it stands the time; while it goes what to add to the host's */
    /* What travels. */
    int64_t cpu_ticks_offset; /* of the time stamp counter: no vCPU here has one, it is passed on */
    int64_t cpu_clock_offset; /* the time at which the guest stands, ns */
} GuestClock;

static GuestClock guest_clock;

static int64_t host_ns(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

static bool clock_running(void)
{
    return __atomic_load_n(&guest_clock.running, __ATOMIC_SEQ_CST);
}

static int64_t clock_get_ns(void)
{
    for (;;) {
        unsigned seq = __atomic_load_n(&guest_clock.seq, __ATOMIC_SEQ_CST);
        bool running = clock_running();
        int64_t ns = __atomic_load_n(&guest_clock.ns, __ATOMIC_SEQ_CST);

        if (seq % 2 == 0 && seq == __atomic_load_n(&guest_clock.seq, __ATOMIC_SEQ_CST)) {
            return running ? ns + host_ns() : ns;
        }
    }
}

static void set_clock(bool running, int64_t ns)
{
    __atomic_fetch_add(&guest_clock.seq, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&guest_clock.running, running, __ATOMIC_SEQ_CST);
    __atomic_store_n(&guest_clock.ns, ns, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&guest_clock.seq, 1, __ATOMIC_SEQ_CST);
}

static void run_state_changed(void *opaque, bool running, RunState state)
{
    int64_t now = clock_get_ns();

    if (running != clock_running()) {
        set_clock(running, running ? now - host_ns() : now);
        qemu_clock_notify_all();
    }
}

static int pre_save(void *opaque, GError **errp)
{
    guest_clock.cpu_clock_offset = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    return 0;
}

static int post_load(void *opaque, int version_id, GError **errp)
{
    if (guest_clock.cpu_clock_offset < 0) {
        error_setg(errp, "the guest's clock is before its start");
        return -EINVAL;
    }
    if (!guest_clock.stepped) {
        set_clock(false, guest_clock.cpu_clock_offset);
    } else if (guest_clock.cpu_clock_offset > qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL)) {
        (void)qtest_clock_set_ns(guest_clock.cpu_clock_offset);
    }
    return 0;
}

static const VMStateDescription vmstate_timer = {
    .name = "timer",
    .version_id = 2,
    .minimum_version_id = 1,
    .pre_save = pre_save,
    .post_load = post_load,
    .fields =
        (const VMStateField[]){
            VMSTATE_INT64(cpu_ticks_offset, GuestClock),
            VMSTATE_UNUSED(8),
            VMSTATE_INT64(cpu_clock_offset, GuestClock, VMS_SINCE(2)),
            VMSTATE_END_OF_LIST(),
        },
};

void guest_clock_init(bool stepped)
{
    static const QEMUVirtualClock clock = {
        .get_ns = clock_get_ns,
        .running = clock_running,
        .fires = clock_running,
    };

    guest_clock.stepped = stepped;
    if (!stepped) {
        qemu_clock_set_virtual(&clock);
        qemu_add_vm_change_state_handler_prio(run_state_changed, NULL,
                                              VM_CHANGE_STATE_PRIORITY_CLOCK);
    }
    vmstate_register(0, &vmstate_timer, &guest_clock);
}
