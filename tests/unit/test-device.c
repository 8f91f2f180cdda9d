/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices on the machine of the tests: their life, properties, reset, state, and the PCI bus. */
#include <string.h>
#include "accel/qtest/qtest.h"
#include "hw/core/bus.h"
#include "hw/core/device-add.h"
#include "hw/core/globals.h"
#include "hw/core/reset.h"
#include "memory/address-space.h"
#include "qapi/event.h"
#include "qapi/json.h"
#include "system/machine.h"
#include "tests/devices/test-machine.h"
#include "util/aio.h"
#include "util/error.h"
#include "vmstate/register.h"

#define PORT 0x300

/* --- helpers --- */

static void turn(void)
{
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
}

typedef struct Add {
    const char *json;
    PropertySource source;
    bool hotplug;
    GError *err;
} Add;

static void coroutine_fn add_co(void *opaque)
{
    Add *add = opaque;
    json_object *args = NULL;

    g_assert_true(json_parse_text(add->json, strlen(add->json), &args, NULL));
    (void)device_co_add(args, add->source, add->hotplug, &add->err);
    json_object_put(args);
}

/* The error, which the caller frees; NULL: it was made. */
static GError *add_from(const char *json, PropertySource source, bool hotplug)
{
    Add add = {.json = json, .source = source, .hotplug = hotplug};

    aio_run_coroutine(add_co, &add);
    return add.err;
}

static void refused(const char *json, const char *message)
{
    g_autoptr(GError) err = add_from(json, PROPERTY_FROM_TEXT, false);

    g_assert_cmpstr(err ? err->message : "made", ==, message);
}

static void *make(const char *json)
{
    g_autoptr(GError) err = add_from(json, PROPERTY_FROM_TEXT, false);

    g_assert_no_error(err);
    return device_find("d");
}

static void coroutine_fn destroy_co(void *opaque)
{
    device_co_destroy(opaque);
}

static void destroy(void *dev)
{
    aio_run_coroutine(destroy_co, dev);
}

static uint32_t in(uint16_t port, unsigned bytes)
{
    uint32_t value = 0;

    address_space_read(get_address_space_io(), port, MEMTXATTRS_UNSPECIFIED, &value, bytes);
    return value;
}

static void out(uint16_t port, uint32_t value, unsigned bytes)
{
    address_space_write(get_address_space_io(), port, MEMTXATTRS_UNSPECIFIED, &value, bytes);
}

static bool line_is_high(unsigned n)
{
    QomObject *intc = qom_object_child(qom_container("machine"), "intc");

    return irq_level(qdev_get_gpio_in_named(qom_object_opaque(intc), NULL, n));
}

static void step(int64_t ns)
{
    g_assert_true(qtest_clock_set_ns(qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + ns));
}

/* --- life --- */

static void test_a_device_works_by_its_ports_line_and_clock(void)
{
    CounterState *s = make("{'driver': 'test-counter', 'id': 'd', 'irq': 3}");

    out(PORT, 3, 1);
    step(2500);
    g_assert_cmpuint(in(PORT + 4, 4), ==, 2);
    g_assert_cmphex(in(PORT + 1, 1), ==, 1);
    g_assert_true(line_is_high(3));
    out(PORT + 1, 1, 1);
    g_assert_false(line_is_high(3));
    g_assert_cmphex(in(PORT + 2, 2), ==, 0xffff);
    step(1000);
    g_assert_true(line_is_high(3));
    destroy(s);
    g_assert_false(line_is_high(3));
    g_assert_cmphex(in(PORT + 4, 4), ==, UINT32_MAX);
    g_assert_null(device_find("d"));
}

