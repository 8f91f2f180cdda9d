/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Virtio devices behind a transport that is the test: status, features, configuration, interrupts, reset. */
#include "hw/virtio/virtio.h"

#include <string.h>
#include <unistd.h>
#include "hw/core/reset.h"
#include "hw/core/sysbus.h"
#include "hw/types.h"
#include "util/aio.h"
#include "util/bql.h"
#include "util/error.h"

#define RAM_BYTES 0x10000u
#define DESC      0x1000u
#define DRIVER    0x2000u
#define DEVICE    0x3000u
#define READY     (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK)
#define VERSION_1 (UINT64_C(1) << VIRTIO_F_VERSION_1)
#define OWN       (UINT64_C(1) << 5)
#define REFUSED   (UINT64_C(1) << 6)

/* --- a device that holds one request until the test ends it --- */

typedef struct HeldState {
    VirtIODevice parent;
    VirtQueueElement *elem;
    uint32_t generation;
    unsigned started, resets, written;
} HeldState;

static uint64_t held_features(VirtIODevice *vdev)
{
    return OWN | REFUSED | UINT64_C(1) << 50;
}

static bool held_accepts(VirtIODevice *vdev, uint64_t features)
{
    return !(features & REFUSED);
}

static void held_started(VirtIODevice *vdev)
{
    ((HeldState *)vdev)->started++;
}

static void held_config_written(VirtIODevice *vdev)
{
    ((HeldState *)vdev)->written++;
}

static void held_kicked(VirtIODevice *vdev, unsigned n)
{
    HeldState *s = (HeldState *)vdev;

    if (!s->elem && device_request_begin(&vdev->qdev, &s->generation)) {
        s->elem = virtqueue_pop(virtio_queue(vdev, n));
        if (!s->elem) {
            (void)!device_request_end(&vdev->qdev, s->generation);
        }
    }
}

static void held_reset(VirtIODevice *vdev)
{
    ((HeldState *)vdev)->resets++;
}

static void end_request(HeldState *s)
{
    VirtQueue *vq = virtio_queue(&s->parent, 0);
    VirtQueueElement *elem = g_steal_pointer(&s->elem);

    if (device_is_resetting(&s->parent.qdev)) {
        virtqueue_drop(vq, elem);
    } else {
        virtqueue_push(vq, elem, 4);
        virtio_notify(&s->parent, vq);
    }
    (void)!device_request_end(&s->parent.qdev, s->generation);
}

static const VirtIODeviceOps held_ops = {.device_id = 4,
                                         .config_bytes = 6,
                                         .features = held_features,
                                         .accepts = held_accepts,
                                         .config_written = held_config_written,
                                         .started = held_started,
                                         .kicked = held_kicked,
                                         .reset = held_reset};

static bool coroutine_fn held_co_realize(DeviceState *dev, GError **errp)
{
    virtio_add_queue((VirtIODevice *)dev, 4, sizeof(VirtQueueElement));
    return true;
}

static DEFINE_DEVICE(held_device, HeldState, NO_VMSTATE, .name = "test-held",
                     .parent = TYPE_VIRTIO_DEVICE, .bus_info = &held_ops,
                     .co_realize = held_co_realize);

/* --- the transport --- */

static struct {
    MemoryRegion root, ram;
    AddressSpace as;
    uint8_t *mem;
    bool modern, line;
    DeviceState *transport;
    VirtIOBus *bus;
    HeldState *held;
} t;

static void isr_changed(void *opaque)
{
    VirtIODevice *vdev = virtio_bus_device(t.bus);

    t.line = vdev && vdev->isr;
}

static bool is_modern(void *opaque)
{
    return t.modern;
}

static const VirtIOTransportOps transport_ops = {.isr_changed = isr_changed, .modern = is_modern};
static DEFINE_DEVICE(transport_device, SysBusDevice, NO_VMSTATE, .name = "test-transport",
                     .parent = "sys-bus-device", .internal = true);

static void coroutine_fn make_co(void *opaque)
{
    DeviceOptions options = {.class = &held_device};
    g_autoptr(GError) err = NULL;

    t.transport = sysbus_co_new("test-transport", &err);
    g_assert_no_error(err);
    t.bus = virtio_bus_new(t.transport, NULL, &transport_ops, NULL, &t.as);
    options.bus = &t.bus->qbus;
    t.held = (HeldState *)device_co_new(&options, &err);
    g_assert_no_error(err);
}

