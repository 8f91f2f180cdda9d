/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-mmio: a window of 512 bytes for one virtio device. Specification: OASIS VIRTIO 1.2, "Virtio Over MMIO", and
 * its "Legacy interface". Version 1 (legacy) has page numbers and only 32 bits of features; version 2 has 64-bit
 * addresses. Control registers take aligned accesses of 32 bits; others read as 0 and are ignored. The
 * configuration space takes every size.
 */
#include <string.h>
#include "hw/core/reset.h"
#include "hw/core/sysbus.h"
#include "hw/types.h"
#include "hw/virtio/virtio.h"
#include "memory/address-space.h"
#include "util/int-math.h"

#define WINDOW_BYTES 0x200u
#define CONFIG_AT    0x100u
#define MAGIC        0x74726976u
#define VENDOR       0x554d4551u
#define PAGE_BITS    12u

typedef struct VirtIOMMIOState {
    SysBusDevice parent;
    /* properties */
    bool legacy, format_transport_address, ioeventfd;
    /* state */
    uint32_t host_features_sel, guest_features_sel, guest_page_size, queue_sel;
    uint32_t guest_features[2]; /* as the driver writes them */
    uint32_t queue_align[VIRTIO_QUEUES_MAX];
    VirtIOBus *bus;
    IRQLine *irq;
    MemoryRegion window, control, config;
} VirtIOMMIOState;

static VirtIODevice *device_of(VirtIOMMIOState *s)
{
    return virtio_bus_device(s->bus);
}

static VirtQueue *selected(VirtIOMMIOState *s)
{
    VirtIODevice *vdev = device_of(s);

    return vdev ? virtio_queue(vdev, s->queue_sel) : NULL;
}

/* "When QueueReady is not zero, the driver MUST NOT access" what sets a queue up: such writes are ignored. */
static VirtQueue *settable(VirtIOMMIOState *s)
{
    VirtQueue *vq = selected(s);

    return vq && !virtio_queue_is_ready(device_of(s), s->queue_sel) &&
                   !device_is_resetting(&device_of(s)->qdev)
               ? vq
               : NULL;
}

/* --- what the registers read --- */

static uint64_t device_id_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    VirtIODevice *vdev = device_of(state);

    return vdev ? vdev->ops->device_id : 0;
}

static uint64_t magic_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    return MAGIC;
}

static uint64_t version_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    return ((VirtIOMMIOState *)state)->legacy ? 1 : 2;
}

static uint64_t vendor_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    return VENDOR;
}

static uint64_t features_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    VirtIOMMIOState *s = state;
    VirtIODevice *vdev = device_of(s);

    if (!vdev || s->host_features_sel > (s->legacy ? 0 : 1)) {
        return 0;
    }
    return (uint32_t)(virtio_offered_features(vdev) >> (32 * s->host_features_sel));
}

static uint64_t queue_max_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    VirtQueue *vq = selected(state);

    return vq ? vq->size_max : 0;
}

static uint64_t pfn_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    VirtIOMMIOState *s = state;
    VirtQueue *vq = selected(s);

    return vq && s->guest_page_size ? vq->desc / s->guest_page_size : 0;
}

static uint64_t ready_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    VirtIOMMIOState *s = state;

    return selected(s) && virtio_queue_is_ready(device_of(s), s->queue_sel);
}

static uint64_t isr_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    VirtIODevice *vdev = device_of(state);

    return vdev ? __atomic_load_n(&vdev->isr, __ATOMIC_ACQUIRE) : 0;
}

static uint64_t status_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    VirtIODevice *vdev = device_of(state);

    return vdev ? virtio_read_status(vdev) : 0;
}

static uint64_t generation_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    VirtIODevice *vdev = device_of(state);

    return vdev ? __atomic_load_n(&vdev->config_generation, __ATOMIC_ACQUIRE) : 0;
}

/* No device has a shared memory region: length and base are -1. */
static uint64_t no_region_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    return UINT32_MAX;
}

/* --- what writes do --- */

static void features_written(void *state, const RegisterWrite *write)
{
    VirtIOMMIOState *s = state;
    VirtIODevice *vdev = device_of(s);

    if (vdev && s->guest_features_sel < (s->legacy ? 1 : 2)) {
        s->guest_features[s->guest_features_sel] = (uint32_t)write->data;
        virtio_accept_features(vdev, (uint64_t)s->guest_features[1] << 32 | s->guest_features[0]);
    }
}

static void queue_num_written(void *state, const RegisterWrite *write)
{
    VirtQueue *vq = settable(state);

    if (vq) {
        vq->size = (uint16_t)MIN(write->data, UINT16_MAX); /* checked when the queue starts */
    }
}

static void queue_align_written(void *state, const RegisterWrite *write)
{
    VirtIOMMIOState *s = state;

    if (settable(s) && is_power_of_2(write->data)) {
        s->queue_align[s->queue_sel] = (uint32_t)write->data;
    }
}

