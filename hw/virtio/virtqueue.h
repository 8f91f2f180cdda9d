/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtqueues, the device's side. Specification: OASIS VIRTIO 1.2, "Virtqueues", "Split Virtqueues" and "Packed
 * Virtqueues". One interface serves both formats.
 *
 *     VirtQueueElement *elem;
 *
 *     while ((elem = virtqueue_pop(vq))) {
 *         size_t written = serve(elem->out, elem->out_num, elem->in, elem->in_num);
 *
 *         virtqueue_push(vq, elem, written);
 *     }
 *     if (virtqueue_should_notify(vq)) {
 *         ... raise the interrupt
 *     }
 *
 * Everything in the rings is the guest's and hostile. Each descriptor is read once, into a copy that is checked. A
 * mistake breaks the device (VirtQueueHost): its queues give no more requests until it is reset. Buffers and rings
 * lie in RAM; an address of anything else is such a mistake. So no access of a queue calls another device.
 *
 * A queue belongs to one thread at a time: its owner calls all functions, and hands it over only with a barrier.
 * None of them takes the big lock while the rings are RAM. Buffers are mapped, not copied. Elements come from a
 * pool of the queue, so a request allocates nothing once the pool has grown.
 */
#ifndef FERRY_HW_VIRTIO_VIRTQUEUE_H
#define FERRY_HW_VIRTIO_VIRTQUEUE_H

#include <sys/uio.h>
#include "memory/dma.h"
#include "memory/region-cache.h"

/* Entries of one queue: what devices here offer at most. The specification ends at 32768. */
#define VIRTQUEUE_SIZE_MAX 1024u
/* Pieces of one request, of both directions: what a system call takes (IOV_MAX). */
#define VIRTQUEUE_PIECES_MAX 1024u
/* Descriptors of one indirect table. */
#define VIRTQUEUE_TABLE_MAX 32768u

/* "Reserved Feature Bits", and those of the legacy interface. */
#define VIRTIO_F_NOTIFY_ON_EMPTY   24
#define VIRTIO_F_ANY_LAYOUT        27
#define VIRTIO_F_INDIRECT_DESC     28
#define VIRTIO_F_EVENT_IDX         29
#define VIRTIO_F_VERSION_1         32
#define VIRTIO_F_ACCESS_PLATFORM   33
#define VIRTIO_F_RING_PACKED       34
#define VIRTIO_F_IN_ORDER          35
#define VIRTIO_F_NOTIFICATION_DATA 38
#define VIRTIO_F_RING_RESET        40

typedef struct VirtQueue VirtQueue;
typedef struct VirtQueueFormat VirtQueueFormat;

/* What all queues of one device share. The device embeds it and outlives its queues. */
typedef struct VirtQueueHost {
    AddressSpace *as;
    bool broken; /* atomic: no queue serves any more; a reset of the device clears it */
    /*
     * Called once when `broken` becomes true, with the reason, in the thread of the queue. The function may not
     * stop the queue.
     */
    void (*on_broken)(void *opaque, VirtQueue *vq, const char *reason);
    void *opaque;
} VirtQueueHost;

/*
 * A request: pieces of guest memory, which stay mapped until it is pushed, given back or dropped. A device's own
 * request struct has it as its first member.
 */
typedef struct VirtQueueElement {
    struct iovec *out, *in; /* what the device reads, and what it writes */
    unsigned out_num, in_num;
    uint64_t out_bytes, in_bytes;

    /* The queue's. */
    uint16_t id;          /* split: the head; packed: the buffer id */
    uint16_t descriptors; /* entries of the ring that it takes (split: 1) */
    unsigned room;        /* of the two arrays: pieces */
    struct iovec *iov;    /* out, then in */
    DMAMapping *maps;     /* the same order */
    struct VirtQueueElement *next_free;
} VirtQueueElement;

/* Embedded in the device. Members are virtqueue*.c's, unless said otherwise. */
struct VirtQueue {
    /* What the driver sets up while the queue is stopped; the transport writes them. */
    uint16_t size; /* entries */
    hwaddr desc;   /* "Descriptor Area" */
    hwaddr driver; /* "Driver Area": available ring, or driver event suppression */
    hwaddr device; /* "Device Area": used ring, or device event suppression */
    /* Where the device is, for saving and loading while the queue is stopped. Split: indexes that run freely, without
     * wrap counters. Packed: places in the ring. */
    uint16_t next_avail, next_used;
    bool avail_wrap, used_wrap;

    VirtQueueHost *host;
    size_t element_size;
    uint16_t size_max; /* 0: the queue does not exist */
    bool running;
    bool wants_kicks; /* virtqueue_set_notification() */
    bool notify_next; /* the first decision after a start: where the driver was told is not known */
    uint64_t features;    /* negotiated */
    uint16_t seen_avail;  /* split: the available index as last read */
    unsigned in_flight;   /* entries of the ring that were taken and not used */
    unsigned unsignalled; /* entries used since the last decision */
    const VirtQueueFormat *format;
    MemoryRegionCache desc_ring, driver_ring, device_ring;
    VirtQueueElement *pool;
};

/*
 * A queue that is stopped, of size_max entries. element_size: bytes of the device's request struct. `host` outlives
 * the queue.
 */
void virtqueue_init(VirtQueue *vq, VirtQueueHost *host, uint16_t size_max, size_t element_size);
/* The queue is stopped, and no element is out. */
void virtqueue_destroy(VirtQueue *vq);
/* Puts what the driver sets up, and the places in the rings, to their reset values. It is stopped, no element is out. */
void virtqueue_reset(VirtQueue *vq);

/*
 * Starts to serve, under the negotiated features. False: the size, a place or an address cannot be, or requests from
 * before a stop are still out; the device is broken.
 * Whether the areas are RAM is looked at when they are accessed.
 */
bool virtqueue_start(VirtQueue *vq, uint64_t features);
/* Lets go of the rings. Elements may still be out; those are dropped with virtqueue_drop(). */
void virtqueue_stop(VirtQueue *vq);
bool virtqueue_is_running(const VirtQueue *vq);

/*
 * Takes the next request. NULL: there is none, or the device is broken. Where notifications are wanted, NULL means
 * that the driver was asked to kick for the next request.
 */
VirtQueueElement *virtqueue_pop(VirtQueue *vq) G_GNUC_WARN_UNUSED_RESULT;
/* Whether virtqueue_pop() would find none. True also where the device is broken. */
bool virtqueue_empty(VirtQueue *vq);

/*
 * Ends a request, which goes back to the pool: the device has written the first `written` bytes of `in`. Requests
 * end in any order.
 */
void virtqueue_push(VirtQueue *vq, VirtQueueElement *elem, uint64_t written);
/* Several that the driver sees at once. */
void virtqueue_push_many(VirtQueue *vq, VirtQueueElement *const *elems, const uint64_t *written,
                         unsigned n);
/* Gives the youngest request back: the next pop takes it again. */
void virtqueue_unpop(VirtQueue *vq, VirtQueueElement *elem);
/* Forgets a request that a reset overtook: the driver learns nothing of it. The queue may be stopped. */
void virtqueue_drop(VirtQueue *vq, VirtQueueElement *elem);

/*
 * Whether the driver wants an interrupt for what was pushed since the last call ("Used Buffer Notification
 * Suppression"; "Event Suppression Structure Format").
 */
bool virtqueue_should_notify(VirtQueue *vq) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Whether the driver is to kick; it is after a start. A device that polls says false. After true it looks for requests
 * once more, since those that came before need no kick.
 */
void virtqueue_set_notification(VirtQueue *vq, bool wanted);

#endif
