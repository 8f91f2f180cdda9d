/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Virtio devices. */
#include "hw/virtio/virtio.h"

#include "hw/core/reset.h"
#include "util/aio.h"
#include "util/bql.h"
#include "util/error.h"

#define BIT(f) (UINT64_C(1) << (f))
/* Features of rings and transports that work here; a property cannot offer others. */
#define RING_FEATURES                                                                         \
    (BIT(VIRTIO_F_NOTIFY_ON_EMPTY) | BIT(VIRTIO_F_ANY_LAYOUT) | BIT(VIRTIO_F_INDIRECT_DESC) | \
     BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_RING_PACKED))
#define LEGACY_ONLY (BIT(VIRTIO_F_NOTIFY_ON_EMPTY) | BIT(VIRTIO_F_ANY_LAYOUT))
#define SETTABLE                                                                  \
    (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_DRIVER_OK | \
     VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_FAILED)

static uint8_t status_of(const VirtIODevice *vdev)
{
    return __atomic_load_n(&vdev->status, __ATOMIC_ACQUIRE);
}

static VirtIOBus *bus_of(VirtIODevice *vdev)
{
    return (VirtIOBus *)vdev->qdev.parent_bus;
}

bool virtio_has_feature(const VirtIODevice *vdev, unsigned feature)
{
    return vdev->guest_features >> feature & 1;
}

bool virtio_is_started(const VirtIODevice *vdev)
{
    return (status_of(vdev) & VIRTIO_STATUS_DRIVER_OK) && !device_is_resetting(&vdev->qdev);
}

/* --- interrupts --- */

static void tell_transport(void *opaque)
{
    VirtIODevice *vdev = opaque;

    if (vdev->qdev.parent_bus) {
        bus_of(vdev)->ops->isr_changed(bus_of(vdev)->opaque);
    }
    device_unref(&vdev->qdev);
}

static void raise_isr(VirtIODevice *vdev, uint8_t bits)
{
    __atomic_fetch_or(&vdev->isr, bits, __ATOMIC_SEQ_CST);
    if (bql_locked()) {
        bus_of(vdev)->ops->isr_changed(bus_of(vdev)->opaque);
    } else {
        device_ref(&vdev->qdev);
        aio_bh_schedule_oneshot(qemu_get_aio_context(), tell_transport, vdev);
    }
}

void virtio_ack_isr(VirtIODevice *vdev, uint8_t bits)
{
    __atomic_fetch_and(&vdev->isr, (uint8_t)~bits, __ATOMIC_SEQ_CST);
    bus_of(vdev)->ops->isr_changed(bus_of(vdev)->opaque);
}

void virtio_notify(VirtIODevice *vdev, VirtQueue *vq)
{
    if (virtqueue_should_notify(vq)) {
        raise_isr(vdev, VIRTIO_ISR_QUEUE);
    }
}

void virtio_notify_config(VirtIODevice *vdev)
{
    if (status_of(vdev) & VIRTIO_STATUS_DRIVER_OK) {
        __atomic_fetch_add(&vdev->config_generation, 1, __ATOMIC_SEQ_CST);
        raise_isr(vdev, VIRTIO_ISR_CONFIG);
    }
}

/* "Device Status Field": after an error the device sets DEVICE_NEEDS_RESET and, once started, says so. */
static void broken(void *opaque, VirtQueue *vq, const char *reason)
{
    VirtIODevice *vdev = opaque;

    g_warning("%s: %s", device_label(&vdev->qdev), reason);
    if (virtio_has_feature(vdev, VIRTIO_F_VERSION_1)) {
        __atomic_fetch_or(&vdev->status, VIRTIO_STATUS_NEEDS_RESET, __ATOMIC_SEQ_CST);
        virtio_notify_config(vdev);
    }
}

/* --- queues --- */

VirtQueue *virtio_add_queue(VirtIODevice *vdev, uint16_t size, size_t element_size)
{
    VirtQueue *vq = g_new(VirtQueue, 1);
    bool ready = false;

    g_assert(vdev->queues->len < VIRTIO_QUEUES_MAX);
    virtqueue_init(vq, &vdev->host, size, element_size);
    g_ptr_array_add(vdev->queues, vq);
    g_array_append_val(vdev->ready, ready);
    return vq;
}

VirtQueue *virtio_queue(VirtIODevice *vdev, unsigned n)
{
    return n < vdev->queues->len ? g_ptr_array_index(vdev->queues, n) : NULL;
}

bool virtio_queue_is_ready(VirtIODevice *vdev, unsigned n)
{
    return n < vdev->ready->len && g_array_index(vdev->ready, bool, n);
}

static void update_queue(VirtIODevice *vdev, unsigned n)
{
    VirtQueue *vq = virtio_queue(vdev, n);
    bool runs = virtio_is_started(vdev) && virtio_queue_is_ready(vdev, n);

    if (!runs) {
        virtqueue_stop(vq);
    } else if (!virtqueue_is_running(vq)) {
        virtqueue_start(vq, vdev->guest_features); /* where it fails the device is broken */
    }
}

