/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-mmio, as a driver sees it: OASIS VIRTIO 1.2, "MMIO Device Register Layout" and "Legacy interface". */
#include <string.h>
#include <unistd.h>
#include "hw/core/sysbus.h"
#include "hw/types.h"
#include "hw/virtio/virtio.h"
#include "memory/address-space.h"
#include "util/aio.h"
#include "util/error.h"

#define WINDOW    0xfeb00000u
#define RAM_BYTES 0x10000u
#define RING      0x4000u

/* A device that answers every request at once with one byte. */
typedef struct EchoState {
    VirtIODevice parent;
} EchoState;

static void echo_kicked(VirtIODevice *vdev, unsigned n)
{
    VirtQueue *vq = virtio_queue(vdev, n);
    VirtQueueElement *elem;

    while ((elem = virtqueue_pop(vq))) {
        *(uint8_t *)elem->in[0].iov_base = 0xe0;
        virtqueue_push(vq, elem, 1);
    }
    virtio_notify(vdev, vq);
}

static void echo_config_written(VirtIODevice *vdev)
{
}

static const VirtIODeviceOps echo_ops = {.device_id = 4,
                                         .config_bytes = 8,
                                         .kicked = echo_kicked,
                                         .config_written = echo_config_written};

static bool coroutine_fn echo_co_realize(DeviceState *dev, GError **errp)
{
    virtio_add_queue((VirtIODevice *)dev, 8, sizeof(VirtQueueElement));
    return true;
}

static DEFINE_DEVICE(echo_device, EchoState, NO_VMSTATE, .name = "test-echo",
                     .parent = TYPE_VIRTIO_DEVICE, .bus_info = &echo_ops,
                     .co_realize = echo_co_realize);

static struct {
    MemoryRegion ram;
    uint8_t *mem;
    DeviceState *proxy, *dev;
    IRQLine irq;
    bool legacy, empty;
} t;

static void coroutine_fn make_co(void *opaque)
{
    json_object *values = json_object_new_object();
    DeviceOptions proxy = {.class = device_class_find("virtio-mmio"),
                           .bus = sysbus_get_default(),
                           .values = values,
                           .source = PROPERTY_FROM_JSON};
    DeviceOptions echo = {.class = &echo_device};
    g_autoptr(GError) err = NULL;

    json_object_object_add(values, "force-legacy", json_object_new_boolean(t.legacy));
    t.proxy = device_co_new(&proxy, &err);
    json_object_put(values);
    g_assert_no_error(err);
    sysbus_mmio_map((SysBusDevice *)t.proxy, 0, WINDOW);
    sysbus_connect_irq((SysBusDevice *)t.proxy, 0, &t.irq);
    echo.bus = TAILQ_FIRST(&t.proxy->buses);
    t.dev = t.empty ? NULL : device_co_new(&echo, &err);
    g_assert_no_error(err);
}

static void make(bool legacy, bool empty)
{
    t.legacy = legacy;
    t.empty = empty;
    memset(t.mem, 0, RAM_BYTES);
    irq_line_init(&t.irq, NULL, NULL, 0);
    aio_run_coroutine(make_co, NULL);
}

static void coroutine_fn destroy_co(void *opaque)
{
    device_co_destroy(t.proxy);
}

static void destroy(void)
{
    aio_run_coroutine(destroy_co, NULL);
    irq_line_clear(&t.irq);
}

static uint64_t get_bytes(unsigned offset, unsigned bytes)
{
    uint64_t value = 0;

    address_space_read(get_address_space_memory(), WINDOW + offset, MEMTXATTRS_UNSPECIFIED, &value,
                       bytes);
    return value;
}

static void set_bytes(unsigned offset, uint64_t value, unsigned bytes)
{
    address_space_write(get_address_space_memory(), WINDOW + offset, MEMTXATTRS_UNSPECIFIED, &value,
                        bytes);
}

static uint32_t get(unsigned offset)
{
    return (uint32_t)get_bytes(offset, 4);
}

static void set(unsigned offset, uint32_t value)
{
    set_bytes(offset, value, 4);
}

