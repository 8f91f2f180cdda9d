/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio devices, apart from the transport that the guest reaches them by. Specification: OASIS VIRTIO 1.2, "Basic
 * Facilities of a Virtio Device".
 *
 * A device kind is a class below TYPE_VIRTIO_DEVICE, whose bus_info is a VirtIODeviceOps. It plugs into a VirtIOBus
 * of a transport (MMIO, PCI). The transport decodes the guest's accesses and calls the functions under "the guest".
 *
 *     status      guest writes                     the device
 *     0           ACKNOWLEDGE, DRIVER              features may be set
 *     DRIVER      FEATURES_OK                      keeps the bit where it can work with the features; they are fixed
 *     FEATURES_OK DRIVER_OK                        starts: queues that are ready are served
 *     DRIVER_OK   (a mistake in a ring)            stops serving; modern: DEVICE_NEEDS_RESET, configuration interrupt
 *     any         0                                device_reset(): reads non-zero until no request is in flight
 *
 * All functions: under the big lock (util/bql.h), unless said otherwise.
 */
#ifndef FERRY_HW_VIRTIO_VIRTIO_H
#define FERRY_HW_VIRTIO_VIRTIO_H

#include "hw/core/bus.h"
#include "hw/virtio/virtqueue.h"

#define TYPE_VIRTIO_DEVICE   "virtio-device"
#define TYPE_VIRTIO_BUS      "virtio-bus"
#define TYPE_VIRTIO_MMIO_BUS "virtio-mmio-bus"

/* "Device Status Field". */
#define VIRTIO_STATUS_ACKNOWLEDGE 0x01u
#define VIRTIO_STATUS_DRIVER      0x02u
#define VIRTIO_STATUS_DRIVER_OK   0x04u
#define VIRTIO_STATUS_FEATURES_OK 0x08u
#define VIRTIO_STATUS_NEEDS_RESET 0x40u
#define VIRTIO_STATUS_FAILED      0x80u

/* The interrupt status of transports. */
#define VIRTIO_ISR_QUEUE  0x01u
#define VIRTIO_ISR_CONFIG 0x02u

#define VIRTIO_CONFIG_MAX 256u
/* Queues of one device. */
#define VIRTIO_QUEUES_MAX 1024u

typedef struct VirtIODevice VirtIODevice;

/* What a kind of device does. Hooks may be NULL, and run under the big lock. */
typedef struct VirtIODeviceOps {
    uint16_t device_id;    /* "Device Types" */
    uint16_t config_bytes; /* of the configuration space, VIRTIO_CONFIG_MAX at most */
    uint64_t (*features)(VirtIODevice *vdev); /* offered besides those of properties */
    /* Whether the device can work with what the driver accepted. NULL: it can. */
    bool (*accepts)(VirtIODevice *vdev, uint64_t features);
    /* The guest reads the space: brings vdev->config up to date. */
    void (*config_read)(VirtIODevice *vdev);
    /* The guest has changed vdev->config. NULL: the guest changes nothing. */
    void (*config_written)(VirtIODevice *vdev);
    void (*started)(VirtIODevice *vdev);
    /* Requests may be waiting in a queue that runs. Also called for each queue after `started`. */
    void (*kicked)(VirtIODevice *vdev, unsigned n);
    /* A reset: no request is in flight. */
    void (*reset)(VirtIODevice *vdev);
} VirtIODeviceOps;

/* The first member of every device's struct. Members are virtio.c's; the kind changes `config`. */
struct VirtIODevice {
    DeviceState qdev;
    const VirtIODeviceOps *ops;
    uint64_t wanted_features; /* by properties */
    bool disable_legacy_check;
    uint64_t guest_features; /* as the driver wrote them, of those that are offered */
    uint8_t status;          /* atomic: any thread may set NEEDS_RESET */
    uint8_t status_before;   /* what the guest sees while the device is resetting */
    uint8_t isr;             /* atomic */
    uint32_t config_generation;
    uint8_t config[VIRTIO_CONFIG_MAX];
    VirtQueueHost host;
    GPtrArray *queues; /* VirtQueue */
    GArray *ready;     /* bool, of each queue: the driver says that it is set up */
};

/* What a transport does for its device. */
typedef struct VirtIOTransportOps {
    const char *bus_type; /* NULL: TYPE_VIRTIO_BUS */
    /* vdev->isr has changed: the line follows it. Under the big lock. */
    void (*isr_changed)(void *opaque);
    bool (*modern)(void *opaque); /* VIRTIO_F_VERSION_1 is offered */
} VirtIOTransportOps;

typedef struct VirtIOBus {
    BusState qbus;
    const VirtIOTransportOps *ops;
    void *opaque;
    AddressSpace *as; /* of the guest's buffers */
} VirtIOBus;

/* A bus of a transport, with room for one device. */
VirtIOBus *virtio_bus_new(DeviceState *transport, const char *name, const VirtIOTransportOps *ops,
                          void *opaque, AddressSpace *as);
/* NULL: none is plugged, or it is not realized. */
VirtIODevice *virtio_bus_device(VirtIOBus *bus);

/* --- the kind of device --- */

/* Of co_realize: the next queue. It is freed with the device. */
VirtQueue *virtio_add_queue(VirtIODevice *vdev, uint16_t size, size_t element_size);
VirtQueue *virtio_queue(VirtIODevice *vdev, unsigned n); /* NULL: there is none */
/* Raises the queue interrupt where the driver wants it. Any thread that owns the queue. */
void virtio_notify(VirtIODevice *vdev, VirtQueue *vq);
/* vdev->config has changed, or the status. Any thread. */
void virtio_notify_config(VirtIODevice *vdev);
bool virtio_is_started(const VirtIODevice *vdev);
bool virtio_has_feature(const VirtIODevice *vdev, unsigned feature);

/* --- the guest, through its transport --- */

uint64_t virtio_offered_features(VirtIODevice *vdev);
/* Ignored once FEATURES_OK or DRIVER_OK is set. Bits that are not offered are left out. */
void virtio_accept_features(VirtIODevice *vdev, uint64_t features);
uint8_t virtio_read_status(VirtIODevice *vdev);
void virtio_write_status(VirtIODevice *vdev, uint8_t status);
/* `size` is 1, 2, 4 or 8. Bytes outside of the space read as 0 and ignore writes. */
uint64_t virtio_read_config(VirtIODevice *vdev, uint64_t offset, unsigned size);
void virtio_write_config(VirtIODevice *vdev, uint64_t offset, uint64_t data, unsigned size);
/* The driver has set up the queue, or takes it back. It is served while the device is started. */
void virtio_set_queue_ready(VirtIODevice *vdev, unsigned n, bool ready);
bool virtio_queue_is_ready(VirtIODevice *vdev, unsigned n);
void virtio_kick(VirtIODevice *vdev,
                 unsigned n); /* any number: those that are no queue are ignored */
void virtio_ack_isr(VirtIODevice *vdev, uint8_t bits);

void virtio_register_types(void);

#endif