static void test_realizing_that_fails_leaves_nothing(void)
{
    for (int i = 0; i < 3; i++) {
        refused("{'driver': 'test-counter', 'id': 'd', 'fail': 'on'}",
                "the counter was told to fail");
        g_assert_null(device_find("d"));
        g_assert_null(savevm_find("test-counter", 0));
        g_assert_false(memory_region_present(get_system_io(), PORT));
    }
    refused("{'driver': 'test-counter', 'irq': 16}",
            "Invalid ISA IRQ 16, which must be in range 0..15");
    refused("{'driver': 'test-counter', 'iobase': '0xfff8'}",
            "test-counter: I/O ports 0xfff8..0x10007 are not within 0..0xffff");
    destroy(make("{'driver': 'test-counter', 'id': 'd'}"));
}

static void test_a_reference_keeps_a_device_that_has_gone(void)
{
    DeviceState *dev = make("{'driver': 'test-counter', 'id': 'd', 'label': 'kept'}");

    device_ref(dev);
    destroy(dev);
    g_assert_cmpint(dev->phase, ==, DEVICE_GONE);
    g_assert_false(qom_object_placed(dev->object));
    g_assert_cmpstr(device_label(dev), ==, "d");
    device_unref(dev);
}

static void coroutine_fn mark_when_destroyed_co(void *opaque)
{
    DeviceState **dev = opaque;

    device_co_destroy(*dev);
    *dev = NULL;
}

static void test_ending_waits_for_requests(void)
{
    CounterState *s = make("{'driver': 'test-counter', 'id': 'd'}");
    DeviceState *waits = &s->parent.qdev, *also = waits;

    out(PORT + 9, 1, 1);
    qemu_coroutine_enter(qemu_coroutine_create(mark_when_destroyed_co, &waits));
    qemu_coroutine_enter(qemu_coroutine_create(mark_when_destroyed_co, &also));
    turn();
    g_assert_nonnull(waits);
    /* The guest does not find it any more. */
    out(PORT + 9, 1, 1);
    g_assert_cmpuint(device_requests(waits), ==, 1);
    test_counter_answer(s);
    turn();
    g_assert_null(waits);
    g_assert_null(also);
    g_assert_null(device_find("d"));
}

/* --- properties --- */

static void test_values_are_checked_where_they_enter(void)
{
    refused("{'id': 'd'}", "Parameter 'driver' is missing");
    refused("{'driver': 'nosuch'}", "'nosuch' is not a valid device model name");
    refused("{'driver': 'isa-device'}", "Parameter 'driver' expects a non-abstract device type");
    refused("{'driver': 'test-intc'}", "Parameter 'driver' expects a pluggable device type");
    refused("{'driver': 'test-counter', 'id': '1d'}", "Parameter 'id' expects an identifier");
    refused("{'driver': 'test-counter', 'bus': 'nosuch'}", "Bus 'nosuch' not found");
    refused("{'driver': 'test-counter', 'bus': 'pci.0'}",
            "Device 'test-counter' can't go on PCI bus");
    refused("{'driver': 'test-counter', 'foo': 1}", "Property 'test-counter.foo' not found");
    refused("{'driver': 'test-counter', 'hotplugged': 'on'}",
            "Property 'test-counter.hotplugged' is not writable");
    refused("{'driver': 'test-counter', 'irq': '256'}", "Parameter 'irq' expects uint8_t");
    refused("{'driver': 'test-counter', 'irq': '-1'}", "Parameter 'irq' expects uint8_t");
    refused("{'driver': 'test-counter', 'irq': '1x'}", "Parameter 'irq' expects integer");
    refused("{'driver': 'test-counter', 'irq': true}", "Parameter 'irq' expects uint64");
    refused("{'driver': 'test-counter', 'period': 9}",
            "Property 'period' doesn't take value 9 (minimum: 10, maximum: "
            "18446744073709551615)");
    refused("{'driver': 'test-counter', 'space': '1x'}", "Parameter 'space' expects size");
    refused("{'driver': 'test-counter', 'fail': 'maybe'}",
            "Parameter 'fail' expects 'on' or 'off'");
    refused("{'driver': 'test-counter', 'mode': 'maybe'}",
            "Parameter 'mode' does not accept value 'maybe'");
    refused("{'driver': 'test-counter', 'mac': '52:54:00:12:34'}",
            "Property 'test-counter.mac' doesn't take value '52:54:00:12:34'");
    refused("{'driver': 'test-counter', 'iothread': 'nosuch'}", "Device 'nosuch' not found");
    refused("{'driver': 'test-counter', 'chardev': 'nosuch'}",
            "Property 'test-counter.chardev' can't find value 'nosuch'");
    refused("{'driver': 'test-counter', 'drive': 'nosuch'}",
            "Property 'test-counter.drive' can't find value 'nosuch'");
    refused("{'driver': 'isa-debugcon'}", "Can't create debugcon device, empty char device");
    refused("{'driver': 'pci-testdev', 'membar': 5000}",
            "Parameter 'membar' expects a power of two");
}

