/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pci-testdev: measures how fast a guest's writes to memory and ports are handled. Each of two BARs
 * begins with a header that describes one test. The guest writes the number of a test, then `data`
 * of `width` bytes at `offset`. `count` says how many of these writes arrived. A header of width 0
 * ends the list.
 */
#include <string.h>
#include "hw/pci/pci.h"
#include "hw/types.h"
#include "util/error.h"
#include "util/int-math.h"

#define TESTS_EACH   3 /* memory has the numbers 0..2, ports 3..5 */
#define FIRST_OFFSET 0x80
#define NAME_BYTES   32
#define MEMORY_BYTES 4096
#define PORT_BYTES   256

typedef struct TestHeader {
    uint8_t test, width;
    uint8_t reserved[2];
    uint32_t offset, data, count;
    uint8_t name[NAME_BYTES];
} TestHeader;

typedef struct TestBar {
    TestHeader header;
    bool is_port;
    bool any_data; /* of the test: every value counts */
    RegisterBank bank;
} TestBar;

typedef struct PCITestDevState {
    PCIDevice parent;
    uint64_t membar;
    TestBar memory, port;
    MemoryRegion space; /* of membar */
} PCITestDevState;

static void choose_test(TestBar *bar, unsigned n)
{
    static const char *const kinds[TESTS_EACH] = {"no-eventfd", "wildcard-eventfd",
                                                  "datamatch-eventfd"};
    TestHeader *header = &bar->header;

    memset(header, 0, sizeof(*header));
    if (n >= TESTS_EACH) {
        return;
    }
    bar->any_data = n == 1;
    header->test = (uint8_t)(n + (bar->is_port ? TESTS_EACH : 0));
    header->width = 1;
    header->offset = FIRST_OFFSET + header->test;
    header->data = n == 1 ? 0xce : 0xfa;
    g_snprintf((char *)header->name, NAME_BYTES, "%s-%s", bar->is_port ? "portio" : "mmio",
               kinds[n]);
}

static void test_written(void *state, const RegisterWrite *write)
{
    choose_test(state, (unsigned)write->data);
}

/* `index` counts from the first byte behind the header. */
static void byte_written(void *state, const RegisterWrite *write)
{
    TestBar *bar = state;
    TestHeader *header = &bar->header;

    if (header->width && write->index + sizeof(TestHeader) == header->offset &&
        (bar->any_data || write->data == header->data)) {
        header->count++;
    }
}

static uint64_t reads_zero(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    return 0;
}

#define HEADER_ROWS(_bytes)                                                                    \
    REGISTER(0x00, TestBar, header.test, "TEST", .write = test_written),                       \
        REGISTER(0x01, TestBar, header.width, "WIDTH"),                                        \
        REGISTER_ARRAY(0x02, TestBar, header.reserved, "RESERVED"),                            \
        REGISTER(0x04, TestBar, header.offset, "OFFSET"),                                      \
        REGISTER(0x08, TestBar, header.data, "DATA"),                                          \
        REGISTER(0x0c, TestBar, header.count, "COUNT"),                                        \
        REGISTER_ARRAY(0x10, TestBar, header.name, "NAME"),                                    \
        REGISTER_HOOKS(sizeof(TestHeader), 1, "SPACE", .count = (_bytes) - sizeof(TestHeader), \
                       .read = reads_zero, .write = byte_written)

static const RegisterRow memory_rows[] = {HEADER_ROWS(MEMORY_BYTES)};
static const RegisterRow port_rows[] = {HEADER_ROWS(PORT_BYTES)};
static const RegisterTable memory_table = {"pci-testdev-mmio", memory_rows,
                                           G_N_ELEMENTS(memory_rows)};
static const RegisterTable port_table = {"pci-testdev-portio", port_rows, G_N_ELEMENTS(port_rows)};

static void testdev_reset_enter(DeviceState *dev)
{
    PCITestDevState *s = (PCITestDevState *)dev;

    s->memory.header = s->port.header = (TestHeader){0};
}

static bool coroutine_fn testdev_co_realize(DeviceState *dev, GError **errp)
{
    PCITestDevState *s = (PCITestDevState *)dev;
    g_autofree char *path = device_path(dev);

    s->port.is_port = true;
    register_bank_init(&s->memory.bank, path, &memory_table, &s->memory, MEMORY_BYTES);
    pci_register_bar(&s->parent, 0, 0, &s->memory.bank.region);
    register_bank_init(&s->port.bank, path, &port_table, &s->port, PORT_BYTES);
    pci_register_bar(&s->parent, 1, PCI_BASE_ADDRESS_SPACE_IO, &s->port.bank.region);
    if (s->membar) {
        memory_region_init(&s->space, path, "pci-testdev-membar", s->membar);
        pci_register_bar(&s->parent, 2, PCI_BASE_ADDRESS_MEM_64 | PCI_BASE_ADDRESS_PREFETCH,
                         &s->space);
    }
    return true;
}

static bool check_membar(const Property *prop, uint64_t value, GError **errp)
{
    if (value && (value < 16 || !is_power_of_2(value))) {
        error_setg(errp, "Parameter '%s' expects a power of two", prop->name);
        return false;
    }
    return true;
}

static const Property testdev_properties[] = {
    DEFINE_PROP_SIZE("membar", PCITestDevState, membar, 0, .check = check_membar),
    {0},
};

static const PCIDeviceInfo testdev_info = {
    .vendor_id = 0x1b36, .device_id = 0x0005, .class_id = 0x00ff};

DEFINE_DEVICE(pci_testdev_device, PCITestDevState, NO_VMSTATE, .name = "pci-testdev",
              .parent = TYPE_PCI_DEVICE, .desc = "PCI Test Device",
              .category = DEVICE_CATEGORY_MISC, .properties = testdev_properties,
              .bus_info = &testdev_info, .co_realize = testdev_co_realize,
              .reset_enter = testdev_reset_enter);
