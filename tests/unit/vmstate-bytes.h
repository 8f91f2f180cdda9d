/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of VMState write down bytes as text: hex digits, "'text'" for its characters, spaces for
 * the reader.
 */
#ifndef FERRY_TESTS_UNIT_VMSTATE_BYTES_H
#define FERRY_TESTS_UNIT_VMSTATE_BYTES_H

#include <glib.h>
#include "vmstate/vmstate.h"

#define FIELDS(...)      ((const VMStateField[]){__VA_ARGS__, VMSTATE_END_OF_LIST()})
#define SUBSECTIONS(...) ((const VMStateDescription *const[]){__VA_ARGS__, NULL})

/* Caller unrefs. */
GBytes *bytes_of(const char *hex);
void assert_bytes(GBytes *got, const char *hex);
/* The payload, NULL on errors; *json (may be NULL) is the object that describes it. Caller frees.
 */
GBytes *save_json(const VMStateDescription *vmsd, void *opaque, char **json, GError **errp);
/* The result of vmstate_load_state(); nothing may be left when that is success. */
int load_version(const VMStateDescription *vmsd, void *opaque, const char *hex, int version_id,
                 GError **errp);

void assert_saves(const VMStateDescription *vmsd, void *opaque, const char *hex);
void assert_loads(const VMStateDescription *vmsd, void *opaque, const char *hex);
void assert_refused(const VMStateDescription *vmsd, void *opaque, const char *hex, int ret,
                    const char *message);
void assert_not_saved(const VMStateDescription *vmsd, void *opaque, const char *message);

#endif