static void test_json_has_the_types_of_json(void)
{
    g_autoptr(GError) err =
        add_from("{'driver': 'test-counter', 'irq': '3'}", PROPERTY_FROM_JSON, false);
    g_autoptr(GError) none = NULL;

    g_assert_cmpstr(err->message, ==, "Parameter 'irq' expects uint64");
    none = add_from("{'driver': 'test-counter', 'id': 'd', 'irq': 3, 'fail': false, 'mode': 'on'}",
                    PROPERTY_FROM_JSON, false);
    g_assert_no_error(none);
    g_assert_cmpint(((CounterState *)device_find("d"))->mode, ==, ON_OFF_AUTO_ON);
    destroy(device_find("d"));
}

static void test_properties_read_back_what_was_said(void)
{
    static const char *const expected[][2] = {
        {"iobase", "768"},    {"label", "\"x\""},   {"mode", "\"auto\""},
        {"space", "65536"},   {"feature", "false"}, {"mac", "\"52:54:00:12:34:56\""},
        {"realized", "true"}, {"chardev", "\"\""},  {"parent_bus", "\"/machine/bridge/isa.0\""},
    };
    DeviceState *dev = make("{'driver': 'test-counter', 'id': 'd', 'label': 'x', 'space': '64k', "
                            "'feature': 'off', 'mac': '52:54:00:12:34:56'}");
    g_autoptr(GError) err = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(expected); i++) {
        json_object *value = NULL;

        g_assert_true(qom_object_get(dev->object, expected[i][0], &value, NULL));
        g_assert_cmpstr(json_object_to_json_string_ext(value, JSON_C_TO_STRING_NOSLASHESCAPE), ==,
                        expected[i][1]);
        json_object_put(value);
    }
    g_assert_false(qom_object_set(dev->object, "irq", NULL, &err));
    g_assert_cmpstr(err->message, ==,
                    "Attempt to set property 'irq' on device 'd' (type 'test-counter') after it "
                    "was realized");
    destroy(dev);
}

static void test_rows_then_global_then_the_user(void)
{
    CounterState *s;

    machine_apply_rows(machine_class_find("ferry-test-1.0"));
    s = make("{'driver': 'test-counter', 'id': 'd'}");
    g_assert_cmpuint(s->period, ==, 250);
    destroy(s);
    globals_clear();
    globals_add_user("isa-device", "period", "77");
    machine_apply_rows(machine_class_find("ferry-test-1.5"));
    s = make("{'driver': 'test-counter', 'id': 'd'}");
    g_assert_cmpuint(s->period, ==, 77);
    destroy(s);
    s = make("{'driver': 'test-counter', 'id': 'd', 'period': 88}");
    g_assert_cmpuint(s->period, ==, 88);
    destroy(s);
    refused("{'driver': 'isa-debug-exit'}",
            "can't apply global isa-device.period=77: Property 'isa-debug-exit.period' not found");
    globals_clear();
    machine_apply_rows(machine_class_find("ferry-test"));
    s = make("{'driver': 'test-counter', 'id': 'd'}");
    g_assert_cmpuint(s->period, ==, 1000);
    destroy(s);
}

/* --- reset --- */

