/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Zero detection: scalar, AVX2 and AVX-512 versions, chosen once at run time by what the CPU and
 * the kernel offer.
 */
#ifndef FERRY_UTIL_BUFFERISZERO_H
#define FERRY_UTIL_BUFFERISZERO_H

#include <stdbool.h>
#include <stddef.h>

/* True when all bytes of buf are zero; any alignment and length (0 is true). Any thread. */
bool buffer_is_zero(const void *buf, size_t bytes);

/* The version in use: "scalar", "avx2" or "avx512". */
const char *buffer_is_zero_implementation(void);
/* For tests: use the named version from now on; false when this CPU lacks it. */
bool buffer_is_zero_select(const char *name);

#endif
