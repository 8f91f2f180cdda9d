/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest addresses, and how an access to one ends. */
#ifndef FERRY_MEMORY_HWADDR_H
#define FERRY_MEMORY_HWADDR_H

#include <stdbool.h>
#include <stdint.h>

/* An address of the guest's physical memory, or of its I/O ports. */
typedef uint64_t hwaddr;

/*
 * A place in the one space in which all RAM blocks lie, guest-visible or not; see RAMBlock.offset.
 */
typedef uint64_t ram_addr_t;

#define TARGET_PAGE_BITS 12
#define TARGET_PAGE_SIZE (UINT64_C(1) << TARGET_PAGE_BITS)
#define TARGET_PAGE_MASK (~(TARGET_PAGE_SIZE - 1))

/* The device that accesses; zero stands for none in particular. */
typedef struct MemTxAttrs {
    uint16_t requester_id; /* of a PCI device: bus << 8 | devfn */
    bool unspecified;
} MemTxAttrs;

#define MEMTXATTRS_UNSPECIFIED ((MemTxAttrs){.unspecified = true})

/* Results of several accesses are joined with |. */
typedef unsigned MemTxResult;
#define MEMTX_OK           0u
#define MEMTX_DECODE_ERROR 2u /* nothing is at that address */
#define MEMTX_ACCESS_ERROR 4u /* a device that may not use this address */

#endif
