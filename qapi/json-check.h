/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The grammar of one JSON text (RFC 8259), held to the letter. */
#ifndef FERRY_QAPI_JSON_CHECK_H
#define FERRY_QAPI_JSON_CHECK_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * True when text[0..len) is one value in valid UTF-8. No object may have a name twice, no name may
 * hold a NUL, and each surrogate of an escape needs its pair. False: errp says what is wrong and at
 * which byte. Any thread.
 */
bool json_check_text(const char *text, size_t len, GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