static void coroutine_fn destroy_co(void *opaque)
{
    device_co_destroy(&t.held->parent.qdev);
}

static void turn(void)
{
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
}

static VirtIODevice *make(bool modern)
{
    t.modern = modern;
    memset(t.mem, 0, RAM_BYTES);
    aio_run_coroutine(make_co, NULL);
    return &t.held->parent;
}

static void destroy(void)
{
    aio_run_coroutine(destroy_co, NULL);
}

static void store16(hwaddr addr, uint16_t value)
{
    memcpy(t.mem + addr, &value, 2);
}

static void start(VirtIODevice *vdev)
{
    VirtQueue *vq = virtio_queue(vdev, 0);

    virtio_write_status(vdev, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    virtio_accept_features(vdev, t.modern ? VERSION_1 : 0);
    virtio_write_status(vdev, READY);
    vq->desc = DESC;
    vq->driver = DRIVER;
    vq->device = DEVICE;
    virtio_set_queue_ready(vdev, 0, true);
    virtio_write_status(vdev, READY | VIRTIO_STATUS_DRIVER_OK);
}

/* One writable buffer of 16 bytes. */
static void add_request(uint16_t n)
{
    t.mem[DESC + 1] = 0x80;
    t.mem[DESC + 8] = 16;
    t.mem[DESC + 12] = VIRTIO_STATUS_DRIVER; /* VIRTQ_DESC_F_WRITE */
    store16(DRIVER + 2, n);
}

/* --- tests --- */

static void test_features_are_what_both_sides_want(void)
{
    VirtIODevice *vdev = make(true);

    g_assert_true(virtio_offered_features(vdev) & VERSION_1);
    g_assert_false(virtio_has_feature(vdev, VIRTIO_F_VERSION_1));
    virtio_accept_features(vdev, UINT64_MAX);
    g_assert_cmphex(vdev->guest_features, ==, virtio_offered_features(vdev));
    virtio_write_status(vdev, READY);
    g_assert_false(virtio_read_status(vdev) & VIRTIO_STATUS_FEATURES_OK); /* one is refused */
    virtio_accept_features(vdev, OWN);
    virtio_write_status(vdev, READY);
    g_assert_false(virtio_read_status(vdev) & VIRTIO_STATUS_FEATURES_OK); /* not VERSION_1 */
    virtio_accept_features(vdev, OWN | VERSION_1);
    virtio_write_status(vdev, READY);
    g_assert_cmphex(virtio_read_status(vdev), ==, READY);
    virtio_accept_features(vdev, VERSION_1); /* too late */
    g_assert_cmphex(vdev->guest_features, ==, OWN | VERSION_1);
    destroy();
    vdev = make(false);
    g_assert_cmphex(virtio_offered_features(vdev) >> 32, ==, 0);
    destroy();
}

static void test_configuration_space_ends_where_it_ends(void)
{
    VirtIODevice *vdev = make(true);
    unsigned before = t.held->written;

    virtio_write_config(vdev, 4, 0x11223344, 4);
    g_assert_cmpuint(t.held->written, ==, before + 1);
    g_assert_cmphex(virtio_read_config(vdev, 4, 4), ==, 0x3344);
    g_assert_cmphex(virtio_read_config(vdev, 5, 8), ==, 0x33);
    g_assert_cmphex(virtio_read_config(vdev, UINT64_MAX, 8), ==, 0);
    virtio_write_config(vdev, UINT64_MAX, UINT64_MAX, 8);
    g_assert_cmphex(virtio_read_config(vdev, 0, 4), ==, 0);
    destroy();
}

static void test_a_kick_is_served_once_the_driver_is_ready(void)
{
    VirtIODevice *vdev = make(false);

    add_request(1);
    virtio_kick(vdev, 0);
    virtio_kick(vdev, 7);
    g_assert_null(t.held->elem);
    start(vdev); /* looks for what came before */
    g_assert_nonnull(t.held->elem);
    g_assert_false(t.line);
    end_request(t.held);
    g_assert_true(t.line);
    g_assert_cmphex(vdev->isr, ==, VIRTIO_ISR_QUEUE);
    virtio_ack_isr(vdev, VIRTIO_ISR_QUEUE);
    g_assert_false(t.line);
    g_assert_cmpuint(t.mem[DEVICE + 2], ==, 1);
    destroy();
}

/* "Device Status Field": the device presents 0 when the reset has completed. */
static void test_a_reset_reads_as_under_way_until_requests_have_ended(void)
{
    VirtIODevice *vdev = make(true);

    start(vdev);
    add_request(1);
    virtio_kick(vdev, 0);
    g_assert_nonnull(t.held->elem);
    virtio_write_status(vdev, 0);
    g_assert_cmphex(virtio_read_status(vdev), !=, 0);
    virtio_write_status(vdev, READY | VIRTIO_STATUS_DRIVER_OK);
    virtio_kick(vdev, 0);
    end_request(t.held);
    turn();
    g_assert_cmphex(virtio_read_status(vdev), ==, 0);
    g_assert_false(virtio_queue_is_ready(vdev, 0));
    g_assert_cmphex(vdev->guest_features, ==, 0);
    g_assert_cmpuint(t.mem[DEVICE + 2], ==, 0); /* the driver hears nothing of it */
    g_assert_false(t.line);
    start(vdev); /* the ring is read from its start */
    g_assert_nonnull(t.held->elem);
    end_request(t.held);
    g_assert_cmpuint(t.mem[DEVICE + 2], ==, 1);
    destroy();
}

static void test_a_broken_ring_asks_for_a_reset(void)
{
    for (int modern = 0; modern < 2; modern++) {
        VirtIODevice *vdev = make(modern);

        start(vdev);
        store16(DRIVER + 2, 100);
        g_test_expect_message(NULL, G_LOG_LEVEL_WARNING, "*test-held*available index*");
        virtio_kick(vdev, 0);
        g_test_assert_expected_messages();
        g_assert_cmpint(!!(virtio_read_status(vdev) & VIRTIO_STATUS_NEEDS_RESET), ==, modern);
        g_assert_cmphex(vdev->isr, ==, modern ? VIRTIO_ISR_CONFIG : 0);
        g_assert_cmpint(t.line, ==, modern);
        add_request(1);
        virtio_kick(vdev, 0);
        g_assert_null(t.held->elem);
        virtio_write_status(vdev, 0);
        g_assert_cmphex(virtio_read_status(vdev), ==, 0);
        g_assert_false(t.line);
        start(vdev);
        g_assert_nonnull(t.held->elem);
        end_request(t.held);
        destroy();
    }
}

static void test_a_bus_has_one_device(void)
{
    DeviceOptions options = {.class = &held_device};
    g_autoptr(GError) err = NULL;

    make(true);
    options.bus = &t.bus->qbus;
    g_assert_null(device_create(&options, &err));
    g_assert_nonnull(err);
    destroy();
    g_assert_null(virtio_bus_device(t.bus));
}

int main(int argc, char **argv)
{
    g_autoptr(GError) err = NULL;

    g_test_init(&argc, &argv, NULL);
    alarm(240); /* a hang guard */
    g_assert_true(qemu_init_main_loop(&err));
    hw_register_types();
    device_class_register(&held_device);
    device_class_register(&transport_device);
    memory_region_init(&t.root, NULL, "root", MEMORY_REGION_WHOLE);
    g_assert_true(memory_region_init_ram(&t.ram, NULL, "t.ram", RAM_BYTES, &err));
    memory_region_add_subregion(&t.root, 0, &t.ram);
    address_space_init(&t.as, &t.root, "t");
    t.mem = memory_region_get_ram_ptr(&t.ram);
#define TEST(name) g_test_add_func("/virtio/" #name, test_##name)
    TEST(features_are_what_both_sides_want);
    TEST(configuration_space_ends_where_it_ends);
    TEST(a_kick_is_served_once_the_driver_is_ready);
    TEST(a_reset_reads_as_under_way_until_requests_have_ended);
    TEST(a_broken_ring_asks_for_a_reset);
    TEST(a_bus_has_one_device);
    return g_test_run();
}
