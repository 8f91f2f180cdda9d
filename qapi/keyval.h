/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Option arguments of the command line: "driver=qcow2,file.driver=file,file.filename=disk.qcow2" to
 * JSON.
 *
 * PARAMS   is  PARAM { "," PARAM }, or empty
 * PARAM    is  KEY "=" VALUE, or at the first place VALUE alone when there is an implied key
 * KEY      is  names joined by "."; a name of digits is the index of an array
 * VALUE    is  text up to the next comma; two commas stand for one
 *
 * All values are strings: decode with QAPI_DECODE_KEYVAL. A key given twice: the last one counts.
 * Array indexes must be 0, 1, 2... in any order, at most KEYVAL_MAX_INDEX. A key names either a
 * value or a container, not both. A text that starts with "{" is JSON instead.
 */
#ifndef FERRY_QAPI_KEYVAL_H
#define FERRY_QAPI_KEYVAL_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>

#include "qapi/codec.h"

/* Indexes above this are refused, so that an option can't ask for a huge array. */
#define KEYVAL_MAX_INDEX 1023
/* The longest name in a key. */
#define KEYVAL_MAX_NAME 127
/* The most names in a key. */
#define KEYVAL_MAX_DEPTH 64

/*
 * Parses PARAMS. `implied_key` (NULL: none) is the key of a first value without one. When `help` is
 * not NULL, "help" or "?" as a parameter of its own sets *help instead of being an error. The
 * caller owns the result, an object.
 */
json_object *keyval_parse(const char *params, const char *implied_key, bool *help,
                          GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* As keyval_parse(), or the JSON form. *flags tells how to decode the result. */
json_object *keyval_parse_or_json(const char *params, const char *implied_key, bool *help,
                                  QapiDecodeFlags *flags, GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
