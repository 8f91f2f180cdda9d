/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads small files that users name: secrets, certificates, keys. */
#ifndef FERRY_CRYPTO_READ_FILE_H
#define FERRY_CRYPTO_READ_FILE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The whole file, with a NUL behind it; an error when it holds more than max_bytes. Main
 * thread; from a FIFO it is read in a worker thread, while the calling coroutine yields. A FIFO that brings nothing
 * for 10 s is an error. The caller frees *data with qcrypto_secret_wipe(). The error is "Unable to read PATH: why".
 */
bool crypto_read_file(const char *path, size_t max_bytes, uint8_t **data, size_t *bytes,
                      GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
