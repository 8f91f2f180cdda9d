/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A hostile guest on the machine of the tests with the chips of a PC. It makes accesses of every
 * size to every port, to memory where BARs may lie, and to configuration space. Between them the
 * clock is stepped and the machine reset. Each step is eight bytes: what, size, place (16 bits),
 * value (32 bits).
 */
#include <glib.h>
#include <stdint.h>
#include <string.h>
#include "accel/qtest/qtest.h"
#include "hw/core/bus.h"
#include "hw/core/device-add.h"
#include "hw/core/reset.h"
#include "hw/timer/rtc-base.h"
#include "memory/address-space.h"
#include "qapi/json.h"
#include "system/machine.h"
#include "tests/devices/test-machine.h"
#include "tests/devices/test-pc.h"
#include "util/aio.h"

#define STEP_BYTES  8
#define STEPS_MAX   1000
#define MEMORY_BASE 0xfe000000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void coroutine_fn make_machine_co(void *opaque)
{
    static const char *const devices[] = {
        "{'driver': 'test-counter', 'id': 'counter'}",
        "{'driver': 'isa-debug-exit', 'iosize': 4}",
        "{'driver': 'isa-serial', 'id': 'serial'}",
        "{'driver': 'pci-testdev', 'id': 'pci', 'addr': '4', 'membar': 8192}",
    };

    g_assert_true(test_pc_co_init(NULL, NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(devices); i++) {
        json_object *args = NULL;

        g_assert_true(json_parse_text(devices[i], strlen(devices[i]), &args, NULL));
        g_assert_true(device_co_add(args, PROPERTY_FROM_TEXT, false, NULL));
        json_object_put(args);
    }
}

static void run_loop(void)
{
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
}

/* Ends the requests that the guest asked for: a reset waits for each of them. */
static void answer_requests(void)
{
    DeviceState *counter = device_find("counter");

    while (device_requests(counter)) {
        test_counter_answer((CounterState *)counter);
        run_loop();
    }
    run_loop();
}

static void access_space(AddressSpace *as, hwaddr addr, unsigned bytes, uint32_t value,
                         bool is_write)
{
    uint64_t buf = value | (uint64_t)value << 32;

    address_space_rw(as, addr, MEMTXATTRS_UNSPECIFIED, &buf, bytes, is_write);
}

static void step(const uint8_t *at)
{
    unsigned bytes = 1u << (at[1] & 3);
    uint16_t place = (uint16_t)(at[2] | at[3] << 8);
    uint32_t value =
        (uint32_t)at[4] | (uint32_t)at[5] << 8 | (uint32_t)at[6] << 16 | (uint32_t)at[7] << 24;

    switch (at[0] % 6) {
    case 0:
        access_space(get_address_space_io(), place, bytes, value, at[1] & 0x80);
        break;
    case 1:
        access_space(get_address_space_memory(), MEMORY_BASE + place, bytes, value, at[1] & 0x80);
        break;
    case 2: /* configuration space of the PCI device */
        access_space(get_address_space_io(), 0xcf8, 4,
                     0x80000000u | PCI_DEVFN(4, 0) << 8 | (place & 0xfc), true);
        access_space(get_address_space_io(), 0xcfc + (place & 3), bytes, value, at[1] & 0x80);
        break;
    case 3:
        (void)qtest_clock_set_ns(qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + value % 10000);
        break;
    case 4:
        device_reset(device_find(at[1] & 1 ? "pci" : "counter"));
        break;
    default:
        run_loop();
    }
}

static void reset(DeviceState *dev, void *opaque)
{
    device_reset(dev);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool made;
    RTCBase base;

    if (!made) {
        made = true;
        g_assert_true(qemu_init_main_loop(NULL));
        qtest_clock_init();
        machine_register_types();
        test_machine_register();
        test_pc_register();
        base = rtc_base_date(QEMU_CLOCK_VIRTUAL, 0);
        rtc_base_set(&base);
        aio_run_coroutine(make_machine_co, NULL);
        devices_run_state_changed(true);
    }
    for (size_t i = 0; i < STEPS_MAX && (i + 1) * STEP_BYTES <= size; i++) {
        step(data + i * STEP_BYTES);
    }
    /* What was begun ends; each input finds the devices as after a reset. */
    (void)qtest_clock_set_ns(qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + 10000);
    answer_requests();
    device_reset(device_find("pci"));
    bus_foreach_device(bus_find("isa.0"), reset, NULL);
    g_assert_false(device_is_resetting(device_find("counter")));
    return 0;
}