void virtio_set_queue_ready(VirtIODevice *vdev, unsigned n, bool ready)
{
    if (n < vdev->queues->len && !device_is_resetting(&vdev->qdev)) {
        g_array_index(vdev->ready, bool, n) = ready;
        update_queue(vdev, n);
    }
}

void virtio_kick(VirtIODevice *vdev, unsigned n)
{
    VirtQueue *vq = virtio_queue(vdev, n);

    if (vq && virtqueue_is_running(vq) && virtio_is_started(vdev) && vdev->ops->kicked) {
        vdev->ops->kicked(vdev, n);
    }
}

/* --- features and status --- */

uint64_t virtio_offered_features(VirtIODevice *vdev)
{
    VirtIOBus *bus = bus_of(vdev);
    uint64_t ring = vdev->wanted_features & RING_FEATURES;
    uint64_t own = vdev->ops->features ? vdev->ops->features(vdev) : 0;

    if (bus->ops->modern(bus->opaque)) {
        ring = (ring & ~LEGACY_ONLY) | BIT(VIRTIO_F_VERSION_1);
    } else {
        ring &= UINT32_MAX;
        own &= UINT32_MAX;
    }
    return ring | own;
}

void virtio_accept_features(VirtIODevice *vdev, uint64_t features)
{
    if (!(status_of(vdev) & (VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK)) &&
        !device_is_resetting(&vdev->qdev)) {
        vdev->guest_features = features & virtio_offered_features(vdev);
    }
}

/* "Driver Requirements: Reserved Feature Bits": a modern device need not work without VIRTIO_F_VERSION_1. */
static bool features_fit(VirtIODevice *vdev)
{
    bool modern = bus_of(vdev)->ops->modern(bus_of(vdev)->opaque);

    return (!modern || virtio_has_feature(vdev, VIRTIO_F_VERSION_1)) &&
           (!vdev->ops->accepts || vdev->ops->accepts(vdev, vdev->guest_features));
}

uint8_t virtio_read_status(VirtIODevice *vdev)
{
    return device_is_resetting(&vdev->qdev) ? vdev->status_before : status_of(vdev);
}

static void start(VirtIODevice *vdev)
{
    for (unsigned n = 0; n < vdev->queues->len; n++) {
        update_queue(vdev, n);
    }
    if (vdev->ops->started) {
        vdev->ops->started(vdev);
    }
    for (unsigned n = 0; n < vdev->queues->len; n++) {
        virtio_kick(vdev, n);
    }
}

/* The guest adds bits and clears none, other than by a reset. */
void virtio_write_status(VirtIODevice *vdev, uint8_t status)
{
    uint8_t old = status_of(vdev), added = status & SETTABLE & (uint8_t)~old;

    if (!status) {
        device_reset(&vdev->qdev);
        return;
    }
    if (device_is_resetting(&vdev->qdev)) {
        return;
    }
    if ((added & VIRTIO_STATUS_FEATURES_OK) && !features_fit(vdev)) {
        added &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK;
    }
    __atomic_fetch_or(&vdev->status, added, __ATOMIC_SEQ_CST);
    if (added & VIRTIO_STATUS_DRIVER_OK) {
        start(vdev);
    }
}

/* --- configuration space --- */

uint64_t virtio_read_config(VirtIODevice *vdev, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    if (vdev->ops->config_read) {
        vdev->ops->config_read(vdev);
    }
    for (unsigned i = 0; i < size && offset < vdev->ops->config_bytes; i++, offset++) {
        value |= (uint64_t)vdev->config[offset] << (8 * i);
    }
    return value;
}

void virtio_write_config(VirtIODevice *vdev, uint64_t offset, uint64_t data, unsigned size)
{
    if (!vdev->ops->config_written || device_is_resetting(&vdev->qdev)) {
        return;
    }
    for (unsigned i = 0; i < size && offset < vdev->ops->config_bytes; i++, offset++) {
        vdev->config[offset] = (uint8_t)(data >> (8 * i));
    }
    vdev->ops->config_written(vdev);
}

/* --- reset and life --- */

static void virtio_reset_enter(DeviceState *dev)
{
    VirtIODevice *vdev = (VirtIODevice *)dev;
    uint8_t old = __atomic_exchange_n(&vdev->status, 0, __ATOMIC_SEQ_CST);

    if (old) {
        vdev->status_before = old;
    } else if (!vdev->status_before) {
        vdev->status_before = VIRTIO_STATUS_ACKNOWLEDGE;
    }
}

static void virtio_reset_exit(DeviceState *dev)
{
    VirtIODevice *vdev = (VirtIODevice *)dev;

    if (vdev->ops->reset) {
        vdev->ops->reset(vdev);
    }
    for (unsigned n = 0; n < vdev->queues->len; n++) {
        virtqueue_stop(virtio_queue(vdev, n));
        virtqueue_reset(virtio_queue(vdev, n));
        g_array_index(vdev->ready, bool, n) = false;
    }
    vdev->guest_features = 0;
    vdev->status_before = 0;
    __atomic_store_n(&vdev->status, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&vdev->host.broken, false, __ATOMIC_SEQ_CST);
    virtio_ack_isr(vdev, UINT8_MAX);
}

