/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Versions: the QEMU whose interfaces this is, and our own. */
#ifndef FERRY_UTIL_VERSION_H
#define FERRY_UTIL_VERSION_H

#include "config-host.h"

/* Management tools choose what they use by this. */
#define QEMU_VERSION_MAJOR 11
#define QEMU_VERSION_MINOR 1
#define QEMU_VERSION_MICRO 0
#define QEMU_VERSION       "11.1.0"
#define FERRY_PACKAGE      "Ferry " FERRY_VERSION

#endif