static void test_a_result_from_before_a_reset_is_dropped(void)
{
    CounterState *s = make("{'driver': 'test-counter', 'id': 'd'}");
    DeviceState *dev = &s->parent.qdev;

    out(PORT + 9, 1, 1);
    out(PORT + 10, 1, 1);
    g_assert_cmpuint(in(PORT + 12, 4), ==, 1);
    out(PORT + 9, 1, 1);
    device_reset(dev);
    g_assert_cmphex(in(PORT + 1, 1), ==, 0x80);
    g_assert_cmpuint(in(PORT + 12, 4), ==, 0);
    out(PORT + 9, 1, 1); /* lost: it is being reset */
    g_assert_cmpuint(device_requests(dev), ==, 1);
    device_reset(dev);
    out(PORT + 10, 1, 1);
    turn();
    g_assert_cmphex(in(PORT + 1, 1), ==, 0);
    g_assert_cmpuint(in(PORT + 12, 4), ==, 0);
    out(PORT + 9, 1, 1);
    out(PORT + 10, 1, 1);
    g_assert_cmpuint(in(PORT + 12, 4), ==, 1);
    destroy(s);
}

static void coroutine_fn reset_co(void *opaque)
{
    devices_co_reset();
    *(bool *)opaque = true;
}

static void coroutine_fn settle_co(void *opaque)
{
    *(bool *)opaque = devices_co_settle(0, NULL);
}

static void coroutine_fn settle_soon_co(void *opaque)
{
    bool settled = devices_co_settle(1, opaque);

    g_assert_false(settled);
}

static void test_settling_gives_up_when_its_time_is_over(void)
{
    CounterState *s = make("{'driver': 'test-counter', 'id': 'd'}");
    g_autoptr(GError) err = NULL;
    bool settled = false;

    out(PORT + 9, 1, 1);
    out(PORT + 9, 1, 1);
    aio_run_coroutine(settle_soon_co, &err);
    g_assert_cmpstr(err->message, ==, "device 'd' waits for 2 requests that do not end");
    out(PORT + 10, 1, 1);
    out(PORT + 10, 1, 1);
    aio_run_coroutine(settle_co, &settled);
    g_assert_true(settled);
    g_assert_cmpuint(in(PORT + 12, 4), ==, 2);
    destroy(s);
}

/* What ends at a time of the guest is state: no stop waits for it, and a reset ends it. */
static void test_a_command_in_guest_time_is_no_request(void)
{
    CounterState *s = make("{'driver': 'test-counter', 'id': 'd'}");
    bool settled = false;

    out(PORT + 8, 1, 1);
    aio_run_coroutine(settle_co, &settled);
    g_assert_true(settled);
    step(100);
    g_assert_cmpuint(in(PORT + 12, 4), ==, 1);
    out(PORT + 8, 1, 1);
    device_reset(&s->parent.qdev);
    step(100);
    g_assert_cmpuint(in(PORT + 12, 4), ==, 0);
    destroy(s);
}

static void test_resetting_the_machine_waits_and_everything_else_goes_on(void)
{
    CounterState *s = make("{'driver': 'test-counter', 'id': 'd'}");
    bool settled = false, done = false;

    out(PORT, 3, 1);
    step(1000);
    out(PORT + 9, 1, 1);
    qemu_coroutine_enter(qemu_coroutine_create(settle_co, &settled));
    qemu_coroutine_enter(qemu_coroutine_create(reset_co, &done));
    turn();
    g_assert_false(settled);
    g_assert_false(done);
    /* Its registers are those of a reset; the line falls when the reset is over. */
    g_assert_cmphex(in(PORT, 1), ==, 0);
    g_assert_true(line_is_high(5));
    out(PORT + 10, 1, 1);
    turn();
    g_assert_true(settled);
    g_assert_true(done);
    g_assert_false(line_is_high(5));
    g_assert_false(device_is_resetting(&s->parent.qdev));
    destroy(s);
}

static gpointer end_requests(gpointer data)
{
    unsigned passed = 0;

    for (int i = 0; i < 20000; i++) {
        uint32_t generation;

        if (device_request_begin(data, &generation)) {
            passed += device_request_end(data, generation);
        }
    }
    return GUINT_TO_POINTER(passed);
}

