/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Frees memory that may hold a secret. The content is overwritten first. NULL is allowed. Any thread. */
#ifndef FERRY_UTIL_WIPE_H
#define FERRY_UTIL_WIPE_H

#include <glib.h>
#include <string.h>

/* A block of `bytes` from g_malloc(). */
static inline void wipe_free(void *data, size_t bytes)
{
    if (data) {
        explicit_bzero(data, bytes);
        g_free(data);
    }
}

/* A string from g_malloc(). */
static inline void wipe_free_text(char *text)
{
    if (text) {
        wipe_free(text, strlen(text));
    }
}

#endif