static void store16(hwaddr addr, uint16_t value)
{
    memcpy(t.mem + addr, &value, 2);
}

/* A request of one writable byte at 0x100, in the ring whose parts are at these addresses. */
static void add_request(hwaddr desc, hwaddr driver)
{
    store16(desc, 0x100);
    store16(desc + 8, 1);
    store16(desc + 12, 2);
    store16(driver + 2, 1);
}

static void set_up_modern(void)
{
    set(0x70, 3);
    set(0x24, 1);
    set(0x20, 1);
    set(0x70, 11);
    g_assert_cmphex(get(0x70), ==, 11);
    set(0x30, 0);
    set(0x38, 4);
    set(0x80, RING);
    set(0x90, RING + 0x1000);
    set(0xa0, RING + 0x2000);
    set(0x44, 1);
    set(0x70, 15);
}

static void test_identity(void)
{
    for (int legacy = 0; legacy < 2; legacy++) {
        make(legacy, false);
        g_assert_cmphex(get(0), ==, 0x74726976);
        g_assert_cmphex(get(4), ==, legacy ? 1 : 2);
        g_assert_cmphex(get(8), ==, 4);
        g_assert_cmphex(get(0x0c), ==, 0x554d4551);
        set(0x14, 1);
        g_assert_cmphex(get(0x10), ==, legacy ? 0 : 1); /* VIRTIO_F_VERSION_1 */
        set(0x14, 2);
        g_assert_cmphex(get(0x10), ==, 0);
        destroy();
    }
    make(false, true);
    g_assert_cmphex(get(0), ==, 0x74726976);
    g_assert_cmphex(get(8), ==, 0); /* a placeholder */
    for (unsigned offset = 0; offset < 0x200; offset += 4) {
        set(offset, UINT32_MAX);
        (void)get(offset);
    }
    destroy();
}

static void test_other_accesses_read_as_nothing(void)
{
    make(false, false);
    for (unsigned offset = 0; offset < 0x100; offset++) {
        g_assert_cmphex(get_bytes(offset, 1), ==, 0);
        set_bytes(offset, 0xff, 1);
        if (offset % 4) {
            set_bytes(offset, UINT32_MAX, MIN(4, 0x100 - offset));
            g_assert_cmphex(get_bytes(offset, 2), ==, 0);
        }
    }
    set_bytes(0x70, 0x0b0b, 2);
    g_assert_cmphex(get(0x70), ==, 0);
    for (unsigned offset = 0xb0; offset < 0xc0; offset += 4) { /* no shared memory */
        g_assert_cmphex(get(offset), ==, UINT32_MAX);
    }
    set_bytes(0x101, 0x55, 1);
    set_bytes(0x102, 0x6677, 2);
    g_assert_cmphex(get(0x100), ==, 0x66775500);
    set(0x1fc, UINT32_MAX);
    g_assert_cmphex(get(0x1fc), ==, 0);
    destroy();
}

/* InterruptStatus holds an event until it is acknowledged. */
static void test_a_modern_request_and_its_interrupt(void)
{
    make(false, false);
    g_assert_cmpuint(get(0x34), ==, 8);
    set_up_modern();
    g_assert_cmpuint(get(0x44), ==, 1);
    add_request(RING, RING + 0x1000);
    set(0x50, 0);
    g_assert_cmphex(t.mem[0x100], ==, 0xe0);
    g_assert_true(irq_level(&t.irq));
    g_assert_cmphex(get(0x60), ==, 1);
    set(0x64, 2);
    g_assert_cmphex(get(0x60), ==, 1);
    set(0x64, 1);
    g_assert_cmphex(get(0x60), ==, 0);
    g_assert_false(irq_level(&t.irq));
    destroy();
}

/* "Upon reset, the device MUST clear all bits in InterruptStatus and ready bits". */
static void test_reset_clears_status_and_ready_bits(void)
{
    make(false, false);
    set_up_modern();
    add_request(RING, RING + 0x1000);
    set(0x50, 0);
    set(0x70, 0);
    g_assert_cmphex(get(0x70), ==, 0);
    g_assert_cmphex(get(0x60), ==, 0);
    g_assert_cmphex(get(0x44), ==, 0);
    g_assert_false(irq_level(&t.irq));
    destroy();
}

