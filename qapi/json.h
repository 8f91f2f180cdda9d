/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON text to json-c values.
 *
 * The grammar is RFC 8259 in UTF-8, exactly, with one extension that QMP's users know. Strings may
 * stand in single quotes, where " needs no escape, and \' is a single quote in any string. An
 * integer that fits neither int64 nor uint64 becomes a double. A name that occurs twice in one
 * object is refused.
 */
#ifndef FERRY_QAPI_JSON_H
#define FERRY_QAPI_JSON_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>

/* Nested arrays and objects beyond this are refused. */
#define JSON_MAX_DEPTH 1024

/*
 * The most brackets, strings and commas of one value: as values in memory, short ones take a
 * hundred times the space of their text.
 */
#define JSON_MAX_PARTS (2 * 1024 * 1024)

/* The most bytes of one value that a stream holds: the longest QMP command. */
#define JSON_MAX_TEXT (64 * 1024 * 1024)

/*
 * Parses text[0..len) as one value with nothing but white space around it. On success the caller
 * owns *ret, which is NULL for the value null. The error says what is wrong and at which byte.
 */
bool json_parse_text(const char *text, size_t len, json_object **ret,
                     GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/*
 * A stream of values, as a monitor reads it: values follow each other with or without white space
 * between.
 *
 * A value that can't be parsed is reported once and the stream goes on behind it. The parser gives
 * up a value early at a bracket that doesn't match, and at a raw control character inside a string
 * (so a line end ends a forgotten quote). It does so at the byte 0xFF too, which no UTF-8 text
 * contains. Clients send it to get back to a known state. After it was given up for its size, depth
 * or number of parts, the rest of it is skipped without further reports.
 */
typedef struct JsonStream JsonStream;

/* Takes over `value` (NULL: null), or borrows `err` when parsing failed; then value is NULL. */
typedef void JsonStreamValue(void *opaque, json_object *value, const GError *err);

JsonStream *json_stream_new(JsonStreamValue *emit, void *opaque);
void json_stream_free(JsonStream *stream);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(JsonStream, json_stream_free)

/* Eats all bytes and calls emit for each value that ends in them. emit must not free the stream. */
void json_stream_feed(JsonStream *stream, const char *bytes, size_t len);

/* The input is over: reports a value that was not finished. The stream may be fed again. */
void json_stream_end(JsonStream *stream);

/* True between values, when nothing is held. */
bool json_stream_is_idle(const JsonStream *stream);

#endif
