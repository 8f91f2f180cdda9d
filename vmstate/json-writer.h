/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSONWriter: JSON text made piece by piece, in the order in which it is written.
 *
 * The layout of a stream's description and of -dump-vmstate is part of what other tools expect:
 * keys keep their order and may repeat, separators are ", " and ": ". A name is given inside an
 * object and is NULL inside an array and for the outermost value. Text is escaped to ASCII; bytes
 * that are not UTF-8 become U+FFFD.
 */
#ifndef FERRY_VMSTATE_JSON_WRITER_H
#define FERRY_VMSTATE_JSON_WRITER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct JSONWriter JSONWriter;

/* pretty: a member a line, indented by two spaces; else one line. */
JSONWriter *json_writer_new(bool pretty);
void json_writer_free(JSONWriter *w); /* NULL is allowed */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(JSONWriter, json_writer_free)

void json_writer_start_object(JSONWriter *w, const char *name);
void json_writer_end_object(JSONWriter *w);
void json_writer_start_array(JSONWriter *w, const char *name);
void json_writer_end_array(JSONWriter *w);
void json_writer_bool(JSONWriter *w, const char *name, bool value);
void json_writer_int64(JSONWriter *w, const char *name, int64_t value);
void json_writer_uint64(JSONWriter *w, const char *name, uint64_t value);
void json_writer_str(JSONWriter *w, const char *name, const char *value);

/* The text, complete only when everything started has ended. The writer's. */
const char *json_writer_get(const JSONWriter *w);
size_t json_writer_length(const JSONWriter *w);

#endif
