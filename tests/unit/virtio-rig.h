/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest's side of one virtqueue, for tests: memory of its own and a driver for both formats.
 *
 *     0x1000    Descriptor Area       0x10000    indirect tables, one of 64 entries for each chain of the first 16
 *     0x8000    Driver Area           0x20000    buffers, up to RIG_RAM
 *     0xa000    Device Area           RIG_REGS   registers, which count accesses; RIG_ROM memory that is read only
 */
#ifndef FERRY_TESTS_UNIT_VIRTIO_RIG_H
#define FERRY_TESTS_UNIT_VIRTIO_RIG_H

#include "hw/virtio/virtqueue-int.h"

#define RIG_DESC    0x1000u
#define RIG_DRIVER  0x8000u
#define RIG_DEVICE  0xa000u
#define RIG_TABLES  0x10000u
#define RIG_BUFFERS 0x20000u
#define RIG_RAM     0x60000u
#define RIG_REGS    0x100000u
#define RIG_ROM     0x200000u
#define RIG_BIT(f)  (UINT64_C(1) << (f))

typedef struct RigPiece {
    hwaddr addr;
    uint32_t len;
    bool writable;
} RigPiece;

typedef struct VirtIORig {
    MemoryRegion root, ram, regs, rom;
    AddressSpace as;
    uint8_t *mem; /* of the guest, from address 0 */
    unsigned regs_accesses;
    VirtQueueHost host;
    VirtQueue vq;
    char *reason; /* why the device broke; NULL: it did not */
    unsigned breaks;

    /* The driver's. */
    bool packed;
    uint16_t size;
    uint64_t features;
    uint16_t place, used_place; /* packed: in the ring; split: indexes */
    bool wrap, used_wrap;
    unsigned n_free; /* descriptors */
    bool busy[VIRTQUEUE_SIZE_MAX];
    uint16_t next_of[VIRTQUEUE_SIZE_MAX]; /* split: the chain as the driver made it */
    uint16_t taken[VIRTQUEUE_SIZE_MAX];   /* descriptors, by id */
} VirtIORig;

/* A queue that runs. */
VirtIORig *rig_new(bool packed, uint16_t size, uint64_t features);
void rig_free(VirtIORig *rig);
/* Stops and resets the queue and the driver, and starts both anew. */
void rig_restart(VirtIORig *rig);

/* Makes a buffer available; the id, or -1 where the ring is full. */
int rig_add(VirtIORig *rig, const RigPiece *pieces, unsigned n, bool indirect);
/* The next used buffer; false: none. */
bool rig_collect(VirtIORig *rig, uint16_t *id, uint32_t *len);
/* Whether the driver would kick after the entry that it made available last. */
bool rig_would_kick(const VirtIORig *rig);

/* Raw access. */
void rig_set_desc(VirtIORig *rig, hwaddr table, unsigned i, VirtQueueDesc desc);
void rig_store16(VirtIORig *rig, hwaddr addr, uint16_t value);
uint16_t rig_load16(const VirtIORig *rig, hwaddr addr);
uint32_t rig_load32(const VirtIORig *rig, hwaddr addr);
/* Packed: the flags that make a descriptor at the driver's place available. */
uint16_t rig_avail_flags(const VirtIORig *rig);

#endif
