/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reset, and requests in flight.
 *
 * One 64-bit word counts both, so that a request that begins in an I/O thread and a reset in the main thread
 * cannot miss each other:
 *
 *   bit 63       RESETTING   no request begins
 *   bit 62       WATCHED     a coroutine waits for the count to be 0
 *   bits 61..32  generation
 *   bits 31..0   requests begun and not ended, of all generations
 *
 * While one of the two flags is set, the last request ends in the main context: its thread leaves
 * the count at 1, and a bottom half takes that away. So no other thread uses a device whose count
 * is 0, and it may be freed.
 */
#include "hw/core/reset.h"

#include "hw/core/bus.h"
#include "hw/core/device-int.h"
#include "util/aio.h"
#include "util/bql.h"
#include "util/co-lock.h"
#include "util/error.h"
#include "util/timer.h"

#define RESETTING       (UINT64_C(1) << 63)
#define WATCHED         (UINT64_C(1) << 62)
#define GENERATION_MASK ((UINT64_C(1) << 30) - 1)

/* Those that wait until a device, or all, have settled; woken at each settling, they look again. */
static QemuCoSleepers waiters;

static uint64_t load(const DeviceState *dev)
{
    return __atomic_load_n(&dev->activity, __ATOMIC_SEQ_CST);
}

static uint32_t generation_of(uint64_t activity)
{
    return (uint32_t)(activity >> 32 & GENERATION_MASK);
}

static unsigned requests_of(uint64_t activity)
{
    return (unsigned)(activity & UINT32_MAX);
}

bool device_is_resetting(const DeviceState *dev)
{
    return load(dev) & RESETTING;
}

unsigned device_requests(const DeviceState *dev)
{
    return requests_of(load(dev));
}

/* --- the two phases --- */

static void enter(DeviceState *dev)
{
    const DeviceClass *line[DEVICE_CLASS_DEPTH_MAX];
    unsigned n = device_class_line(dev->class, line);
    uint64_t old = load(dev), new;

    do {
        uint32_t generation = (generation_of(old) + 1) & GENERATION_MASK;

        new = RESETTING | (old & WATCHED) | (uint64_t)generation << 32 | requests_of(old);
    } while (!__atomic_compare_exchange_n(&dev->activity, &old, new, false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_SEQ_CST));
    dev->reset_entered = true;
    for (unsigned i = 0; i < n; i++) {
        if (line[i]->reset_enter) {
            line[i]->reset_enter(dev);
        }
    }
}

/* Runs reset_exit where nothing keeps the device in its reset any more. */
static void try_exit(DeviceState *dev)
{
    const DeviceClass *line[DEVICE_CLASS_DEPTH_MAX];
    unsigned n = device_class_line(dev->class, line);

    if (!dev->reset_entered || dev->reset_holds || device_requests(dev)) {
        return;
    }
    dev->reset_entered = false;
    __atomic_fetch_and(&dev->activity, ~RESETTING, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < n; i++) {
        if (line[i]->reset_exit) {
            line[i]->reset_exit(dev);
        }
    }
}

void device_reset(DeviceState *dev)
{
    g_assert(bql_locked());
    enter(dev);
    try_exit(dev);
}

void device_reset_hold(DeviceState *dev)
{
    dev->reset_holds++;
    enter(dev);
}

void device_reset_release(DeviceState *dev)
{
    g_assert(dev->reset_holds);
    dev->reset_holds--;
    try_exit(dev);
}

/* --- requests --- */

bool device_request_begin(DeviceState *dev, uint32_t *generation)
{
    uint64_t old = load(dev);

    do {
        if (old & RESETTING) {
            return false;
        }
    } while (!__atomic_compare_exchange_n(&dev->activity, &old, old + 1, false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_SEQ_CST));
    *generation = generation_of(old);
    return true;
}

/* The main context ends the last request, whose thread left that to it. */
static void end_last(void *opaque)
{
    DeviceState *dev = opaque;
    uint64_t old = __atomic_fetch_sub(&dev->activity, 1, __ATOMIC_SEQ_CST);

    if (requests_of(old) == 1) {
        __atomic_fetch_and(&dev->activity, ~WATCHED, __ATOMIC_SEQ_CST);
        try_exit(dev);
        qemu_co_sleepers_wake(&waiters);
    }
}