/* "The device MUST NOT access virtual queue contents when QueueReady is zero". */
static void test_a_queue_that_is_not_ready_is_not_accessed(void)
{
    make(false, false);
    set_up_modern();
    set(0x80, 0x9000); /* ignored: the queue is ready */
    set(0x44, 0);
    g_assert_cmphex(get(0x44), ==, 0);
    add_request(RING, RING + 0x1000);
    set(0x50, 0);
    g_assert_cmphex(t.mem[0x100], ==, 0);
    set(0x44, 1);
    set(0x50, 0);
    g_assert_cmphex(t.mem[0x100], ==, 0xe0);
    destroy();
}

static void test_queues_that_are_not_there(void)
{
    make(false, false);
    for (unsigned i = 0; i < 32; i++) {
        set(0x30, i ? 1u << i : 1);
        g_assert_cmpuint(get(0x34), ==, 0);
        set(0x38, 4);
        set(0x80, 4);
        set(0x44, 1);
        set(0x50, 1u << i);
        g_assert_cmphex(get(0x44), ==, 0);
    }
    destroy();
}

static void test_a_size_that_cannot_be_asks_for_a_reset(void)
{
    static const uint32_t sizes[] = {0, 3, 9, 16, 0x10004, UINT32_MAX};

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        make(false, false);
        set(0x70, 3);
        set(0x24, 1);
        set(0x20, 1);
        set(0x70, 11);
        set(0x38, sizes[i]);
        set(0x44, 1);
        g_test_expect_message(NULL, G_LOG_LEVEL_WARNING, "*a queue cannot have*");
        set(0x70, 15);
        g_test_assert_expected_messages();
        g_assert_cmphex(get(0x70) & VIRTIO_STATUS_NEEDS_RESET, !=, 0);
        g_assert_cmphex(get(0x60), ==, VIRTIO_ISR_CONFIG);
        destroy();
    }
}

/* "Legacy Interfaces: A Note on Virtqueue Layout". */
static void test_a_legacy_queue_is_a_page_number(void)
{
    make(true, false);
    set(0x70, 3);
    set(0x28, 4096);
    set(0x38, 4);
    set(0x3c, 256);
    set(0x40, RING / 4096);
    g_assert_cmphex(get(0x40), ==, RING / 4096);
    g_assert_cmphex(get(0x44), ==, 0); /* no such register */
    set(0x70, 7);
    add_request(RING, RING + 64);
    set(0x50, 0);
    g_assert_cmphex(t.mem[0x100], ==, 0xe0);
    g_assert_cmpuint(t.mem[RING + 256 + 2], ==, 1);
    set(0x70, 0);
    g_assert_cmphex(get(0x40), ==, 0);
    destroy();
}

int main(int argc, char **argv)
{
    g_autoptr(GError) err = NULL;

    g_test_init(&argc, &argv, NULL);
    alarm(240); /* a hang guard */
    g_assert_true(qemu_init_main_loop(&err));
    hw_register_types();
    device_class_register(&echo_device);
    g_assert_true(memory_region_init_ram(&t.ram, NULL, "t.ram", RAM_BYTES, &err));
    get_address_space_memory();
    memory_region_add_subregion(get_system_memory(), 0, &t.ram);
    t.mem = memory_region_get_ram_ptr(&t.ram);
#define TEST(name) g_test_add_func("/virtio-mmio/" #name, test_##name)
    TEST(identity);
    TEST(other_accesses_read_as_nothing);
    TEST(a_modern_request_and_its_interrupt);
    TEST(reset_clears_status_and_ready_bits);
    TEST(a_queue_that_is_not_ready_is_not_accessed);
    TEST(queues_that_are_not_there);
    TEST(a_size_that_cannot_be_asks_for_a_reset);
    TEST(a_legacy_queue_is_a_page_number);
    return g_test_run();
}