static void free_queue(gpointer opaque)
{
    VirtQueue *vq = opaque;

    virtqueue_stop(vq);
    virtqueue_destroy(vq);
    g_free(vq);
}

static void virtio_init(DeviceState *dev)
{
    VirtIODevice *vdev = (VirtIODevice *)dev;

    vdev->queues = g_ptr_array_new_with_free_func(free_queue);
    vdev->ready = g_array_new(FALSE, TRUE, sizeof(bool));
    vdev->host.on_broken = broken;
    vdev->host.opaque = vdev;
}

static void virtio_finalize(DeviceState *dev)
{
    VirtIODevice *vdev = (VirtIODevice *)dev;

    g_ptr_array_free(vdev->queues, TRUE);
    g_array_free(vdev->ready, TRUE);
}

static void free_queues(void *opaque)
{
    VirtIODevice *vdev = opaque;

    g_ptr_array_set_size(vdev->queues, 0); /* no request is in flight */
    g_array_set_size(vdev->ready, 0);
}

static bool coroutine_fn virtio_co_realize(DeviceState *dev, GError **errp)
{
    VirtIODevice *vdev = (VirtIODevice *)dev;
    const DeviceClass *class = dev->class;

    while (!class->bus_info) {
        class = device_class_parent(class);
    }
    vdev->ops = class->bus_info;
    g_assert(vdev->ops->config_bytes <= VIRTIO_CONFIG_MAX);
    vdev->host.as = bus_of(vdev)->as;
    device_on_unrealize(dev, free_queues, vdev);
    return true;
}

/* --- the bus --- */

static bool virtio_bus_has_room(BusState *bus)
{
    return TAILQ_EMPTY(&bus->devices);
}

static bool virtio_bus_plug(BusState *bus, DeviceState *dev, GError **errp)
{
    if (!virtio_bus_has_room(bus)) {
        error_setg(errp, "Bus '%s' is full", bus->name);
        return false;
    }
    return true;
}

static const BusClass virtio_bus_class = {
    .name = TYPE_VIRTIO_BUS,
    .instance_size = sizeof(VirtIOBus),
    .plug = virtio_bus_plug,
    .has_room = virtio_bus_has_room,
};

static const BusClass mmio_bus_class = {
    .name = TYPE_VIRTIO_MMIO_BUS,
    .parent = TYPE_VIRTIO_BUS,
    .instance_size = sizeof(VirtIOBus),
    .plug = virtio_bus_plug,
    .has_room = virtio_bus_has_room,
};

VirtIOBus *virtio_bus_new(DeviceState *transport, const char *name, const VirtIOTransportOps *ops,
                          void *opaque, AddressSpace *as)
{
    bool mmio = !g_strcmp0(ops->bus_type, TYPE_VIRTIO_MMIO_BUS);
    const BusClass *class = mmio ? &mmio_bus_class : &virtio_bus_class;
    VirtIOBus *bus = (VirtIOBus *)bus_new(class, transport, name);

    bus->ops = ops;
    bus->opaque = opaque;
    bus->as = as;
    return bus;
}

VirtIODevice *virtio_bus_device(VirtIOBus *bus)
{
    DeviceState *dev = TAILQ_FIRST(&bus->qbus.devices);

    return dev && device_is_realized(dev) ? (VirtIODevice *)dev : NULL;
}

#define FEATURE(_name, _bit, _default) \
    DEFINE_PROP_BIT64(_name, VirtIODevice, wanted_features, _bit, _default, .description = "on/off")

static const Property virtio_properties[] = {
    FEATURE("indirect_desc", VIRTIO_F_INDIRECT_DESC, true),
    FEATURE("event_idx", VIRTIO_F_EVENT_IDX, true),
    FEATURE("notify_on_empty", VIRTIO_F_NOTIFY_ON_EMPTY, true),
    FEATURE("any_layout", VIRTIO_F_ANY_LAYOUT, true),
    FEATURE("packed", VIRTIO_F_RING_PACKED, false),
    DEFINE_PROP_BOOL("x-disable-legacy-check", VirtIODevice, disable_legacy_check, false),
    {0},
};

static DEFINE_ABSTRACT_DEVICE(virtio_device, VirtIODevice, .name = TYPE_VIRTIO_DEVICE,
                              .bus = TYPE_VIRTIO_BUS, .properties = virtio_properties,
                              .init = virtio_init, .co_realize = virtio_co_realize,
                              .finalize = virtio_finalize, .reset_enter = virtio_reset_enter,
                              .reset_exit = virtio_reset_exit);

void virtio_register_types(void)
{
    bus_class_register(&virtio_bus_class);
    bus_class_register(&mmio_bus_class);
    device_class_register(&virtio_device);
}
