/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Numbered sets of descriptors that a management tool passed in ("/dev/fdset/N"). Any thread. */
#ifndef FERRY_MONITOR_FDS_H
#define FERRY_MONITOR_FDS_H

#include <stdint.h>

/*
 * Puts fd, which is taken over, into set `id` (-1: a new set). Returns the set's id. opaque may be
 * NULL.
 */
int64_t monitor_fdset_add_fd(int64_t id, int fd, const char *opaque);

#endif