bool device_request_end(DeviceState *dev, uint32_t generation)
{
    uint64_t old = load(dev);
    bool last;

    do {
        g_assert(requests_of(old));
        last = requests_of(old) == 1 && (old & (RESETTING | WATCHED));
    } while (!last && !__atomic_compare_exchange_n(&dev->activity, &old, old - 1, false,
                                                   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    if (last) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), end_last, dev);
    }
    return generation_of(old) == generation;
}

/* --- waiting --- */

/* False: it was not quiet by end_ns, QEMU_CLOCK_REALTIME. */
static bool coroutine_fn co_settle_by(DeviceState *dev, int64_t end_ns)
{
    g_assert(bql_locked());
    for (;;) {
        int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

        /* The flag goes up first: a request that ends after the look wakes this coroutine. */
        if (!requests_of(__atomic_or_fetch(&dev->activity, WATCHED, __ATOMIC_SEQ_CST))) {
            __atomic_fetch_and(&dev->activity, ~WATCHED, __ATOMIC_SEQ_CST);
            return true;
        }
        if (now >= end_ns) {
            return false; /* the flag stays: it costs the last request a turn of the main loop */
        }
        qemu_co_sleepers_wait(&waiters, QEMU_CLOCK_REALTIME, end_ns - now);
    }
}

void coroutine_fn device_co_settle(DeviceState *dev)
{
    (void)co_settle_by(dev, INT64_MAX);
}

/* --- all devices --- */

static void add_device(DeviceState *dev, void *opaque)
{
    if (device_is_realized(dev)) {
        g_ptr_array_add(opaque, device_ref(dev));
    }
}

/* A list of references: devices may come and go while something yields. */
static GPtrArray *all_devices(void)
{
    GPtrArray *all = g_ptr_array_new_with_free_func((GDestroyNotify)device_unref);

    bus_foreach_device(sysbus_get_default(), add_device, all);
    return all;
}

bool coroutine_fn devices_co_settle(int64_t limit_ns, GError **errp)
{
    int64_t end_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + limit_ns;
    g_autoptr(GPtrArray) all = all_devices();

    for (guint i = 0; i < all->len; i++) {
        DeviceState *dev = g_ptr_array_index(all, i);

        if (!co_settle_by(dev, limit_ns ? end_ns : INT64_MAX)) {
            error_setg(errp, "device '%s' waits for %u requests that do not end", device_label(dev),
                       device_requests(dev));
            return false;
        }
    }
    return true;
}

/* Held by a reset of the machine. */
static CoMutex *reset_lock(void)
{
    static CoMutex lock;
    static bool made;

    g_assert(bql_locked());
    if (!made) {
        qemu_co_mutex_init(&lock);
        made = true;
    }
    return &lock;
}

static void coroutine_fn co_reset_all(void)
{
    g_autoptr(GPtrArray) all = all_devices();

    for (guint i = 0; i < all->len; i++) {
        device_reset_hold(g_ptr_array_index(all, i));
    }
    for (guint i = 0; i < all->len; i++) {
        device_co_settle(g_ptr_array_index(all, i));
    }
    for (guint i = 0; i < all->len; i++) {
        device_reset_release(g_ptr_array_index(all, i));
    }
}

void coroutine_fn devices_co_reset(void)
{
    qemu_co_mutex_lock(reset_lock());
    co_reset_all();
    qemu_co_mutex_unlock(reset_lock());
}

void devices_run_state_changed(bool running)
{
    g_autoptr(GPtrArray) all = all_devices();

    for (guint i = 0; i < all->len; i++) {
        DeviceState *dev = g_ptr_array_index(all, i);
        const DeviceClass *line[DEVICE_CLASS_DEPTH_MAX];
        unsigned n = device_class_line(dev->class, line);

        for (unsigned k = 0; k < n; k++) {
            if (line[k]->run_state_changed) {
                line[k]->run_state_changed(dev, running);
            }
        }
    }
}
