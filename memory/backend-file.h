/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The files behind memory backends. */
#ifndef FERRY_MEMORY_BACKEND_FILE_H
#define FERRY_MEMORY_BACKEND_FILE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "qapi/qapi-types-memory.h"

typedef struct BackendFile {
    int fd; /* owned by the caller */
    size_t page_size;
    bool named; /* another process can open the same file */
    bool fresh; /* it was made here: all hole */
} BackendFile;

/* Opens the file that the properties name, or makes it and enlarges it to hold the memory. False
 * and errp: a file that was made is removed again.
 */
bool backend_file_open(const MemoryBackendFileProperties *properties, const char *id,
                       BackendFile *file, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
bool backend_memfd_open(const MemoryBackendMemfdProperties *properties, const char *id,
                        BackendFile *file, GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
