/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of a device with a field of every kind, from a hostile source. The first byte chooses
 * the version, the rest is the payload. What is accepted can be saved, and is the same when it is
 * loaded again.
 */
#include <glib.h>
#include <stdint.h>

#include "tests/unit/vmstate-rich.h"
#include "vmstate/vmstate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static GBytes *save(RichState *state)
{
    g_autoptr(QEMUFile) f = qemu_file_new_memory_output(G_MAXINT);
    g_autoptr(JSONWriter) vmdesc = json_writer_new(false);
    int ret;

    json_writer_start_object(vmdesc, NULL);
    ret = vmstate_save_state(f, &vmstate_rich, state, vmdesc, NULL);
    json_writer_end_object(vmdesc);
    g_assert_cmpint(ret, ==, 0);
    return qemu_file_memory_steal(f);
}

static int load(RichState *state, GBytes *bytes, int version_id)
{
    g_autoptr(QEMUFile) f = qemu_file_new_memory_input(bytes);
    g_autoptr(GError) err = NULL;
    int ret = vmstate_load_state(f, &vmstate_rich, state, version_id, &err);

    rich_check(state);
    g_assert_true((ret < 0) == (err != NULL));
    return ret;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GBytes) input = NULL;
    g_autoptr(GBytes) saved = NULL;
    g_autoptr(GBytes) again = NULL;
    RichState *state;

    if (size < 1) {
        return -1;
    }
    input = g_bytes_new_static(data + 1, size - 1);
    state = rich_new();
    if (load(state, input, data[0] % 8) == 0) {
        RichState *copy = rich_new();

        saved = save(state);
        g_assert_cmpint(load(copy, saved, vmstate_rich.version_id), ==, 0);
        again = save(copy);
        g_assert_true(g_bytes_equal(saved, again));
        rich_free(copy);
    }
    rich_free(state);
    return 0;
}
