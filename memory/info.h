/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The layout of memory as text for people. Main thread; the caller frees. */
#ifndef FERRY_MEMORY_INFO_H
#define FERRY_MEMORY_INFO_H

#include <stdbool.h>

/* The RAM blocks, one a line. */
char *ram_block_info(void);
typedef struct MemoryInfoOptions {
    bool owners;   /* the owner of each region */
    bool dispatch; /* views: how an address is looked up */
    bool disabled; /* trees: regions that are switched off as well */
} MemoryInfoOptions;

/* The trees of regions behind the address spaces. */
char *memory_tree_info(const MemoryInfoOptions *options);
/* The views of the address spaces. */
char *memory_view_info(const MemoryInfoOptions *options);

#endif
