/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What virtqueue.c and the two formats share. */
#ifndef FERRY_HW_VIRTIO_VIRTQUEUE_INT_H
#define FERRY_HW_VIRTIO_VIRTQUEUE_INT_H

#include "hw/virtio/virtqueue.h"

#define VIRTQ_DESC_BYTES      16u
#define VIRTQ_DESC_F_NEXT     0x0001u
#define VIRTQ_DESC_F_WRITE    0x0002u
#define VIRTQ_DESC_F_INDIRECT 0x0004u

/* A descriptor, in the order of bytes of the host. `extra` is next (split) or the buffer id (packed). */
typedef struct VirtQueueDesc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t extra;
} VirtQueueDesc;

/* One format of the rings. The queue runs, its host is not broken and the rings are RAM. */
struct VirtQueueFormat {
    /* Bytes of the three areas, in the order desc, driver, device. */
    void (*areas)(const VirtQueue *vq, uint64_t bytes[3]);
    /* Whether the size is one that the format has. */
    bool (*size_fits)(unsigned size);
    /* Whether a request is there. Breaks the device where the ring makes no sense; then false. */
    bool (*available)(VirtQueue *vq);
    /*
     * Takes the request that is there: fills the element through virtqueue_add() and sets its id and descriptors.
     * False: the device is broken.
     */
    bool (*take)(VirtQueue *vq, VirtQueueElement *elem);
    /* The reverse of take, for the youngest. */
    void (*untake)(VirtQueue *vq, const VirtQueueElement *elem);
    /* Writes used entries, so that the driver sees all or none. */
    void (*put)(VirtQueue *vq, VirtQueueElement *const *elems, const uint64_t *written, unsigned n);
    /* Tells the driver whether, and for which entry, to kick. */
    void (*ask)(VirtQueue *vq, bool wanted);
    /* Whether the driver asks for an interrupt after `moved` entries. */
    bool (*asked)(VirtQueue *vq, unsigned moved);
};

extern const VirtQueueFormat virtqueue_split, virtqueue_packed;

static inline bool virtqueue_has(const VirtQueue *vq, unsigned feature)
{
    return vq->features >> feature & 1;
}

/* Breaks the device. False, for the caller to return. */
bool virtqueue_break(VirtQueue *vq, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* Maps the buffer of a descriptor behind what the element has. False: broken. */
bool virtqueue_add(VirtQueue *vq, VirtQueueElement *elem, const VirtQueueDesc *desc);

/* An indirect table in guest memory. */
typedef struct VirtQueueTable {
    hwaddr addr;
    unsigned n;
    DMAMapping map; /* as much of it as is contiguous */
} VirtQueueTable;

/* Opens the table that a descriptor refers to. False: broken, nothing to close. */
bool virtqueue_table_open(VirtQueue *vq, VirtQueueTable *table, const VirtQueueDesc *desc);
/* Copies entry i, below n: 16 bytes. False: broken. */
bool virtqueue_table_read(VirtQueue *vq, VirtQueueTable *table, unsigned i, void *raw);
void virtqueue_table_close(VirtQueueTable *table);

#endif
