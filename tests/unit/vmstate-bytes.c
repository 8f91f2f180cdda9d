/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bytes as text, for tests of VMState. */
#include "tests/unit/vmstate-bytes.h"
#include <string.h>

GBytes *bytes_of(const char *hex)
{
    GByteArray *out = g_byte_array_new();

    while (*hex) {
        uint8_t byte;

        if (*hex == ' ') {
            hex++;
        } else if (*hex == '\'') {
            const char *end = strchr(++hex, '\'');

            g_byte_array_append(out, (const uint8_t *)hex, end - hex);
            hex = end + 1;
        } else {
            byte = g_ascii_xdigit_value(hex[0]) << 4 | g_ascii_xdigit_value(hex[1]);
            g_byte_array_append(out, &byte, 1);
            hex += 2;
        }
    }
    return g_byte_array_free_to_bytes(out);
}

void assert_bytes(GBytes *got, const char *hex)
{
    g_autoptr(GBytes) expect = bytes_of(hex);

    g_assert_cmpmem(g_bytes_get_data(got, NULL), g_bytes_get_size(got),
                    g_bytes_get_data(expect, NULL), g_bytes_get_size(expect));
}

GBytes *save_json(const VMStateDescription *vmsd, void *opaque, char **json, GError **errp)
{
    g_autoptr(QEMUFile) f = qemu_file_new_memory_output(1 << 20);
    g_autoptr(JSONWriter) w = json_writer_new(false);

    json_writer_start_object(w, NULL);
    if (vmstate_save_state(f, vmsd, opaque, w, errp) < 0) {
        return NULL;
    }
    json_writer_end_object(w);
    if (json) {
        *json = g_strdup(json_writer_get(w));
    }
    return qemu_file_memory_steal(f);
}

void assert_saves(const VMStateDescription *vmsd, void *opaque, const char *hex)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(GBytes) got = save_json(vmsd, opaque, NULL, &err);

    g_assert_no_error(err);
    assert_bytes(got, hex);
}

int load_version(const VMStateDescription *vmsd, void *opaque, const char *hex, int version_id,
                 GError **errp)
{
    g_autoptr(GBytes) bytes = bytes_of(hex);
    g_autoptr(QEMUFile) f = qemu_file_new_memory_input(bytes);
    int ret = vmstate_load_state(f, vmsd, opaque, version_id, errp);

    g_assert_true(ret < 0 || qemu_file_at_end(f));
    return ret;
}

void assert_loads(const VMStateDescription *vmsd, void *opaque, const char *hex)
{
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(load_version(vmsd, opaque, hex, vmsd->version_id, &err), ==, 0);
    g_assert_no_error(err);
}

void assert_refused(const VMStateDescription *vmsd, void *opaque, const char *hex, int ret,
                    const char *message)
{
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(load_version(vmsd, opaque, hex, vmsd->version_id, &err), ==, ret);
    g_assert_cmpstr(err ? err->message : NULL, ==, message);
}

void assert_not_saved(const VMStateDescription *vmsd, void *opaque, const char *message)
{
    g_autoptr(GError) err = NULL;

    g_assert_null(save_json(vmsd, opaque, NULL, &err));
    g_assert_cmpstr(err->message, ==, message);
}