static void test_requests_of_another_thread_and_resets_meet(void)
{
    CounterState *s = make("{'driver': 'test-counter', 'id': 'd'}");
    GThread *thread = g_thread_new("requests", end_requests, s);

    for (int i = 0; i < 2000; i++) {
        device_reset(&s->parent.qdev);
        turn();
    }
    g_thread_join(thread);
    turn();
    g_assert_false(device_is_resetting(&s->parent.qdev));
    g_assert_cmpuint(device_requests(&s->parent.qdev), ==, 0);
    destroy(s);
}

/* --- its section --- */

static GBytes *save(SaveStateEntry *se)
{
    g_autoptr(QEMUFile) f = qemu_file_new_memory_output(G_MAXINT);
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(
        vmstate_save_device(f, se->idstr, se->instance_id, se->vmsd, se->opaque, NULL, &err), ==,
        0);
    return qemu_file_memory_steal(f);
}

static int load(SaveStateEntry *se, GBytes *bytes, GError **errp)
{
    g_autoptr(QEMUFile) f = qemu_file_new_memory_input(bytes);

    return vmstate_load_device(f, se->idstr, se->instance_id, se->vmsd, se->opaque, se->version_id,
                               errp);
}

static void test_state_travels(void)
{
    CounterState *s = make("{'driver': 'test-counter', 'id': 'd'}");
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GBytes) bad = NULL;
    g_autoptr(GError) err = NULL;
    g_autofree uint8_t *copy = NULL;

    out(PORT, 3, 1);
    step(1500);
    bytes = save(savevm_find("test-counter", 0));
    destroy(s);
    g_assert_null(savevm_find("test-counter", 0));

    s = make("{'driver': 'test-counter', 'id': 'd'}");
    g_assert_cmpint(load(savevm_find("test-counter", 0), bytes, NULL), ==, 0);
    g_assert_cmpuint(in(PORT + 4, 4), ==, 1);
    g_assert_true(line_is_high(5));
    step(500);
    g_assert_cmpuint(in(PORT + 4, 4), ==, 2);

    copy = g_memdup2(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
    copy[0] = 0x83;
    bad = g_bytes_new(copy, g_bytes_get_size(bytes));
    g_assert_cmpint(load(savevm_find("test-counter", 0), bad, &err), <, 0);
    g_assert_nonnull(strstr(err->message, "reserved bits are set"));
    destroy(s);
}

/* --- PCI --- */

static uint32_t config(unsigned devfn, unsigned at, unsigned bytes)
{
    out(0xcf8, 0x80000000u | devfn << 8 | (at & ~3u), 4);
    return in((uint16_t)(0xcfc + (at & 3)), bytes);
}

static void set_config(unsigned devfn, unsigned at, uint32_t value, unsigned bytes)
{
    out(0xcf8, 0x80000000u | devfn << 8 | (at & ~3u), 4);
    out((uint16_t)(0xcfc + (at & 3)), value, bytes);
}

static void test_configuration_space_is_what_the_masks_say(void)
{
    static const uint32_t after_ones[][2] = {
        {0x00, 0x00051b36}, {0x04, 0x00000507}, {0x08, 0x00ff0000}, {0x0c, 0x000000ff},
        {0x10, 0xfffff000}, {0x14, 0xffffff01}, {0x18, 0xffffe00c}, {0x1c, 0xffffffff},
        {0x20, 0x00000000}, {0x2c, 0x11001af4}, {0x30, 0x00000000}, {0x3c, 0x000000ff},
    };
    void *dev = make("{'driver': 'pci-testdev', 'id': 'd', 'addr': '4', 'membar': '8k'}");

    for (size_t i = 0; i < G_N_ELEMENTS(after_ones); i++) {
        set_config(PCI_DEVFN(4, 0), after_ones[i][0], UINT32_MAX, 4);
        g_assert_cmphex(config(PCI_DEVFN(4, 0), after_ones[i][0], 4), ==, after_ones[i][1]);
    }
    g_assert_cmphex(config(PCI_DEVFN(5, 0), 0, 4), ==, UINT32_MAX);
    g_assert_cmphex(config(PCI_DEVFN(4, 0), 2, 2), ==, 0x0005);
    device_reset(dev);
    g_assert_cmphex(config(PCI_DEVFN(4, 0), 4, 4), ==, 0);
    g_assert_cmphex(config(PCI_DEVFN(4, 0), 0x18, 4), ==, 0xc);
    destroy(dev);
}

