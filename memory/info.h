/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What memory looks like, as text for people. Main thread; the caller frees. */
#ifndef FERRY_MEMORY_INFO_H
#define FERRY_MEMORY_INFO_H

#include <stdbool.h>

/* The RAM blocks, one a line. */
char *ram_block_info(void);
/* The trees of regions behind the address spaces; `disabled` ones as well. */
char *memory_tree_info(bool disabled);
/* The views of the address spaces. */
char *memory_view_info(void);

#endif