/* "Legacy Interfaces: A Note on Virtqueue Layout": the used ring begins at the next multiple of QueueAlign. */
static void pfn_written(void *state, const RegisterWrite *write)
{
    VirtIOMMIOState *s = state;
    VirtQueue *vq = selected(s);
    uint64_t align;

    if (!vq || device_is_resetting(&device_of(s)->qdev)) {
        return;
    }
    virtio_set_queue_ready(device_of(s), s->queue_sel, false);
    align = s->queue_align[s->queue_sel];
    vq->desc = write->data * s->guest_page_size;
    vq->driver = vq->desc + 16u * (uint64_t)vq->size;
    vq->device = (vq->driver + 6 + 2u * (uint64_t)vq->size + align - 1) & ~(align - 1);
    virtio_set_queue_ready(device_of(s), s->queue_sel, vq->desc != 0);
}

static void ready_written(void *state, const RegisterWrite *write)
{
    VirtIOMMIOState *s = state;

    if (selected(s)) {
        virtio_set_queue_ready(device_of(s), s->queue_sel, write->data & 1);
    }
}

static void notify_written(void *state, const RegisterWrite *write)
{
    VirtIODevice *vdev = device_of(state);

    if (vdev) {
        virtio_kick(vdev, (unsigned)write->data);
    }
}

static void ack_written(void *state, const RegisterWrite *write)
{
    VirtIODevice *vdev = device_of(state);

    if (vdev) {
        virtio_ack_isr(vdev, (uint8_t)write->data);
    }
}

static void reset_own(VirtIOMMIOState *s)
{
    s->host_features_sel = s->guest_features_sel = s->guest_page_size = s->queue_sel = 0;
    memset(s->guest_features, 0, sizeof(s->guest_features));
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        s->queue_align[i] = 1u << PAGE_BITS;
    }
}

static void status_written(void *state, const RegisterWrite *write)
{
    VirtIODevice *vdev = device_of(state);

    if (vdev) {
        virtio_write_status(vdev, (uint8_t)write->data);
        if (!(uint8_t)write->data) {
            reset_own(state);
        }
    }
}

/* Halves of the three addresses: index counts 32-bit registers from QueueDescLow. */
static void address_written(VirtIOMMIOState *s, unsigned area, unsigned half, uint64_t data)
{
    VirtQueue *vq = settable(s);
    hwaddr *addr;

    if (!vq) {
        return;
    }
    addr = area == 0 ? &vq->desc : area == 1 ? &vq->driver : &vq->device;
    *addr &= half ? UINT32_MAX : (uint64_t)UINT32_MAX << 32;
    *addr |= (data & UINT32_MAX) << (32 * half);
}

static void desc_written(void *state, const RegisterWrite *write)
{
    address_written(state, 0, write->index, write->data);
}

static void driver_written(void *state, const RegisterWrite *write)
{
    address_written(state, 1, write->index, write->data);
}

static void device_written(void *state, const RegisterWrite *write)
{
    address_written(state, 2, write->index, write->data);
}

/* --- the two layouts --- */

/* "The driver MUST NOT read from the write-only registers". */
static uint64_t reads_zero(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    return 0;
}

#define HOOKS(_offset, _name, ...) REGISTER_HOOKS(_offset, 4, _name, __VA_ARGS__)
#define FIELD(_offset, _member, _name) \
    REGISTER(_offset, VirtIOMMIOState, _member, _name, .writable = UINT32_MAX, .read = reads_zero)
#define COMMON_HEAD                                                                                \
    HOOKS(0x000, "MagicValue", .read = magic_read), HOOKS(0x004, "Version", .read = version_read), \
        HOOKS(0x008, "DeviceID", .read = device_id_read),                                          \
        HOOKS(0x00c, "VendorID", .read = vendor_read),                                             \
        HOOKS(0x010, "DeviceFeatures", .read = features_read),                                     \
        FIELD(0x014, host_features_sel, "DeviceFeaturesSel"),                                      \
        HOOKS(0x020, "DriverFeatures", .write = features_written),                                 \
        FIELD(0x024, guest_features_sel, "DriverFeaturesSel")
#define COMMON_QUEUE                                                                          \
    FIELD(0x030, queue_sel, "QueueSel"), HOOKS(0x034, "QueueNumMax", .read = queue_max_read), \
        HOOKS(0x038, "QueueNum", .write = queue_num_written)
#define COMMON_TAIL                                         \
    HOOKS(0x050, "QueueNotify", .write = notify_written),   \
        HOOKS(0x060, "InterruptStatus", .read = isr_read),  \
        HOOKS(0x064, "InterruptACK", .write = ack_written), \
        HOOKS(0x070, "Status", .read = status_read, .write = status_written)