static void test_bars_follow_what_the_guest_writes(void)
{
    void *dev = make("{'driver': 'pci-testdev', 'id': 'd', 'addr': '4'}");
    char name[16];

    set_config(PCI_DEVFN(4, 0), 0x14, 0xc000, 4);
    g_assert_cmphex(in(0xc000, 1), ==, 0xff);
    set_config(PCI_DEVFN(4, 0), 0x04, PCI_COMMAND_IO, 2);
    out(0xc000, 0, 1);
    g_assert_cmphex(in(0xc000, 2), ==, 0x0103);
    g_assert_cmphex(in(0xc004, 4), ==, 0x83);
    for (unsigned i = 0; i < sizeof(name); i++) {
        name[i] = (char)in((uint16_t)(0xc010 + i), 1);
    }
    g_assert_cmpmem(name, sizeof(name), "portio-no-eventf", sizeof(name));
    out(0xc083, 0xfa, 1);
    out(0xc083, 0xfb, 1);
    g_assert_cmpuint(in(0xc00c, 4), ==, 1);
    set_config(PCI_DEVFN(4, 0), 0x14, 0xd000, 4);
    g_assert_cmphex(in(0xc000, 2), ==, 0xffff);
    g_assert_cmphex(in(0xd000, 2), ==, 0x0103);
    set_config(PCI_DEVFN(4, 0), 0x14, 0xffffffff, 4);
    g_assert_cmphex(in(0xd000, 2), ==, 0xffff);
    destroy(dev);
}

static void test_addresses_are_given_once(void)
{
    void *dev = make("{'driver': 'pci-testdev', 'id': 'd', 'addr': '4.1'}");

    refused("{'driver': 'pci-testdev', 'addr': '4.1'}",
            "PCI: slot 4 function 1 not available for pci-testdev, in use by pci-testdev,id=d");
    refused("{'driver': 'pci-testdev', 'addr': '4.0'}",
            "PCI: 4.0 indicates single function, but 4.1 is already populated.");
    refused("{'driver': 'pci-testdev', 'addr': '20'}",
            "Property 'pci-testdev.addr' doesn't take value '20'");
    refused("{'driver': 'pci-testdev', 'addr': '4.8'}",
            "Property 'pci-testdev.addr' doesn't take value '4.8'");
    refused("{'driver': 'pci-testdev', 'id': 'd'}", "Duplicate ID 'd' for device");
    destroy(dev);
    dev = make("{'driver': 'pci-testdev', 'id': 'd', 'addr': '4'}");
    refused("{'driver': 'pci-testdev', 'addr': '4.1'}",
            "PCI: single function device can't be populated in function 4.1");
    destroy(dev);
}

static void test_a_pin_is_shared_masked_and_let_go(void)
{
    PCIDevice *dev = make("{'driver': 'pci-testdev', 'id': 'd', 'addr': '4'}");
    IRQLine line;

    /* The device has no pin of its own: wire one as its bus would. */
    irq_line_init(&line, NULL, NULL, 0);
    irq_connect(&dev->pin, &line);
    pci_set_irq(dev, 1);
    g_assert_true(irq_level(&line));
    g_assert_cmphex(config(PCI_DEVFN(4, 0), 6, 2) & PCI_STATUS_INTERRUPT, ==, 8);
    set_config(PCI_DEVFN(4, 0), 4, PCI_COMMAND_INTX_DISABLE, 2);
    g_assert_false(irq_level(&line));
    set_config(PCI_DEVFN(4, 0), 4, 0, 2);
    g_assert_true(irq_level(&line));
    g_assert_cmpuint(pci_dma_write(dev, 0, "x", 1), ==, MEMTX_ACCESS_ERROR);
    destroy(dev);
    g_assert_false(irq_level(&line));
    irq_line_clear(&line);
}

