/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads small files that users name: secrets, certificates, keys. */
#ifndef FERRY_UTIL_READ_FILE_H
#define FERRY_UTIL_READ_FILE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The whole file, with a NUL behind it; an error when it holds more than max_bytes. A FIFO that brings
 * nothing for 10 s is an error. Main thread; in a coroutine a FIFO is read in a worker thread while
 * the coroutine yields. The caller frees *data with wipe_free() (util/wipe.h). The error is "Unable to
 * read PATH: why".
 */
bool qemu_read_file(const char *path, size_t max_bytes, uint8_t **data, size_t *bytes,
                    GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The same for a caller that holds a lock: it does not yield, and a FIFO that is empty is an error. */
bool qemu_read_file_at_once(const char *path, size_t max_bytes, uint8_t **data, size_t *bytes,
                            GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