static const RegisterRow legacy_rows[] = {
    COMMON_HEAD,
    FIELD(0x028, guest_page_size, "GuestPageSize"),
    COMMON_QUEUE,
    HOOKS(0x03c, "QueueAlign", .write = queue_align_written),
    HOOKS(0x040, "QueuePFN", .read = pfn_read, .write = pfn_written),
    COMMON_TAIL,
};
static const RegisterRow modern_rows[] = {
    COMMON_HEAD,
    COMMON_QUEUE,
    HOOKS(0x044, "QueueReady", .read = ready_read, .write = ready_written),
    COMMON_TAIL,
    HOOKS(0x080, "QueueDesc", .count = 2, .write = desc_written),
    HOOKS(0x090, "QueueDriver", .count = 2, .write = driver_written),
    HOOKS(0x0a0, "QueueDevice", .count = 2, .write = device_written),
    HOOKS(0x0b0, "SHMLen and SHMBase", .count = 4, .read = no_region_read),
    HOOKS(0x0fc, "ConfigGeneration", .read = generation_read),
};
static const RegisterTable legacy_table = {"virtio-mmio", legacy_rows, G_N_ELEMENTS(legacy_rows)};
static const RegisterTable modern_table = {"virtio-mmio", modern_rows, G_N_ELEMENTS(modern_rows)};

static const RegisterTable *table_of(const VirtIOMMIOState *s)
{
    return s->legacy ? &legacy_table : &modern_table;
}

static uint64_t control_read(void *opaque, hwaddr addr, unsigned size)
{
    return register_table_read(table_of(opaque), opaque, addr, size);
}

static void control_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    register_table_write(table_of(opaque), opaque, addr, data, size);
}

static const MemoryRegionOps control_ops = {
    .guest = {.min = 4, .max = 4},
    .device = {.min = 4, .max = 4},
    .read = control_read,
    .write = control_write,
};

static uint64_t config_read(void *opaque, hwaddr addr, unsigned size)
{
    VirtIODevice *vdev = device_of(opaque);

    return vdev ? virtio_read_config(vdev, addr, size) : 0;
}

static void config_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    VirtIODevice *vdev = device_of(opaque);

    if (vdev) {
        virtio_write_config(vdev, addr, data, size);
    }
}

static const MemoryRegionOps config_ops = {
    .guest = {.min = 1, .max = 8, .unaligned = true},
    .device = {.min = 1, .max = 8, .unaligned = true},
    .read = config_read,
    .write = config_write,
};

/* --- the bus, reset, realizing --- */

static void isr_changed(void *opaque)
{
    VirtIOMMIOState *s = opaque;

    qemu_set_irq(s->irq, isr_read(s, 0, 0, 0) != 0);
}

static bool is_modern(void *opaque)
{
    return !((VirtIOMMIOState *)opaque)->legacy;
}

static const VirtIOTransportOps transport_ops = {
    .bus_type = TYPE_VIRTIO_MMIO_BUS, .isr_changed = isr_changed, .modern = is_modern};

static void mmio_reset_enter(DeviceState *dev)
{
    reset_own((VirtIOMMIOState *)dev);
}

static void mmio_init(DeviceState *dev)
{
    VirtIOMMIOState *s = (VirtIOMMIOState *)dev;

    s->irq = sysbus_init_irqs(&s->parent, 1);
}

static bool coroutine_fn mmio_co_realize(DeviceState *dev, GError **errp)
{
    VirtIOMMIOState *s = (VirtIOMMIOState *)dev;
    g_autofree char *path = device_path(dev);

    s->bus = virtio_bus_new(dev, NULL, &transport_ops, s, get_address_space_memory());
    memory_region_init_io(&s->control, path, &control_ops, s, "virtio-mmio-control", CONFIG_AT);
    memory_region_init_io(&s->config, path, &config_ops, s, "virtio-mmio-config",
                          WINDOW_BYTES - CONFIG_AT);
    memory_region_init(&s->window, path, "virtio-mmio", WINDOW_BYTES);
    sysbus_init_mmio(&s->parent, &s->window);
    device_own_region(dev, &s->control);
    device_own_region(dev, &s->config);
    memory_region_add_subregion(&s->window, 0, &s->control);
    memory_region_add_subregion(&s->window, CONFIG_AT, &s->config);
    return true;
}

static const Property mmio_properties[] = {
    DEFINE_PROP_BOOL("format_transport_address", VirtIOMMIOState, format_transport_address, true),
    DEFINE_PROP_BOOL("force-legacy", VirtIOMMIOState, legacy, true),
    DEFINE_PROP_BOOL("ioeventfd", VirtIOMMIOState, ioeventfd, true, .description = "on/off"),
    {0},
};

DEFINE_DEVICE(virtio_mmio_device, VirtIOMMIOState, NO_VMSTATE, .name = "virtio-mmio",
              .parent = "sys-bus-device", .internal = true, .properties = mmio_properties,
              .init = mmio_init, .co_realize = mmio_co_realize, .reset_enter = mmio_reset_enter);