static GString *events;

static void note_event(const char *name, json_object *data)
{
    g_string_append_printf(events, "%s %s\n", name,
                           json_object_to_json_string_ext(data, JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(data);
}

static void test_a_device_goes_when_the_guest_lets_it(void)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(GError) isa = NULL;
    DeviceState *dev;

    events = g_string_new(NULL);
    qapi_event_set_sink(note_event);
    err = add_from("{'driver': 'pci-testdev', 'id': 'd', 'addr': '7'}", PROPERTY_FROM_TEXT, true);
    g_assert_no_error(err);
    isa = add_from("{'driver': 'isa-debug-exit'}", PROPERTY_FROM_TEXT, true);
    g_assert_cmpstr(isa->message, ==, "Bus 'isa.0' does not support hotplugging");
    dev = device_find("d");
    g_assert_true(dev->hotplugged);
    out(TEST_EJECT_PORT, 1u << 7, 4); /* no user has asked */
    turn();
    g_assert_nonnull(device_find("d"));
    dev->unplug_asked = true;
    out(TEST_EJECT_PORT, 1u << 7, 4);
    out(TEST_EJECT_PORT, 1u << 7, 4);
    turn();
    g_assert_null(device_find("d"));
    g_assert_cmpstr(events->str, ==,
                    "DEVICE_DELETED {\"device\":\"d\",\"path\":\"/machine/peripheral/d\"}\n");
    qapi_event_set_sink(NULL);
    g_string_free(events, TRUE);
}

/* --- all classes --- */

static void check_property(const Property *prop, void *opaque)
{
    GHashTable *seen = opaque;

    g_assert_true(g_hash_table_add(seen, (gpointer)prop->name));
    g_assert_nonnull(prop->kind->set);
    g_assert_nonnull(prop->kind->get);
    g_assert_nonnull(prop->kind->print);
}

static void test_every_class_is_whole(void)
{
    for (guint i = 0; i < device_classes()->len; i++) {
        const DeviceClass *class = g_ptr_array_index(device_classes(), i);
        g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
        g_autofree char *help = class->abstract ? NULL : device_type_help(class->name, NULL);

        g_assert_true(class->abstract || class->vmstate);
        g_assert_true(class->abstract || help);
        device_class_foreach_property(class, check_property, seen);
    }
}

static void coroutine_fn machine_co(void *opaque)
{
    g_assert_true(test_machine_co_init(NULL, NULL));
}

int main(int argc, char **argv)
{
    g_autoptr(GError) err = NULL;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(&err));
    qtest_clock_init();
    machine_register_types();
    test_machine_register();
    aio_run_coroutine(machine_co, NULL);
#define TEST(name) g_test_add_func("/device/" #name, test_##name)
    TEST(a_device_works_by_its_ports_line_and_clock);
    TEST(realizing_that_fails_leaves_nothing);
    TEST(a_reference_keeps_a_device_that_has_gone);
    TEST(ending_waits_for_requests);
    TEST(values_are_checked_where_they_enter);
    TEST(json_has_the_types_of_json);
    TEST(properties_read_back_what_was_said);
    TEST(rows_then_global_then_the_user);
    TEST(a_result_from_before_a_reset_is_dropped);
    TEST(resetting_the_machine_waits_and_everything_else_goes_on);
    TEST(settling_gives_up_when_its_time_is_over);
    TEST(a_command_in_guest_time_is_no_request);
    TEST(requests_of_another_thread_and_resets_meet);
    TEST(state_travels);
    TEST(configuration_space_is_what_the_masks_say);
    TEST(bars_follow_what_the_guest_writes);
    TEST(addresses_are_given_once);
    TEST(a_pin_is_shared_masked_and_let_go);
    TEST(a_device_goes_when_the_guest_lets_it);
    TEST(every_class_is_whole);
    return g_test_run();
}
