/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Binary units, in bytes. Signed 64-bit, so that products with int64_t offsets stay signed. */
#ifndef FERRY_UTIL_UNITS_H
#define FERRY_UTIL_UNITS_H

#include <stdint.h>

#define KiB (INT64_C(1) << 10)
#define MiB (INT64_C(1) << 20)
#define GiB (INT64_C(1) << 30)
#define TiB (INT64_C(1) << 40)
#define PiB (INT64_C(1) << 50)
#define EiB (INT64_C(1) << 60)

#endif
