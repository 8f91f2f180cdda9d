/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Binary units, in bytes. Signed 64-bit, so that products with int64_t offsets stay signed. */
#ifndef FERRY_UTIL_UNITS_H
#define FERRY_UTIL_UNITS_H

#include <stdint.h>

#define KiB INT64_C(1024)
#define MiB (KiB * 1024)
#define GiB (MiB * 1024)
#define TiB (GiB * 1024)
#define PiB (TiB * 1024)
#define EiB (PiB * 1024)

#endif
