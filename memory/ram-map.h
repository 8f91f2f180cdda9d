/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Mappings that hold guest memory: aligned, with a guard page behind, advised for their use. */
#ifndef FERRY_MEMORY_RAM_MAP_H
#define FERRY_MEMORY_RAM_MAP_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Bytes of a page in mappings of fd (hugetlbfs), or of anonymous memory for -1. 0 and errno set:
 * failed.
 */
size_t ram_map_page_size(int fd);

typedef struct RAMMapOptions {
    uint64_t size; /* bytes, a multiple of the page size */
    size_t align;  /* power of two, at least the page size */
    int fd;        /* -1: anonymous */
    uint64_t fd_offset;
    bool shared;
    bool readonly;
    bool noreserve;
} RAMMapOptions;

/* The mapping, or NULL and errno. */
void *ram_map(const RAMMapOptions *options) G_GNUC_WARN_UNUSED_RESULT;
void ram_unmap(void *host, uint64_t size);

/*
 * Touches every page so that it exists from now on, with `threads` threads (at least 1); content
 * stays. 0 or -errno (-ENOMEM: the host has no such memory).
 */
int ram_prealloc(void *host, uint64_t size, size_t page_size,
                 unsigned threads) G_GNUC_WARN_UNUSED_RESULT;

#endif
